"""Why questions gave no example to train on: the reasons that datasets count, in words, and what to change.

Read by the programs that count and report, and by status and terminals. Pure; no import but the standard library's.
"""

from collections.abc import Mapping
from typing import NamedTuple

# As they stand in datasets' counts; docs/formats.md has the table.
NO_CONSENSUS = "noConsensus"
UNPARSED = "unparsed"
OUTVOTED = "outvoted"
STAYED_WRONG = "stayedWrong"
ONE_ROUND = "oneRound"
MIX = "mix"
WRONG = "wrong"
SAME = "same"
UNANIMOUS = "unanimous"
CUT = "cut"
ONLY_WRONG = "onlyWrong"

MORE_TOKENS = "raise debate.maxTokens, for thoughts debate.thinkingTokens, or model.maxLength"  # so that answers are not cut


class Cause(NamedTuple):
    """What a reason says to people."""

    words: str
    change: str
    """What to do where it is the commonest."""


LEFT_OUT = {
    NO_CONSENSUS: Cause(
        "no consensus", "lower debate.temperature or debate.minAgreement, ask easier questions, use a stronger model"
    ),
    UNPARSED: Cause("answer did not parse", "ask in task.prompt for an answer as task.answer reads it, or take a stronger model"),
    OUTVOTED: Cause("answer differs from the majority", "lower debate.temperature, or raise task.train"),
    STAYED_WRONG: Cause("last answer differs from the majority", "lower debate.temperature, or raise task.train"),
    ONE_ROUND: Cause("debate ended after one round", "set debate.mode to paper, or take harder questions"),
    MIX: Cause("to keep the mix of corrected and kept answers", "change training.criticMix, or raise task.train"),
    WRONG: Cause("wrong, with and without the hint", "take easier questions or a stronger model"),
    SAME: Cause("equal to another agent's example", "raise debate.temperature or task.train"),
    UNANIMOUS: Cause("no answer to prefer it to, or none to prefer", "raise debate.temperature, or take harder questions"),
    CUT: Cause("answer was cut off", MORE_TOKENS),
    ONLY_WRONG: Cause(
        "differs from the majority, as all answers of the agent do",
        "lower debate.temperature, take easier questions or a stronger model, or raise task.train",
    ),
}


def words(reason: str) -> str:
    """Says a reason in words; one that this release does not know as it stands."""
    return LEFT_OUT[reason].words if reason in LEFT_OUT else reason


class Shortage(NamedTuple):
    """Why agents were not trained."""

    why: str
    change: str
    """What to do about it."""


def main_reason(left_out: Mapping[str, int]) -> str:
    """Finds the reason for which most was left out; empty where nothing was."""
    return min(left_out, key=lambda reason: (-left_out[reason], reason), default="")


def shortage(most: int, left_out: Mapping[str, int], minimum: int | None = None) -> Shortage:
    """Explains datasets that are too small to train on. most: examples of the largest; left_out: what gave none, by reason;
    minimum: training.minExamples, where it is known."""
    reason = main_reason(left_out)
    cause = LEFT_OUT.get(reason, Cause(reason, "raise task.train"))
    needed = f", training.minExamples is {minimum:,}" if minimum else ""
    often = f"; mostly left out: {cause.words} ({left_out[reason]:,} of {sum(left_out.values()):,})" if reason else ""
    return Shortage(
        f"too few examples (the largest dataset has {most:,}{needed}){often}",
        cause.change + (", or lower training.minExamples" if most else ""),
    )
