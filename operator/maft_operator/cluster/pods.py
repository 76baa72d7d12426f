"""What one pod shows: whose it is, how its containers fare, how they ended. Pure. why.py puts it in words."""

import ipaddress
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from maft.summaries import LIMIT, AnySummary, Failure, decode_summary
from maft_operator.cluster import kinds
from maft_operator.cluster.fields import condition, controller, count, is_true, part, parts, seconds, text, time
from maft_operator.cluster.pod_template import DEBATE, METRICS_PORT, SERVE, TRAIN, role
from maft_operator.spec.schema import Json

LONG = 600.0  # seconds that a container has to live for its end to count as the first
PATIENCE = 5.0  # seconds that a container may take to start, and the others of its pod to end with it, before somebody asks why
SCALED = 600.0  # seconds in which an autoscaler has made a node
LATE = 10.0  # seconds that a pod may exist after its grace period
_SHUTDOWN = ("Terminated", "NodeShutdown", "Shutdown", "Preempting")  # kubelets' words for pods whose node goes, or that yield
_GREATEST = 2**53  # of numbers in a summary; JSON has no greater ones that everybody reads alike


def created(thing: Json) -> str:
    """Tells when the object was created, as the API writes it; such texts sort by time."""
    return text(thing, "metadata", "creationTimestamp")


def is_terminating(thing: Json) -> bool:
    """Tells whether the object is being deleted."""
    return bool(text(thing, "metadata", "deletionTimestamp"))


# --- whose it is ---


def is_of_job(pod: Json, job: Json) -> bool:
    """Tells whether that Job made the pod: labels can be anybody's, and a Job of the same name may have been there before."""
    owner, uid = controller(pod), text(job, "metadata", "uid")
    return text(owner, "kind") == kinds.JOB.name and bool(uid) and text(owner, "uid") == uid


def is_of_server(pod: Json, server: str) -> bool:
    """Tells whether a Deployment of that name made the pod. Its ReplicaSet is not looked up (no right to them is asked for): it
    is known by its name, which ends with the template's hash that its pods carry."""
    owner, template = controller(pod), text(pod, "metadata", "labels", "pod-template-hash")
    return text(owner, "kind") == "ReplicaSet" and bool(template) and text(owner, "name") == f"{server}-{template}"


# --- states ---


def phase(pod: Json) -> str:
    """Returns its phase; Pending where it has none yet."""
    return text(pod, "status", "phase") or "Pending"


def has_failed(pod: Json) -> bool:
    """Tells whether the pod ended badly and will not come back."""
    return phase(pod) == "Failed"


def is_active(pod: Json) -> bool:
    """Tells whether it may still do something."""
    return phase(pod) in ("Pending", "Running")


def has_node(pod: Json) -> bool:
    """Tells whether it takes room on a node."""
    return phase(pod) not in ("Succeeded", "Failed") and (phase(pod) != "Pending" or bool(text(pod, "spec", "nodeName")))


def is_ready(pod: Json) -> bool:
    """Tells whether it takes requests."""
    return text(condition(pod, "Ready"), "status") == "True"


def is_evicted(pod: Json) -> bool:
    """Tells whether its node needed the room, or it took more than its own limit."""
    return text(pod, "status", "reason") == "Evicted"


def took_too_much(pod: Json) -> bool:
    """Tells whether it was evicted for its own limit: only for the node's sake does the kubelet speak of a disruption."""
    return is_evicted(pod) and not condition(pod, "DisruptionTarget")


def disruption(pod: Json) -> str:
    """Says by whom it was ended for the sake of others: preemption, a drain, a node that shuts down. Empty: by nobody."""
    target, reason = condition(pod, "DisruptionTarget"), text(pod, "status", "reason")
    if text(target, "status") == "True":
        return both(text(target, "reason"), text(target, "message")) or "DisruptionTarget"
    return both(reason, text(pod, "status", "message")) if reason in _SHUTDOWN else ""


def both(reason: str, message: str) -> str:
    """Writes a reason and what is said of it, or the one that there is."""
    return ": ".join(part for part in (reason, message) if part)


def is_unexplained(pod: Json, now: datetime) -> bool:
    """Tells whether it should have started more than `PATIENCE` seconds ago."""
    return phase(pod) == "Pending" and seconds(pod, "metadata", "creationTimestamp", until=now) > PATIENCE


def is_lost(pod: Json, now: datetime) -> bool:
    """Tells whether nobody hears of it any more: it is to end, and has not for long, or its node does not answer."""
    if phase(pod) in ("Succeeded", "Failed"):
        return False
    late = seconds(pod, "metadata", "deletionTimestamp", until=now) > LATE  # that time includes the grace period
    unheard = phase(pod) == "Unknown" or text(pod, "status", "reason") == "NodeLost"
    return late or unheard or _was_made_unready(pod)


def _was_made_unready(pod: Json) -> bool:
    """Whether the control plane took its readiness, as it does for a silent node, and not the kubelet, which says why."""
    ready, containers = (condition(pod, name) for name in ("Ready", "ContainersReady"))
    taken = text(ready, "status") == "False" and not text(ready, "reason")
    return phase(pod) == "Running" and taken and text(containers, "status") == "True"


def unscheduled(pod: Json) -> Json:
    """Returns the condition that says why it has no node; empty where it has one."""
    scheduled = condition(pod, "PodScheduled")
    return scheduled if text(scheduled, "status") == "False" else {}


def is_gated(pod: Json) -> bool:
    """Tells whether a queue keeps it from being scheduled."""
    return text(unscheduled(pod), "reason") == "SchedulingGated"


def is_broken(pod: Json) -> bool:
    """Tells whether its container ended and may come back, but has not yet. In the place of an evicted pod another one comes."""
    there = not is_terminating(pod) and not has_failed(pod)
    return there and restarts(pod) > 0 and not is_true(ours(pod), "ready")


def restarts(pod: Json) -> int:
    """Counts how often its container was started again."""
    return count(ours(pod), "restartCount")


def failures(pod: Json) -> int:
    """Counts ends in a row. One after a long life is the first again: a server may live for weeks and end now and then."""
    end = ending(ours(pod))
    finished = time(end, "finishedAt")
    lived = seconds(end, "startedAt", until=finished) if finished else 0.0
    return 1 if lived > LONG else restarts(pod)


def runs_on(pod: Json) -> list[str]:
    """Lists the containers that run on where our own one has ended: the pod does not end before they do."""
    if phase(pod) != "Running" or is_terminating(pod) or not part(ours(pod), "state", "terminated"):
        return []
    others = [c for c in parts(pod, "status", "containerStatuses") if c != ours(pod)]
    return [text(c, "name") for c in others if not part(c, "state", "terminated")]


def has_settled(pod: Json, now: datetime) -> bool:
    """Tells whether our container ended so long ago that the others had the time to end as well."""
    end = part(ours(pod), "state", "terminated")
    return time(end, "finishedAt") is None or abs(seconds(end, "finishedAt", until=now)) > PATIENCE  # its node's clock may be ahead


# --- ends ---


def exit_code(pod: Json) -> int:
    """Returns the exit code of its container's last end; 0 where there is none."""
    return count(ending(ours(pod)), "exitCode")


def ended_well(pod: Json) -> bool:
    """Tells whether the program has done its work, whatever became of the rest of the pod."""
    end = part(ours(pod), "state", "terminated")
    return end.get("exitCode") == 0


def last_words(pod: Json) -> str:
    """Reads the error in the summary of a program that ended, else the last line of the log that Kubernetes kept."""
    return words(ours(pod))


def words(container: Json) -> str:
    """Reads the same of any container."""
    message = _message(ending(container))
    summary = decode_summary(message)
    if summary is not None:
        return summary.error if isinstance(summary, Failure) else ""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:600] if lines else ""


def last_summary(pods: Sequence[Json]) -> AnySummary | None:
    """Reads the summary of the last program that ended well. pods: oldest first."""
    ends = (ending(ours(pod)) for pod in reversed(pods))
    message = next((_message(end) for end in ends if end.get("exitCode") == 0), "")
    summary = decode_summary(message)
    return None if isinstance(summary, Failure) or not _is_plausible(msgspec.to_builtins(summary)) else summary


def _message(end: Json) -> str:
    """The termination message, of which the kubelet keeps so much."""
    return text(end, "message")[:LIMIT]


def _is_plausible(value: Any) -> bool:
    """Whether a status may have these numbers: the container's image is the user's, and so is what it says."""
    if isinstance(value, dict):
        return all(map(_is_plausible, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plausible, value))
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) <= _GREATEST
    return not isinstance(value, int) or 0 <= value <= _GREATEST


# --- where it is ---


def metrics_url(pods: Iterable[Json]) -> str:
    """Names the URL of the newest running pod's metrics; empty without one."""
    running = [pod for pod in pods if phase(pod) == "Running" and not is_terminating(pod)]
    addresses = [text(pod, "status", "podIP") for pod in running]
    known = [host for address in addresses if (host := _host(address))]
    return f"http://{known[-1]}:{METRICS_PORT}/metrics" if known else ""


def _host(address: str) -> str:
    """An address of a pod as URLs have it; empty for what is none, such as one of the operator's own machine."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    ip = (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip  # ::ffff:127.0.0.1 leads to 127.0.0.1
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or "%" in address:
        return ""
    return f"[{ip}]" if ip.version == 6 else str(ip)


# --- containers ---


def containers(pod: Json) -> list[Json]:
    """Lists the statuses of all containers, those that come first included."""
    return [*parts(pod, "status", "initContainerStatuses"), *parts(pod, "status", "containerStatuses")]


def ours(pod: Json) -> Json:
    """Returns the status of our own container: others may stand beside it, and before it."""
    return own(parts(pod, "status", "containerStatuses"))


def own(several: Iterable[Json]) -> Json:
    """Finds our own container among several; where two of ours stand in one pod, the one that has trouble."""
    named = [c for c in several if role(text(c, "name")) in (DEBATE, TRAIN, SERVE)]
    troubled = (c for c in named if count(c, "restartCount") and not is_true(c, "ready"))
    return next(troubled, named[0] if named else {})


def ending(container: Json) -> Json:
    """Returns how the container ended last; empty where it has not."""
    return part(container, "state", "terminated") or part(container, "lastState", "terminated")
