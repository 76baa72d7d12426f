"""Who reaches whom by the NetworkPolicies of a run, read as the API defines them: without an engine, for all pods and ports.

Source: Kubernetes, "Network Policies": a pod that some policy selects lets in what one of these allows; others let in everybody."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from kube_objects import IMAGES, a_run, owner, planned

from maft_operator.cluster import manifests
from maft_operator.cluster.manifests import Json
from maft_operator.plan.graph import Server, Task
from maft_operator.spec.parse import Run

OPERATED = replace(IMAGES, operated_from="maft-system")
NODES = {"training": {"parallelism": "Sharded", "nodes": 2, "gpus": 1}}
SERVER, TASK = 8000, 9100
Pod = tuple[str, dict[str, str]]  # namespace, labels
STRANGER: Pod = ("default", {"app": "other", "app.kubernetes.io/managed-by": "maft"})
OPERATOR: Pod = ("maft-system", {"app.kubernetes.io/name": "maft-operator", "app.kubernetes.io/instance": "maft"})
IMPOSTOR: Pod = ("default", OPERATOR[1])
NEIGHBOUR: Pod = ("maft-system", {"app": "other"})
PROMETHEUS: Pod = ("monitoring", {"app": "prometheus"})


def matches(selector: Json, labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", ())
    assert all(e["operator"] == "NotIn" for e in expressions)
    apart = all(labels.get(e["key"]) not in e["values"] for e in expressions)
    return apart and selector.get("matchLabels", {}).items() <= labels.items()


def lets(policy: Json, source: Pod, port: int) -> bool:
    namespace, labels = source

    def is_peer(peer: Json) -> bool:
        if "namespaceSelector" in peer:
            there = matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
        else:
            there = namespace == policy["metadata"]["namespace"]
        return there and matches(peer.get("podSelector", {}), labels)

    rules = [r for r in policy["spec"]["ingress"] if "ports" not in r or port in [p["port"] for p in r["ports"]]]
    return any("from" not in rule or any(is_peer(peer) for peer in rule["from"]) for rule in rules)


def reaches(policies: Iterable[Json], source: Pod, target: Pod, port: int) -> bool:
    about = [p for p in policies if p["metadata"]["namespace"] == target[0] and matches(p["spec"]["podSelector"], target[1])]
    return not about or any(lets(policy, source, port) for policy in about)


def everything(run: Run) -> tuple[list[Json], dict[str, Pod]]:
    """The policies of a run, and its pods by the name of their child."""
    graph = planned(run)
    items: tuple[Task | Server, ...] = (*graph.tasks, *graph.servers)
    made = [thing for item in items for thing in manifests.objects(item, owner(run), OPERATED)]
    templates = {t["metadata"]["name"]: t["spec"]["template"] for t in made if t["kind"] in ("Job", "Deployment")}
    pods: dict[str, Pod] = {name: (run.namespace, template["metadata"]["labels"]) for name, template in templates.items()}
    return [thing for thing in made if thing["kind"] == "NetworkPolicy"], pods


@pytest.mark.parametrize("spec", [{}, {"inference": {"topology": "PerAgent"}}, NODES], ids=["shared", "each", "nodes"])
def test_every_pod_of_a_run_is_closed_but_for_what_is_named(spec: Json) -> None:
    policies, pods = everything(a_run(**spec))
    for name, pod in pods.items():
        own = SERVER if "server" in name else TASK
        for source, ports in ((STRANGER, ()), (IMPOSTOR, ()), (NEIGHBOUR, ()), (PROMETHEUS, (own,))):
            assert [p for p in (SERVER, TASK, 29400, 22) if reaches(policies, source, pod, p)] == [*ports], (name, source)
        assert [p for p in (SERVER, TASK, 29400) if reaches(policies, OPERATOR, pod, p)] == ([] if "server" in name else [TASK])


def test_pods_of_a_run_reach_its_servers_and_no_other_runs() -> None:
    policies, pods = everything(a_run())
    debate, server = pods["r-1-debate"], pods["r-server"]
    assert reaches(policies, debate, server, SERVER) and not reaches(policies, debate, server, 22)
    of_another = (debate[0], {**debate[1], manifests.RUN: "r2"})
    assert not reaches(policies, of_another, server, SERVER)


def test_ranks_meet_on_any_port_where_they_are_several_pods_and_nowhere_else() -> None:
    policies, pods = everything(a_run(**NODES))
    train = next(pod for name, pod in pods.items() if "train" in name)
    assert all(reaches(policies, train, train, port) for port in (29400, 41234, TASK))
    assert not reaches(policies, pods["r-1-debate"], train, 41234)
    policies, pods = everything(a_run())
    assert not reaches(policies, STRANGER, pods["r-1-train"], 41234)


def test_without_an_operator_in_the_cluster_nobody_stands_for_it() -> None:
    run = a_run()
    made = manifests.objects(planned(run).tasks[0], owner(run), replace(OPERATED, operated_from=""))
    [policy] = [thing for thing in made if thing["kind"] == "NetworkPolicy"]
    assert len(policy["spec"]["ingress"][0]["from"]) == 2
