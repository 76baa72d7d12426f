"""Decides how many questions are debated at once: enough to keep the servers full, no more than they can keep in line."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from maft.debate.replica import Load

START = 16  # questions
INTERVAL = 0.5  # seconds between two looks at the servers


def next_limit(limit: int, busy: int, load: Load) -> int:
    """Computes the next limit. limit, busy: questions; load: requests.

    The aim is twice what fills the servers: as many requests in line as under way, so that none of their slots waits for the
    client. Far more in line only ages their answers. A limit that is not used up says nothing, nor do servers without numbers.
    """
    if not load.running:
        return limit
    if load.waiting > 2 * load.running:
        return max(min(START, limit), limit * 4 // 5)
    if busy >= limit and load.waiting <= load.running:
        return max(limit + 1, limit * 3 // 2)
    return limit


class Window:
    """A semaphore whose limit follows the load. `watch` runs beside the debates."""

    def __init__(self, load: Callable[[], Awaitable[Load]], limit: int = START, most: int = sys.maxsize) -> None:
        """most: questions that may be under way, whatever the servers could take."""
        self.limit = min(limit, most)  # questions
        self._most = most
        self.busy = 0  # questions under way; more than the limit while it shrinks
        self._load = load
        self._changed = asyncio.Condition()
        self._idle = asyncio.Event()
        self._idle.set()

    async def acquire(self) -> None:
        """Waits for a place."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.busy < self.limit)
            self.busy += 1
            self._idle.clear()

    async def release(self) -> None:
        """Gives the place back."""
        async with self._changed:
            self.busy -= 1
            self._changed.notify()
            if not self.busy:
                self._idle.set()

    async def empty(self) -> None:
        """Waits until no question is under way."""
        await self._idle.wait()

    async def watch(self) -> None:
        """Adjusts the limit until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            load = await self._load()
            async with self._changed:
                self.limit = min(self._most, next_limit(self.limit, self.busy, load))
                self._changed.notify_all()
