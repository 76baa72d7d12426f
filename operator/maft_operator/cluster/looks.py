"""When a run is looked at again: seconds, or None where an event will tell. Pure."""

from datetime import datetime
from typing import Any

from maft_operator.cluster.fields import time
from maft_operator.cluster.observed import Snapshot
from maft_operator.plan.reconcile import Outcome
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json

LOOK = 10.0  # seconds between two looks at what no event tells of: a running stage's metrics, a quota, a Secret
CALM = 60.0  # the same where events will tell


def next_look(outcome: Outcome[Snapshot], new: Json, run: Run, now: datetime) -> float | None:
    """Decides when the run is looked at again. new: its status."""
    if outcome.step.phase in ("Complete", "Failed"):
        return expiry(new, run.spec.ttl_seconds_after_finished, now)
    if outcome.step.phase == "Suspended":
        return None
    waits = outcome.refusals or outcome.snapshot.troubles or outcome.snapshot.unexplained or outcome.snapshot.passing
    return LOOK if outcome.snapshot.metrics or waits else CALM


def sooner(*delays: float | None) -> float | None:
    """Returns the shortest delay, in seconds; None is for ever, and 0.0 at once."""
    return min((delay for delay in delays if delay is not None), default=None)


def expiry(state: Json, ttl: Any, now: datetime) -> float | None:
    """Counts the seconds until a finished run is to be removed; None: never."""
    ended = time(state, "completionTime")
    if not isinstance(ttl, int) or not ended:
        return None
    return ttl - (now - ended).total_seconds()
