"""What a real API server says to the resource and to the objects made of it, and that `maft validate` says the same.

Requests are dry runs, but for a few resources in a namespace of our own. The tables are those of test_schema.py.
"""

import copy
import json
import math
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import Cluster
from conftest import ROOT, wait_until
from installed import RESTRICTED, served
from kube import Kube
from kube_objects import IMAGES, START, a_run, done, made
from kube_objects import at as moment
from kubernetes import client, config
from statuses import ALL, CASES, DEBATING, MEASURED, SUMMARIZED, debated, preflight, state, summarized, validated
from test_manifests import KINDS, VARIED, pods
from test_schema import (
    CHANGES,
    MINIMAL,
    NAME_RULES,
    NUMBERS,
    RULES,
    WHILE_SUSPENDED,
    WRONG,
    at,
    fields,
    merged,
    resource,
    spec_schema,
)

from maft.spec import MUTABLE
from maft.summaries import Answers, ProbeScore, TrainSummary
from maft_operator.cluster import drift, merge, placement, room, spent
from maft_operator.cluster.images import ROLES, Pin, Pins
from maft_operator.cluster.manifests import MANAGER, Json
from maft_operator.cluster.placement import Pause
from maft_operator.cluster.room import Crowd
from maft_operator.plan.budget import Spent
from maft_operator.spec.schema import GROUP, VERSION, BadSpec, checked, filled, openapi

pytestmark = pytest.mark.cluster
CRD = ROOT / "crds" / "multiagentfinetunes.yaml"
STRICT = {"dry_run": "All", "field_validation": "Strict"}


class Server:
    """The API server, asked about the resource in one namespace. An answer is the object, or why it was refused."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self.namespace = namespace
        self.api = client.CustomObjectsApi(config.new_client_from_config(config_file=kubeconfig))

    def create(self, body: Json) -> Json | str:
        return self._ask(self.api.create_namespaced_custom_object, body=self._here(body), **STRICT)

    def patch(self, name: str, change: Json) -> Json | str:
        kind = "application/merge-patch+json"
        return self._ask(self.api.patch_namespaced_custom_object, name=name, body=change, _content_type=kind, **STRICT)

    def apply(self, body: Json, subresource: str = "", **options: Any) -> Json | str:
        """Server-side apply, as kubectl does it, and as the operator writes a status."""
        call = self.api.patch_namespaced_custom_object_status if subresource else self.api.patch_namespaced_custom_object
        apply = {"field_manager": MANAGER, "force": True, "_content_type": "application/apply-patch+yaml"}
        return self._ask(call, name=body["metadata"]["name"], body=self._here(body), **apply, **STRICT, **options)

    def _here(self, body: Json) -> Json:
        return {**body, "metadata": {**body["metadata"], "namespace": self.namespace}}

    def _ask(self, call: Any, **arguments: Any) -> Json | str:
        try:
            return dict(call(GROUP, VERSION, self.namespace, "multiagentfinetunes", **arguments))
        except client.ApiException as error:
            assert error.status in (400, 422), error
            return str(json.loads(error.body)["message"])


@pytest.fixture(scope="module")
def kube(cluster: Cluster) -> Kube:
    """A cluster that serves the CRD as it stands in this folder."""
    found = Kube(Path(cluster.kubeconfig))
    found.apply(yaml.safe_load(CRD.read_text()))
    wait_until(lambda: served(found), 30)
    return found


@pytest.fixture(scope="module")
def server(cluster: Cluster, kube: Kube) -> Iterator[Server]:
    name = f"crd-test-{uuid.uuid4().hex[:8]}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    yield Server(cluster.kubeconfig, name)
    kube.delete("Namespace", None, name)


def agreed(server: Server, body: Json, *names: str) -> bool:
    """Whether server and `maft validate` both take it, with the same defaults; or both refuse it and name the field."""
    theirs = server.create(body)
    try:
        ours: Json | str = checked(body)
    except BadSpec as error:
        ours = str(error)
    assert isinstance(theirs, str) == isinstance(ours, str), f"{json.dumps(body)[:500]}\nAPI server: {theirs}\nmaft: {ours}"
    if isinstance(theirs, str) or isinstance(ours, str):
        assert all(name in theirs and name in ours for name in names), f"{names}\nAPI server: {theirs}\nmaft: {ours}"
        return False
    assert theirs["spec"] == ours["spec"]
    return True


# --- the definition itself ---


def test_kubectl_applies_it(cluster: Cluster, kube: Kube) -> None:
    command = [
        cluster.kubectl,
        "--kubeconfig",
        cluster.kubeconfig,
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        str(CRD),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_is_served(kube: Kube) -> None:
    conditions = {
        c["type"]: c["status"]
        for c in kube.get("CustomResourceDefinition", None, f"multiagentfinetunes.{GROUP}")["status"]["conditions"]
    }
    assert (conditions["Established"], conditions["NamesAccepted"]) == ("True", "True")
    assert "NonStructuralSchema" not in conditions


def test_it_is_small_enough_for_an_annotation() -> None:
    """`kubectl apply` keeps the whole in one, of at most 256 KiB."""
    assert CRD.stat().st_size < 100_000
    assert len(json.dumps(yaml.safe_load(CRD.read_text()))) < 100_000


def test_how_kubectl_finds_it(server: Server) -> None:
    [found] = [r for r in server.api.get_api_resources(GROUP, VERSION).resources if r.name == "multiagentfinetunes"]
    assert (found.kind, found.short_names, found.categories, found.namespaced) == ("MultiAgentFinetune", ["maft"], ["all"], True)


def test_what_kubectl_shows(server: Server, plain: str) -> None:
    body = {**MINIMAL, "metadata": {"name": plain}, "status": state(*ALL, *SUMMARIZED)}
    del body["spec"]
    table = server.apply(body, "status", _headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert isinstance(table, dict)
    columns = [(c["name"], c["priority"]) for c in table["columnDefinitions"]]
    shown = ("Name", "Phase", "Iteration", "Progress", "Accuracy")
    assert columns == [*((name, 0) for name in shown), ("Base", 1), ("Best", 1), ("Spent", 1), ("Age", 0)]
    [row] = table["rows"]
    assert row["cells"][:-1] == [plain, "Complete", "1/1", "100 %", "62.5 ± 2.0", "30.0 ± 3.0", None, "0:00 h"]


# --- what is accepted and what is refused ---


def test_a_minimal_resource_comes_back_with_all_defaults(server: Server) -> None:
    found = server.create(MINIMAL)
    assert isinstance(found, dict)
    assert found["spec"] == checked(MINIMAL)["spec"]
    assert found["status"] == {"observedGeneration": -1}  # nobody has looked yet


@pytest.mark.parametrize("message", RULES)
def test_each_rule(server: Server, message: str) -> None:
    kept, broken = RULES[message]
    assert agreed(server, resource(**kept))
    assert not agreed(server, resource(**broken), message)


@pytest.mark.parametrize("message", NAME_RULES)
def test_each_rule_about_names(server: Server, message: str) -> None:
    kept, broken = NAME_RULES[message]
    assert agreed(server, {**MINIMAL, "metadata": {"name": kept}})
    assert not agreed(server, {**MINIMAL, "metadata": {"name": broken}}, "metadata.name")


@pytest.mark.parametrize(
    "name", ["a", "a7", "a-b", "7", "-a", "a-", "a.b", "A", "a_b", "a b", "ä", "../a", "a\n", "a" * 64, "a" * 254]
)
def test_names(server: Server, name: str) -> None:
    assert agreed(server, {**MINIMAL, "metadata": {"name": name}}, "metadata.name") == (name in ("a", "a7", "a-b"))


def finite(value: Any) -> bool:
    """JSON has no NaN and no infinity, so a server never sees them."""
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(("path", "value"), [(p, v) for p, v, _ in WRONG if v is not None and finite(v)])
def test_what_is_wrong(server: Server, path: str, value: Any) -> None:
    assert not agreed(server, at(path, value), f"spec.{path}")


@pytest.mark.parametrize(("path", "child"), NUMBERS, ids=[path for path, _ in NUMBERS])
def test_bounds_of_every_number(server: Server, path: str, child: Json) -> None:
    """Inside the bounds the rules between fields may still refuse, as long as both do."""
    low, high = child["minimum"], child["maximum"]
    for value in (low - 1, high + 1, *([low] if child.get("exclusiveMinimum") else [])):
        assert not agreed(server, at(path, value), f"spec.{path}")
    for value in (low, high, (low + high) / 2 if child["type"] == "number" else low + 1):
        agreed(server, at(path, value))


CHOICES = [
    (path, child.get("enum") or child["items"]["enum"], child["type"])
    for path, child, _ in fields(spec_schema())
    if "enum" in child or "enum" in child.get("items", {})
]


@pytest.mark.parametrize(("path", "choices", "kind"), CHOICES, ids=[path for path, _, _ in CHOICES])
def test_every_choice(server: Server, path: str, choices: list[str], kind: str) -> None:
    wrap = (lambda choice: [choice]) if kind == "array" else (lambda choice: choice)
    for choice in choices:
        agreed(server, at(path, wrap(choice)))
    for choice in ("nope", choices[0].swapcase(), ""):
        assert not agreed(server, at(path, wrap(choice)), f"spec.{path}")


NEEDED = {
    "model": ["source"],
    "task": ["kind"],
    "model.tokenSecret": ["name"],
    "storage": ["bucket"],
    "storage.credentialsSecret": ["name"],
    "evaluation.task": ["kind"],
    "task.generator": ["name"],
    "evaluation.task.generator": ["name"],
    "debate.summarizer": ["agent"],
}


def test_every_required_field(server: Server) -> None:
    required = {path: child["required"] for path, child, _ in fields(spec_schema()) if "required" in child}
    assert required == NEEDED
    for path in (
        "model.tokenSecret",
        "storage",
        "storage.credentialsSecret",
        "evaluation.task",
        "task.generator",
        "debate.summarizer",
    ):
        assert not agreed(server, at(path, {}), f"spec.{path}.{NEEDED[path][0]}")
    for section in ("model", "task"):
        body = copy.deepcopy(MINIMAL)
        del body["spec"][section][NEEDED[section][0]]
        assert not agreed(server, body, f"spec.{section}.{NEEDED[section][0]}")
        del body["spec"][section]
        assert not agreed(server, body, f"spec.{section}")
    assert not agreed(server, {key: value for key, value in MINIMAL.items() if key != "spec"}, "spec")


def test_unknown_fields_of_every_section(server: Server) -> None:
    sections = [path for path, child, _ in fields(spec_schema()) if "properties" in child]
    assert len(sections) > 10
    for path in sections:
        assert not agreed(server, at(f"{path}.zzz", 1), f"spec.{path}.zzz")
    assert not agreed(server, at("zzz", 1), "spec.zzz")
    assert not agreed(server, {**MINIMAL, "zzz": 1}, "zzz")


TEXTS = ["", "x", "a\n", "abc ", "x" * 5000, "ä" * 300, "number", "{question}{summary}{answers}", "http://host:1"]
PROBES: list[Any] = [*TEXTS, 0, 1, 2, -1, 0.5, 10**9, 2**40, True, [], ["x"], [""], [1], ["x", "x"], {}, {"x": 1}]
# What fields need beside them.
COMPLETE = {"model": {"tokenSecret": {"name": "s"}}, "storage": {"bucket": "abc", "credentialsSecret": {"name": "s"}}}


def test_whatever_a_field_is_set_to_both_say_the_same(server: Server) -> None:
    """Each field of the spec, with each of these values."""
    tried = [(path, value) for path, _, _ in fields(spec_schema()) for value in PROBES]

    def accepted(one: tuple[str, Any]) -> bool:
        return agreed(server, {**MINIMAL, "spec": merged(copy.deepcopy(COMPLETE), at(*one)["spec"])})

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(accepted, tried)) > 150


@pytest.mark.parametrize(
    ("given", "taken_for"),
    [
        (at("agents", None), MINIMAL),
        (at("debate", None), MINIMAL),
        (at("storage", None), MINIMAL),
        (at("model.tokenSecret", None), MINIMAL),
    ],
)
def test_where_maft_is_stricter(server: Server, given: Json, taken_for: Json) -> None:
    """The API server takes null for absent. That may not be what was meant."""
    found = server.create(given)
    assert isinstance(found, dict)
    assert found["spec"] == checked(taken_for)["spec"]
    with pytest.raises(BadSpec, match=r"expected an (object|integer)"):
        checked(given)


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        (at("seed", 1000.0), True),
        (at("debate.maxTokens", 1024.0), True),
        (at("training.epochs", 1e0), True),
        (at("seed", -0.0), True),
        (at("seed", 2.0**31), False),
        (at("seed", 1e20), False),
        (at("agents", 2.5), False),
        (at("agents", 3.0000000001), False),
    ],
)
def test_a_whole_number_with_a_point_is_an_integer(server: Server, given: Json, whole: bool) -> None:
    assert agreed(server, given) == whole


@pytest.mark.parametrize("section", ["labels", "annotations"])
@pytest.mark.parametrize(
    ("value", "sound"),
    [({"a": "1"}, True), ({"a": None}, True), (None, True), ({"a": 1.5}, False), ({"a": True}, False), (["a"], False), (7, False)],
)
def test_labels_and_annotations_are_texts(server: Server, section: str, value: Any, sound: bool) -> None:
    assert agreed(server, {**MINIMAL, "metadata": {"name": "r", section: value}}, section) == sound


def test_a_pod_template_is_kept_as_it_is(server: Server) -> None:
    template = {"spec": {"enableServiceLinks": None, "volumes": [{"name": "a", "emptyDir": None}], "x": [None, {}, 1.5]}}
    assert agreed(server, at("podTemplate", template))


# --- changes ---


@pytest.fixture(scope="module")
def plain(server: Server, kube: Kube) -> str:
    """A resource that is really there. The operator, if one runs, refuses it: it has no storage."""
    kube.create({**MINIMAL, "metadata": {"name": "plain"}}, server.namespace)
    return "plain"


@pytest.fixture(scope="module")
def existing(server: Server, kube: Kube) -> dict[str, str]:
    """Of each spec that CHANGES begin with the name of a resource that has it, suspended so that nothing starts."""
    names: dict[str, str] = {}
    for _, before, _ in CHANGES:
        key = json.dumps(before)
        if key not in names:
            names[key] = f"existing-{len(names)}"
            body = resource(**{**before, "suspend": True} if before else before)
            kube.create({**body, "metadata": {"name": names[key]}}, server.namespace)
    return names


@pytest.mark.parametrize(("name", "before", "change"), CHANGES)
def test_what_may_change(server: Server, existing: dict[str, str], name: str, before: Json, change: Json) -> None:
    answer = server.patch(existing[json.dumps(before)], {"spec": change})
    if name in {*MUTABLE, *WHILE_SUSPENDED} and (before or name not in WHILE_SUSPENDED):
        assert isinstance(answer, dict), answer
        given = {key: value for key, value in change.items() if value is not None}
        expected = filled(resource(**given))["spec"]  # a list that is taken out has its default again, as parts of its items have
        assert {key: answer["spec"].get(key) for key in change} == {key: expected.get(key) for key in change}
    elif name in WHILE_SUSPENDED:
        assert isinstance(answer, str) and "set suspend to true first" in answer
    else:
        assert isinstance(answer, str) and "spec is immutable but for suspend, " in answer


def test_the_same_resource_may_be_applied_again(server: Server, plain: str) -> None:
    """Defaults that are left out are no change."""
    assert isinstance(server.apply({**MINIMAL, "metadata": {"name": plain}}), dict)


# --- the status ---

APART = (done("r-0-diversity"), done("r-1-diversity"), summarized("r-1-diversity", MEASURED))
WARNED = summarized("r-0-preflight", preflight("prompts are clipped"), "trainer")
# An iteration with answers that are not whole, an adapter that was kept and turns that did not count.
NOT_WHOLE = (
    summarized(
        "r-1-debate",
        debated(abstained=4, probe=ProbeScore(0.61, 0.0488, 100), answers=Answers(asked=96, cut=2, clipped=1), left_out={"cut": 2}),
    ),
    summarized("r-1-train", TrainSummary(adapters=(), trained=3, kept=1, turns_left_out=5)),
)
WHOLE = state(*ALL, *SUMMARIZED[::3], *NOT_WHOLE, *APART, WARNED, run=a_run(evaluation={"diversity": 10}))
USED = Pins({role: Pin(IMAGES.of(role), f"sha256:{64 * 'a'}") for role in ROLES}).status
UNDER_WAY = {
    "progress": state(*DEBATING, units={"r-1-debate": (12, 24)})["progress"],
    **placement.written(Pause(1, START, START)),
    **room.written(Crowd(1, START, START, START, "0/3 nodes")),
}
SPENT = spent.written(Spent(7200, 3600, 2, START))
CHOSEN = state(
    *(done(f"r-{i}-validate") for i in (1, 2)),
    *(summarized(f"r-{i}-validate", validated(0.6, *gain)) for i, gain in ((1, ()), (2, (0.1, 0.05, 1)))),
    run=a_run(iterations=2, evaluation={"validation": 10}),
)
BEST = {"best": CHOSEN["best"], "iterations": [*WHOLE["iterations"], CHOSEN["iterations"][-1]]}
OTHERS = {"images": USED, "model": {"bytes": 3_396_032}, "serverKey": "r-key-uid", "spent": SPENT}
SENT = {"to": "hub", "address": "a/b", "phase": "Sent", "iteration": 1, "last": True, "message": "there", "time": moment(0)}
EVERYTHING = {**WHOLE, **BEST, **OTHERS, **UNDER_WAY, "exports": [SENT]}


def paths(value: Any, path: str = "status") -> set[str]:
    """All fields that have a value."""
    if isinstance(value, list):
        return {found for item in value for found in paths(item, path)}
    if not isinstance(value, dict):
        return {path}
    return {path}.union(*(paths(item, f"{path}.{name}") for name, item in value.items()))


def test_everything_that_the_schema_has_is_written() -> None:
    def known(schema: Json, path: str) -> Iterator[str]:
        yield path
        for name, child in schema.get("items", schema).get("properties", {}).items():
            yield from known(child, f"{path}.{name}")

    described = set(known(openapi()["properties"]["status"], "status"))
    assert described - paths(EVERYTHING) == set()


@pytest.mark.parametrize("name", ["everything", *CASES])
def test_a_status_is_kept_whole(server: Server, plain: str, name: str) -> None:
    whole = EVERYTHING if name == "everything" else CASES[name][0]
    body = {**MINIMAL, "metadata": {"name": plain}, "status": whole}
    del body["spec"]
    answer = server.apply(body, "status")
    assert isinstance(answer, dict), answer
    assert answer["status"] == whole


# --- the objects that are made of it ---


def test_lists_are_merged_by_the_keys_that_the_api_names(cluster: Cluster, kube: Kube) -> None:
    """For podTemplate, as `kubectl patch --type=strategic` would do it."""
    command = [cluster.kubectl, "--kubeconfig", cluster.kubeconfig, "get", "--raw", "/openapi/v2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    kinds = [
        json.loads(done.stdout)["definitions"][f"io.k8s.api.core.v1.{kind}"]["properties"] for kind in ("PodSpec", "Container")
    ]
    merged_by = {
        name: child["x-kubernetes-patch-merge-key"]
        for properties in kinds
        for name, child in properties.items()
        if "merge" in child.get("x-kubernetes-patch-strategy", "")
    }
    assert {name: keys[0] for name, keys in merge._KEYS.items()}.items() <= merged_by.items()
    assert set(merged_by) - set(merge._KEYS) == {"ephemeralContainers", "schedulingGates"}  # not for templates


@pytest.mark.parametrize("spec", VARIED)
def test_jobs_deployments_and_services_are_accepted_and_do_not_drift(server: Server, kube: Kube, spec: str) -> None:
    for kind in KINDS:
        for wanted in made(a_run(**VARIED[spec]), kind):
            wanted["metadata"]["namespace"] = server.namespace
            found = kube.create(wanted, server.namespace, dry_run="All", query_params=[("fieldValidation", "Strict")])
            assert not drift.differs(wanted, found)


@pytest.mark.parametrize("spec", VARIED)
def test_pods_are_admitted_where_restricted_is_enforced(server: Server, kube: Kube, spec: str) -> None:
    for number, template in enumerate(pods(a_run(**VARIED[spec]))):
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": f"p-{number}"},
            "spec": template["spec"],
        }
        kube.create(body, server.namespace, dry_run="All", query_params=[("fieldValidation", "Strict")])
