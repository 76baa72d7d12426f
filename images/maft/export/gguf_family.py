"""Architectures that become GGUF: what llama.cpp calls them, what it has to know of them, and how it wants their tensors.

Those that the tests compare with llama.cpp itself; it reads many more, and has a script of its own for them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

from maft import quantised
from maft.errors import BadInput
from maft.export.added import Values

ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture."""

    arch: gguf.MODEL_ARCH
    paired: bool = False
    """llama.cpp rotates neighbours in its queries and keys, where transformers rotates halves of a head."""
    ropes: tuple[str, ...] = ("default",)


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family(gguf.MODEL_ARCH.LLAMA, paired=True, ropes=("default", "llama3")),
    "Qwen2ForCausalLM": Family(gguf.MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Family(gguf.MODEL_ARCH.QWEN3),
}
# What llama.cpp computes whatever the configuration says.
_FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False}


def of(config: Any, source: str) -> Family:
    """Finds the family of a model; BadInput, with the way that is left, for another one. config: transformers'."""
    name = (config.architectures or [config.model_type])[0]
    if kind := quantised.method(config):
        raise BadInput(f"model.source: {source} is quantised with {kind}; --to gguf takes full weights; serve the adapters instead")
    if name not in FAMILIES:
        raise _refused(source, f"is a {name}, and --to gguf knows {', '.join(FAMILIES)}")
    family, rope = FAMILIES[name], _rope(config)
    facts = {key: getattr(config, key, wanted) for key, wanted in _FIXED.items()}
    if other := next((key for key, wanted in _FIXED.items() if facts[key] != wanted), ""):
        raise _refused(source, f"has {other}: {facts[other]}, which --to gguf does not know")
    if rope["rope_type"] not in family.ropes or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise _refused(source, f"has positions of type {rope['rope_type']} (rope_parameters), which --to gguf does not know")
    return family


def _refused(source: str, why: str) -> BadInput:
    return BadInput(f"model.source: {source} {why}; use --to merged, and on its folders llama.cpp's own convert_hf_to_gguf.py")


def _rope(config: Any) -> dict[str, Any]:
    return {"rope_type": "default", **(config.rope_parameters or {})}


def _head(config: Any) -> int:
    """The length of one head of attention."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def write(writer: gguf.GGUFWriter, config: Any) -> None:
    """Writes what llama.cpp has to know to compute with the weights."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head(config))
    writer.add_value_length(_head(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(_head(config))
    writer.add_rope_freq_base(_rope(config)["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def names(family: Family, config: Any, tensors: Mapping[str, Any], source: str) -> dict[str, str]:
    """Maps tensors of transformers to those of llama.cpp; BadInput for one that it has no name for."""
    table = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    wanted = [name for name in tensors if not (config.tie_word_embeddings and name == "lm_head.weight")]
    made = {name: table.get_name(name, (".weight", ".bias")) for name in wanted}
    if other := next((name for name, called in made.items() if called is None), ""):
        raise _refused(source, f"has {other}, which GGUF has no name for")
    return {name: called for name, called in made.items() if called}


def arranged(family: Family, config: Any, name: str, values: Values) -> Values:
    """Puts the rows of queries and keys as llama.cpp rotates them: i and i + half of a head become neighbours."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if not family.paired or heads is None:
        return values
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def rope_factors(config: Any) -> Values | None:
    """Computes what llama.cpp divides each frequency of a head by: Llama 3.1 reads long texts so; None where all stay.

    Source: `_compute_llama3_parameters` of transformers, which has it from Meta's code. shape: [half of a head]."""
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    frequencies = rope["rope_theta"] ** -(np.arange(0, _head(config), 2) / _head(config))
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)  # 1: as it was; 0: slower by the whole factor
    divisors: Values = (1 / (kept + (1 - kept) / rope["factor"])).astype(np.float32)
    return divisors
