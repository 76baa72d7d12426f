"""Every container of every pod that operator and chart make: what it asks for, what it may take, what its folders may hold.

A quota for processors, memory and disk lets in what names all of them, init containers and sidecars included. What no such walk
knows fails here: a kind of task, of server or of target that is new.
"""

from collections.abc import Iterable, Iterator, Set
from decimal import Decimal
from typing import get_args

import helm
import pytest
import yaml
from conftest import ROOT
from kube_objects import STORAGE, owner, planned
from test_comparison import made as a_comparison
from test_comparison import resource as comparison_resource
from test_exports import HUB, MLFLOW, OCI, OTEL
from test_manifests import VARIED
from test_resources import a_run
from test_society import OF_TWO_BASES, made_of, wish
from test_society import a_run as a_served_run

from maft.spec import ExportSpec
from maft_operator.cluster import manifests
from maft_operator.cluster.comparison import objects as comparison
from maft_operator.cluster.images import Images
from maft_operator.cluster.quantities import amount
from maft_operator.plan import exports
from maft_operator.plan.comparison import table_graph
from maft_operator.plan.disk import GIB
from maft_operator.plan.graph import ProgramName
from maft_operator.spec.schema import Json

DISK = "ephemeral-storage"
NAMED = {"cpu", "memory", DISK}
TARGETS = (MLFLOW, HUB, OTEL, OCI)
RUNS: dict[str, Json] = {
    **VARIED,
    "shards": {"debate": {"shards": 2}},
    "diversity": {"evaluation": {"diversity": 8}},
    "GPUs": {"training": {"gpus": 2}, "inference": {"gpus": 4}},
    "targets": {"export": [*TARGETS]},
}
SOCIETIES: dict[str, tuple[Json, Json]] = {
    "one base": ({}, {}),
    "two bases": (OF_TWO_BASES, {"gpus": 1}),
    "Secrets": ({}, {"apiKeysSecret": {"name": "keys"}, "tls": {"secretName": "tls"}}),
}
CHARTS: dict[str, Json] = {
    "as it is": {},
    "all that it has": {
        "replicas": 2,
        "page": {"enabled": True},
        "metrics": {"tls": {"secretName": "tls"}, "auth": True},
        "podDefaults": {"spec": {"nodeSelector": {"a": "b"}}},
    },
    "in namespaces": {"namespaces": ["a", "b"], "page": {"enabled": True}},
}


def images(model_bytes: int) -> Images:
    return Images("registry/maft", "1", isolated=True, model_bytes=model_bytes)


def of_run(name: str, model_bytes: int) -> list[Json]:
    run, used = a_run(**RUNS[name]), images(model_bytes)
    graph = planned(run)
    items = (*graph.tasks, *graph.servers, *(exports.last(graph, target) for target in run.spec.export))
    return [made for item in items for made in manifests.objects(item, owner(run), used)]


def of_comparison(model_bytes: int) -> list[Json]:
    one = a_comparison(template={**comparison_resource()["spec"]["template"], "storage": STORAGE})
    [task] = table_graph(one, [child.run.name for child in one.children]).tasks
    return [comparison.table_job(task, one, "uid", images(model_bytes))]


def of_society(name: str, model_bytes: int) -> list[Json]:
    run, spec = SOCIETIES[name]
    return made_of(wish(a_served_run(**run), **spec), images(model_bytes))


def pods(things: Iterable[Json]) -> Iterator[Json]:
    """The pods and templates of pods in these objects, whatever they are."""
    for thing in things:
        if "template" in (body := thing.get("spec") or {}):
            yield body["template"]
        elif thing["kind"] == "Pod":
            yield thing


def containers(pod: Json) -> list[Json]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def component(pod: Json) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def is_whole(container: Json, limited: Set[str] = NAMED) -> bool:
    """Whether it names all that a quota counts, and asks for no more than it may take. limited: what has to have a limit."""
    requests, limits = (named(container["resources"][part]) for part in ("requests", "limits"))
    return requests.keys() == NAMED and limits.keys() >= limited and all(0 < requests[name] <= limits[name] for name in limits)


def named(resources: Json) -> dict[str, Decimal]:
    return {name: amount(text) or Decimal(0) for name, text in resources.items() if name in NAMED}


def unlimited(pod: Json) -> list[str]:
    """The folders of the node that may hold anything."""
    folders = {volume["name"]: volume["emptyDir"] for volume in pod["spec"].get("volumes", ()) if "emptyDir" in volume}
    return [name for name, folder in folders.items() if not amount((folder or {}).get("sizeLimit"))]


def everything(model_bytes: int) -> dict[str, list[Json]]:
    """All pods of the operator's by component."""
    things = [thing for name in RUNS for thing in of_run(name, model_bytes)] + of_comparison(model_bytes)
    things += [thing for name in SOCIETIES for thing in of_society(name, model_bytes)]
    found: dict[str, list[Json]] = {}
    for pod in pods(things):
        found.setdefault(component(pod), []).append(pod)
    return found


def test_every_kind_of_pod_is_among_them() -> None:
    assert everything(GIB).keys() == {*get_args(ProgramName), "serve", "society"}
    assert {target["to"] for target in TARGETS} == set(get_args(ExportSpec.__annotations__["to"]))


def test_every_container_of_the_operators_pods_names_what_a_quota_counts_and_every_folder_has_a_limit() -> None:
    for kind, several in everything(GIB).items():
        for pod in several:
            assert all(map(is_whole, containers(pod))), kind
            assert unlimited(pod) == [], kind


def test_of_a_model_of_unknown_size_only_the_disk_has_no_limit_and_only_where_it_lies() -> None:
    """Whatever it is, it is not put out for it (docs/operations.md); everything else is limited as ever."""
    for kind, several in everything(0).items():
        for pod in several:
            assert all(is_whole(container, NAMED - {DISK}) for container in containers(pod)), kind
            without = [container["name"] for container in containers(pod) if not is_whole(container)]
            assert not without or kind in ("serve", "train", "diversity", "export", "society"), kind
            assert set(unlimited(pod)) <= ({"tmp", "cache"} if without else set()), kind


@pytest.mark.parametrize("case", CHARTS)
def test_every_container_of_the_chart_names_what_a_quota_counts_and_every_folder_has_a_limit(case: str) -> None:
    several = list(pods(helm.rendered(CHARTS[case])))
    names = {container["name"] for pod in several for container in containers(pod)}
    assert names == {"operator", "test"} | ({"page"} if CHARTS[case].get("page") else set())
    assert all(is_whole(container) for pod in several for container in containers(pod))
    assert [unlimited(pod) for pod in several] == [[]] * len(several)


def test_the_plain_manifest_too() -> None:
    [pod] = pods(filter(None, yaml.safe_load_all((ROOT / "deploy" / "operator.yaml").read_text())))
    assert all(map(is_whole, containers(pod))) and unlimited(pod) == []
