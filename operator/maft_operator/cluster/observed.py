"""From the objects of a run to one frozen Snapshot: states of tasks and servers, summaries, troubles. Pure.

In: a run's children by kind and, for those that nothing else explains, Events. Nothing is remembered. pods.py reads single pods.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from maft.summaries import AnySummary
from maft_operator.cluster import indexes, kinds, pods, reasons
from maft_operator.cluster.images import Pins
from maft_operator.cluster.kueue import QUEUE
from maft_operator.cluster.manifests import CHILD
from maft_operator.cluster.pods import created, is_terminating, moment
from maft_operator.cluster.reasons import Trouble
from maft_operator.plan.graph import Graph
from maft_operator.plan.step import BAD_INPUT, Observed, ServerState, TaskState
from maft_operator.spec.schema import Json

PATIENCE = 5.0  # seconds that a container may take to start before somebody asks why
_TELLING = ("FailedCreate", "FailedMount", "FailedAttachVolume")  # reasons of Events that say why nothing happens


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as the cluster shows it at one moment."""

    observed: Observed = field(default_factory=Observed)
    summaries: Mapping[str, AnySummary] = field(default_factory=dict)
    """By task that ended well, as long as its pod is there."""
    troubles: tuple[Trouble, ...] = ()
    """What keeps tasks and servers from going on."""
    ended: Mapping[str, Trouble] = field(default_factory=dict)
    """By child that failed: why."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By task: how long it took, or has been running."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """By running task: URL of its metrics."""
    unexplained: Mapping[str, str] = field(default_factory=dict)
    """By uid of an object that does nothing and does not say why: the child it belongs to. Its Events may say more."""
    pins: Pins = field(default_factory=Pins)
    """The images that the run uses."""


@dataclass(frozen=True, slots=True)
class _Child:
    """One task or server with its objects. made: its Job or Deployment; None where only pods are left. pods: oldest first."""

    name: str
    made: Json | None
    pods: tuple[Json, ...]


def read(graph: Graph, children: Mapping[str, Sequence[Json]], now: datetime) -> Snapshot:
    """Reads a run from its objects by kind, Pods included."""
    by_child = _pods_by_child(children.get(kinds.POD.name, ()))
    tasks = [_task_child(job, by_child) for job in children.get(kinds.JOB.name, ()) if not is_terminating(job)]
    servers = _servers(graph, children.get(kinds.DEPLOYMENT.name, ()), by_child)
    ended = {t.name: _end_of_job(t) for t in tasks if _condition(_made(t), "Failed")}
    states = {t.name: _task_state(t, ended.get(t.name)) for t in tasks}
    server_states = {s.name: _server_state(s) for s in servers}
    running = [t for t in tasks if states[t.name].status == "running"]
    return Snapshot(
        observed=Observed(states, server_states),
        summaries={t.name: s for t in tasks if (s := indexes.summary(t.pods)) is not None},
        troubles=tuple(t for several in (*map(_troubles_of_job, running), *map(_troubles_of_server, servers)) for t in several),
        ended={**ended, **{s.name: _end_of_server(s) for s in servers if server_states[s.name].failures}},
        seconds={t.name: _seconds(_made(t), now) for t in tasks if _made(t).get("status", {}).get("startTime")},
        metrics={name: url for t in running for name, url in indexes.metrics_urls(t.name, t.pods).items()},
        unexplained={**_podless(running), **_stuck(by_child, tasks, now)},
    )


def explained(snapshot: Snapshot, events: Iterable[Json]) -> Snapshot:
    """Adds what Events say about objects that say nothing themselves."""
    return replace(snapshot, troubles=(*troubles_in(events, snapshot.unexplained), *snapshot.troubles))


def troubles_in(events: Iterable[Json], unexplained: Mapping[str, str]) -> tuple[Trouble, ...]:
    """Reads Events about these objects; the last one of each child counts."""
    last: dict[str, Trouble] = {}
    for event in sorted(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or "")):
        child = unexplained.get(event.get("involvedObject", {}).get("uid", ""))
        if child and event.get("type") == "Warning" and event.get("reason") in _TELLING:
            message = event.get("message", "")
            last[child] = Trouble(child, reasons.text_reason(message), message)
    return tuple(last.values())


# --- which object belongs to what ---


def _pods_by_child(several: Iterable[Json]) -> dict[str, tuple[Json, ...]]:
    by_child: dict[str, tuple[Json, ...]] = {}
    for pod in sorted(several, key=created):
        by_child[_child(pod)] = (*by_child.get(_child(pod), ()), pod)
    return by_child


def _task_child(job: Json, by_child: Mapping[str, tuple[Json, ...]]) -> _Child:
    return _Child(_child(job), job, tuple(pod for pod in by_child.get(_child(job), ()) if _made_by(job, pod)))


def _servers(graph: Graph, deployments: Iterable[Json], by_child: Mapping[str, tuple[Json, ...]]) -> list[_Child]:
    """Servers of which anything is left: pods whose Deployment has gone still hold their GPUs."""
    there = {_child(deployment): deployment for deployment in deployments if not is_terminating(deployment)}
    servers = [_Child(s.name, there.get(s.name), by_child.get(s.name, ())) for s in graph.servers]
    return [server for server in servers if server.made or server.pods]


def _made(task: _Child) -> Json:
    assert task.made is not None  # a task is known by its Job
    return task.made


def _made_by(job: Json, pod: Json) -> bool:
    """Whether the pod is not of a Job of the same name before this one."""
    owners = pod["metadata"].get("ownerReferences", ())
    return all(owner.get("uid") == job["metadata"].get("uid") for owner in owners if owner.get("kind") == kinds.JOB.name)


def _child(thing: Json) -> str:
    return str(thing["metadata"].get("labels", {}).get(CHILD) or thing["metadata"]["name"])


def _condition(thing: Json, kind: str) -> Json | None:
    conditions: list[Json] = thing.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


# --- tasks ---


def _task_state(task: _Child, end: Trouble | None) -> TaskState:
    job = _made(task)
    if _condition(job, "Complete") or _condition(job, "SuccessCriteriaMet"):
        return TaskState("succeeded")
    failures = int(job.get("status", {}).get("failed") or 0)
    if end is None:
        return TaskState("running", failures)
    # A Job that Kubernetes calls failed has used up what spec.backoffLimit granted, or may not be tried again.
    limit = int(job.get("spec", {}).get("backoffLimit") or 0)
    code = BAD_INPUT if end.reason in reasons.OF_INPUT else pods.exit_code(task.pods[-1]) if task.pods else 0
    return TaskState("failed", max(failures, limit + 1), code, end.message)


def _end_of_job(task: _Child) -> Trouble:
    job = _made(task)
    condition = _condition(job, "Failed") or {}
    if condition.get("reason") == "DeadlineExceeded":
        limit = job.get("spec", {}).get("activeDeadlineSeconds")
        return Trouble(task.name, reasons.DEADLINE_EXCEEDED, f"not done within spec.activeDeadlineSeconds ({limit} s)")
    failed = indexes.by_themselves([pod for pod in task.pods if pods.has_failed(pod)])
    if not failed:
        return Trouble(task.name, reasons.ATTEMPTS_EXHAUSTED, condition.get("message", "its pods are gone"))
    return pods.failure(task.name, failed[-1], reasons.ATTEMPTS_EXHAUSTED)


def _seconds(job: Json, now: datetime) -> float:
    failed = _condition(job, "Failed") or {}
    end = job["status"].get("completionTime") or failed.get("lastTransitionTime")
    return max(0.0, ((moment(end) if end else now) - moment(job["status"]["startTime"])).total_seconds())


# --- servers ---


def _server_state(server: _Child) -> ServerState:
    """Without a Deployment the server counts as there, and as to be created anew."""
    if server.made is None:
        return ServerState(ready=False, failed=True)
    worst = _worst(server)
    if worst is None:
        return ServerState(_is_ready(server.made), queued=not _is_ready(server.made) and _is_queued(server))
    message = pods.last_words(worst) or "its container ended"
    return ServerState(_is_ready(server.made), True, pods.failures(worst), pods.exit_code(worst), message)


def _is_queued(server: _Child) -> bool:
    waits = [pods.waiting(server.name, pod) for pod in server.pods if not is_terminating(pod)]
    return any(trouble is not None and trouble.reason is reasons.QUEUED for trouble in waits)


def _is_ready(deployment: Json) -> bool:
    """Whether all replicas are there and of the newest template."""
    status, replicas = deployment.get("status", {}), int(deployment["spec"].get("replicas", 1))
    current = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0)
    return current and all(int(status.get(key) or 0) >= replicas for key in ("updatedReplicas", "availableReplicas"))


def _worst(server: _Child) -> Json | None:
    return max(filter(pods.is_broken, server.pods), key=pods.restarts, default=None)


def _end_of_server(server: _Child) -> Trouble:
    worst = _worst(server)
    assert worst is not None  # it has failures
    return pods.failure(server.name, worst, reasons.CRASH_LOOP)


# --- why something does not go on ---


def _troubles_of_job(task: _Child) -> list[Trouble]:
    """Of a Job that has not ended: what its newest pods wait for, else what its last failed pod died of."""
    job = _made(task)
    if job.get("spec", {}).get("suspend"):
        queue = job["metadata"].get("labels", {}).get(QUEUE, "")
        message = f"waits in queue {queue}" if queue else "another than maft has suspended the Job"
        return [Trouble(task.name, reasons.QUEUED, message)]
    if waits := [t for pod in indexes.newest(task.pods) if (t := pods.waiting(task.name, pod))]:
        return waits
    failed = indexes.by_themselves([pod for pod in task.pods if pods.has_failed(pod)])
    return [pods.failure(task.name, failed[-1], reasons.RETRYING)] if failed else []


def _troubles_of_server(server: _Child) -> list[Trouble]:
    """What its pods wait for or died of; an eviction counts only until another pod is ready."""
    if server.made is None:
        return []  # what is left of it goes
    if refused := _condition(server.made, "ReplicaFailure"):
        message = refused.get("message", "")
        return [Trouble(server.name, reasons.text_reason(message), message)]
    troubles = [t for pod in server.pods if not is_terminating(pod) and (t := pods.waiting(server.name, pod))]
    troubles += [pods.failure(server.name, pod, reasons.CRASH_LOOP) for pod in server.pods if pods.is_broken(pod)]
    evicted = [pod for pod in server.pods if pod.get("status", {}).get("reason") == "Evicted"]
    if troubles or not evicted or server.made.get("status", {}).get("availableReplicas"):
        return troubles
    return [pods.failure(server.name, evicted[-1], reasons.RETRYING)]


def _podless(running: Iterable[_Child]) -> dict[str, str]:
    """Jobs that should have a pod and have none."""
    held = [t for t in running if not _made(t).get("spec", {}).get("suspend") and not any(map(_is_active, t.pods))]
    return {_made(task)["metadata"]["uid"]: task.name for task in held}


def _is_active(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in ("Pending", "Running")


def _stuck(by_child: Mapping[str, tuple[Json, ...]], tasks: Iterable[_Child], now: datetime) -> dict[str, str]:
    """Pods that have been told to start and have not, for a while."""
    own = {**by_child, **{task.name: task.pods for task in tasks}}
    return {p["metadata"]["uid"]: name for name, several in own.items() for p in several if pods.is_creating(p, now, PATIENCE)}
