"""How many questions are debated at once: the rule, and the gate that follows it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maft.debate import window
from maft.debate.replica import Load
from maft.debate.window import START, Window, next_limit


@pytest.mark.parametrize(
    ("limit", "busy", "load", "expected"),
    [
        # used up, and the servers have less in line than under way: more
        (16, 16, Load(10, 0), 24),
        (16, 16, Load(10, 10), 24),
        (24, 30, Load(40, 5), 36),
        (1, 1, Load(1, 0), 2),
        # in line as much as under way, and more: enough
        (16, 16, Load(10, 11), 16),
        (16, 16, Load(10, 20), 16),
        (100, 100, Load(50, 100), 100),
        # far more in line than under way: less, but never under the start
        (100, 100, Load(10, 21), 80),
        (100, 3, Load(10, 21), 80),
        (18, 18, Load(1, 3), 16),
        (16, 16, Load(1, 100), 16),
        (4, 4, Load(1, 100), 4),
        # not used up: says nothing
        (16, 15, Load(10, 0), 16),
        (16, 0, Load(0, 0), 16),
        # nothing under way: the servers are not ready yet, so the line says nothing
        (100, 100, Load(0, 50), 100),
    ],
)
def test_next_limit(limit: int, busy: int, load: Load, expected: int) -> None:
    assert next_limit(limit, busy, load) == expected


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_limit_stays_in_reach(limit: int, busy: int, running: int, waiting: int) -> None:
    new = next_limit(limit, busy, Load(running, waiting))
    assert min(limit, START) <= new <= max(limit + 1, limit * 3 // 2)
    assert new <= limit or (busy >= limit and waiting <= running)
    assert new >= limit or waiting > 2 * running


@given(st.integers(1, 2_000))
def test_a_steady_engine_gets_a_steady_window_of_about_twice_its_slots(slots: int) -> None:
    limit = START
    for _ in range(60):
        limit = next_limit(limit, limit, Load(min(limit, slots), max(0, limit - slots)))
    settled = next_limit(limit, limit, Load(min(limit, slots), max(0, limit - slots)))
    assert settled == limit
    assert limit == START or 2 * slots < limit <= 3 * slots + 1


async def turns() -> None:
    """Lets everything run that can run."""
    for _ in range(50):
        await asyncio.sleep(0)


async def nothing() -> Load:
    return Load(0, 0)


class Guests:
    """Tasks that enter a window and stay until they are sent away."""

    def __init__(self, gate: Window) -> None:
        self.gate = gate
        self.inside: list[int] = []
        self._doors: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    def come(self, count: int) -> None:
        for _ in range(count):
            self._doors.append(asyncio.Event())
            self._tasks.append(asyncio.create_task(self._visit(len(self._tasks))))

    async def _visit(self, number: int) -> None:
        await self.gate.acquire()
        self.inside.append(number)
        await self._doors[number].wait()
        self.inside.remove(number)
        await self.gate.release()

    async def go(self, *numbers: int) -> None:
        for number in numbers:
            self._doors[number].set()
        await turns()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def test_the_gate_lets_in_as_many_as_the_limit_says() -> None:
    async def main() -> None:
        guests = Guests(Window(nothing, limit=3))
        guests.come(8)
        await turns()
        assert guests.inside == [0, 1, 2]
        await guests.go(1)
        assert guests.inside == [0, 2, 3]
        await guests.go(0, 2)
        assert guests.inside == [3, 4, 5]
        assert guests.gate.busy == 3
        await guests.go(*range(8))
        assert (guests.inside, guests.gate.busy) == ([], 0)

    asyncio.run(main())


def test_somebody_who_gives_up_in_line_takes_no_place() -> None:
    async def main() -> None:
        gate = Window(nothing, limit=1)
        await gate.acquire()
        impatient = asyncio.create_task(gate.acquire())
        await turns()
        impatient.cancel()
        patient = asyncio.create_task(gate.acquire())
        await turns()
        assert not patient.done()
        await gate.release()
        await asyncio.wait_for(patient, 5)
        assert gate.busy == 1

    asyncio.run(main())


@asynccontextmanager
async def watched(load: Callable[[], Load], limit: int) -> AsyncIterator[Guests]:
    async def ask() -> Load:
        return load()

    guests = Guests(Window(ask, limit=limit))
    watch = asyncio.create_task(guests.gate.watch())
    try:
        yield guests
        assert not watch.done()
    finally:
        watch.cancel()
        await guests.end()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "INTERVAL", 0)


def test_the_window_opens_while_the_servers_have_nobody_in_line() -> None:
    async def main() -> None:
        load = Load(4, 0)
        async with watched(lambda: load, limit=4) as guests:
            guests.come(100)
            await turns()
            assert len(guests.inside) == guests.gate.busy == 100
            assert guests.gate.limit > 100

    asyncio.run(main())


def test_the_window_opens_no_further_than_it_may() -> None:
    async def main() -> None:
        guests = Guests(gate := Window(lambda: asyncio.sleep(0, Load(4, 0)), limit=16, most=10))
        watch = asyncio.create_task(gate.watch())
        guests.come(100)
        await turns()
        assert (gate.limit, len(guests.inside)) == (10, 10)
        watch.cancel()
        await guests.end()

    asyncio.run(main())


def test_the_window_is_empty_when_the_last_one_has_left() -> None:
    async def main() -> None:
        guests = Guests(gate := Window(nothing))
        await gate.empty()
        guests.come(2)
        await turns()
        wait = asyncio.create_task(gate.empty())
        await guests.go(0)
        assert not wait.done()
        await guests.go(1)
        await asyncio.wait_for(wait, 5)

    asyncio.run(main())


def test_the_window_stays_where_it_is_while_it_is_not_used_up() -> None:
    async def main() -> None:
        async with watched(lambda: Load(4, 0), limit=16) as guests:
            guests.come(15)
            await turns()
            assert guests.gate.limit == 16

    asyncio.run(main())


def test_the_window_closes_while_the_line_is_long_and_lets_nobody_in_until_there_is_room() -> None:
    async def main() -> None:
        load = Load(10, 100)
        async with watched(lambda: load, limit=40) as guests:
            guests.come(60)
            await turns()
            assert guests.gate.limit == START
            let_in = len(guests.inside)
            assert START <= let_in <= 40
            await guests.go(*range(let_in - START))
            assert len(guests.inside) == START  # left, and nobody took their places
            await guests.go(*range(let_in))
            assert guests.inside == list(range(let_in, min(let_in + START, 60)))

    asyncio.run(main())


def test_an_error_of_the_load_ends_the_watch() -> None:
    async def broken() -> Load:
        raise RuntimeError("no load")

    with pytest.raises(RuntimeError, match="no load"):
        asyncio.run(Window(broken).watch())
