"""What is left of a graph once validation questions have chosen, and what a budget of tokens leaves of it. Pure.

A graph has the held-out debate of every iteration that may be the best. Here those are left out that nobody waits for: all of them
until it is decided, then all but one, and with them the iterations after the last one that counts. The decision itself is
maft.stopping's, which the report shares; from equal summaries it is equal, after any restart.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from maft import stopping
from maft.stopping import Decision
from maft.summaries import AnySummary, DebateSummary, EvaluateSummary, Validation
from maft_operator.plan.budget import tokens_spent
from maft_operator.plan.graph import Graph, Task
from maft_operator.plan.step import Observed
from maft_operator.spec.parse import Run


def settled(graph: Graph, observed: Observed) -> Graph:
    """Leaves out what is not to be done, as far as that is known by now."""
    runs = {task.run.key: task.run for task in graph.tasks if task.validates}
    decisions = {key: decided for key, run in runs.items() if (decided := decision(graph, run, observed))}
    names = {task.name for task in graph.tasks if task.run.key in runs and _is_left_out(task, decisions.get(task.run.key))}
    tasks = tuple(_without(task, names) for task in graph.tasks if task.name not in names) if names else graph.tasks
    spent = graph.spent or tokens_spent(graph.last.run.spec.budget, observed.tokens)
    return replace(graph, tasks=tasks, decisions=decisions, spent=spent)


def known(graph: Graph, run: Run, observed: Observed) -> dict[int, Validation]:
    """Finds what is known of the run's validation questions, by iteration."""
    tasks = (task for task in graph.tasks if task.validates and task.run.key == run.key)
    return {task.iteration: observed.validations[task.name] for task in tasks if task.name in observed.validations}


def decision(graph: Graph, run: Run, observed: Observed) -> Decision | None:
    """Decides for one run; None while that cannot be decided. A debate that is recorded as done tells nothing more."""
    lost = {task.iteration for task in graph.tasks if task.validates and task.run.key == run.key and task.name in observed.done}
    return stopping.decision(run.spec, known(graph, run, observed), lost)


def validations(summaries: Mapping[str, AnySummary | None]) -> dict[str, Validation]:
    """Finds what tasks have said about validation questions, by their names."""
    evaluated = {name: summary.validation for name, summary in summaries.items() if isinstance(summary, EvaluateSummary)}
    return {name: validation for name, validation in evaluated.items() if validation}


def tokens(summaries: Iterable[AnySummary | None]) -> int:
    """Counts what debates have read and written."""
    usages = [s.usage for s in summaries if isinstance(s, DebateSummary | EvaluateSummary)]
    return sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)


def of_the_best(task: Task) -> bool:
    """Tells whether it is done of one iteration alone, the one that validation questions choose."""
    return task.kind in ("evaluate", "diversity") and not task.validates and task.run.spec.validated(task.iteration)


def _is_left_out(task: Task, decided: Decision | None) -> bool:
    if decided is None:
        return of_the_best(task)
    other = of_the_best(task) and task.iteration != decided.best
    return other or (task.iteration > decided.last and task.kind != "report")


def _without(task: Task, names: Collection[str]) -> Task:
    return replace(task, needs=tuple(need for need in task.needs if need not in names))
