"""A base's weights with one adapter added to them, a tensor at a time: what is in memory is never more than one of them.

Without torch. The sum is PEFT's for plain LoRA, W + alpha / rank * B A in float32 (arXiv 2106.09685, section 4.1); other kinds are
refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import dequantize
from gguf.utility import LocalTensor, SafetensorsLocal

from maft.adapters import WEIGHTS
from maft.errors import BadInput

KINDS = {"F32": Kind.F32, "F16": Kind.F16, "BF16": Kind.BF16}
_LOW_RANK = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Settings of PEFT under which the sum is another one.
_OTHER = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "target_parameters")
Values = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Added:
    """Base and adapter, lying in files."""

    tensors: Mapping[str, LocalTensor]
    """Of the base, by the names that transformers gives them."""
    pairs: Mapping[str, tuple[LocalTensor, LocalTensor]]
    """A [rank, in] and B [out, rank] of the adapter, by the name of the tensor that they are added to."""
    scale: float

    def kind(self, name: str) -> Kind:
        """Tells in which precision the base keeps a tensor; BadInput for one that is none of floating-point numbers."""
        if (stored := self.tensors[name].dtype) not in KINDS:
            raise BadInput(f"model.source: {name} is stored as {stored}; expected {', '.join(KINDS)}")
        return KINDS[stored]

    def values(self, name: str) -> Values:
        """Reads one tensor and adds what the adapter has for it."""
        read = _values(self.tensors[name])
        if name not in self.pairs:
            return read
        low, high = map(_values, self.pairs[name])
        total: Values = read + (high @ low) * np.float32(self.scale)
        return total


def added(bases: list[Path], adapter: Path) -> Added:
    """Opens the files of a base and the folder of an adapter; BadInput where the adapter is no plain LoRA of that base."""
    tensors = {name: tensor for file in bases for name, tensor in SafetensorsLocal(file).tensors.items()}
    config = json.loads((adapter / "adapter_config.json").read_text())
    if other := [name for name in _OTHER if config.get(name)]:
        raise BadInput(f"adapter {adapter.name}: made with {', '.join(other)}, which --to gguf does not add up; use --to merged")
    pairs = _pairs(SafetensorsLocal(adapter / WEIGHTS).tensors, tensors, adapter.name)
    return Added(tensors, pairs, config["lora_alpha"] / config["r"])


def _pairs(
    lora: Mapping[str, LocalTensor], tensors: Mapping[str, LocalTensor], adapter: str
) -> dict[str, tuple[LocalTensor, LocalTensor]]:
    sides: dict[str, dict[str, LocalTensor]] = {}
    for name, tensor in lora.items():
        match = _LOW_RANK.fullmatch(name)
        target = f"{match['module']}.weight" if match else ""
        if not match or target not in tensors:
            raise BadInput(f"adapter {adapter}: the base has no tensor for its {name}, so it cannot be added up; use --to peft")
        sides.setdefault(target, {})[match["side"]] = tensor
    return {target: (each["A"], each["B"]) for target, each in sides.items()}


def _values(tensor: LocalTensor) -> Values:
    """Reads a tensor in float32. Bytes lie behind each other, so its last axis is that many longer in bytes."""
    data = tensor.mmap_bytes().view(np.ndarray)
    read: Values = dequantize(data.reshape(*tensor.shape[:-1], -1), KINDS[tensor.dtype]).reshape(tensor.shape)
    return read
