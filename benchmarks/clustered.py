"""Standard errors of accuracies where questions come in clusters, such as 3 + 4 and 4 + 3. Pure.

Who is right on one question of a cluster is likely right on the others: questions are not independent, clusters are. So deviations
are summed over each cluster before they are squared: the standard error of a mean of clustered observations, with G / (G - 1).
"""

import math
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

Right = Mapping[str, float]  # by question: 1 where the answer was right; also means over seeds, and differences
SIGNS = 9999  # random signs of the permutation test


def pair(question: str) -> str:
    """Names a sum by its numbers, whatever their order; a question without numbers is a cluster of its own."""
    numbers = re.findall(r"\d+", question)
    return " ".join(sorted(numbers)) or question


def parts(question: str) -> str:
    """Names a question of how much is left by what is taken away and what is left: who knows 9 - 2 = 7 likely knows 9 - 7 = 2."""
    total, taken = map(int, re.findall(r"\d+", question))
    return " ".join(map(str, sorted((taken, total - taken))))


def over_seeds(runs: Sequence[Right]) -> dict[str, float]:
    """Averages a question's results; all runs have the same questions."""
    return {question: sum(run[question] for run in runs) / len(runs) for question in runs[0]}


def mean(right: Right) -> float:
    """Averages over questions."""
    return sum(right.values()) / len(right)


def stderr(right: Right, cluster: Mapping[str, str]) -> float:
    """Computes the standard error of `mean`. cluster: by question."""
    sums = list(_sums(right, cluster, mean(right)).values())
    if len(sums) < 2:
        return math.nan
    return math.sqrt(len(sums) / (len(sums) - 1) * sum(s * s for s in sums)) / len(right)


def difference(one: Right, other: Right) -> dict[str, float]:
    """Subtracts question by question."""
    return {question: one[question] - other[question] for question in one}


def p_value(differences: Right, cluster: Mapping[str, str]) -> float:
    """Tests that the mean difference is zero, two-sided, by random signs that all questions of a cluster share."""
    sums = [s for s in _sums(differences, cluster, 0.0).values() if s]
    observed, draw = abs(sum(sums)), random.Random(0)
    as_far = sum(abs(sum(s if draw.random() < 0.5 else -s for s in sums)) >= observed - 1e-9 for _ in range(SIGNS))
    return (as_far + 1) / (SIGNS + 1)


def _sums(right: Right, cluster: Mapping[str, str], centre: float) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for question, value in right.items():
        sums[cluster[question]] += value - centre
    return sums
