"""What `maft run` prints while it runs."""

from io import StringIO

import pytest
from conftest import resource
from rich.console import Console

from maft.summaries import ReportSummary
from maft_operator.local.display import Display
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


def test_each_failure_is_said(graph):
    server = graph.servers[0].name
    states = [Observed({}, {server: ServerState(False, True, n, 1, f"end {n}")}) for n in (1, 2)]
    assert "failed (1): end 1" in (text := shown(graph, *states)) and "failed (2): end 2" in text
