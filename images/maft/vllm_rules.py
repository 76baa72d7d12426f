"""What vLLM says to a model and to an adapter, asked before a server starts: with its own classes and validators, without weights.

A folder comes in: a small model's configuration with an adapter that was trained on it (`maft.preflight` makes it). Only where vLLM
is installed and has its device; `askable` tells.
"""

import contextlib
import math
import os
import re
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from maft.errors import BadInput, meant, one_line

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's choices for --max-lora-rank

# Of vLLM's flags: where a server is found, by which name and with which key. With another value debates would not find it.
_SET_BY_US = (
    "model",
    "served_model_name",
    "host",
    "port",
    "uds",
    "api_key",
    "root_path",
    "ssl_keyfile",
    "ssl_certfile",
    "headless",
)

# Those that a field says, by which more is planned than the server: prompts that fit, what training loads.
_FIELDS = {
    "max_model_len": "model.maxLength",
    "max_lora_rank": "training.lora.rank",
    "revision": "model.revision",
    "trust_remote_code": "model.trustRemoteCode",
}

NO_EXPERTS = "is a mixture of experts, which vLLM's CPU build does not serve with adapters; its servers need a GPU"


def askable() -> bool:
    """Tells whether vLLM can be asked here: a build for GPUs refuses every model where it sees none."""
    if find_spec("vllm") is None:
        return False
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.platforms import current_platform

    return not current_platform.is_unspecified()


def served_rank(rank: int) -> int:
    """Chooses --max-lora-rank for adapters of that rank; BadInput where vLLM has none so high."""
    if rank > RANKS[-1]:
        raise BadInput(f"training.lora.rank: {rank} is more than vLLM serves; {RANKS[-1]} is the most")
    return next(r for r in RANKS if r >= rank)


def ask(folder: Path, rank: int, source: str, *, on_cpu: bool = False) -> list[str]:
    """Asks vLLM, where it can be asked and there is a model in the folder. Its refusals are BadInput; where it fails over the
    question, that is a warning. on_cpu: the servers are to have no GPU, wherever this is."""
    if not (folder / "config.json").exists() or not askable():
        return []
    try:
        return check(folder, rank, source, on_cpu=on_cpu)
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # its internals over a model that is smaller than any real one
        return [f"model.source: vLLM could not be asked about a small copy: {type(error).__name__}: {one_line(error, 200)}"]


def check_flags(flags: Sequence[str], gpus: int | None = None) -> None:
    """Raises BadInput where the command line of `vllm serve` does not take one of them, or they share the model among another
    number of GPUs than it has. Asks nobody where there are none, or no vLLM of a release whose command line is known."""
    if not flags or not askable():
        return
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        return

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]  # without types here
        def error(self, message: str) -> NoReturn:
            raise BadInput(f"inference.extraArgs: vLLM says: {one_line(message, 300)}{_nearest(message, self)}")

    made = make_arg_parser(Parser(add_help=False))
    if (parsed := made.parse_args(list(flags))).model_tag:
        raise BadInput(f"inference.extraArgs: {parsed.model_tag!r} is no flag of vLLM; write --name=value in one line")
    usual = made.parse_args([])
    for name in (*_SET_BY_US, *_FIELDS):
        if getattr(parsed, name, None) != getattr(usual, name, None):
            why = f"from {_FIELDS[name]}; set that" if name in _FIELDS else "which asks the server by it; leave it out"
            raise BadInput(f"inference.extraArgs: --{name.replace('_', '-')} is set by maft, {why}")
    _check_parallel(parsed, gpus or 0)  # left out: what is there, which vLLM says itself


def _check_parallel(parsed: Any, gpus: int) -> None:
    """Where a server has GPUs, each has its part."""
    sizes = [int(getattr(parsed, f"{kind}_parallel_size", None) or 1) for kind in ("tensor", "pipeline", "data")]
    if gpus and 1 < math.prod(sizes) != gpus:
        product = " × ".join(map(str, sizes))
        raise BadInput(
            f"inference.extraArgs: tensor × pipeline × data parallel sizes are {product}, and inference.gpus is {gpus}; "
            "set that to their product, or write all of them so that it is"
        )


def tensor_size(flags: Sequence[str], gpus: int) -> int:
    """Tells among how many of a server's GPUs a layer is split: as the user's flags say; all, where they share it out in no way."""
    tensor, *others = _parallel_sizes(flags)
    return tensor or (1 if max(others) > 1 else gpus)


def gpus_of(flags: Sequence[str]) -> int:
    """Counts the GPUs that the user's flags share the model out among, copies of it included, whose experts may be split; 1, where
    they do not."""
    return math.prod(max(1, size) for size in _parallel_sizes(flags))


def _parallel_sizes(flags: Sequence[str]) -> tuple[int, int, int]:
    """Tensor, pipeline and data parallel sizes; 0 where the flags say none, or no number."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for kind, short in (("tensor", "-tp"), ("pipeline", "-pp"), ("data", "-dp")):
        parser.add_argument(f"--{kind}-parallel-size", short, dest=kind, nargs="?")
    known, _ = parser.parse_known_args([_with_dashes(word) for word in flags])
    tensor, pipeline, data = (int(text) if (text or "").isdecimal() else 0 for text in (known.tensor, known.pipeline, known.data))
    return tensor, pipeline, data


def memory_share(flags: Sequence[str], usual: float) -> float:
    """Tells which part of a device's memory vLLM may take, as the user's flags say; all, where they say the cache's bytes. usual:
    vLLM's own part."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--gpu-memory-utilization", "--device-memory-utilization", dest="share", nargs="?")
    parser.add_argument("--kv-cache-memory-bytes", dest="cache", nargs="?")
    known, _ = parser.parse_known_args([_with_dashes(word) for word in flags])
    try:
        asked = float(known.share or usual)
    except ValueError:  # vLLM says what is wrong with it
        asked = usual
    return 1.0 if known.cache else asked if 0 < asked <= 1 else usual


def _with_dashes(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _nearest(message: str, parser: ArgumentParser) -> str:
    names = re.findall(r"--[a-z0-9-]+", message) if "unrecognized" in message else []
    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    hint = meant(names[0], known) if names else ""
    return hint and f"; {hint}"


def check(folder: Path, rank: int, source: str, *, on_cpu: bool = False) -> list[str]:
    """Raises BadInput where vLLM would refuse the model in the folder, or its adapter, or pass over a part of the adapter; without
    an adapter its class alone is asked. Returns warnings."""
    from vllm.lora.utils import is_moe_model
    from vllm.platforms import current_platform

    model_class(folder, source)
    if not (folder / "adapter_config.json").exists():
        return []
    with _built(folder, served_rank(rank), source) as (model, lora_config):
        _check_adapter(folder, model, lora_config)
        if not current_platform.is_cpu() or not is_moe_model(model):
            return []
        if on_cpu:
            raise BadInput(f"model.source: {source} {NO_EXPERTS}; set inference.gpus, or take another model")
        return [f"model.source: {source} {NO_EXPERTS}"]


def model_class(folder: Path, source: str) -> Any:
    """Finds vLLM's class for the model; BadInput where it has none, or one without adapters."""
    from vllm.model_executor.models.interfaces import supports_lora
    from vllm.model_executor.models.registry import ModelRegistry
    from vllm.transformers_utils.config import get_config

    names = get_config(str(folder), trust_remote_code=False).architectures or []
    known = next((name for name in names if name in ModelRegistry.models), None) or _around_transformers(names)
    if known is None:
        raise BadInput(f"model.source: {source} is a {', '.join(names) or 'model of no named class'}, which vLLM does not serve")
    loaded = ModelRegistry.models[known].load_model_cls()
    if not supports_lora(loaded):
        raise BadInput(f"model.source: {source} is a {known}, which vLLM serves without adapters; use another model")
    ModelRegistry.register_model(known, loaded)  # it would look at the class in a process of its own, which takes seconds
    return loaded


def _around_transformers(names: Sequence[str]) -> str | None:
    """Names vLLM's class for models that it has none of: around transformers' own, where that takes another attention."""
    import transformers

    own: Any = getattr(transformers, names[0], None) if names else None
    taken = hasattr(own, "is_backend_compatible") and (own.is_backend_compatible() or own._can_set_attn_implementation())
    return "TransformersForCausalLM" if taken else None


@contextlib.contextmanager
def _built(folder: Path, rank: int, source: str) -> Iterator[tuple[Any, Any]]:
    """vLLM's model on no device, for one process, and what it says about adapters."""
    import torch
    from vllm.config import DeviceConfig, LoRAConfig, ModelConfig, VllmConfig, set_current_vllm_config
    from vllm.distributed import cleanup_dist_env_and_memory, ensure_model_parallel_initialized, init_distributed_environment
    from vllm.model_executor.model_loader.utils import initialize_model

    named = str(folder)
    lora_config = LoRAConfig(max_lora_rank=rank, max_loras=1)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            model_config = ModelConfig(model=named, tokenizer=named, skip_tokenizer_init=True, dtype="float32", enforce_eager=True)
            config = VllmConfig(model_config=model_config, lora_config=lora_config, device_config=DeviceConfig(device="cpu"))
            with set_current_vllm_config(config):
                init_distributed_environment(1, 0, f"file://{scratch}/meeting", 0, "gloo")
                ensure_model_parallel_initialized(1, 1)
                with torch.device("meta"):
                    model = initialize_model(config)
                yield model, lora_config
        except ValueError as error:
            raise BadInput(f"model.source: vLLM refuses {source}: {one_line(error, 300)}") from error
        finally:
            cleanup_dist_env_and_memory()


def _check_adapter(folder: Path, model: Any, lora_config: Any) -> None:
    """As a server loads an adapter; and every part of it has to arrive somewhere, which a server does not ask."""
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper
    from vllm.lora.utils import get_supported_lora_modules, process_packed_modules_mapping

    packed = process_packed_modules_mapping(model)
    supported = get_supported_lora_modules(model)
    expected = {name for module in supported for name in packed.get(module, [module])} | ({"experts"} & set(supported))
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    try:
        helper = PEFTHelper.from_local_dir(str(folder), None)
        helper.validate_legal(lora_config)
        _check_targets(helper.target_modules, expected)
        loaded = LoRAModel.from_local_checkpoint(
            str(folder),
            expected,
            helper,
            device="cpu",
            weights_mapper=mapper.get_rename_mapper() if mapper else None,
            skip_prefixes=getattr(model, "lora_skip_prefixes", None),
        )
    except ValueError as error:
        raise BadInput(
            f"training.lora: vLLM refuses the adapter: {one_line(str(error).replace(str(folder), 'it'), 400)}"
        ) from error
    if lost := unplaced(list(loaded.loras), {name for name, _ in model.named_modules()}, packed):
        raise BadInput(f"training.lora.targetModules: vLLM passes over {lost[0]} and {len(lost) - 1} more; name other layers")


def _check_targets(targets: Any, expected: set[str]) -> None:
    """Raises BadInput with what to set where vLLM takes no adapter of some of the layers: of GLM-4's two projections in one, which
    it has apart."""
    named = sorted(targets) if isinstance(targets, (list, set, tuple)) else []
    taken = [name for name in named if name.rpartition(".")[2] in expected]
    others = [name for name in named if name not in taken]
    if others and "experts" not in expected:
        todo = f"set it to {', '.join(taken)}" if taken else f"it takes those of {', '.join(sorted(expected))}"
        raise BadInput(f"training.lora.targetModules: vLLM takes no adapter of {', '.join(others)} in this model; {todo}")


def unplaced(adapted: Sequence[str], modules: set[str], packed: Mapping[str, Sequence[str]]) -> list[str]:
    """Lists what of an adapter no module of the server takes: neither one of that name, nor one that packs several."""

    def taken(name: str) -> bool:
        above, _, leaf = name.rpartition(".")
        fused = (parent for parent, parts in packed.items() if leaf in parts)
        return name in modules or ".experts" in name or any(f"{above}.{parent}" in modules for parent in fused)

    return [name for name in adapted if not taken(name)]
