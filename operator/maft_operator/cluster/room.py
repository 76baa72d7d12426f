"""Servers beside which no debate finds room are given back, so that runs that fill a queue with servers do not wait for ever. Pure.

Kueue admits the servers of a run together (kueue.py) and knows nothing of the debate that will ask them; so it is with quotas and
nodes. Where all servers are ready and no debate has had room for inference.placementSeconds, they go, and come again after a pause,
as servers do that find no nodes (placement.py). Each time a debate is waited for twice as long: it loses its place in the queue.
Since when debates wait is seen from look to look, and stands in the status; how old their Jobs are says nothing of it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from maft_operator.cluster import reasons
from maft_operator.cluster.fields import stamp, text, time
from maft_operator.cluster.placement import Pause, given_back, pause
from maft_operator.cluster.pods import SCALED
from maft_operator.cluster.reasons import Trouble
from maft_operator.plan.graph import Graph
from maft_operator.plan.step import Observed, pending, runnable
from maft_operator.spec.schema import Json

_LACKING = (reasons.UNSCHEDULABLE, reasons.QUOTA_EXCEEDED, reasons.QUEUED)
_DOUBLED = 5  # times, after which it is not waited longer
_WORDS = 300  # characters of a message that are kept


@dataclass(frozen=True, slots=True)
class Crowd(Pause):
    """What became of debates that found no room. since: None where one has, or there is none."""

    waits: datetime | None = None
    """Since when one has waited beside servers that are ready."""
    message: str = ""
    """What the last one that waited was told."""

    def next_look(self, graph: Graph, now: datetime) -> float | None:
        """Counts the seconds until servers are to go, at once where that is decided, or to come again; None: never."""
        if self.holds(now):
            return Pause.next_look(self, graph, now)  # a dataclass with slots is made anew, which super() does not hear of
        patience = _patience(self, graph)
        return max(0.0, patience - (now - self.waits).total_seconds()) if self.waits and patience else None


def decided(before: Crowd, graph: Graph, observed: Observed, troubles: Iterable[Trouble], run: str, now: datetime) -> Crowd:
    """Decides whether servers go back now. run: its uid, from which the length of the pause is drawn."""
    askers = graph.askers
    asking = {name: state for name, state in observed.tasks.items() if state.status == "running" and name in askers}
    by_task = {trouble.child: trouble for trouble in troubles if trouble.child in asking}
    placed = any(not state.waits for state in asking.values())
    if graph.suspended or placed or any(trouble.reason not in _LACKING for trouble in by_task.values()):
        return Crowd()
    if before.holds(now):
        return before
    before = replace(before, until=None)
    if not asking:  # servers come again, or all that asked them is done
        return replace(before, waits=None) if _asked_for(graph, observed) else Crowd()
    if len(by_task) < len(asking):  # nobody has looked at it yet
        return before
    first = next(iter(by_task.values()))
    return _waiting(replace(before, message=first.message[:_WORDS]), graph, observed, run, now)


def _asked_for(graph: Graph, observed: Observed) -> bool:
    return any(task.servers for task in runnable(pending(graph, observed), observed))


def _waiting(before: Crowd, graph: Graph, observed: Observed, run: str, now: datetime) -> Crowd:
    """No debate has room."""
    now = now.replace(microsecond=0)  # as the API writes times
    ready = bool(observed.servers) and all(server.ready for server in observed.servers.values())
    waiting = replace(before, since=before.since or now, waits=(before.waits or now) if ready else None)
    patience = _patience(before, graph)
    if waiting.waits is None or not patience or (now - waiting.waits).total_seconds() < patience:
        return waiting
    until = now + timedelta(seconds=math.ceil(pause(run, before.times + 1)))
    return replace(waiting, times=before.times + 1, until=until, waits=None)


def _patience(crowd: Crowd, graph: Graph) -> float:
    return graph.patience * 2.0 ** min(crowd.times, _DOUBLED)


# --- in the status ---


def read(status: Json, now: datetime) -> Crowd:
    """Reads the record. What begins later than now began now, whoever wrote it."""
    times, until = given_back(status, "room", now)
    since, waits = (min(moment, now) if (moment := time(status, "room", name)) else None for name in ("since", "waits"))
    return Crowd(max(0, times), until, since, waits, text(status, "room", "message")[:_WORDS])


def written(crowd: Crowd) -> Json:
    """Makes the record; nothing where there is nothing to say."""
    if crowd.since is None:
        return {}
    times = {name: stamp(moment) for name in ("until", "since", "waits") if (moment := getattr(crowd, name))}
    return {"room": {"givenBack": crowd.times, **times, "message": crowd.message}}


def troubles(crowd: Crowd, graph: Graph, now: datetime) -> tuple[Trouble, ...]:
    """Says that servers were given back for it, until a debate has room. It blocks where that has been so for long, not once."""
    if not crowd.times:
        return ()
    again = f"they come again at {crowd.until:%H:%M:%S} UTC" if crowd.holds(now) else "they are tried again"
    message = (
        f"servers were given back {crowd.times} times in a row, for no debate found room beside them ({crowd.message}); {again}"
    )
    for_long = crowd.since is not None and (now - crowd.since).total_seconds() > SCALED
    return (Trouble("", reasons.DEBATES_LACK_ROOM, message, blocking=crowd.times > 1 and for_long),)
