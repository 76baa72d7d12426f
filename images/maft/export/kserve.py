"""`--to kserve`: an LLMInferenceService that serves the base model with the adapters from where they lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from maft import models, vllm_rules
from maft.errors import BadInput
from maft.export import society
from maft.export.folders import write
from maft.export.society import Agent
from maft.export.target import Request, Sent
from maft.spec import ModelSpec

API = "serving.kserve.io/v1alpha1"


def manifest(request: Request, agents: Sequence[Agent]) -> dict[str, Any]:
    """Makes the resource; BadInput where its pods could not reach what it names."""
    spec, (namespace, _, name) = society.spec(request.run), request.run.key.partition("/")
    model = {
        "uri": _base(society.base(spec, agents)),
        "name": name,
        "lora": {"adapters": [_adapter(request, agent) for agent in agents]},
    }
    rank = vllm_rules.served_rank(spec.largest_rank)
    arguments = f"--max-lora-rank={rank} --max-loras={len(agents)} --generation-config=vllm"
    container = {"name": "main", "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": arguments}]}
    return {
        "apiVersion": API,
        "kind": "LLMInferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": model,
            "replicas": 1,
            "template": {"containers": [container]},
            "router": {"route": {}, "gateway": {}, "scheduler": {}},
        },
    }


def _base(model: ModelSpec) -> str:
    source = model.source
    if models.is_path(source):
        raise BadInput(f"model.source {source}: a folder of this machine, which pods of KServe cannot reach; put it into a bucket")
    if source.startswith("s3://"):
        return source.partition("?")[0]
    return f"hf://{source}" + (f":{model.revision}" if model.revision else "")


def _adapter(request: Request, agent: Agent) -> dict[str, str]:
    if not request.store.url.startswith("s3://"):
        raise BadInput(f"store {request.store.url}: a folder of this machine, which pods of KServe cannot reach; run with a bucket")
    return {"name": agent.name, "uri": f"{request.store.url}/{agent.commit.prefix}".rstrip("/")}


def send(request: Request) -> Sent:
    """Writes the resource as YAML."""
    path = Path(request.to or f"{request.name}-kserve.yaml").absolute()
    if path.is_dir():
        raise BadInput(f"--to kserve={request.to}: a folder; name a file")
    new = write(path, yaml.safe_dump(manifest(request, request.agents()), sort_keys=False).encode())
    return Sent(str(path), new, (f"kubectl apply -f {path}",))
