"""How fast the work itself is, as ratios: `make bench`, `make bench PART=client`, `make bench-quick`; docs/performance.md.

Each part measures two sides on this machine in one run, alternating, and keeps its rows in benchmarks/bench.json with versions,
machine and load. `--write` puts the table of all parts that were measured into the page. `--quick` looks with small samples, keeps
nothing, and fails only where even the best pair misses half a goal. Rows 8, 9 and 14 are kept by trainer.py, which `make bench`
runs as well.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import msgspec
import page
import peers
import ratio
from ratio import RUNS, Part, Ratio

OUTPUT = Path(__file__).with_suffix(".json")
Measure = Callable[..., list[Ratio]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A part: where it is."""

    module: str
    function: str
    rows: str
    quick: bool = True
    """It is a part of the quick look."""
    kept: bool = True
    """It is measured for the page; else the quick look's alone."""
    gpu: bool = False
    """It wants one, so it is measured where it is named alone."""

    def measure(self) -> Measure:
        """Imports it: some parts need packages that others do not."""
        found: Measure = getattr(import_module(self.module), self.function)
        return found


PARTS = {
    "schedule": Entry("simulated", "schedule", "2"),
    "barrier-simulated": Entry("simulated", "barrier", "5"),
    "growth": Entry("simulated", "growth", "13"),
    "client": Entry("client", "client", "3"),
    "training": Entry("trainer", "bare_steps", "9", kept=False),
    # A look at these two would say nothing new: copies that are read back miss their goal by nature, grading by more than half.
    "store": Entry("transfer", "store", "10", quick=False),
    "grading": Entry("grading", "grading", "11", quick=False),
    "grading-real": Entry("grading", "grading_real", "11", quick=False),
    "throughput": Entry("served", "tiny_throughput", "1"),
    "throughput-real": Entry("served", "real_throughput", "1", quick=False),
    "serial": Entry("served", "serial", "4", quick=False),
    "barrier": Entry("served", "barrier", "5", quick=False),
    "prefix": Entry("served", "prefix", "6", quick=False),
    "fast": Entry("served", "fast", "7", quick=False),
    "gpu": Entry("served", "large", "1, 4, 5, 6, 7", quick=False, gpu=True),
    "warm-start": Entry("warm", "warm", "15", quick=False),
    "warm-start-gpu": Entry("warm", "warm_large", "15", quick=False, gpu=True),
    "iteration": Entry("iteration", "iteration", "12", quick=False),
    "iteration-gpu": Entry("iteration", "iteration_gpu", "12", quick=False, gpu=True),
    "iterations": Entry("iteration", "iterations", "13", quick=False),
}


@contextmanager
def watched_load() -> Iterator[dict[str, float]]:
    """Notes the machine's load while the block lasts."""
    load = {"begin": os.getloadavg()[0], "end": 0.0, "most": 0.0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(2.0):
            load["most"] = max(load["most"], os.getloadavg()[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield load
    finally:
        ended.set()
        watcher.join()
        load["end"] = os.getloadavg()[0]
        load["most"] = max(load.values())


def measure(name: str, runs: int, *, quick: bool) -> Part:
    """Measures one part."""
    begun, started = datetime.now(UTC), time.monotonic()
    with watched_load() as load:
        rows = PARTS[name].measure()(runs, quick=quick)
    took = time.monotonic() - started
    rounded, machine = {key: round(value, 1) for key, value in load.items()}, peers.machine(gpu=PARTS[name].gpu)
    return Part(name, begun.isoformat(timespec="minutes")[:16], round(took, 1), rounded, machine, tuple(rows))


def read() -> dict[str, Part]:
    """Reads what was measured before."""
    return msgspec.json.decode(OUTPUT.read_bytes(), type=dict[str, Part]) if OUTPUT.exists() else {}


def keep(part: Part) -> None:
    """Keeps a part in place of what was measured of it before; of a part that takes long nothing is lost if the next one fails."""
    kept = {**read(), part.name: part}
    ordered = {name: kept[name] for name in PARTS if name in kept}
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")


def text(kept: Sequence[Part]) -> str:
    """Makes the table of the page, and of the machine."""
    return "\n\n".join([ratio.table(kept), ratio.measured_with(kept), ratio.circumstances(kept)])


def write() -> None:
    """Puts it into the page."""
    page.put("performance.md", "bench", text(list(read().values())))


def asked(*, quick: bool) -> list[str]:
    """Names the parts that are measured where none is named: of those that need no GPU, what a quick look has, or what is kept."""
    return [name for name, entry in PARTS.items() if not entry.gpu and (entry.quick if quick else entry.kept)]


def main() -> int:
    """Measures the parts that were asked for; 1 where a quick look found a gross loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all that needs no GPU")
    parser.add_argument("--runs", type=int, default=0, help=f"pairs of runs (default {RUNS}; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="small samples, nothing kept, failing on gross loss alone")
    parser.add_argument(
        "--write", action="store_true", help="write what was measured into docs/performance.md, after what is asked for"
    )
    parser.add_argument("--no-measure", action="store_true", help="with --write: measure nothing before")
    given = parser.parse_args()
    lost: list[Ratio] = []
    for name in () if given.no_measure else given.part or asked(quick=given.quick):
        print(f"== bench: {name}", flush=True)
        part = measure(name, given.runs or (2 if given.quick else RUNS), quick=given.quick)
        print(ratio.table([part]), f"\n({part.seconds:.0f} s at a load of {part.load['most']} at most)\n", flush=True)
        lost += [row for row in part.rows if row.grossly_missed()]
        if not given.quick and PARTS[name].kept:
            keep(part)
    if given.write:
        write()
    if given.quick:
        for row in lost:
            print(f"gross loss: {row.name}: {row.median:.3f}, goal {row.goal.text() if row.goal else ''}", file=sys.stderr)
        return int(bool(lost))
    return 0


if __name__ == "__main__":
    sys.exit(main())
