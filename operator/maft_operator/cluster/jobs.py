"""What became of a task, from its Job and the pods of it: its state, why it failed or does not go on, how long it took. Pure."""

from dataclasses import replace
from datetime import datetime

from maft.summaries import BAD_INPUT
from maft_operator.cluster import indexes, pods, reasons, why
from maft_operator.cluster.children import Child
from maft_operator.cluster.fields import count, is_true, part, seconds, text, time, true_condition
from maft_operator.cluster.kueue import QUEUE
from maft_operator.cluster.manifests import COMPONENT
from maft_operator.cluster.reasons import Trouble
from maft_operator.plan.step import TaskState
from maft_operator.spec.schema import Json


def state(task: Child, end: Trouble | None, now: datetime) -> TaskState:
    """Reads the state. end: why it failed, where it did."""
    job = task.object
    if true_condition(job, "Complete") or true_condition(job, "SuccessCriteriaMet"):
        return TaskState("succeeded")
    if _has_done_its_work(task, now):
        return TaskState("succeeded", lingers=not true_condition(job, "Failed"))
    failures = count(job, "status", "failed")
    if end is None:
        return TaskState("running", failures, waits=_waits(task))
    # A Job that Kubernetes calls failed has used up what spec.backoffLimit granted, or may not be tried again.
    limit = count(job, "spec", "backoffLimit")
    code = BAD_INPUT if end.reason in reasons.OF_INPUT else pods.exit_code(task.pods[-1]) if task.pods else 0
    return TaskState("failed", max(failures, limit + 1), code, end.message, lingers=not true_condition(job, "Failed"))


def _waits(task: Child) -> bool:
    """Whether no pod of it has a node. What somebody else suspended, or another cluster runs, waits for no room here."""
    job = task.object
    others = text(job, "spec", "managedBy") or (is_true(job, "spec", "suspend") and not text(job, "metadata", "labels", QUEUE))
    return not others and not any(pods.has_node(pod) for pod in task.pods)


def _has_done_its_work(task: Child, now: datetime) -> bool:
    """Whether its programs ended well, though a pod has failed or does not end, for what stands beside the program."""
    stuck = [pod for pod in task.pods if pods.ended_well(pod) and (pods.has_failed(pod) or _is_held(pod, now))]
    well = indexes.distinct([*stuck, *(pod for pod in task.pods if pods.phase(pod) == "Succeeded")])
    return bool(stuck) and len(well) >= count(task.object, "spec", "completions")


def _is_held(pod: Json, now: datetime) -> bool:
    return bool(pods.runs_on(pod)) and pods.has_settled(pod, now)


def running_on(task: Child, now: datetime) -> Json | None:
    """Finds the pod whose program has ended and that does not end."""
    return next((pod for pod in task.pods if _is_held(pod, now)), None)


def has_failed(task: Child, now: datetime) -> bool:
    """Tells whether the Job has failed, or will as soon as what stands beside the program ends."""
    if true_condition(task.object, "Failed"):
        return True
    held = running_on(task, now)
    return held is not None and pods.exit_code(held) == BAD_INPUT


def end(task: Child, now: datetime) -> Trouble:
    """Says why a Job failed."""
    job = task.object
    failed_with = true_condition(job, "Failed")
    if text(failed_with, "reason") == "DeadlineExceeded":
        limit = count(job, "spec", "activeDeadlineSeconds")
        return Trouble(task.name, reasons.DEADLINE_EXCEEDED, f"not done within spec.activeDeadlineSeconds ({limit} s)")
    failed = indexes.by_themselves([pod for pod in task.pods if pods.has_failed(pod) or _is_held(pod, now)])
    if not failed:
        return Trouble(task.name, reasons.ATTEMPTS_EXHAUSTED, text(failed_with, "message") or "its pods are gone")
    own = [pod for pod in failed if not pods.disruption(pod)]  # what counted, if any did
    if not own:
        return replace(why.failure(task.name, failed[-1], reasons.ATTEMPTS_EXHAUSTED), reason=reasons.ATTEMPTS_EXHAUSTED)
    return why.failure(task.name, own[-1], reasons.exhausted(pods.last_words(own[-1])))


def taken(job: Json, now: datetime) -> float:
    """Counts the seconds that it took, or has been running."""
    end = time(job, "status", "completionTime") or time(true_condition(job, "Failed"), "lastTransitionTime") or now
    return max(0.0, seconds(job, "status", "startTime", until=end))


def troubles(task: Child, now: datetime) -> list[Trouble]:
    """Says of a Job that has not ended who does not let it end, what its newest pods wait for, what its last failed pod died of."""
    job = task.object
    if lost := [why.lost(task.name, pod) for pod in task.pods if pods.is_lost(pod, now)]:
        return lost[-1:]
    if is_true(job, "spec", "suspend"):
        queue = text(job, "metadata", "labels", QUEUE)
        message = f"waits in queue {queue}" if queue else "another than maft has suspended the Job"
        return [why.queued(task.name, message, _suspended_for(job, now))]
    if waits := [_passing(t, pod) for pod in indexes.newest(task.pods) if (t := why.waiting(task.name, pod, now))]:
        return waits
    return _tried_again(task)


def _tried_again(task: Child) -> list[Trouble]:
    """Says what its last failed pod died of. That pods did not all come is a wait until all of them are there."""
    failed = indexes.by_themselves([pod for pod in task.pods if pods.has_failed(pod)])
    there = indexes.distinct([pod for pod in task.pods if pods.phase(pod) in ("Running", "Succeeded")])
    if failed and indexes.lacked_peers(failed[-1]) and len(there) < count(task.object, "spec", "completions"):
        return [replace(why.failure(task.name, failed[-1], reasons.PEERS_MISSING), blocking=True)]
    return [why.failure(task.name, failed[-1], reasons.RETRYING)] if failed else []


def _passing(trouble: Trouble, pod: Json) -> Trouble:
    """Whatever others in the pod wait for, a program that is at work stops nobody."""
    return replace(trouble, blocking=False) if part(pods.ours(pod), "state", "running") else trouble


def stands_still(task: Child, now: datetime) -> bool:
    """Tells whether no program of it is at work, nor could be: a pod of which nobody hears may be."""
    return not any(pods.phase(pod) in ("Running", "Succeeded", "Unknown") or pods.is_lost(pod, now) for pod in task.pods)


def lacks_pods(task: Child) -> bool:
    """Tells whether it should have a pod and has none; of those that train together, whether any is missing."""
    there = indexes.distinct([pod for pod in task.pods if pods.is_active(pod) or pods.phase(pod) == "Succeeded"])
    trains = text(task.object, "metadata", "labels", COMPONENT) == "train"
    return not any(map(pods.is_active, task.pods)) or (trains and len(there) < count(task.object, "spec", "completions"))


def _suspended_for(job: Json, now: datetime) -> float:
    since = time(true_condition(job, "Suspended"), "lastTransitionTime") or time(job, "metadata", "creationTimestamp")
    return (now - since).total_seconds() if since else 0.0
