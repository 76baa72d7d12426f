"""The status as a whole: as the schema has it, progress that never goes back, and nothing written twice."""

import pytest
from jsonschema import Draft4Validator
from kube_objects import RUNNING, a_run, at, deployment, done, failed, job, pod
from statuses import ALL, APART, CASES, DEBATED, DEBATING, PREPARED, TRAINING, UNTRAINED, WRONG, state

from maft_operator.cluster import status
from maft_operator.cluster.conditions import important
from maft_operator.cluster.manifests import Json
from maft_operator.spec import schema


@pytest.mark.parametrize("name", CASES)
def test_every_status_is_as_the_schema_says(name: str) -> None:
    """The API server would drop what the schema does not know."""
    described = schema.openapi()["properties"]["status"]
    schema._known(CASES[name][0], described, "status")
    Draft4Validator(described).validate(CASES[name][0])


def test_when_it_began_and_ended_is_said_once() -> None:
    first = state(now=10)
    assert (first["startTime"], "completionTime" in first) == (at(10), False)
    complete = state(*ALL, old=first, now=20)
    assert (complete["startTime"], complete["completionTime"]) == (at(10), at(20))
    assert state(*ALL, old=complete, now=30)["completionTime"] == at(20)
    assert state(*WRONG, now=40)["completionTime"] == at(40)


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
    assert not important(whole, later)


def test_progress_never_goes_back() -> None:
    """A debate that just ended has no metrics any more, and its Job does not count yet."""
    objects = (PREPARED, UNTRAINED, job("r-1-debate", start=120), pod("r-1-debate", "Running", RUNNING), deployment(ready=1))
    nearly = state(*objects, units={"r-1-debate": (23, 24)})
    unknown = state(*objects, old=nearly, now=1005)
    assert nearly["progress"]["percent"] > state(*objects)["progress"]["percent"]
    assert unknown["progress"]["percent"] == nearly["progress"]["percent"]


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
    current, _, total = iteration.partition("/")
    assert state(*objects)["iteration"] == {"current": int(current), "total": int(total), "text": iteration}
