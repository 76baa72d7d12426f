"""Preflight of a few families as a program of its own: seconds and most memory. `python benchmarks/preflight.py --write`.

Configurations have the size of published models, without weights; the tokenizer and template are the demo's. Numbers are kept in
benchmarks/preflight.json; `--write` puts them into docs/performance.md. Includes the imports, and vLLM where it is installed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import page
from families import config, write
from small import a_spec

from maft.spec import immutable_spec_json

OUTPUT = Path(__file__).with_suffix(".json")
FAMILIES = ("llama", "qwen3", "smollm3", "gemma4_text", "gpt_oss", "qwen3_5", "llama4")
RUNS = 2
GOAL = {"seconds": 20, "GiB": 2}


def measured(family: str) -> dict[str, Any]:
    """Runs it a few times: the least and the most seconds, the most memory, and the load of the machine before."""
    load = os.getloadavg()[0]
    runs = [_run(family) for _ in range(RUNS)]
    seconds, gib = zip(*runs, strict=True)
    return {"family": family, "seconds": [min(seconds), max(seconds)], "GiB": max(gib), "load": round(load, 1)}


def _run(family: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = write(config(family), Path(scratch) / "model")
        spec = immutable_spec_json(a_spec(model={"source": str(folder)}))
        line = [sys.executable, "-m", "maft.preflight", f"--store={scratch}/store", "--run=ns/run", f"--spec={spec}"]
        begun = time.monotonic()
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"preflight of {family} ended with {status}")
        return round(time.monotonic() - begun, 1), round(usage.ru_maxrss / 2**20, 2)


def table(rows: list[dict[str, Any]]) -> str:
    """A row per family."""
    head = ("family", f"seconds (goal: {GOAL['seconds']})", f"most memory, GiB (goal: {GOAL['GiB']})", "load before")
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|---:|"]
    lines += [f"| {r['family']} | {r['seconds'][0]} to {r['seconds'][1]} | {r['GiB']} | {r['load']} |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    """Measures the families, keeps the numbers, and writes the table where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write what was measured into docs/performance.md")
    arguments = parser.parse_args()
    rows = [measured(family) for family in FAMILIES]
    OUTPUT.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.write:
        page.put("performance.md", "preflight", table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
