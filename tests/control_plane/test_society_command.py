"""`maft serve` and `maft ask` as a user has them, with the stand-in for vLLM."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import openai
import psutil
import pytest
from conftest import MOCK, free_port, wait_until
from handled import handled
from societies import QUESTION, RUN, society, trained
from yarl import URL

from maft.society_spec import SocietySpec
from maft_operator.__main__ import main
from maft_operator.local import ask, place, society_command
from maft_operator.local import society as local_society
from maft_operator.spec.schema import BadSpec

programs = pytest.mark.programs
MAFT = [sys.executable, "-m", "maft_operator"]
SERVE = ["--serve", f"{sys.executable} {MOCK}"]


def maft(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([*MAFT, *words], capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def started_by(process: psutil.Process) -> list[psutil.Process]:
    return process.children(recursive=True)


@programs
def test_a_run_is_served_until_it_is_interrupted(tmp_path):
    trained(tmp_path / "store")
    port, log = free_port(), tmp_path / "log.txt"
    with log.open("wb") as output:
        command = [
            *MAFT,
            "serve",
            str(tmp_path / "store" / RUN),
            f"--port={port}",
            "--set",
            "mode=fast",
            "--set",
            "maxConcurrentPerKey=2",
            *SERVE,
        ]
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    children: list[psutil.Process] = []
    try:
        wait_until(lambda: process.poll() is not None or "Ready: " in log.read_text(), 90, log.read_text)
        assert f"Ready: http://127.0.0.1:{port}/v1  (models: society, society/majority, society/generator-1" in log.read_text()
        assert "warning: --set maxConcurrentPerKey: 2, and without API keys it limits nobody" in log.read_text()
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
        answer = client.chat.completions.create(model="society", messages=[{"role": "user", "content": QUESTION}])
        assert answer.choices[0].model_extra["maft"]["answer"]
        children = started_by(psutil.Process(process.pid))
        assert len(children) >= 2
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 20)
    logs = tmp_path / "store" / RUN / "local" / "society"
    assert (logs / "endpoint.txt").exists() and (logs / "society-server" / "log-0.txt").exists()


@programs
def test_it_is_interrupted_while_it_reads_the_run(tmp_path):
    """A store that does not answer: here a pipe that nobody writes to."""
    (tmp_path / "store" / RUN).mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / RUN / "run.json")
    command = [*MAFT, "serve", str(tmp_path / "store" / RUN), f"--port={free_port()}", *SERVE]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        wait_until(lambda: process.poll() is not None or started_by(psutil.Process(process.pid)), 90)
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), process.stderr.read()) == (130, b"")
    finally:
        process.kill()
        process.wait()


@programs
def test_a_port_on_which_another_society_answers_is_refused_before_anything_starts(tmp_path):
    """Whoever waits for `Ready` would ask the other one."""
    spec = trained(tmp_path / "store")
    with society(tmp_path, spec) as url:
        port = URL(url).port
        done = maft("serve", str(tmp_path / "store" / RUN), f"--port={port}", *SERVE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --port {port}: Address already in use; choose another port\n"


@programs
@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--host=no.such.host.invalid", "--host no.such.host.invalid: "),
        ("--host=203.0.113.7", "--port 8080: Cannot assign requested"),
    ],
)
def test_an_address_that_is_not_of_this_machine_is_refused_before_anything_starts(tmp_path, flag, line):
    trained(tmp_path / "store")
    done = maft("serve", str(tmp_path / "store" / RUN), flag, *SERVE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["http://", "localhost:8080", "ftp://here", "http://here:99999", "http://[::1", "/v1"])
def test_what_is_no_url_of_a_society_is_refused_by_the_flag(url, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["ask", f"--url={url}", "hi"])
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.startswith(f"error: --url {url}: expected http://HOST") and line.count("\n") == 1


def test_a_debate_without_an_answer_ends_the_command_with_an_error():
    lines: list[str] = []
    vote = {"answer": None, "margin": 0, "abstained": True, "agents": [], "warning": "a warning"}
    with pytest.raises(ask.Unanswered, match="nobody gave an answer"):
        ask._say_vote(vote, lines.append)
    assert lines == ["warning: a warning"]


@programs
def test_a_question_starts_a_society_for_itself(tmp_path):
    trained(tmp_path / "store")
    asked = maft("ask", str(tmp_path / "store" / RUN), QUESTION, *SERVE)
    assert asked.returncode == 0, asked.stderr
    lines = asked.stdout.splitlines()
    assert sorted(line[:17] for line in lines[:6]) == [f"round {m}, agent {n}:" for m in (1, 2) for n in (1, 2, 3)]
    assert lines[6].startswith("I work it out. Answer: ") and ", margin " in lines[7] and len(lines) == 8
    assert lines[7].startswith(f"answer {lines[6].rpartition(' ')[2]}, ")


@programs
def test_a_running_society_is_asked(tmp_path):
    spec = trained(tmp_path / "store")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "me").write_text("my-key")
    with society(tmp_path, spec, None, f"--keys={tmp_path / 'keys'}") as url:
        answered = maft("ask", "--url", url, QUESTION, MAFT_API_KEY="my-key")
        assert answered.returncode == 0 and ", margin " in answered.stdout.splitlines()[-1]
        one = maft("ask", "--url", f"{url}/v1/", QUESTION, "--model=society/critic-3", MAFT_API_KEY="my-key")
        assert one.stdout.startswith("I work it out.") and len(one.stdout.splitlines()) == 1
        unknown = maft("ask", "--url", url, QUESTION, "--model=gpt-5", MAFT_API_KEY="my-key")
        assert unknown.returncode == 2 and "there are society, society/majority" in unknown.stderr
        assert unknown.stderr.startswith("error: ") and unknown.stderr.count("\n") == 1
        keyless = maft("ask", "--url", url, QUESTION)
        assert keyless.returncode == 2 and "set MAFT_API_KEY" in keyless.stderr
    away = maft("ask", "--url", url, QUESTION)
    assert away.returncode == 1
    assert away.stderr == f"error: {url} does not answer: Connection refused; start maft serve, or correct the address\n"


def test_a_society_that_is_silent_is_not_waited_for_for_ever():
    """Its node is lost, say: nobody closes the connection then."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await asyncio.wait_for(ask.ask(f"http://127.0.0.1:{port}", QUESTION, "society", print, silence=0.1), 20)

    with pytest.raises(ask.Unanswered, match="does not answer"):
        asyncio.run(scenario())


WRONG = {
    "no run": (["serve", "{store}/ns/other"], "no run is there"),
    "no place": (["serve", "run"], "RUN run: expected STORE/NAMESPACE/NAME"),
    "an iteration that is not there": (["serve", "{store}/ns/run", "--iteration", "4"], "the run has the iterations 1 to 1"),
    "a field of nothing": (
        ["serve", "{store}/ns/run", "--set", "modus=fast"],
        "--set modus: no field of a society; there are mode",
    ),
    "a field that does not fit": (
        ["ask", "{store}/ns/run", "?", "--set", "timeoutSeconds=0"],
        "--set timeoutSeconds: 0; expected at least 1",
    ),
    "no setting": (["ask", "{store}/ns/run", "?", "--set", "mode"], "--set mode: expected KEY=VALUE"),
    "a kind that does not fit": (["serve", "{store}/ns/run", "--set", "mode=faster"], "--set mode: 'faster'; expected one of "),
    "nobody to ask": (["ask", "What is 1+1?"], "RUN, QUESTION: one is missing"),
    "two to ask": (["ask", "--url", "http://127.0.0.1:9", "{store}/ns/run", "?"], "not with --url"),
    "no address": (["ask", "--url", "127.0.0.1:8080", "?"], "--url 127.0.0.1:8080: expected http://HOST:PORT"),
    "settings of one that runs": (["ask", "--url", "http://127.0.0.1:9", "--set", "mode=fast", "?"], "--set: not with --url"),
    "GPUs of one that runs": (["ask", "--url", "http://127.0.0.1:9", "--gpus", "0", "?"], "--gpus: not with --url"),
    "fewer GPUs than none": (["serve", "{store}/ns/run", "--gpus", "-1"], "--gpus -1: expected a whole number from 0 to 8"),
    "no port": (["serve", "{store}/ns/run", "--port", "99999"], "--port 99999: expected a whole number from 0 to 65535"),
    "no question": (["ask", "--url", "http://127.0.0.1:9", " "], "QUESTION: is empty"),
}


@programs
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_served_is_said_in_a_line(tmp_path, case):
    trained(tmp_path / "store")
    words, message = WRONG[case]
    ended = maft(*(word.format(store=tmp_path / "store") for word in words), *SERVE)
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and message in ended.stderr, ended.stderr
    assert ended.stderr.count("\n") == 1


@programs
def test_a_server_that_cannot_start_is_said(tmp_path):
    trained(tmp_path / "store")
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('there is no such engine')")
    ended = maft("ask", str(tmp_path / "store" / RUN), QUESTION, "--serve", f"{sys.executable} {broken}")
    assert ended.returncode == 1 and "there is no such engine" in ended.stderr


@pytest.mark.parametrize(
    ("text", "store", "key", "url"),
    [
        ("runs/default/a", "runs", "default/a", "runs/default/a"),
        ("/default/a/", "/", "default/a", "/default/a"),
        ("s3://b/p/ns/n?endpoint=http://h:9", "s3://b/p?endpoint=http://h:9", "ns/n", "s3://b/p/ns/n"),
    ],
)
def test_a_place(text, store, key, url):
    found = place.parse(text)
    assert (found.store, found.key, found.url) == (store, key, url)


@pytest.mark.parametrize("text", ["", "a", "a/b", "a//b", "//", "s3://b"])
def test_no_place(text):
    with pytest.raises(BadSpec, match="expected STORE/NAMESPACE/NAME"):
        place.parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "::", "::1"])
def test_a_client_can_ask_at_the_address(host):
    """Of one that is none, `maft serve` would wait for ever until it is ready."""
    url = URL(local_society.url_of(host, 8080))
    assert (url.host, url.port) == (host, 8080)


def test_settings_are_the_societys_fields():
    settings = ["mode=fast", "maxConcurrentDebates=8", "keepQuestions=true"]
    assert society_command.fields(settings) == SocietySpec(mode="fast", max_concurrent_debates=8, keep_questions=True)


def test_words_about_a_vote():
    agents = [{"agent": 1, "agrees": True, "answer": "4"}, {"agent": 2, "agrees": False, "answer": None}]
    vote = {"answer": "4", "margin": 1, "abstained": False, "agents": agents}
    assert ask.verdict(vote) == "answer 4, margin 1 of 2; agent 1 agrees"
    assert ask.verdict({**vote, "abstained": True}) == "no majority among 2 agents; the answer of 1 is 4"
    assert ask.verdict({"answer": None, "margin": 0, "abstained": True, "agents": []}) == "nobody gave an answer that can be read"
    assert ask.turn({"round": 1, "agent": 2, "answer": None, "text": "I\nam lost"}) == "round 1, agent 2: no answer   (I am lost)"


class Answers(BaseHTTPRequestHandler):
    """A server that is no society of ours."""

    body = b""
    status = 200

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def asked(body: bytes, status: int = 200) -> list[str]:
    """What is shown of such an answer."""
    lines: list[str] = []
    with handled(type("Handler", (Answers,), {"body": body, "status": status})) as url:
        asyncio.run(ask.ask(url, QUESTION, "society", lines.append))
    return lines


STEERING = "a\x1b]0;x\x07\r\x9b2J\nb"


def test_what_a_model_says_steers_no_terminal():
    turn = {"round": 1, "agent": 1, "answer": STEERING, "text": STEERING}
    delta, vote = {"delta": {}, "maft": {"turn": turn}}, {"answer": STEERING, "margin": 1, "abstained": False, "agents": []}
    events = [delta, {"delta": {"content": STEERING}}, {"delta": {}, "maft": vote}]
    body = b"".join(b"data: " + json.dumps({"choices": [event]}).encode() + b"\n\n" for event in events)
    shown = asked(body)
    assert len(shown) == 3 and shown[1].splitlines()[-1] == "b"
    assert all(sign.isprintable() or sign == "\n" for sign in "".join(shown))


@pytest.mark.parametrize("body", [b'data: {"choices": [\n\n', b"data: x\n", b"data: " + b"x" * 5_000_000])
def test_what_is_no_event_is_one_line(body):
    with pytest.raises(ask.Unanswered, match="answers what is no event of a society"):
        asked(body)


def test_a_refusal_steers_no_terminal():
    with pytest.raises(BadSpec) as error:
        asked(json.dumps({"error": {"message": STEERING}}).encode(), 404)
    assert "\x1b" not in str(error.value)


def test_a_key_that_no_header_takes_is_not_shown(monkeypatch):
    monkeypatch.setenv(ask.KEY, "hun\nter2")
    with pytest.raises(BadSpec, match="MAFT_API_KEY: holds what no header takes") as error:
        asked(b"")
    assert "ter2" not in str(error.value)


def test_societies_of_one_run_at_the_same_time_have_a_folder_each(tmp_path: Path) -> None:
    """And what one has left the next one takes."""
    first = tmp_path / "local" / "society"
    with local_society.claimed(first) as one, local_society.claimed(first) as two, local_society.claimed(first) as three:
        assert [one, two.name, three.name] == [first, "society-2", "society-3"]
    with local_society.claimed(first) as again:
        assert again == first
