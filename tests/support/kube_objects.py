"""Kubernetes objects as an API server shows them, for the tests of observed, status and drift. Times are seconds after START."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from conftest import resource

from maft_operator.cluster import kinds, kueue, manifests, observed
from maft_operator.cluster.images import Images
from maft_operator.cluster.manifests import Json, Owner
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.recorder import Recorder
from maft_operator.cluster.writing import Writer
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph
from maft_operator.spec.parse import Run, parse, store_url

START = datetime(2026, 1, 1, tzinfo=UTC)
IMAGES = Images("registry/maft", "1", isolated=True, scraped_from=("monitoring",))
STORAGE = {"bucket": "bucket", "prefix": "runs", "endpoint": "http://s3:9000", "credentialsSecret": {"name": "keys"}}


def a_run(**spec: Any) -> Run:
    """`r`, with two agents, one server and one training for both, one iteration."""
    return parse(resource("r", **{"agents": 2, "storage": STORAGE, **spec}))


def planned(run: Run) -> Graph:
    """As the controller plans it."""
    return plan.graph(run, store_url(run.spec.storage), suspended=run.spec.suspend)


def owner(run: Run) -> Owner:
    return Owner(run, "uid-of-run")


def made(run: Run, kind: str, images: Images = IMAGES) -> list[Json]:
    """All objects of a kind that the run needs in its life."""
    graph = planned(run)
    whole = [made for item in (*graph.tasks, *graph.servers) for made in manifests.objects(item, owner(run), images)]
    return [made for made in whole if made["kind"] == kind]


def snapshot(run: Run, *objects: Json, now: float = 1000) -> Snapshot:
    """What is read from these objects, `now` seconds after START."""
    # The items of a list lack their kind.
    items = {k.name: [{**o, "kind": None} for o in objects if o["kind"] == k.name] for k in kinds.children(isolated=True)}
    return observed.read(planned(run), items, START + timedelta(seconds=now))


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str = "True", *, reason: str = "", message: str = "", seconds: float = 0) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(seconds)}


def metadata(name: str, child: str, **more: Any) -> Json:
    labels = {manifests.RUN: "r", manifests.CHILD: child}
    return {"name": name, "namespace": "default", "uid": f"uid-{name}", "creationTimestamp": at(0), "labels": labels, **more}


# --- Jobs ---


def job(name: str, *conditions: Json, failed: int = 0, limit: int = 3, start: float | None = 0, **more: Any) -> Json:
    """One that runs, as long as no condition says otherwise. more: `ended` (completionTime), `queue`; further fields of spec."""
    status: Json = {"conditions": list(conditions), **({"failed": failed} if failed else {})}
    status |= {} if start is None else {"startTime": at(start)}
    status |= {"completionTime": at(more.pop("ended"))} if "ended" in more else {}
    about = metadata(name, name)
    about["labels"] |= {kueue.QUEUE: more.pop("queue")} if "queue" in more else {}
    return {"kind": "Job", "metadata": about, "spec": {"backoffLimit": limit, **more}, "status": status}


def done(name: str, *, start: float = 0, ended: float = 60) -> Json:
    return job(name, condition("SuccessCriteriaMet"), condition("Complete"), start=start, ended=ended)


def failed(name: str, reason: str = "BackoffLimitExceeded", message: str = "no luck", **more: Any) -> Json:
    return job(name, condition("Failed", reason=reason, message=message, seconds=50), **more)


def terminating(thing: Json, until: float = 995) -> Json:
    """The same while it is being deleted. until: when its grace period ends."""
    return {**thing, "metadata": {**thing["metadata"], "deletionTimestamp": at(until)}}


# --- pods ---

TEMPLATE = "5f6d8c"  # the hash of a Deployment's template

RUNNING: Json = {"running": {"startedAt": at(0)}}


def waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def ended(code: int, message: str = "", reason: str = "") -> Json:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason or ("Error" if code else "Completed")}}


def pod(child: str, phase: str, state: Json | None = None, *, container: str = "debate", number: int = 0, **more: Any) -> Json:
    """The number-th pod of a child. more: `last`, `restarts`, `ready`, `memory` of its container; `init`: state of another."""
    limits = {"limits": {"memory": more.pop("memory")}} if "memory" in more else {}
    status = {
        "name": container,
        "image": f"registry/maft/{container}:1",
        "state": state or {},
        "lastState": more.pop("last", {}),
        "restartCount": more.pop("restarts", 0),
        "ready": more.pop("ready", False),
    }
    statuses = {"containerStatuses": [status]} if state is not None else {}
    statuses |= (
        {"initContainerStatuses": [{"name": "init", "image": "init:1", "state": more.pop("init")}]} if "init" in more else {}
    )
    return {
        "kind": "Pod",
        "metadata": belonging(metadata(f"{child}-{number}", child, creationTimestamp=at(number)), container),
        "spec": {"containers": [{"name": container, "resources": limits}]},
        "status": {"phase": phase, **statuses, **more},
    }


def belonging(about: Json, container: str) -> Json:
    """The metadata of a pod that the child's Job made, or the ReplicaSet of its Deployment."""
    child = about["labels"][manifests.CHILD]
    if container != "inference":
        return {**about, "ownerReferences": [{"kind": "Job", "name": child, "uid": f"uid-{child}", "controller": True}]}
    owner = {"kind": "ReplicaSet", "name": f"{child}-{TEMPLATE}", "uid": f"uid-{child}-{TEMPLATE}", "controller": True}
    return {**about, "labels": {**about["labels"], "pod-template-hash": TEMPLATE}, "ownerReferences": [owner]}


def unscheduled(child: str, message: str, reason: str = "Unschedulable", since: float = -7200) -> Json:
    container = "inference" if child == SERVER else "debate"
    waits = condition("PodScheduled", "False", reason=reason, message=message, seconds=since)
    return pod(child, "Pending", container=container, conditions=[waits])


# --- servers ---

SERVER = "r-server"


def deployment(*conditions: Json, ready: int = 0, wanted: int = 1, generation: int = 1, seen: int = 1) -> Json:
    status = {"observedGeneration": seen, "updatedReplicas": ready, "availableReplicas": ready, "conditions": list(conditions)}
    return {
        "kind": "Deployment",
        "metadata": metadata(SERVER, SERVER, generation=generation),
        "spec": {"replicas": wanted},
        "status": status,
    }


def replica(state: Json, *, number: int = 0, **more: Any) -> Json:
    """A pod of the server."""
    return pod(SERVER, "Running", state, container="inference", number=number, **more)


def event(uid: str, reason: str, message: str, *, seconds: float = 0, kind: str = "Warning") -> Json:
    return {
        "kind": "Event",
        "type": kind,
        "reason": reason,
        "message": message,
        "involvedObject": {"uid": uid},
        "lastTimestamp": at(seconds),
    }


def by_type(conditions: list[Json]) -> Mapping[str, Json]:
    return {c["type"]: c for c in conditions}


def writer(api: Any, metrics: Metrics) -> Writer:
    """What a controller writes statuses with; nobody sends its Events."""
    return Writer(api, metrics, Recorder(api))
