"""maft on a cluster as a user has it: the images, the CRD, the operator as a pod under its own rights, a bucket with the model."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import helm
import pytest
import small
from botocore.config import Config
from clusters import Cluster, own
from kube import Json, Kube, holds
from small import MOCK, ROOT, TINY

SYSTEM = "maft-system"
BUCKET = "maft-tests"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}  # what that level asks of a container
POD_CONFINED = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}  # and of a pod
MODEL_FILES = [p for p in TINY.iterdir() if p.suffix in (".json", ".jinja", ".safetensors", ".jsonl")]


@dataclass(frozen=True)
class Installed:
    """The operator in a cluster. images: PREFIX and TAG of the workload images."""

    kube: Kube
    cluster: Cluster
    images: str
    tag: str

    @property
    def objects(self) -> Any:
        """A boto3 client of the cluster's S3 server."""
        return s3_client(self.cluster)

    def url(self, key: str) -> str:
        """Of an object in the test bucket, as resources name it."""
        return f"s3://{BUCKET}/{key}?endpoint={self.cluster.s3_endpoint}&region=us-east-1"

    def keys(self, namespace: str, name: str) -> list[str]:
        """What a run has left in the bucket."""
        pages = self.objects.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"runs/{namespace}/{name}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.objects.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def resource(self, name: str, namespace: str, **spec: Any) -> Json:
        """A small run of the demo's world on this cluster."""
        here: Json = {
            "model": {"source": self.url("tiny")},
            "task": {"source": self.url("tiny/questions.jsonl")},
            "training": {"gpus": 0},
            "inference": {"gpus": 0},
            "storage": {
                "bucket": BUCKET,
                "prefix": "runs",
                "endpoint": self.cluster.s3_endpoint,
                "region": "us-east-1",
                "credentialsSecret": {"name": "s3"},
            },
        }
        made = small.resource(name, base=here, **spec)
        return {**made, "metadata": {"name": name, "namespace": namespace}}

    def mocked(self, latency: float = 0.0, slots: int = 1_000_000) -> Json:
        """The podTemplate and image that put the deterministic engine in vLLM's place, through the fields that users have.
        latency: seconds of an answer; slots: answers at a time."""
        variables = {"MOCK_HOST": "0.0.0.0", "MOCK_LATENCY": latency, "MOCK_SLOTS": slots}
        container = {
            "name": "inference",
            "command": ["python3", "/mock/mock_engine.py"],
            "env": [{"name": k, "value": str(v)} for k, v in variables.items()],
            "volumeMounts": [{"name": "mock", "mountPath": "/mock"}],
            "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}},  # it is no vLLM, and a node has many of them
        }
        volume = {"name": "mock", "configMap": {"name": "mock-engine"}}
        return {
            "inference": {"image": f"{self.images}/debate:{self.tag}"},
            "podTemplate": {"spec": {"containers": [container], "volumes": [volume]}},
        }

    def restricted_pod(
        self, namespace: str, name: str, command: list[str], labels: Json | None = None, /, **container: Any
    ) -> Json:
        """A pod of somebody's own that the level `restricted` lets in, of the image of debates. container: fields of it."""
        image = f"{self.images}/debate:{self.tag}"
        one = {"name": name, "image": image, "command": command, "securityContext": CONFINED, **container}
        spec = {"restartPolicy": "Never", "containers": [one], "securityContext": POD_CONFINED}
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def operator_pods(self) -> list[Json]:
        return [p for p in self.kube.list("Pod", SYSTEM, "app.kubernetes.io/name=maft-operator") if not gone(p)]

    def kill_operator(self) -> None:
        """SIGKILL: no grace at all."""
        for pod in self.operator_pods():
            self.kube.delete("Pod", SYSTEM, pod["metadata"]["name"], grace=0)

    def scale_operator(self, replicas: int) -> None:
        self.kube.merge("Deployment", SYSTEM, "maft-operator", {"spec": {"replicas": replicas}})
        self.kube.wait(lambda: self._ready() == replicas, 90, self.operator_log)

    def _ready(self) -> int:
        deployment = self.kube.get("Deployment", SYSTEM, "maft-operator") or {}
        status = deployment.get("status", {})
        current = status.get("observedGeneration") == deployment["metadata"]["generation"]
        pods = len(self.operator_pods())
        return int(status.get("availableReplicas") or 0) if current and pods == deployment["spec"]["replicas"] else -1

    def operator_log(self) -> str:
        return "\n".join(self.kube.log(SYSTEM, p["metadata"]["name"], 60) for p in self.operator_pods())


def gone(thing: Json) -> bool:
    return "deletionTimestamp" in thing["metadata"]


def s3_client(cluster: Cluster) -> Any:
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2})
    session = boto3.Session(cluster.s3_access_key, cluster.s3_secret_key, region_name="us-east-1")
    return session.client("s3", endpoint_url=cluster.s3_endpoint, config=config)


def install(maft: Installed, chart: Path = helm.CHART, **values: Any) -> None:
    """The chart as its users install it, in maft-system with the images under test; waits until the operator is ready."""
    maft.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": RESTRICTED}})
    if (deployment := maft.kube.get("Deployment", SYSTEM, "maft-operator")) and not of_helm(deployment):
        maft.kube.delete("Deployment", SYSTEM, "maft-operator")  # somebody's kubectl apply -f deploy/operator.yaml
    # --take-ownership: the CustomResourceDefinition may be left from another release.
    flags = ["--install", "--take-ownership", "--wait", "--timeout", "120s"]
    own = {"images": {"prefix": maft.images, "tag": maft.tag}, "crds": {"install": True}}
    helm_here(maft, "upgrade", "maft", str(chart), *flags, values={**own, **values})
    maft.kube.wait(lambda: served(maft.kube), 30)
    maft.kube.wait(lambda: maft._ready() == values.get("replicas", 1), 90, maft.operator_log)


def of_helm(deployment: Json) -> bool:
    return deployment["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "Helm"


def helm_here(maft: Installed, *arguments: str, namespace: str = SYSTEM, values: Json | None = None) -> str:
    """`helm ARGUMENTS` on the cluster; its output."""
    flags = ["--kubeconfig", str(maft.kube.kubeconfig), "--namespace", namespace]
    return helm.run(*arguments, *flags, values=values)


@pytest.fixture(scope="session", name="pushed")
def pushed_fixture(cluster: Cluster) -> tuple[str, str]:
    if not cluster.registry:
        pytest.skip("needs the project's own cluster: of another one neither a registry nor a bucket is known")
    return push()


def push() -> tuple[str, str]:
    """PREFIX and TAG of the images of these sources, in the cluster's registry; they are built before (prepare.py)."""
    command = [sys.executable, str(ROOT / "tests" / "support" / "cluster" / "images.py"), "--engine=buildah", "--push"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    name = json.loads((ROOT / ".cache" / "images.json").read_text())["operator"]
    prefix, _, tag = name.rpartition(":")
    return prefix.removesuffix("/operator"), tag


@pytest.fixture(scope="session", name="maft")
def maft_fixture(cluster: Cluster, pushed: tuple[str, str]) -> Iterator[Installed]:
    """The operator, running, and the demo's model in a bucket."""
    kube = Kube(Path(cluster.kubeconfig))
    installed = Installed(kube, cluster, *pushed)
    with _first_worker() as first:
        if first:
            upload(installed)
            install(installed)
    yield installed


def on_this_machine() -> Installed:
    """The same for programs: on the project's own cluster, which is up."""
    cluster = own()
    installed = Installed(Kube(Path(cluster.kubeconfig)), cluster, *push())
    upload(installed)
    install(installed)
    return installed


@contextlib.contextmanager
def _first_worker() -> Iterator[bool]:
    """Whether no other worker of this test session has been here; one at a time. What one has installed, the other finds."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    with (ROOT / ".cache" / "installed-by").open("a+") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        note.seek(0)
        first = not session or note.read() != session
        yield first
        if first:  # not where installing has failed: the other worker tries again, and says so too
            note.truncate(0)
            note.write(session)


def served(kube: Kube) -> bool:
    return holds(kube.get("CustomResourceDefinition", None, "multiagentfinetunes.maft.dev"), "Established")


def upload(installed: Installed) -> None:
    client = installed.objects
    if BUCKET not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    for path in MODEL_FILES:
        client.put_object(Bucket=BUCKET, Key=f"tiny/{path.name}", Body=path.read_bytes())


@pytest.fixture(name="namespace")
def namespace_fixture(maft: Installed) -> Iterator[str]:
    """A namespace that enforces `restricted`, with the Secret and the mock engine; deleted in the background."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    make_namespace(maft, name)
    yield name
    maft.kube.delete("Namespace", None, name)


def make_namespace(maft: Installed, name: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": maft.cluster.s3_access_key, "AWS_SECRET_ACCESS_KEY": maft.cluster.s3_secret_key}
    maft.kube.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": name}, "stringData": keys},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "mock-engine", "namespace": name},
            "data": {"mock_engine.py": MOCK.read_text()},
        },
    )
