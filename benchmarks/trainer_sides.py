"""One side of a benchmark of training, as a process of its own: `python trainer_sides.py JSON`, a line of JSON comes back.

Examples are token ids made here, so no tokenizer has a part in it. TRL gets the same ids, the same mask of what counts, the same
optimizer and schedule; what makes it fast or slow is as its documentation has it: `default`, and ways of tuning it (VARIANTS).
"""

import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from maft.chat_template import Tokens
from maft.spec import LoraSpec, ModelSpec, TrainingSpec

ROOT = Path(__file__).parents[1]
TINY = ROOT / "examples" / "tiny"
WORDS = 256  # different tokens
VARIANTS = ("padded", "padding_free", "packing", "flex")


class Job(msgspec.Struct, frozen=True):
    """What a side does."""

    side: str
    """ours, bare, trl-default, trl-full (all logits at once), trl-<a variant>."""
    model: str
    """A folder."""
    examples: int = 32
    epochs: int = 1
    adapters: int = 1
    batch: int = 8
    batch_tokens: int = 16384
    rate: float = 5e-4
    warm: bool = True
    """One step before the clock starts."""
    predict: bool = False
    """Predict its memory, too, which takes time of the process."""
    judge: bool = False
    """Measure the loss of what came out, over all examples."""
    median: tuple[int, int] = (120, 60)
    """Tokens of a prompt and of a completion."""
    seed: int = 0
    inside: bool = False
    """In the process that measures: on a GPU, whose memory is counted apart, and where starting takes longest."""


class Result(msgspec.Struct, frozen=True):
    """What it took."""

    seconds: float
    """Of training alone."""
    steps: int
    tokens: int
    peak: int
    """Bytes: resident of the process, or allocated on the GPU."""
    loaded: int
    """Bytes with the model loaded, before training."""
    device: str
    dtype: str
    loss: float | None = None
    """After training, where it was asked for."""
    predicted: int = 0
    """Bytes that maft.train.memory expects at most, where it was asked for."""


def training(job: Job) -> TrainingSpec:
    """The spec of both sides."""
    return TrainingSpec(
        method="sft", beta=0.1, lora=LoraSpec(rank=16, alpha=32, dropout=0.0, target_modules=("all-linear",), experts=False),
        learning_rate=job.rate, warmup=0.1, weight_decay=0.0, epochs=job.epochs, batch_size=job.batch,
        batch_tokens=job.batch_tokens, critic_mix=0.5, loss_on="last", train_thoughts=True, start_from="base", min_examples=1,
        gpus=1, topology="Shared", parallelism="Adapters", base="full", checkpoint_minutes=0, shared_memory="",
    )  # fmt: skip


def model_spec(folder: str) -> ModelSpec:
    """The model of both sides."""
    return ModelSpec(
        source=folder,
        revision="",
        trust_remote_code=False,
        max_length=0,
        cache_claim="",
        chat_template_arguments={},
        date="2026-01-01",
    )


def made_examples(job: Job, count: int, seed: int) -> list[Tokens]:
    """Prompts of about so many tokens, long-tailed, and completions that say parts of them again."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        prompt, said = (int(min(max(draw.lognormvariate(0, 0.5), 0.25), 5) * median) for median in job.median)
        ids = [draw.randrange(3, WORDS) for _ in range(prompt)]
        answer = [ids[i % prompt] for i in range(said)]
        made.append(Tokens((*ids, *answer), (*[False] * prompt, *[True] * said)))
    return made


def resident(name: str) -> int:
    """Reads VmHWM or VmRSS of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def in_use() -> int:
    """Bytes in use: of the GPU, or resident."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else resident("VmRSS")


def most() -> int:
    """The most that were."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident("VmHWM")


def synchronised() -> float:
    """Waits for the device; tells the time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def loss_of(model: Any, examples: Sequence[Tokens]) -> float:
    """Mean loss over completion tokens, example by example, in nats: one measure for both sides."""
    total, counted = 0.0, 0
    model.eval()
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example.ids], device=model.device)
            labels = torch.where(torch.tensor([example.completion], device=model.device), ids, -100)
            count = int((labels[:, 1:] != -100).sum())
            total += float(model(input_ids=ids, labels=labels).loss) * count
            counted += count
    return total / counted


# --- ours ---


def ours(job: Job, scratch: Path) -> Result:
    """Trains by maft.train; several adapters in turn."""
    from peft import PeftModel

    from maft import lora
    from maft.train.trainer import Trainer

    base, spec = lora.load_base(model_spec(job.model)), training(job)
    loaded = in_use()
    if job.warm:
        few = msgspec.structs.replace(spec, epochs=1)
        Trainer(base, few, lambda loss: None).train(made_examples(job, job.batch, 99), scratch / "warm", seed=1, previous=None)
    steps: list[float] = []
    examples = [made_examples(job, job.examples, job.seed + n) for n in range(job.adapters)]
    begun = synchronised()
    for n, each in enumerate(examples):
        Trainer(base, spec, steps.append).train(each, scratch / str(n), seed=n, previous=None)
    seconds, peak = synchronised() - begun, most()
    device, dtype = str(base.device), str(base.dtype)
    expected = predicted(job, base, examples[0]) if job.predict else 0
    loss = loss_of(PeftModel.from_pretrained(base, str(scratch / "0")), examples[0]) if job.judge else None
    tokens = sum(len(e.ids) for each in examples for e in each) * job.epochs
    return Result(seconds, len(steps), tokens, peak, loaded, device, dtype, loss, expected)


def predicted(job: Job, base: Any, examples: Sequence[Tokens]) -> int:
    """Predicts the most bytes that training these examples has in use, as preflight does, of the largest row that they can make."""
    from maft import lora
    from maft.packing import largest_row
    from maft.train import memory

    adapted = lora.adapt(base, training(job).lora, None)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    adapted.unload()
    longest = sorted(examples, key=lambda e: len(e.ids), reverse=True)[: job.batch]
    tokens = largest_row([len(e.ids) for e in longest], job.batch_tokens)
    targets = -(-tokens * sum(sum(e.completion) for e in longest) // sum(len(e.ids) for e in longest))
    whole, bytes_ = sum(p.numel() for p in base.parameters()), base.dtype.itemsize
    sizes = {"base": whole, "adapter": trained, "tokens": tokens, "targets": targets}
    return memory.peak(memory.Needs.of(base.config, **sizes, value=bytes_, device=base.device.type))


def bare(job: Job, scratch: Path) -> Result:
    """The least that a step takes: forward, backward and optimizer over the same rows, and nothing around them."""
    import contextlib

    from peft.helpers import disable_input_dtype_casting

    from maft import lora
    from maft.packing import split_batch
    from maft.train import forward
    from maft.train.objectives import NextToken

    base, objective, spec = lora.load_base(model_spec(job.model)), NextToken(), training(job)
    loaded, examples = in_use(), made_examples(job, job.examples, job.seed)
    way = forward.fitting(base, examples)
    model = lora.adapt(base, spec.lora, None)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=job.rate, weight_decay=0.0)
    half = base.dtype != torch.float32
    model.train()

    def step(batch: Sequence[Tokens]) -> None:
        for part in split_batch(batch, job.batch_tokens):
            with torch.autocast(base.device.type, base.dtype) if half else contextlib.nullcontext():
                row, each = way.log_probabilities(model, part)
                loss = objective.loss(each, row, part, batch)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    batches = [examples[start : start + job.batch] for start in range(0, len(examples), job.batch)]
    with way.attending(base), disable_input_dtype_casting(model, active=half):
        step(batches[0])
        begun = synchronised()
        for _ in range(job.epochs):
            for batch in batches:
                step(batch)
        seconds = synchronised() - begun
    tokens = sum(len(e.ids) for e in examples) * job.epochs
    return Result(seconds, len(batches) * job.epochs, tokens, most(), loaded, str(base.device), str(base.dtype))


# --- TRL ---


def trl(job: Job, scratch: Path) -> Result:
    """Trains by TRL's SFTTrainer with PEFT."""
    from maft.train.trainer import steps

    examples = made_examples(job, job.examples, job.seed)
    if job.warm:
        _trl_trainer(job, made_examples(job, job.batch, 99), scratch / "warm", epochs=1).train()
        gc.collect()
    trainer = _trl_trainer(job, examples, scratch / "out", epochs=job.epochs)
    loaded, begun = in_use(), synchronised()
    trainer.train()
    seconds, peak = synchronised() - begun, most()
    model = trainer.model
    loss = loss_of(model, examples) if job.judge else None
    made = trainer.state.global_step
    tokens = sum(len(e.ids) for e in examples) * job.epochs
    if job.side != "trl-packing":
        assert made == steps(len(examples), training(job)), made
    return Result(seconds, made, tokens, peak, loaded, str(model.device), str(model.dtype), loss)


def _trl_trainer(job: Job, examples: Sequence[Tokens], folder: Path, *, epochs: int) -> Any:
    import trl as library
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer

    spec, variant = training(job), job.side.removeprefix("trl-")
    rows = [{"input_ids": list(e.ids), "completion_mask": [int(c) for c in e.completion]} for e in examples]
    config = library.SFTConfig(
        output_dir=str(folder), num_train_epochs=epochs, learning_rate=job.rate, weight_decay=0.0, warmup_steps=spec.warmup,
        lr_scheduler_type="cosine", max_grad_norm=1.0, seed=job.seed, report_to="none", save_strategy="no", disable_tqdm=True,
        completion_only_loss=True, use_cpu=not torch.cuda.is_available(), **_tuned(job, examples, variant),
    )  # fmt: skip
    return library.SFTTrainer(
        model=job.model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(str(TINY)),
        peft_config=LoraConfig(r=spec.lora.rank, lora_alpha=spec.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"),
        compute_loss_func=_all_logits if variant == "full" else None,
    )


def _tuned(job: Job, examples: Sequence[Tokens], variant: str) -> dict[str, Any]:
    """What is set beside the data. default and full: the batch alone; the rest of SFTConfig decides."""
    batch: dict[str, Any] = {"per_device_train_batch_size": job.batch, "max_length": 4096}
    if variant in ("default", "full"):
        return batch
    gpu = torch.cuda.is_available()
    fast: dict[str, Any] = {"gradient_checkpointing": False, "bf16": gpu}
    loading = {"dtype": "bfloat16" if gpu else "float32"}
    if variant == "flex":
        loading["attn_implementation"] = "flex_attention"
    fast["model_init_kwargs"] = loading
    if variant in ("padding_free", "flex"):
        return {**batch, **fast, "padding_free": True, "max_length": None}
    if variant == "packing":  # a row has as many tokens as a batch of ours has on average
        tokens = sum(len(e.ids) for e in examples) * job.batch // len(examples)
        return {**fast, "packing": True, "max_length": tokens, "per_device_train_batch_size": 1}
    return {**batch, **fast}


def _all_logits(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """The loss of transformers, from all logits."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    return ForCausalLMLoss(outputs.logits, labels, outputs.logits.shape[-1], num_items_in_batch=num_items_in_batch)


def done(job: Job) -> Result:
    """Does one job in this process. What an earlier one left on the GPU goes first."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    side = {"ours": ours, "bare": bare}.get(job.side, trl)
    with tempfile.TemporaryDirectory(prefix="maft-bench-") as scratch:
        return side(job, Path(scratch))


def main() -> None:
    """Does one job, given as JSON."""
    print(json.dumps(msgspec.to_builtins(done(msgspec.json.decode(sys.argv[1], type=Job)))))


if __name__ == "__main__":
    main()
