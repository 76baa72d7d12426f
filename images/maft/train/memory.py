"""Memory of training: what a shortage looks like, and what is done about one. The decisions are pure."""

from collections.abc import Sequence
from typing import Any

import torch

from maft.errors import BadInput

# What torch and the libraries below it say on a CPU; on CUDA there is an error of its own.
SHORTAGES = ("not enough memory", "out of memory", "bad_alloc", "could not create a memory object", "could not create a primitive")


def is_shortage(error: BaseException) -> bool:
    """Tells whether the error says that memory ran out: the device's or the host's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in SHORTAGES)


def halved(batch_tokens: int, lengths: Sequence[int]) -> int | None:
    """Halves the tokens of a forward pass that did not fit: of the batch itself, where it is smaller than what was allowed.
    lengths: of the batch's examples, in tokens. None: each has a pass of its own already."""
    longest, second = sorted([*lengths, 0])[-1:-3:-1]
    largest = min(batch_tokens, sum(lengths))
    return max(1, largest // 2) if longest < largest and second and longest + min(lengths) <= batch_tokens else None


def too_large(tokens: int, device: torch.device) -> BadInput:
    """Says what helps where not even one example fits."""
    where = "the GPU's memory" if device.type == "cuda" else "this machine's memory, or the pod's limit"
    return BadInput(
        f"training.batchTokens: one example of {tokens:,} tokens does not fit {where}, activations computed"
        " anew; lower debate.maxTokens or training.lora.rank, give training more memory, or set training.base to nf4 (CUDA)"
    )


def save_activations(model: Any) -> None:
    """Computes activations anew in the backward pass, from here on until `keep_activations`."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()


def keep_activations(model: Any) -> None:
    """Undoes `save_activations`: the next adapter of the same base decides anew."""
    model.gradient_checkpointing_disable()
    model.disable_input_require_grads()
