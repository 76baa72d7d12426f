"""The reconciler of comparisons (workers.py): fetch, return if finished, list its runs, decide, act, one status write.

What is decided is plan/comparison.py's, as its first lines tell.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from maft.summaries import CompareSummary
from maft_operator.cluster import conditions, exporting, images, kinds, observed, reasons
from maft_operator.cluster.api import Api, Refused
from maft_operator.cluster.applying import Applier, passes
from maft_operator.cluster.comparison import objects
from maft_operator.cluster.comparison.status import Compared, status
from maft_operator.cluster.fields import part, parts
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys, KeyState
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.looks import CALM, expiry, rest
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.cluster.reasons import Trouble, refusal_reason
from maft_operator.cluster.writing import Writer, has_begun, own_status
from maft_operator.plan import accelerators
from maft_operator.plan import step as plan
from maft_operator.plan.comparison import ComparisonStep, RunState, step, table_graph
from maft_operator.plan.graph import Task
from maft_operator.plan.search import Growing
from maft_operator.spec import comparison as spec
from maft_operator.spec import skew
from maft_operator.spec.comparison import Comparison
from maft_operator.spec.schema import COMPARISON, BadSpec, Json

TABLE = 10.0  # seconds between two looks at the table's Job, whose pod may wait for what no event tells of
UNCHOSEN = "spec.search: no trial has a value, for of each a run failed or has no validation questions, so there is none to show"


class Comparisons:
    """Looks at one comparison at a time."""

    def __init__(self, api: Api, images: Images, *, keys: Keys, writer: Writer) -> None:
        self._api = api
        self._images = images
        self._keys = keys
        self._writer = writer

    async def look(self, key: str, state: KeyState) -> float | None:
        """Looks at one comparison and takes its next step; returns seconds until the next look, or None where events will tell."""
        state.woken = False
        _, namespace, name = kinds.addressed(key)
        resource = await self._api.get(kinds.COMPARISON, namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._keys.forget(key, again=state.woken)
            return None
        if conditions.finished(own_status(resource)):
            state.read = None
            return await self._finished(resource, state)
        try:
            # To check hundreds of runs takes seconds.
            reading = await asyncio.to_thread(_parsed, resource, state, self._images.pods)
        except BadSpec as error:
            await self._writer.refuse(resource, str(error), state, begun=reasons.INVALID_SPEC)
            return None
        try:
            return await self._step(resource, reading, state)
        except Refused as error:
            await self._writer.block(resource, refusal_reason(str(error)), str(error), state)
            raise

    async def _step(self, resource: Json, reading: "Reading", state: KeyState) -> float | None:
        one, growing = reading.growing.alone, reading.growing
        now, old, uid = datetime.now(UTC), own_status(resource), resource["metadata"]["uid"]
        applier = Applier(self._api, kinds.COMPARISON, one.template.namespace, uid, now=now, applied=state.applied)
        made = await self._labelled(kinds.RUN, one.template.namespace, one.template.name, applier)
        state.rests = asyncio.get_running_loop().time() + rest(len(made))
        seen = objects.states(made)
        one = await asyncio.to_thread(growing.grown, seen)  # the next wave of a long search takes its sampler seconds
        decided = step(one, seen)
        if reading.notices:  # a newer release may have made what is not known here
            decided = replace(decided, delete=())
        refused = await self._act(one, decided, {run["metadata"]["name"]: run for run in made}, uid, applier)
        lacking = {trouble.child for trouble in refused}
        seen |= {child.run.name: RunState() for child in decided.create if child.run.name not in lacking}
        table = await self._table(growing.compared(seen), seen, uid, applier) if decided.table else Table()
        decided = step(one, seen, table_done=table.done)
        trials = growing.trials(seen)
        troubles = (*refused, *table.troubles)
        work = Compared(one, decided, seen, table.summary, troubles, table.failure, reading.notices, trials)
        new = status(work, old, resource["metadata"]["generation"], now)
        delay = await self._writer.write(resource, new, state)
        if work.phase in ("Complete", "Failed"):
            return expiry(new, one.ttl_seconds_after_finished, now)
        return delay or (TABLE if decided.table or refused else CALM)

    async def _labelled(self, kind: Kind, namespace: str, name: str, applier: Applier) -> Sequence[Json]:
        """Lists what is the comparison's own: anybody may write its label."""
        return applier.ours(kind, await self._api.list_all(kind, namespace, label_selector=f"{kinds.COMPARISON.label}={name}"))

    async def _act(
        self, one: Comparison, decided: ComparisonStep, made: dict[str, Json], uid: str, applier: Applier
    ) -> list[Trouble]:
        """Removes, stops, resumes and makes runs; what the API server refuses is told, and does not stop the others."""
        for name in decided.delete:
            await self._api.delete(kinds.RUN, one.template.namespace, name, made[name]["metadata"]["uid"])
        changed = [objects.with_suspend(made[name], suspend=True) for name in decided.suspend]
        changed += [objects.with_suspend(made[name], suspend=False) for name in decided.resume]
        new = [objects.run(child, one, uid) for child in decided.create]
        return [*await _tried(self._api.apply, changed), *await _tried(lambda body: applier.ensure(body, None), new)]

    async def _table(self, one: Comparison, seen: objects.States, uid: str, applier: Applier) -> "Table":
        """Makes the table's Job and looks at it."""
        graph = table_graph(one, [name for name, state in seen.items() if state.phase == "Complete"])
        if not graph.last.compared:
            return Table(failure=Trouble("", reasons.RUNS_FAILED, UNCHOSEN))
        namespace, name = one.template.namespace, one.template.name
        jobs, pods = [await self._labelled(kind, namespace, name, applier) for kind in (kinds.JOB, kinds.POD)]
        others = [job["metadata"] for job in jobs if objects.is_of_others(job, graph.last)]
        for metadata in others:
            await self._api.delete(kinds.JOB, metadata["namespace"], metadata["name"], metadata["uid"])
        if others:
            return Table()
        snapshot = observed.read(graph, {kinds.JOB.name: jobs, kinds.POD.name: pods}, datetime.now(UTC))
        following = plan.step(graph, snapshot.observed)
        used = images.pins(self._images, {}, {}, {}).used_by(self._images)
        wanted = [objects.table_job(item, one, uid, used) for item in following.create if isinstance(item, Task)]
        refused = await _tried(lambda body: applier.ensure(body, None), wanted)
        if following.phase == "Failed":
            child = following.failed_child
            return Table(failure=snapshot.ended.get(child) or Trouble(child, reasons.ATTEMPTS_EXHAUSTED, following.message))
        summary = snapshot.summaries.get(graph.last.name)
        done, known = following.phase == "Complete", summary if isinstance(summary, CompareSummary) else None
        return Table(done, known, troubles=(*refused, *snapshot.troubles))

    # --- comparisons that are not worked at ---

    async def _finished(self, resource: Json, state: KeyState) -> float | None:
        """Waits for it to expire, which is all that is left to do; its runs go with it, so not before these have sent all."""
        generation = resource["metadata"].get("generation", 0)
        await self._writer.write(resource, {**own_status(resource), "observedGeneration": generation}, state)
        return CALM if await self._sends(resource, state) else await self._writer.expire(resource)

    async def _sends(self, resource: Json, state: KeyState) -> bool:
        """Whether it is due to expire and a run of it is still sending."""
        now, spec = datetime.now(UTC), part(resource, "spec")
        left = expiry(own_status(resource), spec.get("ttlSecondsAfterFinished"), now)
        if left is None or left > 0 or not parts(spec, "template", "export"):
            return False
        namespace, name, uid = (resource["metadata"][field] for field in ("namespace", "name", "uid"))
        applier = Applier(self._api, kinds.COMPARISON, namespace, uid, now=now, applied=state.applied)
        return any(map(exporting.is_pending, await self._labelled(kinds.RUN, namespace, name, applier)))


async def _tried(apply: Callable[[Json], Awaitable[object]], several: Iterable[Json]) -> list[Trouble]:
    """Applies each, and returns what was refused for good."""
    troubles = []
    for wanted in several:
        try:
            await apply(wanted)
        except Refused as error:
            if not passes(error):
                troubles.append(Trouble(wanted["metadata"]["name"], refusal_reason(str(error)), str(error)))
    return troubles


@dataclass(frozen=True, slots=True)
class Table:
    """What became of the table: whether its Job is done, what it said, why it failed, what it waits for."""

    done: bool = False
    summary: CompareSummary | None = None
    failure: Trouble | None = None
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """A comparison as it was read."""

    growing: Growing
    notices: tuple[str, ...] = ()


def _parsed(resource: Json, state: KeyState, pods: PodSettings) -> Reading:
    begun = has_begun(own_status(resource))
    return state.reading(resource.get("spec", {}), lambda: _read(resource, pods, begun=begun), begun=begun)


def _read(resource: Json, pods: PodSettings, *, begun: bool) -> Reading:
    """Reads it without what a newer definition has, and what is not known here; BadSpec where it cannot be run."""
    known, unknown = skew.pruned(resource, COMPARISON)
    one = spec.read(known)
    if not begun:
        accelerators.check_all(one, pods.gpu_resource, pods.defaults)
    if one.template.spec.storage is None:
        raise BadSpec("spec.template.storage: missing; runs on a cluster need an S3 bucket that their pods can reach")
    return Reading(Growing(one), tuple(skew.TOLD.format(path) for path in unknown[: skew.SHOWN]))
