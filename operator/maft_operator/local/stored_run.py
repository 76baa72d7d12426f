"""Commands about a run that lies in a store, finished or not: its report made again, its results handed on."""

import argparse
import subprocess
import sys
from typing import Any

from maft.spec import report_flags
from maft_operator.local import place

_REPORT_HELP = """Reads what a run has committed so far, also while it is unfinished, and writes report/index.html and report.json
beside it: accuracy, agreement, kept examples, cost, and every debate. Example: maft report runs/default/arithmetic"""
_EXPORT_HELP = """Hands on what a run has committed so far: adapters as folders, for vLLM or KServe, whole models, results in
trackers and registries. What was sent is not sent again. Example: maft export runs/default/arithmetic --to vllm.
All targets, and where their secrets come from: docs/exporting.md"""

# As in maft/export/targets.py.
KINDS = ("peft", "vllm", "kserve", "mlflow", "wandb", "trackio", "otel", "hub", "oci", "merged", "gguf")
_TARGETS = f"a target: {', '.join(KINDS)}; may be repeated"


def add(commands: Any) -> None:
    """Adds the subcommands."""
    report = commands.add_parser("report", help="make the report of a run again", description=_REPORT_HELP)
    report.add_argument("run", metavar="RUN", help=place.HELP)
    report.set_defaults(call=_report)
    export = commands.add_parser("export", help="hand on a run's adapters and results", description=_EXPORT_HELP)
    export.add_argument("run", metavar="RUN", help=place.HELP)
    export.add_argument("--to", action="append", required=True, metavar="KIND[=WHERE]", help=_TARGETS)
    export.add_argument("--iteration", metavar="N", help="whose adapters [the best, or the last that has all]")
    export.add_argument("--only", action="append", default=[], metavar="NAME", help="an adapter, such as generator-1 [all]")
    export.add_argument("--license", metavar="SPDX", help="of the adapters, for their cards [none is stated]")
    whether = "whether the report, which holds questions and debates, goes along [to mlflow and wandb, not to hub and oci]"
    export.add_argument("--report", action=argparse.BooleanOptionalAction, help=whether)
    export.add_argument("--group", metavar="NAMESPACE/NAME", help="the comparison that the run belongs to [none]")
    export.set_defaults(call=_export)


def add_export(run: argparse.ArgumentParser) -> None:
    """Adds to `maft run` what hands its results on as they come."""
    text = "a target of `maft export` that gets what the run makes, after each evaluation and at the end; may be repeated"
    run.add_argument("--export", action="append", default=[], metavar="KIND[=WHERE]", help=text)


def program(name: str, run: str, *more: str) -> int:
    """Starts a program on that run; its exit code."""
    where = place.parse(run)
    command = [sys.executable, "-m", f"maft.{name}", "--store", where.store, "--run", where.key]
    return subprocess.run([*command, *more], check=False).returncode


def _report(arguments: argparse.Namespace) -> int:
    code = program("report", arguments.run)
    if code == 0:
        print(f"report: {place.parse(arguments.run).url}/report/index.html")
    return code


def _export(arguments: argparse.Namespace) -> int:
    flags = [f"--to={target}" for target in arguments.to] + [f"--only={name}" for name in arguments.only]
    flags += [] if arguments.iteration is None else [f"--iteration={arguments.iteration}"]
    flags += [] if arguments.license is None else [f"--license={arguments.license}"]
    flags += report_flags(arguments.report)
    flags += [] if arguments.group is None else [f"--group={arguments.group}"]
    return program("export", arguments.run, *flags)
