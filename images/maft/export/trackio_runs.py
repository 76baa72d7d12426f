"""`--to trackio`: a run of a trackio project on this machine (`TRACKIO_DIR`), or of the server that its own variables name."""

import contextlib
import io
import re

from maft.errors import BadInput
from maft.export import numbers
from maft.export.ledger import Ledger, stages
from maft.export.target import Request, Sent

_PROJECT = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


def check(project: str) -> None:
    """BadInput where no project has that name."""
    if not _PROJECT.fullmatch(project):
        raise BadInput(f"--to trackio={project}: expected a project's name: letters, digits, _ - and .")


def send(request: Request) -> Sent:
    """Logs what the project does not have yet."""
    project = request.to
    check(project)
    from trackio.utils import TRACKIO_DIR

    ledger = Ledger(request.store, request.run.key, "trackio", f"{TRACKIO_DIR}/{project}")
    parts = stages(request.run)
    missing = ledger.missing(parts)
    if missing:
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            _log(request, project, missing)
        ledger.arrived(request.run.key, {part: parts[part] for part in missing})
    return Sent(f"{TRACKIO_DIR} project {project} run {request.run.key}", len(missing), (f"trackio show --project {project}",))


def _log(request: Request, project: str, parts: list[str]) -> None:
    import trackio

    run = trackio.init(
        project=project,
        name=request.run.key,
        group=request.group or None,
        config=dict(numbers.parameters(request.run)),
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    for step, values in numbers.by_step(request.run, parts).items():
        run.log(values, step=step)
    trackio.finish()
