"""`spec.export` on a real cluster: a real MLflow server that is away until the run is over, and a real registry."""

import json
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import locked_tool
import pytest
from conftest import free_port, serving
from installed import Installed, make_namespace
from kube import Json
from test_export_mlflow import read_back

pytestmark = [pytest.mark.cluster, pytest.mark.tools, pytest.mark.nightly, pytest.mark.timeout(1200)]
LIMIT = 600.0  # seconds for a small run on two busy cores
AGAIN = 300.0  # until Kubernetes has tried again
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module", name="port")
def port_fixture() -> int:
    """Where the tracker will be."""
    return free_port()


@pytest.fixture(scope="module", name="complete")
def complete_fixture(maft: Installed, port: int) -> Iterator[str]:
    """The namespace of a run `r` that is complete though its tracker is away."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    make_namespace(maft, namespace)
    kube = maft.kube
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokens", "namespace": namespace}}
    kube.apply({**secret, "stringData": {"token": "t", ".dockerconfigjson": json.dumps({"auths": {}})}})
    targets = [
        {"to": "mlflow", "address": f"http://{maft.cluster.host_address}:{port}#ours", "tokenSecret": {"name": "tokens"}},
        {
            "to": "oci",
            "address": f"http://{maft.cluster.registry}/{namespace}/agents:v1",
            "tokenSecret": {"name": "tokens", "key": ".dockerconfigjson"},
        },
    ]
    kube.apply(maft.resource("r", namespace, agents=2, iterations=1, export=targets, **maft.mocked()))
    kube.wait_complete(namespace, "r", LIMIT)
    yield namespace
    kube.delete("Namespace", None, namespace)


def rows(maft: Installed, namespace: str) -> dict[str, Json]:
    return {row["to"]: row for row in maft.kube.status(namespace, "r").get("exports", [])}


def sent(maft: Installed, namespace: str, to: str) -> bool:
    row = rows(maft, namespace).get(to, {})
    return row.get("phase") == "Sent" and row.get("last") is True


def explain(maft: Installed, namespace: str) -> str:
    return f"{rows(maft, namespace)}\n{maft.kube.explain(namespace, 'r')}"


def test_the_run_is_complete_and_says_that_its_tracker_is_away(maft: Installed, complete: str) -> None:
    tracker = rows(maft, complete)["mlflow"]
    assert tracker["phase"] in ("Retrying", "Sending")
    maft.kube.wait(lambda: "is away" in rows(maft, complete)["mlflow"].get("message", ""), AGAIN, lambda: explain(maft, complete))
    assert maft.kube.condition(complete, "r", "Complete")["status"] == "True"
    assert maft.kube.condition(complete, "r", "Stalled")["status"] == "False"


def test_a_registry_has_the_adapters(maft: Installed, complete: str) -> None:
    maft.kube.wait(lambda: sent(maft, complete, "oci"), AGAIN, lambda: explain(maft, complete))
    url = f"http://{maft.cluster.registry}/v2/{complete}/agents/manifests/v1"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFEST}), timeout=30) as answer:
        digest, manifest = answer.headers["Docker-Content-Digest"], json.loads(answer.read())
    files = {layer["annotations"]["org.cncf.model.filepath"] for layer in manifest["layers"]}
    assert {"generator-1/adapter_model.safetensors", "critic-2/adapter_config.json"} <= files
    assert rows(maft, complete)["oci"]["message"].endswith(f"@{digest}")


def test_a_tracker_that_comes_back_gets_all(maft: Installed, complete: str, port: int, tmp_path: Path) -> None:
    locked_tool.install("mlflow")
    packages = {"PYTHONPATH": str(locked_tool.folder("mlflow"))}
    line = [sys.executable, "-m", "mlflow", "server", "--host=0.0.0.0", f"--port={port}", "--workers=1", "--allowed-hosts=*"]
    line += [f"--backend-store-uri=sqlite:///{tmp_path}/db.sqlite", f"--artifacts-destination={tmp_path}/artifacts"]
    with serving(line, port, tmp_path / "log.txt", 300, MLFLOW_DISABLE_TELEMETRY="true", **packages) as url:
        maft.kube.wait(lambda: sent(maft, complete, "mlflow"), AGAIN, lambda: explain(maft, complete))
        run = read_back(url, "ours", packages)["r"]
    assert run["status"] == "FINISHED" and run["params"]["maft.run"] == f"{complete}/r"
    assert [step for step, _ in run["metrics"]["accuracy/debate"]] == [0, 1]
    assert "report/index.html" in run["files"]


def test_nothing_of_an_export_is_left_but_its_last_job(maft: Installed, complete: str) -> None:
    jobs = [job["metadata"]["name"] for job in maft.kube.list("Job", complete, "app.kubernetes.io/component=export")]
    assert len(jobs) == 2 and all("-last-export-" in name for name in jobs)
