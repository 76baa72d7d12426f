"""Calls of the base are asked once in a comparison, and only those: an engine that counts what reaches it."""

import asyncio
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from maft import records
from maft.debate.cache import CachingEngine
from maft.debate.engine import Request
from maft.debate.replica import Load
from maft.errors import BadInput
from maft.records import BASE, CachedCall, Call
from maft.store import layout
from maft.store.base import Store
from maft.store.urls import open_store

GROUP = "ns/group"
ONE = Request(BASE, (1, 2, 3), 7, 1.0, 0.9, 80)
OTHERS = {
    "prompt": replace(ONE, prompt=(1, 2, 4)),
    "a longer prompt": replace(ONE, prompt=(1, 2, 3, 4)),
    "seed": replace(ONE, seed=8),
    "temperature": replace(ONE, temperature=0.5),
    "top-p": replace(ONE, top_p=1.0),
    "tokens": replace(ONE, max_tokens=79),
    "ends of turns": replace(ONE, stop_token_ids=(3,)),
    "special tokens in the text": replace(ONE, skip_special_tokens=False),
    "no tokens": replace(ONE, return_token_ids=False),
}


class Counting:
    """Says how often it was asked in all, so that no two answers are alike."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Request]] = []

    async def complete(self, server: str, request: Request) -> Call:
        self.asked.append((server, request))
        await asyncio.sleep(0)
        return Call(request.model, request.seed, len(request.prompt), 5, "stop", f"answer {len(self.asked)}, ½\n")

    async def ready(self, server: str, models: Iterable[str]) -> int:
        return 100 + len(server) + len(list(models))

    async def load(self) -> Load:
        return Load(3, 4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def task(store: Store, counting: Counting, name: str, *requests: Request, group: str = GROUP) -> list[str]:
    """What a task is answered, one request after the other; it saves what is new."""

    async def all_() -> list[str]:
        engine = CachingEngine(counting, store, group, name)
        texts = [(await engine.complete("s", request)).text for request in requests]
        engine.save()
        return texts

    return asyncio.run(all_())


def test_the_next_task_asks_nothing_that_was_answered(store: Store) -> None:
    counting = Counting()
    first = task(store, counting, "one", ONE, OTHERS["seed"])
    assert task(store, counting, "two", ONE, OTHERS["seed"], OTHERS["prompt"]) == [*first, "answer 3, ½\n"]
    assert [request for _, request in counting.asked] == [ONE, OTHERS["seed"], OTHERS["prompt"]]
    assert task(store, counting, "three", OTHERS["prompt"], ONE) == ["answer 3, ½\n", first[0]]
    assert len(counting.asked) == 3


def test_within_a_task_too(store: Store) -> None:
    counting = Counting()
    one, again = task(store, counting, "one", ONE, ONE)
    assert one == again and len(counting.asked) == 1


@pytest.mark.parametrize("what", OTHERS)
def test_what_decides_an_answer_makes_another_call(store: Store, what: str) -> None:
    counting = Counting()
    task(store, counting, "one", ONE)
    assert task(store, counting, "two", OTHERS[what]) == ["answer 2, ½\n"]
    assert counting.asked[-1] == ("s", OTHERS[what])


def test_every_field_of_a_request_but_the_model_decides() -> None:
    """A new one belongs into the key of a call, or runs would share answers to different requests."""
    changed = {f.name for f in fields(Request) for other in OTHERS.values() if getattr(other, f.name) != getattr(ONE, f.name)}
    assert changed == {f.name for f in fields(Request)} - {"model"}


def test_another_server_gives_the_same_answer(store: Store) -> None:
    """Every server has the same base: who is asked decides nothing."""
    counting = Counting()

    async def both() -> tuple[Call, Call]:
        engine = CachingEngine(counting, store, GROUP, "one")
        return await engine.complete("s", ONE), await engine.complete("t", ONE)

    one, two = asyncio.run(both())
    assert one == two and len(counting.asked) == 1


def test_adapters_are_asked_every_time_and_nothing_of_them_is_left(store: Store) -> None:
    counting, adapter = Counting(), replace(ONE, model="generator-0-1-0123456789ab")
    assert task(store, counting, "one", adapter, adapter) == ["answer 1, ½\n", "answer 2, ½\n"]
    assert task(store, counting, "two", adapter, ONE) == ["answer 3, ½\n", "answer 4, ½\n"]
    assert {request.model for _, request in counting.asked} == {BASE, adapter.model}
    left = [entry for key in store.list(layout.calls(GROUP)) for entry in records.decode_lines(store.read(key), CachedCall, key)]
    assert [entry.call.model for entry in left] == [BASE]


def test_a_call_comes_back_as_it_was(store: Store) -> None:
    async def one(counting: Counting) -> Call:
        engine = CachingEngine(counting, store, GROUP, "one")
        call = await engine.complete("s", ONE)
        engine.save()
        return call

    first, second = asyncio.run(one(Counting())), asyncio.run(one(Counting()))
    assert first == second == Call(BASE, 7, 3, 5, "stop", "answer 1, ½\n")


def test_a_task_leaves_only_what_is_new(store: Store) -> None:
    counting = Counting()
    task(store, counting, "one", ONE)
    task(store, counting, "two", ONE, OTHERS["seed"])
    task(store, counting, "three", ONE)
    left = {key.rpartition("/")[2]: store.read(key).count(b"\n") for key in store.list(layout.calls(GROUP))}
    assert left == {"one.jsonl": 1, "two.jsonl": 1}


def test_equal_calls_in_another_order_leave_equal_bytes(tmp_path: Path) -> None:
    class Constant(Counting):
        async def complete(self, server: str, request: Request) -> Call:
            return Call(BASE, request.seed, 1, 1, "stop", "yes")

    left = []
    for name, order in (("a", [ONE, *OTHERS.values()]), ("b", [*OTHERS.values(), ONE])):
        store = open_store(str(tmp_path / name))
        task(store, Constant(), "one", *order)
        left.append(store.read(f"{layout.calls(GROUP)}one.jsonl"))
    assert left[0] == left[1] and left[0].count(b"\n") == 1 + len(OTHERS)


def test_groups_do_not_share(store: Store) -> None:
    counting = Counting()
    task(store, counting, "one", ONE)
    task(store, counting, "one", ONE, group="ns/group-2")
    assert len(counting.asked) == 2


def test_what_cannot_be_read_is_named(store: Store) -> None:
    store.write(f"{layout.calls(GROUP)}one.jsonl", b'{"key": 3}\n')
    with pytest.raises(BadInput, match=r"ns/group/calls/one\.jsonl line 1: not a CachedCall record"):
        CachingEngine(Counting(), store, GROUP, "one")


def test_everything_else_is_the_engines(store: Store) -> None:
    engine = CachingEngine(Counting(), store, GROUP, "one")
    assert asyncio.run(engine.ready("server", ["a", "b"])) == 108
    assert asyncio.run(engine.load()) == Load(3, 4)


# --- a task that is killed ---


def interrupted(store: Store, counting: Counting, name: str, *rounds: list[Request]) -> list[str]:
    """A task that is flushed after each of these, and never comes to `save`."""

    async def all_() -> list[str]:
        engine, texts = CachingEngine(counting, store, GROUP, name), []
        for requests in rounds:
            texts += [(await engine.complete("s", request)).text for request in requests]
            await engine.flush()
        return texts

    return asyncio.run(all_())


def left(store: Store) -> dict[str, int]:
    """Lines by object."""
    prefix = layout.calls(GROUP)
    return {key.removeprefix(prefix): store.read(key).count(b"\n") for key in store.list(prefix)}


def test_what_was_flushed_is_asked_by_nobody_again(store: Store) -> None:
    """Neither by the task that was killed, nor by those that came to ask meanwhile; in the end one object has all of it."""
    counting = Counting()
    first = interrupted(store, counting, "one", [ONE, OTHERS["seed"]], [OTHERS["prompt"]], [])
    assert left(store) == {"one/000000.jsonl": 2, "one/000001.jsonl": 1}
    assert task(store, counting, "two", OTHERS["seed"]) == [first[1]]
    again = task(store, counting, "one", ONE, OTHERS["seed"], OTHERS["prompt"], OTHERS["top-p"])
    assert again == [*first, "answer 4, ½\n"] and len(counting.asked) == 4
    assert left(store) == {"one.jsonl": 4}


def test_one_that_is_killed_again_and_again_writes_over_nothing(store: Store) -> None:
    counting = Counting()
    for request in OTHERS.values():
        interrupted(store, counting, "one", [request])
        if len(counting.asked) == 3:
            store.delete([f"{layout.calls(GROUP)}one/000001.jsonl"])  # a gap in their numbers
    assert len(left(store)) == len(OTHERS) - 1
    task(store, counting, "one", *OTHERS.values())
    assert left(store) == {"one.jsonl": len(OTHERS)} and len(counting.asked) == len(OTHERS) + 1


def test_one_that_was_killed_between_its_object_and_the_parts_is_no_other(store: Store) -> None:
    counting = Counting()
    interrupted(store, counting, "one", [ONE], [OTHERS["seed"]])
    parts = {key: store.read(key) for key in store.list(layout.calls(GROUP))}
    task(store, counting, "one", ONE)
    for key, content in parts.items():
        store.write(key, content)
    assert task(store, counting, "one", ONE, OTHERS["seed"]) == ["answer 1, ½\n", "answer 2, ½\n"]
    assert left(store) == {"one.jsonl": 2}


def test_parts_that_another_task_puts_into_one_meanwhile_are_read_from_there(store: Store) -> None:
    counting = Counting()
    interrupted(store, counting, "one", [ONE], [OTHERS["seed"]])

    class Meanwhile:
        """The store as somebody sees it whose listing is older than what the other one does."""

        def __init__(self) -> None:
            self.done = False

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def list(self, prefix: str) -> list[str]:
            names = list(store.list(prefix))
            if not self.done:
                self.done = True
                store.write(f"{prefix}one.jsonl", b"".join(store.read(name) for name in names))
                store.delete(names)
            return names

    seen: Any = Meanwhile()
    assert task(seen, counting, "two", ONE, OTHERS["seed"]) == ["answer 1, ½\n", "answer 2, ½\n"]
    assert len(counting.asked) == 2


def test_what_could_not_be_written_is_written_with_the_next(store: Store) -> None:
    class Away:
        def __init__(self) -> None:
            self.away = True

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def write(self, key: str, data: bytes) -> None:
            if self.away:
                raise OSError("away")
            store.write(key, data)

    faulty: Any = Away()

    async def twice() -> None:
        engine = CachingEngine(Counting(), faulty, GROUP, "one")
        await engine.complete("s", ONE)
        with pytest.raises(OSError, match="away"):
            await engine.flush()
        faulty.away = False
        await engine.complete("s", OTHERS["seed"])
        await engine.flush()

    asyncio.run(twice())
    assert list(left(store).values()) == [2]
