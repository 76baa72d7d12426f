"""What a bundle asks the API server, and what of each answer goes into it. Pure."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maft_operator.cluster import kinds
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.manifests import RUN
from maft_operator.spec.schema import Json

LINES = 5000  # of one log, from its end
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
OPERATOR = "app.kubernetes.io/name=maft-operator"
CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kinds.RUN.plural}.{kinds.RUN.group}"


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and the file that its answer becomes."""

    file: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    keep: Callable[[Json], Any] = lambda answer: answer
    """What of the answer is kept."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log of a container, of its present or previous start."""

    file: str
    path: str
    query: Mapping[str, str]


def of_run(namespace: str, name: str) -> Question:
    """Asks for the resource itself."""
    return Question("run.json", f"{_place(kinds.RUN, namespace)}/{name}")


def of_children(namespace: str, name: str) -> Iterator[Question]:
    """Asks for the objects that carry the run's label, one file a kind."""
    for kind in (kind for kind in kinds.ALL if kind.child and kind != kinds.SECRET):
        yield Question(f"{kind.plural}.json", _place(kind, namespace), {"labelSelector": f"{RUN}={name}"}, _items)


def of_surroundings(namespace: str, uids: Sequence[str]) -> Iterator[Question]:
    """Asks for what decides about the run's objects and is none of them. uids: of the run and its children."""

    def events(answer: Json) -> list[Json]:
        return [e for e in _items(answer) if (e.get("involvedObject") or {}).get("uid") in uids]

    def workloads(answer: Json) -> list[Json]:
        owners = ((item, (item.get("metadata") or {}).get("ownerReferences") or ()) for item in _items(answer))
        return [item for item, refs in owners if any(ref.get("uid") in uids for ref in refs)]

    yield Question("events.json", _place(kinds.EVENT, namespace), keep=events)
    yield Question("workloads.json", _place(kinds.WORKLOAD, namespace), keep=workloads)
    yield Question("resourcequotas.json", f"/api/v1/namespaces/{namespace}/resourcequotas", keep=_items)
    yield Question("limitranges.json", f"/api/v1/namespaces/{namespace}/limitranges", keep=_items)
    yield Question("namespace.json", f"/api/v1/namespaces/{namespace}")
    yield Question("cluster/version.json", "/version")
    yield Question("cluster/crd.json", CRD, keep=_definition)
    yield Question("cluster/nodes.json", "/api/v1/nodes", keep=lambda answer: [_node(item) for item in _items(answer)])


def of_operator(namespace: str) -> Question:
    """Asks for the operator's pods. namespace: theirs; empty: wherever they are."""
    place = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    return Question("maft-operator/pods.json", place, {"labelSelector": OPERATOR}, _items)


def logs(pods: Sequence[Json], folder: str) -> Iterator[Log]:
    """Asks for the logs of all containers of these pods that have started, and of their start before."""
    for pod in pods:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        for status in _containers(pod):
            path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
            query = {"container": str(status["name"]), "tailLines": str(LINES)}
            file = f"{folder}/{name}/{status['name']}"
            if any(kind in (status.get("state") or {}) for kind in ("running", "terminated")):
                yield Log(f"{file}.log", path, query)
            if status.get("restartCount"):
                yield Log(f"{file}.previous.log", path, {**query, "previous": "true"})


def uids_in(objects: Sequence[Json]) -> list[str]:
    """Lists the uids of objects."""
    return [str(thing["metadata"]["uid"]) for thing in objects]


def _place(kind: Kind, namespace: str) -> str:
    return f"/{kind.prefix}/{kind.api_version}/namespaces/{namespace}/{kind.plural}"


def _items(answer: Json) -> list[Json]:
    items: list[Json] = answer.get("items") or []
    return items


def _containers(pod: Json) -> list[Json]:
    status = pod.get("status") or {}
    return [s for kind in _STATUSES for s in status.get(kind) or ()]


def _definition(crd: Json) -> Json:
    """Which versions are served, and a hash of each schema in place of thousands of lines that the release has."""
    versions = (crd.get("spec") or {}).get("versions") or []
    digests = [{**v, "schema": hashlib.sha256(json.dumps(v.get("schema"), sort_keys=True).encode()).hexdigest()} for v in versions]
    return {"metadata": crd.get("metadata"), "spec": {"versions": digests}, "status": crd.get("status")}


def _node(node: Json) -> Json:
    """What a pod may get there; addresses, images and annotations are left out."""
    status = node.get("status") or {}
    metadata, spec = node.get("metadata") or {}, node.get("spec") or {}
    kept = {key: status.get(key) for key in ("allocatable", "capacity", "conditions", "nodeInfo")}
    return {"name": metadata.get("name"), "labels": metadata.get("labels"), "taints": spec.get("taints"), **kept}
