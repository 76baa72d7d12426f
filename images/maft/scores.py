"""Numbers over transcripts that debate, evaluation and report share. Pure."""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

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


class Tally:
    """What is counted of many transcripts, one at a time: of each a few numbers are kept."""

    def __init__(self) -> None:
        self._agreeing = array("d")
        self._right = array("d")
        self._margins = Counter[int]()
        self._calls = Counter[str]()
        self._answers = Counter[str]()

    @classmethod
    def of(cls, transcripts: Iterable[Transcript]) -> Self:
        """Counts all of these."""
        tally = cls()
        for transcript in transcripts:
            tally.add(transcript)
        return tally

    def add(self, transcript: Transcript) -> None:
        """Counts one more."""
        self._agreeing.append(transcript.agreeing / len(transcript.turns))
        self._right.append(transcript.vote.right)
        self._margins[transcript.vote.margin] += 1
        for call in transcript.calls():
            self._calls["calls"] += 1
            self._calls["prompt_tokens"] += call.prompt_tokens
            self._calls["completion_tokens"] += call.completion_tokens
        self._answers.update(_whole(transcript))

    @property
    def questions(self) -> int:
        """Counts the transcripts."""
        return len(self._right)

    @property
    def agreement(self) -> Score:
        """Measures the share of agents that agree with the final majority."""
        return score(self._agreeing)

    @property
    def accuracy(self) -> Score:
        """Measures the share of questions whose final majority is right."""
        return score(self._right)

    @property
    def margins(self) -> list[int]:
        """Counts questions by margin of the final vote: how many had 0, 1, ... more agents behind the majority than behind the
        next answer."""
        return _listed(self._margins)

    @property
    def usage(self) -> Usage:
        """Sums requests and tokens."""
        return Usage(self._calls["calls"], self._calls["prompt_tokens"], self._calls["completion_tokens"])

    @property
    def whole(self) -> Answers:
        """Counts answers of all agents and rounds, and which of them are not whole."""
        return Answers(**self._answers)


def agreement(transcripts: Iterable[Transcript]) -> Score:
    """Measures the share of agents that agree with the final majority."""
    return Tally.of(transcripts).agreement


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
    return Tally.of(transcripts).accuracy


def _listed(counted: Counter[int]) -> list[int]:
    return [counted[margin] for margin in range(max(counted, default=0) + 1)]


def usage(transcripts: Iterable[Transcript]) -> Usage:
    """Sums requests and tokens of the transcripts."""
    return Tally.of(transcripts).usage


def left_out(counts: Iterable[DatasetCounts]) -> dict[str, int]:
    """Sums over datasets what gave no example, by reason."""
    total = Counter[str]()
    for count in counts:
        total.update(count.left_out)
    return dict(sorted(total.items()))


def whole(transcripts: Iterable[Transcript]) -> Answers:
    """Counts answers of all agents and rounds, and which of them are not whole."""
    return Tally.of(transcripts).whole


def _whole(transcript: Transcript) -> Counter[str]:
    """Of one question. Summaries are no answers; one whose prompt was clipped counts for the answers that it was made for, unless
    it said nothing and was shown to nobody."""
    counted = Counter[str]()
    clipped = {(s.agent, s.round) for s in transcript.summaries if s.clipped and s.call.text.strip()}
    for agent, turns in enumerate(transcript.turns):
        for round_, turn in enumerate(turns, 1):
            heard = {(agent, round_), (None, round_)} & clipped
            counted.update(asked=1, cut=turn.call.cut, clipped=bool(turn.clipped or heard))
    return counted
