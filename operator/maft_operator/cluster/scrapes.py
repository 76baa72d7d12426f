"""What /metrics costs, whoever asks and however often: one encoding at a time, and few questions to the API server about tokens.

In: requests of anybody who reaches the port (health.py). Out: the metrics as text, or the HTTP status that says why not.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from math import inf

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from maft_operator.cluster import kinds
from maft_operator.cluster.api import FAULTS, Api, Refused
from maft_operator.cluster.kinds import Kind
from maft_operator.spec.schema import Json

FRESH = 2.0  # seconds for which encoded metrics are given again: Prometheus asks every 15 or more
HOLDS = 60.0  # seconds for which an answer about a token holds
REMEMBERED = 1000  # tokens that are remembered because they were refused, and as many that were not
REVIEWS = 8  # tokens that the API server is asked about at once
RESERVED = 2  # … and so many more of those that were let in before: strangers do not keep them out
REST = 0.1  # seconds from an answer until another token may be asked about in its place
_OPENMETRICS = "application/openmetrics-text"

REFUSALS: Mapping[int, str] = {
    401: "a bearer token that may get /metrics is needed",
    403: "a bearer token that may get /metrics is needed",
    429: "too many unknown tokens are asked about; ask again later",
    503: "the API server does not say whether this token may get /metrics; ask again later",
}

Encoded = Callable[[Callable[[CollectorRegistry], bytes]], bytes]  # given an encoder of one registry: all series


class Exposition:
    """The metrics as text. One encoding at a time, in a thread, for of thousands of runs it takes a while; whoever asks meanwhile
    waits for it and gets the same."""

    def __init__(self, encoded: Encoded, fresh: float = FRESH) -> None:
        self._encoded = encoded
        self._fresh = fresh
        self._turn = asyncio.Lock()
        self._made: dict[str, tuple[float, bytes]] = {}  # by content type, of which there are two: when it was done, and the text

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Returns the metrics and their content type. accept: the header; each version and escaping that it names would be an
        encoding more, so there is one of either format."""
        encode, kind = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
        async with self._turn:
            done, body = self._made.get(kind, (-inf, b""))
            if time.monotonic() - done >= self._fresh:
                body = await asyncio.to_thread(self._encoded, encode)
                self._made[kind] = time.monotonic(), body
        return body, kind


class Reviewed:
    """What became of tokens, by their hash. Of too many the oldest go; refused ones never push out those that were let in."""

    def __init__(self, most: int = REMEMBERED, holds: float = HOLDS) -> None:
        self._most = most
        self._holds = holds
        self._allowed: dict[str, tuple[float, int]] = {}
        self._refused: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._allowed) + len(self._refused)

    def status(self, key: str, now: float) -> int | None:
        """Returns 0 or the HTTP status of a refusal; None where nothing is known that still holds."""
        at, status = self._allowed.get(key) or self._refused.get(key) or (-inf, 0)
        return status if now - at < self._holds else None

    def was_allowed(self, key: str) -> bool:
        """Tells whether the last answer, however old, was that it may."""
        return key in self._allowed

    def add(self, key: str, status: int, now: float) -> None:
        """Takes in an answer."""
        for known in (self._allowed, self._refused):
            known.pop(key, None)
        kept = self._refused if status else self._allowed
        kept[key] = now, status
        if len(kept) > self._most:
            del kept[next(iter(kept))]


class MetricsAuth:
    """Decides who may read /metrics: bearer tokens that the API server knows (TokenReview), of users who may get the URL
    (SubjectAccessReview). Answers hold for a minute; beyond so many tokens at once nobody is asked."""

    def __init__(self, api: Api, reviewed: Reviewed | None = None, *, rest: float = REST) -> None:
        self._api = api
        self._rest = rest
        self._reviewed = Reviewed() if reviewed is None else reviewed
        self._asking: dict[str, asyncio.Task[int]] = {}  # by hash, until the rest after the answer is over

    async def refusal(self, header: str) -> int:
        """Returns 0, or the HTTP status that says why not (REFUSALS)."""
        token = header.removeprefix("Bearer ")
        if not header.startswith("Bearer ") or not token or not token.isascii():
            return 401
        key = hashlib.sha256(token.encode()).hexdigest()
        status = self._reviewed.status(key, time.monotonic())
        if status is not None:
            return status
        asking = self._asking.get(key)
        if asking is None and len(self._asking) >= REVIEWS + (RESERVED if self._reviewed.was_allowed(key) else 0):
            return 429
        return await asyncio.shield(asking or self._begin(key, token))  # others may wait for the same answer

    def _begin(self, key: str, token: str) -> asyncio.Task[int]:
        asking = self._asking[key] = asyncio.create_task(self._ask(key, token))
        loop = asyncio.get_running_loop()
        asking.add_done_callback(lambda _: loop.call_later(self._rest, self._asking.pop, key))
        return asking

    async def _ask(self, key: str, token: str) -> int:
        try:
            status = await self._answer(token)
        except (Refused, *FAULTS):
            return 503
        self._reviewed.add(key, status, time.monotonic())
        return status

    async def _answer(self, token: str) -> int:
        known = await self._review(kinds.TOKEN_REVIEW, {"token": token})
        if not known.get("authenticated"):
            return 401
        user = {"user": known["user"]["username"], "groups": known["user"].get("groups", [])}
        wish = {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
        answer = await self._review(kinds.ACCESS_REVIEW, {**user, **wish})
        return 0 if answer.get("allowed") else 403

    async def _review(self, kind: Kind, spec: Json) -> Json:
        answer = await self._api.create({"apiVersion": kind.api_version, "kind": kind.name, "spec": spec})
        status: Json = answer.get("status", {})
        return status
