"""Training measured: ÷ TRL's SFTTrainer (row 8), six adapters in one process (row 9), memory (row 14).

`python benchmarks/trainer.py --part trl|adapters|memory --model tiny|135m|random:HIDDENxLAYERSxVOCABULARY`. Every side is a process
of its own, in turn with the others (trainer_sides.py says what each does); a ratio is of neighbours. `--write` puts the table into
docs/performance.md (with `--no-measure`: what was measured before); numbers lie in trainer.json beside this file. Needs of maft
what a trainer needs, and TRL with datasets.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import torch
import trainer_sides
from page import put
from ratio import RUNS, Condition, Goal, Part, Ratio, circumstances, fewer, measured_with, number, table
from trainer_sides import ROOT, TINY, VARIANTS, Job, Result

KEPT = Path(__file__).with_suffix(".json")
REAL = ROOT / ".cache" / "models" / "smollm2-135m-instruct"
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
CUDA = torch.cuda.is_available()
ADAPTERS = 6
MEMORY = "memory hardly varies"
Measured = dict[str, list[tuple[float, Result]]]  # by side: seconds of the whole process, and what it said


def model_folder(name: str, scratch: Path) -> str:
    """Finds the model, or makes one with random weights."""
    if name == "tiny":
        return str(TINY)
    if name == "135m":
        return str(REAL)
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, vocabulary = map(int, name.removeprefix("random:").split("x"))
    heads = hidden // 64
    config = LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, vocab_size=vocabulary, intermediate_size=hidden * 11 // 4 // 64 * 64,
        num_attention_heads=heads, num_key_value_heads=next(n for n in (8, 4, 3, 2, 1) if heads % n == 0),
        tie_word_embeddings=True, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16 if CUDA else torch.float32)
    model.save_pretrained(scratch / "model")
    del model
    return str(scratch / "model")


def run(job: Job) -> tuple[float, Result]:
    """Runs a side; the seconds that it took with all that belongs to it, and what it said."""
    begun = time.perf_counter()
    result = trainer_sides.done(job) if job.inside else in_a_process(job)
    seconds = time.perf_counter() - begun
    print(f"{job.side:18s} {result.seconds:8.2f} s of {seconds:6.1f}  {result.tokens / result.seconds:9,.0f} tokens/s "
          f" most {result.peak / 2**20:8,.0f} MiB, loaded {result.loaded / 2**20:,.0f}  loss {judged(result):.4f} "
          f" {result.steps} steps  {result.device} {result.dtype}", flush=True)  # fmt: skip
    return seconds, result


def in_a_process(job: Job) -> Result:
    """Runs a side as a process of its own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "images"), str(ROOT / "operator"), env.get("PYTHONPATH", "")])
    text = msgspec.json.encode(job).decode()
    line = [sys.executable, str(Path(__file__).with_name("trainer_sides.py")), text]
    done = subprocess.run(line, capture_output=True, text=True, env=env, timeout=1200, check=False)
    if done.returncode:
        raise SystemExit(f"{job.side}: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Result)


def alternately(jobs: dict[str, Job], runs: int) -> Measured:
    """Runs the sides in turn; another one begins each time."""
    measured: Measured = {name: [] for name in jobs}
    names = list(jobs)
    for turn in range(runs):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            measured[name].append(run(jobs[name]))
    return measured


def column(measured: Measured, name: str, value: Callable[[tuple[float, Result]], float]) -> tuple[float, ...]:
    """One number of every run of a side."""
    return tuple(value(each) for each in measured[name])


def judged(result: Result) -> float:
    """Returns the loss after training; not a number where none was asked for, which JSON does not have."""
    return float("nan") if result.loss is None else result.loss


def sample(job: Job, result: Result, name: str) -> str:
    """Says what was measured."""
    return f"{name}, {job.examples} examples, {result.tokens:,} tokens, {result.steps} steps of {job.batch}, {result.device}"


def against_trl(job: Job, name: str, runs: int) -> list[Ratio]:
    """Row 8."""
    variants = VARIANTS if CUDA else VARIANTS[:-1]
    tuned = {f"trl-{variant}": _or_nothing(msgspec.structs.replace(job, side=f"trl-{variant}", judge=True)) for variant in variants}
    best = min((side for side, found in tuned.items() if found), key=lambda side: tuned[side].seconds)  # type: ignore[union-attr]
    sides = {side: msgspec.structs.replace(job, side=side, judge=True) for side in ("ours", "trl-default", best)}
    measured = alternately(sides, runs)
    ours = measured["ours"][0][1]
    goal = 1.3 if CUDA else 2.2 if name == "tiny" else 1.8
    rows = []
    for side in ("trl-default", best):
        mine, loss = judged(ours), judged(measured[side][0][1])
        note = f"{side}; loss after training: ours {mine:.4f}, TRL's {loss:.4f} ({loss / mine - 1:+.2%})"
        seconds = [column(measured, which, lambda each: each[1].seconds) for which in (side, "ours")]
        title = f"training: seconds of TRL's {'defaults' if side == 'trl-default' else 'best'} ÷ ours ({name})"
        learned = Condition("loss at most 1 % apart", abs(loss / mine - 1) <= 0.01)
        rows.append(Ratio(8, title, "s", *seconds, Goal("at least", goal), sample(job, ours, name), note, learned))
    return rows


def _or_nothing(job: Job) -> Result | None:
    """A way to tune it that does not work here is none."""
    try:
        return run(job)[1]
    except (SystemExit, Exception) as error:
        print(f"left out: {error}", flush=True)
        return None


def many_adapters(job: Job, name: str, runs: int) -> list[Ratio]:
    """Row 9. `warm` is off where whole processes are compared."""
    cold = msgspec.structs.replace(job, warm=False, inside=False)
    six = msgspec.structs.replace(cold, adapters=ADAPTERS)
    inside = msgspec.structs.replace(job, adapters=ADAPTERS)
    together, apart, trained, bare = [], [], [], []
    for turn in range(runs):
        for which in ("six", "one") if turn % 2 == 0 else ("one", "six"):
            if which == "six":
                together.append(run(six)[0])
            else:
                apart.append(sum(run(cold)[0] for _ in range(ADAPTERS)))
        for which in ("bare", "ours") if turn % 2 == 0 else ("ours", "bare"):
            result = run(
                msgspec.structs.replace(inside, side=which) if which == "ours" else msgspec.structs.replace(job, side="bare")
            )
            (trained if which == "ours" else bare).append(result[1])
    goals = (0.5, 1.03) if CUDA else (0.7, 1.05)
    said = sample(job, trained[0], name)
    # Adapters have examples of their own: what is compared is the time of a token.
    each = [tuple(r.seconds / r.tokens * 1e6 for r in side) for side in (trained, bare)]
    return [
        Ratio(9, f"six adapters in one process ÷ six processes ({name})", "s", tuple(together), tuple(apart),
              Goal("at most", goals[0]), said),
        Ratio(9, f"six adapters in one process ÷ six times the bare steps ({name})", "µs a token", *each,
              Goal("at most", goals[1]), said),
    ]  # fmt: skip


def bare_steps(runs: int, *, quick: bool = True) -> list[Ratio]:
    """A quick look at row 9, in this process: the tiny model's training ÷ bare steps over the same rows, each on one thread, since
    several wait for each other beside other work."""
    job, threads = Job("ours", str(TINY), epochs=2, inside=True), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = alternately({side: msgspec.structs.replace(job, side=side) for side in ("ours", "bare")}, runs)
    finally:
        torch.set_num_threads(threads)
    seconds = [column(measured, side, lambda each: each[1].seconds) for side in ("ours", "bare")]
    said = sample(job, measured["ours"][0][1], "tiny")
    return [Ratio(9, "an adapter's training ÷ the bare steps (tiny)", "s", *seconds, Goal("at most", 1.05), said)]


def memory(job: Job, name: str, runs: int) -> list[Ratio]:
    """Row 14."""
    cold = msgspec.structs.replace(job, warm=False, predict=True, examples=2 * job.batch)
    measured = alternately({side: msgspec.structs.replace(cold, side=side) for side in ("ours", "trl-full", "trl-default")}, runs)
    ours, rows = measured["ours"][0][1], []
    for side, goal in (("trl-full", 0.6), ("trl-default", 1.0)):
        title = f"most memory: ours ÷ TRL's {'full logits' if side == 'trl-full' else 'default'} ({name})"
        peaks = [column(measured, which, lambda each: each[1].peak / 2**20) for which in ("ours", side)]
        above = [column(measured, which, lambda each: (each[1].peak - each[1].loaded) / 2**20)[0] for which in ("ours", side)]
        note = f"above the loaded model: {above[0]:,.0f} ÷ {above[1]:,.0f} MiB"
        predicted = f"predicted ÷ measured, ours: {number(ours.predicted / ours.peak)}"
        note = ". ".join(filter(None, [note, predicted, fewer(runs, MEMORY)]))
        rows.append(Ratio(14, title, "MiB", *peaks, Goal("at most", goal), sample(cold, ours, name), note))
    return rows


PARTS = {"trl": against_trl, "adapters": many_adapters, "memory": memory}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    gpu = torch.cuda.get_device_name() if CUDA else ""
    return {"cores": os.cpu_count(), "gpu": gpu, "versions": {name: version(name) for name in PACKAGES if find_spec(name)}}


def kept_parts() -> list[Part]:
    """Reads what was measured before."""
    return msgspec.json.decode(KEPT.read_bytes(), type=list[Part]) if KEPT.exists() else []


def text(parts: Sequence[Part]) -> str:
    """Makes the tables of the page, and of the machines."""
    return "\n\n".join([table(parts), measured_with(parts), circumstances(parts)])


def write(parts: Sequence[Part]) -> None:
    """Puts them into the page."""
    put("performance.md", "trainer", text(parts))


def parsed() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--model", default="tiny", help="tiny, 135m or random:HIDDENxLAYERSxVOCABULARY")
    parser.add_argument("--device", choices=["auto"], default="auto", help="auto: a GPU where there is one")
    parser.add_argument("--runs", type=int, default=RUNS, help="of every side")
    parser.add_argument("--examples", type=int, default=32, help="of an adapter")
    parser.add_argument("--batch", type=int, default=8, help="examples of a step")
    parser.add_argument("--lengths", type=int, nargs=2, default=(120, 60), help="tokens of a prompt and of a completion, median")
    parser.add_argument("--inside", action="store_true", help="all sides in this process, where memory is a GPU's")
    parser.add_argument("--output", type=Path, default=KEPT)
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md")
    parser.add_argument("--no-measure", action="store_true", help="with --write: measure nothing before")
    return parser.parse_args()


def main() -> None:
    """Measures the parts, keeps the numbers, prints the table."""
    given = parsed()
    parts = kept_parts() if given.no_measure else measure(given)
    if given.write:
        write(parts)


def measure(given: argparse.Namespace) -> list[Part]:
    """Measures the parts that were asked for, and keeps each as soon as it is there; all parts."""
    parts = kept_parts()
    with tempfile.TemporaryDirectory(prefix="maft-bench-") as scratch:
        folder = model_folder(given.model, Path(scratch))
        job = Job("ours", folder, examples=given.examples, batch=given.batch, median=tuple(given.lengths), inside=given.inside)
        for name in PARTS if given.part == "all" else [given.part]:
            begun, since, load = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
            rows = PARTS[name](job, given.model, given.runs)
            loads = {"begin": load, "end": os.getloadavg()[0], "most": max(load, os.getloadavg()[0])}
            whole = f"{name} {given.model}{' on a GPU' if CUDA else ''}"
            part = Part(whole, f"{begun:%Y-%m-%d %H:%M}", time.monotonic() - since, loads, machine(), tuple(rows))
            parts = [each for each in parts if each.name != whole] + [part]
            print(f"\n## {whole}\n\n{table([part])}\n", flush=True)
            given.output.write_text(json.dumps(msgspec.to_builtins(parts), indent=1, ensure_ascii=False) + "\n")
    return parts


if __name__ == "__main__":
    main()
