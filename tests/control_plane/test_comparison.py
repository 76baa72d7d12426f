"""A comparison as a resource: its runs, what is refused, what is decided from what is observed. Pure, no cluster."""

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from maft_operator.plan import compare, comparison
from maft_operator.plan.comparison import ComparisonStep, RunState, asked, step
from maft_operator.spec import comparison as spec
from maft_operator.spec import files
from maft_operator.spec.comparison import Child, Comparison
from maft_operator.spec.methods import METHODS
from maft_operator.spec.parse import parse
from maft_operator.spec.schema import COMPARISON, BadSpec

TEMPLATE: dict[str, Any] = {"model": {"source": "org/model"}, "task": {"kind": "arithmetic"}}
UNCORRECTED: dict[str, Any] = {"template": {**TEMPLATE, "debate": {"critics": False}}}
ALONE = {**TEMPLATE, "debate": {"rounds": 1, "critics": False}}


def resource(**changes: Any) -> dict[str, Any]:
    whole = {"template": copy.deepcopy(TEMPLATE), "methods": ["base", "majority", "multiagent"], "seeds": 2, **changes}
    metadata = {"name": "arithmetic", "namespace": "ns"}
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentComparison", "metadata": metadata, "spec": whole}


def a_run(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A run as it stands alone."""
    return {**resource(), "kind": "MultiAgentFinetune", "metadata": {"name": name, "namespace": "ns"}, "spec": spec}


def made(**changes: Any) -> Comparison:
    return spec.read(resource(**changes))


# --- its runs ---


def test_a_run_for_each_method_seed_and_place_of_the_grid() -> None:
    one = made(methods=["debate", "multiagent"], grid={"debate.rounds": [2, 3]}, template={**TEMPLATE, "seed": 5})
    assert [(child.label, child.seed) for child in one.children] == [
        ("debate, debate.rounds=2", 5),
        ("debate, debate.rounds=2", 6),
        ("debate, debate.rounds=3", 5),
        ("debate, debate.rounds=3", 6),
        ("multiagent, debate.rounds=2", 5),
        ("multiagent, debate.rounds=2", 6),
        ("multiagent, debate.rounds=3", 5),
        ("multiagent, debate.rounds=3", 6),
    ]
    for child in one.children:
        run = child.run.spec
        assert (run.group, run.seed, run.method) == ("arithmetic", child.seed, child.method)
        assert run.debate.rounds == child.point["debate.rounds"]
        assert (run.evaluation.baselines, run.inference.topology) == ((), "Shared")
        assert child.run == parse(a_run(child.run.name, child.spec))


def test_a_method_that_sets_the_field_itself_has_one_row() -> None:
    """And so has one that trains nothing, whatever the grid says about training."""
    one = made(methods=["base", "debate", "multiagent"], seeds=1, grid={"debate.rounds": [2, 3], "training.epochs": [1, 2]})
    assert [child.label for child in one.children] == [
        "base",
        "debate, debate.rounds=2",
        "debate, debate.rounds=3",
        *(f"multiagent, debate.rounds={rounds}, training.epochs={epochs}" for rounds in (2, 3) for epochs in (1, 2)),
    ]


def every_field() -> dict[str, list[Any]]:
    """Two values for fields of each kind, the default in no case."""
    return {
        "agents": [4, 5],
        "debate.cooperative": [True],
        "debate.temperature": [0.5, 2],
        "debate.system": ["a\n\x1b[2Jb", "c"],
        "training.lora.targetModules": [["q_proj"], ["q_proj", "v_proj"]],
        "training.checkpointMinutes": [7, 9],
    }


@pytest.mark.parametrize("path", every_field())
def test_every_value_is_a_run_with_that_value(path: str) -> None:
    """Lists and texts of several lines, too."""
    values = every_field()[path]
    one = made(methods=["multiagent"], seeds=1, grid={path: values})
    assert [child.point[path] for child in one.children] == values
    for child in one.children:
        assert (
            structs.replace(child.run.spec, group="")
            == parse(a_run("r", spec.run_spec(TEMPLATE, "multiagent", 0, child.point))).spec
        )
        assert child.label.startswith(f"multiagent, {path}=") and child.label.isprintable()


def test_maft_compare_has_the_same_runs_of_a_run_with_these_methods() -> None:
    """Apart from their names, and from the group, which its graph sets."""
    run = a_run("arithmetic", {**TEMPLATE, "seed": 3})
    ours = made(template={**TEMPLATE, "seed": 3}, methods=list(METHODS)).compared
    theirs = compare.runs(run, list(METHODS), 2)
    assert list(ours) == list(theirs)
    for row, one in ours.items():
        assert structs.replace(one.spec, group="") == theirs[row].spec


def test_all_is_every_method_as_of_maft_compare(tmp_path: Path) -> None:
    """What a flag beside such a file says to set is taken."""
    with pytest.raises(BadSpec, match=r"spec\.methods; change it there, or with --set") as caught:
        compare.read(resource(), "all", None)
    [change] = re.findall("--set '(.*)'", str(caught.value))
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(resource(seeds=1)))
    one = spec.read(files.load(tmp_path / "comparison.yaml", [change], (COMPARISON,)))
    assert [child.method for child in one.children] == list(METHODS) == list(compare.chosen("all"))


def test_names_are_short_and_no_two_are_alike() -> None:
    """Also of two comparisons whose words run together in the same way."""
    several = [spec.name(*one, {}) for one in (("a", "equal-sample-majority", 0), ("a-equal-sample", "majority", 0))]
    assert len({*several}) == 2
    longest = [spec.name("c" * 40, method, 2**31 - 1, {"debate.rounds": k}) for method in METHODS for k in (2, 3)]
    assert {len(name) for name in longest} == {40} and len({*longest}) == len(longest)


names = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
points = st.dictionaries(st.sampled_from(["debate.rounds", "agents"]), st.integers(1, 9))


@given(st.lists(st.tuples(names, st.sampled_from(list(METHODS)), st.integers(0, 2**31 - 1), points), min_size=1, max_size=8))
@settings(max_examples=60)
def test_every_name_is_one_that_a_run_may_have(several: list[tuple[str, str, int, dict[str, int]]]) -> None:
    for one in several:
        name = spec.name(*one)
        parse(a_run(name, TEMPLATE))
    apart = {str(one) for one in several}
    assert len({spec.name(*one) for one in several}) == len(apart)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"grid": {"seed": [1]}}, "spec.grid[seed]: not of a grid; set spec.seeds"),
        ({"grid": {"method": ["base"]}}, "spec.grid[method]: not of a grid; set spec.methods"),
        ({"grid": {"model.source": ["a", "b"]}}, "spec.grid[model.source]: not of a grid; a grid changes agents, iterations,"),
        ({"grid": {"storage.bucket": ["abc"]}}, "spec.grid[storage.bucket]: not of a grid"),
        ({"grid": {"": [1]}}, "spec.grid[]: not of a grid"),
        ({"grid": {"debate.round": [2]}}, "spec.grid[debate.round]: no field of a run; did you mean debate.rounds?"),
        ({"grid": {"debate.prompts": [{}]}}, "spec.grid[debate.prompts]: no field of a run"),
        ({"grid": {"debate.rounds.more": [2]}}, "spec.grid[debate.rounds.more]: no field of a run"),
        ({"grid": {"debate.rounds": [2, 3, 2]}}, "spec.grid[debate.rounds]: 2 is there twice"),
        ({"grid": {"debate.rounds": []}}, "spec.grid.debate.rounds: has 0 items; expected at least 1"),
        ({"grid": {"debate.rounds": 2}}, "spec.grid.debate.rounds: is 2; expected an array"),
        ({"grid": {"debate.rounds": ["two"]}}, "spec.grid[debate.rounds][0]: is the text 'two'; expected an integer"),
        ({"grid": {"training.learningRate": [0.1, 7]}}, "spec.grid[training.learningRate][1]: 7; expected at most 1"),
        ({"grid": {"debate.mode": ["slow"]}}, "spec.grid[debate.mode][0]: 'slow'; expected one of paper, fast"),
        (
            {"grid": {"training.lora.targetModules": [["q_proj", 1]]}},
            "spec.grid[training.lora.targetModules][0][1]: is 1; expected a string",
        ),
        (
            {**UNCORRECTED, "methods": ["debate"], "grid": {"agents": [2, 3], "debate.rounds": [2, 1]}},
            "spec.grid[debate.rounds]: run debate, agents=2, debate.rounds=1: method: debate is about debate",
        ),
        (
            {"methods": ["multiagent"], "grid": {"agents": [3, 2], "debate.minAgreement": [3]}},
            "spec.grid: run multiagent, agents=2, debate.minAgreement=3: debate.minAgreement: more agents than there are",
        ),
        ({"methods": ["bass"]}, "spec.methods[0]: 'bass'; expected one of all, multiagent,"),
        ({"methods": ["base", "all"]}, "methods: all stands alone; leave the others out"),
        ({"methods": ["base", "base"]}, "spec.methods[1]: 'base' is there twice"),
        ({"methods": []}, "spec.methods: has 0 items; expected at least 1"),
        ({"seeds": 0}, "spec.seeds: 0; expected at least 1"),
        ({"maxParallel": 0}, "spec.maxParallel: 0; expected at least 1"),
        ({"seed": 3}, "spec.seed: unknown field; did you mean seeds?"),
        ({"template": {**TEMPLATE, "group": "all"}}, "spec.template.group: all; the comparison's own name is its runs' group"),
        ({"template": {**TEMPLATE, "suspend": True}}, "spec.template.suspend: true; set spec.suspend in its place"),
        ({"template": {**TEMPLATE, "ttlSecondsAfterFinished": 9}}, "spec.template.ttlSecondsAfterFinished: 9; set spec.ttl"),
        (
            {"template": {**TEMPLATE, "export": [{"to": "otel", "address": "http://h"}, {"to": "oci", "address": "r.io/a:1"}]}},
            "spec.template.export[1]: oci has one place for all runs",
        ),
        ({"template": {**TEMPLATE, "agent": 3}}, "spec.template.agent: unknown field; did you mean agents?"),
        ({"template": {"task": {"kind": "arithmetic"}}}, "spec.template.model: missing"),
        ({"template": ALONE, "methods": ["debate"]}, "run debate: method: debate is about debate"),
        (
            {"template": ALONE, "methods": ["debate"], "grid": {"debate.temperature": [0.5]}},
            "run debate: method: debate is about debate",
        ),
        ({"template": {**TEMPLATE, "seed": 2**31 - 1}}, "run base: seed: 2147483648; expected at most 2147483647"),
        ({"seeds": 100, "grid": {"agents": list(range(2, 22))}}, "spec.methods, seeds and grid: 6000 runs; one table holds 800"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_field(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(BadSpec) as caught:
        made(**changes)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


# --- what is decided ---


def states(one: Comparison, *several: RunState) -> dict[str, RunState]:
    return {child.run.name: state for child, state in zip(one.children, several, strict=False)}


def labels(children: tuple[Child, ...]) -> list[tuple[str, int]]:
    return [(child.method, child.seed) for child in children]


def running(**done: str) -> RunState:
    return RunState("Evaluating", done=done)


COMPLETE, FAILED, SUSPENDED = RunState("Complete"), RunState("Failed"), RunState("Suspended", suspended=True)


def test_runs_of_one_seed_that_ask_the_same_wait_for_the_first_of_them() -> None:
    """A majority asks what the base asks, and more; training asks other questions; another seed shares nothing."""
    one = made(maxParallel=9)
    assert labels(step(one, {}).create) == [("base", 0), ("base", 1), ("multiagent", 0), ("multiagent", 1)]
    began = {child.run.name: running() for child in step(one, {}).create}
    assert step(one, began) == ComparisonStep("Running")
    first = next(iter(began))
    assert labels(step(one, {**began, first: running(evaluate="0")}).create) == [("majority", 0)]
    assert labels(step(one, {**began, first: FAILED}).create) == [("majority", 0)]


def test_followers_that_would_ask_the_same_of_each_other_do_not_go_at_once() -> None:
    one = made(methods=["base", "majority", "debate"], seeds=1, maxParallel=9)
    base = states(one, running(evaluate="0"))
    assert labels(step(one, base).create) == [("majority", 0)]
    assert labels(step(one, states(one, COMPLETE, running(evaluate="0"))).create) == [("debate", 0)]


def test_methods_that_begin_with_the_same_debate_all_follow_it_at_once() -> None:
    one = made(methods=["multiagent", "single-agent", "union", "without-critics"], seeds=1, maxParallel=9)
    assert labels(step(one, {}).create) == [("multiagent", 0)]
    assert labels(step(one, states(one, running(debate="1"))).create) == [("single-agent", 0), ("union", 0), ("without-critics", 0)]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_than_so_many_are_under_way(most: int) -> None:
    one = made(methods=["base"], seeds=6, maxParallel=most)
    seen: dict[str, RunState] = {}
    for _ in range(6):
        for child in step(one, seen).create:
            seen[child.run.name] = running()
        assert sum(not state.ended for state in seen.values()) <= most
        seen[next(name for name, state in seen.items() if not state.ended)] = COMPLETE
    assert len(seen) == 6


def test_a_run_that_fails_does_not_stop_the_others() -> None:
    one = made(methods=["base"], seeds=3)
    assert labels(step(one, states(one, FAILED)).create) == [("base", 1)]
    assert step(one, states(one, FAILED, COMPLETE, RunState("Rejected"))) == ComparisonStep("Comparing", table=True)
    assert step(one, states(one, FAILED, COMPLETE, RunState("Rejected")), table_done=True).phase == "Complete"
    assert step(one, states(one, FAILED, FAILED, FAILED)) == ComparisonStep("Failed")


def test_suspending_stops_all_that_are_under_way_and_makes_no_others() -> None:
    one = made(methods=["base"], seeds=4, maxParallel=2, suspend=True)
    seen = states(one, COMPLETE, running(), SUSPENDED)
    assert step(one, seen) == ComparisonStep("Suspended", suspend=(one.children[1].run.name,))


def test_resuming_goes_on_with_as_many_as_there_is_room_for_before_it_makes_others() -> None:
    one = made(methods=["base"], seeds=4, maxParallel=1)
    names_ = [child.run.name for child in one.children]
    assert step(one, states(one, COMPLETE, SUSPENDED, SUSPENDED)) == ComparisonStep("Running", resume=(names_[1],))
    assert step(one, states(one, COMPLETE, running(), SUSPENDED)) == ComparisonStep("Running")
    assert step(one, states(one, COMPLETE, COMPLETE, SUSPENDED)).resume == (names_[2],)


def test_a_suspended_run_still_stands_for_what_it_is_to_ask() -> None:
    one = made(methods=["base", "majority"], seeds=1, maxParallel=2)
    assert step(one, states(one, SUSPENDED)) == ComparisonStep("Running", resume=(one.children[0].run.name,))


def test_runs_that_are_no_longer_asked_for_go_and_one_that_was_deleted_is_made_again() -> None:
    one = made(methods=["base"], seeds=2)
    seen = {**states(one, COMPLETE), "arithmetic-older-1": COMPLETE, "arithmetic-going-1": RunState("Complete", terminating=True)}
    decided = step(one, seen)
    assert decided.delete == ("arithmetic-older-1",) and labels(decided.create) == [("base", 1)]


methods = st.lists(st.sampled_from(list(METHODS)), min_size=1, max_size=6, unique=True)


@given(methods, st.integers(1, 2), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_whatever_ends_when_nothing_is_asked_twice_and_all_runs_come_to_their_end(
    chosen: list[str], seeds: int, most: int, random: Any
) -> None:
    one = made(methods=chosen, seeds=seeds, maxParallel=most)
    runs, seen, known = {child.run.name: child.run for child in one.children}, dict[str, RunState](), set[str]()
    for _ in range(10 * len(runs)):
        for child in step(one, seen).create:
            seen[child.run.name] = running()
        asking = [asked(runs[name]) - known for name, state in seen.items() if state == running()]
        assert all(not a & b for a, b in itertools.combinations(asking, 2))
        open_ = [name for name, state in seen.items() if not state.ended]
        if not open_:
            break
        name = random.choice(open_)
        if seen[name] == running() and random.random() < 0.8:
            known |= asked(runs[name])
            seen[name] = running(debate="1", evaluate="0")
        else:
            known |= asked(runs[name]) if seen[name] != running() else set()
            seen[name] = COMPLETE if seen[name] != running() else FAILED
    assert step(one, seen, table_done=True).phase in ("Complete", "Failed")


def test_the_table_is_over_the_runs_that_are_complete() -> None:
    one = made(template={**TEMPLATE, "storage": {"bucket": "abc"}})
    finished = [child.run.name for child in one.children[1:4]]
    [task] = comparison.table_graph(one, finished).tasks
    assert (task.name, task.kind, task.run.key) == ("arithmetic-compare", "compare", "ns/arithmetic")
    assert [row.run for row in task.compared] == finished
