"""A cluster restored without the statuses of its resources: at a real API server runs are taken up, and nothing is done twice.

The server is one of our own, without controllers and nodes: Jobs end when the test says so.
"""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT
from test_export_api import RUNS, Scene, a_run, play

sys.path.insert(0, str(ROOT / "benchmarks"))
from control_plane import ControlPlane, control_plane
from stand_in import NAMESPACE

from maft.summaries import Earlier, PrepareSummary
from maft_operator.cluster.earlier import RESUMED
from maft_operator.cluster.manifests import Json

pytestmark = pytest.mark.cluster
OBJECTS = {
    "Job": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    "Pod": f"/api/v1/namespaces/{NAMESPACE}/pods",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
}
MERGE = "application/merge-patch+json"
CHECKED = {"0-prepare", "0-preflight", "0-evaluate"}
TRAINED = {"0-preflight", "0-evaluate", "1-debate", "1-train"}
# As prepare finds it in the store.
FOUND = Earlier(debates="1", evaluations="0", adapters={"1": "0-1"}, scores={"0": (0.5, 0.03)})


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder: Path = tmp_path_factory.mktemp("plane")
    with control_plane(folder) as started:
        yield started


@dataclass
class Restored:
    """A run, and what is made for it after the loss: names of Jobs, without the run's, by uid."""

    stage: Scene
    name: str
    report: Earlier
    before: frozenset[str] = frozenset()
    made: dict[str, str] = field(default_factory=dict)

    async def lose(self, *, jobs_too: bool) -> None:
        self.before = frozenset(job["metadata"]["uid"] for job in (await self.stage.jobs(self.name)).values())
        for kind in OBJECTS if jobs_too else ():
            for thing in await self.stage.cluster.labelled(kind, self.name):
                await self.remove(kind, thing)
        await self.stage.cluster.ask("PATCH", f"{RUNS}/{self.name}/status", {"status": None}, MERGE)
        assert (await self.stage.run(self.name))["status"] == {"observedGeneration": -1}  # as of one that nobody has looked at

    async def remove(self, kind: str, thing: Json) -> None:
        about = thing["metadata"]
        await self.stage.cluster.ask("DELETE", f"{OBJECTS[kind]}/{about['name']}", {"propagationPolicy": "Background"})

    async def carry_on(self) -> Json:
        """Ends every task that the operator makes, until the run is complete; its status."""
        async with asyncio.timeout(120):
            while (status := (await self.stage.run(self.name)).get("status", {})).get("phase") != "Complete":
                assert status.get("phase") != "Failed", status
                await self.stage.look(self.name)
                await self.be_kubernetes()
        return status

    async def be_kubernetes(self) -> None:
        jobs = await self.stage.jobs(self.name)
        uids = {job["metadata"]["uid"] for job in jobs.values()}
        for pod in await self.stage.cluster.labelled("Pod", self.name):  # of a Job that has gone
            if not uids & {owner["uid"] for owner in pod["metadata"]["ownerReferences"]}:
                await self.remove("Pod", pod)
        for deployment in await self.stage.cluster.labelled("Deployment", self.name):
            await self.stage.cluster.make_available(deployment["metadata"]["name"])
        for name, job in jobs.items():
            if job["metadata"]["uid"] not in self.before:
                self.made[job["metadata"]["uid"]] = name.removeprefix(f"{self.name}-")
            if not job["status"].get("conditions"):
                await self.end(name, job)

    async def end(self, name: str, job: Json) -> None:
        if not [pod for pod in await self.stage.cluster.labelled("Pod", self.name) if pod["metadata"]["name"] == f"{name}-x"]:
            await self.stage.cluster.start_pod(job)
        prepared = PrepareSummary(train=500, held_out=500, earlier=self.report) if name.endswith("-0-prepare") else None
        await self.stage.cluster.finish(job, prepared)


@pytest.mark.parametrize(
    ("name", "until", "jobs_too", "report", "never_again"),
    [
        ("jobs-tell-all", "0-evaluate", False, Earlier(), CHECKED),
        ("some-have-gone-long-ago", "1-train", False, FOUND, TRAINED),
        ("jobs-are-lost-too", "1-train", True, FOUND, TRAINED),
    ],
)
def test_a_run_whose_status_is_lost_is_taken_up_again(
    plane: ControlPlane, name: str, until: str, jobs_too: bool, report: Earlier, never_again: set[str]
) -> None:
    async def scenario(stage: Scene) -> None:
        await known(stage)
        await stage.cluster.create("MultiAgentFinetune", a_run(name))
        await stage.work(name, until=f"{name}-{until}")
        restored = Restored(stage, name, report)
        await restored.lose(jobs_too=jobs_too)
        status = await restored.carry_on()
        again = sorted(restored.made.values())
        assert len(again) == len(set(again)) and never_again.isdisjoint(again), again
        assert {"2-train", "2-evaluate", "2-report"} <= {*again}
        assert ("0-prepare" in again) is (report != Earlier())  # which looks what there is
        assert status["done"] == {"debate": "1-2", "evaluate": "0-2", "train": "1-2"}
        assert [row["iteration"] for row in status["iterations"]] == [0, 1, 2]
        assert any(line.startswith(RESUMED) for line in status.get("warnings", ())) is (report != Earlier())

    play(plane, scenario)


async def known(stage: Scene) -> None:
    """Installs what the first test has not."""
    try:
        await stage.cluster.ask("GET", RUNS)
    except RuntimeError:
        await stage.install()
