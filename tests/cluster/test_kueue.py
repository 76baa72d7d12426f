"""Runs in queues of the real Kueue: they wait, are admitted, make room for others and go on; nobody's fields are fought for.

All of it here, so that Kueue is installed once and gone afterwards. A slot is what each pod of these runs asks for.
"""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import queueing
import yaml
from installed import CONFINED, POD_CONFINED, RESTRICTED, ROOT, SYSTEM, Installed, make_namespace
from kube import RUNS, Json, Kube
from tried import KUEUE, of, on_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMIT = 300.0  # seconds for a small run, on two busy cores
SLOT = 10  # millicores
SPEC: Json = {"iterations": 1, "agents": 2}
ADMISSION = "kueue.x-k8s.io/admission"
QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"


def slots(number: int) -> str:
    return f"{SLOT * number}m"


@pytest.fixture(scope="module", autouse=True)
def kueue(maft: Installed) -> Iterator[None]:
    with queueing.kueue(maft.cluster, maft.kube):
        yield


@pytest.fixture(name="namespace")
def namespace_fixture(maft: Installed, kueue: None) -> Iterator[str]:
    name = f"queued-{uuid.uuid4().hex[:8]}"
    make_namespace(maft, name)
    maft.kube.merge("Namespace", None, name, {"metadata": {"labels": queueing.CHOSEN}})
    yield name
    maft.kube.delete("Namespace", None, name)


def begin(maft: Installed, namespace: str, name: str, latency: float = 0.0, **spec: Any) -> None:
    """A run each of whose pods asks for one slot."""
    mocked = maft.mocked(latency)
    asks = {"resources": {"requests": {"cpu": slots(1), "memory": "64Mi"}}}
    [inference] = mocked["podTemplate"]["spec"]["containers"]
    mocked["podTemplate"]["spec"]["containers"] = [
        {**inference, **asks},
        *({"name": name, **asks} for name in ("debate", "trainer")),
    ]
    mocked["inference"] |= spec.pop("inference", {})
    maft.kube.apply(maft.resource(name, namespace, **{**SPEC, **mocked, **spec}))


def why(kube: Kube, namespace: str, name: str) -> Json:
    return kube.condition(namespace, name, "Progressing")


def waits_for(kube: Kube, namespace: str, name: str, reason: str, words: str = "") -> Json:
    """The condition, once it says that."""

    def told() -> Json | None:
        found = why(kube, namespace, name)
        return found if found.get("reason") == reason and words in found["message"] else None

    return kube.wait(told, 90, lambda: f"{reason} {words}: {kube.explain(namespace, name)}")


def of_server(kube: Kube, namespace: str, name: str) -> list[Json]:
    pods = kube.list("Pod", namespace, f"maft.dev/run={name},app.kubernetes.io/component=serve")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def is_gated(pod: Json) -> bool:
    return any(gate["name"] == ADMISSION for gate in pod["spec"].get("schedulingGates") or [])


def writes(maft: Installed, namespace: str, resource: str) -> dict[str, int]:
    """How often the operator applied each object of that kind."""
    user, found = f"system:serviceaccount:{SYSTEM}:maft-operator", dict[str, int]()
    for line in Path(maft.cluster.audit_log).read_text().splitlines():
        entry = json.loads(line)
        about = entry.get("objectRef", {})
        ours = entry["user"].get("username") == user and entry["verb"] == "patch" and entry["stage"] == "ResponseComplete"
        if ours and (about.get("resource"), about.get("namespace")) == (resource, namespace):
            found[about["name"]] = found.get(about["name"], 0) + 1
    return found


def urgent(kube: Kube, maft: Installed, namespace: str, queue: str, number: int) -> str:
    """A Job of others, which goes first, takes so many slots and ends when it is told to."""
    container = {
        "name": "work",
        "image": f"{maft.images}/debate:{maft.tag}",
        "command": ["python3", "-c", "import pathlib, time\nwhile not pathlib.Path('/told/end').exists():\n    time.sleep(0.2)"],
        "resources": {"requests": {"cpu": slots(number)}},
        "securityContext": {**CONFINED, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "told", "mountPath": "/told"}],
    }
    pod = {
        "restartPolicy": "Never",
        "securityContext": POD_CONFINED,
        "containers": [container],
        "volumes": [{"name": "told", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    }
    about = {"name": "urgent", "namespace": namespace, "labels": {QUEUE: queue, PRIORITY: f"{namespace}-high"}}
    kube.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": {"template": {"spec": pod}}}, namespace)
    return "urgent"


def is_debating(kube: Kube, namespace: str, run: str) -> bool:
    """Whether a Job that asks the servers has its place in the queue: one that still waits for it cannot be preempted."""
    jobs = kube.list("Job", namespace, f"maft.dev/run={run}")
    return any("evaluate" in job["metadata"]["name"] and (job.get("status") or {}).get("active") for job in jobs)


# --- in the gate ---


def test_without_a_queue_of_its_own_a_run_waits_in_the_namespaces(maft: Installed, namespace: str) -> None:
    """Under a LocalQueue `default` Kueue suspends Jobs of runs without queueName too: that is let be, and told."""
    kube = maft.kube
    queueing.queue(kube, namespace, "default", cpu="0")
    begin(maft, namespace, "waits")
    waits_for(kube, namespace, "waits", "QueueUnusable", "> maximum capacity")
    assert kube.get("Job", namespace, "waits-0-prepare")["spec"]["suspend"] is True
    queueing.queue(kube, namespace, "default", cpu=slots(1))
    kube.wait(lambda: kube.get("Job", namespace, "waits-0-preflight"), 90, lambda: kube.explain(namespace, "waits"))
    assert writes(maft, namespace, "jobs")["waits-0-prepare"] == 1


# --- nightly ---


@pytest.mark.nightly
@pytest.mark.parametrize("queue", ["gpus", "default"])
def test_a_run_makes_room_for_others_and_goes_on(maft: Installed, namespace: str, queue: str) -> None:
    """Its debate is preempted by a Job of a higher class, waits, is admitted again and ends as if nothing had been, also where the
    operator is another one by then. `default`: the same without queueName."""
    kube = maft.kube
    queueing.queue(kube, namespace, queue, cpu=slots(2))
    queueing.priority(kube, f"{namespace}-high", 1000)
    begin(maft, namespace, "run", latency=0.5, **({} if queue == "default" else {"queueName": queue}))
    kube.wait(lambda: is_debating(kube, namespace, "run"), LIMIT, lambda: kube.explain(namespace, "run"))
    urgent(kube, maft, namespace, queue, 1)
    waits_for(kube, namespace, "run", "Queued", "Preempted to accommodate a workload")
    kube.wait(lambda: (kube.get("Job", namespace, "urgent")["status"] or {}).get("active"), 60)
    maft.kill_operator()
    kube.wait(lambda: maft._ready() == 1, 90, maft.operator_log)
    assert any(job["spec"]["suspend"] for job in kube.list("Job", namespace, "maft.dev/run=run"))
    kube.delete("Job", namespace, "urgent")
    kube.wait_complete(namespace, "run", LIMIT)
    assert set(writes(maft, namespace, "jobs").values()) == {1}


@pytest.mark.nightly
def test_servers_start_together_or_not_at_all(maft: Installed, namespace: str) -> None:
    """Two servers and room for one: none runs. With room they do, are counted once each, and go for others together too."""
    kube = maft.kube
    queueing.queue(kube, namespace, "gpus", cpu=slots(1))
    queueing.priority(kube, f"{namespace}-high", 1000)
    begin(maft, namespace, "pair", 0.5, queueName="gpus", inference={"topology": "PerAgent"})
    waits_for(kube, namespace, "pair", "QueueUnusable", "> maximum capacity")
    kube.wait(lambda: len(of_server(kube, namespace, "pair")) == 2, 60)
    assert all(map(is_gated, of_server(kube, namespace, "pair")))
    queueing.queue(kube, namespace, "gpus", cpu=slots(3))
    kube.wait(lambda: kube.status(namespace, "pair").get("phase") == "Debating", LIMIT, lambda: kube.explain(namespace, "pair"))
    assert not any(map(is_gated, of_server(kube, namespace, "pair")))
    kube.wait(lambda: used(kube, namespace, "gpus") == slots(3), 30, lambda: used(kube, namespace, "gpus"))
    urgent(kube, maft, namespace, "gpus", 3)
    waits_for(kube, namespace, "pair", "Queued", "Preempted to accommodate a workload")
    kube.wait(lambda: all(map(is_gated, of_server(kube, namespace, "pair"))), 60)
    kube.delete("Job", namespace, "urgent")
    kube.wait_complete(namespace, "pair", LIMIT)


@pytest.mark.nightly
def test_the_programs_of_one_debate_are_admitted_together(maft: Installed, namespace: str) -> None:
    """An indexed Job is one Workload: beside the server there is room for one of its two pods, so none is made; with room for both
    it ends, and was counted twice."""
    kube = maft.kube
    queueing.queue(kube, namespace, "gpus", cpu=slots(2))
    begin(maft, namespace, "shards", 0.3, queueName="gpus", debate={"shards": 2})

    def indexed() -> list[Json]:
        return [job for job in kube.list("Job", namespace, "maft.dev/run=shards") if job["spec"]["completionMode"] == "Indexed"]

    jobs = kube.wait(indexed, LIMIT, lambda: kube.explain(namespace, "shards"))
    waits_for(kube, namespace, "shards", "Queued", "insufficient unused quota for cpu")
    assert {(job["spec"]["parallelism"], job["spec"]["suspend"]) for job in jobs} == {(2, True)}
    names = ",".join(job["metadata"]["name"] for job in jobs)
    assert kube.list("Pod", namespace, f"maft.dev/child in ({names})") == []
    queueing.queue(kube, namespace, "gpus", cpu=slots(3))
    kube.wait(lambda: used(kube, namespace, "gpus") == slots(3), LIMIT, lambda: kube.explain(namespace, "shards"))
    kube.wait_complete(namespace, "shards", LIMIT)


@pytest.mark.nightly
def test_two_runs_that_do_not_fit_beside_each_other_both_end(maft: Installed, namespace: str) -> None:
    """Three servers each, and room for four pods: neither holds half of what both need. The one that waits says for what."""
    kube = maft.kube
    queueing.queue(kube, namespace, "gpus", cpu=slots(4))
    for name in ("one", "two"):
        begin(maft, namespace, name, 0.3, agents=3, queueName="gpus", inference={"topology": "PerAgent"})
    kube.wait(lambda: waiting(kube, namespace, ("one", "two"), "insufficient unused quota for cpu"), LIMIT)
    for name in ("one", "two"):
        kube.wait_complete(namespace, name, LIMIT)


@pytest.mark.nightly
def test_servers_make_room_where_no_debate_finds_any_beside_them(maft: Installed, namespace: str) -> None:
    """Room for a server, and none for the debate beside it: the server goes and says why. Two such runs on two places may hold one
    each, and both end."""
    kube, impatient = maft.kube, {"placementSeconds": 5}
    queueing.queue(kube, namespace, "one", cpu=slots(1))
    begin(maft, namespace, "alone", queueName="one", inference=impatient)
    waits_for(kube, namespace, "alone", "DebatesLackRoom", "no debate found room beside them (waits in queue one: ")
    kube.wait(lambda: not of_server(kube, namespace, "alone"), 60)
    queueing.queue(kube, namespace, "two", cpu=slots(2))
    for name in ("first", "second"):
        begin(maft, namespace, name, 0.3, queueName="two", inference=impatient)
    queueing.queue(kube, namespace, "one", cpu=slots(2))
    for name in ("alone", "first", "second"):
        assert "room" not in kube.wait_complete(namespace, name, LIMIT)


def waiting(kube: Kube, namespace: str, names: tuple[str, ...], words: str) -> list[str]:
    """Which of the runs wait in a queue, with these words of Kueue's."""
    conditions = {name: why(kube, namespace, name) for name in names}
    return [name for name, found in conditions.items() if found.get("reason") == "Queued" and words in found["message"]]


@pytest.mark.nightly
def test_quota_counts_what_pods_ask_for_by_themselves(maft: Installed, namespace: str) -> None:
    """No request is named in the run: each pod has the defaults of its role."""
    kube = maft.kube
    queueing.queue(kube, namespace, "gpus", cpu="4")
    kube.apply(maft.resource("plain", namespace, **{**SPEC, **maft.mocked(), "queueName": "gpus"}))
    job = kube.wait(lambda: kube.get("Job", namespace, "plain-0-prepare"), 60)
    asked = [container["resources"]["requests"]["cpu"] for container in job["spec"]["template"]["spec"]["containers"]]
    assert len(asked) == 1
    kube.wait(lambda: used(kube, namespace, "gpus") == asked[0], 30, lambda: used(kube, namespace, "gpus"))


def used(kube: Kube, namespace: str, name: str) -> str:
    """What a queue has given away."""
    status = (kube.get("ClusterQueue", None, f"{namespace}-{name}") or {}).get("status") or {}
    given = [r for flavor in status.get("flavorsReservation") or [] for r in flavor["resources"] if r["name"] == "cpu"]
    return next((r.get("total", "") for r in given), "")


@pytest.mark.nightly
def test_a_suspended_run_changes_its_queue(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    queueing.queue(kube, namespace, "full", cpu="0")
    queueing.queue(kube, namespace, "free", cpu=slots(3))
    begin(maft, namespace, "moves", queueName="full")
    waits_for(kube, namespace, "moves", "QueueUnusable", "waits in queue full")
    kube.merge(RUNS, namespace, "moves", {"spec": {"suspend": True}})
    kube.wait(lambda: kube.is_true(namespace, "moves", "Suspended"), 30)
    kube.merge(RUNS, namespace, "moves", {"spec": {"queueName": "free"}})
    kube.merge(RUNS, namespace, "moves", {"spec": {"suspend": False}})
    kube.wait_complete(namespace, "moves", LIMIT)


@pytest.mark.nightly
def test_a_run_is_moved_to_another_queue_with_the_commands_of_the_page(maft: Installed, namespace: str, tmp_path: Path) -> None:
    """In mid-debate: what it began goes on in the other queue, to its end."""
    kube = maft.kube
    for name in ("gpus", "other"):
        queueing.queue(kube, namespace, name, cpu=slots(3))
    begin(maft, namespace, "moved", 0.5, queueName="gpus")
    kube.wait(lambda: is_debating(kube, namespace, "moved"), LIMIT, lambda: kube.explain(namespace, "moved"))
    terminal = on_cluster(kube.kubeconfig, maft.cluster.kubectl, namespace, tmp_path)
    [block] = of(KUEUE, "A queue for a run")
    printed = [terminal.run(command.replace("RUN", "moved")) for command in block.commands]
    assert [line.split()[-1] for line in printed] == ["patched", "met", "patched", "patched"]
    kube.wait(lambda: used(kube, namespace, "other") not in ("", "0"), LIMIT, lambda: kube.explain(namespace, "moved"))
    kube.wait(lambda: used(kube, namespace, "gpus") in ("", "0"), 30, lambda: used(kube, namespace, "gpus"))
    kube.wait_complete(namespace, "moved", LIMIT)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("covers", "queue", "words"),
    [("memory", "gpus", "resource cpu unavailable in ClusterQueue"), ("cpu", "other", "LocalQueue other doesn't exist")],
)
def test_what_no_queue_will_ever_admit_is_told(maft: Installed, namespace: str, covers: str, queue: str, words: str) -> None:
    queueing.queue(maft.kube, namespace, "gpus", **{covers: "1Ti"})
    begin(maft, namespace, "never", queueName=queue)
    waits_for(maft.kube, namespace, "never", "QueueUnusable", words)


@pytest.mark.nightly
def test_the_page_about_queues_is_taken_as_it_stands(maft: Installed, kueue: None) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "kueue.md").read_text(), re.DOTALL)
    about = {"name": "research", "labels": {**RESTRICTED, **queueing.CHOSEN}}
    maft.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": about}, *yaml.safe_load_all(text))
    maft.kube.wait(lambda: queueing.is_active(maft.kube, "research"), 30)
    begin(maft, "research", "page", queueName="gpus", workloadPriorityClass="low")
    found = maft.kube.wait(lambda: maft.kube.list("Workload", "research"), 60)
    assert (found[0]["spec"]["queueName"], found[0]["spec"]["priority"]) == ("gpus", 100)


@pytest.mark.nightly
def test_a_priority_class_goes_to_kueue(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    queueing.queue(kube, namespace, "gpus", cpu=slots(2))
    queueing.priority(kube, f"{namespace}-low", 7)
    begin(maft, namespace, "first", queueName="gpus", workloadPriorityClass=f"{namespace}-low")
    found = kube.wait(lambda: kube.list("Workload", namespace), 60)
    assert found[0]["spec"]["priority"] == 7


@pytest.mark.nightly
def test_another_controller_is_left_the_jobs(maft: Installed, namespace: str) -> None:
    """As MultiKueue has it: nobody here makes pods of them, and quota counts them all the same."""
    kube = maft.kube
    queueing.queue(kube, namespace, "gpus", cpu=slots(2))
    begin(maft, namespace, "away", queueName="gpus", managedBy="example.com/elsewhere")
    job = kube.wait(lambda: kube.get("Job", namespace, "away-0-prepare"), 60)
    assert job["spec"]["managedBy"] == "example.com/elsewhere"
    kube.wait(lambda: used(kube, namespace, "gpus") == slots(1), 30, lambda: used(kube, namespace, "gpus"))
    assert kube.list("Pod", namespace, "maft.dev/run=away") == []


@pytest.mark.nightly
def test_a_kueue_that_is_away_is_told(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    queueing.queue(kube, namespace, "gpus", cpu=slots(3))
    queueing.stop(kube)
    try:
        begin(maft, namespace, "alone", queueName="gpus")
        found = waits_for(kube, namespace, "alone", "WebhookUnavailable", 'failed calling webhook "mjob.kb.io"')
        assert found["status"] == "False" and "start the controller again" in found["message"].lower()
    finally:
        queueing.start(kube)
    kube.wait_complete(namespace, "alone", LIMIT)
