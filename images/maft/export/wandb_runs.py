"""`--to wandb`: a run of Weights & Biases in offline mode, as a folder that `wandb sync` uploads; nothing is sent from here.

What is new goes into a folder of its own with the same id, so that syncing all of them gives one run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maft.export import folders, numbers, reports
from maft.export.ledger import Ledger, stages
from maft.export.target import Request, Sent
from maft.store.base import explained

PROJECT = "maft"
STEP = "iteration"  # the axis; W&B's own steps only grow, and an iteration may come in two parts


def send(request: Request) -> Sent:
    """Writes what is not in the folder yet."""
    into = folders.folder(request, "wandb")
    ledger = Ledger(request.store, request.run.key, "wandb", str(into))
    report = request.report_files()
    parts = {**stages(request.run), **reports.part(report)}
    if not into.is_dir():  # somebody has taken it away
        ledger.known_as("")
    identity = request.identity()[:16]
    ledger.known_as(identity)
    missing = ledger.missing(parts)
    if missing:
        with explained(f"folder {into}"):
            into.mkdir(parents=True, exist_ok=True)
        _write(request, into, identity, missing, report if reports.REPORT in missing else {})
        ledger.arrived(identity, {part: parts[part] for part in missing})
    return Sent(str(into), len(missing), (f"wandb sync {into}/wandb/offline-run-*-{identity}",))


def _write(request: Request, into: Path, identity: str, parts: list[str], report: Mapping[str, bytes]) -> None:
    import wandb

    # No code, no packages and no facts of this machine: the run was made elsewhere.
    quiet: Any = wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    run = wandb.init(
        project=PROJECT,
        id=identity,
        name=request.name,
        group=request.group or None,
        config=numbers.parameters(request.run),
        dir=str(into),
        mode="offline",
        resume="allow",
        settings=quiet,
    )
    run.define_metric("*", step_metric=STEP)
    for step, values in numbers.by_step(request.run, parts).items():
        run.log({STEP: step, **values})
    if report:
        run.log_artifact(_artifact(into, identity, report))
    run.finish()


def _artifact(into: Path, identity: str, report: Mapping[str, bytes]) -> Any:
    """Makes an artifact of files in the folder. Unasked, W&B would leave copies elsewhere on this machine, and sync those."""
    import wandb

    pages = into / f"{reports.REPORT}-{identity}-{reports.files_digest(report)}"  # `wandb sync` reads them there
    folders.put_files(report, pages)
    made = wandb.Artifact(f"{reports.REPORT}-{identity}", type=reports.REPORT)
    for name in report:
        made.add_file(str(pages / name), name, policy="immutable")
    return made
