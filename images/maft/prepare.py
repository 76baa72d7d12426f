"""`python -m maft.prepare`: draws the questions and finds out early what would fail late.

Checks that the store can be written and honours conditional writes, that the model is a causal language model with a chat
template, that the source holds enough questions; then publishes `problems/` and `run.json`.
"""

import argparse
from typing import Any

from maft import __version__, flags, layout, models, program, records, tasks
from maft.commits import committed, probe, publish
from maft.records import Commit, Problem
from maft.store import open_store


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Publishes the problem sets once."""
    store = open_store(arguments.store)
    prefix = f"{arguments.run}/{layout.PROBLEMS}"
    probe(store, f"{arguments.run}/")
    commit = committed(store, prefix)
    if commit is None:
        models.check(arguments.model, arguments.revision, trust_remote_code=arguments.trust_remote_code)
        flags.chat_template(arguments)
        split = tasks.load(_task(arguments))
        files = {"train.jsonl": records.encode_lines(split.train), "held-out.jsonl": records.encode_lines(split.held_out)}
        commit = publish(store, prefix, files, meta=_meta(arguments, split))
    store.write(f"{arguments.run}/run.json", records.encode({**commit.meta, "problems": _hashes(commit)}))
    return {"train": arguments.train, "heldOut": arguments.held_out}


def _task(arguments: argparse.Namespace) -> tasks.Task:
    names = ("kind", "source", "held_out_source", "answer", "train", "held_out", "operands", "minimum", "maximum")
    return tasks.Task(**{name: getattr(arguments, name) for name in names}, seed=arguments.task_seed)


def _meta(arguments: argparse.Namespace, split: tasks.Split) -> dict[str, Any]:
    _disjoint(split.train, split.held_out)
    return {"spec": arguments.spec, "version": __version__, "model": arguments.model, "taskSeed": arguments.task_seed}


def _disjoint(train: tuple[Problem, ...], held_out: tuple[Problem, ...]) -> None:
    shared = {p.id for p in train} & {p.id for p in held_out}
    assert not shared, f"questions on both sides of the split: {sorted(shared)[:3]}"


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
    group.add_argument("--answer", required=True, choices=("number", "choice", "text", "math"))
    group.add_argument("--train", type=int, required=True, help="training questions")
    group.add_argument("--held-out", type=int, required=True, help="held-out questions")
    group.add_argument("--task-seed", type=int, required=True, help="of the draw")
    group.add_argument("--operands", type=int, required=True, help="arithmetic: numbers in an expression")
    group.add_argument("--minimum", type=int, required=True, help="arithmetic: smallest operand")
    group.add_argument("--maximum", type=int, required=True, help="arithmetic: largest operand")
    return parser_


if __name__ == "__main__":
    program.run(main, parser())
