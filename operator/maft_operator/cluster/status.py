"""The status of a resource: what was decided and seen, as the fields that people and scripts read. Pure: the time comes in.

Called at the end of each reconcile by controller.py; equal snapshots give equal status. conditions.py and results.py make the
larger parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from maft_operator.cluster import conditions, earlier, placement, results, room, server_key, spent
from maft_operator.cluster.fields import count, lines, stamp, text, texts
from maft_operator.cluster.images import PRESUMED
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.placement import Pause
from maft_operator.cluster.room import Crowd
from maft_operator.cluster.rows import read as read_rows
from maft_operator.plan import budget
from maft_operator.plan import done as plan
from maft_operator.plan.budget import Spent
from maft_operator.plan.graph import Graph, ProgramName, Task
from maft_operator.plan.reconcile import Outcome
from maft_operator.plan.step import Step, pending
from maft_operator.plan.summaries import title
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json
from maft_operator.spec.skew import OPERATOR

GUESS = 0.05  # share of the work after which the time left is worth telling
_WEIGHTS: dict[ProgramName, float] = {  # of a stage in the run's work
    "prepare": 0.1,
    "preflight": 0.1,
    "report": 0.1,
    "train": 1.0,
    "debate": 1.0,
    "evaluate": 1.0,
    "diversity": 0.3,
    "compare": 0.1,
}


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile ends with."""

    run: Run
    graph: Graph
    outcome: Outcome[Snapshot]
    done: Mapping[str, tuple[float, float]]
    """By running task: units of work that are done, and in all."""
    notices: tuple[str, ...] = ()
    """What the operator makes less of than whoever wrote the resource, a line each."""
    pause: Pause = field(default_factory=Pause)
    crowd: Crowd = field(default_factory=Crowd)
    """Servers that were given back."""
    spent: Spent = field(default_factory=Spent)
    """What the run had taken at the look before."""
    exports: Sequence[Json] = ()
    """A row for each target that something was done for."""

    @property
    def step(self) -> Step:
        """Returns what was decided."""
        return self.outcome.step

    @property
    def snapshot(self) -> Snapshot:
        """Returns what it was decided from."""
        return self.outcome.snapshot

    def later(self, seconds: float) -> "Reconciled":
        """Returns the same so many seconds later."""
        running = {task.name for task in self.tasks("running")}
        longer = {name: taken + (seconds if name in running else 0) for name, taken in self.snapshot.seconds.items()}
        return replace(self, outcome=replace(self.outcome, snapshot=replace(self.snapshot, seconds=longer)))

    def tasks(self, status: str) -> list[Task]:
        """Lists the tasks in that state."""
        states = self.snapshot.observed.tasks
        return [task for task in self.graph.tasks if task.name in states and states[task.name].status == status]


def status(work: Reconciled, old: Json, generation: int, now: datetime) -> Json:
    """Makes the whole status. old: the one before, whose times and results are kept."""
    measured = results.rows(work.graph, work.snapshot, read_rows(old))
    rows = earlier.completed(measured, work.snapshot.summaries.values(), work.graph)
    done = plan.record(work.graph, _done(work), texts(old, "done"))
    wanted = conditions.wanted(work.outcome, rows, _stage(work))
    warnings = _warnings(work, lines(old, "warnings"))
    over = work.step.phase in ("Complete", "Failed")
    taken = budget.counted(work.spent, work.snapshot.gpus, now, counts=not over and work.step.phase != "Suspended")
    return {
        "observedGeneration": generation,
        "phase": work.step.phase,
        "iteration": _iteration(work),
        "progress": _progress(work, count(old, "progress", "percent"), now),
        "startTime": text(old, "startTime") or stamp(now),
        **({"completionTime": text(old, "completionTime") or stamp(now)} if over else {}),
        "conditions": conditions.conditions(wanted, old, generation, now),
        **({"warnings": warnings} if warnings else {}),
        **({"done": done} if done else {}),
        "spent": spent.written(taken),
        **({} if over else placement.written(work.pause) | room.written(work.crowd)),
        **({"model": {"bytes": work.snapshot.model_bytes}} if work.snapshot.model_bytes else {}),
        **({"images": images} if (images := work.snapshot.pins.status) else {}),
        **({server_key.STATUS: key} if (key := work.snapshot.server_key) else {}),
        **({"exports": [*work.exports]} if work.exports else {}),
        **({"iterations": rows} if rows else {}),
        **results.chosen(rows),
        **results.accuracies(work.run, rows),
        "artifacts": results.artifacts(work.run, rows, plan.trained(work.run, done)),
    }


def _done(work: Reconciled) -> set[str]:
    states = work.snapshot.observed.tasks
    return {*work.snapshot.observed.done, *(name for name, state in states.items() if state.status == "succeeded")}


def _warnings(work: Reconciled, old: Sequence[str]) -> list[str]:
    """The operator's own lines, of which those about what was lost stay, and then those of preflight."""
    lost = [line for line in old if line.startswith((PRESUMED, earlier.RESUMED))]
    pins = work.snapshot.pins
    lines = (*pins.warnings, *earlier.notices(work.snapshot.summaries.values(), pins, work.graph))
    own = [*work.notices, *lost, *(line for line in lines if line not in lost)]
    return own + results.warnings(work.snapshot, [line for line in old if not line.startswith(OPERATOR)])


def _iteration(work: Reconciled) -> Json:
    """The iteration of the first task that is not done, of how many; once the best is chosen, the last one that was begun."""
    total, decided = work.run.spec.iterations, work.graph.decisions.get(work.run.key)
    current = min((task.iteration for task in pending(work.graph, work.snapshot.observed)), default=total)
    current = decided.last if decided else current
    return {"current": current, "total": total, "text": f"{current}/{total}"}


# --- progress ---


def _progress(work: Reconciled, before: int, now: datetime) -> Json:
    """Never back: a stage that just ended has no metrics any more, and its Job does not count yet."""
    if work.step.phase == "Complete":
        return {"percent": 100, "text": "100 %"}
    share, seconds = _work_done(work)
    share = max(share, min(before / 100, 1.0))
    percent = int(100 * share)
    made: Json = {"percent": percent, "text": f"{percent} %"}
    if stage := _stage(work):
        made["stage"] = stage + _units(work)
    if share > GUESS and seconds and work.step.phase not in ("Suspended", "Failed"):
        left = round(seconds * (1 - share) / share / 10) * 10
        made |= {"eta": stamp(now + timedelta(seconds=left)), "text": f"{percent} %, {_clock(left)} left"}
    return made


def _work_done(work: Reconciled) -> tuple[float, float]:
    """Share of the run's work that is done, and the seconds that it took, judged by the Jobs that are left; agents that train side
    by side count once."""
    total = done = known = seconds = 0.0
    seen = work.snapshot.observed
    ahead, gone = {task.name for task in pending(work.graph, seen)}, seen.done.difference(seen.tasks)
    for task in work.graph.tasks:
        beside = sum(t.kind == task.kind and t.iteration == task.iteration for t in work.graph.tasks)
        weight = _WEIGHTS[task.kind] / beside
        part = _part_done(work, task) if task.name in ahead else 1.0
        total += weight
        if part is not None:
            done += weight * part
            known += weight * part if task.name not in gone else 0.0
            seconds += work.snapshot.seconds.get(task.name, 0.0) / beside
    return done / total, seconds * done / known if known else 0.0


def _part_done(work: Reconciled, task: Task) -> float | None:
    """Share of a pending task that is done; None where nobody knows."""
    units, total = work.done.get(task.name, (0.0, 0.0))
    return min(1.0, units / total) if total else None


def _stage(work: Reconciled) -> str:
    tasks = work.tasks("running")
    return ", ".join(title(t) for t in tasks[:2]) + (f" and {len(tasks) - 2} more" if len(tasks) > 2 else "")


def _units(work: Reconciled) -> str:
    parts = [work.done[t.name] for t in work.tasks("running") if t.name in work.done]
    return f" ({int(sum(p[0] for p in parts))} of {int(sum(p[1] for p in parts))})" if parts else ""


def _clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{int(seconds) % 60:02d}s"
