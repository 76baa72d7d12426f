"""The queue of keys: merged, one at a time each, due when their delay is over. Time is the event loop's, and it only jumps."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maft_operator.cluster.queue import Queue


class Jumping(selectors.SelectSelector):
    """Waits for nothing: the loop's time is moved on by what it would have waited."""

    loop: "Clock"

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits, and nothing will ever happen"
        self.loop.now += max(timeout, 0)
        return super().select(0)


class Clock(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 0.0
        selector = Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def play(scenario: Callable[[Queue], Awaitable[None]]) -> None:
    async def inside() -> None:
        await scenario(Queue())

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(inside())


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


async def taken(queue: Queue, count: int) -> list[tuple[float, str]]:
    """The next keys, each put back at once, with the time of each."""
    times = []
    for _ in range(count):
        key = await queue.get()
        times.append((now(), key))
        queue.done(key)
    return times


async def nothing_comes(queue: Queue, seconds: float) -> bool:
    try:
        await asyncio.wait_for(queue.get(), seconds)
    except TimeoutError:
        return True
    return False


def test_keys_come_in_the_order_in_which_they_are_due() -> None:
    async def scenario(queue: Queue) -> None:
        for key, delay in (("late", 5.0), ("now", 0.0), ("soon", 1.0), ("later", 60.0)):
            queue.add(key, delay)
        assert len(queue) == 4
        assert await taken(queue, 4) == [(0, "now"), (1, "soon"), (5, "late"), (60, "later")]
        assert len(queue) == 0

    play(scenario)


def test_keys_that_are_due_at_once_come_in_the_order_of_their_names() -> None:
    async def scenario(queue: Queue) -> None:
        for key in "bca":
            queue.add(key)
        assert await taken(queue, 3) == [(0, "a"), (0, "b"), (0, "c")]

    play(scenario)


def test_duplicates_are_merged() -> None:
    async def scenario(queue: Queue) -> None:
        for _ in range(3):
            queue.add("a")
        assert len(queue) == 1
        assert await queue.get() == "a"
        queue.done("a")
        assert await nothing_comes(queue, 1000)

    play(scenario)


def test_of_several_times_the_earliest_stands() -> None:
    async def scenario(queue: Queue) -> None:
        for delay in (10.0, 3.0, 7.0):
            queue.add("a", delay)
        assert await taken(queue, 1) == [(3, "a")]
        assert await nothing_comes(queue, 1000)  # the others are merged into it

    play(scenario)


def test_a_key_is_one_workers_at_a_time() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("b", 2)
        assert await queue.get() == "b"  # another worker does not get a
        assert now() == 2
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert await nothing_comes(queue, 1000)

    play(scenario)


def test_what_was_added_meanwhile_comes_when_it_is_due() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("a")
        await queue.get()
        queue.add("a", 5)
        await asyncio.sleep(1)
        queue.done("a")
        assert await taken(queue, 1) == [(5, "a")]

    play(scenario)


def test_who_waits_is_woken_by_an_earlier_key() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("late", 100)
        waiting = asyncio.ensure_future(taken(queue, 2))
        await asyncio.sleep(1)
        queue.add("early", 1)
        assert await waiting == [(2, "early"), (100, "late")]

    play(scenario)


def test_every_worker_gets_its_key() -> None:
    async def scenario(queue: Queue) -> None:
        workers = [asyncio.ensure_future(queue.get()) for _ in range(3)]
        await asyncio.sleep(1)
        for key in "abc":
            queue.add(key)
        assert sorted(await asyncio.gather(*workers)) == ["a", "b", "c"]
        assert now() == 1

    play(scenario)


def test_a_forgotten_key_does_not_come() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("a", 1)
        queue.forget("a")
        queue.forget("never heard of")
        assert len(queue) == 0 and await nothing_comes(queue, 10)
        queue.add("a", 1)
        await queue.get()
        queue.add("a")
        queue.forget("a")  # while somebody works at it
        queue.done("a")
        assert await nothing_comes(queue, 10)
        queue.add("a", 1)  # and as new
        assert await taken(queue, 1) == [(22, "a")]

    play(scenario)


def test_how_late_the_oldest_key_is() -> None:
    async def scenario(queue: Queue) -> None:
        assert queue.late() == 0
        queue.add("a")
        queue.add("b", 5)
        await asyncio.sleep(2)
        assert queue.late() == 2
        await asyncio.sleep(6)
        assert queue.late() == 8
        assert await queue.get() == "a"
        assert queue.late() == 3  # b, since second 5
        queue.add("a")
        await asyncio.sleep(1)
        assert await queue.get() == "b"
        assert queue.late() == 0  # a is worked at, so that it is due again is not the queue's fault
        queue.done("a")
        assert queue.late() == 1

    play(scenario)


def test_work_that_fails_is_no_standstill() -> None:
    """For ten minutes every look takes 20 seconds and fails, as where the API server is dead: runs are late, nobody is stuck."""

    async def scenario(queue: Queue) -> None:
        for n in range(100):
            queue.add(f"ns/{n}")
        for _ in range(30):
            key = await queue.get()
            await asyncio.sleep(20)
            queue.add(key, 60)
            queue.done(key)
        assert queue.late() >= 600 and queue.stuck() == 0

    play(scenario)


@pytest.mark.parametrize("workers", [0, 1])
def test_work_that_never_ends_is_a_standstill(workers: int) -> None:
    """Whether somebody took it and hangs, or nobody takes anything. With nothing to do nobody is stuck."""

    async def scenario(queue: Queue) -> None:
        await asyncio.sleep(1000)
        assert queue.stuck() == 0
        queue.add("a")
        for _ in range(workers):
            await queue.get()
        await asyncio.sleep(301)
        assert queue.stuck() == 301

    play(scenario)


keys = st.sampled_from("abc")
actions = st.lists(
    st.tuples(st.just("add"), keys, st.integers(0, 5))
    | st.tuples(st.sampled_from(["forget", "done"]), keys, st.just(0))
    | st.tuples(st.sampled_from(["sleep", "get"]), st.just(""), st.integers(0, 5)),
    max_size=40,
)


@given(actions)
@settings(max_examples=150)
def test_as_a_simple_queue_would(steps: list[tuple[str, str, int]]) -> None:
    """Against a table that is searched anew each time."""

    async def scenario(queue: Queue) -> None:
        due: dict[str, float] = {}
        busy: set[str] = set()
        for what, key, number in steps:
            if what == "add":
                queue.add(key, number)
                due[key] = min(due.get(key, float("inf")), now() + number)
            elif what == "forget":
                queue.forget(key)
                due.pop(key, None)
            elif what == "done" and key in busy:
                queue.done(key)
                busy.discard(key)
            elif what == "sleep":
                await asyncio.sleep(number)
            elif what == "get" and (free := sorted((when, name) for name, when in due.items() if name not in busy)):
                when, name = free[0]
                begun = now()
                assert await queue.get() == name
                assert now() == max(begun, when)
                del due[name]
                busy.add(name)
            assert len(queue) == len(due)
            late = [now() - when for name, when in due.items() if name not in busy]
            assert round(queue.late(), 6) == max([0, *late])

    play(scenario)


def test_one_look_that_never_ends_is_told_whatever_else_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[float]:
        loop, moment = asyncio.get_running_loop(), [0.0]
        monkeypatch.setattr(loop, "time", lambda: moment[0])
        queue, stuck = Queue(), []
        queue.add("hangs")
        assert await queue.get() == "hangs"
        for number in range(1, 5):
            moment[0] = 200.0 * number
            queue.add("works")
            assert await queue.get() == "works"
            queue.done("works")
            stuck.append(queue.stuck())
        return stuck

    assert asyncio.run(scenario()) == [100.0, 200.0, 300.0, 400.0]
