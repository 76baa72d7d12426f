"""Which exports of a run are to be made (spec.export): tasks beside its graph. Nothing waits for them, and none fails it. Pure.

A target gets what is there after each evaluated iteration, and all of it once the run is over. Each export sends whatever its
target lacks, so one at a time is enough: what is evaluated meanwhile goes with the next one, and so does what could not be sent.
A run that is suspended frees all pods, these too.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from maft.spec import ExportSpec
from maft_operator.plan.graph import Graph, Task, task_name
from maft_operator.plan.step import Observed, TaskState, pending

ATTEMPTS = 20  # of one export after its first: with Kubernetes' growing waits about an hour and a half
DEADLINE = 24 * 3600  # seconds of one export: one whose pod cannot start, for a Secret that there is not, would be for ever
_MEASURES = "evaluate"  # kind of the tasks after which there is something to show


@dataclass(frozen=True, slots=True)
class Past:
    """What became of the last export of a target that has ended, well or not."""

    iteration: int = 0
    """The last evaluated one of what was sent."""
    last: bool = False
    """It was all that the run has made."""


@dataclass(frozen=True, slots=True)
class Exports:
    """What to do about exports now."""

    delete: tuple[str, ...] = ()
    create: tuple[Task, ...] = ()


def task(graph: Graph, target: ExportSpec, iteration: int) -> Task:
    """Makes the task that sends a target what is there after an iteration. Its name goes by the target, not by its place in the
    list, which may change."""
    run, name = graph.last.run, task_name(graph.last.run, iteration, f"export-{_digest(target)}")
    return Task(name, "export", run, graph.last.store, iteration, group=run.group, export=target)


def last(graph: Graph, target: ExportSpec) -> Task:
    """Makes the task that sends a target all of it, once the run is over."""
    one = task(graph, target, graph.last.iteration)
    return replace(one, name=task_name(one.run, one.iteration, f"last-export-{_digest(target)}"), needs=(graph.last.name,))


def is_last(graph: Graph, export: Task) -> bool:
    """Tells whether nothing follows after it."""
    return graph.last.name in export.needs


def tasks(graph: Graph, target: ExportSpec) -> list[Task]:
    """Lists all that may be made for a target, in order."""
    return [*(task(graph, target, iteration) for iteration in range(1, graph.last.iteration + 1)), last(graph, target)]


def _digest(target: ExportSpec) -> str:
    return hashlib.sha256(target.target.encode()).hexdigest()[:6]


def evaluated(graph: Graph, observed: Observed) -> int:
    """Finds the last iteration that is evaluated; 0: none but the untrained model."""
    done = {name for name, state in observed.tasks.items() if state.status == "succeeded"} | observed.done
    return max((t.iteration for t in graph.tasks if t.kind == _MEASURES and t.name in done), default=0)


def due(graph: Graph, observed: Observed, target: ExportSpec, *, over: bool) -> Task | None:
    """Names the export that the target should have had by now; None: there is nothing to send, or all of it follows at once."""
    if over:
        return last(graph, target)
    iteration = evaluated(graph, observed)
    return task(graph, target, iteration) if iteration and pending(graph, observed) != (graph.last,) else None


def decide(graph: Graph, observed: Observed, states: Mapping[str, TaskState], past: Mapping[str, Past], *, over: bool) -> Exports:
    """Decides what to begin, and what nobody needs any more. states: of the exports that there are, by task; past: by target;
    over: the run has ended, and all of it goes."""
    create, kept = list[Task](), set[str]()
    for target in graph.last.run.spec.export:
        own = {t.name: states[t.name] for t in tasks(graph, target) if t.name in states}
        running = {name for name, state in own.items() if state.status == "running"}
        if graph.suspended and not over:
            kept |= own.keys() - running
            continue
        wanted, free = due(graph, observed, target, over=over), not running  # one at a time: two would write one marker
        if wanted and free and wanted.name not in own and not _is_done(wanted, past.get(target.target, Past()), over=over):
            create.append(wanted)
        else:
            kept |= own.keys()
    return Exports(tuple(sorted(states.keys() - kept)), tuple(create))


def _is_done(wanted: Task, before: Past, *, over: bool) -> bool:
    return before.last or (not over and before.iteration >= wanted.iteration)
