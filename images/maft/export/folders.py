"""Adapters, and other files, as folders on this machine. What is there already, byte by byte, is not written again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maft.errors import BadInput
from maft.export.cards import CARD, card
from maft.export.society import Agent
from maft.export.target import Request, Sent
from maft.store import unfinished
from maft.store.base import explained
from maft.store.commits import fetch_file
from maft.store.uploads import measured, plain_name


def folder(request: Request, kind: str, default: str = "") -> Path:
    """Returns the folder that is written to, RUN-KIND if the user named none and it has no other default; BadInput where
    something else is in its place."""
    path = Path(request.to or default or f"{request.name}-{kind}").absolute()
    if path.exists() and not path.is_dir():
        raise BadInput(f"--to {kind}={request.to or path.name}: no folder; name one, or a place where one can be made")
    return path


def put_adapters(request: Request, agents: Sequence[Agent], into: Path) -> int:
    """Writes each adapter as a folder of its name with a card; returns how many files are new."""
    return sum(put_adapter(request, agent, into / agent.name) for agent in agents)


def put_adapter(request: Request, agent: Agent, into: Path) -> int:
    """Writes one adapter; a file appears whole or not at all."""
    unfinished.remove_stale(into)
    new = write(into / CARD, card(request, agent).encode())
    for entry in agent.commit.files:
        path = into / plain_name(entry.name)
        if entry.name == CARD or (path.is_file() and measured(path) == (entry.size, entry.sha256)):
            continue
        with explained(f"folder {into}"), unfinished.appearing(path) as part:
            fetch_file(request.store, agent.commit, entry.name, part)
        new += 1
    return new


def put_files(files: Mapping[str, bytes], into: Path) -> None:
    """Writes files of these names into a folder."""
    for name, data in files.items():
        write(into / name, data)


def write(path: Path, data: bytes) -> int:
    """Writes a file, all or nothing; returns 0 where it is there with those bytes."""
    with explained(f"folder {path.parent}"):
        if path.is_file() and path.read_bytes() == data:
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.appearing(path) as part:
            part.write_bytes(data)
    return 1


def send(request: Request) -> Sent:
    """Writes every adapter as a PEFT directory with its card."""
    agents, into = request.agents(), folder(request, "peft", f"{request.name}-adapters")
    new = put_adapters(request, agents, into)
    lines = tuple(f"peft.PeftModel.from_pretrained(base, {str(into / agent.name)!r})" for agent in agents[:1])
    return Sent(str(into), new, lines)
