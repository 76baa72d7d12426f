"""Very many questions on one machine: `python benchmarks/many_questions.py --part memory` (client, grading, memory, examples).

Each part compares sides that run in turn on the same machine, each run a process of its own: median, least and most. Numbers are
kept in benchmarks/many_questions.json; `--write` puts them into docs/performance.md. No GPU and no vLLM: the servers are mocks.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import page
import psutil

Json = dict[str, Any]
HERE = Path(__file__).parent
OUTPUT = Path(__file__).with_suffix(".json")
RUNS = 5
SIZES = (1_000, 10_000, 100_000)
CLIENTS = ("bare aiohttp loop", "maft", "bare loop, answers as streams", "openai client")
GRADERS = ("maft", "every pair by math-verify")
LIMIT = 900  # seconds for a run


def main() -> None:
    """The parts that are asked for, or only the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="may be repeated; without it all")
    parser.add_argument("--questions", type=int, default=SIZES[-1], help="of the parts memory and examples at most")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each side of the parts client and grading, in turn")
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/performance.md")
    flags = parser.parse_args()
    results: Json = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    for part in () if flags.write else flags.part or sorted(PARTS):
        began = time.monotonic()
        measured = PARTS[part](flags)
        facts = {"machine": machine(), "versions": versions(), "seconds": round(time.monotonic() - began)}
        results[part] = {"measured": measured, **facts}
        OUTPUT.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    text = markdown({part: entry["measured"] for part, entry in results.items()})
    print(text)
    if flags.write:
        page.put("performance.md", "many_questions", text)


def in_turn(part: str, sides: Sequence[str], runs: int) -> Json:
    """Runs the sides one after the other, `runs` times; of each the numbers that it printed."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            found[side].append(one(part, side)["value"])
    return {"runs": runs, "sides": found}


def one(part: str, *arguments: object) -> Json:
    """One run, in a process of its own."""
    line = [sys.executable, str(HERE / "many_sides.py"), part, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line[1:])}: exit {done.returncode}\n{done.stderr[-3000:]}")
    made: Json = json.loads(done.stdout.splitlines()[-1])
    print(part, *arguments, made, file=sys.stderr, flush=True)
    return made


def sized(part: str, flags: argparse.Namespace) -> Json:
    """A run for each number of questions."""
    return {str(size): one(part, size) for size in SIZES if size <= flags.questions}


PARTS: dict[str, Callable[[argparse.Namespace], Json]] = {
    "client": lambda flags: in_turn("client", CLIENTS, flags.runs),
    "grading": lambda flags: in_turn("grading", GRADERS, flags.runs),
    "memory": lambda flags: sized("memory", flags),
    "examples": lambda flags: sized("examples", flags),
}


def machine() -> Json:
    """What it ran on."""
    memory = round(psutil.virtual_memory().total / 2**30, 1)
    return {"cores": len(os.sched_getaffinity(0)), "memoryGiB": memory, "load": os.getloadavg()[0], "system": platform.platform()}


def versions() -> dict[str, str]:
    """What was measured."""
    packages = ("maft", "aiohttp", "msgspec", "math-verify", "pebble", "openai")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


# --- the page ---


def markdown(results: Json) -> str:
    """All tables that there are numbers for."""
    made = (
        _ratios(results.get("client"), "client's CPU time for a request, ms", CLIENTS[0]),
        _ratios(results.get("grading"), "CPU time to grade a debate of kind math, s", GRADERS[-1]),
        _memory(results.get("memory"), results.get("examples")),
    )
    return "\n\n".join(table for table in made if table)


def _ratios(result: Json | None, what: str, base: str) -> str:
    if not result:
        return ""
    medians = {side: statistics.median(values) for side, values in result["sides"].items()}
    rows = [
        f"| {side} | {medians[side]:.3f} | {min(values):.3f} to {max(values):.3f} | {medians[side] / medians[base]:.2f} |"
        for side, values in result["sides"].items()
    ]
    head = f"| {what} | median of {result['runs']} | least and most | ÷ {base} |"
    return "\n".join([head, "|---|---:|---:|---:|", *rows])


MEMORY = {
    "start": "client: memory before the first question, MiB",
    "debate": "… most in the debate",
    "publish": "… most until it is published",
    "datasets": "… most until the datasets are, too",
    "seconds": "seconds in all",
    "objects": "objects of the journal",
    "files": "files of transcripts",
    "largest": "largest object, MB",
}
EXAMPLES = {"bytes": "trainer: bytes of memory for an example of 256 tokens", "most": "… memory for one adapter's examples, MiB"}


def _memory(memory: Json | None, examples: Json | None) -> str:
    sizes = [size for size in map(str, SIZES) if size in (memory or {}) or size in (examples or {})]
    if not sizes:
        return ""
    rows = [
        f"| {text} | " + " | ".join(f"{found[size][key]:,.4g}" if size in found else "" for size in sizes) + " |"
        for found, names in ((memory or {}, MEMORY), (examples or {}, EXAMPLES))
        for key, text in names.items()
        if found
    ]
    head = f"| questions | {' | '.join(f'{int(size):,}' for size in sizes)} |"
    return "\n".join([head, "|---|" + "---:|" * len(sizes), *rows])


if __name__ == "__main__":
    main()
