"""Direct preference optimisation (arXiv 2305.18290, equation 7): the objective of training.method dpo.

The reference is the policy where training starts (the previous adapter, or the base), so its log-probabilities are computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from maft.chat_template import Tokens
from maft.packing import PackedRow
from maft.train.examples import Examples
from maft.train.forward import Forward


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt."""

    chosen: Tokens
    rejected: Tokens
    reference_margin: float = 0.0
    """How much likelier the reference finds the chosen one, in nats."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Joins both, for counting tokens."""
        return self.chosen.ids + self.rejected.ids

    @property
    def left_out(self) -> int:
        """Counts earlier turns left out: none, pairs are about last answers."""
        return 0


class Preferences:
    """-log sigmoid(beta * (margin of the policy - margin of the reference)), mean over the batch's pairs."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    prepares, follows = True, False

    def known(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes the margins that the model gives pairs before it learns, those of the reference: [part, 1], in nats."""
        return self._margins(*forward.log_probabilities(model, self.sequences(part)), part)[:, None]

    def knowing(self, examples: Sequence[Any], known: torch.Tensor) -> Examples:
        """Adds such margins to the pairs, one after the other."""
        margins = known[:, 0].tolist()
        return Examples(replace(pair, reference_margin=margin) for pair, margin in zip(examples, margins, strict=True))

    def followed(self, model: Any, part: Sequence[Any], forward: Forward) -> torch.Tensor:
        """Computes nothing: the reference stays."""
        return torch.zeros(len(part))

    def following(self, batch: Sequence[Any], mean: float) -> Sequence[Any]:
        """Adds nothing."""
        return batch

    def sequences(self, part: Sequence[Any]) -> list[Tokens]:
        """Lists chosen and rejected answers in turn."""
        return [tokens for pair in part for tokens in (pair.chosen, pair.rejected)]

    def loss(self, each: torch.Tensor, row: PackedRow, part: Sequence[Any], batch: Sequence[Any]) -> torch.Tensor:
        """Computes the part's share of the batch's loss, in nats per pair. each: [k], log-probabilities of the targets."""
        reference = torch.tensor([pair.reference_margin for pair in part], device=each.device)
        return -logsigmoid(self._beta * (self._margins(row, each, part) - reference)).sum() / len(batch)

    def _margins(self, row: PackedRow, each: torch.Tensor, part: Sequence[Any]) -> torch.Tensor:
        """[pairs]: log-probability of the chosen answer minus that of the rejected one."""
        sums = torch.zeros(2 * len(part), device=each.device).index_add(0, row.example_index, each)
        return sums[0::2] - sums[1::2]
