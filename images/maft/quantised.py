"""Quantised base models: which of them train, with which packages, and how they are loaded for it.

Without torch: `prepare` asks as well. What is dequantised trains in full precision beside a server that keeps it quantised.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from maft.errors import BadInput


@dataclass(frozen=True, slots=True)
class Method:
    """A way to quantise that trains."""

    packages: tuple[str, ...] = ()
    """What training needs beside what it always has."""
    dequantised: str = ""
    """The configuration of transformers that loads it in full precision; empty: adapters are trained on it as it is."""


METHODS = {
    "mxfp4": Method(dequantised="Mxfp4Config"),
    "fp8": Method(dequantised="FineGrainedFP8Config"),
    "compressed-tensors": Method(("compressed_tensors",), "CompressedTensorsConfig"),
    "awq": Method(("gptqmodel",)),
    "gptq": Method(("gptqmodel", "optimum")),
}


# Files that say it beside a configuration that does not; neither transformers nor vLLM loads such weights as what they are.
BESIDE = {
    "quantize_config.json": "GPTQ as of old (quantize_config.json)",
    "hf_quant_config.json": "ModelOpt (hf_quant_config.json)",
}


def mark(config: Any, has: Callable[[str], object]) -> None:
    """Notes in the configuration what is said of quantisation beside it, or by MLX in its own field. has: whether the model has a
    file of that name."""
    if given(config):
        return
    mlx = getattr(config, "quantization", None)
    name = "MLX" if isinstance(mlx, dict) and "bits" in mlx else next((kind for file, kind in BESIDE.items() if has(file)), "")
    if name:
        config.quantization_config = {"quant_method": name}


def given(config: Any) -> dict[str, Any]:
    """Returns what the configuration says about quantisation; empty where it says nothing."""
    settings: Any = next(_settings(config), {})
    return dict(settings if isinstance(settings, dict) else settings.to_dict())


def _settings(config: Any) -> Iterator[Any]:
    """What the configuration, and its text part, have under that name."""
    for part in (config, config.get_text_config()):
        if (settings := getattr(part, "quantization_config", None)) is not None:
            yield settings


def method(config: Any) -> str:
    """Names the way in which the model is quantised; empty: it is not."""
    settings = given(config)
    name = settings.get("quant_method") or ("bitsandbytes" if settings.get("load_in_4bit") or settings.get("load_in_8bit") else "")
    return str(getattr(name, "value", name)) or ("a method that is not named" if settings else "")


def trains_in_four_bits(config: Any) -> bool:
    """Tells whether the base stays in 4 bits while adapters are trained on it."""
    settings, name = given(config), method(config)
    of_four = settings.get("bits") == 4 or settings.get("w_bit") == 4
    return bool(of_four and name in METHODS and not METHODS[name].dequantised)


def check(config: Any, source: str) -> None:
    """Raises BadInput for a model whose kind of quantisation does not train."""
    if {} in _settings(config):
        raise BadInput(f"model.source: {source}: the quantization_config of its config.json is empty; take it out of the file")
    if (name := method(config)) == "bitsandbytes":
        raise BadInput(
            f"model.source: {source} is quantised with bitsandbytes, which vLLM does not serve; use one that is not quantised, and"
            " training.base nf4 to train it in 4 bits"
        )
    if name and name not in METHODS:
        raise BadInput(f"model.source: {source} is quantised with {name}, which does not train; use one that is not quantised")


def check_packages(config: Any, source: str, installed: Callable[[str], object] = find_spec) -> None:
    """Raises BadInput where training such a model needs packages that are not here."""
    check(config, source)
    name = method(config)
    missing = [package for package in METHODS[name].packages if not installed(package)] if name else []
    if missing:
        named = " and ".join(package.replace("_", "-") for package in missing)
        raise BadInput(
            f"model.source: {source} is quantised with {name}; training it needs {named}, not installed here: install that"
            " beside maft, or use a model that is not quantised"
        )


def check_nf4(config: Any, source: str, device: str, installed: Callable[[str], object] = find_spec) -> None:
    """Raises BadInput where training.base cannot be nf4. device: cuda or cpu."""
    if name := method(config):
        raise BadInput(f"training.base: nf4 on {source}, which is quantised with {name} already; set base to full")
    if device != "cuda":
        raise BadInput("training.base: nf4 needs a GPU, and training would use the CPU; set base to full, or give training a GPU")
    if not installed("bitsandbytes"):
        raise BadInput("training.base: nf4 needs bitsandbytes, not installed here; install maft[nf4], or set base to full")


def nf4(dtype: str) -> dict[str, Any]:
    """Makes the arguments with which transformers loads a model in 4 bits. dtype: what is computed in, as torch calls it.

    Source: QLoRA (arXiv 2305.14314, sections 3 and 4): NormalFloat, its constants quantised as well."""
    from transformers import BitsAndBytesConfig

    how = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **how)}


def loading(config: Any) -> dict[str, Any]:
    """Makes the arguments with which transformers loads such a model for training."""
    import transformers

    wanted = METHODS[name].dequantised if (name := method(config)) in METHODS else ""
    return {"quantization_config": getattr(transformers, wanted)(dequantize=True)} if wanted else {}
