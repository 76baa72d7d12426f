"""What the objects of a run say: states of tasks and servers, summaries, and why something waits or failed."""

from dataclasses import replace
from datetime import timedelta

import pytest
from kube_objects import (
    RUNNING,
    SERVER,
    START,
    a_run,
    at,
    condition,
    deployment,
    done,
    ended,
    event,
    failed,
    job,
    planned,
    pod,
    replica,
    terminating,
    unscheduled,
    waiting,
)
from kube_objects import (
    snapshot as observed,
)

from maft.summaries import (
    PEER_LOST,
    PEERS_MISSING,
    DebateSummary,
    Failure,
    ProgramSummary,
    ShardSummary,
    TrainSummary,
    Usage,
    encode_summary,
)
from maft_operator.cluster import indexes, reasons
from maft_operator.cluster.event_troubles import troubles_in
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.observed import explained, read
from maft_operator.cluster.reasons import Reason, Trouble
from maft_operator.plan.step import ServerState, TaskState, step

RUN = a_run()
TASK = "r-1-debate"
SUMMARY = DebateSummary(questions=24, agreement=0.5, margins=(24,), kept={}, usage=Usage(1, 2, 3))
SAID = encode_summary(SUMMARY).decode()
NO_KEY = "couldn't find key AWS_ACCESS_KEY_ID in Secret default/keys"
QUOTA = 'pods "r-1-debate-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'
EVICTED = {"reason": "Evicted", "message": "The node was low on resource: memory."}
OUT_OF_MEMORY = ended(137, reason="OOMKilled")
Expected = tuple[Reason, bool, str]  # a trouble: its reason, whether it blocks, words of its message


REJECTED = {"reason": "UnexpectedAdmissionError", "message": "Pod was rejected: no healthy devices"}
BACK_OFF = waiting("CrashLoopBackOff", "back-off 10s")


PREEMPTED = condition("DisruptionTarget", reason="PreemptionByScheduler", message="preempting to accommodate a higher priority pod")


def unready(reason: str, message: str, seconds: float = 900) -> Json:
    return condition("Ready", "False", reason=reason, message=message, seconds=seconds)


def finalized(thing: Json) -> Json:
    return {**thing, "metadata": {**thing["metadata"], "finalizers": ["example.org/x"]}}


def on_node(thing: Json) -> Json:
    return {**thing, "spec": {**thing["spec"], "nodeName": "gpu-7"}}


def beside_sidecar(child: str, state: Json, *, ago: float = 20) -> Json:
    """A pod whose program ended so many seconds ago, while another container runs on."""
    ours = {"terminated": {**state["terminated"], "finishedAt": at(1000 - ago)}}
    return with_sidecar(pod(child, "Running", ours), {"state": RUNNING, "ready": True})


def with_sidecar(thing: Json, status: Json) -> Json:
    thing["status"]["containerStatuses"].append({"name": "proxy", **status})
    return thing


def error(text: str) -> str:
    """The summary of a program that ends with an error."""
    return encode_summary(Failure(error=text)).decode()


def is_like(trouble: Trouble, child: str, expected: Expected) -> None:
    reason, blocking, words = expected
    assert (trouble.child, trouble.reason, trouble.blocking) == (child, reason, blocking)
    assert words in trouble.message


# --- tasks ---

UNDER_WAY: dict[str, tuple[list[Json], int, Expected | None]] = {
    # objects, failures so far, why it waits
    "created": ([job(TASK, start=None)], 0, None),
    "no condition is true": ([job(TASK, condition("Complete", "False"), condition("Failed", "False"))], 0, None),
    "its pod starts": ([job(TASK), pod(TASK, "Pending", waiting("ContainerCreating"))], 0, None),
    "its pod runs": ([job(TASK), pod(TASK, "Running", RUNNING)], 0, None),
    "no node": (
        [job(TASK), unscheduled(TASK, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")],
        0,
        (reasons.UNSCHEDULABLE, True, "3 Insufficient nvidia.com/gpu"),
    ),
    "no claim": (
        [job(TASK), unscheduled(TASK, 'persistentvolumeclaim "models" not found')],
        0,
        (reasons.VOLUME_MISSING, True, '"models" not found'),
    ),
    "a claim without a volume yet": (
        [job(TASK), unscheduled(TASK, "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.")],
        0,
        (reasons.UNSCHEDULABLE, True, "unbound"),
    ),
    "a queue holds the pod": (
        [job(TASK), unscheduled(TASK, "Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated")],
        0,
        (reasons.QUEUED, True, "scheduling gates"),
    ),
    "a queue holds the Job": (
        [job(TASK, start=None, queue="gpus", suspend=True)],
        0,
        (reasons.QUEUED, False, "waits in queue gpus"),
    ),
    "a queue has held the Job for long": (
        [job(TASK, condition("Suspended", seconds=-3700), start=None, queue="gpus", suspend=True)],
        0,
        (reasons.QUEUED, True, "waits in queue gpus"),
    ),
    "a node may still come": (
        [job(TASK), unscheduled(TASK, "0/3 nodes are available", since=500)],
        0,
        (reasons.UNSCHEDULABLE, False, "0/3 nodes"),
    ),
    "a queue holds the pod for now": (
        [job(TASK), unscheduled(TASK, "Scheduling is blocked", "SchedulingGated", since=-2000)],
        0,
        (reasons.QUEUED, False, "Scheduling is blocked"),
    ),
    "no image": (
        [job(TASK), pod(TASK, "Pending", waiting("ImagePullBackOff", 'Back-off pulling image "x"'))],
        0,
        (reasons.IMAGE_PULL, True, "image registry/maft/debate:1: Back-off"),
    ),
    "an image's name that is none": (
        [job(TASK), pod(TASK, "Pending", waiting("InvalidImageName"))],
        0,
        (reasons.IMAGE_PULL, True, "InvalidImageName"),
    ),
    "no image for an init container of the user's": (
        [job(TASK), pod(TASK, "Pending", waiting("PodInitializing"), init=waiting("ErrImagePull", "not found"))],
        0,
        (reasons.IMAGE_PULL, True, "not found"),
    ),
    "no secret": (
        [job(TASK), pod(TASK, "Pending", waiting("CreateContainerConfigError", 'secret "keys" not found'))],
        0,
        (reasons.SECRET_MISSING, True, 'secret "keys" not found'),
    ),
    "no key in the secret": (
        [job(TASK), pod(TASK, "Pending", waiting("CreateContainerConfigError", NO_KEY))],
        0,
        (reasons.SECRET_KEY_MISSING, True, "AWS_ACCESS_KEY_ID"),
    ),
    "no such command": (
        [job(TASK), pod(TASK, "Pending", waiting("RunContainerError", 'exec: "x": executable file not found in $PATH'))],
        0,
        (reasons.POD_REFUSED, True, "executable file not found"),
    ),
    "no image that is signed": (
        [job(TASK), pod(TASK, "Pending", waiting("SignatureValidationFailed", "no signature"))],
        0,
        (reasons.IMAGE_PULL, True, "no signature"),
    ),
    "a reason that nobody knows": (
        [job(TASK), pod(TASK, "Pending", waiting("FutureError", "the moon is full"))],
        0,
        (reasons.POD_STUCK, True, "container debate: FutureError: the moon is full"),
    ),
    "an init container is in back-off": (
        [job(TASK), pod(TASK, "Pending", waiting("PodInitializing"), init={**BACK_OFF, **ended(3, "no such host\n")})],
        0,
        (reasons.CRASH_LOOP, True, "container init: no such host"),
    ),
    "an init container is in back-off, and said nothing": (
        [job(TASK), pod(TASK, "Pending", waiting("PodInitializing"), init=BACK_OFF)],
        0,
        (reasons.CRASH_LOOP, True, "container init: exit code ?"),
    ),
    "an init container failed": (
        [job(TASK, failed=1), pod(TASK, "Failed", waiting("PodInitializing"), init=ended(7, "cannot mount"))],
        1,
        (reasons.RETRYING, False, "container init: cannot mount"),
    ),
    "the node refuses the pod": (
        [job(TASK, failed=1), pod(TASK, "Failed", **REJECTED)],
        1,
        (reasons.RETRYING, False, "UnexpectedAdmissionError: Pod was rejected: no healthy devices"),
    ),
    "its node is lost, and the pod terminates for ever": (
        [job(TASK), terminating(on_node(pod(TASK, "Running", RUNNING)), 980)],
        0,
        (reasons.NODE_LOST, True, f"node gpu-7: the pod r-1-debate-0 should have ended at {at(980)} and has not"),
    ),
    "its node is lost, and a queue has taken its place back": (
        [job(TASK, suspend=True, queue="gpus"), terminating(on_node(pod(TASK, "Running", RUNNING)), 980)],
        0,
        (reasons.NODE_LOST, True, f"node gpu-7: the pod r-1-debate-0 should have ended at {at(980)} and has not"),
    ),
    "its node has just told it to end": ([job(TASK), terminating(on_node(pod(TASK, "Running", RUNNING)), 995)], 0, None),
    "its node is silent": (
        [job(TASK), on_node(pod(TASK, "Running", RUNNING, conditions=[condition("Ready", "False"), condition("ContainersReady")]))],
        0,
        (reasons.NODE_LOST, True, "node gpu-7: the pod r-1-debate-0 is not heard of"),
    ),
    "its node is silent, as old releases write it": (
        [job(TASK), on_node(pod(TASK, "Running", RUNNING, reason="NodeLost"))],
        0,
        (reasons.NODE_LOST, True, "node gpu-7"),
    ),
    "a finalizer keeps a pod that never had a node": (
        [job(TASK), terminating(finalized(unscheduled(TASK, "0/3 nodes are available")), 980)],
        0,
        (reasons.POD_STUCK, True, f"the pod r-1-debate-0 should have ended at {at(980)}; its finalizers keep it: example.org/x"),
    ),
    "a sidecar is in back-off beside a program at work": (
        [job(TASK), with_sidecar(pod(TASK, "Running", RUNNING), {"state": BACK_OFF, "lastState": ended(1, "no certificate")})],
        0,
        (reasons.CRASH_LOOP, False, "container proxy: no certificate"),
    ),
    "an init container runs for long": (
        [job(TASK), pod(TASK, "Pending", waiting("PodInitializing"), init={"running": {"startedAt": at(300)}})],
        0,
        (reasons.POD_STUCK, False, f"the init container init runs since {at(300)}"),
    ),
    "an init container has been running for more than an hour": (
        [job(TASK), pod(TASK, "Pending", waiting("PodInitializing"), init={"running": {"startedAt": at(-2700)}})],
        0,
        (reasons.POD_STUCK, True, f"the init container init runs since {at(-2700)}"),
    ),
    "an init container runs": (
        [job(TASK), pod(TASK, "Pending", waiting("PodInitializing"), init={"running": {"startedAt": at(900)}})],
        0,
        None,
    ),
    "a gate of somebody else's is closed": (
        [job(TASK), pod(TASK, "Running", RUNNING, conditions=[condition("Ready", "False", reason="ReadinessGatesNotReady")])],
        0,
        None,
    ),
    "a program that is to be tried again stands beside a sidecar": (
        [job(TASK), beside_sidecar(TASK, ended(1, error("store s3://b: unreachable")))],
        0,
        (reasons.SIDECAR_RUNS_ON, True, "exit code 1 (store s3://b: unreachable), but the container proxy of the pod r-1-debate-0"),
    ),
    "a program has just ended beside a sidecar": ([job(TASK), beside_sidecar(TASK, ended(0, SAID), ago=2)], 0, None),
    "an attempt failed": (
        [job(TASK, failed=1), pod(TASK, "Failed", ended(1, error("store s3://b: unreachable")))],
        1,
        (reasons.RETRYING, False, "store s3://b: unreachable"),
    ),
    "an attempt failed, the next one runs": (
        [job(TASK, failed=1), pod(TASK, "Failed", ended(1, "one\nlast\n\n")), pod(TASK, "Running", RUNNING, number=1)],
        1,
        (reasons.RETRYING, False, "last"),
    ),
    "an attempt failed, the next one waits": (
        [job(TASK, failed=1), pod(TASK, "Pending", waiting("ErrImagePull"), number=1), pod(TASK, "Failed", ended(1, "x"))],
        1,
        (reasons.IMAGE_PULL, True, "ErrImagePull"),
    ),
    "an attempt failed without a word": (
        [job(TASK, failed=1), pod(TASK, "Failed", ended(3))],
        1,
        (reasons.RETRYING, False, "exit code 3"),
    ),
    "two attempts failed": (
        [job(TASK, failed=2), pod(TASK, "Failed", ended(1, "second"), number=1), pod(TASK, "Failed", ended(1, "first"))],
        2,
        (reasons.RETRYING, False, "second"),
    ),
    "an attempt ran out of memory": (
        [job(TASK, failed=1), pod(TASK, "Failed", OUT_OF_MEMORY, memory="2Gi")],
        1,
        (reasons.OUT_OF_MEMORY, False, "r-1-debate-0 needed more memory than its limit of 2Gi"),
    ),
    "the node ran out of memory": (
        [job(TASK, failed=1), pod(TASK, "Failed", OUT_OF_MEMORY)],
        1,
        (reasons.OUT_OF_MEMORY, False, "r-1-debate-0 needed more memory than its limit"),
    ),
    "a pod was preempted": (
        [job(TASK), pod(TASK, "Failed", ended(143, "debate 12/100 questions"), conditions=[PREEMPTED])],
        0,
        (reasons.DISRUPTED, False, "the pod r-1-debate-0: PreemptionByScheduler: preempting to accommodate a higher priority pod"),
    ),
    "its node shuts down": (
        [job(TASK), pod(TASK, "Failed", ended(143, "step 3"), reason="Terminated", message="imminent node shutdown.")],
        0,
        (reasons.DISRUPTED, False, "the pod r-1-debate-0: Terminated: imminent node shutdown."),
    ),
    "wrong input of a pod that was to go anyway": (
        [job(TASK), pod(TASK, "Failed", ended(2, error("task.source: q.jsonl holds no questions")), conditions=[PREEMPTED])],
        0,
        (reasons.INPUT_INVALID, True, "holds no questions"),
    ),
    "a pod was evicted": (
        [job(TASK), pod(TASK, "Failed", ended(137), **EVICTED)],
        0,
        (reasons.EVICTED, False, "low on resource: memory"),
    ),
}


@pytest.mark.parametrize("name", UNDER_WAY)
def test_a_task_that_is_under_way(name: str) -> None:
    objects, failures, expected = UNDER_WAY[name]
    snapshot = observed(RUN, *objects)
    [state] = snapshot.observed.tasks.values()  # whether it waits for room: test_room.py
    assert replace(state, waits=False) == TaskState("running", failures)
    assert snapshot.ended == {}
    assert len(snapshot.troubles) == (expected is not None)
    if expected:
        is_like(snapshot.troubles[0], TASK, expected)


POD_POLICY = "PodFailurePolicy"
GONE: dict[str, tuple[list[Json], tuple[int, int], Expected]] = {
    # objects, failures and exit code, why it failed
    "wrong input": (
        [failed(TASK, POD_POLICY, failed=1), pod(TASK, "Failed", ended(2, error("task.source: q.jsonl holds no questions")))],
        (4, 2),
        (reasons.INPUT_INVALID, True, "task.source: q.jsonl holds no questions"),
    ),
    "no store": (
        [failed(TASK, POD_POLICY, failed=1), pod(TASK, "Failed", ended(2, error("store s3://b: no such bucket")))],
        (4, 2),
        (reasons.STORE_UNUSABLE, True, "no such bucket"),
    ),
    "no model": (
        [failed(TASK, POD_POLICY, failed=1), pod(TASK, "Failed", ended(2, error("model.source: org/m is no model folder")))],
        (4, 2),
        (reasons.MODEL_UNUSABLE, True, "org/m is no model folder"),
    ),
    "a gated model": (
        [failed(TASK, POD_POLICY, failed=1), pod(TASK, "Failed", ended(2, error("model.source: Access to model org/m is gated")))],
        (4, 2),
        (reasons.MODEL_GATED, True, "org/m"),
    ),
    "a damaged adapter": (
        [
            failed(TASK, POD_POLICY, failed=1),
            pod(TASK, "Failed", ended(2, error("s3://b/adapter_model: sha256 differs: adapter x is damaged"))),
        ],
        (4, 2),
        (reasons.ADAPTER_UNUSABLE, True, "is damaged"),
    ),
    "wrong input, said in the log only": (
        [failed(TASK, POD_POLICY, failed=1), pod(TASK, "Failed", ended(2, "usage: …\nerror: model.source: not found\n"))],
        (4, 2),
        (reasons.MODEL_UNUSABLE, True, "model.source: not found"),
    ),
    "wrong input after other failures": (
        [
            failed(TASK, POD_POLICY, failed=2),
            pod(TASK, "Failed", ended(2, "now"), number=1),
            pod(TASK, "Failed", ended(1, "before")),
        ],
        (4, 2),
        (reasons.INPUT_INVALID, True, "now"),
    ),
    "too many attempts": (
        [failed(TASK, failed=4), *(pod(TASK, "Failed", ended(1, f"try {n}"), number=n) for n in range(4))],
        (4, 1),
        (reasons.ATTEMPTS_EXHAUSTED, False, "try 3"),
    ),
    "too many attempts, and a preemption": (
        [
            failed(TASK, failed=4),
            pod(TASK, "Failed", ended(1, "lost")),
            pod(TASK, "Failed", ended(143, "x"), conditions=[PREEMPTED], number=1),
        ],
        (4, 143),
        (reasons.ATTEMPTS_EXHAUSTED, False, "lost"),
    ),
    "the store stayed away": (
        [failed(TASK, failed=4), pod(TASK, "Failed", ended(1, "store s3://b: unreachable"))],
        (4, 2),
        (reasons.STORE_UNUSABLE, False, "store s3://b: unreachable"),
    ),
    "one attempt was too many": (
        [failed(TASK, failed=1, limit=0), pod(TASK, "Failed", ended(1, "lost"))],
        (1, 1),
        (reasons.ATTEMPTS_EXHAUSTED, False, "lost"),
    ),
    "too little memory each time": (
        [failed(TASK, failed=4), pod(TASK, "Failed", OUT_OF_MEMORY, memory="1Gi")],
        (4, 137),
        (reasons.OUT_OF_MEMORY, False, "1Gi"),
    ),
    "its pods are gone": (
        [failed(TASK, failed=4, message="Job has reached the specified backoff limit")],
        (4, 0),
        (reasons.ATTEMPTS_EXHAUSTED, True, "reached the specified backoff limit"),
    ),
    "its time is over": (
        [failed(TASK, "DeadlineExceeded", activeDeadlineSeconds=60), pod(TASK, "Failed", ended(1, "x"))],
        (4, 1),
        (reasons.DEADLINE_EXCEEDED, True, "not done within spec.activeDeadlineSeconds (60 s)"),
    ),
}


@pytest.mark.parametrize("name", GONE)
def test_a_task_that_failed(name: str) -> None:
    objects, (failures, code), expected = GONE[name]
    snapshot = observed(RUN, *objects)
    assert snapshot.observed.tasks == {TASK: TaskState("failed", failures, code, snapshot.ended[TASK].message)}
    is_like(snapshot.ended[TASK], TASK, expected)
    assert snapshot.troubles == ()
    limit = objects[0]["spec"]["backoffLimit"]
    decided = step(planned(a_run(backoffLimit=limit)), snapshot.observed)
    assert (decided.phase, decided.failed_child) == ("Failed", TASK)


def test_a_program_has_done_its_work_though_a_sidecar_runs_on() -> None:
    snapshot = observed(RUN, job(TASK), beside_sidecar(TASK, ended(0, SAID)))
    assert snapshot.observed.tasks == {TASK: TaskState("succeeded", lingers=True)}
    assert snapshot.summaries == {TASK: SUMMARY}
    [trouble] = snapshot.troubles
    is_like(trouble, TASK, (reasons.SIDECAR_RUNS_ON, False, "the container proxy of the pod r-1-debate-0 runs on"))
    assert snapshot.passing


def test_what_lingers_goes_with_the_end_of_the_run() -> None:
    names = [task.name for task in planned(RUN).tasks]
    *before, last = names
    snapshot = observed(RUN, *map(done, before), job(last), beside_sidecar(last, ended(0, SAID)))
    decided = step(planned(RUN), snapshot.observed)
    assert (decided.phase, decided.delete) == ("Complete", (last,))


def test_wrong_input_fails_the_run_though_a_sidecar_runs_on() -> None:
    snapshot = observed(RUN, job(TASK), beside_sidecar(TASK, ended(2, error("task.source: q.jsonl holds no questions"))))
    is_like(snapshot.ended[TASK], TASK, (reasons.INPUT_INVALID, True, "task.source: q.jsonl holds no questions"))
    decided = step(planned(RUN), snapshot.observed)
    assert (decided.phase, decided.failed_child, decided.delete) == ("Failed", TASK, (TASK,))


def test_a_program_has_done_its_work_though_a_sidecar_failed() -> None:
    broken = beside_sidecar(TASK, ended(0, SAID))
    broken["status"] |= {"phase": "Failed"}
    broken["status"]["containerStatuses"][1]["state"] = ended(1)
    for made in (job(TASK, failed=1), failed(TASK)):
        assert observed(RUN, made, broken).observed.tasks[TASK].status == "succeeded"


def beside_sidecars(*indexes_: int, ago: float = 20) -> list[Json]:
    """Pods of an indexed Job whose programs ended well, while other containers run on."""
    made = [beside_sidecar(TASK, ended(0, SAID), ago=ago) for _ in indexes_]
    for number, (index, one) in enumerate(zip(indexes_, made, strict=True)):
        one["metadata"]["name"] = f"{TASK}-{number}"
        one["metadata"]["labels"] |= {indexes.INDEX: str(index)}
    return made


BOTH = job(TASK, completions=2)


def test_many_programs_have_done_their_work_though_sidecars_run_on() -> None:
    snapshot = observed(RUN, BOTH, *beside_sidecars(0, 1))
    assert snapshot.observed.tasks == {TASK: TaskState("succeeded", lingers=True)}
    first, second = beside_sidecars(0, 1)
    first["status"] |= {"phase": "Succeeded"}
    assert observed(RUN, BOTH, first, second).observed.tasks == {TASK: TaskState("succeeded", lingers=True)}
    second["status"] |= {"phase": "Failed"}
    assert observed(RUN, BOTH, first, second).observed.tasks == {TASK: TaskState("succeeded", lingers=True)}


def test_many_programs_work_as_long_as_one_of_them_does() -> None:
    running = TaskState("running")
    assert observed(RUN, BOTH, *beside_sidecars(0)).observed.tasks == {TASK: running}
    assert observed(RUN, BOTH, *beside_sidecars(1, 1)).observed.tasks == {TASK: running}  # two attempts of one of them
    [first], [second] = beside_sidecars(0), beside_sidecars(1, ago=2)  # of which one may end with its program yet
    assert observed(RUN, BOTH, first, second).observed.tasks == {TASK: running}


@pytest.mark.parametrize(("finished", "done"), [(990, True), (997, False), (1003, False), (4600, True)])
def test_a_clock_that_is_ahead_keeps_no_program_at_work(finished: float, done: bool) -> None:
    """Of its node: 1000 is now."""
    end = {"terminated": {**ended(0, SAID)["terminated"], "finishedAt": at(finished)}}
    program = pod(TASK, "Running", end)
    program["status"]["containerStatuses"].append({"name": "proxy", "state": RUNNING, "restartCount": 0, "ready": True})
    assert observed(RUN, job(TASK), program).observed.tasks[TASK].status == ("succeeded" if done else "running")


def test_many_programs_that_all_ended_by_themselves_are_done_when_the_job_says_so() -> None:
    both = beside_sidecars(0, 1)
    for one in both:
        one["status"] |= {"phase": "Succeeded"}
    assert observed(RUN, BOTH, *both).observed.tasks == {TASK: TaskState("running", waits=True)}


STRANGERS: dict[str, dict[str, Json]] = {
    "nobody's": {"ownerReferences": []},
    "of a Job of that name before": {"ownerReferences": [{"kind": "Job", "name": TASK, "uid": "before", "controller": True}]},
    "that the Job only owns": {"ownerReferences": [{"kind": "Job", "name": TASK, "uid": f"uid-{TASK}"}]},
    "of something else with that uid": {
        "ownerReferences": [{"kind": "Cat", "name": TASK, "uid": f"uid-{TASK}", "controller": True}]
    },
    "of a ReplicaSet": {"ownerReferences": [{"kind": "ReplicaSet", "name": TASK, "uid": f"uid-{TASK}", "controller": True}]},
}


@pytest.mark.parametrize("whose", STRANGERS)
def test_a_pod_with_our_labels_that_the_job_did_not_make_counts_for_nothing(whose: str) -> None:
    for phase, state in (("Running", RUNNING), ("Failed", ended(2, "x")), ("Succeeded", ended(0, SAID)), ("Pending", BACK_OFF)):
        stranger = pod(TASK, phase, state, podIP="10.0.0.1")
        stranger["metadata"] |= STRANGERS[whose]
        assert observed(RUN, job(TASK), stranger) == observed(RUN, job(TASK))


@pytest.mark.parametrize(
    "owner",
    [
        {},
        {"kind": "Job", "name": SERVER, "uid": f"uid-{SERVER}", "controller": True},
        {"kind": "ReplicaSet", "name": "other-5f6d8c", "uid": "x", "controller": True},
        {"kind": "ReplicaSet", "name": f"{SERVER}-other", "uid": "x", "controller": True},
    ],
)
def test_a_pod_with_a_servers_labels_that_its_deployment_did_not_make_counts_for_nothing(owner: Json) -> None:
    stranger = replica(BACK_OFF, restarts=9, last=ended(2, "x"))
    stranger["metadata"]["ownerReferences"] = [owner]
    assert observed(RUN, deployment(ready=1), stranger) == observed(RUN, deployment(ready=1))
    assert observed(RUN, stranger) == observed(RUN)


IMPLAUSIBLE = [
    '{"program":"debate","questions":24,"agreement":1e308,"margins":[],"kept":{},"usage":{"calls":1,"promptTokens":2,"completionTokens":3}}',
    '{"program":"debate","questions":-1,"agreement":0.5,"margins":[],"kept":{},"usage":{"calls":1,"promptTokens":2,"completionTokens":3}}',
    '{"program":"prepare","train":99999999999999999999,"heldOut":1}',
    '{"program":"debate","questions":1,"agreement":0,"margins":[],"kept":{"x":[-1]},"usage":{"calls":1,"promptTokens":2,"completionTokens":3}}',
]


@pytest.mark.parametrize("message", IMPLAUSIBLE)
def test_a_summary_that_no_status_could_have_is_none(message: str) -> None:
    assert observed(RUN, done(TASK), pod(TASK, "Succeeded", ended(0, message))).summaries == {}


def test_a_task_that_succeeded() -> None:
    done_early = job(TASK, condition("SuccessCriteriaMet"))  # its pods have not all ended yet
    for objects in ([done(TASK)], [done_early], [done(TASK), pod(TASK, "Succeeded", ended(0, SAID))]):
        snapshot = observed(RUN, *objects)
        assert snapshot.observed.tasks == {TASK: TaskState("succeeded")}
        assert (snapshot.troubles, snapshot.ended) == ((), {})


def test_failures_before_a_success_are_no_trouble() -> None:
    snapshot = observed(RUN, done(TASK), pod(TASK, "Failed", ended(1, "x")), pod(TASK, "Succeeded", ended(0, SAID), number=1))
    assert snapshot.troubles == ()
    assert snapshot.summaries == {TASK: SUMMARY}


@pytest.mark.parametrize("message", ["", "text", "[1]", '{"cut off'])
def test_a_summary_that_is_none(message: str) -> None:
    assert observed(RUN, done(TASK), pod(TASK, "Succeeded", ended(0, message))).summaries == {}


def test_the_summary_is_our_containers_also_where_another_stands_before_it() -> None:
    ours = pod(TASK, "Running", ended(0, SAID))
    before = {**ours["status"]["containerStatuses"][0], "name": "proxy", "state": ended(0, '{"not": "ours"}')}
    ours["status"]["containerStatuses"].insert(0, before)
    ours["spec"]["containers"].insert(0, {"name": "proxy"})
    assert observed(RUN, done(TASK), ours).summaries == {TASK: SUMMARY}


def test_a_job_that_is_being_deleted_is_gone() -> None:
    snapshot = observed(RUN, terminating(job(TASK)), terminating(pod(TASK, "Running", RUNNING)), terminating(done("r-0-prepare")))
    assert snapshot.observed.tasks == {}
    assert (snapshot.troubles, dict(snapshot.unexplained)) == ((), {})


def test_how_long_tasks_took() -> None:
    snapshot = observed(
        RUN,
        done("r-0-prepare", start=10, ended=70),
        failed("r-0-evaluate", start=20),  # since second 50
        job(TASK, start=100),
        job("r-1-train", start=None),
        now=130,
    )
    assert snapshot.seconds == {"r-0-prepare": 60, "r-0-evaluate": 30, TASK: 30}


NO_POD = ("127.0.0.1", "::1", "169.254.169.254", "fe80::1%eth0", "224.0.0.1", "0.0.0.0", "evil.example", "10.0.0.1:80/x?", "1")
NO_POD_MAPPED = ("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1", "::FFFF:224.0.0.1", "::ffff:0.0.0.0")


@pytest.mark.parametrize(
    ("objects", "address"),
    [
        ([job(TASK), pod(TASK, "Running", RUNNING, podIP="10.0.0.1")], "http://10.0.0.1:9100/metrics"),
        ([job(TASK), pod(TASK, "Running", RUNNING, podIP="fd00::1")], "http://[fd00::1]:9100/metrics"),
        ([job(TASK), pod(TASK, "Running", RUNNING, podIP="::ffff:10.0.0.1")], "http://10.0.0.1:9100/metrics"),
        (
            [job(TASK), pod(TASK, "Failed", ended(1), podIP="10.0.0.1"), pod(TASK, "Running", RUNNING, podIP="10.0.0.2", number=1)],
            "http://10.0.0.2:9100/metrics",
        ),
        ([job(TASK), pod(TASK, "Running", RUNNING)], None),
        ([job(TASK), pod(TASK, "Pending", waiting("ContainerCreating"), podIP="10.0.0.1")], None),
        ([done(TASK), pod(TASK, "Succeeded", ended(0), podIP="10.0.0.1")], None),
        ([job(TASK), terminating(pod(TASK, "Running", RUNNING, podIP="10.0.0.1"))], None),
        *(([job(TASK), pod(TASK, "Running", RUNNING, podIP=ip)], None) for ip in (*NO_POD, *NO_POD_MAPPED)),
    ],
)
def test_where_a_running_task_says_how_far_it_is(objects: list[Json], address: str | None) -> None:
    assert observed(RUN, *objects).metrics == ({TASK: address} if address else {})


# --- what only Events explain ---


@pytest.mark.parametrize(
    ("objects", "unexplained"),
    [
        ([job(TASK)], {"uid-r-1-debate": TASK}),
        ([job(TASK), pod(TASK, "Failed", ended(1))], {"uid-r-1-debate": TASK}),
        ([job(TASK), pod(TASK, "Running", RUNNING)], {}),
        ([job(TASK), pod(TASK, "Pending", None)], {"uid-r-1-debate-0": TASK}),
        ([job(TASK, start=None, suspend=True)], {}),
        ([done(TASK)], {}),
        ([failed(TASK)], {}),
        ([job(TASK), pod(TASK, "Pending", waiting("ContainerCreating"), number=990)], {"uid-r-1-debate-990": TASK}),
        ([job(TASK), pod(TASK, "Pending", waiting("ContainerCreating"), number=996)], {}),  # it has just begun
        ([job(TASK), pod(TASK, "Pending", waiting("PodInitializing"), init=RUNNING)], {"uid-r-1-debate-0": TASK}),
        ([job(TASK), pod(TASK, "Pending", waiting("ErrImagePull"))], {}),  # says it itself
        ([deployment(), pod(SERVER, "Pending", waiting("ContainerCreating"), container="inference")], {"uid-r-server-0": SERVER}),
        ([deployment()], {"uid-r-server": SERVER}),
        ([deployment(condition("ReplicaFailure", message=QUOTA))], {}),
    ],
)
def test_who_is_unexplained(objects: list[Json], unexplained: dict[str, str]) -> None:
    assert observed(RUN, *objects, now=1000).unexplained == unexplained


MOUNT = 'MountVolume.SetUp failed for volume "v" : configmap "c" not found'
EVENTS: dict[str, tuple[list[Json], list[Expected]]] = {
    "nothing": ([], []),
    "a quota": ([event("job", "FailedCreate", QUOTA)], [(reasons.QUOTA_EXCEEDED, True, "exceeded quota: small")]),
    "a volume": ([event("job", "FailedMount", MOUNT)], [(reasons.VOLUME_MISSING, True, '"c" not found')]),
    "the last one counts": (
        [event("job", "FailedMount", MOUNT, seconds=9), event("job", "FailedCreate", QUOTA, seconds=5)],
        [(reasons.VOLUME_MISSING, True, '"c" not found')],
    ),
    "any Warning": (
        [event("job", "FailedCreatePodSandBox", "cni: no address left")],
        [(reasons.POD_STUCK, True, "FailedCreatePodSandBox: cni: no address left")],
    ),
    "a Warning of a future release": ([event("job", "Eclipse", "")], [(reasons.POD_STUCK, True, "Eclipse")]),
    "a pod that went on": ([event("job", "FailedMount", MOUNT), event("job", "Pulling", "", seconds=1, kind="Normal")], []),
    "a pod that did not": (
        [event("job", "FailedCreatePodSandBox", "x"), event("job", "SandboxChanged", "", seconds=1, kind="Normal")],
        [(reasons.POD_STUCK, True, "FailedCreatePodSandBox: x")],
    ),
    "no node, in the newer API": (
        [{**event("job", "FailedScheduling", "0/3 nodes"), "lastTimestamp": None, "eventTime": "2026-01-01T00:00:01.123456Z"}],
        [(reasons.UNSCHEDULABLE, True, "0/3 nodes")],
    ),
    "of somebody else": ([event("other", "FailedCreate", QUOTA)], []),
    "no Warning": ([event("job", "FailedCreate", QUOTA, kind="Normal")], []),
}


@pytest.mark.parametrize("name", EVENTS)
def test_what_events_say(name: str) -> None:
    events, expected = EVENTS[name]
    troubles = troubles_in(events, {"job": TASK})
    assert len(troubles) == len(expected)
    for trouble, one in zip(troubles, expected, strict=True):
        is_like(trouble, TASK, one)


def test_what_events_say_is_among_the_troubles_of_a_snapshot() -> None:
    before = observed(RUN, job(TASK), deployment(), unscheduled(SERVER, "0/3 nodes are available"))
    after = explained(before, [event(f"uid-{TASK}", "FailedCreate", QUOTA)])
    assert [(t.child, t.reason) for t in after.troubles] == [(TASK, reasons.QUOTA_EXCEEDED), (SERVER, reasons.UNSCHEDULABLE)]
    assert explained(before, []) == before


# --- servers ---


def lived(code: int, *, hours: int) -> Json:
    """A container that ended after so many hours."""
    state = ended(code)
    state["terminated"] |= {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": f"2026-01-01T{hours:02d}:00:00Z"}
    return state


DOWN = {"restarts": 1, "last": ended(1, "RuntimeError: no GPU")}
WRONG_FLAG = "serve: error: unrecognized arguments: --x"
SERVERS: dict[str, tuple[list[Json], ServerState | None, Expected | None]] = {
    # objects, the server's state, why it waits
    "none": ([], None, None),
    "ready": ([deployment(ready=1), replica(RUNNING, ready=True)], ServerState(ready=True), None),
    "created": ([{**deployment(), "status": {}}], ServerState(ready=False), None),
    "starts": ([deployment(), replica(RUNNING)], ServerState(ready=False), None),
    "one of two is ready": ([deployment(ready=1, wanted=2), replica(RUNNING, ready=True)], ServerState(ready=False), None),
    "ready as it was before a change": ([deployment(ready=1, generation=2)], ServerState(ready=False), None),
    "no node": (
        [deployment(), unscheduled(SERVER, "0/3 nodes are available")],
        ServerState(ready=False),
        (reasons.UNSCHEDULABLE, True, "0/3 nodes"),
    ),
    "no image": (
        [deployment(), pod(SERVER, "Pending", waiting("ErrImagePull", "no such host"), container="inference")],
        ServerState(ready=False),
        (reasons.IMAGE_PULL, True, "image registry/maft/inference:1: no such host"),
    ),
    "a quota": (
        [deployment(condition("ReplicaFailure", reason="FailedCreate", message=QUOTA))],
        ServerState(ready=False),
        (reasons.QUOTA_EXCEEDED, True, "exceeded quota: small"),
    ),
    "crashed": (
        [deployment(), replica(BACK_OFF, **DOWN)],
        ServerState(False, True, 1, 1, "RuntimeError: no GPU"),
        (reasons.CRASH_LOOP, False, "RuntimeError: no GPU"),
    ),
    "crashed, and starts again": (
        [deployment(), replica(RUNNING, **DOWN)],
        ServerState(False, True, 1, 1, "RuntimeError: no GPU"),
        (reasons.CRASH_LOOP, False, "RuntimeError: no GPU"),
    ),
    "crashed, and came back": ([deployment(ready=1), replica(RUNNING, ready=True, **DOWN)], ServerState(ready=True), None),
    "crashed for the fifth time, after a long life": (
        [deployment(), replica(BACK_OFF, restarts=5, last=lived(3, hours=5))],
        ServerState(False, True, 1, 3, "its container ended"),
        (reasons.CRASH_LOOP, False, "exit code 3"),
    ),
    "crashed without a word": (
        [deployment(), replica(BACK_OFF, restarts=1, last=ended(139))],
        ServerState(False, True, 1, 139, "its container ended"),
        (reasons.CRASH_LOOP, False, "exit code 139"),
    ),
    "wrong flags": (
        [deployment(), replica(BACK_OFF, restarts=1, last=ended(2, f"usage: …\n{WRONG_FLAG}\n"))],
        ServerState(False, True, 1, 2, WRONG_FLAG),
        (reasons.INPUT_INVALID, True, WRONG_FLAG),
    ),
    "out of memory": (
        [deployment(), replica(BACK_OFF, restarts=2, last=OUT_OF_MEMORY, memory="8Gi")],
        ServerState(False, True, 2, 137, "its container ended"),
        (reasons.OUT_OF_MEMORY, False, "limit of 8Gi"),
    ),
    "evicted": (
        [deployment(), pod(SERVER, "Failed", ended(137), container="inference", **EVICTED)],
        ServerState(ready=False),
        (reasons.EVICTED, False, "low on resource"),
    ),
    "the node refuses its pods": (
        [deployment(), *(pod(SERVER, "Failed", container="inference", number=n, **REJECTED) for n in range(3))],
        ServerState(ready=False),
        (reasons.POD_REJECTED, False, "3 pods failed, the last: UnexpectedAdmissionError: Pod was rejected: no healthy devices"),
    ),
    "the node refused a pod, its successor starts": (
        [deployment(), pod(SERVER, "Failed", container="inference", **REJECTED), replica(RUNNING, number=1)],
        ServerState(ready=False),
        (reasons.POD_REJECTED, False, "no healthy devices"),
    ),
    "it works, and another container is not ready": (
        [deployment(), replica(RUNNING, ready=True, conditions=[unready("ContainersNotReady", "unready status: [proxy]")])],
        ServerState(ready=False),
        (reasons.POD_STUCK, True, "r-server-0 works and is not ready: ContainersNotReady: unready status: [proxy]"),
    ),
    "it works, and a gate of somebody else's is closed": (
        [deployment(), replica(RUNNING, ready=True, conditions=[unready("ReadinessGatesNotReady", "the gate x is False")])],
        ServerState(ready=False),
        (reasons.POD_STUCK, True, "ReadinessGatesNotReady: the gate x"),
    ),
    "it has just become ready": (
        [deployment(), replica(RUNNING, ready=True, conditions=[unready("ContainersNotReady", "x", seconds=998)])],
        ServerState(ready=False),
        None,
    ),
    "its Deployment is paused": (
        [{**deployment(), "spec": {"replicas": 1, "paused": True}}],
        ServerState(ready=False),
        (reasons.POD_STUCK, True, "Deployment r-server is paused: kubectl rollout resume"),
    ),
    "a sidecar of the user's is in back-off": (
        [deployment(), with_sidecar(replica(RUNNING), {"state": BACK_OFF, "lastState": ended(1, "no certificate")})],
        ServerState(ready=False),
        (reasons.CRASH_LOOP, True, "container proxy: no certificate"),
    ),
    "its Deployment is gone, its node is lost": (
        [terminating(on_node(replica(RUNNING)), 900)],
        ServerState(ready=False, failed=True),
        (reasons.NODE_LOST, True, "node gpu-7: the pod r-server-0 should have ended at"),
    ),
    "its node is lost, another replica stands in": (
        [deployment(ready=1), terminating(on_node(replica(RUNNING)), 900), replica(RUNNING, ready=True, number=1)],
        ServerState(ready=True),
        None,
    ),
    "evicted after a crash, its successor is ready": (
        [
            deployment(ready=1),
            pod(SERVER, "Failed", ended(137), container="inference", restarts=1, **EVICTED),
            replica(RUNNING, ready=True, number=1),
        ],
        ServerState(ready=True),
        None,
    ),
    "a crashed pod is replaced": (
        [deployment(), terminating(replica(BACK_OFF, **DOWN)), replica(RUNNING, number=1)],
        ServerState(ready=False),
        None,
    ),
    "gone, but its pod still holds the GPU": (
        [terminating(replica(RUNNING, ready=True))],
        ServerState(ready=False, failed=True),
        None,
    ),
    "going, as is its pod": (
        [terminating(deployment(ready=1)), terminating(replica(RUNNING))],
        ServerState(ready=False, failed=True),
        None,
    ),
    "going, its pods are gone": ([terminating(deployment())], None, None),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server(name: str) -> None:
    objects, state, expected = SERVERS[name]
    snapshot = observed(RUN, *objects)
    assert snapshot.observed.servers == ({SERVER: state} if state else {})
    assert len(snapshot.troubles) == (expected is not None)
    if expected:
        is_like(snapshot.troubles[0], SERVER, expected)
    assert set(snapshot.ended) == ({SERVER} if state and state.failures else set())
    if snapshot.ended:  # what is said where the run fails for it
        assert snapshot.ended[SERVER] == snapshot.troubles[0]


AWAY = condition("Available", "False", seconds=100)
LIMITED = a_run(activeDeadlineSeconds=600)


@pytest.mark.parametrize(
    ("objects", "now", "words"),
    [
        ([deployment()], 661, "not ready within spec.activeDeadlineSeconds (600 s)"),
        ([deployment(AWAY)], 701, "not ready within spec.activeDeadlineSeconds (600 s)"),
        ([deployment(), unscheduled(SERVER, "0/3 nodes")], 661, "(600 s): 0/3 nodes"),
        ([deployment(AWAY)], 700, ""),  # it was ready once
        ([deployment(condition("Available"), generation=2)], 9999, ""),  # and is, but for a change
        ([deployment(ready=1)], 9999, ""),
        ([deployment(), unscheduled(SERVER, "gated", "SchedulingGated")], 9999, ""),  # a queue decides
        ([deployment(AWAY), replica(waiting("ContainerCreating"), startTime=at(9400))], 9999, ""),  # a queue held it until then
        ([deployment(AWAY), replica(waiting("ContainerCreating"), startTime=at(9300))], 9999, "(600 s)"),
        ([replica(RUNNING)], 9999, ""),
        ([deployment(AWAY), job(TASK, start=50)], 9999, ""),  # the Job's own time runs
        ([deployment(AWAY), done(TASK, start=50, ended=9500)], 9999, ""),  # nothing waited for it before
        ([deployment(AWAY), done(TASK, start=50, ended=9300)], 9999, "(600 s)"),
    ],
)
def test_a_stage_waits_for_its_servers_no_longer_than_it_may_take(objects: list[Json], now: float, words: str) -> None:
    checked = done("r-0-prepare"), done("r-0-preflight")
    snapshot = observed(LIMITED, *checked, *objects, now=now)
    decided = step(planned(LIMITED), snapshot.observed)
    assert (decided.phase == "Failed", decided.failed_child) == (bool(words), SERVER if words else "")
    if words:
        is_like(snapshot.ended[SERVER], SERVER, (reasons.DEADLINE_EXCEEDED, True, words))
    unlimited = observed(RUN, *checked, *objects, now=now)
    assert step(planned(RUN), unlimited.observed).phase != "Failed"


@pytest.mark.parametrize(("missing", "fails"), [(8000, True), (9900, False), (None, False)])
def test_servers_that_were_made_anew_for_want_of_nodes_have_waited_all_the_time(missing: float | None, fails: bool) -> None:
    objects = {"Deployment": [{**deployment(), "metadata": {**deployment()["metadata"], "creationTimestamp": at(9990)}}]}
    since = START + timedelta(seconds=missing) if missing else None
    snapshot = read(planned(LIMITED), objects, START + timedelta(seconds=9999), since)
    assert (SERVER in snapshot.ended) == fails


def test_a_pod_that_waits_for_a_node_has_said_why() -> None:
    """No Event is asked for: it would say the same, and that it blocks."""
    snapshot = observed(RUN, job(TASK), unscheduled(TASK, "0/3 nodes are available", since=500))
    assert [(t.reason, t.blocking) for t in snapshot.troubles] == [(reasons.UNSCHEDULABLE, False)] and not snapshot.unexplained


def test_of_several_replicas_the_worst_counts() -> None:
    broken = [replica(BACK_OFF, number=n, restarts=n, last=ended(1, f"lost {n}")) for n in (1, 3, 2)]
    snapshot = observed(a_run(inference={"replicas": 4}), deployment(wanted=4, ready=1), replica(RUNNING, ready=True), *broken)
    assert snapshot.observed.servers == {SERVER: ServerState(False, True, 3, 1, "lost 3")}
    assert snapshot.ended[SERVER].message == "lost 3"


@pytest.mark.parametrize(("restarts", "code", "phase"), [(1, 1, "Serving"), (3, 1, "Serving"), (4, 1, "Failed"), (1, 2, "Failed")])
def test_when_a_crash_loop_fails_the_run(restarts: int, code: int, phase: str) -> None:
    checked = done("r-0-prepare"), done("r-0-preflight")
    snapshot = observed(RUN, *checked, deployment(), replica(BACK_OFF, restarts=restarts, last=ended(code, "lost")))
    decided = step(planned(RUN), snapshot.observed)
    assert decided.phase == phase
    assert decided.failed_child == (SERVER if phase == "Failed" else "")
    assert decided.delete == ((SERVER,) if phase == "Failed" else ())


NODE_SHORT = {"conditions": [condition("DisruptionTarget", reason="TerminationByKubelet")]}
OVER_LIMIT = {"reason": "Evicted", "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "1Mi".'}


def evicted(number: int, **more: object) -> Json:
    end = ended(137)
    end["terminated"]["finishedAt"] = at(100)
    return pod(SERVER, "Failed", end, container="inference", number=number, **{**OVER_LIMIT, **more})


@pytest.mark.parametrize(
    ("objects", "fails"),
    [
        ([deployment(), *map(evicted, range(3))], False),  # spec.backoffLimit is 3
        ([deployment(), *map(evicted, range(4))], True),
        ([deployment(condition("Available", "False", seconds=100)), *map(evicted, range(4))], True),
        ([deployment(condition("Available", "False", seconds=101)), *map(evicted, range(4))], False),  # it was there since
        ([deployment(ready=1), *map(evicted, range(4))], False),
        ([deployment(), *(evicted(n, **NODE_SHORT) for n in range(4))], False),  # for the node's sake
        ([deployment(), *(evicted(n, **REJECTED) for n in range(4))], False),
        ([*map(evicted, range(4))], False),  # its Deployment is gone
    ],
)
def test_a_server_whose_pods_take_more_than_their_limits_is_not_tried_for_ever(objects: list[Json], fails: bool) -> None:
    snapshot = observed(RUN, done("r-0-prepare"), done("r-0-preflight"), *objects)
    decided = step(planned(RUN), snapshot.observed)
    assert (decided.phase == "Failed", decided.failed_child) == (fails, SERVER if fails else "")
    if fails:
        is_like(snapshot.ended[SERVER], SERVER, (reasons.EVICTED, False, "4 pods failed, the last: Usage of EmptyDir"))


def test_training_waits_for_pods_whose_deployment_has_gone() -> None:
    run = a_run(inference={"lifetime": "Phase"})
    before = [done("r-0-prepare"), done("r-0-preflight"), done("r-0-evaluate"), done(TASK)]
    held = step(planned(run), observed(run, *before, terminating(replica(RUNNING))).observed)
    assert [item.name for item in held.create] == []
    free = step(planned(run), observed(run, *before).observed)
    assert [item.name for item in free.create] == ["r-1-train"]


def test_nothing_is_seen_where_nothing_is() -> None:
    snapshot = observed(RUN)
    assert (snapshot.observed.tasks, snapshot.observed.servers, snapshot.troubles) == ({}, {}, ())


# --- nodes: several pods that train together ---

TRAIN = "r-1-train"
TOGETHER = a_run(training={"parallelism": "Sharded", "nodes": 3, "gpus": 0})


def of_index(index: int, phase: str, state: Json, number: int, **more: object) -> Json:
    """The number-th pod of the training, of that index."""
    made = pod(TRAIN, phase, state, container="trainer", number=number, **more)
    made["metadata"]["labels"] |= {indexes.INDEX: str(index), "app.kubernetes.io/component": "train"}
    return made


def trained(count: int) -> Json:
    return ended(0, encode_summary(TrainSummary(adapters=(), trained=count)).decode())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_first_node_speaks_for_all(order: tuple[int, ...]) -> None:
    addresses = [of_index(index, "Running", RUNNING, number, podIP=f"10.0.0.{index}") for number, index in enumerate(order)]
    assert observed(TOGETHER, job(TRAIN), *addresses).metrics == {TRAIN: "http://10.0.0.0:9100/metrics"}
    ends = [of_index(index, "Succeeded", trained(6 if index == 0 else 0), number) for number, index in enumerate(order)]
    summary = observed(TOGETHER, done(TRAIN), *ends).summaries[TRAIN]
    assert isinstance(summary, TrainSummary) and summary.trained == 6


def test_no_progress_is_asked_of_other_nodes_while_the_first_is_away() -> None:
    assert observed(TOGETHER, job(TRAIN), of_index(1, "Running", RUNNING, 1, podIP="10.0.0.1")).metrics == {}


LOST = ended(PEER_LOST, error("node 1 is lost: its connection ended"))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_why_nodes_failed_is_what_the_one_said_that_took_the_others_along(order: tuple[int, ...]) -> None:
    ends = [of_index(i, "Failed", ended(1, error("no space left")) if i == 1 else LOST, n) for n, i in enumerate(order)]
    [trouble] = observed(TOGETHER, job(TRAIN, failed=1), *ends).troubles
    is_like(trouble, TRAIN, (reasons.RETRYING, False, "no space left"))
    is_like(observed(TOGETHER, failed(TRAIN), *ends).ended[TRAIN], TRAIN, (reasons.ATTEMPTS_EXHAUSTED, False, "no space left"))
    alone = [of_index(0, "Failed", LOST, 0)]  # the pod of a node that went is gone, too
    [trouble] = observed(TOGETHER, job(TRAIN), *alone).troubles
    is_like(trouble, TRAIN, (reasons.RETRYING, False, "node 1 is lost"))


def test_a_node_that_finds_no_room_is_told_while_others_wait_for_it() -> None:
    held = unscheduled(TRAIN, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    held["metadata"]["labels"] |= {indexes.INDEX: "1", "app.kubernetes.io/component": "train"}
    others = [of_index(0, "Running", RUNNING, 1), of_index(2, "Running", RUNNING, 2)]
    [trouble] = observed(TOGETHER, job(TRAIN), held, *others).troubles
    is_like(trouble, TRAIN, (reasons.UNSCHEDULABLE, True, "Insufficient"))


TOO_MUCH = (
    'Error creating: pods "r-1-train-1-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'
)


@pytest.mark.parametrize("others", [[0, 2], []])
def test_a_node_that_no_quota_lets_in_is_told_by_its_jobs_events_while_others_wait_for_it(others: list[int]) -> None:
    together = job(TRAIN, completions=3)
    together["metadata"]["labels"]["app.kubernetes.io/component"] = "train"
    refused = event(f"uid-{TRAIN}", "FailedCreate", TOO_MUCH)
    waits = [of_index(index, "Running", RUNNING, index) for index in others]
    for ends in ([], [of_index(0, "Failed", ALONE, 0)]):
        snapshot = observed(TOGETHER, together, *ends, *waits)
        assert snapshot.unexplained == {f"uid-{TRAIN}": TRAIN}
        is_like(explained(snapshot, [refused]).troubles[0], TRAIN, (reasons.QUOTA_EXCEEDED, True, "exceeded quota: small"))
    assert (
        observed(TOGETHER, together, *waits, *(of_index(i, "Running", RUNNING, i) for i in {0, 1, 2} - {*others})).unexplained == {}
    )


def test_shards_that_are_at_work_wait_for_no_other_one() -> None:
    several = job(TASK, completions=3)
    several["metadata"]["labels"]["app.kubernetes.io/component"] = "debate"
    assert observed(SHARDS, several, of_shard(0, "Running", RUNNING, 0)).unexplained == {}


ALONE = ended(PEERS_MISSING, error("training.nodes: 1 of 3 pods came within 1800 seconds"))


def test_pods_that_did_not_all_come_lack_places_until_all_are_there() -> None:
    crashed = of_index(2, "Failed", ended(1, error("no space left")), 0)
    gave_up = of_index(0, "Failed", ALONE, 1)
    again = [of_index(index, "Running", RUNNING, 2 + index) for index in range(3)]
    lacks = (reasons.PEERS_MISSING, True, "1 of 3 pods came within 1800 seconds")
    for there in ([], again[:2]):
        snapshot = observed(TOGETHER, job(TRAIN, failed=1, completions=3), crashed, gave_up, *there)
        [trouble] = snapshot.troubles
        is_like(trouble, TRAIN, lacks)
        assert snapshot.observed.tasks[TRAIN].status == "running"
    [trouble] = observed(TOGETHER, job(TRAIN, failed=1, completions=3), crashed, gave_up, *again).troubles
    is_like(trouble, TRAIN, (reasons.RETRYING, False, "1 of 3 pods came within 1800 seconds"))


def test_a_training_whose_pods_never_all_came_failed_by_the_first_ones_words() -> None:
    """The others' ends follow from it."""
    waited = ended(PEER_LOST, error("training.nodes: node 0 did not gather all 3 pods"))
    ends = [of_index(0, "Failed", ALONE, 0), *(of_index(index, "Failed", waited, index) for index in (1, 2))]
    lacked = (reasons.ATTEMPTS_EXHAUSTED, False, "1 of 3 pods came within 1800 seconds")
    is_like(observed(TOGETHER, failed(TRAIN), *ends).ended[TRAIN], TRAIN, lacked)


def test_another_programs_exit_code_says_nothing_of_peers() -> None:
    """The debate's pod has no index, so there is nobody whom it could miss."""
    [trouble] = observed(a_run(), job(TASK, failed=1), pod(TASK, "Failed", ALONE)).troubles
    assert trouble.reason == reasons.RETRYING


# --- shards: several programs that each debate a part of the questions ---

SHARDS = a_run(debate={"shards": 3})
WHOLE = DebateSummary(questions=30, agreement=0.5, margins=(1,), kept={}, usage=Usage(1, 2, 3))


def of_shard(index: int, phase: str, state: Json, number: int, **more: object) -> Json:
    """The number-th pod of the debate, of that part of the questions."""
    made = pod(TASK, phase, state, number=number, **more)
    made["metadata"]["labels"] |= {indexes.INDEX: str(index), "app.kubernetes.io/component": "debate"}
    return made


def has_debated(summary: ProgramSummary) -> Json:
    return ended(0, encode_summary(summary).decode())


PART = has_debated(ShardSummary(questions=10))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_program_that_was_last_speaks_for_all(order: tuple[int, ...]) -> None:
    """It may be any of them, and need not be the newest pod."""
    for last in order:
        ends = [of_shard(i, "Succeeded", has_debated(WHOLE) if i == last else PART, number) for number, i in enumerate(order)]
        assert observed(SHARDS, done(TASK), *ends).summaries[TASK] == WHOLE


def test_parts_that_have_ended_are_added_up_as_long_as_others_go_on() -> None:
    pods = [of_shard(0, "Succeeded", PART, 0), of_shard(1, "Running", RUNNING, 1), of_shard(2, "Succeeded", PART, 2)]
    snapshot = observed(SHARDS, job(TASK), *pods)
    assert snapshot.summaries[TASK] == ShardSummary(questions=20)
    assert snapshot.observed.tasks[TASK].status == "running"


def test_a_part_that_is_debated_again_is_none_that_has_ended() -> None:
    pods = [of_shard(0, "Failed", ended(1, error("no space left")), 0), of_shard(1, "Succeeded", PART, 1)]
    pods.append(of_shard(0, "Running", RUNNING, 2, podIP="10.0.0.2"))
    snapshot = observed(SHARDS, job(TASK, failed=1), *pods)
    assert snapshot.summaries[TASK] == ShardSummary(questions=10)
    [trouble] = snapshot.troubles
    is_like(trouble, TASK, (reasons.RETRYING, False, "no space left"))


def test_every_part_is_asked_how_far_it_is() -> None:
    pods = [of_shard(i, "Running", RUNNING, i, podIP=f"10.0.0.{i + 1}") for i in range(3)]
    urls = {f"{TASK}/{i}": f"http://10.0.0.{i + 1}:9100/metrics" for i in range(3)}
    assert observed(SHARDS, job(TASK), *pods).metrics == urls


@pytest.mark.parametrize(
    ("parts", "ended", "expected"),
    [
        ({"/0": (1.0, 10.0), "/1": (2.0, 10.0), "/2": (3.0, 10.0)}, None, (6.0, 30.0)),
        ({"/0": (1.0, 10.0), "/2": (3.0, 10.0)}, None, (4.0, 30.0)),  # one has not started
        ({"/0": (1.0, 10.0)}, ShardSummary(questions=20), (21.0, 30.0)),
        ({"": (4.0, 10.0)}, None, (4.0, 30.0)),  # the only pod that there is yet
        ({"/1": (9.0, 9.0)}, ShardSummary(questions=20), (27.0, 27.0)),  # the share with a question less: never more than all
    ],
)
def test_progress_is_that_of_all_parts(
    parts: dict[str, tuple[float, float]], ended: ShardSummary | None, expected: tuple[float, float]
) -> None:
    summaries = {} if ended is None else {TASK: ended}
    done = {f"{TASK}{index}": units for index, units in parts.items()}
    assert indexes.added_up({**done, "other": (1.0, 2.0)}, planned(SHARDS), summaries) == {TASK: expected, "other": (1.0, 2.0)}


def test_nothing_is_known_where_no_part_says_anything() -> None:
    assert indexes.added_up({}, planned(SHARDS), {TASK: ShardSummary(questions=20)}) == {}


SCC = 'unable to validate against any security context constraint: [spec.volumes[3]: Invalid value: "hostPath": not allowed]'


@pytest.mark.parametrize(
    ("event", "message", "reason"),
    [
        ("FailedCreate", f'pods "x" is forbidden: {SCC}', reasons.POD_REFUSED),
        ("FailedCreate", "ValidatingAdmissionPolicy 'p' denied request: volumes must be readOnly", reasons.POD_REFUSED),
        ("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other', reasons.POD_STUCK),
        ("FailedMount", 'MountVolume.SetUp failed for volume "nfs": mount.nfs: access denied by server', reasons.POD_STUCK),
        ("FailedMount", 'MountVolume.SetUp failed for volume "c": failed to sync configmap cache: timed out', reasons.POD_STUCK),
        ("FailedMount", 'MountVolume.SetUp failed for volume "c": configmap "c" not found', reasons.VOLUME_MISSING),
        ("FailedMount", 'MountVolume.SetUp failed for volume "k": secret "k" not found', reasons.SECRET_MISSING),
        ("FailedMount", 'references non-existent config key: x (configmap "c")', reasons.VOLUME_MISSING),
    ],
)
def test_a_volume_is_missing_where_something_says_so(event: str, message: str, reason: Reason) -> None:
    assert reasons.event_reason(event, message) == reason
