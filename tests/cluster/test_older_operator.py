"""An operator that is older than the resource definition: fields of a newer release are filled in, and nothing is rejected."""

import copy
from collections.abc import Iterator

import pytest
from installed import Installed
from kube import Json

from maft_operator.spec.skew import TOLD

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(900)]
LIMIT = 300.0  # seconds for a small run, on two busy cores
CRD, NAME = "CustomResourceDefinition", "multiagentfinetunes.maft.dev"
FIELD, DEEPER = "retention", "wideness"  # of spec, and of spec.training.lora
NEWER: Json = {
    FIELD: {
        "type": "object",
        "default": {},
        "properties": {"days": {"type": "integer", "default": 30}, "what": {"type": "string", "default": "All"}},
    }
}


def newer(definition: Json) -> list[Json]:
    """The versions of a later release: one object with defaults more, and one more number deep below."""
    [version] = copy.deepcopy(definition["spec"]["versions"])
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"] |= NEWER
    spec["properties"]["training"]["properties"]["lora"]["properties"][DEEPER] = {"type": "number", "default": 1.5}
    return [version]


def filled(maft: Installed, namespace: str, name: str) -> Json:
    spec = (maft.kube.get("MultiAgentFinetune", namespace, name) or {})["spec"]
    return {FIELD: spec.get(FIELD), DEEPER: spec["training"]["lora"].get(DEEPER)}


@pytest.fixture(name="upgrade")
def upgrade_fixture(maft: Installed) -> Iterator[list[Json]]:
    """What the definition's versions are to become; afterwards they are as they were."""
    before = maft.kube.get(CRD, None, NAME) or {}
    yield newer(before)
    maft.kube.merge(CRD, None, NAME, {"spec": {"versions": before["spec"]["versions"]}})


def test_a_newer_definition_ends_no_run_and_rejects_none(maft: Installed, namespace: str, upgrade: list[Json]) -> None:
    """A run is under way, another has not begun; the operator stays, starts anew, and both end."""
    kube = maft.kube
    for name, suspend in (("going", False), ("waiting", True)):
        kube.apply(maft.resource(name, namespace, iterations=1, agents=2, suspend=suspend, **maft.mocked(0.3)))
    kube.wait(lambda: kube.status(namespace, "going").get("phase") == "Debating", LIMIT, lambda: kube.explain(namespace, "going"))
    kube.merge(CRD, None, NAME, {"spec": {"versions": upgrade}})
    for name in ("going", "waiting"):
        wanted = {FIELD: {"days": 30, "what": "All"}, DEEPER: 1.5}
        kube.wait(lambda name=name, wanted=wanted: filled(maft, namespace, name) == wanted, 30)
    assert kube.status(namespace, "going")["phase"] == "Debating", "the run was over too soon for this test"
    maft.kill_operator()  # the next one has never seen the resource as it was
    kube.merge("MultiAgentFinetune", namespace, "waiting", {"spec": {"suspend": False}})
    for name in ("going", "waiting"):
        status = kube.wait_complete(namespace, name, LIMIT)
        assert kube.is_true(namespace, name, "Accepted")
        assert {TOLD.format(FIELD), TOLD.format(f"training.lora.{DEEPER}")} <= set(status["warnings"])
