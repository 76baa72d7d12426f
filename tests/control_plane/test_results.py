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
    TRIED,
    UNTRAINED,
    debated,
    evaluated,
    preflight,
    probed,
    state,
    summarized,
    trained,
    usage,
)

from maft.summaries import (
    AdapterSummary,
    Answers,
    AnySummary,
    CompareSummary,
    ExportSummary,
    Failure,
    PrepareSummary,
    ProbeScore,
    ProgramSummary,
    ReportSummary,
    ResultRow,
    Score,
    ShardSummary,
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
    status_ = state(PREPARED, TRIED, UNTRAINED, DEBATED, job("r-1-train"), probed(0.2))
    resource = {"metadata": {"creationTimestamp": at(0)}, "spec": {"iterations": 1}, "status": status_}
    by_name = {sample.name: sample for sample in metrics.samples(resource)}
    assert by_name["maft_run_probe_accuracy_ratio"].value == pytest.approx(0.2)
    assert by_name["maft_run_abstained_questions"].value == 0
    assert by_name["maft_run_info"].labels == {"phase": status_["phase"], "reason": "WrongMajority"}


def test_a_long_run_has_few_series() -> None:
    run = a_run(iterations=30, agents=8, inference={"topology": "Shared"}, evaluation={"diversity": 10})
    tasks = planned(run).tasks
    probe = ProbeScore(0.4, 0.1, 9)
    records: dict[str, ProgramSummary] = {
        "prepare": PrepareSummary(train=9, held_out=9),
        "preflight": preflight("the context is short"),
        "debate": debated(abstained=1, probe=probe, usage=usage(1, 1), answers=Answers(asked=9, cut=1, clipped=2)),
        "train": trained(2),
        "evaluate": evaluated(0.5, 0.5, asked=usage(1, 1)),
        "diversity": MEASURED,
        "report": ReportSummary(report="r", results=(), debates=9, in_page=9),
    }
    pods = [summarized(t.name, records[t.kind]) for t in tasks]
    status_ = state(*[done(t.name) for t in tasks], *pods, run=run)
    samples = list(metrics.samples({"metadata": {"creationTimestamp": at(0)}, "spec": {"iterations": 30}, "status": status_}))
    chosen = {"maft_run_validation_accuracy_ratio", "maft_run_best_iteration"}  # of runs that choose: test_best.py
    assert {s.name for s in samples} == set(metrics.FAMILIES) - chosen
    assert len(samples) <= 61


def test_what_is_not_known_yet_is_not_said() -> None:
    assert not {"iterations", "accuracy", "baseAccuracy"} & set(state())
    early = state(PREPARED, TRIED, UNTRAINED, job("r-1-debate"), *SUMMARIZED[:1])
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
    assert names == ["r-0-prepare", "r-0-preflight", "r-0-evaluate", "r-0-report"]
    whole = state(*map(done, names), SUMMARIZED[0], run=run)
    assert (whole["accuracy"], whole["baseAccuracy"]) == ({"mean": 0.42, "stderr": 0.02, "text": "42.0 ± 2.0"}, BASE)


@pytest.mark.parametrize("left", [ALL, ALL[:4], (PREPARED,), ()])
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


def test_every_node_of_a_training_costs_gpu_seconds() -> None:
    run = a_run(training={"parallelism": "Sharded", "nodes": 3, "gpus": 2})
    whole = state(*ALL, *SUMMARIZED, run=run)
    alone = state(*ALL, *SUMMARIZED, run=a_run(training={"parallelism": "Sharded", "gpus": 2}))
    costs = [made["iterations"][1]["gpuSeconds"] for made in (whole, alone)]
    assert costs[0] == 3 * costs[1] > 0


def test_answers_are_those_of_both_debates_and_stay_when_pods_have_gone() -> None:
    debates = (
        summarized("r-1-debate", debated(answers=Answers(asked=96, cut=12, clipped=1))),
        summarized("r-1-evaluate", evaluated(0.5, 0.5, answers=Answers(asked=64, cut=3))),
    )
    whole = state(*ALL, *debates)
    assert [row.get("answers") for row in whole["iterations"]] == [None, {"asked": 160, "cut": 15, "clipped": 1}]
    assert state(*ALL, debates[1], old=whole)["iterations"] == whole["iterations"]


def test_what_stayed_as_it_was_is_told_when_all_of_an_iteration_has_trained() -> None:
    """Before that, nobody knows whether anything will be trained."""
    kept, whole = TrainSummary(adapters=(), trained=0, kept=2), {}
    for count, expected in ((1, None), (2, 4)):
        jobs = [done(f"r-1-train-{n}", start=200, ended=230) for n in range(count)]
        pods = [summarized(f"r-1-train-{n}", kept) for n in range(count)]
        whole = state(*TRAINING, *jobs, *pods, *SUMMARIZED[:2], old=whole, run=APART)
        assert (whole["iterations"][1]["trained"], whole["iterations"][1].get("untrained")) == (0, expected)


def test_a_program_that_says_too_much_is_cut_short() -> None:
    lines = state(PREPARED, TRIED, summarized("r-0-preflight", preflight("a\nb\x1b[0m", "x" * 900, *"y" * 500), "trainer"))[
        "warnings"
    ]
    assert (len(lines), lines[0], len(lines[1])) == (20, "a b [0m", 600)


def test_what_prepare_warns_of_stands_before_what_preflight_does() -> None:
    prepared = summarized("r-0-prepare", PrepareSummary(train=9, held_out=9, warnings=("no threshold was fitted",)))
    whole = state(PREPARED, TRIED, prepared, summarized("r-0-preflight", preflight("dates are fixed"), "trainer"))
    assert whole["warnings"] == ["no threshold was fitted", "dates are fixed"]
    assert state(PREPARED, TRIED, prepared, old=whole)["warnings"] == whole["warnings"]


def test_names_that_no_release_has_are_left_out() -> None:
    summary = debated(kept={"critic": (1, 2), "a b": (3,), "x" * 99: (4,)}, left_out={"cut": 1, "no such reason": 9})
    row = state(*TRAINING, summarized("r-1-debate", summary))["iterations"][-1]
    assert (list(row["kept"]), row["leftOut"]) == (["critic"], {"cut": 1})


def test_what_preflight_warns_of_stays() -> None:
    pod = summarized("r-0-preflight", preflight("the context is short", "dates are fixed"), "trainer")
    whole = state(PREPARED, TRIED, pod)
    assert whole["warnings"] == ["the context is short", "dates are fixed"]
    assert state(PREPARED, TRIED, UNTRAINED, old=whole)["warnings"] == whole["warnings"]
    assert "warnings" not in state(PREPARED, TRIED, summarized("r-0-preflight", preflight(), "trainer"))
    assert "warnings" not in state(*ALL, *SUMMARIZED)


def test_where_the_results_lie() -> None:
    top = "s3://bucket/runs/default/r"
    assert state()["artifacts"] == {"store": top, "report": f"{top}/report/index.html"}
    assert state(*ALL, *SUMMARIZED)["artifacts"]["adapters"] == f"{top}/iterations/1/adapters/"
    plain = a_run(storage={**STORAGE, "prefix": ""})
    assert state(run=plain)["artifacts"]["store"] == "s3://bucket/default/r"


def test_adapters_are_those_of_an_iteration_that_has_trained_them_all() -> None:
    """One of two tasks of the second iteration has ended: that is no society."""
    run = a_run(iterations=2, agents=2, training={"topology": "PerAgent"})
    first = [done(f"r-1-train-{n}") for n in range(2)]
    half = [*TRAINING, *first, done("r-2-debate"), done("r-2-train-0"), summarized("r-2-train-0", trained(2))]
    whole = state(*half, run=run)
    assert whole["iterations"][-1]["trained"] == 2
    assert whole["artifacts"]["adapters"].endswith("/iterations/1/adapters/")
    assert state(*half, done("r-2-train-1"), run=run)["artifacts"]["adapters"].endswith("/iterations/2/adapters/")


def longest(agents: int, kept: dict[str, tuple[int, ...]], **spec: Any) -> Json:
    """The status of a finished run of a hundred iterations, all of its summaries there."""
    run = a_run(agents=agents, iterations=100, debate={"critics": True}, inference={"topology": "Shared"}, **spec)
    asked = usage(10**9, 10**8)
    answers = Answers(asked=10**6, cut=10**5, clipped=10**4)
    left_out = dict.fromkeys(("cut", "mix", "noConsensus", "outvoted", "stayedWrong", "unparsed"), 1234)
    probe = ProbeScore(0.9123, 0.0123, 100)
    records: dict[str, ProgramSummary] = {
        "debate": debated(kept=kept, agreement=0.8765, probe=probe, usage=asked, answers=answers, left_out=left_out),
        "train": TrainSummary(adapters=(), trained=agents, kept=agents, turns_left_out=10**4),
        "evaluate": evaluated(0.5123, 0.4876, asked=asked, answers=answers),
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
    assert size(whole) <= 62_000
    # With the diversity of each iteration, and as many agents as are counted one by one.
    assert size(longest(8, {"generator": (500,) * 8, "critic": (500,) * 8}, evaluation={"diversity": 10})) <= 76_000


SUMMARIES: dict[str, tuple[ProgramSummary, Json]] = {
    # as the program writes it: the task's row, without what it took
    "r-0-prepare": (PrepareSummary(version="1", train=24, held_out=16, probe=4), {}),
    "r-0-preflight": (preflight("the context is short"), {}),
    "r-1-debate": (
        debated(
            version="1",
            abstained=4,
            probe=ProbeScore(0.61, 0.0488, 100),
            answers=Answers(asked=96, cut=12),
            left_out={"cut": 3, "noConsensus": 9},
        ),
        {key: ROW_1[key] for key in ("agreement", "probe", "abstained", "kept")}
        | {"answers": {"asked": 96, "cut": 12, "clipped": 0}, "leftOut": {"cut": 3, "noConsensus": 9}},
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
            turns_left_out=3,
        ),
        {"trained": 1, "untrained": 1, "turnsLeftOut": 3},
    ),
    "r-1-evaluate": (
        evaluated(0.625, 0.4, version="1", answers=Answers(asked=64, clipped=5)),
        {key: ROW_1[key] for key in ("accuracy", "majority", "answer", "consensus", "wrongToRight", "rightToWrong")}
        | {"answers": {"asked": 64, "cut": 0, "clipped": 5}},
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
    values = {s.name: s.value for s in metrics.samples({"metadata": metadata, "spec": {}, "status": whole})}
    numbers = {
        "agreement": "agreement_ratio",
        "trained": "adapters_trained",
        "nll": "diversity_nats",
        "abstained": "abstained_questions",
    }
    for field, metric in numbers.items():
        assert values.get(f"maft_run_{metric}", 0) == expected.get(field, 0)
    assert values.get("maft_run_accuracy_ratio", 0) == expected.get("accuracy", {}).get("mean", 0)
    assert values["maft_run_tokens"] == row.get("completionTokens", 0)
    for kind in ("cut", "clipped"):
        answers = expected.get("answers", {kind: 0, "asked": 1})
        assert values.get(f"maft_run_{kind}_ratio", 0) == answers[kind] / answers["asked"]


def test_every_programs_summary_is_tried() -> None:
    """Those of runs that say something of an iteration: a comparison is no resource, a part of a debate none of it yet, an export
    no number."""
    kinds = {type(summary) for summary, _ in SUMMARIES.values()}
    assert kinds == set(get_args(AnySummary)) - {CompareSummary, ExportSummary, Failure, ShardSummary}


def test_what_release_0_1_said_changes_nothing() -> None:
    """Its summaries cannot be read any more, and the rows keep what the status had."""
    whole = state(*ALL, *SUMMARIZED)
    old = pod("r-1-evaluate", "Succeeded", ended(0, '{"version": "0.1.0", "questions": 24, "debate": [0.1, 0.2]}'))
    assert state(*ALL, old, old=whole) == whole
