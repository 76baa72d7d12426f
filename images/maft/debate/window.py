"""How many questions are debated at once: enough to keep the engine full, no more than it can keep in line."""

import asyncio
from collections.abc import Awaitable, Callable

from maft.debate.engine import Load

START = 16  # questions
INTERVAL = 0.5  # seconds between two looks at the servers


def next_limit(limit: int, busy: int, load: Load) -> int:
    """The next window.

    Twice what fills the engine: as many requests in line as under way, so that none of its slots waits for the client; far
    more in line only ages their answers. A window that is not used up says nothing, nor do servers without numbers.
    """
    if load.waiting > 2 * load.running and load.running:
        return max(min(START, limit), limit * 4 // 5)
    if busy >= limit and load.running and load.waiting <= load.running:
        return max(limit + 1, limit * 3 // 2)
    return limit


class Window:
    """A counting gate whose limit follows the load. `watch` runs beside the debate."""

    def __init__(self, load: Callable[[], Awaitable[Load]], limit: int = START) -> None:
        self.limit = limit
        self.busy = 0
        self._load = load
        self._changed = asyncio.Condition()

    async def enter(self) -> None:
        """Waits for a place."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.busy < self.limit)
            self.busy += 1

    async def leave(self) -> None:
        """Gives the place back."""
        async with self._changed:
            self.busy -= 1
            self._changed.notify()

    async def watch(self) -> None:
        """Adjusts the limit until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            load = await self._load()
            async with self._changed:
                self.limit = next_limit(self.limit, self.busy, load)
                self._changed.notify_all()
