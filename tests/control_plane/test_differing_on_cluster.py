"""Agents of several base models as objects of a cluster: whose base a server has, what its pods have room for."""

from typing import Any

import pytest
from conftest import resource
from kube_objects import STORAGE, a_run, made
from test_resources import number, of

from maft_operator.plan import comparison as plan
from maft_operator.plan.disk import GIB
from maft_operator.spec import comparison
from maft_operator.spec.parse import Run

OWN = {"agent": 1, "model": {"source": "org/other"}}


def of_two_bases(**spec: Any) -> Run:
    given = {"model": {"source": "org/model"}, "inference": {"topology": "PerAgent"}, "agentOverrides": [OWN], **spec}
    return a_run(**given)


def test_each_server_is_told_whose_base_it_has() -> None:
    servers = {d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0] for d in made(of_two_bases(), "Deployment")}
    told = {name: [flag for flag in server["args"] if flag.startswith("--agent=")] for name, server in servers.items()}
    assert told == {"r-server-0": [], "r-server-1": ["--agent=1"]}


def test_a_run_of_one_base_asks_for_what_it_did() -> None:
    plain, own = a_run(inference={"topology": "PerAgent"}), a_run(inference={"topology": "PerAgent"}, agentOverrides=[{"agent": 1}])
    for kind in ("Deployment", "Job", "Service"):
        assert [thing["metadata"] for thing in made(plain, kind)] == [thing["metadata"] for thing in made(own, kind)]
        assert "--agent=1" not in str([thing for thing in made(own, kind) if "server" in thing["metadata"]["name"]])


@pytest.mark.parametrize(
    ("task", "training", "bases"),
    [("r-1-train", "Shared", 2), ("r-1-train-0", "PerAgent", 1), ("r-1-train-1", "PerAgent", 1), ("r-server-1", "Shared", 1)],
)
def test_pods_have_room_for_the_bases_that_they_load(task: str, training: str, bases: int) -> None:
    size = 40 * GIB
    run = of_two_bases(training={"topology": training})
    alike = a_run(model={"source": "org/model"}, inference={"topology": "PerAgent"}, training={"topology": training})
    more, one = (number(of(each, task, size)["requests"], "ephemeral-storage") for each in (run, alike))
    assert more - one == (bases - 1) * size


def test_a_mounted_base_needs_no_room() -> None:
    mounted = {**OWN, "model": {"source": "/models/other"}}
    run = of_two_bases(agentOverrides=[mounted])
    there, fetched = (number(of(run, f"r-server-{n}", 40 * GIB)["requests"], "ephemeral-storage") for n in (1, 0))
    assert there < GIB < 40 * GIB < fetched


def a_comparison(**template: Any) -> comparison.Comparison:
    spec = resource("c", **{"agents": 3, "storage": STORAGE, "model": {"source": "org/model"}, **template})["spec"]
    whole = {"methods": ["base", "debate", "multiagent", "union"], "seeds": 1, "template": spec}
    return comparison.read({**resource("c"), "kind": "MultiAgentComparison", "spec": whole})


def test_a_comparison_keeps_the_bases_of_methods_that_have_several_agents() -> None:
    several = a_comparison(inference={"topology": "PerAgent"}, agentOverrides=[OWN])
    found = {child.method: (child.run.spec.inference.topology, child.run.spec.bases_differ) for child in several.children}
    assert found == {
        "base": ("Shared", False),
        "debate": ("PerAgent", True),
        "multiagent": ("PerAgent", True),
        "union": ("Shared", False),
    }
    alike = a_comparison(inference={"topology": "PerAgent"})
    assert {child.run.spec.inference.topology for child in alike.children} == {"Shared"}


def test_first_answers_of_other_bases_are_other_calls() -> None:
    """Of what runs of a comparison ask the base, so that none asks what another is asking."""
    read = a_comparison(inference={"topology": "PerAgent"}, agentOverrides=[OWN])
    several = {child.method: plan.asked(child.run) for child in read.children}
    own, union = several["multiagent"], several["union"]
    assert len(own & union) == 2  # the first answers of the two agents that are alike
