"""Questions that were asked, kept in the store for the next run: JSON lines as `task.source` takes them. Off unless asked for.

Written in batches beside the answers, which wait for nothing of it. While they cannot be written, MOST of them wait; what
comes beyond is lost and counted, what still waits at the end is lost and said.
"""

import asyncio
import contextlib
import sys
import time
from typing import Any
from uuid import uuid4

import msgspec

from maft.endpoint.measured import Measured
from maft.errors import BadInput, one_line
from maft.records import VOTE, Transcript
from maft.society_spec import SocietySpec
from maft.store import layout
from maft.store.base import Store

BATCH = 200  # questions of one object
INTERVAL = 60.0  # seconds that a question waits for others
MOST = 10 * BATCH  # that wait while the store is away
DAY = 86_400.0


class Kept:
    """The batch that fills."""

    def __init__(self, store: Store, run: str, spec: SocietySpec, measured: Measured, interval: float = INTERVAL) -> None:
        self._store = store
        self._prefix = layout.asked(run)
        self._spec = spec
        self._measured = measured
        self._interval = interval
        self._lines: list[bytes] = []
        self._full = asyncio.Event()
        self._batch = _batch()

    def add(self, transcript: Transcript) -> None:
        """Takes in a question with the answer of the vote; one without an answer is no row of a task. Whoever calls leaves out
        votes that abstain."""
        if not self._spec.keep_questions or transcript.vote.answer is None:
            return
        if len(self._lines) >= MOST:
            self._measured.lost.inc()
            return
        self._lines.append(msgspec.json.encode(row(transcript)))
        if len(self._lines) >= BATCH:
            self._full.set()

    async def keep(self) -> None:
        """Writes batches until cancelled; once a day, what is older than it may be goes."""
        tidied = 0.0
        while self._spec.keep_questions:
            if time.monotonic() - tidied > DAY or not tidied:
                await asyncio.to_thread(self._tidy, time.time())
                tidied = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._interval)
            await self.flush()

    async def flush(self) -> None:
        """Writes what there is."""
        self._full.clear()
        lines, self._lines = self._lines, []  # taken out first: a thread goes on with them where this is cancelled
        if not lines:
            return
        batch, self._batch = self._batch, _batch()
        if await asyncio.to_thread(self._write, batch, lines):
            self._measured.kept.inc(len(lines))
        else:  # under the same name again: a store may have taken it, and not have said so
            self._lines, self._batch = lines + self._lines, batch

    async def finish(self) -> None:
        """Writes what there is for the last time."""
        await self.flush()
        if self._lines:
            print(f"warning: {len(self._lines)} questions are lost: they could not be kept to the end", file=sys.stderr, flush=True)

    def _write(self, batch: str, lines: list[bytes]) -> bool:
        key = f"{self._prefix}{batch}.jsonl"
        try:
            self._store.write(key, b"\n".join(lines) + b"\n")
        except (OSError, BadInput) as error:
            print(f"warning: questions cannot be kept now: {one_line(error, 300)}", file=sys.stderr, flush=True)
            return False
        return True

    def _tidy(self, now: float) -> None:
        if not self._spec.keep_days:
            return
        try:
            old = [e.key for e in self._store.entries(self._prefix) if now - e.modified > self._spec.keep_days * DAY]
            self._store.delete(old)
        except (OSError, BadInput) as error:
            print(f"warning: old questions cannot be deleted now: {one_line(error, 300)}", file=sys.stderr, flush=True)


def _batch() -> str:
    """A name that no other has: a container that starts anew has the host and often the number of the one before it."""
    return f"{time.strftime('%Y-%m-%d', time.gmtime())}-{uuid4().hex}"


def row(transcript: Transcript) -> dict[str, Any]:
    """Makes the row: the question as it was asked, a text or a chat, and the answer of the vote, which nobody has checked: another
    debate of it may vote otherwise."""
    problem = transcript.problem
    chat = [{"role": m.role, "content": m.content} for m in problem.history] + [{"role": "user", "content": problem.question}]
    return {"question": chat if problem.history else problem.question, "answer": transcript.vote.answer, VOTE: True}
