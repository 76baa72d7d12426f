"""What is left of an adapter in training when its process is lost: one object beside where the adapter will be committed.

It is written as a whole or not at all, holds what decided it, and goes when the adapter is committed. Tensors are safetensors,
the rest is JSON in their header.
"""

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from maft import records
from maft.errors import BadInput, PeerLost, one_line
from maft.records import Formatted
from maft.store.base import Missing, Store
from maft.train.course import Course, State
from maft.train.interruption import Interruption

Clock = Callable[[], float]
Undisturbed = Callable[[], AbstractContextManager[None]]


class Header(Formatted, frozen=True, kw_only=True):
    """What a checkpoint holds beside tensors."""

    decided: dict[str, str]
    """What decides the weights, by name: another value of any, and it is a checkpoint of something else."""
    seconds: float
    """That the training took so far."""
    numbers: dict[str, Any]
    """See State."""


class Keeper:
    """Keeps the checkpoint of one adapter. decided: what decides its weights; every: seconds between two checkpoints; reads_only:
    another process writes it."""

    def __init__(
        self,
        store: Store,
        key: str,
        decided: Mapping[str, str],
        every: float,
        clock: Clock = time.monotonic,
        *,
        reads_only: bool = False,
    ) -> None:
        self._store = store
        self._key = key
        self._decided = dict(decided)
        self._every = every
        self._clock = clock
        self.reads_only = reads_only
        self._steps = 0  # of the checkpoint that is there
        self._began = self._saved = clock()

    @property
    def seconds(self) -> float:
        """Tells how long the adapter took so far, earlier processes included."""
        return self._clock() - self._began

    def due(self) -> bool:
        """Tells whether it is time for a checkpoint."""
        return self._clock() - self._saved >= self._every

    def save(self, course: Course) -> None:
        """Writes a checkpoint. One that cannot be written is said in a line: the training is worth more."""
        if len(course.curve) == self._steps:
            return
        try:
            self._write(course.state())
            self._steps = len(course.curve)
        except (OSError, BadInput, SafetensorError, MemoryError, torch.OutOfMemoryError) as error:
            _say(f"no checkpoint after step {len(course.curve)}: {one_line(error)}")
        self._saved = self._clock()

    def _write(self, state: State) -> None:
        header = records.encode(Header(decided=self._decided, seconds=self.seconds, numbers=dict(state.numbers)))
        about = {"header": header.decode(), "sha256": _sha256(header, state.tensors)}
        with tempfile.TemporaryDirectory(prefix="maft-checkpoint-") as scratch:
            path = Path(scratch) / "checkpoint"
            save_file(dict(state.tensors), path, metadata=about)
            self._store.write(self._key, path)

    def restore(self, course: Course) -> None:
        """Has the course go on from the checkpoint; from the start, with a line, if there is one of something else. OSError and
        BadInput of the store: hours of work may lie there."""
        with tempfile.TemporaryDirectory(prefix="maft-checkpoint-") as scratch:
            path = Path(scratch) / "checkpoint"
            try:
                self._store.download(self._key, path)
            except Missing:
                return
            try:
                header, tensors = _read(path)
            except (SafetensorError, BadInput, KeyError) as error:
                return self._refuse(f"cannot be read ({one_line(error, 200)})")
        names = self._decided.keys() | header.decided.keys()
        if other := sorted(name for name in names if self._decided.get(name) != header.decided.get(name)):
            return self._refuse(f"is of another {', another '.join(other)}")
        course.restore(State(tensors, header.numbers))
        self._steps = len(course.curve)
        self._began -= header.seconds
        _say(f"{self._store.url}/{self._key}: goes on after step {len(course.curve)}")

    def _refuse(self, why: str) -> None:
        _say(f"{self._store.url}/{self._key}: this checkpoint {why}; the adapter is trained from the start")

    def remove(self) -> None:
        """Removes the checkpoint: the adapter is committed."""
        self._store.delete([self._key])


@contextlib.contextmanager
def kept(keeper: Keeper | None, course: Course) -> Iterator[Undisturbed]:
    """Has the course go on from its checkpoint, and leave one where SIGTERM or a lost rank ends it. Inside, what comes out is a
    context for what must not be torn, after which a checkpoint is made if it is time."""
    if keeper is None:
        yield contextlib.nullcontext
        return
    keeper.restore(course)
    if keeper.reads_only:
        yield contextlib.nullcontext
        return
    with Interruption(rescue=lambda: keeper.save(course)) as interruption:

        @contextlib.contextmanager
        def undisturbed() -> Iterator[None]:
            with interruption.held():
                yield
                if keeper.due():
                    keeper.save(course)

        try:
            yield undisturbed
        except (SystemExit, PeerLost):
            with interruption.held():
                keeper.save(course)
            raise


def _read(path: Path) -> tuple[Header, dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as opened:
        about = opened.metadata() or {}
        header = about["header"].encode()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 # no mapping
    if _sha256(header, tensors) != about["sha256"]:
        raise BadInput("damaged")
    return records.decode(header, Header, "checkpoint"), tensors


def _sha256(header: bytes, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(header)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _say(line: str) -> None:
    print(line, flush=True)
