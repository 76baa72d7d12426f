"""Results in the status: numbers as the programs' summaries have them, which stay when pods have gone."""

import json
from typing import Any, get_args

import pytest
from kube_objects import STORAGE, a_run, at, done, ended, job, planned, pod
from statuses import (
    ALL,
    APART,
    DEBATED,
    MEASURED,
    PREPARED,
    SUMMARIZED,
    TRAINING,
    UNTRAINED,
    debated,
    evaluated,
    probed,
    state,
    summarized,
    trained,
    usage,
)

from maft.summaries import (
    AdapterSummary,
    AnySummary,
    CompareSummary,
    Failure,
    PreflightSummary,
    PrepareSummary,
    ProbeScore,
    ProgramSummary,
    ReportSummary,
    ResultRow,
    Score,
    TrainSummary,
)
from maft_operator.cluster import metrics
from maft_operator.cluster.manifests import Json

ROW_0 = {
    "iteration": 0,
    "accuracy": {"mean": 0.42, "stderr": 0.02},
    "majority": {"mean": 0.5, "stderr": 0.01},
    "answer": {"mean": 0.3, "stderr": 0.03},
    "consensus": {"mean": 0.6, "stderr": 0.011},
    "wrongToRight": 7,
    "rightToWrong": 3,
    "promptTokens": 100,
    "completionTokens": 10,
    "seconds": 60,
    "gpuSeconds": 0,
}
ROW_1 = ROW_0 | {
    "iteration": 1,
    "accuracy": {"mean": 0.625, "stderr": 0.02},
    "answer": {"mean": 0.4, "stderr": 0.03},
    "agreement": 0.6543,
    "probe": {"mean": 0.61, "stderr": 0.0488, "questions": 100},
    "abstained": 4,
    "kept": {"generator": {"fewest": 5, "most": 6, "counts": [5, 6]}, "critic": {"fewest": 3, "most": 4, "counts": [4, 3]}},
    "trained": 4,
    "promptTokens": 500,
    "completionTokens": 50,
    "seconds": 180,
    "gpuSeconds": 60,
}

REACHED = {"mean": 0.625, "stderr": 0.02, "text": "62.5 ± 2.0"}
BASE = {"mean": 0.3, "stderr": 0.03, "text": "30.0 ± 3.0"}


def test_results() -> None:
    whole = state(*ALL, *SUMMARIZED)
    assert whole["iterations"] == [ROW_0, ROW_1]
    assert (whole["accuracy"], whole["baseAccuracy"]) == (REACHED, BASE)


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
    probe = ProbeScore(0.4, 0.1, 9)
    records: dict[str, ProgramSummary] = {
        "prepare": PrepareSummary(train=9, held_out=9),
        "debate": debated(abstained=1, probe=probe, usage=usage(1, 1)),
        "train": trained(2),
        "evaluate": evaluated(0.5, 0.5, asked=usage(1, 1)),
        "diversity": MEASURED,
        "report": ReportSummary(report="r", results=(), debates=9, in_page=9),
    }
    pods = [summarized(t.name, records[t.kind]) for t in tasks]
    status_ = state(*[done(t.name) for t in tasks], *pods, run=run)
    found = list(metrics.samples({"metadata": {"creationTimestamp": at(0)}, "spec": {"iterations": 30}, "status": status_}))
    assert {s.name for s in found} == set(metrics.FAMILIES)
    assert len(found) <= 60


def test_what_is_not_known_yet_is_not_said() -> None:
    assert not {"iterations", "accuracy", "baseAccuracy"} & set(state())
    early = state(PREPARED, UNTRAINED, job("r-1-debate"), *SUMMARIZED[:1])
    assert early["iterations"] == [ROW_0]
    assert "accuracy" not in early and early["baseAccuracy"] == BASE


def test_the_accuracy_is_that_of_the_last_iteration_that_was_evaluated() -> None:
    run = a_run(iterations=3, evaluation={"every": 2})
    names = [task.name for task in planned(run).tasks][:-2]
    whole = state(*map(done, names), summarized("r-2-evaluate", evaluated(0.7, 0.4)), run=run)
    assert whole["accuracy"] == {"mean": 0.7, "stderr": 0.02, "text": "70.0 ± 2.0"}


def test_a_method_that_trains_nothing_has_the_accuracy_of_its_only_evaluation() -> None:
    run = a_run(method="majority")
    names = [task.name for task in planned(run).tasks]
    assert names == ["r-0-prepare", "r-0-evaluate", "r-0-report"]
    whole = state(*map(done, names), SUMMARIZED[0], run=run)
    assert (whole["accuracy"], whole["baseAccuracy"]) == ({"mean": 0.42, "stderr": 0.02, "text": "42.0 ± 2.0"}, BASE)


@pytest.mark.parametrize("left", [ALL, ALL[:3], (PREPARED,), ()])
def test_results_stay_when_pods_and_jobs_have_gone(left: tuple[Json, ...]) -> None:
    whole = state(*ALL, *SUMMARIZED)
    later = state(*left, old=whole)
    for key in ("iterations", "accuracy", "baseAccuracy", "artifacts"):
        assert later[key] == whole[key]


def test_sums_grow_as_tasks_finish() -> None:
    run, whole = APART, {}
    for count in (0, 1, 2):
        jobs = [done(f"r-1-train-{n}", start=200, ended=230) for n in range(count)]
        pods = [summarized(f"r-1-train-{n}", trained(2)) for n in range(count)][-1:]  # earlier ones have gone
        whole = state(*TRAINING, *jobs, *pods, *SUMMARIZED[:2], old=whole, run=run)
    assert (whole["iterations"][1]["seconds"], whole["iterations"][1]["gpuSeconds"]) == (60 + 2 * 30, 2 * 30)


def test_where_the_results_lie() -> None:
    top = "s3://bucket/runs/default/r"
    assert state()["artifacts"] == {"store": top, "report": f"{top}/report/index.html"}
    assert state(*ALL, *SUMMARIZED)["artifacts"]["adapters"] == f"{top}/iterations/1/adapters/"
    plain = a_run(storage={**STORAGE, "prefix": ""})
    assert state(run=plain)["artifacts"]["store"] == "s3://bucket/default/r"


def longest(agents: int, kept: dict[str, tuple[int, ...]], **spec: Any) -> Json:
    """The status of a finished run of a hundred iterations, all of its summaries there."""
    run = a_run(agents=agents, iterations=100, debate={"critics": True}, inference={"topology": "Shared"}, **spec)
    asked = usage(10**9, 10**8)
    records: dict[str, ProgramSummary] = {
        "debate": debated(kept=kept, agreement=0.8765, probe=ProbeScore(0.9123, 0.0123, 100), usage=asked),
        "train": trained(2 * agents),
        "evaluate": evaluated(0.5123, 0.4876, asked=asked),
        "diversity": MEASURED,
    }
    tasks = planned(run).tasks
    pods = [summarized(task.name, records[task.kind]) for task in tasks if task.kind in records]
    return state(*[done(task.name) for task in tasks], *pods, run=run)


def size(whole: Json) -> int:
    """Without spaces, as the API server keeps and sends it."""
    return len(json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode())


def test_the_largest_run_fits_into_one_object() -> None:
    """etcd takes 1.5 MB; watches carry the whole status each time."""
    whole = longest(32, {"generator": (400, *[500] * 31), "critic": (500,) * 32})
    assert [row["kept"] for row in whole["iterations"] if "kept" in row] == [
        {"generator": {"fewest": 400, "most": 500}, "critic": {"fewest": 500, "most": 500}}
    ] * 100
    assert size(whole) <= 50_000
    # With the diversity of each iteration, and as many agents as are counted one by one.
    assert size(longest(8, {"generator": (500,) * 8, "critic": (500,) * 8}, evaluation={"diversity": 10})) <= 64_000


SUMMARIES: dict[str, tuple[ProgramSummary, Json]] = {
    # as the program writes it: the task's row, without what it took
    "r-0-prepare": (PrepareSummary(version="1", train=24, held_out=16, probe=4), {}),
    "r-1-debate": (
        debated(version="1", abstained=4, probe=ProbeScore(0.61, 0.0488, 100)),
        {key: ROW_1[key] for key in ("agreement", "probe", "abstained", "kept")},
    ),
    "r-1-train": (
        TrainSummary(
            adapters=(
                AdapterSummary(
                    role="generator", agent=0, name="generator-0-1-a", examples=9, steps=2, loss_first=2.0, loss_last=1.0
                ),
                AdapterSummary(role="critic", agent=0, name="c", examples=0, steps=0),
            ),
            trained=1,
            kept=1,
        ),
        {"trained": 1},
    ),
    "r-1-evaluate": (
        evaluated(0.625, 0.4, version="1"),
        {key: ROW_1[key] for key in ("accuracy", "majority", "answer", "consensus", "wrongToRight", "rightToWrong")},
    ),
    "r-1-diversity": (MEASURED, {"nll": 1.5, "kl": 0.25, "dissimilarity": 0.125}),
    "r-1-report": (
        ReportSummary(report="r", results=(ResultRow(name="base", accuracy=Score(0.3, 0.03)),), debates=9, in_page=9),
        {},
    ),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_what_each_program_says_reaches_the_status_and_the_metrics(name: str) -> None:
    summary, expected = SUMMARIES[name]
    run = a_run(evaluation={"diversity": 10})
    whole = state(done(name), summarized(name, summary), run=run)
    [row] = whole.get("iterations", [{}])
    took = ("iteration", "seconds", "gpuSeconds", "promptTokens", "completionTokens")
    assert {key: value for key, value in row.items() if key not in took} == expected
    metadata = {"creationTimestamp": at(0)}
    found = {s.name: s.value for s in metrics.samples({"metadata": metadata, "spec": {}, "status": whole})}
    numbers = {
        "agreement": "agreement_ratio",
        "trained": "adapters_trained",
        "nll": "diversity_nats",
        "abstained": "abstained_questions",
    }
    for field, metric in numbers.items():
        assert found.get(f"maft_run_{metric}", 0) == expected.get(field, 0)
    assert found.get("maft_run_accuracy_ratio", 0) == expected.get("accuracy", {}).get("mean", 0)
    assert found["maft_run_tokens"] == row.get("completionTokens", 0)


def test_every_programs_summary_is_tried() -> None:
    """Those of runs that say something of an iteration: a comparison is no resource."""
    kinds = {type(summary) for summary, _ in SUMMARIES.values()}
    assert kinds == set(get_args(AnySummary)) - {CompareSummary, PreflightSummary, Failure}


def test_what_release_0_1_said_changes_nothing() -> None:
    """Its summaries cannot be read any more, and the rows keep what the status had."""
    whole = state(*ALL, *SUMMARIZED)
    old = pod("r-1-evaluate", "Succeeded", ended(0, '{"version": "0.1.0", "questions": 24, "debate": [0.1, 0.2]}'))
    assert state(*ALL, old, old=whole) == whole
