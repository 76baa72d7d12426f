"""Works off the queue: a look at a time for each key, by the reconciler of its kind; one that fails is tried again.

In: keys of objects of parent kinds (kinds.py), woken by watches and timers. A new parent kind is a reconciler more.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from maft_operator.cluster import kinds, reasons
from maft_operator.cluster.api import FAULTS, Refused
from maft_operator.cluster.keys import Keys, KeyState
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.logged import about
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue

log = logging.getLogger("maft")
BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds before a look that failed is tried again


class Reconciler(Protocol):
    """What knows the objects of one parent kind."""

    async def look(self, key: str, state: KeyState) -> float | None:
        """Looks at one object and takes its next step; returns seconds until the next look, or None where an event will tell."""


class Workers:
    """Several at a time, one for each key. reconcilers: by the name of the kind."""

    def __init__(
        self, reconcilers: Mapping[str, Reconciler], *, queue: Queue, keys: Keys, metrics: Metrics, workers: int = 16
    ) -> None:
        self._reconcilers = reconcilers
        self._queue = queue
        self._keys = keys
        self._metrics = metrics
        self._workers = workers

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Lists the parent kinds that somebody here knows."""
        return tuple(kind for kind in kinds.PARENTS if kind.name in self._reconcilers)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self.attempt(key)
            finally:
                self._queue.done(key)

    async def attempt(self, key: str) -> None:
        """Looks once, and makes the key due again."""
        state = self._keys.state(key)
        try:
            with self._metrics.reconcile.time():
                again = await self._reconcilers[kinds.addressed(key)[0].name].look(key, state)
            state.failures = 0
        except (Refused, *FAULTS) as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            log.warning("%s: will look again: %s", key, line, extra=about(key, _reason(error)))
            again = self._later(state, "refused" if isinstance(error, Refused) else "unreachable")
        except Exception:  # a fault of ours must not stop the others
            log.exception("%s: reconcile failed", key, extra=about(key, "Fault"))
            again = self._later(state, "fault")
        if again is not None:
            self._queue.add(key, again)

    def _later(self, state: KeyState, fault: str) -> float:
        state.seen = None
        self._metrics.errors.labels(fault).inc()
        state.failures += 1
        return BACKOFF[min(state.failures, len(BACKOFF)) - 1]


def _reason(error: Exception) -> str:
    """What the line of a failed look is found by: the condition's reason, where it has one."""
    return reasons.refusal_reason(str(error)).name if isinstance(error, Refused) else "ApiUnreachable"
