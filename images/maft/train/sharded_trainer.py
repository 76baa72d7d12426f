"""Trains adapters of a base that several ranks hold together (sharded.py): each batch is dealt out, gradients are added up.

All ranks go through the same steps and have the same weights after each, so that whatever one of them does to the base, all do.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from maft.errors import BadInput, one_line
from maft.packing import split_batch
from maft.spec import TrainingSpec
from maft.train import memory
from maft.train.checkpoints import Keeper
from maft.train.course import Course
from maft.train.examples import lengths
from maft.train.objectives import Objective, known
from maft.train.sharded import Team
from maft.train.trainer import Trainer

T = TypeVar("T")


def dealt(tokens: Sequence[int], ranks: int, batch_tokens: int) -> list[list[list[int]]]:
    """Deals a batch to the ranks, by number, each share in rows. All have as many rows, because layers are gathered by all at a
    time: where there are too few the rest are empty. tokens: of each example."""
    shares = [range(rank, len(tokens), ranks) for rank in range(ranks)]
    rows = [list(split_batch(share, batch_tokens, tokens.__getitem__)) if share else [] for share in shares]
    most = max(len(own) for own in rows)
    return [own + [[] for _ in range(most - len(own))] for own in rows]


class ShardedTrainer(Trainer):
    """The trainer of one rank."""

    def __init__(
        self, base: Any, training: TrainingSpec, step_done: Callable[[float], None], objective: Objective, team: Team
    ) -> None:
        super().__init__(base, training, self._counted, objective)
        self._team = team
        self._told = step_done
        self._seed = self._steps = 0

    def train(
        self, examples: Sequence[Any], folder: Path, *, seed: int, previous: Path | None, keeper: Keeper | None = None
    ) -> list[float]:
        """Does what Trainer's does, together with the other ranks."""
        self._seed, self._steps = seed, 0
        return super().train(examples, folder, seed=seed, previous=previous, keeper=keeper)

    def _counted(self, loss: float) -> None:
        self._steps += 1
        self._told(loss)

    def _agreed(self, value: bool) -> bool:
        return not self._team.agreed(not value)

    def _begin_alike(self, course: Course) -> None:
        """Each rank reads the checkpoint by itself, and gradients of different weights must not be added up."""
        ours = json.dumps([course.curve, course.batch_tokens]).encode()
        if not self._agreed(ours == self._team.from_leader(ours)):
            raise OSError(f"ranks read different checkpoints, this one has {len(course.curve)} steps; all begin anew")

    def _save_memory(self, model: Any, examples: Sequence[Any]) -> None:
        super()._save_memory(model, examples)
        if self._team.agreed(self._saves_memory) and not self._saves_memory:
            self._save_activations(model)

    def _prepare(self, model: Any, examples: Sequence[Any]) -> Sequence[Any]:
        """Has each rank compute what has to be known of its part of the examples, and tells all of it to all."""
        if not self._objective.prepares:
            return examples
        seen: torch.Tensor | None = None
        for own in self._dealt(examples):
            row = [examples[number] for number in own or [0]]
            with self._autocast():
                numbers = self._fitted(model, row, partial(self._known, model, row))
            if seen is None:
                seen = torch.zeros(len(examples), numbers.shape[1], dtype=torch.float64)
            seen[own] = numbers[: len(own)]  # an empty row has one example all the same
        assert seen is not None, "no rank is dealt nothing"
        return self._objective.knowing(examples, self._team.sum(seen.to(self._team.device)).cpu())

    def _known(self, model: Any, row: list[Any]) -> torch.Tensor:
        return known(self._objective, model, row, self._forward, self.batch_tokens)

    def _dealt(self, examples: Sequence[Any]) -> list[list[int]]:
        return dealt(lengths(examples), self._team.ranks, self.batch_tokens)[self._team.rank]

    def _fitted(self, model: Any, batch: Sequence[Any], work: Callable[[], T]) -> T:
        """Does the work. A rank alone cannot do it in smaller rows: the others are in the middle of theirs."""
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            if not memory.is_shortage(error):
                self._team.raise_if_lost(error)
                raise
            todo = f"with parallelism Sharded set it to {max(1, self.batch_tokens // 2):,}, or use more GPUs"
            raise BadInput(f"training.batchTokens: memory ran out ({one_line(error, 200)}); {todo}") from error

    def _in_rows(self, model: Any, batch: Sequence[Any], scaler: Any) -> float:
        # Dropout differs by rank, and a training that goes on draws what it would have drawn.
        torch.manual_seed((self._seed * 1_000_003 + self._steps) * self._team.ranks + self._team.rank)
        loss, batch = torch.zeros((), device=self._team.device), self._followed(model, batch)
        for own, part in self._rows(batch):
            with self._autocast():
                row, each = self._forward.log_probabilities(model, self._objective.sequences(part))
                part_loss = self._objective.loss(each, row, part, batch) * float(bool(own))
            scaler.scale(part_loss).backward()
            loss += part_loss.detach()
        self._sum_gradients(model)
        return float(self._team.sum(loss))

    def _rows(self, batch: Sequence[Any]) -> Iterator[tuple[list[int], list[Any]]]:
        """Yields this rank's rows, by number and as examples; one that is empty has an example that does not count."""
        shortest = min(batch, key=lambda example: len(example.ids))
        for own in self._dealt(batch):
            yield own, [batch[number] for number in own] or [shortest]

    def _sum_followed(self, model: Any, batch: Sequence[Any]) -> float:
        total = torch.zeros((), device=self._team.device)
        for own, part in self._rows(batch):
            total += self._objective.followed(model, part, self._forward).sum() * float(bool(own))
        return float(self._team.sum(total))

    def _sum_gradients(self, model: Any) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
        parts = self._team.sum(flat).split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
