"""Attention of a packed row, example by example: what transformers computes with a mask over the whole row, without that mask.

A mask over a row of L tokens costs L² however short its examples are. Torch's flash attention (GPUs, half precision) is told
where examples end, in one call a layer. Elsewhere they are laid side by side, those of like lengths together, each at most
twice its own length, so that causal kernels serve.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, use_gqa_in_sdpa

NAME = "maft_by_example"  # not among transformers' masks: under this name it makes none
SHORT = 64  # tokens: examples up to this length are of like lengths
AMPERE = (8, 0)  # compute capability that torch's flash attention asks for
WIDEST = 128  # heads: the backward pass of wider ones asks some GPUs for more than they have
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Group:
    """Examples of like lengths."""

    examples: int
    longest: int
    """Tokens."""
    places: torch.Tensor
    """[examples x longest], indices into the row; behind the end of an example its last token, which nothing looks at."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Examples by their lengths."""

    groups: tuple[Group, ...]
    order: torch.Tensor
    """[tokens], where each token of the row is found again behind one another's groups."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: Any) -> "SideBySide":
        """Lays examples of these lengths, in tokens, side by side."""
        starts = [sum(lengths[:index]) for index in range(len(lengths))]
        buckets: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            buckets.setdefault(max(length, SHORT).bit_length(), []).append(index)
        order, groups, before = torch.empty(sum(lengths), dtype=torch.long), [], 0
        for bucket in buckets.values():
            longest = max(lengths[index] for index in bucket)
            offsets = torch.arange(longest)
            places = [starts[index] + offsets.clamp(max=lengths[index] - 1) for index in bucket]
            for row, index in enumerate(bucket):
                at = before + row * longest
                order[starts[index] : starts[index] + lengths[index]] = torch.arange(at, at + lengths[index])
            before += len(bucket) * longest
            groups.append(Group(len(bucket), longest, torch.cat(places).to(device)))
        return cls(tuple(groups), order.to(device))


class Layout:
    """How the examples of a row lie, for all layers; each takes what its kernel needs. lengths: in tokens."""

    def __init__(self, lengths: Sequence[int], device: Any) -> None:
        self._lengths, self._device = lengths, torch.device(device)
        self.longest = max(lengths)
        nvidia = self._device.type == "cuda" and not torch.version.hip
        self.capability = torch.cuda.get_device_capability(self._device) if nvidia else None
        """Of the NVIDIA GPU."""

    @cached_property
    def ends(self) -> torch.Tensor:
        """[examples + 1], 32 bits: 0, and the tokens up to each example's end."""
        return torch.tensor([0, *accumulate(self._lengths)], dtype=torch.int32).to(self._device)

    @cached_property
    def side_by_side(self) -> SideBySide:
        """The examples by their lengths."""
        return SideBySide.of(self._lengths, self._device)


def knows_ends(capability: tuple[int, int] | None, dtype: torch.dtype, widths: set[int], dropout: float) -> bool:
    """Tells whether torch's flash attention serves. capability: of the NVIDIA GPU; widths: of the heads of query, key and value."""
    fits = len(widths) == 1 and all(width <= WIDEST and width % 8 == 0 for width in widths)
    return capability is not None and capability >= AMPERE and dtype in HALF and fits and not dropout


@contextlib.contextmanager
def by_example(model: Any) -> Iterator[None]:
    """Lets the model's layers attend so while the context lasts; every forward pass is given `examples`, a Layout."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def suits(model: Any) -> bool:
    """Tells whether it may be tried: the model attends by torch's own function, and tells functions of others all they need."""
    config = model.config.get_text_config()
    return bool(config._attn_implementation == "sdpa" and getattr(model, "_supports_flash_attn", False))


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    examples: Layout,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attends as transformers' sdpa does. query: [1, heads, tokens, width]; returns [1, tokens, heads, width]."""
    if attention_mask is not None or others.get("position_bias") is not None:
        raise ValueError("attention by example takes neither masks nor biases")
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else value.dtype
    widths = {each.shape[-1] for each in (query, key, value)}
    whole = sliding_window is None or examples.longest <= sliding_window
    if whole and knows_ends(examples.capability, dtype, widths, dropout):
        # It is not among the functions that autocast gives its precision.
        q, k, v = (each[0].transpose(0, 1).to(dtype) for each in (query, key, value))
        return _in_one_call(q, k, v, examples, scaling)[None], None
    return _by_lengths(module, query, key, value, examples.side_by_side, dropout, scaling, sliding_window), None


def _in_one_call(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, examples: Layout, scaling: float | None
) -> torch.Tensor:
    """Attends by a kernel that is told where examples end. query: [tokens, heads, width], as what comes back."""
    ends, longest = examples.ends, examples.longest
    made: torch.Tensor = varlen_attn(
        query, key, value, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=True
    )
    return made


def _by_lengths(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    laid: SideBySide,
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Attends by a causal kernel for each group of like lengths. query: [1, heads, tokens, width]."""
    gqa = use_gqa_in_sdpa(None, key, value)
    if not gqa:
        key, value = (repeat_kv(each, getattr(module, "num_key_value_groups", 1)) for each in (key, value))
    outputs = []
    for group in laid.groups:
        alone = len(laid.groups) == group.examples == 1
        q, k, v = (each if alone else _side_by_side(each, group) for each in (query, key, value))
        mask = _window(group.longest, sliding_window, query.device)
        attended = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=gqa
        )
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
        if alone:
            return outputs[0][None].contiguous()
    return torch.cat(outputs).index_select(0, laid.order)[None]


def _side_by_side(row: torch.Tensor, group: Group) -> torch.Tensor:
    """[1, heads, tokens, width] → [examples, heads, longest, width]."""
    taken = row[0].transpose(0, 1).index_select(0, group.places)
    return taken.unflatten(0, (group.examples, group.longest)).transpose(1, 2)


def _window(tokens: int, window: int | None, device: Any) -> torch.Tensor | None:
    """What a token sees where it does not see all before it; None where no example is that long."""
    if window is None or tokens <= window:
        return None
    mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
    return mask.tril().triu(1 - window)


AttentionInterface.register(NAME, attend)
