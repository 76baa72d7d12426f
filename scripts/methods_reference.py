"""Writes the table of methods into docs/methods.md: what each sets is what maft_operator/spec/methods.py does to a spec."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from pages import with_part

from maft.spec import RunSpec
from maft_operator.spec.methods import METHODS
from maft_operator.spec.parse import Run, parse

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
BEGIN, END = "<!-- methods: scripts/methods_reference.py -->\n", "<!-- end of methods -->\n"
MAFT = "multiagent finetuning, arXiv 2501.05707"
SOURCES = {  # of each method; a test compares its keys with METHODS
    "multiagent": f"{MAFT}, sections 2 and 3",
    "base": MAFT,
    "majority": f"self-consistency, arXiv 2203.11171; {MAFT}",
    "equal-sample-majority": "ours, a control that the paper lacks",
    "debate": f"multiagent debate, arXiv 2305.14325; {MAFT}",
    "reflection": "a control; as in multiagent debate, arXiv 2305.14325",
    "star": f"STaR, arXiv 2203.14465; {MAFT}",
    "majority-finetuning": MAFT,
    "single-agent": f"{MAFT}, ablation",
    "single-agent-alone": f"{MAFT}, ablation",
    "union": "ours, a control that the paper lacks",
    "without-summary": f"{MAFT}, ablation",
    "without-critics": f"{MAFT}, ablation",
    "cooperative": f"{MAFT}, ablation",
    "dpo": "loss: arXiv 2305.18290, equation 7; pairs from debates: MACA, arXiv 2509.15172",
    "kto": "loss: arXiv 2402.01306, section 4.2; grades by the vote: MACA, arXiv 2509.15172",
    "distill": "after DTE, arXiv 2505.15734, and arXiv 2604.24881; hints: STaR, arXiv 2203.14465",
}
# The defaults, but for topologies: those are no part of what a method is.
EXAMPLE: dict[str, Any] = {
    "apiVersion": "maft.dev/v1alpha1",
    "kind": "MultiAgentFinetune",
    "metadata": {"name": "example"},
    "spec": {"model": {"source": "org/model"}, "task": {"kind": "arithmetic"}, "agents": 3},
}
SHARED: dict[str, Any] = {"training": {"topology": "Shared"}, "inference": {"topology": "Shared"}}
LEARNS = {
    "first": "first answers that equal the vote",
    "last": "last answers that equal the vote",
    "reworked": "first answers that equal the vote, reworked with the vote as a hint where the first did not",
    "hinted": "right answers, hinted where the first was wrong",
    "pairs": "pairs of first answers that do and do not equal the vote",
    "graded": "first answers, graded by whether they equal the vote",
}


def run(method: str) -> Run:
    """The example with that method."""
    return parse({**EXAMPLE, "spec": {**EXAMPLE["spec"], **SHARED, "method": method}})


def changes(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """The fields that differ, as a resource would set them."""
    for name, value in after.items():
        if name == "recipe":
            continue  # in words in the other columns
        if isinstance(value, dict):
            yield from changes(before[name], value, f"{path}{name}.")
        elif value != before[name] and name != "method":
            said = str(value).lower() if isinstance(value, bool) else str(value)
            yield f"`{path}{name}: {said}`"
    if "method" in after and path and after["method"] != before["method"]:
        yield f"`{path}method: {after['method']}`"


def fields(method: str) -> str:
    """What it sets; the number of samples of the fair control stands for its formula."""
    plain, changed = (msgspec.to_builtins(run(m).spec) for m in ("multiagent", method))
    found = ", ".join(changes(plain, changed)) or "nothing"
    return found.replace("`agents: 9`", "`agents:` N + 2·N·(M-1) (`summarize: false`: N·M; `mode: fast`: N + (N+1)·(M-1))")


def models(one: Run) -> str:
    """What is trained, on what."""
    spec: RunSpec = one.spec
    if not spec.iterations:
        return "none"
    roles = "generator and critic" if spec.debate.critics else "generator"
    learns = LEARNS[one.spec.examples] + (", and corrections" if spec.debate.critics else "")
    return f"{'one' if one.spec.recipe.one_model else 'each agent its'} {roles}: {learns}" + (
        " (of all agents)" if one.spec.recipe.one_model and spec.agents > 1 else ""
    )


def evaluated(one: Run) -> str:
    """How held-out questions are answered."""
    spec = one.spec
    if spec.agents == 1 and spec.debate.rounds > 1:
        return "the last of its own answers"
    if one.spec.recipe.alone or spec.agents == 1:
        return "one answer"
    if spec.debate.rounds == 1:
        return "vote"
    return "debate, vote"


def labels(one: Run) -> str:
    """Whether training reads reference answers."""
    return "**yes**" if one.spec.examples == "hinted" else "no"


def table() -> str:
    """A row per method."""
    lines = [
        "| method | what it is | trains | held-out questions | labels | sets | source |\n|---|---|---|---|---|---|---|\n",
    ]
    for name, method in METHODS.items():
        one = run(name)
        cells = (f"`{name}`", method.text, models(one), evaluated(one), labels(one), fields(name), SOURCES[name])
        lines.append("| " + " | ".join(cells) + " |\n")
    return "".join(lines)


def page() -> str:
    """The page with its table made anew."""
    return with_part(PAGE.read_text(), BEGIN, table(), END)


if __name__ == "__main__":
    PAGE.write_text(page())
