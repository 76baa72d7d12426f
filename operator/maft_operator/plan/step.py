"""Decides: a graph and the observed states become the next step. Pure: no clock, no I/O.

The same function drives the cluster, this machine and the tests. A reconcile asks it again and again; nothing is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from maft.summaries import BAD_INPUT, Validation
from maft_operator.plan.graph import Graph, ProgramName, Server, Task

Phase = Literal["Preparing", "Serving", "Debating", "Training", "Evaluating", "Reporting", "Suspended", "Complete", "Failed"]
CHECKS: tuple[ProgramName, ...] = ("prepare", "preflight")  # before anything expensive


@dataclass(frozen=True, slots=True)
class TaskState:
    """What became of a task."""

    status: Literal["running", "succeeded", "failed"]
    """Of its last attempt."""
    failures: int = 0
    """Attempts that failed."""
    exit_code: int = 0
    """Of the last one that did, as the next one."""
    message: str = ""
    lingers: bool = False
    """Its program has ended, and something is left of it that does not end by itself."""
    waits: bool = False
    """No program of it has room: no node, or no place in a quota or a queue."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server that exists."""

    ready: bool
    failed: bool = False
    """A replica ended or hung and has not been started again yet."""
    failures: int = 0
    exit_code: int = 0
    message: str = ""
    queued: bool = False
    """It was not admitted, or made room for others, and waits in a queue: for hours, maybe."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What exists, by name."""

    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    servers: Mapping[str, ServerState] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    """Tasks that are known to be done, whether anything of them is left or not."""
    validations: Mapping[str, Validation] = field(default_factory=dict)
    """By task: what it said of an iteration, whether anything of it is left or not."""
    tokens: int = 0
    """Read and written by debates so far."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, and what to tell people. Deleting comes before creating."""

    delete: tuple[str, ...]
    create: tuple[Task | Server, ...]
    phase: Phase
    keep: tuple[Task | Server, ...] = ()
    """What exists and has to stay as it was made."""
    message: str = ""
    failed_child: str = ""
    """The child that made the run fail; empty where its budget did."""


def step(graph: Graph, observed: Observed) -> Step:
    """Decides what to delete, create and keep now, and the phase that people see."""
    everything = (*observed.servers, *(n for n, t in observed.tasks.items() if t.status == "running" or t.lingers))
    if failure := _failure(graph, observed):
        child, message = failure
        return Step(everything, (), "Failed", message=f"{child}: {message}", failed_child=child)
    unfinished = pending(graph, observed)
    if not unfinished:
        return Step(everything, (), "Complete")
    if graph.suspended:
        return Step(everything, (), "Suspended")
    if graph.spent and unfinished != (graph.last,):  # the report of what was paid for costs next to nothing
        return Step(everything, (), "Failed", message=graph.spent)
    now = runnable(unfinished, observed)
    if any(t.kind in CHECKS for t in now):
        # Nothing expensive before the input and the model are known to be good; what works already goes on.
        now = [t for t in now if t.kind in CHECKS or t.name in observed.tasks]
        unfinished = tuple(now)
    wanted = _wanted(graph, observed, now, unfinished)
    delete = (*_in_vain(graph, now, observed), *(name for name in observed.servers if name not in wanted))
    create: tuple[Task | Server, ...] = (
        *(s for s in graph.servers if s.name in wanted and (s.name not in observed.servers or observed.servers[s.name].failed)),
        *(t for t in now if _may_start(graph, t, observed)),
    )
    return Step(delete, create, _phase(now, observed), _kept(graph, observed, {*delete, *(item.name for item in create)}))


def pending(graph: Graph, observed: Observed) -> tuple[Task, ...]:
    """Lists the tasks that are still to be done, in order: those that have not succeeded and that something waits for.

    What has begun waits for nothing: so a task that a newer release puts in front of a debate is passed over in a run that has
    held it."""
    awaited, remaining = {graph.last.name}, []
    for task in reversed(graph.tasks):  # what needs a task comes after it
        if task.name in awaited and not _succeeded(observed, task.name):
            remaining.append(task)
            awaited.update(() if _begun(observed, task) else task.needs)
    return tuple(reversed(remaining))


def runnable(unfinished: Iterable[Task], observed: Observed) -> list[Task]:
    """Lists those of them that wait for no other one. unfinished: what is pending."""
    return [t for t in unfinished if _begun(observed, t) or all(_succeeded(observed, need) for need in t.needs)]


def _begun(observed: Observed, task: Task) -> bool:
    return task.name in observed.tasks or task.name in observed.done


def _in_vain(graph: Graph, tasks: Iterable[Task], observed: Observed) -> tuple[str, ...]:
    """Tasks that run and ask servers that wait in a queue, or wait themselves while servers stay away: they would give up, and hold
    what the servers may need. They go on from what they had finished."""
    queued = {name for name, server in observed.servers.items() if server.queued}
    running = [(t, state) for t in tasks if (state := observed.tasks.get(t.name)) and state.status == "running"]
    return tuple(t.name for t, state in running if queued & {*t.servers} or (graph.held and t.servers and state.waits))


def _kept(graph: Graph, observed: Observed, others: set[str]) -> tuple[Task | Server, ...]:
    """Tasks that run and servers, apart from those that something else is done to."""
    running = {name for name, state in observed.tasks.items() if state.status == "running"}
    there = {*running, *observed.servers} - others
    items: tuple[Task | Server, ...] = (*graph.tasks, *graph.servers)
    return tuple(item for item in items if item.name in there)


def _succeeded(observed: Observed, task: str) -> bool:
    """Whether it is done. A program that still runs at what is done ends by itself, so it is waited for."""
    state = observed.tasks.get(task)
    running = state is not None and state.status == "running"
    return (task in observed.done and not running) or (state is not None and state.status == "succeeded")


def _failure(graph: Graph, observed: Observed) -> tuple[str, str] | None:
    """The child that failed for good, and what it said."""
    for task in graph.tasks:
        state = observed.tasks.get(task.name)
        if state and state.status == "failed" and task.name not in observed.done and _for_good(graph, state):
            return task.name, state.message
    for server in graph.servers:
        replicas = observed.servers.get(server.name)
        if replicas and replicas.failed and _for_good(graph, replicas):
            return server.name, replicas.message
    return None


def _for_good(graph: Graph, state: TaskState | ServerState) -> bool:
    return state.exit_code == BAD_INPUT or state.failures > graph.backoff_limit


def _wanted(graph: Graph, observed: Observed, runnable: Iterable[Task], unfinished: Iterable[Task]) -> set[str]:
    """Servers to have: those that something runnable asks, and with lifetime Run also those that something will ask."""
    if graph.held:
        running = {name for name, state in observed.tasks.items() if state.status == "running" and not state.waits}
        runnable = unfinished = [t for t in runnable if t.name in running]
    askers = runnable if graph.servers_release_gpus else unfinished
    return {server for task in askers for server in task.servers}


def _may_start(graph: Graph, task: Task, observed: Observed) -> bool:
    state = observed.tasks.get(task.name)
    if state and state.status != "failed":
        return False
    if graph.servers_release_gpus and task.kind in ("train", "diversity") and observed.servers:
        return False
    if graph.held and task.servers:  # those that are still there, for what asks them, go after it
        return False
    return all(server in observed.servers and observed.servers[server].ready for server in task.servers)


def _phase(runnable: Iterable[Task], observed: Observed) -> Phase:
    phases: dict[ProgramName, Phase] = {
        "prepare": "Preparing",
        "preflight": "Preparing",
        "debate": "Debating",
        "train": "Training",
        "evaluate": "Evaluating",
        "report": "Reporting",
        "compare": "Reporting",
        "diversity": "Evaluating",
    }
    order: tuple[ProgramName, ...] = ("prepare", "preflight", "debate", "evaluate", "train", "diversity", "report", "compare")
    tasks = sorted(runnable, key=lambda t: order.index(t.kind))
    if not tasks:  # all waits for trials of a search that are about to be added
        return "Evaluating"
    first = tasks[0]
    waiting = any(s not in observed.servers or not observed.servers[s].ready for s in first.servers)
    return "Serving" if waiting else phases[first.kind]
