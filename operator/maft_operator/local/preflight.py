"""`maft plan --preflight`: the checks that come before a run's first server, made here and now; nothing of them stays."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from maft.summaries import AnySummary, Failure, PrepareSummary
from maft_operator.plan import graph as plan
from maft_operator.plan.disk import disk_line
from maft_operator.plan.graph import Task
from maft_operator.plan.summaries import sentence, title
from maft_operator.run_folder import read_summary
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec


def tried(run: Run) -> Iterator[str]:
    """Yields what each check says, in order, then what nodes need of disk; BadSpec with the words of the first that fails."""
    model_bytes = 0
    with tempfile.TemporaryDirectory(prefix="maft-plan-") as folder:
        for task in plan.checks(run, folder):
            summary = _tried(task, Path(folder) / f"{task.kind}.json")
            model_bytes = summary.model_bytes if isinstance(summary, PrepareSummary) else model_bytes
            yield f"{title(task)}: {sentence(summary)}"
        if line := disk_line(plan.graph(run, folder), model_bytes):
            yield line


def _tried(task: Task, file: Path) -> AnySummary:
    environment = {**os.environ, "MAFT_SUMMARY": str(file), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, *plan.command(task, {})], env=environment, capture_output=True, text=True, check=False)
    summary = read_summary(file)
    if isinstance(summary, Failure):
        raise BadSpec(summary.error)
    if done.returncode or summary is None:
        raise BadSpec(f"{task.kind} ended with exit code {done.returncode}: {done.stderr[-600:].strip()}")
    return summary
