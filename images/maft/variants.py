"""Agents that are alike and agents that differ: which of them have the same model and adapters, and where their fields stand.

A run whose agents are alike is one variant: its spec. What loads a model or makes an adapter goes through the variants.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from maft.errors import BadInput
from maft.spec import Spec

# How what is refused begins, and the field of the override that it is about.
_FIELDS = {"model.": "model", "training.lora": "lora", "debate.thinking:": "thinking"}


@dataclass(frozen=True, slots=True)
class Variant:
    """Agents that have the same model, asked the same way, and adapters of the same kind."""

    spec: Spec
    """Of a run whose agents were all like these."""
    agents: tuple[int, ...]


def variants(spec: Spec) -> list[Variant]:
    """Sorts the agents by what they are made of. Copies of one model have its adapters, and may be asked differently."""
    groups: list[tuple[Spec, list[int]]] = []
    for agent in range(spec.agents):
        own = _made_of(spec, agent)
        alike = next((agents for other, agents in groups if other == own), None)
        if alike is None:
            groups.append((own, [agent]))
        else:
            alike.append(agent)
    return [Variant(_with_overrides(own, spec, agents), tuple(agents)) for own, agents in groups]


def _made_of(spec: Spec, agent: int) -> Spec:
    """The spec with that agent's model and adapters, where it has some, and nothing else of its own."""
    lora = spec.training_of(0 if spec.recipe.one_model else agent).lora if spec.iterations else spec.training.lora
    return msgspec.structs.replace(
        spec,
        model=spec.model_of(agent),
        debate=msgspec.structs.replace(spec.debate, thinking=spec.debate_of(agent).thinking),
        training=msgspec.structs.replace(spec.training, lora=lora),
        agent_overrides=(),
    )


def _with_overrides(own: Spec, spec: Spec, agents: list[int]) -> Spec:
    """What these agents say and how they sample differs as before; of one variant it is the spec itself."""
    if own == msgspec.structs.replace(spec, agent_overrides=()):
        return spec
    kept = tuple(each for each in spec.agent_overrides if each.agent in agents)
    return msgspec.structs.replace(own, agent_overrides=kept)


@contextlib.contextmanager
def named(spec: Spec, variant: Variant) -> Iterator[None]:
    """Names in a BadInput the field of the override, where the variant has that section otherwise than the spec."""
    try:
        yield
    except BadInput as error:
        override = next((each for each in spec.agent_overrides if each.agent == variant.agents[0]), None)
        place = next((of for field, of in _FIELDS.items() if str(error).startswith(field)), None)
        if override is None or place is None or getattr(override, place) is None:
            raise
        own = str(error).removeprefix("training.").removeprefix("debate.")
        raise BadInput(f"agentOverrides[agent={override.agent}].{own}") from error
