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
from maft.lora import Row


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt. reference: how much likelier the reference finds the chosen one, in nats."""

    chosen: Tokens
    rejected: Tokens
    reference: float = 0.0

    @property
    def ids(self) -> tuple[int, ...]:
        """Both, for counting tokens."""
        return self.chosen.ids + self.rejected.ids


class Preferences:
    """-log sigmoid(beta * (margin of the policy - margin of the reference)), mean over the batch's pairs."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def ready(self, model: Any, examples: list[Any], limit: int) -> list[Any]:
        """The pairs with what the model finds of them before it learns."""
        model.eval()
        ready: list[Any] = []
        with torch.no_grad():
            for part in lora.rows(examples, limit):
                row, logits = lora.forward(model, self.flat(part), limit)
                margins = self._margins(logits, row, part)
                ready += [replace(pair, reference=float(margin)) for pair, margin in zip(part, margins, strict=True)]
        return ready

    def flat(self, part: Sequence[Any]) -> list[Tokens]:
        """What is laid in a row: chosen and rejected in turn."""
        return [tokens for pair in part for tokens in (pair.chosen, pair.rejected)]

    def loss(self, logits: torch.Tensor, row: Row, part: Sequence[Any], batch: Sequence[Any]) -> torch.Tensor:
        """The part's share of the batch's loss, in nats per pair. logits: [k, vocabulary]."""
        reference = torch.tensor([pair.reference for pair in part], device=logits.device)
        return -logsigmoid(self._beta * (self._margins(logits, row, part) - reference)).sum() / len(batch)

    def _margins(self, logits: torch.Tensor, row: Row, part: Sequence[Any]) -> torch.Tensor:
        """[pairs]: log-probability of the chosen answer minus that of the rejected one."""
        each = log_softmax(logits, dim=-1).gather(1, row.labels[:, None])[:, 0]
        sums = torch.zeros(2 * len(part), device=logits.device).index_add(0, row.owners, each)
        return sums[0::2] - sums[1::2]
