"""The table of `maft.compare`: numbers by hand, tests against others', all its forms; and the program on commits made by hand."""

import csv
import dataclasses
import io
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import binomtest

from maft import __version__, charts, program, records, scores
from maft.compare import __main__ as compare
from maft.compare import table
from maft.compare.__main__ import CHOSEN
from maft.compare.read import RunResult, read
from maft.errors import BadInput
from maft.program import Assignment
from maft.readable import FILES, OF_A_COMPARISON
from maft.records import Adapter, Call, DatasetCounts, Diversity, Evaluation, Problem, Timing, Transcript, Turn, Vote
from maft.shortage import MORE_TOKENS
from maft.spec import Compared
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import CompareSummary, Gain, Score, Usage, Validation
from maft_operator.spec.methods import METHODS

# --- the table ---


def result_of(right: str, **more: Any) -> RunResult:
    """A run's held-out debate by its questions: 1 right, 0 wrong."""
    values: dict[str, Any] = {
        "right": {f"q{i:02}": float(c) for i, c in enumerate(right)},
        "first": Score(0.5, 0.1),
        "consensus": Score(0.8, 0.1),
        "distinct": Score(1.5, 0.1),
        "entropy": Score(0.6, 0.1),
        "usage": Usage(9, 600, 400),
        "seconds": 12.0,
        "adapters": 6,
    }
    return RunResult(**{**values, **more})


THREE = {
    ("base", 0): result_of("1100100000", usage=Usage(1, 1000, 500), seconds=1.0, adapters=0, first=Score(0.3, 0.1)),
    ("base", 1): result_of("1000100000", usage=Usage(1, 1000, 700), seconds=3.0, adapters=0, first=Score(0.2, 0.1)),
    ("debate", 0): result_of("1110110100", adapters=0),
    ("debate", 1): result_of("1110110010", adapters=0),
    ("multiagent", 0): result_of("1111111101", adapters=5),
    ("multiagent", 1): result_of("1111110111"),
}
METHODS_OF_THREE = ["base", "debate", "multiagent"]


def test_rows_by_hand() -> None:
    best, middle, last = table.rows(THREE, METHODS_OF_THREE)
    assert [r.method for r in (best, middle, last)] == ["multiagent", "debate", "base"]
    assert (best.better, middle.better, last.better) == ("", "multiagent", "debate")
    assert best.p is None and best.p_best is None
    assert middle.p_best == middle.p
    assert last.p_best == table._p(*(table._per_question([THREE[m, s] for s in (0, 1)]) for m in ("multiagent", "base")))
    shares = [1.0, 0.5, 0, 0, 1.0, 0, 0, 0, 0, 0]  # of base's seeds, by question
    assert last.accuracy.mean == pytest.approx(0.25)
    assert last.accuracy.stderr == pytest.approx(statistics.stdev(shares) / 10**0.5)
    assert last.spread == pytest.approx(statistics.stdev([0.3, 0.2]))
    assert best.spread == 0.0
    assert (last.seeds, last.tokens, last.seconds, last.adapters, best.adapters) == (2, 1600, 2.0, 0, 6)
    assert last.first == pytest.approx(0.25)


def test_one_seed_has_no_spread() -> None:
    [row] = table.rows({("base", 0): result_of("10")}, ["base"])
    assert row.spread is None and row.p is None and table.cells(row)[2] == ""


def flips(better: int, worse: int, same: int) -> tuple[dict[str, float], dict[str, float]]:
    rows = [(1.0, 0.0)] * better + [(0.0, 1.0)] * worse + [(1.0, 1.0)] * same
    return ({f"q{i:03}": float(row[k]) for i, row in enumerate(rows)} for k in (0, 1))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("better", "worse", "same"), [(5, 1, 4), (8, 2, 90), (1, 0, 9), (3, 3, 5), (0, 6, 100), (10, 3, 300), (0, 0, 7)]
)
def test_with_one_seed_p_is_mcnemars(better: int, worse: int, same: int) -> None:
    """Exactly, while few questions differ: the other questions say nothing."""
    one, other = flips(better, worse, same)
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert table._p(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(("better", "worse"), [(30, 14), (25, 20), (60, 20)])
def test_with_many_differences_p_is_mcnemars_but_for_the_draw(better: int, worse: int) -> None:
    one, other = flips(better, worse, 50)
    assert table._p(one, other) == pytest.approx(binomtest(better, better + worse).pvalue, abs=0.015)
    assert table._p(one, other) == table._p(one, other)


def test_p_over_seeds_is_paired_by_question() -> None:
    """Of shares between 0 and 1, all signs enumerated."""
    one, other = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 1.0}, {"a": 0.5, "b": 0.0, "c": 0.5, "d": 0.0}
    differences = np.array([0.5, 0.5, -0.5, 1.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    expected = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    assert table._p(one, other) == pytest.approx(expected)


@given(st.text("01", min_size=5, max_size=9), st.text("01", min_size=9, max_size=9))
@settings(max_examples=25)
def test_p_is_a_probability_and_knows_no_sides(a: str, b: str) -> None:
    one, other = result_of(a).right, result_of(b[: len(a)]).right
    assert 0 < table._p(one, other) <= 1
    assert table._p(one, other) == pytest.approx(table._p(other, one))


@pytest.mark.parametrize(
    "other", [result_of("101"), dataclasses.replace(result_of("10"), right={"q00": 1.0, "q99": 0.0})], ids=["more", "others"]
)
def test_runs_of_different_questions_are_not_compared(other: RunResult) -> None:
    with pytest.raises(BadInput, match=r"^compare: the runs were evaluated on different questions"):
        table.rows({("base", 0): result_of("10"), ("debate", 0): other}, ["base", "debate"])


def test_the_table_as_text_markdown_and_csv() -> None:
    methods = table.rows(THREE, METHODS_OF_THREE)
    lines = table.text(methods).splitlines()
    words = "method accuracy spread next p p to best first answers consensus distinct entropy tokens seconds adapters"
    assert lines[0].split() == words.split(" ")
    assert lines[1].split()[:5] == ["multiagent", "90.0", "±", "6.7", "0.0"]
    assert lines[3].split()[:6] == ["base", "25.0", "±", "13.4", "7.1", "debate"]
    end = lines[0].index("accuracy") + len("accuracy")
    assert [line[:end].split("± ")[1] for line in lines[1:]] == ["6.7", "14.5", "13.4"]  # numbers end in one column
    marked = table.markdown(methods, "FOOTER").splitlines()
    assert marked[0].count("|") == marked[1].count("|") == marked[2].count("|") == len(table.grid(methods)[0]) + 1 == 14
    assert marked[-1] == "FOOTER" and marked[2].startswith(
        "| multiagent | 90.0 ± 6.7 | 0.0 |  |  |  | 50.0 | 80.0 | 1.50 | 0.60 | 1k | 12 | 6 |"
    )
    [first, _, last] = csv.DictReader(io.StringIO(table.as_csv(methods)))
    assert (first["method"], first["seeds"], float(first["accuracy"]), first["p"]) == ("multiagent", "2", 0.9, "")
    assert float(last["stderr"]) == methods[2].accuracy.stderr and float(last["p"]) == methods[2].p
    assert (last["better"], last["tokens"], last["adapters"]) == ("debate", "1600", "0")
    assert None not in first and None not in first.values()


def measured(cross: float, kl: float | None, dissimilarity: float | None, agents: int = 2) -> Diversity:
    one = Score(1.0, 0.0)
    embedded = None if dissimilarity is None else Score(dissimilarity, 0.0)
    return Diversity(1, 4, ((0.0,) * agents,) * agents, cross, kl, embedded, one, one, one)


def test_diversity_has_columns_where_somebody_measured_it() -> None:
    several = {
        ("multiagent", 0): result_of("11", diversity=measured(0.2, 0.04, 0.5)),
        ("multiagent", 1): result_of("11", diversity=measured(0.4, 0.06, None)),
        ("base", 0): result_of("10"),
        ("base", 1): result_of("10"),
    }
    methods = table.rows(several, ["base", "multiagent"])
    best, base = methods
    assert (best.nll, best.kl, best.dissimilarity) == (pytest.approx(0.3), pytest.approx(0.05), 0.5)
    assert (base.nll, base.kl, base.dissimilarity) == (None, None, None)
    heads, first, last = table.grid(methods)
    shown = {head: (first[i], last[i]) for i, head in enumerate(heads)}
    assert {head: shown[head] for head in ("NLL", "KL", "dissimilarity")} == {
        "NLL": ("0.300", ""),
        "KL": ("0.050", ""),
        "dissimilarity": ("0.500", ""),
    }
    assert "NLL" not in table.text(table.rows({("base", 0): result_of("10")}, ["base"])).split()


def test_a_likelihood_per_byte_says_so_beside_those_per_token() -> None:
    """Agents of several base models stand in one table with copies of one."""
    per_byte = replace(measured(0.2, None, None), per="byte")
    several = {
        ("multiagent", 0): result_of("11", diversity=per_byte),
        ("union", 0): result_of("10", diversity=measured(0.9, 0.1, 0.5)),
    }
    heads, *lines = table.grid(table.rows(several, ["multiagent", "union"]))
    assert [line[heads.index("NLL")] for line in lines] == ["0.200 per byte", "0.900"]


def test_the_table_of_all_methods_fits_into_a_summary(tmp_path: Path) -> None:
    most = replace(measured(10.0, 10.0, 0.5), per="byte")
    large: dict[str, Any] = {"usage": Usage(9, 90_000_000, 0), "seconds": 99_999.0, "diversity": most}
    everything = {(m, s): result_of("10" * 150, **large) for m in METHODS for s in range(3)}
    everything["star", 0] = result_of("01" * 150)
    text = table.text(table.rows(everything, list(METHODS)))
    summary = CompareSummary(table=text, report="s3://" + "x" * 300, methods=len(METHODS))
    program.write_summary(str(tmp_path / "summary.json"), summary)


def test_of_a_large_grid_the_summary_has_the_best_rows_that_fit(tmp_path: Path) -> None:
    several = {(f"multiagent, training.learningRate={k}", 0): result_of("1" * k + "0" * (60 - k)) for k in range(60)}
    methods = table.rows(several, [method for method, _ in several])
    summary = compare.summary(methods, "s3://bucket", "ns/name/compare/index.html")
    program.write_summary(str(tmp_path / "summary.json"), summary)
    lines = summary.table.splitlines()
    assert len(lines) > 10 and lines[1].split()[1] == "training.learningRate=59"
    assert lines[-1] == f"… and {60 - (len(lines) - 2)} more" and summary.methods == 60


def test_the_chart_names_every_method_and_keeps_within_its_axis() -> None:
    chart = charts.compared([("multiagent", Score(0.99, 0.02)), ("base", Score(0.02, 0.04)), ("<debate>", Score(0.5, 0.1))])
    assert all(f">{name}<" in chart for name in ("multiagent", "base", "&lt;debate&gt;"))
    assert chart.startswith("<svg role=") and "var(--series-1)" in chart and "#0000f1" not in chart


# --- the program, on commits made by hand ---


def transcript(i: int, answers: str, right: str = "r") -> Transcript:
    """One round; an agent is a letter."""
    turns = tuple((Turn("q", Call("base", 0, 30, 10, "stop", a), a, agrees=a == answers[-1], right=a == right),) for a in answers)
    final = Vote(answers[-1], answers.count(answers[-1]), 0, tied=False, right=answers[-1] == right)
    return Transcript(i, Problem(f"q{i}", "?", right), turns, (), (final,))


def committed_run(
    store: FileStore, name: str, answers: list[str], iteration: int = 0, seconds: float = 5.0, *, trained: tuple[int, ...] = (1, 2)
) -> None:
    """trained: the iterations that trained their adapter."""
    prefix = layout.evaluation(f"ns/{name}", iteration)
    publish(store, prefix, {layout.TRANSCRIPTS: records.encode_lines(transcript(i, a) for i, a in enumerate(answers))})
    agents = len(answers[0])
    diversity = measured(0.25, 0.125, None, agents)
    publish(store, layout.diversity(f"ns/{name}", iteration), {layout.DIVERSITY: records.encode(diversity)})
    store.write(prefix + layout.TIMING, records.encode(Timing(seconds)))
    for i in range(1, iteration + 1):
        publish(
            store,
            layout.debate(f"ns/{name}", i),
            {"part-0.jsonl": b""},
            meta={"usage": records.plain(Usage(9, 100, 11))},
        )
        store.write(layout.debate(f"ns/{name}", i) + layout.TIMING, records.encode(Timing(100.0)))
        counts = records.plain([DatasetCounts("generator", 0, 1, {"cut": 5, "noConsensus": 2})])
        publish(store, layout.datasets(f"ns/{name}", i), {}, meta={"counts": counts})
        adapter = records.plain(Adapter("generator", 0, i, "base", i in trained, 1, 0, None, None))
        meta = {"versions": {"peft": "0.21"}, "adapter": adapter}
        publish(store, layout.adapter(f"ns/{name}", i, "generator", 0), {}, meta=meta)
        store.write(layout.adapter(f"ns/{name}", i, "generator", 0) + layout.TIMING, records.encode(Timing(1000.0)))


def choosing(store: FileStore, name: str, iteration: int, *gain: float) -> None:
    """A debate of validation questions. gain: mean, standard error, over which iteration."""
    accuracy, over = Score(0.5, 0.1), Gain(gain[0], gain[1], int(gain[2])) if gain else None
    numbers = records.encode(replace(evaluation(iteration), usage=Usage(3, 1000, 500)))
    meta = {"validation": records.plain(Validation(accuracy=accuracy, gain=over))}
    publish(store, layout.validation(f"ns/{name}", iteration), {layout.EVALUATION: numbers}, meta=meta)


def evaluation(iteration: int) -> Evaluation:
    one = (Score(0.5, 0.1),)
    values: dict[str, Any] = dict.fromkeys(("wrong_to_right", "right_to_wrong", "unparsed", "ties"), 0)
    return Evaluation(
        iteration=iteration, questions=4, answers=one, agents=(one,), votes=one, consensus=one[0], usage=Usage(0, 0, 0), **values
    )


def test_the_row_of_a_run_that_chose_is_its_best_iterations(tmp_path: Path) -> None:
    """And it cost what all of its iterations took, with the debates that chose."""
    store = FileStore(tmp_path / "store")
    committed_run(store, "g-union-0", ["rr", "rr", "ww", "rr"], iteration=2)
    for iteration, gain in ((1, ()), (2, (0.1, 0.05, 1)), (3, (-0.1, 0.05, 2))):
        choosing(store, "g-union-0", iteration, *gain)
    publish(store, layout.debate("ns/g-union-0", 3), {"part-0.jsonl": b""}, meta={"usage": records.plain(Usage(9, 100, 11))})
    asked = Compared(method="union", seed=0, run="g-union-0", iteration=4)
    compared(store, asked)
    written = json.loads(store.read("ns/g/compare/compare.json"))
    assert [one["iteration"] for one in written["runs"]] == [2]
    assert written["rows"][0]["accuracy"]["mean"] == 0.75
    result = read(store, "ns", asked)
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (4 * 2 * 30 + 3 * 100 + 3000, 4 * 2 * 10 + 33 + 1500)
    assert CHOSEN in store.read("ns/g/compare/table.md").decode()


def compared(store: FileStore, *runs: Compared) -> CompareSummary:
    return compare.main(Assignment(store=store, run="ns/g", compared=runs))


BASE_RUN = Compared(method="base", seed=0, run="g-base-0", iteration=0)
UNION_RUN = Compared(method="union", seed=0, run="g-union-0", iteration=2)


def comparison_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "ns/g/compare/compare.json").read_text()))


def test_the_program_reads_runs_and_writes_five_forms(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    committed_run(store, "g-base-0", ["r", "x", "x", "x"])
    committed_run(store, "g-union-0", ["rrr", "xrr", "xyr", "xyx"], iteration=2)
    summary = compared(store, BASE_RUN, UNION_RUN)
    assert summary.accuracy == scores.rounded(Score(**comparison_of(tmp_path)["rows"][0]["accuracy"]))
    assert summary.methods == 2 and summary.report.endswith("/ns/g/compare/index.html")
    outputs = {
        name: (tmp_path / "ns/g/compare" / name).read_text() for name in ("table.txt", "table.md", "table.csv", "index.html")
    }
    assert {path.name for path in (tmp_path / "ns/g/compare").iterdir()} == set(FILES[OF_A_COMPARISON])  # of the live page
    comparison = comparison_of(tmp_path)
    assert comparison["origin"] == {
        "group": "ns/g",
        "model": "",
        "seeds": [0],
        "problems": {},
        "versions": {"maft": __version__, "peft": "0.21"},
    }
    best, base = comparison["rows"]
    assert (best["method"], best["accuracy"]["mean"], base["accuracy"]["mean"]) == ("union", 0.75, 0.25)
    assert best["consensus"] == pytest.approx((1 + 2 / 3 + 1 / 3 + 2 / 3) / 4)
    assert best["distinct"] == pytest.approx((1 + 2 + 3 + 2) / 4)
    assert best["entropy"] == pytest.approx((0 + 0.9182958 + 1.5849625 + 0.9182958) / 4)
    assert best["tokens"] == 12 * 40 + 2 * 111  # the held-out debate and both debates that the training needed
    assert (best["seconds"], base["seconds"]) == (2205.0, 5.0)
    assert (best["nll"], best["kl"], base["nll"], base["kl"]) == (0.25, 0.125, None, None)  # one agent is as diverse as nobody
    assert base["p"] == base["pBest"] == binomtest(2, 2).pvalue
    for text in outputs.values():
        assert "union" in text and "base" in text
    assert (
        summary.table in outputs["table.txt"]
        and f"maft {__version__}, peft 0.21; seeds 0; questions: none; group ns/g." in outputs["table.txt"]
    )
    assert "paired permutation test" in outputs["table.md"] and "<svg" in outputs["index.html"]


WHY = (
    "too few examples (the largest dataset has 1); mostly left out: answer was cut off (10 of 14). To change that, "
    f"{MORE_TOKENS}, or lower training.minExamples."
)


def test_a_method_that_trained_nothing_is_not_called_by_its_name_alone(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    committed_run(store, "g-base-0", ["r", "x", "x", "x"])
    committed_run(store, "g-union-0", ["rrr", "xrr", "xyr", "xyx"], iteration=2, trained=())
    summary = compared(store, BASE_RUN, UNION_RUN)
    note = f"union, nothing was trained: these agents are the base model; {WHY}"
    assert note in summary.table.splitlines()
    for name in ("table.txt", "table.md", "index.html"):
        assert note in (tmp_path / "ns/g/compare" / name).read_text()
    assert summary.table in (tmp_path / "ns/g/compare/table.txt").read_text()
    comparison = json.loads((tmp_path / "ns/g/compare/compare.json").read_text())
    assert [(row["method"], row["untrained"], row["why"]) for row in comparison["rows"]] == [("union", 1, WHY), ("base", 0, "")]


def test_seeds_in_which_nothing_was_trained_are_counted(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    answers = ["rrr", "xrr", "xyr", "xyx"]
    for seed, trained in enumerate(((), (2,), (1, 2))):
        committed_run(store, f"g-union-{seed}", answers, iteration=2, trained=trained)
    runs = (replace(UNION_RUN, seed=seed, run=f"g-union-{seed}") for seed in range(3))
    summary = compared(store, *runs)
    assert "union, nothing was trained in 1 of 3 seeds  " in summary.table
    assert f"union, nothing was trained in 1 of 3 seeds: these agents are the base model; {WHY}" in summary.table
    assert "nothing was trained" not in compared(store, replace(UNION_RUN, seed=1, run="g-union-1")).table


def test_a_run_that_is_not_finished_is_named(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    committed_run(store, "g-base-0", ["r"])
    with pytest.raises(BadInput, match=r"ns/g-union-0/iterations/1/evaluation/: nothing committed there; .*g-union-0"):
        compared(store, BASE_RUN, replace(UNION_RUN, iteration=1))
    assert not (tmp_path / "ns/g/compare").exists()
