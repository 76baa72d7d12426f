"""A cache of the base model's calls, shared by the runs of a comparison: a call is asked again only if something that decides
it has changed.

An Engine around another one. Each task reads what earlier tasks saved. Its own new calls it saves before the journal has the
debates that they belong to, one small object after the other, and in the end as one: so a task that was killed asks again only
what it had not been answered for a moment.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO

from maft import records
from maft.debate.engine import Engine, Request
from maft.debate.replica import Load
from maft.records import BASE, CachedCall, Call
from maft.store import layout
from maft.store.base import Missing, Store
from maft.store.lines import Files, Lines


class CachingEngine:
    """Caches calls of the base alone: adapters are each run's own. Prompts begin alike in all runs, so equal seeds make equal
    calls. task: whose own calls `save` puts into one object of that name."""

    def __init__(self, engine: Engine, store: Store, group: str, task: str, bases: Mapping[str, str] | None = None) -> None:
        """Reads what is there. bases: by server, the base where it is another one than the spec's."""
        self._engine = engine
        self._bases = bases or {}
        self._store = store
        self._prefix = layout.calls(group)
        self._whole, self._shards, self._folder = (f"{self._prefix}{task}{end}" for end in (".jsonl", ".part-", "/"))
        self._calls = Lines(CachedCall)
        self._places: dict[str, int] = {}  # by key
        self._own: dict[str, int] = {}  # those of this task
        self._unsaved: list[int] = []
        self._parts: list[str] = []  # objects of this task that `save` puts into one
        self._next = 0  # number of the next one
        for name, content in self._objects():
            self._read(name, content)

    async def complete(self, server: str, request: Request) -> Call:
        """Answers from the cache, or asks the server."""
        if request.model != BASE:
            return await self._engine.complete(server, request)
        key = _key(request, self._bases.get(server, ""))
        place = self._places.get(key)
        if place is not None:
            return self._calls[place].call
        call = await self._engine.complete(server, request)
        self._own[key] = self._keep(CachedCall(key, call))
        self._unsaved.append(self._own[key])
        return call

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Asks the engine."""
        return await self._engine.ready(server, models)

    async def load(self) -> Load:
        """Asks the engine."""
        return await self._engine.load()

    async def flush(self) -> None:
        """Writes what is new since the last time, as an object more."""
        batch, self._unsaved = self._unsaved, []
        if not batch:
            return
        part, self._next = f"{self._folder}{self._next:06d}.jsonl", self._next + 1
        self._parts.append(part)
        content = b"".join(self._calls.raw(place) + b"\n" for place in batch)
        write = asyncio.ensure_future(asyncio.to_thread(self._store.write, part, content))
        try:
            await asyncio.shield(write)
        except asyncio.CancelledError:  # the thread goes on: wait, so that nothing appears after `save`
            await write
            raise
        except Exception:
            self._unsaved = [*batch, *self._unsaved]
            raise

    def save(self) -> None:
        """Writes all calls of this task as one object, in the place of its parts; nothing if there are none."""
        if self._parts or self._unsaved:
            with Files({self._whole: self._calls.chosen(place for _, place in sorted(self._own.items()))}) as files:
                for name, content in files.items():
                    self._store.write(name, content)
            self._store.delete(self._parts)

    def _keep(self, entry: CachedCall) -> int:
        place = self._places[entry.key] = len(self._calls)
        self._calls.append(records.encode(entry))
        return place

    def _objects(self) -> Iterator[tuple[str, bytes]]:
        """Reads what lies there. Another task may put its parts into one meanwhile: that one is read in their place."""
        known: set[str] = set()
        lost = True
        while lost:
            lost = False
            for name in [name for name in self._store.list(self._prefix) if name not in known]:
                known.add(name)
                try:
                    yield name, self._store.read(name)
                except Missing:
                    lost = True

    def _read(self, name: str, content: bytes) -> None:
        own = name == self._whole or name.startswith((self._folder, self._shards))
        if name.startswith(self._folder):
            self._parts.append(name)
            self._next = max(self._next, 1 + _number(name))
        for number, line in enumerate(BytesIO(content), 1):
            if line.strip():
                entry = records.decode(line, CachedCall, f"{name} line {number}")
                place = self._keep(entry)
                if own:
                    self._own[entry.key] = place


def _number(part: str) -> int:
    number = part.rpartition("/")[2].removesuffix(".jsonl")
    return int(number) if number.isdecimal() else -1


def _key(request: Request, base: str) -> str:
    """A hash of everything that decides the answer; the server does not, as all have the same base, or it is named."""
    return hashlib.sha256(records.encode(replace(request, model=BASE)) + base.encode()).hexdigest()[:32]
