"""The status: conditions with reasons that people can act on, progress, results that stay, and nothing written twice."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from jsonschema import Draft4Validator
from kube_objects import (
    RUNNING,
    START,
    STORAGE,
    a_run,
    at,
    by_type,
    condition,
    deployment,
    done,
    ended,
    failed,
    job,
    planned,
    pod,
    replica,
    seen,
    unscheduled,
    waiting,
)

from maft_operator.cluster import controller, metrics, reasons, status
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.observed import Trouble
from maft_operator.plan import graph as plan
from maft_operator.plan import summaries as words
from maft_operator.spec import schema
from maft_operator.spec.parse import Run

RUN = a_run()
PREPARED, UNTRAINED, DEBATED, TRAINED, EVALUATED, REPORTED = (
    done(name, start=60 * i, ended=60 * i + 60)
    for i, name in enumerate(("r-0-prepare", "r-0-evaluate", "r-1-debate", "r-1-train", "r-1-evaluate", "r-1-report"))
)
ALL = (PREPARED, UNTRAINED, DEBATED, TRAINED, EVALUATED, REPORTED)
NO_NODE = (job("r-0-prepare"), unscheduled("r-0-prepare", "0/3 nodes are available"))
RETRIED = (job("r-0-prepare", failed=1), pod("r-0-prepare", "Failed", ended(1, "store s3://b: unreachable")))
WRONG = (failed("r-0-prepare", "PodFailurePolicy"), pod("r-0-prepare", "Failed", ended(2, "model.source: no such model")))


def state(
    *objects: Json,
    run: Run = RUN,
    old: Json | None = None,
    now: float = 1000,
    generation: int = 1,
    units: Mapping[str, tuple[float, float]] | None = None,
    refused: tuple[Trouble, ...] = (),
) -> Json:
    """The status that a reconcile would write, `now` seconds after START."""
    graph, world = planned(run), seen(run, *objects, now=now)
    step = plan.step(graph, world.observed)
    found = status.Seen(run, graph, step, world, units or {}, refused)
    return status.status(found, old or {}, generation, START + timedelta(seconds=now))


def conditions(whole: Json) -> dict[str, tuple[str, str]]:
    return {kind: (c["status"], c["reason"]) for kind, c in by_type(whole["conditions"]).items()}


# --- conditions ---

HEALTHY = {"Accepted": ("True", "Accepted"), "Suspended": ("False", "NotSuspended"), "Failed": ("False", "NoFailure")}
GOES_ON = HEALTHY | {"Progressing": ("True", "Working"), "Complete": ("False", "Unfinished")}
PAUSED = {"Suspended": ("True", "Suspended"), "Progressing": ("False", "Suspended")}
CASES: dict[str, tuple[Json, str, dict[str, tuple[str, str]]]] = {
    # status, phase, conditions
    "begins": (state(), "Preparing", GOES_ON),
    "works": (state(PREPARED, UNTRAINED, job("r-1-debate"), deployment(ready=1)), "Debating", GOES_ON),
    "waits for a node": (state(*NO_NODE), "Preparing", GOES_ON | {"Progressing": ("False", "Unschedulable")}),
    "tries again": (state(*RETRIED), "Preparing", GOES_ON | {"Progressing": ("True", "Retrying")}),
    "is suspended": (state(PREPARED, run=a_run(suspend=True)), "Suspended", GOES_ON | PAUSED),
    "is complete": (
        state(*ALL),
        "Complete",
        HEALTHY | {"Progressing": ("False", "AllIterationsDone"), "Complete": ("True", "AllIterationsDone")},
    ),
    "failed": (state(*WRONG), "Failed", GOES_ON | {"Progressing": ("False", "ModelUnusable"), "Failed": ("True", "ModelUnusable")}),
    "server that fails": (
        state(PREPARED, deployment(), replica(waiting("CrashLoopBackOff"), restarts=4, last=ended(1, "no GPU"))),
        "Failed",
        GOES_ON | {"Progressing": ("False", "CrashLoop"), "Failed": ("True", "CrashLoop")},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_conditions(name: str) -> None:
    whole, phase, expected = CASES[name]
    assert whole["phase"] == phase
    assert conditions(whole) == expected
    assert [c["type"] for c in whole["conditions"]] == list(reasons.CONDITIONS)


@pytest.mark.parametrize("name", CASES)
def test_every_status_is_as_the_schema_says(name: str) -> None:
    """The API server would drop what the schema does not know."""
    described = schema.openapi()["properties"]["status"]
    schema._known(CASES[name][0], described, "status")
    Draft4Validator(described).validate(CASES[name][0])


@pytest.mark.parametrize(
    ("whole", "kind", "message"),
    [
        (state(*NO_NODE), "Progressing", f"r-0-prepare: 0/3 nodes are available. {reasons.UNSCHEDULABLE.hint}"),
        (state(*WRONG), "Failed", f"r-0-prepare: model.source: no such model. {reasons.MODEL_UNUSABLE.hint}"),
        (state(*WRONG), "Progressing", f"r-0-prepare: model.source: no such model. {reasons.MODEL_UNUSABLE.hint}"),
        (state(run=a_run(suspend=True)), "Suspended", reasons.SUSPENDED.hint),
        (state(job("r-0-prepare")), "Progressing", "prepare: checks and questions"),
    ],
)
def test_messages_say_what_was_found_and_what_to_do(whole: Json, kind: str, message: str) -> None:
    assert by_type(whole["conditions"])[kind]["message"].lower() == message.lower()


def test_what_blocks_is_said_before_what_passes_and_a_refusal_counts() -> None:
    refused = (Trouble("r-server", reasons.FORBIDDEN, "may not create services"),)
    assert conditions(state(*RETRIED, refused=refused))["Progressing"] == ("False", "OperatorForbidden")
    assert conditions(state(*NO_NODE, refused=refused))["Progressing"] == ("False", "OperatorForbidden")
    passing = (Trouble("r-server", reasons.EVICTED, "short of memory", blocking=False),)
    assert conditions(state(*NO_NODE, refused=passing))["Progressing"] == ("False", "Unschedulable")


def test_times_move_with_the_status_of_a_condition_alone() -> None:
    history = [((), 10), (RETRIED, 20), (NO_NODE, 30), (RETRIED, 40), ((PREPARED,), 50), (ALL, 60), (ALL, 70)]
    whole: Json = {}
    moved: dict[str, list[str]] = {kind: [] for kind in reasons.CONDITIONS}
    for objects, now in history:
        whole = state(*objects, old=whole, now=now)
        for kind, found in by_type(whole["conditions"]).items():
            moved[kind].append(found["lastTransitionTime"])
    assert moved["Progressing"] == [at(n) for n in (10, 10, 30, 40, 40, 60, 60)]
    assert moved["Complete"] == [at(n) for n in (10, 10, 10, 10, 10, 60, 60)]
    assert moved["Accepted"] == moved["Failed"] == moved["Suspended"] == [at(10)] * 7


def test_the_generation_is_in_every_condition() -> None:
    whole = state(generation=7)
    assert {whole["observedGeneration"], *(c["observedGeneration"] for c in whole["conditions"])} == {7}


def test_when_it_began_and_ended_is_said_once() -> None:
    first = state(now=10)
    assert (first["startTime"], "completionTime" in first) == (at(10), False)
    complete = state(*ALL, old=first, now=20)
    assert (complete["startTime"], complete["completionTime"]) == (at(10), at(20))
    assert state(*ALL, old=complete, now=30)["completionTime"] == at(20)
    assert state(*WRONG, now=40)["completionTime"] == at(40)


# --- what is written, and what becomes an Event ---


@pytest.mark.parametrize("name", CASES)
def test_an_equal_world_gives_an_equal_status(name: str) -> None:
    whole = CASES[name][0]
    assert not status.important(whole, json.loads(json.dumps(whole)))
    assert status.transitions(whole, whole) == []


@pytest.mark.parametrize("objects", [ALL, WRONG])
def test_a_settled_run_says_the_same_for_ever(objects: tuple[Json, ...]) -> None:
    whole = state(*objects)
    assert state(*objects, old=whole, now=5000) == whole
    paused = state(PREPARED, DEBATED, run=a_run(suspend=True))
    assert state(PREPARED, DEBATED, run=a_run(suspend=True), old=paused, now=5000) == paused


def test_a_running_task_moves_nothing_but_progress() -> None:
    objects = (PREPARED, UNTRAINED, job("r-1-debate", start=120), pod("r-1-debate", "Running", RUNNING), deployment(ready=1))
    whole = state(*objects, units={"r-1-debate": (6, 24)})
    later = state(*objects, units={"r-1-debate": (12, 24)}, old=whole, now=1005)
    assert whole["progress"] != later["progress"]
    assert {**whole, "progress": later["progress"]} == later
    assert not status.important(whole, later)


def test_progress_never_goes_back() -> None:
    """A debate that just ended has no metrics any more, and its Job does not count yet."""
    objects = (PREPARED, UNTRAINED, job("r-1-debate", start=120), pod("r-1-debate", "Running", RUNNING), deployment(ready=1))
    nearly = state(*objects, units={"r-1-debate": (23, 24)})
    silent = state(*objects, old=nearly, now=1005)
    assert nearly["progress"]["percent"] > state(*objects)["progress"]["percent"]
    assert silent["progress"]["percent"] == nearly["progress"]["percent"]


def test_what_is_wrong_from_the_start_is_told() -> None:
    """A run that waits in its very first status gets its Event; that it has not failed goes without saying."""
    first = [condition("Accepted"), condition("Progressing", "False", reason="PodRefused"), condition("Failed", "False")]
    assert [c["type"] for c in status.transitions({}, {"conditions": first})] == ["Accepted", "Progressing"]


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({}, False),
        ({"progress": {"percent": 50}}, False),
        ({"conditions": [condition("Progressing", reason="Working", message="other", seconds=9)]}, False),
        ({"conditions": [condition("Progressing", reason="Retrying")]}, True),
        ({"conditions": [condition("Progressing", "False", reason="Working")]}, True),
        ({"conditions": [{**condition("Progressing", reason="Working"), "observedGeneration": 2}]}, True),
        ({"conditions": []}, True),
        ({"phase": "Training"}, True),
        ({"iteration": "1/2"}, True),
        ({"observedGeneration": 2}, True),
        ({"iterations": [{"iteration": 1}]}, True),
        ({"completionTime": at(1)}, True),
    ],
)
def test_what_is_important(change: Json, matters: bool) -> None:
    before = {
        "phase": "Debating",
        "progress": {"percent": 1},
        "conditions": [condition("Progressing", reason="Working", message="x")],
    }
    assert status.important(before, {**before, **change}) == matters
    assert status.important({**before, **change}, before) == matters


@pytest.mark.parametrize(
    ("old", "new", "events"),
    [
        ({}, state(), ["Accepted", "Progressing"]),
        (state(), state(*NO_NODE), ["Progressing"]),
        (state(), state(*RETRIED), ["Progressing"]),
        (state(*NO_NODE), state(), ["Progressing"]),
        (state(), state(PREPARED), []),
        (state(), state(*ALL), ["Progressing", "Complete"]),
        (state(), state(*WRONG), ["Progressing", "Failed"]),
        (state(), state(run=a_run(suspend=True)), ["Progressing", "Suspended"]),
        (state(run=a_run(suspend=True)), state(), ["Progressing", "Suspended"]),
        (state(), state(generation=2), []),
    ],
)
def test_what_becomes_an_event(old: Json, new: Json, events: list[str]) -> None:
    assert [c["type"] for c in status.transitions(old, new)] == events


# --- progress ---

DEBATING = (PREPARED, UNTRAINED, job("r-1-debate", start=400), deployment(ready=1))
APART = a_run(training={"topology": "PerAgent"})
TRAINING = (PREPARED, UNTRAINED, DEBATED)


@pytest.mark.parametrize(
    ("whole", "progress"),
    [
        (state(), {"percent": 0, "text": "0 %"}),
        (state(job("r-0-prepare")), {"percent": 0, "text": "0 %", "stage": "prepare: checks and questions"}),
        # 120 s for 1.1 of 4.2 parts of the work, and 600 s for half of another one: 720 s for 1.6, so 1170 s for 2.6
        (
            state(*DEBATING, units={"r-1-debate": (12, 24)}),
            {
                "percent": 38,
                "text": "38 %, 19m30s left",
                "stage": "iteration 1: debate of the training questions (12 of 24)",
                "eta": at(1000 + 1170),
            },
        ),
        # more than there is counts as all of it
        (
            state(*DEBATING, units={"r-1-debate": (99, 24)}),
            {
                "percent": 50,
                "text": "50 %, 12m00s left",
                "stage": "iteration 1: debate of the training questions (99 of 24)",
                "eta": at(1000 + 720),
            },
        ),
        # a task that does not say how far it is counts nothing, neither work nor time: 120 s for 1.1, so 340 s for 3.1
        (
            state(*DEBATING),
            {
                "percent": 26,
                "text": "26 %, 5m40s left",
                "stage": "iteration 1: debate of the training questions",
                "eta": at(1000 + 340),
            },
        ),
        # agents that train side by side are one part of the work: 180 s for 2.1 and 600 s for half a part
        (
            state(*TRAINING, job("r-1-train-0", start=400), done("r-1-train-1", start=400, ended=1000), run=APART),
            {
                "percent": 61,
                "text": "61 %, 5m00s left",
                "stage": "iteration 1: training of agent 0",
                "eta": at(1000 + 300),
            },
        ),
        (
            state(
                *TRAINING,
                *(job(f"r-1-train-{n}", start=None) for n in range(4)),
                run=a_run(agents=4, training={"topology": "PerAgent"}),
            ),
            {
                "percent": 50,
                "text": "50 %, 3m00s left",
                "stage": "iteration 1: training of agent 0, iteration 1: training of agent 1 and 2 more",
                "eta": at(1000 + 180),
            },
        ),
        (state(PREPARED, UNTRAINED, run=a_run(suspend=True)), {"percent": 26, "text": "26 %"}),
        (state(PREPARED, UNTRAINED, failed("r-1-debate")), {"percent": 26, "text": "26 %"}),
        (state(*ALL), {"percent": 100, "text": "100 %"}),
    ],
)
def test_progress(whole: Json, progress: Json) -> None:
    assert whole["progress"] == progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0m00s"), (59, "0m59s"), (3599, "59m59s"), (3600, "1h00m"), (7260, "2h01m"), (360_000, "100h00m")]
)
def test_time_left_in_words(seconds: float, text: str) -> None:
    assert status._clock(seconds) == text


@pytest.mark.parametrize(
    ("objects", "iteration"),
    [((), "0/1"), ((PREPARED,), "0/1"), ((PREPARED, UNTRAINED), "1/1"), ((PREPARED, DEBATED), "0/1"), (ALL, "1/1")],
)
def test_the_iteration_under_way(objects: tuple[Json, ...], iteration: str) -> None:
    assert state(*objects)["iteration"] == iteration


# --- results ---


def said(name: str, **summary: Any) -> Json:
    """The pod of a task that ended well, with what it said."""
    return pod(name, "Succeeded", ended(0, json.dumps({"version": "1", **summary})))


def usage(prompt: int, completion: int) -> Json:
    return {"calls": 1, "prompt_tokens": prompt, "completion_tokens": completion}


def scores(debate: float, answer: float) -> Json:
    flips = {"wrongToRight": 7, "rightToWrong": 3}
    return {"debate": [debate, 0.02], "majority": [0.5, 0.01], "answer": [answer, 0.03], "consensus": [0.6, 0.011], **flips}


KEPT = {"generator": [5, 6], "critic": [4, 3]}
SAID = (
    said("r-0-evaluate", **scores(0.42, 0.3), usage=usage(100, 10)),
    said("r-1-debate", questions=24, agreement=0.6543, abstained=4, probe=[0.61, 0.0488, 100], kept=KEPT, usage=usage(200, 20)),
    said("r-1-train", trained=4, kept=0, adapters=[]),
    said("r-1-evaluate", **scores(0.625, 0.4), usage=usage(300, 30)),
)
ROW_0 = {
    "iteration": 0,
    "accuracy": "42.0 ± 2.0",
    "majority": "50.0 ± 1.0",
    "answer": "30.0 ± 3.0",
    "consensus": "60.0 ± 1.1",
    "wrongToRight": 7,
    "rightToWrong": 3,
    "promptTokens": 100,
    "completionTokens": 10,
    "seconds": 60,
    "gpuSeconds": 0,
}
ROW_1 = ROW_0 | {
    "iteration": 1,
    "accuracy": "62.5 ± 2.0",
    "answer": "40.0 ± 3.0",
    "agreement": "65.4",
    "probe": "61.0 ± 4.9",
    "abstained": 4,
    "kept": {"generator": "5/6", "critic": "4/3"},
    "trained": 4,
    "promptTokens": 500,
    "completionTokens": 50,
    "seconds": 180,
    "gpuSeconds": 60,
}


def test_results() -> None:
    whole = state(*ALL, *SAID)
    assert whole["iterations"] == [ROW_0, ROW_1]
    assert (whole["accuracy"], whole["baseAccuracy"]) == ("62.5 ± 2.0", "30.0 ± 3.0")


def probed(share: float, name: str = "r-1-debate") -> Json:
    return said(name, questions=24, agreement=0.6, abstained=0, probe=[share, 0.05, 100], kept=KEPT, usage=usage(200, 20))


@pytest.mark.parametrize(
    ("share", "condition_"),
    [(0.0, ("True", "WrongMajority")), (0.49, ("True", "WrongMajority")), (0.5, ("True", "Working")), (0.9, ("True", "Working"))],
)
def test_a_majority_that_is_mostly_wrong_is_told_and_stops_nothing(share: float, condition_: tuple[str, str]) -> None:
    whole = state(PREPARED, UNTRAINED, DEBATED, job("r-1-train"), probed(share))
    assert conditions(whole) == GOES_ON | {"Progressing": condition_}
    assert whole["phase"] == "Training"
    if share < 0.5:
        told = f"iteration 1: the majority is right on {100 * share:.1f} ± 5.0 % of the probe questions, fewer than half. Training "
        assert by_type(whole["conditions"])["Progressing"]["message"].startswith(told)
    later = state(PREPARED, UNTRAINED, DEBATED, job("r-1-train"), old=whole)  # its pod has gone
    assert conditions(later) == conditions(whole)


@pytest.mark.parametrize(("share", "kind"), [(0.2, "Warning"), (0.8, "Normal")])
def test_the_event_of_a_wrong_majority_is_a_warning(share: float, kind: str) -> None:
    whole = state(PREPARED, UNTRAINED, DEBATED, job("r-1-train"), probed(share))
    metadata = {"name": "r", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    event = controller._event({"metadata": metadata}, by_type(whole["conditions"])["Progressing"], START)
    assert event["type"] == kind


def test_a_warning_yields_to_what_blocks_and_to_the_end() -> None:
    wrong = (PREPARED, UNTRAINED, DEBATED, probed(0.2))
    blocked = state(*wrong, job("r-1-train"), unscheduled("r-1-train", "0/3 nodes are available"))
    assert conditions(blocked)["Progressing"] == ("False", "Unschedulable")
    assert conditions(state(*ALL, probed(0.2)))["Progressing"] == ("False", "AllIterationsDone")
    assert conditions(state(*wrong, run=a_run(suspend=True)))["Progressing"] == ("False", "Suspended")


def test_the_last_probe_counts() -> None:
    run = a_run(iterations=2)
    names = [task.name for task in planned(run).tasks][:-2]
    whole = state(*map(done, names), probed(0.2), probed(0.7, "r-2-debate"), job("r-2-evaluate"), run=run)
    assert conditions(whole)["Progressing"] == ("True", "Working")
    assert [row.get("probe") for row in whole["iterations"]] == [None, "20.0 ± 5.0", "70.0 ± 5.0"]


def test_metrics_of_the_probe_and_of_abstaining() -> None:
    status_ = state(PREPARED, UNTRAINED, DEBATED, job("r-1-train"), probed(0.2))
    resource = {"metadata": {"creationTimestamp": at(0)}, "spec": {"iterations": 1}, "status": status_}
    found = {sample.name: sample for sample in metrics.samples(resource)}
    assert found["maft_run_probe_accuracy_ratio"].value == pytest.approx(0.2)
    assert found["maft_run_abstained_questions"].value == 0
    assert found["maft_run_info"].labels == {"phase": status_["phase"], "reason": "WrongMajority"}


def test_a_long_run_has_at_most_sixty_series() -> None:
    run = a_run(iterations=30, agents=8, inference={"topology": "Shared"}, evaluation={"diversity": 10})
    tasks = planned(run).tasks
    everything = {
        **scores(0.5, 0.5),
        "questions": 9,
        "agreement": 0.5,
        "abstained": 1,
        "probe": [0.4, 0.1, 9],
        "kept": KEPT,
        "trained": 2,
        "nll": 1.5,
        "kl": 0.2,
    }
    pods = [said(t.name, **everything, usage=usage(1, 1)) for t in tasks]
    status_ = state(*[done(t.name) for t in tasks], *pods, run=run)
    found = list(metrics.samples({"metadata": {"creationTimestamp": at(0)}, "spec": {"iterations": 30}, "status": status_}))
    assert {s.name for s in found} == set(metrics.FAMILIES)
    assert len(found) <= 60


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "24 questions, 65 % agreement; kept generator 5/6, critic 4/3"),
        ({"abstained": 0}, "24 questions, 65 % agreement; kept generator 5/6, critic 4/3"),
        ({"abstained": 2}, "24 questions, 65 % agreement, 2 without a label; kept generator 5/6, critic 4/3"),
        (
            {"probe": [0.5, 0.05, 100]},
            "24 questions, 65 % agreement; kept generator 5/6, critic 4/3; majority right on 50.0 ± 5.0 % of 100 probe questions",
        ),
        (
            {"probe": [0.49, 0.05, 100]},
            "24 questions, 65 % agreement; kept generator 5/6, critic 4/3; majority right on 49.0 ± 5.0 % of 100 probe questions"
            " - WARNING: fewer than half, so training reinforces wrong answers",
        ),
    ],
)
def test_a_debate_in_words(more: dict[str, Any], told: str) -> None:
    [debated] = [task for task in planned(RUN).tasks if task.kind == "debate"]
    assert words.said(debated, {"questions": 24, "agreement": 0.65, "kept": KEPT, **more}) == told


def test_what_is_not_known_yet_is_not_said() -> None:
    assert not {"iterations", "accuracy", "baseAccuracy"} & set(state())
    early = state(PREPARED, UNTRAINED, job("r-1-debate"), *SAID[:1])
    assert early["iterations"] == [ROW_0]
    assert "accuracy" not in early and early["baseAccuracy"] == "30.0 ± 3.0"


def test_the_accuracy_is_that_of_the_last_iteration_that_was_evaluated() -> None:
    run = a_run(iterations=3, evaluation={"every": 2})
    names = [task.name for task in planned(run).tasks][:-2]
    whole = state(*map(done, names), said("r-2-evaluate", **scores(0.7, 0.4)), run=run)
    assert whole["accuracy"] == "70.0 ± 2.0"


def test_a_method_that_trains_nothing_has_the_accuracy_of_its_only_evaluation() -> None:
    run = a_run(method="majority")
    names = [task.name for task in planned(run).tasks]
    assert names == ["r-0-prepare", "r-0-evaluate", "r-0-report"]
    whole = state(*map(done, names), SAID[0], run=run)
    assert (whole["accuracy"], whole["baseAccuracy"]) == ("42.0 ± 2.0", "30.0 ± 3.0")


@pytest.mark.parametrize(
    ("agents", "rounds", "told"),
    [
        (3, 2, "300 questions, 42.0 ± 2.0 % right after the debate, 50.0 ± 1.0 % before"),
        (3, 1, "300 questions, 42.0 ± 2.0 % right by majority"),
        (1, 1, "300 questions, 42.0 ± 2.0 % right"),
    ],
)
def test_an_evaluation_in_words(agents: int, rounds: int, told: str) -> None:
    summary = {"questions": 300, "agents": agents, "rounds": rounds, **scores(0.42, 0.3)}
    assert words.said(next(t for t in planned(RUN).tasks if t.kind == "evaluate"), summary) == told


@pytest.mark.parametrize("left", [ALL, ALL[:3], (PREPARED,), ()])
def test_results_stay_when_pods_and_jobs_have_gone(left: tuple[Json, ...]) -> None:
    whole = state(*ALL, *SAID)
    later = state(*left, old=whole)
    for key in ("iterations", "accuracy", "baseAccuracy", "artifacts"):
        assert later[key] == whole[key]


def test_sums_grow_as_tasks_finish() -> None:
    run, whole = APART, {}
    for count in (0, 1, 2):
        trained = [done(f"r-1-train-{n}", start=200, ended=230) for n in range(count)]
        pods = [said(f"r-1-train-{n}", trained=2, kept=0, adapters=[]) for n in range(count)][-1:]  # earlier ones have gone
        whole = state(*TRAINING, *trained, *pods, *SAID[:2], old=whole, run=run)
    assert (whole["iterations"][1]["seconds"], whole["iterations"][1]["gpuSeconds"]) == (60 + 2 * 30, 2 * 30)


def test_where_the_results_lie() -> None:
    top = "s3://bucket/runs/default/r"
    assert state()["artifacts"] == {"store": top, "report": f"{top}/report/index.html"}
    assert state(*ALL, *SAID)["artifacts"]["adapters"] == f"{top}/iterations/1/adapters/"
    plain = a_run(storage={**STORAGE, "prefix": ""})
    assert state(run=plain)["artifacts"]["store"] == "s3://bucket/default/r"


def test_the_largest_run_fits_into_one_object() -> None:
    """etcd takes 1.5 MB; watches carry the whole status each time."""
    run = a_run(agents=32, iterations=100, debate={"critics": True}, inference={"topology": "Shared"})
    objects = []
    for task in planned(run).tasks:
        objects.append(done(task.name))
        kept = {"generator": [400] + [500] * 31, "critic": [500] * 32}
        everything = {**scores(0.5, 0.5), "questions": 500, "agreement": 0.5, "kept": kept, "usage": usage(10**9, 10**8)}
        numbers = {"trained": 64, "kept": 0, "adapters": []} if task.kind == "train" else everything
        objects.append(said(task.name, **numbers))
    whole = state(*objects, run=run)
    assert [row["kept"] for row in whole["iterations"] if "kept" in row] == [
        {"generator": "400 to 500", "critic": "500 to 500"}
    ] * 100
    assert len(json.dumps(whole, ensure_ascii=False).encode()) <= 50_000


# --- resources that cannot be worked at ---


def test_a_resource_that_cannot_be_read() -> None:
    message = "spec.agents: 0; expected at least 1"
    whole = status.rejected(reasons.INVALID_SPEC, message, {}, 3, START)
    assert (whole["phase"], whole["observedGeneration"]) == ("Rejected", 3)
    [accepted] = whole["conditions"]
    assert (accepted["type"], accepted["status"], accepted["reason"]) == ("Accepted", "False", "InvalidSpec")
    assert message in accepted["message"]
    assert status.rejected(reasons.INVALID_SPEC, message, whole, 3, START + timedelta(hours=1)) == whole
    assert not status.finished(whole)


def test_what_a_run_had_stays_when_it_can_no_longer_be_read() -> None:
    """An operator that is newer or older may read the schema otherwise."""
    before = state(*ALL[:4], *SAID)
    whole = status.rejected(reasons.INVALID_SPEC, "x", before, 1, START)
    assert whole["iterations"] == before["iterations"]
    assert conditions(state(*ALL[:4], *SAID, old=whole)) == conditions(before)


def test_a_run_that_the_operator_may_not_work_at() -> None:
    before = state(PREPARED, now=10)
    whole = status.blocked(reasons.FORBIDDEN, "may not list pods", before, 1, START + timedelta(seconds=20))
    assert conditions(whole) == {**conditions(before), "Progressing": ("False", "OperatorForbidden")}
    assert [c["type"] for c in whole["conditions"]] == list(reasons.CONDITIONS)
    assert by_type(whole["conditions"])["Progressing"]["lastTransitionTime"] == at(20)
    assert by_type(whole["conditions"])["Accepted"] == by_type(before["conditions"])["Accepted"]
    assert {key: whole[key] for key in ("phase", "progress")} == {key: before[key] for key in ("phase", "progress")}
    fresh = status.blocked(reasons.FORBIDDEN, "may not list pods", {}, 1, START)
    assert (fresh["phase"], [c["type"] for c in fresh["conditions"]]) == ("Pending", ["Progressing"])


@pytest.mark.parametrize(("name", "over"), [("begins", False), ("is suspended", False), ("is complete", True), ("failed", True)])
def test_what_is_finished(name: str, over: bool) -> None:
    assert status.finished(CASES[name][0]) == over
    assert not status.finished({})
