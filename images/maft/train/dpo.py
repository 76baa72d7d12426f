"""Direct preference optimisation (arXiv 2305.18290, equation 7): the objective of training.method dpo.

The reference is the policy where training starts (the previous adapter, or the base), so its log-probabilities are computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import log_softmax, logsigmoid

from maft import lora
from maft.chat_template import Tokens
from maft.packing import PackedRow, split_batch


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

    def prepare(self, model: Any, examples: list[Any], max_tokens: int) -> list[Any]:
        """Adds to the pairs the margins that the model gives them before it learns: those of the reference."""
        model.eval()
        prepared: list[Any] = []
        with torch.no_grad():
            for part in split_batch(examples, max_tokens):
                row, logits = lora.forward(model, self.sequences(part), max_tokens)
                margins = self._margins(logits, row, part)
                prepared += [replace(pair, reference_margin=float(m)) for pair, m in zip(part, margins, strict=True)]
        return prepared

    def sequences(self, part: Sequence[Any]) -> list[Tokens]:
        """Lists chosen and rejected answers in turn."""
        return [tokens for pair in part for tokens in (pair.chosen, pair.rejected)]

    def loss(self, logits: torch.Tensor, row: PackedRow, part: Sequence[Any], batch: Sequence[Any]) -> torch.Tensor:
        """Computes the part's share of the batch's loss, in nats per pair. logits: [k, vocabulary]."""
        reference = torch.tensor([pair.reference_margin for pair in part], device=logits.device)
        return -logsigmoid(self._beta * (self._margins(logits, row, part) - reference)).sum() / len(batch)

    def _margins(self, logits: torch.Tensor, row: PackedRow, part: Sequence[Any]) -> torch.Tensor:
        """[pairs]: log-probability of the chosen answer minus that of the rejected one."""
        each = log_softmax(logits, dim=-1).gather(1, row.labels[:, None])[:, 0]
        sums = torch.zeros(2 * len(part), device=logits.device).index_add(0, row.example_index, each)
        return sums[0::2] - sums[1::2]
