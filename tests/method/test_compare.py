"""`maft compare`: one graph of many runs, the table by hand, and whole comparisons as processes with a counting engine."""

import csv
import io
import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MOCK, resource, wait_until, write
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from test_plan import BASE as RESOURCE
from test_plan import World, arguments, merged, run

from maft import __version__, adapters, evaluate, program, records
from maft import charts as report_plots
from maft.compare import __main__ as compare
from maft.compare import table
from maft.compare.read import RunResult
from maft.debate import session as debate
from maft.errors import BadInput
from maft.records import Call, Diversity, Problem, Score, Timing, Transcript, Turn, Usage, Vote
from maft.serve import __main__ as serve
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft_operator.local import gpus
from maft_operator.plan import compare as planned
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph, Observed, TaskState, step
from maft_operator.spec.methods import METHODS
from maft_operator.spec.parse import parse
from maft_operator.spec.schema import BadSpec

# --- the graph ---


def compared(methods: str = "all", seeds: int = 2, **spec: Any) -> tuple[Graph, dict[tuple[str, int], Any]]:
    whole = merged(json.loads(json.dumps(RESOURCE)), {"spec": spec})
    runs = planned.runs(whole, planned.chosen(methods), seeds)
    return planned.graph(parse(whole), runs, "file:///store"), runs


def test_a_run_per_method_and_seed_with_the_same_questions() -> None:
    made, runs = compared("debate,base", seeds=3, seed=5)
    assert list(runs) == [(m, s) for m in ("base", "debate") for s in (5, 6, 7)]
    assert [r.name for r in runs.values()][:2] == ["r-base-5", "r-base-6"]
    assert {r.spec.seed for r in runs.values()} == {5, 6, 7}
    assert len({r.spec.task for r in runs.values()}) == 1
    assert [t.name for t in made.tasks if t.kind == "prepare"] == ["r-0-prepare"]
    assert not [t for t in made.tasks if t.kind == "report"]


def test_the_table_names_every_run_and_waits_for_its_numbers() -> None:
    made, runs = compared(iterations=2)
    last = made.tasks[-1]
    assert (last.name, last.kind, made.tasks.index(last)) == ("r-compare", "compare", len(made.tasks) - 1)
    parsed = compare.parser().parse_args(plan.command(last, {})[2:])
    rows = [compare._compared(text) for text in parsed.compared]
    assert [(r.method, r.seed) for r in rows] == list(runs) == [(m, s) for m in METHODS for s in (0, 1)]
    assert {f"{r.run}-{r.iteration}-evaluate" for r in rows} <= set(last.needs)
    assert {r.iteration for r in rows if r.method in ("base", "majority", "equal-sample-majority", "debate")} == {0}
    assert {r.iteration for r in rows if r.method in ("star", "multiagent", "distill")} == {2}


def test_only_societies_are_measured_for_diversity_and_the_table_waits_for_it() -> None:
    made, runs = compared(iterations=1, evaluation={"diversity": 5})
    measured_ = {t.name.removesuffix("-diversity") for t in made.tasks if t.kind == "diversity"}
    alone = {"base", "star", "single-agent-alone", "distill"}
    assert measured_ == {
        f"{one.name}-{i}" for (method, _), one in runs.items() for i in ({1} if one.spec.iterations else {0}) if method not in alone
    }
    assert {f"{name}-diversity" for name in measured_} <= set(made.tasks[-1].needs)


def test_tasks_that_ask_know_the_group_and_the_one_server() -> None:
    made, _ = compared()
    [server] = made.servers
    assert server.name == "r-server"
    for task in made.tasks:
        assert task.servers in ((), ("r-server",))
        if task.servers:
            parsed = arguments(task, {"debate": debate, "evaluate": evaluate})
            assert (parsed.group, parsed.run.startswith("ns/r-")) == ("ns/r", True)
        elif task.kind == "train":
            assert "--group" not in task.flags


@pytest.mark.parametrize("topology", ["Shared", "PerAgent"])
@pytest.mark.parametrize(
    ("methods", "agents", "loras", "kept"),
    [
        ("all", 3, 6, 12),
        ("base,majority,equal-sample-majority", 3, 1, 2),  # never asked for an adapter; vLLM wants room for one
        ("without-critics,base", 4, 4, 8),
        ("union,distill", 4, 2, 4),
        ("multiagent", 8, 16, 32),
    ],
)
def test_the_server_has_room_for_the_most_demanding_method(topology: str, methods: str, agents: int, loras: int, kept: int) -> None:
    """Whatever the resource says: here one server has the adapters of all agents."""
    made, _ = compared(methods, agents=agents, inference={"topology": topology})
    known, _ = serve.parser().parse_known_args(plan.serve(made.servers[0])[2:])
    assert (known.max_loras, known.max_cpu_loras) == (loras, kept)
    assert known.run == "ns/r"


def test_of_many_agents_the_most_demanding_method_counts_too() -> None:
    made, _ = compared("without-critics,cooperative", agents=20, inference={"topology": "Shared"})
    known, _ = serve.parser().parse_known_args(plan.serve(made.servers[0])[2:])
    assert (known.max_loras, known.max_cpu_loras) == (16, 80)


worlds = st.fixed_dictionaries(
    {
        "iterations": st.integers(1, 3),
        "training": st.fixed_dictionaries({"topology": st.sampled_from(["PerAgent", "Shared"])}),
        "inference": st.fixed_dictionaries({"lifetime": st.sampled_from(["Phase", "Run"])}),
        "evaluation": st.fixed_dictionaries({"every": st.integers(1, 2)}),
        "backoffLimit": st.integers(0, 2),
    }
)


def owner(task: str, runs: dict[tuple[str, int], Any]) -> str:
    """The run that a task belongs to; longest name first, since `r-single-agent-0` begins others."""
    return max((r.name for r in runs.values() if task.startswith(f"{r.name}-")), key=len, default="group")


@given(worlds, st.lists(st.sampled_from(list(METHODS)), min_size=1, max_size=4, unique=True), st.integers(1, 2), st.data())
@settings(max_examples=30)
def test_one_run_after_the_other(spec: dict[str, Any], methods: list[str], seeds: int, data: st.DataObject) -> None:
    """Whatever happens in whatever order, tasks of two runs are never under way together, and all is done in the end."""
    made, runs = compared(",".join(methods), seeds, agents=2, **spec)
    names = [t.name for t in made.tasks]
    assert len(set(names)) == len(names)
    for i, task in enumerate(made.tasks):
        assert set(task.needs) <= set(names[:i])
    world = World(made)
    while (decided := step(made, world.observed())).phase != "Complete":
        world.do(decided)
        under_way = {owner(t.name, runs) for t in made.tasks if world.running(t.name)}
        assert len(under_way) <= 1
        if possible := world.happenings():
            world.happen(*data.draw(st.sampled_from(possible)))
    assert world.servers == {} or decided.delete
    assert {n for n, s in world.tasks.items() if s.status == "succeeded"} == set(names)


def test_the_next_run_waits_for_all_that_nobody_else_waits_for() -> None:
    """Servers that stay do not make training wait for the held-out debate before it; the next run does."""
    made, _ = compared("multiagent,union", seeds=1, iterations=3, evaluation={"every": 2}, inference={"lifetime": "Run"})
    first = next(t for t in made.tasks if t.name.startswith("r-union-0-"))
    assert first.needs == ("r-0-prepare", "r-multiagent-0-2-evaluate", "r-multiagent-0-3-evaluate")


def test_what_is_done_is_not_done_again() -> None:
    made, _ = compared("base,debate", seeds=1, inference={"lifetime": "Run"})
    done = {name: TaskState("succeeded") for name in ("r-0-prepare", "r-base-0-0-evaluate")}
    [server] = step(made, Observed(done, {})).create
    assert server.name == "r-server"
    [task] = step(made, Observed(done, {"r-server": plan.ServerState(ready=True)})).create
    assert task.name == "r-debate-0-0-evaluate"


def test_servers_hand_over_their_gpus_where_the_resource_says_so() -> None:
    assert compared(inference={"lifetime": "Phase"})[0].hand_over
    assert not compared(inference={"lifetime": "Run"})[0].hand_over
    gpus.fits(compared(inference={"lifetime": "Phase"}, training={"topology": "Shared"})[0], 1)


def test_the_resources_own_method_and_baselines_do_not_matter() -> None:
    plain, _ = compared("debate,union")
    odd, _ = compared("debate,union", method="star", evaluation={"baselines": ["base"]})
    without_spec = [t for t in odd.tasks if t.kind != "prepare"]
    assert without_spec == [t for t in plain.tasks if t.kind != "prepare"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", tuple(METHODS)),
        ("base", ("base",)),
        (" debate , base,debate ", ("base", "debate")),
        ("base,,", ("base",)),
    ],
)
def test_methods_are_chosen_in_the_order_of_the_table(text: str, expected: tuple[str, ...]) -> None:
    assert planned.chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("debates", "--methods debates: no such method; known are multiagent, base, "),
        ("base,all", "--methods all: no such method"),
        ("", "--methods: names no method; all, or some of multiagent, base"),
        (" , ", "--methods: names no method"),
    ],
)
def test_other_methods_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadSpec) as caught:
        planned.chosen(text)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("held_out", "precision", "enough"), [(625, 2.0, True), (624, 2.0, False), (100, 5.0, True), (99, 5.0, False)]
)
def test_precision_asks_for_questions(held_out: int, precision: float, enough: bool) -> None:
    group = run(task={"heldOut": held_out})
    if enough:
        planned.enough(group, precision)
        return
    with pytest.raises(BadSpec, match=rf"^task\.heldOut: {held_out} questions give a standard error of up to \d+\.\d points; for"):
        planned.enough(group, precision)


def test_precision_says_how_many() -> None:
    with pytest.raises(BadSpec) as caught:
        planned.enough(run(task={"heldOut": 100}), 2)
    assert str(caught.value) == "task.heldOut: 100 questions give a standard error of up to 5.0 points; for 2 ask for 625"
    for precision in (0.0, -1.0):
        with pytest.raises(BadSpec, match="give a standard error in percentage points"):
            planned.enough(run(), precision)
    planned.enough(run(task={"heldOut": 2}), None)


# --- adapters of several runs on one server ---


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("generator-0-1-0123456789ab", ("ns/r/iterations/1/adapters/generator-0/", "0123456789ab")),
        ("r-union-7.critic-2-10-0123456789ab", ("ns/r-union-7/iterations/10/adapters/critic-2/", "0123456789ab")),
        ("other.generator-0-1-0123456789ab", ("ns/other/iterations/1/adapters/generator-0/", "0123456789ab")),
        ("critic-1.generator-0-1-0123456789ab", ("ns/critic-1/iterations/1/adapters/generator-0/", "0123456789ab")),
        (".generator-0-1-0123456789ab", None),
        ("../x.generator-0-1-0123456789ab", None),
        ("a/b.generator-0-1-0123456789ab", None),
        ("a.b.generator-0-1-0123456789ab", None),
        ("A.generator-0-1-0123456789ab", None),
        ("r.base", None),
        ("r.generator-0-1-0123456789AB", None),
    ],
)  # fmt: skip
def test_where_a_qualified_name_lies(name: str, where: tuple[str, str] | None) -> None:
    assert adapters.locate(name, "ns/r") == where


def test_every_run_of_a_comparison_has_a_name_that_servers_find() -> None:
    _, runs = compared(seeds=1, seed=2147483647)
    for one in runs.values():
        assert adapters.locate(f"{one.name}.generator-0-1-0123456789ab", "ns/r") == (
            f"{one.key}/iterations/1/adapters/generator-0/",
            "0123456789ab",
        )


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
    "other", [result_of("101"), replace(result_of("10"), right={"q00": 1.0, "q99": 0.0})], ids=["more", "others"]
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


def measured(cross: float, kl: float, dissimilarity: float | None, agents: int = 2) -> Diversity:
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


def test_the_table_of_all_methods_fits_into_a_summary(tmp_path: Path) -> None:
    large: dict[str, Any] = {"usage": Usage(9, 90_000_000, 0), "seconds": 99_999.0, "diversity": measured(10.0, 10.0, 0.5)}
    everything = {(m, s): result_of("10" * 150, **large) for m in METHODS for s in range(3)}
    everything["star", 0] = result_of("01" * 150)
    text = table.text(table.rows(everything, list(METHODS)))
    summary = {"version": "0.0.0", "table": text, "report": "s3://" + "x" * 300, "methods": len(METHODS)}
    program.write_summary(str(tmp_path / "summary.json"), summary)


def test_the_chart_names_every_method_and_keeps_within_its_axis() -> None:
    chart = report_plots.compared([("multiagent", Score(0.99, 0.02)), ("base", Score(0.02, 0.04)), ("<debate>", Score(0.5, 0.1))])
    assert all(f">{name}<" in chart for name in ("multiagent", "base", "&lt;debate&gt;"))
    assert chart.startswith("<svg role=") and "var(--series-1)" in chart and "#0000f1" not in chart


# --- the program, on commits made by hand ---


def transcript(i: int, answers: str, right: str = "r") -> Transcript:
    """One round; an agent is a letter."""
    turns = tuple((Turn("q", Call("base", 0, 30, 10, "stop", a), a, agrees=a == answers[-1], right=a == right),) for a in answers)
    final = Vote(answers[-1], answers.count(answers[-1]), 0, tied=False, right=answers[-1] == right)
    return Transcript(i, Problem(f"q{i}", "?", right), turns, (), (final,))


def committed_run(store: FileStore, name: str, answers: list[str], iteration: int = 0, seconds: float = 5.0) -> None:
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
            meta={"usage": {"calls": 9, "prompt_tokens": 100, "completion_tokens": 11}},
        )
        store.write(layout.debate(f"ns/{name}", i) + layout.TIMING, records.encode(Timing(100.0)))
        publish(store, layout.adapter(f"ns/{name}", i, "generator", 0), {}, meta={"versions": {"peft": "0.21"}})
        store.write(layout.adapter(f"ns/{name}", i, "generator", 0) + layout.TIMING, records.encode(Timing(1000.0)))


def compared_by_program(store: FileStore, *pairs: str) -> dict[str, Any]:
    line = ["--store", store.url, "--run", "ns/g", *(f"--compared={p}" for p in pairs)]
    return compare.main(compare.parser().parse_args(line))


def test_the_program_reads_runs_and_writes_five_forms(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    committed_run(store, "g-base-0", ["r", "x", "x", "x"])
    committed_run(store, "g-union-0", ["rrr", "xrr", "xyr", "xyx"], iteration=2)
    summary = compared_by_program(store, "base=0=g-base-0=0", "union=0=g-union-0=2")
    assert summary["methods"] == 2 and summary["report"].endswith("/ns/g/compare/index.html")
    outputs = {
        name: (tmp_path / "ns/g/compare" / name).read_text() for name in ("table.txt", "table.md", "table.csv", "index.html")
    }
    best, base = json.loads((tmp_path / "ns/g/compare/compare.json").read_text())["rows"]
    assert (best["method"], best["accuracy"]["mean"], base["accuracy"]["mean"]) == ("union", 0.75, 0.25)
    assert best["consensus"] == pytest.approx((1 + 2 / 3 + 1 / 3 + 2 / 3) / 4)
    assert best["distinct"] == pytest.approx((1 + 2 + 3 + 2) / 4)
    assert best["entropy"] == pytest.approx((0 + 0.9182958 + 1.5849625 + 0.9182958) / 4)
    assert best["tokens"] == 12 * 40 + 2 * 111  # the held-out debate and both debates that the training needed
    assert (best["seconds"], base["seconds"]) == (2205.0, 5.0)
    assert (best["nll"], best["kl"], base["nll"], base["kl"]) == (0.25, 0.125, None, None)  # one agent is as diverse as nobody
    assert base["p"] == binomtest(2, 2).pvalue
    for text in outputs.values():
        assert "union" in text and "base" in text
    assert (
        summary["table"] in outputs["table.txt"]
        and f"maft {__version__}, peft 0.21; seeds 0; questions: none; group ns/g." in outputs["table.txt"]
    )
    assert "paired permutation test" in outputs["table.md"] and "<svg" in outputs["index.html"]


def test_a_run_that_is_not_finished_is_named(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    committed_run(store, "g-base-0", ["r"])
    with pytest.raises(BadInput, match=r"ns/g-union-0/iterations/1/evaluation/: nothing committed there; .*g-union-0"):
        compared_by_program(store, "base=0=g-base-0=0", "union=0=g-union-0=1")
    assert not (tmp_path / "ns/g/compare").exists()


# --- whole comparisons ---

MAFT = [sys.executable, "-m", "maft_operator", "compare"]
LIMIT = 500.0
SPEC = resource("cmp", task={"train": 24, "heldOut": 16})
CHOSEN = "base,multiagent,dpo,distill"
FEW = "base,multiagent"


def command(folder: Path, methods: str, *more: str) -> list[str]:
    file = write(folder / "run.yaml", SPEC)
    serving = ["--serve", f"{sys.executable} {MOCK}"]
    return [*MAFT, str(file), "--dir", str(folder / "runs"), "--methods", methods, "--seeds", "2", *serving, *more]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "MOCK_COUNT": str(folder / "requests"), **more}


def whole_compare(folder: Path, methods: str) -> str:
    done = subprocess.run(command(folder, methods), capture_output=True, text=True, timeout=LIMIT, env=environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(folder: Path) -> list[dict[str, Any]]:
    """The rows without what a clock says."""
    comparison = json.loads((folder / "runs/default/cmp/compare/compare.json").read_text())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in comparison["rows"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("whole")
    out = whole_compare(folder, CHOSEN)
    return folder, out, result(folder)


@pytest.mark.run
@pytest.mark.timeout(900)
def test_a_comparison_prints_its_table_and_makes_a_page(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    folder, out, rows = finished
    assert {row["method"] for row in rows} == set(CHOSEN.split(",")) and {row["seeds"] for row in rows} == {2}
    table_text = (folder / "runs/default/cmp/compare/table.txt").read_text()
    page = Path(re.search(r"Report: file://(\S+)", out)[1]).read_text()  # type: ignore[index]
    for row in rows:
        line = next(line for line in table_text.splitlines() if line.startswith(f"{row['method']} "))
        assert line in out.splitlines()
        assert f'<td class="words">{row["method"]}</td>' in page and f">{row['method']}</text>" in page
    adapters_ = {row["method"]: row["adapters"] for row in rows}
    assert adapters_ == {"base": 0, "multiagent": 6, "dpo": 3, "distill": 1}


@pytest.mark.run
@pytest.mark.timeout(900)
def test_it_asks_at_least_40_percent_less_than_the_methods_one_by_one(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    """A transcript has every call that its run would have made alone."""
    folder, _, _ = finished
    alone: Counter[str] = Counter()
    for path in (folder / "runs/default").glob("cmp-*/iterations/*/*/part-0.jsonl"):
        for one in records.decode_lines(path.read_bytes(), Transcript, str(path)):
            alone.update("base" if call.model == "base" else "adapter" for call in one.calls())
    reached = Counter("base" if line == "base" else "adapter" for line in (folder / "requests").read_text().split())
    probes = 2 * (1 + 6 + 3 + 1) + 2 * 8  # every debate asks each of its models once whether it is there
    assert alone["adapter"] <= reached["adapter"] <= alone["adapter"] + probes, "adapters' answers are each run's own"
    assert reached.total() <= 0.6 * alone.total(), (reached, alone)
    calls = 24 * 9 * 3 + 16 * (1 + 9 + 9 + 1)
    assert alone.total() == 2 * calls


@pytest.mark.run
@pytest.mark.timeout(900)
def test_again_with_other_methods_makes_another_table_and_nothing_else(finished: tuple[Path, str, list[dict[str, Any]]]) -> None:
    folder, _, rows = finished
    requests = (folder / "requests").stat().st_size
    out = whole_compare(folder, FEW)
    assert [row["method"] for row in result(folder)] == [row["method"] for row in rows if row["method"] in FEW.split(",")]
    assert not re.search(r"^(dpo|distill) ", out, re.MULTILINE)
    assert (folder / "requests").stat().st_size == requests
    assert whole_compare(folder, CHOSEN) and result(folder) == rows


@pytest.mark.run
@pytest.mark.timeout(900)
def test_kill_9_then_the_same_command_ends_with_the_same_table(
    finished: tuple[Path, str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    whole_compare(finished[0], FEW)
    expected = result(finished[0])
    with (tmp_path / "out.txt").open("w") as output:
        process = subprocess.Popen(
            command(tmp_path, FEW), stdout=output, stderr=output, env=environment(tmp_path, MOCK_LATENCY="0.02")
        )
        journal = "cmp-multiagent-0/iterations/1/debate/journal-*"
        wait_until(
            lambda: next((tmp_path / "runs/default").glob(journal), None) is not None or process.poll() is not None,
            LIMIT,
            lambda: (tmp_path / "out.txt").read_text(),
        )
        assert process.poll() is None, (tmp_path / "out.txt").read_text()
        process.kill()
        process.wait()
    assert not (tmp_path / "runs/default/cmp/compare").exists()
    whole_compare(tmp_path, FEW)
    assert result(tmp_path) == expected


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--methods", "debates"], "--methods debates: no such method; known are"),
        (["--seeds", "0"], "--seeds 0: at least 1"),
        (["--precision", "1"], "task.heldOut: 16 questions give a standard error of up to 12.5 points; for 1 ask for 2500"),
        (["--set", "debate.rounds=1", "--set", "debate.critics=false"], "is about debate, and debate.rounds is 1"),
    ],
)
def test_wrong_commands_are_one_line(tmp_path: Path, more: list[str], says: str) -> None:
    line = [*MAFT, str(write(tmp_path / "run.yaml", SPEC)), "--dir", str(tmp_path / "runs"), *more]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr
    assert not (tmp_path / "runs").exists()
