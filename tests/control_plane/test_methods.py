"""Methods and baselines: what each makes of a plan, what does not fit, and that the fair control costs what a debate costs."""

import argparse
import asyncio
import contextlib
import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from maft import evaluate, program, records
from maft.answers.equality import Checker
from maft.chat_template import load_chat_template
from maft.debate import __main__ as debate_program
from maft.debate import society
from maft.debate.engine import Request
from maft.debate.question import Question
from maft.debate.replica import Load
from maft.debate.setup import Setup
from maft.debate.society import Society
from maft.preflight import cost
from maft.prepare import __main__ as prepare
from maft.program import Assignment
from maft.records import ROLES, Adapter, Call, Message, Problem, Transcript
from maft.report import __main__ as report
from maft.spec import PREFERENCES, decode_spec, immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft_operator.plan import accelerators
from maft_operator.plan.graph import Graph, ProgramName, Task, command, graph
from maft_operator.plan.step import Observed, step
from maft_operator.spec.methods import METHODS
from maft_operator.spec.parse import Run, parse
from maft_operator.spec.schema import BadSpec, openapi

BASE: dict[str, Any] = {
    "apiVersion": "maft.dev/v1alpha1",
    "kind": "MultiAgentFinetune",
    "metadata": {"name": "r", "namespace": "ns"},
    "spec": {"model": {"source": "org/model"}, "task": {"kind": "arithmetic"}},
}
EVERYTHING: dict[str, Any] = {"agents": 3, "iterations": 2, "training": {"topology": "PerAgent"}, "debate": {"rounds": 2}}


def run(**spec: Any) -> Run:
    """The smallest resource, with fields added."""
    resource = copy.deepcopy(BASE)
    resource["spec"] |= spec
    return parse(resource)


def parser_of(kind: ProgramName) -> argparse.ArgumentParser:
    """The door of a program; those of preflight and training without loading what trains."""
    if kind == "preflight":
        return program.parser("preflight", "", takes=("spec",))
    if kind == "train":
        return program.parser("train", "", takes=("spec", "iteration", "agents"))
    return {"prepare": prepare, "debate": debate_program, "evaluate": evaluate, "report": report}[kind].PARSER


def assigned(task: Task) -> Assignment:
    """What a task's program gets: its own command line, through its own door."""
    line = command(task, {name: [f"http://{name}:8000"] for name in task.servers})
    return program.decode(parser_of(task.kind).parse_args(line[2:]))


def facts(made: Run) -> dict[str, Any]:
    """What a plan does, as its programs are told."""
    tasks = graph(made, "s").tasks
    debates = [assigned(t).spec for t in tasks if t.kind == "debate"]
    training = [assigned(t) for t in tasks if t.kind == "train"]
    evaluation = assigned(next(t for t in reversed(tasks) if t.kind == "evaluate"))
    last = evaluation.spec
    held_out = society.held_out_rules(last, evaluation.iteration).debate
    answering = 1 if last.answers_alone(evaluation.iteration) else last.agents
    first = debates[0] if debates else last
    return {
        "agents": first.agents,
        "rounds": first.debate.rounds,
        "debates": len(debates),
        "critics": last.debate.critics,
        "models": len({n for t in training for n in t.agents}),
        "servers": len(graph(made, "s").servers),
        "examples": {d.examples for d in debates},
        "pooled": {d.recipe.one_model for d in debates},
        "loss": {t.spec.training.method if t.spec.training.method in PREFERENCES else "sft" for t in training},
        "held-out": (answering, held_out.rounds),
        "one model": last.recipe.one_model,
        "summaries": held_out.summarize,
        "cooperative": held_out.cooperative,
        "labels": {society.training_rules(d, 1).hinted for d in debates},
    }


PAPER: dict[str, Any] = {
    "agents": 3,
    "rounds": 2,
    "debates": 2,
    "critics": True,
    "models": 3,
    "servers": 3,
    "examples": {"first"},
    "pooled": {False},
    "loss": {"sft"},
    "held-out": (3, 2),
    "one model": False,
    "summaries": True,
    "cooperative": False,
    "labels": {False},
}
UNTRAINED = {
    "debates": 0,
    "critics": False,
    "models": 0,
    "servers": 1,
    "examples": set(),
    "pooled": set(),
    "loss": set(),
    "labels": set(),
}
ONE: dict[str, Any] = {"models": 1, "servers": 1, "pooled": {True}, "one model": True}

# Method: how its plan differs from the paper's, for three agents that debate in two rounds over two iterations.
TABLE: dict[str, dict[str, Any]] = {
    "multiagent": {},
    "base": UNTRAINED | {"agents": 1, "rounds": 1, "held-out": (1, 1)},
    "majority": UNTRAINED | {"rounds": 1, "held-out": (3, 1)},
    "equal-sample-majority": UNTRAINED | {"agents": 9, "rounds": 1, "held-out": (9, 1)},
    "debate": UNTRAINED,
    "reflection": UNTRAINED | {"agents": 1, "held-out": (1, 2), "summaries": False},
    "star": ONE | {"agents": 1, "rounds": 1, "critics": False, "held-out": (1, 1), "examples": {"hinted"}, "labels": {True}},
    "majority-finetuning": ONE | {"rounds": 1, "critics": False, "held-out": (3, 1)},
    "single-agent": ONE | {"critics": False},
    "single-agent-alone": ONE | {"critics": False, "held-out": (1, 1)},
    "union": ONE,
    "without-summary": {"summaries": False},
    "without-critics": {"critics": False},
    "cooperative": {"cooperative": True},
    "dpo": {"critics": False, "examples": {"pairs"}, "loss": {"dpo"}},
    "kto": {"critics": False, "examples": {"graded"}, "loss": {"kto"}},
    "distill": ONE | {"critics": False, "examples": {"reworked"}, "held-out": (1, 1)},
}


def test_the_table_the_schema_and_the_code_have_the_same_methods() -> None:
    spec = openapi()["properties"]["spec"]["properties"]
    assert list(TABLE) == list(METHODS) == spec["method"]["enum"]


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ({}, True),  # a cluster gives training one
        ({"training": {"gpus": 2}}, True),
        ({"training": {"gpus": 0}}, False),
        ({"method": "base"}, False),
        ({"method": "majority", "evaluation": {"diversity": 4}}, True),  # measured as training computes
        ({"method": "base", "evaluation": {"diversity": 4}}, False),  # of one agent nothing is
        ({"method": "single-agent"}, True),
    ],
)
@pytest.mark.parametrize("name", ["gpu.intel.com/xe", "gpu.intel.com/i915", "habana.ai/gaudi"])
def test_what_serves_alone_is_not_trained_on(name: str, spec: dict[str, Any], refused: bool) -> None:
    for usual in ("", name):  # of the run, or of the operator
        made = run(gpuResource="" if usual else name, **spec)
        whose = ", as the operator has it" if usual else ""
        line = rf"^gpuResource: {name}{whose}; training needs CUDA or ROCm, so set training\.gpus to 0,"
        with pytest.raises(BadSpec, match=line) if refused else contextlib.nullcontext():
            accelerators.check(made, usual)


@pytest.mark.parametrize(
    "name", ["nvidia.com/gpu", "nvidia.com/mig-3g.40gb", "amd.com/gpu", "example.com/gpu", "gpu.intel.com.example.com/gpu"]
)
def test_other_gpus_train_under_any_name(name: str) -> None:
    accelerators.check(run(gpuResource=name, training={"gpus": 2}), "gpu.intel.com/xe")


def pods(limits: Any, name: str = "trainer") -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "debate"}, {"name": name, "resources": {"limits": limits}}]}}


def test_a_pod_template_may_give_trainers_other_gpus_than_servers() -> None:
    theirs = pods({"nvidia.com/gpu": 1, "gpu.intel.com/xe": 0})
    accelerators.check(run(gpuResource="gpu.intel.com/xe", podTemplate=theirs))
    accelerators.check(run(gpuResource="gpu.intel.com/xe"), defaults=theirs)


@pytest.mark.parametrize(
    "template",
    [
        pods({"nvidia.com/gpu": 1}, "inference"),
        pods({"nvidia.com/gpu": 0}),
        pods({"nvidia.com/gpu": None}),
        pods({"gpu.intel.com/gpu": 1}),
        pods({"memory": "8Gi"}),
        pods([]),
        {"spec": {"containers": {}}},
    ],
    ids=str,
)
def test_other_pod_templates_give_trainers_no_gpus_to_train_on(template: dict[str, Any]) -> None:
    with pytest.raises(BadSpec, match=r"^gpuResource: gpu.intel.com/xe; training needs"):
        accelerators.check(run(gpuResource="gpu.intel.com/xe", podTemplate=template))


@pytest.mark.parametrize("method", TABLE)
def test_what_a_method_does(method: str) -> None:
    assert facts(run(method=method, **EVERYTHING)) == PAPER | TABLE[method]


def test_no_two_methods_are_the_same() -> None:
    rows = [facts(run(method=method, **EVERYTHING)) for method in METHODS]
    assert all(one not in rows[:i] for i, one in enumerate(rows))


def test_only_star_reads_labels() -> None:
    assert [m for m in METHODS if facts(run(method=m, **EVERYTHING))["labels"] == {True}] == ["star"]
    assert [m for m in METHODS if "labels" in METHODS[m].text] == ["star"]


@pytest.mark.parametrize("method", METHODS)
def test_every_program_takes_its_command(method: str) -> None:
    made = run(method=method, **EVERYTHING)
    by_kind: dict[str, list[Assignment]] = {}
    for task in graph(made, "file:///store").tasks:
        by_kind.setdefault(task.kind, []).append(assigned(task))
    evaluated = by_kind["evaluate"][-1]
    recipe = evaluated.spec.recipe
    assert (recipe.one_model, evaluated.spec.debate.critics) == (TABLE[method].get("one model", False), made.spec.debate.critics)
    for one in by_kind.get("debate", []):
        assert one.spec.recipe == made.spec.recipe
        assert society.training_rules(one.spec, one.iteration).hinted == (method == "star")
    assert not society.held_out_rules(evaluated.spec, evaluated.iteration).hinted
    for one in by_kind.get("train", []):
        assert (one.spec.training.method in PREFERENCES, one.spec.training.beta) == (method in PREFERENCES, 0.1)
        assert one.spec.debate.critics == made.spec.debate.critics


@pytest.mark.parametrize("method", METHODS)
def test_who_plays_is_who_was_trained(method: str, tmp_path: Path) -> None:
    """Before the first training all are the base; after it copies of one model are all agent 0."""
    made, store = run(method=method, **EVERYTHING), FileStore(tmp_path)
    for role in ROLES if made.spec.debate.critics else ROLES[:1]:
        for n in made.spec.trained_agents:
            trained = Adapter(role, n, 1, f"{role}-{n}", True, 8, 1, 1.0, 1.0)
            publish(store, layout.adapter(made.key, 1, role, n), {}, meta={"adapter": records.plain(trained)})
    for assignment in (assigned(t) for t in graph(made, "s").tasks if t.kind == "debate"):
        spec, agents = assignment.spec, range(assignment.spec.agents)
        players = society.load(store, assignment.run, spec, assignment.iteration - 1, spec.agents, tuple(assignment.servers))
        numbers = [0 if made.spec.recipe.one_model else n for n in agents]
        names = [f"generator-{n}" for n in numbers] if assignment.iteration > 1 else ["base"] * len(agents)
        critics = [f"critic-{n}" for n in numbers] if assignment.iteration > 1 and spec.debate.critics else ["base"] * len(agents)
        assert (list(players.generators), list(players.critics)) == (names, critics)


@pytest.mark.parametrize("method", METHODS)
def test_methods_about_debate_want_one(method: str) -> None:
    spec: dict[str, Any] = {"method": method, "debate": {"rounds": 1, "critics": False}}
    if METHODS[method].needs_rounds:
        with pytest.raises(BadSpec, match=f"^method: {method} is about debate, and debate.rounds is 1; set it to 2 or more$"):
            run(**spec)
    else:
        assert facts(run(**spec))["held-out"][1] == 1


def test_methods_that_need_no_debate() -> None:
    alone = [method for method in METHODS if not METHODS[method].needs_rounds]
    assert alone == ["multiagent", "base", "majority", "star", "majority-finetuning", "dpo", "kto"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            {"method": "star", "training": {"method": "dpo"}},
            "training.method: star finetunes on right answers; set sft in place of dpo",
        ),
        ({"method": "star", "training": {"method": "distill"}}, "training.method: star finetunes on right answers"),
        (
            {"agents": 1, "debate": {"rounds": 1, "critics": False}, "training": {"method": "dpo"}},
            "training.method: dpo prefers one agent's answer to another's, and agents is 1",
        ),
        (
            {"agents": 1, "debate": {"rounds": 1, "critics": False}, "training": {"method": "kto"}},
            "training.method: kto grades an agent's answers by the others' vote, and agents is 1",
        ),
        ({"method": "star", "training": {"method": "kto"}}, "training.method: star finetunes on right answers"),
        ({"method": "stars"}, "spec.method"),
    ],
)
def test_what_does_not_fit_is_one_line(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec) as caught:
        run(**spec)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_an_untrained_method_does_not_mind_how_others_are_trained() -> None:
    assert facts(run(method="base", training={"method": "dpo"})) == facts(run(method="base"))


def test_a_way_of_training_is_the_method_of_that_name() -> None:
    for way in ("dpo", "kto", "distill"):
        assert facts(run(training={"method": way}, agents=3)) == facts(run(method=way, agents=3))


def test_what_distillation_learns_is_a_choice() -> None:
    of = {}
    for way in ("reworked", "first", "last"):
        of[way] = facts(run(**EVERYTHING | {"method": "distill", "training": {**EVERYTHING["training"], "distillFrom": way}}))
    assert {way: made["examples"] for way, made in of.items()} == {way: {way} for way in of}
    assert of["first"] == facts(run(method="single-agent-alone", **EVERYTHING))


@pytest.mark.parametrize("way", ["reworked", "first", "last"])
def test_programs_of_the_release_before_read_what_distillation_learned_then(way: str) -> None:
    """A run under way keeps its images; a word that they do not know would end it."""
    spec = run(method="distill", training={"distillFrom": way}).spec
    assert json.loads(immutable_spec_json(spec))["recipe"]["examples"] == "last"
    assert decode_spec(immutable_spec_json(spec)).examples == way


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"kto"}))
def test_programs_that_a_run_began_with_know_its_recipe(method: str) -> None:
    """Those of 0.1 finish such a run under a newer operator, and refuse what they cannot read: distillation goes on as it began."""
    made = run(**EVERYTHING | {"method": method}).spec.recipe.examples
    assert made in ("first", "last", "hinted", "pairs") and (made == "last") == (method == "distill")


def test_a_program_is_not_reworked_from_what_it_gives() -> None:
    task = {"kind": "jsonl", "source": "x.jsonl", "answer": "code"}
    with pytest.raises(BadSpec, match=r"^training\.distillFrom: reworked shows the vote's answer"):
        run(task=task, method="distill")
    assert run(task=task, method="distill", training={"distillFrom": "first"}).spec.examples == "first"
    assert run(task=task).spec.examples == "first"


def test_a_minimum_agreement_is_at_most_the_agents_there_are() -> None:
    assert run(method="star", debate={"minAgreement": 3}).spec.debate.min_agreement == 1
    assert run(method="majority-finetuning", debate={"minAgreement": 3}).spec.debate.min_agreement == 3


@pytest.mark.parametrize(
    ("method", "loras"), [("multiagent", 6), ("without-critics", 3), ("union", 2), ("distill", 1), ("base", 1)]
)
def test_servers_have_room_for_what_is_trained(method: str, loras: int) -> None:
    [server] = graph(run(method=method, inference={"topology": "Shared"}), "s").servers
    assert server.adapters == loras


# --- the fair control: as many samples as a debate makes calls ---


class Disagreeing:
    """No two answers are alike, so that no debate ends early."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def complete(self, server: str, request: Request) -> Call:
        self.asked.append(request)
        return Call(request.model, request.seed, 1, 1, "stop", f"Answer: {len(self.asked)}")

    async def ready(self, server: str, models: Any) -> int:
        return 1_000_000

    async def load(self) -> Load:
        return Load(0, 0)


def calls(made: Graph) -> int:
    """Requests of one held-out debate in which nobody agrees."""
    engine = Disagreeing()
    held_out(made, engine)
    return len(engine.asked)


def held_out(made: Graph, engine: Disagreeing) -> Transcript:
    """One held-out debate, held with the rules that the plan's own command line gives."""
    assignment = assigned(next(t for t in made.tasks if t.kind == "evaluate" and t.iteration == 0))
    spec = assignment.spec
    players = Society(("base",) * spec.agents, ("base",) * spec.agents, ("s",) * spec.agents)
    template = load_chat_template(str(TINY), None)

    async def one() -> Transcript:
        with Checker("number") as checker, ThreadPoolExecutor(1) as judge:
            rules = society.held_out_rules(spec, assignment.iteration)
            table = Setup(rules, players, engine, template, checker, {"s": 1_000_000}, judge)
            return await Question(table, 0, Problem("id", "What is 2+3*4?", "14")).run()

    return asyncio.run(one())


@given(st.integers(2, 7), st.integers(2, 4), st.sampled_from(["paper", "fast"]), st.booleans(), st.booleans())
@settings(max_examples=20)
def test_equal_samples_are_as_many_as_a_debate_makes_calls(
    agents: int, rounds: int, mode: str, summarize: bool, critics: bool
) -> None:
    spec = {"agents": agents, "debate": {"rounds": rounds, "mode": mode, "summarize": summarize, "critics": critics}}
    spec["inference"] = {"topology": "Shared"}
    debate, control = (graph(run(method=m, **spec), "s") for m in ("debate", "equal-sample-majority"))
    assert calls(control) == calls(debate) > agents


@pytest.mark.parametrize(
    ("debate", "samples"),
    [({}, 9), ({"summarize": False}, 6), ({"mode": "fast"}, 7), ({"mode": "fast", "summarize": False}, 6), ({"rounds": 3}, 15)],
)
def test_equal_samples_by_hand(debate: dict[str, Any], samples: int) -> None:
    assert run(method="equal-sample-majority", debate=debate).spec.agents == samples  # N + 2 N (M - 1), N = 3


# --- the control that hears nobody ---


class Alike(Disagreeing):
    """Says the same every time: a society would end the debate at once."""

    async def complete(self, server: str, request: Request) -> Call:
        self.asked.append(request)
        return Call(request.model, request.seed, 1, 1, "stop", "Answer: 14")


@pytest.mark.parametrize("mode", ["paper", "fast"])
@pytest.mark.parametrize("summarize", [True, False])
def test_one_agent_revises_its_own_answer_in_every_round_and_hears_nobody(mode: str, summarize: bool) -> None:
    debate = {"rounds": 3, "mode": mode, "summarize": summarize, "cooperative": True}
    made = graph(run(method="reflection", agents=5, debate=debate), "s")
    asked, template = Alike(), load_chat_template(str(TINY), None)
    transcript = held_out(made, asked)
    prompts = [turn.prompt for turn in transcript.turns[0]]
    assert (len(asked.asked), len(transcript.turns), len(transcript.summaries)) == (3, 1, 0)
    assert prompts[1] == prompts[2] != prompts[0]
    assert prompts[1].startswith("Go through your answer step by step.") and "What is 2+3*4?" in prompts[1]
    assert not any("agents" in prompt for prompt in prompts)
    assert len(asked.asked[2].prompt) > len(asked.asked[1].prompt) > len(template.prompt([Message("user", prompts[0])]))


def test_reflection_costs_as_many_calls_as_preflight_says() -> None:
    spec = assigned(next(t for t in graph(run(method="reflection", debate={"rounds": 4}), "s").tasks if t.kind == "evaluate")).spec
    assert cost.of_debates(spec).requests == 4 * spec.task.held_out


def test_child_names_of_an_untrained_method_are_whole() -> None:
    made = graph(run(method="majority"), "s")
    assert [t.name for t in made.tasks] == ["r-0-prepare", "r-0-preflight", "r-0-evaluate", "r-0-report"]
    assert step(made, Observed()).phase == "Preparing"
