"""What a run has taken (seconds, GPUs held times seconds, tokens), and whether that is more than spec.budget grants. Pure.

Servers and tasks go when they are done, and what they took with them; so it is counted on from look to look. Where the record
stands is the backend's: in the status on a cluster (cluster/spent.py), beside the logs on one machine (local/meter.py).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil

from maft.spec import BudgetSpec

STEP = 300.0  # seconds between two records where nothing changes: for people to read, counting on needs none
HOUR = 3600


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
    return float(ceil(max(0.0, min(left)))) if left else None  # what is spent is counted by whole seconds


def tokens_spent(budget: BudgetSpec, taken: int) -> str:
    """Says that the tokens are spent; nothing where there are some left. taken: read and written by debates that have ended."""
    if budget.tokens is None or taken < budget.tokens:
        return ""
    return f"spec.budget.tokens ({budget.tokens:,}) are spent: {taken:,} read and written"


def worded(spent: Spent) -> str:
    """Writes it as people read it: `2:05 h, 3.1 GPU h`."""
    hours, minutes = divmod(spent.seconds // 60, 60)
    gpus = f", {spent.gpu_seconds / HOUR:.1f} GPU h" if spent.gpu_seconds else ""
    return f"{hours}:{minutes:02d} h{gpus}"
