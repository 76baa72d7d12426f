"""`python -m maft.train`: data sets in, PEFT adapter directories out. One process, one copy of the base, adapters in turn.

An adapter that is committed already is not trained again; an agent with too few examples keeps what it had.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client import Gauge

from maft import __version__, adapters, flags, lora, models, program, records
from maft.chat_template import ChatTemplate
from maft.errors import BadInput
from maft.records import BASE, ROLES, Adapter, Commit, Example, Message, Role, Timing
from maft.store import layout
from maft.store.base import Store, open_store
from maft.store.commits import committed, fetch_folder, fetch_records, publish, required
from maft.train import dpo as preference


@dataclass(frozen=True, slots=True)
class Job:
    """One adapter to make: its data (Tokens, or Pairs for dpo), and what its role used before."""

    role: Role
    agent: int
    examples: tuple[Any, ...]
    previous: Adapter


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and publishes what is not there yet."""
    store = open_store(arguments.store)
    data = required(store, layout.datasets(arguments.run, arguments.iteration), "the debate of this iteration")
    template = flags.chat_template(arguments)
    roles = ROLES[:1] if arguments.no_critics else ROLES
    wanted = [(role, agent) for agent in arguments.agent for role in roles]
    jobs = [
        _job(arguments, store, data, template, role, agent)
        for role, agent in wanted
        if committed(store, layout.adapter(arguments.run, arguments.iteration, role, agent)) is None
    ]
    _train_all(arguments, store, data, jobs)
    return _summary([adapters.current(store, arguments.run, arguments.iteration, role, agent) for role, agent in wanted])


def _job(args: argparse.Namespace, store: Store, data: Commit, template: ChatTemplate, role: Role, agent: int) -> Job:
    examples = fetch_records(store, data, layout.dataset_file(role, agent), Example)
    return Job(
        role,
        agent,
        tuple(_sample(args, template, e) for e in examples),
        adapters.current(store, args.run, args.iteration - 1, role, agent),
    )


def _sample(args: argparse.Namespace, template: ChatTemplate, example: Example) -> Any:
    chosen = template.tokens(example.messages, every_turn=args.loss_on == "all" and args.method == "sft")
    if args.method == "sft":
        return chosen
    if example.rejected is None:
        raise BadInput("training.method: dpo needs pairs, and this data set has single answers; make the data sets anew")
    rejected = (*example.messages[:-1], Message("assistant", example.rejected))
    return preference.Pair(chosen, template.tokens(rejected, every_turn=False))


def _train_all(arguments: argparse.Namespace, store: Store, data: Commit, jobs: Sequence[Job]) -> None:
    settings = _settings(arguments)
    enough = [job for job in jobs if len(job.examples) >= arguments.min_examples]
    progress = program.Progress(arguments.metrics_port, arguments.metrics_host)
    progress.total.set(sum(lora.steps(len(job.examples), settings) for job in enough))
    shown = loss(progress)

    def step_done(value: float) -> None:
        progress.done.inc()
        shown.set(value)

    for job in jobs:
        if job not in enough:
            _keep(arguments, store, data, job)
    objective = preference.Preferences(arguments.beta) if arguments.method == "dpo" else lora.NextToken()
    base = lora.load_base(models.local(arguments.model), arguments.revision, arguments.trust_remote_code) if enough else None
    for job in enough:
        _train_one(arguments, store, data, job, lora.Trainer(base, settings, step_done, objective))


def loss(progress: program.Progress) -> Gauge:
    """For Prometheus; not a number until the first step is done."""
    made = progress.gauge("train_loss", "Loss of the last step, nats per completion token (dpo: per pair)")
    made.set(float("nan"))
    return made


def _train_one(arguments: argparse.Namespace, store: Store, data: Commit, job: Job, trainer: lora.Trainer) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="maft-train-") as scratch:
        folder = Path(scratch) / "adapter"
        parent = _previous(arguments, store, job, Path(scratch))
        curve = trainer.train(job.examples, folder, seed=_seed(arguments, job), previous=parent)
        weights = (folder / adapters.WEIGHTS).read_bytes()
        name = adapters.name(job.role, job.agent, arguments.iteration, hashlib.sha256(weights).hexdigest())
        tenth = max(1, len(curve) // 10)
        first, last = (round(sum(part) / len(part), 4) for part in (curve[:tenth], curve[-tenth:]))
        made = Adapter(job.role, job.agent, arguments.iteration, name, True, len(job.examples), len(curve), first, last)
        lora.tidy(folder, arguments.model, arguments.revision, _card(arguments, made, data.meta))
        prefix = _publish(arguments, store, data, made, {path.name: path for path in folder.iterdir()})
    store.write(prefix + layout.TIMING, records.encode(Timing(round(time.monotonic() - started, 1))))


def _previous(arguments: argparse.Namespace, store: Store, job: Job, scratch: Path) -> Path | None:
    """The folder of the adapter to go on from; None to start from the base."""
    if arguments.start_from == "base" or job.previous.name == BASE:
        return None
    located = adapters.locate(job.previous.name, arguments.run)
    assert located, job.previous.name
    return fetch_folder(store, required(store, located[0], "the previous iteration"), scratch / "previous")


def _keep(arguments: argparse.Namespace, store: Store, data: Commit, job: Job) -> None:
    kept = Adapter(job.role, job.agent, arguments.iteration, job.previous.name, False, len(job.examples), 0, None, None)
    _publish(arguments, store, data, kept, {})


def _publish(args: argparse.Namespace, store: Store, data: Commit, made: Adapter, files: dict[str, Path]) -> str:
    prefix = layout.adapter(args.run, args.iteration, made.role, made.agent)
    versions = {name: version(name) for name in ("torch", "transformers", "peft")} | {"maft": __version__}
    meta = {"adapter": records.plain(made), "seed": args.seed, "versions": versions, "model": args.model}
    publish(store, prefix, files, parents=[data.prefix], meta=meta)
    return prefix


def _seed(arguments: argparse.Namespace, job: Job) -> int:
    text = f"{arguments.seed}/{arguments.iteration}/{job.role}/{job.agent}/train"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def _settings(arguments: argparse.Namespace) -> lora.Settings:
    return lora.Settings(
        rank=arguments.rank,
        alpha=arguments.alpha,
        dropout=arguments.dropout,
        target_modules=tuple(arguments.target_module),
        learning_rate=arguments.learning_rate,
        warmup=arguments.warmup,
        weight_decay=arguments.weight_decay,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        batch_tokens=arguments.batch_tokens,
    )


def _summary(made: Sequence[Adapter]) -> dict[str, Any]:
    rows = [[a.role, a.agent, a.name, a.examples, a.steps, a.loss_first, a.loss_last] for a in made[:24]]
    return {"adapters": rows, "trained": sum(a.trained for a in made), "kept": sum(not a.trained for a in made)}


LEARNT = {  # by what an example is (datasets.Examples): what the card says it learnt from
    "first": "that agree with the majority of the debate; no reference answers were used",
    "last": "at the end of the debate that agree with its majority; no reference answers were used",
    "hinted": "that equal the reference answers, some of them after a hint",
    "pairs": "that agree with the majority of the debate, preferred to others that do not; no reference answers were used",
}


def _card(arguments: argparse.Namespace, made: Adapter, data: Mapping[str, Any]) -> str:
    """The adapter's model card, in the form of Hugging Face. data: the meta of its data sets' commit."""
    whose = "all agents" if data.get("pooled") else "this agent"
    return f"""---
base_model: {arguments.model}
library_name: peft
tags: [lora, maft, multiagent-finetuning]
---

# {made.role} of agent {made.agent}, iteration {made.iteration}

A LoRA adapter made by multiagent finetuning (arXiv 2501.05707) of `{arguments.model}`, run `{arguments.run}`.
{"It gives first answers." if made.role == "generator" else "It revises answers after hearing a summary of the others'."}
It was trained on {made.examples} outputs of {whose} {LEARNT[data.get("examples", "first")]}.

| steps | epochs | batch | learning rate | rank | alpha | loss, first tenth | loss, last tenth |
|---|---|---|---|---|---|---|---|
| {made.steps} | {arguments.epochs} | {arguments.batch_size} | {arguments.learning_rate} | {arguments.rank} | {arguments.alpha} \
| {made.loss_first} | {made.loss_last} |

Load it with `peft.PeftModel.from_pretrained(base, "<this folder>")`, or name it in a request to a vLLM server with LoRA enabled.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser_ = program.parser("train", "Trains the LoRA adapters of one or several agents.")
    flags.add_model(parser_)
    group = parser_.add_argument_group("adapters")
    group.add_argument("--iteration", type=int, required=True, help="l: whose data sets are read and whose adapters are made")
    group.add_argument("--agent", type=int, action="append", required=True, help="n, from 0; repeat for several agents")
    group.add_argument("--no-critics", action="store_true", help="generators only")
    group.add_argument("--start-from", required=True, choices=("base", "previous"))
    group.add_argument("--min-examples", type=int, required=True, help="with fewer, the agent keeps what it had")
    group.add_argument("--loss-on", required=True, choices=("last", "all"), help="which assistant turns count")
    group.add_argument("--seed", type=int, required=True, help="of the run")
    group = parser_.add_argument_group("training")
    group.add_argument("--method", required=True, choices=("sft", "dpo"))
    group.add_argument("--beta", type=float, default=0.0, help="dpo: how closely it keeps to where it started")
    group.add_argument("--rank", type=int, required=True)
    group.add_argument("--alpha", type=int, required=True)
    group.add_argument("--dropout", type=float, required=True)
    group.add_argument("--target-module", action="append", required=True, help="module name, or all-linear")
    group.add_argument("--learning-rate", type=float, required=True, help="peak")
    group.add_argument("--warmup", type=float, required=True, help="share of the steps")
    group.add_argument("--weight-decay", type=float, required=True)
    group.add_argument("--epochs", type=int, required=True)
    group.add_argument("--batch-size", type=int, required=True, help="examples per step")
    group.add_argument("--batch-tokens", type=int, required=True, help="tokens per forward pass; larger batches accumulate")
    return parser_


if __name__ == "__main__":
    program.run(main, parser())
