"""A status of release 0.1 becomes one of today: the same numbers, in the new shape."""

import copy
import json

import pytest
from jsonschema import Draft4Validator
from kube_objects import a_run, at, done, job
from statuses import ALL, CASES, DEBATED, PREPARED, SUMMARIZED, TRIED, UNTRAINED, state

from maft_operator.cluster import conditions, metrics, upgrade
from maft_operator.cluster.manifests import Json
from maft_operator.spec import schema

TODAY = state(*ALL, *SUMMARIZED)
OLD: Json = {  # as 0.1 wrote it
    **{
        key: TODAY[key]
        for key in ("observedGeneration", "phase", "startTime", "completionTime", "conditions", "progress", "artifacts")
    },
    "iteration": "1/1",
    "accuracy": "62.5 ± 2.0",
    "baseAccuracy": "30.0 ± 3.0",
    "iterations": [
        {
            "iteration": 0,
            "accuracy": "42.0 ± 2.0",
            "answer": "30.0 ± 3.0",
            "majority": "50.0 ± 1.0",
            "seconds": 60,
            "gpuSeconds": 0,
        },
        {
            "iteration": 1,
            "accuracy": "62.5 ± 2.0",
            "majority": "50.0 ± 1.0",
            "answer": "40.0 ± 3.0",
            "consensus": "60.0 ± 1.1",
            "wrongToRight": 7,
            "rightToWrong": 3,
            "agreement": "95.1",
            "probe": "61.0 ± 4.9",
            "abstained": 4,
            "kept": {"generator": "12/9/14", "critic": "400 to 500"},
            "nll": "1.5000",
            "kl": "0.0899",
            "dissimilarity": "0.1250",
            "trained": 4,
            "promptTokens": 500,
            "completionTokens": 50,
            "seconds": 180,
            "gpuSeconds": 60,
        },
    ],
}
NEW: Json = {
    **OLD,
    "iteration": {"current": 1, "total": 1, "text": "1/1"},
    "accuracy": {"mean": 0.625, "stderr": 0.02, "text": "62.5 ± 2.0"},
    "baseAccuracy": {"mean": 0.3, "stderr": 0.03, "text": "30.0 ± 3.0"},
    "iterations": [
        {
            **OLD["iterations"][0],
            "accuracy": {"mean": 0.42, "stderr": 0.02},
            "answer": {"mean": 0.3, "stderr": 0.03},
            "majority": {"mean": 0.5, "stderr": 0.01},
        },
        {
            **OLD["iterations"][1],
            "accuracy": {"mean": 0.625, "stderr": 0.02},
            "majority": {"mean": 0.5, "stderr": 0.01},
            "answer": {"mean": 0.4, "stderr": 0.03},
            "consensus": {"mean": 0.6, "stderr": 0.011},
            "agreement": 0.951,
            "probe": {"mean": 0.61, "stderr": 0.049},
            "kept": {"generator": {"fewest": 9, "most": 14, "counts": [12, 9, 14]}, "critic": {"fewest": 400, "most": 500}},
            "nll": 1.5,
            "kl": 0.0899,
            "dissimilarity": 0.125,
        },
    ],
}


def test_an_old_status_has_the_same_numbers_in_the_new_shape() -> None:
    before = copy.deepcopy(OLD)
    assert upgrade.is_old(OLD)
    assert upgrade.upgraded(OLD) == NEW
    assert not upgrade.is_old(NEW)
    assert before == OLD


def test_the_new_shape_is_as_the_schema_has_it() -> None:
    described = schema.openapi()["properties"]["status"]
    schema._known(NEW, described, "status")
    Draft4Validator(described).validate(NEW)
    assert list(Draft4Validator(described).iter_errors(OLD))


@pytest.mark.parametrize("name", CASES)
def test_a_status_of_today_stays_as_it_is(name: str) -> None:
    assert not upgrade.is_old(CASES[name][0])
    assert upgrade.upgraded(CASES[name][0]) == CASES[name][0]
    assert upgrade.merge_patch(CASES[name][0]) == {}
    assert not upgrade.is_old({})


def merged(target: object, patch: Json) -> Json:
    """JSON merge patch, RFC 7396."""
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value) if isinstance(value, dict) else value
    return result


def test_the_patch_makes_the_new_one_of_the_old_one() -> None:
    patch = upgrade.merge_patch(OLD)
    assert merged(OLD, patch) == NEW
    assert set(patch) == {"iteration", "accuracy", "baseAccuracy", "iterations"}  # and no more than has to change


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"iteration": "one of two"}, {}),
        ({"accuracy": "?"}, {}),
        ({"accuracy": "1.2.3 ± 1"}, {}),
        ({"iterations": [{"iteration": 1, "accuracy": "", "agreement": "many", "nll": "nan"}]}, {"iterations": [{"iteration": 1}]}),
        ({"iterations": [{"iteration": 1, "kept": {"critic": "none"}}]}, {"iterations": [{"iteration": 1, "kept": {}}]}),
    ],
)
def test_what_cannot_be_read_is_left_out(change: Json, left: Json) -> None:
    assert upgrade.upgraded({"phase": "Training", **change}) == {"phase": "Training", **left}
    assert merged({"phase": "Training", **change}, upgrade.merge_patch({"phase": "Training", **change})) == {
        "phase": "Training",
        **left,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [("91.0 ± 1.7", {"mean": 0.91, "stderr": 0.017}), ("77.1", None), ("", None), ("100.0 ± 0.0", {"mean": 1.0, "stderr": 0.0})],
)
def test_scores_are_read(text: str, expected: Json | None) -> None:
    row = upgrade.upgraded({"iterations": [{"iteration": 0, "accuracy": text}]})["iterations"][0]
    assert row.get("accuracy") == expected


def test_a_run_goes_on_from_an_upgraded_status() -> None:
    """The pods of 0.1 say nothing that can be read; what the status had stays, and later iterations come to it."""
    run = a_run(iterations=2)
    before = {**upgrade.upgraded(OLD), "conditions": []}
    whole = state(
        PREPARED, TRIED, UNTRAINED, DEBATED, done("r-1-train"), done("r-1-evaluate"), job("r-2-debate"), run=run, old=before
    )
    assert [row["iteration"] for row in whole["iterations"]] == [0, 1]
    kept = {key: value for key, value in NEW["iterations"][1].items() if key not in ("seconds", "gpuSeconds")}
    assert kept.items() <= whole["iterations"][1].items()
    assert (whole["accuracy"], whole["baseAccuracy"]) == (NEW["accuracy"], NEW["baseAccuracy"])
    assert json.loads(json.dumps(whole)) == whole


def test_a_finished_run_with_an_old_status_is_not_settled() -> None:
    resource = {"metadata": {"generation": 1}, "spec": {}}
    assert not conditions.settled({**resource, "status": OLD})
    assert conditions.settled({**resource, "status": NEW})


def test_its_metrics_are_the_same_before_and_after() -> None:
    metadata = {"name": "r", "creationTimestamp": at(0)}
    before = list(metrics.samples({"metadata": metadata, "spec": {}, "status": OLD}))
    assert before == list(metrics.samples({"metadata": metadata, "spec": {}, "status": NEW}))
    assert {s.name: s.value for s in before}["maft_run_agreement_ratio"] == 0.951
