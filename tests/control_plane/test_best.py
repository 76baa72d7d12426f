"""The best iteration and the early stop: what is decided from validation questions, what then runs, and a run that does it."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import MOCK, resource, write
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_objects import a_run, deployment
from kube_objects import done as a_job_done
from statuses import by_type, evaluated, state, summarized, trained, usage, validated
from test_cluster_backend import Server, look, stored
from test_cluster_backend import resource as on_server

from maft import stopping
from maft.stopping import Decision
from maft.summaries import Earlier, EvaluateSummary, Gain, PrepareSummary, Score, Validation, decode_summary
from maft_operator.cluster import metrics
from maft_operator.plan import compare
from maft_operator.plan.best import settled
from maft_operator.plan.graph import Graph, graph
from maft_operator.plan.shards import spread
from maft_operator.plan.step import Observed, Step, TaskState, pending, step
from maft_operator.spec.parse import Run, parse
from maft_operator.spec.schema import BadSpec, Json

SHARED: dict[str, Any] = {"training": {"topology": "Shared"}, "inference": {"topology": "Shared"}}
LIMIT = 500.0  # seconds for a whole small run on two busy cores


MINIMAL: dict[str, Any] = {
    "apiVersion": "maft.dev/v1alpha1",
    "kind": "MultiAgentFinetune",
    "metadata": {"name": "r"},
    "spec": {"model": {"source": "org/model"}, "task": {"kind": "arithmetic"}},
}


def run(*, iterations: int = 4, validation: int = 50, patience: int = 1, **spec: Any) -> Run:
    stop = {"patience": patience, "minGain": spec.pop("minGain", 0)}
    evaluation = {"validation": validation, **spec.pop("evaluation", {})}
    whole = {
        "model": {"source": "org/model"},
        "task": {"kind": "arithmetic"},
        "iterations": iterations,
        "evaluation": evaluation,
        "stopWhen": stop,
        **copy.deepcopy(SHARED),
        **spec,
    }
    return parse({"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentFinetune", "metadata": {"name": "r"}, "spec": whole})


def at(accuracy: float, *gain: float) -> Validation:
    """gain: mean, standard error, over which iteration."""
    return Validation(accuracy=Score(accuracy, 0.05), gain=Gain(gain[0], gain[1], int(gain[2])) if gain else None)


# --- the decision ---

FIRST, BETTER, WORSE = at(0.5), at(0.6, 0.1, 0.02, 1), at(0.4, -0.1, 0.02, 1)
A_LITTLE, EQUAL = at(0.51, 0.01, 0.02, 1), at(0.5, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("asked", "known", "decided"),
    [
        ({}, {}, None),
        ({}, {1: FIRST}, None),  # nothing to compare it with
        ({}, {1: FIRST, 2: BETTER}, None),
        ({}, {1: FIRST, 2: WORSE}, Decision(1, 2, early=True)),
        ({}, {1: FIRST, 2: EQUAL}, Decision(1, 2, early=True)),  # of equals the first
        ({}, {1: FIRST, 2: A_LITTLE}, None),
        ({"minGain": 1}, {1: FIRST, 2: A_LITTLE}, Decision(2, 2, early=True)),  # better, and not by enough to go on
        ({"minGain": 1}, {1: FIRST, 2: BETTER}, None),
        ({"patience": 2}, {1: FIRST, 2: WORSE}, None),
        ({"patience": 2}, {1: FIRST, 2: WORSE, 3: EQUAL}, Decision(1, 3, early=True)),
        ({"patience": 2}, {1: FIRST, 2: WORSE, 3: BETTER}, None),  # it begins to count anew
        ({"patience": 2}, {1: FIRST, 2: WORSE, 3: BETTER, 4: at(0.5, -0.1, 0.02, 3)}, Decision(3, 4, early=False)),
        ({"patience": 0}, {1: FIRST, 2: WORSE, 3: WORSE}, None),  # it never stops
        ({"patience": 0}, {1: FIRST, 2: WORSE, 3: WORSE, 4: WORSE}, Decision(1, 4, early=False)),
        ({"patience": 1, "iterations": 2}, {1: FIRST, 2: WORSE}, Decision(1, 2, early=False)),  # it was the last one anyway
        ({"patience": 0, "iterations": 1}, {1: FIRST}, Decision(1, 1, early=False)),
        ({"evaluation": {"every": 3}}, {3: FIRST}, None),
        ({"evaluation": {"every": 3}}, {3: FIRST, 4: at(0.4, -0.1, 0.02, 3)}, Decision(3, 4, early=False)),
    ],
)
def test_what_validation_questions_decide(asked: dict[str, Any], known: Mapping[int, Validation], decided: Decision | None) -> None:
    assert stopping.decision(run(**asked).spec, known) == decided


def test_numbers_that_nobody_has_count_for_nothing() -> None:
    """A debate is done and what it said is lost: the next one says which was the best before it."""
    spec = run(patience=2).spec
    assert stopping.decision(spec, {1: FIRST}, lost={2}) is None
    assert stopping.decision(spec, {1: FIRST, 3: at(0.4, -0.1, 0.02, 2)}, lost={2}) is None
    decided = stopping.decision(spec, {1: FIRST, 3: at(0.4, -0.1, 0.02, 2), 4: at(0.5, -0.1, 0.02, 2)}, lost={2})
    assert decided == Decision(2, 4, early=False)
    assert stopping.decision(spec, {}, lost={1, 2, 3, 4}) == Decision(4, 4, early=False)  # as without validation: the last


rights = st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=6)


@given(rights, st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@settings(max_examples=60)
def test_the_best_is_the_most_accurate_and_of_equals_the_first(rows: list[list[bool]], patience: int, least: float) -> None:
    """Whatever was right: the chain of gains leads to the greatest accuracy up to the last iteration that counts."""
    known: dict[int, Validation] = {}
    for i, row in enumerate(rows, 1):
        over = stopping.best(known)
        gain = [(sum(row) - sum(rows[over - 1])) / 8, 0.1, over] if over else []
        known[i] = at(sum(row) / 8, *gain)
    decided = stopping.decision(run(iterations=len(rows), patience=patience, minGain=least).spec, known)
    assert decided
    counted = [sum(row) for row in rows[: decided.last]]
    assert decided.best == counted.index(max(counted)) + 1
    assert decided.early == (decided.last < len(rows))
    assert patience or not decided.early


# --- what runs ---


def done(made: Graph, *names: str, validations: Mapping[int, Validation] | None = None) -> Observed:
    known = {f"r-{i}-validate": validation for i, validation in (validations or {}).items()}
    return Observed({name: TaskState("succeeded") for name in (*names, *known)}, validations=known)


def through(iteration: int) -> list[str]:
    """Everything up to the validation of that iteration."""
    before = ["r-0-prepare", "r-0-preflight", "r-0-evaluate"]
    return [*before, *(f"r-{i}-{stage}" for i in range(1, iteration + 1) for stage in ("debate", "train", "validate"))]


def left(made: Graph, observed: Observed) -> list[str]:
    return [task.name for task in pending(settled(made, observed), observed)]


def test_held_out_questions_wait_until_the_best_is_known() -> None:
    made = graph(run(iterations=2, patience=0), "file:///store")
    assert [name for name in left(made, Observed()) if "evaluate" in name] == ["r-0-evaluate"]
    observed = done(made, *through(2), validations={1: FIRST, 2: WORSE})
    assert left(made, observed) == ["r-1-evaluate", "r-2-report"]
    observed = done(made, *through(2), validations={1: FIRST, 2: BETTER})
    assert left(made, observed) == ["r-2-evaluate", "r-2-report"]


def test_without_gain_no_further_iteration_begins() -> None:
    made = graph(run(), "file:///store")
    observed = done(made, *through(2), validations={1: FIRST, 2: WORSE})
    assert left(made, observed) == ["r-1-evaluate", "r-4-report"]
    assert settled(made, observed).decisions == {"default/r": Decision(1, 2, early=True)}
    after = done(made, *through(2), "r-1-evaluate", "r-4-report", validations={1: FIRST, 2: WORSE})
    assert step(settled(made, after), after).phase == "Complete"


def test_with_patience_the_next_iteration_waits_for_the_decision() -> None:
    waiting, going = (graph(run(patience=patience), "file:///store") for patience in (1, 0))
    observed = done(waiting, *through(1)[:-1])
    assert [t.name for t in next_step(waiting, observed).create] == ["r-server"]
    assert "r-2-debate" in [t.name for t in _runnable(going, observed)]
    assert "r-2-debate" not in [t.name for t in _runnable(waiting, observed)]


def next_step(made: Graph, observed: Observed) -> Step:
    return step(settled(made, observed), observed)


def _runnable(made: Graph, observed: Observed) -> list[Any]:
    ended = {name for name, state in observed.tasks.items() if state.status == "succeeded"}
    return [task for task in pending(settled(made, observed), observed) if ended >= {*task.needs}]


def test_it_is_decided_again_alike_where_jobs_have_gone() -> None:
    """What the status has of them is enough, and what was decided stays."""
    made = graph(run(), "file:///store")
    names = frozenset(through(2))
    gone = Observed(done=names, validations={"r-1-validate": FIRST, "r-2-validate": WORSE})
    assert left(made, gone) == ["r-1-evaluate", "r-4-report"]
    assert left(made, replace(gone, validations={"r-2-validate": WORSE})) == left(made, gone)  # it says which was best before


def test_programs_of_one_debate_decide_together() -> None:
    made = spread(graph(run(debate={"shards": 2}), "file:///store"))
    names = [f"{name}-{k}" if "debate" in name or "-0-evaluate" in name else name for name in through(2) for k in (0, 1)]
    known = {"r-1-validate-0": FIRST, "r-2-validate-1": WORSE}
    states = {name: TaskState("succeeded") for name in (*names, *(f"r-{i}-validate-{k}" for i in (1, 2) for k in (0, 1)))}
    observed = Observed(states, validations=known)
    assert left(made, observed) == ["r-1-evaluate-0", "r-1-evaluate-1", "r-4-report"]


def test_the_next_run_of_a_comparison_waits_for_the_best_of_the_one_before() -> None:
    resource_ = {
        **MINIMAL,
        "spec": {**MINIMAL["spec"], "iterations": 3, "evaluation": {"validation": 9}, "stopWhen": {"patience": 1}},
    }
    runs = compare.runs(resource_, ("multiagent", "union"), 1)
    made = compare.graph(parse(resource_), runs, "file:///store")
    one, other = "r-multiagent-0", "r-union-0"
    before = ["r-0-prepare", "r-0-preflight"]
    before += [f"{one}-{i}-{stage}" for i in (1, 2) for stage in ("debate", "train-0", "train-1", "train-2", "validate")]
    known = {f"{one}-1-validate": FIRST, f"{one}-2-validate": WORSE}
    states = {name: TaskState("succeeded") for name in before}
    first = left(made, Observed(states, validations=known))
    assert first[:2] == [f"{one}-1-evaluate", f"{other}-1-debate"]
    assert [t.name for t in _runnable(made, Observed(states, validations=known))] == [f"{one}-1-evaluate"]
    states |= {f"{one}-1-evaluate": TaskState("succeeded")}
    assert [t.name for t in _runnable(made, Observed(states, validations=known))] == [f"{other}-1-debate"]
    ended = settled(made, Observed(states, validations=known))
    assert ended.decisions == {f"default/{one}": Decision(1, 2, early=True)}


def test_without_validation_the_graph_is_as_it_was() -> None:
    made = graph(run(validation=0, patience=0), "file:///store")
    assert settled(made, Observed()) == made
    assert not any(task.validates or "validate" in need for task in made.tasks for need in task.needs)


def test_a_budget_of_tokens_ends_the_run_when_it_is_spent() -> None:
    made = graph(run(budget={"tokens": 1000}), "file:///store")
    assert next_step(made, Observed(tokens=999)).phase == "Preparing"
    ended = next_step(made, Observed(tokens=1000))
    assert (ended.phase, ended.message) == ("Failed", "spec.budget.tokens (1,000) are spent: 1,000 read and written")


# --- the status on a cluster ---

VALIDATING: dict[str, Any] = {"iterations": 4, "evaluation": {"validation": 50}, "stopWhen": {"patience": 1}}
VALIDATED = (
    summarized("r-1-validate", validated(0.6)),
    summarized("r-2-validate", validated(0.55, -0.05, 0.02, 1)),
)


def ended_jobs(last: int, *more: str) -> list[Json]:
    return [a_job_done(name) for name in (*through(last), *more)]


def test_the_status_names_the_best_by_now_and_its_adapters() -> None:
    under_way = state(*ended_jobs(1), *VALIDATED[:1], run=a_run(**VALIDATING))
    assert under_way["best"] == {"iteration": 1, "accuracy": {"mean": 0.6, "stderr": 0.02, "text": "60.0 ± 2.0"}}
    assert under_way["iteration"]["text"] == "2/4"
    assert "accuracy" not in under_way  # held-out questions wait
    stopped = state(*ended_jobs(2), *VALIDATED, summarized("r-2-train", trained(4)), run=a_run(**VALIDATING))
    assert stopped["best"]["iteration"] == 1
    assert stopped["artifacts"]["adapters"].endswith("/iterations/1/adapters/")
    assert stopped["iteration"]["text"] == "2/4"
    assert stopped["iterations"][-1]["validation"] == {
        "mean": 0.55,
        "stderr": 0.02,
        "gain": {"over": 1, "mean": -0.05, "stderr": 0.02},
    }


def test_metrics_have_the_best_and_the_curve_that_chose_it() -> None:
    rows = [{"iteration": i, "validation": {"mean": 0.5 + i / 100, "stderr": 0.02}} for i in range(1, 20)]
    rows[1]["accuracy"] = {"mean": 0.55, "stderr": 0.02}
    status = {"iterations": [{"iteration": 0}, *rows], "best": {"iteration": 2}}
    resource = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}, "status": status}
    found = [(s.name, (s.labels or {}).get("iteration"), s.value) for s in metrics.samples(resource)]
    assert ("maft_run_best_iteration", None, 2) in found
    assert ("maft_run_accuracy_ratio", "2", 0.55) in found
    curve = [iteration for name, iteration, _ in found if name == "maft_run_validation_accuracy_ratio"]
    assert curve == ["2", *(str(i) for i in range(15, 20))]


def test_a_run_that_stopped_is_complete_and_says_why() -> None:
    held_out = summarized("r-1-evaluate", evaluated(0.5, 0.4))
    whole = state(*ended_jobs(2, "r-1-evaluate", "r-4-report"), *VALIDATED, held_out, run=a_run(**VALIDATING))
    complete = by_type(whole["conditions"])["Complete"]
    assert (whole["phase"], complete["status"]) == ("Complete", "True")
    assert complete["message"] == (
        "iteration 1 is the best on the validation questions; stopped after iteration 2 of 4: 1 iteration without gain (stopWhen)"
    )
    assert whole["accuracy"]["mean"] == 0.5  # the test row, as it falls
    assert whole["progress"]["percent"] == 100
    assert whole["done"] == {"debate": "1-2", "evaluate": "0-1", "train": "1-2", "validate": "1-2"}


def test_what_the_held_out_debate_took_is_counted_though_jobs_of_its_iteration_have_gone() -> None:
    before = state(*ended_jobs(2), *VALIDATED, run=a_run(**VALIDATING))
    held_out = summarized("r-1-evaluate", evaluated(0.5, 0.4, asked=usage(70_000, 7)))
    jobs = [a_job_done(name) for name in ("r-2-debate", "r-2-train", "r-2-validate", "r-1-evaluate")]
    after = state(*jobs, VALIDATED[1], held_out, old=before, run=a_run(**VALIDATING))
    assert [row["promptTokens"] for row in before["iterations"]] == [0, 1000, 1000]
    assert [row["promptTokens"] for row in after["iterations"]] == [0, 1000, 71_000]
    assert after["iterations"][1]["accuracy"]["mean"] == 0.5


def test_the_held_out_debate_counts_once_for_the_budget() -> None:
    """Not in the row of its iteration and again in the last one's, which the status has by then."""
    spec = {**VALIDATING, "budget": {"tokens": 100_000}}
    held_out = summarized("r-1-evaluate", evaluated(0.5, 0.4, asked=usage(70_000, 7)))
    jobs = ended_jobs(2, "r-1-evaluate")
    first = state(*jobs, *VALIDATED, held_out, run=a_run(**spec))
    assert state(*jobs, *VALIDATED, held_out, old=first, run=a_run(**spec))["phase"] == first["phase"] == "Reporting"


def test_what_the_status_has_decides_again_alike_without_jobs() -> None:
    before = state(*ended_jobs(2), *VALIDATED, run=a_run(**VALIDATING))
    again = state(*ended_jobs(0), old=before, run=a_run(**VALIDATING))
    assert again["best"] == before["best"]
    assert again["iteration"] == before["iteration"]


def test_an_operator_that_has_just_started_goes_on_with_the_best() -> None:
    """All Jobs have gone. The held-out questions are for the best, and no third iteration begins."""
    before = state(*ended_jobs(2), *VALIDATED, run=a_run(**VALIDATING))
    server_of_run = stored(deployment(ready=1))
    server_of_run["metadata"]["ownerReferences"] = [{"uid": "u", "controller": True}]
    server = Server(on_server(before, **VALIDATING), server_of_run)
    look(server)
    jobs = [name for verb, kind, name in server.wrote() if (verb, kind) == ("apply", "Job")]
    assert jobs == ["r-1-evaluate"]
    [resource_] = server.objects["MultiAgentFinetune"]
    assert resource_["status"]["best"] == before["best"]


def test_a_lost_status_comes_back_from_what_prepare_found() -> None:
    numbers = {"1": at(0.6), "2": at(0.55, -0.05, 0.02, 1)}
    earlier = Earlier(debates="1-2", evaluations="0", adapters={"1-2": "0-1"}, validated="1-2", validations=numbers)
    found = summarized("r-0-prepare", PrepareSummary(train=24, held_out=16, validation=50, earlier=earlier))
    anew = state(a_job_done("r-0-prepare"), a_job_done("r-0-preflight"), found, run=a_run(**VALIDATING))
    assert anew["best"]["iteration"] == 1
    assert anew["iterations"][-1]["validation"]["gain"] == {"over": 1, "mean": -0.05, "stderr": 0.02}
    assert "validations up to iteration 2" in anew["warnings"][0]


@pytest.mark.parametrize("spoilt", [{"mean": "x"}, {"mean": 0.5, "stderr": 0.1, "gain": 7}, "no", None])
def test_what_somebody_wrote_into_the_status_chooses_nothing(spoilt: Any) -> None:
    old = {"iterations": [{"iteration": 1, "validation": spoilt, "promptTokens": "many"}]}
    assert "best" not in state(*ended_jobs(0), old=old, run=a_run(**VALIDATING))


def test_tokens_of_the_status_count_for_the_budget() -> None:
    spec = {**VALIDATING, "budget": {"tokens": 2200}}
    assert state(*ended_jobs(1), *VALIDATED[:1], run=a_run(**spec))["phase"] != "Failed"
    whole = state(*ended_jobs(2), *VALIDATED, run=a_run(**spec))
    assert (whole["phase"], by_type(whole["conditions"])["Failed"]["reason"]) == ("Failed", "BudgetSpent")


# --- bad input ---


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"validation": 0}, r"stopWhen.patience: nothing tells a gain without validation questions; .*evaluation.validation.*"),
        ({"minGain": -1}, r"spec.stopWhen.minGain: .*"),
        ({"patience": -1}, r"spec.stopWhen.patience: .*"),
        ({"validation": -5}, r"spec.evaluation.validation: .*"),
        ({"debate": {"shards": 60}}, r"debate.shards: more than there are validation questions; .*"),
        ({"budget": {"tokens": 0}}, r"spec.budget.tokens: .*"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec) as error:
        run(**spec)
    assert re.fullmatch(says, str(error.value)), error.value


# --- whole runs ---


def started(folder: Path, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = write(folder / "run.yaml", spec)
    line = [sys.executable, "-m", "maft_operator", "run", str(file), "--dir", str(folder / "runs")]
    line += ["--serve", f"{sys.executable} {MOCK}"]
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, cwd=folder)


@pytest.mark.run
def test_a_run_stops_without_gain_and_points_at_its_best(tmp_path: Path) -> None:
    """The mock engine's adapters are all equally good: what comes after the first is better by chance alone."""
    stopping_ = {"evaluation": {"validation": 12}, "stopWhen": {"patience": 1, "minGain": 2}}
    ended = started(tmp_path, resource(iterations=4, **stopping_))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    top = tmp_path / "runs/default/test"
    validated = {i: validation_of(top, i) for i in (1, 2)}
    decided = stopping.decision(parse(resource(iterations=4, **stopping_)).spec, validated)
    assert decided and decided.early and decided.last == 2
    evaluated = sorted(path.parts[-3] for path in top.glob("iterations/*/evaluation/_COMMIT.json"))
    assert evaluated == ["0", str(decided.best)]
    assert not (top / "iterations/3").exists()
    assert accuracies(top, 2) - accuracies(top, validated[2].gain.over) == pytest.approx(validated[2].gain.mean, abs=1e-4)
    assert f"iteration {decided.best}" in ended.stdout
    again = started(tmp_path, resource(iterations=4, **stopping_))
    assert again.returncode == 0 and "from before" in again.stdout
    assert not (top / "iterations/3").exists()


def validation_of(top: Path, iteration: int) -> Validation:
    summary = decode_summary((top / f"local/test-{iteration}-validate/summary.json").read_bytes())
    assert isinstance(summary, EvaluateSummary) and summary.validation
    return summary.validation


def accuracies(top: Path, iteration: int) -> float:
    lines = (top / f"iterations/{iteration}/validation/part-0.jsonl").read_text().splitlines()
    return sum(json.loads(line)["votes"][-1]["right"] for line in lines) / len(lines)
