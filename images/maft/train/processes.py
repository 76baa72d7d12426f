"""Runs the workers of a training task to their end: what one of them says reaches the task, and none is left behind.

What makes one end, ends all. Why is the first reason of their own that is found: others end because they lost it.
"""

import contextlib
import os
import select
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec

from maft.errors import BadInput
from maft.summaries import BAD_INPUT, PEER_LOST, Failure, decode_summary
from maft.train.interruption import Interruption
from maft.train.workers import PLACE, Place, Report

GRACE = 45.0  # seconds that workers have to write their checkpoints when one of them has failed
# A worker that ends so has lost another one, here or elsewhere: seconds until it has to be known elsewhere that one is lost.
LOOK = {PEER_LOST: 10.0, -signal.SIGABRT: 10.0}  # NCCL's watchdog ends a process by abort()


@dataclass(frozen=True, slots=True)
class _Worker:
    name: str
    process: "subprocess.Popen[bytes]"
    pipe: int
    summary: Path


class Other(Protocol):
    """A process elsewhere that these workers need (nodes.py)."""

    def fileno(self) -> int:
        """Names an open file that has something to read when it says something or is lost."""

    def heard(self) -> bool:
        """Reads it; tells whether to listen on. PeerLost where the process is lost."""


def run(
    command: Sequence[str],
    places: Sequence[Place],
    environments: Sequence[Mapping[str, str]],
    report: Report,
    others: Sequence[Other] = (),
) -> None:
    """Runs a worker at each place to its end. BadInput of a worker is raised here; any other end of one ends the others, and is an
    OSError: PeerLost where one of `others` was lost. They have time for their checkpoints when SIGTERM ends this program."""
    with tempfile.TemporaryDirectory(prefix="maft-workers-") as folder, Interruption() as interruption:
        workers: list[_Worker] = []
        try:
            for index, (place, environment) in enumerate(zip(places, environments, strict=True)):
                with interruption.held():
                    workers.append(_start(command, place, environment, Path(folder) / f"{index}.json"))
            first = next((worker for worker in _ending(workers, report, others) if worker.process.wait()), None)
            failed = _first_failed(first, workers) if first else None
            if failed and failed.process.returncode != BAD_INPUT:
                _raise_lost(others, LOOK.get(failed.process.returncode, 0.0))
        finally:
            with interruption.held():
                _end(workers, places[0], GRACE if not interruption.came else None)
        if failed:
            _raise(failed, workers)


def _start(command: Sequence[str], place: Place, environment: Mapping[str, str], summary: Path) -> _Worker:
    reading, writing = os.pipe()
    encoded = msgspec.json.encode(msgspec.structs.replace(place, pipe=writing)).decode()
    line = [*command, f"--summary={summary}", "--metrics-port=0"]
    process = subprocess.Popen(line, env={**environment, PLACE: encoded}, pass_fds=[writing], stdin=subprocess.DEVNULL)
    os.close(writing)
    name = f"rank {place.rank}" if place.ranks > 1 else f"the worker of {', '.join(place.adapters)}"
    return _Worker(name, process, reading, summary)


def _ending(workers: Sequence[_Worker], report: Report, others: Sequence[Other]) -> Iterator[_Worker]:
    """Yields workers as they end; reports the losses that they say meanwhile, and listens to others."""
    with selectors.DefaultSelector() as selector:
        rest = dict.fromkeys((worker.pipe for worker in workers), b"")
        for worker in workers:
            selector.register(worker.pipe, selectors.EVENT_READ, worker)
        for other in others:
            selector.register(other, selectors.EVENT_READ)
        left = len(workers)
        while left:
            for key, _ in selector.select():
                if not isinstance(key.data, _Worker):
                    _listen(selector, key)
                elif _told(key.fd, rest, report):
                    selector.unregister(key.fd)
                    left -= 1
                    yield key.data


def _listen(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    other: Any = key.fileobj
    if not other.heard():
        selector.unregister(other)


def _told(pipe: int, rest: dict[int, bytes], report: Report) -> bool:
    """Reports the losses that have come through a pipe; tells whether it has ended. rest: by pipe, of a line under way."""
    data = os.read(pipe, 1 << 16)
    *lines, rest[pipe] = (rest[pipe] + data).split(b"\n")
    for line in lines:
        report(float(line))
    return not data


def _first_failed(first: _Worker, workers: Sequence[_Worker]) -> _Worker:
    """Finds who ended for a reason of its own, and not by losing another one."""
    ended = [worker for worker in (first, *workers) if worker.process.poll() not in (None, 0)]
    return min(ended, key=lambda worker: (worker.process.returncode != BAD_INPUT, worker.process.returncode == PEER_LOST))


def _raise_lost(others: Sequence[Other], within: float) -> None:
    """Raises PeerLost if one of the others is lost, or will be in a moment."""
    until = time.monotonic() + within
    while others:
        readable, _, _ = select.select(others, [], [], max(0.0, until - time.monotonic()))
        others = [other for other in others if other not in readable or other.heard()] if readable else []


def _end(workers: Sequence[_Worker], place: Place, within: float | None) -> None:
    """Ends those that are left: asked first, then killed. place: of the first. within: seconds for their checkpoints; None: as
    long as whoever ends this program waits for it. Of ranks only the one that keeps checkpoints is waited for."""
    for worker in workers:
        worker.process.terminate()
    until = None if within is None else time.monotonic() + within
    waited = len(workers) if place.ranks == 1 else int(place.leads)
    for worker in workers[:waited]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(None if until is None else max(0.0, until - time.monotonic()))
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
    summary = decode_summary(worker.summary.read_bytes()) if worker.summary.exists() else None
    return summary.error if isinstance(summary, Failure) else ""
