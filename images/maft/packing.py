"""Packs tokenized examples end to end in one row, without padding; splits a batch into such rows.

Comes in: what chat_template.py made of dialogues. Goes out: the tensors of one forward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from maft.chat_template import Tokens


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Several examples in one row, with targets at the k tokens whose loss counts."""

    ids: torch.Tensor
    """[1, tokens]"""
    positions: torch.Tensor
    """[1, tokens], from 0 in every example."""
    target_positions: torch.Tensor
    """[k], indices into the row of the tokens that predict a target: each stands just before it."""
    labels: torch.Tensor
    """[k], the targets."""
    example_index: torch.Tensor
    """[k], which example a target belongs to."""
    lengths: tuple[int, ...]
    """Tokens of each example."""

    def to(self, device: Any) -> "PackedRow":
        """Copies the row to that device."""
        return PackedRow(
            ids=self.ids.to(device),
            positions=self.positions.to(device),
            target_positions=self.target_positions.to(device),
            labels=self.labels.to(device),
            example_index=self.example_index.to(device),
            lengths=self.lengths,
        )


def pack(examples: Sequence[Tokens]) -> PackedRow:
    """Packs the examples into one row, in their order."""
    ids: list[int] = []
    positions: list[int] = []
    target_positions: list[int] = []
    labels: list[int] = []
    example_index: list[int] = []
    for index, example in enumerate(examples):
        for position, (token, counts) in enumerate(zip(example.ids, example.completion, strict=True)):
            if counts and position > 0:  # nothing in its own example predicts a first token
                target_positions.append(len(ids) - 1)
                labels.append(token)
                example_index.append(index)
            ids.append(token)
            positions.append(position)
    return PackedRow(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        target_positions=torch.tensor(target_positions),
        labels=torch.tensor(labels),
        example_index=torch.tensor(example_index),
        lengths=tuple(len(example.ids) for example in examples),
    )


def in_parts(example: Tokens, targets: int) -> Iterator[Tokens]:
    """Yields the example again and again, with the next so many targets counting and no others: logits of all take memory."""
    counting = [position for position, counts in enumerate(example.completion) if counts and position > 0]
    for start in range(0, len(counting), targets):
        part = frozenset(counting[start : start + targets])
        yield replace(example, completion=tuple(position in part for position in range(len(example.ids))))


def _tokens(example: Any) -> int:
    return len(example.ids)


def split_batch(batch: Sequence[Any], max_tokens: int, tokens: Callable[[Any], int] = _tokens) -> Iterator[list[Any]]:
    """Splits a batch, in its order, into parts of at most `max_tokens` tokens each; a longer example is a part of its own. tokens:
    counts those of one."""
    part: list[Any] = []
    for example in batch:
        if part and sum(map(tokens, part)) + tokens(example) > max_tokens:
            yield part
            part = []
        part.append(example)
    yield part


def largest_row(batch: Sequence[int], max_tokens: int) -> int:
    """Bounds the tokens of the rows that `split_batch` makes of a batch, in whatever order. batch: tokens of each example."""
    return min(max(max_tokens, *batch), sum(batch))
