"""Logs of programs in the bucket: their end, however they end, without secrets, and never at the cost of the program."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import free_port
from hypothesis import given
from hypothesis import strategies as st
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`

from maft.logs import KEPT, Tail, redacted
from maft.logs import kept as leaving
from maft.redaction import REMOVED
from maft.store.urls import open_store

PROGRAM = """
import argparse, logging, sys
from maft import program
from maft.errors import BadInput
from maft.summaries import ReportSummary

def main(assignment):
    print("to standard output")
    print("to standard error", file=sys.stderr)
    logging.getLogger("some.library").warning("by logging")
    print("a key: " + __import__("os").environ["AWS_SECRET_ACCESS_KEY"] + " http://me:word@host/x")
    exec(sys.stdin.read())
    return ReportSummary(report="r", results=(), debates=0, in_page=0)

program.run(main, program.parser("report", "for this test"))
"""


def ended(url: str, folder: Path, act: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program that writes, then does that."""
    line = [sys.executable, "-c", PROGRAM, "--store", url, "--run", "ns/r", "--summary", str(folder / "summary.json")]
    return subprocess.run(line, input=act, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


def kept(s3: S3Server, url: str) -> dict[str, str]:
    store = open_store(url)
    return {key: store.read(key).decode() for key in store.list("ns/r/")}


@pytest.mark.s3
@pytest.mark.programs
@pytest.mark.parametrize(
    ("act", "code", "last"),
    [
        ("", 0, ""),
        ("raise BadInput('task.train: too few')", 2, "error: task.train: too few\n"),
        ("raise ValueError('odd')", 1, "error: ValueError: odd\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM); __import__('time').sleep(60)", 143, ""),
    ],
)
def test_the_end_of_a_log_is_kept_however_its_program_ends(s3: S3Server, tmp_path, monkeypatch, act, code, last) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    url = s3.url(f"logs/{tmp_path.name}-{code}")
    done = ended(url, tmp_path, act)
    assert done.returncode == code, done.stderr
    [(key, text)] = kept(s3, url).items()
    assert key.startswith("ns/r/logs/report-20") and key.endswith(".log")
    assert "to standard output\n" in text and "to standard error\n" in text and "by logging" in text
    assert text.endswith(last) and f"a key: {REMOVED} http://{REMOVED}@host/x\n" in text
    assert s3.secret_key not in text and s3.secret_key in done.stdout  # the pod's own log is as it was
    if code == 1:
        assert "Traceback" in text


@pytest.mark.programs
@pytest.mark.parametrize("url", ["s3://bucket/x?endpoint=http://127.0.0.1:{port}&region=x", "s3://-/x"])
def test_a_log_that_cannot_be_kept_changes_nothing(url: str, tmp_path: Path) -> None:
    """Only what the program itself makes of such a store counts: here nothing, for it does not use it."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a secret of it", "AWS_EC2_METADATA_DISABLED": "true"}
    began = time.monotonic()
    done = ended(url.format(port=free_port()), tmp_path, "", **keys)
    assert time.monotonic() - began < 60
    assert done.returncode == (2 if url == "s3://-/x" else 0)
    assert "this log is not kept in the bucket: " in done.stderr or url == "s3://-/x"
    assert (tmp_path / "summary.json").exists()


@pytest.mark.programs
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_store_that_hangs_costs_three_seconds_and_no_exit_code(interrupted: bool, tmp_path: Path) -> None:
    """The program is done when it asks the store, which takes the connection and never says a word."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a secret of it", "AWS_EC2_METADATA_DISABLED": "true"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        url = f"s3://bucket/x?endpoint=http://127.0.0.1:{server.getsockname()[1]}&region=x"
        line = [sys.executable, "-c", PROGRAM, "--store", url, "--run", "ns/r", "--summary", str(tmp_path / "summary.json")]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(line, env={**os.environ, **keys}, text=True, **pipes) as program:
            connection, _ = server.accept()
            began = time.monotonic()
            with connection:
                if interrupted:
                    program.send_signal(signal.SIGTERM)
                _, error = program.communicate(timeout=60)
    assert program.returncode == 0, error
    assert time.monotonic() - began < 8
    assert error.endswith("this log is not kept in the bucket: the store does not answer\n")


def test_what_cannot_be_redacted_is_not_kept_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with leaving("s3://bucket/x?endpoint=http://127.0.0.1:1&region=x", "ns/r", "report", {"A_TOKEN": 12345678}):  # no text: a fault
        print("a line")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    out, error = capsys.readouterr()
    assert out == "a line\n" and error.startswith("this log is not kept in the bucket: ") and "int" in error


HANG = """
def hang(main=__import__("threading").main_thread(), write=__import__("os").write, forever=__import__("threading").Event()):
    main.join()
    write(2, b"main is done\\n")
    forever.wait()
__import__("threading").Thread(target=hang).start()
"""


@pytest.mark.programs
def test_a_thread_that_hangs_at_the_end_is_ended_by_a_signal(tmp_path: Path) -> None:
    """The interpreter waits for it, after the log is left; the exit code is the program's."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a secret of it", "AWS_EC2_METADATA_DISABLED": "true"}
    url = f"s3://bucket/x?endpoint=http://127.0.0.1:{free_port()}&region=x"
    line = [sys.executable, "-c", PROGRAM, "--store", url, "--run", "ns/r", "--summary", str(tmp_path / "summary.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, env={**os.environ, **keys}, text=True, **pipes) as program:
        assert program.stdin and program.stderr
        program.stdin.write(HANG)
        program.stdin.close()
        assert any(text == "main is done\n" for text in program.stderr)
        began = time.monotonic()
        while (
            program.poll() is None and time.monotonic() - began < 20
        ):  # one that comes before it waits is taken by whatever it does
            program.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(timeout=1)
        program.kill()
    assert program.returncode == 0


@pytest.mark.programs
def test_in_a_folder_no_log_is_kept_twice(tmp_path: Path) -> None:
    done = ended(str(tmp_path / "store"), tmp_path, "", AWS_SECRET_ACCESS_KEY="x" * 20)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "store").exists()


@given(st.lists(st.text(max_size=50), max_size=40), st.integers(1, 60))
def test_a_tail_is_the_end_of_what_was_written(pieces: list[str], most: int) -> None:
    tail = Tail(most)
    for piece in pieces:
        tail.add(piece)
    whole = "".join(pieces)
    assert whole.endswith(tail.text()) and len(tail.text()) <= most
    assert sum(map(len, tail._pieces)) < 2 * most + 50
    if len(whole) <= most:
        assert tail.text() == whole


def test_a_tail_of_many_lines_begins_with_a_whole_one() -> None:
    tail = Tail()
    for number in range(200_000):
        tail.add(f"line {number:09d}\n")
    lines = tail.text().splitlines()
    assert KEPT - 20 < len(tail.text()) <= KEPT and lines[0].startswith("line ") and lines[-1] == "line 000199999"


@pytest.mark.parametrize("end", ["", "\n"])
def test_of_one_line_whose_beginning_is_lost_nothing_stays(end: str) -> None:
    """Its beginning may have said that the rest is a secret."""
    tail = Tail(20)
    tail.add(f"password='{'Zx9hunter2' * 9}'{end}")
    assert tail.text() == ""


def test_what_looks_secret_is_taken_out() -> None:
    environment = {
        "HF_TOKEN": "hf_abcdefgh",
        "MAFT_SERVER_KEY": "0123456789",
        "HOME": "/home/somebody",
        "A_KEY": "short",
        "TOKEN_FILE": "/var/run/token",
    }
    text = "hf_abcdefgh 0123456789 /home/somebody short s3://u:p@q@h/x /var/run/token"
    assert redacted(text, environment) == f"{REMOVED} {REMOVED} /home/somebody short s3://{REMOVED}@h/x /var/run/token"


@pytest.mark.parametrize(
    "name", ["MASTERKEY", "MASTERKEY2", "SSHKEY", "PRIVKEY_1", "WANDB_KEYS", "KEYRING", "apiTokens", "passphrases", "XAUTH"]
)
def test_of_variables_more_names_look_secret(name: str) -> None:
    assert redacted("it is Zx9hunter2 there", {name: "Zx9hunter2"}) == f"it is {REMOVED} there"
