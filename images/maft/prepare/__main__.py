"""`python -m maft.prepare`: draws the questions and finds out early what would fail late.

Checks that the store can be written and honours conditional writes, that the model is a causal language model with a chat
template, that the source holds enough questions; then publishes `problems/` and `run.json`.
"""

import argparse
import json
from dataclasses import replace
from typing import Any

from maft import __version__, flags, models, program, records
from maft.errors import BadInput
from maft.prepare import tasks
from maft.records import Commit, Problem
from maft.store import layout
from maft.store.base import open_store
from maft.store.commits import committed, probe, publish

# Sections of the spec that decide what is computed, and what in them does not.
_COMPUTING = ("model", "task", "method", "seed", "agents", "debate", "training", "evaluation")
_PLACES = ("gpus", "topology", "cacheClaim", "tokenSecret", "baselines", "every")
ANSWERS = ("number", "choice", "text", "math")


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Publishes the problem sets once."""
    store = open_store(arguments.store)
    prefix = f"{arguments.run}/{layout.PROBLEMS}"
    probe(store, f"{arguments.run}/")
    commit = committed(store, prefix)
    if commit is not None:
        _same_run(commit, arguments.spec, f"{store.url}/{arguments.run}")
    else:
        models.check(arguments.model, arguments.revision, trust_remote_code=arguments.trust_remote_code)
        flags.chat_template(arguments)
        split = _drawn(arguments)
        parts = {"train": split.train, "held-out": split.held_out, **({"probe": split.probe} if split.probe else {})}
        files = {f"{part}.jsonl": records.encode_lines(problems) for part, problems in parts.items()}
        commit = publish(store, prefix, files, meta=_meta(arguments, split))
    store.write(f"{arguments.run}/run.json", records.encode({**commit.meta, "problems": _hashes(commit)}))
    return {"train": arguments.train, "heldOut": arguments.held_out, **({"probe": arguments.probe} if arguments.probe else {})}


def _drawn(arguments: argparse.Namespace) -> tasks.Split:
    task = _task(arguments)
    if not arguments.evaluation_kind:
        return tasks.load(task)
    own = tasks.load(replace(task, held_out=0))
    return replace(own, held_out=tasks.elsewhere(_other_task(arguments, task), own))


def _task(arguments: argparse.Namespace) -> tasks.Task:
    names = ("kind", "source", "held_out_source", "answer", "train", "held_out", "operands", "minimum", "maximum", "probe")
    return tasks.Task(
        **{name: getattr(arguments, name) for name in names},
        seed=arguments.task_seed,
        levels=tuple(arguments.level),
        subjects=tuple(arguments.subject),
    )


def _other_task(arguments: argparse.Namespace, task: tasks.Task) -> tasks.Task:
    """The task that held-out questions come from: what it trains on are the examples in front of them."""
    return replace(
        task,
        section="evaluation.task",
        kind=arguments.evaluation_kind,
        source=arguments.evaluation_source,
        held_out_source="",
        answer=arguments.evaluation_answer,
        levels=tuple(arguments.evaluation_level),
        subjects=tuple(arguments.evaluation_subject),
        train=arguments.shots,
        probe=0,
    )


def _meta(arguments: argparse.Namespace, split: tasks.Split) -> dict[str, Any]:
    _disjoint(split.train, split.held_out, split.probe)
    return {"spec": arguments.spec, "version": __version__, "model": arguments.model, "taskSeed": arguments.task_seed}


def _same_run(commit: Commit, spec: str, where: str) -> None:
    """BadInput if what lies there was made by another spec: its questions and adapters would be taken for this one's."""
    before, now = json.loads(commit.meta.get("spec") or "{}"), json.loads(spec or "{}")
    for section in _COMPUTING:
        if section not in before or section not in now:
            continue
        if different := _difference(before.get(section), now.get(section), section):
            raise BadInput(f"store {where}: {different}; use another name or prefix, or remove what lies there")


def _difference(before: Any, now: Any, path: str) -> str:
    """The first field that differs. Where things run and how long (topology, GPUs, iterations) may change."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in before if name in now and name not in _PLACES]
        return next((found for name in names if (found := _difference(before[name], now[name], f"{path}.{name}"))), "")
    return "" if before == now else f"made with spec.{path} {before!r}, this is {now!r}"


def _disjoint(*parts: tuple[Problem, ...]) -> None:
    ids = [p.id for part in parts for p in part]
    assert len(set(ids)) == len(ids), "questions on two sides of the split"


def _hashes(commit: Commit) -> dict[str, str]:
    return {entry.name: entry.sha256 for entry in commit.files}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser_ = program.parser("prepare", "Checks store and model, draws the questions.")
    flags.add_model(parser_)
    parser_.add_argument("--spec", default="", help="the resource's spec as JSON, kept in run.json for the record")
    group = parser_.add_argument_group("questions")
    group.add_argument("--kind", required=True, choices=tasks.KINDS)
    group.add_argument("--source", default="", help="jsonl file, s3:// URL or hub data set")
    group.add_argument("--held-out-source", default="", help="where held-out questions come from, if not from --source")
    group.add_argument("--answer", required=True, choices=ANSWERS)
    group.add_argument("--level", action="append", type=int, default=[], help="math: one of its levels; may be repeated")
    group.add_argument("--subject", action="append", default=[], help="mmlu: one of its subjects; may be repeated; none: all")
    group.add_argument("--train", type=int, required=True, help="training questions")
    group.add_argument("--held-out", type=int, required=True, help="held-out questions")
    group.add_argument("--probe", type=int, required=True, help="questions that tell how often the majority is right")
    group.add_argument("--task-seed", type=int, required=True, help="of the draw")
    group.add_argument("--operands", type=int, required=True, help="arithmetic: numbers in an expression")
    group.add_argument("--minimum", type=int, required=True, help="arithmetic: smallest operand")
    group.add_argument("--maximum", type=int, required=True, help="arithmetic: largest operand")
    other = parser_.add_argument_group("held-out questions of another task")
    other.add_argument("--evaluation-kind", default="", choices=("", *tasks.KINDS), help="empty: of the same task")
    other.add_argument("--evaluation-source", default="", help="jsonl file, s3:// URL or hub data set")
    other.add_argument("--evaluation-answer", default="number", choices=ANSWERS)
    other.add_argument("--evaluation-level", action="append", type=int, default=[])
    other.add_argument("--evaluation-subject", action="append", default=[])
    other.add_argument("--shots", type=int, default=0, help="worked examples before each question")
    return parser_


if __name__ == "__main__":
    program.without_torch()
    program.run(main, parser())
