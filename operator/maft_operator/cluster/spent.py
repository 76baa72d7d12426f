"""What a run has taken: seconds, and GPUs that its pods held times seconds; whether that is more than spec.budget grants. Pure.

Servers and Jobs go when they are done, and what they took with them; so it is counted on from look to look. The record stands in
the status, anew where the number of GPUs changes: whoever looks next counts on from there, also an operator that has just started.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from maft.spec import BudgetSpec
from maft_operator.cluster.children import Child
from maft_operator.cluster.fields import count, part, parts, stamp, text, time
from maft_operator.cluster.pods import is_active
from maft_operator.cluster.quantities import amount
from maft_operator.plan.graph import Graph, on_cluster
from maft_operator.spec.schema import Json

STEP = 300.0  # seconds between two records where nothing changes: for people to read, counting on needs none
HOUR = 3600
_GPU = re.compile(r"/(gpu|mig-)")  # nvidia.com/gpu, amd.com/gpu, nvidia.com/gpu.shared, nvidia.com/mig-1g.10gb


@dataclass(frozen=True, slots=True)
class Spent:
    """What was taken until a moment, and what is held since."""

    seconds: int = 0
    """While the run was not suspended."""
    gpu_seconds: int = 0
    gpus: int = 0
    """Held since then."""
    at: datetime | None = None
    """Until when it is counted; None: nothing counts, for the run is new, suspended or over."""

    def until(self, now: datetime) -> "Spent":
        """Counts on. A clock that was ahead takes nothing back."""
        passed = int((now - self.at).total_seconds()) if self.at else 0
        if self.at is None or passed <= 0:
            return self
        at = self.at + timedelta(seconds=passed)
        return Spent(self.seconds + passed, self.gpu_seconds + self.gpus * passed, self.gpus, at)


def held(graph: Graph, children: Iterable[Child]) -> int:
    """Counts the GPUs of pods that have a node, also while they start or end."""
    each = {task.name: on_cluster(task).gpus or 0 for task in graph.tasks}
    each |= {server.name: on_cluster(server).gpus or 0 for server in graph.servers}
    return sum(max(each.get(child.name, 0), _named(pod)) for child in children for pod in child.pods if _holds(pod))


def _named(pod: Json) -> int:
    """GPUs that its containers name: podTemplates and webhooks may ask for more than the spec does."""
    limits = [part(container, "resources", "limits") for container in parts(pod, "spec", "containers")]
    return sum(int(amount(value) or 0) for each in limits for name, value in each.items() if _GPU.search(name))


def _holds(pod: Json) -> bool:
    return is_active(pod) and bool(text(pod, "spec", "nodeName"))


def counted(before: Spent, gpus: int, now: datetime, *, counts: bool) -> Spent:
    """Makes the record of a look. gpus: held now; counts: neither suspended nor over."""
    current = before.until(now)
    if not counts:
        return replace(current, gpus=0, at=None)
    if current.at is None:
        return replace(current, gpus=gpus, at=now.replace(microsecond=0))
    same = gpus == before.gpus and before.at is not None and (current.at - before.at).total_seconds() < STEP
    return before if same else replace(current, gpus=gpus)


# --- the budget ---


def exceeded(budget: BudgetSpec, spent: Spent, now: datetime) -> str:
    """Says which budget is spent; nothing where there is some left."""
    current = spent.until(now)
    if budget.seconds is not None and current.seconds >= budget.seconds:
        return f"spec.budget.seconds ({budget.seconds}) are over: {worded(current)}"
    if budget.gpu_hours is not None and current.gpu_seconds >= budget.gpu_hours * HOUR:
        return f"spec.budget.gpuHours ({budget.gpu_hours:.12g}) are spent: {worded(current)}"
    return ""


def next_look(budget: BudgetSpec, spent: Spent, now: datetime) -> float | None:
    """Counts the seconds until a budget is spent, if things stay as they are; None: never."""
    current = spent.until(now)
    left = [] if current.at is None or budget.seconds is None else [float(budget.seconds - current.seconds)]
    if current.at is not None and budget.gpu_hours is not None and current.gpus:
        left.append((budget.gpu_hours * HOUR - current.gpu_seconds) / current.gpus)
    return max(0.0, min(left)) if left else None


# --- in the status ---


def read(status: Json, now: datetime) -> Spent:
    """Reads the record. A time that is still to come counts as now: a clock that ran ahead wrote it, or somebody else."""
    at = time(status, "spent", "at")
    seconds, gpu_seconds, gpus = (max(0, count(status, "spent", name)) for name in ("seconds", "gpuSeconds", "gpus"))
    return Spent(seconds, gpu_seconds, gpus if at else 0, min(at, now.replace(microsecond=0)) if at else None)


def written(spent: Spent) -> Json:
    """Makes the record."""
    since = {"gpus": spent.gpus, "at": stamp(spent.at)} if spent.at else {}
    return {"seconds": spent.seconds, "gpuSeconds": spent.gpu_seconds, "text": worded(spent), **since}


def worded(spent: Spent) -> str:
    """Writes it as people read it: `2:05 h, 3.1 GPU h`."""
    hours, minutes = divmod(spent.seconds // 60, 60)
    gpus = f", {spent.gpu_seconds / HOUR:.1f} GPU h" if spent.gpu_seconds else ""
    return f"{hours}:{minutes:02d} h{gpus}"
