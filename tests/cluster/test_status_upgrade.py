"""Resources whose status release 0.1 wrote, on a real API server: the CRD is upgraded, the operator looks, all numbers are there.

The server is one of our own, without controllers and nodes, so that nobody else sees a CRD of 0.1.
"""

import asyncio
import copy
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from conftest import ROOT, resource
from kube_objects import IMAGES, STORAGE, writer
from kubernetes.aio.client import ApiClient, Configuration
from test_upgrade import NEW, OLD

from maft_operator.cluster import conditions, kinds, reasons
from maft_operator.cluster.api import Api, Refused
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane

pytestmark = pytest.mark.cluster
CRD: Json = yaml.safe_load((ROOT / "crds" / "multiagentfinetunes.yaml").read_text())
TEXT: Json = {"type": "string"}
ROW = ("accuracy", "majority", "answer", "consensus", "agreement", "probe", "nll", "kl", "dissimilarity")
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RUNS = "/apis/maft.dev/v1alpha1/namespaces/default/multiagentfinetunes"
NAME = "multiagentfinetunes.maft.dev"


def old_crd() -> Json:
    """As 0.1 had it, as far as the status goes."""
    crd = copy.deepcopy(CRD)
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    status |= dict.fromkeys(("iteration", "accuracy", "baseAccuracy"), TEXT)
    row = status["iterations"]["items"]["properties"]
    row |= dict.fromkeys(ROW, TEXT)
    row["kept"] = {"type": "object", "additionalProperties": TEXT}
    return crd


class Admin:
    """Plain requests to the server."""

    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._url, self._session = plane.url, session

    async def ask(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> Json:
        async with self._session.request(method, self._url + path, json=body, headers={"Content-Type": kind}) as response:
            answer: Json = await response.json()
            assert response.status < 300, answer
            return answer

    async def serve(self, crd: Json) -> None:
        """Installs the definition and waits until the server validates with it."""
        kind = "application/apply-patch+yaml"
        await self.ask("PATCH", f"{DEFINITIONS}/{NAME}?fieldManager=tests&force=true", crd, kind)
        wanted = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["iteration"]["type"]
        async with asyncio.timeout(60):
            while await self._type_of_iteration() != wanted:
                await asyncio.sleep(0.2)

    async def _type_of_iteration(self) -> str | None:
        """As the published schema has it: what server-side apply goes by."""
        path = "/openapi/v3/apis/maft.dev/v1alpha1"
        async with self._session.get(self._url + path) as response:
            if response.status != 200:
                return None
            schemas: Json = (await response.json())["components"]["schemas"]
        status = schemas["dev.maft.v1alpha1.MultiAgentFinetune"]["properties"]["status"]["properties"]
        return str(status["iteration"]["type"])


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder: Path = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as found:
        yield found


class Scene:
    """The server, and the operator's parts."""

    def __init__(self, admin: Admin, client: ApiClient, session: aiohttp.ClientSession) -> None:
        self.admin = admin
        metrics, queue = Metrics(), Queue()
        self.api = Api(client, metrics)
        self.keys = Keys(queue, metrics)
        self.watched = Watched(self.keys, metrics)
        self.controller = Controller(self.api, IMAGES, keys=self.keys, writer=writer(self.api, metrics))

    async def of_0_1(self, name: str, status: Json, **spec: Any) -> None:
        """A run that 0.1 has worked at."""
        body = {**resource(name, **{"agents": 2, "storage": STORAGE, **spec}), "metadata": {"name": name, "namespace": "default"}}
        await self.admin.ask("POST", RUNS, body)
        await self.api.apply_status(self.status(name, status))

    def status(self, name: str, status: Json) -> Json:
        about = {"name": name, "namespace": "default"}
        return {"apiVersion": kinds.RUN.api_version, "kind": kinds.RUN.name, "metadata": about, "status": status}

    async def look(self, name: str) -> Json:
        """One reconcile; the resource after it."""
        key = f"default/{name}"
        await self.controller.reconcile(key, self.keys.state(key))
        return await self.admin.ask("GET", f"{RUNS}/{name}")


def play(plane: ControlPlane, scenario: Any) -> None:
    async def inside() -> None:
        context = ssl.create_default_context(cafile=str(plane.authority))
        settings = Configuration(host=plane.url, api_key={"authorization": f"Bearer {plane.token}"})
        settings.ssl_ca_cert = str(plane.authority)
        headers = {"Authorization": f"Bearer {plane.token}"}
        connector = aiohttp.TCPConnector(ssl=context)
        async with ApiClient(settings) as client, aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await scenario(Scene(Admin(plane, session), client, session))

    asyncio.run(inside())


PROGRESS: Json = {"percent": 40, "text": "40 %, 5m00s left", "stage": "iteration 1: training", "eta": "2026-01-01T00:00:00Z"}
UNDER_WAY: Json = {
    **{key: value for key, value in OLD.items() if key != "completionTime"},
    "phase": "Training",
    "conditions": [{**c, "status": "True" if c["type"] in ("Accepted", "Progressing") else "False"} for c in OLD["conditions"]],
    "progress": PROGRESS,
}


def without_summaries(status: Json) -> Json:
    """Without the conditions that follow from the others, whose times are their own."""
    return {**status, "conditions": [c for c in status["conditions"] if c["type"] not in reasons.SUMMARIES]}


def test_old_statuses_are_written_anew_after_the_definition_was_upgraded(plane: ControlPlane) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.admin.serve(old_crd())
        await scene.of_0_1("finished", OLD)
        await scene.of_0_1("working", UNDER_WAY, iterations=2)
        await scene.admin.serve(CRD)

        # What makes it necessary: the server does not apply a status whose fields had other types.
        with pytest.raises((Refused, OSError)):
            await scene.api.apply_status(scene.status("finished", NEW))

        finished = await scene.look("finished")
        assert without_summaries(finished["status"]) == without_summaries(NEW)
        assert {c["type"] for c in finished["status"]["conditions"]} == {*reasons.CONDITIONS}
        scene.watched.run("MODIFIED", finished)
        assert scene.watched.settled == {"default/finished"} and conditions.settled(finished)
        assert (await scene.look("finished"))["metadata"]["resourceVersion"] == finished["metadata"]["resourceVersion"]

        working = await scene.look("working")
        assert "eta" not in working["status"]["progress"]  # nothing of it is done here
        status = working["status"]
        assert (status["phase"], status["iteration"]["total"]) == ("Preparing", 2)
        assert status["iterations"] == NEW["iterations"]
        assert (status["accuracy"], status["baseAccuracy"]) == (NEW["accuracy"], NEW["baseAccuracy"])
        assert {c["type"] for c in status["conditions"]} == {*reasons.CONDITIONS}

        # From here on it is applied as any other: fields change, and those that the operator leaves out at times go.
        changes: list[Json] = [
            {"progress": {"percent": 50, "text": "50 %"}},
            {"accuracy": {"mean": 0.7, "stderr": 0.01, "text": "70.0 ± 1.0"}, "iterations": NEW["iterations"][:1]},
            {"iteration": {"current": 2, "total": 2, "text": "2/2"}, "conditions": status["conditions"][:3]},
        ]
        for change in changes:
            status = {**status, **change}
            await scene.api.apply_status(scene.status("working", status))
            assert (await scene.admin.ask("GET", f"{RUNS}/working"))["status"] == status

    play(plane, scenario)


def test_a_patch_of_a_version_that_is_no_more_is_refused(plane: ControlPlane) -> None:
    """Somebody else was faster: the next look sees what they wrote."""

    async def scenario(scene: Scene) -> None:
        await scene.admin.serve(CRD)
        await scene.of_0_1("raced", {"phase": "Training"})
        stale = await scene.admin.ask("GET", f"{RUNS}/raced")
        await scene.api.apply_status(scene.status("raced", {"phase": "Complete"}))
        with pytest.raises(Refused) as refused:
            await scene.api.patch_status(stale, {"phase": "Failed"})
        assert refused.value.code == 409
        assert (await scene.admin.ask("GET", f"{RUNS}/raced"))["status"]["phase"] == "Complete"

    play(plane, scenario)
