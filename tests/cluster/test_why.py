"""Why a run waits or failed: each reason produced for real on the cluster, with its hint, within 30 seconds."""

import copy
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from daemons import Daemons
from installed import BUCKET, Installed, make_namespace
from kube import Json, holds
from kubernetes.dynamic.exceptions import UnprocessibleEntityError

from maft_operator.cluster import reasons

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]
LIMIT = 30.0  # seconds from the moment that the fact is there
SERVER = 180.0  # seconds until a server has ended for good: the questions are drawn and the model is tried before it
STARTUP = 45.0  # seconds that several pods at once may take to start on two cores, before there is a fact


def on(container: str, **fields) -> Json:
    """A podTemplate that changes one kind of pod."""
    return {"podTemplate": {"spec": {"containers": [{"name": container, **fields}]}}}


def storage(maft: Installed, **changes) -> Json:
    return {"storage": {"endpoint": maft.cluster.s3_endpoint, "credentialsSecret": {"name": "s3"}, "bucket": BUCKET, **changes}}


FILL = "import time; open('/small/fill', 'wb').write(bytes(30_000_000)); time.sleep(600)"

# name: (spec, condition, reason, words that its message has)
WAITING = {
    "unschedulable": (
        lambda m: {"podTemplate": {"spec": {"nodeSelector": {"no-such-label": "x"}}}},
        "Progressing", reasons.UNSCHEDULABLE, "node",
    ),
    "image": (lambda m: on("debate", image=f"{m.images}/none:1"), "Progressing", reasons.IMAGE_PULL, "none:1"),
    "secret": (lambda m: storage(m, credentialsSecret={"name": "nope"}), "Progressing", reasons.SECRET_MISSING, "nope"),
    "key": (
        lambda m: storage(m, credentialsSecret={"name": "half"}),
        "Progressing", reasons.SECRET_KEY_MISSING, "AWS_SECRET_ACCESS_KEY",
    ),
    "claim": (lambda m: {"model": {"source": m.url("tiny"), "cacheClaim": "nope"}}, "Progressing", reasons.VOLUME_MISSING, "nope"),
    "refused": (lambda m: {"podTemplate": {"spec": {"hostNetwork": True}}}, "Progressing", reasons.POD_REFUSED, "restricted"),
    "malformed": (
        lambda m: {"podTemplate": {"spec": {"nodeSelectors": {"a": "b"}}}},
        "Progressing", reasons.POD_REFUSED, "nodeSelectors",
    ),
    "memory": (
        lambda m: {"backoffLimit": 20, **on("debate", resources={"limits": {"memory": "40Mi"}})},
        "Progressing", reasons.OUT_OF_MEMORY, "40Mi",
    ),
    "bucket": (lambda m: storage(m, bucket="no-such-bucket"), "Failed", reasons.STORE_UNUSABLE, "no-such-bucket"),
    "model": (lambda m: {"model": {"source": m.url("nothing-here")}}, "Failed", reasons.MODEL_UNUSABLE, "config.json"),
    "vision": (lambda m: {"model": {"source": m.url("vit")}}, "Failed", reasons.MODEL_UNUSABLE, "not a causal language model"),
    "questions": (
        lambda m: {"task": {"train": 100_000}},
        "Failed", reasons.INPUT_INVALID, "100016 questions asked for",
    ),
    "deadline": (
        lambda m: {"activeDeadlineSeconds": 3, "podTemplate": {"spec": {"nodeSelector": {"no-such-label": "x"}}}},
        "Failed", reasons.DEADLINE_EXCEEDED, "activeDeadlineSeconds",
    ),
    "budget": (
        lambda m: {"budget": {"seconds": 3}, "podTemplate": {"spec": {"nodeSelector": {"no-such-label": "x"}}}},
        "Failed", reasons.BUDGET_SPENT, "spec.budget.seconds (3) are over",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def namespace(maft: Installed):
    name = "why"
    maft.kube.delete("Namespace", None, name)
    maft.kube.wait(lambda: maft.kube.get("Namespace", None, name) is None, 60)
    make_namespace(maft, name)
    half = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half", "namespace": name}}
    maft.kube.apply({**half, "stringData": {"AWS_ACCESS_KEY_ID": maft.cluster.s3_access_key}})
    whole = {"config.json": json.dumps({"model_type": "vit"}).encode(), "model.safetensors": b"", "tokenizer.json": b"{}"}
    for file, content in whole.items():
        maft.objects.put_object(Bucket=BUCKET, Key=f"vit/{file}", Body=content)
    yield name
    maft.kube.delete("Namespace", None, name)


NODE = "e2e-lost"
OF_NODE = "maft.dev/test-node"


@pytest.fixture(scope="module")
def lost(maft: Installed, namespace: str) -> str:
    """The pod of a run on a node that goes without a word, as when an autoscaler takes it. Early: noticing takes a minute."""
    kube = maft.kube
    node: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {OF_NODE: NODE}}}
    kube.apply({**node, "spec": {"taints": [{"key": OF_NODE, "value": NODE, "effect": "NoSchedule"}]}})
    size = {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "9"}
    # With the time: of a node of this name before, Kubernetes remembers when it was heard of last.
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "as a kubelet would say", "lastHeartbeatTime": now}
    kube.merge_status("Node", None, NODE, {"status": {"capacity": size, "allocatable": size, "conditions": [ready]}})
    there = {"nodeSelector": {OF_NODE: NODE}, "tolerations": [{"key": OF_NODE, "operator": "Exists"}]}
    kube.apply(maft.resource("lost", namespace, backoffLimit=0, podTemplate={"spec": there}))

    def bound() -> list[str]:
        pods = kube.list("Pod", namespace, "maft.dev/run=lost", f"spec.nodeName={NODE}")
        return [p["metadata"]["name"] for p in pods]

    (pod,) = kube.wait(bound, STARTUP, lambda: kube.explain(namespace, "lost"))
    kube.merge_status("Pod", namespace, pod, {"status": {"phase": "Running"}})
    kube.delete("Node", None, NODE)
    return pod


@pytest.fixture(scope="module")
def runs(maft: Installed, namespace: str, lost: str) -> str:
    """All of them at once."""
    for name, (spec, *_) in WAITING.items():
        maft.kube.apply(maft.resource(f"why-{name}", namespace, **spec(maft)))
    return namespace


def expect(maft: Installed, namespace: str, name: str, condition: str, reason: reasons.Reason, words: str, limit: float) -> None:
    kube = maft.kube
    found = kube.wait(
        lambda: (c := kube.condition(namespace, name, condition)).get("reason") == reason.name and c,
        limit,
        lambda: kube.explain(namespace, name),
    )
    assert words in found["message"], found
    hint = reason.hint[:1].upper() + reason.hint[1:]
    assert found["message"].endswith(hint)
    passing = (reasons.OUT_OF_MEMORY, reasons.UNSCHEDULABLE)  # of the last for as long as a node may take to come
    assert found["status"] == ("True" if condition == "Failed" or reason in passing else "False")


@pytest.mark.parametrize("name", WAITING)
def test_a_run_says_why(maft, runs, name):
    _, condition, reason, words = WAITING[name]
    expect(maft, runs, f"why-{name}", condition, reason, words, LIMIT + STARTUP)
    fields = f"involvedObject.name=why-{name},involvedObject.kind=MultiAgentFinetune,reason={reason.name}"
    assert maft.kube.wait(lambda: maft.kube.list("Event", runs, fields=fields), 10)


def test_a_run_that_waited_goes_on_when_the_secret_is_there(maft, runs):
    """No touch of the resource is needed."""
    keys = {"AWS_ACCESS_KEY_ID": maft.cluster.s3_access_key, "AWS_SECRET_ACCESS_KEY": maft.cluster.s3_secret_key}
    expect(maft, runs, "why-key", "Progressing", reasons.SECRET_KEY_MISSING, "AWS_SECRET_ACCESS_KEY", LIMIT + STARTUP)
    maft.kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "half", "namespace": runs}, "stringData": keys})
    maft.kube.wait(
        lambda: maft.kube.condition(runs, "why-key", "Progressing").get("status") == "True",
        90,
        lambda: maft.kube.explain(runs, "why-key"),
    )
    maft.kube.delete("MultiAgentFinetune", runs, "why-key")


def test_a_run_that_waited_goes_on_when_its_pod_template_is_corrected(maft, runs):
    """Its Job, whose template Kubernetes lets nobody change, is made anew."""
    expect(maft, runs, "why-unschedulable", "Progressing", reasons.UNSCHEDULABLE, "node", LIMIT + STARTUP)
    maft.kube.merge("MultiAgentFinetune", runs, "why-unschedulable", {"spec": {"podTemplate": {"spec": {"nodeSelector": None}}}})
    maft.kube.wait(
        lambda: maft.kube.status(runs, "why-unschedulable").get("model"),  # `prepare` has told its size
        120,
        lambda: maft.kube.explain(runs, "why-unschedulable"),
    )
    maft.kube.delete("MultiAgentFinetune", runs, "why-unschedulable")


def test_memory_runs_out_for_good(maft, runs):
    """After spec.backoffLimit attempts the run fails with the same reason; its failed pods stay, its servers go."""
    kube = maft.kube
    maft.kube.apply(maft.resource("oom", runs, backoffLimit=1, **on("debate", resources={"limits": {"memory": "40Mi"}})))
    expect(maft, runs, "oom", "Failed", reasons.OUT_OF_MEMORY, "40Mi", 120)
    pods = kube.list("Pod", runs, "maft.dev/run=oom")
    assert len(pods) == 2 and all(p["status"]["phase"] == "Failed" for p in pods)
    assert not kube.list("Deployment", runs, "maft.dev/run=oom")


def test_quota(maft):
    """Neither Job nor Deployment says that a quota is in the way of the Job's pods: only Events do."""
    make_namespace(maft, "why-quota")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": "why-quota"}}
    maft.kube.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    maft.kube.wait(lambda: maft.kube.get("ResourceQuota", "why-quota", "none").get("status", {}).get("hard"), 30)
    try:
        maft.kube.apply(maft.resource("quota", "why-quota"))
        expect(maft, "why-quota", "quota", "Progressing", reasons.QUOTA_EXCEEDED, "exceeded quota: none", LIMIT)
    finally:
        maft.kube.delete("Namespace", None, "why-quota")


def overfilled(container: str) -> Json:
    """A podTemplate by which that container takes more than a volume of its own has, and goes on until it is evicted for it."""
    volume = {"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}
    filling = {"name": container, "command": ["python3", "-c", FILL], "volumeMounts": [{"name": "small", "mountPath": "/small"}]}
    return {"podTemplate": {"spec": {"containers": [filling], "volumes": [volume]}}}


def test_a_pod_that_takes_more_than_its_volume_has_is_an_attempt(maft, runs):
    """The kubelet evicts it, and not for others' sake: it gives no DisruptionTarget, and the next pod would fare no better."""
    maft.kube.apply(maft.resource("evicted", runs, backoffLimit=0, **overfilled("debate")))
    expect(maft, runs, "evicted", "Failed", reasons.EVICTED, "small", LIMIT + 60)
    maft.kube.delete("MultiAgentFinetune", runs, "evicted")


@pytest.mark.nightly
def test_a_server_that_takes_more_than_its_volume_has(maft, runs):
    """Its Deployment would make pods for ever."""
    maft.kube.apply(maft.resource("crowded", runs, backoffLimit=0, **overfilled("inference")))
    expect(maft, runs, "crowded", "Failed", reasons.EVICTED, "small", SERVER)
    maft.kube.wait(lambda: not maft.kube.list("Deployment", runs, "maft.dev/run=crowded"), 60)
    maft.kube.delete("MultiAgentFinetune", runs, "crowded")


SLOT = "maft.dev/test-slot"  # the node has one
SLEEP = ["python3", "-c", "import time; time.sleep(600)"]


@pytest.fixture
def slot(maft):
    """A resource of which one pod at a time can have some, and a priority that takes it from others."""
    (node,) = maft.kube.list("Node", None)
    name = node["metadata"]["name"]
    maft.kube.merge_status("Node", None, name, {"status": {"capacity": {SLOT: "1"}}})
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "e2e-urgent"}, "value": 1_000_000}
    maft.kube.apply(urgent)
    maft.kube.wait(lambda: maft.kube.get("Node", None, name)["status"]["allocatable"].get(SLOT) == "1", 60)
    yield
    maft.kube.delete("PriorityClass", None, "e2e-urgent")
    maft.kube.merge_status("Node", None, name, {"status": {"capacity": {SLOT: None}}})


def test_preemption_does_not_count(maft, runs, slot):
    """A pod that has to make room for a more important one: the run waits, and its next pod starts when there is room again."""
    kube = maft.kube
    kube.apply(maft.resource("preempted", runs, backoffLimit=0, **on("debate", command=SLEEP, resources={"limits": {SLOT: "1"}})))

    def running(name: str = "") -> list[str]:
        pods = kube.list("Pod", runs, "maft.dev/run=preempted")
        return [p["metadata"]["name"] for p in pods if p["status"]["phase"] == "Running" and p["metadata"]["name"] != name]

    (first,) = kube.wait(running, LIMIT + STARTUP, lambda: kube.explain(runs, "preempted"))
    pod = maft.restricted_pod(runs, "urgent", SLEEP, resources={"limits": {SLOT: "1"}})
    pod["spec"]["priorityClassName"] = "e2e-urgent"
    kube.apply(pod)
    expect(maft, runs, "preempted", "Progressing", reasons.UNSCHEDULABLE, SLOT, LIMIT + 60)
    assert kube.get("Pod", runs, "urgent")["spec"]["nodeName"], "the pod that took the place has none"
    kube.delete("Pod", runs, "urgent", grace=0)
    kube.wait(lambda: running(first), LIMIT + STARTUP, lambda: kube.explain(runs, "preempted"))
    assert not kube.is_true(runs, "preempted", "Failed")
    (job,) = kube.list("Job", runs, "maft.dev/run=preempted")
    assert not job["status"].get("failed")
    kube.delete("MultiAgentFinetune", runs, "preempted")


def test_a_server_that_keeps_ending(maft, runs):
    """vLLM's container ends with code 3 each time: CrashLoop while an attempt is left, then the run fails and the server goes."""
    kube = maft.kube
    spec = on("inference", command=["python3", "-c", "print('no luck'); raise SystemExit(3)"])
    kube.apply(maft.resource("crash", runs, backoffLimit=1, **spec))
    expect(maft, runs, "crash", "Failed", reasons.CRASH_LOOP, "no luck", SERVER)
    kube.wait(lambda: not kube.list("Pod", runs, "maft.dev/run=crash,app.kubernetes.io/component=serve"), 60)


def test_a_server_with_a_flag_that_vllm_does_not_know(maft, runs):
    """vLLM ends with exit code 2: that never heals, so the run fails at once."""
    maft.kube.apply(maft.resource("flag", runs, inference={"extraArgs": ["--no-such-flag"]}))
    expect(maft, runs, "flag", "Failed", reasons.INPUT_INVALID, "--no-such-flag", SERVER)


class Hub(BaseHTTPRequestHandler):
    """A model hub whose only model is gated, as huggingface_hub's error classes expect it to say so."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to model org/gated is restricted and you are not in the authorized list.")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_) -> None:
        """Nothing."""


def test_a_gated_model(maft, runs, host_address):
    server = ThreadingHTTPServer((host_address, 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        hub = [{"name": "HF_ENDPOINT", "value": f"http://{host_address}:{server.server_port}"}]
        maft.kube.apply(maft.resource("gated", runs, model={"source": "org/gated"}, **on("debate", env=hub)))
        expect(maft, runs, "gated", "Failed", reasons.MODEL_GATED, "gated", 90)
    finally:
        server.shutdown()


@pytest.fixture
def host_address(maft: Installed) -> str:
    """An address of this process that pods reach."""
    if not maft.cluster.host_address:
        pytest.skip("the cluster is not the project's own: its pods may not reach this machine")
    return maft.cluster.host_address


def test_a_right_that_is_missing_meanwhile(maft, runs):
    """The status names the right and the resource; with the right back, the run goes on by itself."""
    role = maft.kube.get("ClusterRole", None, "maft-operator")
    without = [rule for rule in role["rules"] if rule["resources"] != ["jobs"]]
    watching = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list", "watch"]}
    maft.kube.merge("ClusterRole", None, "maft-operator", {"rules": [*without, watching]})
    try:
        maft.kube.apply(maft.resource("forbidden", runs))
        expect(maft, runs, "forbidden", "Progressing", reasons.FORBIDDEN, 'cannot patch resource "jobs"', LIMIT)
    finally:
        maft.kube.merge("ClusterRole", None, "maft-operator", {"rules": role["rules"]})
    maft.kube.wait(lambda: maft.kube.get("Job", runs, "forbidden-0-prepare"), LIMIT)
    maft.kube.delete("MultiAgentFinetune", runs, "forbidden")


def test_without_a_bucket_a_run_is_not_accepted(maft, runs):
    resource = maft.resource("bucketless", runs)
    del resource["spec"]["storage"]
    maft.kube.apply(resource)
    expect(maft, runs, "bucketless", "Accepted", reasons.INVALID_SPEC, "spec.storage: missing", LIMIT)
    assert not maft.kube.list("Job", runs, "maft.dev/run=bucketless")


def test_a_resource_of_another_schema_is_left_alone(maft, runs):
    """As after a downgrade: the API server knows a value that this operator does not."""
    crd = maft.kube.get("CustomResourceDefinition", None, "multiagentfinetunes.maft.dev")
    newer = copy.deepcopy(crd["spec"])
    spec = newer["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["training"]["properties"]["method"]["enum"].append("telepathy")
    maft.kube.merge("CustomResourceDefinition", None, "multiagentfinetunes.maft.dev", {"spec": newer})
    try:
        maft.kube.wait(lambda: created(maft, maft.resource("newer", runs, training={"method": "telepathy"})), 30)
        expect(maft, runs, "newer", "Accepted", reasons.INVALID_SPEC, "training.method", LIMIT)
        assert not maft.kube.list("Job", runs, "maft.dev/run=newer")
        maft.kube.delete("MultiAgentFinetune", runs, "newer")
    finally:
        maft.kube.merge("CustomResourceDefinition", None, "multiagentfinetunes.maft.dev", {"spec": crd["spec"]})


def created(maft: Installed, resource: Json) -> bool:
    """The API server takes a moment to follow its CRD."""
    try:
        maft.kube.apply(resource)
    except UnprocessibleEntityError:
        return False
    return True


def test_node_loss_does_not_count(maft, runs, lost):
    """What ran on a node that went is begun again, and used up no attempt: there was none."""
    kube = maft.kube

    def begun_again() -> list[str]:
        pods = kube.list("Pod", runs, "maft.dev/child=lost-0-prepare")
        return [p["metadata"]["name"] for p in pods if p["metadata"]["name"] != lost and p["status"]["phase"] == "Pending"]

    kube.wait(begun_again, 120, lambda: kube.explain(runs, "lost"))
    expect(maft, runs, "lost", "Progressing", reasons.UNSCHEDULABLE, "node", LIMIT)
    assert not kube.is_true(runs, "lost", "Failed")
    (job,) = kube.list("Job", runs, "maft.dev/run=lost")
    assert not job["status"].get("failed")


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_a_node_that_is_not_heard_of_is_named_and_the_run_goes_on_once_it_is_back(maft, namespace):
    """Its pods may still work, so nothing takes their place. The kubelet of the whole cluster stands still: no test of the gate."""
    kube = maft.kube
    kube.apply(maft.resource("silent", namespace, **maft.mocked()))

    def serving() -> list[str]:
        pods = kube.list("Pod", namespace, "maft.dev/run=silent,app.kubernetes.io/component=serve")
        return [pod["metadata"]["uid"] for pod in pods if holds(pod, "Ready")]

    there = kube.wait(serving, SERVER, lambda: kube.explain(namespace, "silent"))
    with Daemons().paused("kubelet"):
        expect(maft, namespace, "silent", "Progressing", reasons.NODE_LOST, "is not heard of", 240.0)
        assert serving() == [] and not kube.is_true(namespace, "silent", "Failed")
    status = kube.wait_complete(namespace, "silent", 600.0)
    assert status["phase"] == "Complete"
    servers = {
        pod["metadata"]["uid"] for pod in kube.list("Pod", namespace, "maft.dev/run=silent,app.kubernetes.io/component=serve")
    }
    assert servers <= {*there}, "nothing took its place"
