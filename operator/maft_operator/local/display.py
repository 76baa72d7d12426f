"""What people see of a run on this machine: bars while stages run, one line for each that finished, a table at the end."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from maft import stopping
from maft.summaries import AnySummary, ResultRow
from maft_operator.plan.graph import Graph, Task
from maft_operator.plan.step import Observed, ServerState, TaskState
from maft_operator.plan.summaries import sentence, title

GUESS = 0.03  # share of a stage from which on its first part says how long the rest will take
QUIET = 15.0  # seconds between two lines about a stage where there is no terminal to draw bars on


class Display:
    """Follows a run. `update` is called after every step."""

    def __init__(self, console: Console, graph: Graph) -> None:
        self._console = console
        self._graph = graph
        self._bars: dict[str, TaskID] = {}
        self._since: dict[str, float] = {}
        self._last_line: dict[str, float] = {}
        self._ended: set[str] = set()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def update(
        self, observed: Observed, done: Mapping[str, tuple[float, float] | None], summaries: Mapping[str, AnySummary | None]
    ) -> None:
        """Shows the state. observed: after the step; done: progress of running tasks; summaries: of finished ones."""
        for server in self._graph.servers:
            state = observed.servers.get(server.name)
            self._follow(server.name, f"{server.name}: starting vLLM", state is not None and not state.ready, None)
            if state and state.ready and server.name in self._since:
                self._finished(server.name, f"{server.name} is ready", "")
            elif server.name not in observed.servers:
                self._ended.discard(server.name)
            self._failure(server.name, state)
        for task in self._graph.tasks:
            self._task(task, observed, done.get(task.name), summaries)

    def follow(self, graph: Graph) -> None:
        """Takes in what is to be done by now."""
        self._graph = graph

    def decided(self, graph: Graph) -> None:
        """Tells once what validation questions have decided."""
        specs = {task.run.key: task.run.spec for task in graph.tasks}
        for run, decision in graph.decisions.items():
            name = f"{run}: " if graph.last.kind == "compare" else ""
            if f"{run}/best" not in self._ended:
                self._ended.add(f"{run}/best")
                text = f"→ {name}{stopping.words(specs[run], decision)}"
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _task(
        self, task: Task, observed: Observed, done: tuple[float, float] | None, summaries: Mapping[str, AnySummary | None]
    ) -> None:
        state = observed.tasks.get(task.name)
        status = state.status if state else ""
        self._follow(task.name, self._title(task), status == "running", done)
        if status == "succeeded":
            self._finished(task.name, self._title(task), sentence(summaries.get(task.name)))
        else:
            self._failure(task.name, state)

    def _title(self, task: Task) -> str:
        """Names the run as well, where there are several."""
        return f"{task.run.name}: {title(task)}" if self._graph.last.kind == "compare" and task.group else title(task)

    def _follow(self, name: str, text: str, active: bool, done: tuple[float, float] | None) -> None:
        if not active:
            if name in self._bars:
                self.progress.remove_task(self._bars.pop(name))
            return
        self._since.setdefault(name, time.monotonic())
        self._ended.discard(name)
        if name not in self._bars:
            self._bars[name] = self.progress.add_task(text, total=None, numbers="", eta="")
        if done:
            numbers = f"{int(done[0])}/{int(done[1])}"
            self.progress.update(self._bars[name], completed=done[0], total=done[1], numbers=numbers, eta="ETA")
        if not self._console.is_terminal:
            self._line(name, text, done)

    def _line(self, name: str, text: str, done: tuple[float, float] | None) -> None:
        now, since = time.monotonic(), self._since[name]
        if name not in self._last_line:
            self._last_line[name] = now
            self._console.print(f"  {text} …", highlight=False, soft_wrap=True)
        elif done and done[0] and now - self._last_line[name] >= QUIET:
            self._last_line[name] = now
            left = (now - since) * (done[1] - done[0]) / done[0]
            eta = f", ETA {_clock(left)}" if done[0] >= GUESS * done[1] else ""
            self._console.print(f"  {text}: {int(done[0])} of {int(done[1])}{eta}", highlight=False, soft_wrap=True)

    def _finished(self, name: str, text: str, details: str) -> None:
        if name in self._ended:
            return
        self._ended.add(name)
        took = f"  [{_clock(time.monotonic() - self._since[name])}]" if name in self._since else "  [from before]"
        self._console.print(f"✓ {text}{': ' + details if details else ''}{took}", highlight=False, markup=False, soft_wrap=True)

    def _failure(self, name: str, state: TaskState | ServerState | None) -> None:
        """Said also where it is running again by now."""
        if state and state.failures and state.message:
            self._once(f"{name}/{state.failures}", f"{name} failed ({state.failures}): {state.message}")

    def _once(self, key: str, text: str) -> None:
        if key not in self._ended:
            self._ended.add(key)
            self._console.print(f"✗ {text}", highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def results(rows: Sequence[ResultRow]) -> Table:
    """Makes the paper's table, from the rows in the report's summary."""
    table = Table(title="Held-out accuracy, % ± standard error over questions")
    for column in ("method", "accuracy", "one answer", "consensus"):
        words = column == "method"  # a narrow terminal breaks words, and never numbers
        table.add_column(column, justify="left" if words else "right", no_wrap=not words)
    for row in rows:
        table.add_row(row.name, *("" if score is None else score.percent for score in (row.accuracy, row.answer, row.consensus)))
    return table
