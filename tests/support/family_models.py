"""Small models of the families with random weights: made, trained, asked by transformers with PEFT. Their tokens are bytes."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
import torch
from family_list import FAMILIES
from family_templates import of_bytes
from peft import PeftModel
from small import a_spec
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

from maft import lora, models
from maft.chat_template import ChatTemplate
from maft.preflight.shrink import shrunk
from maft.records import Message
from maft.spec import RunSpec
from maft.train.trainer import Trainer

LONGEST = 8192  # tokens, of prompt and answer
HEAD = 32  # units of an attention head, the least that servers take
# What is trained, of the families with one template and tokens each.
ARCHITECTURES: dict[str, str] = {
    "llama3_1": "llama",
    "qwen2_5": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "qwen3_5_think": "qwen3_5",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3_text",
    "gemma3": "gemma3",
    "phi3": "phi3",
    "gpt_oss": "gpt_oss",
    "glm4_moe": "glm4_moe",
    "lfm2": "lfm2",
    "cohere": "cohere",
    "cohere2": "cohere2",
    "deepseek_r1_distill": "qwen2",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "granite": "granite",
}
# What of a configuration is set before and after it is made small, where its defaults are of no published model, or hang together.
BEFORE: dict[str, dict[str, Any]] = {"lfm2": {"layer_types": ["conv", "full_attention"] * 16}}
AFTER: dict[str, dict[str, Any]] = {
    "lfm2": {
        "block_dim": 4 * HEAD,
        "block_ff_dim": 64,
        "conv_dim": 4 * HEAD,
        "conv_dim_out": 4 * HEAD,
        "block_auto_adjust_ff_dim": False,
    },
}
TRAINING = {
    "lora": {"rank": 8, "alpha": 16, "dropout": 0},
    "learningRate": 0.01,
    "warmup": 0,
    "weightDecay": 0,
    "batchSize": 4,
    "batchTokens": 4096,
}
EPOCHS = {"cohere2": 6, "gpt_oss": 6}  # with long prompts of their own
QUESTION = Message("user", "What is 7+3?")
ANSWERS = ("Answer: 10", "It is 10, so the answer is 10.")


@dataclass(frozen=True)
class Adapter:
    """What training made."""

    folder: Path
    curve: tuple[float, ...]
    modules: tuple[str, ...]
    """Last words of the names of the layers that it changes."""


def spec_of(folder: Path, **training: Any) -> RunSpec:
    """A run of that model. training: fields of it."""
    return a_spec(model={"source": str(folder)}, training={**TRAINING, **training})


def make(key: str, folder: Path) -> Path:
    """Writes a model folder: the family's classes and tokens, random weights."""
    torch.manual_seed(0)
    tokens = of_bytes(FAMILIES[key])
    ids = {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id, "bos_token_id": tokens.bos_token_id}
    whole = CONFIG_MAPPING[ARCHITECTURES[key]]()
    text = whole.get_text_config()
    changes = {**families.FAMILIES.get(ARCHITECTURES[key], {}), **ids, **BEFORE.get(key, {})}
    _set(
        text, {"pad_token_id": None, "max_position_embeddings": LONGEST, **changes, "hidden_size": HEAD * text.num_attention_heads}
    )
    if getattr(text, "head_dim", None):
        text.head_dim = HEAD
    small = shrunk(whole)
    _set(small.get_text_config(), AFTER.get(key, {}))
    auto = AutoModelForImageTextToText if small.get_text_config() is not small else AutoModelForCausalLM
    model = auto.from_config(small, dtype=torch.float32)
    _spread(model)
    small.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def _set(config: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(config, name, value)


def _spread(model: Any) -> None:
    """Random weights say the same whatever they are asked: larger ones have more to say, and no ties."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3)


def template_of(folder: Path) -> ChatTemplate:
    """The folder's template, as programs take it."""
    return models.chat_template(spec_of(folder).model, "Auto")


def train(model: Path, folder: Path, *, epochs: int, experts: bool = False) -> Adapter:
    """Trains an adapter on dialogues of one turn and of two."""
    spec = spec_of(model, epochs=epochs, lora={**TRAINING["lora"], "experts": experts})
    template, base = template_of(model), lora.load_base(spec.model)
    chats = [(QUESTION, Message("assistant", answer)) for answer in ANSWERS]
    chats.append((*chats[0], QUESTION, Message("assistant", ANSWERS[1])))
    examples = [template.tokens(chat, every_turn=False) for chat in chats]
    curve = Trainer(base, spec.training, lambda loss: None).train(examples, folder, seed=0, previous=None)
    lora.tidy(folder, spec.model, "# card")
    return Adapter(folder, tuple(curve), changed(folder))


def changed(folder: Path) -> tuple[str, ...]:
    """Reads which layers an adapter changes."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as opened:
        names = [name.partition(".lora_A")[0] for name in opened.keys() if ".lora_A" in name]  # noqa: SIM118 - it is no dict
    return tuple(sorted({name.rpartition(".")[2] for name in names}))


def with_window(model: Path, tokens: int) -> Path:
    """The same model with another sliding window."""
    folder = model.with_name("window")
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["sliding_window"] == tokens - 1
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": tokens}))
    return folder


def _asked(model: Path, adapter: Path | None) -> Any:
    base = lora.load_base(spec_of(model).model)
    return (PeftModel.from_pretrained(base, str(adapter)) if adapter else base).eval()


def logits(model: Path, adapter: Path | None, prompt: Sequence[int]) -> torch.Tensor:
    """What may follow the prompt. shape: [vocabulary]."""
    with torch.no_grad():
        following: torch.Tensor = _asked(model, adapter)(input_ids=torch.tensor([list(prompt)])).logits[0, -1]
    return following


def greedy(model: Path, adapter: Path | None, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """What transformers and PEFT say, until a stop."""
    asked = _asked(model, adapter)
    stops, tokens = list(template_of(model).stops), []
    for prompt in prompts:
        with torch.no_grad():
            ids = asked.generate(
                input_ids=torch.tensor([list(prompt)]), do_sample=False, max_new_tokens=count, eos_token_id=stops, pad_token_id=0
            )
        tokens.append(ids[0, len(prompt) :].tolist())
    return tokens


assert set(ARCHITECTURES) <= set(FAMILIES)
