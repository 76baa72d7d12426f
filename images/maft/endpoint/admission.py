"""Who may be answered now: not before all adapters have answered, and no more at a time than the society was given."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from maft.endpoint.measured import Measured
from maft.endpoint.refused import Refused
from maft.society_spec import SocietySpec

AGAIN = 1  # seconds after which there may be room
STARTING = 5  # seconds after which a society that starts may be ready


class Admission:
    """Counts requests under way."""

    def __init__(self, spec: SocietySpec, measured: Measured) -> None:
        self._spec = spec
        self._measured = measured
        self._active = 0
        self._by_key = Counter[str]()
        self._idle = asyncio.Event()
        self._idle.set()
        self.ending = False
        """No more requests are expected: this process was told to end."""
        self.why_not = "the society is starting: its agents have not answered yet"
        """Empty: ready."""

    @property
    def ready(self) -> bool:
        """Tells whether requests are to be sent here."""
        return not self.why_not and not self.ending

    def set_ready(self, why_not: str = "") -> None:
        """Notes that all agents answer, or why not."""
        self.why_not = why_not
        self._measured.ready.set(not why_not)

    @contextlib.contextmanager
    def admitted(self, key: str) -> Iterator[None]:
        """Holds a place; Refused where there is none. key: the name of the API key that asks; empty where none is asked for."""
        if self.why_not:
            raise Refused(503, self.why_not, after=STARTING)
        if self._active >= self._spec.max_concurrent_debates:
            raise self._too_many(_under_way(self._active, "request{s}"), "maxConcurrentDebates")
        if key and 0 < self._spec.max_concurrent_per_key <= self._by_key[key]:
            raise self._too_many(_under_way(self._by_key[key], "request{s} of this API key"), "maxConcurrentPerKey")
        self._change(key, 1)
        try:
            yield
        finally:
            self._change(key, -1)

    def _change(self, key: str, by: int) -> None:
        self._active += by
        self._by_key[key] += by
        if not self._by_key[key]:
            del self._by_key[key]
        self._measured.active.set(self._active)
        (self._idle.clear if self._active else self._idle.set)()

    def _too_many(self, state: str, field: str) -> Refused:
        return Refused(429, f"{state}, as many as {field} allows; try again soon", code="rate_limit_exceeded", after=AGAIN)

    async def idle(self) -> None:
        """Waits until nothing is under way."""
        await self._idle.wait()


def _under_way(count: int, what: str) -> str:
    return f"{count} {what.format(s='s' * (count != 1))} {'is' if count == 1 else 'are'} under way"
