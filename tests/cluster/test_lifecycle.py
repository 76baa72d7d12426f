"""What may happen to a run on the cluster: suspending, killing, deleting, expiring. The engine is deterministic: results compare.

The debates, trainings and their pods are real; only vLLM is replaced by the mock engine, through fields that users have.
"""

import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from installed import BUCKET, SYSTEM, Installed, make_namespace
from kube import RUNS
from products import made_here, products

from maft_operator.cluster.pod_template import GRACE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMIT = 300.0  # seconds for a small run of two iterations, on two busy cores
SPEC = {"iterations": 2, "agents": 2}
PHASES = ("Preparing", "Serving", "Debating", "Training", "Evaluating")


@pytest.fixture(scope="module")
def reference(maft: Installed, tmp_path_factory) -> dict[str, str]:
    found = made_here(maft, tmp_path_factory.mktemp("reference"), "same", **SPEC)
    assert len([name for name in found if name.endswith(".safetensors")]) == 8
    return found


def begin(maft: Installed, namespace: str, name: str, latency: float = 0.0, **spec) -> None:
    maft.kube.apply(maft.resource(name, namespace, **{**SPEC, **maft.mocked(latency), **spec}))


@pytest.mark.nightly  # test_chaos.py compares whole runs, and test_comparison_on_cluster.py the cluster with one machine
def test_a_run_on_the_cluster_equals_the_same_file_on_one_machine(maft, namespace, request):
    begin(maft, namespace, "same")
    reference = request.getfixturevalue("reference")  # made while the other runs
    maft.kube.wait_complete(namespace, "same", LIMIT)
    assert products(maft, namespace, "same") == reference


@pytest.mark.nightly  # the programs: test_shards.py; their Jobs: test_manifests.py
def test_debates_of_several_programs_equal_those_of_one(maft, namespace, reference):
    """One pod is killed in the middle: it goes on from its journal, and the other one is left alone. In the last iteration: Jobs of
    those before are tidied up."""
    kube, slow = maft.kube, maft.mocked(0.3, slots=4)
    kube.apply(maft.resource("same", namespace, **SPEC, **slow, debate={"shards": 2}))
    kube.wait(lambda: any("/2/debate/shards/1-of-2/journal-" in key for key in maft.keys(namespace, "same")), LIMIT)
    [pod] = kube.list("Pod", namespace, "maft.dev/child=same-2-debate,batch.kubernetes.io/job-completion-index=1")
    kube.delete("Pod", namespace, pod["metadata"]["name"], grace=0)
    status = kube.wait_complete(namespace, "same", LIMIT)
    job = kube.get("Job", namespace, "same-2-debate")
    assert (job["status"]["succeeded"], job["status"]["completedIndexes"], job["status"]["failed"]) == (2, "0,1", 1)
    assert products(maft, namespace, "same") == reference
    assert not [key for key in maft.keys(namespace, "same") if "/shards/" in key]
    assert [row["iteration"] for row in status["iterations"]] == [0, 1, 2]


@pytest.mark.nightly  # one beside the method: test_comparison_on_cluster.py
def test_a_baseline_is_a_resource_like_any_other(maft, namespace, tmp_path):
    """One generator for all agents, a vote in place of a debate; the same as on one machine, and called by its name."""
    spec = {"method": "majority-finetuning", "iterations": 1, "evaluation": {"diversity": 6, "embedder": "package"}}
    begin(maft, namespace, "baseline", **spec)
    expected = made_here(maft, tmp_path, "baseline", **{**SPEC, **spec})
    status = maft.kube.wait_complete(namespace, "baseline", LIMIT)
    assert products(maft, namespace, "baseline") == expected
    assert [name for name in expected if name.endswith(".safetensors")] == [
        "iterations/1/adapters/generator-0/adapter_model.safetensors"
    ]
    first, last = status["iterations"]
    assert (first.get("trained"), last["trained"]) == (None, 1)
    assert status["accuracy"] == {**last["majority"], "text": status["accuracy"]["text"]}  # no debate after the vote
    assert last["accuracy"] == last["majority"]
    assert last["nll"] > 0 and "kl" in last
    page = maft.read(status["artifacts"]["report"].removeprefix(f"s3://{BUCKET}/")).decode()
    assert "majority-finetuning, iteration 1" in page and "Held-out accuracy of the majority" in page


@pytest.mark.nightly  # once, in mid-debate: test_audit.py; at any point: test_plan.py
def test_suspending_five_times_changes_nothing(maft, namespace, reference):
    """Each time at another point of the run; suspended, no pod of the run works."""
    kube = maft.kube
    begin(maft, namespace, "same", latency=0.05)
    for stage in ("0-prepare", "1-debate", "1-train", "2-debate", "2-train"):
        seen = f"maft.dev/child=same-{stage}"
        kube.wait(
            lambda seen=seen: (
                [p for p in kube.list("Pod", namespace, seen) if p["status"]["phase"] != "Pending"]
                or kube.is_true(namespace, "same", "Complete")
            ),
            LIMIT,
            lambda: kube.explain(namespace, "same"),
        )
        kube.merge(RUNS, namespace, "same", {"spec": {"suspend": True}})
        kube.wait(lambda: kube.is_true(namespace, "same", "Suspended"), 30, lambda: kube.explain(namespace, "same"))
        kube.wait(lambda: not working(maft, namespace), 60, lambda: kube.explain(namespace, "same"))
        assert not kube.list("Deployment", namespace)
        kube.merge(RUNS, namespace, "same", {"spec": {"suspend": False}})
        kube.wait(lambda: not kube.is_true(namespace, "same", "Suspended"), 30)
    kube.wait_complete(namespace, "same", LIMIT)
    assert products(maft, namespace, "same") == reference


def working(maft: Installed, namespace: str) -> list[str]:
    pods = maft.kube.list("Pod", namespace)
    return [p["metadata"]["name"] for p in pods if p["status"]["phase"] in ("Pending", "Running")]


@pytest.mark.nightly  # at random moments: test_chaos.py
def test_an_operator_killed_in_each_phase_changes_nothing(maft, namespace, reference):
    """kill -9 as soon as the phase shows; the next operator goes on from what it sees."""
    kube = maft.kube
    begin(maft, namespace, "same", latency=0.05)
    for phase in PHASES:
        found = kube.wait(
            lambda phase=phase: (now := kube.status(namespace, "same").get("phase")) in (phase, "Complete") and now,
            LIMIT,
            lambda: kube.explain(namespace, "same"),
        )
        assert found == phase
        maft.kill_operator()
        kube.wait(lambda: maft._ready() == 1, 60, maft.operator_log)
    kube.wait_complete(namespace, "same", LIMIT)
    assert products(maft, namespace, "same") == reference
    names = [job["metadata"]["name"] for job in kube.list("Job", namespace)]
    assert set(names) == {f"same-2-{stage}" for stage in ("debate", "train", "evaluate", "report")}  # the others have gone


def test_drift_is_repaired(maft, namespace):
    """A deleted Job, a scaled Deployment, an emptied Service: as they were within ten seconds."""
    kube = maft.kube
    begin(maft, namespace, "drift", latency=0.5)
    debating = lambda: kube.get("Job", namespace, "drift-1-debate")  # noqa: E731
    kube.wait(debating, LIMIT, lambda: kube.explain(namespace, "drift"))
    before = debating()["metadata"]["uid"]
    kube.delete("Job", namespace, "drift-1-debate")
    kube.wait(lambda: (job := debating()) and job["metadata"]["uid"] != before, 10)
    kube.merge("Deployment", namespace, "drift-server", {"spec": {"replicas": 0}})
    kube.wait(lambda: kube.get("Deployment", namespace, "drift-server")["spec"]["replicas"] == 1, 10)
    kube.merge("Service", namespace, "drift-server", {"spec": {"selector": {"maft.dev/child": "nobody"}}})
    kube.wait(lambda: kube.get("Service", namespace, "drift-server")["spec"]["selector"]["maft.dev/child"] == "drift-server", 10)
    kube.delete("Service", namespace, "drift-server")
    kube.wait(lambda: kube.get("Service", namespace, "drift-server"), 10)
    kube.merge("Job", namespace, "drift-1-debate", {"spec": {"backoffLimit": 99}})
    kube.wait(lambda: kube.get("Job", namespace, "drift-1-debate")["spec"]["backoffLimit"] == 3, 10)


def test_deleting_in_mid_run_leaves_nothing(maft, namespace):
    kube = maft.kube
    begin(maft, namespace, "gone", latency=0.5)
    kube.wait(lambda: kube.list("Pod", namespace, "maft.dev/child=gone-1-debate"), LIMIT, lambda: kube.explain(namespace, "gone"))
    kube.delete(RUNS, namespace, "gone")

    def left() -> list[str]:
        kinds = (RUNS, "Job", "Deployment", "ReplicaSet", "Service", "Pod")
        return [f"{kind} {o['metadata']['name']}" for kind in kinds for o in kube.list(kind, namespace, "maft.dev/run=gone")]

    kube.wait(lambda: not left(), 60, lambda: str(left()))


def test_a_program_that_has_no_handler_yet_stops_at_once(maft, namespace):
    """As one that still imports: it ends by the signal, not by the end of the grace period."""
    kube = maft.kube
    sleeping = {"name": "debate", "command": ["python3", "-c", "import time; time.sleep(600)"]}
    kube.apply(maft.resource("deaf", namespace, podTemplate={"spec": {"containers": [sleeping]}}))

    def pods(phase: str) -> list[str]:
        found = kube.list("Pod", namespace, "maft.dev/run=deaf")
        return [p["metadata"]["name"] for p in found if phase in ("", p["status"]["phase"])]

    kube.wait(lambda: pods("Running"), 60, lambda: kube.explain(namespace, "deaf"))
    kube.delete(RUNS, namespace, "deaf")
    kube.wait(lambda: not pods(""), GRACE - 5)


def test_progress_and_limits_of_writing(maft, namespace):
    """Progress comes from the pods' own metrics; where nothing else moves, five seconds lie between two writes, however often
    the run is looked at: here it changes all the time."""
    kube, seen = maft.kube, []
    slow = maft.mocked(latency=0.2, slots=8)  # half a minute of questions that end one by one
    kube.apply(maft.resource("slow", namespace, agents=2, iterations=1, task={"train": 300}, **slow))

    def only_progress() -> list[float]:
        """Seconds before each write that told of nothing else; a status is seen within moments of its write."""
        pairs = [(late - early, {**old, "progress": new["progress"]} == new) for (early, old), (late, new) in pairwise(seen)]
        return [seconds for seconds, alike in pairs if alike]

    def watched() -> bool:
        kube.merge(RUNS, namespace, "slow", {"metadata": {"labels": {"touched": str(time.monotonic())}}})
        status = kube.status(namespace, "slow")
        if status.get("progress") and (not seen or seen[-1][1] != status):
            seen.append((time.monotonic(), status))
        return len(only_progress()) == 2 or status.get("phase") == "Training"

    kube.wait(watched, LIMIT, lambda: kube.explain(namespace, "slow"))
    assert len(only_progress()) == 2 and min(only_progress()) > 4
    assert " of " in seen[-1][1]["progress"]["stage"]
    kube.delete(RUNS, namespace, "slow")


def test_a_finished_run_expires_also_across_a_restart(maft, namespace):
    """ttlSecondsAfterFinished ± 10 s, with an operator that is killed meanwhile."""
    kube = maft.kube
    begin(maft, namespace, "short", iterations=1, ttlSecondsAfterFinished=25, storage={"bucket": "no-such-bucket"})
    kube.wait(lambda: kube.is_true(namespace, "short", "Failed"), LIMIT, lambda: kube.explain(namespace, "short"))
    ended = datetime.fromisoformat(kube.status(namespace, "short")["completionTime"].replace("Z", "+00:00"))
    maft.kill_operator()
    kube.wait(lambda: kube.get(RUNS, namespace, "short") is None, 60)
    assert 24 <= (datetime.now(UTC) - ended).total_seconds() <= 36


def test_a_namespace_goes_with_the_operator_down(maft):
    """There is no finalizer that only the operator could remove."""
    kube = maft.kube
    make_namespace(maft, "e2e-down")
    begin(maft, "e2e-down", "orphan", latency=0.5)
    kube.wait(lambda: kube.list("Pod", "e2e-down", "maft.dev/run=orphan"), 60)
    maft.scale_operator(0)
    try:
        kube.delete("Namespace", None, "e2e-down")
        kube.wait(lambda: kube.get("Namespace", None, "e2e-down") is None, 90)
    finally:
        maft.scale_operator(1)


def test_two_replicas_hand_over(maft, namespace):
    """The stand-by takes over when the leader is killed, and the run completes."""
    kube = maft.kube
    maft.scale_operator(2)
    try:
        begin(maft, namespace, "handed", latency=0.05, iterations=1)
        kube.wait(lambda: kube.status(namespace, "handed").get("phase") == "Debating", LIMIT)
        lease = kube.get("Lease", SYSTEM, "maft-operator")["spec"]["holderIdentity"]
        leader = next(p for p in maft.operator_pods() if lease.startswith(p["metadata"]["name"]))
        kube.delete("Pod", SYSTEM, leader["metadata"]["name"])  # SIGTERM: the lease is given back
        kube.wait(lambda: kube.get("Lease", SYSTEM, "maft-operator")["spec"].get("holderIdentity") not in ("", lease), 15)
        kube.wait_complete(namespace, "handed", LIMIT)
    finally:
        maft.scale_operator(1)
