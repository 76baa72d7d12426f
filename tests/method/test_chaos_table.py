"""What `make chaos` draws from its seed, and what its table makes of the outcomes. The runs themselves: test_chaos.py."""

import sys
from random import Random

import disturbances
import disturbed
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
