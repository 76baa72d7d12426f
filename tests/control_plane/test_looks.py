"""Looks and glances: when asking the running tasks alone is enough, and what it spares the API server."""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from kube_objects import IMAGES, RUNNING, SERVER, condition, deployment, done, job, planned, pod, snapshot, terminating, writer
from statuses import RUN, WRONG
from test_cluster_backend import KEY, Asked, Server, resource

from maft_operator.cluster import images, kinds, looks, manifests
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.keys import Keys, Read
from maft_operator.cluster.manifests import Json, Owner
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.workers import Workers
from maft_operator.plan.reconcile import Outcome, Refusal
from maft_operator.plan.step import step
from maft_operator.spec.skew import Reading

PREPARE = "r-0-prepare"


def working(name: str, **more: Any) -> Json:
    """A pod whose program runs; nobody answers at its address."""
    return pod(name, "Running", RUNNING, ready=True, podIP="192.0.2.7", **more)


DEBATES = [
    *map(done, (PREPARE, "r-0-preflight", "r-0-evaluate")),
    *(job("r-1-debate"), working("r-1-debate"), working(SERVER, container="inference")),
    deployment(ready=1),
]


@pytest.mark.parametrize(
    ("objects", "calm"),
    [
        ([job(PREPARE), working(PREPARE)], True),
        (DEBATES, True),
        ([*DEBATES[:-1], deployment(ready=0)], False),  # a server is not ready
        ([*DEBATES[:-1]], False),  # it is to be made
        (DEBATES[:3], False),  # the debate is to be made
        ([job(PREPARE)], False),  # no pod yet
        ([job(PREPARE), pod(PREPARE, "Pending")], False),
        ([job(PREPARE), terminating(working(PREPARE))], False),
        ([job(PREPARE, condition("Suspended"), suspend=True), working(PREPARE)], False),
        ([job(PREPARE), working(PREPARE), working(SERVER, container="inference")], False),  # what is left of a server
        (list(WRONG), False),
        ([], False),
    ],
)
def test_where_nothing_waits_glances_will_do(objects: list[Json], calm: bool) -> None:
    seen = snapshot(RUN, *objects)
    assert looks.is_calm(Outcome(step(planned(RUN), seen.observed), seen, (), planned(RUN))) is calm


def test_not_where_something_was_refused() -> None:
    seen = snapshot(RUN, *DEBATES)
    assert not looks.is_calm(Outcome(step(planned(RUN), seen.observed), seen, (Refusal("r-1-debate", "no"),), planned(RUN)))


@pytest.mark.parametrize("runs", [1, 100, 1000, 5000])
def test_requests_stay_few_however_many_runs_there_are(runs: int) -> None:
    """A glance writes one status at most; a look takes six requests, and one for the status."""
    working = runs / looks.glances(runs) + 7 * runs / looks.trusted(runs)
    waiting = 7 * runs / looks.looks(runs)
    assert max(working, waiting) <= 100
    assert looks.glances(runs) >= looks.LOOK and looks.trusted(runs) >= looks.CALM


# --- the controller ---


def on_the_cluster() -> Server:
    """A run whose questions are being drawn, as it stands on an API server."""
    run = resource({"startTime": "2026-01-01T00:00:00Z"})
    run["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    owner = Owner(RUN, "u")
    *others, made = manifests.objects(planned(RUN).tasks[0], owner, images.pins(IMAGES, {}, {}, {}).used_by(IMAGES))
    stored = copy.deepcopy(made)
    began = (datetime.now(UTC) - timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    stored["metadata"] |= {"uid": f"uid-{PREPARE}", "generation": 1, "creationTimestamp": began}
    stored["status"] = {"startTime": began, "active": 1}
    for thing in others:
        thing["metadata"] |= {"uid": f"uid-{thing['kind']}", "generation": 1, "creationTimestamp": began}
    return Server(run, *others, stored, working(PREPARE))


def asked_by(server: Server, *wakes: Callable[[Keys, Queue], None]) -> list[list[Asked]]:
    """What the controller asks the API server for after each of these."""

    async def scenario() -> list[list[Asked]]:
        queue, metrics, each = Queue(), Metrics(), []
        keys = Keys(queue, metrics)
        controller = Controller(server, IMAGES, keys=keys, writer=writer(server, metrics))  # type: ignore[arg-type]
        workers = Workers({kinds.RUN.name: controller}, queue=queue, keys=keys, metrics=metrics)
        working = asyncio.create_task(workers.run())
        for wake in wakes:
            before, count = len(server.asked), metrics.registry.get_sample_value("maft_reconcile_seconds_count") or 0
            wake(keys, queue)
            async with asyncio.timeout(10):
                while metrics.registry.get_sample_value("maft_reconcile_seconds_count") == count or queue.late():
                    await asyncio.sleep(0.01)
            each.append(server.asked[before:])
        working.cancel()
        return each

    return asyncio.run(scenario())


def woken(keys: Keys, _: Queue) -> None:
    keys.wake(KEY)


def due(_: Keys, queue: Queue) -> None:
    queue.add(KEY)


def reads(asked: list[Asked]) -> list[Asked]:
    return [one for one in asked if one[0] in ("get", "list")]


def test_a_glance_reads_nothing_of_the_api_server() -> None:
    first, glance, again = asked_by(on_the_cluster(), woken, due, woken)
    assert len(reads(first)) == 6
    assert reads(glance) == []
    assert reads(again) == reads(first)  # something was told of the run, so it is looked at


def waiting(message: str = "") -> Server:
    """The same, and its pod does not start. message: what an Event says of it."""
    server = on_the_cluster()
    server.objects["Pod"][0]["status"] = {"phase": "Pending"}
    server.objects["Event"] = [warning(server, message)] if message else []
    return server


def warning(server: Server, message: str) -> Json:
    uid = server.objects["Pod"][0]["metadata"]["uid"]
    return {
        "metadata": {"name": f"e-{message}"},
        "involvedObject": {"uid": uid},
        "type": "Warning",
        "reason": "FailedMount",
        "message": message,
    }


@pytest.mark.parametrize("message", ["", "no such volume"])
def test_of_a_run_that_waits_a_glance_reads_events_alone(message: str) -> None:
    server = waiting(message)
    first, glance, again = asked_by(server, woken, due, woken)
    assert [one[1] for one in reads(glance)] == ["Event"]
    assert len(reads(first)) == 7 and reads(again) == reads(first)
    [progressing] = [c for c in server.objects["MultiAgentFinetune"][0]["status"]["conditions"] if c["type"] == "Progressing"]
    assert message in progressing["message"] and (not message or progressing["status"] == "False")


def test_an_event_that_says_something_else_is_looked_into_at_once() -> None:
    server = waiting()

    def told(_: Keys, queue: Queue) -> None:
        server.objects["Event"] = [warning(server, "no such volume")]
        queue.add(KEY)

    *_, glance = asked_by(server, woken, told)
    assert len(reads(glance)) == 1 + 7
    [progressing] = [c for c in server.objects["MultiAgentFinetune"][0]["status"]["conditions"] if c["type"] == "Progressing"]
    assert (progressing["status"], progressing["reason"]) == ("False", "VolumeMissing") and "no such volume" in progressing[
        "message"
    ]


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        ([job(PREPARE)], True),  # no pod yet
        ([job(PREPARE), pod(PREPARE, "Pending")], True),
        ([job(PREPARE), working(PREPARE)], False),  # nothing waits
        ([job(PREPARE, condition("Suspended"), suspend=True)], False),  # a queue tells by its Workload
        ([*DEBATES[:3], job("r-1-debate"), *DEBATES[4:]], False),  # and a server that has lost its pod is to be made anew
        ([], False),
    ],
)
def test_where_only_what_waits_is_told_of_glances_will_do(objects: list[Json], told: bool) -> None:
    seen = snapshot(RUN, *objects)
    outcome = Outcome(step(planned(RUN), seen.observed), seen, (), planned(RUN))
    assert looks.is_told(outcome) is told
    assert not looks.is_told(Outcome(outcome.step, seen, (Refusal(PREPARE, "no"),), outcome.graph))
    limited = planned(replace(RUN, spec=msgspec.structs.replace(RUN.spec, active_deadline_seconds=60)))
    assert not looks.is_told(Outcome(outcome.step, seen, (), limited))


def test_a_look_that_failed_is_followed_by_a_look() -> None:
    server = on_the_cluster()

    def gone(keys: Keys, queue: Queue) -> None:
        server.objects["MultiAgentFinetune"] = []
        keys.wake(KEY)

    first, second, third = asked_by(server, woken, gone, due)
    assert (len(reads(first)), reads(second), reads(third)) == (6, [("get", "MultiAgentFinetune", "r")], reads(second))


def test_a_budget_is_not_passed_over_by_glances() -> None:
    server = on_the_cluster()
    [run] = server.objects["MultiAgentFinetune"]
    run["spec"]["budget"] = {"seconds": 1}
    ago = (datetime.now(UTC) - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    run["status"]["spent"] = {"seconds": 0, "gpuSeconds": 0, "gpus": 0, "at": ago}
    asked_by(server, woken)
    failed = [c for c in server.objects["MultiAgentFinetune"][0]["status"]["conditions"] if c["type"] == "Failed"]
    assert [(c["status"], c["reason"]) for c in failed] == [("True", "BudgetSpent")]
    assert ("delete", "Job", PREPARE) in server.asked


def test_a_spec_that_changed_while_the_status_was_written_is_looked_at_again() -> None:
    server = on_the_cluster()
    write = server.apply_status

    async def changed(body: Json) -> Json:
        written = await write(body)
        return {**written, "metadata": {**written["metadata"], "generation": 2}}

    server.apply_status = changed  # type: ignore[method-assign]
    first, second = asked_by(server, woken, due)
    assert reads(second) == reads(first)


def test_runs_that_wait_for_their_removal_do_not_slow_down_the_others() -> None:
    queue, metrics = Queue(), Metrics()
    keys = Keys(queue, metrics)
    for number in range(9):
        keys.note(f"ns/{number}", at_work=number < 4)
    keys.note("ns/0", at_work=False)
    keys.forget("ns/1")
    assert keys.at_work == 2


@pytest.mark.parametrize(
    ("phase", "counts"), [("", 1), ("Training", 1), ("Suspended", 0), ("Complete", 0), ("Failed", 0), ("Rejected", 0)]
)
def test_which_runs_count_as_at_work(phase: str, counts: int) -> None:
    async def scenario() -> int:
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        Watched(keys, metrics).run(None, resource({"phase": phase} if phase else None))
        return keys.at_work

    assert asyncio.run(scenario()) == counts


def test_a_recall_leaves_those_alone_that_are_due_anyhow_and_is_no_crowd() -> None:
    async def scenario() -> tuple[int, float]:
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        queue.add("due", 500)
        for key in ("due", *(f"resting-{number}" for number in range(100))):
            keys.recall(key, within=100)
        return len(queue), queue.late()

    count, late = asyncio.run(scenario())
    assert (count, late) == (101, 0.0)


@pytest.mark.parametrize(
    ("was_begun", "begun", "changed", "same"),
    [
        (False, False, False, True),
        (False, True, False, True),  # it was read more strictly
        (True, True, False, True),
        (True, False, False, False),  # its status was lost: what was passed over then may be refused now
        (True, True, True, False),
    ],
)
def test_when_a_spec_has_to_be_read_again(was_begun: bool, begun: bool, changed: bool, same: bool) -> None:
    known = Read({"agents": 2}, was_begun, Reading(RUN))
    assert known.is_of({"agents": 3 if changed else 2}, begun=begun) is same


def test_a_spec_that_changes_is_read_anew() -> None:
    """What a look reads is kept for the next one, by the spec itself."""
    server = on_the_cluster()

    async def scenario() -> list[tuple[int | None, bool]]:
        queue, metrics, found, before = Queue(), Metrics(), [], None
        keys = Keys(queue, metrics)
        state = keys.state(KEY)
        controller = Controller(server, IMAGES, keys=keys, writer=writer(server, metrics))  # type: ignore[arg-type]
        for budget in ({}, {}, {"budget": {"seconds": 86400}}):
            [run] = server.objects[kinds.RUN.name]
            run["spec"] = {**copy.deepcopy(run["spec"]), **budget}
            await controller.reconcile(KEY, state)
            assert state.read is not None
            found.append((state.read.reading.run.spec.budget.seconds, state.read is before))
            before = state.read
        return found

    assert asyncio.run(scenario()) == [(None, False), (None, True), (86400, False)]
