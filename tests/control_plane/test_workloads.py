"""Why a run waits in a queue, told from Kueue's Workloads; and what a cluster's webhooks say when nobody is behind them."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kube_objects import IMAGES, SERVER, START, a_run, deployment, event, job, owner, planned, snapshot, unscheduled
from test_cluster_backend import Server, stored

from maft_operator.cluster import api, explaining, kinds, kueue, reasons, workloads
from maft_operator.cluster.api import Refused
from maft_operator.cluster.backend import ClusterBackend
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.observed import troubles_in
from maft_operator.cluster.reasons import Trouble

RUN, TASK = a_run(queueName="gpus"), "r-1-debate"
GROUP = "r-servers-uid-of-r"
JOB = job(TASK, start=None, queue="gpus", suspend=True)
GATED = unscheduled(SERVER, "Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated")
FULL = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor f, 1 more needed"
SMALL = "insufficient quota for cpu in flavor spot, previously considered podsets requests (0) + current podset request (2)"
MIXED = f"couldn't assign flavors to pod set main: {SMALL} > maximum capacity (1)"  # of the first flavor; the next one is busy
MIXED += ", insufficient unused quota for cpu in flavor on-demand, 2 more needed"
PREEMPTED = "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"
AWAY = (
    'Internal error occurred: failed calling webhook "mjob.kb.io": failed to call webhook: Post'
    ' "https://kueue-webhook-service.kueue-system.svc:443/mutate-batch-v1-job?timeout=10s": connection refused'
)


def workload(*conditions: tuple[str, str, str], created: str = "1", queue: str = "gpus", owners: Iterable[Json] = ()) -> Json:
    """conditions: type, status, message. owners: references to what it belongs to."""
    made = [{"type": kind, "status": status, "reason": "Pending", "message": message} for kind, status, message in conditions]
    about = {"name": "w", "namespace": "default", "creationTimestamp": created, "ownerReferences": list(owners)}
    return {"kind": "Workload", "metadata": about, "spec": {"queueName": queue}, "status": {"conditions": made}}


def of_job(uid: str) -> list[Json]:
    """What Kueue writes into the Workload of a Job."""
    return [{"apiVersion": "batch/v1", "kind": "Job", "name": TASK, "uid": uid, "controller": True, "blockOwnerDeletion": True}]


def of_pods(*uids: str) -> list[Json]:
    """What it writes into that of a group of pods, none of which controls it."""
    return [{"apiVersion": "v1", "kind": "Pod", "name": f"p-{uid}", "uid": uid} for uid in uids]


WAITS = ("QuotaReserved", "False", FULL)
STOPPED = ("Evicted", "True", "The ClusterQueue is stopped")


def told(*items: Json) -> Trouble:
    """What is told of a Job that is queued."""
    [trouble] = workloads.explained(snapshot(RUN, JOB), {TASK: items}).troubles
    return trouble


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "waits in queue gpus"),
        ([workload()], "waits in queue gpus"),
        ([workload(queue="default")], "waits in queue default"),
        ([{"metadata": {}, "status": None}], "waits in queue ?"),
        ([workload(WAITS)], f"waits in queue gpus: {FULL}"),
        ([workload(("Evicted", "True", f"{PREEMPTED}."), WAITS)], f"waits in queue gpus: {PREEMPTED}; {FULL}"),
        ([workload(("QuotaReserved", "False", MIXED))], f"waits in queue gpus: {MIXED}"),
        ([workload(STOPPED, WAITS)], f"waits in queue gpus: {STOPPED[2]}; {FULL}"),  # it works again, and is full
        ([workload(("Evicted", "False", "earlier"), WAITS)], f"waits in queue gpus: {FULL}"),
        ([workload(("QuotaReserved", "True", "reserved"))], "waits in queue gpus"),
        ([workload(("QuotaReserved", "True", "old"), created="1"), workload(WAITS, created="2")], f"waits in queue gpus: {FULL}"),
    ],
)
def test_a_workload_says_why_it_waits(items: list[Json], message: str) -> None:
    assert told(*items) == Trouble(TASK, reasons.QUEUED, message, blocking=False)


@pytest.mark.parametrize(
    "message",
    [
        "couldn't assign flavors to pod set main: resource memory unavailable in ClusterQueue",
        "LocalQueue gpus doesn't exist",
        "LocalQueue gpus is inactive",
        "LocalQueue gpus is stopped",
        "ClusterQueue q doesn't exist",
        "ClusterQueue q is inactive",
        "couldn't assign flavors to pod set main: insufficient quota for cpu in flavor f, previously considered podsets requests"
        " (0) + current podset request (2) > maximum capacity (1)",
        f"{MIXED}, {SMALL.replace('spot', 'on-demand')} > maximum capacity (1)",  # of another resource of that flavor
    ],
)
def test_a_queue_that_will_never_admit_it_is_told_apart(message: str) -> None:
    trouble = told(workload(("QuotaReserved", "False", message)))
    assert (trouble.reason, trouble.blocking) == (reasons.QUEUE_UNUSABLE, True)
    assert message in trouble.message


def checked(*checks: Json) -> Json:
    made = workload(("QuotaReserved", "True", "Quota reserved in ClusterQueue q"))
    return {**made, "status": {**made["status"], "admissionChecks": list(checks)}}


def test_each_admission_check_that_is_not_ready_is_told() -> None:
    started = {"name": "nodes", "state": "Pending", "message": "Waiting for resources. Node type x not found yet."}
    trouble = told(checked(started, {"name": "budget", "state": "Ready", "message": "paid"}, {"name": "far", "state": "Retry"}))
    assert trouble.message == (
        "waits in queue gpus: admission check nodes is Pending: Waiting for resources. Node type x not found yet;"
        " admission check far is Retry"
    )
    assert trouble.reason is reasons.QUEUED and not trouble.blocking
    assert told(checked("nodes", None)).reason is reasons.QUEUED  # type: ignore[arg-type] # anybody may write there


DEACTIVATED = ("Evicted", "True", "The workload is deactivated due to exceeding the maximum number of re-queuing retries")


def test_a_deactivated_workload_never_comes_back_of_itself() -> None:
    made = workload(DEACTIVATED)
    trouble = told({**made, "spec": {**made["spec"], "active": False}})
    assert (trouble.reason, trouble.blocking) == (reasons.QUEUE_UNUSABLE, True)
    command = 'kubectl patch workload w -n default --type=merge -p \'{"spec":{"active":true}}\''
    assert trouble.message == f"waits in queue gpus: {DEACTIVATED[2]}; deactivated until {command}"


def test_one_that_is_active_again_waits_as_others_do() -> None:
    """Its eviction stands there until quota is reserved."""
    made = workload(DEACTIVATED, WAITS)
    trouble = told({**made, "spec": {**made["spec"], "active": True}})
    assert (trouble.reason, trouble.blocking) == (reasons.QUEUED, False)


def test_servers_that_wait_in_a_queue_are_seen_as_such() -> None:
    def server(*objects: Json) -> bool:
        return snapshot(RUN, deployment(ready=1 if len(objects) > 1 else 0), *objects).observed.servers[SERVER].queued

    assert server(GATED)
    assert not server(unscheduled(SERVER, "0/1 nodes are available"))
    assert not server({**GATED, "metadata": {**GATED["metadata"], "deletionTimestamp": "now"}})
    assert not server(GATED, GATED)  # as many as are wanted are there


def test_other_troubles_are_left_alone() -> None:
    seen = snapshot(RUN, unscheduled(SERVER, "0/1 nodes are available"), deployment())
    assert seen.troubles and workloads.explained(seen, {SERVER: [workload(WAITS)]}) == seen


def test_a_suspended_job_without_a_queue_is_somebody_elses_doing() -> None:
    [trouble] = snapshot(RUN, job(TASK, start=None, suspend=True)).troubles
    assert (trouble.reason, trouble.message) == (reasons.QUEUED, "another than maft has suspended the Job")


# --- what is asked for ---


class Queues(Server):
    """Answers lists of Workloads by selector."""

    def __init__(self, *objects: Json, answers: Mapping[str, list[Json]], refuses: dict[str, Refused] | None = None) -> None:
        super().__init__(*objects, refuses=refuses)
        self.answers, self.selected = answers, list[str]()

    async def list(self, kind: Kind, namespace: str | None, **selectors: str) -> Any:
        if kind is not kinds.WORKLOAD:
            return await super().list(kind, namespace, **selectors)
        await super().list(kind, namespace)
        [(_, selector)] = selectors.items()
        self.selected.append(selector)
        return self.answers.get(selector, [])


def look(server: Server) -> Any:
    return asyncio.run(
        ClusterBackend(server, owner(RUN), planned(RUN), IMAGES, now=START, applied={}).observe()  # type: ignore[arg-type]
    )


OF_JOB, OF_GROUP = f"kueue.x-k8s.io/job-uid=uid-{TASK}", f"metadata.name={GROUP}"
UID = GATED["metadata"]["uid"]
EVICTED = ("Evicted", "True", PREEMPTED)


def queues(of_the_job: list[Json], of_the_group: list[Json]) -> Queues:
    """A Job and a server's pod that are queued, and the Workloads that are listed for each."""
    return Queues(stored(JOB), stored(deployment()), GATED, answers={OF_JOB: of_the_job, OF_GROUP: of_the_group})


STRANGERS = {
    "of nobody": [],
    "of another Job": of_job("uid-of-another"),
    "that the Job owns and does not control": [{**of_job(f"uid-{TASK}")[0], "controller": False}],
    "of other pods": of_pods("uid-of-another"),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_a_workload_that_only_has_the_label_or_the_name_is_not_believed(case: str) -> None:
    """It is newer than the real one, and says that no queue will ever have room."""
    forged = workload(("QuotaReserved", "False", "LocalQueue x doesn't exist"), created="9", queue="x", owners=STRANGERS[case])
    server = queues([workload(WAITS, owners=of_job(f"uid-{TASK}")), forged], [workload(EVICTED, owners=of_pods(UID)), forged])
    troubles = look(server).troubles
    assert [t.reason for t in troubles] == [reasons.QUEUED, reasons.QUEUED]
    assert {t.message for t in troubles} == {f"waits in queue gpus: {FULL}", f"waits in queue gpus: {PREEMPTED}"}
    alone = look(queues([forged], [forged])).troubles
    assert alone == look(queues([], [])).troubles and [t.reason for t in alone] == [reasons.QUEUED, reasons.QUEUED]


def test_only_what_is_queued_is_asked_for_and_all_servers_at_once() -> None:
    server = queues([workload(WAITS, owners=of_job(f"uid-{TASK}"))], [workload(EVICTED, owners=of_pods("gone", UID))])
    messages = {t.child: t.message for t in look(server).troubles}
    assert messages == {TASK: f"waits in queue gpus: {FULL}", SERVER: f"waits in queue gpus: {PREEMPTED}"}
    assert sorted(server.selected) == [OF_JOB, OF_GROUP]
    idle = Queues(stored(job(TASK)), answers={})
    look(idle)
    assert idle.selected == []


def test_without_the_right_to_workloads_less_is_told() -> None:
    server = Queues(stored(JOB), answers={}, refuses={"Workload": Refused(403, "workloads is forbidden")})
    assert [t.message for t in look(server).troubles] == ["waits in queue gpus"]


class OldQueues(Server):
    """Of a cluster that has no Workloads in our version."""

    async def list_served(self, kind: Kind, namespace: str | None, **selectors: str) -> Any:
        return None if kind is kinds.WORKLOAD else await super().list_served(kind, namespace, **selectors)


UNSERVED = "(why is not known: the cluster serves no Workloads as kueue.x-k8s.io/v1beta2, as Kueue does from 0.15 on)"
LATER = {**GATED, "metadata": {**GATED["metadata"], "labels": {**GATED["metadata"]["labels"], kueue.QUEUE: "gpus"}}}


def test_a_kueue_that_serves_another_version_is_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    explaining.say_unserved.cache_clear()
    server = OldQueues(stored(JOB), stored(deployment()), LATER)
    with caplog.at_level(logging.WARNING, "maft"):
        messages = {t.child: t.message for t in (*look(server).troubles, *look(server).troubles)}
    assert messages[TASK] == f"waits in queue gpus {UNSERVED}" and messages[SERVER].endswith(f"scheduling gates {UNSERVED}")
    [line] = caplog.messages
    assert line.startswith("the cluster serves no workloads.kueue.x-k8s.io as v1beta2")


def test_what_others_than_kueue_hold_back_says_nothing_of_kueue(caplog: pytest.LogCaptureFixture) -> None:
    explaining.say_unserved.cache_clear()
    held = OldQueues(stored(job(TASK, start=None, suspend=True)), stored(deployment()), GATED)
    assert not any("Workloads" in trouble.message for trouble in look(held).troubles)
    assert caplog.messages == []


# --- webhooks ---


def test_a_webhook_that_is_away_is_told() -> None:
    error = SimpleNamespace(status=500, reason="Internal Server Error", body=f'{{"message": {api.json.dumps(AWAY)}}}')
    refused = api._raised(error)
    assert isinstance(refused, Refused) and reasons.refusal_reason(str(refused)) is reasons.WEBHOOK_AWAY
    [trouble] = troubles_in([event("u", "FailedCreate", f"Error creating: {AWAY}")], {"u": TASK})
    assert trouble.reason is reasons.WEBHOOK_AWAY and trouble.blocking
    [server] = snapshot(RUN, deployment({"type": "ReplicaFailure", "status": "True", "message": AWAY})).troubles
    assert server.reason is reasons.WEBHOOK_AWAY


def test_another_500_is_a_fault_that_passes() -> None:
    error = SimpleNamespace(status=500, reason="Internal Server Error", body='{"message": "etcdserver: leader changed"}')
    assert isinstance(api._raised(error), OSError)
