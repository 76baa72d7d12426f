"""What targets of whole models have in common: which bases adapters may be added to, and the note of what a folder was made of."""

import json
from collections.abc import Callable
from pathlib import Path

from maft import revision
from maft.errors import BadInput
from maft.export import society
from maft.export.folders import folder
from maft.export.society import Agent
from maft.export.target import Request, Sent
from maft.spec import Spec


def spec(request: Request) -> Spec:
    """Returns the run's spec with the bases that its adapters were trained on: added to other weights they would make nobody's
    model. BadInput where a base is another one by now, or was trained on in 4 bits."""
    made, run = society.spec(request.run), request.run.key
    if made.training.base == "nf4":
        raise BadInput("training.base: nf4; adapters of a 4-bit base do not fit its full weights exactly; serve them as adapters")
    return revision.pinned(request.store, run, run, made)


def send(
    request: Request,
    kind: str,
    note: str,
    put: Callable[[Request, Spec, Agent, Path], None],
    line: Callable[[Path], str] | None = None,
) -> Sent:
    """Has a folder made for each adapter; those that are whole already stay. kind: how the folder of all is named where the user
    names none; note: the file that says what a folder was made of; put: makes one; line: what to do with one."""
    agents, into = request.agents(), folder(request, kind)
    made = spec(request)
    todo = [agent for agent in agents if not is_there(agent, into / agent.name / note)]
    for agent in todo:
        put(request, made, agent, into / agent.name)
    return Sent(str(into), len(todo), tuple(line(into / agent.name) for agent in agents[:1]) if line else ())


def made_of(agent: Agent) -> bytes:
    """Names the weights that a folder is made of; written into it last."""
    return json.dumps({"adapter": agent.adapter.name, "files": {f.name: f.sha256 for f in agent.commit.files}}).encode()


def is_there(agent: Agent, note: Path) -> bool:
    """Tells whether the folder of that note is whole and made of the agent's weights."""
    return note.is_file() and note.read_bytes() == made_of(agent)
