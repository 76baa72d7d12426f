"""What targets of whole models have in common: which bases adapters may be added to, and the note of what a folder was made of."""

import json
from pathlib import Path

from maft import revision
from maft.errors import BadInput
from maft.export import society
from maft.export.society import Agent
from maft.export.target import Request
from maft.spec import Spec


def spec(request: Request) -> Spec:
    """Returns the run's spec with the bases that its adapters were trained on: added to other weights they would make nobody's
    model. BadInput where a base is another one by now, or was trained on in 4 bits."""
    made, run = society.spec(request.run), request.run.key
    if made.training.base == "nf4":
        raise BadInput("training.base: nf4; adapters of a 4-bit base do not fit its full weights exactly; serve them as adapters")
    return revision.pinned(request.store, run, run, made)


def made_of(agent: Agent) -> bytes:
    """Names the weights that a folder is made of; written into it last."""
    return json.dumps({"adapter": agent.adapter.name, "files": {f.name: f.sha256 for f in agent.commit.files}}).encode()


def is_there(agent: Agent, note: Path) -> bool:
    """Tells whether the folder of that note is whole and made of the agent's weights."""
    return note.is_file() and note.read_bytes() == made_of(agent)
