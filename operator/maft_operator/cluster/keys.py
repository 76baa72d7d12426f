"""What the operator remembers of each run between two looks. Conveniences, never state: a restart loses nothing.

Watches (handlers.py) and the resync (health.py) wake runs through it; the controller works off its queue.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from maft_operator.cluster.drift import Sent
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.status import Reconciled
from maft_operator.spec.schema import Json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """A run of which watches and Events tell all changes, as a look found it (looks.py). Times are of the event loop's clock."""

    resource: Json
    """With the status as it was written last."""
    work: Reconciled
    at: float
    until: float
    """For so long glances will do."""


@dataclass(frozen=True, slots=True)
class Read:
    """A spec, and what was read from it: all rules of the definition take a third of a look's processor time, and the hundreds of
    runs of a comparison seconds."""

    spec: Json
    begun: bool
    reading: Any

    def is_of(self, spec: Json, *, begun: bool) -> bool:
        """Tells whether reading that spec again would give the same: one that had not begun was read more strictly."""
        return (begun or not self.begun) and spec == self.spec


@dataclass(slots=True)
class KeyState:
    """Of one run."""

    written: str = ""
    """resourceVersion of our last status write."""
    written_at: float = float("-inf")
    """When that was, on the event loop's clock."""
    woken: bool = True
    """A watch told of the run since a look at it began."""
    seen: Seen | None = None
    """The last look, where glances will do after it."""
    read: Read | None = None
    """The spec as it was read last, while it is worked at."""
    rests: float = float("-inf")
    """Until when nothing that belongs to it makes it due, on the event loop's clock: a look at it lists hundreds of objects."""
    failures: int = 0
    """Reconciles that failed in a row."""
    applied: dict[str, Sent] = field(default_factory=dict)
    """By uid of a child: what was sent last and what became of it (backend.py)."""
    resting: dict[str, float] = field(default_factory=dict)
    """By URL of metrics that nobody answered at: until when they are not asked for, on the event loop's clock (measured.py)."""

    def reading(self, spec: Json, read: Callable[[], T], *, begun: bool = False) -> T:
        """Returns what was read from that spec; `read` does it where that has not been done. begun: whether it is lenient."""
        if self.read is None or not self.read.is_of(spec, begun=begun):
            self.read = Read(spec, begun, read())
        reading: T = self.read.reading
        return reading


class Keys:
    """Runs, societies and comparisons by their keys (kinds.key): those that are due, and what is remembered of all."""

    def __init__(self, queue: Queue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self._states: dict[str, KeyState] = {}
        self._at_work: set[str] = set()

    def wake(self, key: str) -> None:
        """Makes the run due: something about it may have changed."""
        self.state(key).woken = True
        self._queue.add(key)

    def stir(self, key: str) -> None:
        """Makes the run due, once it has rested: something that belongs to it may have changed."""
        state = self.state(key)
        state.woken = True
        self._queue.add(key, max(0.0, state.rests - asyncio.get_running_loop().time()))

    def forget(self, key: str, *, again: bool = False) -> None:
        """Drops everything about a run that has gone. again: one of its name was told of meanwhile, and stays due."""
        self._states.pop(key, None)
        self._at_work.discard(key)
        self._metrics.gone(key)
        if not again:
            self._queue.forget(key)

    def note(self, key: str, *, at_work: bool) -> None:
        """Notes whether the run works or waits for something."""
        (self._at_work.add if at_work else self._at_work.discard)(key)

    @property
    def at_work(self) -> int:
        """Counts the runs that work or wait for something: those that are looked at again and again."""
        return len(self._at_work)

    def recall(self, key: str, within: float) -> None:
        """Makes a run due that nobody would look at again, within so many seconds: all at once would be a crowd."""
        if key not in self._queue:
            self.state(key).woken = True
            self._queue.add(key, random.uniform(0, within))

    def state(self, key: str) -> KeyState:
        """Returns what is remembered of the run, to be changed by whoever works at it."""
        return self._states.setdefault(key, KeyState())

    def is_echo(self, key: str, version: str) -> bool:
        """Tells whether that version of the resource is what our own status write made of it."""
        state = self._states.get(key)
        return state is not None and state.written == version
