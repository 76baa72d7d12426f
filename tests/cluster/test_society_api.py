"""A Society at a real API server, with the operator's own rights: what is stored, scaled, refused, and not written twice.

The server is one of our own, without controllers and nodes: no pod ever starts.
"""

import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from conftest import ROOT
from conftest import resource as small_resource
from kube_objects import STORAGE, writer
from kubernetes.aio.client import ApiClient, Configuration

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane, process

from maft_operator.cluster import kinds
from maft_operator.cluster.api import Api
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.served import AGAIN, served
from maft_operator.cluster.society.controller import Societies

pytestmark = pytest.mark.cluster
IMAGES = Images("r.io/maft", "1", isolated=True)
MAFT = "/apis/maft.dev/v1alpha1/namespaces/default"
SOCIETIES, RUNS = f"{MAFT}/societies", f"{MAFT}/multiagentfinetunes"
OBJECTS = {
    "Deployment": "/apis/apps/v1/namespaces/default/deployments/s",
    "Service": "/api/v1/namespaces/default/services/s",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/s",
}
PODS = "/api/v1/namespaces/default/pods"
INGRESS = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/s"
HOMES = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
OVER = {
    "type": "Complete",
    "status": "True",
    "reason": "AllIterationsDone",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder: Path = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as started:
        yield started


class Scene:
    """The server as an administrator asks it, and the reconciler, which has the operator's rights."""

    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession, client: ApiClient) -> None:
        self._url, self._session = plane.url, session
        metrics = Metrics()
        self.api = Api(client, metrics)
        self.keys = Keys(Queue(), metrics)
        self.societies = Societies(self.api, IMAGES, keys=self.keys, writer=writer(self.api, metrics))

    async def ask(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> tuple[int, Json]:
        async with self._session.request(method, self._url + path, json=body, headers={"Content-Type": kind}) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else {}  # of a kind that it does not know, one line

    async def done(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> Json:
        code, answer = await self.ask(method, path, body, kind)
        assert code < 300, answer
        return answer

    async def install(self, *files: str) -> None:
        for file in files:
            for body in yaml.safe_load_all((ROOT / file).read_text()):
                if body["kind"] in HOMES:
                    await self.ask("POST", HOMES[body["kind"]], body)  # those of another test are there

    async def known(self, path: str) -> None:
        async with asyncio.timeout(60):
            while (await self.ask("GET", path))[0] != 200:
                await asyncio.sleep(0.1)

    async def look(self) -> Json:
        await self.societies.look("societies/default/s", self.keys.state("societies/default/s"))
        return await self.done("GET", f"{SOCIETIES}/s")

    async def reason(self) -> str:
        conditions = (await self.done("GET", f"{SOCIETIES}/s")).get("status", {}).get("conditions", [])
        return next((str(c["reason"]) for c in conditions if c["type"] == "Ready"), "")

    async def stored(self) -> dict[str, Json]:
        return {kind: await self.done("GET", path) for kind, path in OBJECTS.items()}


@contextlib.asynccontextmanager
async def scene(plane: ControlPlane) -> AsyncIterator[Scene]:
    context = ssl.create_default_context(cafile=str(plane.authority))
    token = yaml.safe_load((plane.folder / "kubeconfig").read_text())["users"][0]["user"]["token"]
    settings = Configuration(host=plane.url, api_key={"authorization": f"Bearer {token}"})
    settings.ssl_ca_cert = str(plane.authority)
    headers = {"Authorization": f"Bearer {plane.token}"}
    connector = aiohttp.TCPConnector(ssl=context)
    async with ApiClient(settings) as client, aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield Scene(plane, session, client)


def play(plane: ControlPlane, scenario: Any) -> None:
    async def inside() -> None:
        async with scene(plane) as stage:
            await scenario(stage)

    asyncio.run(inside())


def a_society(name: str = "s", **spec: Any) -> Json:
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": {"name": name}, "spec": {"run": "r", **spec}}


async def prepared(stage: Scene) -> None:
    """The definitions, the operator's rights, and a run that is over."""
    await stage.install("crds/multiagentfinetunes.yaml", "crds/societies.yaml", "deploy/operator.yaml")
    for path in (SOCIETIES, RUNS):
        await stage.known(path)
    run = small_resource("r", **{"agents": 2, "storage": STORAGE, "training": {"topology": "Shared"}})
    await stage.ask("POST", RUNS, {**run, "metadata": {"name": "r"}})
    status = {"phase": "Complete", "startTime": "2026-01-01T00:00:00Z", "done": {"train": "1"}, "conditions": [OVER]}
    await stage.done("PATCH", f"{RUNS}/r/status", {"status": status}, MERGE)


def test_a_kind_that_comes_later_is_served_from_then_on(plane: ControlPlane) -> None:
    """The first test: the server has nothing yet."""

    async def scenario(stage: Scene) -> None:
        await stage.install("crds/multiagentfinetunes.yaml", "deploy/operator.yaml")
        await stage.known(RUNS)
        both = (kinds.RUN, kinds.SOCIETY)
        assert await served(stage.api, both, ()) == (kinds.RUN,)
        await stage.install("crds/societies.yaml")
        await stage.known(SOCIETIES)
        assert await served(stage.api, both, ()) == both

    play(plane, scenario)


@pytest.mark.nightly
def test_an_operator_that_runs_takes_up_a_kind_that_comes_later(tmp_path: Path) -> None:
    """The whole process: it goes on without, begins to watch, and a run that comes wakes its society."""

    async def scenario(stage: Scene) -> None:
        await stage.install("crds/multiagentfinetunes.yaml", "deploy/operator.yaml")
        await stage.known(RUNS)
        line = [sys.executable, "-m", "maft_operator", "operator", "--images=x/maft", "--port=0", "--no-leader-election"]
        environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}
        with process(line, log := tmp_path / "operator.log", environment) as operator:
            async with asyncio.timeout(60):
                while "societies.maft.dev" not in log.read_text():
                    await asyncio.sleep(0.2)
            await stage.install("crds/societies.yaml")
            await stage.known(SOCIETIES)
            await stage.done("POST", SOCIETIES, a_society())
            async with asyncio.timeout(2 * AGAIN):
                while await stage.reason() != "RunMissing":
                    assert operator.poll() is None, log.read_text()
                    await asyncio.sleep(0.5)
            run = small_resource("r", **{"agents": 2, "storage": STORAGE})
            await stage.done("POST", RUNS, {**run, "metadata": {"name": "r"}})
            async with asyncio.timeout(30):
                while await stage.reason() != "RunUnfinished":
                    await asyncio.sleep(0.2)

    with control_plane(tmp_path) as own:
        play(own, scenario)


def test_what_is_made_is_stored_as_it_was_meant_and_not_written_again(plane: ControlPlane) -> None:
    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        await stage.done("POST", SOCIETIES, a_society())
        first = await stage.look()
        assert first["status"]["phase"] == "Starting" and first["spec"]["maxConcurrentDebates"] == 256
        before = {**await stage.stored(), "Society": first}
        again = {"Society": await stage.look(), **await stage.stored()}
        third = {"Society": await stage.look(), **await stage.stored()}
        versions = [
            {k: o["metadata"]["resourceVersion"] for k, o in sorted(x.items()) if k != "Society"} for x in (before, again, third)
        ]
        assert versions[0] == versions[1] == versions[2]
        assert again["Society"]["metadata"]["resourceVersion"] == third["Society"]["metadata"]["resourceVersion"]
        pods = again["Deployment"]["spec"]["template"]["spec"]["containers"]
        assert [c["name"] for c in pods] == ["inference", "debate"]
        assert first["metadata"]["uid"] in {o["metadata"]["ownerReferences"][0]["uid"] for k, o in again.items() if k != "Society"}

    play(plane, scenario)


def test_a_society_is_not_well_by_what_it_was_before_a_change(plane: ControlPlane) -> None:
    """The look that applies a change writes the generation of that change, too; who waits for both takes it for done."""

    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        await stage.ask("POST", SOCIETIES, a_society())  # one of another test may be there
        await stage.look()
        for path, change in ((f"{SOCIETIES}/s/scale", {"replicas": 2}), (f"{SOCIETIES}/s", {"timeoutSeconds": 77})):
            made = (await stage.stored())["Deployment"]
            numbers = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), made["spec"]["replicas"])
            answering = {"status": {"observedGeneration": made["metadata"]["generation"], **numbers}}
            await stage.done("PATCH", f"{OBJECTS['Deployment']}/status", answering, MERGE)
            assert moving(await stage.look()) == "False"
            await stage.done("PATCH", path, {"spec": change}, MERGE)
            assert moving(await stage.look()) == "True"

    def moving(thing: Json) -> str:
        assert thing["status"]["observedGeneration"] == thing["metadata"]["generation"]
        return next(str(c["status"]) for c in thing["status"]["conditions"] if c["type"] == "Reconciling")

    play(plane, scenario)


def test_an_autoscaler_sets_the_number_of_pods_and_nobody_takes_it_back(plane: ControlPlane) -> None:
    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        await stage.done("PATCH", f"{SOCIETIES}/s?fieldManager=user&force=true", a_society(mode="fast"), APPLY)
        await stage.look()
        await stage.done("PATCH", f"{SOCIETIES}/s/scale", {"spec": {"replicas": 3}}, MERGE)
        await stage.look()
        assert (await stage.stored())["Deployment"]["spec"]["replicas"] == 3
        await stage.done("PATCH", f"{SOCIETIES}/s?fieldManager=user&force=true", a_society(mode="paper"), APPLY)
        society = await stage.look()
        assert society["spec"]["replicas"] == 3 and (await stage.stored())["Deployment"]["spec"]["replicas"] == 3
        scale = await stage.done("GET", f"{SOCIETIES}/s/scale")
        assert scale["spec"]["replicas"] == 3 and scale["status"]["selector"] == "maft.dev/society=s"

    play(plane, scenario)


def test_a_change_by_hand_is_taken_back(plane: ControlPlane) -> None:
    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        await stage.ask("POST", SOCIETIES, a_society())
        await stage.look()
        await stage.done("PATCH", OBJECTS["Service"], {"spec": {"selector": {"maft.dev/society": "other"}}}, MERGE)
        await stage.done("DELETE", OBJECTS["NetworkPolicy"])
        await stage.look()
        stored = await stage.stored()
        assert stored["Service"]["spec"]["selector"] == {"maft.dev/society": "s"} and stored["NetworkPolicy"]

    play(plane, scenario)


def test_an_ingress_is_stored_as_it_was_meant_changed_and_taken_away(plane: ControlPlane) -> None:
    """What is taken out of the field goes from the Ingress; what its controller adds stays."""
    outside = {"host": "s.example.com", "className": "c", "tlsSecretName": "t", "annotations": {"mine": "1"}}

    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        await stage.ask("POST", SOCIETIES, a_society())
        opened = {"apiKeysSecret": {"name": "k"}, "ingress": outside}
        await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": opened}, MERGE)
        assert (await stage.look())["status"]["url"] == "https://s.example.com/v1"
        await stage.done("PATCH", INGRESS, {"metadata": {"annotations": {"theirs": "2"}}}, MERGE)
        before = await stage.done("GET", INGRESS)
        await stage.look()
        assert (await stage.done("GET", INGRESS))["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        less = {"className": None, "tlsSecretName": None, "annotations": None}
        await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": {"ingress": less}}, MERGE)
        assert (await stage.look())["status"]["url"] == "http://s.example.com/v1"
        after = await stage.done("GET", INGRESS)
        assert after["metadata"]["annotations"].keys() == {"theirs", "maft.dev/ingress"} and after["spec"].keys() == {"rules"}
        await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": {"ingress": None}}, MERGE)
        await stage.look()
        assert (await stage.ask("GET", INGRESS))[0] == 404
        await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": {"apiKeysSecret": None}}, MERGE)

    play(plane, scenario)


def test_the_old_port_is_there_as_long_as_pods_that_speak_it(plane: ControlPlane) -> None:
    """As a ReplicaSet's controller would, we make the pod of the Deployment as it is: this server has none."""

    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        await stage.ask("POST", SOCIETIES, a_society())
        await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": {"tls": None}}, MERGE)
        await stage.look()
        template = (await stage.stored())["Deployment"]["spec"]["template"]
        labels = {**template["metadata"]["labels"], "pod-template-hash": "old"}
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s-old", "uid": "u", "controller": True}
        about = {**template["metadata"], "name": "s-old-1", "labels": labels, "ownerReferences": [owner]}
        await stage.done("POST", PODS, {"kind": "Pod", "metadata": about, "spec": template["spec"]})
        await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": {"tls": {"secretName": "c"}}}, MERGE)
        for ports in ([("http", 80), ("https", 443)], [("https", 443)]):
            await stage.look()
            stored = (await stage.stored())["Service"]
            assert [(port["name"], port["port"]) for port in stored["spec"]["ports"]] == ports
            await stage.look()
            assert (await stage.stored())["Service"]["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
            await stage.ask("DELETE", f"{PODS}/s-old-1", {"gracePeriodSeconds": 0})
        await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": {"tls": None}}, MERGE)

    play(plane, scenario)


def test_the_service_changes_its_port_with_the_certificate(plane: ControlPlane) -> None:
    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        await stage.ask("POST", SOCIETIES, a_society())
        for tls, ports in (({"secretName": "c"}, [("https", 443)]), (None, [("http", 80)])):
            await stage.done("PATCH", f"{SOCIETIES}/s", {"spec": {"tls": tls}}, MERGE)
            await stage.look()
            stored = await stage.stored()
            assert [(port["name"], port["port"]) for port in stored["Service"]["spec"]["ports"]] == ports
            assert stored["Deployment"]["spec"]["template"]["spec"]["containers"][1]["ports"][0]["name"] == ports[0][0]

    play(plane, scenario)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (a_society("x", iteration=0), "should be greater than or equal to 1"),
        (a_society("x", replicas=-1), "should be greater than or equal to 0"),
        (a_society("x", mode="slow"), 'supported values: "paper", "fast"'),
        (a_society("x", maxConcurrentDebates=0), "should be greater than or equal to 1"),
        (a_society("x", apiKeysSecret={}), "apiKeysSecret.name"),
        (a_society("x", tls={}), "tls.secretName"),
        (a_society("x", ingress={"host": "a.example.com"}), "spec.ingress without spec.apiKeysSecret"),
        (a_society("x", apiKeysSecret={"name": "k"}, ingress={"host": "http://a"}), "ingress.host"),
        (a_society("x", apiKeysSecret={"name": "k"}, ingress={"host": "*.a.com"}), "ingress.host"),
        (a_society("x" * 41), "longer than 40 characters"),
        (a_society("1x"), "a letter first"),
        (a_society("x", colour="red"), 'unknown field "spec.colour"'),
    ],
)
def test_wrong_ones_are_refused(plane: ControlPlane, body: Json, words: str) -> None:
    async def scenario(stage: Scene) -> None:
        await prepared(stage)
        code, answer = await stage.ask("POST", f"{SOCIETIES}?fieldValidation=Strict", body)
        assert code in (400, 422) and words in answer["message"]

    play(plane, scenario)
