"""Numbers over transcripts that debate, evaluation and report share. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from maft.records import DatasetCounts, Transcript
from maft.summaries import Answers, Score, Usage


def score(values: Sequence[float]) -> Score:
    """Computes mean and standard error (sample standard deviation over the square root of the number of questions)."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    return Score(mean, math.sqrt(variance / n))


def rounded(value: Score) -> Score:
    """Rounds to hundredths of a percent, as summaries have it."""
    return Score(round(value.mean, 4), round(value.stderr, 4))


def agreement(transcripts: Iterable[Transcript]) -> Score:
    """Measures the share of agents that agree with the final majority."""
    return score([t.agreeing / len(t.turns) for t in transcripts])


def distinct(transcripts: Iterable[Transcript]) -> Score:
    """Counts different first answers to a question; those that do not parse are each one of their own."""
    return score([float(len(_groups(t))) for t in transcripts])


def entropy(transcripts: Iterable[Transcript]) -> Score:
    """Measures the entropy of first answers to a question over their values, in bits: -sum p log2 p with p the share of agents
    (0: all alike)."""

    def bits(sizes: Sequence[int]) -> float:
        total = sum(sizes)
        return -sum(n / total * math.log2(n / total) for n in sizes)

    return score([abs(bits(list(_groups(t).values()))) for t in transcripts])


def _groups(transcript: Transcript) -> Counter[str]:
    """Agents by what they first answered. Equal values have equal canonical spellings (answers/extract.py)."""
    firsts = (turns[0].parsed for turns in transcript.turns)
    return Counter(f"unparsed {n}" if parsed is None else f"answer {parsed}" for n, parsed in enumerate(firsts))


def accuracy(transcripts: Iterable[Transcript]) -> Score:
    """Measures the share of questions whose final majority is right."""
    return score([float(t.vote.right) for t in transcripts])


def margins(transcripts: Sequence[Transcript]) -> list[int]:
    """Counts questions by margin of the final vote: how many had 0, 1, ... more agents behind the majority than behind the next
    answer."""
    counted = Counter(t.vote.votes - t.vote.runner_up for t in transcripts)
    return [counted[margin] for margin in range(max(counted, default=0) + 1)]


def usage(transcripts: Iterable[Transcript]) -> Usage:
    """Sums requests and tokens of the transcripts."""
    calls = [call for transcript in transcripts for call in transcript.calls()]
    return Usage(len(calls), sum(c.prompt_tokens for c in calls), sum(c.completion_tokens for c in calls))


def left_out(counts: Iterable[DatasetCounts]) -> dict[str, int]:
    """Sums over datasets what gave no example, by reason."""
    total = Counter[str]()
    for count in counts:
        total.update(count.left_out)
    return dict(sorted(total.items()))


def whole(transcripts: Iterable[Transcript]) -> Answers:
    """Counts answers of all agents and rounds, and which of them are not whole. Summaries are no answers; one whose prompt was
    clipped counts for the answers that it was made for, unless it said nothing and was shown to nobody."""
    counted = Counter[str]()
    for transcript in transcripts:
        clipped = {(s.agent, s.round) for s in transcript.summaries if s.clipped and s.call.text.strip()}
        for agent, turns in enumerate(transcript.turns):
            for round_, turn in enumerate(turns, 1):
                heard = {(agent, round_), (None, round_)} & clipped
                counted.update(asked=1, cut=turn.call.cut, clipped=bool(turn.clipped or heard))
    return Answers(**counted)
