"""A search in place of a grid: which trials there are, what is refused, what is chosen and by what. Pure, no cluster."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_comparison import TEMPLATE, resource

from maft.summaries import Score, Validation
from maft_operator.local import gpus
from maft_operator.local.run import Growth
from maft_operator.plan.comparison import RunState, step
from maft_operator.plan.search import Growing, Trial, chosen, note
from maft_operator.plan.step import Observed, TaskState
from maft_operator.plan.step import step as next_step
from maft_operator.plan.trials import Trials
from maft_operator.spec import comparison as spec
from maft_operator.spec.comparison import Child, Comparison
from maft_operator.spec.schema import BadSpec

VALIDATED = {**TEMPLATE, "evaluation": {"validation": 20}}
RATE = {"training.learningRate": {"low": 1e-5, "high": 1e-2, "log": True}}
PARAMETERS: dict[str, Any] = {**RATE, "debate.rounds": {"low": 2, "high": 4}, "training.lora.rank": {"values": [8, 16]}}
ALONE = {**VALIDATED, "debate": {**TEMPLATE.get("debate", {}), "critics": False}}
SIZES: dict[str, Any] = {"agents": {"values": [4, 1, 5]}, "debate.rounds": {"values": [1, 2, 4]}}  # one agent has one round


def searching(**changes: Any) -> dict[str, Any]:
    search = {"trials": 6, "parameters": copy.deepcopy(PARAMETERS), **changes.pop("search", {})}
    return resource(**{"template": VALIDATED, "methods": ["base", "multiagent"], "seeds": 1, "search": search, **changes})


def read(**changes: Any) -> Comparison:
    return spec.read(searching(**changes))


def worth(child: Child) -> float:
    """The nearer a trial's rate is to 0.001, the better."""
    return near(child.run.spec)


def near(run: Any) -> float:
    return round(1 - abs(math.log10(run.training.learning_rate) + 3) / 4, 6)


def over(child: Child, value: float | None = None) -> RunState:
    trial = "" if child.trial is None else note(child)
    return RunState("Complete", validated=worth(child) if value is None and trial else value, trial=trial)


def carried_out(one: Comparison, random: Any = None, *, keeps: bool = True) -> tuple[Growing, dict[str, RunState]]:
    """All runs to their end, in their order or in any. keeps: runs say which trial they are."""
    growing, seen = Growing(one), dict[str, RunState]()
    for _ in range(200):
        decided = step(growing.grown(seen), seen)
        assert not decided.delete
        if decided.phase != "Running":
            return growing, seen
        for child in decided.create:
            seen[child.run.name] = RunState("Debating", done={"debate": "1", "evaluate": "0"}, trial=note(child) if keeps else "")
        children = {child.run.name: child for child in growing.grown(seen).children}
        open_ = [name for name, state in seen.items() if not state.ended]
        name = random.choice(open_) if random else open_[0]
        seen[name] = over(children[name]) if keeps else replace(over(children[name]), trial="")
    raise AssertionError("it does not come to its end")


def points(trials: list[Trial]) -> list[tuple[str, int, Any]]:
    return [(trial.method, trial.number, dict(trial.point)) for trial in trials]


def test_trials_are_ordinary_runs_of_each_method_that_trains_within_the_bounds() -> None:
    growing, seen = carried_out(read(methods=["base", "multiagent", "union"], seeds=2, maxParallel=2))
    one, trials = growing.grown(seen), growing.trials(seen)
    assert [child.label for child in one.children if child.trial is None] == ["base", "base"]
    assert [(trial.method, trial.number) for trial in trials] == [(m, n) for m in ("multiagent", "union") for n in range(6)]
    for trial in trials:
        assert {child.seed for child in trial.children} == {0, 1}
        rate, rounds, rank = (trial.point[path] for path in PARAMETERS)
        assert 1e-5 <= rate <= 1e-2 and rounds in (2, 3, 4) and rank in (8, 16)
        for child in trial.children:
            assert (child.run.spec.training.learning_rate, child.run.spec.debate.rounds) == (rate, rounds)
            assert child.run.spec.group == "arithmetic" and child.label.startswith(f"{trial.method}, ")


def test_a_wave_is_made_once_the_one_before_it_is_over() -> None:
    one = read(maxParallel=2)
    growing = Growing(one)
    first = growing.grown({}).children
    assert [child.trial for child in first] == [None, 0, 1]
    seen = {child.run.name: over(child) for child in first[:2]}
    assert growing.grown(seen).children == first
    seen[first[2].run.name] = over(first[2])
    assert [child.trial for child in growing.grown(seen).children] == [None, 0, 1, 2, 3]


@given(st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_the_trials_are_the_same_in_whatever_order_runs_end_and_whoever_starts_again(random: Any, size: int) -> None:
    growing, seen = carried_out(read(maxParallel=size))
    other, same = carried_out(read(maxParallel=size), random, keeps=False)
    assert points(growing.trials(seen)) == points(other.trials(same)) == points(Growing(read(maxParallel=size)).trials(same))


def test_what_came_of_trials_decides_what_follows() -> None:
    """Another value, other trials after it; and the sampler finds the better half of the range."""
    one = read(search={"trials": 20, "parameters": RATE})
    growing, seen = carried_out(one)
    trials = growing.trials(seen)
    early, late = ([worth(trial.children[0]) for trial in part] for part in (trials[:10], trials[10:]))
    assert sum(late) / len(late) > sum(early) / len(early)
    first = trials[0].children[0].run.name
    changed = {name: replace(state, trial="", validated=0.99 if name == first else state.validated) for name, state in seen.items()}
    assert points(Growing(one).trials(changed))[:1] == points(trials)[:1]
    assert points(Growing(one).trials(changed)) != points(trials)


def test_seed_and_sampler_decide_too() -> None:
    several = [{}, {"seed": 1}, {"sampler": "random"}]
    rates = [tuple(t.point["training.learningRate"] for t in Growing(read(search=s, maxParallel=6)).trials({})) for s in several]
    assert rates[0] != rates[1] and len({rates[0], rates[1]}) == 2


def test_the_best_is_chosen_by_validation_questions_and_of_equals_the_first() -> None:
    """Held-out accuracy, which a run has too, plays no part; nor does a seed without an end."""
    one = read(seeds=2, maxParallel=6)
    growing = Growing(one)
    children = growing.grown({}).children
    values = iter([0.25, 0.75, 0.5, 0.5, 0.5, 0.5])
    by_trial = {number: next(values) for number in range(6)}
    seen = {c.run.name: over(c, None if c.trial is None else by_trial[c.trial]) for c in children}
    seen = {name: replace(state, accuracy={"mean": 1 - (state.validated or 0)}) for name, state in seen.items()}
    assert chosen(growing.trials(seen))["multiagent"].number == 1 and growing.is_over(seen)
    table = growing.compared(seen)
    assert {(child.method, child.trial) for child in table.children} == {("base", None), ("multiagent", 1)}
    lost = next(child for child in children if child.trial == 1)
    failed = {**seen, lost.run.name: RunState("Failed", trial=note(lost))}
    assert chosen(growing.trials(failed))["multiagent"].number == 2
    nothing = {name: RunState("Failed", trial=state.trial) for name, state in seen.items()}
    assert chosen(growing.trials(nothing)) == {} and growing.is_over(nothing)


def test_a_trial_that_was_made_stays_what_it_is() -> None:
    """Also where another Optuna would ask for other values; what is no value of the search is not believed."""
    growing, seen = carried_out(read())
    [first] = [name for name, state in seen.items() if state.trial and json.loads(state.trial)["number"] == 0]
    other = {
        **json.loads(seen[first].trial),
        "point": {"training.learningRate": 0.005, "debate.rounds": 3, "training.lora.rank": 8},
    }
    assert dict(growing.trials({**seen, first: replace(seen[first], trial=json.dumps(other))})[0].point) == other["point"]
    for wrong in (
        "{",
        "[]",
        json.dumps({**other, "number": "0"}),
        json.dumps({**other, "point": {**other["point"], "debate.rounds": 9}}),
        json.dumps({**other, "point": {"debate.rounds": 3}}),
        json.dumps({**other, "point": {**other["point"], "training.lora.rank": 12}}),
        json.dumps({**other, "point": {**other["point"], "debate.rounds": True}}),
        json.dumps({**other, "method": "base"}),
    ):
        trials = growing.trials({**seen, first: replace(seen[first], trial=wrong)})
        assert points(trials) == points(growing.trials(seen))


def test_a_run_that_was_deleted_is_made_again_and_no_later_trial_is_lost() -> None:
    growing, seen = carried_out(read())
    trials = growing.trials(seen)
    [gone] = [child.run.name for child in trials[1].children]
    left = {name: state for name, state in seen.items() if name != gone}
    decided = step(growing.grown(left), left)
    assert [child.run.name for child in decided.create] == [gone] and not decided.delete


def test_two_trials_of_one_point_are_one_run() -> None:
    growing, seen = carried_out(read(search={"trials": 6, "parameters": {"training.lora.rank": {"values": [8, 16]}}}))
    assert len(growing.trials(seen)) == 6 and len({child.run.name for child in growing.grown(seen).children}) == 3
    assert len(growing.grown(seen).children) == 3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"grid": {"agents": [2, 3]}}, "spec.grid: set beside spec.search, which chooses values itself; leave one of them out"),
        ({"template": TEMPLATE}, "spec.template.evaluation.validation: 0; a search chooses by validation questions"),
        ({"methods": ["base", "debate"]}, "spec.methods: none of them trains, so nothing chooses among trials"),
        ({"search": {"trials": 0}}, "spec.search.trials: 0; expected at least 1"),
        ({"search": {"trials": 400}, "seeds": 3}, "spec.methods, seeds and search: 1203 runs; one table holds 800"),
        ({"search": {"sampler": "best"}}, "spec.search.sampler: 'best'; expected one of tpe, random"),
        ({"search": {"parameters": {}}}, "spec.search.parameters: has 0 entries; expected at least 1"),
        (
            {"search": {"parameters": {"seed": {"low": 0, "high": 9}}}},
            "spec.search.parameters[seed]: not of a search; set spec.seeds",
        ),
        (
            {"search": {"parameters": {"debate.round": {"low": 2, "high": 3}}}},
            "spec.search.parameters[debate.round]: no field of a run; did you mean debate.rounds?",
        ),
        (
            {"search": {"parameters": {"agents": {"low": 2}}}},
            "spec.search.parameters[agents]: high missing; set values, or low and",
        ),
        ({"search": {"parameters": {"agents": {}}}}, "spec.search.parameters[agents]: low and high missing; set values, or low"),
        (
            {"search": {"parameters": {"agents": {"low": 2, "values": [2, 3]}}}},
            "spec.search.parameters[agents]: low beside values; set values, or low and high",
        ),
        (
            {"search": {"parameters": {"agents": {"values": [2, 2]}}}},
            "spec.search.parameters[agents]: 2 is there twice",
        ),
        (
            {"search": {"parameters": {"agents": {"low": 2.5, "high": 4}}}},
            "spec.search.parameters[agents]: 2.5 to 4; expected whole numbers",
        ),
        (
            {"search": {"parameters": {"agents": {"low": 4, "high": 4}}}},
            "spec.search.parameters[agents]: 4 to 4; expected low below high",
        ),
        (
            {"search": {"parameters": {"debate.temperature": {"low": 0, "high": 1, "log": True}}}},
            "spec.search.parameters[debate.temperature]: log from 0; expected more than 0",
        ),
        (
            {"search": {"parameters": {"debate.summarize": {"low": 0, "high": 1}}}},
            "spec.search.parameters[debate.summarize]: is no number; set values in place of low and high",
        ),
        (
            {"search": {"parameters": {"training.learningRate": {"low": 0.1, "high": 7}}}},
            "spec.search.parameters[training.learningRate].high: 7; expected at most 1",
        ),
        (
            {"methods": ["union"], "search": {"parameters": {"training.topology": {"values": ["PerAgent", "Shared"]}}}},
            "spec.search.parameters[training.topology]: union sets it itself; leave it out, or the method",
        ),
        (
            {"search": {"parameters": {"iterations": {"low": 0, "high": 2}}}},
            "spec.search.parameters[iterations].low: 0; expected at least 1",
        ),
        (
            {"search": {"parameters": {"training.lora.rank": {"values": [8, "16"]}}}},
            "spec.search.parameters[training.lora.rank].values[1]: is the text '16'; expected an integer",
        ),
        ({"search": {"parameters": RATE, "trial": 3}}, "spec.search.trial: unknown field; did you mean trials?"),
        (
            {"template": ALONE, "search": {"parameters": SIZES}},
            "spec.search.parameters[agents]: run multiagent, agents=1, debate.rounds=2: debate.rounds: one agent has nobody",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_field(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(BadSpec) as caught:
        read(**changes)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_a_trial_whose_values_do_not_fit_each_other_is_passed_over_and_the_search_goes_on() -> None:
    many = {"training.lora.rank": {"values": [4, 8, 12, 16, 20, 24, 28, 32]}}  # too many points to try all of them before
    growing, seen = carried_out(read(template=ALONE, search={"trials": 20, "sampler": "random", "parameters": {**SIZES, **many}}))
    alone = [trial for trial in growing.trials(seen) if trial.point["agents"] == 1 and trial.point["debate.rounds"] > 1]
    assert alone and not any(trial.children or trial.value is not None for trial in alone)
    assert growing.is_over(seen) and {trial.number for trial in growing.trials(seen)} == {*range(20)}


def test_a_plan_says_what_is_searched() -> None:
    lines = spec.listed(read())
    assert lines[0] == "# ns/arithmetic: 1 runs and 6 trials of multiagent, 1 at a time at most, then their table"
    assert lines[-3:] == [
        "#   training.learningRate: 1e-05 to 0.01, by its logarithm",
        "#   debate.rounds: 2 to 4",
        "#   training.lora.rank: 8, 16",
    ]


# --- on one machine ---


def done(trials: Trials, observed: Observed, value: Any) -> Observed:
    """All tasks of the graph have succeeded but its table. value: of a run by its name, on validation questions."""
    graph = trials.graph(observed)
    tasks = {task.name: TaskState("succeeded") for task in graph.tasks[:-1]}
    validations = {task.name: Validation(accuracy=Score(value(task.run.spec), 0.0)) for task in graph.tasks if task.validates}
    return Observed(tasks, validations=validations)


def test_one_machine_makes_the_trials_that_a_cluster_makes() -> None:
    """One graph that grows; its table is made once all are over, of the chosen one and the others."""

    one = read(maxParallel=2)
    trials, observed = Trials(one, "file:///runs"), Observed()
    sizes = [len(trials.graph(observed).tasks)]
    for _ in range(4):
        assert trials.graph(observed) is trials.graph(observed)
        observed = done(trials, observed, near)
        sizes.append(len(trials.graph(observed).tasks))
    assert sizes == sorted(sizes) and len({*sizes}) == 3
    growing, seen = carried_out(one)
    graph = trials.graph(observed)
    assert {task.run.name for task in graph.tasks if task.run.name != "arithmetic"} == {*seen}
    assert graph.last.kind == "compare" and set(graph.last.needs) <= {task.name for task in graph.tasks}
    best = chosen(growing.trials(seen))["multiagent"].children[0]
    assert {row.run for row in graph.last.compared} == {best.run.name, one.children[0].run.name}
    told = trials.told()
    assert len(told) == 6 and [line for line in told if line.startswith("→")] == [
        f"→ multiagent, trial {best.trial}: {best.label.removeprefix('multiagent, ')}: "
        f"{100 * worth(best):.1f} on validation questions"
    ]


def test_the_note_names_what_the_table_is_to_have_as_trials_come_and_are_chosen(tmp_path: Path) -> None:
    """Whoever asks how far it is: runs made so far, in the end those of the table."""
    one, path = read(maxParallel=2), tmp_path / spec.NOTE
    trials, observed = Trials(one, "file:///runs"), Observed()
    growth = Growth(trials.graph(observed), trials, gpus.find({}))
    growth.note(path)
    numbers = [len(spec.in_note(path.read_bytes()))]
    for _ in range(4):
        observed = done(trials, observed, near)
        growth.look(observed)
        numbers.append(len(spec.in_note(path.read_bytes())))
    assert 2 <= numbers[0] < max(numbers) and spec.in_note(path.read_bytes()) == trials.graph(observed).last.compared
    assert numbers[-1] == 2 and [file.name for file in tmp_path.iterdir()] == [spec.NOTE]


def test_a_machine_that_starts_again_has_the_same_graph_at_once() -> None:
    one = read(maxParallel=2)
    trials, observed = Trials(one, "file:///runs"), Observed()
    for _ in range(4):
        observed = done(trials, observed, lambda run: run.training.learning_rate)
    assert Trials(one, "file:///runs").graph(observed).tasks == trials.graph(observed).tasks


def test_while_trials_are_to_come_the_table_is_not_made() -> None:
    trials = Trials(read(), "file:///runs")
    graph = trials.graph(Observed())
    tasks = {task.name: TaskState("succeeded") for task in graph.tasks[:-1]}
    decided = next_step(graph, Observed(tasks))
    assert (decided.create, decided.phase) == ((), "Evaluating")
