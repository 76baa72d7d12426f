"""`--to vllm`: the adapters as folders and the command line with which vLLM serves them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from maft import models, vllm_rules
from maft.export import society
from maft.export.folders import folder, put_adapters, write
from maft.export.society import Agent
from maft.export.target import Request, Sent
from maft.records import BASE
from maft.spec import Spec

COMMAND = "serve.sh"


def flags(spec: Spec, agents: Sequence[Agent], into: Path) -> list[str]:
    """Writes what `vllm serve MODEL` is told so that each adapter is a model of its own name."""
    modules = [f"{agent.name}={into / agent.name}" for agent in agents]
    model = society.base(spec, agents)
    rank = vllm_rules.served_rank(spec.largest_rank)
    line = ["--served-model-name", BASE, "--generation-config", "vllm"]
    line += ["--revision", model.revision] if model.revision else []
    line += ["--trust-remote-code"] if model.trust_remote_code else []
    line += ["--max-model-len", str(model.max_length)] if model.max_length else []
    return [*line, "--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(len(agents)), "--lora-modules", *modules]


def _base(source: str) -> str:
    """Names a folder that is here so that the script starts from anywhere; a hub's name stays one."""
    return str(Path(source).absolute()) if models.is_path(source) and Path(source).is_dir() else source


def send(request: Request) -> Sent:
    """Writes the folders and a script that starts the server."""
    agents, into = request.agents(), folder(request, "vllm")
    new = put_adapters(request, agents, into)
    spec = society.spec(request.run)
    line = shlex.join(["vllm", "serve", _base(society.base(spec, agents).source), *flags(spec, agents, into)])
    new += write(into / COMMAND, f'#!/bin/sh\nexec {line} "$@"\n'.encode())
    (into / COMMAND).chmod(0o755)
    return Sent(str(into), new, (line,))
