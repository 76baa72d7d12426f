"""A comparison with a search on one machine: one graph that has more runs once a wave of trials is over.

Pure but for its memory of the last graph. The table is the last task all along; while trials are to come it waits for what is no
task.
"""

from collections.abc import Sequence
from dataclasses import replace

from maft_operator.plan import best, compare, shards
from maft_operator.plan.comparison import RunState
from maft_operator.plan.graph import Graph
from maft_operator.plan.search import Growing, Trial, chosen
from maft_operator.plan.step import Observed
from maft_operator.spec.comparison import Child, Comparison
from maft_operator.spec.varied import worded

MORE = "trials"  # stands for those to come; no task of a run has such a name


class Trials:
    """The graph of a comparison by what has been done of it."""

    def __init__(self, comparison: Comparison, store: str) -> None:
        self._growing = Growing(comparison)
        self._store = store
        self._seen: dict[str, RunState] = {}
        self._one = self._growing.grown({})
        self._graph = self._made()

    def graph(self, observed: Observed) -> Graph:
        """Returns the graph as it is now; the same object as long as nothing is added."""
        while (now := self._states(observed)) != self._seen:
            self._seen, self._one = now, self._growing.grown(now)
            self._graph = self._made()
        return self._graph

    def told(self) -> list[str]:
        """Writes a line for each trial that is over, the best of each method marked."""
        trials = [trial for trial in self._growing.trials(self._seen) if trial.over]
        best_ones = [(trial.method, trial.number) for trial in chosen(trials).values()]
        return [_line(trial, marked=(trial.method, trial.number) in best_ones) for trial in trials]

    def _made(self) -> Graph:
        one, over = self._one, self._growing.is_over(self._seen)
        shown = self._growing.compared(self._seen) if over else one
        tried = one.origin.corners if one.origin else ()
        graph = shards.spread(compare.graph(one.template, one.compared, self._store, tried=tried, shown=shown.compared))
        *tasks, table = graph.tasks
        return graph if over else replace(graph, tasks=(*tasks, replace(table, needs=(*table.needs, MORE))))

    def _states(self, observed: Observed) -> dict[str, RunState]:
        """Finds the runs that are over, with what they were on validation questions."""
        settled = best.settled(self._graph, observed)
        tasks: dict[str, list[str]] = {}
        for task in settled.tasks:
            tasks.setdefault(task.run.key, []).append(task.name)
        several = self._one.children
        states = {child.run.name: _state(child, tasks.get(child.run.key, ()), settled, observed) for child in several}
        return {name: state for name, state in states.items() if state}


def _state(child: Child, own: Sequence[str], graph: Graph, observed: Observed) -> RunState | None:
    """own: names of the run's tasks in the graph."""
    if not own or not all(name in observed.tasks and observed.tasks[name].status == "succeeded" for name in own):
        return None
    decided, known = graph.decisions.get(child.run.key), best.known(graph, child.run, observed)
    value = known[decided.best].accuracy.mean if decided and decided.best in known else None
    return RunState("Complete", validated=value)


def _line(trial: Trial, *, marked: bool) -> str:
    value = "no value" if trial.value is None else f"{100 * trial.value:.1f} on validation questions"
    return f"{'→' if marked else ' '} {trial.method}, trial {trial.number}: {', '.join(worded(trial.point))}: {value}"
