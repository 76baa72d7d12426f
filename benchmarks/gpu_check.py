"""What training does on a GPU, checked: `python benchmarks/gpu_check.py`. A line for each fact; exit code 1 if one does not hold.

Models are small and random, made here. `--device cpu` tries what needs no CUDA. With several GPUs the whole training program runs
on one and on all of them (elsewhere by two processes).
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore
from trainer_sides import Job, made_examples, model_spec, training

from maft import adapters, lora, visible
from maft.chat_template import Tokens
from maft.device import choose, read
from maft.errors import BadInput, with_kind
from maft.program import Assignment
from maft.records import Example, Message, encode_lines
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.train import __main__ as program
from maft.train import forward, memory, sharded
from maft.train.checkpoints import Keeper
from maft.train.forward import Forward
from maft.train.loss import head_of, log_probabilities
from maft.train.objectives import NextToken
from maft.train.sharded_trainer import ShardedTrainer
from maft.train.trainer import Trainer
from maft.train.workers import HOST, WORKERS, Place, Started

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from small import a_spec

LOOSE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}  # relative norm of a difference of gradients
JOB = Job("ours", "")
Check = Callable[[Path], str]


def config(kind: str = "llama", **changes: Any) -> Any:
    """A small model's."""
    from transformers import Gemma2Config, LlamaConfig, MistralConfig

    made = {"llama": LlamaConfig, "mistral": MistralConfig, "gemma2": Gemma2Config}[kind]
    sizes = {"hidden_size": 512, "num_hidden_layers": 4, "vocab_size": 50_000, "intermediate_size": 1408, "num_attention_heads": 8,
             "num_key_value_heads": 4, "max_position_embeddings": 8192, "head_dim": 64, "tie_word_embeddings": True}  # fmt: skip
    return made(**{**sizes, **changes})


def folder(scratch: Path, made: Any) -> str:
    """Writes a model with random weights."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    target = scratch / f"model-{len(list(scratch.iterdir()))}"
    AutoModelForCausalLM.from_config(made, dtype=torch.float32).save_pretrained(target)
    return str(target)


def adapted(base: Any) -> Any:
    """With an adapter whose every weight has a gradient."""
    model = lora.adapt(base, training(JOB).lora, None)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model.train()


def gradient(model: Any, way: Forward, rows: list[list[Tokens]]) -> torch.Tensor:
    """Of the mean over rows, as one vector."""
    model.zero_grad(set_to_none=True)
    half = model.dtype != torch.float32
    with way.attending(model.get_base_model()):
        for row in rows:
            with torch.autocast(model.device.type, model.dtype) if half else contextlib.nullcontext():
                each = way.log_probabilities(model, row)[1]
            (-each.sum()).backward()
    return torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far, as a share."""
    return float((one - other).norm() / other.norm())


def require(holds: bool, text: str) -> str:
    """Passes the text on where it holds."""
    if not holds:
        raise AssertionError(text)
    return text


# --- what is checked ---


def device(scratch: Path) -> str:
    """The model is where it should be, in the precision that is fast there."""
    base = lora.load_base(model_spec(folder(scratch, config())))
    driver = ""
    if base.device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    text = f"{base.device}, {base.dtype}, torch {torch.__version__}, CUDA {torch.version.cuda}, {driver}"
    return require(base.dtype == getattr(torch, choose(None, read()).dtype), text)


def same_gradients(kind: str, dtype: torch.dtype, **changes: Any) -> Check:
    """Packed rows, by example and with all shortcuts, against one example at a time with all logits."""

    def check(scratch: Path) -> str:
        base = lora.load_base(model_spec(folder(scratch, config(kind, **changes)))).to(dtype)
        examples = made_examples(JOB, 9, 3)
        way = forward.fitting(base, examples)
        model = adapted(base)
        expected = gradient(model, Forward(packs=False), [[example] for example in examples])
        found = apart(gradient(model, way, [examples]), expected)
        text = f"{found:.1e} apart; by example: {way.by_example}, loss in chunks: {way.head is not None}"
        return require(found < LOOSE[dtype] and way.by_example and way.head is not None, text)

    return check


def chunks(scratch: Path) -> str:
    """The loss in many chunks, and all logits at once."""
    base = lora.load_base(model_spec(folder(scratch, config("gemma2", final_logit_softcapping=30.0)))).float()
    head = head_of(base)
    assert head is not None
    torch.manual_seed(2)
    states = torch.randn(5000, 512, device=base.device, requires_grad=True)
    labels = torch.randint(0, 50_000, (5000,), device=base.device)
    ours = log_probabilities(head, states, labels)
    (one,) = torch.autograd.grad(ours.square().sum(), states)
    logits = 30.0 * torch.tanh(torch.nn.functional.linear(states, head.weight) / 30.0)
    theirs = torch.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    (two,) = torch.autograd.grad(theirs.square().sum(), states)
    text = f"losses {apart(ours, theirs):.1e}, gradients {apart(one, two):.1e} apart"
    return require(apart(ours, theirs) < 1e-5 and apart(one, two) < 1e-5, text)


def curve(base: Any, scratch: Path, **changes: Any) -> tuple[list[float], Trainer]:
    """Trains a little; the losses, and who did it."""
    spec = msgspec.structs.replace(training(JOB), epochs=2, **changes)
    trainer = Trainer(base, spec, lambda loss: None)
    return trainer.train(made_examples(JOB, 16, 5), scratch / "adapter", seed=1, previous=None), trainer


def checkpointing(scratch: Path) -> str:
    """Activations computed anew change no gradient, but for the order in which kernels add up; nor does the same seed again."""
    base = lora.load_base(model_spec(folder(scratch, config())))
    one, two = (curve(base, scratch)[0] for _ in range(2))
    model, examples = adapted(base), made_examples(JOB, 8, 3)
    way = forward.fitting(base, examples)
    plain = gradient(model, way, [examples])
    memory.save_activations(model)
    found = apart(gradient(model, way, [examples]), plain)
    memory.keep_activations(model)
    far = max(abs(a - b) / a for a, b in zip(one, two, strict=True))
    text = f"gradients {found:.1e} apart; losses of the same seed {far:.1e} apart"
    return require(found < LOOSE[base.dtype] and far < 1e-2 and not base.is_gradient_checkpointing, text)


def resumed(scratch: Path) -> str:
    """A training that SIGTERM ends goes on from its checkpoint, to the losses of one that was left alone."""
    base = lora.load_base(model_spec(folder(scratch, config())))
    spec = msgspec.structs.replace(training(JOB), epochs=3, lora=msgspec.structs.replace(training(JOB).lora, dropout=0.1))

    def ended(loss: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def trained(step_done: Callable[[float], None], keeper: Keeper | None) -> list[float]:
        trainer = Trainer(base, spec, step_done)
        return trainer.train(made_examples(JOB, 24, 5), scratch / "adapter", seed=1, previous=None, keeper=keeper)

    def keeper() -> Keeper:
        return Keeper(FileStore(scratch), "checkpoint", {}, 1e9)

    whole = trained(lambda loss: None, None)
    with contextlib.suppress(SystemExit):
        trained(ended, keeper())
    kept = (scratch / "checkpoint").exists()
    again = trained(lambda loss: None, keeper())
    far = max(abs(a - b) / a for a, b in zip(whole, again, strict=True))
    text = f"{len(whole)} steps, losses {far:.1e} apart, equal: {whole == again}"
    return require(kept and far < 1e-2, text)


def one_rank(scratch: Path) -> str:
    """FSDP2 by one rank alone: base dealt out from the host, layers gathered, losses of the plain trainer."""
    spec = model_spec(folder(scratch, config()))
    plain, _ = curve(lora.load_base(spec), scratch)
    meeting = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    used = choose(None, read())
    with sharded.joined(Place(("a",), rank=0, ranks=1, port=meeting.port), cuda=used.kind == "cuda") as team:
        base = sharded.load_base(spec, team, used)
        told = msgspec.structs.replace(training(JOB), epochs=2)
        trainer = ShardedTrainer(base, told, lambda loss: None, NextToken(), team)
        losses = trainer.train(made_examples(JOB, 16, 5), scratch / "sharded", seed=1, previous=None)
        text = f"{next(base.parameters()).device}, {base.dtype}"
    far = max(abs(a - b) / a for a, b in zip(plain, losses, strict=True))
    return require(far < 1e-2, f"{text}, losses {far:.1e} apart")


def dialogues(turns: int) -> bytes:
    """A dataset of two dozen sums; a critic's have a turn more."""

    def example(number: int) -> Example:
        asked, said = Message("user", f"What is {number}+2?"), Message("assistant", f"{number + 2} it is. Answer: {number + 2}")
        return Example(str(number), (asked, said) * turns)

    return encode_lines(example(number) for number in range(24))


def by_the_program(folder: Path, processes: int, **training: Any) -> tuple[list[float], torch.Tensor]:
    """Trains a generator and a critic of the demo's model; the losses as they came, and all weights as one vector."""
    store, run, losses = FileStore(folder), "check/run", list[float]()
    publish(store, layout.datasets(run, 1), {"generator-0.jsonl": dialogues(1), "critic-0.jsonl": dialogues(2)})
    spec = a_spec(training={"batchSize": 8, "epochs": 2, "lora": {"rank": 8, "dropout": 0}, **training})
    line = (f"--store={store.url}", f"--run={run}", f"--spec={immutable_spec_json(spec)}", "--iteration=1", "--agent=0")
    gpus = training["gpus"] if torch.cuda.is_available() else None
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {} if torch.cuda.is_available() else {WORKERS: str(processes)}
    started = Started(
        (sys.executable, "-m", "maft.train", *line, *(() if gpus is None else (f"--gpus={gpus}",))),
        environment,
        report=losses.append,
    )
    program.main(Assignment(store=store, run=run, given_spec=spec, iteration=1, agents=(0,), gpus=gpus), started)
    paths = [folder / layout.adapter(run, 1, role, 0) / adapters.WEIGHTS for role in ("generator", "critic")]
    return losses, torch.cat([weight.flatten().float() for path in paths for _, weight in sorted(load_file(path).items())])


def several(parallelism: str) -> Check:
    """Adapters dealt to processes with a GPU each, or one base held by all of them, against one process."""

    def check(scratch: Path) -> str:
        there = torch.cuda.device_count() or 2
        processes = there if parallelism == "Sharded" else 2
        losses, one = by_the_program(scratch / "one", 1, gpus=1)
        curve, weights = by_the_program(scratch / "several", processes, gpus=processes, parallelism=parallelism)
        far = max(abs(a - b) / a for a, b in zip(sorted(losses), sorted(curve), strict=True))
        text = f"{processes} processes, losses {far:.1e}, weights {apart(weights, one):.1e} apart"
        return require(far < 1e-2 and apart(weights, one) < 0.1, text)

    return check


def halving(scratch: Path) -> str:
    """A real shortage on the GPU: rows are halved, and the losses stay."""
    base = lora.load_base(model_spec(folder(scratch, config(num_hidden_layers=8))))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    whole, _ = curve(base, scratch)
    most, loaded, total = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((loaded + (most - loaded) * 0.6) / total)
    try:
        less, trainer = curve(base, scratch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    far = max(abs(a - b) / a for a, b in zip(whole, less, strict=True))
    text = f"16,384 → {trainer.batch_tokens:,} tokens, losses {far:.1e} apart"
    return require(trainer.batch_tokens < 16384 and far < 1e-2, text)


def too_large(scratch: Path) -> str:
    """Where not even one example fits, it is said in one line."""
    base = lora.load_base(model_spec(folder(scratch, config())))
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**24) / total)
    try:
        curve(base, scratch)
    except BadInput as error:
        return require("training.base" in str(error), str(error))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    raise AssertionError("it went on")


def four_bits(scratch: Path) -> str:
    """A base in 4 bits takes less memory, and learns."""
    spec = model_spec(folder(scratch, config(num_hidden_layers=12, hidden_size=1024, num_attention_heads=16)))
    used, held = choose(1, read()), []
    bases: tuple[Literal["full", "nf4"], ...] = ("full", "nf4")
    for kind in bases:
        before = torch.cuda.memory_allocated()
        base = lora.load_base(spec, used, kind)
        held.append((torch.cuda.memory_allocated() - before) / 2**20)
        losses, _ = curve(base, scratch, learning_rate=2e-3)
        said = f"loss {losses[0]:.3f} → {losses[-1]:.3f}, computed in {base.dtype}"
        del base
    text = f"base of {held[0]:.0f} MiB in {held[1]:.0f}; {said}"
    return require(held[1] < 0.6 * held[0] and losses[-1] < losses[0], text)


def profile(scratch: Path) -> str:
    """Where a step's time goes on the GPU: the five largest kernels' shares, and how much of the time the GPU works."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    base = lora.load_base(model_spec(folder(scratch, config(num_hidden_layers=16, hidden_size=1024, num_attention_heads=16))))
    examples = made_examples(JOB, 64, 7)
    way, model = forward.fitting(base, examples), adapted(base)
    for _ in range(2):
        gradient(model, way, [examples])
    begun = now()
    with profiled(activities=[ProfilerActivity.CUDA]) as seen:
        gradient(model, way, [examples])
        seconds = now() - begun
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_device_time_total)
    busy = sum(row.self_device_time_total for row in rows) / 1e6
    largest = ", ".join(f"{row.key[:40]} {row.self_device_time_total / 1e6 / busy:.0%}" for row in rows[:5])
    return f"{sum(len(e.ids) for e in examples):,} tokens in {seconds * 1000:.0f} ms, GPU busy {busy / seconds:.0%}: {largest}"


def speed(scratch: Path) -> str:
    """Attention by example, by a mask over the row, and by flex_attention: milliseconds of forward and backward."""
    base = lora.load_base(model_spec(folder(scratch, config(hidden_size=1024, num_attention_heads=16, num_key_value_heads=8))))
    examples = made_examples(JOB, 80 if base.device.type == "cuda" else 8, 7)
    head = head_of(base)
    model = adapted(base)
    said = []
    for name, way in (
        ("by example", Forward(True, True, head)),
        ("mask", Forward(True, False, head)),
        ("flex", Forward(True, False, head)),
    ):
        try:
            if name == "flex" and base.device.type == "cpu":
                continue
            if name == "flex":
                base.set_attn_implementation("flex_attention")
            said.append(f"{name} {timed(model, way, examples):.1f}")
        except Exception as error:  # a way that this machine does not have
            said.append(f"{name}: {with_kind(error, 80)}")
    return f"{sum(len(e.ids) for e in examples):,} tokens, ms: {', '.join(said)}"


def timed(model: Any, way: Forward, examples: list[Tokens]) -> float:
    """The least of five, in milliseconds."""
    least = float("inf")
    for _ in range(6):
        begun = now()
        gradient(model, way, [examples])
        least = min(least, now() - begun)
    return least * 1000


def now() -> float:
    """The time, when the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


CHECKS: dict[str, Check] = {
    "device and precision": device,
    "gradients of a packed row, float32": same_gradients("llama", torch.float32),
    "gradients of a packed row, sliding window": same_gradients("mistral", torch.float32, sliding_window=64),
    "gradients of a packed row, capped logits": same_gradients("gemma2", torch.float32, final_logit_softcapping=30.0),
    "loss in chunks": chunks,
    "activations computed anew, the same seed": checkpointing,
    "a training that was ended": resumed,
    "one base held in parts": one_rank,
    "attention": speed,
}
TOGETHER: dict[str, Check] = {
    "adapters dealt to several GPUs": several("Adapters"),
    "one base on several GPUs": several("Sharded"),
}
ON_CUDA: dict[str, Check] = {
    "gradients of a packed row, bfloat16": same_gradients("llama", torch.bfloat16),
    "out of memory": halving,
    "one example that does not fit": too_large,
    "a base in 4 bits": four_bits,
    "profile of a step": profile,
}


def main() -> None:
    """Makes all checks; a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--only", default="", help="checks whose names have one of these parts, separated by commas")
    given = parser.parse_args()
    if given.device == "cpu":
        os.environ |= dict.fromkeys(visible.variables(os.environ, amd=visible.shown().amd), "")
    on_cuda, facts = torch.cuda.is_available(), read()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    failed = 0
    checks = {**CHECKS, **(ON_CUDA if on_cuda else {}), **(TOGETHER if torch.cuda.device_count() != 1 else {})}
    chosen = {n: c for n, c in checks.items() if any(part in n for part in given.only.split(","))}
    for name, check in ((n, c) for n, c in chosen.items() if facts.bf16 or "bfloat16" not in n):
        try:
            with tempfile.TemporaryDirectory(prefix="maft-check-") as scratch:
                said, holds = check(Path(scratch)), True
        except Exception as error:  # one that fails does not hide the others
            said, holds = with_kind(error, 400), False
        failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {name}: {said}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
