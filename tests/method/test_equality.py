"""Equality of answers, mathematical ones above all: what counts as equal, and what becomes of a comparison that does not end."""

import os
import time
from collections.abc import Iterator

import psutil
import pytest

from maft.answers.equality import Checker, groups
from maft.spec import AnswerKind

# (a, b, equal), each looked at both ways round
PAIRS = [
    ("\\frac{1}{2}", "0.5", True),
    ("\\frac12", "2/4", True),
    ("x+1", "1+x", True),
    ("x^2-1", "(x-1)(x+1)", True),
    ("\\{1,2\\}", "\\{2,1\\}", True),
    ("x=1", "1", True),
    ("1,234", "1234", True),
    ("\\sqrt{8}", "2\\sqrt{2}", True),
    ("1<x<2", "(1,2)", True),
    ("\\frac{1}{2}", "0.51", False),
    ("x+1", "x-1", False),
    ("\\{1,2\\}", "\\{1,3\\}", False),
    ("(1,2)", "(2,1)", False),
    ("x", "y", False),
    ("", "1", False),
    ("\\frac{", "1", False),
    ("\ud800", "1", False),
]


def hang(_: str) -> bool:
    while True:
        pass


def die(_: str) -> bool:
    os._exit(3)


def long(text: str) -> bool:
    return len(text) > 3


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    with Checker("math", limit=20) as checker:
        yield checker


@pytest.mark.parametrize(("a", "b", "equal"), PAIRS)
def test_equality_of_mathematics(checker: Checker, a: str, b: str, equal: bool) -> None:
    assert checker.equal(a, b) is equal
    assert checker._compare(b, a) is equal


@pytest.mark.parametrize("kind", ["number", "choice", "text"])
def test_other_kinds_are_compared_as_they_stand_and_start_no_process(kind: AnswerKind) -> None:
    before = psutil.Process().children(recursive=True)
    with Checker(kind) as plain:
        assert plain.equal("1/2", "1/2")
        assert not plain.equal("1/2", "0.5")
        assert psutil.Process().children(recursive=True) == before


def test_equal_strings_need_no_process() -> None:
    before = psutil.Process().children(recursive=True)
    with Checker("math") as plain:
        assert plain.equal("\\frac{", "\\frac{")
        assert psutil.Process().children(recursive=True) == before


@pytest.mark.parametrize("end", [hang, die], ids=["hangs", "dies"])
def test_after_a_lost_comparison_the_next_one_works_and_no_process_stays(end: object) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Checker("math", limit=20) as checker:
        assert checker._call(long, "long enough")
        lost = {child.pid for child in psutil.Process().children(recursive=True)} - before
        checker._limit, started = 0.3, time.monotonic()
        assert checker._call(end, "") is False
        assert time.monotonic() - started < 15
        checker._limit = 20
        assert checker._call(long, "long enough")
        replaced = {child.pid for child in psutil.Process().children(recursive=True)} - before
        assert lost and replaced and not lost & replaced
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def test_a_worker_that_still_computes_is_ended_with_the_checker() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Checker("math", limit=60) as checker:
        assert checker._call(long, "long enough")
        assert checker._pool
        checker._pool.schedule(hang, args=("",))
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def test_hostile_mathematics_is_unequal_and_asked_once() -> None:
    with Checker("math", limit=0.3) as checker:
        assert not checker.equal("\\frac{" * 20_000, "1")
        checker._limit = 20
        assert checker.equal("\\frac{1}{4}", "0.25")
    # Now there is nobody left to ask.
    assert not checker.equal("1", "\\frac{" * 20_000)
    assert checker.equal("0.25", "\\frac{1}{4}")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["1", "2", "1"], [[0, 2], [1]]),
        (["1", None, "1"], [[0, 2]]),
        ([None, None], []),
        ([], []),
        (["", None, ""], [[0, 2]]),
    ],
)
def test_groups_of_equal_answers(answers: list[str | None], expected: list[list[int]]) -> None:
    assert groups(answers, lambda a, b: a == b) == expected
