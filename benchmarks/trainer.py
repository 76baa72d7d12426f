"""Training measured: ÷ TRL's SFTTrainer (row 8), six adapters in one process (row 9), memory (row 14).

`python benchmarks/trainer.py --part trl|adapters|memory --model tiny|135m|random:HIDDENxLAYERSxVOCABULARY`; trl and adapters have
two halves each (trl-defaults, trl-best; adapters-processes, adapters-steps), and pairs may be added to those kept (`--add`). Every
side is a process of its own, in turn with the others (trainer_sides.py says what each does); a ratio is of neighbours. `--write`
puts the table into docs/performance.md (with `--no-measure`: what was measured before); numbers lie in trainer.json beside this
file. Needs of maft what a trainer needs, and TRL with datasets.
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
import one_gpu
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


def against_defaults(job: Job, name: str, runs: int) -> list[Ratio]:
    """Row 8, beside TRL as it comes."""
    return [_against(job, name, runs, "trl-default")]


def against_best(job: Job, name: str, runs: int) -> list[Ratio]:
    """Row 8, beside the fastest of the ways to tune TRL: each is tried once, with half the examples."""
    few = msgspec.structs.replace(job, examples=max(job.batch, job.examples // 2))
    sides = [f"trl-{variant}" for variant in (VARIANTS if CUDA else VARIANTS[:-1])]
    tried = {side: result for side in sides if (result := _or_nothing(msgspec.structs.replace(few, side=side)))}
    return [_against(job, name, runs, min(tried, key=lambda side: tried[side].seconds))]


def _against(job: Job, name: str, runs: int, side: str) -> Ratio:
    measured = alternately({each: msgspec.structs.replace(job, side=each, judge=True) for each in ("ours", side)}, runs)
    ours, goal = measured["ours"][0][1], 1.3 if CUDA else 2.2 if name == "tiny" else 1.8
    mine, loss = judged(ours), judged(measured[side][0][1])
    note = f"{side}; loss after training: ours {mine:.4f}, TRL's {loss:.4f} ({loss / mine - 1:+.2%})"
    seconds = [column(measured, which, lambda each: each[1].seconds) for which in (side, "ours")]
    title = f"training: seconds of TRL's {'defaults' if side == 'trl-default' else 'best'} ÷ ours ({name})"
    learned = Condition("loss at most 1 % apart", abs(loss / mine - 1) <= 0.01)
    return Ratio(8, title, "s", *seconds, Goal("at least", goal), sample(job, ours, name), note, learned)


def _or_nothing(job: Job) -> Result | None:
    """A way to tune it that does not work here is none."""
    try:
        return run(job)[1]
    except (SystemExit, Exception) as error:
        print(f"left out: {error}", flush=True)
        return None


def beside_processes(job: Job, name: str, runs: int) -> list[Ratio]:
    """Row 9, of whole processes: `warm` is off."""
    cold = msgspec.structs.replace(job, warm=False, inside=False)
    six = msgspec.structs.replace(cold, adapters=ADAPTERS)
    together, apart, result = [], [], None
    for turn in range(runs):
        for which in ("six", "one") if turn % 2 == 0 else ("one", "six"):
            if which == "six":
                seconds, result = run(six)
                together.append(seconds)
            else:
                apart.append(sum(run(cold)[0] for _ in range(ADAPTERS)))
    assert result
    title, goal = f"six adapters in one process ÷ six processes ({name})", Goal("at most", 0.5 if CUDA else 0.7)
    return [Ratio(9, title, "s", tuple(together), tuple(apart), goal, sample(job, result, name))]


def beside_steps(job: Job, name: str, runs: int) -> list[Ratio]:
    """Row 9, of steps. Adapters have examples of their own: what is compared is the time of a token."""
    sides = {"ours": msgspec.structs.replace(job, adapters=ADAPTERS), "bare": msgspec.structs.replace(job, side="bare")}
    measured = alternately(sides, runs)
    each = [column(measured, side, lambda one: one[1].seconds / one[1].tokens * 1e6) for side in sides]
    title, goal = f"six adapters in one process ÷ six times the bare steps ({name})", Goal("at most", 1.03 if CUDA else 1.05)
    return [Ratio(9, title, "µs a token", *each, goal, sample(job, measured["ours"][0][1], name))]


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


PARTS = {
    "trl-defaults": against_defaults,
    "trl-best": against_best,
    "adapters-processes": beside_processes,
    "adapters-steps": beside_steps,
    "memory": memory,
}
GROUPS = {group: [name for name in PARTS if group in ("all", name.partition("-")[0])] for group in ("all", "trl", "adapters")}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    versions = {name: version(name) for name in PACKAGES if find_spec(name)}
    return {"cores": os.cpu_count(), "gpu": one_gpu.name(), "versions": versions}


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
    parser.add_argument("--part", choices=[*PARTS, *GROUPS], default="all")
    parser.add_argument("--model", default="tiny", help="tiny, 135m or random:HIDDENxLAYERSxVOCABULARY")
    parser.add_argument("--device", choices=["auto"], default="auto", help="auto: a GPU where there is one")
    parser.add_argument("--runs", type=int, default=RUNS, help="of every side")
    parser.add_argument("--add", action="store_true", help="to the pairs that are kept of the part, where one sitting is too short")
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
    one_gpu.alone()
    parts = kept_parts() if given.no_measure else measure(given)
    if given.write:
        write(parts)


def measure(given: argparse.Namespace) -> list[Part]:
    """Measures the parts that were asked for, and keeps each as soon as it is there; all parts."""
    parts = kept_parts()
    with tempfile.TemporaryDirectory(prefix="maft-bench-") as scratch:
        folder = model_folder(given.model, Path(scratch))
        job = Job("ours", folder, examples=given.examples, batch=given.batch, median=tuple(given.lengths), inside=given.inside)
        for name in GROUPS.get(given.part, [given.part]):
            begun, since, load = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
            rows = PARTS[name](job, given.model, given.runs)
            loads = {"begin": load, "end": os.getloadavg()[0], "most": max(load, os.getloadavg()[0])}
            whole = f"{name} {given.model}{' on a GPU' if CUDA else ''}"
            part = Part(whole, f"{begun:%Y-%m-%d %H:%M}", time.monotonic() - since, loads, machine(), tuple(rows))
            parts = kept_with(parts, part, add=given.add)
            print(f"\n## {whole}\n\n{table([part])}\n", flush=True)
            given.output.write_text(json.dumps(msgspec.to_builtins(parts), indent=1, ensure_ascii=False) + "\n")
    return parts


def kept_with(parts: Sequence[Part], new: Part, *, add: bool) -> list[Part]:
    """Puts the part's rows in place of those of the same names, wherever they were; or adds its pairs to them."""
    if add:
        new = added(next((each for each in parts if each.name == new.name), None), new)
    names = {row.name for row in new.rows}
    others = [msgspec.structs.replace(each, rows=tuple(row for row in each.rows if row.name not in names)) for each in parts]
    return [each for each in others if each.rows] + [new]


def added(old: Part | None, new: Part) -> Part:
    """Puts pairs of two sittings together, which have to be of the same machine, versions and sample."""
    samples = [[(row.name, row.sample) for row in part.rows] for part in (old, new) if part]
    if old is None or old.machine != new.machine or samples[0] != samples[1]:
        raise SystemExit(f"{new.name}: other samples, versions or another machine than what is kept; measure it without --add")
    rows = tuple(
        msgspec.structs.replace(was, first=was.first + row.first, second=was.second + row.second)
        for was, row in zip(old.rows, new.rows, strict=True)
    )
    load = {"begin": old.load["begin"], "end": new.load["end"], "most": max(old.load["most"], new.load["most"])}
    return msgspec.structs.replace(old, seconds=old.seconds + new.seconds, load=load, rows=rows)


if __name__ == "__main__":
    main()
