"""One reconcile of one run on a cluster: fetch, return if finished, observe, decide, act, one status write, then Events.

Level-triggered: whoever adds a key to the queue only says that something may have changed. Kept in memory are conveniences
(what was written last, when), never state: a restart loses nothing.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from maft_operator import progress
from maft_operator.cluster import reasons, status
from maft_operator.cluster.api import FAULTS, Api, ClusterBackend, Refused, refusal_reason
from maft_operator.cluster.manifests import MANAGER, Images, Owner
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.plan import graph as plan
from maft_operator.plan.reconcile import reconcile
from maft_operator.spec.parse import Run, parse, store_url
from maft_operator.spec.schema import GROUP, KIND, VERSION, BadSpec, Json

log = logging.getLogger("maft")
WRITE = 5.0  # seconds between two status writes where only progress moved
LOOK = 10.0  # seconds between two looks at what no event tells of: a running stage's metrics, a quota, a Secret
CALM = 60.0  # the same where events will tell
BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds before a reconcile that failed is tried again


@dataclass(slots=True)
class Memory:
    """Of one key. written: resourceVersion of our last status write; at: when; failures: reconciles that failed in a row."""

    written: str = ""
    at: float = float("-inf")
    failures: int = 0
    applied: dict[str, str] = field(default_factory=dict)


class Controller:
    """Works off the queue. `workers` reconciles at a time, one for each key."""

    def __init__(self, api: Api, images: Images, session: aiohttp.ClientSession, metrics: Metrics, *, workers: int = 16) -> None:
        self.queue = Queue()
        self.metrics = metrics
        self._api = api
        self._images = images
        self._session = session
        self._workers = workers
        self._memory: dict[str, Memory] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    def forget(self, key: str) -> None:
        """The run has gone."""
        self._memory.pop(key, None)
        self.queue.forget(key)
        self.metrics.gone(key)

    def wrote(self, key: str, version: str) -> bool:
        """Whether that version of the resource is the echo of our own status write."""
        memory = self._memory.get(key)
        return memory is not None and memory.written == version

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._attempt(key)
            finally:
                self.queue.done(key)

    async def _attempt(self, key: str) -> None:
        memory = self._memory.setdefault(key, Memory())
        try:
            with self.metrics.reconcile.time():
                again = await self.reconcile(key, memory)
            memory.failures = 0
        except (Refused, *FAULTS) as error:
            log.warning("%s: will look again: %s", key, " ".join(f"{type(error).__name__}: {error}".split())[:500])
            again = self._later(memory, "refused" if isinstance(error, Refused) else "unreachable")
        except Exception:  # a fault of ours must not stop the other runs
            log.exception("%s: reconcile failed", key)
            again = self._later(memory, "fault")
        if again is not None:
            self.queue.add(key, again)

    def _later(self, memory: Memory, kind: str) -> float:
        self.metrics.errors.labels(kind).inc()
        memory.failures += 1
        return BACKOFF[min(memory.failures, len(BACKOFF)) - 1]

    async def reconcile(self, key: str, memory: Memory) -> float | None:
        """Seconds until the next look, or None where an event will tell."""
        namespace, _, name = key.partition("/")
        resource = await self._api.get(KIND, namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self.forget(key)
            return None
        if status.finished(resource.get("status") or {}):
            return await self._ended(resource, memory)
        try:
            run = parse(resource)
            if run.spec.storage is None:
                raise BadSpec("spec.storage: missing; a run on a cluster needs an S3 bucket that its pods can reach")
        except BadSpec as error:
            await self._reject(resource, str(error), memory)
            return None
        try:
            return await self._step(resource, run, memory)
        except Refused as error:
            await self._blocked(resource, error, memory)
            raise

    # --- the ways that a reconcile goes ---

    async def _step(self, resource: Json, run: Run, memory: Memory) -> float | None:
        now = _now()
        graph = plan.graph(run, store_url(run.spec.storage), suspended=run.spec.suspend)
        owner = Owner(run, resource["metadata"]["uid"])
        backend = ClusterBackend(
            self._api, owner, graph, self._images, now=now, applied=memory.applied, fresh=not resource.get("status")
        )
        decided = await reconcile(backend, graph)
        for item in backend.existing([*decided.delete, *(i.name for i in decided.create)]):
            await backend.create(item)
        refused = (*backend.refused, *(await backend.events() if backend.world.silent else ()))
        done = await self._done(backend.world.metrics)
        seen = status.Seen(run, graph, decided, backend.world, done, refused)
        old = resource.get("status") or {}
        new = status.status(seen, old, resource["metadata"]["generation"], now)
        delay = await self._write(resource, new, memory)
        return min(filter(None, (delay, self._next_look(decided, seen, new, run))), default=None)

    def _next_look(self, decided: plan.Step, seen: status.Seen, new: Json, run: Run) -> float | None:
        if decided.phase in ("Complete", "Failed"):
            return _expiry(new, run.spec.ttl_seconds_after_finished)
        if decided.phase == "Suspended":
            return None
        waits = seen.refused or seen.world.troubles or seen.world.silent
        return LOOK if seen.world.metrics or waits else CALM

    async def _done(self, metrics: Mapping[str, str]) -> dict[str, tuple[float, float]]:
        found = await asyncio.gather(*(progress.read(self._session, url) for url in metrics.values()))
        return {name: units for name, units in zip(metrics, found, strict=True) if units}

    async def _ended(self, resource: Json, memory: Memory) -> float | None:
        """A finished run is only waited for to expire."""
        generation = resource["metadata"].get("generation", 0)
        if resource["status"].get("observedGeneration") != generation:
            await self._write(resource, {**resource["status"], "observedGeneration": generation}, memory)
        left = _expiry(resource["status"], resource.get("spec", {}).get("ttlSecondsAfterFinished"))
        if left is not None and left <= 0:
            metadata = resource["metadata"]
            log.info("%s/%s: removed, spec.ttlSecondsAfterFinished is over", metadata["namespace"], metadata["name"])
            await self._api.delete(KIND, metadata["namespace"], metadata["name"], metadata["uid"])
            return None
        return left

    async def _reject(self, resource: Json, message: str, memory: Memory) -> None:
        old, generation = resource.get("status") or {}, resource["metadata"].get("generation", 0)
        await self._write(resource, status.rejected(reasons.INVALID_SPEC, message, old, generation, _now()), memory)

    async def _blocked(self, resource: Json, error: Refused, memory: Memory) -> None:
        """The API server does not let us look or act: said in the status, if that at least is allowed."""
        old, generation = resource.get("status") or {}, resource["metadata"].get("generation", 0)
        await self._write(resource, status.blocked(refusal_reason(str(error)), str(error), old, generation, _now()), memory)

    # --- writing ---

    async def _write(self, resource: Json, new: Json, memory: Memory) -> float | None:
        """One status write, if anything changed; seconds to wait where only progress did, and too soon."""
        old = resource.get("status") or {}
        if old == new:
            return None
        clock = asyncio.get_running_loop().time()
        if not status.important(old, new) and clock - memory.at < WRITE:
            return memory.at + WRITE - clock
        metadata = {key: resource["metadata"][key] for key in ("name", "namespace", "uid")}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "status": new}
        written = await self._api.apply_status(body)
        memory.at = clock
        memory.written = written["metadata"]["resourceVersion"] if written else ""
        for condition in status.transitions(old, new) if written else ():
            self.metrics.transitions.labels(condition["type"], condition["status"], condition["reason"]).inc()
            await self._event(resource, condition)
        return None

    async def _event(self, resource: Json, condition: Json) -> None:
        """Best effort: the status is the truth."""
        metadata = resource["metadata"]
        log.info("%s/%s: %s=%s %s: %s", metadata["namespace"], metadata["name"], *_told(condition))
        try:
            await self._api.create(_event(resource, condition, _now()), metadata["namespace"])
        except (Refused, *FAULTS) as error:
            log.debug("%s: no Event: %s", metadata["name"], error)


def _told(condition: Json) -> tuple[str, str, str, str]:
    return condition["type"], condition["status"], condition["reason"], condition["message"]


def _event(resource: Json, condition: Json, now: datetime) -> Json:
    metadata = resource["metadata"]
    bad = (condition["type"] in ("Accepted", "Progressing") and condition["status"] == "False") or (
        condition["type"] == "Failed" and condition["status"] == "True"
    )
    harmful = condition["reason"] == reasons.WRONG_MAJORITY.name
    expected = condition["reason"] in (reasons.COMPLETE.name, reasons.SUSPENDED.name)
    what = f"{metadata['uid']} {condition['type']} {condition['status']} {condition['reason']} {condition['lastTransitionTime']}"
    moment = status.stamp(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(what.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            **{key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
        },
        "type": "Warning" if harmful or (bad and not expected) else "Normal",
        "reason": condition["reason"],
        "message": condition["message"] or f"{condition['type']} is {condition['status']}",
        "source": {"component": MANAGER},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _expiry(state: Json, ttl: Any) -> float | None:
    """Seconds until a finished run is to be removed; None: never."""
    ended = state.get("completionTime")
    if not isinstance(ttl, int) or not ended:
        return None
    return (datetime.fromisoformat(ended) + timedelta(seconds=ttl) - _now()).total_seconds()


def _now() -> datetime:
    return datetime.now(UTC)
