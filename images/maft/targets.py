"""Which layers of a model get an adapter: what `training.lora` asks for, as names that PEFT and the servers agree about.

`all-linear` means the linear layers of the text part without its output layer; in a mixture of experts those of attention alone,
because servers take adapters of experts for few models, and of the router for none.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from maft.errors import BadInput, meant
from maft.spec import LoraSpec

ALL = ("all-linear",)
_LINEAR = (nn.Linear, Conv1D)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Models of whose experts vLLM takes adapters as PEFT makes them: one tensor for all experts of a layer.
EXPERTS_SERVED = ("gpt_oss", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_vl_moe", "qwen3_vl_moe_text")


def text_part(model: Any) -> str:
    """Names the module that reads and writes text in a model of several parts; empty: it is the model itself."""
    text = model.config.get_text_config()
    if text is model.config:
        return ""
    parts = (
        (n, m) for n, m in model.named_modules() if n and getattr(getattr(m, "config", None), "model_type", "") == text.model_type
    )
    return next((name for name, _ in parts), "")


def chosen(model: Any, spec: LoraSpec) -> dict[str, list[str]]:
    """Chooses what PEFT's configuration calls target_modules and target_parameters; BadInput for what cannot be had."""
    experts = expert_blocks(model)
    if spec.experts and not experts:
        raise BadInput(f"training.lora.experts: {model.config.model_type} has no experts; leave it out")
    if spec.target_modules != ALL:
        modules = list(spec.target_modules)
        _refuse_ends(model, modules)
        _refuse_experts(model, modules, asked=spec.experts)
        if not experts:
            _refuse_unknown(model, modules)
    else:
        modules = _leaves(model, _all_linear(model, experts))
    if not modules:
        raise BadInput(
            f"training.lora.targetModules: {type(model).__name__} has no linear layers outside its experts; name layers yourself"
        )
    return {"target_modules": modules, "target_parameters": _expert_parameters(model, spec) if spec.experts else []}


def _all_linear(model: Any, experts: frozenset[str]) -> list[str]:
    """Every linear layer that PEFT and servers take; of a mixture of experts those outside the blocks that hold experts somewhere,
    or, where all blocks have one name, those that hold none."""
    names = [name for name in _linear(model) if name.rpartition(".")[2] not in _not_taken(model, experts)]
    outside = [name for name in names if not _in_any(name, experts)]
    holding = tuple(f"{name.rpartition('.')[0]}." for name in _experts(model)) if experts else ()
    return outside or [name for name in names if not name.startswith(holding)]


def _not_taken(model: Any, experts: frozenset[str]) -> frozenset[str]:
    """Names that PEFT takes for those of experts of old; and what it does not adapt beside a state-space model's kernels."""
    mamba = model.config.model_type in ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
    old = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3") if experts else ()
    return frozenset((*old, *(("out_proj", "conv1d") if mamba else ())))


def expert_blocks(model: Any) -> frozenset[str]:
    """Names the parts of a layer that hold its experts (`mlp`, `feed_forward`), with what stands beside it for the same end."""
    blocks = {_block(name) for name in _experts(model)}
    return frozenset(blocks | {"router", "shared_mlp", "shared_expert", "shared_experts"}) if blocks else frozenset()


def _experts(model: Any) -> Iterator[str]:
    """Modules that hold many experts: one parameter of three dimensions for all of them, or a list."""
    for name, module in model.named_modules():
        stacked = any(p.ndim == 3 for p in module.parameters(recurse=False)) and not isinstance(module, _CONVOLUTIONS)
        if stacked or name.rpartition(".")[2] == "experts":
            yield name


def _block(name: str) -> str:
    """The part of a layer in which a module lies: what follows the layer's number."""
    match = re.search(r"\.\d+\.(\w+)", name)
    return match[1] if match else name.rpartition(".")[2]


def _linear(model: Any) -> list[str]:
    """Linear layers of the text part, without its output layer."""
    inside, output = text_part(model), model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _LINEAR) and module is not output and (not inside or name.startswith(f"{inside}."))
    ]


def _in_any(name: str, blocks: frozenset[str]) -> bool:
    return not blocks.isdisjoint(name.split("."))


def _leaves(model: Any, names: list[str]) -> list[str]:
    """The last words of the names, where they mean these layers and no others; else the whole names. A number (of a list of layers)
    means a whole block elsewhere."""
    inside = set(names)
    everywhere = [name for name, module in model.named_modules() if isinstance(module, _LINEAR)]
    shared = {name.rpartition(".")[2] for name in everywhere if name not in inside}
    return sorted({name if (leaf := name.rpartition(".")[2]) in shared or leaf.isdecimal() else leaf for name in names})


def _refuse_ends(model: Any, modules: list[str]) -> None:
    """Servers take adapters of embeddings and output layers for few models, and PEFT writes the whole layers beside them."""
    ends = [n for n, m in model.named_modules() if m is model.get_output_embeddings() or isinstance(m, nn.Embedding)]
    for name in modules:
        if any(end == name or end.endswith(f".{name}") for end in ends):
            raise BadInput(
                f"training.lora.targetModules: {name} reads or writes tokens: servers want no adapter there; leave it out"
            )


def _refuse_unknown(model: Any, modules: list[str]) -> None:
    """PEFT passes over names of nothing, and takes none of a block. One with a number may be a layer that a small copy lacks."""
    known, layers = [name for name, _ in model.named_modules() if name], _linear(model)
    leaves = sorted({name.rpartition(".")[2] for name in layers})
    for name in (n for n in modules if not re.search(r"\d", n)):
        named = [one for one in known if one == name or one.endswith(f".{name}")]
        if not named:
            what = meant(name, leaves, f"there is {', '.join(leaves)}")
            raise BadInput(f"training.lora.targetModules: no layer of this model is named {name}; {what}")
        inside = sorted({one.rpartition(".")[2] for one in layers if one.startswith(f"{named[0]}.")})
        if inside:
            raise BadInput(f"training.lora.targetModules: {name} is a block of layers; name those in it: {', '.join(inside)}")


def _refuse_experts(model: Any, modules: list[str], *, asked: bool) -> None:
    """PEFT turns names of old experts into those of all experts, with another rank than was asked for."""
    present = {leaf for name in _linear(model) for leaf in (name, name.rpartition(".")[2])}
    blocks = expert_blocks(model)
    inside = {name.rpartition(".")[2] for name in _linear(model) if _in_any(name, blocks)}
    for name in modules:
        if blocks and not asked and (name not in present or name.rpartition(".")[2] in inside):
            raise BadInput(
                f"training.lora.targetModules: {name} is no attention layer of this mixture of experts; leave it out, or see"
                " training.lora.experts"
            )


def _expert_parameters(model: Any, spec: LoraSpec) -> list[str]:
    kind = model.config.model_type
    if kind not in EXPERTS_SERVED:
        raise BadInput(f"training.lora.experts: servers take no adapters of the experts of {kind}; set it to false")
    if spec.dropout:
        raise BadInput(f"training.lora.dropout: {spec.dropout} is not possible with training.lora.experts; set it to 0")
    stacked = ((n, m) for n, m in model.named_modules() if n in set(_experts(model)))
    names = {f"{_tail(n)}.{p}" for n, m in stacked for p, v in m.named_parameters(recurse=False) if v.ndim == 3}
    return sorted(names)


def _tail(name: str) -> str:
    return re.sub(r".*\.\d+\.", "", name)
