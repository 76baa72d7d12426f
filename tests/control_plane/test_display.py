"""What `maft run` prints while it runs."""

from io import StringIO

import pytest
from conftest import resource
from rich.console import Console

from maft.summaries import ReportSummary, ResultRow, Score
from maft_operator.local import display
from maft_operator.local.display import Display, results
from maft_operator.local.run import _ending
from maft_operator.plan import graph as plan
from maft_operator.plan.step import Observed, ServerState, Step, TaskState
from maft_operator.spec import parse as api


@pytest.fixture
def graph(tmp_path):
    return plan.graph(api.parse(resource()), str(tmp_path))


def shown(graph: plan.Graph, *seen: Observed) -> str:
    out = StringIO()
    display = Display(Console(file=out, width=200), graph)
    for observed in seen:
        display.update(observed, {}, {})
    return out.getvalue()


def test_a_failure_is_said_once_also_where_the_next_look_finds_it_running_again(graph):
    server, task = graph.servers[0].name, graph.tasks[0].name
    again = Observed({task: TaskState("running", 1, 1, "out of luck")}, {server: ServerState(False, False, 1, -9, "killed")})
    text = shown(graph, again, again)
    assert text.count(f"✗ {server} failed (1): killed") == 1
    assert text.count(f"✗ {task} failed (1): out of luck") == 1


@pytest.mark.parametrize("place", ["s3://bucket/[/b]/ns/run/report/index.html", "s3://bucket/[red]x/ns/run/report/index.html"])
def test_an_address_is_no_markup(place):
    console = Console(file=(out := StringIO()), width=200)
    last = ReportSummary(report=place, results=(), debates=1, in_page=1)
    assert _ending(Step((), (), "Complete"), last, console, 1.0, 0) == 0
    assert f"Report: {place}\n" in out.getvalue()


REMARK = "Nothing was trained in iteration 1: too few examples (the largest dataset has [3]). To change that, raise task.train."


def test_what_has_to_be_known_to_read_the_table_stands_below_it():
    console = Console(file=(out := StringIO()), width=80)
    row = ResultRow(name="debate, nothing was trained, iteration 2", accuracy=Score(0.7, 0.105), answer=Score(0.5, 0.1))
    last = ReportSummary(report="r", results=(row,), debates=1, in_page=1, remarks=(REMARK,))
    assert _ending(Step((), (), "Complete"), last, console, 1.0, 0) == 0
    text = out.getvalue()
    assert "70.0 ± 10.5" in text and "50.0 ± 10.0" in text
    assert text.index("70.0 ± 10.5") < text.index(REMARK) < text.index("Report: r")


def test_a_narrow_terminal_breaks_words_and_never_numbers():
    score = Score(0.7, 0.105)
    rows = [ResultRow(name="debate, nothing was trained, iteration 100", accuracy=score, answer=score, consensus=score)]
    console = Console(file=(out := StringIO()), width=60)
    console.print(results(rows))
    text = out.getvalue()
    assert text.count("70.0 ± 10.5") == 3
    assert "…" not in text and "100" in text


def test_each_failure_is_said(graph):
    server = graph.servers[0].name
    states = [Observed({}, {server: ServerState(False, True, n, 1, f"end {n}")}) for n in (1, 2)]
    assert "failed (1): end 1" in (text := shown(graph, *states)) and "failed (2): end 2" in text


@pytest.mark.parametrize(
    ("done", "line"), [(0.1, "evaluate: 0 of 40\n"), (1.1, "evaluate: 1 of 40\n"), (20.5, "evaluate: 20 of 40, ETA 0:00\n")]
)
def test_the_time_that_is_left_is_told_once_some_of_a_stage_is_done(graph, monkeypatch, done, line):
    """The first answer of a debate of hundreds says nothing of the others."""
    monkeypatch.setattr(display, "QUIET", 0.0)
    console = Console(file=StringIO(), force_terminal=False)
    followed = Display(console, graph)
    for _ in range(2):  # the first line names the stage
        followed._follow("t", "evaluate", True, (done, 40.0))
    assert console.file.getvalue().endswith(line)
