"""`python -m maft.train`: datasets in, PEFT adapter directories out. One process, one copy of the base, adapters in turn.

An adapter that is committed already is not trained again; an agent with too few examples keeps what it had.
"""

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client import Gauge

from maft import __version__, adapters, lora, models, program, records
from maft.chat_template import ChatTemplate
from maft.program import Assignment
from maft.records import BASE, Adapter, Commit, Example, Role, trained_roles
from maft.store import layout
from maft.store.commits import committed, fetch_folder, fetch_records, publish, required
from maft.store.timing import write_seconds
from maft.summaries import AdapterSummary, TrainSummary
from maft.train.dpo import Preferences
from maft.train.samples import sample
from maft.train.trainer import NextToken, Trainer, steps

SHOWN = 20  # adapters in a summary, which holds 4 KiB
LEARNT = {  # by what an example is (datasets.Examples): what the card says it learnt from
    "first": "that agree with the majority of the debate; no reference answers were used",
    "last": "at the end of the debate that agree with its majority; no reference answers were used",
    "hinted": "that equal the reference answers, some of them after a hint",
    "pairs": "that agree with the majority of the debate, preferred to others that do not; no reference answers were used",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One adapter to make."""

    role: Role
    agent: int
    examples: tuple[Any, ...]
    """Tokens, or Pairs for dpo."""
    previous: Adapter
    """What the role used before."""


def main(assignment: Assignment) -> TrainSummary:
    """Trains and publishes what is not there yet."""
    store, run, iteration = assignment.store, assignment.run, assignment.iteration
    data = required(store, layout.datasets(run, iteration), "the debate of this iteration")
    template = models.chat_template(assignment.spec.model, assignment.spec.debate.thinking)
    roles = trained_roles(assignment.spec.debate)
    wanted = [(role, agent) for agent in assignment.agents for role in roles]
    jobs = [
        _job(assignment, data, template, role, agent)
        for role, agent in wanted
        if committed(store, layout.adapter(run, iteration, role, agent)) is None
    ]
    _train_all(assignment, data, jobs)
    return summary([adapters.current(store, run, iteration, role, agent) for role, agent in wanted])


def _job(assignment: Assignment, data: Commit, template: ChatTemplate, role: Role, agent: int) -> Job:
    store, run, training = assignment.store, assignment.run, assignment.spec.training
    examples = fetch_records(store, data, layout.dataset_file(role, agent), Example)
    samples = tuple(sample(training, template, e) for e in examples)
    return Job(role, agent, samples, adapters.current(store, run, assignment.iteration - 1, role, agent))


def _train_all(assignment: Assignment, data: Commit, jobs: Sequence[Job]) -> None:
    spec, training = assignment.spec, assignment.spec.training
    enough = [job for job in jobs if len(job.examples) >= training.min_examples]
    progress = program.Progress(assignment.metrics)
    progress.total.set(sum(steps(len(job.examples), training) for job in enough))
    shown = loss_gauge(progress)

    def step_done(value: float) -> None:
        progress.done.inc()
        shown.set(value)

    for job in jobs:
        if job not in enough:
            _keep(assignment, data, job)
    objective = Preferences(training.beta) if training.method == "dpo" else NextToken()
    base = lora.load_base(spec.model) if enough else None
    for job in enough:
        _train_one(assignment, data, job, Trainer(base, training, step_done, objective))


def loss_gauge(progress: program.Progress) -> Gauge:
    """Makes the gauge of the loss; not a number until the first step is done."""
    made = progress.gauge("train_loss", "Loss of the last step, nats per completion token (dpo: per pair)")
    made.set(float("nan"))
    return made


def _train_one(assignment: Assignment, data: Commit, job: Job, trainer: Trainer) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="maft-train-") as scratch:
        folder = Path(scratch) / "adapter"
        parent = _previous(assignment, job, Path(scratch))
        curve = trainer.train(job.examples, folder, seed=_seed(assignment, job), previous=parent)
        made = _described(assignment, job, curve, (folder / adapters.WEIGHTS).read_bytes())
        lora.tidy(folder, assignment.spec.model, card(assignment, made, data.meta))
        prefix = _publish(assignment, data, made, {path.name: path for path in folder.iterdir()})
    write_seconds(assignment.store, prefix, time.monotonic() - started)


def _described(assignment: Assignment, job: Job, curve: Sequence[float], weights: bytes) -> Adapter:
    name = adapters.name(job.role, job.agent, assignment.iteration, hashlib.sha256(weights).hexdigest())
    tenth = max(1, len(curve) // 10)
    first, last = (round(sum(part) / len(part), 4) for part in (curve[:tenth], curve[-tenth:]))
    turns = sum(example.left_out for example in job.examples)
    return Adapter(job.role, job.agent, assignment.iteration, name, True, len(job.examples), len(curve), first, last, turns)


def _previous(assignment: Assignment, job: Job, scratch: Path) -> Path | None:
    """The folder of the adapter to go on from; None to start from the base."""
    if assignment.spec.training.start_from == "base" or job.previous.name == BASE:
        return None
    located = adapters.locate(job.previous.name, assignment.run)
    assert located, job.previous.name
    commit = required(assignment.store, located[0], "the previous iteration")
    return fetch_folder(assignment.store, commit, scratch / "previous")


def _keep(assignment: Assignment, data: Commit, job: Job) -> None:
    kept = Adapter(job.role, job.agent, assignment.iteration, job.previous.name, False, len(job.examples), 0, None, None)
    _publish(assignment, data, kept, {})


def _publish(assignment: Assignment, data: Commit, made: Adapter, files: dict[str, Path]) -> str:
    spec = assignment.spec
    prefix = layout.adapter(assignment.run, assignment.iteration, made.role, made.agent)
    versions = {name: version(name) for name in ("torch", "transformers", "peft")} | {"maft": __version__}
    meta = {"adapter": records.plain(made), "seed": spec.seed, "versions": versions, "model": spec.model.source}
    publish(assignment.store, prefix, files, parents=[data.prefix], meta=meta)
    return prefix


def _seed(assignment: Assignment, job: Job) -> int:
    text = f"{assignment.spec.seed}/{assignment.iteration}/{job.role}/{job.agent}/train"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def summary(made: Sequence[Adapter]) -> TrainSummary:
    """Picks what status and tables show; of many adapters the first."""
    rows = tuple(
        AdapterSummary(
            role=a.role,
            agent=a.agent,
            name=a.name,
            examples=a.examples,
            steps=a.steps,
            loss_first=a.loss_first,
            loss_last=a.loss_last,
        )
        for a in made[:SHOWN]
    )
    return TrainSummary(
        adapters=rows,
        trained=sum(a.trained for a in made),
        kept=sum(not a.trained for a in made),
        turns_left_out=sum(a.turns_left_out for a in made),
    )


def card(assignment: Assignment, made: Adapter, data: Mapping[str, Any]) -> str:
    """Writes the adapter's model card, in the form of Hugging Face. data: the meta of its datasets' commit."""
    model, training, lora_ = assignment.spec.model, assignment.spec.training, assignment.spec.training.lora
    whose = "all agents" if data.get("pooled") else "this agent"
    return f"""---
base_model: {model.source}
library_name: peft
tags: [lora, maft, multiagent-finetuning]
---

# {made.role} of agent {made.agent}, iteration {made.iteration}

A LoRA adapter made by multiagent finetuning (arXiv 2501.05707) of `{model.source}`, run `{assignment.run}`.
{"It gives first answers." if made.role == "generator" else "It revises answers after hearing a summary of the others'."}
It was trained on {made.examples} outputs of {whose} {LEARNT[data.get("examples", "first")]}.

| steps | epochs | batch | learning rate | rank | alpha | loss, first tenth | loss, last tenth |
|---|---|---|---|---|---|---|---|
| {made.steps} | {training.epochs} | {training.batch_size} | {training.learning_rate} | {lora_.rank} | {lora_.alpha} \
| {made.loss_first} | {made.loss_last} |

Load it with `peft.PeftModel.from_pretrained(base, "<this folder>")`, or name it in a request to a vLLM server with LoRA enabled.
"""


PARSER = program.parser("train", "Trains the LoRA adapters of one or several agents.", takes=("spec", "iteration", "agents"))

if __name__ == "__main__":
    program.run(main, PARSER)
