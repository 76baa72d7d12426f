"""Servers that do not all find a node are given back, so that two runs never hold half of what each needs for ever. Pure.

A run's servers are of use together alone. Where some have a node and others have waited for one longer than
inference.placementSeconds, or are refused their pods by a quota for as long, all of them go, and come again after a pause that
grows, and differs from run to run. The record of it
stands in the status. Where a queue admits servers together (kueue.py) there is nothing to do: what waits has no node at all.
room.py does the same where it is debates that wait.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from maft_operator.cluster import reasons
from maft_operator.cluster.fields import count, seconds, stamp, text, time, true_condition
from maft_operator.cluster.pods import SCALED, is_active, is_terminating, unscheduled
from maft_operator.cluster.reasons import Trouble
from maft_operator.plan.graph import Graph
from maft_operator.plan.step import Observed
from maft_operator.spec.schema import Json

FIRST, MOST = 30.0, 600.0  # seconds: the first pause, and the longest; each is half as long to half as long again
_DOUBLED = 5  # times, after which a pause is as long as any
_MOST_TIMES = 10**6  # in a status that somebody else wrote


@dataclass(frozen=True, slots=True)
class Places:
    """How the pods of a run's servers stand with nodes."""

    held: int = 0
    """Pods that have one."""
    waited: float = 0.0
    """Seconds that the one that has waited longest for one, or that a quota has refused for longest, has."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What became of servers that were given back, and of debates that found no room beside them (room.py)."""

    times: int = 0
    """In a row, since all of them were ready, or a debate had room."""
    until: datetime | None = None
    """When they come again; None: they may be there."""
    since: datetime | None = None
    """Since when nodes or room are missing: new Deployments, Jobs and pods know nothing of it."""

    def holds(self, now: datetime) -> bool:
        """Tells whether servers stay away."""
        return self.until is not None and now < self.until

    def next_look(self, graph: Graph, now: datetime) -> float | None:
        """Counts the seconds until something is to be done: at once where servers are to go, and when they come again."""
        if self.until is None or not self.holds(now):
            return None
        return (self.until - now).total_seconds() if graph.held else 0.0


def places(pods: Iterable[Json], now: datetime, deployments: Iterable[Json] = ()) -> Places:
    """Counts the pods of servers by whether a scheduler has found a node. deployments: of servers that are not ready; pods that a
    quota refuses stand in their conditions alone."""
    there = [pod for pod in pods if not is_terminating(pod) and is_active(pod)]
    held = sum(bool(text(pod, "spec", "nodeName")) for pod in there)
    waited = [*(_waited(pod, now) for pod in there), *(_refused(deployment, now) for deployment in deployments)]
    return Places(held, max(waited, default=0.0))


def _waited(pod: Json, now: datetime) -> float:
    """Not those that a queue holds back: they have been promised nothing yet."""
    condition = unscheduled(pod)
    return max(0.0, seconds(condition, "lastTransitionTime", until=now)) if text(condition, "reason") == "Unschedulable" else 0.0


def _refused(deployment: Json, now: datetime) -> float:
    """A quota alone: what else refuses a pod does not let it in when others go."""
    condition = true_condition(deployment, "ReplicaFailure")
    over_quota = reasons.text_reason(text(condition, "message")) is reasons.QUOTA_EXCEEDED
    return max(0.0, seconds(condition, "lastTransitionTime", until=now)) if over_quota else 0.0


def decided(before: Pause, graph: Graph, observed: Observed, places: Places, run: str, now: datetime) -> Pause:
    """Decides whether servers go back now. run: its uid, from which the length of the pause is drawn."""
    patience = graph.patience
    if before.holds(now):
        return before
    if observed.servers and all(server.ready for server in observed.servers.values()):
        return Pause()
    if not patience or places.waited < patience or not places.held or _asked(graph, observed):
        return replace(before, until=None)
    times, since = before.times + 1, before.since or now.replace(microsecond=0) - timedelta(seconds=int(places.waited))
    until = now.replace(microsecond=0) + timedelta(seconds=math.ceil(pause(run, times)))  # whole seconds, as the API writes times
    return Pause(times, until, since)


def pause(run: str, times: int) -> float:
    """Draws the seconds of a pause: equal for equal runs, different between runs that meet."""
    share = int.from_bytes(hashlib.sha256(f"{run}/{times}".encode()).digest()[:4]) / 2**32
    return min(MOST, FIRST * 2.0 ** min(times - 1, _DOUBLED)) * (0.5 + share)


def _asked(graph: Graph, observed: Observed) -> bool:
    """Whether a debate is under way: it waits for a server that was lost, and the others have what it asked them."""
    running = {name for name, state in observed.tasks.items() if state.status == "running" and not state.waits}
    return not graph.askers.isdisjoint(running)


# --- in the status ---


def given_back(status: Json, record: str, now: datetime) -> tuple[int, datetime | None]:
    """Reads how often servers were given back in a row, and until when they stay away. An end later than any pause has counts as
    none: a clock that ran ahead wrote it, or somebody else."""
    times, until = min(count(status, record, "givenBack"), _MOST_TIMES), time(status, record, "until")
    return times, until if until is not None and (until - now).total_seconds() <= MOST * 1.5 else None


def read(status: Json, now: datetime) -> Pause:
    """Reads the record."""
    since = time(status, "servers", "since")
    return Pause(*given_back(status, "servers", now), min(since, now) if since else None)


def written(pause: Pause) -> Json:
    """Makes the record; nothing where there is nothing to say."""
    if not pause.times:
        return {}
    times = {"until": pause.until, "since": pause.since}
    return {"servers": {"givenBack": pause.times, **{name: stamp(moment) for name, moment in times.items() if moment}}}


def troubles(pause: Pause, graph: Graph, now: datetime) -> tuple[Trouble, ...]:
    """Says that servers were given back, until all of them are ready. It blocks where that has been so for long, and not once."""
    if not pause.times:
        return ()
    again = f"; they come again at {pause.until:%H:%M:%S} UTC" if pause.holds(now) else "; they are tried again"
    message = f"not all servers found a node, or quota, within {graph.patience} s, {pause.times} times in a row{again}"
    for_long = pause.since is not None and (now - pause.since).total_seconds() > SCALED
    return (Trouble("", reasons.SERVERS_GIVEN_BACK, message, blocking=pause.times > 1 and for_long),)
