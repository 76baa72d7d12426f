"""What `make chaos` draws from its seed, and what its table makes of the outcomes. The runs themselves: test_chaos.py."""

import sys
from random import Random

import disturbances
import disturbed
import pytest
from small import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import chaos

COMPLETE, NAMED = ("complete, equal", True), ("failed, StoreUnusable: the clocks differ", True)
DIFFERENT, HANGS = ("complete, but different: adapters/x", False), ("no end within 1500 s", False)


def row(end: tuple[str, bool], *done: str, clock: str = "", seed: int = 1, engine: str = "mock") -> chaos.Json:
    words, right = end
    about = {"seed": seed, "number": 0, "engine": engine, "clock": clock, "seconds": 1.0, "begun": "2026-01-01T00:00"}
    return {**about, "disturbances": list(done), "end": words, "right": right}


def test_equal_seeds_do_the_same() -> None:
    plans = [disturbed.planned(Random(f"{seed}/3"), "mock", disturbances.ALL) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert all(len(plan) in range(disturbed.DISTURBED[0], disturbed.DISTURBED[1] + 1) for plan in plans)


def test_every_disturbance_is_drawn_and_has_a_name_of_its_own() -> None:
    drawn = {each.name for run in range(200) for _, each in disturbed.planned(Random(f"0/{run}"), "mock", disturbances.ALL)}
    assert drawn == {each.name for each in disturbances.ALL} and len(drawn) == len(disturbances.ALL)


@pytest.mark.parametrize("runs", [1, 3, 5, 9])
def test_few_runs_on_vllm_meet_a_loss_of_each_kind_before_anything_else(runs: int) -> None:
    first = [disturbed.dealt(0, number, runs) for number in range(runs)]
    met = {each.name for several in first for each in several}
    assert len(met) == sum(map(len, first)) == len(disturbances.FIRST)
    assert all(len(met & {*kind}) == 1 for kind in disturbances.FIRST)
    assert {name.partition(":")[0] for name in met} >= {"operator", "server", "task", "node", "store", "API server"}
    plans = [disturbed.planned(Random(f"0/{n}"), "vllm", disturbances.ALL, several) for n, several in enumerate(first)]
    assert [[each for _, each in plan[: len(several)]] for plan, several in zip(plans, first, strict=True)] == first
    low, high = disturbed.DISTURBED
    assert all(max(low, len(several)) <= len(plan) <= max(high, len(several)) for plan, several in zip(plans, first, strict=True))


def test_what_is_met_first_follows_from_the_seed() -> None:
    orders = [[each.name for each in disturbed.dealt(seed, 0, 1)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_an_adapter_that_two_trainings_have_published_is_named() -> None:
    one = "x/c/iterations/1/adapters/generator-0/"
    other = one.replace("generator", "critic")
    logs = [f"x: goes on after step 3\n{one}: trained in 6 steps\n", f"{other}: trained in 6 steps\n", "lost\n"]
    assert disturbed.trained_twice(logs) == []
    assert disturbed.trained_twice([*logs, f"{one}: trained in 6 steps\n"]) == [one]


def test_beside_other_tests_nothing_is_done_to_the_cluster() -> None:
    assert {each.name.partition(":")[0] for each in disturbances.OWN} == {"task", "server", "run", "namespace", "operator"}


def test_a_row_counts_what_was_done_and_how_the_runs_ended_that_had_it() -> None:
    text = chaos.table([row(COMPLETE, "a", "a"), row(DIFFERENT, "a", "b"), row(HANGS, seed=2), row(NAMED, "b", clock="+2h")])
    head, *lines = text.splitlines()
    assert "4 runs on the mock engine, seeds 1, 2," in head
    assert "1 complete and as they should be, 1 failed by the name of what does not pass, 2 otherwise." in head
    assert lines[3:] == [
        "| a | 3 | 2 | 1 | 0 | 1 |",
        "| b | 2 | 2 | 0 | 1 | 1 |",
        "| clock of all its pods: +2h | 1 | 1 | 0 | 1 | 0 |",
    ]


def test_engines_have_tables_of_their_own() -> None:
    text = chaos.table([row(COMPLETE, "a"), row(COMPLETE, "a", engine="vllm")])
    assert text.count("| a | 1 | 1 | 1 | 0 | 0 |") == 2 and "1 runs on vLLM" in text
