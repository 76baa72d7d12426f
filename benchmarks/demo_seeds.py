"""The demo over several seeds: `python benchmarks/demo_seeds.py --seeds 3`. Writes benchmarks/demo_seeds.json and prints Markdown.

Each seed draws its own questions and samples, and is a whole `maft run examples/arithmetic.yaml`. The table in docs/results.md is
written by this script from that file (`--write`), so no number there is typed by hand.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import page

HERE = Path(__file__).parent
OUTPUT = HERE / "demo_seeds.json"


def run(seed: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What one run measured: on held-out questions the untrained society, then the best iteration; on validation questions each."""
    name = f"arithmetic-{seed}"
    command = [sys.executable, "-m", "maft_operator", "run", "examples/arithmetic.yaml", "--dir", str(folder)]
    command += ["--set", f"metadata.name={name}", "--set", f"seed={seed}", "--set", f"task.seed={seed}"]
    subprocess.run(command, check=True, cwd=HERE.parent)
    iterations = folder / "default" / name / "iterations"
    return {
        on: [json.loads(file.read_text()) for file in sorted(iterations.glob(f"*/{on}/evaluation.json"))]
        for on in ("evaluation", "validation")
    }


def rows(base: dict[str, Any], best: dict[str, Any]) -> dict[str, float]:
    """Accuracy on held-out questions in percent by row of the table."""
    table = {
        "base, one answer": base["answers"][0],
        "majority of first answers": base["votes"][0],
        "debate, untrained": base["votes"][-1],
        "multiagent finetuning, best iteration": best["votes"][-1],
        "… one first answer": best["answers"][0],
    }
    return {name: 100 * score["mean"] for name, score in table.items()}


def chosen(measured: dict[str, list[dict[str, Any]]]) -> str:
    """What the validation questions said of each iteration, and which one they chose."""
    votes = ", ".join(f"{100 * each['votes'][-1]['mean']:.0f}" for each in measured["validation"])
    return f"{measured['evaluation'][-1]['iteration']} ({votes})"


def markdown(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """One column per seed, the mean over seeds with its standard error last."""
    tables = {seed: rows(*measured["evaluation"]) for seed, measured in results.items()}
    best = [measured["evaluation"][-1] for measured in results.values()]
    lines = ["| accuracy % | " + " | ".join(f"seed {seed}" for seed in tables) + " | mean ± s.e. over seeds |"]
    lines.append("|---" * (len(tables) + 2) + "|")
    for name in next(iter(tables.values())):
        values = [table[name] for table in tables.values()]
        spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        cells = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {name} | {cells} | {statistics.mean(values):.1f} ± {spread:.1f} |")
    choices = [chosen(measured) for measured in results.values()]
    lines.append("| the best iteration (validation questions right after 1, 2, …) | " + " | ".join(choices) + " | |")
    flips = ", ".join(f"{e['wrongToRight']} / {e['rightToWrong']}" for e in best)
    questions = f"{best[0]['questions']} held-out questions each"
    return "\n".join([*lines, "", f"{questions}; wrong→right / right→wrong flips of the best iteration's debate: {flips}."])


def main() -> None:
    """Runs the seeds that are not in the file yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("runs"))
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/results.md")
    arguments = parser.parse_args()
    results: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    for seed in range(0 if arguments.write else arguments.seeds):
        if str(seed) not in results:
            results[str(seed)] = run(seed, arguments.dir)
            OUTPUT.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))
    if arguments.write:
        page.put("results.md", "demo_seeds", markdown(results))


if __name__ == "__main__":
    main()
