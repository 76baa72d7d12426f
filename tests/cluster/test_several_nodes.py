"""A training over two nodes on the cluster: pods of one Job that hold a base together (gloo, on CPUs), and one that is lost."""

import json
from pathlib import Path

import pytest
import torch
from installed import Installed
from kube import Json
from safetensors.torch import load, load_file
from small import TINY, a_spec

from maft import adapters
from maft.program import Assignment
from maft.store import layout
from maft.store.files import FileStore
from maft.train import __main__ as train
from maft.train.workers import Started

# The programs: test_sharded.py; their Jobs: test_manifests.py.
pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(900)]
LIMIT = 400.0  # seconds, on two busy cores
SPEC: Json = {"agents": 2, "iterations": 1, "debate": {"critics": False}, "evaluation": {"baselines": []}}
TRAINING: Json = {"epochs": 6, "gpus": 0}
CHILD = "nodes-1-train"


def pods(maft: Installed, namespace: str) -> list[Json]:
    return maft.kube.list("Pod", namespace, f"maft.dev/child={CHILD}")


def index(pod: Json) -> int:
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def trained(maft: Installed, namespace: str) -> Json | None:
    """The Job of the training, as soon as all its pods have ended well."""
    job = maft.kube.get("Job", namespace, CHILD)
    return job if job and job["status"].get("succeeded") == 2 else None


def have_met(maft: Installed, namespace: str) -> list[Json]:
    """The pods of a training whose second one was told by the first that all are there; none yet otherwise."""
    running = [pod for pod in pods(maft, namespace) if pod["status"]["phase"] == "Running"]
    second = next((pod for pod in running if index(pod) == 1), None)
    if second is None or len(running) < 2:
        return []
    said = maft.kube.log(namespace, second["metadata"]["name"])
    return running if "nodes: this is 1, all 2 are here" in said else []


def committed(maft: Installed, namespace: str, name: str) -> dict[str, Json]:
    """Commits of adapters by their folder."""
    keys = [key for key in maft.keys(namespace, name) if "/adapters/" in key and key.endswith("_COMMIT.json")]
    return {key.split("/")[-2]: json.loads(maft.read(key)) for key in keys}


def trained_here(maft: Installed, namespace: str, folder: Path) -> dict[str, list[float]]:
    """What one process makes of the same datasets on this machine, into `folder`: the loss curve of each adapter."""
    curves = {}
    for key in maft.keys(namespace, "nodes"):
        if "/datasets/" in key:
            path = folder / key.removeprefix("runs/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(maft.read(key))
    spec = a_spec(**{**SPEC, "model": {"source": str(TINY)}, "training": TRAINING})
    for agent in range(2):
        curves[f"generator-{agent}"] = []
        alone = Assignment(store=FileStore(folder), run=f"{namespace}/nodes", given_spec=spec, iteration=1, agents=(agent,), gpus=0)
        train.main(alone, Started(report=curves[f"generator-{agent}"].append))
    return curves


def test_a_lost_pod_takes_the_other_along_and_the_result_is_one_processs(maft: Installed, namespace: str, tmp_path: Path) -> None:
    kube = maft.kube
    several = {**TRAINING, "parallelism": "Sharded", "nodes": 2}
    kube.apply(maft.resource("nodes", namespace, **{**SPEC, **maft.mocked(), "training": several}))
    met = kube.wait(lambda: have_met(maft, namespace), LIMIT, lambda: kube.explain(namespace, "nodes"))
    first, second = sorted(met, key=index)
    kube.delete("Pod", namespace, second["metadata"]["name"], grace=0)
    job = kube.wait(lambda: trained(maft, namespace), LIMIT, lambda: kube.explain(namespace, "nodes"))
    assert job["status"]["completedIndexes"] == "0,1" and job["spec"]["completionMode"] == "Indexed"
    ends = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in pods(maft, namespace)}
    assert ends[first["metadata"]["name"]]["exitCode"] == 75, ends
    assert "node 1 is lost" in ends[first["metadata"]["name"]]["message"]
    assert int(job["status"].get("failed", 0)) <= 1  # the one that was killed; who ends with it costs no attempt

    curves = trained_here(maft, namespace, tmp_path)  # while the run goes on
    status = kube.wait_complete(namespace, "nodes", LIMIT)
    assert status["iterations"][-1]["trained"] == 2
    commits = committed(maft, namespace, "nodes")
    assert set(commits) == set(curves)
    for name, curve in curves.items():
        made = commits[name]["meta"]["adapter"]
        assert made["steps"] == len(curve) > 3
        tenth = max(1, len(curve) // 10)
        assert made["lossFirst"] == pytest.approx(sum(curve[:tenth]) / tenth, abs=1e-4)
        assert made["lossLast"] == pytest.approx(sum(curve[-tenth:]) / tenth, abs=1e-4)
        prefix = layout.adapter(f"{namespace}/nodes", 1, "generator", int(name[-1]))
        theirs = load(maft.read(f"runs/{prefix}/{adapters.WEIGHTS}"))
        ours = load_file(tmp_path / prefix / adapters.WEIGHTS)
        assert theirs.keys() == ours.keys()
        for layer, weight in ours.items():
            torch.testing.assert_close(theirs[layer], weight, rtol=1e-2, atol=1e-4)
