"""`maft run`: the loop on this machine, from a resource to a finished run, an interrupted one or a clear failure."""

import asyncio
import contextlib
import fcntl
import json
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console

from maft.summaries import BAD_INPUT, AnySummary, CompareSummary, ReportSummary
from maft_operator import run_folder
from maft_operator.local import gpus, whole_file
from maft_operator.local.backend import LocalBackend
from maft_operator.local.display import Display, results
from maft_operator.local.exports import Exports
from maft_operator.local.meter import Meter
from maft_operator.plan import graph as plan
from maft_operator.plan import shards
from maft_operator.plan.budget import exceeded
from maft_operator.plan.graph import Graph
from maft_operator.plan.reconcile import reconcile
from maft_operator.plan.step import Observed, Step
from maft_operator.plan.trials import Trials
from maft_operator.spec.comparison import NOTE, noted
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec

LOOK = 0.5  # seconds between two steps
INTERRUPTED = 130


async def run_locally(
    run: Run,
    store: str,
    folder: Path,
    console: Console,
    *,
    serve: Sequence[str] = (),
    graph: Graph | None = None,
    trials: Trials | None = None,
    export: Sequence[str] = (),
) -> int:
    """Runs to the end. Exit code 0: complete; 2: failed, with the reason printed; 130: interrupted, to be resumed.

    graph: what is done, if that is not the run alone (`maft compare`); trials: by which it grows. export: targets of `maft export`
    that get what it makes."""
    devices = gpus.find()
    growth = Growth(graph or plan.graph(run, store), trials, devices)
    graph = growth.graph
    gpus.fits(graph, devices)
    local = folder / run.key / "local"
    started, stop = time.monotonic(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with exclusive(local, run, store):
        if graph.last.kind == "compare":  # the table is made anew: other methods or seeds may be asked for than before
            (local / graph.last.name / "summary.json").unlink(missing_ok=True)
            growth.note(local / NOTE)
        console.print(gpus.device_line(graph, devices), highlight=False, markup=False, soft_wrap=True)
        slots = gpus.Slots(devices.gpus)
        async with LocalBackend(local, slots, serve) as backend:
            memory, display, budget = PeakMemory(), Display(console, graph), Budget(run, local, slots)
            async with contextlib.aclosing(Exports(export, graph, local, console)) as exports:
                with display.progress if console.is_terminal else contextlib.nullcontext():
                    end = await _loop(backend, growth, stop, display=display, memory=memory, exports=exports, budget=budget)
                if end and end.phase == "Complete":
                    await exports.finish(stop)
            result = backend.summary(graph.last.name)
        for line in trials.told() if trials else ():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return _ending(end, result, console, time.monotonic() - started, memory.peak)


class Growth:
    """The graph as this machine does it: with more runs once trials of a search are over."""

    def __init__(self, graph: Graph, trials: Trials | None, devices: gpus.Found) -> None:
        self._planned, self._trials, self._devices = graph, trials, devices
        self._note: Path | None = None
        self.graph = self._dealt(graph)

    def note(self, path: Path) -> None:
        """Writes there from now on which runs the table is to have, for whoever asks how far it is (`maft.Client`)."""
        self._note = path
        self._write()

    def look(self, observed: Observed) -> None:
        """Adds what is to be done by now."""
        planned = self._trials.graph(observed) if self._trials else self._planned
        if planned is not self._planned:
            self._planned, self.graph = planned, self._dealt(planned)
            self._write()

    def _write(self) -> None:
        if self._note:
            whole_file.write(self._note, noted(self.graph.last.compared))

    def _dealt(self, graph: Graph) -> Graph:
        return gpus.dealt(graph if self._trials else shards.spread(graph), self._devices)


class Budget:
    """What `spec.budget` grants the run on this machine."""

    def __init__(self, run: Run, local: Path, slots: gpus.Slots) -> None:
        self._budget, self._meter, self._slots = run.spec.budget, Meter(local / "spent.json"), slots

    def spent(self) -> str:
        """Says which budget of time is spent; nothing where there is some left."""
        return exceeded(self._budget, self._meter.look(self._slots.held), datetime.now(UTC))

    def keep(self) -> None:
        """Keeps what was taken for the next time."""
        self._meter.keep()


async def _loop(
    backend: LocalBackend,
    growth: Growth,
    stop: asyncio.Event,
    *,
    display: Display,
    memory: "PeakMemory",
    exports: Exports,
    budget: Budget,
) -> Step | None:
    """The last step, or None where the user stopped it."""
    looks = 0
    while not stop.is_set():
        growth.look((await backend.observe()).observed)
        graph = replace(growth.graph, spent=budget.spent())
        outcome = await reconcile(backend, graph)
        decided = outcome.step
        display.follow(graph)
        display.decided(outcome.graph)
        observed = (await backend.observe()).observed
        await _show(backend, graph, display, observed)
        await exports.look(graph, observed)
        if decided.phase in ("Complete", "Failed"):
            budget.keep()
            return decided
        if looks % 4 == 0:
            await asyncio.to_thread(memory.sample)
        looks += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK)
    budget.keep()
    return None


async def _show(backend: LocalBackend, graph: Graph, display: Display, observed: Observed) -> None:
    running = [name for name, state in observed.tasks.items() if state.status == "running"]
    done = dict(zip(running, await asyncio.gather(*(backend.progress(name) for name in running)), strict=True))
    finished = [
        task.name for task in graph.tasks if task.name in observed.tasks and observed.tasks[task.name].status == "succeeded"
    ]
    display.update(observed, done, {name: backend.summary(name) for name in finished})


def _ending(end: Step | None, result: AnySummary | None, console: Console, seconds: float, peak: int) -> int:
    if end is None:
        console.print("Stopped. The same command goes on from what is committed.", highlight=False)
        return INTERRUPTED
    if end.phase == "Failed":
        todo = "" if end.failed_child else "; to go on from what is committed, raise it"
        console.print(f"error: {end.message}{todo}", highlight=False, markup=False, soft_wrap=True)
        return BAD_INPUT
    if isinstance(result, CompareSummary):
        console.print(result.table, highlight=False, markup=False, soft_wrap=True)
    elif isinstance(result, ReportSummary):
        console.print(results(result.results))
        for remark in result.remarks:
            console.print(remark, highlight=False, markup=False, soft_wrap=True)
    if isinstance(result, CompareSummary | ReportSummary):
        console.print(f"Report: {result.report}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Took {int(seconds) // 60}:{int(seconds) % 60:02d} min, peak memory {peak / 2**30:.1f} GiB.", highlight=False)
    return 0


@contextlib.contextmanager
def exclusive(local: Path, run: Run, store: str) -> Iterator[None]:
    """Holds the run: one `maft run` at a time, and always the same spec and store, for half-made things must stay comparable."""
    try:
        local.mkdir(parents=True, exist_ok=True)
        opened = (local / run_folder.LOCK).open("w")
    except OSError as error:
        raise BadSpec(f"--dir {local}: {error.strerror}; choose a folder that can be written") from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadSpec(f"metadata.name: {run.key} is running already; wait for it, or use another name") from None
        now = run_folder.beginning(run, store)
        if not run_folder.is_unchanged(local, now):
            whole_file.write(local / run_folder.BEGAN, json.dumps(now, indent=1, sort_keys=True).encode())
        yield


class PeakMemory:
    """Peak of what this process and all it started hold together (proportional set size), in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._self = psutil.Process()

    def sample(self) -> None:
        """Takes one sample."""
        total = 0
        for process in [self._self, *self._self.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        self.peak = max(self.peak, total)
