"""Answers whose equality a model decides: who is asked what, what contradictions come to, and that it is an equality."""

import asyncio
import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace
from small import a_spec
from test_debate import DEBATE, SOCIETY, MemoryEngine

from maft import records, scores
from maft.answers.equality import Checker
from maft.chat_template import load_chat_template
from maft.debate.judge import yes
from maft.debate.meaning import Meaning
from maft.debate.prompts import Prompts
from maft.debate.question import Question
from maft.debate.setup import Setup
from maft.debate.society import Rules
from maft.preflight.cost import of_debates
from maft.records import Call, Problem, Transcript, Turn

PROBLEM = Problem("id", "Is it warm?", "warm")
SHORT = Prompts("{question}", replace(DEBATE.prompts, judge="One: {one} Other: {other} Same? {question}"))
ASKED = re.compile(r"One: (.*?) Other: (.*?) Same\?")


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


def debate(template, says, same, *, problem=PROBLEM, answer="judge", **changes) -> tuple[Transcript, MemoryEngine]:
    """A debate whose models say `says(model)`, and whose judge finds pairs the same of which `same(one, other)`."""

    def say(model: str, text: str) -> str:
        asked = ASKED.search(text)
        return ("Yes." if same(*asked.groups()) else "No, they differ.") if asked else says.get(model, "so")

    engine = MemoryEngine(template, say)
    rules = Rules(replace(DEBATE, rounds=2, max_tokens=80, temperature=1.0, top_p=0.9, **changes), SHORT, answer, 0, 1)

    async def debated():
        with Checker(answer) as checker, ThreadPoolExecutor(1) as judge:
            return await Question(Setup(rules, SOCIETY, engine, template, checker, {"s": 512}, judge), 0, problem).run()

    return asyncio.run(debated()), engine


SAID = {"g0": "quite warm", "g1": "it is hot", "g2": "cold", "c0": "rather warm", "c1": "freezing", "c2": "cold"}
WARM = {"quite warm", "it is hot", "rather warm", "warm"}


def alike(one: str, other: str) -> bool:
    return (one in WARM) == (other in WARM)


def test_answers_of_one_meaning_vote_together(template) -> None:
    transcript, _ = debate(template, SAID, alike)
    first, last = transcript.votes
    assert (first.answer, first.votes, first.runner_up, first.right) == ("quite warm", 2, 1, True)
    assert (last.answer, last.votes, last.runner_up, last.right) == ("cold", 2, 1, False)
    assert [[turn.parsed for turn in turns] for turns in transcript.turns] == [
        ["quite warm", "quite warm"],
        ["quite warm", "cold"],
        ["cold", "cold"],
    ]
    assert [[turn.right for turn in turns] for turns in transcript.turns] == [[True, True], [True, False], [False, False]]
    assert [turns[-1].agrees for turns in transcript.turns] == [False, True, True]
    assert [turns[0].call.text for turns in transcript.turns] == ["quite warm", "it is hot", "cold"]


def test_each_pair_is_asked_both_ways_round_and_once_without_chance(template) -> None:
    transcript, engine = debate(template, SAID, alike)
    asked = [(ASKED.search(text).groups(), request) for request, text in engine.asked if ASKED.search(text)]
    pairs = [pair for pair, _ in asked]
    assert len(set(pairs)) == len(pairs) and {(b, a) for a, b in pairs} == set(pairs)
    assert all((r.model, r.temperature, r.top_p, r.max_tokens) == ("base", 0.0, 1.0, 32) for _, r in asked)
    assert all(request.temperature == 1.0 for request, text in engine.asked if not ASKED.search(text))
    assert ("cold", "cold") not in pairs  # equal texts mean the same
    calls = list(transcript.calls())
    assert len(calls) == len(engine.asked) == scores.usage([transcript]).calls
    judged = [call for judgement in transcript.judgements for call in judgement.calls]
    assert len(judged) == len(asked)
    assert {(j.one, j.other) for j in transcript.judgements if j.other is None} == {((0, 1), None), ((2, 1), None)}


def test_equal_seeds_give_equal_transcripts(template) -> None:
    one, other = (records.encode(debate(template, SAID, alike)[0]) for _ in range(2))
    assert one == other
    assert records.encode(records.decode(one, Transcript, "here")) == one


def test_what_holds_one_way_round_alone_is_not_the_same(template) -> None:
    transcript, _ = debate(template, SAID, lambda one, other: one < other)
    assert transcript.votes[0].tied and transcript.votes[0].votes == 1
    assert not any(turn.right for turns in transcript.turns for turn in turns)
    assert not any(judgement.same for judgement in transcript.judgements)


def test_without_a_reference_nothing_is_right_and_nobody_is_asked_about_it(template) -> None:
    transcript, _ = debate(template, SAID, alike, problem=Problem("id", "Is it warm?", ""))
    assert all(judgement.other is not None for judgement in transcript.judgements)
    assert transcript.vote.votes == 2 and not transcript.vote.right


def test_the_fast_mode_ends_where_all_mean_the_same(template) -> None:
    transcript, engine = debate(template, {"g0": "warm", "g1": "quite warm", "g2": "it is hot"}, alike, mode="fast")
    assert len(transcript.votes) == 1 and transcript.vote.votes == 3
    assert len([1 for _, text in engine.asked if ASKED.search(text)]) == 6  # three pairs; "warm" is the reference


def test_a_reply_that_says_nothing_does_not_vote(template) -> None:
    transcript, _ = debate(template, {**SAID, "g0": "", "c0": " "}, alike)
    assert transcript.turns[0][0].parsed is None and transcript.turns[0][1].parsed is None
    assert transcript.votes[0].votes == 1


def test_long_answers_are_clipped_to_fit(template) -> None:
    transcript, _ = debate(template, {**SAID, "g0": "warm " * 300}, lambda one, other: False)
    assert any(judgement.clipped for judgement in transcript.judgements)


def test_other_kinds_have_no_judgements_and_the_bytes_that_they_had(template) -> None:
    transcript, _ = debate(template, {}, alike, answer="text")
    assert transcript.judgements is UNSET and b"judgements" not in records.encode(transcript)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("yes", True),
        ("Yes, they do.", True),
        ("**Yes**", True),
        ("No", False),
        ("No. Yes would be wrong.", False),
        ("The answer is yes.", True),
        ("yesterday", False),
        ("nothing, yes", True),
        ("", False),
        ("I cannot tell", False),
    ],
)
def test_a_verdict_is_the_first_yes_or_no(text: str, verdict: bool) -> None:
    assert yes(Call("base", 0, 1, 1, "stop", text)) is verdict


def turn(answer: str | None) -> Turn:
    return Turn("", Call("base", 0, 1, 1, "stop", answer or ""), answer, agrees=False, right=False)


words = st.sampled_from("abcdef")


@settings(max_examples=100)
@given(st.lists(st.lists(words | st.none(), min_size=2, max_size=2), min_size=1, max_size=4), st.sets(st.tuples(words, words)))
def test_groups_are_an_equality_in_which_all_members_are_the_same(said: list[list[str | None]], same: set[tuple[str, str]]) -> None:
    """Whatever is said of pairs; and settling once more asks nobody."""
    asked: list[tuple[str, str]] = []

    async def judge(one: str, other: str, *places: object) -> bool:
        asked.append((one, other))
        return (one, other) in same and (other, one) in same

    turns = [[turn(answer) for answer in agent] for agent in said]
    meaning = Meaning(judge, "a")
    asyncio.run(meaning.settle(turns))
    groups = {
        answer: own.parsed for agent, answers in zip(turns, said, strict=True) for own, answer in zip(agent, answers, strict=True)
    }
    assert groups.pop(None, None) is None
    assert all(groups[first] == first for first in groups.values())
    for one, other in itertools.combinations(groups, 2):
        if groups[one] == groups[other]:
            assert (one, other) in same and (other, one) in same
    assert len({frozenset(pair) for pair in asked}) == len(asked)
    count = len(asked)
    asyncio.run(meaning.settle(turns))
    assert len(asked) == count


def test_preflight_counts_what_a_judge_is_asked() -> None:
    spec = a_spec()
    judged = replace(spec, task=replace(spec.task, kind="jsonl", answer="judge"))
    assert of_debates(judged).requests > of_debates(spec).requests
