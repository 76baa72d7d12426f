"""Model folders of many families: configurations of the size of published models, with the demo's tokenizer and template.

Weights, where they are asked for, are random and of a small copy: the same classes in a few megabytes.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from small import TINY

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "generation_config.json")
# What published configurations of a family have beside transformers' defaults.
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 4},
    "qwen3": {"num_key_value_heads": 8},
    "qwen3_moe": {"head_dim": 128},
    "mixtral": {},
    "mistral": {},
    "gemma2": {},
    "gemma3_text": {},
    "gemma3": {},
    "gemma4_text": {"pad_token_id": 0},
    "phi3": {},
    "gpt_oss": {},
    "granite": {},
    "glm4_moe": {"head_dim": 128},
    "deepseek_v3": {},
    "lfm2": {"block_dim": 2560, "block_ff_dim": 12288, "conv_dim": 2560, "conv_dim_out": 2560},
    "cohere2": {},
    "olmo2": {},
    "smollm3": {},
    "qwen3_5": {},
    "qwen3_5_moe": {},
    "qwen3_vl": {},
    "qwen2_5_vl": {},
    "mistral3": {},
    "llama4": {},
    "llava": {},
}
COMPOSITE = ("gemma3", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen2_5_vl", "mistral3", "llama4", "llava")
MIXTURES = ("qwen3_moe", "mixtral", "gpt_oss", "glm4_moe", "deepseek_v3", "qwen3_5_moe", "llama4")


def config(family: str, **changes: Any) -> Any:
    """The configuration of a family, with the vocabulary of the demo's tokenizer."""
    from transformers import CONFIG_MAPPING, AutoTokenizer
    from transformers.models.auto import modeling_auto as auto

    made = CONFIG_MAPPING[family]()
    text = made.get_text_config()
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None, "bos_token_id": None}
    for name, value in {**ids, **FAMILIES.get(family, {}), **changes}.items():
        setattr(text, name, value)
    names = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if text is not made else auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    made.architectures = [names[family]]
    return made


def write(made: Any, folder: Path) -> Path:
    """A model folder without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(folder)
    for name in TOKENIZER:
        if (TINY / name).exists():
            shutil.copy(TINY / name, folder)
    return folder


def write_weights(family: str, folder: Path, spec: Any, change: Callable[[Any], None] = lambda model: None) -> Path:
    """A model folder with random weights, small; towers included."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    from maft.preflight.shrink import shrunk

    torch.manual_seed(0)
    small = shrunk(config(family))
    several = small.get_text_config() is not small
    model = (AutoModelForImageTextToText if several else AutoModelForCausalLM).from_config(small, dtype=torch.float32)
    change(model)
    model.save_pretrained(folder)
    small.save_pretrained(folder)
    return write(small, folder)
