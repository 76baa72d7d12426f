"""Programs as answers: what a program gives on the inputs of its question, each program in a process that reaches nothing.

The process is `maft.answers.confined`. It has no environment, no network, no file to read but the standard library's, no other
process, little time and memory; it is killed with its group when it has answered or its time is over. Where the kernel cannot
confine it, nothing runs: BadInput says what is missing.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

import maft
from maft.answers.confined.lockdown import MEMORY
from maft.answers.confined.values import written
from maft.errors import BadInput, one_line
from maft.records import Cases
from maft.spec import UNREADABLE

# Seconds until a program begins, and until it ends: of a busy machine. Processor time has a limit of its own.
STARTING, RUNNING = 60.0, 60.0
MOST = 1 << 20  # bytes of outputs
LONG = 400  # characters of an output that is written out; a longer one by its beginning and its hash
KNOWN = 50_000  # programs whose outputs are remembered
_ROOT = str(Path(maft.__file__).parents[1])
_TRIAL = Cases("same", "[[7]]")


class Result(msgspec.Struct, frozen=True):
    """What a program gave: outputs on all inputs, or why there is none on one of them."""

    outputs: tuple[str, ...] = ()
    fault: str = ""


class Programs:
    """Runs programs, each once per question; for as many threads as there are."""

    def __init__(self) -> None:
        self._known: dict[tuple[Cases, str], Result] = {}

    def result(self, cases: Cases, program: str) -> Result:
        """Runs a program on the inputs, or remembers what it gave. Blocks. BadInput if it cannot be confined here."""
        known = self._known.get((cases, program))
        if known is None:
            known = run(cases, program) if _has_bytes(program) else Result(fault="the program holds half a character")
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[cases, program] = known
        return known


def at_once(processors: int, memory: int) -> int:
    """Computes how many programs may run at a time: together they get a quarter of the pod's memory. memory: bytes; 0: no limit."""
    return max(1, min(processors, memory // (4 * MEMORY))) if memory else processors


def check() -> None:
    """Raises BadInput unless programs can be confined here."""
    if (result := run(_TRIAL, "def same(x):\n    return x\n")).outputs != ("7",):
        raise BadInput(f"task.answer: a program that returns its argument does not run here ({result.fault})")


def expected(values: Sequence[object]) -> str:
    """Writes the outputs that a row gives as its answer. ValueError for a text without bytes."""
    return joined(tuple(map(written, values)))


def joined(outputs: tuple[str, ...]) -> str:
    """Writes outputs as an answer: what two programs have in common if and only if they agree on all inputs."""
    return "[" + ", ".join(map(_shortened, outputs)) + "]"


def _has_bytes(program: str) -> bool:
    try:
        return bool(program.encode())
    except UnicodeEncodeError:
        return False


def _shortened(output: str) -> str:
    if len(output) <= LONG:
        return output
    return f"{output[:80]}… ({len(output)} characters, sha256 {sha256(output.encode()).hexdigest()})"


def run(cases: Cases, program: str, *, running: float = RUNNING) -> Result:
    """Runs a program once, confined, for at most `running` seconds.

    BadInput if that is not possible here; OSError if the process ends before it begins."""
    inputs = json.loads(cases.inputs)
    request = {"program": program, "function": cases.function, "inputs": inputs, "parent": os.getpid()}
    with _process() as process:
        _send(process, json.dumps(request).encode())
        assert process.stdout
        channel = _Channel(process.stdout.fileno())
        first = channel.line(STARTING)
        if first.startswith(b"refused: "):
            reason = one_line(first.removeprefix(b"refused: ").decode(errors="replace"), 200)
            raise BadInput(
                f"task.answer: code cannot be confined here: {reason}; it takes Linux 5.13 or newer with Landlock and seccomp, "
                "on x86_64 or aarch64: use such nodes, or another kind of answer"
            )
        if first != b"ready":
            raise OSError(f"the process that runs programs ended before it began: {one_line(first, 200)}")
        return _read(channel.rest(running), len(inputs))


@contextlib.contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session and group of its own, which is gone afterwards. Nothing is inherited: no variables, no open files."""
    command = [sys.executable, "-S", "-s", "-P", "-B", "-m", "maft.answers.confined"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": _ROOT, "PYTHONHASHSEED": "0"},
        cwd="/",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so its number is nobody else's
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                assert pipe
                pipe.close()
        process.wait()


def _send(process: subprocess.Popen[bytes], request: bytes) -> None:
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):  # it says why, or says nothing
        process.stdin.write(request)
        process.stdin.close()


class _Channel:
    """What a process says, up to a limit of bytes and of time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = b""

    def line(self, seconds: float) -> bytes:
        """Reads the first line."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._held and self._more(deadline):
            pass
        first, _, self._held = self._held.partition(b"\n")
        return first

    def rest(self, seconds: float) -> bytes | None:
        """Reads up to the end; None if there is none in time, or too much."""
        deadline = time.monotonic() + seconds
        while self._more(deadline):
            if len(self._held) > MOST:
                return None
        return self._held if time.monotonic() < deadline else None

    def _more(self, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return False
        data = os.read(self._descriptor, 1 << 16)
        self._held += data
        return bool(data)


def _read(data: bytes | None, inputs: int) -> Result:
    """Reads what a program left, and believes no more than its form."""
    if data is None:
        return Result(fault="the program takes too long, or gives too much")
    try:
        result = msgspec.json.decode(data, type=Result)
        for output in result.outputs:
            json.loads(output, parse_int=str)  # as a number it may take more time than it took the program
    except (*UNREADABLE, ValueError):
        return Result(fault="the program ended without outputs: its time or memory ran out, or it ended itself")
    if result.fault or len(result.outputs) != inputs:
        return Result(fault=one_line(result.fault, 300) or "the program gave no output for each input")
    return result
