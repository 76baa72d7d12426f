"""From which cosine on two answers are the same: fitted on pairs that people have labelled, and how often that is wrong.

Comes in: pairs of the probe. Goes out: a threshold with its error, which `prepare` commits and every debate of the run goes by.
Pure but for the encoder.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from operator import attrgetter
from typing import Any

from msgspec.structs import replace

from maft.records import Problem
from maft.scores import rounded, score
from maft.summaries import Threshold

META = "semantic"  # under which the commit of the problems has the threshold
PAIRS = 50  # labelled ones at least: with fewer, a threshold says more of the pairs than of the encoder
DEFAULT = 0.84  # of all-MiniLM-L6-v2, on the example's pairs (docs/answers.md)
FOLDS = 50  # parts into which questions are put, each to be judged by what the others give
POOR = 0.25  # error from which on people are warned
LONG = 30  # words of a question above which they are (docs/answers.md)
_PLACES = 4  # digits of a cosine that count: the last ones differ between processors

Embed = Callable[[str], Any]  # a text as a vector of unit length; the encoder and numpy are imported where they are used


@dataclass(frozen=True, slots=True)
class Likeness:
    """What debates compare answers by."""

    embed: Embed
    threshold: float

    def cosine(self, question: str, one: str, other: str) -> float:
        """Computes how near two answers to a question are."""
        return cosine(self.embed, question, one, other)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to a question, and whether they say the same."""

    question: str
    """Its id."""
    cosine: float
    same: bool


def cosine(embed: Embed, question: str, one: str, other: str) -> float:
    """Computes the cosine of two answers, to the digits that every processor agrees on.

    Each is read behind its question: alone, one that repeats the question's words is near to all that do, whatever they say, and
    far from one that says "it" (docs/answers.md has what that costs)."""
    return round(float(embed(f"{question} {one}") @ embed(f"{question} {other}")), _PLACES)


def drowned(words: int) -> str:
    """Says what a question of so many words does to the vectors of its answers; nothing of a short one."""
    if words <= LONG:
        return ""
    return f"vectors read each answer behind its question; behind {words} words all answers are near each other, whatever they say"


def pairs(problems: Iterable[Problem], embed: Embed) -> Iterator[Pair]:
    """Yields every labelled pair: what says the same with each other, and with what does not."""
    for problem in problems:
        if problem.alike is not None:
            alike = (problem.answer, *problem.alike.same)
            others = ((one, other) for one in alike for other in problem.alike.different)
            for both, same in ((combinations(alike, 2), True), (others, False)):
                yield from (Pair(problem.id, cosine(embed, problem.text, *two), same) for two in both)


def threshold(labelled: Sequence[Pair], given: float | None) -> Threshold:
    """Chooses the threshold: the one that is given, else the one fitted on enough pairs, else the default."""
    both, count = len({pair.same for pair in labelled}) == 2, len(labelled)
    if given is None and both and count >= PAIRS:
        return _with_error(Threshold(cosine=fitted(labelled), source="fitted", pairs=count), labelled, _left_out(labelled))
    if given is None:
        chosen = Threshold(cosine=DEFAULT, source="default", pairs=count)
    else:
        chosen = Threshold(cosine=given, source="given", pairs=count)
    return _with_error(chosen, labelled, [chosen.cosine] * count) if both else chosen


def fitted(labelled: Sequence[Pair]) -> float:
    """Finds the cosine at which the share of the same that falls below and the share of the different above it are least, both
    together; of equal ones the middle of the widest gap. There are pairs of both kinds."""
    ordered = sorted(labelled, key=attrgetter("cosine"))
    total = Counter(pair.same for pair in ordered)
    below, best = Counter[bool](), (math.inf, 0.0, 0.0, 0.0)
    for under, over in pairwise([-1.0, *(pair.cosine for pair in ordered), 1.0]):
        # of pairs below the gap the same are parted, of those above it the different are joined
        wrong = round(below[True] / total[True] + 1 - below[False] / total[False], 9)
        if over > under:
            best = min(best, (wrong, under - over, under, over))
        if below.total() < len(ordered):
            below[ordered[below.total()].same] += 1
    *_, under, over = best
    middle = (under + over) / 2
    short = round(middle, _PLACES)
    return short if under < short <= over else middle  # of a gap that is narrower than the last place


def _left_out(labelled: Sequence[Pair]) -> list[float]:
    """For each pair the threshold that pairs of other questions give; the common one where these are of one kind."""
    fold = {question: i % FOLDS for i, question in enumerate(dict.fromkeys(pair.question for pair in labelled))}
    common, bounds = fitted(labelled), dict[int, float]()
    for number in set(fold.values()):
        others = [pair for pair in labelled if fold[pair.question] != number]
        bounds[number] = fitted(others) if len({pair.same for pair in others}) == 2 else common
    return [bounds[fold[pair.question]] for pair in labelled]


def _with_error(chosen: Threshold, labelled: Sequence[Pair], bounds: Sequence[float]) -> Threshold:
    """Adds how often pairs are put wrongly. bounds: the threshold for each pair."""
    by_question: dict[str, list[bool]] = {}
    by_label: dict[bool, list[bool]] = {True: [], False: []}
    for pair, bound in zip(labelled, bounds, strict=True):
        wrong = (pair.cosine >= bound) != pair.same
        by_question.setdefault(pair.question, []).append(wrong)
        by_label[pair.same].append(wrong)
    error = rounded(score([_share(wrong) for wrong in by_question.values()]))
    return replace(chosen, error=error, joined=_share(by_label[False]), parted=_share(by_label[True]))


def _share(wrong: Sequence[bool]) -> float:
    return round(sum(wrong) / len(wrong), 4)
