"""What the base model said once is not asked again by the next run of a comparison: calls by everything that decides them.

An Engine around another one. Each task reads what earlier tasks left and leaves its own new calls as one object.
"""

import hashlib
from collections.abc import Iterable

from maft import records
from maft.debate.engine import Engine, Load, Request
from maft.records import BASE, Call, Remembered
from maft.store import layout
from maft.store.base import Store


class RememberingEngine:
    """Only the base's calls: adapters are each run's own. Prompts begin alike in all runs, so equal seeds make equal calls."""

    def __init__(self, engine: Engine, store: Store, group: str) -> None:
        self._engine = engine
        self._store = store
        self._prefix = layout.calls(group)
        self._known = {entry.key: entry.call for key in store.list(self._prefix) for entry in self._read(key)}
        self._new: dict[str, Call] = {}

    async def complete(self, server: str, request: Request) -> Call:
        """From memory, or from the server."""
        if request.model != BASE:
            return await self._engine.complete(server, request)
        key = _key(request)
        if key not in self._known:
            self._known[key] = self._new[key] = await self._engine.complete(server, request)
        return self._known[key]

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """As the server says."""
        return await self._engine.ready(server, models)

    async def load(self) -> Load:
        """As the servers say."""
        return await self._engine.load()

    def leave(self, name: str) -> None:
        """Writes the new calls for those who come after."""
        if self._new:
            lines = records.encode_lines(Remembered(key, call) for key, call in sorted(self._new.items()))
            self._store.write(f"{self._prefix}{name}.jsonl", lines)

    def _read(self, key: str) -> list[Remembered]:
        return records.decode_lines(self._store.read(key), Remembered, key)


def _key(request: Request) -> str:
    what = (list(request.prompt), request.seed, request.temperature, request.top_p, request.max_tokens)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:32]
