"""Keeps finished debates until they are committed, so that a killed program repeats only the questions it had in flight.

Each write is one small object `journal-<n>.jsonl`; they are numbered without gaps, read back by probing, and removed after
the commit. One write is under way at a time; what finishes meanwhile goes into the next.
"""

import asyncio
from itertools import count

from maft import records
from maft.records import Transcript
from maft.store.base import Missing, Store


class Journal:
    """The journal below one prefix of a store."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._next = 0  # number of the next object
        self._pending: list[Transcript] = []
        self._wake = asyncio.Event()

    def read(self) -> dict[int, Transcript]:
        """Reads what an earlier process left, by question index."""
        transcripts: dict[int, Transcript] = {}
        for self._next in count():
            try:
                data = self._store.read(self._key(self._next))
            except Missing:
                break
            for transcript in records.decode_lines(data, Transcript, self._key(self._next)):
                transcripts[transcript.index] = transcript
        return transcripts

    def add(self, transcript: Transcript) -> None:
        """Takes a finished debate over; `flush` or `keep` writes it."""
        self._pending.append(transcript)
        self._wake.set()

    async def keep(self) -> None:
        """Writes what was added, as soon as the previous write is done, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Writes what was added and not written yet, as one object."""
        if batch := self._pending:
            self._pending = []
            key, self._next = self._key(self._next), self._next + 1
            write = asyncio.ensure_future(asyncio.to_thread(self._store.write, key, records.encode_lines(batch)))
            try:
                await asyncio.shield(write)
            except asyncio.CancelledError:  # the thread goes on: wait, so that nothing appears after `remove`
                await write
                raise
            except Exception:  # the next try takes the same number: reading stops at a gap
                self._pending, self._next = [*batch, *self._pending], self._next - 1
                raise

    def remove(self) -> None:
        """Deletes the journal; its content is committed."""
        # Last one first: what is left by a kill in between is still numbered from 0, so the next reader finds it.
        self._store.delete([self._key(i) for i in reversed(range(self._next))])

    def _key(self, number: int) -> str:
        return f"{self._prefix}journal-{number:06d}.jsonl"
