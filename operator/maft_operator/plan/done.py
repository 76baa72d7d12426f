"""Stages that are done although nothing of them exists any more, written small: iterations by stage, as `1-57,60`. Pure.

They come from the status, which outlives Jobs, and from what `prepare` found committed, which outlives the status.
"""

from collections.abc import Collection, Iterable, Mapping

from maft.summaries import AnySummary, Earlier, PrepareSummary, numbers_in, ranges
from maft_operator.plan.graph import Graph, ProgramName, Task, task_name, train_tasks
from maft_operator.plan.step import Observed
from maft_operator.spec.parse import Run

_KINDS: tuple[ProgramName, ...] = ("debate", "train", "evaluate", "diversity")  # whose outputs are committed by iteration


def stage(task: Task) -> str:
    """Names the stage of a task within its iteration, as its own name does: debate, train-3."""
    return task.name.removeprefix(f"{task.run.name}-{task.iteration}-")


def recorded(graph: Graph, record: Mapping[str, str]) -> frozenset[str]:
    """Names the tasks that the record says are done."""
    numbers = {name: numbers_in(text) for name, text in record.items()}
    return frozenset(t.name for t in _of_iterations(graph) if t.iteration in numbers.get(stage(t), ()))


def found(graph: Graph, summaries: Iterable[AnySummary]) -> frozenset[str]:
    """Names the tasks whose output `prepare` found committed."""
    reports = [summary.earlier for summary in summaries if isinstance(summary, PrepareSummary)]
    return frozenset(task.name for report in reports for task in _reported(graph, report))


def record(graph: Graph, done: Collection[str], before: Mapping[str, str]) -> dict[str, str]:
    """Writes down which tasks are done. before: the record until now, of which nothing is forgotten."""
    numbers = {name: set(numbers_in(text)) for name, text in before.items()}
    for task in _of_iterations(graph):
        if task.name in done:
            numbers.setdefault(stage(task), set()).add(task.iteration)
    return {name: ranges(iterations) for name, iterations in sorted(numbers.items()) if iterations}


def trained(run: Run, record: Mapping[str, str]) -> frozenset[int]:
    """Lists the iterations all of whose adapters are done, as the record says."""
    stages = [name.removeprefix(task_name(run, 1, "")) for name in train_tasks(run, 1)]
    return frozenset.intersection(*(numbers_in(record.get(name, "")) for name in stages))


def left_over(graph: Graph, observed: Observed, recorded_before: Mapping[str, str]) -> tuple[str, ...]:
    """Names tasks that nobody needs to see any more: those of an iteration that is done and recorded, once the next has begun.

    The checks are of iteration 0 and go first: where later Jobs have gone and the status is lost, `prepare` has to look again."""
    known, names = recorded(graph, recorded_before), list[str]()
    for iteration in range(graph.last.iteration):
        own = [task for task in graph.tasks if task.iteration == iteration]
        begun = any(t.name in observed.tasks for t in graph.tasks if t.iteration == iteration + 1)
        if not begun or not all(_is_over(task, observed, known) for task in own):
            break
        names += [task.name for task in own if task.name in observed.tasks]
    return tuple(names)


def _is_over(task: Task, observed: Observed, known: Collection[str]) -> bool:
    state = observed.tasks.get(task.name)
    ended = state is None or state.status == "succeeded"
    return ended and (task.name in known or task.kind not in _KINDS)


def _of_iterations(graph: Graph) -> list[Task]:
    return [task for task in graph.tasks if task.kind in _KINDS]


def _reported(graph: Graph, report: Earlier) -> list[Task]:
    by_kind: dict[ProgramName, frozenset[int]] = {
        "debate": numbers_in(report.debates),
        "evaluate": numbers_in(report.evaluations),
        "diversity": numbers_in(report.diversities),
    }
    agents: dict[int, frozenset[int]] = {}
    for iterations, text in report.adapters.items():
        agents |= dict.fromkeys(numbers_in(iterations), numbers_in(text))
    return [
        task
        for task in _of_iterations(graph)
        if task.iteration in (numbers_in(report.validated) if task.validates else by_kind.get(task.kind, ()))
        or (task.agents and agents.get(task.iteration, frozenset()) >= {*task.agents})
    ]
