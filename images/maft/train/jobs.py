"""One adapter of a training task: from its examples to its commit, by way of its checkpoint."""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from maft import __version__, adapters, lora, records
from maft.program import Assignment
from maft.records import BASE, Adapter, Commit, Role
from maft.spec import TRAINING_PLACES
from maft.store import layout
from maft.store.commits import fetch_folder, publish, required
from maft.store.timing import write_seconds
from maft.train.card import card
from maft.train.checkpoints import Keeper
from maft.train.examples import Examples
from maft.train.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Job:
    """One adapter to make."""

    role: Role
    agent: int
    examples: Examples
    previous: Adapter
    """What the role used before."""

    @property
    def name(self) -> str:
        """Names the adapter within its task."""
        return f"{self.role}-{self.agent}"

    @property
    def tokens(self) -> int:
        """Counts the tokens of an epoch: how long it takes."""
        return sum(self.examples.lengths)


def train_one(assignment: Assignment, data: Commit, job: Job, trainer: Trainer, *, leads: bool = True) -> None:
    """Trains the adapter; publishes it, and its checkpoints, if this process leads those that train it together."""
    started, keeper = time.monotonic(), _keeper(assignment, job, trainer.device, reads_only=not leads)
    with tempfile.TemporaryDirectory(prefix="maft-train-") as scratch:
        folder = Path(scratch) / "adapter"
        parent = _previous(assignment, job, Path(scratch))
        curve = trainer.train(job.examples, folder, seed=_seed(assignment, job), previous=parent, keeper=keeper)
        if not leads:
            return
        made = _described(assignment, job, curve, (folder / adapters.WEIGHTS).read_bytes())
        made = msgspec.structs.replace(made, batch_tokens=trainer.lowered_to)
        lora.tidy(folder, assignment.spec.model_of(job.agent), card(assignment, made, data.meta))
        prefix = _publish(assignment, data, made, {path.name: path for path in folder.iterdir()})
    print(f"{prefix}: trained in {len(curve)} steps", flush=True)
    write_seconds(assignment.store, prefix, keeper.seconds if keeper else time.monotonic() - started)
    if keeper:
        keeper.remove()


def _keeper(assignment: Assignment, job: Job, device: str, *, reads_only: bool) -> Keeper | None:
    """Makes the keeper of the adapter's checkpoint, if one is wanted."""
    every = 60.0 * assignment.spec.training.checkpoint_minutes
    if not every:
        return None
    key = layout.checkpoint(assignment.run, assignment.iteration, job.role, job.agent)
    return Keeper(assignment.store, key, decided(assignment, job, device), every, reads_only=reads_only)


def decided(assignment: Assignment, job: Job, device: str) -> dict[str, str]:
    """Lists what decides an adapter's weights, as its checkpoint names it. device: its kind and the base's precision."""
    model, training = assignment.spec.model_of(job.agent), msgspec.to_builtins(assignment.spec.training_of(job.agent))
    kept = {name: value for name, value in training.items() if name not in TRAINING_PLACES}
    return {
        "training": hashlib.sha256(records.encode(kept)).hexdigest(),
        "seed": str(_seed(assignment, job)),
        "dataset": job.examples.sha256(),  # as tokens, so by template and lossOn, too
        "model": f"{model.source} {model.revision}".strip(),
        "previous adapter": job.previous.name,
        "device": device,
        **_versions(),
    }


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft")} | {"maft": __version__}


def _described(assignment: Assignment, job: Job, curve: Sequence[float], weights: bytes) -> Adapter:
    name = adapters.name(job.role, job.agent, assignment.iteration, hashlib.sha256(weights).hexdigest())
    tenth = max(1, len(curve) // 10)
    first, last = (round(sum(part) / len(part), 4) for part in (curve[:tenth], curve[-tenth:]))
    several = job.examples
    return Adapter(job.role, job.agent, assignment.iteration, name, True, len(several), len(curve), first, last, several.left_out)


def _previous(assignment: Assignment, job: Job, scratch: Path) -> Path | None:
    """The folder of the adapter to go on from; None to start from the base."""
    if assignment.spec.training.start_from == "base" or job.previous.name == BASE:
        return None
    located = adapters.locate(job.previous.name, assignment.run)
    assert located, job.previous.name
    commit = required(assignment.store, located[0], "the previous iteration")
    return fetch_folder(assignment.store, commit, scratch / "previous")


def keep(assignment: Assignment, data: Commit, job: Job) -> None:
    """Publishes that the agent keeps what it had."""
    kept = Adapter(job.role, job.agent, assignment.iteration, job.previous.name, False, len(job.examples), 0, None, None)
    _publish(assignment, data, kept, {})


def _publish(assignment: Assignment, data: Commit, made: Adapter, files: dict[str, Path]) -> str:
    spec = assignment.spec
    prefix = layout.adapter(assignment.run, assignment.iteration, made.role, made.agent)
    meta = {"adapter": records.plain(made), "seed": spec.seed, "versions": _versions(), "model": spec.model_of(made.agent).source}
    publish(assignment.store, prefix, files, parents=[data.prefix], meta=meta)
    return prefix


def _seed(assignment: Assignment, job: Job) -> int:
    text = f"{assignment.spec.seed}/{assignment.iteration}/{job.role}/{job.agent}/train"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
