"""`maft clean` beside a real API server and a real S3 server: what runs that are gone left goes, and nothing else.

The API server is one of our own, without controllers and nodes.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, resource
from kube_objects import STORAGE
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from test_clean import FORGET, OF_A_RUN, RUN, all_of, clean

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane
from stand_in import Cluster, connected

from maft.store.base import Store
from maft.store.urls import open_store
from maft_operator.cluster.manifests import Json

pytestmark = [pytest.mark.cluster, pytest.mark.s3]
HOMES = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
KINDS = ("multiagentfinetunes", "multiagentcomparisons", "societies")
MAFT = "/apis/maft.dev/v1alpha1/namespaces/ns"
GONE = ("ns/gone", "other/gone")
THERE = ("ns/there", "ns/compared", "ns/served")  # a run, a comparison, and a run that is gone and has a society
STRANGERS = ("models/tiny/config.json", "ns/gone/notes.txt", "ns/unfinished/problems/train.jsonl", "run.json")
ALONE = ("--only-this-cluster", *FORGET)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder: Path = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as started:
        yield started


@pytest.fixture
def url(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return s3.url("clean-api")


def filled(url: str) -> Store:
    store = open_store(url)
    for run in (*GONE, *THERE):
        for key in OF_A_RUN:
            store.write(f"{run}/{key}", RUN if key == "run.json" else b"x" * 1000)
    for key in STRANGERS:
        store.write(key, b"theirs")
    return store


@contextlib.asynccontextmanager
async def installed(plane: ControlPlane) -> AsyncIterator[Cluster]:
    """The server with our definitions, and a resource of each kind; nobody but its administrator has rights."""
    async with connected(plane) as cluster:
        await cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "ns"}})
        for kind in KINDS:
            definition = yaml.safe_load((ROOT / "crds" / f"{kind}.yaml").read_text())
            await cluster.ask("POST", HOMES["CustomResourceDefinition"], definition)
        async with asyncio.timeout(60):
            for kind in KINDS:
                await known(cluster, f"{MAFT}/{kind}")
        await cluster.ask("POST", f"{MAFT}/{KINDS[0]}", resource("there", storage=STORAGE))
        await cluster.ask("POST", f"{MAFT}/{KINDS[1]}", named("comparison", "compared"))
        society = named("society", "one")
        await cluster.ask("POST", f"{MAFT}/{KINDS[2]}", {**society, "spec": {"run": "served"}})
        yield cluster


def named(example: str, name: str) -> Json:
    """The resource of an example, under that name."""
    *_, made = yaml.safe_load_all((ROOT / "examples" / f"{example}.yaml").read_text())
    return {**made, "metadata": {"name": name}}


async def known(cluster: Cluster, path: str) -> None:
    while True:
        with contextlib.suppress(RuntimeError):
            await cluster.ask("GET", path)
            return
        await asyncio.sleep(0.1)


async def allow(cluster: Cluster) -> None:
    """Gives the user of the kubeconfig what the operator has."""
    for body in yaml.safe_load_all((ROOT / "deploy" / "operator.yaml").read_text()):
        if body["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            await cluster.ask("POST", HOMES[body["kind"]], body)


def test_what_runs_that_are_gone_left_goes_and_nothing_else(plane: ControlPlane, url: str) -> None:
    store = filled(url)
    before = set(store.list(""))

    async def said(*flags: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(lambda: clean(url, *flags, KUBECONFIG=str(plane.folder / "kubeconfig")))
        return done.returncode, done.stdout, done.stderr

    async def scenario() -> None:
        async with installed(plane) as cluster:
            code, out, err = await said(*ALONE)
            assert (code, out) == (2, "") and err.startswith("error: the cluster does not say which runs there are: "), err
            assert "forbidden" in err and err.count("\n") == 1 and set(store.list("")) == before

            await allow(cluster)
            code, out, err = await said("--days", "0")
            assert code == 0 and out.startswith("the cluster of the kubeconfig has 3 runs\n"), out + err
            assert [line.split(":")[0].split()[1] for line in out.splitlines() if line.startswith("gone  ")] == [*GONE]
            assert all(f"kept  {run}: its resource is there, or a society serves it\n" in out for run in THERE)
            assert out.endswith("would free 12 KB of 2 runs; --yes deletes it\n") and set(store.list("")) == before

            code, out, err = await said("-n", "ns", *ALONE)
            assert code == 0 and out.endswith("freed 6 KB of 1 runs\n"), out + err
            assert set(store.list("")) == before - all_of("ns/gone")
            code, out, err = await said(*ALONE)
            assert code == 0 and out.endswith("freed 6 KB of 1 runs\n"), out + err
            kept = before - all_of("ns/gone") - all_of("other/gone")
            assert set(store.list("")) == kept and {*STRANGERS} < kept

            await cluster.ask("DELETE", f"{MAFT}/{KINDS[0]}/there")
            code, out, err = await said(*ALONE)
            assert code == 0 and set(store.list("")) == kept - all_of("ns/there"), out + err

    asyncio.run(scenario())
