"""What one pod says: what it waits for, how its container ended, why it failed. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from maft.summaries import AnySummary, Failure, decode_summary
from maft_operator.cluster import reasons
from maft_operator.cluster.pod_template import DEBATE, METRICS_PORT, SERVE, TRAIN
from maft_operator.cluster.reasons import Reason, Trouble
from maft_operator.plan.step import BAD_INPUT
from maft_operator.spec.schema import Json

LONG = 600.0  # seconds that a container has to live for its end to count as the first
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}

moment = datetime.fromisoformat  # timestamps of the API


def created(thing: Json) -> str:
    """Tells when the object was created, as the API writes it; such texts sort by time."""
    return str(thing["metadata"].get("creationTimestamp", ""))


def is_terminating(thing: Json) -> bool:
    """Tells whether the object is being deleted."""
    return "deletionTimestamp" in thing["metadata"]


def has_failed(pod: Json) -> bool:
    """Tells whether the pod ended badly and will not come back."""
    return bool(pod.get("status", {}).get("phase") == "Failed")


# --- waiting ---


def waiting(child: str, pod: Json) -> Trouble | None:
    """Says why a pod has not started."""
    return _unscheduled(child, pod) or next((t for c in _all_containers(pod) if (t := _held(child, c))), None)


def _unscheduled(child: str, pod: Json) -> Trouble | None:
    conditions = pod.get("status", {}).get("conditions", ())
    condition = next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)
    if condition is None:
        return None
    message = condition.get("message", "")
    return Trouble(child, _why_unscheduled(condition.get("reason"), message), message or "no node was found for the pod")


def _why_unscheduled(reason: str | None, message: str) -> Reason:
    if reason == "SchedulingGated":  # so do queues with the pods of Deployments
        return reasons.QUEUED
    missing = "persistentvolumeclaim" in message and "not found" in message
    return reasons.VOLUME_MISSING if missing else reasons.UNSCHEDULABLE


def _held(child: str, container: Json) -> Trouble | None:
    held = container.get("state", {}).get("waiting") or {}
    if held.get("reason") in _IMAGE:
        return Trouble(child, reasons.IMAGE_PULL, f"image {container.get('image')}: {held.get('message', held['reason'])}")
    if held.get("reason") in _CONFIG:
        return Trouble(child, reasons.text_reason(held.get("message", "")), held.get("message", held["reason"]))
    return None


def is_creating(pod: Json, now: datetime, patience: float) -> bool:
    """Tells whether its container should have started more than `patience` seconds ago."""
    held = _container(pod).get("state", {}).get("waiting") or {}
    return held.get("reason") == "ContainerCreating" and (now - moment(created(pod))).total_seconds() > patience


# --- ends ---


def failure(child: str, pod: Json, otherwise: Reason) -> Trouble:
    """Says why a failed pod failed. otherwise: the reason where the pod itself gives none."""
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return Trouble(child, reasons.EVICTED, status.get("message", "the pod was evicted"), blocking=False)
    end = _terminated(pod)
    if end.get("reason") == "OOMKilled":
        name = pod["metadata"]["name"]
        message = f"the pod {name} needed more memory than its limit{_memory_limit(pod)}"
        return Trouble(child, reasons.OUT_OF_MEMORY, message, blocking=False)
    message = last_words(pod) or status.get("message", "") or f"exit code {end.get('exitCode', '?')}"
    if end.get("exitCode") == BAD_INPUT:
        return Trouble(child, reasons.of_input(message), message)
    return Trouble(child, otherwise, message, blocking=False)


def last_words(pod: Json) -> str:
    """Reads the error in the summary of a program that ended, else the last line of the log that Kubernetes kept."""
    message = _terminated(pod).get("message", "")
    summary = decode_summary(message)
    if summary is not None:
        return summary.error if isinstance(summary, Failure) else ""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:600] if lines else ""


def last_summary(pods: Sequence[Json]) -> AnySummary | None:
    """Reads the summary of the last program that ended well. pods: oldest first."""
    ends = (_terminated(pod) for pod in reversed(pods))
    message = next((end.get("message", "") for end in ends if end.get("exitCode") == 0), "")
    summary = decode_summary(message)
    return None if isinstance(summary, Failure) else summary


def exit_code(pod: Json) -> int:
    """Returns the exit code of its container's last end; 0 where there is none."""
    return int(_terminated(pod).get("exitCode") or 0)


def is_broken(pod: Json) -> bool:
    """Tells whether its container ended and may come back, but has not yet. In the place of an evicted pod another one comes."""
    there = not is_terminating(pod) and not has_failed(pod)
    return there and restarts(pod) > 0 and not _container(pod).get("ready")


def restarts(pod: Json) -> int:
    """Counts how often its container was started again."""
    return int(_container(pod).get("restartCount") or 0)


def failures(pod: Json) -> int:
    """Counts ends in a row. One after a long life is the first again: a server may live for weeks and end now and then."""
    end = _terminated(pod)
    if "startedAt" not in end or "finishedAt" not in end:
        return restarts(pod)
    lived = (moment(end["finishedAt"]) - moment(end["startedAt"])).total_seconds()
    return 1 if lived > LONG else restarts(pod)


# --- running ---


def metrics_url(pods: Iterable[Json]) -> str:
    """Names the URL of the newest running pod's metrics; empty without one."""
    running = [pod["status"] for pod in pods if pod.get("status", {}).get("phase") == "Running"]
    addresses = [status["podIP"] for status in running if status.get("podIP")]
    if not addresses:
        return ""
    host = f"[{addresses[-1]}]" if ":" in addresses[-1] else addresses[-1]
    return f"http://{host}:{METRICS_PORT}/metrics"


# --- containers ---


def _all_containers(pod: Json) -> Iterable[Json]:
    status = pod.get("status", {})
    return (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))


def _container(pod: Json) -> Json:
    """The status of our own container: others may stand beside it, and before it."""
    return _ours(pod.get("status", {}).get("containerStatuses") or [])


def _ours(containers: Iterable[Json]) -> Json:
    return next((c for c in containers if c.get("name") in (DEBATE, TRAIN, SERVE)), {})


def _terminated(pod: Json) -> Json:
    container = _container(pod)
    end: Json = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    return end


def _memory_limit(pod: Json) -> str:
    limit = _ours(pod["spec"]["containers"]).get("resources", {}).get("limits", {}).get("memory")
    return f" of {limit}" if limit else ""
