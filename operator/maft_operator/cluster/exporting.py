"""What became of a run's exports, from their Jobs and the status: rows of `status.exports`, and whether one is to come. Pure.

Exports stand beside the run: nothing of it waits for them. So their Jobs are told apart from its tasks before anything is read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from maft.spec import ExportSpec
from maft.summaries import ExportSummary, numbers_in
from maft_operator.cluster import indexes, jobs, reasons
from maft_operator.cluster.children import Child
from maft_operator.cluster.fields import count, is_true, part, parts, stamp, text
from maft_operator.cluster.manifests import COMPONENT
from maft_operator.plan import exports as plan
from maft_operator.plan.exports import Past
from maft_operator.plan.graph import Graph, Task
from maft_operator.plan.reconcile import Refusal
from maft_operator.plan.step import Observed, TaskState
from maft_operator.spec.schema import Json

WORDS = 1000  # characters of a message
LATE = f"not done within {plan.DEADLINE // 3600} hours"
_KIND = "export"
_ENDED = ("Sent", "Failed")  # phases


@dataclass(frozen=True, slots=True)
class Export:
    """One Job."""

    state: TaskState
    message: str = ""
    """Where it is now, or what keeps it from getting there."""


def apart(tasks: Iterable[Child], graph: Graph) -> tuple[list[Child], list[Child]]:
    """Tells the Jobs of the run's tasks from those of its exports, also of targets that it has no more."""
    names = {task.name for task in graph.tasks}
    beside = [t for t in tasks if t.name not in names and is_of_one(t.object)]
    return [t for t in tasks if t not in beside], beside


def is_of_one(job: Json) -> bool:
    """Tells whether the Job says that it is an export's: anybody may write labels."""
    return text(job, "metadata", "labels", COMPONENT) == _KIND


def read(tasks: Iterable[Child], now: datetime) -> dict[str, Export]:
    """Reads them, by task."""
    return {task.name: _read(task, now) for task in tasks}


def _read(task: Child, now: datetime) -> Export:
    ended = jobs.end(task, now) if jobs.has_failed(task, now) else None
    state = jobs.state(task, ended, now)
    if state.status == "succeeded":
        summary = indexes.summary(task.pods)
        return Export(state, summary.targets[0].place if isinstance(summary, ExportSummary) and summary.targets else "")
    troubles = [ended] if ended else jobs.troubles(task, now)
    late = ended is not None and ended.reason == reasons.DEADLINE_EXCEEDED
    return Export(state, LATE if late else troubles[0].message if troubles else "")


# --- in the status ---


def past(status: Json) -> dict[str, Past]:
    """Reads, by target, what of it was sent or given up."""
    return {_target(row): _past(row) for row in parts(status, "exports") if text(row, "phase") in _ENDED}


def _past(row: Json) -> Past:
    return Past(count(row, "iteration"), is_true(row, "last"))


def _target(row: Json) -> str:
    return f"{text(row, 'to')}={text(row, 'address')}"


def rows(graph: Graph, observed: Observed, exports: Mapping[str, Export], status: Json, now: datetime) -> list[Json]:
    """Makes a row for each target that something was done for. exports: those that there are, and those that were just begun;
    status: the one before."""
    before = {_target(row): row for row in parts(status, "exports")}
    reached = plan.evaluated(graph, observed)
    made = [_row(graph, target, exports, reached, before.get(target.target, {}), now) for target in graph.last.run.spec.export]
    return [row for row in made if row]


def _row(graph: Graph, target: ExportSpec, exports: Mapping[str, Export], reached: int, old: Json, now: datetime) -> Json:
    """Of the newest export; where none is left, the row before, if it says how one has ended."""
    task = next((t for t in reversed(plan.tasks(graph, target)) if t.name in exports), None)
    if task is None:
        return old if text(old, "phase") in _ENDED else {}
    export, last = exports[task.name], plan.is_last(graph, task)
    about = {
        "to": target.to,
        "address": target.address,
        "phase": _phase(export),
        "iteration": reached if last else task.iteration,
        "last": last,
    }
    same = all(old.get(name) == value for name, value in about.items())
    message = reasons.line(export.message, WORDS) or (text(old, "message") if same else "")  # its pod may have gone
    since = text(old, "time") if same else ""
    return {**about, **({"message": message} if message else {}), "time": since or stamp(now)}


def _phase(export: Export) -> str:
    if export.state.status == "running":
        return "Retrying" if export.state.failures or export.message else "Sending"
    return "Sent" if export.state.status == "succeeded" else "Failed"


def begun(created: Iterable[Task], refusals: Iterable[Refusal]) -> dict[str, Export]:
    """Reads what was just begun, or refused."""
    refused = {refusal.child: refusal.message for refusal in refusals}
    return {task.name: Export(TaskState("running"), refused.get(task.name, "")) for task in created}


def is_pending(resource: Mapping[str, Json]) -> bool:
    """Tells whether a run that is over still has something to send, or an export of a target that it has no more. One that failed
    before anything was evaluated sends nothing."""
    status, spec = resource.get("status") or {}, resource.get("spec") or {}
    ended, targets = past(status), {_target(target) for target in parts(spec, "export")}
    if {_target(row) for row in parts(status, "exports")} - targets:
        return True
    return has_results(status) and not all(ended.get(target, Past()).last for target in targets)


def has_results(status: Json) -> bool:
    """Tells whether a run that is over has made anything that targets show."""
    complete = any(text(c, "type") == "Complete" and text(c, "status") == "True" for c in parts(status, "conditions"))
    done = part(status, "done")
    measured = (numbers_in(text(done, stage)) - {0} for stage in ("evaluate", "validate"))
    return complete or any(measured)
