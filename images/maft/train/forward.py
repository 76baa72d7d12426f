"""A forward pass of training: examples in, log-probabilities of their targets out, by the cheapest way that gives the model's own.

What a model allows is found by trying on two of its examples: whether they keep apart in one row, whether they do so without a
mask (attention.py), and whether its head is all that makes its logits (loss.py).
"""

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from maft import lora
from maft.chat_template import Tokens
from maft.errors import with_kind
from maft.packing import PackedRow, in_parts, pack
from maft.train import attention
from maft.train.loss import Head, head_of, log_probabilities

TRIED = 32  # targets of an example whose logits are compared; with a large vocabulary those of whole answers are gigabytes


@dataclass(frozen=True, slots=True)
class Forward:
    """The way that one model allows."""

    packs: bool
    """Several examples share a row; else each has one of its own."""
    by_example: bool = False
    """Attention goes by example; else by a mask over the row."""
    head: Head | None = None
    """None: the model's own logits, all at once."""

    def attending(self, model: Any) -> contextlib.AbstractContextManager[None]:
        """Sets the base's attention while the context lasts: around forward and backward passes."""
        return attention.by_example(model) if self.by_example else contextlib.nullcontext()

    def log_probabilities(self, model: Any, examples: Sequence[Tokens]) -> tuple[PackedRow, torch.Tensor]:
        """Packs the examples; computes [k] at the row's targets, in nats and single precision."""
        row = pack(examples).to(model.device)
        if self.packs or len(examples) == 1:
            return row, self._of(model, row)
        return row, torch.cat([self._of(model, pack([example]).to(model.device)) for example in examples])

    def _of(self, model: Any, row: PackedRow) -> torch.Tensor:
        if self.head is not None:
            return log_probabilities(self.head, hidden(model, row, by_example=self.by_example), row.labels)
        given = {"examples": attention.Layout(row.lengths, row.ids.device)} if self.by_example else {}
        return torch.log_softmax(lora.logits(model, row, **given).float(), -1).gather(1, row.labels[:, None])[:, 0]


def hidden(model: Any, row: PackedRow, *, by_example: bool) -> torch.Tensor:
    """Computes [k, hidden], what the head is given at the targets."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    given = {"examples": attention.Layout(row.lengths, row.ids.device)} if by_example else {}
    output = inner.base_model(input_ids=row.ids, position_ids=row.positions, use_cache=False, **given)
    at_targets: torch.Tensor = output.last_hidden_state[0].index_select(0, row.target_positions)
    return at_targets


def fitting(base: Any, examples: Sequence[Tokens], agree: Callable[[bool], bool] = bool) -> Forward:
    """Finds the way that the base allows, by trying the first targets of the first and the last example: where one example runs
    into the next, they are the nearest. agree: has ranks that hold the base together go the same way at each turn."""
    pair = [next(in_parts(example, TRIED), example) for example in (examples[0], examples[-1])]
    with torch.no_grad():
        alone = lora.logits_alone(base, pair)
        by_example = agree(attention.suits(base)) and agree(_agrees(base, pair, alone, None, by_example=True))
        packs = by_example or agree(lora.supports_packing(base, pair, alone))
        head = head_of(base)
        if head is not None and not agree(_agrees(base, pair if packs else pair[:1], alone, head, by_example=by_example)):
            head = None
    if head is None:
        print("the loss is computed from all logits at once: more memory, this model's are not its head's alone", file=sys.stderr)
    return Forward(packs, by_example, head)


def _agrees(base: Any, examples: Sequence[Tokens], expected: torch.Tensor, head: Head | None, *, by_example: bool) -> bool:
    """Whether that way gives the expected logits, of which there may be more."""
    row = pack(examples).to(base.device)
    try:
        with attention.by_example(base) if by_example else contextlib.nullcontext():
            if head is None:
                made = lora.logits(base, row, examples=attention.Layout(row.lengths, row.ids.device))
            else:
                made = head.logits(hidden(base, row, by_example=by_example))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model's own code may raise anything over arguments that it does not know
        print(f"tried, and left: {with_kind(error, 200)}", file=sys.stderr)
        return False
    return made.shape[-1] == expected.shape[-1] and lora.close(base, made, expected[: len(made)])
