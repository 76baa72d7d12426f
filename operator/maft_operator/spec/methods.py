"""Methods and baselines as variations of the spec (paper, sections 3 and 4; two fair controls that it lacks). Pure.

A method changes fields of the spec that users could set themselves, and says in a Recipe what the spec has no field for: how many
models are trained and from which answers. The plan knows recipes only, so a baseline is a run like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from maft.spec import Examples, Recipe, RunSpec
from maft_operator.spec.schema import BadSpec

T = TypeVar("T")

PAPER = Recipe()


@dataclass(frozen=True, slots=True)
class Method:
    """A variation of the spec."""

    text: str
    """What it is called in tables."""
    change: Callable[[RunSpec], dict[str, Any]]
    """The fields of the spec that it sets, from the spec."""
    recipe: Recipe = PAPER
    needs_rounds: bool = True
    """It is about debate."""


def _calls(spec: RunSpec) -> int:
    """Samples that cost what a debate costs: its answers and summaries (method, section 2)."""
    summaries = spec.debate.summarize * (1 if spec.debate.mode == "fast" else spec.agents)
    return int(spec.agents + (spec.agents + summaries) * (spec.debate.rounds - 1))


UNTRAINED: dict[str, Any] = {"iterations": 0, "debate": {"critics": False}}
ONE_ROUND: dict[str, Any] = {"debate": {"rounds": 1, "critics": False, "cooperative": False}}
SHARED: dict[str, Any] = {"inference": {"topology": "Shared"}, "training": {"topology": "Shared"}}


def _together(spec: RunSpec) -> dict[str, Any]:
    """One server for all agents, unless they have several base models."""
    return {"training": SHARED["training"]} if spec.bases_differ else SHARED


METHODS: dict[str, Method] = {
    "multiagent": Method("multiagent finetuning", lambda s: {}, needs_rounds=False),
    "base": Method("base, one answer", lambda s: {**UNTRAINED, **ONE_ROUND, **SHARED, "agents": 1}, needs_rounds=False),
    "majority": Method("majority of N", lambda s: {**UNTRAINED, **ONE_ROUND, **_together(s)}, needs_rounds=False),
    "equal-sample-majority": Method(
        "majority of as many samples as the debate makes calls", lambda s: {**UNTRAINED, **ONE_ROUND, **SHARED, "agents": _calls(s)}
    ),
    "debate": Method("debate, untrained", lambda s: {**UNTRAINED, **_together(s)}),
    "reflection": Method(
        "one agent, revises its own answer",
        lambda s: {**UNTRAINED, **SHARED, "agents": 1, "debate": {"critics": False, "summarize": False, "cooperative": False}},
    ),
    "star": Method(
        "STaR (uses labels)",
        lambda s: {**ONE_ROUND, **SHARED, "agents": 1},
        Recipe(one_model=True, examples="hinted"),
        needs_rounds=False,
    ),
    "majority-finetuning": Method(
        "majority finetuning", lambda s: {**ONE_ROUND, **SHARED}, Recipe(one_model=True), needs_rounds=False
    ),
    "single-agent": Method(
        "single agent, its copies debate", lambda s: {**SHARED, "debate": {"critics": False}}, Recipe(one_model=True)
    ),
    "single-agent-alone": Method(
        "single agent, alone", lambda s: {**SHARED, "debate": {"critics": False}}, Recipe(one_model=True, alone=True)
    ),
    "union": Method("one model on all agents' data, its copies debate", lambda s: SHARED, Recipe(one_model=True)),
    "without-summary": Method("multiagent without summaries", lambda s: {"debate": {"summarize": False}}),
    "without-critics": Method("multiagent without critics", lambda s: {"debate": {"critics": False}}),
    "cooperative": Method("multiagent, cooperative", lambda s: {"debate": {"cooperative": True}}),
    "dpo": Method("multiagent, preferences (DPO)", lambda s: {"training": {"method": "dpo"}}, needs_rounds=False),
    "kto": Method("multiagent, graded answers (KTO)", lambda s: {"training": {"method": "kto"}}, needs_rounds=False),
    "distill": Method("the society distilled into one model, alone", lambda s: {"training": {"method": "distill"}}),
}


_PREFERENCES: dict[str, tuple[Examples, str]] = {  # what they learn from, and why that takes several agents
    "dpo": ("pairs", "prefers one agent's answer to another's"),
    "kto": ("graded", "grades an agent's answers by the others' vote"),
}


def applied(spec: RunSpec) -> RunSpec:
    """Makes the changes of the spec's method and of its way of training, and sets its recipe; BadSpec where the method does
    not fit."""
    method = METHODS.get(spec.method)
    if method is None:  # of a newer release
        raise BadSpec(f"method: {spec.method!r}; expected one of {', '.join(METHODS)}")
    if method.needs_rounds and spec.debate.rounds < 2:
        raise BadSpec(f"method: {spec.method} is about debate, and debate.rounds is {spec.debate.rounds}; set it to 2 or more")
    changed = _changed(spec, {**method.change(spec), "recipe": method.recipe})
    changed = _of_one_base(changed)
    if changed.debate.min_agreement > changed.agents:
        changed = _changed(changed, {"debate": {"min_agreement": changed.agents}})
    return _trained(changed)


def _trained(spec: RunSpec) -> RunSpec:
    """training.method: dpo trains generators on pairs, kto on graded answers; distill trains one model on the society's
    answers (training.distillFrom), and it answers alone."""
    if spec.training.method == "sft" or not spec.iterations:
        return spec
    if spec.recipe.examples == "hinted":
        raise BadSpec(f"training.method: {spec.method} finetunes on right answers; set sft in place of {spec.training.method}")
    preference = _PREFERENCES.get(spec.training.method)
    if preference and spec.agents < 2:
        raise BadSpec(f"training.method: {spec.training.method} {preference[1]}, and agents is 1; set it to 2 or more")
    spec = _changed(spec, {"debate": {"critics": False}})
    if preference:
        return replace(spec, recipe=replace(spec.recipe, examples=preference[0]))
    if spec.training.distill_from == "reworked" and spec.task.answer_kind == "code":
        raise BadSpec("training.distillFrom: reworked shows the vote's answer, of a program what it gives; set first or last")
    return replace(_of_one_base(_changed(spec, SHARED)), recipe=replace(spec.recipe, one_model=True, examples="last", alone=True))


def _of_one_base(spec: RunSpec) -> RunSpec:
    """Where a method has one server for all agents, or copies of one model, that is the spec's model. Whether another model thinks,
    and which of its layers have adapters, goes with it."""
    if spec.inference.topology != "Shared":
        return spec
    alike = (replace(o, model=None, thinking=None, lora=None) if o.model else o for o in spec.agent_overrides)
    return replace(spec, agent_overrides=tuple(alike))


def _changed(part: T, changes: dict[str, Any]) -> T:
    """A copy with some fields set, also of sections."""
    values = {name: _changed(getattr(part, name), value) if isinstance(value, dict) else value for name, value in changes.items()}
    return replace(part, **values)  # type: ignore[type-var]
