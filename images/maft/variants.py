"""Agents that are alike and agents that differ: which of them have the same model and adapters, and where their fields stand.

A run whose agents are alike is one variant: its spec. What loads a model or makes an adapter goes through the variants.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from maft.errors import BadInput
from maft.spec import Spec

_OVERRIDDEN = re.compile(r"training\.(?=lora\b)")


@dataclass(frozen=True, slots=True)
class Variant:
    """Agents that have the same model and adapters of the same kind."""

    spec: Spec
    """Of a run whose agents were all like these."""
    agents: tuple[int, ...]


def variants(spec: Spec) -> list[Variant]:
    """Sorts the agents that are trained, or the first where none is, by what they are made of."""
    groups: list[tuple[Spec, list[int]]] = []
    for agent in spec.trained_agents or (0,):
        own = _made_of(spec, agent)
        alike = next((agents for other, agents in groups if other == own), None)
        if alike is None:
            groups.append((own, [agent]))
        else:
            alike.append(agent)
    return [Variant(_with_overrides(own, spec, agents), tuple(agents)) for own, agents in groups]


def _made_of(spec: Spec, agent: int) -> Spec:
    """The spec with that agent's model and adapters, and nothing else of its own."""
    training = msgspec.structs.replace(spec.training, lora=spec.training_of(agent).lora)
    return msgspec.structs.replace(spec, training=training, agent_overrides=())


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
        if override is None or override.lora is None:
            raise
        raise BadInput(_OVERRIDDEN.sub(f"agentOverrides[agent={override.agent}].", str(error), count=1)) from error
