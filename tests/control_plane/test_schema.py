"""The resource: the schema and its records agree, what is wrong is refused with the field's name, every rule bites."""

import copy
import datetime
import json
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maft.spec import MUTABLE, Recipe, RunSpec, TaskKind, decode_spec, immutable_spec_json
from maft_operator.__main__ import described
from maft_operator.plan.graph import command, graph
from maft_operator.spec import schema
from maft_operator.spec.parse import ARGUMENT_BYTES, parse
from maft_operator.spec.schema import PLURALS, SOCIETY, BadSpec, checked, openapi, rules

MINIMAL: dict[str, Any] = {
    "apiVersion": "maft.dev/v1alpha1",
    "kind": "MultiAgentFinetune",
    "metadata": {"name": "r"},
    "spec": {"model": {"source": "org/model"}, "task": {"kind": "arithmetic"}},
}


def merged(into: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in more.items():
        into[key] = merged(into.get(key, {}), value) if isinstance(value, dict) and isinstance(into.get(key, {}), dict) else value
    return into


def resource(**spec: Any) -> dict[str, Any]:
    return merged(copy.deepcopy(MINIMAL), {"spec": spec})


def at(path: str, value: Any) -> dict[str, Any]:
    """A resource with one field of its spec set: at("debate.rounds", 3)."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return resource(**value)


def wrong(given_: Mapping[str, Any]) -> str:
    with pytest.raises(BadSpec) as caught:
        checked(given_)
    message = str(caught.value)
    assert "\n" not in message
    return message


def spec_schema() -> dict[str, Any]:
    node: dict[str, Any] = openapi()["properties"]["spec"]
    return node


def fields(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every field below an object: its path, its schema, and whether its object requires it."""
    for name, child in node.get("properties", {}).items():
        yield f"{path}{name}", child, name in node.get("required", ())
        yield from fields(child, f"{path}{name}.")


# --- schema and records ---

TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def agree(part: type[msgspec.Struct], node: dict[str, Any], path: str) -> None:
    ours = {f.encode_name: f for f in msgspec.structs.fields(part) if f.type is not Recipe}  # made of `method`, not asked for
    assert set(ours) == set(node["properties"]), path
    for name, child in node["properties"].items():
        optional = get_origin(ours[name].type) in (Union, types.UnionType)
        assert optional == (ours[name].default is None), f"{path}{name}"
        given_always = "default" in child or name in node.get("required", ())
        assert given_always != optional, f"{path}{name}: a field without a default is optional in the record, and only such a one"
        kind = next(t for t in get_args(ours[name].type) if t is not types.NoneType) if optional else ours[name].type
        agree_on_type(kind, child, f"{path}{name}")


def agree_on_type(kind: Any, child: dict[str, Any], path: str) -> None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        assert child["type"] == "object", path
        agree(kind, child, f"{path}.")
    elif get_origin(kind) is Literal:
        assert (child["type"], set(child["enum"])) == ("string", set(get_args(kind))), path
    elif get_origin(kind) is tuple:
        [item, rest] = get_args(kind)
        assert (child["type"], rest) == ("array", ...), path
        agree_on_type(item, child["items"], f"{path}[]")
    elif get_origin(kind) is dict:
        assert child["x-kubernetes-preserve-unknown-fields"], path
    else:
        assert child["type"] == TYPES[kind], path


def test_records_and_schema_have_the_same_fields() -> None:
    agree(RunSpec, spec_schema(), "spec.")


def test_every_field_is_described_and_has_a_default_or_is_optional() -> None:
    every = list(fields(spec_schema()))
    assert len(every) > 60
    assert [path for path, child, _ in every if len(child.get("description", "")) < 4] == []
    for path, child, needed in every:
        assert not (needed and "default" in child), f"{path}: required, and yet has a default"


def test_every_number_and_text_has_bounds() -> None:
    for path, child, _ in fields(spec_schema()):
        if child["type"] in ("integer", "number"):
            assert {"minimum", "maximum"} <= set(child), path
        if child["type"] == "string" and "enum" not in child:
            assert "maxLength" in child, path
        if child["type"] == "array":
            assert "maxItems" in child, path


def test_small_enough_for_kubectl_apply() -> None:
    several = [file.read_bytes() for file in (resources.files("maft_operator") / "crds").iterdir()]
    assert len(several) == len(PLURALS) and all(len(text) < 100_000 for text in several)


def test_a_minimal_resource_gets_every_default() -> None:
    whole = checked(MINIMAL)["spec"]
    for path, child, _ in fields(spec_schema()):
        value: Any = whole
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if (
            "default" in child
            and child["type"] != "object"
            and not path.startswith(("storage.", "model.tokenSecret.", "evaluation.task."))
        ):
            assert value == child["default"], path
    assert "storage" not in whole
    assert "podTemplate" not in whole


@pytest.mark.parametrize(
    ("given_", "path", "expected"),
    [
        (at("debate.rounds", 3), "debate.topP", 0.9),
        (at("debate.prompts.revise", "{summary}{question}"), "debate.prompts.concatenate", None),
        (at("training.lora.rank", 4), "training.lora.alpha", 32),
        (at("training.lora.rank", 4), "training.epochs", 2),
        (at("model.tokenSecret", {"name": "s"}), "model.tokenSecret.key", "token"),
        (at("storage", {"bucket": "abc"}), "storage.prefix", ""),
        (at("task.arithmetic.maximum", 9), "task.arithmetic.minimum", 0),
        (at("evaluation.task.kind", "math"), "evaluation.task.levels", [1, 2, 3]),
        (at("evaluation.task.kind", "math"), "evaluation.task.heldOut", 500),
    ],
)
def test_defaults_fill_sections_that_are_given_in_part(given_: dict[str, Any], path: str, expected: Any) -> None:
    value: Any = checked(given_)["spec"]
    for part in path.split("."):
        value = value[part]
    assert value == expected if expected is not None else value


def test_what_is_given_is_not_changed_and_defaults_are_not_shared() -> None:
    given_ = resource()
    first, second = checked(given_), checked(given_)
    assert given_ == MINIMAL
    first["spec"]["training"]["lora"]["targetModules"].append("x")
    assert second["spec"]["training"]["lora"]["targetModules"] == ["all-linear"]
    assert checked(given_) == second


def test_a_checked_resource_is_its_own_checked_form() -> None:
    whole = checked(at("storage", {"bucket": "abc"}))
    assert checked(whole) == whole


specs = st.fixed_dictionaries(
    {},
    optional={
        "agents": st.integers(2, 8),
        "seed": st.integers(0, 2**31 - 1),
        "suspend": st.booleans(),
        "queueName": st.sampled_from(["", "q", "team-a.gpus"]),
        "workloadPriorityClass": st.text(max_size=9),
        "managedBy": st.sampled_from(["", "a.b/c"]),
        "gpuResource": st.sampled_from(["", "a.b/c"]),
        "ttlSecondsAfterFinished": st.integers(0, 9),
        "debate": st.fixed_dictionaries(
            {}, optional={"temperature": st.floats(0, 2) | st.integers(0, 2), "summarize": st.booleans()}
        ),
        "training": st.fixed_dictionaries({}, optional={"lossOn": st.sampled_from(["last", "all"]), "gpus": st.integers(0, 2)}),
        "inference": st.fixed_dictionaries({}, optional={"extraArgs": st.lists(st.text(min_size=1, max_size=5), max_size=3)}),
        "storage": st.fixed_dictionaries({"bucket": st.just("abc")}, optional={"endpoint": st.just("http://h:1")}),
        "export": st.lists(
            st.fixed_dictionaries(
                {"to": st.just("hub"), "address": st.from_regex("[a-z]{1,9}/[a-z]{1,9}", fullmatch=True)},
                optional={
                    "license": st.sampled_from(["", "Apache-2.0"]),
                    "report": st.booleans(),
                    "tokenSecret": st.just({"name": "s"}),
                },
            ),
            max_size=3,
            unique_by=lambda target: target["address"],
        ),
        "podTemplate": st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3),
    },
)


NEWER = {  # than the first files of this format
    "model": ("chatTemplateArguments", "date"),
    "task": ("semantic",),
    "debate": ("system", "thinking", "thinkingTokens", "showThoughts", "shards", "summarizer"),
    "training": (
        "trainThoughts",
        "gpus",
        "nodes",
        "sharedMemory",
        "nccl",
        "parallelism",
        "base",
        "checkpointMinutes",
        "preferenceRate",
        "distillFrom",
    ),
    "inference": ("startupSeconds", "placementSeconds", "sharedMemory"),
    "evaluation": ("validation",),
}


def test_a_spec_of_a_run_that_began_before_a_field_was_there_is_read() -> None:
    """As what the run ran with: the field's default, which records of newer fields have as the resource has it."""
    spec = parse(resource()).spec
    whole = json.loads(immutable_spec_json(spec))
    for section, names in NEWER.items():
        for name in names:
            whole[section].pop(name)
    del whole["training"]["lora"]["experts"]
    del whole["debate"]["prompts"]["reflect"]
    del whole["agentOverrides"]
    del whole["stopWhen"]
    del whole["debate"]["prompts"]["judge"]
    assert immutable_spec_json(decode_spec(json.dumps(whole))) == immutable_spec_json(spec)


@given(specs)
@settings(max_examples=40)
def test_the_records_say_what_the_resource_says(spec: dict[str, Any]) -> None:
    whole = checked(resource(**spec))["spec"]
    ours = parse(resource(**spec)).spec
    records = json.loads(msgspec.json.encode(ours))
    assert records.pop("podTemplate") == whole.pop("podTemplate", None)
    recipe = records.pop("recipe")
    assert without_none(records) == without_none(whole)
    given = {k: v for k, v in spec.items() if k not in ("podTemplate", "export")}  # a target in the list gets defaults, too
    assert merged(copy.deepcopy(whole), given) == whole
    fixed = {name: value for name, value in records.items() if name not in MUTABLE}
    assert json.loads(immutable_spec_json(ours)) == {**fixed, "queueName": "", "recipe": recipe}


def without_none(value: Any) -> Any:
    if isinstance(value, list):
        return [without_none(item) for item in value]
    return {k: without_none(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def test_a_spec_that_no_argument_holds_is_refused_in_one_line() -> None:
    prompt, subjects = "{question}" + 3990 * "größer"[2], [f"{n:0128d}" for n in range(64)]
    long = at("task", {"kind": "mmlu", "prompt": prompt, "subjects": subjects})
    assert len(immutable_spec_json(parse(long).spec).encode()) < 128 * 1024
    longer = merged(long, {"spec": {"inference": {"extraArgs": [f"--a={n:03d}" + 500 * "𝒳" for n in range(64)]}}})
    assert re.fullmatch(
        r"spec: \d+ bytes as JSON, and an argument of a program holds 131064; shorten .* inference\.extraArgs", refused(longer)
    )


def of_size(size: int) -> dict[str, Any]:
    """A resource whose spec has that many bytes as JSON, most of them four to a letter: else the schema's limits come first."""

    def room() -> int:
        return size - len(immutable_spec_json(parse(whole).spec).encode())

    whole = resource(inference={"extraArgs": []}, debate={"prompts": {"summarize": "{answers}"}})
    extra: list[str] = whole["spec"]["inference"]["extraArgs"]
    while room() > 3000 and len(extra) < 60:
        extra.append(500 * "😀")
    while room() > 500:
        whole["spec"]["debate"]["prompts"]["summarize"] += 50 * "😀"
    extra.append("a")
    extra[-1] *= 1 + room()
    return whole


def test_the_longest_spec_starts_a_program_and_a_byte_more_is_refused() -> None:
    """The name of the flag takes room, too."""
    one = parse(of_size(ARGUMENT_BYTES))
    text = immutable_spec_json(one.spec)
    [prepare, *_] = graph(one, "file:///store").tasks
    show = [sys.executable, "-c", "import sys; print(sys.argv[-1])"]
    done = subprocess.run([*show, *command(prepare, {})], check=True, capture_output=True, text=True)
    assert done.stdout == f"--spec={text}\n"
    shown = shlex.split(described(one, graph(one, "file:///store")), comments=True)[0].removeprefix("SPEC=")
    assert len(shown.encode()) <= ARGUMENT_BYTES and json.loads(shown) == json.loads(text)
    assert refused(of_size(ARGUMENT_BYTES + 1)).startswith(f"spec: {ARGUMENT_BYTES + 1} bytes as JSON")


@pytest.mark.parametrize("text", ["{question}\ud800", "{question}\udfff?", "\ud83d {question} \ude00"])
def test_half_a_character_is_refused_in_one_line(text: str) -> None:
    says = "holds half a character (a surrogate without its other half); remove it"
    assert refused(at("task", {"prompt": text})) == f"spec.task.prompt: {says}"
    assert refused(at("inference", {"extraArgs": [text]})) == f"spec.inference.extraArgs[0]: {says}"


def refused(given_: Mapping[str, Any]) -> str:
    with pytest.raises(BadSpec) as caught:
        parse(given_)
    return str(caught.value)


ANSWERS = {"arithmetic": "number", "jsonl": "number", "gsm8k": "number", "math": "math", "mmlu": "choice", "reasoning-gym": "text"}
NEEDS = {"jsonl": {"source": "q.jsonl"}, "reasoning-gym": {"generator": {"name": "chain_sum"}}}


@pytest.mark.parametrize("kind", get_args(TaskKind))
def test_each_kind_of_task_has_its_kind_of_answer(kind: str) -> None:
    answers = ANSWERS[kind]
    more = NEEDS.get(kind, {})
    assert parse(at("task", {"kind": kind, **more})).spec.task.answer_kind == answers
    if kind == "reasoning-gym":
        assert "leave answer out" in refusal(at("task", {"kind": kind, **more, "answer": answers}))
        return
    assert parse(at("task", {"kind": kind, **more, "answer": answers})).spec.task.answer_kind == answers
    assert parse(at("evaluation.task", {"kind": kind, **more})).spec.held_out_task.answer_kind == answers
    others = {"number", "math", "choice", "text", "code", "judge", "semantic"} - {answers}
    refused = {other for other in others if "task.answer" in refusal(at("task", {"kind": kind, **more, "answer": other}))}
    assert refused == (set() if kind == "jsonl" else others)


def refusal(given_: Mapping[str, Any]) -> str:
    try:
        checked(given_)
    except BadSpec as error:
        return str(error)
    return ""


def test_held_out_questions_are_of_the_task_unless_another_is_named() -> None:
    one, other = (
        parse(at("task.heldOut", 7)).spec,
        parse(at("evaluation.task", {"kind": "mmlu", "heldOut": 9, "prompt": "{question}"})).spec,
    )
    assert (one.held_out_task, one.held_out_task.held_out) == (one.task, 7)
    assert (other.held_out_task, other.held_out_task.held_out, other.held_out_task.prompt) == (
        other.evaluation.task,
        9,
        "{question}",
    )


def test_levels_and_subjects_are_sets() -> None:
    assert wrong(at("task", {"kind": "math", "levels": [1, 1]})) == "spec.task.levels[1]: 1 is there twice"
    assert wrong(at("task", {"kind": "mmlu", "subjects": ["a", "a"]})) == "spec.task.subjects[1]: 'a' is there twice"
    assert wrong(at("task", {"kind": "math", "levels": [6]})) == "spec.task.levels[0]: 6; expected at most 5"
    assert wrong(at("task", {"kind": "math", "levels": []})) == "spec.task.levels: has 0 items; expected at least 1"


def test_the_key_of_a_run() -> None:
    assert parse(MINIMAL).key == "default/r"
    assert parse({**MINIMAL, "metadata": {"name": "r", "namespace": "team-1"}}).key == "team-1/r"


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apiVersion": "v1"}, "apiVersion: 'v1'; this release reads maft.dev/v1alpha1"),
        ({"apiVersion": None}, "apiVersion: None; this release reads maft.dev/v1alpha1"),
        ({"kind": "Job"}, "kind: 'Job'; expected MultiAgentFinetune"),
        ({"metadata": {}}, "metadata.name: missing; give the run a name"),
        ({"metadata": None}, "metadata.name: missing; give the run a name"),
        ({"metadata": {"name": ""}}, "metadata.name: missing; give the run a name"),
        ({"metadata": {"name": 7}}, "metadata.name: 7; Services are named after it"),
        ({"metadata": {"name": ["r"]}}, "metadata.name: ['r']; Services are named after it"),
        ({"metadata": {"name": "My Run"}}, "metadata.name: 'My Run'; Services are named after it"),
        ({"metadata": {"name": "a.b"}}, "metadata.name: 'a.b'; Services are named after it"),
        ({"metadata": {"name": "../r"}}, "metadata.name: '../r'; Services are named after it"),
        ({"metadata": {"name": "7b"}}, "metadata.name: '7b'; Services are named after it"),
        ({"metadata": {"name": "r-"}}, "metadata.name: 'r-'; Services are named after it"),
        ({"metadata": {"name": "r\n"}}, "metadata.name: 'r\\n'; Services are named after it"),
        ({"metadata": {"name": "r", "namespace": "../x"}}, "metadata.namespace: '../x'; expected small letters"),
        ({"metadata": {"name": "r", "namespace": 7}}, "metadata.namespace: 7; expected small letters"),
        ({"spec": None}, "spec: is empty; expected an object"),
        ({"spec": []}, "spec: is a list; expected an object"),
        ({"sepc": {}}, "sepc: unknown field; did you mean spec?"),
    ],
)
def test_what_is_no_such_resource(change: dict[str, Any], message: str) -> None:
    assert wrong({**MINIMAL, **change}).startswith(message)


def test_a_resource_without_a_spec() -> None:
    assert wrong({k: v for k, v in MINIMAL.items() if k != "spec"}).startswith("spec: missing; see its description")


WRONG: list[tuple[str, Any, str]] = [  # field, value, beginning of the message
    # unknown
    ("agnets", 3, "spec.agnets: unknown field; did you mean agents?"),
    ("debate.topp", 1, "spec.debate.topp: unknown field; did you mean topP?"),
    ("debate.top_p", 1, "spec.debate.top_p: unknown field; did you mean topP?"),
    ("debate.max-tokens", 1, "spec.debate.max-tokens: unknown field; did you mean maxTokens?"),
    ("training.lora.r", 1, "spec.training.lora.r: unknown field; "),
    ("zzz", 1, "spec.zzz: unknown field; known are activeDeadlineSeconds, agentOverrides, agents, "),
    ("1", 1, "spec.1: unknown field; known are "),
    ("model.tokenSecret", {"name": "s", "keys": "k"}, "spec.model.tokenSecret.keys: unknown field; did you mean key?"),
    # types
    ("agents", "3", "spec.agents: is the text '3'; expected an integer"),
    ("agents", 2.5, "spec.agents: is 2.5; expected an integer"),
    ("agents", True, "spec.agents: is True; expected an integer"),
    ("agents", None, "spec.agents: is empty; expected an integer"),
    ("agents", [3], "spec.agents: is a list; expected an integer"),
    ("debate", "fast", "spec.debate: is the text 'fast'; expected an object"),
    ("debate.temperature", "1", "spec.debate.temperature: is the text '1'; expected a number"),
    ("debate.temperature", float("nan"), "spec.debate.temperature: is nan; expected a number"),
    ("debate.temperature", float("inf"), "spec.debate.temperature: is inf; expected a number"),
    ("suspend", "yes", "spec.suspend: is the text 'yes'; expected a boolean"),
    ("task.source", {"a": 1}, "spec.task.source: is an object; expected a string; put it in quotes"),
    ("inference.extraArgs", "--x", "spec.inference.extraArgs: is the text '--x'; expected an array"),
    ("inference.extraArgs", ["--x", 7], "spec.inference.extraArgs[1]: is 7; expected a string"),
    # bounds
    ("agents", 0, "spec.agents: 0; expected at least 1"),
    ("agents", 33, "spec.agents: 33; expected at most 32"),
    ("debate.topP", 0, "spec.debate.topP: 0; expected more than 0"),
    ("debate.topP", 1.01, "spec.debate.topP: 1.01; expected at most 1"),
    ("training.learningRate", 0.0, "spec.training.learningRate: 0.0; expected more than 0"),
    ("model.source", "", "spec.model.source: is empty"),
    ("model.source", "x" * 513, "spec.model.source: longer than 512 characters"),
    ("storage", {"bucket": "ab"}, "spec.storage.bucket: shorter than 3 characters"),
    ("storage", {"bucket": "A_B"}, "spec.storage.bucket: 'A_B'; expected to match ^[a-z0-9]"),
    ("storage", {"bucket": "abc\n"}, "spec.storage.bucket: 'abc\\n'; expected to match ^[a-z0-9]"),
    ("storage", {"bucket": "abc", "prefix": "/x"}, "spec.storage.prefix: '/x'; expected to match ^([^/]"),
    ("training.lora.targetModules", [], "spec.training.lora.targetModules: has 0 items; expected at least 1"),
    ("inference.extraArgs", ["x"] * 65, "spec.inference.extraArgs: has more than 64 items"),
    # choices
    ("export", [{"to": "wandb", "address": "x"}], "spec.export[0].to: 'wandb'; expected one of mlflow, otel, hub, oci"),
    ("export", [{"to": "hub"}], "spec.export[0].address: missing; see its description"),
    ("export", [{"to": "hub", "address": ""}], "spec.export[0].address: is empty"),
    ("task.kind", "jsnl", "spec.task.kind: 'jsnl'; expected one of arithmetic, jsonl, gsm8k"),
    ("evaluation.baselines", ["debate", "bas"], "spec.evaluation.baselines[1]: 'bas'; expected one of base, majority, debate"),
    ("evaluation.baselines", ["base", "debate", "base"], "spec.evaluation.baselines[2]: 'base' is there twice"),
    # missing
    ("storage", {}, "spec.storage.bucket: missing; see its description"),
    ("model.tokenSecret", {"key": "k"}, "spec.model.tokenSecret.name: missing; see its description"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_what_is_wrong_is_named(path: str, value: Any, message: str) -> None:
    assert wrong(at(path, value)).startswith(message)


@pytest.mark.parametrize("section", ["model", "task"])
def test_required_sections_and_fields(section: str) -> None:
    field = {"model": "source", "task": "kind"}[section]
    given_ = copy.deepcopy(MINIMAL)
    del given_["spec"][section][field]
    assert wrong(given_).startswith(f"spec.{section}.{field}: missing")
    del given_["spec"][section]
    assert wrong(given_).startswith(f"spec.{section}: missing")


NUMBERS = [(path, child) for path, child, _ in fields(spec_schema()) if "minimum" in child]


@pytest.mark.parametrize(("path", "child"), NUMBERS, ids=[path for path, _ in NUMBERS])
def test_bounds_of_every_number(path: str, child: dict[str, Any]) -> None:
    low, high = child["minimum"], child["maximum"]
    least = "more than" if child.get("exclusiveMinimum") else "at least"
    below = low if child.get("exclusiveMinimum") else low - 1
    assert wrong(at(path, below)) == f"spec.{path}: {below}; expected {least} {low}"
    assert wrong(at(path, high + 1)) == f"spec.{path}: {high + 1}; expected at most {high}"
    for inside in (low, high):
        try:
            checked(at(path, inside))
        except BadSpec as error:  # rules between fields may have an opinion of their own
            assert "expected at" not in str(error) and (inside == low or "more than 0" not in str(error))


def test_yaml_dates_are_texts_and_numeric_keys_are_names() -> None:
    whole = checked(at("model.revision", datetime.date(2025, 1, 2)))
    assert whole["spec"]["model"]["revision"] == "2025-01-02"
    assert wrong({**MINIMAL, "spec": {**MINIMAL["spec"], 1: 2}}).startswith("spec.1: unknown field")


def test_what_cannot_be_json() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert wrong({**MINIMAL, "spec": {**MINIMAL["spec"], "podTemplate": endless}}).startswith(
        "the resource cannot be written as JSON: "
    )
    assert wrong({**MINIMAL, (1, 2): 3}).startswith("the resource cannot be written as JSON: ")  # type: ignore[dict-item]


def test_free_form_sections_take_anything() -> None:
    pod = {"nodeSelector": {"a": "b"}, "anything": [1, {"x": None}]}
    assert checked(at("podTemplate", pod))["spec"]["podTemplate"] == pod
    assert parse(at("podTemplate", pod)).spec.pod_template == pod


@pytest.mark.parametrize("status", [{"phase": "Complete", "unknown": [2**64]}, {}, None, "text"])
def test_a_status_is_ignored_as_where_a_resource_is_applied(status: Any) -> None:
    assert checked({**MINIMAL, "status": status}) == checked(MINIMAL)


# --- rules ---

OK: dict[str, Any] = {}
JSONL = {"kind": "jsonl", "source": "q.jsonl"}
GYM = {"kind": "reasoning-gym", "generator": {"name": "gcd"}}
UNCLEAR = "holds a control character, or white space at an end or before ://; take it out"


def _source(field: str, value: str) -> dict[str, Any]:
    """A spec with that source, and what it needs beside it."""
    path, name = field.rpartition(".")[::2]
    whole = value if path == "model" else JSONL | {name: value}
    section = {name: value} if path == "model" else whole
    return {"evaluation": {"task": section}} if path.startswith("evaluation") else {path: section}


def to(kind: str, address: str, **more: Any) -> dict[str, Any]:
    """A target of spec.export."""
    return {"to": kind, "address": address, **more}


OWN = {"agent": 1, "model": {"source": "org/other"}}
# The message of each rule: a spec that keeps it, one that breaks it.
RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "debate.rounds: one agent has nobody to debate with; set rounds to 1 or agents to 2 or more": (
        {"agents": 1, "debate": {"rounds": 1, "critics": False}},
        {"agents": 1},
    ),
    "agentOverrides: names an agent that there is not; they count from 0 to agents - 1": (
        {"agents": 2, "agentOverrides": [{"agent": 1, "temperature": 0.2}, {"agent": 0, "system": "Be brief."}]},
        {"agents": 2, "agentOverrides": [{"agent": 2}]},
    ),
    "agentOverrides: names an agent twice; write all that it has otherwise into one entry": (
        {"agentOverrides": [{"agent": 0, "topP": 0.5, "learningRate": 0.001}]},
        {"agentOverrides": [{"agent": 0, "topP": 0.5}, {"agent": 0, "learningRate": 0.001}]},
    ),
    "agentOverrides: an agent with a model of its own needs a server of its own; set inference.topology to PerAgent": (
        {"agentOverrides": [OWN]},
        {"agentOverrides": [OWN], "inference": {"topology": "Shared"}},
    ),
    "agentOverrides: every agent has a model of its own, and model answers nothing; make it the model of one of them": (
        {"agents": 2, "agentOverrides": [OWN]},
        {"agents": 2, "agentOverrides": [OWN, {**OWN, "agent": 0}]},
    ),
    "agentOverrides: models of agents share no base to shard; set training.topology to PerAgent, or parallelism to Adapters": (
        {"agentOverrides": [OWN], "training": {"parallelism": "Sharded", "gpus": 2}},
        {"agentOverrides": [OWN], "training": {"parallelism": "Sharded", "gpus": 2, "topology": "Shared"}},
    ),
    **{
        f"agentOverrides.model.source: {line}": (
            {"agentOverrides": [OWN]},
            {"agentOverrides": [{"agent": 1, "model": {"source": source}}]},
        )
        for line, source in (
            (UNCLEAR, "s3 ://bucket/a"),
            ("~ stands for nothing here; write the folder's whole path", "~/model"),
            (
                "this kind of URL is not read; name a model of the hub as org/name, put it into an S3 bucket, or into a folder",
                "gs://bucket/a",
            ),
        )
    },
    "agentOverrides: all-linear stands alone among the targetModules of an agent": (
        {"agentOverrides": [{"agent": 0, "lora": {"rank": 4}}, {"agent": 1, "lora": {"targetModules": ["all-linear"]}}]},
        {"agentOverrides": [{"agent": 0}, {"agent": 1, "lora": {"targetModules": ["all-linear", "q_proj"]}}]},
    ),
    "export: names a target twice; take one of both out": (
        {"export": [to("hub", "a/b"), to("hub", "a/c"), to("mlflow", "http://h")]},
        {"export": [to("hub", "a/b"), to("hub", "a/b", license="MIT")]},
    ),
    "export: the address of mlflow must be http://HOST[:PORT] or https://HOST, without credentials; #EXPERIMENT may follow": (
        {"export": [to("mlflow", "https://mlflow.team/at/path#my runs")]},
        {"export": [to("mlflow", "http://me:secret@mlflow:5000")]},
    ),
    "export: the address of otel must be http://HOST[:PORT] or https://HOST, without credentials": (
        {"export": [to("otel", "http://collector:4318")]},
        {"export": [to("otel", "collector:4318")]},
    ),
    "export: the address of hub must be OWNER/NAME": (
        {"export": [to("hub", "my-team/a.b_c")]},
        {"export": [to("hub", "https://hub/my-team/name")]},
    ),
    "export: the address of oci must be HOST/NAME:TAG in small letters, without credentials; http:// before it if without TLS": (
        {"export": [to("oci", "http://registry:5000/team/agents:v1.0"), to("oci", "r.io/a:latest")]},
        {"export": [to("oci", "r.io/team/agents")]},
    ),
    "debate.minAgreement: more agents than there are; set it to at most agents": (
        {"debate": {"minAgreement": 3}},
        {"debate": {"minAgreement": 4}},
    ),
    **{
        f"{field}: {UNCLEAR}": (_source(field, "./my questions"), _source(field, "s3 ://bucket/a"))
        for field in ("model.source", "task.source", "task.heldOutSource", "evaluation.task.source")
    },
    "debate.shards: more than there are questions; set it to at most task.train": (
        {"debate": {"shards": 7}, "task": {"train": 7, "heldOut": 7}},
        {"debate": {"shards": 8}, "task": {"train": 7}},
    ),
    "debate.shards: more than there are held-out questions; set it to at most heldOut": (
        {"debate": {"shards": 2}, "task": {"heldOut": 1}, "evaluation": {"task": {"kind": "gsm8k", "heldOut": 2}}},
        {"debate": {"shards": 2}, "evaluation": {"task": {"kind": "gsm8k", "heldOut": 1}}},
    ),
    "debate.shards: more than there are validation questions; set it to at most evaluation.validation": (
        {"debate": {"shards": 2}, "evaluation": {"validation": 2}},
        {"debate": {"shards": 2}, "evaluation": {"validation": 1}},
    ),
    "stopWhen.patience: nothing tells a gain without validation questions; set evaluation.validation to 100 or more": (
        {"evaluation": {"validation": 1}, "stopWhen": {"patience": 1}},
        {"stopWhen": {"patience": 1}},
    ),
    "inference.topology: PerAgent is for at most 8 agents; use Shared": ({"agents": 8}, {"agents": 9}),
    'task.source: kind jsonl needs a file with one {"question", "answer"} object a line': (
        {"task": JSONL},
        {"task": {"kind": "jsonl"}},
    ),
    "task.source: kind arithmetic makes its own questions; leave source out or use kind jsonl": (
        OK,
        {"task": {"kind": "arithmetic", "source": "q.jsonl"}},
    ),
    "task.heldOutSource: only beside task.source": (
        {"task": JSONL | {"heldOutSource": "h.jsonl"}},
        {"task": {"kind": "gsm8k", "heldOutSource": "h.jsonl"}},
    ),
    "task.answer: arithmetic and gsm8k have numbers as answers, math has math and mmlu has choices; leave answer out": (
        {"task": JSONL | {"answer": "choice"}},
        {"task": {"kind": "gsm8k", "answer": "choice"}},
    ),
    "task.answer: each generator has a form of answer of its own; leave answer out": (
        {"task": GYM},
        {"task": GYM | {"answer": "number"}},
    ),
    "task.generator: kind reasoning-gym needs a generator, and no other kind has one": (
        {"task": GYM | {"generator": {"name": "gcd", "config": {"max_value": 9}}}},
        {"task": {"kind": "gsm8k", "generator": {"name": "gcd"}}},
    ),
    "task.source: kind reasoning-gym makes its own questions; leave source out": (
        {"task": GYM},
        {"task": GYM | {"source": "q.jsonl"}},
    ),
    "task.levels: only kind math has levels; leave levels out": (
        {"task": {"kind": "math", "levels": [1, 5], "answer": "math"}},
        {"task": {"kind": "gsm8k", "levels": [1, 5]}},
    ),
    "task.subjects: only kind mmlu has subjects; leave subjects out": (
        {"task": {"kind": "mmlu", "subjects": ["virology"], "answer": "choice"}},
        {"task": {"kind": "math", "subjects": ["algebra"]}},
    ),
    'evaluation.task.source: kind jsonl needs a file with one {"question", "answer"} object a line': (
        {"evaluation": {"task": JSONL}},
        {"evaluation": {"task": {"kind": "jsonl"}}},
    ),
    "evaluation.task.source: kind arithmetic makes its own questions; leave source out or use kind jsonl": (
        {"evaluation": {"task": {"kind": "arithmetic"}}},
        {"evaluation": {"task": {"kind": "arithmetic", "source": "q.jsonl"}}},
    ),
    "evaluation.task.answer: arithmetic and gsm8k have numbers as answers, math has math and mmlu has choices; leave answer out": (
        {"evaluation": {"task": JSONL | {"answer": "choice"}}},
        {"evaluation": {"task": {"kind": "math", "answer": "number"}}},
    ),
    "evaluation.task.answer: each generator has a form of answer of its own; leave answer out": (
        {"evaluation": {"task": GYM}},
        {"evaluation": {"task": GYM | {"answer": "number"}}},
    ),
    "evaluation.task.generator: kind reasoning-gym needs a generator, and no other kind has one": (
        {"evaluation": {"task": GYM | {"generator": {"name": "gcd", "config": {"max_value": 9}}}}},
        {"evaluation": {"task": {"kind": "gsm8k", "generator": {"name": "gcd"}}}},
    ),
    "evaluation.task.source: kind reasoning-gym makes its own questions; leave source out": (
        {"evaluation": {"task": GYM}},
        {"evaluation": {"task": GYM | {"source": "q.jsonl"}}},
    ),
    "evaluation.task.levels: only kind math has levels; leave levels out": (
        {"evaluation": {"task": {"kind": "math", "levels": [4]}}},
        {"evaluation": {"task": {"kind": "mmlu", "levels": [4]}}},
    ),
    "evaluation.task.subjects: only kind mmlu has subjects; leave subjects out": (
        {"evaluation": {"task": {"kind": "mmlu", "subjects": ["virology"]}}},
        {"evaluation": {"task": {"kind": "gsm8k", "subjects": ["virology"]}}},
    ),
    "evaluation.task.prompt: must contain {question}": (
        {"evaluation": {"task": {"kind": "gsm8k", "prompt": "{question}"}}},
        {"evaluation": {"task": {"kind": "gsm8k", "prompt": "?"}}},
    ),
    "evaluation.task.kind: held-out questions come from there; leave task.heldOutSource out": (
        {"task": JSONL, "evaluation": {"task": {"kind": "gsm8k"}}},
        {"task": JSONL | {"heldOutSource": "h.jsonl"}, "evaluation": {"task": {"kind": "gsm8k"}}},
    ),
    "task.semantic.embedder: neither package nor a folder; models of the hub and of buckets are not read, so write "
    "a folder's path, with /, ./ or ../ at its front": (
        {"task": {"semantic": {"embedder": "../encoder"}}},
        {"task": {"semantic": {"embedder": "sentence-transformers/all-MiniLM-L6-v2"}}},
    ),
    "task.prompt: must contain {question}": ({"task": {"prompt": "{question}!"}}, {"task": {"prompt": "{questions}"}}),
    "task.arithmetic.minimum: larger than maximum": (
        {"task": {"arithmetic": {"minimum": 5, "maximum": 5}}},
        {"task": {"arithmetic": {"minimum": 30}}},
    ),
    "debate.critics: with one round nobody is corrected, so there is nothing to train critics on; "
    "set critics to false or rounds to 2 or more": (
        {"debate": {"rounds": 1, "critics": False}},
        {"debate": {"rounds": 1}},
    ),
    "debate.cooperative: with one round nobody hears the others; set rounds to 2 or more": (
        {"debate": {"cooperative": True}},
        {"debate": {"rounds": 1, "critics": False, "cooperative": True}},
    ),
    "debate.prompts.summarize: must contain {answers}": (
        {"debate": {"prompts": {"summarize": "{answers}"}}},
        {"debate": {"prompts": {"summarize": "{summary}"}}},
    ),
    "debate.prompts.revise: must contain {summary} and {question}": (
        {"debate": {"prompts": {"revise": "{summary}{question}"}}},
        {"debate": {"prompts": {"revise": "{summary}"}}},
    ),
    "debate.prompts.concatenate: must contain {answers} and {question}": (
        {"debate": {"prompts": {"concatenate": "{answers}{question}"}}},
        {"debate": {"prompts": {"concatenate": "{question}"}}},
    ),
    "debate.prompts.cooperate: must contain {summary} and {question}": (
        {"debate": {"prompts": {"cooperate": "{question}{summary}"}}},
        {"debate": {"prompts": {"cooperate": "{answers}{question}"}}},
    ),
    "metadata.name: is the run's group, too; give spec.group a name that none of its runs has": (
        {"group": "all"},
        {"group": "r"},
    ),
    "debate.summarizer.agent: names an agent that there is not; they count from 0 to agents - 1": (
        {"debate": {"summarizer": {"agent": 2}}},
        {"debate": {"summarizer": {"agent": 3}}},
    ),
    "debate.summarizer: nobody summarizes; set debate.summarize to true, or leave it out": (
        {"debate": {"summarizer": {"agent": 0}}},
        {"debate": {"summarizer": {"agent": 0}, "summarize": False}},
    ),
    "debate.prompts.reflect: must contain {question}": (
        {"debate": {"prompts": {"reflect": "again: {question}"}}},
        {"debate": {"prompts": {"reflect": "again: {answers}"}}},
    ),
    "debate.prompts.judge: must contain {one} and {other}": (
        {"debate": {"prompts": {"judge": "{other} or {one}?"}}},
        {"debate": {"prompts": {"judge": "{one} or {two}?"}}},
    ),
    "debate.prompts.hint: must contain {question} and {answer}": (
        {"debate": {"prompts": {"hint": "{answer}{question}"}}},
        {"debate": {"prompts": {"hint": "{question}{answers}"}}},
    ),
    "training.lora.targetModules: all-linear stands alone": (
        {"training": {"lora": {"targetModules": ["q_proj", "v_proj"]}}},
        {"training": {"lora": {"targetModules": ["q_proj", "all-linear"]}}},
    ),
    "training.parallelism: Sharded is for 2 GPUs or more, or 2 nodes; set training.gpus to how many a node has, or use Adapters": (
        {"training": {"parallelism": "Sharded", "gpus": 2}},
        {"training": {"parallelism": "Sharded"}},
    ),
    "training.nodes: several nodes hold one base together; set parallelism to Sharded, or nodes to 1": (
        {"training": {"nodes": 2, "parallelism": "Sharded", "gpus": 0}},
        {"training": {"nodes": 2, "gpus": 1}},
    ),
    "training.nccl: only GPUs that hold one base talk over a network; leave it out, or set parallelism to Sharded": (
        {"training": {"parallelism": "Sharded", "gpus": 2, "nccl": {"interface": "eth0"}}},
        {"training": {"gpus": 2, "nccl": {"infiniBand": False}}},
    ),
    "training.gpus: more than a training task has adapters; set fewer, topology to Shared, or parallelism to Sharded": (
        {"training": {"topology": "Shared", "gpus": 6}},
        {"training": {"gpus": 3}},
    ),
    "training.base: nf4 is not sharded; use parallelism Adapters, or base full": (
        {"training": {"base": "nf4", "gpus": 2}},
        {"training": {"base": "nf4", "gpus": 2, "parallelism": "Sharded"}},
    ),
    "training.base: nf4 needs a GPU; set training.gpus to 1 or more, or base to full": (
        {"training": {"base": "nf4", "gpus": 1}},
        {"training": {"base": "nf4", "gpus": 0}},
    ),
    "model.source: this kind of URL is not read; name a model of the hub as org/name, put it into an S3 bucket, or into a folder": (
        {"model": {"source": "s3://bucket/model"}},
        {"model": {"source": "https://huggingface.co/org/model"}},
    ),
    "model.source: ~ stands for nothing here; write the folder's whole path": (
        {"model": {"source": "/home/me/model"}},
        {"model": {"source": "~/model"}},
    ),
    "gpuResource: Kubernetes keeps these names for itself; name what nodes offer, such as nvidia.com/gpu": (
        {"gpuResource": "nvidia.com/mig-1g.5gb"},
        {"gpuResource": "requests.nvidia.com/gpu"},
    ),
    "storage.endpoint: must be http://HOST[:PORT] or https://HOST[:PORT]": (
        {"storage": {"bucket": "abc", "endpoint": "https://minio.local:9000/"}},
        {"storage": {"bucket": "abc", "endpoint": "http://host/path"}},
    ),
}
# The name stands outside the spec, so its rules do too: a name that keeps it, one that breaks it.
NAME_RULES = {
    "metadata.name is longer than 40 characters; names of Jobs and Services are made from it, so choose a shorter one": (
        "a" * 40,
        "a" * 41,
    ),
    "metadata.name: Services are named after it: small letters, digits and -, a letter first": ("a-7", "7a"),
}


def lasting() -> list[dict[str, Any]]:
    return [rule for _, rule in rules() if "oldSelf" not in rule["rule"]]


def test_the_table_has_every_rule() -> None:
    messages = [rule["message"] for rule in lasting()]
    assert sorted(messages) == sorted([*RULES, *NAME_RULES])


def test_rules_are_found_wherever_they_stand() -> None:
    def count(part: Any) -> int:
        if isinstance(part, dict):
            return len(part.get("x-kubernetes-validations", ())) + sum(map(count, part.values()))
        return sum(map(count, part)) if isinstance(part, list) else 0

    assert len(list(rules())) == count(openapi())


@pytest.mark.parametrize("message", RULES)
def test_each_rule_lets_pass_and_refuses(message: str) -> None:
    kept, broken = RULES[message]
    checked(resource(**kept))
    assert wrong(resource(**broken)) == message


@pytest.mark.parametrize("field", ["model.source", "task.source", "task.heldOutSource", "evaluation.task.source"])
@pytest.mark.parametrize(
    "source", [" s3://b/x", "s\n3://b/x", "s3:/\t/b", "\x01s3://b", "s3://b\r", "a\x85", "org/name\u3000", "s3 ://b"]
)
def test_no_source_is_read_as_another_than_it_looks(field: str, source: str) -> None:
    """Python's urlsplit takes white space and control characters out: an admission policy would see another address."""
    assert wrong(resource(**_source(field, source))) == f"{field}: {UNCLEAR}"


@pytest.mark.parametrize("source", ["s3://b/my data/q.jsonl", "s3://b/x?endpoint=http://s3:9000", "data/my questions.jsonl"])
def test_names_of_files_may_have_spaces(source: str) -> None:
    checked(resource(task={**JSONL, "source": source}))


@pytest.mark.parametrize(
    ("ingress", "line"),
    [
        ({"host": "10.0.0.1"}, "spec.ingress.host: an address, and an Ingress wants a name"),
        ({"host": "https://a.example.com"}, "spec.ingress.host: 'https://a.example.com'; expected to match"),
        ({"host": "a.example.com", "className": "NGINX"}, "spec.ingress.className: 'NGINX'; expected to match"),
        ({"host": "a.example.com", "tlsSecretName": "a/b"}, "spec.ingress.tlsSecretName: 'a/b'; expected to match"),
        (
            {"host": "a.example.com", "annotations": {f"a{n}": "" for n in range(65)}},
            "spec.ingress.annotations: has more than 64 entries",
        ),
    ],
)
def test_what_no_ingress_can_have_is_refused_before_one_is_made(ingress: dict[str, Any], line: str) -> None:
    society = {**MINIMAL, "kind": SOCIETY, "spec": {"run": "r", "apiKeysSecret": {"name": "keys"}}}
    checked(society | {"spec": society["spec"] | {"ingress": {"host": "a.example.com", "className": "nginx"}}}, SOCIETY)
    with pytest.raises(BadSpec) as caught:
        checked(society | {"spec": society["spec"] | {"ingress": ingress}}, SOCIETY)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("rule", NAME_RULES)
def test_each_rule_about_names(rule: str) -> None:
    kept, broken = NAME_RULES[rule]
    checked({**MINIMAL, "metadata": {"name": kept}})
    # maft's own check of the form comes first and says what it found.
    assert wrong({**MINIMAL, "metadata": {"name": broken}}) in (rule, rule.replace("name:", f"name: {broken!r};"))


@pytest.mark.parametrize(("path", "rule"), list(rules()), ids=[rule["rule"][:40] for _, rule in rules()])
def test_every_rule_compiles_and_its_message_names_its_field(path: str, rule: dict[str, str]) -> None:
    schema._compiled(rule["rule"])
    field = re.split("[ :]", rule["message"])[0]
    if "oldSelf" in rule["rule"]:
        assert (path, field) == ("spec", "spec")
    elif path:
        whole = path.removeprefix("spec").lstrip(".")
        assert field.startswith(whole.replace("[]", ""))
        assert "[]" in whole or field in {name for name, _, _ in fields(spec_schema())}
    else:
        assert field == "metadata.name"


def test_rules_of_a_section_with_a_default_stand_above_it() -> None:
    """The API server holds a section's default against its rules before it fills in the fields, and refuses the whole schema."""
    assert [path for path, _ in rules() if path != "spec" and {"default"} & set(found_at(path))] == []


def found_at(path: str) -> dict[str, Any]:
    node = openapi()
    for part in path.replace("[]", ".[]").split(".") if path else ():
        node = node["items"] if part == "[]" else node["properties"][part]
    return node


def told(arguments: dict[str, Any]) -> dict[str, Any]:
    """A spec with arguments of the chat template."""
    return {"model": {"source": "org/model", "chatTemplateArguments": arguments}}


TOLD = told({"effort": "low", "more": {"deep": [True, None]}, "no": None})
MADE = {"task": {"kind": "reasoning-gym", "generator": {"name": "gcd", "config": {"max_value": 9}}}}
STORED, LIMITED = {"storage": {"bucket": "abc"}}, {"activeDeadlineSeconds": 60}
WHILE_SUSPENDED = (
    "queueName",
    "workloadPriorityClass",
    "managedBy",
    "gpuResource",
)  # which may change when nothing of the run is there
# Field: the spec before, and what replaces its sections. A field that is not in MUTABLE may not change, come or go.
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("model", OK, {"model": {"source": "other"}}),
    ("model", OK, {"model": {"source": "org/model", "revision": "v1"}}),
    ("model", OK, {"model": {"source": "org/model", "tokenSecret": {"name": "s"}}}),
    ("model", OK, told({"a": 1})),
    ("model", TOLD, told({"effort": "high"})),
    ("model", TOLD, told({"effort": 1})),
    ("model", TOLD, told({"effort": None})),
    ("model", TOLD, told({"effort": None, "other": "low"})),
    ("model", TOLD, told({"more": {"deep": [False, None]}})),
    ("model", TOLD, told({"more": {"deep": None, "other": [True, None]}})),
    ("model", TOLD, told({"another": None, "one": 1.5})),
    ("task", OK, {"task": {"kind": "arithmetic", "train": 7}}),
    ("task", MADE, {"task": {**MADE["task"], "generator": {"name": "gcd", "config": {"max_value": 8}}}}),
    ("task", MADE, {"task": {**MADE["task"], "generator": {"name": "gcd", "config": {"min_value": 9}}}}),
    ("task", MADE, {"task": {**MADE["task"], "generator": {"name": "lcm", "config": {"max_value": 9}}}}),
    ("seed", OK, {"seed": 4}),
    ("method", OK, {"method": "union"}),
    ("agents", OK, {"agents": 4}),
    ("iterations", OK, {"iterations": 4}),
    ("debate", OK, {"debate": {"prompts": {"summarize": "{answers}"}}}),
    ("training", OK, {"training": {"lora": {"rank": 4}}}),
    ("inference", OK, {"inference": {"replicas": 4}}),
    ("evaluation", OK, {"evaluation": {"every": 4}}),
    ("evaluation", OK, {"evaluation": {"baselines": ["base"]}}),
    ("evaluation", OK, {"evaluation": {"task": {"kind": "gsm8k"}}}),
    ("evaluation", OK, {"evaluation": {"validation": 4}}),
    ("stopWhen", OK, {"stopWhen": {"minGain": 1}}),
    ("task", OK, {"task": {"kind": "arithmetic", "probe": 7}}),
    ("queueName", OK, {"queueName": "q"}),
    ("queueName", {"queueName": "q"}, {"queueName": "other"}),
    ("workloadPriorityClass", OK, {"workloadPriorityClass": "high"}),
    ("managedBy", OK, {"managedBy": "kueue.x-k8s.io/multikueue"}),
    ("gpuResource", OK, {"gpuResource": "amd.com/gpu"}),
    ("agentOverrides", OK, {"agentOverrides": [{"agent": 0, "temperature": 0.1}]}),
    ("agentOverrides", {"agentOverrides": [{"agent": 0}]}, {"agentOverrides": None}),
    ("group", OK, {"group": "other"}),
    ("group", {"group": "one"}, {"group": "other"}),
    ("storage", OK, STORED),
    ("storage", STORED, {"storage": None}),
    ("storage", STORED, {"storage": {"bucket": "abcd"}}),
    ("storage", STORED, {"storage": {"bucket": "abc", "endpoint": "http://h"}}),
    ("activeDeadlineSeconds", OK, LIMITED),
    ("activeDeadlineSeconds", LIMITED, {"activeDeadlineSeconds": None}),
    ("activeDeadlineSeconds", LIMITED, {"activeDeadlineSeconds": 61}),
    ("suspend", OK, {"suspend": True}),
    ("backoffLimit", OK, {"backoffLimit": 9}),
    ("budget", OK, {"budget": {"gpuHours": 0.5}}),
    ("budget", OK, {"budget": {"tokens": 1000000}}),
    ("export", OK, {"export": [{"to": "hub", "address": "a/b"}]}),
    ("export", {"export": [{"to": "hub", "address": "a/b"}]}, {"export": None}),
    ("budget", {"budget": {"seconds": 60}}, {"budget": {"seconds": 90}}),
    ("ttlSecondsAfterFinished", OK, {"ttlSecondsAfterFinished": 4}),
    ("ttlSecondsAfterFinished", {"ttlSecondsAfterFinished": 4}, {"ttlSecondsAfterFinished": None}),
    ("podTemplate", OK, {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}}),
    ("podTemplate", {"podTemplate": {"spec": {}}}, {"podTemplate": None}),
]


def changed(before: Mapping[str, Any], change: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The resource before and after."""
    old, new = resource(**before), resource(**before)
    new["spec"] = {name: value for name, value in {**new["spec"], **change}.items() if value is not None}
    return old, new


def compared(spec: dict[str, Any]) -> dict[str, Any]:
    """What rules about changes see: of what the schema leaves open, all whose values it says something of (test_crd.py)."""
    seen, sections = schema._visible(spec, spec_schema()), spec_schema()["properties"]
    for section, path in (("model", ("chatTemplateArguments",)), ("task", ("generator", "config"))):
        part, whole, described = seen[section], spec[section], sections[section]
        for name in path[:-1]:
            part, whole, described = part.get(name), whole.get(name), described["properties"][name]
        assert "additionalProperties" in described["properties"][path[-1]]
        if part is not None:
            part[path[-1]] = whole[path[-1]]
    return seen


def test_every_field_is_tried() -> None:
    assert {name for name, _, _ in CHANGES} == set(spec_schema()["properties"])


@pytest.mark.parametrize(("name", "before", "change"), CHANGES)
def test_a_spec_keeps_what_it_said_but_for_stopping_and_cleaning_up(
    name: str, before: dict[str, Any], change: dict[str, Any]
) -> None:
    old, new = (compared(checked(r)["spec"]) for r in changed(before, change))
    transitions = [rule["rule"] for _, rule in rules() if "oldSelf" in rule["rule"]]
    assert all(schema._compiled(rule).eval(data={"self": old, "oldSelf": old}).value() is True for rule in transitions)
    allowed = all(schema._compiled(rule).eval(data={"self": new, "oldSelf": old}).value() is True for rule in transitions)
    assert allowed == (name in MUTABLE and name not in WHILE_SUSPENDED)


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize(
    "change", [{"queueName": "q"}, {"workloadPriorityClass": "high"}, {"managedBy": "a.b/c"}, {"gpuResource": "a.b/c"}], ids=str
)
def test_a_suspended_run_may_get_another_queue(change: dict[str, Any], before: bool, after: bool) -> None:
    """Nothing of it is there then, and programs are told the same."""
    old, new = (checked(r)["spec"] for r in changed({"suspend": before, "queueName": "first"}, {**change, "suspend": after}))
    transitions = [rule["rule"] for _, rule in rules() if "oldSelf" in rule["rule"]]
    seen = {"self": compared(new), "oldSelf": compared(old)}
    assert all(schema._compiled(rule).eval(data=seen).value() is True for rule in transitions)
    texts = {immutable_spec_json(parse(r).spec) for r in changed({"queueName": "first"}, {**change, "suspend": after})}
    assert len(texts) == 1


@pytest.mark.parametrize("name", ["", "kueue.x-k8s.io/multikueue", "kubernetes.io/job-controller", "a/b"])
def test_who_may_manage_jobs(name: str) -> None:
    assert checked(at("managedBy", name))["spec"]["managedBy"] == name


@pytest.mark.parametrize("field", ["managedBy", "gpuResource"])
@pytest.mark.parametrize("name", ["kueue", "a/", "/b", "A.b/c", "a/b/c", "a b/c", "a/b\n"])
def test_who_may_not(field: str, name: str) -> None:
    with pytest.raises(BadSpec, match=rf"spec\.{field}: .*; expected to match"):
        checked(at(field, name))


@pytest.mark.parametrize(
    "name", ["", "nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu", "habana.ai/gaudi", "example.com/A_b"]
)
def test_what_a_gpu_may_be_called(name: str) -> None:
    assert checked(at("gpuResource", name))["spec"]["gpuResource"] == name


def test_rules_do_not_see_what_the_schema_leaves_open() -> None:
    checked({**at("podTemplate", {"huge": 2**64}), "status": {"huge": 2**64}})  # CEL knows no such integer


def test_rules_that_name_no_value_that_is_there_are_broken_not_crashed() -> None:
    assert not schema._holds("self.a.b > 1", {"a": {}})
    assert not schema._holds("self > 1", "x")
