"""`python benchmarks/chaos.py --runs 50`: runs on the test cluster while what they stand on is killed, stopped, filled up, away.

Each run is disturbed several times at random (tests/support/disturbances.py has the list), beside others that are disturbed too.
Seeded: `--seed` chooses what is done to which run; when a pod is there to be hit, the cluster decides. Prints a table and keeps
the outcomes in benchmarks/chaos.json, those of the same seeds and engine replaced; `--write` puts the table into docs/chaos.md.
Exit code 1: a run ended otherwise than it should. `make chaos` has the cluster up before; where none can be, nothing is done.
"""

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import page

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "support" / "cluster")]
OUTPUT = Path(__file__).with_suffix(".json")
ENGINES = {"mock": "the mock engine", "vllm": "vLLM"}
Json = dict[str, Any]


def main() -> None:
    """Disturbs runs, or only writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--engine", choices=("mock", "vllm"), default="mock")
    parser.add_argument("--at-once", type=int, default=4, help="runs beside each other")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no run is begun")
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/chaos.md")
    arguments = parser.parse_args()
    if not arguments.write and (why := _unable()):
        print(f"chaos: left out: {why}")  # as the tests of the cluster are
        return
    if not arguments.write:
        kept = _measured(arguments)
        OUTPUT.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in kept) + "\n]\n")
        print(table(kept))
        raise SystemExit(
            not all(row["right"] for row in kept if (row["seed"], row["engine"]) == (arguments.seed, arguments.engine))
        )
    page.put("chaos.md", "chaos", table(json.loads(OUTPUT.read_text())))


def _unable() -> str:
    """Why there is no cluster to disturb; empty if there is one. Somebody else's is left alone."""
    import clusters

    return clusters.host.unable() or ("" if clusters.FACTS.exists() else "the project's own cluster is not up; run: make cluster")


def _which(row: Json) -> tuple[object, ...]:
    return row["seed"], row["number"], row["engine"]


def _measured(arguments: argparse.Namespace) -> list[Json]:
    """What was kept of other runs, and what these gave."""
    import disturbed
    from installed import on_this_machine
    from products import made_here

    maft = on_this_machine()
    with tempfile.TemporaryDirectory() as folder:
        expected = made_here(maft, Path(folder), disturbed.NAME, **disturbed.SPEC) if arguments.engine == "mock" else {}
    begun = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    seed, runs, engine, at_once = arguments.seed, arguments.runs, arguments.engine, arguments.at_once
    outcomes = disturbed.run_all(maft, seed, runs, engine, expected, at_once, seconds=60 * arguments.minutes)
    before = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else []
    measured = [{**dataclasses.asdict(outcome), "begun": begun} for outcome in outcomes]
    again = {_which(row) for row in measured}
    return [row for row in before if _which(row) not in again] + measured


def table(rows: list[Json]) -> str:
    """Disturbance × times × outcome of the runs that had it, for each engine."""
    return "\n\n".join(
        _of_engine(words, chosen) for name, words in ENGINES.items() if (chosen := [r for r in rows if r["engine"] == name])
    )


def _of_engine(words: str, rows: list[Json]) -> str:
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    complete, named, wrong = _ends(rows)
    head = (
        f"{len(rows)} runs on {words}, seeds {seeds}, from {min(row['begun'] for row in rows)} UTC on: {complete} complete and as "
    )
    head += f"they should be, {named} failed by the name of what does not pass, {wrong} otherwise."
    titles = ("disturbance", "times", "runs that had it", "of these complete", "failed by its name", "otherwise")
    times = Counter(name for row in rows for name in _had(row))
    lines = [(name, times[name], len(had), *_ends(had)) for name in sorted(times) if (had := [r for r in rows if name in _had(r)])]
    parts = [titles, ("---", *["---:"] * (len(titles) - 1)), *lines]
    return "\n".join([head, "", *(f"| {' | '.join(map(str, part))} |" for part in parts)])


def _ends(rows: list[Json]) -> tuple[int, int, int]:
    """How many are complete, failed by the name of the cause, and neither."""
    right = [row["end"].startswith("complete") for row in rows if row["right"]]
    return sum(right), len(right) - sum(right), len(rows) - len(right)


def _had(row: Json) -> list[str]:
    return [*row["disturbances"], *([f"clock of all its pods: {row['clock']}"] if row["clock"] else [])]


if __name__ == "__main__":
    main()
