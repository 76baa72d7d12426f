"""Stages in words: what a preflight, a debate and an evaluation tell in one line."""

from typing import Any

import pytest
from statuses import debated, evaluated, preflight

from maft.shortage import MORE_TOKENS
from maft.summaries import Answers, PreflightSummary, PrepareSummary, ProbeScore, Score, Threshold, TrainSummary
from maft_operator.plan.summaries import sentence


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "24 questions, 65 % agreement; kept generator 5/6, critic 4/3"),
        ({"abstained": 0}, "24 questions, 65 % agreement; kept generator 5/6, critic 4/3"),
        ({"abstained": 2}, "24 questions, 65 % agreement, 2 without a label; kept generator 5/6, critic 4/3"),
        (
            {"probe": ProbeScore(0.5, 0.05, 100)},
            "24 questions, 65 % agreement; kept generator 5/6, critic 4/3; majority right on 50.0 ± 5.0 % of 100 probe questions",
        ),
        (
            {"probe": ProbeScore(0.49, 0.05, 100)},
            "24 questions, 65 % agreement; kept generator 5/6, critic 4/3; majority right on 49.0 ± 5.0 % of 100 probe questions"
            " - WARNING: fewer than half, so training reinforces wrong answers",
        ),
        (
            {"left_out": {"cut": 4, "noConsensus": 9}},
            "24 questions, 65 % agreement; kept generator 5/6, critic 4/3, left out most: no consensus (9)",
        ),
        (
            {"answers": Answers(asked=96, cut=9, clipped=2)},
            "24 questions, 65 % agreement; kept generator 5/6, critic 4/3; 9 of 96 answers cut off, 2 of 96 to a clipped prompt",
        ),
        (
            {"answers": Answers(asked=96, cut=10)},
            f"24 questions, 65 % agreement; kept generator 5/6, critic 4/3; 10 of 96 answers cut off - WARNING: {MORE_TOKENS}",
        ),
        ({"answers": Answers(asked=96)}, "24 questions, 65 % agreement; kept generator 5/6, critic 4/3"),
    ],
)
def test_a_debate_in_words(more: dict[str, Any], text: str) -> None:
    assert sentence(debated(agreement=0.65, **more)) == text


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (preflight(), "LlamaForCausalLM, 210 layers with adapters, prompts of up to 1234 of 8192 tokens"),
        (preflight(context=0), "LlamaForCausalLM, 210 layers with adapters, prompts of up to 1234 tokens"),
        (preflight(thinks=True), "LlamaForCausalLM, thinks, 210 layers with adapters, prompts of up to 1234 of 8192 tokens"),
        (
            preflight("one", "two"),
            "LlamaForCausalLM, 210 layers with adapters, prompts of up to 1234 of 8192 tokens - WARNING: one; two",
        ),
    ],
)
def test_a_preflight_in_words(summary: PreflightSummary, text: str) -> None:
    assert sentence(summary) == text


@pytest.mark.parametrize(
    ("agents", "rounds", "text"),
    [
        (3, 2, "300 questions, 42.0 ± 2.0 % right after the debate, 50.0 ± 1.0 % before"),
        (3, 1, "300 questions, 42.0 ± 2.0 % right by majority"),
        (1, 1, "300 questions, 42.0 ± 2.0 % right"),
    ],
)
def test_an_evaluation_in_words(agents: int, rounds: int, text: str) -> None:
    assert sentence(evaluated(0.42, 0.3, agents=agents, rounds=rounds)) == text


def test_an_evaluation_warns_of_answers_that_were_cut_off() -> None:
    text = sentence(evaluated(0.42, 0.3, agents=1, rounds=1, answers=Answers(asked=300, cut=31)))
    assert text == f"300 questions, 42.0 ± 2.0 % right; 31 of 300 answers cut off - WARNING: {MORE_TOKENS}"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"kept": 4}, "nothing trained, 4 kept as before (too few examples)"),
        ({"kept": 4, "turns_left_out": 7}, "nothing trained, 4 kept as before (too few examples), 7 turns left out"),
    ],
)
def test_a_training_in_words(more: dict[str, Any], text: str) -> None:
    assert sentence(TrainSummary(adapters=(), trained=0, **more)) == text


def test_prepare_tells_from_when_on_answers_are_the_same() -> None:
    chosen = Threshold(cosine=0.84, source="fitted", pairs=90, error=Score(0.15, 0.022))
    text = "8 training and 4 held-out questions, 30 for the probe; answers the same from a cosine of 0.84 on, fitted; "
    assert (
        sentence(PrepareSummary(train=8, held_out=4, probe=30, semantic=chosen)) == f"{text}15.0 ± 2.2 % of 90 labelled pairs wrong"
    )
    whole = sentence(
        PrepareSummary(train=8, held_out=4, semantic=Threshold(cosine=0.84, source="default"), warnings=("none fitted",))
    )
    assert whole.endswith("answers the same from a cosine of 0.84 on, default - WARNING: none fitted")
