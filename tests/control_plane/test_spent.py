"""What a run has taken, and its budget: counted over looks, restarts, pauses and clocks; then it fails, and says of what."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from kube_objects import SERVER, START, a_run, deployment, done, job, planned, pod, snapshot
from statuses import DEBATING, state

from maft.spec import BudgetSpec
from maft_operator.cluster import reasons, spent
from maft_operator.cluster.children import tasks_in
from maft_operator.local.gpus import Slots
from maft_operator.local.meter import PERIOD, Meter
from maft_operator.plan import budget as plan
from maft_operator.plan.budget import Spent
from maft_operator.plan.step import step

RUN = a_run(training={"gpus": 2}, inference={"gpus": 4, "replicas": 2})
NOW = START + timedelta(seconds=1000)


def later(seconds: float):
    return START + timedelta(seconds=seconds)


def placed(child: str, phase: str = "Running", *, container: str = "trainer", number: int = 0, limits: object = None):
    made = pod(child, phase, container=container, number=number)
    spec = {"containers": [{"name": container, "resources": {"limits": limits}}]} if limits else made["spec"]
    return {**made, "spec": {**spec, "nodeName": "n"}}


@pytest.mark.parametrize(
    ("objects", "gpus"),
    [
        ([], 0),
        ([job("r-1-train"), placed("r-1-train")], 2),
        ([job("r-1-train"), placed("r-1-train", "Pending")], 2),  # its image is pulled: the node's GPUs are taken
        ([job("r-1-train"), pod("r-1-train", "Pending", container="trainer")], 0),
        ([job("r-1-train"), placed("r-1-train", "Failed")], 0),
        ([deployment(), placed(SERVER, container="inference"), placed(SERVER, container="inference", number=1)], 8),
        ([placed(SERVER, container="inference")], 4),  # its Deployment has gone
        ([job("r-1-debate"), placed("r-1-debate", container="debate")], 0),
        ([placed("r-1-train")], 0),  # of no Job of the run
        ([job("r-1-train"), placed("r-1-train", limits={"nvidia.com/gpu": "8", "cpu": "9"})], 8),  # its podTemplate asks for more
        ([job("r-1-debate"), placed("r-1-debate", container="debate", limits={"nvidia.com/mig-1g.10gb": 3})], 3),
        ([job("r-1-train"), placed("r-1-train", limits={"amd.com/gpu": "all", "rdma/hca": 4, "x": "5"})], 2),
        ([job("r-1-train"), placed("r-1-train", limits=["nvidia.com/gpu"])], 2),  # anybody may write there
    ],
)
def test_which_gpus_are_held(objects, gpus: int) -> None:
    assert snapshot(RUN, *objects).gpus == gpus


OTHER = "example.com/i915"


@pytest.mark.parametrize(
    ("runs", "operators", "gpus"),
    [(OTHER, "", 8), (OTHER, "nvidia.com/gpu", 8), ("", OTHER, 8), ("", "nvidia.com/gpu", 2), ("example.com/xe", OTHER, 2)],
)
def test_gpus_are_called_as_the_run_says_else_the_operator(runs: str, operators: str, gpus: int) -> None:
    run = a_run(training={"gpus": 2}, gpuResource=runs)
    children = tasks_in({"Job": [job("r-1-train")], "Pod": [placed("r-1-train", limits={OTHER: "8", "cpu": "9"})]})
    assert spent.held(planned(run), children, operators) == gpus


def test_it_is_counted_from_look_to_look() -> None:
    first = plan.counted(Spent(), 2, later(0.5), counts=True)
    assert first == Spent(0, 0, 2, START)
    assert plan.counted(first, 2, later(100), counts=True) == first  # nothing changed: no write
    more = plan.counted(first, 8, later(100), counts=True)
    assert more == Spent(100, 200, 8, later(100))
    assert plan.counted(more, 8, later(100 + plan.STEP), counts=True) == Spent(400, 2600, 8, later(400))
    assert plan.counted(more, 8, later(130), counts=False) == Spent(130, 440)


def test_what_passes_while_it_is_suspended_does_not_count() -> None:
    paused = plan.counted(Spent(100, 200, 2, later(100)), 2, later(110), counts=False)
    assert plan.counted(paused, 0, later(9000), counts=False) == paused
    assert plan.counted(paused, 2, later(9010), counts=True) == Spent(110, 220, 2, later(9010))


def test_many_short_looks_lose_nothing() -> None:
    record = Spent()
    for number in range(1001):
        record = plan.counted(record, 1 + number // 50 % 2, later(0.3 * number), counts=True)
    assert (record.seconds, record.gpu_seconds) == (300, pytest.approx(450, abs=10))


@pytest.mark.parametrize("record", [Spent(), Spent(7, 0, 0, START), Spent(7200, 5400, 2, START), Spent(10**9, 10**10)])
def test_the_record_in_the_status(record: Spent) -> None:
    assert spent.read({"spent": spent.written(record)}, NOW) == record


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"spent": None},
        {"spent": []},
        {"spent": {"seconds": "1", "gpuSeconds": -5, "gpus": True, "at": "soon"}},
        {"spent": {"seconds": None, "gpus": 9, "at": 7}},
    ],
)
def test_whatever_stands_there_counts_nothing(status) -> None:
    assert spent.read(status, NOW) == Spent()


def test_what_somebody_else_wrote_never_grows_over_what_the_api_server_takes() -> None:
    written = {"spent": {"seconds": 2**63 - 1, "gpuSeconds": 2**63 - 1, "gpus": 2**62, "at": "0001-01-01T00:00:00Z"}}
    counted = spent.written(plan.counted(spent.read(written, NOW), 0, NOW, counts=True))
    assert all(0 < counted[name] < 2**63 for name in ("seconds", "gpuSeconds"))


def test_a_clock_that_ran_ahead_takes_nothing_back() -> None:
    ahead = spent.read({"spent": spent.written(Spent(50, 60, 2, later(99_999)))}, NOW)
    assert ahead == Spent(50, 60, 2, NOW)
    assert Spent(50, 60, 2, later(20)).until(later(10)) == Spent(50, 60, 2, later(20))


@pytest.mark.parametrize(
    ("budget", "record", "over", "left"),
    [
        (BudgetSpec(), Spent(10**9, 10**9, 8, NOW), "", None),
        (BudgetSpec(seconds=1000), Spent(0, 0, 0, later(1)), "", 1.0),
        (BudgetSpec(seconds=1000), Spent(0, 0, 0, START), "spec.budget.seconds (1000) are over: 0:16 h", 0.0),
        (BudgetSpec(seconds=1000), Spent(999, 0), "", None),  # suspended
        (BudgetSpec(gpu_hours=2), Spent(0, 7199, 0, NOW), "", None),
        (BudgetSpec(gpu_hours=2), Spent(0, 3600, 8, NOW), "", 450.0),
        (BudgetSpec(gpu_hours=2), Spent(0, 3601, 8, NOW), "", 450.0),  # 449.875: seconds are whole
        (
            BudgetSpec(gpu_hours=1e7),
            Spent(0, 36 * 10**9),
            "spec.budget.gpuHours (10000000) are spent: 0:00 h, 10000000.0 GPU h",
            None,
        ),
        (BudgetSpec(gpu_hours=0.5), Spent(0, 0, 2, later(100)), "spec.budget.gpuHours (0.5) are spent: 0:15 h, 0.5 GPU h", 0.0),
        (BudgetSpec(seconds=1600, gpu_hours=2), Spent(0, 3600, 8, NOW), "", 450.0),
        (BudgetSpec(seconds=1200, gpu_hours=2), Spent(1000, 3600, 8, NOW), "", 200.0),
    ],
)
def test_when_a_budget_is_spent(budget: BudgetSpec, record: Spent, over: str, left: float | None) -> None:
    assert plan.exceeded(budget, record, NOW) == over
    assert plan.next_look(budget, record, NOW) == left


OVER = "spec.budget.seconds (9) are over: 0:16 h"


def test_then_everything_goes_and_the_run_has_failed() -> None:
    seen = snapshot(RUN, *DEBATING).observed
    decided = step(replace(planned(RUN), spent=OVER), seen)
    assert (decided.phase, set(decided.delete), decided.create, decided.keep) == ("Failed", {SERVER, "r-1-debate"}, (), ())


def test_not_a_run_that_is_done_or_that_somebody_has_suspended() -> None:
    whole = planned(RUN)
    complete = snapshot(RUN, *(done(task.name) for task in whole.tasks)).observed
    assert step(replace(whole, spent=OVER), complete).phase == "Complete"
    assert step(replace(whole, spent=OVER, suspended=True), snapshot(RUN, *DEBATING).observed).phase == "Suspended"


def test_what_is_paid_for_is_reported() -> None:
    whole = planned(RUN)
    measured = snapshot(RUN, *(done(task.name) for task in whole.tasks[:-1])).observed
    decided = step(replace(whole, spent=OVER), measured)
    assert [item.name for item in decided.create] == [whole.last.name] and decided.phase == "Reporting"


def test_a_cause_of_its_own_comes_first() -> None:
    wrong = [job("r-0-prepare"), pod("r-0-prepare", "Failed")]
    wrong[0]["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "x"}]
    decided = step(replace(planned(RUN), spent=OVER), snapshot(RUN, *wrong).observed)
    assert decided.failed_child == "r-0-prepare"


def test_the_status_says_what_was_taken() -> None:
    status = state(*DEBATING, now=1000)
    assert status["spent"] == {"seconds": 0, "gpuSeconds": 0, "text": "0:00 h", "gpus": 0, "at": "2026-01-01T00:16:40Z"}
    ended = state(*(done(task.name) for task in planned(RUN).tasks))
    assert ended["spent"] == {"seconds": 0, "gpuSeconds": 0, "text": "0:00 h"}


def test_what_to_do_stands_in_the_reason() -> None:
    assert "spec.budget" in reasons.BUDGET_SPENT.hint


# --- on one machine ---


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_machine_counts_while_the_command_runs_and_the_next_one_counts_on(tmp_path) -> None:
    clock, file = Clock(), tmp_path / "spent.json"
    first = Meter(file, clock)
    assert first.look(2) == Spent()
    clock.now += 10.75
    assert first.look(2) == Spent(10, 21)
    clock.now += 0.5
    assert first.look(0) == Spent(11, 22)  # given back at the end of it
    clock.now += 100
    assert first.look(0) == Spent(111, 22)
    first.keep()
    assert json.loads(file.read_text()) == {"seconds": 111.25, "gpuSeconds": 22.5}
    clock.now += 9000
    second = Meter(file, clock)
    clock.now += 0.75
    assert second.look(4) == Spent(112, 25)


def test_a_record_that_cannot_be_written_ends_no_run(tmp_path) -> None:
    clock = Clock()
    meter = Meter(tmp_path / "gone" / "spent.json", clock)
    clock.now += 2 * PERIOD
    assert meter.look(1).seconds == 2 * PERIOD


def test_a_killed_command_loses_a_few_seconds_at_most(tmp_path) -> None:
    clock, file = Clock(), tmp_path / "spent.json"
    killed = Meter(file, clock)
    for _ in range(100):
        clock.now += 0.5
        counted = killed.look(1)
    assert counted.seconds - Meter(file, clock).look(1).seconds <= PERIOD


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"seconds": "x"}', b"\xff"])
def test_a_record_that_cannot_be_read_counts_nothing(tmp_path, data: bytes) -> None:
    (file := tmp_path / "spent.json").write_bytes(data)
    assert Meter(file, Clock()).look(0) == Spent()


def test_gpus_that_are_handed_out_are_held() -> None:
    slots = Slots(("0", "1", "2"))
    assert slots.held == 0
    slots.acquire("a", 2)
    slots.acquire("b", 2)  # waits
    assert slots.held == 2
    slots.release("a")
    assert slots.held == 0
