"""The reconciler of societies (workers.py): fetch, decide, act, one status write. Level-triggered, and nothing is remembered.

A Society whose run has gone, or has no adapters to serve, is left as it is: pods that answer go on.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from maft_operator.cluster import explaining, images, kinds, observed
from maft_operator.cluster.api import Api, Refused
from maft_operator.cluster.applying import Applier, listed, passes
from maft_operator.cluster.children import pods_in, servers_in
from maft_operator.cluster.event_troubles import troubles_in
from maft_operator.cluster.fields import count
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys, KeyState
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.reasons import Trouble, refusal_reason
from maft_operator.cluster.society import objects, reading
from maft_operator.cluster.society.reading import Asked, Obstacle, Wish
from maft_operator.cluster.society.status import Seen, blocked, refused, status
from maft_operator.cluster.writing import Writer, own_status
from maft_operator.spec.schema import Json

LOOK = 10.0  # seconds between two looks where something is waited for that no event tells of


class Societies:
    """Looks at one Society at a time. images: the operator's."""

    def __init__(self, api: Api, images: Images, *, keys: Keys, writer: Writer) -> None:
        self._api = api
        self._images = images
        self._keys = keys
        self._writer = writer

    async def look(self, key: str, state: KeyState) -> float | None:
        """Looks at one Society and brings it to what it should be; see workers.py."""
        state.woken = False
        _, namespace, name = kinds.addressed(key)
        resource = await self._api.get(kinds.SOCIETY, namespace, name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._keys.forget(key, again=state.woken)
            return None
        try:
            return await self._step(resource, state)
        except Refused as error:
            new = blocked(refusal_reason(str(error)), str(error), own_status(resource), _generation(resource), _now())
            await self._writer.write(resource, new, state)
            raise

    async def _step(self, resource: Json, state: KeyState) -> float | None:
        asked, generation, namespace = reading.asked(resource), _generation(resource), resource["metadata"]["namespace"]
        if isinstance(asked, Obstacle):
            return await self._writer.write(resource, refused(asked, own_status(resource), generation, _now()), state)
        wished = reading.wished(asked, await self._api.get(kinds.RUN, namespace, asked.served.run))
        seen = await self._brought(asked, wished, resource, state)
        delay = await self._writer.write(resource, status(asked, wished, seen, own_status(resource), generation, _now()), state)
        return LOOK if seen.troubles else delay

    async def _brought(self, asked: Asked, wished: Wish | Obstacle, resource: Json, state: KeyState) -> Seen:
        """Makes what is missing, and says what is there."""
        applier = Applier(self._api, kinds.SOCIETY, asked.namespace, asked.uid, now=_now(), applied=state.applied)
        children = await self._children(asked, applier)
        refusals = [
            Trouble(asked.name, refusal_reason(str(e)), str(e))
            for e in await self._made(asked, wished, resource, children, applier)
        ]
        child = next(iter(servers_in(children, [asked.name])), None)
        troubles = observed.troubles_of_server(child, _now()) if child else []
        unexplained = observed.unexplained([], [child], troubles, _now()) if child else {}
        warned = troubles_in(await explaining.events(self._api, asked.namespace, unexplained), unexplained) if unexplained else ()
        return Seen(child, (*refusals, *warned, *troubles))

    async def _children(self, asked: Asked, applier: Applier) -> dict[str, list[Json]]:
        listed = [*(k for k in kinds.children(isolated=self._images.isolated) if k != kinds.JOB), kinds.INGRESS]
        lists = await asyncio.gather(*(self._list(k, asked, applier) for k in listed))
        return {k.name: items for k, items in zip(listed, lists, strict=True)}

    async def _list(self, kind: Kind, asked: Asked, applier: Applier) -> list[Json]:
        """Lists the society's own; what only has its label goes before the next list comes, for it may be large."""
        try:
            listed = await self._api.list(kind, asked.namespace, label_selector=f"{kinds.SOCIETY.label}={asked.name}")
            return applier.ours(kind, listed)
        except Refused:
            if not kind.optional:
                raise
            return []  # without the right to it there is none of ours either

    async def _made(
        self, asked: Asked, wished: Wish | Obstacle, resource: Json, children: dict[str, list[Json]], applier: Applier
    ) -> Sequence[Refused]:
        """Applies what differs, and takes it into the children as it is now: one that has changed is not ready by its old status.
        Returns what was refused for good."""
        refusals = []
        if not asked.served.ingress:
            for left in children[kinds.INGRESS.name]:
                await self._api.delete(kinds.INGRESS, asked.namespace, left["metadata"]["name"], left["metadata"]["uid"])
        for wanted in self._wanted(asked, wished, resource, children):
            try:
                now = await applier.ensure(wanted, listed(children, wanted))
                children[wanted["kind"]] = _with(children[wanted["kind"]], now)
            except Refused as error:
                refusals += [] if passes(error) else [error]
        return refusals

    def _wanted(self, asked: Asked, wished: Wish | Obstacle, resource: Json, children: dict[str, list[Json]]) -> Iterable[Json]:
        deployment = next((d for d in children[kinds.DEPLOYMENT.name] if d["metadata"]["name"] == asked.name), None)
        there = pods_in({kinds.POD.name: children[kinds.POD.name]}, [asked.name])
        if isinstance(wished, Obstacle):
            return [objects.scaled(asked, deployment)] if deployment else []
        own = objects.own_images(wished, self._images)
        made = objects.objects(wished, own, own.pods.inherited(resource), there)
        if deployment and objects.is_made_for(made, deployment):  # by whichever release: nothing restarts for that
            made = objects.objects(wished, images.of_child(own, deployment), own.pods.inherited(deployment), there)
        return made


def _with(children: list[Json], now: Json | None) -> list[Json]:
    """Replaces the object that was listed; one that was missing is seen at the next look, with what became of it."""
    return [now if now and now["metadata"]["uid"] == child["metadata"]["uid"] else child for child in children]


def _generation(resource: Json) -> int:
    return count(resource, "metadata", "generation")


def _now() -> datetime:
    return datetime.now(UTC)
