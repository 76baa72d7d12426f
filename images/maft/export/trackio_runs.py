"""`--to trackio`: a run of a trackio project on this machine (`TRACKIO_DIR`), or of the server that its own variables name."""

import contextlib
import io
import os
import re

from maft.errors import BadInput
from maft.export import numbers
from maft.export.ledger import Ledger, stages
from maft.export.target import Request, Sent
from maft.export.web import public

SHOWN = 8  # characters of the identity: trackio knows runs by their names
_PROJECT = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


def check(project: str) -> None:
    """BadInput where no project has that name."""
    if not _PROJECT.fullmatch(project):
        raise BadInput(f"--to trackio={project}: expected a project's name: letters, digits, _ - and .")


def send(request: Request) -> Sent:
    """Logs what the project does not have yet."""
    project = request.to
    check(project)
    place = where()
    ledger = Ledger(request.store, request.run.key, "trackio", f"{place}/{project}")
    parts = stages(request.run)
    name = f"{request.run.key}-{request.identity()[:SHOWN]}"
    ledger.known_as(name)
    missing = ledger.missing(parts)
    if missing:
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            _log(request, project, name, missing)
        ledger.arrived(name, {part: parts[part] for part in missing})
    return Sent(f"{place} project {project} run {name}", len(missing), (f"trackio show --project {project}",))


def where() -> str:
    """Returns the server that trackio's variables name, without its token; the folder of this machine where they name none."""
    if space := os.environ.get("TRACKIO_SPACE_ID"):
        return space
    if server := os.environ.get("TRACKIO_SERVER_URL"):
        return public(server).rstrip("/")
    from trackio.utils import TRACKIO_DIR

    return str(TRACKIO_DIR)


def _log(request: Request, project: str, name: str, parts: list[str]) -> None:
    import trackio

    run = trackio.init(
        project=project,
        name=name,
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
