"""Resources of other releases: what the operator does not know is passed over, and a run that has begun is never refused."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_objects import STORAGE, planned
from test_schema import NEWER, resource

from maft.spec import immutable_spec_json
from maft_operator.plan.graph import command
from maft_operator.spec.parse import Run, parse
from maft_operator.spec.schema import BadSpec, openapi
from maft_operator.spec.skew import OPERATOR, pruned, read

PLAIN = resource(storage=STORAGE, agents=2)


def with_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """PLAIN with what lies at those paths of its spec."""
    whole = copy.deepcopy(PLAIN)
    for path, value in fields.items():
        *sections, last = path.split(".")
        place = whole["spec"]
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return whole


def commands(run: Run) -> list[tuple[str, ...]]:
    graph = planned(run)
    return [command(task, {name: ["http://x"] for name in task.servers}) for task in graph.tasks]


NEW_FIELDS: dict[str, Any] = {  # as a newer definition would fill them in
    "nodes": 1,
    "scheduling": {"gang": "Auto", "wait": {"seconds": 600}},
    "model.adapterFormat": "safetensors",
    "training.lora.initialization": ["orthogonal", {"scale": 1.0}],
    "debate.prompts.opening": "",
    "task.arithmetic.operators": ["+", "-"],
    "evaluation.judge": None,
    "storage.versioning": {"enabled": False},
}


@pytest.mark.parametrize("path", NEW_FIELDS)
def test_a_field_of_a_newer_definition_changes_nothing_and_is_told(path: str) -> None:
    newer = with_fields({path: NEW_FIELDS[path]})
    reading = read(newer, begun=False)
    assert reading.run == parse(PLAIN)
    [line] = reading.warnings
    assert line.startswith(OPERATOR) and f"spec.{path}," in line and "\n" not in line
    with pytest.raises(BadSpec, match="unknown field"):
        parse(newer)  # `maft validate` stays strict


def test_many_of_them_are_told_in_a_few_lines() -> None:
    reading = read(with_fields(NEW_FIELDS), begun=False)
    assert reading.run == parse(PLAIN)
    assert len(reading.warnings) == 5


def test_programs_get_the_same_command_lines() -> None:
    assert commands(read(with_fields(NEW_FIELDS), begun=True).run) == commands(parse(PLAIN))


def test_what_the_schema_leaves_open_stays() -> None:
    opened = {"podTemplate": {"spec": {"futureField": {"a": [1]}}}, "model.chatTemplateArguments": {"anything": True}}
    reading = read(with_fields(opened), begun=False)
    assert reading.warnings == ()
    assert reading.run.spec.pod_template == opened["podTemplate"]
    assert reading.run.spec.model.chat_template_arguments == {"anything": True}


def test_the_resource_itself_is_left_alone() -> None:
    newer = with_fields(NEW_FIELDS)
    before = copy.deepcopy(newer)
    pruned(newer)
    read(newer, begun=True)
    assert newer == before


def test_a_resource_without_the_fields_that_are_newer_is_read_by_their_defaults() -> None:
    """An older definition stored it; nothing filled them in."""
    older = json.loads(immutable_spec_json(parse(PLAIN).spec))
    for section, names in NEWER.items():
        for name in names:
            older[section].pop(name)
    older = {name: value for name, value in older.items() if value is not None and name != "recipe"}
    for section in ("model", "inference", "training", "evaluation", "task", "storage"):
        older[section] = {name: value for name, value in older[section].items() if value is not None}
    assert read({**PLAIN, "spec": older}, begun=True).run == read(PLAIN, begun=True).run


OUTSIDE: dict[str, Any] = {  # values that a newer release may allow, and this one does not
    "debate.rounds": 1000,
    "training.lora.rank": 3000,
    "inference.replicas": 10_000,
    "task.train": 10**9,
}
BEYOND: dict[str, int] = {"agents": 10**9, "iterations": 100_000, "evaluation.every": 0}  # of which a plan would have no end


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_run_that_has_begun_goes_on_with_what_this_release_would_refuse(path: str) -> None:
    newer = with_fields({path: OUTSIDE[path]})
    with pytest.raises(BadSpec) as refused:
        read(newer, begun=False)
    reading = read(newer, begun=True)
    assert reading.warnings == (f"{OPERATOR}{refused.value}; the run was accepted when it began, so it goes on",)
    assert path.rsplit(".", maxsplit=1)[-1] in refused.value.args[0]


@pytest.mark.parametrize("path", BEYOND)
def test_a_run_that_has_begun_waits_where_this_release_cannot_plan_for_its_numbers(path: str) -> None:
    with pytest.raises(BadSpec, match=rf"^spec\.{path}: {BEYOND[path]}; expected at (most|least)"):
        read(with_fields({path: BEYOND[path]}), begun=True)


def numbers(schema: Mapping[str, Any], path: str = "") -> list[str]:
    """Paths of all whole numbers of the spec, but for those of lists."""
    if schema.get("type") == "integer":
        return [path]
    return [p for name, child in schema.get("properties", {}).items() for p in numbers(child, f"{path}.{name}".lstrip("."))]


@pytest.mark.parametrize("path", [p for p in numbers(openapi()["properties"]["spec"]) if p not in BEYOND])
def test_by_no_other_number_does_a_plan_grow(path: str) -> None:
    try:
        reading = read(with_fields({path: 10**15}), begun=True)
    except BadSpec:
        return
    assert len(planned(reading.run).tasks) <= 10 and len(json.dumps(commands(reading.run))) < 40_000


UNREADABLE: dict[str, Any] = {
    "method": "multiagent-of-tomorrow",
    "inference.topology": "PerRack",
    "debate.rounds": "as many as it takes",
    "training.lora": "none",
    "agents": {"fewest": 2, "most": 5},
    "model": None,
}


@pytest.mark.parametrize("path", UNREADABLE)
@pytest.mark.parametrize("begun", [False, True])
def test_what_cannot_be_run_is_said_in_one_line(path: str, begun: bool) -> None:
    with pytest.raises(BadSpec) as caught:
        read(with_fields({path: UNREADABLE[path]}), begun=begun)
    assert "\n" not in str(caught.value)


def sections(schema: Mapping[str, Any], path: str = "") -> list[str]:
    """Paths of all objects of the spec with fields of their own."""
    paths = [path] if "properties" in schema else []
    return paths + [
        p for name, child in schema.get("properties", {}).items() for p in sections(child, f"{path}.{name}".lstrip("."))
    ]


PLACES = [path for path in sections(openapi()["properties"]["spec"]) if path not in ("task.generator", "evaluation.task.generator")]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda v: st.lists(v, max_size=2), max_leaves=3
)


@given(st.dictionaries(st.sampled_from(PLACES), st.tuples(st.from_regex(r"zz[a-zA-Z]{1,8}", fullmatch=True), VALUES), max_size=4))
@settings(max_examples=40)
def test_wherever_an_unknown_field_stands_it_is_passed_over(places: dict[str, tuple[str, Any]]) -> None:
    there = {
        p: v for p, v in places.items() if not p or p.partition(".")[0] in ("model", "task", "debate", "training", "inference")
    }
    newer = with_fields({f"{path}.{name}".lstrip("."): value for path, (name, value) in there.items()})
    known, unknown = pruned(newer)
    assert unknown == sorted(f"{path}.{name}".lstrip(".") for path, (name, _) in there.items())
    whole = json.dumps(known)
    assert not any(f'"{name}"' in whole for name, _ in there.values())
