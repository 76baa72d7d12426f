"""Servers that do not all find a node: when they are given back, for how long, and that two runs get out of each other's way."""

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from kube_objects import START, a_run, at, condition, deployment, pod, snapshot

from maft_operator.cluster import placement
from maft_operator.cluster.placement import Pause, Places
from maft_operator.plan.graph import graph
from maft_operator.plan.step import Observed, ServerState, TaskState

GRAPH = replace(graph(a_run(), "s3://b"), patience=300)
SERVER = GRAPH.servers[0].name
WAITS = Observed({}, {SERVER: ServerState(ready=False)})
HALF = Places(held=2, waited=400)


def later(seconds: float):
    return START + timedelta(seconds=seconds)


def waiting(child: str, since: int, *, reason: str = "Unschedulable"):
    return pod(child, "Pending", conditions=[condition("PodScheduled", "False", reason=reason, seconds=since)])


def placed(child: str, phase: str = "Running", *, container: str = "debate"):
    made = pod(child, phase, container=container)
    return {**made, "spec": {**made["spec"], "nodeName": "n"}}


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], Places()),
        ([placed("a"), waiting("b", 10), waiting("c", 40)], Places(1, 90)),
        ([placed("a"), placed("b", "Pending")], Places(2, 0)),
        ([placed("a", "Failed"), waiting("b", 0)], Places(0, 100)),  # an evicted pod holds nothing
        ([waiting("a", 0, reason="SchedulingGated")], Places()),  # a queue has promised nothing
        ([pod("a", "Pending")], Places()),  # nobody has looked at it yet
    ],
)
def test_who_has_a_node(pods, expected) -> None:
    assert placement.places(pods, later(100)) == expected


OVER = 'pods "b-7" is forbidden: exceeded quota: shared, requested: pods=1, used: pods=4, limited: pods=4'


def refused(message: str = OVER, status: str = "True"):
    return deployment(condition("ReplicaFailure", status, reason="FailedCreate", message=message, seconds=40))


@pytest.mark.parametrize(
    ("made", "waited"),
    [
        (refused(), 60),
        (refused(status="False"), 0),
        (refused('pods "b-7" is forbidden: violates PodSecurity "restricted:latest"'), 0),  # that others go would not help
        (deployment(), 0),
    ],
)
def test_pods_that_a_quota_refuses_wait_too(made, waited: float) -> None:
    assert placement.places([placed("a")], later(100), [made]) == Places(1, waited)


def test_a_run_that_a_quota_lets_in_by_half_gives_back_what_it_holds() -> None:
    """Only while the server lacks pods: a refused one more beside those that are wanted is nothing to wait for."""
    half = snapshot(a_run(), {**refused(), "spec": {"replicas": 2}}, placed(SERVER, container="inference"), now=400)
    assert half.places == Places(1, 360)
    assert placement.decided(Pause(), GRAPH, half.observed, half.places, "uid", later(400)).holds(later(400))
    ready = deployment(*refused()["status"]["conditions"], ready=1)
    assert snapshot(a_run(), ready, placed(SERVER, container="inference"), now=400).places == Places(1, 0)


def test_pods_that_go_hold_nothing() -> None:
    going = placed("a")
    going["metadata"]["deletionTimestamp"] = at(0)
    assert placement.places([going], later(100)) == Places()


@pytest.mark.parametrize(
    ("observed", "places", "goes"),
    [
        (WAITS, HALF, True),
        (WAITS, Places(held=2, waited=299), False),
        (WAITS, Places(held=0, waited=4000), False),  # nothing to give back
        (Observed({}, {SERVER: ServerState(ready=True)}), HALF, False),
        (Observed({"r-1-debate": TaskState("running")}, WAITS.servers), HALF, False),  # it would lose what it asked
        (Observed({"r-1-train-0": TaskState("running")}, WAITS.servers), HALF, True),
    ],
)
def test_when_they_are_given_back(observed: Observed, places: Places, goes: bool) -> None:
    decided = placement.decided(Pause(), GRAPH, observed, places, "uid", START)
    assert decided.holds(START) == goes and decided.times == int(goes)


def test_without_a_limit_they_wait() -> None:
    assert placement.decided(Pause(), replace(GRAPH, patience=0), WAITS, HALF, "uid", START) == Pause()


def test_pauses_grow_and_end_when_all_are_ready() -> None:
    now, pause, pauses = START, Pause(), []
    for _ in range(8):
        pause = placement.decided(pause, GRAPH, WAITS, HALF, "uid", now)
        assert pause.until is not None and placement.decided(pause, GRAPH, WAITS, HALF, "uid", now) == pause  # it lasts
        pauses.append((pause.until - now).total_seconds())
        now = pause.until
    assert all(placement.FIRST / 2 <= seconds <= placement.MOST * 1.5 for seconds in pauses) and pauses[0] < 45 < pauses[-1]
    tried = placement.decided(pause, GRAPH, WAITS, Places(), "uid", now)
    assert not tried.holds(now) and tried.times == 8
    assert placement.decided(tried, GRAPH, Observed({}, {SERVER: ServerState(ready=True)}), Places(3), "uid", now) == Pause()


def test_how_long_nodes_are_missing_outlasts_the_pods() -> None:
    """What is given back is made anew, and has waited for nothing: the record knows better, and says when it blocks."""
    first = placement.decided(Pause(), GRAPH, WAITS, HALF, "uid", START)
    assert first.since == later(-400) and first.until
    again = placement.decided(replace(first, until=None), GRAPH, WAITS, HALF, "uid", first.until + timedelta(seconds=400))
    assert (again.times, again.since) == (2, first.since)
    moments = [(first, START), (first, later(10_000)), (again, later(100)), (again, later(300))]
    assert [t.blocking for pause, now in moments for t in placement.troubles(pause, GRAPH, now)] == [False, False, False, True]
    assert placement.troubles(Pause(), GRAPH, START) == ()


@pytest.mark.parametrize("times", [7, 1025, 2**53])
def test_servers_may_be_given_back_for_weeks(times: int) -> None:
    seconds = [placement.pause(f"run-{number}", times) for number in range(100)]
    assert placement.MOST / 2 <= min(seconds) < max(seconds) <= placement.MOST * 1.5


@pytest.mark.parametrize("pause", [Pause(), Pause(2), Pause(3, START), Pause(3, START, later(-60)), Pause(3, None, START)])
def test_the_record_in_the_status(pause: Pause) -> None:
    assert placement.read(placement.written(pause), START) == pause


@pytest.mark.parametrize(("seconds", "counts"), [(-10, True), (0, True), (900, True), (901, False), (10**9, False)])
def test_an_end_that_no_pause_has_counts_as_none(seconds: int, counts: bool) -> None:
    """Of a clock that ran ahead, or of whoever may write a status: the servers would stay away until then."""
    written = placement.written(Pause(3, later(seconds)))
    read = placement.read(written, START)
    assert read == Pause(3, later(seconds) if counts else None)
    assert placement.decided(read, GRAPH, WAITS, Places(), "uid", START).holds(START) == (counts and seconds > 0)


def test_nodes_are_missing_since_now_at_the_latest() -> None:
    """Else no deadline would count it, before such a moment has come."""
    assert placement.read(placement.written(Pause(3, None, later(10**9))), START) == Pause(3, None, START)


@pytest.mark.parametrize("until", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z", "never", 7, None])
def test_whatever_the_record_says_it_holds_nothing(until) -> None:
    assert not placement.read({"servers": {"givenBack": 2, "until": until}}, START).holds(START)


@dataclass
class Tenant:
    """A run of three servers on a cluster of four places."""

    name: str
    held: int = 0
    since: int | None = None
    """When the servers were made."""
    pause: Pause = field(default_factory=Pause)
    works_until: int = 0
    done: bool = False

    def second(self, now: int, free: int, chance: random.Random) -> None:
        """What happens to it in a second: places go to whoever asks, and whoever has all its servers works for a while."""
        if self.works_until:
            self.done = self.works_until <= now
            self.held = 0 if self.done else 3
        elif self.pause.holds(later(now)):
            self.held, self.since = 0, None
        else:
            self.since = now if self.since is None else self.since
            self.held = min(3, self.held + (min(free, 3) if chance.random() < 0.5 else min(free, 1)))
            self.works_until = now + 1000 if self.held == 3 else 0
            places = Places(self.held, 0.0 if self.works_until else float(now - self.since))
            self.pause = placement.decided(self.pause, GRAPH, WAITS, places, self.name, later(now))


@pytest.mark.parametrize("seed", range(20))
def test_two_runs_of_three_servers_on_four_places_both_get_theirs(seed: int) -> None:
    chance, runs = random.Random(seed), [Tenant("a"), Tenant("b")]
    for now in range(20_000):
        for run in chance.sample(runs, 2):
            run.second(now, 4 - sum(r.held for r in runs), chance)
    assert all(run.done for run in runs)
