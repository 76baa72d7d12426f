"""A whole run on questions of reasoning-gym: real programs, a deterministic engine in place of vLLM."""

import json
from pathlib import Path

import pytest
from small import resource
from test_run import run

pytestmark = pytest.mark.run
SUMS = {"name": "chain_sum", "config": {"min_terms": 2, "max_terms": 3, "max_digits": 2}}
PROMPT = "{question}"
TASK = {
    "kind": "reasoning-gym",
    "source": "",
    "generator": SUMS,
    "prompt": PROMPT,
    "train": 24,
    "heldOut": 16,
    "probe": 4,
}
HARDER = {
    "kind": "reasoning-gym",
    "generator": {"name": "chain_sum", "config": {"min_terms": 4, "max_terms": 4}},
    "prompt": PROMPT,
    "heldOut": 12,
}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.nightly
def test_a_run_on_generated_questions_ends_with_its_table(tmp_path):
    done = run(tmp_path, resource(task=TASK, evaluation={"task": HARDER}))
    assert done.returncode == 0, done.stdout + done.stderr
    top = tmp_path / "runs" / "default" / "test"
    parts = {part: lines(top / "problems" / f"{part}.jsonl") for part in ("train", "held-out", "probe")}
    assert {part: len(problems) for part, problems in parts.items()} == {"train": 24, "held-out": 12, "probe": 4}
    assert {json.loads(p["entry"]["config"])["max_terms"] for p in parts["held-out"]} == {4}
    # The engine is right about half the time and more; a right answer of chain_sum is its own answer, and no other is.
    verdicts = {
        (turn["right"], turn["parsed"] == debate["problem"]["answer"])
        for debate in lines(top / "iterations/1/evaluation/part-0.jsonl")
        for turns in debate["turns"]
        for turn in turns
    }
    assert verdicts == {(True, True), (False, False)}
    assert "multiagent finetuning, iteration 1" in done.stdout
    assert list((top / "local").glob("*server*"))


@pytest.mark.parametrize(
    ("generator", "says"),
    [
        ({"name": "chain_sums"}, "task.generator.name: reasoning-gym has no generator 'chain_sums'; did you mean chain_sum?"),
        ({"name": "gcd", "config": {"max_value": 3}}, "gcd has"),
    ],
)
def test_a_wrong_generator_ends_the_run_before_a_server_starts(tmp_path, generator, says):
    task = {**TASK, "generator": generator, "train": 500}
    done = run(tmp_path, resource(task=task))
    assert done.returncode == 2
    assert says in " ".join((done.stdout + done.stderr).split())
    assert not list((tmp_path / "runs/default/test/local").glob("*server*"))
