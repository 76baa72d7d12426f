"""One reconcile of one run on a cluster: fetch, return if finished, observe, decide, act, one status write, then Events.

Level-triggered: whoever wakes a key only says that something may have changed. Kept in memory are conveniences (keys.py).
"""

import asyncio
import math
from dataclasses import replace
from datetime import UTC, datetime

from maft_operator.cluster import conditions, explaining, exporting, exports, kinds, looks, placement, reasons, room, spent, upgrade
from maft_operator.cluster.api import Api, Refused
from maft_operator.cluster.backend import ClusterBackend
from maft_operator.cluster.event_troubles import troubles_in
from maft_operator.cluster.fields import parts, texts
from maft_operator.cluster.images import Images
from maft_operator.cluster.indexes import added_up
from maft_operator.cluster.keys import Keys, KeyState, Seen
from maft_operator.cluster.looks import sooner
from maft_operator.cluster.manifests import Owner
from maft_operator.cluster.measured import measure
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.cluster.status import Reconciled, status
from maft_operator.cluster.writing import Writer, has_begun, own_status, slim
from maft_operator.plan import accelerators, budget
from maft_operator.plan import exports as plan_exports
from maft_operator.plan import graph as plan
from maft_operator.plan.best import settled
from maft_operator.plan.done import left_over
from maft_operator.plan.graph import Graph
from maft_operator.plan.reconcile import Outcome, reconcile
from maft_operator.spec import skew
from maft_operator.spec.parse import store_url
from maft_operator.spec.schema import BadSpec, Json
from maft_operator.spec.skew import Reading


class Controller:
    """The reconciler of runs (workers.py)."""

    def __init__(self, api: Api, images: Images, *, keys: Keys, writer: Writer) -> None:
        self._api = api
        self._images = images
        self._keys = keys
        self._writer = writer
        self._since = _now()

    async def look(self, key: str, state: KeyState) -> float | None:
        """Glances where that will do, else looks."""
        woken, state.woken = state.woken, False  # before the look: what is told meanwhile may have come too late for it
        seen, clock = state.seen, asyncio.get_running_loop().time()
        if seen is None or woken or clock >= seen.until:
            return await self.reconcile(key, state)
        return await self._glance(seen, clock, state)

    async def reconcile(self, key: str, state: KeyState) -> float | None:
        """Looks at one run and takes its next step; returns seconds until the next look, or None where an event will tell."""
        state.seen = None
        namespace, _, name = key.partition("/")
        resource = await self._api.get(kinds.RUN, namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._keys.forget(key, again=state.woken)
            return None
        resource = await self._upgraded(resource, state)
        if conditions.finished(own_status(resource)):
            return await self._finished(resource, state)
        try:
            reading = _parsed(resource, state, self._images.pods)
        except BadSpec as error:
            await self._writer.refuse(resource, str(error), state, begun=reasons.NEWER_SPEC)
            return None
        try:
            return await self._step(resource, reading, state)
        except Refused as error:
            await self._writer.block(resource, reasons.refusal_reason(str(error)), str(error), state)
            raise

    # --- the ways that a reconcile goes ---

    async def _upgraded(self, resource: Json, state: KeyState) -> Json:
        """Writes a status of release 0.1 anew: patched, since apply cannot give a field another type, then applied as any other."""
        old = own_status(resource)
        if not upgrade.is_old(old):
            return resource
        new, renewed = upgrade.upgraded(old), {} if conditions.finished(old) else upgrade.RENEWED
        await self._api.patch_status(resource, upgrade.merge_patch(old) | renewed)
        return await self._writer.apply(resource, new, state) or {**resource, "status": new}

    async def _step(self, resource: Json, reading: Reading, state: KeyState) -> float | None:
        now, old, run, uid = _now(), own_status(resource), reading.run, resource["metadata"]["uid"]
        pause, crowd = placement.read(old, now), room.read(old, now)
        taken = spent.read(old, now)
        over = budget.exceeded(run.spec.budget, taken, now)
        held = pause.holds(now) or crowd.holds(now)
        graph = plan.graph(run, store_url(run.spec.storage), suspended=run.spec.suspend, held=held, spent=over)
        backend = self._backend(resource, graph, state, now)
        outcome = await reconcile(backend, graph)
        graph = outcome.graph
        measured = await measure(outcome.snapshot.metrics, state.resting)
        pause = placement.decided(pause, graph, outcome.snapshot.observed, outcome.snapshot.places, uid, now)
        crowd = room.decided(crowd, graph, outcome.snapshot.observed, outcome.snapshot.troubles, uid, now)
        troubles = (*placement.troubles(pause, graph, now), *room.troubles(crowd, graph, now), *measured.troubles)
        outcome = replace(outcome, snapshot=outcome.snapshot.with_troubles(troubles))
        done = added_up(measured.done, graph, outcome.snapshot.summaries)
        sent = await exports.advance(backend, graph, outcome.snapshot, old, now, over=_has_ended(outcome))
        work = Reconciled(run, graph, outcome, done, reading.warnings, pause, crowd, taken, sent)
        new = status(work, old, resource["metadata"]["generation"], now)
        over_at = budget.next_look(run.spec.budget, spent.read(new, now), now)
        again = sooner(pause.next_look(graph, now), crowd.next_look(graph, now), over_at)
        state.seen = self._calm(resource, work, again)
        delay = await self._writer.write(resource, new, state)
        for name in left_over(graph, outcome.snapshot.observed, texts(old, "done")):
            await backend.delete(name)
        sends = conditions.finished(new) and exporting.is_pending({**resource, "status": new})  # it does not expire before
        return sooner(delay, looks.CALM if sends else looks.next_look(outcome, new, run, now, self._keys.at_work), again)

    def _backend(self, resource: Json, graph: Graph, state: KeyState, now: datetime) -> ClusterBackend:
        owner = Owner(graph.last.run, resource["metadata"]["uid"], self._images.pods.inherited(resource))
        old, fresh = own_status(resource), self._is_fresh(resource, state)
        return ClusterBackend(self._api, owner, graph, self._images, now=now, applied=state.applied, status=old, fresh=fresh)

    def _calm(self, resource: Json, work: Reconciled, again: float | None) -> Seen | None:
        """Remembers a look after which glances will do. again: seconds until another one is due, whatever happens."""
        if not (looks.is_calm(work.outcome) or looks.is_told(work.outcome)) or work.pause.times or work.crowd.since:
            return None
        clock = asyncio.get_running_loop().time()
        until = clock + min(looks.trusted(self._keys.at_work), again if again is not None else math.inf)
        return Seen(slim(resource), work, clock, until)

    async def _glance(self, seen: Seen, clock: float, state: KeyState) -> float | None:
        """Asks running tasks how far they are, and writes it; looks at once where Events say something new of what waits."""
        now, old, work = _now(), own_status(seen.resource), seen.work.later(clock - seen.at)
        measured = await measure(work.snapshot.metrics, state.resting)
        unexplained = work.snapshot.unexplained
        events = await explaining.events(self._api, seen.resource["metadata"]["namespace"], unexplained)
        if measured.troubles or not set(troubles_in(events, unexplained)) <= set(work.snapshot.troubles):
            state.seen = None
            return 0.0
        done = added_up(measured.done, work.graph, work.snapshot.summaries)
        work = replace(work, done=done, spent=spent.read(old, now))
        new = status(work, old, seen.resource["metadata"]["generation"], now)
        delay = await self._writer.write(seen.resource, new, state)
        between = looks.looks if unexplained else looks.glances
        return sooner(delay, between(self._keys.at_work), max(0.0, seen.until - clock))

    def _is_fresh(self, resource: Json, state: KeyState) -> bool:
        """Whether nothing can have been made for the run: it is younger than this process, which has written nothing about it. A
        status alone tells too little, for it may be lost."""
        made = datetime.fromisoformat(resource["metadata"]["creationTimestamp"])
        return not own_status(resource) and not state.written and made > self._since

    async def _finished(self, resource: Json, state: KeyState) -> float | None:
        """Sends what targets still lack, then waits for the run to expire, which is all that is left to do."""
        state.read = None
        generation = resource["metadata"].get("generation", 0)
        new = conditions.summed(resource["status"], _now())
        if exporting.is_pending(resource):
            rows = await self._sent(resource, state)
            new = {**{name: value for name, value in new.items() if name != "exports"}, **({"exports": rows} if rows else {})}
        await self._writer.write(resource, {**new, "observedGeneration": generation}, state)
        return looks.CALM if exporting.is_pending({**resource, "status": new}) else await self._writer.expire(resource)

    async def _sent(self, resource: Json, state: KeyState) -> list[Json]:
        """Makes `exports` of a run that has ended; those that there are where only another release can read the run."""
        now, old = _now(), own_status(resource)
        try:
            run = skew.read(resource, begun=True).run
        except BadSpec:
            return parts(old, "exports")
        graph = plan.graph(run, store_url(run.spec.storage))
        backend = self._backend(resource, graph, state, now)
        snapshot = await backend.observe()
        over = exporting.has_results(old)
        return await exports.advance(backend, settled(graph, snapshot.observed), snapshot, old, now, over=over)


def _parsed(resource: Json, state: KeyState, pods: PodSettings) -> Reading:
    begun = has_begun(own_status(resource))
    return state.reading(resource.get("spec", {}), lambda: _read(resource, pods, begun=begun), begun=begun)


def _read(resource: Json, pods: PodSettings, *, begun: bool) -> Reading:
    reading = skew.read(resource, begun=begun)
    if not begun:
        accelerators.check(reading.run, pods.gpu_resource, pods.defaults)
    if reading.run.spec.storage is None:
        raise BadSpec("spec.storage: missing; a run on a cluster needs an S3 bucket that its pods can reach")
    return reading


def _has_ended(outcome: Outcome[Snapshot]) -> bool:
    """Whether nothing of the run follows, and it has made something."""
    ended, evaluated = outcome.step.phase, plan_exports.evaluated(outcome.graph, outcome.snapshot.observed)
    return ended == "Complete" or (ended == "Failed" and evaluated > 0)


def _now() -> datetime:
    return datetime.now(UTC)
