"""The backend on a cluster, and the few requests to the API server that it and the controller make.

Writes are server-side apply with our own field manager, and only where an object differs from what is wanted.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError
from kubernetes.aio.dynamic.resource import Resource

from maft_operator.cluster import drift, manifests, reasons
from maft_operator.cluster import observed as world
from maft_operator.cluster.manifests import MANAGER, RUN, Images, Owner
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.observed import Trouble, World
from maft_operator.cluster.reasons import Reason
from maft_operator.plan.graph import Graph, Observed, Server, Task
from maft_operator.spec.schema import Json

TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)  # seconds of one request
CHILDREN = ("Job", "Deployment", "Service", "Pod")
WALL = "NetworkPolicy"  # a child only where the operator was told to make them
FAULTS = (aiohttp.ClientError, OSError, TimeoutError)
_KINDS = {  # kind: API prefix, group, version, plural
    "Job": ("apis", "batch", "v1", "jobs"),
    "Deployment": ("apis", "apps", "v1", "deployments"),
    "Service": ("api", "", "v1", "services"),
    "Pod": ("api", "", "v1", "pods"),
    "NetworkPolicy": ("apis", "networking.k8s.io", "v1", "networkpolicies"),
    "Event": ("api", "", "v1", "events"),
    "MultiAgentFinetune": ("apis", "maft.dev", "v1alpha1", "multiagentfinetunes"),
    "SelfSubjectAccessReview": ("apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    "SubjectAccessReview": ("apis", "authorization.k8s.io", "v1", "subjectaccessreviews"),
    "TokenReview": ("apis", "authentication.k8s.io", "v1", "tokenreviews"),
}
_CLUSTER = ("SelfSubjectAccessReview", "SubjectAccessReview", "TokenReview")


class Refused(Exception):
    """The API server will not have an object, and asking again will not help. code: the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """Requests by kind. Faults of the network and 5xx come out as FAULTS, refusals (400, 403, 409, 422) as Refused."""

    def __init__(self, client: ApiClient, metrics: Metrics) -> None:
        dynamic = DynamicClient(client)
        self._dynamic = dynamic
        self._requests = metrics.requests
        self._resources = {
            kind: Resource(
                prefix=prefix,
                group=group,
                api_version=version,
                kind=kind,
                name=plural,
                namespaced=kind not in _CLUSTER,
                client=dynamic,
            )
            for kind, (prefix, group, version, plural) in _KINDS.items()
        }

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """The object, or None."""
        return await self._ask("get", kind, name=name, namespace=namespace)

    async def list(self, kind: str, namespace: str | None, **selectors: str) -> list[Json]:
        """The objects; items of a list lack their kind."""
        found = await self._ask("get", kind, namespace=namespace, **selectors) or {}
        items: list[Json] = found.get("items") or []
        return items

    async def versions(self, namespace: str | None, page: int = 500) -> dict[str, str]:
        """resourceVersion of every run by NAMESPACE/NAME, without the rest of the objects; so many to a request."""
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        found: dict[str, str] = {}
        token: str | None = ""
        while token is not None:
            answer = await self._ask(
                "get",
                "MultiAgentFinetune",
                namespace=namespace,
                header_params={"accept": accept},
                limit=page,
                **({"_continue": token} if token else {}),
            )
            items = (answer or {}).get("items") or []  # null where there are none
            found |= {f"{i['metadata']['namespace']}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in items}
            token = (answer or {}).get("metadata", {}).get("continue") or None
        return found

    async def served(self, namespace: str | None) -> bool:
        """Whether the API server knows our resource in our version."""
        return await self._ask("get", "MultiAgentFinetune", namespace=namespace, limit=1) is not None

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        """Creates it, as it is."""
        return await self._ask("create", body["kind"], body=body, namespace=namespace) or {}

    async def apply(self, body: Json) -> Json:
        """Server-side apply; fields that others set against us are taken back."""
        return await self._apply(body, body["kind"], "") or {}

    async def apply_status(self, body: Json) -> Json | None:
        """The same on the status subresource; None if the resource has gone."""
        return await self._apply(body, body["kind"], "/status")

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "") -> None:
        """Deletes it, dependents in the background; one that is not there, or is another by now, is no error."""
        body = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            await self._ask("delete", kind, name=name, namespace=namespace, body=body)
        except Refused as error:
            if error.code != 409:
                raise

    async def _apply(self, body: Json, kind: str, subresource: str) -> Json | None:
        name = body["metadata"]["name"] + subresource
        return await self._ask(
            "server_side_apply",
            kind,
            body=body,
            name=name,
            namespace=body["metadata"]["namespace"],
            field_manager=MANAGER,
            force_conflicts=True,
        )

    async def _ask(self, verb: str, kind: str, **arguments: Any) -> Json | None:
        try:
            response = await getattr(self._dynamic, verb)(
                self._resources[kind], serialize=False, _request_timeout=TIMEOUT, **arguments
            )
            answer: Json = json.loads(await response.read())
            self._requests.labels(verb, kind, str(response.status)).inc()
            return answer
        except FAULTS as error:
            self._requests.labels(verb, kind, type(error).__name__).inc()
            raise
        except (ApiException, DynamicApiError) as error:
            self._requests.labels(verb, kind, str(error.status)).inc()
            if error.status == 404:
                return None
            said = _said(error)
            # Server-side apply answers 500 where a field has a name that no schema knows.
            if error.status in (400, 403, 409, 422) or "not declared in schema" in said:
                raise Refused(error.status, said) from error
            raise OSError(f"the API server answered {error.status}: {said}") from error


def _said(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return f"{error.status} {error.reason}"


class ClusterBackend:
    """One run for one reconcile. applied: what we sent last by uid, where the API server wrote it down in other words; fresh:
    nothing was ever written about the run, so four lists would find nothing (names are fixed: making one twice is harmless)."""

    def __init__(
        self, api: Api, owner: Owner, graph: Graph, images: Images, *, now: datetime, applied: dict[str, str], fresh: bool = False
    ) -> None:
        self._api = api
        self._fresh = fresh
        self._owner = owner
        self._graph = graph
        self._images = images
        self._now = now
        self._applied = applied
        self._children: dict[str, list[Json]] = {}
        self.world = World()
        self.refused: list[Trouble] = []

    async def observe(self) -> Observed:
        """All children of the run, and Events of those that say nothing themselves."""
        if self._fresh:
            return self.world.observed
        run = self._owner.run
        selector = f"{RUN}={run.name}"
        kinds = (*CHILDREN, *((WALL,) if self._images.isolated else ()))
        found = await asyncio.gather(*(self._api.list(kind, run.namespace, label_selector=selector) for kind in kinds))
        self._children = {kind: [c for c in items if self._ours(kind, c)] for kind, items in zip(kinds, found, strict=True)}
        self.world = world.read(self._graph, self._children, self._now)
        return self.world.observed

    async def events(self) -> tuple[Trouble, ...]:
        """What Events say about children that are silent."""
        silent = self.world.silent
        selectors = [f"involvedObject.uid={uid}" for uid in list(silent)[:8]]
        found = await asyncio.gather(
            *(self._api.list("Event", self._owner.run.namespace, field_selector=selector) for selector in selectors)
        )
        return world.troubles_in([event for events in found for event in events], silent)

    async def create(self, item: Task | Server) -> None:
        """Applies what is missing or differs. A refusal is kept for the status."""
        for wanted in manifests.objects(item, self._owner, self._images):
            try:
                await self._ensure(wanted)
            except Refused as error:
                self.refused += _refusal(item.name, error)

    async def delete(self, name: str) -> None:
        """Deletes whatever has that name, unless it is going already."""
        for kind in ("Job", "Deployment", "Service", WALL):
            for child in self._children.get(kind, ()):
                if child["metadata"]["name"] == name and "deletionTimestamp" not in child["metadata"]:
                    await self._api.delete(kind, self._owner.run.namespace, name, child["metadata"]["uid"])

    def existing(self, names: Sequence[str]) -> list[Task | Server]:
        """Tasks that run and servers, apart from those named: what has to stay as we made it."""
        states = self.world.observed
        tasks = [t for t in self._graph.tasks if t.name in states.tasks and states.tasks[t.name].status == "running"]
        servers = [s for s in self._graph.servers if s.name in states.servers]
        items: list[Task | Server] = [*tasks, *servers]
        return [item for item in items if item.name not in names]

    async def _ensure(self, wanted: Json) -> None:
        found = self._found(wanted)
        if found is None:
            await self._apply(wanted)
            return
        sent = f"{drift.version(found)} {drift.fingerprint(wanted)}"
        if drift.differs(wanted, found) and self._applied.get(found["metadata"]["uid"]) != sent:
            await self._apply(drift.keeping_template(wanted, found), wanted)

    async def _apply(self, body: Json, wanted: Json | None = None) -> None:
        made = await self._api.apply(body)
        if made:
            self._applied[made["metadata"]["uid"]] = f"{drift.version(made)} {drift.fingerprint(wanted or body)}"

    def _found(self, wanted: Json) -> Json | None:
        alike = [c for c in self._children.get(wanted["kind"], ()) if c["metadata"]["name"] == wanted["metadata"]["name"]]
        # The items of a list lack what the list as a whole says.
        return {**alike[0], "apiVersion": wanted["apiVersion"], "kind": wanted["kind"]} if alike else None

    def _ours(self, kind: str, child: Json) -> bool:
        """Pods belong to Jobs and ReplicaSets; everything else to the resource itself, and not to one of that name before."""
        owners: Sequence[Mapping[str, Any]] = child["metadata"].get("ownerReferences", ())
        return kind == "Pod" or any(o.get("uid") == self._owner.uid for o in owners)


def _refusal(child: str, error: Refused) -> list[Trouble]:
    message = str(error)
    passing = ("being terminated", "Only one reference can have Controller set to true")
    if error.code == 409 or any(words in message for words in passing):
        return []  # the namespace or a namesake's child is going, or somebody was faster: its event wakes us
    return [Trouble(child, refusal_reason(message), message)]


def refusal_reason(message: str) -> Reason:
    """Our own lack of a right, or a rule that the object breaks."""
    if "cannot" in message and "resource" in message and "User" in message:
        return reasons.FORBIDDEN
    return world.text_reason(message)
