"""A run's time-line as a picture: `python benchmarks/timeline.py runs/default/arithmetic`. Writes docs/images/timeline.svg.

A bar for every program and server of a local run, from the making of its log to its summary. Solid: what the stage itself noted as
its time; pale: start, imports, loading. A line leads from what a task waited for last to its start.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import page

from maft.records import ROLES
from maft.store import layout
from maft.store.files import FileStore
from maft.store.timing import read_seconds
from maft_operator.plan.graph import Graph, Task, graph
from maft_operator.spec.parse import parse

CHART = page.DOCS / "images" / "timeline.svg"
WIDTH, LEFT, ROW, TOP = 900, 190, 22, 30  # pixels
COLOURS = {"debate": "#1763a6", "evaluate": "#2a8f6f", "train": "#b4541f", "server": "#6b4f9e"}
OTHER = "#6a7280"
HEAD = {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentFinetune"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One program or server. Seconds since the run began."""

    name: str
    kind: str
    begin: float
    end: float
    work: float
    """Seconds before the end that are the stage's own."""
    after: str = ""
    """What it waited for last."""


# --- reading a run's folder ---


def bars(folder: Path) -> list[Bar]:
    """Reads all that ran, in the order in which it began."""
    planned = _planned(folder)
    tasks = {task.name: task for task in planned.tasks if (folder / "local" / task.name / "summary.json").exists()}
    begun = {name: born(folder / "local" / name / "log.txt") for name in tasks}
    ended = {name: (folder / "local" / name / "summary.json").stat().st_mtime for name in tasks}
    zero = min(begun.values())
    found = []
    for name, task in tasks.items():
        needed = [need for need in task.needs if need in ended]
        after = max(needed, key=lambda need: ended[need], default="")
        own = min(_own(folder, task), ended[name] - begun[name])
        found.append(Bar(name, task.kind, begun[name] - zero, ended[name] - zero, own, after))
    for server in planned.servers:
        log = folder / "local" / server.name / "log-0.txt"
        askers = [name for name, task in tasks.items() if server.name in task.servers]
        if log.exists() and askers:
            ready, last = min(begun[name] for name in askers), max(ended[name] for name in askers)
            found.append(Bar(server.name, "server", born(log) - zero, last - zero, last - ready))
    return sorted(found, key=lambda bar: bar.begin)


def _planned(folder: Path) -> Graph:
    kept = msgspec.json.decode((folder / "local" / "run.json").read_bytes())
    given = _given({key: value for key, value in kept["spec"].items() if key != "recipe"})  # it follows from the method
    metadata = {"namespace": folder.parent.name, "name": folder.name}
    return graph(parse({**HEAD, "metadata": metadata, "spec": given}), str(folder.parents[1]))


def _given(section: dict[str, Any]) -> dict[str, Any]:
    """A section without what was left out: the schema knows no null."""
    return {k: _given(v) if isinstance(v, dict) else v for k, v in section.items() if v is not None}


def born(file: Path) -> float:
    """Reads when a file was made; stat of GNU coreutils asks the kernel for it."""
    done = subprocess.run(["stat", "-c", "%.W", str(file)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def _own(folder: Path, task: Task) -> float:
    """Reads what a stage noted as its time; 0 where it notes none, everything of the others is work."""
    run, store = f"{folder.parent.name}/{folder.name}", FileStore(folder.parents[1])
    if task.kind == "debate":
        return read_seconds(store, layout.debate(run, task.iteration)) or 0.0
    if task.kind == "evaluate":
        return read_seconds(store, layout.evaluation(run, task.iteration)) or 0.0
    if task.kind != "train":
        return float("inf")
    prefixes = [layout.adapter(run, task.iteration, role, agent) for role in ROLES for agent in task.agents]
    return sum(read_seconds(store, prefix) or 0.0 for prefix in prefixes)


# --- drawing, pure ---


def picture(found: Sequence[Bar]) -> str:
    """Draws the bars as SVG, with colours that stand on a light and on a dark page."""
    longest = max(bar.end for bar in found)
    scale = (WIDTH - LEFT - 60) / longest
    height = TOP + ROW * len(found) + 34
    place = {bar.name: i for i, bar in enumerate(found)}
    parts = [_ticks(longest, scale, height)]
    parts += [_link(bar, found[place[bar.after]], place, scale) for bar in found if bar.after in place]
    parts += [_bar(bar, place[bar.name], scale) for bar in found]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="#1b2027"><title>What waits for what in a run</title>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _ticks(longest: float, scale: float, height: int) -> str:
    step = next(step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 86400) if longest / step <= 12)
    parts = []
    for number in range(int(longest // step) + 1):
        x = LEFT + number * step * scale
        parts.append(f'<path d="M{x:.1f} {TOP - 6}V{height - 22}" stroke="#d5d9df"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{number * step} s</text>')
    return "".join(parts)


def _bar(bar: Bar, row: int, scale: float) -> str:
    x, y, wide = LEFT + bar.begin * scale, TOP + row * ROW, max((bar.end - bar.begin) * scale, 1.5)
    own = min(bar.work * scale, wide)
    colour = COLOURS.get(bar.kind, OTHER)
    label = f"{bar.end - bar.begin:.1f} s"
    return (
        f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="15" fill="{colour}" fill-opacity=".3"/>'
        f'<rect x="{x + wide - own:.1f}" y="{y}" width="{own:.1f}" height="15" fill="{colour}"/>'
        f'<text x="{x + wide + 4:.1f}" y="{y + 12}">{label}</text>'
    )


def _link(bar: Bar, before: Bar, place: dict[str, int], scale: float) -> str:
    from_, to = LEFT + before.end * scale, LEFT + bar.begin * scale
    down, across = TOP + place[before.name] * ROW + 7, TOP + place[bar.name] * ROW + 8
    return f'<path d="M{from_:.1f} {down}V{across}H{to:.1f}" fill="none" stroke="#8a93a0"/>'


def main() -> int:
    """Reads the folder, writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="RUNS/NAMESPACE/NAME of a finished local run")
    parser.add_argument("--output", type=Path, default=CHART)
    given = parser.parse_args()
    given.output.write_text(picture(bars(given.folder.absolute())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
