"""Keeps finished debates until they are committed, so that a killed program repeats only the questions it had in flight.

Each write is one small object `journal-<n>.jsonl`. They are listed once, at the start, each is read once, and all are removed
after the commit. One write is under way at a time; what finishes meanwhile goes into the next. A line that came to harm costs the
debate that it was: each has a checksum.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from maft import records
from maft.errors import BadInput, one_line
from maft.records import Transcript
from maft.spec import UNREADABLE, Head, foreign_format
from maft.store.base import Store
from maft.store.sealed import is_sealed, is_whole, seal

PAUSE = 0.01  # seconds between two writes for each that there was: a small run writes at once, a large one has few objects
LONGEST = 5.0  # seconds


class Journal:
    """The journal below one prefix of a store. before: writes what a debate rests on, and is called ahead of each write."""

    def __init__(self, store: Store, prefix: str, before: Callable[[], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._before = before
        self._keys: list[str] = []
        self._next = 0  # number of the next object
        self._pending: list[bytes] = []
        self._wake = asyncio.Event()

    def read(self) -> Iterator[Transcript]:
        """Reads what an earlier process left: of a question that was debated again, the last one counts."""
        self._list()
        for key in list(self._keys):
            for number, line in enumerate(self._store.read(key).splitlines(), 1):
                if line.strip() and (transcript := _decoded(line, f"{key} line {number}")):
                    yield transcript

    def _list(self) -> None:
        stem = f"{self._prefix}journal-"
        self._keys = [key for key in self._store.list(stem) if key.removeprefix(stem).removesuffix(".jsonl").isdecimal()]
        self._next = 1 + max((int(key.removeprefix(stem).removesuffix(".jsonl")) for key in self._keys), default=-1)

    def add(self, line: bytes) -> None:
        """Takes a finished debate over, encoded; `flush` or `keep` writes it."""
        self._pending.append(line)
        self._wake.set()

    async def keep(self) -> None:
        """Writes what was added, as soon as the previous write is done, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
            await asyncio.sleep(min(PAUSE * self._next, LONGEST))

    async def flush(self) -> None:
        """Writes what was added and not written yet, as one object."""
        if batch := self._pending:
            self._pending = []
            await self._prepared(batch)
            key, self._next = self._key(self._next), self._next + 1
            write = asyncio.ensure_future(asyncio.to_thread(self._store.write, key, b"".join(seal(line) + b"\n" for line in batch)))
            try:
                await asyncio.shield(write)
            except asyncio.CancelledError:  # the thread goes on: wait, so that nothing appears after `remove`
                await write
                self._keys.append(key)
                raise
            except Exception:  # the next try takes the same number
                self._pending, self._next = [*batch, *self._pending], self._next - 1
                raise
            self._keys.append(key)

    async def _prepared(self, batch: list[bytes]) -> None:
        try:
            if self._before:
                await self._before()
        except BaseException:  # also where it is cancelled
            self._pending = [*batch, *self._pending]
            raise

    def remove(self) -> None:
        """Deletes what was read and written; its content is committed."""
        self._store.delete(self._keys)

    def _key(self, number: int) -> str:
        return f"{self._prefix}journal-{number:06d}.jsonl"


def _decoded(line: bytes, where: str) -> Transcript | None:
    """None where the line came to harm, which is said: its question is debated again. BadInput if another release wrote it."""
    if is_sealed(line) and not is_whole(line):
        _say_damaged(f"{where}: its checksum is another one")
        return None
    try:
        return records.decode(line, Transcript, where)
    except BadInput as error:
        if is_sealed(line) or _is_foreign(line):
            raise
        _say_damaged(one_line(error, 200))
        return None


def _is_foreign(line: bytes) -> bool:
    try:
        return bool(foreign_format(msgspec.json.decode(line, type=Head).format))
    except UNREADABLE:
        return False


def _say_damaged(why: str) -> None:
    print(f"the journal has a damaged line, whose question is debated again: {why}", file=sys.stderr)


def clear(store: Store, prefix: str) -> None:
    """Removes the journal of what is committed, also what an earlier process did not come to remove."""
    journal = Journal(store, prefix)
    journal._list()
    journal.remove()
