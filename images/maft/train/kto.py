"""Kahneman-Tversky optimisation (arXiv 2402.01306, section 4.2): the objective of training.method kto.

An answer is desirable or not, without another one beside it. How much likelier than before it has become is held against how far
the model has moved in all: a KL divergence, estimated in each step on answers to other questions, and without a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from maft.chat_template import Tokens
from maft.packing import PackedRow
from maft.train.examples import Examples
from maft.train.forward import Forward


@dataclass(frozen=True, slots=True)
class Graded:
    """An answer and its grade."""

    answer: Tokens
    stranger: Tokens
    """The same prompt with an answer to another one."""
    desirable: bool
    weight: float = 1.0
    reference: float = 0.0
    """Log-probability of the answer where training starts, in nats."""
    stranger_reference: float = 0.0
    """That of the stranger."""
    moved: float = 0.0
    """How far the policy is from the reference in this step, in nats (z0 of the paper)."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Returns the longer one, for counting tokens: a row has one of both."""
        return max(self.answer.ids, self.stranger.ids, key=len)

    @property
    def left_out(self) -> int:
        """Counts earlier turns left out: none, grades are about last answers."""
        return 0


class Grades:
    """Mean over the batch of weight * (1 - sigmoid(±beta * (gain - moved))): + for desirable answers, - for others. The gain is
    the log-probability of the policy minus that of the reference."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    prepares = follows = True

    def known(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes log-probabilities of answers and of strangers before the model learns (the reference): [part, 2], in nats."""
        answers, strangers = [e.answer for e in part], [e.stranger for e in part]
        return torch.stack([_sums(model, answers, forward), _sums(model, strangers, forward)], 1)

    def knowing(self, examples: Sequence[Any], known: torch.Tensor) -> Examples:
        """Adds them, and weights by which desirable and other answers count as much, however many there are of each."""
        desirable = sum(e.desirable for e in examples)
        weights = balanced(desirable, len(examples) - desirable)
        return Examples(
            replace(e, weight=weights[e.desirable], reference=own, stranger_reference=stranger)
            for e, (own, stranger) in zip(examples, known.tolist(), strict=True)
        )

    def followed(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes how much likelier than the reference the model finds the strangers: [part], in nats."""
        return _sums(model, [e.stranger for e in part], forward) - _numbers(part, "stranger_reference", model.device)

    def following(self, batch: Sequence[Any], mean: float) -> Sequence[Any]:
        """Adds the batch's mean of it, which estimates a divergence and is none below zero."""
        return [replace(e, moved=max(0.0, mean)) for e in batch]

    def sequences(self, part: Sequence[Any]) -> list[Tokens]:
        """Lists the answers."""
        return [e.answer for e in part]

    def loss(self, each: torch.Tensor, row: PackedRow, part: Sequence[Any], batch: Sequence[Any]) -> torch.Tensor:
        """Computes the part's share of the batch's loss, per answer. each: [k], log-probabilities of the targets."""
        gain = _per_example(row, each, len(part)) - _numbers(part, "reference", each.device)
        sign = torch.tensor([1.0 if e.desirable else -1.0 for e in part], device=each.device)
        value = torch.sigmoid(self._beta * sign * (gain - _numbers(part, "moved", each.device)))
        return (_numbers(part, "weight", each.device) * (1 - value)).sum() / len(batch)


def balanced(desirable: int, others: int) -> tuple[float, float]:
    """Weighs other and desirable answers: those that are fewer count as much, together, as those that are more."""
    if not desirable or not others:
        return 1.0, 1.0
    return max(1.0, desirable / others), max(1.0, others / desirable)


def _sums(model: Any, sequences: Sequence[Tokens], forward: Forward) -> torch.Tensor:
    row, each = forward.log_probabilities(model, sequences)
    return _per_example(row, each, len(sequences))


def _per_example(row: PackedRow, each: torch.Tensor, count: int) -> torch.Tensor:
    return torch.zeros(count, device=each.device).index_add(0, row.example_index, each)


def _numbers(part: Sequence[Any], name: str, device: Any) -> torch.Tensor:
    return torch.tensor([getattr(e, name) for e in part], device=device)
