"""Why Kueue has not admitted a Job or the servers: in the words of their Workload. Pure.

backend.py asks for the Workloads of what a Snapshot shows as queued, and for no others. Source: Kueue, Workload (v1beta2).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from maft_operator.cluster import kinds, kueue, reasons
from maft_operator.cluster.children import is_controlled_by, servers_in
from maft_operator.cluster.fields import condition, part, parts, text
from maft_operator.cluster.manifests import CHILD, Owner
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.reasons import Trouble
from maft_operator.spec.schema import Json

Selector = tuple[str, str]
"""The parameter of a list and its value."""
_OF_JOB = "kueue.x-k8s.io/job-uid"
# No room will ever come of itself: the queue is not there or stopped, has no such resource, or less of it than is asked for.
_NEVER = re.compile(r"doesn't exist|is (inactive|stopped)|unavailable in ClusterQueue|> maximum capacity|not found", re.IGNORECASE)
# A message has what is wrong with each flavor: the quota of one is used by others, that of another is too small.
_USED = re.compile(r"insufficient unused quota[^,]* in flavor ([^,\s]+)")
_TOO_SMALL = re.compile(r"insufficient quota[^,]* in flavor ([^,\s]+),[^,]*> maximum capacity")


def selectors(snapshot: Snapshot, children: Mapping[str, Sequence[Json]], owner: Owner) -> dict[str, Selector]:
    """Finds the Workloads to ask for, by child that is queued. The servers of a run share one."""
    queued = {trouble.child for trouble in snapshot.troubles if trouble.reason is reasons.QUEUED}
    jobs = _jobs(children)
    servers = ("field_selector", f"metadata.name={kueue.group(owner.run, owner.uid)}")
    return {c: ("label_selector", f"{_OF_JOB}={jobs[c]['metadata']['uid']}") if c in jobs else servers for c in sorted(queued)}


def owned(
    listed: Mapping[Selector, Sequence[Json]], asked: Mapping[str, Selector], children: Mapping[str, Sequence[Json]]
) -> dict[str, list[Json]]:
    """Sorts Workloads by queued child, without what only has the label or the name. Of a Job it is what that Job controls; of
    servers, which are a group, what one of their pods owns: all of them do, and none controls it. asked: selectors by child."""
    jobs = _jobs(children)
    servers = servers_in(children, [child for child in asked if child not in jobs])
    members = {server.name: {text(pod, "metadata", "uid") for pod in server.pods} - {""} for server in servers}

    def is_own(workload: Json, child: str) -> bool:
        if child in jobs:
            return is_controlled_by(workload, text(jobs[child], "metadata", "uid"))
        return any(text(owner, "uid") in members.get(child, ()) for owner in parts(workload, "metadata", "ownerReferences"))

    return {child: [w for w in listed[selector] if is_own(w, child)] for child, selector in asked.items()}


def _jobs(children: Mapping[str, Sequence[Json]]) -> dict[str, Json]:
    return {job["metadata"]["name"]: job for job in children.get(kinds.JOB.name, ())}


def explained(snapshot: Snapshot, workloads: Mapping[str, Iterable[Json]]) -> Snapshot:
    """Says of what is queued what its Workload says. workloads: by child."""
    troubles = [_told(t, workloads.get(t.child, ())) if t.reason is reasons.QUEUED else t for t in snapshot.troubles]
    return replace(snapshot, troubles=tuple(troubles))


def of_kueue(queued: Iterable[str], children: Mapping[str, Sequence[Json]]) -> frozenset[str]:
    """Finds which of these children wait for Kueue: its label names the queue, on the Job or on pods of a server."""
    objects = [*children.get(kinds.JOB.name, ()), *children.get(kinds.POD.name, ())]
    marked = {text(thing, "metadata", "labels", CHILD) for thing in objects if text(thing, "metadata", "labels", kueue.QUEUE)}
    return frozenset(queued) & marked


def unserved(snapshot: Snapshot, queued: Collection[str]) -> Snapshot:
    """Says of what waits for Kueue why nobody knows more. queued: its names."""
    line = f"(why is not known: the cluster serves no Workloads as {kinds.WORKLOAD.api_version}, as Kueue does from 0.15 on)"
    troubles = [
        replace(t, message=f"{t.message} {line}") if t.reason is reasons.QUEUED and t.child in queued else t
        for t in snapshot.troubles
    ]
    return replace(snapshot, troubles=tuple(troubles))


def _told(trouble: Trouble, workloads: Iterable[Json]) -> Trouble:
    newest = max(workloads, key=lambda w: str(w["metadata"].get("creationTimestamp", "")), default=None)
    if newest is None:
        return trouble
    queue = (newest.get("spec") or {}).get("queueName") or "?"
    off = _is_deactivated(newest)
    evicted, lacks = _message(newest, "Evicted", "True"), _message(newest, "QuotaReserved", "False")
    all_of_it = "; ".join(line for line in (evicted, lacks, *_checks(newest), _brings_back(newest) if off else "") if line)
    queued = replace(trouble, message=f"waits in queue {queue}{': ' if all_of_it else ''}{all_of_it}")
    return replace(queued, reason=reasons.QUEUE_UNUSABLE, blocking=True) if off or _is_never(lacks) else queued


def _is_never(lacks: str) -> bool:
    """Tells whether it lacks what will not come, in whichever flavor. Its eviction says nothing of that: it outlasts its cause."""
    comes = {*_USED.findall(lacks)} - {*_TOO_SMALL.findall(lacks)}
    return bool(_NEVER.search(lacks)) and not comes


def _is_deactivated(workload: Json) -> bool:
    """Not by the message of its eviction, which outlasts that it is active again."""
    return part(workload, "spec").get("active") is False


def _brings_back(workload: Json) -> str:
    namespace, name = (text(workload, "metadata", field) for field in ("namespace", "name"))
    return f'deactivated until kubectl patch workload {name} -n {namespace} --type=merge -p \'{{"spec":{{"active":true}}}}\''


def _checks(workload: Json) -> list[str]:
    """What else than quota it waits for, as a node that is to be started: each admission check that is not Ready."""
    checks = [check for check in parts(workload, "status", "admissionChecks") if text(check, "state") != "Ready"]
    lines = [(f"admission check {text(c, 'name')} is {text(c, 'state')}", text(c, "message").rstrip(". ")) for c in checks]
    return [f"{line}: {message}" if message else line for line, message in lines]


def _message(workload: Json, kind: str, status: str) -> str:
    """What the condition says where it has that status; nothing where nobody has looked at it yet."""
    present = condition(workload, kind)
    return text(present, "message").rstrip(". ") if text(present, "status") == status else ""
