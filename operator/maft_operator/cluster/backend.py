"""The backend on a cluster: tasks and servers of one run as objects, brought to what they should be where they differ."""

import asyncio
import secrets
from dataclasses import replace
from datetime import datetime

from maft_operator.cluster import (
    earlier,
    explaining,
    exporting,
    images,
    jobs,
    kinds,
    manifests,
    observed,
    placement,
    resources,
    room,
    rows,
    server_key,
    workloads,
)
from maft_operator.cluster.api import Api, Refused
from maft_operator.cluster.applying import Applier, listed, passes
from maft_operator.cluster.children import pods_in, tasks_in
from maft_operator.cluster.drift import Sent
from maft_operator.cluster.explaining import ASKED
from maft_operator.cluster.fields import part, texts
from maft_operator.cluster.images import Images, Pins
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.manifests import RUN, Owner
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.pod_template import SERVE
from maft_operator.plan import done as plan
from maft_operator.plan.graph import Graph, Server, Task
from maft_operator.plan.reconcile import Refusal
from maft_operator.spec.schema import Json


class ClusterBackend:
    """One run for one reconcile.

    images: the operator's; status: the run's, which knows its own ones, and what was done before.
    applied: by uid what we sent last and what became of it, so that nothing is written for ever.
    fresh: nothing was ever made for the run, so lists would find nothing; names are fixed, so making one twice is harmless.
    """

    def __init__(
        self,
        api: Api,
        owner: Owner,
        graph: Graph,
        images: Images,
        *,
        now: datetime,
        applied: dict[str, Sent],
        status: Json | None = None,
        fresh: bool = False,
    ) -> None:
        self._api = api
        self._owner = owner
        self._graph = graph
        self._images = images
        self._now = now
        self._applier = Applier(api, kinds.RUN, owner.run.namespace, owner.uid, now=now, applied=applied)
        self._status = status or {}
        self._fresh = fresh
        self._lacks_key = False  # whether the Secret of the run's servers has to be made
        self._children: dict[str, list[Json]] = {}  # by kind, as the last look found them: what drift is measured against

    async def observe(self) -> Snapshot:
        """Looks at all children of the run, and at Events of those that nothing else explains."""
        if self._fresh:
            return self._with_key(Snapshot(pins=self._pinned()))
        wanted = kinds.children(isolated=self._images.isolated)
        lists = await asyncio.gather(*(self._listed(kind) for kind in wanted))
        self._children = {kind.name: items for kind, items in zip(wanted, lists, strict=True)}
        missing, crowded = (record.read(self._status, self._now).since for record in (placement, room))
        gpu_resource = self._images.pods.gpu_resource
        snapshot = observed.read(self._graph, self._children, self._now, missing, crowded, gpu_resource)
        done = plan.recorded(self._graph, texts(self._status, "done")) | plan.found(self._graph, snapshot.summaries.values())
        size = resources.model_bytes(self._status, snapshot.summaries.values())
        snapshot = replace(snapshot, pins=self._pinned(), model_bytes=size, observed=replace(snapshot.observed, done=done))
        snapshot = earlier.measured(self._owner.run, self._graph, snapshot, rows.read(self._status))
        self._images = replace(self._images, model_bytes=size)
        snapshot = observed.explained(snapshot, await explaining.events(self._api, self._owner.run.namespace, snapshot.unexplained))
        return self._with_key(await self._told_by_queues(snapshot))

    async def create(self, item: Task | Server) -> tuple[Refusal, ...]:
        """Makes the objects of a task or server."""
        return await self._ensured(item)

    async def keep(self, item: Task | Server) -> tuple[Refusal, ...]:
        """Makes objects again that somebody deleted, and takes back what somebody changed."""
        if isinstance(item, Task) and self._waits_with_another_template(item):
            await self.delete(item.name)  # the next look makes it anew
            return ()
        return await self._ensured(item)

    async def delete(self, name: str) -> None:
        """Deletes whatever has that name, unless it is on its way out already."""
        for kind in kinds.DELETED_CHILDREN:
            for child in self._children.get(kind.name, ()):
                if child["metadata"]["name"] == name and "deletionTimestamp" not in child["metadata"]:
                    await self._api.delete(kind, self._owner.run.namespace, name, child["metadata"]["uid"])

    def _waits_with_another_template(self, item: Task) -> bool:
        """Whether the podTemplate has changed since the Job was made, whose template never does, and nothing of it is at work:
        what it waits for, or dies of, may be what was changed."""
        job = self._named(kinds.JOB.name, item.name)
        if job is None or not images.has_another_template(job, self._owner.run.spec.pod_template):
            return False
        return any(jobs.stands_still(task, self._now) for task in tasks_in(self._children) if task.name == item.name)

    async def _listed(self, kind: Kind) -> list[Json]:
        """Lists the run's own; what only has its label goes before the next list comes, for it may be large."""
        run = self._owner.run
        return self._applier.ours(kind, await self._api.list(kind, run.namespace, label_selector=f"{RUN}={run.name}"))

    async def _told_by_queues(self, snapshot: Snapshot) -> Snapshot:
        """Adds what Workloads say of what is queued; nothing without the right to read them, which is an optional one."""
        asked = dict(list(workloads.selectors(snapshot, self._children, self._owner).items())[:ASKED])
        several, namespace = list(dict.fromkeys(asked.values())), self._owner.run.namespace
        try:
            lists = await asyncio.gather(*(self._api.list_served(kinds.WORKLOAD, namespace, **dict([one])) for one in several))
        except Refused as error:
            explaining.unread(kinds.WORKLOAD, namespace, error)
            return snapshot
        listed = {selector: items for selector, items in zip(several, lists, strict=True) if items is not None}
        if len(listed) == len(several):
            return workloads.explained(snapshot, workloads.owned(listed, asked, self._children))
        if queued := workloads.of_kueue(asked, self._children):
            explaining.say_unserved(kinds.WORKLOAD)
        return workloads.unserved(snapshot, queued)

    def _pinned(self) -> Pins:
        """Settles which images the run uses, also for what is made after this look."""
        asked = {SERVE: self._owner.run.spec.inference.image}
        own = pods_in(self._children, (server.name for server in self._graph.servers))
        of_run = [job for job in self._children.get(kinds.JOB.name, ()) if not exporting.is_of_one(job)]
        made = {**self._children, kinds.POD.name: own, kinds.JOB.name: of_run}
        pins = images.pins(self._images, asked, part(self._status, "images"), made)
        self._images = pins.used_by(self._images)
        return pins

    # --- the key of the run's servers ---

    def _with_key(self, snapshot: Snapshot) -> Snapshot:
        """Settles whether the run's servers want a key, also for what is made after this look."""
        own = server_key.name(self._owner.run, self._owner.uid)
        elsewhere = bool(self._owner.run.spec.managed_by)  # pods in other clusters, where the Secret is not
        key = server_key.settled(own, self._status, self._children, offered=self._images.keyed and not elsewhere)
        lines = (trouble.message for trouble in snapshot.troubles)
        self._lacks_key = server_key.is_missing(key, self._status, self._children, lines)
        self._images = replace(self._images, key=key)
        return replace(snapshot, server_key=key)

    async def _made_key(self, child: str) -> tuple[Refusal, ...]:
        """Makes the Secret where it may be missing; one that is there stays. What has the key of one that was lost is made anew."""
        if not self._lacks_key:
            return ()
        made = manifests.secret(self._owner, self._images.key, secrets.token_urlsafe(32))
        try:
            await self._api.create(made, self._owner.run.namespace)
        except Refused as error:
            if error.code != 409 and not passes(error):
                return (Refusal(child, str(error)),)
        else:
            for kind, holder in server_key.holders(self._children):
                await self._api.delete(kind, self._owner.run.namespace, holder["metadata"]["name"], holder["metadata"]["uid"])
        self._lacks_key = False
        return ()

    # --- objects ---

    async def _ensured(self, item: Task | Server) -> tuple[Refusal, ...]:
        """Applies each object of the item that is missing or differs, and tells which were refused for good."""
        beside = isinstance(item, Task) and item.export is not None  # asks no server, also when all of them have gone
        if refused := () if beside else await self._made_key(item.name):
            return refused
        refusals = []
        for wanted in manifests.objects(item, *self._made_with(item)):
            try:
                await self._applier.ensure(wanted, listed(self._children, wanted))
            except Refused as error:
                refusals += [] if passes(error) else [Refusal(item.name, str(error))]
        return tuple(refusals)

    def _made_with(self, item: Task | Server) -> tuple[Owner, Images]:
        """What the item's own Job or Deployment, where there is one, was made with."""
        kind = kinds.JOB if isinstance(item, Task) else kinds.DEPLOYMENT
        child = self._named(kind.name, item.name)
        owner = replace(self._owner, inherited=self._images.pods.inherited(child)) if child else self._owner
        if isinstance(item, Task) and item.export:  # by the operator's own release: that of the run may know no exports
            return owner, replace(self._images, pinned={})
        return owner, images.of_child(self._images, child)

    def _named(self, kind: str, name: str) -> Json | None:
        return next((c for c in self._children.get(kind, ()) if c["metadata"]["name"] == name), None)
