"""Debates of several programs: the result is one program's, in whatever order they end, are killed and start again."""

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import a_spec
from hypothesis import given
from hypothesis import strategies as st

from maft import evaluate, records
from maft.debate import __main__ as debate
from maft.debate.limits import MOST, connections
from maft.debate.shards import Share
from maft.errors import BadInput
from maft.program import Assignment
from maft.records import Problem
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import DebateSummary, EvaluateSummary, ShardSummary

RUN = "default/test"
PARTS = {"train.jsonl": 7, "probe.jsonl": 2, "held-out.jsonl": 5}
MAINS: dict[str, Callable[[Assignment], Any]] = {"debate": debate.main, "evaluation": evaluate.main}
ITERATION = {"debate": 1, "evaluation": 0}
WHOLE = (DebateSummary, EvaluateSummary)


def questions() -> Iterator[Problem]:
    return (Problem(f"{i:016x}", f"What is {i}+{i % 4}?", str(i + i % 4)) for i in itertools.count())


def with_questions(folder: Path) -> FileStore:
    store, several = FileStore(folder), questions()
    files = {name: records.encode_lines(list(itertools.islice(several, size))) for name, size in PARTS.items()}
    publish(store, f"{RUN}/{layout.PROBLEMS}", files)
    return store


def one(stage: str, store: Any, url: str, shards: int, shard: int | None, agents: int = 2) -> Any:
    """The summary of one of the programs."""
    spec = a_spec(agents=agents, debate={"shards": shards, "rounds": 2, "critics": False})
    assignment = Assignment(store, RUN, spec, ITERATION[stage], servers={"server": [url]}, shard=shard)
    return MAINS[stage](assignment)


def objects(store: FileStore) -> dict[str, bytes]:
    """All that is there, but for how long it took."""
    return {key: store.read(key) for key in store.list(f"{RUN}/iterations/") if not key.endswith(layout.TIMING)}


@pytest.fixture(scope="module", params=sorted(MAINS))
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(stage: str, tmp_path_factory: pytest.TempPathFactory, mock_url: str) -> tuple[dict[str, bytes], Any]:
    """What one program leaves and says."""
    store = with_questions(tmp_path_factory.mktemp("one"))
    summary = one(stage, store, mock_url, 1, None)
    assert isinstance(summary, WHOLE)
    return objects(store), summary


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_several_programs_leave_what_one_does(
    shards: int, stage: str, expected: tuple[dict[str, bytes], Any], tmp_path: Path, mock_url: str
) -> None:
    store = with_questions(tmp_path)
    order = random.Random(shards).sample(range(shards), shards)
    *before, last = (one(stage, store, mock_url, shards, shard) for shard in order)
    asked = PARTS["held-out.jsonl"] if stage == "evaluation" else PARTS["train.jsonl"] + PARTS["probe.jsonl"]
    assert before == [ShardSummary(questions=len(range(shard, asked, shards))) for shard in order[:-1]]
    assert (objects(store), last) == expected


def test_a_program_that_is_told_of_no_shard_debates_all(
    stage: str, expected: tuple[dict[str, bytes], Any], tmp_path: Path, mock_url: str
) -> None:
    store = with_questions(tmp_path)
    assert (one(stage, store, mock_url, 4, None), objects(store)) == expected[::-1]


class Ended(Exception):
    """The program is gone in the middle of its work."""


class Interposed:
    """A store that does something before one of its operations: the n-th, from 0."""

    def __init__(self, store: FileStore, at: int, act: Callable[..., object], *arguments: Any) -> None:
        self.url = store.url
        self._store = store
        self._left = at
        self._act = partial(act, *arguments)

    def __getattr__(self, name: str) -> Any:
        def operation(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                self._act()
            return getattr(self._store, name)(*arguments, **named)

        return operation

    @property
    def acted(self) -> bool:
        return self._left < 0


def die() -> None:
    raise Ended


def test_a_program_may_be_killed_anywhere(
    stage: str, expected: tuple[dict[str, bytes], Any], tmp_path: Path, mock_url: str
) -> None:
    """At each operation of its store once; Kubernetes starts it again."""
    store = with_questions(tmp_path)
    one(stage, store, mock_url, 2, 1)
    for at in itertools.count():
        dying = Interposed(store, at, die)
        try:
            said = one(stage, dying, mock_url, 2, 0)
            break
        except Ended:
            assert dying.acted
    assert at > 10
    assert (objects(store), said) == expected


def test_two_programs_may_end_at_the_same_time(
    stage: str, expected: tuple[dict[str, bytes], Any], tmp_path: Path, mock_url: str
) -> None:
    """The other one goes from its start to its end between any two operations of the first."""
    with ThreadPoolExecutor(1) as other:
        for at in itertools.count():
            store = with_questions(tmp_path / str(at))
            second = partial(one, stage, store, mock_url, 2, 1)
            said: list[Any] = []
            first = Interposed(store, at, lambda run, heard: heard.append(other.submit(run).result()), second, said)
            said.append(one(stage, first, mock_url, 2, 0))
            if not first.acted:
                break
            assert expected[1] in said
            assert all(summary == expected[1] or isinstance(summary, ShardSummary) for summary in said)
            assert objects(store) == expected[0], at
    assert at > 10


# --- shares ---


@given(st.integers(1, 64), st.integers(0, 1000))
def test_every_question_is_in_one_share(programs: int, more: int) -> None:
    total = programs + more
    shares = [share.numbers(total) for share in Share(0, programs).all()]
    assert sorted(number for share in shares for number in share) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- what is refused ---


def test_more_programs_than_questions(tmp_path: Path, stage: str, mock_url: str) -> None:
    questions = {"debate": 9, "evaluation": 5}[stage]
    with pytest.raises(BadInput, match=f"^debate.shards: 10 of only {questions} questions; set it to at most {questions}$"):
        one(stage, with_questions(tmp_path), mock_url, 10, 3)


def test_a_shard_that_there_is_not(tmp_path: Path, stage: str, mock_url: str) -> None:
    with pytest.raises(BadInput, match=r"^--shard 2: debate.shards is 2, so they are 0 to 1$"):
        one(stage, with_questions(tmp_path), mock_url, 2, 2)


def test_a_share_of_another_number_of_questions(tmp_path: Path, stage: str, mock_url: str) -> None:
    """Somebody put it there by hand; the journal of the whole debate is not touched."""
    store = with_questions(tmp_path)
    prefix = getattr(layout, stage)(RUN, ITERATION[stage])
    other = layout.debate_shard(prefix, 1, 2)
    publish(store, other, {layout.TRANSCRIPTS: b""})
    with pytest.raises(BadInput, match=f"^{other}: 0 transcripts, [24] were expected; remove that prefix$"):
        one(stage, store, mock_url, 2, 0)


@given(st.integers(1, 64), st.integers(1, 32))
def test_all_programs_together_have_the_connections_of_one(shards: int, agents: int) -> None:
    allowed = connections(2**20, agents, shards)
    assert agents <= allowed and allowed * shards <= MOST


def test_too_few_connections_to_the_servers_for_so_many_programs() -> None:
    with pytest.raises(BadInput) as refused:
        connections(2**20, 300, 64)
    each = "16384 connections to the servers are 256 for each, and 300 agents need 300"
    assert str(refused.value) == f"debate.shards: of 64 programs, {each}; set it to at most 54"
