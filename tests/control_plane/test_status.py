"""The status as a whole: as the schema has it, progress that never goes back, and nothing written twice."""

import pytest
from jsonschema import Draft4Validator
from kube_objects import RUNNING, a_run, at, deployment, done, failed, job, pod
from statuses import ALL, APART, CASES, DEBATED, DEBATING, PREPARED, TRAINING, TRIED, UNTRAINED, WRONG, state

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
    paused = state(PREPARED, TRIED, DEBATED, run=a_run(suspend=True))
    assert state(PREPARED, TRIED, DEBATED, run=a_run(suspend=True), old=paused, now=5000) == paused


def test_a_running_task_moves_nothing_but_progress() -> None:
    objects = (PREPARED, TRIED, UNTRAINED, job("r-1-debate", start=120), pod("r-1-debate", "Running", RUNNING), deployment(ready=1))
    whole = state(*objects, units={"r-1-debate": (6, 24)})
    later = state(*objects, units={"r-1-debate": (12, 24)}, old=whole, now=1005)
    assert whole["progress"] != later["progress"]
    assert {**whole, "progress": later["progress"]} == later
    assert not important(whole, later)


def test_progress_never_goes_back() -> None:
    """A debate that just ended has no metrics any more, and its Job does not count yet."""
    objects = (PREPARED, TRIED, UNTRAINED, job("r-1-debate", start=120), pod("r-1-debate", "Running", RUNNING), deployment(ready=1))
    nearly = state(*objects, units={"r-1-debate": (23, 24)})
    unknown = state(*objects, old=nearly, now=1005)
    assert nearly["progress"]["percent"] > state(*objects)["progress"]["percent"]
    assert unknown["progress"]["percent"] == nearly["progress"]["percent"]


@pytest.mark.parametrize(
    ("whole", "progress"),
    [
        (state(), {"percent": 0, "text": "0 %"}),
        (state(job("r-0-prepare")), {"percent": 0, "text": "0 %", "stage": "prepare: checks and questions"}),
        (
            state(PREPARED, job("r-0-preflight")),
            {"percent": 2, "text": "2 %", "stage": "preflight: the model, tried on random weights"},
        ),
        # 140 s for 1.2 of 4.3 parts of the work, and 600 s for half of another one: 740 s for 1.7, so 1130 s for 2.6
        (
            state(*DEBATING, units={"r-1-debate": (12, 24)}),
            {
                "percent": 39,
                "text": "39 %, 18m50s left",
                "stage": "iteration 1: debate of the training questions (12 of 24)",
                "eta": at(1000 + 1130),
            },
        ),
        # begun by a release that tried no model: that is passed over and counts as done
        (
            state(*(one for one in DEBATING if one != TRIED), units={"r-1-debate": (12, 24)}),
            {
                "percent": 39,
                "text": "39 %, 18m20s left",
                "stage": "iteration 1: debate of the training questions (12 of 24)",
                "eta": at(1000 + 1100),
            },
        ),
        # more than there is counts as all of it
        (
            state(*DEBATING, units={"r-1-debate": (99, 24)}),
            {
                "percent": 51,
                "text": "51 %, 11m50s left",
                "stage": "iteration 1: debate of the training questions (99 of 24)",
                "eta": at(1000 + 710),
            },
        ),
        # a task that does not say how far it is counts nothing, neither work nor time: 140 s for 1.2, so 360 s for 3.1
        (
            state(*DEBATING),
            {
                "percent": 27,
                "text": "27 %, 6m00s left",
                "stage": "iteration 1: debate of the training questions",
                "eta": at(1000 + 360),
            },
        ),
        # agents that train side by side are one part of the work: 200 s for 2.2 and 600 s for half a part
        (
            state(*TRAINING, job("r-1-train-0", start=400), done("r-1-train-1", start=400, ended=1000), run=APART),
            {
                "percent": 62,
                "text": "62 %, 5m00s left",
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
                "percent": 51,
                "text": "51 %, 3m10s left",
                "stage": "iteration 1: training of agent 0, iteration 1: training of agent 1 and 2 more",
                "eta": at(1000 + 190),
            },
        ),
        (state(PREPARED, TRIED, UNTRAINED, run=a_run(suspend=True)), {"percent": 27, "text": "27 %"}),
        (state(PREPARED, TRIED, UNTRAINED, failed("r-1-debate")), {"percent": 27, "text": "27 %"}),
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
    [
        ((), "0/1"),
        ((PREPARED,), "0/1"),
        ((PREPARED, TRIED), "0/1"),
        ((PREPARED, TRIED, UNTRAINED), "1/1"),
        ((PREPARED, TRIED, DEBATED), "0/1"),
        ((PREPARED, UNTRAINED, job("r-1-debate")), "1/1"),
        ((PREPARED, UNTRAINED, DEBATED), "1/1"),
        (ALL, "1/1"),
    ],
)
def test_the_iteration_under_way(objects: tuple[Json, ...], iteration: str) -> None:
    current, _, total = iteration.partition("/")
    assert state(*objects)["iteration"] == {"current": int(current), "total": int(total), "text": iteration}
