"""Why a pod does not go on, as troubles: what it waits for, what it died of, who does not let it end. Pure.

Reasons that Kubernetes may give are many and grow with each release. Those that are known decide which hint stands there; one that
is not known is told all the same.
"""

from collections.abc import Sequence
from datetime import datetime

from maft.summaries import BAD_INPUT
from maft_operator.cluster import pods, reasons
from maft_operator.cluster.fields import condition, is_true, part, parts, seconds, text
from maft_operator.cluster.reasons import Reason, Trouble
from maft_operator.spec.schema import Json

_STARTS = {"", "ContainerCreating", "PodInitializing"}  # the only reasons to wait that are none
_IMAGE = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
_BACK_OFF = "CrashLoopBackOff"
ADMITTED = 3600.0  # seconds that anybody may have to wait in a queue, and that an init container may take to fetch things


# --- waiting ---


def waiting(child: str, pod: Json, now: datetime) -> Trouble | None:
    """Says why a pod has not started."""
    held = next((t for c in pods.containers(pod) if (t := _held(child, pod, c))), None)
    return _unscheduled(child, pod, now) or held or _initializes(child, pod, now)


def unready(child: str, pod: Json, now: datetime) -> Trouble | None:
    """Says of a server's pod what keeps requests from it where its own container takes them: another one, or somebody's gate."""
    ready = condition(pod, "Ready")
    waited = seconds(ready, "lastTransitionTime", until=now)
    own = pods.phase(pod) == "Running" and is_true(pods.ours(pod), "ready")
    if not own or text(ready, "status") != "False" or waited <= pods.PATIENCE:
        return None
    why = pods.both(text(ready, "reason"), text(ready, "message")) or "its condition Ready is False"
    return Trouble(child, reasons.POD_STUCK, f"the pod {text(pod, 'metadata', 'name')} works and is not ready: {why}")


def queued(child: str, message: str, seconds: float) -> Trouble:
    """Says that a queue has not admitted it. seconds: since when."""
    return Trouble(child, reasons.QUEUED, message, blocking=seconds > ADMITTED)


def _unscheduled(child: str, pod: Json, now: datetime) -> Trouble | None:
    condition = pods.unscheduled(pod)
    if not condition:
        return None
    message = text(condition, "message") or "no node was found for the pod"
    waited = seconds(condition, "lastTransitionTime", until=now)
    if pods.is_gated(pod):
        return queued(child, message, waited)
    if "persistentvolumeclaim" in message and "not found" in message:
        return Trouble(child, reasons.VOLUME_MISSING, message)
    return Trouble(child, reasons.UNSCHEDULABLE, message, blocking=waited > pods.SCALED)


def _initializes(child: str, pod: Json, now: datetime) -> Trouble | None:
    """Of an init container that runs so long that somebody may want to look."""
    sidecars = {text(c, "name") for c in parts(pod, "spec", "initContainers") if text(c, "restartPolicy") == "Always"}
    for container in parts(pod, "status", "initContainerStatuses"):
        begun, name = part(container, "state", "running"), text(container, "name")
        taken = seconds(begun, "startedAt", until=now)
        if begun and name not in sidecars and taken > pods.SCALED:
            line = f"the init container {name} runs since {text(begun, 'startedAt')}"
            return Trouble(child, reasons.POD_STUCK, line, blocking=taken > ADMITTED)
    return None


def _held(child: str, pod: Json, container: Json) -> Trouble | None:
    reason, message = text(container, "state", "waiting", "reason"), text(container, "state", "waiting", "message")
    if reason in _STARTS:
        return None
    if reason == _BACK_OFF:
        return _backs_off(child, pod, container)
    if reason in _IMAGE:
        return Trouble(child, reasons.IMAGE_PULL, f"image {text(container, 'image')}: {message or reason}")
    if reason in _CONFIG:
        return Trouble(child, reasons.text_reason(message), message or reason)
    return Trouble(child, reasons.POD_STUCK, f"container {text(container, 'name')}: {pods.both(reason, message)}")


def _backs_off(child: str, pod: Json, container: Json) -> Trouble | None:
    """Of a container that is not ours: nobody counts its ends, so the pod waits for ever."""
    if container == pods.ours(pod) and pods.is_broken(pod):
        return None  # `failure` tells it
    return Trouble(child, reasons.CRASH_LOOP, _how_it_ended(container))


# --- ends ---


def failure(child: str, pod: Json, otherwise: Reason) -> Trouble:
    """Says why a failed pod failed. otherwise: the reason where the pod itself gives none."""
    if pods.is_evicted(pod):
        return Trouble(child, reasons.EVICTED, text(pod, "status", "message") or "the pod was evicted", blocking=False)
    end = pods.ending(pods.ours(pod))
    if text(end, "reason") == "OOMKilled":
        message = f"the pod {text(pod, 'metadata', 'name')} needed more memory than its limit{_memory_limit(pod)}"
        return Trouble(child, reasons.OUT_OF_MEMORY, message, blocking=False)
    message = pods.last_words(pod) or _without_words(pod)
    if pods.exit_code(pod) == BAD_INPUT:
        return Trouble(child, reasons.of_input(message), message)
    if disruption := pods.disruption(pod):
        return Trouble(child, reasons.DISRUPTED, f"the pod {text(pod, 'metadata', 'name')}: {disruption}", blocking=False)
    return Trouble(child, otherwise, message, blocking=False)


def _without_words(pod: Json) -> str:
    """What is known where our program said nothing: how it ended, else which other one did, else what the status says."""
    own = pods.ours(pod)
    if pods.exit_code(pod):
        return text(pod, "status", "message") or f"exit code {pods.exit_code(pod)}"
    failed = next((c for c in pods.containers(pod) if c != own and pods.ending(c).get("exitCode")), None)
    if failed:
        return _how_it_ended(failed)
    line = pods.both(text(pod, "status", "reason"), text(pod, "status", "message"))
    return line or f"exit code {pods.ending(own).get('exitCode', '?')}"


def _how_it_ended(container: Json) -> str:
    code = pods.ending(container).get("exitCode", "?")
    return f"container {text(container, 'name')}: {pods.words(container) or f'exit code {code}'}"


def rejected(child: str, failed: Sequence[Json]) -> Trouble:
    """Says why a server has no pod: the last of these failed pods, with how many there are. In their place others come."""
    trouble = failure(child, failed[-1], reasons.POD_REJECTED)
    several = f"{len(failed)} pods failed, the last: " if len(failed) > 1 else ""
    return Trouble(child, trouble.reason, several + trouble.message, trouble.blocking)


def _memory_limit(pod: Json) -> str:
    limit = text(pods.own(parts(pod, "spec", "containers")), "resources", "limits", "memory")
    return f" of {limit}" if limit else ""


# --- what does not end ---


def runs_on(child: str, pod: Json) -> Trouble:
    """Says which container runs on where the program has ended. Kubernetes neither tries again nor gives the pod's GPU back."""
    where = f"{_named('container', pods.runs_on(pod))} of the pod {text(pod, 'metadata', 'name')} runs on"
    if pods.ended_well(pod):
        return Trouble(child, reasons.SIDECAR_RUNS_ON, f"the program has done its work, but the {where}", blocking=False)
    why = failure(child, pod, reasons.RETRYING).message
    code = pods.exit_code(pod)
    return Trouble(child, reasons.SIDECAR_RUNS_ON, f"the program ended with exit code {code} ({why}), but the {where}")


def lost(child: str, pod: Json) -> Trouble:
    """Says which node does not let a pod end."""
    name, node = text(pod, "metadata", "name"), text(pod, "spec", "nodeName")
    until = text(pod, "metadata", "deletionTimestamp")
    if not node:  # no kubelet has ever had it: whoever set a finalizer keeps it
        finalizers = ", ".join(map(str, part(pod, "metadata").get("finalizers") or ("none",)))
        message = f"the pod {name} should have ended at {until}; its finalizers keep it: {finalizers}"
        return Trouble(child, reasons.POD_STUCK, message)
    what = f"should have ended at {until} and has not" if until else "is not heard of"
    return Trouble(child, reasons.NODE_LOST, f"node {node}: the pod {name} {what}")


def _named(kind: str, names: Sequence[str]) -> str:
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"
