"""The door of the programs: command lines that are refused, summaries that say why, and how a program ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import a_spec

from maft import __version__, program
from maft.errors import BadInput, PeerLost, PeersMissing
from maft.program import Assignment
from maft.serve import __main__ as serve
from maft.spec import Compared, Spec, immutable_spec_json
from maft.store.files import FileStore
from maft.summaries import LIMIT, Failure, PrepareSummary, decode_summary

ITERATION = ["--iteration=1"]
SERVER = ["--server=s=http://127.0.0.1:1"]
# What each program takes beside the spec.
PROGRAMS: dict[str, list[str]] = {
    "prepare": [],
    "preflight": [],
    "debate": [*ITERATION, *SERVER],
    "train": [*ITERATION, "--agent=0"],
    "evaluate": [*ITERATION, *SERVER],
    "diversity": ITERATION,
    "serve": ["--adapters=1"],
}
SPEC = a_spec()
TEXT = immutable_spec_json(SPEC)


def started(folder: Path, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A program at its end, with a store and a file for its summary."""
    command = [sys.executable, "-m", f"maft.{name}", "--store", str(folder / "store"), "--run", "ns/run", *PROGRAMS[name], *flags]
    return subprocess.run(
        [*command, "--summary", str(folder / "summary.json")], check=False, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("flags", [[], ["--store=/s", "--run=ns/run"], ["--store=/s", "--run=ns/run", "--iteration=1", "--odd"]])
def test_a_command_line_that_lacks_something_is_refused_in_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.parser("train", "", takes=("spec", "iteration")).parse_args(flags)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "`maft plan FILE`" in said


@pytest.mark.programs
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("flags", "says"), [([], "missing"), (["--spec={}"], "Object missing required field")])
def test_a_program_without_a_spec_says_where_one_is_shown(tmp_path: Path, name: str, flags: list[str], says: str) -> None:
    done = started(tmp_path, name, *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --spec: {says}")
    assert "`maft plan FILE`" in done.stderr
    assert done.stderr.count("\n") == 1
    said = decode_summary((tmp_path / "summary.json").read_bytes())
    assert said == Failure(version=__version__, error=done.stderr.removeprefix("error: ").rstrip())


def decoded(*flags: str) -> Assignment:
    """The assignment of a program that takes everything."""
    takes: tuple[program.Takes, ...] = ("spec", "iteration", "agents", "servers", "group", "compared")
    common = ["--store", "/s", "--run", "ns/run", "--iteration=3", "--agent=0", "--agent=2", *SERVER, "--compared=[]"]
    return program.decode(program.parser("test", "", takes=takes).parse_args([*common, f"--spec={TEXT}", *flags]))


def changed(before: str, after: str) -> str:
    """The flag of a spec with that change."""
    assert before in TEXT
    return f"--spec={TEXT.replace(before, after)}"


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--spec=", "--spec: Input data was truncated"),
        ("--spec={", "--spec: "),
        ("--spec=[]", "--spec: Expected `object`, got `array`"),
        (changed('"agents":3', '"agents":"three"'), "--spec: Expected `int`, got `str` - at `$.agents`"),
        (changed('"mode":"paper"', '"mode":"slow"'), "--spec: Invalid enum value 'slow' - at `$.debate.mode`"),
        (changed('"rank":4,', ""), "--spec: Object missing required field `rank` - at `$.training.lora`"),
        ("--compared={}", "--compared: Expected `array`, got `object`"),
        ('--compared=[{"method":"debate"}]', "--compared: Object missing required field"),
        ("--server=nonsense", "--server nonsense: expected NAME=http://HOST:PORT"),
        ("--server=s=ftp://h", "--server s=ftp://h: expected NAME=http://HOST:PORT"),
        ("--server==http://h:1", "--server =http://h:1: expected NAME=http://HOST:PORT"),
        ("--server=s=http://", "--server s=http://: expected"),
        ("--server=s=http://[", "--server s=http://[: expected"),
        ("--server=s=http://h:99999", "--server s=http://h:99999: expected"),
        ("--server=s=http://h:x", "--server s=http://h:x: expected"),
        ("--server=s=http://a b", "--server s=http://a b: expected"),
        ("--server=s=http://h\udc80", "--server s=http://h\udc80: expected"),
        ("--spec=\udc80", "--spec: 'utf-8' codec can't encode character"),
        ("--spec=" + '{"a":' * 50_000, "--spec: maximum recursion depth exceeded"),
        ("--compared=\udc80", "--compared: 'utf-8' codec can't encode character"),
        ("--iteration=-1", "--iteration '-1': expected a whole number from 0 to 999"),
        ("--iteration=1.0", "--iteration '1.0': expected a whole number"),
        ("--iteration=1000", "--iteration '1000': expected a whole number"),
        ("--iteration=" + "9" * 5000, "--iteration '999"),
        ("--agent=x", "--agent 'x': expected a whole number from 0 to 999"),
        ("--agent=-1", "--agent '-1': expected a whole number"),
        ("--metrics-port=65536", "--metrics-port '65536': expected a whole number from 0 to 65535"),
        ("--run=run", "--run 'run': expected NAMESPACE/NAME, such as default/arithmetic"),
        ("--run=", "--run '': expected NAMESPACE/NAME"),
        ("--run=ns/", "--run 'ns/': expected NAMESPACE/NAME"),
        ("--run=ns/run/more", "--run 'ns/run/more': expected NAMESPACE/NAME"),
        ("--run=../run", "--run '../run': expected NAMESPACE/NAME"),
        ("--run=ns/..", "--run 'ns/..': expected NAMESPACE/NAME"),
        ("--run=ns/run\n", "--run 'ns/run\\n': expected NAMESPACE/NAME"),
        ("--run=ns/" + "a" * 5000, "--run 'ns/aaa"),
        ("--group=all", "--group 'all': expected NAMESPACE/NAME"),
        ("--store=ftp://h", "store 'ftp://h': "),
        ("--store=", "store '': empty; give file:///folder"),
        ("--store=file:///a%00b", "store 'file:///a%00b': a zero byte is no character of a name"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(flag: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        decoded(flag)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
    assert ("maft plan" in str(caught.value)) == flag.startswith("--spec")
    assert ("maft compare" in str(caught.value)) == flag.startswith("--compared")


def test_a_port_in_the_environment_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAFT_METRICS_PORT", "many")
    with pytest.raises(BadInput, match=r"^--metrics-port 'many': expected a whole number from 0 to 65535$"):
        decoded()


@pytest.mark.parametrize("key", ["two\nlines", "end\n", "clé"])
def test_a_key_that_no_header_takes_is_one_line(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises(BadInput, match=r"^VLLM_API_KEY: holds a line's end, or characters that are not ASCII"):
        decoded("--server=server-0=http://h:1")


@pytest.mark.parametrize(
    ("flag", "says"), [("--port=99999", "from 0 to 65535"), ("--port=x", "from 0"), ("--adapters=0", "from 1")]
)
def test_a_server_looks_at_its_numbers_too(flag: str, says: str) -> None:
    given = serve.parser().parse_args(["--store=/s", "--run=ns/run", f"--spec={TEXT}", "--adapters=1", flag])
    name, _, value = flag.partition("=")
    with pytest.raises(BadInput, match=f"^{name} '{value}': expected a whole number {says}"):
        serve.listens(given)


def test_what_is_decoded() -> None:
    compared = '--compared=[{"method":"debate","seed":1,"run":"r-debate-1","iteration":0}]'
    found = decoded("--server=s=http://127.0.0.1:2", "--group=ns/all", compared, "--metrics-host=::1", "--metrics-port=9")
    assert isinstance(found.store, FileStore)
    assert (found.store.url, found.run, found.iteration, found.agents) == ("file:///s", "ns/run", 3, (0, 2))
    assert found.servers == {"s": ["http://127.0.0.1:1", "http://127.0.0.1:2"]}
    assert (found.group, found.questions) == ("ns/all", "ns/all")
    assert found.compared == (Compared(method="debate", seed=1, run="r-debate-1", iteration=0),)
    assert found.metrics == ("::1", 9)


def test_the_spec_arrives_as_it_was_given() -> None:
    found = decoded().spec
    assert type(found) is Spec
    assert found == Spec(**{name: getattr(SPEC, name) for name in Spec.__struct_fields__})
    assert immutable_spec_json(found) == TEXT


def test_a_spec_with_fields_of_a_newer_release_is_read() -> None:
    assert decoded(f"--spec={json.dumps({**json.loads(TEXT), 'more': 1})}").spec == decoded().spec


def test_a_program_takes_only_what_it_reads() -> None:
    with pytest.raises(SystemExit) as caught:
        program.parser("report", "").parse_args(["--store=/s", "--run=ns/run", f"--spec={TEXT}"])
    assert caught.value.code == 2
    found = program.decode(program.parser("report", "").parse_args(["--store=/s", "--run=ns/run"]))
    assert (found.given_spec, found.iteration, found.agents, found.servers, found.questions) == (None, 0, (), {}, "ns/run")


# --- how a program ends ---


def ended(
    error: BaseException, summary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str]:
    """The exit code and stderr of a program whose work raises that."""

    def main(assignment: Assignment) -> PrepareSummary:
        raise error

    monkeypatch.setattr(sys, "argv", ["prepare", "--store=/s", "--run=ns/run", f"--summary={summary}"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            program.run(main, program.parser("report", ""))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (BadInput("model.source: wrong"), 2, "model.source: wrong"),
        (OSError("store s3://b: unreachable"), 1, "store s3://b: unreachable"),
        (PeerLost("node 1 is lost"), 75, "node 1 is lost"),
        (PeersMissing("training.nodes: 1 of 2 pods came"), 69, "training.nodes: 1 of 2 pods came"),
        (MemoryError(), 1, "MemoryError"),
        (TypeError("'a' is\nno number"), 1, "TypeError: 'a' is no number"),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "no"), 1, "UnicodeEncodeError: 'utf-8' codec can't encode character"),
        (RecursionError("too deep"), 1, "RecursionError: too deep"),
        (AssertionError(), 1, "AssertionError"),
    ],
)
def test_every_end_has_a_reason_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    """Also where nobody foresaw the error: then the traceback stands before the line."""
    found, stderr = ended(error, tmp_path / "summary.json", capsys, monkeypatch)
    said = decode_summary((tmp_path / "summary.json").read_bytes())
    assert isinstance(said, Failure) and said.error.startswith(says)
    assert (found, stderr.splitlines()[-1]) == (code, f"error: {said.error}")
    assert ("Traceback" in stderr) == (not isinstance(error, BadInput | OSError | MemoryError))


def test_a_summary_without_a_place_does_not_change_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended(BadInput("wrong"), tmp_path / "no" / "summary.json", capsys, monkeypatch) == (2, "error: wrong\n")


# --- summaries ---


@pytest.mark.parametrize(
    "error",
    ["错" * 2000, '"\\' * 2000, "\0\x1b\n" * 2000, "😀" * 2000, "\udcff" * 2000, "é" * 999 + "错" * 10, " word" * 1000, ""],
    ids=["chinese", "quotes", "control", "emoji", "surrogates", "cut in a character", "words", "empty"],
)
def test_an_error_of_any_length_fits(tmp_path: Path, error: str, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "summary.json"
    with pytest.raises(SystemExit) as caught:
        program.fail(str(file), BadInput(error), 2)
    assert caught.value.code == 2
    assert len(file.read_bytes()) <= LIMIT
    said = decode_summary(file.read_bytes())
    assert isinstance(said, Failure)
    assert said.version == __version__
    shown = "".join(c if c.isprintable() else "?" for c in " ".join(error.split())) or "BadInput"
    assert shown.startswith(said.error)
    assert len(said.error) >= min(len(shown), 490)  # four bytes a character at most
    assert capfd.readouterr().err.count("\n") == 1


def test_a_summary_replaces_the_one_before_and_says_its_release(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    file.write_text("what was there")
    program.write_summary(str(file), PrepareSummary(train=24, held_out=16))
    assert decode_summary(file.read_bytes()) == PrepareSummary(version=__version__, train=24, held_out=16)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_without_a_file_there_is_no_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program.write_summary(None, PrepareSummary(train=24, held_out=16))
    assert list(tmp_path.iterdir()) == []
