"""When a run is looked at again: seconds, or None where an event will tell. Pure.

A look lists all that belongs to a run. A glance asks running tasks how far they are, and for Events about what waits, and nobody
else: it is enough where watches and Events tell of every change. The more runs there are, the longer between two, so that requests
stay few.
"""

from datetime import datetime
from typing import Any

from maft_operator.cluster.fields import time
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.reasons import is_at_limit
from maft_operator.plan.reconcile import Outcome
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json

LOOK = 10.0  # seconds between two looks at what no event tells of: a running stage's metrics, a quota, a Secret
CALM = 60.0  # the same where events will tell
_LISTED = 40.0  # runs of comparisons that are listed in a second at most, for what changes of them
_GLANCES, _LOOKS = 50.0, 14.0  # a second, of all runs together, at most; a look takes seven requests


def glances(runs: int) -> float:
    """Returns the seconds between two glances at one of so many runs."""
    return max(LOOK, runs / _GLANCES)


def looks(runs: int) -> float:
    """Returns the seconds between two looks at one of so many runs where no event will tell."""
    return max(LOOK, runs / _LOOKS)


def trusted(runs: int) -> float:
    """Returns the seconds for which a look at one of so many runs may be followed by glances."""
    return max(CALM, 4 * runs / _LOOKS)


def rest(runs: int) -> float:
    """Returns the seconds from a look at a comparison of so many runs to the next one for what changes of these."""
    return runs / _LISTED


def is_calm(outcome: Outcome[Snapshot]) -> bool:
    """Tells whether a run works and nothing of it waits, starts, ends or is refused: then glances will do."""
    step, snapshot, seen = outcome.step, outcome.snapshot, outcome.snapshot.observed
    running = {name for name, state in seen.tasks.items() if state.status == "running"}
    waits = step.create or step.delete or outcome.refusals or snapshot.troubles or snapshot.unexplained or snapshot.passing
    known = {name.partition("/")[0] for name in snapshot.metrics}
    return bool(running) and running <= known and not waits and all(server.ready for server in seen.servers.values())


def is_told(outcome: Outcome[Snapshot]) -> bool:
    """Tells whether what waits of a run does so for what pods, Jobs or Events tell, and the rest works: then glances will do, too.
    Not where a stage may take so many seconds only: nobody tells that a server's are over."""
    step, snapshot, seen = outcome.step, outcome.snapshot, outcome.snapshot.observed
    waiting = set(snapshot.unexplained.values())
    known = waiting | {name.partition("/")[0] for name in snapshot.metrics}
    working = {name for name, state in seen.tasks.items() if state.status == "running"}
    working |= {name for name, server in seen.servers.items() if not server.ready}
    changing = (
        step.create or step.delete or outcome.refusals or snapshot.passing or outcome.graph.last.run.spec.active_deadline_seconds
    )
    return bool(waiting) and working <= known and {trouble.child for trouble in snapshot.troubles} <= waiting and not changing


def next_look(outcome: Outcome[Snapshot], new: Json, run: Run, now: datetime, runs: int = 1) -> float | None:
    """Decides when the run is looked at again. new: its status; runs: how many there are."""
    if outcome.step.phase in ("Complete", "Failed"):
        return expiry(new, run.spec.ttl_seconds_after_finished, now)
    if outcome.step.phase == "Suspended":
        return None
    waits = outcome.refusals or outcome.snapshot.troubles or outcome.snapshot.unexplained or outcome.snapshot.passing
    if outcome.snapshot.metrics and is_calm(outcome):
        return glances(runs)
    return looks(runs) if outcome.snapshot.metrics or waits else max(CALM, looks(runs))


def sooner(*delays: float | None) -> float | None:
    """Returns the shortest delay, in seconds; None is for ever, and 0.0 at once."""
    return min((delay for delay in delays if delay is not None), default=None)


def expiry(state: Json, ttl: Any, now: datetime) -> float | None:
    """Counts the seconds until a finished run is to be removed; None: never, as where it took all that it may: a GitOps tool that
    makes it anew would have it taken again and again."""
    ended = time(state, "completionTime")
    if not isinstance(ttl, int) or not ended or is_at_limit(state):
        return None
    return ttl - (now - ended).total_seconds()
