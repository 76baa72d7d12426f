"""Several GPUs in one training task: how many workers, which adapters each of them trains, how they are started and ended.

A worker is the same program once more, with a GPU of its own. It is told its place by an environment variable and says the loss of
every step through a pipe.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import msgspec

from maft import visible
from maft.errors import BadInput
from maft.summaries import Failure, decode_summary
from maft.train.interruption import Interruption

HOST = "127.0.0.1"
PLACE = "MAFT_TRAIN_PLACE"
WORKERS = "MAFT_TRAIN_WORKERS"
GRACE = 15.0  # seconds that workers have to write their checkpoints when they are told to end; the task itself has 20
BAD_INPUT = 2  # a program's exit code
_PDEATHSIG = 1  # prctl(2)
Report = Callable[[float], None]


class Place(msgspec.Struct, frozen=True):
    """What a worker is told."""

    adapters: tuple[str, ...]
    """Those that it trains, as ROLE-AGENT."""
    pipe: int = -1
    """Where it says its losses: an open file's number."""
    rank: int = 0
    """Of ranks that hold one base together."""
    ranks: int = 1
    port: int = 0
    """Where they meet, on this machine."""

    @property
    def leads(self) -> bool:
        """Tells whether it publishes."""
        return self.rank == 0


def _unseen(loss: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Started:
    """How the program was started, as far as workers are concerned."""

    command: tuple[str, ...] = ()
    """The whole command line; workers are started by it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None
    """Of a worker."""
    report: Report = _unseen
    """Is told the loss of every step."""


def started(command: Sequence[str], environment: Mapping[str, str]) -> Started:
    """Reads the place of a worker, if this is one; it ends when the program that started it does."""
    if PLACE not in environment:
        return Started(tuple(command), dict(environment))
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    place = msgspec.json.decode(environment[PLACE], type=Place)

    def report(loss: float) -> None:
        os.write(place.pipe, f"{loss!r}\n".encode())

    return Started(tuple(command), dict(environment), place, report)


def count(asked: int | None, visible: int, adapters: int, environment: Mapping[str, str]) -> int:
    """Decides how many workers a task of so many adapters gets. asked: training.gpus; visible: GPUs that are there; BadInput for
    more than there is work for. MAFT_TRAIN_WORKERS, of tests and of machines without a GPU, stands above both."""
    if said := _said(environment):
        asked = visible = said
    if asked is not None and asked > adapters:
        here = f"{asked} GPUs and {adapters} adapter{'s' * (adapters != 1)} in this task"
        raise BadInput(f"training.gpus: {here}; set gpus to at most {adapters}, topology to Shared, or parallelism to Sharded")
    return max(1, min(visible, adapters if asked is None else asked))


def _said(environment: Mapping[str, str]) -> int:
    said = environment.get(WORKERS, "")
    if said and not (said.isdecimal() and int(said)):
        raise BadInput(f"{WORKERS}={said!r}: expected a number of workers, 1 or more")
    return int(said or 0)


def count_ranks(asked: int | None, visible: int, environment: Mapping[str, str]) -> int:
    """Decides how many processes hold one base together; BadInput for fewer than 2."""
    ranks = _said(environment) or (visible if asked is None else min(asked, visible))
    if ranks < 2:
        raise BadInput(f"training.parallelism: Sharded is for 2 GPUs or more, and {ranks} can be used here; use Adapters")
    return ranks


def dealt(tokens: Mapping[str, int], workers: int) -> list[tuple[str, ...]]:
    """Deals adapters to workers by their tokens: the longest first, each to whoever has least. As many as there are adapters."""
    shares: list[list[str]] = [[] for _ in range(min(workers, len(tokens)))]
    for name in sorted(tokens, key=lambda name: (-tokens[name], name)):
        least = min(shares, key=lambda share: sum(tokens[other] for other in share))
        least.append(name)
    return [tuple(share) for share in shares]


def device(environment: Mapping[str, str], index: int) -> dict[str, str]:
    """Names the GPU of a worker in the variable that the program itself was given, by its entry, which may be a UUID."""
    said = visible.given(environment)
    if said is None:
        return {visible.CUDA: str(index)}
    name, _, value = said.partition("=")
    entries = visible.entries(value)
    return {name: entries[index] if index < len(entries) else ""}


def environments(environment: Mapping[str, str], workers: int, *, gpus: bool, cores: int) -> list[dict[str, str]]:
    """Writes what each worker finds in its environment: a GPU of its own, and its part of the cores unless it is set already."""
    threads = environment.get("OMP_NUM_THREADS") or str(max(1, cores // workers))
    return [{**environment, "OMP_NUM_THREADS": threads, **(device(environment, index) if gpus else {})} for index in range(workers)]


@dataclass(frozen=True, slots=True)
class _Worker:
    name: str
    process: "subprocess.Popen[bytes]"
    pipe: int
    summary: Path


def run(command: Sequence[str], places: Sequence[Place], environments: Sequence[Mapping[str, str]], report: Report) -> None:
    """Runs a worker at each place to its end. BadInput of a worker is raised here; any other end of one ends the others, and is an
    OSError. They have time for their checkpoints when SIGTERM ends this program."""
    with tempfile.TemporaryDirectory(prefix="maft-workers-") as folder, Interruption() as interruption:
        workers: list[_Worker] = []
        try:
            for index, (place, environment) in enumerate(zip(places, environments, strict=True)):
                with interruption.held():
                    workers.append(_start(command, place, environment, Path(folder) / f"{index}.json"))
            failed = next((worker for worker in _ending(workers, report) if worker.process.wait()), None)
        finally:
            with interruption.held():
                _end(workers, only_first=places[0].ranks > 1)
        if failed:
            _raise(failed, workers)


def _start(command: Sequence[str], place: Place, environment: Mapping[str, str], summary: Path) -> _Worker:
    reading, writing = os.pipe()
    told = msgspec.json.encode(msgspec.structs.replace(place, pipe=writing)).decode()
    line = [*command, f"--summary={summary}", "--metrics-port=0"]
    process = subprocess.Popen(line, env={**environment, PLACE: told}, pass_fds=[writing], stdin=subprocess.DEVNULL)
    os.close(writing)
    name = f"rank {place.rank}" if place.ranks > 1 else f"the worker of {', '.join(place.adapters)}"
    return _Worker(name, process, reading, summary)


def _ending(workers: Sequence[_Worker], report: Report) -> Iterator[_Worker]:
    """Yields workers as they end; reports the losses that they say meanwhile."""
    with selectors.DefaultSelector() as selector:
        rest = dict.fromkeys((worker.pipe for worker in workers), b"")
        for worker in workers:
            selector.register(worker.pipe, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                *lines, rest[key.fd] = (rest[key.fd] + data).split(b"\n")
                for line in lines:
                    report(float(line))
                if not data:
                    selector.unregister(key.fd)
                    yield key.data


def _end(workers: Sequence[_Worker], *, only_first: bool) -> None:
    """Ends those that are left: asked first, then killed. only_first: the others are needed until the first has ended."""
    for worker in workers:
        worker.process.terminate()
    until = time.monotonic() + GRACE
    for worker in workers[: 1 if only_first else None]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, until - time.monotonic()))
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
        os.close(worker.pipe)


def _raise(failed: _Worker, workers: Sequence[_Worker]) -> NoReturn:
    """Raises what ended them: wrong input that one of them found, also where another one ended before it by losing it."""
    for worker in (failed, *workers):
        if worker.process.returncode == BAD_INPUT and (line := _said_last(worker)):
            raise BadInput(line)
    code, line = failed.process.returncode, _said_last(failed)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    raise OSError(f"{failed.name} {how}" + (f": {line}" if line else ""))


def _said_last(worker: _Worker) -> str:
    said = decode_summary(worker.summary.read_bytes()) if worker.summary.exists() else None
    return said.error if isinstance(said, Failure) else ""
