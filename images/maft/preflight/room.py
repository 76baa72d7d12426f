"""How much memory training will need, and whether it is there: predicted for the whole model, before anything is paid for.

A pod that is killed for its memory cannot halve its rows: what cannot fit is refused here where the limit is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from maft import device, pod, quantised
from maft.debate.society import training_rules
from maft.device import Device, Facts
from maft.errors import BadInput, with_kind
from maft.lora import precision
from maft.packing import largest_row
from maft.preflight.trial import without_weights
from maft.spec import Spec
from maft.tensors import GIB, is_tied
from maft.train import memory
from maft.train.memory import Needs

_CPU = Device("cpu", 0, "float32", "")


@dataclass(frozen=True, slots=True)
class Limit:
    """The memory that training has."""

    total: int
    """Bytes; 0: not known."""
    of: str
    """Whose it is."""
    binding: bool
    """It is training's own for sure: what does not fit is refused, not only said."""


def parameters(config: Any, spec: Spec) -> tuple[int, int] | None:
    """Counts those of the base and those of an adapter; None where the model cannot be laid out without its weights. BadInput for
    4 bits of a mixture whose experts are one tensor each: bitsandbytes packs layers, and would leave nearly all as it is."""
    try:
        adapted = without_weights(config, spec)
    except Exception as error:  # a model's own code, of which training may still work
        print(f"memory of training is not predicted: {with_kind(error, 200)}", flush=True)
        return None
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    base = sum(p.numel() for p in adapted.parameters()) - trained
    fused = sum(p.numel() for p in adapted.parameters() if p.ndim == 3)
    if spec.training.base == "nf4" and 2 * fused > base:
        raise BadInput(
            f"training.base: nf4 leaves {fused / base:.0%} of {spec.model.source} as they are, the experts of its mixture; set base"
            " to full, and training.parallelism to Sharded if one GPU does not hold it"
        )
    return base, trained


def longest_answer(spec: Spec) -> int:
    """Counts the tokens of the longest answer that is trained on, its thought included where that is."""
    return training_rules(spec, 1).new_tokens if spec.training.train_thoughts else spec.debate.max_tokens


def expected(config: Any, spec: Spec, counts: tuple[int, int], each: int, used: Device, *, packs: bool) -> Needs:
    """Reads off what the largest row of the training will need. counts: parameters of the base and of an adapter; each: tokens of
    the longest example; used: where it will compute."""
    base, adapter = counts
    training, answer = spec.training, min(longest_answer(spec), each)
    examples = (2 if training.method == "dpo" else 1) * training.batch_size
    tokens = largest_row([each] * examples, training.batch_tokens) if packs else each
    ranks = (training.gpus or 1) * training.nodes if training.parallelism == "Sharded" else 1
    return Needs.of(
        config,
        base=base if ranks == 1 else _part(config, base, ranks),
        adapter=adapter,
        tokens=tokens,
        targets=-(-tokens * answer // each),
        value=torch.finfo(getattr(torch, precision(config, used))).bits // 8,
        device=used.kind,
        nf4=training.base == "nf4" or quantised.trains_in_four_bits(config),
    )


def _part(config: Any, base: int, ranks: int) -> int:
    """Counts the parameters that each of several ranks holds at most: embeddings and head as a whole, its share of the layers, and
    those of the layer under way and of the next one, which are put together for it."""
    text = config.get_text_config()
    whole = text.vocab_size * text.hidden_size * (1 if is_tied(config) else 2)
    layers = max(0, base - whole)
    return int(min(base, whole + layers // ranks + 2 * layers // text.num_hidden_layers))


def computing(spec: Spec, facts: Facts) -> Device:
    """Decides where training will compute, as far as it is seen from here: a GPU that is not here has bfloat16. Where nothing was
    asked for, a cluster, which has a bucket, gives training a GPU; else it takes what is there."""
    asked: int | None = spec.training.gpus
    on_gpu = spec.storage is not None or facts.usable > 0 if asked is None else asked > 0
    return device.choose(None, facts) if on_gpu and facts.usable else Device("cuda", 1, "bfloat16", "") if on_gpu else _CPU


def found(spec: Spec, used: Device, limits: Callable[[], tuple[int, int]] = pod.memory) -> Limit:
    """Reads the limit: a GPU's where one is seen, this pod's or machine's where training is told to use the CPU. used: where it
    will compute."""
    if used.kind == "cuda" and torch.cuda.is_available():
        return Limit(torch.cuda.get_device_properties(0).total_memory, "the GPU", binding=True)
    if spec.training.gpus != 0:  # a cluster gives training a GPU, and preflight none
        return Limit(0, "a GPU that is not here", binding=False)
    limit, _ = limits()
    machine = int(psutil.virtual_memory().total)  # a pod may be allowed more than its node has
    return Limit(limit, "this pod", binding=True) if 0 < limit < machine else Limit(machine, "this machine", binding=True)


def check(needs: Needs, limit: Limit, example: int) -> list[str]:
    """Says what will be smaller or slower than asked for; BadInput where not even one example fits. example: its tokens."""
    if not limit.total or memory.peak(needs) <= limit.total:
        return []
    share = needs.targets / needs.tokens
    least = replace(needs, tokens=example, targets=round(example * share), checkpointing=True)
    if memory.peak(least) > limit.total and limit.binding:
        raise BadInput(
            f"training.batchTokens: training needs about {_gib(memory.peak(least))} GiB with one example of {example:,} tokens,"
            f" {limit.of} has {_gib(limit.total)}; give it more, set training.base to nf4 (on a GPU), or use a smaller model"
        )
    rows = memory.rows_that_fit(needs, limit.total)
    todo = f"lower it to {rows:,}" if rows >= example else "activations will be computed anew, which is slower"
    return [
        f"training.batchTokens: rows of {needs.tokens:,} tokens need about {_gib(memory.peak(needs))} GiB,"
        f" {limit.of} has {_gib(limit.total)}: {todo}"
    ]


def _gib(count: int) -> str:
    return f"{count / GIB:.0f}" if count >= 10 * GIB else f"{count / GIB:.1f}"
