"""Servers that do not all find a node, without a queue: they make room for others and come again."""

from collections.abc import Iterator
from typing import Any

import pytest
from installed import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PLACE = "maft.dev/test-place"  # what each server asks for one of
LIMIT = 300.0  # seconds for a small run, on two busy cores


@pytest.fixture(name="node")
def node_fixture(maft: Installed) -> Iterator[str]:
    [node] = maft.kube.list("Node", None)
    yield node["metadata"]["name"]
    maft.kube.merge_status("Node", None, node["metadata"]["name"], {"status": {"capacity": {PLACE: None}}})


def has(maft: Installed, node: str, places: int) -> None:
    maft.kube.merge_status("Node", None, node, {"status": {"capacity": {PLACE: str(places)}}})
    maft.kube.wait(lambda: maft.kube.get("Node", None, node)["status"]["allocatable"].get(PLACE) == str(places), 60)


def begin(maft: Installed, namespace: str, name: str, servers: int, **inference: Any) -> None:
    mocked = maft.mocked()
    mocked["podTemplate"]["spec"]["containers"][0]["resources"]["limits"] = {PLACE: "1"}
    mocked["inference"] |= {"topology": "PerAgent", **inference}
    maft.kube.apply(maft.resource(name, namespace, iterations=1, agents=servers, **mocked))


@pytest.mark.nightly  # the two runs below give back and come again too
def test_servers_that_do_not_all_find_a_node_make_room(maft: Installed, node: str, namespace: str) -> None:
    """Three servers on two places: they go, a run that waited behind them ends, and with a third place they come again."""
    kube = maft.kube
    has(maft, node, 2)
    begin(maft, namespace, "large", 3, placementSeconds=5)
    kube.wait(
        lambda: kube.condition(namespace, "large", "Progressing").get("reason") == "ServersGivenBack",
        120,
        lambda: kube.explain(namespace, "large"),
    )
    assert kube.status(namespace, "large")["servers"]["givenBack"] >= 1
    begin(maft, namespace, "small", 2, placementSeconds=0)
    kube.wait_complete(namespace, "small", LIMIT)
    has(maft, node, 3)
    status = kube.wait_complete(namespace, "large", LIMIT)
    assert "servers" not in status and status["phase"] == "Complete"


@pytest.mark.nightly
def test_two_runs_that_hold_half_of_the_slots_each_both_finish(maft: Installed, node: str, namespace: str) -> None:
    """Three servers each, four places for both."""
    has(maft, node, 4)
    for name in ("one", "two"):
        begin(maft, namespace, name, 3, placementSeconds=5)
    for name in ("one", "two"):
        maft.kube.wait_complete(namespace, name, LIMIT)


@pytest.mark.nightly
def test_two_runs_whose_servers_a_quota_lets_in_by_half_both_finish(maft: Installed, node: str, namespace: str) -> None:
    """Three servers each, four in the quota for both: a pod that it refuses is never there."""
    kube = maft.kube
    has(maft, node, 8)
    about = {"name": "shared", "namespace": namespace}
    hard = {f"requests.{PLACE}": "4"}
    kube.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": about, "spec": {"hard": hard}})
    kube.wait(lambda: (kube.get("ResourceQuota", namespace, "shared") or {}).get("status", {}).get("used"), 30)
    for name in ("one", "two"):
        begin(maft, namespace, name, 3, placementSeconds=5)
    for name in ("one", "two"):
        kube.wait_complete(namespace, name, LIMIT)
