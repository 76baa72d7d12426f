"""The chart's ValidatingAdmissionPolicy at a real API server: what it lets through, what it refuses, and with which line."""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from helm import rendered
from kube_objects import STORAGE
from small import resource

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
HERE: Json = {"model": {"source": "org/model"}, "task": {"kind": "gsm8k", "source": "", "prompt": "{question}"}, "storage": STORAGE}
STRICT: Json = {
    "enabled": True,
    "exemptNamespaces": ["free", "own"],
    "imagePrefixes": ["r.io/ml/", "r.io/maft/inference@"],
    "endpointHosts": ["s3", ".storage.svc"],
}
OWN: Json = {
    "enabled": True,
    "trustRemoteCode": True,
    "podTemplate": {
        "specFields": ["containers", "volumes", "initContainers"],
        "sidecars": True,
        "containerFields": ["name", "image"],
    },
    "vllmFlags": ["--dtype", "--trust-remote-code"],
}


class Server:
    """Requests of the administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._tls = ssl.create_default_context(cafile=str(plane.authority))

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        headers = {"Authorization": f"Bearer {self._plane.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._plane.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._tls) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else {"message": text}

    def make(self, path: str, body: Json) -> None:
        code, answer = self.ask("POST", path, body)
        assert code == 201, answer

    def create(self, namespace: str = "default", **spec: Any) -> str:
        """Creates a run, but for the last step: what the API server says against it, empty where it is accepted."""
        whole = resource("r", **{**HERE, **spec})
        code, answer = self.ask("POST", f"{runs(namespace)}?dryRun=All&fieldValidation=Strict", whole)
        return "" if code == 201 else str(answer["message"])


def runs(namespace: str) -> str:
    return f"/apis/maft.dev/v1alpha1/namespaces/{namespace}/multiagentfinetunes"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with the definition, and the policies of two releases: one for all namespaces but some, one for `own` alone."""
    folder: Path = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as plane:
        found = Server(plane)
        for name in ("free", "own"):
            found.make("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        crd = yaml.safe_load((ROOT / "crds" / "multiagentfinetunes.yaml").read_text())
        found.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        wait(lambda: not found.create(namespace="free"), found.create("free"))
        for release, values in (("maft", {"admission": STRICT}), ("own", {"admission": OWN, "namespaces": ["own"]})):
            for made in rendered(values, release=release):
                if made["kind"].startswith("ValidatingAdmissionPolicy"):
                    found.make(POLICIES + ("ybindings" if made["kind"].endswith("Binding") else "ies"), made)
        wait(lambda: found.create(model={"trustRemoteCode": True}), "the policy is not in force")
        wait(lambda: found.create("own", podTemplate={"spec": {"hostPID": True}}), "the other policy is not in force")
        yield found


def wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def pod(**spec: Any) -> Json:
    return {"podTemplate": {"spec": spec}}


def container(name: str = "trainer", **fields: Any) -> Json:
    return pod(containers=[{"name": name, **fields}])


ENV = [{"name": "NCCL_DEBUG", "value": "INFO"}]
ALLOWED: dict[str, Json] = {
    "nothing special": {},
    "where pods run": pod(
        nodeSelector={"gpu": "a"}, tolerations=[{"operator": "Exists"}], priorityClassName="low", imagePullSecrets=[]
    ),
    "labels": {"podTemplate": {"metadata": {"labels": {"team": "a"}}}},
    "an empty template": {"podTemplate": {}},
    "resources and variables": container(resources={"requests": {"cpu": "1"}}, env=ENV),
    "an image of theirs": {"inference": {"image": "r.io/ml/vllm:1"}},
    "a host below": {"storage": {**STORAGE, "endpoint": "https://MinIO.storage.svc:9000"}},
    "a model in a bucket": {"model": {"source": "s3://b/m?endpoint=http://s3:9000&region=x"}},
    "flags": {"inference": {"extraArgs": ["--dtype", "float32", "--max-num-seqs=4"]}},
}
REFUSED: dict[str, tuple[Json, str]] = {
    "an endpoint twice, of a bucket with the name of a host": (
        {"model": {"source": "s3://s3/m?endpoint=http://evil&endpoint=http://evil"}},
        "may not be used here, only s3, .storage.svc",
    ),
    "no endpoint, of a bucket with the name of a host": (
        {"model": {"source": "s3://s3/m?region=x"}},
        "https://amazonaws.com may not be used here",
    ),
    "a second endpoint that Go does not read": (
        {"model": {"source": "s3://b/m?endpoint=http://s3&endpoint=http://evil/;"}},
        "may not be used here",
    ),
    "a second endpoint with a wrong escape": (
        {"model": {"source": "s3://b/m?endpoint=http://s3&endpoint=http://evil/%zz"}},
        "may not be used here",
    ),
    "white space before a URL": (
        {"task": {**HERE["task"], "kind": "jsonl", "source": " s3://b/x.jsonl?endpoint=http://evil"}},
        "may not be used here",
    ),
    "white space in a URL": (
        {"task": {**HERE["task"], "kind": "jsonl", "source": "s\t3://b/x.jsonl?endpoint=http://evil"}},
        "may not be used here",
    ),
    "a plugin of NCCL": (
        container(env=[{"name": "NCCL_NET_PLUGIN", "value": "/cache/maft/models/x/model.safetensors"}]),
        "the variable NCCL_NET_PLUGIN may not be set here",
    ),
    "a library of CUDA": (
        container(env=[{"name": "CUDA_INJECTION64_PATH", "value": "/cache/x"}]),
        "the variable CUDA_INJECTION64_PATH may not be set here",
    ),
    "annotations that give roles": (
        {"podTemplate": {"metadata": {"annotations": {"iam.amazonaws.com/role": "admin"}}}},
        "the annotation iam.amazonaws.com/role may not be set here",
    ),
    "labels of another run": (
        {"podTemplate": {"metadata": {"labels": {"maft.dev/run": "other"}}}},
        "the label maft.dev/run may not be set here",
    ),
    "no labels": ({"podTemplate": {"metadata": {"labels": None}}}, "spec.podTemplate: metadata.labels may not be set here"),
    "no metadata": ({"podTemplate": {"metadata": None}}, "spec.podTemplate: metadata may not be set here"),
    "other metadata": (
        {"podTemplate": {"metadata": {"finalizers": ["a/b"]}}},
        "spec.podTemplate: metadata.finalizers may not be set",
    ),
    "the node's network": (pod(hostNetwork=True), "spec.podTemplate: hostNetwork may not be set here; leave it out"),
    "an account and a volume": (
        pod(serviceAccountName="admin", volumes=[{"name": "h", "hostPath": {"path": "/"}}]),
        "may not be set here; leave it out, or ask who installed maft (admission.podTemplate.specFields)",
    ),
    "init containers": (pod(initContainers=[{"name": "trainer"}]), "initContainers may not be set here"),
    "a directive of the merge": (pod(**{"$patch": "replace"}), "spec.podTemplate: $patch may not be set here"),
    "a directive above": ({"podTemplate": {"$patch": "replace"}}, "spec.podTemplate: $patch may not be set here"),
    "a sidecar": (container("proxy"), "the container proxy is none of debate, trainer, inference; leave it out"),
    "privileges": (container(securityContext={"privileged": True}), "securityContext may not be set of a container here"),
    "a command": (container(command=["sh"], args=["-c"]), "may not be set of a container here"),
    "a variable from a Secret": (
        container(env=[{"name": "NCCL_X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "spec.podTemplate: the variable NCCL_X may not be set here",
    ),
    "another hub": (container(env=[*ENV, {"name": "HF_ENDPOINT", "value": "http://x"}]), "the variable HF_ENDPOINT may not be set"),
    "code by a variable": (container(env=[{"name": "PYTHONPATH", "value": "/x"}]), "the variable PYTHONPATH may not be set"),
    "an image of others": (
        {"inference": {"image": "r.io/mlx/vllm:1"}},
        "the image r.io/mlx/vllm:1 may not be used here, only r.io/ml/, r.io",
    ),
    "a bucket elsewhere": (
        {"storage": {**STORAGE, "endpoint": "http://evil:9000"}},
        "an S3 server of http://evil:9000 may not be used here",
    ),
    "a host that only looks so": (
        {"storage": {**STORAGE, "endpoint": "http://xstorage.svc"}},
        "may not be used here, only s3, .storage.svc",
    ),
    "Amazon's": (
        {"storage": {k: v for k, v in STORAGE.items() if k != "endpoint"} | {"endpoint": None}},
        "https://amazonaws.com may not be used",
    ),
    "a model elsewhere": ({"model": {"source": "s3://b/m?endpoint=http://evil"}}, "http://evil may not be used here"),
    "questions in capitals": (
        {"task": {**HERE["task"], "kind": "jsonl", "source": "S3://b/x.jsonl?endpoint=http://evil"}},
        "may not be used here",
    ),
    "a model of Amazon's": ({"model": {"source": "s3://b/m"}}, "https://amazonaws.com may not be used here"),
    "two endpoints": ({"model": {"source": "s3://b/m?endpoint=http://s3&endpoint=http://evil"}}, "may not be used here"),
    "an escaped endpoint": ({"model": {"source": "s3://b/m?%65ndpoint=http://evil"}}, "may not be used here"),
    "questions elsewhere": (
        {"task": {"kind": "jsonl", "source": "s3://b/q?endpoint=http://evil", "prompt": "{question}"}},
        "http://evil may not be used here",
    ),
    "a user in the address": ({"model": {"source": "s3://b/m?endpoint=http://s3@evil"}}, "may not be used here"),
    "remote code": ({"model": {"trustRemoteCode": True}}, "spec.model.trustRemoteCode: may not be true here; leave it out"),
    "remote code by a flag": (
        {"inference": {"extraArgs": ["--trust-remote-code", "--dtype=auto"]}},
        "spec.inference.extraArgs: --trust-remote-code may not be given here",
    ),
    "in another spelling": ({"inference": {"extraArgs": ["--trust_remote_code"]}}, "--trust_remote_code may not be given here"),
    "code by a flag": ({"inference": {"extraArgs": ["--middleware=os.system"]}}, "--middleware=os.system may not be given here"),
    "a flag that begins as one": ({"inference": {"extraArgs": ["--dtypes"]}}, "--dtypes may not be given here"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_passes(server: Server, case: str) -> None:
    assert server.create(**ALLOWED[case]) == ""


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_is_refused_in_one_line_that_says_what_and_whom_to_ask(server: Server, case: str) -> None:
    spec, line = REFUSED[case]
    said = server.create(**spec)
    assert line in said and "\n" not in said
    assert "or ask who installed maft (admission." in said
    assert server.create("free", **spec) == ""  # exempt


def test_of_another_release_in_its_namespaces_other_things_are_allowed(server: Server) -> None:
    volume = {"name": "v", "emptyDir": {}}
    assert server.create("own", **pod(volumes=[volume], containers=[{"name": "proxy", "image": "x"}])) == ""
    assert server.create("own", model={"trustRemoteCode": True}, inference={"extraArgs": ["--trust-remote-code"]}) == ""
    assert server.create("own", storage={**STORAGE, "endpoint": "http://evil"}) == ""
    said = server.create("own", **pod(volumes=[volume, {"name": "root", "hostPath": {"path": "/"}}]))
    assert "the volume root is of a type that is not allowed here" in said
    assert "nodeSelector may not be set here" in server.create("own", **pod(nodeSelector={"a": "b"}))
    said = server.create("own", **pod(initContainers=[{"name": "i", "command": ["sh"]}]))
    assert "command may not be set of a container here" in said


def test_a_run_that_was_there_before_can_be_suspended_and_goes(server: Server) -> None:
    """Made where the policy does not hold, as before it came; then it holds."""
    code, made = server.ask("POST", runs("free"), resource("before", **{**HERE, **pod(hostNetwork=True)}))
    assert code == 201, made
    path = POLICIES + "ybindings/maft-operator-runs"
    _, binding = server.ask("GET", path)
    binding["spec"].pop("matchResources")
    assert server.ask("PUT", path, binding)[0] == 200
    wait(lambda: server.create("free", **pod(hostNetwork=True)), "not in force")
    made["spec"]["suspend"] = True
    code, suspended = server.ask("PUT", f"{runs('free')}/before", made)
    assert code == 200, suspended
    suspended["spec"]["podTemplate"]["spec"]["hostPID"] = True
    code, said = server.ask("PUT", f"{runs('free')}/before", suspended)
    assert code == 422, said
    assert server.ask("DELETE", f"{runs('free')}/before")[0] == 200
