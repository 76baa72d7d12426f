"""`spec.export` at a real API server, with the operator's own rights: Jobs beside the run, its status, and what is refused.

The server is one of our own, without controllers and nodes: Jobs end when the test says so.
"""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import helm
import pytest
import yaml
from committed import Bucket, put_run
from conftest import ROOT
from conftest import resource as small_resource
from kube_objects import STORAGE, writer
from kubernetes.aio.client import ApiClient, Configuration

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane
from stand_in import NAMESPACE, Cluster, connected

from maft import committed_run
from maft.export import kserve
from maft.export.target import Request
from maft_operator.cluster import conditions
from maft_operator.cluster.api import Api
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.manifests import COMPONENT, Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue

pytestmark = pytest.mark.cluster
HOMES = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
RUNS = f"/apis/maft.dev/v1alpha1/namespaces/{NAMESPACE}/multiagentfinetunes"
MLFLOW = {"to": "mlflow", "address": "http://mlflow:5000", "tokenSecret": {"name": "tokens"}}
OCI = {"to": "oci", "address": "registry:5000/team/agents:v1", "tokenSecret": {"name": "login", "key": ".dockerconfigjson"}}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder: Path = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as started:
        yield started


class Scene:
    """The server as its administrator asks it, and the reconciler of runs, which has the operator's rights."""

    def __init__(self, cluster: Cluster, client: ApiClient) -> None:
        self.cluster = cluster
        self._client = client

    async def install(self) -> None:
        await self.cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for file in ("crds/multiagentfinetunes.yaml", "deploy/operator.yaml"):
            for body in yaml.safe_load_all((ROOT / file).read_text()):
                if body["kind"] in HOMES and (body["kind"] != "CustomResourceDefinition" or file.startswith("crds")):
                    await self.cluster.ask("POST", HOMES[body["kind"]], body)
        await self.served(RUNS)

    async def served(self, path: str) -> None:
        """Waits until the API server knows a kind that it has been given."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(RuntimeError):
                    await self.cluster.ask("GET", path)
                    return
                await asyncio.sleep(0.1)

    async def look(self, name: str) -> float | None:
        """By an operator that has just started: it remembers nothing."""
        metrics = Metrics()
        keys = Keys(Queue(), metrics)
        api = Api(self._client, metrics)
        made = Controller(api, Images("r.io/maft", "1"), keys=keys, writer=writer(api, metrics))
        return await made.reconcile(f"{NAMESPACE}/{name}", keys.state(f"{NAMESPACE}/{name}"))

    async def run(self, name: str) -> Json:
        return await self.cluster.get("MultiAgentFinetune", name)

    async def jobs(self, name: str) -> dict[str, Json]:
        return {job["metadata"]["name"]: job for job in await self.cluster.labelled("Job", name)}

    async def exports(self, name: str) -> list[str]:
        return sorted(n for n, job in (await self.jobs(name)).items() if job["metadata"]["labels"][COMPONENT] == "export")

    async def work(self, name: str, until: str) -> None:
        """Ends every task that the operator makes, and none of its exports, until that task is done."""
        async with asyncio.timeout(120):
            while True:
                await self.look(name)
                for deployment in await self.cluster.labelled("Deployment", name):
                    await self.cluster.make_available(deployment["metadata"]["name"])
                for one, job in (await self.jobs(name)).items():
                    if job["metadata"]["labels"][COMPONENT] != "export" and not job["status"].get("conditions"):
                        await self.end(job)
                        if one == until:
                            await self.look(name)
                            return

    async def end(self, job: Json) -> None:
        await self.cluster.start_pod(job)
        await self.cluster.finish(job)

    async def rows(self, name: str) -> list[tuple[str, str, int, bool]]:
        rows = (await self.run(name))["status"].get("exports", [])
        return [(row["to"], row["phase"], row["iteration"], row["last"]) for row in rows]


@contextlib.asynccontextmanager
async def scene(plane: ControlPlane) -> AsyncIterator[Scene]:
    token = yaml.safe_load((plane.folder / "kubeconfig").read_text())["users"][0]["user"]["token"]
    settings = Configuration(host=plane.url, api_key={"authorization": f"Bearer {token}"})
    settings.ssl_ca_cert = str(plane.authority)
    async with ApiClient(settings) as client, connected(plane) as cluster:
        yield Scene(cluster, client)


def a_run(name: str, **spec: Any) -> Json:
    fields = {"agents": 2, "iterations": 2, "storage": STORAGE, "training": {"topology": "Shared"}, **spec}
    whole = small_resource(name, **fields)
    return {**whole, "metadata": {"name": name, "namespace": NAMESPACE}}


def test_a_run_and_its_exports_from_beginning_to_end(plane: ControlPlane) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.install()
        await stage.cluster.create("MultiAgentFinetune", a_run("r", export=[MLFLOW, OCI]))
        await stage.work("r", until="r-1-evaluate")
        first = await stage.exports("r")
        assert len(first) == 2 and await stage.rows("r") == [("mlflow", "Sending", 1, False), ("oci", "Sending", 1, False)]
        jobs = await stage.jobs("r")
        [mlflow] = [jobs[name] for name in first if "--to=mlflow=http://mlflow:5000" in str(jobs[name])]
        [oci] = [jobs[name] for name in first if jobs[name] != mlflow]
        await stage.cluster.start_pod(mlflow)
        await stage.cluster.fail(mlflow, "--to mlflow: http://mlflow:5000 is away: refused")
        await stage.end(oci)
        await stage.look("r")
        status = (await stage.run("r"))["status"]
        assert await stage.rows("r") == [("mlflow", "Retrying", 1, False), ("oci", "Sent", 1, False)]
        assert status["exports"][0]["message"] == "--to mlflow: http://mlflow:5000 is away: refused"
        [progressing] = [c for c in status["conditions"] if c["type"] == "Progressing"]
        assert (progressing["status"], progressing["reason"]) == ("True", "Working")

        await stage.work("r", until="r-2-report")  # though mlflow is away
        run = await stage.run("r")
        assert run["status"]["phase"] == "Complete" and not conditions.settled(run)
        assert await stage.rows("r") == [("mlflow", "Retrying", 1, False), ("oci", "Sending", 2, True)]
        await stage.cluster.finish(mlflow)  # it has come back
        await stage.end(next(job for name, job in (await stage.jobs("r")).items() if "last-export" in name))
        await stage.look("r")
        assert await stage.rows("r") == [("mlflow", "Sending", 2, True), ("oci", "Sent", 2, True)]
        [rest] = [
            job for job in (await stage.jobs("r")).values() if "last-export" in str(job) and not job["status"].get("conditions")
        ]
        await stage.end(rest)
        assert await stage.look("r") is None
        assert await stage.rows("r") == [("mlflow", "Sent", 2, True), ("oci", "Sent", 2, True)]
        assert conditions.settled(await stage.run("r")) and len(await stage.exports("r")) == 2

        version = (await stage.run("r"))["metadata"]["resourceVersion"]
        await stage.look("r")
        assert (await stage.run("r"))["metadata"]["resourceVersion"] == version

    play(plane, scenario)


def play(plane: ControlPlane, scenario: Any) -> None:
    async def inside() -> None:
        async with scene(plane) as stage:
            await scenario(stage)

    asyncio.run(inside())


def test_targets_come_and_go_while_the_run_goes_on(plane: ControlPlane) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.cluster.create("MultiAgentFinetune", a_run("s", export=[MLFLOW]))
        await stage.work("s", until="s-1-evaluate")
        [before] = await stage.exports("s")
        path = f"{RUNS}/s"
        await stage.cluster.ask("PATCH", path, {"spec": {"export": [OCI]}}, "application/merge-patch+json")
        await stage.look("s")
        [after] = [name for name, job in (await stage.jobs("s")).items() if name in await stage.exports("s") and _is_there(job)]
        assert after != before and await stage.rows("s") == [("oci", "Sending", 1, False)]

    play(plane, scenario)


def _is_there(job: Json) -> bool:
    return "deletionTimestamp" not in job["metadata"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"to": "mlflow", "address": "http://me:secret@mlflow"}, "export: the address of mlflow must be"),
        ({"to": "hub", "address": "name"}, "export: the address of hub must be OWNER/NAME"),
        ({"to": "peft", "address": "/folder"}, "Unsupported value"),
        ({"to": "hub"}, "spec.export[0].address: Required value"),
    ],
)
def test_a_target_that_can_be_none_is_refused_at_once(plane: ControlPlane, target: Json, words: str) -> None:
    async def scenario(stage: Scene) -> None:
        with pytest.raises(RuntimeError, match=re.escape(words)):
            await stage.cluster.create("MultiAgentFinetune", a_run("w", export=[target]))

    play(plane, scenario)


# --- what others take ---

SERVICES = f"/apis/serving.kserve.io/v1alpha1/namespaces/{NAMESPACE}/llminferenceservices"
STRICTLY = "?dryRun=All&fieldValidation=Strict"


def service(folder: Path) -> Json:
    """What `--to kserve` writes for a run."""
    store = Bucket(folder)
    put_run(store, model={"source": "org/model", "revision": "abc"})
    made = Request(store, committed_run.read(store, "default/demo"), "")
    return kserve.manifest(made, made.agents())


def test_the_definition_of_kserve_takes_what_is_written_for_it(plane: ControlPlane, tmp_path: Path) -> None:
    """The published one, at a real API server, without KServe's webhooks."""
    folder = helm.folder("kserve") / "config" / "crd" / "full" / "llmisvc"
    definition = yaml.safe_load((folder / "serving.kserve.io_llminferenceservices.yaml").read_text())
    definition["spec"].pop("conversion", None)  # by a webhook of theirs
    made = service(tmp_path)
    made["metadata"]["namespace"] = NAMESPACE

    async def scenario(stage: Scene) -> None:
        with contextlib.suppress(RuntimeError):  # another test may have made it
            await stage.cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await stage.cluster.ask("POST", HOMES["CustomResourceDefinition"], definition)
        await stage.served(SERVICES)
        answer = await stage.cluster.ask("POST", SERVICES + STRICTLY, made)
        assert answer["spec"]["model"]["lora"]["adapters"] == made["spec"]["model"]["lora"]["adapters"]
        with pytest.raises(RuntimeError, match="strict decoding error"):  # it does look
            await stage.cluster.ask("POST", SERVICES + STRICTLY, {**made, "spec": {**made["spec"], "adapters": []}})

    play(plane, scenario)
