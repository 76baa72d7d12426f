"""What training minimises: the seam between the trainer and the ways of training (training.method)."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from maft.chat_template import Tokens
from maft.packing import PackedRow, split_batch
from maft.spec import TrainingSpec
from maft.train.dpo import Preferences
from maft.train.forward import Forward
from maft.train.kto import Grades


class Objective(Protocol):
    """What training minimises. Its examples have `ids`, by which tokens are counted."""

    prepares: bool
    """Whether anything has to be known of the examples before the model learns: `known`, `knowing`."""
    follows: bool
    """Whether each step has to know how far the model has come: `followed`, `following`."""

    def known(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes of each example of a row what has to be known before the model learns: [part, numbers]."""

    def knowing(self, examples: Sequence[Any], known: torch.Tensor) -> Sequence[Any]:
        """Adds it to the examples. known: [examples, numbers]."""

    def followed(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes of each example of a row how far the model has come: [part]."""

    def following(self, batch: Sequence[Any], mean: float) -> Sequence[Any]:
        """Adds the batch's mean of it to its examples."""

    def sequences(self, part: Sequence[Any]) -> list[Tokens]:
        """Lists what is packed into a row, in the order that `loss` expects."""

    def loss(self, each: torch.Tensor, row: PackedRow, part: Sequence[Any], batch: Sequence[Any]) -> torch.Tensor:
        """Computes the part's share of the batch's loss. each: [k], log-probabilities of the targets."""


class NextToken:
    """The objective of training.method sft: mean loss over the batch's completion tokens."""

    prepares = False
    follows = False

    def known(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes nothing."""
        return torch.zeros(len(part), 0)

    def knowing(self, examples: Sequence[Any], known: torch.Tensor) -> Sequence[Any]:
        """Adds nothing."""
        return examples

    def followed(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes nothing."""
        return torch.zeros(len(part))

    def following(self, batch: Sequence[Any], mean: float) -> Sequence[Any]:
        """Adds nothing."""
        return batch

    def sequences(self, part: Sequence[Any]) -> list[Tokens]:
        """Lists the examples themselves."""
        return list(part)

    def loss(self, each: torch.Tensor, row: PackedRow, part: Sequence[Any], batch: Sequence[Any]) -> torch.Tensor:
        """Computes the part's share of the batch's loss, in nats per token. each: [k], log-probabilities of the targets."""
        counted = sum(sum(e.completion) for e in batch)
        return -each.sum() / counted


def known(objective: Objective, model: Any, examples: Sequence[Any], forward: Forward, max_tokens: int) -> torch.Tensor:
    """Computes what the objective has to know of the examples before the model learns: [examples, numbers]."""
    model.eval()
    with torch.no_grad():
        rows = [objective.known(model, part, forward) for part in split_batch(examples, max_tokens)]
    return torch.cat(rows).double().cpu()


def prepare(objective: Objective, model: Any, examples: Sequence[Any], forward: Forward, max_tokens: int) -> Sequence[Any]:
    """Adds it to the examples."""
    if not objective.prepares:
        return examples
    return objective.knowing(examples, known(objective, model, examples, forward, max_tokens))


def objective_of(training: TrainingSpec) -> Objective:
    """Picks what a way of training minimises."""
    if training.method == "dpo":
        return Preferences(training.beta)
    return Grades(training.beta) if training.method == "kto" else NextToken()
