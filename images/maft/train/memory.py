"""Memory of training: predicted, what a shortage looks like, and what is done about one. The decisions are pure.

Predicted is the most that is in use at once: weights, adapters with their optimizer, what forward keeps for backward, and the
chunk of logits under way. benchmarks/trainer.py puts it beside what was measured (row 14 of docs/performance.md).
"""

import contextlib
import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import psutil
import torch

from maft import models, pod, quantised, tensors
from maft.device import Device
from maft.errors import BadInput
from maft.lora import precision
from maft.spec import ModelSpec
from maft.tensors import GIB
from maft.train.loss import CHUNK, LEAST

# What torch and the libraries below it say on a CPU; on CUDA there is an error of its own.
SHORTAGES = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
    "status_alloc_failed",  # cuBLAS and cuDNN, beside what torch holds
    "cublas_status_not_initialized",  # its handle is made late, by the first backward pass
)
PROGRAM = {"cpu": 850 * 2**20, "cuda": 0}  # Python with torch, transformers and PEFT; CUDA's own is not torch's to count
HEAP = {"cpu": 2.4, "cuda": 1.0}  # glibc keeps what is freed between tensors that stay: measured, unless `return_freed`
GPU, POD = "the GPU", "this pod"  # whose memory it is
M_MMAP_THRESHOLD, RETURNED = -3, 2**20  # malloc.h; bytes from which a block goes back when it is freed
NF4 = 0.5 + 4 / 64 / 4 + 0.016  # bytes of a weight, with its share of doubly quantised scales (QLoRA, arXiv 2305.14314)


@dataclass(frozen=True, slots=True)
class Needs:
    """What the memory of a training depends on."""

    base: int
    """Parameters of the model."""
    adapter: int
    """Parameters that are trained."""
    hidden: int
    inner: int
    """Of the MLP that a token goes through: of all its experts."""
    query: int
    """Heads times their width."""
    key: int
    """The same of keys."""
    layers: int
    vocabulary: int
    tokens: int
    """Of a row."""
    targets: int
    """Of a row."""
    value: int = 4
    """Bytes of a number of the base and of what is computed with it."""
    device: str = "cpu"
    tied: bool = True
    """The head is the embeddings once more."""
    nf4: bool = False
    checkpointing: bool = False

    @classmethod
    def of(cls, config: Any, *, base: int, adapter: int, tokens: int, targets: int, **more: Any) -> Self:
        """Reads sizes from a configuration; more: fields with defaults."""
        text = config.get_text_config()
        layers = list(text.per_layer_config) if getattr(text, "is_heterogeneous", False) else [text]

        def number(*names: str, default: float) -> int:
            return int(next((most for name in names if (most := _most(layers, name))), default))

        heads = number("num_attention_heads", default=1)
        width = number("head_dim", default=text.hidden_size / heads)
        experts = number("num_experts_per_tok", default=1)
        inner = number("moe_intermediate_size", "intermediate_size", default=4 * text.hidden_size)
        return cls(
            base=base,
            adapter=adapter,
            hidden=text.hidden_size,
            inner=experts * inner,
            query=heads * width,
            key=number("num_key_value_heads", default=heads) * width,
            layers=text.num_hidden_layers,
            vocabulary=text.vocab_size,
            tokens=tokens,
            targets=targets,
            **{"tied": tensors.is_tied(config), **more},
        )


def _most(layers: list[Any], name: str) -> int:
    """The largest of a number in the layers; 0 where they have none. Of layers that differ, the configuration of all tells none."""
    return max(value if isinstance(value := getattr(layer, name, None), int) else 0 for layer in layers)


def weights(needs: Needs) -> int:
    """Counts the bytes of the base, and of adapters, their gradients and Adam's two moments in single precision."""
    ends = needs.vocabulary * needs.hidden * (1 if needs.tied else 2)  # bitsandbytes packs neither embeddings nor the head
    base = int((needs.base - ends) * NF4) + ends * needs.value if needs.nf4 else needs.base * needs.value
    return base + needs.adapter * 16


def activations(needs: Needs) -> int:
    """Counts the bytes that a row's forward pass keeps for its backward pass, and those of the layer under way.

    A layer keeps its two inputs and what the norms make of them, queries, keys and values as attention takes them, what attention
    gives before and after it is put in order, and four values of the MLP: gate, its activation, up, their product. Norms compute in
    single precision."""
    norms = needs.hidden * (4 * needs.value if needs.value == 4 else 4 * needs.value + 8)
    layer = needs.tokens * (norms + (3 * needs.query + 2 * needs.key + 4 * needs.inner) * needs.value)
    backward = needs.tokens * 3 * needs.inner * needs.value
    if needs.checkpointing:
        return needs.tokens * needs.hidden * needs.value * needs.layers + layer + backward
    return int((layer * needs.layers + backward) * HEAP[needs.device])


def loss(needs: Needs) -> int:
    """Counts the bytes of the targets' hidden states with their gradients, and of the logits of a chunk, three times."""
    rows = min(needs.targets, max(LEAST, CHUNK[needs.device] // needs.vocabulary))
    return 2 * needs.targets * needs.hidden * needs.value + 3 * rows * needs.vocabulary * 4


def peak(needs: Needs) -> int:
    """Predicts the most bytes that training has in use at once, the program's own included."""
    return PROGRAM[needs.device] + weights(needs) + activations(needs) + loss(needs)


def needs_checkpointing(needs: Needs, free_bytes: int) -> bool:
    """Tells whether a row's activations and logits would not fit beside what is loaded; a fifth is left for what is not counted."""
    return activations(needs) + loss(needs) > 0.8 * free_bytes


def rows_that_fit(needs: Needs, limit: int) -> int:
    """Finds the most tokens of a row that a limit, in bytes, has room for; 0: not even the weights fit."""
    target_share = needs.targets / max(1, needs.tokens)

    def fits(tokens: int) -> bool:
        return peak(replace(needs, tokens=tokens, targets=math.ceil(tokens * target_share))) <= limit

    low, high = 0, needs.tokens + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def free(device: torch.device) -> int:
    """Measures the free memory of the device, in bytes, with what torch holds of it and does not use; of the host what the pod's
    limit leaves of it."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    limit, used = pod.memory()
    available = int(psutil.virtual_memory().available)
    return min(available, limit - used) if limit else available


def total_memory(used: Device) -> tuple[int, str]:
    """Reads how much memory the device has in all, in bytes, and whose it is."""
    if used.kind == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory), GPU
    limit, machine = pod.memory()[0], int(psutil.virtual_memory().total)
    return (limit, POD) if 0 < limit < machine else (machine, "this machine")


def check_base(
    config: Any,
    spec: ModelSpec,
    used: Device,
    base: Literal["full", "nf4"],
    *,
    alike: bool,
    total_of: Callable[[Device], tuple[int, str]] = total_memory,
) -> None:
    """Raises an error where the weights alone are more than the device has in all, before they are loaded: BadInput where another
    try would have the same device; else MemoryError, for it may come to a larger one. Not for what is quantised already.

    base: of the spec's training; alike: whether all tries have that device; total_of: its memory, in bytes, and whose it is."""
    shapes = {} if quantised.method(config) else tensors.loaded(models.shapes(spec), config)
    total, where = total_of(used)
    needed = sum(math.prod(shape) * _value(shape, config, used, base) for shape in shapes.values())
    if needed > total:
        taken = f"the weights of {spec.source} take about {needed / GIB:.1f} GiB, {where} has {total / GIB:.1f} GiB"
        raise (BadInput if alike else MemoryError)(f"model.source: {taken}; {_larger(where, base)}, or use a smaller model")


def _larger(where: str, base: Literal["full", "nf4"]) -> str:
    """Says what gives the weights room. A base in 4 bits is not sharded."""
    if where == GPU:
        sharded = "training.parallelism to Sharded with more GPUs"
        return f"set {sharded}, and training.base to full" if base == "nf4" else f"set training.base to nf4, or {sharded}"
    if where == POD:
        return "raise resources.limits.memory of the container trainer"
    return "take a machine with more memory"


def _value(shape: Sequence[int], config: Any, used: Device, base: str) -> float:
    """Bytes of a number of that tensor: bitsandbytes packs layers, but neither embeddings nor the head."""
    packed = base == "nf4" and len(shape) == 2 and config.get_text_config().vocab_size not in shape
    return NF4 if packed else torch.finfo(getattr(torch, precision(config, used))).bits / 8


# --- a shortage ---


def is_shortage(error: BaseException) -> bool:
    """Tells whether the error says that memory ran out: the device's or the host's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in SHORTAGES)


def halved(batch_tokens: int, lengths: Sequence[int]) -> int | None:
    """Halves the tokens of a forward pass that did not fit: of the batch itself, where it is smaller than what was allowed.
    lengths: of the batch's examples, in tokens. None: each has a pass of its own already."""
    shortest = sorted(lengths)[:2]
    together = len(shortest) == 2 and sum(shortest) <= batch_tokens  # else no two examples share a row
    return max(1, min(batch_tokens, sum(lengths)) // 2) if together else None


def too_large(tokens: int, device: torch.device) -> BadInput:
    """Says what helps where not even one example fits."""
    where = "the GPU's memory" if device.type == "cuda" else "this machine's memory, or the pod's limit"
    return BadInput(
        f"training.batchTokens: one example of {tokens:,} tokens does not fit {where}, activations computed"
        " anew; lower debate.maxTokens or training.lora.rank, give training more memory, or set training.base to nf4 (CUDA)"
    )


@contextlib.contextmanager
def explained(tokens: int, device: torch.device) -> Iterator[None]:
    """Turns a shortage that no smaller row helps against (of adapters, of the optimizer) into BadInput. tokens: of the longest
    example."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        raise too_large(tokens, device) from error


def save_activations(model: Any) -> None:
    """Computes activations anew in the backward pass, from here on until `keep_activations`.

    transformers puts the hook that lets embeddings have a gradient; a second one would stay when its own is taken out."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if model.device.type == "cpu":
        return_freed()


def return_freed() -> None:
    """Lets glibc give large blocks back at once, from here on: a quarter slower, and without gaps that nobody can use."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(M_MMAP_THRESHOLD, RETURNED)
        libc.malloc_trim(0)


def keep_activations(model: Any) -> None:
    """Undoes `save_activations`: the next adapter of the same base decides anew."""
    model.gradient_checkpointing_disable()
    model.disable_input_require_grads()
