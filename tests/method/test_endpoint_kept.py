"""The questions that a society keeps: each stands once in the store, whatever becomes of the store and of the process."""

import asyncio
import json
from pathlib import Path

import pytest

from maft.endpoint.kept import Kept
from maft.endpoint.measured import Measured
from maft.records import Problem, Transcript, Vote
from maft.society_spec import SocietySpec
from maft.store.files import FileStore


class Forgetful(FileStore):
    """Takes the first object, and says that it did not."""

    told = False

    def write(self, key: str, data: bytes | Path) -> None:
        super().write(key, data)
        if not self.told:
            self.told = True
            raise OSError("the answer was lost")


def kept(store: FileStore) -> Kept:
    return Kept(store, "ns/run", SocietySpec(keep_questions=True), Measured())


def asked(question: str) -> Transcript:
    return Transcript(0, Problem("id", question, ""), (), (), (Vote("7", 3, 0, False, False),))


def questions(store: FileStore) -> list[str]:
    lines = [line for key in store.list("ns/run/asked/") for line in store.read(key).decode().splitlines()]
    return [json.loads(line)["question"] for line in lines]


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path)


def test_a_process_that_starts_anew_leaves_what_was_kept(store) -> None:
    """A container that ended has the same host, and often the same number, when it is back."""
    for question in ("first?", "second?"):
        again = kept(store)
        again.add(asked(question))
        asyncio.run(again.flush())
    assert sorted(questions(store)) == ["first?", "second?"]


def test_an_answer_of_the_store_that_was_lost_keeps_no_question_twice(tmp_path) -> None:
    store = Forgetful(tmp_path)
    own = kept(store)

    async def both() -> None:
        own.add(asked("first?"))
        await own.flush()
        own.add(asked("second?"))
        await own.flush()
        own.add(asked("third?"))
        await own.flush()

    asyncio.run(both())
    assert sorted(questions(store)) == ["first?", "second?", "third?"]
