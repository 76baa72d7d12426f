"""Majority votes: counts, ties, and which of them are labels."""

from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maft.answers.equality import Equal
from maft.answers.voting import trains, unanimous, vote
from maft.records import Vote


def exact(a: str, b: str) -> bool:
    return a == b


def as_numbers(a: str, b: str) -> bool:
    return float(a) == float(b)


@pytest.mark.parametrize(
    ("parsed", "expected"),
    [
        (["1", "1", "2"], Vote("1", 2, 1, tied=False, right=True)),
        (["2", "1", "2"], Vote("2", 2, 1, tied=False, right=False)),
        (["1", "1", "1"], Vote("1", 3, 0, tied=False, right=True)),
        (["1", None, None], Vote("1", 1, 0, tied=False, right=True)),
        ([None, "1", "1", None, None], Vote("1", 2, 0, tied=False, right=True)),
        (["1", "2", "1", "3", "2", "1"], Vote("1", 3, 2, tied=False, right=True)),
        (["1"], Vote("1", 1, 0, tied=False, right=True)),
        ([None, None], Vote(None, 0, 0, tied=False, right=False)),
        ([], Vote(None, 0, 0, tied=False, right=False)),
    ],
)
def test_majority(parsed: list[str | None], expected: Vote) -> None:
    assert vote(parsed, "1".__eq__, equal=exact, seed=0) == expected


@pytest.mark.parametrize(
    ("parsed", "votes", "tied_answers"),
    [
        (["1", "2"], 1, {"1", "2"}),
        (["1", "2", "3"], 1, {"1", "2", "3"}),
        (["1", "2", "1", "2", "3"], 2, {"1", "2"}),
        (["1", "2", None, None, None], 1, {"1", "2"}),
    ],
)
def test_a_tie_is_drawn_and_each_of_its_answers_wins_its_share(
    parsed: list[str | None], votes: int, tied_answers: set[str]
) -> None:
    results = [vote(parsed, "1".__eq__, equal=exact, seed=seed) for seed in range(600)]
    assert {(r.votes, r.runner_up, r.tied) for r in results} == {(votes, votes, True)}
    wins = Counter(r.answer for r in results)
    assert set(wins) == tied_answers
    assert min(wins.values()) > 600 / len(tied_answers) * 0.75
    assert all(r.right == (r.answer == "1") for r in results)


answers = st.lists(st.sampled_from(["0.5", ".5", "0.50", "1", "1.0", "2", "3"]) | st.none(), max_size=9)


@given(answers, st.integers(0, 2**53), st.randoms(use_true_random=False))
def test_the_order_of_the_agents_does_not_matter(parsed: list[str | None], seed: int, shuffle: object) -> None:
    shuffled = list(parsed)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    assert vote(parsed, partial(as_numbers, "1"), equal=as_numbers, seed=seed) == vote(
        shuffled, partial(as_numbers, "1"), equal=as_numbers, seed=seed
    )


@given(answers, st.integers(0, 2**53))
def test_counts_are_those_of_a_plain_count(parsed: list[str | None], seed: int) -> None:
    values = Counter(float(answer) for answer in parsed if answer is not None)
    counts = [*sorted(values.values(), reverse=True), 0, 0]
    result = vote(parsed, partial(as_numbers, "0.5"), equal=as_numbers, seed=seed)
    assert (result.votes, result.runner_up) == (counts[0], counts[1])
    assert result.tied == (counts[0] == counts[1] > 0)
    if result.answer is not None:
        assert result.answer in parsed
        assert values[float(result.answer)] == counts[0]
        assert result.right == (float(result.answer) == 0.5)


def test_equal_answers_count_together_however_they_are_spelt() -> None:
    result = vote(["0.5", "1", ".5"], partial(as_numbers, "0.50"), equal=as_numbers, seed=0)
    assert (result.votes, result.runner_up, result.tied, result.right) == (2, 1, False, True)


@pytest.mark.parametrize(
    ("votes", "runner_up", "minimum", "expected"),
    [
        (3, 0, 0, True),
        (2, 1, 0, True),
        (1, 0, 0, True),
        (1, 1, 0, False),
        (2, 2, 0, False),
        (1, 0, 1, True),
        (1, 1, 1, True),
        (2, 1, 2, True),
        (1, 0, 2, False),
        (2, 2, 2, True),
        (2, 1, 3, False),
        (3, 0, 3, True),
        (4, 1, 3, True),
    ],
)
def test_what_trains(votes: int, runner_up: int, minimum: int, expected: bool) -> None:
    assert trains(Vote("1", votes, runner_up, tied=votes == runner_up, right=False), minimum) is expected


@pytest.mark.parametrize("minimum", range(4))
def test_no_answer_never_trains(minimum: int) -> None:
    assert not trains(vote([None, None], "1".__eq__, equal=exact, seed=0), minimum)


@pytest.mark.parametrize(
    ("parsed", "equal", "expected"),
    [
        (["1", "1", "1"], exact, True),
        (["1"], exact, True),
        (["0.5", ".5"], as_numbers, True),
        (["0.5", ".5"], exact, False),
        (["1", "1", "2"], exact, False),
        (["1", "1", None], exact, False),
        ([None, None], exact, False),
        ([], exact, False),
    ],
)
def test_unanimous(parsed: list[str | None], equal: Equal, expected: bool) -> None:
    assert unanimous(parsed, equal) is expected
