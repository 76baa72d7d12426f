"""The model card of an adapter, in the form of Hugging Face."""

from collections.abc import Mapping
from typing import Any

from maft.program import Assignment
from maft.records import Adapter

LEARNT = {  # by what an example is (maft.spec.Examples): what the card says it learnt from
    "first": "that agree with the majority of the debate; no reference answers were used",
    "last": "at the end of the debate that agree with its majority; no reference answers were used",
    "reworked": "that agree with the majority of the debate, some of them given with it as a hint; no reference answers were used",
    "hinted": "that equal the reference answers, some of them after a hint",
    "pairs": "that agree with the majority of the debate, preferred to others that do not; no reference answers were used",
    "graded": "graded by whether they agree with the majority of the debate; no reference answers were used",
}


def card(assignment: Assignment, made: Adapter, data: Mapping[str, Any]) -> str:
    """Writes the adapter's model card. data: the meta of its datasets' commit."""
    model, training = assignment.spec.model_of(made.agent), assignment.spec.training_of(made.agent)
    adapter = training.lora
    whose = "all agents" if data.get("pooled") else "this agent"
    return f"""---
base_model: {model.source}
library_name: peft
tags: [lora, maft, multiagent-finetuning]
---

# {made.role} of agent {made.agent}, iteration {made.iteration}

A LoRA adapter made by multiagent finetuning (arXiv 2501.05707) of `{model.source}`, run `{assignment.run}`.
{"It gives first answers." if made.role == "generator" else "It revises answers after hearing a summary of the others'."}
It was trained on {made.examples} outputs of {whose} {LEARNT[data.get("examples", "first")]}.

| steps | epochs | batch | learning rate | rank | alpha | loss, first tenth | loss, last tenth |
|---|---|---|---|---|---|---|---|
| {made.steps} | {training.epochs} | {training.batch_size} | {training.peak_rate:g} | {adapter.rank} | {adapter.alpha} \
| {made.loss_first} | {made.loss_last} |

Load it with `peft.PeftModel.from_pretrained(base, "<this folder>")`, or name it in a request to a vLLM server with LoRA enabled.
"""
