"""What every program shares: the door at which its command line is decoded, its exit codes, its summary, its progress.

Exit code 0: the output is committed. 2: wrong input, one line on stderr, trying again will not help. 75: another pod of the same
task is gone, and this one is to begin again with it. Anything else: a fault that may pass. What is fixed during a run comes as
one JSON argument (`--spec`, maft.spec), what varies as flags; behind `run` everything is typed.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn, get_args
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from maft import __version__, logs, pod, revision
from maft.errors import BadInput, PeerLost, PeersMissing, one_line, with_kind
from maft.spec import SERVER_KEY, UNREADABLE, Compared, Spec, decode_spec
from maft.store.base import Store
from maft.store.urls import open_store
from maft.summaries import BAD_INPUT, PEER_LOST, PEERS_MISSING, Failure, ProgramSummary, encode_summary

Takes = Literal["spec", "iteration", "agents", "servers", "group", "compared", "gpus", "shard", "part"]
Part = Literal["held-out", "validation"]
ERROR_BYTES = 2000  # of a message in a summary
MOST_GPUS = 8  # of one process, as in the schema
MOST_SHARDS = 64  # of a debate, as in the schema
INDEX = "JOB_COMPLETION_INDEX"  # what Kubernetes tells the pods of an Indexed Job
MOST = 999  # iterations and agents: names of adapters have three digits for each
PORTS = 65535
_KEY = re.compile(r"[A-Za-z0-9][\w.-]{0,252}/[A-Za-z0-9][\w.-]{0,252}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}")
_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)  # no space, no control character, and names of hosts in ASCII


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a program was started for, decoded. Fields that it does not take keep their defaults."""

    store: Store
    """Where the run's objects lie."""
    run: str
    """NAMESPACE/NAME: the run's prefix in the store."""
    given_spec: Spec | None = None
    iteration: int = 0
    """l: which debate, training or evaluation."""
    agents: tuple[int, ...] = ()
    """The agents to train, from 0."""
    servers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """URLs of the replicas of each server; one server for all agents, or one per agent, in their order."""
    group: str = ""
    """NAMESPACE/NAME of a comparison: it has questions, servers and the base's calls in common with other runs."""
    compared: tuple[Compared, ...] = ()
    """The finished runs of a comparison."""
    gpus: int | None = None
    """What is binding; 0: the CPU; None: what is there."""
    shard: int | None = None
    """Which of the debate's shards this program has; None: all questions are its own."""
    part: Part = "held-out"
    """Which questions are debated, of those that train nothing."""
    metrics: tuple[str, int] = ("", 0)
    """Host (empty: all addresses) and port of the program's own metrics; port 0: none."""
    key: str = field(default="", repr=False)
    """What its servers want of whoever asks them; empty: nothing."""

    @property
    def spec(self) -> Spec:
        """Returns what the run computes."""
        assert self.given_spec is not None, "a program that reads the spec takes it"
        return self.given_spec

    @property
    def questions(self) -> str:
        """Names the run whose questions are asked: the comparison's, else its own."""
        return self.group or self.run


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line: programs are started by a plan, seldom by hand."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; `maft plan FILE` shows the whole command line of every program\n")


def parser(name: str, description: str, takes: Sequence[Takes] = ()) -> argparse.ArgumentParser:
    """Makes the command line: where the run's objects lie, where the summary goes, where progress is read; and what the program
    takes."""
    flags = _Parser(
        prog=f"python -m maft.{name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument("--store", required=True, help="file:///folder or s3://bucket/prefix?endpoint=URL&region=NAME")
    flags.add_argument("--run", required=True, help="NAMESPACE/NAME of the run: its prefix in the store")
    for taken in takes:
        _ADD[taken](flags)
    environment = os.environ.get
    flags.add_argument("--summary", default=environment("MAFT_SUMMARY"), help="file for the JSON summary [MAFT_SUMMARY]")
    flags.add_argument("--metrics-port", default=environment("MAFT_METRICS_PORT", "0"), help="0: no metrics [MAFT_METRICS_PORT]")
    flags.add_argument("--metrics-host", default=environment("MAFT_METRICS_HOST", ""), help="empty: all [MAFT_METRICS_HOST]")
    return flags


def _spec(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--spec", metavar="JSON", help="what the run computes; `maft plan FILE` shows it, and every whole command")


def _iteration(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--iteration", required=True, help="the iteration that is worked on; 0: the untrained model")


def _agents(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--agent", action="append", required=True, help="an agent's number, from 0; may be repeated")


def _servers(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--server", action="append", required=True, metavar="NAME=URL", help="one for all agents, or one per agent")


def _group(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--group",
        default="",
        metavar="NAMESPACE/NAME",
        help="the comparison that the run belongs to: its questions and the base's calls",
    )


def _compared(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--compared", required=True, metavar="JSON", help="the finished runs, a list of method, seed, run, iteration"
    )


def _gpus(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--gpus", help="GPUs to use, no more and no fewer; 0: the CPU [what is there]")


def _shard(flags: argparse.ArgumentParser) -> None:
    text = f"which of debate.shards this program debates, from 0; without it all questions [{INDEX}, where there are several]"
    flags.add_argument("--shard", help=text)


def _part(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--part", default="held-out", choices=get_args(Part), help="which questions are debated")


_ADD: dict[Takes, Callable[[argparse.ArgumentParser], None]] = {
    "spec": _spec,
    "iteration": _iteration,
    "agents": _agents,
    "servers": _servers,
    "group": _group,
    "compared": _compared,
    "gpus": _gpus,
    "shard": _shard,
    "part": _part,
}


def decode(arguments: argparse.Namespace) -> Assignment:
    """Decodes the flags; BadInput for the first that cannot be read."""
    given = vars(arguments)
    spec = _decoded_spec(given["spec"]) if "spec" in given else None
    return Assignment(
        store=open_store(arguments.store),
        run=_key("--run", arguments.run),
        given_spec=spec,
        iteration=number("--iteration", given.get("iteration", "0"), most=MOST),
        agents=tuple(number("--agent", agent, most=MOST) for agent in given.get("agent", ())),
        servers=parse_servers(given.get("server", ())),
        group=_key("--group", given["group"]) if given.get("group") else "",
        compared=_decoded_compared(given["compared"]) if "compared" in given else (),
        gpus=number("--gpus", given["gpus"], most=MOST_GPUS) if given.get("gpus") is not None else None,
        shard=_decoded_shard(given["shard"], spec) if "shard" in given else None,
        part=given.get("part", "held-out"),
        metrics=(arguments.metrics_host, number("--metrics-port", arguments.metrics_port, most=PORTS)),
        key=_server_key(os.environ.get(SERVER_KEY, "")) if "server" in given else "",
    )


def _key(flag: str, text: str) -> str:
    if not _KEY.fullmatch(text):
        raise BadInput(f"{flag} {text!r}: expected NAMESPACE/NAME, such as default/arithmetic")
    return text


def _server_key(text: str) -> str:
    if not (text.isascii() and text.isprintable()):  # it goes into a header
        raise BadInput(f"{SERVER_KEY}: holds a line's end, or characters that are not ASCII; give a key without them")
    return text


def number(flag: str, text: str, *, least: int = 0, most: int) -> int:
    """Reads the whole number that a flag gives; BadInput for another one, or for none."""
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise BadInput(f"{flag} {text!r}: expected a whole number from {least} to {most}")
    return int(text)


def _decoded_spec(text: str | None) -> Spec:
    if text is None:
        raise BadInput("--spec: missing; `maft plan FILE` shows the spec and the whole command line of every program")
    try:
        return decode_spec(text)
    except UNREADABLE as error:
        raise BadInput(f"--spec: {error}; `maft plan FILE` shows what is expected") from None


def _decoded_shard(flag: str | None, spec: Spec | None) -> int | None:
    """The flag, or else what Kubernetes says, where the debate has several programs: any pod may be one of an Indexed Job."""
    if flag is not None:
        return number("--shard", flag, most=MOST_SHARDS - 1)
    index = os.environ.get(INDEX) if spec and spec.debate.shards > 1 else None
    return None if index is None else number(INDEX, index, most=MOST_SHARDS - 1)


def _decoded_compared(text: str) -> tuple[Compared, ...]:
    try:
        return msgspec.json.decode(text, type=tuple[Compared, ...])
    except UNREADABLE as error:
        raise BadInput(f"--compared: {error}; `maft compare FILE` makes it") from None


def parse_servers(flags: Sequence[str]) -> dict[str, list[str]]:
    """Sorts `NAME=URL` flags by name, in order."""
    table: dict[str, list[str]] = {}
    for flag in flags:
        name, equals, url = flag.partition("=")
        if not (name and equals and _is_address(url)):
            raise BadInput(f"--server {flag}: expected NAME=http://HOST:PORT")
        table.setdefault(name, []).append(url)
    return table


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")  # UnicodeError, a ValueError: a label that is empty or too long
        return bool(_URL.fullmatch(url) and host and (parts.port is None or parts.port))
    except ValueError:  # brackets without an end, a port that is none
        return False


class Progress:
    """How far a program is, as `maft_progress_done`, `maft_progress_expected` and a few metrics of its own.

    address: host and port to serve them at; port 0: nowhere."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.registry = CollectorRegistry()
        self.done = Gauge(
            "maft_progress_done", "Units of work finished; of a question under way the share of its answers", registry=self.registry
        )
        self.total = Gauge("maft_progress_expected", "Units of work in all", registry=self.registry)
        host, port = address
        if port:
            try:
                start_http_server(port, addr=host or pod.everywhere(), registry=self.registry)
            except OSError as error:
                raise OSError(f"--metrics-port {port}: {error.strerror}; choose another port") from error

    def gauge(self, name: str, text: str) -> Gauge:
        """Makes a gauge `maft_<name>`."""
        return Gauge(f"maft_{name}", text, registry=self.registry)

    def counter(self, name: str, text: str) -> Counter:
        """Makes a counter `maft_<name>_total`."""
        return Counter(f"maft_{name}", text, registry=self.registry)


def without_torch() -> None:
    """Hides torch from programs that read configurations and tokenizers, no weights: transformers imports it where there is one,
    which takes seconds. It asks once whether there is, and remembers; what a model's own code imports is left alone. What they
    compute with numpy is small and done in threads of their own, each on one processor: more would wait for each other."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say that it found none
    sys.modules["torch"] = None  # type: ignore[assignment] # importing it fails now
    from transformers.utils import is_torch_available

    is_torch_available()
    del sys.modules["torch"]


def pinned(assignment: Assignment) -> Assignment:
    """Returns it with the revision of the model that `prepare` found."""
    if assignment.given_spec is None:
        return assignment
    known = revision.pinned(assignment.store, assignment.questions, assignment.run, assignment.given_spec)
    return replace(assignment, given_spec=known)


def run(
    main: Callable[[Assignment], ProgramSummary],
    flags: argparse.ArgumentParser,
    door: Callable[[Assignment], Assignment] = pinned,
) -> NoReturn:
    """Decodes the flags, runs the program, writes its summary and exits. door: what an assignment goes through before."""
    arguments = flags.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    stage = f"-{arguments.iteration}" if str(getattr(arguments, "iteration", "")).isdecimal() else ""
    stage += "-validation" if getattr(arguments, "part", "") == "validation" else ""
    with logs.kept(arguments.store, arguments.run, flags.prog.rpartition(".")[2] + stage):
        _ended(lambda: main(door(decode(arguments))), arguments.summary)


def _ended(main: Callable[[], ProgramSummary], summary: str | None) -> NoReturn:
    try:
        write_summary(summary, main())
    except BadInput as error:
        fail(summary, error, BAD_INPUT)
    except PeerLost as error:
        fail(summary, error, PEER_LOST)
    except PeersMissing as error:
        fail(summary, error, PEERS_MISSING)
    except (OSError, MemoryError) as error:
        fail(summary, error, 1)
    except Exception as error:  # nobody foresaw it: whoever looks at the run gets a line, whoever mends it the traceback
        traceback.print_exception(error)
        fail(summary, RuntimeError(with_kind(error)), 1)
    raise SystemExit(0)


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def fail(summary: str | None, error: BaseException, code: int) -> NoReturn:
    """Writes a Failure of one line as the summary, says it on stderr, and exits with that code."""
    line = one_line(error)
    with contextlib.suppress(OSError):  # the summary has no place; the reason goes to stderr, and the exit code stays
        write_summary(summary, Failure(error=_cut(line)))
    print(f"error: {line}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def _cut(line: str) -> str:
    """As much of it as a summary has room for: bytes of UTF-8, not characters; control characters would grow in JSON."""
    printable = "".join(c if c.isprintable() else "?" for c in line)
    return printable.encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore")


def write_summary(path: str | None, summary: ProgramSummary) -> None:
    """Writes the summary, all or nothing where the file system allows it. ValueError if it is too long."""
    data = encode_summary(msgspec.structs.replace(summary, version=__version__))
    if not path:
        return
    target = Path(path)
    if target.exists() and not os.access(target.parent, os.W_OK):
        target.write_bytes(data)  # a container's /dev/termination-log is a mounted file: it cannot be replaced
        return
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, target)
