"""The queue of runs to look at: one look at a time for a key, duplicates merged, delays for what is due later.

As client-go's workqueue, in one event loop. Who takes a key has to call `done`.
"""

import asyncio
import heapq


class Queue:
    """Hands out keys when they are due."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._busy: dict[str, float] = {}  # since when somebody works at them
        self._ended = 0.0  # when somebody last was done with a key
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: str) -> bool:
        return key in self._due or key in self._busy

    def add(self, key: str, delay: float = 0.0) -> None:
        """Makes the key due after `delay` seconds; an earlier time stands."""
        when = asyncio.get_running_loop().time() + delay
        if when < self._due.get(key, float("inf")):
            self._due[key] = when
            heapq.heappush(self._heap, (when, key))
            self._changed.set()

    def forget(self, key: str) -> None:
        """Drops whatever is due for that key."""
        self._due.pop(key, None)

    async def get(self) -> str:
        """Waits for the key that is due first and that nobody works at."""
        while True:
            wait, key = self._first()
            if key is not None:
                return key
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                continue

    def done(self, key: str) -> None:
        """Lets others take the key again."""
        self._busy.pop(key, None)
        self._ended = asyncio.get_running_loop().time()
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], key))
        self._changed.set()

    def late(self) -> float:
        """Tells for how many seconds the oldest key has been due."""
        now = asyncio.get_running_loop().time()
        return max([0.0, *(now - when for key, when in self._due.items() if key not in self._busy)])

    def stuck(self) -> float:
        """Tells for how many seconds nothing has been done though something is due or worked at. Work that fails counts as done:
        where the other side does not answer, nobody here is stuck. A look that never ends counts by half, whatever else ends."""
        now = asyncio.get_running_loop().time()
        longest = max((now - since for since in self._busy.values()), default=0.0)
        return max(min(max(self.late(), longest), now - self._ended), longest / 2)

    def _first(self) -> tuple[float | None, str | None]:
        """Seconds until something is due (None: nothing is), or a key to work at."""
        now = asyncio.get_running_loop().time()
        while self._heap:
            when, key = self._heap[0]
            if self._due.get(key) != when or key in self._busy:
                heapq.heappop(self._heap)  # moved, forgotten, or to be put back by `done`
                continue
            if when > now:
                return when - now, None
            heapq.heappop(self._heap)
            del self._due[key]
            self._busy[key] = now
            return None, key
        return None, None
