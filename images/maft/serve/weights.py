"""Whether a model's weights are more than vLLM may take of its GPUs: counted by their shapes, before any is loaded. Pure."""

import math
from collections.abc import Mapping, Sequence

from maft import vllm_rules
from maft.errors import BadInput
from maft.serve.parts import Parts
from maft.serve.platform import Platform
from maft.tensors import GIB

HALF = 2  # bytes; vLLM takes no more than half precision where nobody tells it to
# With these flags fewer bytes lie on a GPU than shapes say, or other weights than those of the folder.
_OTHERWISE = {"--config", "--hf-overrides", "--load-format"}
_SMALLER = ("offload", "quantization")  # in their names


def are_told(parts: Parts, given: Sequence[str]) -> bool:
    """Tells whether shapes say how many bytes are loaded. given: the user's flags."""
    flags = {word.partition("=")[0].partition(".")[0].replace("_", "-") for word in given}  # --hf-overrides.num_hidden_layers=4
    smaller = any(word.startswith("-q") or part in word for word in flags for part in _SMALLER)
    return not parts.packed and not smaller and not flags & _OTHERWISE


def needed(shapes: Mapping[str, Sequence[int]], parts: Parts) -> int:
    """Counts the bytes of what is served, at least: of a model of several parts what its names say to be the text part. shapes: of
    the tensors that are loaded, by name."""
    served = [name for name in shapes if not parts.towers or "language_model" in name]
    return HALF * sum(math.prod(shapes[name]) for name in served)


def check(needed: int, platform: Platform, asked: int | None, given: Sequence[str], source: str) -> None:
    """Raises BadInput where so many bytes of weights are more than vLLM may take in all. asked: GPUs, where those that
    the user's flags share the model out among are not more: on a cluster one is asked for where nobody says how many."""
    share, gpus = vllm_rules.memory_share(given, platform.share), max(asked or 1, vllm_rules.gpus_of(given))
    each = platform.memory * share
    if needed > gpus * each:
        taken = f"{gpus * each / GIB:.1f} ({gpus} of {platform.memory / GIB:.1f} GiB, --gpu-memory-utilization {share:g})"
        raise BadInput(
            f"inference.gpus: the weights of {source} take about {needed / GIB:.1f} GiB, and vLLM may use {taken};"
            f" set {math.ceil(needed / each)} or more, or use a smaller model.source"
        )
