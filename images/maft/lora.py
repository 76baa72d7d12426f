"""The base model with its LoRA adapters, as training and diversity use it: loaded, adapted, asked for logits.

The language-model head runs only where a target is predicted. Models that mix examples packed into one row, found by trying,
get one example at a time.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.utils import is_flash_attn_2_available, logging

from maft import models, pod, quantised, targets
from maft.chat_template import Tokens
from maft.device import Device, choose, read
from maft.errors import BadInput, one_line, passing, with_kind
from maft.packing import PackedRow, pack
from maft.spec import LoraSpec, ModelSpec

_NOT_IN_FLOAT16 = {"gemma2", "gemma3", "gemma3_text", "glm4"}  # as vLLM has it (config/model.py), which serves them in float32
ALONE = 1  # as the most tokens of a forward pass: every example gets one of its own


def load_base(model_spec: ModelSpec, device: Device | None = None, base: Literal["full", "nf4"] = "full") -> Any:
    """Loads the base model, frozen, onto the device, shard by shard. device: where, and in which precision; None: what is there.
    base: of the spec's training."""
    device = device or choose(None, read())
    torch.set_num_threads(pod.threads(torch.get_num_threads()))
    in_one_order(cuda=device.kind == "cuda")
    torch.utils.deterministic.fill_uninitialized_memory = False  # only finds faults, and writes all memory twice
    path, config = models.local(model_spec.source), models.config(model_spec)
    dtype = precision(config, device)
    if base == "nf4":
        quantised.check_nf4(config, model_spec.source, device.kind)
    quantised.check_packages(config, model_spec.source)
    auto = _auto_class(config)
    with _refusing(f"model.source: {path} cannot be loaded"):
        model, report = auto.from_pretrained(
            path,
            revision=model_spec.revision or None,
            trust_remote_code=model_spec.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            dtype=getattr(torch, dtype),
            device_map={"": device.kind} if device.kind != "cpu" else None,  # a host need not hold what a GPU will
            **_attention(auto, config, device),
            **(quantised.nf4(dtype) if base == "nf4" else quantised.loading(config)),
        )
        model = _ready(model)
    if not quantised.method(config):  # what is dequantised has other names on its way in
        _refuse_unfit(model, report, model_spec.source)
    return model


def check_fit(config: Any, model_spec: ModelSpec) -> None:
    """Raises BadInput where weights that are at hand are not those of the configuration, by names and shapes. Their headers are
    read."""
    known = _auto_class(config)._model_mapping
    made: Any = known[type(config)] if type(config) in known and not quantised.method(config) else None
    shapes = models.shapes(model_spec) if isinstance(made, type) else {}  # a model's own code may load as it likes
    if not shapes:
        return
    try:
        with _quiet():
            model, report = made.from_pretrained(
                None,
                config=config,
                state_dict={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to be named with what is missing
                device_map={"": "meta"},
                dtype=torch.float32,
            )
    except Exception as error:  # over tensors that hold nothing
        print(f"weights were not compared with the configuration: {with_kind(error, 200)}", flush=True)
        return
    _refuse_unfit(_ready(model), report, model_spec.source)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar and the table that transformers writes of what it loads."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _refuse_unfit(model: Any, report: Mapping[str, Any], source: str) -> None:
    """Raises BadInput for what transformers had to make up. Parts that were taken out, as towers are, may lack anything."""
    kept = model.state_dict().keys()
    shapes = sorted((name, tuple(stored), tuple(wanted)) for name, stored, wanted in report["mismatched_keys"] if name in kept)
    missing = sorted(name for name in report["missing_keys"] if name in kept)
    unfit = f"model.source: the weights of {source} do not fit its config.json, they are another model's"
    if shapes:
        name, stored, wanted = shapes[0]
        raise BadInput(f"{unfit}: {name} is {stored}, not {wanted}")
    if missing:
        raise BadInput(f"{unfit}, or not all of one's: {missing[0]} and {len(missing) - 1} more are missing")


def in_one_order(*, cuda: bool) -> None:
    """Has operations on the CPU add up in one order. On a GPU attention's backward pass does not, unless every operation is held
    to it."""
    torch.use_deterministic_algorithms(not cuda, warn_only=True)


def new_base(config: Any, model_spec: ModelSpec) -> Any:
    """Makes a base model of that configuration with random weights, on the CPU; otherwise as `load_base` does."""
    torch.set_num_threads(pod.threads(torch.get_num_threads()))
    with _refusing(f"model.source: no model can be made of the configuration of {model_spec.source}"):
        model = _auto_class(config).from_config(config, trust_remote_code=model_spec.trust_remote_code, dtype=torch.float32)
        return _ready(model)


@contextlib.contextmanager
def _refusing(message: str) -> Iterator[None]:
    """What goes wrong in a model's own code, or in a library over its files, may raise anything."""
    try:
        yield
    except (BadInput, torch.AcceleratorError):  # another try may find the device well
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:  # or free
        raise MemoryError(f"{message}: memory ran out, which others may use as well: {one_line(error, 300)}") from error
    except Exception as error:
        if passing(error):
            raise OSError(f"{message}: {one_line(error, 300)}") from error
        raise BadInput(f"{message}: {type(error).__name__}: {one_line(error, 300)}") from error


def _auto_class(config: Any) -> Any:
    """A model of several parts as a whole, so that adapters have the names that its servers know; else the causal one."""
    several = config.get_text_config() is not config and type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if several else AutoModelForCausalLM


def precision(config: Any, device: Device) -> str:
    """Names the precision of a base on the device: that of the device, but for models that compute what float16 does not hold."""
    types = {config.model_type, config.get_text_config().model_type}
    return "float32" if device.dtype == "float16" and types & _NOT_IN_FLOAT16 else device.dtype


def _attention(auto: Any, config: Any, device: Device) -> dict[str, str]:
    """Flash attention where it is installed and model and GPU have it (no GPU without bfloat16 does); else what transformers takes
    for the model."""
    flash = device.count > 0 and device.dtype == "bfloat16" and is_flash_attn_2_available() and type(config) in auto._model_mapping
    supported = flash and getattr(auto._model_mapping[type(config)], "_supports_flash_attn", False)
    return {"attn_implementation": "flash_attention_2"} if supported else {}


def _ready(model: Any) -> Any:
    """Freezes it, and takes out the models beside its text part: towers cost memory and are never asked."""
    path = targets.text_part(model).split(".")
    for depth, inside in enumerate(path if path != [""] else ()):
        parent = model.get_submodule(".".join(path[:depth]))
        for name, child in list(parent.named_children()):
            if name != inside and isinstance(child, PreTrainedModel):
                setattr(parent, name, None)
    model.requires_grad_(False)
    model.config.get_text_config().use_cache = model.config.use_cache = False
    return model.eval()


def adapt(base: Any, spec: LoraSpec, previous: Path | None) -> Any:
    """Puts a trainable adapter into the base: the one in the folder `previous`, or a new one."""
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        task_type="CAUSAL_LM",
        **targets.chosen(base, spec),
    )
    if previous:
        with _refusing("model.source: the previous adapter does not fit this model"):
            return PeftModel.from_pretrained(base, str(previous), is_trainable=True, torch_device=str(base.device))
    with _refusing("training.lora.targetModules"):
        return get_peft_model(base, config)


def logits(model: Any, row: PackedRow, **given: Any) -> torch.Tensor:
    """Computes [k, vocabulary], at the target positions alone. The row lies on the model's device. given: what its layers are told
    beside that."""
    output = model(input_ids=row.ids, position_ids=row.positions, logits_to_keep=row.target_positions, use_cache=False, **given)
    at_targets: torch.Tensor = output.logits[0]
    return at_targets


def logits_alone(model: Any, examples: Sequence[Tokens]) -> torch.Tensor:
    """Computes the logits of each example in a row of its own, one behind the other: [k, vocabulary]."""
    return torch.cat([logits(model, pack([example]).to(model.device)) for example in examples])


def supports_packing(model: Any, examples: Sequence[Tokens], alone: torch.Tensor) -> bool:
    """Tells whether packed examples leave each other alone in this model. alone: their logits, from `logits_alone`.

    Attention that does not look at positions, a recurrence and a convolution all carry one example into the next; then the
    logits of the packed row are not those of each example alone.
    """
    return close(model, logits(model, pack(examples).to(model.device)), alone)


def close(model: Any, one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tells whether logits are equal: kernels may differ by the length of a row, in half precision by a good part of a logit."""
    rtol, atol = (1e-3, 1e-3) if model.dtype == torch.float32 else (0.05, 0.5)
    return bool(torch.allclose(one.float(), other.float(), rtol=rtol, atol=atol))


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
