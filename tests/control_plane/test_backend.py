"""The Backend seam: one contract for processes and for the world in memory; then what only processes do."""

import asyncio
import sys
from pathlib import Path

import psutil
import pytest
from conftest import MOCK, resource
from memory import MemoryBackend

from maft_operator.local.backend import LocalBackend
from maft_operator.local.gpus import Slots
from maft_operator.local.processes import start
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Server, Task
from maft_operator.plan.reconcile import reconcile
from maft_operator.plan.step import Observed, TaskState
from maft_operator.spec import parse as api

pytestmark = pytest.mark.run
LIMIT = 120.0


@pytest.fixture(params=["processes", "memory"])
def backend(request, tmp_path):
    if request.param == "memory":
        return MemoryBackend()
    return LocalBackend(tmp_path / "local", Slots(), [sys.executable, str(MOCK)])


def graph(tmp_path: Path, **spec) -> plan.Graph:
    return plan.graph(api.parse(resource(**spec)), str(tmp_path / "store"))


def task(tmp_path: Path, **spec) -> Task:
    return graph(tmp_path, **spec).tasks[0]


def server(tmp_path: Path, **spec) -> Server:
    return graph(tmp_path, **spec).servers[0]


async def until(condition, backend) -> Observed:
    async with asyncio.timeout(LIMIT):
        while not condition(seen := (await backend.observe()).observed):
            await asyncio.sleep(0.05)
    return seen


def run(scenario, backend):
    async def inside():
        if isinstance(backend, MemoryBackend):
            return await scenario(backend)
        async with backend:
            return await scenario(backend)

    return asyncio.run(inside())


async def finished(backend, name: str, exit_code: int = 0, message: str = "") -> TaskState:
    if isinstance(backend, MemoryBackend):
        await backend.finish(name, exit_code, message)
    seen = await until(lambda o: o.tasks[name].status != "running", backend)
    return seen.tasks[name]


async def started(backend: LocalBackend, item: Task | Server) -> psutil.Process:
    """Creates it. Its process is the new one; what has just begun may have no command line yet to be told by (proc(5))."""
    others = set(psutil.Process().children())
    await backend.create(item)
    (child,) = set(psutil.Process().children()) - others
    return child


def test_a_task_runs_once_however_often_it_is_created(backend, tmp_path):
    item = task(tmp_path)

    async def scenario(backend):
        await backend.create(item)
        await backend.create(item)
        assert (await backend.observe()).observed.tasks[item.name].status == "running"
        assert (await finished(backend, item.name)).status == "succeeded"

    run(scenario, backend)


def test_a_task_that_fails_says_why_and_how_often(backend, tmp_path):
    item = task(tmp_path, task={"train": 5000})

    async def scenario(backend):
        await backend.create(item)
        return await finished(backend, item.name, 2, "task.train + task.heldOut: 5016 questions asked for")

    state = run(scenario, backend)
    assert (state.status, state.failures, state.exit_code) == ("failed", 1, 2)
    assert state.message.startswith("task.train + task.heldOut: 5016 questions asked for")


def test_a_server_is_first_there_then_ready_then_gone(backend, tmp_path):
    item = server(tmp_path)

    async def scenario(backend):
        await backend.create(item)
        await backend.create(item)
        assert item.name in (await backend.observe()).observed.servers
        await until(lambda o: o.servers[item.name].ready, backend)
        await backend.delete(item.name)
        assert item.name not in (await backend.observe()).observed.servers

    run(scenario, backend)


def test_deleting_what_is_not_there_is_no_error(backend):
    run(lambda backend: backend.delete("nothing"), backend)


def test_deleting_a_running_task_ends_it(backend, tmp_path):
    item = task(tmp_path)

    async def scenario(backend):
        await backend.create(item)
        await backend.delete(item.name)
        assert (await backend.observe()).observed.tasks.get(item.name) is None

    run(scenario, backend)


def test_a_whole_run_in_memory_creates_each_task_once(tmp_path):
    world, whole = MemoryBackend(), graph(tmp_path, iterations=2)

    async def scenario(world):
        for _ in range(60):
            step = (await reconcile(world, whole)).step
            for name, state in list(world.tasks.items()):
                if state.status == "running":
                    await world.finish(name)
            if step.phase == "Complete":
                return
        raise AssertionError("never complete")

    run(scenario, world)
    assert sorted(world.created) == sorted(t.name for t in whole.tasks)
    assert world.servers == {}


# --- processes alone ---


def test_nothing_is_left_when_the_backend_is_left(tmp_path):
    item, backend = server(tmp_path), LocalBackend(tmp_path / "local", Slots(), [sys.executable, str(MOCK)])

    others = set(psutil.Process().children(recursive=True))  # other tests' servers may live as long as this process

    async def scenario(backend):
        await backend.create(item)
        await until(lambda o: o.servers[item.name].ready, backend)
        return set(psutil.Process().children(recursive=True)) - others

    family = run(scenario, backend)
    assert family and not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_a_server_that_hangs_is_ended_and_said_to_have_failed(tmp_path):
    item = server(tmp_path)
    backend = LocalBackend(tmp_path / "local", Slots(), [sys.executable, str(MOCK)], hang_limit=1.0)

    async def scenario(backend):
        child = await started(backend, item)
        await until(lambda o: o.servers[item.name].ready, backend)
        child.suspend()
        seen = await until(lambda o: o.servers[item.name].failed, backend)
        await until(lambda o: o.servers[item.name].failures == 1, backend)
        return seen

    run(scenario, backend)


def test_replicas_are_processes_of_their_own(tmp_path):
    item = server(tmp_path, inference={"replicas": 2})
    backend = LocalBackend(tmp_path / "local", Slots(), [sys.executable, str(MOCK)])

    async def scenario(backend):
        await backend.create(item)
        await until(lambda o: o.servers[item.name].ready, backend)
        return backend.urls(item.name)

    assert len(set(run(scenario, backend))) == 2


def test_a_finished_task_is_known_to_the_next_backend(tmp_path):
    item = task(tmp_path)

    async def scenario(backend):
        await backend.create(item)
        assert (await finished(backend, item.name)).status == "succeeded"

    async def look(backend):
        return (await backend.observe()).observed

    run(scenario, LocalBackend(tmp_path / "local", Slots()))
    seen = run(look, LocalBackend(tmp_path / "local", Slots()))
    assert seen.tasks[item.name].status == "succeeded"


def test_slots_are_handed_out_and_taken_back():
    slots = Slots(["3", "GPU-5c"])
    assert slots.acquire("a", 1) == ("3",) and slots.acquire("a", 1) == ("3",) and slots.acquire("b", 1) == ("GPU-5c",)
    assert slots.acquire("c", 1) is None
    slots.release("a")
    assert slots.acquire("c", 1) == ("3",) and slots.acquire("d", 0) == () and slots.acquire("e", None) == ()
    assert Slots().acquire("a", 4) == ()


def test_an_end_that_nobody_saw_is_counted_before_the_server_starts_again(tmp_path):
    item = server(tmp_path)
    backend = LocalBackend(tmp_path / "local", Slots(), [sys.executable, str(MOCK)])

    async def scenario(backend):
        (await started(backend, item)).kill()
        while not (seen := (await backend.observe()).observed.servers[item.name]).failed:
            await asyncio.sleep(0)  # gives the watch, which looks once a second, the smallest chance
        await backend.create(item)
        return (await backend.observe()).observed.servers[item.name], seen

    state, _ = run(scenario, backend)
    assert state.failures == 1 and "the server was killed by signal 9" in state.message


def test_a_task_that_is_killed_says_by_what_and_what_it_said_last(tmp_path):
    item = task(tmp_path)
    backend = LocalBackend(tmp_path / "local", Slots())

    async def scenario(backend):
        child = await started(backend, item)
        log = tmp_path / "local" / item.name / "log.txt"
        log.write_text("almost there\n")  # it appends
        child.kill()
        return await finished(backend, item.name)

    state = run(scenario, backend)
    assert (state.status, state.exit_code) == ("failed", -9)
    first, last = state.message.splitlines()
    assert first.startswith("the program was killed by signal 9; the last lines of ") and last == "  almost there"


def test_a_task_that_ends_in_a_traceback_says_its_last_lines(tmp_path, monkeypatch):
    item = task(tmp_path)
    (tmp_path / "broken" / "maft").mkdir(parents=True)
    (tmp_path / "broken" / "maft" / "__init__.py").write_text("raise RuntimeError('this machine is odd')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    state = run(lambda backend: _once(backend, item), LocalBackend(tmp_path / "local", Slots()))
    assert state.exit_code == 1
    assert "the program ended with exit code 1; the last lines of " in state.message
    assert state.message.endswith("RuntimeError: this machine is odd")


def test_an_error_is_told_though_more_lines_follow(tmp_path):
    """As of servers, whose other processes say how they end after the one that knows why."""

    async def tail(*lines: str) -> list[str]:
        child = await start(["true"], {}, tmp_path / "log.txt")
        await child.stop()
        child.log.write_text("\n".join(lines))
        return child.tail()

    why, after = "NotImplementedError: head_dim=16", [f"shutting down {n}" for n in range(9)]
    assert asyncio.run(tail("start", why, *after)) == [why, *after[-6:]]
    assert asyncio.run(tail(why, *after, "OSError: gone")) == [*after[-5:], "OSError: gone"]
    assert asyncio.run(tail(*after)) == after[-6:]


async def _once(backend, item: Task) -> TaskState:
    await backend.create(item)
    return await finished(backend, item.name)
