"""Standard errors where questions come in clusters: benchmarks/clustered.py."""

import math
import random
import statistics
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import clustered

from maft import scores


def test_a_sum_and_its_mirror_are_one_cluster():
    assert clustered.pair("What is 3 + 14?") == clustered.pair("What is 14 + 3?") != clustered.pair("What is 3 + 15?")
    assert clustered.pair("Which is a fruit?") != clustered.pair("Which is a tool?")
    assert clustered.parts("Of 9 he eats 2") == clustered.parts("Of 9 he eats 7") != clustered.parts("Of 8 he eats 2")


def test_questions_that_are_each_their_own_cluster_have_the_usual_error():
    right = {str(n): float(n % 3 == 0) for n in range(20)}
    assert clustered.stderr(right, {q: q for q in right}) == pytest.approx(scores.score(list(right.values())).stderr)


def test_questions_asked_twice_count_once():
    once = {f"{n}": float(n % 3 == 0) for n in range(20)}
    twice = {f"{n} {again}": value for n, value in once.items() for again in "ab"}
    by_number = {question: question.split()[0] for question in twice}
    assert clustered.mean(twice) == clustered.mean(once)
    assert clustered.stderr(twice, by_number) == pytest.approx(clustered.stderr(once, {q: q for q in once}))
    assert clustered.stderr(twice, {q: q for q in twice}) < clustered.stderr(twice, by_number)


def test_the_error_is_how_far_means_of_new_clusters_lie_apart():
    """Simulated: clusters of one to three questions, all alike in half of them."""
    draw, means, errors = random.Random(0), [], []
    for _ in range(400):
        right, cluster = {}, {}
        for c in range(60):
            alike, all_right = draw.random() < 0.5, draw.random() < 0.6
            for q in range(draw.randint(1, 3)):
                cluster[f"{c} {q}"] = str(c)
                right[f"{c} {q}"] = float(all_right if alike else draw.random() < 0.6)
        means.append(clustered.mean(right))
        errors.append(clustered.stderr(right, cluster))
    assert statistics.mean(errors) == pytest.approx(statistics.stdev(means), rel=0.1)


def test_one_cluster_has_no_error():
    assert math.isnan(clustered.stderr({"a": 1.0, "b": 0.0}, {"a": "x", "b": "x"}))


def test_differences_are_tested_by_cluster():
    """Twenty clusters of two: the same differences are less sure than forty questions would make them."""
    one, none = {f"{n} {q}": 1.0 for n in range(6) for q in "ab"}, {f"{n} {q}": 0.0 for n in range(6) for q in "ab"}
    ahead = clustered.difference(one, none)
    by_cluster = clustered.p_value(ahead, {question: question.split()[0] for question in ahead})
    by_question = clustered.p_value(ahead, {question: question for question in ahead})
    assert by_question < by_cluster == pytest.approx(2 / 2**6, rel=0.2)
    assert clustered.p_value(clustered.difference(one, one), dict.fromkeys(one, "x")) == 1.0


def test_seeds_are_averaged_question_by_question():
    assert clustered.over_seeds([{"a": 1, "b": 0}, {"a": 0, "b": 0}]) == {"a": 0.5, "b": 0.0}
