"""A cache of the base model's calls, shared by the runs of a comparison: a call is asked again only if something that decides
it has changed.

An Engine around another one. Each task reads what earlier tasks saved, and saves its own new calls as one object.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO

from maft import records
from maft.debate.engine import Engine, Request
from maft.debate.replica import Load
from maft.records import BASE, CachedCall, Call
from maft.store import layout
from maft.store.base import Store
from maft.store.lines import Files, Lines


class CachingEngine:
    """Caches calls of the base alone: adapters are each run's own. Prompts begin alike in all runs, so equal seeds make equal
    calls."""

    def __init__(self, engine: Engine, store: Store, group: str) -> None:
        self._engine = engine
        self._store = store
        self._prefix = layout.calls(group)
        self._calls = Lines(CachedCall)
        self._places: dict[str, int] = {}  # by key
        for key in store.list(self._prefix):
            for number, line in enumerate(BytesIO(store.read(key)), 1):
                if line.strip():
                    self._keep(records.decode(line, CachedCall, f"{key} line {number}"))
        self._new: dict[str, int] = {}

    async def complete(self, server: str, request: Request) -> Call:
        """Answers from the cache, or asks the server."""
        if request.model != BASE:
            return await self._engine.complete(server, request)
        key = _key(request)
        place = self._places.get(key)
        if place is not None:
            return self._calls[place].call
        call = await self._engine.complete(server, request)
        self._new[key] = self._keep(CachedCall(key, call))
        return call

    def _keep(self, entry: CachedCall) -> int:
        place = self._places[entry.key] = len(self._calls)
        self._calls.append(records.encode(entry))
        return place

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Asks the engine."""
        return await self._engine.ready(server, models)

    async def load(self) -> Load:
        """Asks the engine."""
        return await self._engine.load()

    def save(self, name: str) -> None:
        """Writes the new calls for the tasks that come after, as the object `name`; nothing if there are none."""
        if self._new:
            with Files({f"{name}.jsonl": self._calls.chosen(place for _, place in sorted(self._new.items()))}) as files:
                for part, content in files.items():
                    self._store.write(f"{self._prefix}{part}", content)


def _key(request: Request) -> str:
    """A hash of everything that decides the answer; the server does not, as all have the same base."""
    return hashlib.sha256(records.encode(replace(request, model=BASE))).hexdigest()[:32]
