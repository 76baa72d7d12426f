"""Comparisons on the real cluster as one resource, equal to `maft compare` of the same file: methods with seeds, and a search."""

import json
from collections import Counter
from pathlib import Path

import pytest
from comparisons import KIND, LIMIT, METHODS, Compared
from installed import BUCKET, Installed
from kube import Json
from kubernetes.dynamic.exceptions import UnprocessibleEntityError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.fixture(name="compared")
def compared_fixture(maft: Installed, namespace: str) -> Compared:
    return Compared(maft, namespace)


GRID: Json = {"training.epochs": [1, 2]}  # which base and debate have nothing of
PLACES = [*METHODS[:2], *(f"multiagent, training.epochs={epochs}" for epochs in GRID["training.epochs"])]


@pytest.mark.parametrize(
    ("methods", "seeds", "grid", "labels"),
    [(METHODS[:2], 1, {}, METHODS[:2]), pytest.param(METHODS, 2, GRID, PLACES, marks=pytest.mark.nightly)],
)
def test_methods_seeds_and_a_grid_as_a_resource_equal_maft_compare(
    compared: Compared, tmp_path: Path, methods: list[str], seeds: int, grid: Json, labels: list[str]
) -> None:
    asked: Json = {"methods": methods, "seeds": seeds, "grid": grid}
    compared.apply(**asked)
    expected, printed = compared.made_here(tmp_path, **asked)
    ended = compared.completed()
    assert compared.table() == expected and {row["method"] for row in expected} == {*labels}
    runs = len(labels) * seeds
    assert [row["phase"] for row in ended["rows"]] == ["Complete"] * runs and ended["runs"]["text"] == f"{runs}/{runs}"
    lines = [line.split()[:2] for line in ended["table"].splitlines()[1 : 1 + len(labels)]]
    assert all(any(other.split()[:2] == line for other in printed.splitlines()) for line in lines)
    page = compared.maft.read(ended["report"].removeprefix(f"s3://{BUCKET}/")).decode()
    assert all(f'<td class="words">{label}</td>' in page for label in labels)
    nothing_was_asked_twice(compared, runs)
    it_expires_with_its_runs(compared)


def nothing_was_asked_twice(compared: Compared, runs: int) -> None:
    """Runs of one group save the calls that they made; each is there once, and the questions are all runs' own."""
    maft, namespace = compared.maft, compared.namespace
    saved = [key for key in maft.keys(namespace, compared.name) if "/calls/" in key]
    calls = Counter(json.loads(line)["key"] for key in saved for line in maft.read(key).decode().splitlines())
    assert calls and set(calls.values()) == {1}
    names = [run["metadata"]["name"] for run in compared.runs()]
    drawn = {maft.read(f"runs/{namespace}/{name}/problems/held-out.jsonl") for name in (*names, compared.name)}
    assert len(names) == runs and len(drawn) == 1


def it_expires_with_its_runs(compared: Compared) -> None:
    """Seconds count from its end, so that none are left: it goes at once. What lies in the bucket stays."""
    kube, namespace = compared.maft.kube, compared.namespace
    kube.merge(KIND, namespace, compared.name, {"spec": {"ttlSecondsAfterFinished": 0}})
    kube.wait(lambda: kube.get(KIND, namespace, compared.name) is None, 60, compared.explained)
    kube.wait(lambda: not compared.runs() and not kube.list("Job", namespace), 120, compared.explained)
    assert compared.table()


SEARCH: Json = {
    "trials": 4,
    "parameters": {"training.learningRate": {"low": 0.0003, "high": 0.03, "log": True}, "debate.rounds": {"low": 2, "high": 3}},
}


@pytest.mark.nightly  # which trials there are, and when: test_search.py
@pytest.mark.timeout(3000)
def test_a_search_equals_maft_compare_also_when_the_operator_is_killed(maft: Installed, namespace: str, tmp_path: Path) -> None:
    """Two waves of two trials; killed where the first has just made the second, which the next operator finds in the cluster."""
    compared = Compared(maft, namespace, "searched")
    asked: Json = {
        "methods": ["base", "multiagent"],
        "seeds": 1,
        "maxParallel": 2,
        "search": SEARCH,
        "template": {"evaluation": {"validation": 16}},
    }
    compared.apply(**asked)
    maft.kube.wait(lambda: 3 in trials(compared), 2 * LIMIT, compared.explained)  # a wave takes what a comparison takes
    before = uids(compared)
    assert compared.condition("Complete").get("status") == "False"
    maft.kill_operator()
    expected, printed = compared.made_here(tmp_path, **asked)
    ended = compared.completed()
    assert uids(compared) == before, "a run was made again"
    made = trials(compared)
    assert {*made} == {*range(SEARCH["trials"])} and {row["phase"] for row in ended["rows"]} == {"Complete"}
    first, second = ([made[n] for n in wave] for wave in ((0, 1), (2, 3)))
    assert max(run["status"]["completionTime"] for run in first) <= min(run["metadata"]["creationTimestamp"] for run in second)
    [told], table = ended["search"], compared.table()
    best = made[told["trial"]]["status"]["best"]["accuracy"]["mean"]
    assert told["trials"] == SEARCH["trials"] and best == max(run["status"]["best"]["accuracy"]["mean"] for run in made.values())
    assert table == expected and {row["method"] for row in table} == {"base", told["row"]}
    assert f"→ multiagent, trial {told['trial']}: {told['row'].removeprefix('multiagent, ')}: {100 * best:.1f} on" in printed


def uids(compared: Compared) -> dict[str, str]:
    return {run["metadata"]["name"]: run["metadata"]["uid"] for run in compared.runs()}


def trials(compared: Compared) -> dict[int, Json]:
    """The runs of a search by the number of their trial."""
    notes = [(run["metadata"].get("annotations", {}).get("maft.dev/trial"), run) for run in compared.runs()]
    return {json.loads(note)["number"]: run for note, run in notes if note}


def test_it_is_stopped_resumed_and_deleted_with_its_runs(compared: Compared) -> None:
    kube, namespace = compared.maft.kube, compared.namespace
    compared.apply(latency=0.3, methods=["multiagent"])
    kube.wait(lambda: any(p["status"]["phase"] == "Running" for p in kube.list("Pod", namespace)), LIMIT / 3, compared.explained)
    kube.merge(KIND, namespace, compared.name, {"spec": {"suspend": True}})
    kube.wait(lambda: compared.condition("Suspended").get("status") == "True", 60, compared.explained)
    kube.wait(lambda: all(run["status"]["phase"] == "Suspended" for run in compared.runs()), 90)
    kube.wait(lambda: not kube.list("Pod", namespace), 90, compared.explained)
    kube.merge(KIND, namespace, compared.name, {"spec": {"suspend": False}})
    kube.wait(lambda: not any(run["spec"]["suspend"] for run in compared.runs()), 60)
    kube.delete(KIND, namespace, compared.name)
    kube.wait(lambda: not compared.runs() and not kube.list("Job", namespace), 120, compared.explained)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"template": {"seed": 7}}, "spec.template is immutable; make a comparison with another name"),
        ({"template": {"debate": {"rounds": 3}}}, "spec.template is immutable"),
        ({"template": {"budget": {"seconds": 60}}}, "spec.template is immutable"),
        ({"template": {"agents": 0}}, "should be greater than or equal to 1"),
        ({"methods": ["bass"]}, "Unsupported value"),
        ({"maxParallel": 0}, "should be greater than or equal to 1"),
    ],
)
def test_the_api_server_refuses_what_may_not_change(compared: Compared, change: Json, words: str) -> None:
    compared.apply(suspend=True)
    with pytest.raises(UnprocessibleEntityError) as caught:
        compared.maft.kube.merge(KIND, compared.namespace, compared.name, {"spec": change})
    assert words in str(caught.value.body)


def test_what_no_rule_of_the_api_server_sees_is_rejected_with_its_field(compared: Compared) -> None:
    compared.apply(grid={"debate.round": [2, 3]})
    told = compared.maft.kube.wait(lambda: compared.condition("Accepted").get("message"), 60, compared.explained)
    assert "spec.grid[debate.round]: no field of a run; did you mean debate.rounds?" in told
    assert not compared.runs()
