"""Numbers over transcripts that debate, evaluation and report share. Pure."""

import math
from collections.abc import Iterable, Sequence

from maft.records import Score, Transcript, Usage


def score(values: Sequence[float]) -> Score:
    """Mean and standard error (sample standard deviation over the square root of the number of questions)."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    return Score(mean, math.sqrt(variance / n))


def agreement(transcripts: Iterable[Transcript]) -> Score:
    """Share of agents that agree with the final majority."""
    return score([t.agreeing / len(t.turns) for t in transcripts])


def usage(transcripts: Iterable[Transcript]) -> Usage:
    """Requests and tokens of the transcripts."""
    calls = [call for transcript in transcripts for call in transcript.calls()]
    return Usage(len(calls), sum(c.prompt_tokens for c in calls), sum(c.completion_tokens for c in calls))
