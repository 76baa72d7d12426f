"""The benchmarks' own parts: virtual time, barriers, answers in many spellings, time-lines; and a quick look at speed itself."""

import asyncio
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import debates
import forgetful
import grading
import iteration
import ratio
import simulated
import timeline
import trainer
import virtual

from maft.debate.engine import Request
from maft.records import BASE
from maft.serve.resolver import Closed

SERVED = pytest.param("throughput", marks=[pytest.mark.nightly, pytest.mark.engine])


def request(seed: int) -> Request:
    return Request(BASE, [1] * 10, seed, 1.0, 0.9, 80)


def test_virtual_time_passes_without_being_waited_for():
    async def main() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200))
        assert await loop.run_in_executor(None, lambda: 7) == 7
        with pytest.raises(OSError, match="broken"):
            await asyncio.to_thread(broken)
        return loop.time()

    def broken() -> None:
        raise OSError("broken")

    assert virtual.run(main()) == 7200


def test_a_loop_that_waits_for_ever_says_so():
    with pytest.raises(RuntimeError, match="no timer"):
        virtual.run(asyncio.Event().wait())


@pytest.mark.parametrize("slots", [1, 2, 5, 100])
def test_slots_are_taken_in_turn(slots):
    async def main():
        engine = virtual.Slots(slots, per_token=1.0, per_prompt_token=0.0)
        calls = [engine.complete("server", request(seed)) for seed in range(20)]
        waiting = asyncio.ensure_future(asyncio.gather(*calls))
        await asyncio.sleep(0.01)
        load = await engine.load()
        await waiting
        return engine, load, asyncio.get_running_loop().time()

    engine, load, took = virtual.run(main())
    assert (load.running, load.waiting) == (min(slots, 20), max(0, 20 - slots))
    work, longest = sum(engine.took.values()), max(engine.took.values())
    assert max(work / slots, longest) - 1e-6 <= took <= work / slots + longest
    assert engine.running == 0
    if slots == 1:
        assert took == pytest.approx(work)


def test_somebody_who_gives_up_takes_no_slot():
    async def main():
        engine = virtual.Slots(1)
        first, second, third = (asyncio.ensure_future(engine.complete("server", request(seed))) for seed in range(3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, third)
        return engine

    engine = virtual.run(main())
    assert (engine.running, len(engine.took)) == (0, 2)


@pytest.mark.parametrize("tail", ["even", "long"])
def test_lengths_have_about_their_mean(tail):
    draw = random.Random(0)
    lengths = [virtual.drawn(tail, 100, draw) for _ in range(20_000)]
    assert sum(lengths) / len(lengths) == pytest.approx(100, rel=0.05)
    assert min(lengths) >= 1
    assert (max(lengths) > 600) is (tail == "long")


def test_a_debate_in_virtual_time_is_the_same_each_time_and_never_beats_the_least():
    plan = debates.Plan(debates.world("tiny"), 12)
    (held, engine), (again, _) = (simulated.debated(plan, "long", 4) for _ in range(2))
    assert (held.seconds, held.transcripts) == (again.seconds, again.transcripts)
    assert held.counted.calls == 12 * 9 == len(engine.took)
    assert held.seconds >= simulated.least(held, engine) * (1 - 1e-9)


def test_one_question_takes_its_critical_path():
    held, engine = simulated.debated(debates.Plan(debates.world("tiny"), 1, rounds=3), "long", 64)
    assert held.seconds == pytest.approx(virtual.critical_path(held.transcripts[0], engine.took))
    fast, engine = simulated.debated(debates.Plan(debates.world("tiny"), 1, rounds=3, mode="fast"), "long", 64)
    assert fast.seconds == pytest.approx(virtual.critical_path(fast.transcripts[0], engine.took))


def test_a_barrier_changes_when_and_not_what():
    plan = debates.Plan(debates.world("tiny"), 10, rounds=3)
    streaming, barred = (simulated.debated(plan, "long", 6, barred=barred)[0] for barred in (False, True))
    by_id = {t.problem.id: t for t in streaming.transcripts}
    assert {t.problem.id: t for t in barred.transcripts} == by_id
    assert barred.seconds > streaming.seconds


def test_problems_that_come_again_have_other_ids():
    world = debates.world("tiny")
    asked = world.asked(len(world.problems) + 2)
    assert len({problem.id for problem in asked}) == len(asked)
    assert asked[-1].question == asked[1].question


def test_answers_are_spelled_in_several_ways_and_most_mean_the_same():
    transcripts = grading._replayed(24, 0.0)[1]
    texts = {turn.call.text for t in transcripts for turns in t.turns for turn in turns}
    assert len(texts) > 24
    assert sum(t.vote.right for t in transcripts) > 16
    assert all(turn.parsed for t in transcripts for turns in t.turns for turn in turns)


def test_the_checkers_clock_counts_the_outermost_call_once():
    with grading.Timed("number") as checker:
        problem = debates.world("tiny").problems[0]
        assert checker.right(problem, problem.answer)
        assert 0 < checker.seconds < 1


def test_a_time_line_shows_each_bar_and_what_it_waited_for():
    bars = [timeline.Bar("run-0-prepare", "prepare", 0, 2, 9), timeline.Bar("run-1-debate<&>", "debate", 3, 10, 5, "run-0-prepare")]
    drawn = timeline.picture(bars)
    assert drawn.count("<rect") == 1 + 2 * len(bars)
    assert "run-1-debate&lt;&amp;&gt;" in drawn and "7.0 s" in drawn
    assert drawn.count('fill="none"') == 1  # one line
    assert "Infinity" not in drawn and "inf" not in drawn


def test_a_benchmark_can_empty_the_cache_of_a_server_that_is_closed():
    """vLLM's own route for it is among those that `Closed` answers with 403."""
    emptied, answers = [], []

    class Engine:
        async def reset_prefix_cache(self) -> bool:
            emptied.append(True)
            return True

    async def nothing(*_: Any) -> None:
        raise AssertionError("neither of them lets it through")

    async def ask(path: str) -> int:
        app = forgetful.Forgetful(Closed(nothing))
        state = SimpleNamespace(state=SimpleNamespace(engine_client=Engine()))

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)

        await app({"type": "http", "path": path, "app": state}, None, send)
        return int(answers[-2]["status"])

    assert (asyncio.run(ask(forgetful.ROUTE)), emptied) == (200, [True])
    assert asyncio.run(ask("/v1/load_lora_adapter")) == 403


def test_every_part_is_there_and_every_row_has_a_part():
    assert all(callable(entry.measure()) for entry in bench.PARTS.values())
    rows = {row for entry in bench.PARTS.values() for row in entry.rows.split(", ")}
    assert rows == {"1", "2", "3", "4", "5", "6", "7", "9", "10", "11", "12", "13", "15"}


def test_each_row_that_waits_for_a_gpu_has_a_command_and_make_runs_it():
    """Of bench.py by the names of its parts; rows of training are trainer.py's."""
    page = (ROOT / "docs" / "gpus.md").read_text().partition("## Rows of the benchmarks")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")][1:]
    assert all(waits.startswith(("`benchmarks/", "the same with `--part ", "nothing")) for _, _, waits in lines)
    commands = {part: rows for rows, _, waits in lines for part in re.findall(r"bench\.py --part ([a-z-]+)", waits)}
    assert commands == {name: entry.rows for name, entry in bench.PARTS.items() if entry.gpu}
    recipe = (ROOT / "Makefile").read_text().partition("\nbench-gpu:")[2].partition("\n\n")[0]
    assert set(re.findall(r"--part ([a-z-]+)", recipe.partition("bench.py")[2])) == set(commands)


@pytest.mark.pretrained
def test_an_iteration_on_a_gpu_has_sums_that_it_is_not_asked_later(tmp_path):
    asked = iteration.sums(tmp_path, 150)
    files = [Path(asked.spec.task.source), Path(asked.spec.task.held_out_source)]
    training, held_out = ([json.loads(line)["question"] for line in file.read_text().splitlines()] for file in files)
    assert (len(set(training)), len(set(held_out))) == (asked.spec.task.train, asked.spec.task.held_out) == (150, 16)
    assert not set(training) & set(held_out) and [problem.question for problem in asked.problems] == training
    assert all(sum(map(int, re.findall(r"\d+", each.question))) == int(each.answer) for each in asked.problems)


def test_a_quick_look_has_what_the_page_says_and_a_measurement_keeps_no_look():
    page = (ROOT / "docs" / "performance.md").read_text().partition("`make bench-quick` looks")[2].partition("\n\n")[0]
    assert set(bench.asked(quick=True)) == set(re.findall(r"`([a-z-]+)`", page)) & set(bench.PARTS)
    assert "training" not in bench.asked(quick=False) and "store" in bench.asked(quick=False)
    assert not any(bench.PARTS[name].gpu for name in [*bench.asked(quick=True), *bench.asked(quick=False)])


def test_what_was_measured_stands_in_the_page():
    """`python benchmarks/bench.py --write --no-measure` after a measurement."""
    kept = bench.read()
    assert set(kept) <= set(bench.PARTS)
    assert bench.text(list(kept.values())) in (ROOT / "docs" / "performance.md").read_text()
    assert msgspec.json.decode(msgspec.json.encode(kept), type=dict[str, bench.Part]) == kept


def test_what_was_measured_of_training_stands_in_the_page():
    """`python benchmarks/trainer.py --write --no-measure` after a measurement."""
    assert trainer.text(trainer.kept_parts()) in (ROOT / "docs" / "performance.md").read_text()


def measured(name: str, *rows: str, pairs: int = 3, machine: str = "a", sample: str = "s", seconds: float = 60.0) -> ratio.Part:
    numbers = tuple(float(i) for i in range(1, pairs + 1))
    made = tuple(ratio.Ratio(9, row, "s", numbers, numbers, sample=sample) for row in rows)
    return ratio.Part(name, "2026-11-28 12:00", seconds, {"begin": 1.0, "end": 2.0, "most": 2.0}, {"cores": machine}, made)


def test_a_half_of_a_part_of_training_takes_the_place_of_its_rows_alone():
    before = [measured("trl tiny", "defaults", "best"), measured("memory tiny", "most")]
    kept = trainer.kept_with(before, measured("trl-best tiny", "best", pairs=5), add=False)
    assert [(part.name, [row.name for row in part.rows]) for part in kept] == [
        ("trl tiny", ["defaults"]),
        ("memory tiny", ["most"]),
        ("trl-best tiny", ["best"]),
    ]
    kept = trainer.kept_with(kept, measured("trl-defaults tiny", "defaults"), add=False)
    assert [part.name for part in kept] == ["memory tiny", "trl-best tiny", "trl-defaults tiny"]


def test_pairs_of_two_sittings_are_put_together():
    before = [measured("x", "a", "b", pairs=3), measured("y", "c")]
    *others, sum_ = trainer.kept_with(before, measured("x", "a", "b", pairs=2, seconds=30.0), add=True)
    assert others == before[1:] and sum_.seconds == 90.0
    assert all(row.first == (1.0, 2.0, 3.0, 1.0, 2.0) and len(row.ratios) == 5 for row in sum_.rows)


@pytest.mark.parametrize(
    "new", [measured("x", "a", machine="b"), measured("x", "a", sample="t"), measured("x", "other"), measured("z", "a")]
)
def test_pairs_of_something_else_are_not_added(new):
    with pytest.raises(SystemExit, match="other samples, versions or another machine"):
        trainer.kept_with([measured("x", "a")], new, add=True)


def test_make_bench_knows_each_part_of_training():
    [line] = re.findall(r"^OF_TRAINER := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    groups = {name: parts for name, parts in trainer.GROUPS.items() if name != "all"}
    assert set(line.split()) == {*trainer.PARTS, *groups}
    assert groups == {"trl": ["trl-defaults", "trl-best"], "adapters": ["adapters-processes", "adapters-steps"]}
    assert trainer.GROUPS["all"] == list(trainer.PARTS)


KEPT_ROWS = [row for part in [*bench.read().values(), *trainer.kept_parts()] for row in part.rows]


@pytest.mark.parametrize("row", KEPT_ROWS, ids=lambda row: f"{row.row}: {row.name}")
def test_a_kept_row_has_five_pairs_or_says_why_not(row: bench.Ratio) -> None:
    pairs = len(row.ratios)
    assert pairs >= 5 or f"Only {pairs}: " in row.note


def test_what_else_a_goal_asks_for_is_what_the_notes_measured():
    """Of rows 7 and 8: labels within one standard error, losses within one percent."""
    measured = {row: apart for row in KEPT_ROWS if (apart := re.search(r"([\d.]+) standard errors|\([+-]([\d.]+)%\)", row.note))}
    assert {row.row for row in measured} == {7, 8}
    for row, apart in measured.items():
        assert row.besides and row.besides.holds is (float(apart[1] or apart[2]) <= 1), row.name


@pytest.mark.run
@pytest.mark.parametrize("part", ["schedule", "barrier-simulated", "growth", "client", "training", SERVED])
def test_nothing_is_grossly_slower(part: str, tmp_path: Path) -> None:
    """The parts of `make bench-quick` that need no package of others; the one that starts a server is nightly's."""
    line = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--quick", "--part", part]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
