"""What a run is said to ask and to keep, before it begins."""

import pytest
from small import a_spec

from maft.preflight import cost
from maft.preflight.cost import Cost
from maft.variants import variants

PAPER = {"agents": 3, "iterations": 2, "evaluation": {"baselines": [], "every": 2}}  # 24 questions twice, 16 once
ONE_THINKS = [{"agent": 1, "thinking": "Enabled"}]


@pytest.mark.parametrize(
    ("changed", "of_a_question"),
    [
        ({}, 3 * 2 + 3),  # two rounds, and a summary for each agent
        ({"debate": {"rounds": 3}}, 3 * 3 + 2 * 3),
        ({"debate": {"rounds": 1, "critics": False}}, 3),
        ({"debate": {"mode": "fast"}}, 3 * 2 + 1),  # one summary for all
        ({"debate": {"summarize": False}}, 3 * 2),
    ],
)
def test_requests_of_a_debate(changed, of_a_question):
    found = cost.of_debates(a_spec(**PAPER, **changed))
    assert found == Cost((2 * 24 + 16) * of_a_question, (2 * 24 + 16) * of_a_question * 80)


def test_thoughts_and_the_probe_count():
    found = cost.of_debates(a_spec(**PAPER, debate={"thinkingTokens": 20}, task={"probe": 6}))
    assert found == Cost((2 * 30 + 16) * 9, (2 * 30 + 16) * 9 * 100)


def test_thoughts_of_one_agent_count_where_the_others_have_none():
    debate = {"thinkingTokens": 20, "thinking": "Disabled"}
    found = [cost.of_debates(a_spec(**PAPER, debate=debate, agentOverrides=o)).tokens for o in ([], ONE_THINKS)]
    assert found == [(2 * 24 + 16) * 9 * 80, (2 * 24 + 16) * 9 * 100]


def test_the_untrained_models_debate_counts():
    more = cost.of_debates(a_spec(**{**PAPER, "evaluation": {"every": 2}})).requests
    assert more - cost.of_debates(a_spec(**PAPER)).requests == 16 * 9


def test_a_hint_asks_once_more_and_one_model_answers_alone():
    star = a_spec(method="star", iterations=1, evaluation={"baselines": []})
    agents = star.agents
    assert cost.of_debates(star).requests == 24 * agents * 2 + 16 * star.held_out_agents(1)


def test_what_is_kept():
    spec = a_spec(**PAPER)
    assert cost.stored(spec, 1000, range(3)) == 2 * 3 * 2 * 1000 * cost.NUMBER
    generators = a_spec(**PAPER, debate={"critics": False})
    union = a_spec(**PAPER, method="union", agentOverrides=ONE_THINKS)
    assert sum(cost.stored(union, 1000, each.agents) for each in variants(union)) == 2 * 2 * 1000 * cost.NUMBER
    assert (
        cost.stored(generators, 1000, range(3)) + cost.transcript_bytes(Cost(5, 7)) == 2 * 3 * 1000 * cost.NUMBER + 7 * cost.TOKEN
    )
