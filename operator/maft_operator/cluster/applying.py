"""Brings the objects of one parent to what they should be: made where missing, applied again where they differ, left alone where
they are somebody else's. What is decided here for one look is drift.py's.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from maft_operator.cluster import drift, images, kinds
from maft_operator.cluster.api import Api, Refused
from maft_operator.cluster.children import has_its_name, is_controlled_by
from maft_operator.cluster.drift import Sent
from maft_operator.cluster.fields import controller, text
from maft_operator.cluster.kinds import Kind
from maft_operator.spec.schema import Json


class Applier:
    """For one parent and one look.

    parent: its kind; uid: its own; applied: by uid of a child what we sent last and what became of it, so that nothing is written
    for ever.
    """

    def __init__(self, api: Api, parent: Kind, namespace: str, uid: str, *, now: datetime, applied: dict[str, Sent]) -> None:
        self._api = api
        self._parent = parent
        self._namespace = namespace
        self._uid = uid
        self._now = now
        self._applied = applied

    def ours(self, kind: Kind, listed: Iterable[Json]) -> list[Json]:
        """Leaves out what only has the label. Pods belong to Jobs and ReplicaSets; everything else to the parent itself, and not to
        one of that name before, and has the name that we gave it."""
        return [child for child in listed if kind == kinds.POD or (self._is_ours(child) and has_its_name(child))]

    async def ensure(self, wanted: Json, existing: Json | None) -> Json | None:
        """Applies the object where it is missing or differs, and returns it as it is now. existing: it as it was listed. Refused
        where the API server will not have it, or the name is taken."""
        if existing is None:
            return await self._make(wanted)
        wanted = images.keeping(wanted, existing, drift.owned(existing))
        before = self._applied.get(existing["metadata"]["uid"])
        if drift.differs(wanted, existing) and not drift.is_settled(before, wanted, existing, self._now):
            return await self._apply(wanted, existing) or existing
        return existing

    async def _make(self, wanted: Json) -> Json | None:
        """Applies an object that is missing, unless somebody else's has its name: to apply would be to take that over. One of ours
        that was not listed has lost its labels, and differs."""
        kind, name = kinds.named(wanted["kind"]), wanted["metadata"]["name"]
        there = await self._api.list(kind, self._namespace, field_selector=f"metadata.name={name}")
        existing = listed({kind.name: there}, wanted)
        if existing and self._is_ours(existing):
            return await self.ensure(wanted, existing)
        if existing and not self._is_a_namesakes(existing):
            whose = "run" if self._parent == kinds.RUN else self._parent.name.lower()
            raise Refused(422, f"the {kind.name} {name} exists and is not the {whose}'s")
        return await self._apply(wanted)

    async def _apply(self, wanted: Json, existing: Json | None = None) -> Json | None:
        stored = await self._api.apply(wanted if existing is None else drift.to_apply(wanted, existing))
        if stored:
            self._applied[stored["metadata"]["uid"]] = drift.sent(wanted, existing, stored, self._now)
        return stored

    def _is_ours(self, thing: Json) -> bool:
        return is_controlled_by(thing, self._uid)

    def _is_a_namesakes(self, thing: Json) -> bool:
        """Whether it is one's of the parent's name before, which goes by itself."""
        return text(controller(thing), "kind") == self._parent.name


def listed(children: Mapping[str, Sequence[Json]], wanted: Json) -> Json | None:
    """Finds the object among those that were listed, by kind; None where it is missing. The items of a list lack what the list as a
    whole says."""
    child = next((c for c in children.get(wanted["kind"], ()) if c["metadata"]["name"] == wanted["metadata"]["name"]), None)
    return {**child, "apiVersion": wanted["apiVersion"], "kind": wanted["kind"]} if child else None


def passes(error: Refused) -> bool:
    """Tells whether a refusal passes: the namespace or a namesake's child is going, or somebody was faster; its event wakes us."""
    passing = ("being terminated", "Only one reference can have Controller set to true")
    return error.code == 409 or any(words in str(error) for words in passing)
