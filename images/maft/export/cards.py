"""Cards of adapters that leave the store: base model, what was learnt from, scores, license. In the form of Hugging Face."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from maft.export import reports, society
from maft.export.society import Agent
from maft.export.target import Request
from maft.records import Evaluation
from maft.store import layout
from maft.store.commits import fetch

CARD = "README.md"
Relation = Literal["adapter", "merged", "gguf"]
LIBRARIES: Mapping[Relation, str] = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}
_WHOLE: Mapping[Relation, str] = {
    "merged": "A whole model: the base with this adapter added to its weights. It loads as any other, without PEFT.",
    "gguf": "A whole model as one GGUF file, for llama.cpp and programs built on it: the base with this adapter added up.",
}
_REPORT = f"""All numbers, and debates to read: `{reports.REPORT}/{reports.PAGE}`, a page for any browser once it is downloaded;
`{reports.REPORT}/{reports.NUMBERS}` has the numbers for programs.
"""
TAGS = ["lora", "maft", "multiagent-finetuning"]


def card(request: Request, agent: Agent, relation: Relation = "adapter") -> str:
    """Writes the card of one adapter, or of the base with it merged in: what training wrote of it, then what was measured."""
    commit, source = agent.commit, society.spec(request.run).model_of(agent.adapter.agent).source
    trained = _body(fetch(request.store, commit, CARD).decode(), relation) if commit.has(CARD) else ""
    parts = (_title(agent, relation), trained, scores(request), _data(request), _license(request))
    return f"---\n{_head(request, relation, source)}---\n" + "\n".join(part for part in parts if part)


def overview(request: Request, agents: Sequence[Agent], *, report: bool = False) -> str:
    """Writes the card of a place that holds all of them. report: it has the run's report, too."""
    spec = society.spec(request.run)
    sources = society.sources(spec)
    rows = [f"| `{a.name}` | iteration {a.adapter.iteration} | {a.adapter.examples} | {a.commit.prefix} |" for a in agents]
    table = ["| folder | learnt in | examples | in the store |", "|---|---|---|---|", *rows]
    text = f"""# {request.name}

Adapters of `{"`, `".join(sources)}`, made by multiagent finetuning (arXiv 2501.05707) with {spec.agents} agents that debate over
{spec.debate.rounds} rounds. Generators give first answers, critics revise them after hearing the others; the majority answers.
"""
    return "\n".join(
        [
            f"---\n{_head(request, 'adapter', *sources)}---\n",
            text,
            *table,
            "",
            scores(request),
            *([_REPORT] if report else []),
            _data(request),
            _license(request),
        ]
    )


def _head(request: Request, relation: Relation, *sources: str) -> str:
    """The machine-readable part."""
    facts: dict[str, Any] = {
        "base_model": sources[0] if len(sources) == 1 else list(sources),
        "base_model_relation": "adapter" if relation == "adapter" else "finetune",  # the hub's words
        "library_name": LIBRARIES[relation],
        "pipeline_tag": "text-generation",
        "tags": TAGS,
        **({"license": request.license} if request.license else {}),
    }
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def _title(agent: Agent, relation: Relation) -> str:
    """Names the agent as vLLM and the folders do, from 1; the store counts from 0."""
    name = f"# {agent.name}, iteration {agent.adapter.iteration}\n"
    return f"{name}\n{_WHOLE[relation]}\n" if relation in _WHOLE else name


def _body(trained: str, relation: Relation) -> str:
    """Takes from the card that training wrote its machine-readable part, its title, and of a whole model how adapters load."""
    front = trained.startswith("---\n") and trained.count("---\n") > 1
    text = trained.split("---\n", 2)[2] if front else trained
    dropped = ("# ",) if relation == "adapter" else ("# ", "Load it with ")
    return "\n\n".join(part for part in text.strip("\n").split("\n\n") if not part.startswith(dropped)) + "\n"


def scores(request: Request) -> str:
    """Writes the held-out results as a table, the untrained model's first."""
    rows = [_row(evaluation) for evaluation in request.run.evaluations]
    if not rows:
        return "## Scores\n\nNothing was evaluated.\n"
    head = ["| iteration | questions | one first answer, % | majority of them, % | after the debate, % |", "|---|---|---|---|---|"]
    return "\n".join(["## Scores on held-out questions", "", *head, *rows, ""])


def _row(evaluation: Evaluation) -> str:
    answer, majority, debate = evaluation.answers[0].percent, evaluation.votes[0].percent, evaluation.votes[-1].percent
    return f"| {evaluation.iteration} | {evaluation.questions} | {answer} | {majority} | {debate} |"


def _data(request: Request) -> str:
    """Names the questions, and their hashes where the run has drawn its own."""
    task = society.spec(request.run).task
    files = request.run.problems.files if request.run.problems else ()
    hashes = [f"| `{file.name}` | `{file.sha256}` |" for file in files]
    where = json.dumps(task.source, ensure_ascii=False) if task.source else "made by rule"
    table = ["", f"| file below `{layout.PROBLEMS}` | sha256 |", "|---|---|", *hashes] if hashes else []
    return "\n".join(["## Questions", "", f"Kind `{task.kind}`, source {where}.", *table, ""])


def _license(request: Request) -> str:
    stated = f"`{request.license}`, as its publisher says" if request.license else "not stated"
    return f"## License\n\nOf this adapter: {stated}. The base model keeps its own, which also binds who uses the adapter.\n"
