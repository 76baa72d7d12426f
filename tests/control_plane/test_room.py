"""Debates that find no room beside their servers: when servers are given back, for how long, and that runs get past each other."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from kube_objects import (
    RUNNING,
    SERVER,
    START,
    a_run,
    deployment,
    done,
    ended,
    job,
    planned,
    pod,
    snapshot,
    unscheduled,
)

from maft_operator.cluster import observed as observing
from maft_operator.cluster import placement, reasons, room, workloads
from maft_operator.cluster.reasons import Trouble
from maft_operator.cluster.room import Crowd
from maft_operator.plan.graph import graph
from maft_operator.plan.step import Observed, ServerState, TaskState, step

GRAPH = replace(graph(a_run(), "s3://b"), patience=300)
DEBATE, OTHER = "r-1-debate", "r-0-evaluate"
READY = {SERVER: ServerState(ready=True)}
CHECKED = {name: TaskState("succeeded") for name in ("r-0-prepare", "r-0-preflight")}
WAITS = TaskState("running", waits=True)
QUEUED = Trouble(DEBATE, reasons.QUEUED, "waits in queue gpus: 1 more needed")


def later(seconds: float):
    return START + timedelta(seconds=seconds)


def seen(servers=READY, **tasks: TaskState) -> Observed:
    return Observed({**CHECKED, **{name.replace("_", "-"): state for name, state in tasks.items()}}, servers)


def look(before: Crowd, now: float, observed: Observed | None = None, *troubles: Trouble, graph=GRAPH, told: bool = True) -> Crowd:
    told_of = (troubles or (QUEUED,)) if told else ()
    return room.decided(before, graph, observed or seen(r_1_debate=WAITS), told_of, "uid", later(now))


def test_servers_go_once_no_debate_has_had_room_for_as_long() -> None:
    first = look(Crowd(), 0)
    assert first == Crowd(0, None, START, START, QUEUED.message) and first.next_look(GRAPH, later(100)) == 200
    assert look(first, 299) == first
    gone = look(first, 300)
    assert (gone.times, gone.since, gone.waits) == (1, START, None) and gone.holds(later(300))
    assert gone.until and 15 <= (gone.until - later(300)).total_seconds() <= 45
    assert gone.next_look(GRAPH, later(300)) == 0 and gone.next_look(replace(GRAPH, held=True), later(300)) >= 15
    assert look(gone, 301) == gone  # it lasts


def test_each_time_it_is_waited_twice_as_long() -> None:
    crowd, now, waited = Crowd(), 0.0, []
    for _ in range(8):
        begun = look(crowd, now)
        seconds = begun.next_look(GRAPH, later(now)) or 0.0
        waited.append(seconds)
        crowd = look(begun, now + seconds)
        assert crowd.until and crowd.holds(later(now + seconds)) and crowd.since == START
        now = (crowd.until - START).total_seconds()
    assert waited == [300, 600, 1200, 2400, 4800, 9600, 9600, 9600]


BEGUN = Crowd(0, None, START, START, QUEUED.message)
BACK = Crowd(2, None, START, None, QUEUED.message)
BESIDE = Trouble(DEBATE, reasons.IMAGE_PULL, "no such image")


@pytest.mark.parametrize(
    ("observed", "troubles", "expected"),
    [
        (seen(r_1_debate=TaskState("running")), (QUEUED,), Crowd()),  # one of its programs has a node, others wait
        (seen(r_1_debate=WAITS), (BESIDE,), Crowd()),  # between two attempts, or for what no room helps
        (seen(r_1_debate=WAITS, r_0_evaluate=TaskState("running")), (QUEUED,), Crowd()),  # behind another one
        (seen(r_1_debate=TaskState("succeeded"), r_0_evaluate=TaskState("succeeded")), (QUEUED,), Crowd()),  # training is next
        (seen(), (QUEUED,), replace(BEGUN, waits=None)),  # it is about to be made
        (seen({}), (QUEUED,), replace(BEGUN, waits=None)),
        (seen({SERVER: ServerState(ready=False)}, r_1_debate=WAITS), (QUEUED,), replace(BEGUN, waits=None)),
    ],
)
def test_when_nobody_waits_for_room(observed: Observed, troubles: tuple[Trouble, ...], expected: Crowd) -> None:
    assert look(BEGUN, 4000, observed, *troubles) == expected


@pytest.mark.parametrize("reason", [reasons.UNSCHEDULABLE, reasons.QUOTA_EXCEEDED, reasons.QUEUED])
def test_what_is_missing_is_room(reason: reasons.Reason) -> None:
    assert look(BEGUN, 300, None, Trouble(DEBATE, reason, "no")).message == "no"


def test_debates_wait_for_room_in_a_queue_of_which_one_flavor_is_too_small() -> None:
    lacks = "insufficient quota for cpu in flavor spot, requests (0) + current podset request (2) > maximum capacity (1)"
    busy = "insufficient unused quota for cpu in flavor on-demand, 2 more needed"
    condition = {"type": "QuotaReserved", "status": "False", "message": f"{lacks}, {busy}"}
    queued = {"metadata": {"name": "w"}, "spec": {"queueName": "gpus"}, "status": {"conditions": [condition]}}
    waits = snapshot(a_run(), job(DEBATE, start=None, suspend=True, queue="gpus"))
    [trouble] = workloads.explained(waits, {DEBATE: [queued]}).troubles
    assert look(BEGUN, 300, None, trouble).times == 1


def test_two_that_wait_and_one_that_does_not() -> None:
    both = seen(r_1_debate=WAITS, r_0_evaluate=WAITS)
    assert look(BEGUN, 300, both, QUEUED, replace(QUEUED, child=OTHER)).times == 1
    assert look(BEGUN, 300, both, QUEUED) == BEGUN  # nobody has looked at the other one yet


def test_a_job_that_nobody_has_looked_at_says_nothing() -> None:
    """Its pod is not made yet, or no scheduler has seen it: so it is at each beginning."""
    assert look(BACK, 300, told=False) == BACK
    assert look(replace(BEGUN, times=2), 300, told=False) == replace(BEGUN, times=2)


def test_a_debate_that_finds_room_while_servers_are_to_go_ends_it() -> None:
    assert look(replace(BACK, until=later(400)), 301, seen(r_1_debate=TaskState("running"))) == Crowd()
    assert look(replace(BACK, until=later(400)), 301, seen()) == replace(BACK, until=later(400))


def test_a_suspended_run_and_one_without_patience_give_nothing_back() -> None:
    assert look(BACK, 300, graph=replace(GRAPH, suspended=True)) == Crowd()
    assert look(BEGUN, 10**6, graph=replace(GRAPH, patience=0)) == BEGUN


def test_what_waits_itself_goes_with_its_servers_and_does_not_come_before_them() -> None:
    held = replace(GRAPH, held=True)
    for state, gone in ((WAITS, {SERVER, DEBATE}), (TaskState("running"), set())):
        observed = seen(r_1_debate=state)
        assert {*step(held, observed).delete} == gone
        assert not step(GRAPH, observed).delete
        assert step(held, observed).create == ()


# --- what the objects show ---

SCHEDULED = {"spec": {"nodeName": "n"}}
OBJECTS = {
    "a queue holds it back": ([job(DEBATE, start=None, suspend=True, queue="gpus")], True),
    "somebody has stopped it": ([job(DEBATE, start=None, suspend=True)], False),
    "another cluster has it": ([job(DEBATE, managedBy="kueue.x-k8s.io/multikueue", suspend=True, queue="gpus")], False),
    "no node has it": ([job(DEBATE), unscheduled(DEBATE, "0/3 nodes")], True),
    "its image is pulled": ([job(DEBATE), {**pod(DEBATE, "Pending"), **SCHEDULED}], False),
    "it is at work": ([job(DEBATE), pod(DEBATE, "Running", RUNNING)], False),
    "one of its programs is": ([job(DEBATE), pod(DEBATE, "Running", RUNNING), unscheduled(DEBATE, "0/3 nodes")], False),
    "it had a pod": ([job(DEBATE, failed=1), pod(DEBATE, "Failed", ended(1))], True),  # a quota may refuse the next one
}


@pytest.mark.parametrize("name", OBJECTS)
def test_which_tasks_wait(name: str) -> None:
    objects, waits = OBJECTS[name]
    assert snapshot(a_run(), *objects).observed.tasks[DEBATE].waits == waits


def read(*objects, now: float, crowded: float | None = 0, **spec):
    kinds = {kind: [thing for thing in objects if thing["kind"] == kind] for kind in ("Job", "Deployment", "Pod")}
    return observing.read(planned(a_run(**spec)), kinds, later(now), None, None if crowded is None else later(crowded))


SERVERS = deployment(ready=1)
NO_ROOM = (done("r-0-prepare"), done("r-0-preflight"), job(DEBATE), unscheduled(DEBATE, "0/3 nodes"), SERVERS)


@pytest.mark.parametrize(
    ("objects", "more", "fails"),
    [
        (NO_ROOM, {"now": 1001}, True),
        (NO_ROOM, {"now": 1000}, False),
        (NO_ROOM, {"now": 10**6, "crowded": None}, False),
        ((*NO_ROOM[:3], SERVERS, pod(DEBATE, "Running", RUNNING)), {"now": 10**6}, False),
        ((*NO_ROOM[:2], job(DEBATE, suspend=True, queue="gpus"), SERVERS), {"now": 10**6}, False),  # queues may take for ever
        ((*NO_ROOM[:4], deployment()), {"now": 10**6}, False),  # they come again
        ((*NO_ROOM[:2], SERVERS), {"now": 10**6}, False),
        ((*NO_ROOM[:2], done(DEBATE, ended=900), SERVERS), {"now": 10**6}, False),  # nobody looked while it had room
        ((*NO_ROOM[:2], done(DEBATE, ended=900), job(OTHER), unscheduled(OTHER, "0/3"), SERVERS), {"now": 1900}, False),
        ((*NO_ROOM[:2], done(DEBATE, ended=900), job(OTHER), unscheduled(OTHER, "0/3"), SERVERS), {"now": 1901}, True),
    ],
)
def test_a_stage_has_a_deadline(objects, more, fails: bool) -> None:
    end = read(*objects, activeDeadlineSeconds=1000, **more).ended.get(SERVER)
    assert (end is not None and end.reason is reasons.DEADLINE_EXCEEDED) == fails
    if end:
        assert end.message == "no debate found room beside it within spec.activeDeadlineSeconds (1000 s)"


# --- in the status ---


YEAR_1 = datetime(1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "crowd",
    [Crowd(), BEGUN, BACK, Crowd(3, later(900), START, None, "x"), Crowd(1, None, later(-9), START), Crowd(1, since=YEAR_1)],
)
def test_the_record_in_the_status(crowd: Crowd) -> None:
    assert room.read(room.written(crowd), START) == crowd


@pytest.mark.parametrize("value", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "never", 7, None, {}])
def test_whatever_the_record_says_it_holds_nothing(value) -> None:
    status = {"room": {"givenBack": -2, "until": value, "since": value, "waits": value, "message": value}}
    read = room.read(status, START)
    assert not read.holds(START) and read.times == 0
    assert all(moment is None or moment <= START for moment in (read.since, read.waits))


def test_a_pause_is_no_longer_than_any_is() -> None:
    assert room.read({"room": {"until": room.stamp(later(placement.MOST * 1.5 + 1))}}, START).until is None


def test_what_is_told() -> None:
    words = "servers were given back 2 times in a row, for no debate found room beside them (waits in queue gpus: 1 more needed)"
    [told] = room.troubles(replace(BACK, until=later(60)), GRAPH, START)
    assert (told.reason, told.message, told.blocking) == (
        reasons.DEBATES_LACK_ROOM,
        f"{words}; they come again at 00:01:00 UTC",
        False,
    )
    [told] = room.troubles(BACK, GRAPH, later(10_000))
    assert told.message == f"{words}; they are tried again" and told.blocking
    assert room.troubles(BEGUN, GRAPH, later(10_000)) == ()


@dataclass
class Tenant:
    """A run of one server and one debate, in a queue that has room for two pods."""

    name: str
    server: bool = False
    debates: int = 0
    """Until when it does."""
    crowd: Crowd = field(default_factory=Crowd)
    done: bool = False

    def holds(self) -> int:
        return 0 if self.done else self.server + bool(self.debates)

    def second(self, now: int, free: int) -> None:
        """What happens to it in a second: room goes to whoever asks."""
        if self.debates:
            self.done = self.debates <= now
        elif self.crowd.holds(later(now)):
            self.server = False
        elif self.server:
            self.debates = now + 100 if free else 0
            observed = seen(r_1_debate=TaskState("running", waits=not self.debates))
            self.crowd = room.decided(self.crowd, GRAPH, observed, (QUEUED,), self.name, later(now))
        elif free:
            self.server = True


@pytest.mark.parametrize("seed", range(20))
def test_two_runs_whose_servers_fill_a_queue_both_end(seed: int) -> None:
    chance, runs = random.Random(seed), [Tenant("a"), Tenant("b")]
    for now in range(20_000):
        for run in chance.sample(runs, 2):
            run.second(now, 2 - sum(r.holds() for r in runs))
    assert all(run.done for run in runs)
