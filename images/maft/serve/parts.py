"""What a model consists of, read from its config.json alone: a server decides its flags before anything heavy is imported."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maft.serve.room import Sizes

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_LAYERS = ("layer_types", "layers_block_type", "block_types")
_RECURRENT = {"linear_attention", "mamba", "mamba2", "conv", "short_conv", "recurrent", "hybrid"}
_QUANTISED = ("quantization_config", "compression_config", "quantization")
_STATES = ("mamba_", "ssm_", "state_size", "hybrid_override_pattern")  # how names of settings begin


@dataclass(frozen=True, slots=True)
class Parts:
    """Of a model whose config.json cannot be had nothing is known: neither towers nor experts."""

    towers: bool = False
    """Models beside the text part, which see or hear."""
    experts: bool = False
    """Its layers are mixtures of experts."""
    hybrid: bool = False
    """Some layers keep a state in place of keys and values."""
    packed: bool = False
    """Its weights are quantised: their shapes do not tell their bytes."""
    sizes: Sizes | None = None

    @classmethod
    def of(cls, path: str) -> "Parts":
        """Reads them from the folder's config.json; path: empty where there is none."""
        file = Path(path) / "config.json"
        try:
            content = json.loads(file.read_bytes()) if path and file.is_file() else None
        except ValueError:  # vLLM says what is wrong with it
            content = None
        config = content if isinstance(content, dict) else {}
        parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
        experts, hybrid, packed = (any(map(has, parts)) for has in (_has_experts, _is_hybrid, _is_packed))
        return cls(len(parts) > 1, experts, hybrid, packed, _sizes(parts[-1]))


def _has_experts(config: Mapping[str, Any]) -> bool:
    return any(isinstance(count := config.get(name), int) and count > 1 for name in _EXPERTS)


def _is_hybrid(config: Mapping[str, Any]) -> bool:
    kinds = [kind for name in _LAYERS if isinstance(listed := config.get(name), list) for kind in listed]
    stated = any(name.startswith(_STATES) and config[name] for name in config)
    return stated or any(isinstance(kind, str) and kind in _RECURRENT for kind in kinds)


def _is_packed(config: Mapping[str, Any]) -> bool:
    return any(config.get(name) for name in _QUANTISED)


def _sizes(config: Mapping[str, Any]) -> Sizes | None:
    """None where a size is not said, or not in the usual words."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    layers, hidden, heads, inner, vocabulary = (_positive(config, name) for name in names)
    if not (layers and hidden and heads and inner and vocabulary):
        return None
    each = _positive(config, "head_dim") or hidden // heads
    keys = _positive(config, "num_key_value_heads") or heads
    return Sizes(layers, hidden, heads * each, keys * each, inner, vocabulary)


def _positive(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) and value > 0 else 0
