"""A cache of the base model's calls, shared by the runs of a comparison: a call is asked again only if something that decides
it has changed.

An Engine around another one. Each task reads what earlier tasks saved, and saves its own new calls as one object.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from maft import records
from maft.debate.engine import Engine, Request
from maft.debate.replica import Load
from maft.records import BASE, CachedCall, Call
from maft.store import layout
from maft.store.base import Store


class CachingEngine:
    """Caches calls of the base alone: adapters are each run's own. Prompts begin alike in all runs, so equal seeds make equal
    calls."""

    def __init__(self, engine: Engine, store: Store, group: str) -> None:
        self._engine = engine
        self._store = store
        self._prefix = layout.calls(group)
        self._calls = {entry.key: entry.call for key in store.list(self._prefix) for entry in self._read(key)}
        self._new: dict[str, Call] = {}

    async def complete(self, server: str, request: Request) -> Call:
        """Answers from the cache, or asks the server."""
        if request.model != BASE:
            return await self._engine.complete(server, request)
        key = _key(request)
        if key not in self._calls:
            self._calls[key] = self._new[key] = await self._engine.complete(server, request)
        return self._calls[key]

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Asks the engine."""
        return await self._engine.ready(server, models)

    async def load(self) -> Load:
        """Asks the engine."""
        return await self._engine.load()

    def save(self, name: str) -> None:
        """Writes the new calls for the tasks that come after, as the object `name`; nothing if there are none."""
        if self._new:
            lines = records.encode_lines(CachedCall(key, call) for key, call in sorted(self._new.items()))
            self._store.write(f"{self._prefix}{name}.jsonl", lines)

    def _read(self, key: str) -> list[CachedCall]:
        return records.decode_lines(self._store.read(key), CachedCall, key)


def _key(request: Request) -> str:
    """A hash of everything that decides the answer; the server does not, as all have the same base."""
    return hashlib.sha256(records.encode(replace(request, model=BASE))).hexdigest()[:32]
