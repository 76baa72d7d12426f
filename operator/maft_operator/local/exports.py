"""Hands on what a run on this machine has committed while it goes on: `python -m maft.export` after each evaluated iteration.

Nothing of the run waits for it, and its faults are none of the run's: what could not be sent goes with what comes next, or last.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from maft.spec import REPORTS, report_flags
from maft_operator.local.processes import Child, start
from maft_operator.plan.exports import evaluated
from maft_operator.plan.graph import Graph
from maft_operator.plan.step import Observed
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec

LOOK = 0.1  # seconds between two looks at an export that is waited for


def wanted(targets: Sequence[str], run: Run) -> list[str]:
    """Lists the targets of the command line and of the run's spec, each once; BadSpec where those of the spec get several licenses,
    or one flag cannot say which of all get the report: one program sends to all."""
    licenses = sorted({target.license for target in run.spec.export if target.license})
    if len(licenses) > 1:
        raise BadSpec(f"spec.export[].license: {' and '.join(licenses)}; on one machine all targets get the same: name one")
    every = list(dict.fromkeys([*targets, *(target.target for target in run.spec.export)]))
    _report(every, run)
    return every


def flags(targets: Sequence[str], store: str, run: Run) -> list[str]:
    """Writes the command that hands that run on."""
    command = [sys.executable, "-m", "maft.export", "--store", store, "--run", run.key]
    licenses = {f"--license={target.license}" for target in run.spec.export if target.license}
    return [*command, *(f"--to={target}" for target in targets), *licenses, *_report(targets, run)]


def _report(targets: Sequence[str], run: Run) -> list[str]:
    """Writes the flag by which each target gets the report or not, as its field or its kind has it."""
    stated = {target.target: target.report for target in run.spec.export if target.report is not None}
    kinds = {target: target.partition("=")[0] for target in targets}
    usual = {target: REPORTS[kind] for target, kind in kinds.items() if kind in REPORTS}
    wanted = {target: stated.get(target, gets) for target, gets in usual.items()}
    if wanted == usual:
        return []
    shown = {gets: target for target, gets in wanted.items()}
    if len(shown) > 1:
        raise BadSpec(
            f"spec.export[].report: the report would go to {shown[True]} and not to {shown[False]}; on one machine one command"
            " sends to both: write the same for both, or leave one to `maft export`"
        )
    return report_flags(True in shown)


def refused(targets: Sequence[str], store: str, run: Run) -> bool:
    """Tells whether a target is none, which is then said: before a run of hours, not after it."""
    return bool(targets) and subprocess.run([*flags(targets, store, run), "--check"], check=False).returncode != 0


class Exports:
    """The exports of one run, one at a time. local: the folder for their log."""

    def __init__(self, targets: Sequence[str], graph: Graph, local: Path, console: Console) -> None:
        last = graph.last
        self._targets, self._console, self._log = targets, console, local / "export" / "log.txt"
        self._command = flags(targets, last.store, last.run)
        self._child: Child | None = None
        self._seen = 0

    async def look(self, graph: Graph, observed: Observed) -> None:
        """Starts one where more is evaluated than at the last start, unless one is under way."""
        last = evaluated(graph, observed)
        if self._targets and last > self._seen and (self._child is None or self._child.exit_code is not None):
            self._seen = last
            self._child = await start(self._command, {}, self._log)

    async def finish(self, stop: asyncio.Event) -> None:
        """Sends the rest once the run is complete, and says what came of it. stop: the user waits no longer."""
        if not self._targets:
            return
        await self._end(stop)
        if not stop.is_set():  # else one may be under way, and no two write one marker
            self._child = await start(self._command, {}, self._log)
            await self._end(stop)
        code = None if self._child is None or stop.is_set() else self._child.exit_code
        if code == 0:
            self._console.print(f"Exported: {', '.join(self._targets)}", highlight=False, markup=False, soft_wrap=True)
            return
        words = self._child.tail()[-1:] if self._child else []
        why = "interrupted" if code is None else next(iter(words), f"exit code {code}").removeprefix("error: ")
        line = f"warning: not exported: {why}. The run is complete; `maft export` sends what is missing later (log: {self._log})"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    async def aclose(self) -> None:
        """Ends the one that is under way."""
        if self._child and self._child.exit_code is None:
            await self._child.stop()

    async def _end(self, stop: asyncio.Event) -> None:
        while self._child and self._child.exit_code is None and not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK)
