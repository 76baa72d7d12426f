"""From Kubernetes objects to what the plan and the status know: task and server states, summaries, troubles. Pure.

In: a run's Jobs, Deployments, Services, Pods and, where those are silent, Events. Out: a World. Nothing is remembered.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from maft_operator.cluster import reasons
from maft_operator.cluster.manifests import CHILD, DEBATE, METRICS_PORT, SERVE, TRAIN
from maft_operator.cluster.reasons import Reason
from maft_operator.plan.graph import BAD_INPUT, Graph, Observed, ServerState, TaskState
from maft_operator.spec.schema import Json

_when = datetime.fromisoformat  # timestamps of the API
LONG = 600.0  # seconds that a container has to live for its end to count as the first
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
_TEXTS: tuple[tuple[re.Pattern[str], Reason], ...] = (  # the first that matches
    (re.compile(r"violates PodSecurity|is invalid:|denied the request"), reasons.POD_REFUSED),
    (re.compile(r"exceeded quota"), reasons.QUOTA_EXCEEDED),
    (re.compile(r"couldn't find key"), reasons.SECRET_KEY_MISSING),
    (re.compile(r"MountVolume|volume|configmap|persistentvolumeclaim"), reasons.VOLUME_MISSING),
    (re.compile(r'secret "[^"]*" not found', re.IGNORECASE), reasons.SECRET_MISSING),
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that keeps a child from its work. blocking: it will not pass by itself."""

    child: str
    reason: Reason
    message: str
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class World:
    """A run as the cluster shows it. seconds: that finished and running tasks took; metrics: address of running tasks' metrics;
    silent: uids of objects whose Events may say why nothing happens; ended: of each child that failed, why."""

    observed: Observed = field(default_factory=Observed)
    summaries: Mapping[str, Json] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
    ended: Mapping[str, Trouble] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)


def read(graph: Graph, children: Mapping[str, Sequence[Json]], now: datetime) -> World:
    """children: kind → objects of the run, Pods included."""
    pods: dict[str, list[Json]] = {}
    for pod in sorted(children.get("Pod", ()), key=_created):
        pods.setdefault(_child(pod), []).append(pod)
    jobs = {_child(job): job for job in children.get("Job", ()) if not _going(job)}
    pods |= {name: [pod for pod in pods.get(name, ()) if _made_by(job, pod)] for name, job in jobs.items()}
    deployments = {_child(d): d for d in children.get("Deployment", ()) if not _going(d)}
    ended = {name: _ending(name, job, pods.get(name, [])) for name, job in jobs.items() if _condition(job, "Failed")}
    tasks = {name: _task(job, pods.get(name, []), ended.get(name)) for name, job in jobs.items()}
    servers = {s.name: _server(deployments.get(s.name), pods.get(s.name, [])) for s in graph.servers}
    there = {name: state for name, state in servers.items() if name in deployments or pods.get(name)}
    troubles = [t for name, job in jobs.items() if tasks[name].status == "running" for t in _of_job(name, job, pods.get(name, []))]
    troubles += [t for name in deployments if name in there for t in _of_server(name, deployments[name], pods.get(name, []))]
    running = [name for name, task in tasks.items() if task.status == "running"]
    return World(
        observed=Observed(tasks, there),
        summaries={name: found for name in tasks if (found := _summary(pods.get(name, []))) is not None},
        troubles=tuple(troubles),
        ended={**ended, **{n: _server_ending(n, pods.get(n, [])) for n, s in there.items() if s.failures}},
        seconds={name: _seconds(job, now) for name, job in jobs.items() if job.get("status", {}).get("startTime")},
        metrics={name: url for name in running if (url := _metrics(pods.get(name, [])))},
        silent=_silent(jobs, running, pods, now),
    )


def troubles_in(events: Iterable[Json], silent: Mapping[str, str]) -> tuple[Trouble, ...]:
    """What Events say about objects that say nothing themselves; the last one of each counts."""
    last: dict[str, Trouble] = {}
    for event in sorted(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or "")):
        child = silent.get(event.get("involvedObject", {}).get("uid", ""))
        if (
            child
            and event.get("type") == "Warning"
            and event.get("reason") in ("FailedCreate", "FailedMount", "FailedAttachVolume")
        ):
            last[child] = Trouble(child, text_reason(event.get("message", "")), event.get("message", ""))
    return tuple(last.values())


# --- tasks ---


def _task(job: Json, pods: Sequence[Json], ending: Trouble | None) -> TaskState:
    status = job.get("status", {})
    if _condition(job, "Complete") or _condition(job, "SuccessCriteriaMet"):
        return TaskState("succeeded")
    failures = int(status.get("failed") or 0)
    if ending is None:
        return TaskState("running", failures)
    # A Job that Kubernetes calls failed has used up what spec.backoffLimit granted, or may not be tried again.
    limit = int(job.get("spec", {}).get("backoffLimit") or 0)
    code = BAD_INPUT if ending.reason in _input_reasons() else _exit_code(pods)
    return TaskState("failed", max(failures, limit + 1), code, ending.message)


def _input_reasons() -> tuple[Reason, ...]:
    return (
        reasons.INPUT_INVALID,
        reasons.STORE_UNUSABLE,
        reasons.MODEL_GATED,
        reasons.MODEL_UNUSABLE,
        reasons.ADAPTER_UNUSABLE,
    )


def _ending(name: str, job: Json, pods: Sequence[Json]) -> Trouble:
    condition = _condition(job, "Failed") or {}
    if condition.get("reason") == "DeadlineExceeded":
        limit = job.get("spec", {}).get("activeDeadlineSeconds")
        return Trouble(name, reasons.DEADLINE_EXCEEDED, f"not done within spec.activeDeadlineSeconds ({limit} s)")
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    if not failed:
        return Trouble(name, reasons.ATTEMPTS_EXHAUSTED, condition.get("message", "its pods are gone"))
    return _of_failed_pod(name, failed[-1], reasons.ATTEMPTS_EXHAUSTED)


def _of_failed_pod(name: str, pod: Json, otherwise: Reason) -> Trouble:
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return Trouble(name, reasons.EVICTED, status.get("message", "the pod was evicted"), blocking=False)
    ended = _terminated(pod)
    message = _said(ended) or status.get("message", "") or f"exit code {ended.get('exitCode', '?')}"
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            name, reasons.OUT_OF_MEMORY, f"the pod {_name(pod)} needed more memory than its limit{_limit(pod)}", blocking=False
        )
    if ended.get("exitCode") == BAD_INPUT:
        return Trouble(name, reasons.of_input(message), message)
    return Trouble(name, otherwise, message, blocking=False)


def _of_job(name: str, job: Json, pods: Sequence[Json]) -> list[Trouble]:
    """Of a Job that has not ended: what its newest pod waits for, else what its last failed pod died of."""
    if job.get("spec", {}).get("suspend"):
        return [
            Trouble(
                name,
                reasons.QUEUED,
                f"the Job waits in queue {job['metadata'].get('labels', {}).get('kueue.x-k8s.io/queue-name', '')}",
            )
        ]
    waiting = [t for pod in pods[-1:] if (t := _waiting(name, pod))]
    if waiting:
        return waiting
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    return [_of_failed_pod(name, failed[-1], reasons.RETRYING)] if failed else []


def _seconds(job: Json, now: datetime) -> float:
    status = job["status"]
    ended = status.get("completionTime") or next(
        (c["lastTransitionTime"] for c in status.get("conditions", ()) if c["type"] == "Failed" and c["status"] == "True"), None
    )
    return max(0.0, ((_when(ended) if ended else now) - _when(status["startTime"])).total_seconds())


def _metrics(pods: Sequence[Json]) -> str:
    addresses = [p["status"]["podIP"] for p in pods if p.get("status", {}).get("phase") == "Running" and p["status"].get("podIP")]
    if not addresses:
        return ""
    host = f"[{addresses[-1]}]" if ":" in addresses[-1] else addresses[-1]
    return f"http://{host}:{METRICS_PORT}/metrics"


# --- servers ---


def _server(deployment: Json | None, pods: Sequence[Json]) -> ServerState:
    """Pods whose Deployment has gone still hold their GPUs: the server counts as there, and as to be created anew."""
    if deployment is None:
        return ServerState(ready=False, failed=True)
    status, wanted = deployment.get("status", {}), int(deployment["spec"].get("replicas", 1))
    current = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0)
    ready = current and all(int(status.get(key) or 0) >= wanted for key in ("updatedReplicas", "availableReplicas"))
    worst = max(_broken(pods), key=_restarts, default=None)
    if worst is None:
        return ServerState(ready)
    ended = _terminated(worst)
    return ServerState(ready, True, _failures(worst), int(ended.get("exitCode") or 0), _said(ended) or "its container ended")


def _broken(pods: Sequence[Json]) -> list[Json]:
    """Those whose container ended and has not come back. An evicted pod does not: another one takes its place."""
    there = [pod for pod in pods if not _going(pod) and pod.get("status", {}).get("phase") != "Failed"]
    return [pod for pod in there if _restarts(pod) and not _container(pod).get("ready")]


def _failures(pod: Json) -> int:
    """Ends in a row: one after a long life is the first again, or a server that lives for weeks would use up its attempts."""
    ended = _terminated(pod)
    if (
        "startedAt" in ended
        and "finishedAt" in ended
        and (_when(ended["finishedAt"]) - _when(ended["startedAt"])).total_seconds() > LONG
    ):
        return 1
    return _restarts(pod)


def _server_ending(name: str, pods: Sequence[Json]) -> Trouble:
    return _of_failed_pod(name, max(_broken(pods), key=_restarts), reasons.CRASH_LOOP)


def _of_server(name: str, deployment: Json, pods: Sequence[Json]) -> list[Trouble]:
    refused = _condition(deployment, "ReplicaFailure")
    if refused:
        return [Trouble(name, text_reason(refused.get("message", "")), refused.get("message", ""))]
    found = [t for pod in pods if not _going(pod) and (t := _waiting(name, pod))]
    found += [_of_failed_pod(name, pod, reasons.CRASH_LOOP) for pod in _broken(pods)]
    evicted = [p for p in pods if p.get("status", {}).get("reason") == "Evicted"]
    ready = deployment.get("status", {}).get("availableReplicas")
    return found or ([_of_failed_pod(name, evicted[-1], reasons.RETRYING)] if evicted and not ready else [])


# --- pods ---


def _waiting(name: str, pod: Json) -> Trouble | None:
    """Why a pod has not started."""
    status = pod.get("status", {})
    scheduled = next((c for c in status.get("conditions", ()) if c["type"] == "PodScheduled" and c["status"] == "False"), None)
    if scheduled:
        message = scheduled.get("message", "")
        missing = "persistentvolumeclaim" in message and "not found" in message
        gated = scheduled.get("reason") == "SchedulingGated"  # so do queues with the pods of Deployments
        reason = reasons.QUEUED if gated else reasons.VOLUME_MISSING if missing else reasons.UNSCHEDULABLE
        return Trouble(name, reason, message or "no node was found for the pod")
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _IMAGE:
            return Trouble(name, reasons.IMAGE_PULL, f"image {container.get('image')}: {waiting.get('message', waiting['reason'])}")
        if waiting.get("reason") in _CONFIG:
            return Trouble(name, text_reason(waiting.get("message", "")), waiting.get("message", waiting["reason"]))
    return None


def text_reason(message: str) -> Reason:
    """The reason for a refusal that Kubernetes puts in words only."""
    return next((reason for pattern, reason in _TEXTS if pattern.search(message)), reasons.POD_REFUSED)


def _silent(jobs: Mapping[str, Json], running: Iterable[str], pods: Mapping[str, Sequence[Json]], now: datetime) -> dict[str, str]:
    """Jobs that should have a pod and have none, and pods that have been told to start and have not; after some seconds."""
    found = {}
    for name in running:
        own = [pod for pod in pods.get(name, ()) if pod.get("status", {}).get("phase") in ("Pending", "Running")]
        if not own and not jobs[name].get("spec", {}).get("suspend"):
            found[jobs[name]["metadata"]["uid"]] = name
    for name, several in pods.items():
        for pod in several:
            creating = (_container(pod).get("state", {}).get("waiting") or {}).get("reason") == "ContainerCreating"
            if creating and (now - _when(_created(pod))).total_seconds() > 5:
                found[pod["metadata"]["uid"]] = name
    return found


def _summary(pods: Sequence[Json]) -> Json | None:
    for pod in reversed(pods):
        ended = _terminated(pod)
        if ended.get("exitCode") == 0:
            return _decoded(ended.get("message", ""))
    return None


def _said(ended: Mapping[str, Any]) -> str:
    """The error of a summary, else the last line of the log that Kubernetes kept."""
    message = ended.get("message", "")
    found = _decoded(message)
    if found is not None:
        return str(found.get("error", ""))
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:600] if lines else ""


def _decoded(message: str) -> Json | None:
    try:
        value = json.loads(message)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _container(pod: Json) -> Json:
    """The status of our own container: others may stand beside it, and before it."""
    return _ours(pod.get("status", {}).get("containerStatuses") or [])


def _ours(containers: Iterable[Json]) -> Json:
    return next((c for c in containers if c.get("name") in (DEBATE, TRAIN, SERVE)), {})


def _terminated(pod: Json) -> Json:
    container = _container(pod)
    ended: Json = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    return ended


def _restarts(pod: Json) -> int:
    return int(_container(pod).get("restartCount") or 0)


def _exit_code(pods: Sequence[Json]) -> int:
    return int(_terminated(pods[-1]).get("exitCode") or 0) if pods else 0


def _limit(pod: Json) -> str:
    limit = _ours(pod["spec"]["containers"]).get("resources", {}).get("limits", {}).get("memory")
    return f" of {limit}" if limit else ""


def _condition(thing: Json, kind: str) -> Json | None:
    conditions: list[Json] = thing.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _made_by(job: Json, pod: Json) -> bool:
    """Not by a Job of the same name before it."""
    owners = pod["metadata"].get("ownerReferences", ())
    return all(owner.get("uid") == job["metadata"].get("uid") for owner in owners if owner.get("kind") == "Job")


def _child(thing: Json) -> str:
    return str(thing["metadata"].get("labels", {}).get(CHILD) or thing["metadata"]["name"])


def _name(thing: Json) -> str:
    return str(thing["metadata"]["name"])


def _created(thing: Json) -> str:
    return str(thing["metadata"].get("creationTimestamp", ""))


def _going(thing: Json) -> bool:
    return "deletionTimestamp" in thing["metadata"]
