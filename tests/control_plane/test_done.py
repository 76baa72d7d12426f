"""Nothing is done twice: a run whose status, Jobs or both were lost goes on after what is committed; Jobs of old iterations go."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import IMAGES, START, a_run, done, ended, job, planned, pod, snapshot
from statuses import state
from test_cluster_backend import Server, look, resource, stored

from maft.summaries import Earlier, PrepareSummary, encode_summary, numbers_in, ranges
from maft_operator.cluster import images
from maft_operator.cluster.earlier import RESUMED
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.status import Reconciled, status
from maft_operator.plan import done as plan
from maft_operator.plan.graph import Graph
from maft_operator.plan.reconcile import Outcome
from maft_operator.plan.step import Observed, ServerState, TaskState, pending, step
from maft_operator.spec.parse import Run

SUCCEEDED, RUNNING = TaskState("succeeded"), TaskState("running")
READY = {"r-server": ServerState(ready=True)}
THREE = a_run(
    iterations=3,
    inference={"topology": "Shared", "lifetime": "Phase"},
    training={"topology": "PerAgent"},
    evaluation={"diversity": 4},
)
GRAPH = planned(THREE)
CHECKS = ("r-0-prepare", "r-0-preflight")


def names(*iterations: int, graph: Graph = GRAPH) -> frozenset[str]:
    """All stages of those iterations."""
    kinds = ("debate", "train", "evaluate", "diversity")
    return frozenset(t.name for t in graph.tasks if t.iteration in iterations and t.kind in kinds)


# --- numbers, written small ---


@given(st.sets(st.integers(0, 200)))
def test_ranges_are_read_as_they_were_written(numbers: set[int]) -> None:
    assert numbers_in(ranges(numbers)) == numbers


@pytest.mark.parametrize(("numbers", "text"), [((), ""), ((3,), "3"), ((1, 2, 3, 5, 8, 9), "1-3,5,8-9"), ((7, 0), "0,7")])
def test_ranges(numbers: tuple[int, ...], text: str) -> None:
    assert ranges(numbers) == text


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "5-3", "1--2", "1 - 2", "0x10", "1-99999", "0-1000", "1000", "١"])
def test_what_is_no_range_counts_for_nothing(text: str) -> None:
    assert numbers_in(text) == frozenset()


def test_a_text_that_repeats_itself_is_read_no_further_than_numbers_go() -> None:
    """Of one termination message: each look would read it again."""
    assert numbers_in("0-999," * 500) == frozenset(range(1000))
    assert numbers_in("0-499," * 2 + "700") == frozenset(range(500))


# --- which tasks are done ---


def test_a_record_names_what_is_done_and_forgets_nothing() -> None:
    record = plan.record(GRAPH, names(0, 1) | {"r-2-debate", *CHECKS}, {"debate": "7", "of-another-release": "1-2"})
    assert record == {
        "debate": "1-2,7",
        "diversity": "0-1",
        "evaluate": "0-1",
        "of-another-release": "1-2",
        "train-0": "1",
        "train-1": "1",
    }
    assert plan.recorded(GRAPH, record) == names(0, 1) | {"r-2-debate"}


def test_a_hundred_iterations_are_a_few_words() -> None:
    graph = planned(a_run(agents=32, iterations=100, evaluation={"diversity": 4}, training={"topology": "PerAgent"}))
    record = plan.record(graph, names(*range(101), graph=graph), {})
    assert len(json.dumps(record)) < 1000
    assert plan.recorded(graph, record) == names(*range(101), graph=graph)


REPORT = Earlier(debates="1-2", evaluations="0-1", diversities="0", adapters={"1": "0-1", "2": "1"}, scores={"0": (0.3, 0.02)})
REPORTED = {*names(0), "r-1-debate", "r-2-debate", "r-1-evaluate", "r-1-train-0", "r-1-train-1", "r-2-train-1"}


def prepared(report: Earlier, train: int = 24) -> PrepareSummary:
    return PrepareSummary(train=train, held_out=16, earlier=report)


def test_what_prepare_found_is_done() -> None:
    assert plan.found(GRAPH, [prepared(REPORT)]) == REPORTED
    assert plan.found(GRAPH, [prepared(Earlier())]) == plan.found(GRAPH, []) == frozenset()


def test_training_of_all_agents_is_one_task() -> None:
    """It is done when the adapters of all are there."""
    graph = planned(a_run(iterations=2, training={"topology": "Shared"}))
    tasks = plan.found(graph, [prepared(Earlier(adapters={"1": "0-1", "2": "0"}))])
    assert tasks == {"r-1-train"}


def test_more_iterations_than_before_go_on_after_the_last() -> None:
    observed = Observed({"r-0-prepare": SUCCEEDED}, {}, plan.found(GRAPH, [prepared(Earlier(**everything(2)))]))
    assert [task.name for task in pending(GRAPH, observed)][:1] == ["r-3-debate"]


def everything(last: int) -> dict[str, object]:
    """What is committed when that iteration is done."""
    return {
        "debates": f"1-{last}",
        "evaluations": f"0-{last}",
        "diversities": f"0-{last}",
        "adapters": {f"1-{last}": "0-1"},
    }


# --- the next step ---


def decided(tasks: Iterable[str], known: Iterable[str], servers: Mapping[str, ServerState] | None = None, **running: str) -> str:
    states = {**dict.fromkeys(tasks, SUCCEEDED), **dict.fromkeys(running.values(), RUNNING)}
    made = step(GRAPH, Observed(states, servers or {}, frozenset(known)))
    return " ".join([*(f"-{name}" for name in made.delete), *(item.name for item in made.create), made.phase])


def test_a_run_whose_status_and_jobs_were_lost_looks_first() -> None:
    assert decided((), ()) == "r-0-prepare Preparing"


@pytest.mark.parametrize(
    ("report", "then"),
    [
        (Earlier(), "r-0-preflight Preparing"),
        (Earlier(debates="1"), "r-0-preflight Preparing"),  # the untrained evaluation is still to be held
        (Earlier(evaluations="0", diversities="0", debates="1"), "r-1-train-0 r-1-train-1 Training"),  # no server
        (Earlier(**{**everything(2), "adapters": {"1-2": "0"}}), "r-1-train-1 r-2-train-1 Training"),
        (Earlier(**everything(2)), "r-server Serving"),
        (Earlier(**everything(3)), "r-3-report Reporting"),
        (Earlier(**{**everything(3), "diversities": "0-2"}), "r-3-diversity Evaluating"),
    ],
)
def test_what_is_committed_is_passed_over(report: Earlier, then: str) -> None:
    assert decided(["r-0-prepare"], plan.found(GRAPH, [prepared(report)])) == then


def test_a_run_whose_jobs_were_lost_does_not_even_look() -> None:
    """Its status knows what is done."""
    assert decided((), names(0, 1, 2)) == "r-server Serving"
    assert decided((), names(0, 1, 2, 3)) == "r-3-report Reporting"


def test_where_old_jobs_have_gone_and_the_status_is_lost_the_debate_under_way_keeps_its_server() -> None:
    """Prepare looks again; nothing that works is disturbed, and nothing new begins before it has said what is there."""
    under_way = {"debate": "r-3-debate"}
    assert decided((), (), READY, **under_way) == "r-0-prepare Preparing"
    assert decided((), (), READY, **under_way, checks="r-0-prepare") == "Preparing"
    known = plan.found(GRAPH, [prepared(Earlier(**everything(2)))])
    assert decided(["r-0-prepare"], known, READY, **under_way) == "Debating"


def test_a_program_that_still_runs_at_what_is_committed_is_waited_for() -> None:
    assert decided(["r-0-prepare"], names(0, 1, 2) | {"r-3-debate"}, READY, debate="r-3-debate") == "Debating"


def test_a_task_that_failed_after_its_commit_fails_no_run() -> None:
    lost = TaskState("failed", 99, 2, "lost")
    observed = Observed({"r-0-prepare": SUCCEEDED, "r-1-debate": lost}, {}, names(0, 1, 2))
    assert step(GRAPH, observed).phase == "Serving"
    assert step(GRAPH, Observed(observed.tasks)).phase == "Failed"


# --- Jobs of old iterations ---


def left(tasks: Iterable[str], known: Iterable[str], running: Iterable[str] = ()) -> tuple[str, ...]:
    states = {**dict.fromkeys(tasks, SUCCEEDED), **dict.fromkeys(running, RUNNING)}
    return plan.left_over(GRAPH, Observed(states), plan.record(GRAPH, frozenset(known), {}))


def test_jobs_go_when_their_iteration_is_recorded_and_the_next_has_begun() -> None:
    first = {*CHECKS, *names(0)}
    assert left(first, names(0)) == ()
    assert set(left(first, names(0), ["r-1-debate"])) == first
    assert left(first, (), ["r-1-debate"]) == ()  # not in the status yet
    assert left({*CHECKS, "r-0-evaluate"}, names(0) - {"r-0-diversity"}, ["r-1-debate"]) == ()
    later = {*names(1), "r-2-debate"}
    assert set(left(later, names(0, 1))) == names(1)
    assert left(names(3) | {"r-3-report"}, names(0, 1, 2, 3)) == ()  # of the last one they stay


def test_the_checks_go_first() -> None:
    """As long as prepare looks, the Jobs that tell what is done stay."""
    assert left({*names(0, 1), "r-2-debate"}, names(0, 1), ["r-0-prepare"]) == ()


# --- through operator and status ---


def said(name: str, report: Earlier) -> tuple[Json, Json]:
    """Prepare's Job and its pod."""
    return done(name), pod(name, "Succeeded", ended(0, encode_summary(prepared(report)).decode()))


SCORES = {"0": (0.5, 0.03, 0.4, 0.02, 0.45, 0.02), "1": (0.6, 0.03), "2": (0.7, 0.03)}


def test_the_status_has_what_prepare_found() -> None:
    report = Earlier(**{**everything(2), "scores": SCORES})
    whole = state_of(THREE, said("r-0-prepare", report))
    assert [(row["iteration"], row["accuracy"]["mean"]) for row in whole["iterations"]] == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert (whole["accuracy"]["text"], whole["baseAccuracy"]["text"]) == ("70.0 ± 3.0", "40.0 ± 2.0")
    assert whole["iteration"]["text"] == "3/3"
    assert whole["artifacts"]["adapters"].endswith("/iterations/2/adapters/")
    assert whole["done"] == {"debate": "1-2", "diversity": "0-2", "evaluate": "0-2", "train-0": "1-2", "train-1": "1-2"}
    [line] = whole["warnings"]
    assert line.startswith(RESUMED) and "up to iteration 2" in line and IMAGES.of("debate") in line
    later = state_of(THREE, [job("r-3-debate")], old=whole)  # Jobs and pods have gone
    assert [later[key] for key in ("iterations", "done", "warnings", "accuracy")] == [
        whole[key] for key in ("iterations", "done", "warnings", "accuracy")
    ]


def state_of(run: Run, objects: Iterable[Json], old: Json | None = None) -> Json:
    """As `state`, with what the backend adds to a snapshot."""
    graph, seen = planned(run), snapshot(run, *objects)
    known = plan.recorded(graph, (old or {}).get("done", {})) | plan.found(graph, seen.summaries.values())
    seen = replace(seen, observed=replace(seen.observed, done=known), pins=images.pins(IMAGES, {}, {}, {}))
    outcome = Outcome(step(graph, seen.observed), seen, (), graph)
    return status(Reconciled(run, graph, outcome, {}), old or {}, 1, START + timedelta(seconds=1000))


def test_a_run_that_begins_says_nothing_of_an_earlier_start() -> None:
    assert "warnings" not in state_of(THREE, said("r-0-prepare", Earlier()))
    assert "done" not in state()


def test_a_run_made_anew_with_fewer_iterations_shows_its_own_alone() -> None:
    """What the one before left beyond them stays in the store."""
    report = Earlier(**{**everything(10), "scores": {str(i): (i / 100, 0.03) for i in range(11)}})
    whole = state_of(THREE, said("r-0-prepare", report))
    assert [row["iteration"] for row in whole["iterations"]] == [0, 1, 2, 3]
    assert (whole["accuracy"]["mean"], whole["iteration"]["text"]) == (0.03, "3/3")
    assert whole["artifacts"]["adapters"].endswith("/iterations/3/adapters/")
    assert "up to iteration 3 in the store" in whole["warnings"][0]
    assert "warnings" not in state_of(THREE, said("r-0-prepare", Earlier(debates="4-10", adapters={"7": "0-1"})))


@pytest.mark.parametrize("text", ["0-3", "0-999", "01", "1,2", " 1", "-1", "1.0", "", "٣"])
def test_scores_of_what_is_no_iteration_make_no_row(text: str) -> None:
    whole = state_of(THREE, said("r-0-prepare", Earlier(scores={text: (0.5, 0.03)})))
    assert "iterations" not in whole and "accuracy" not in whole


def test_own_results_count_more_than_what_was_found() -> None:
    before: Json = {"iterations": [{"iteration": 1, "accuracy": {"mean": 0.9, "stderr": 0.01}, "seconds": 7}]}
    whole = state_of(THREE, said("r-0-prepare", Earlier(**{**everything(1), "scores": SCORES})), old=before)
    assert whole["iterations"][1]["accuracy"] == {"mean": 0.9, "stderr": 0.01}
    assert whole["iterations"][1]["seconds"] == 7


def test_the_operator_passes_over_what_is_committed_and_starts_no_server_for_it() -> None:
    """Status and all Jobs but a fresh prepare are gone: the report is all that is left to do."""
    report = Earlier(debates="1", evaluations="0-1", adapters={"1": "0-1"})
    server = Server(resource({"startTime": "2026-01-01T00:00:00Z"}), *map(mine, said("r-0-prepare", report)))
    look(server)
    assert [name for verb, _, name in server.wrote() if verb == "apply"] == ["r-tasks", "r-1-report"]


def mine(thing: Json) -> Json:
    child = stored(thing)
    if thing["kind"] != "Pod":
        child["metadata"]["ownerReferences"] = [{"uid": "u", "controller": True}]  # of `resource`
    return child


def test_the_operator_deletes_jobs_of_finished_iterations() -> None:
    jobs = [done(name) for name in ("r-0-prepare", "r-0-preflight", "r-0-evaluate", "r-1-debate")]
    server = Server(resource(None), *map(mine, jobs))
    look(server)
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"]["done"] == {"debate": "1", "evaluate": "0"}
    assert [asked for asked in server.wrote() if asked[0] == "delete"] == []  # it is not in the status that was read
    look(server)
    assert [name for verb, _, name in server.wrote() if verb == "delete"] == ["r-0-prepare", "r-0-preflight", "r-0-evaluate"]
    server.objects["Job"] = server.objects["Job"][3:]
    server.asked.clear()
    look(server)
    assert {name for verb, _, name in server.wrote() if verb == "apply"} == {"r-tasks", "r-1-train", "r-server"}
