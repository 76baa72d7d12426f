"""The base model with its LoRA adapters, as training and diversity use it: loaded, adapted, asked for logits.

The language-model head runs only where a target is predicted. Models that mix examples packed into one row, found by trying,
get one example at a time.
"""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from maft import models
from maft.chat_template import Tokens
from maft.errors import BadInput, one_line
from maft.packing import PackedRow, pack
from maft.spec import LoraSpec, ModelSpec

ALONE = 1  # as the most tokens of a forward pass: every example gets one of its own


def load_base(model_spec: ModelSpec) -> Any:
    """Loads the base model on the best device, frozen, in the widest precision that is fast there."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    path = models.local(model_spec.source)
    flash = torch.cuda.is_available() and find_spec("flash_attn") is not None
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=model_spec.revision or None,
            trust_remote_code=model_spec.trust_remote_code,
            use_safetensors=True,
            dtype=_dtype(),
            attn_implementation="flash_attention_2" if flash else "sdpa",
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"model.source: {path} cannot be loaded: {one_line(error, 300)}") from error
    return _frozen(model).to("cuda" if torch.cuda.is_available() else "cpu")


def new_base(config: Any, model_spec: ModelSpec) -> Any:
    """Makes a base model of that configuration with random weights, on the CPU; otherwise as `load_base` does."""
    try:
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=model_spec.trust_remote_code, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadInput(f"model.source: {model_spec.source} cannot be made: {one_line(error, 300)}") from error
    return _frozen(model)


def _frozen(model: Any) -> Any:
    model.requires_grad_(False)
    model.config.use_cache = False
    return model


def _dtype() -> torch.dtype:
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def adapt(base: Any, spec: LoraSpec, previous: Path | None) -> Any:
    """Puts a trainable adapter into the base: the one in the folder `previous`, or a new one."""
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules="all-linear" if spec.target_modules == ("all-linear",) else list(spec.target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        if previous:
            return PeftModel.from_pretrained(base, str(previous), is_trainable=True)
        return get_peft_model(base, config)
    except RuntimeError as error:
        raise BadInput(f"model.source: the previous adapter does not fit this model: {one_line(error, 300)}") from error
    except ValueError as error:
        raise BadInput(f"training.lora.targetModules: {one_line(error, 300)}") from error


def logits(model: Any, row: PackedRow) -> torch.Tensor:
    """Computes [k, vocabulary], at the target positions alone. The row lies on the model's device."""
    output = model(input_ids=row.ids, position_ids=row.positions, logits_to_keep=row.target_positions, use_cache=False)
    at_targets: torch.Tensor = output.logits[0]
    return at_targets


def forward(model: Any, examples: Sequence[Tokens], max_tokens: int) -> tuple[PackedRow, torch.Tensor]:
    """Packs the examples and computes the row's logits in single precision; if `max_tokens` is ALONE, example by example."""
    row = pack(examples).to(model.device)
    if max_tokens > ALONE or len(examples) == 1:
        return row, logits(model, row).float()
    return row, torch.cat([logits(model, pack([example]).to(model.device)).float() for example in examples])


def supports_packing(model: Any, examples: Sequence[Tokens]) -> bool:
    """Tells whether packed examples leave each other alone in this model: tries the first and the last one.

    Attention that does not look at positions, a recurrence and a convolution all carry one example into the next; then the
    logits of the packed pair are not those of each example alone.
    """
    pair = [examples[0], examples[-1]]
    with torch.no_grad():
        packed = logits(model, pack(pair).to(model.device))
        alone = torch.cat([logits(model, pack([example]).to(model.device)) for example in pair])
    # Kernels may differ by the length of a row: in half precision by a good part of a logit.
    rtol, atol = (1e-3, 1e-3) if model.dtype == torch.float32 else (0.05, 0.5)
    return bool(torch.allclose(packed.float(), alone.float(), rtol=rtol, atol=atol))


def tidy(folder: Path, model: ModelSpec, card: str) -> None:
    """Makes the directory the same wherever it was trained: no local paths, no set order, our model card."""
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text())
    content["base_model_name_or_path"] = model.source
    content["revision"] = model.revision or None
    content["inference_mode"] = True
    if isinstance(content["target_modules"], list):
        content["target_modules"].sort()
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").write_text(card)
