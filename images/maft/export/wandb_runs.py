"""`--to wandb`: a run of Weights & Biases in offline mode, as a folder that `wandb sync` uploads; nothing is sent from here.

What is new goes into a folder of its own with the same id, so that syncing all of them gives one run.
"""

import hashlib
from typing import Any

from maft.export import numbers
from maft.export.folders import folder
from maft.export.ledger import Ledger, digest, stages
from maft.export.target import Request, Sent
from maft.store.base import explained

PROJECT = "maft"
STEP = "iteration"  # the axis; W&B's own steps only grow, and an iteration may come in two parts


def send(request: Request) -> Sent:
    """Writes what is not in the folder yet."""
    into = folder(request, "wandb")
    ledger = Ledger(request.store, request.run.key, "wandb", str(into))
    parts = stages(request.run)
    if not into.is_dir():  # somebody has taken it away
        ledger.known_as("")
    identity = hashlib.sha256(f"{request.run.key} {digest(request.run.problems)}".encode()).hexdigest()[:16]
    missing = ledger.missing(parts)
    if missing:
        with explained(f"folder {into}"):
            into.mkdir(parents=True, exist_ok=True)
        _write(request, str(into), identity, missing)
        ledger.arrived(identity, {part: parts[part] for part in missing})
    return Sent(str(into), len(missing), (f"wandb sync {into}/wandb/offline-run-*-{identity}",))


def _write(request: Request, into: str, identity: str, parts: list[str]) -> None:
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
        dir=into,
        mode="offline",
        resume="allow",
        settings=quiet,
    )
    run.define_metric("*", step_metric=STEP)
    for step, values in numbers.by_step(request.run, parts).items():
        run.log({STEP: step, **values})
    run.finish()
