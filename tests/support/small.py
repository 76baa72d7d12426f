"""A small run of the demo's world, wherever it runs."""

import copy
from pathlib import Path
from typing import Any

from maft.spec import RunSpec
from maft_operator.spec.parse import parse

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "tiny"
MOCK = ROOT / "tests" / "support" / "mock_engine.py"
Json = dict[str, Any]


def resource(name: str = "test", *, base: Json | None = None, **spec: Any) -> Json:
    """The resource with some fields of the spec changed: sections field by field. base: changed before, by the place it runs at."""
    sections: Json = {
        "model": {"source": str(TINY)},
        "task": {"kind": "jsonl", "source": str(TINY / "questions.jsonl"), "prompt": "{question}", "train": 24, "heldOut": 16},
        "debate": {
            "maxTokens": 80,
            "prompts": {
                "summarize": "Summarize these answers.\n{answers}",
                "revise": "Other agents said: {summary} {question}",
                "concatenate": "Other agents said:\n{answers}\n{question}",
            },
        },
        "training": {
            "topology": "Shared",
            "lora": {"rank": 4, "alpha": 8},
            "learningRate": 0.003,
            "epochs": 1,
            "minExamples": 2,
        },
        "inference": {"topology": "Shared", "lifetime": "Run"},
    }
    for changes in (base or {}, spec):
        for key, value in changes.items():
            sections[key] = {**sections[key], **value} if isinstance(value, dict) and key in sections else value
    whole = {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentFinetune", "metadata": {"name": name}, "spec": sections}
    return copy.deepcopy(whole)


def a_spec(**spec: Any) -> RunSpec:
    """The records of such a run: what its programs get."""
    return parse(resource(**spec)).spec
