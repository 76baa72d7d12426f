"""The agents of a run after one iteration: which adapters they are, and under which names others know them.

Names count from 1 and say no iteration, as those of a society that answers do: generator-1, critic-1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maft import adapters, revision, stopping
from maft.committed_run import IterationCommits, RunCommits
from maft.errors import BadInput
from maft.records import Adapter, Commit
from maft.spec import ModelSpec, Spec
from maft.store.base import Store
from maft.store.commits import required


@dataclass(frozen=True, slots=True)
class Agent:
    """One adapter as one agent uses it in one role."""

    name: str
    adapter: Adapter
    commit: Commit
    """Of its weights; an agent that learnt nothing in an iteration keeps those of an earlier one."""


def spec(run: RunCommits) -> Spec:
    """Returns the run's spec with the commits of its models, however their branches moved since; BadInput where it has none of its
    own."""
    if run.spec is None:
        raise BadInput(f"run {run.key}: it has no spec of its own; `maft compare`, which has made it, gives it one when it goes on")
    pinned = revision.with_revision(run.spec, str(run.meta.get(revision.META) or ""))
    return revision.with_own(pinned, run.meta.get(revision.OWN))


def base(spec: Spec, agents: Sequence[Agent]) -> ModelSpec:
    """Returns the base of these agents; BadInput where they have several, for a server has one."""
    first, *others = [spec.model_of(agent.adapter.agent) for agent in agents]
    if other := next((model for model in others if model != first), None):
        raise BadInput(
            f"agentOverrides: the agents' base models are {first.source} and {other.source}, and one server has one; name agents"
            " of one of them with --only"
        )
    return first


def sources(spec: Spec) -> list[str]:
    """Names the base models of a run."""
    return list(dict.fromkeys(spec.model_of(n).source for n in (spec.trained_agents or (0,))))


def iteration(run: RunCommits, asked: int | None) -> IterationCommits:
    """Finds the iteration whose adapters are wanted, by default the best on the validation questions, and where there are none the
    last that has all adapters; BadInput if there is none."""
    whole = [i for i in run.iterations if i.training.complete]
    best = stopping.chosen(run.spec, run.validations)
    if asked is None and whole:
        return next((i for i in whole if i.number == best), whole[-1])
    if match := [i for i in whole if i.number == asked]:
        return match[0]
    numbers = ", ".join(str(i.number) for i in whole) or "none"
    if asked is None:
        raise BadInput(f"run {run.key}: has no trained adapters; wait for its first iteration, or export a run that trains")
    raise BadInput(f"--iteration {asked}: run {run.key} has no adapters of it; iterations with all adapters: {numbers}")


def agents(store: Store, run: RunCommits, asked: int | None, only: Sequence[str] = ()) -> tuple[Agent, ...]:
    """Lists the agents after that iteration that are no longer the base model; BadInput where that is nobody.

    only: names of those that are wanted; none: all."""
    chosen = iteration(run, asked)
    there = tuple(_agents(store, run.key, chosen.training.adapters))
    if not there:
        raise BadInput(f"run {run.key}: nothing was trained up to iteration {chosen.number}; every agent is the base model")
    if unknown := sorted(set(only) - {agent.name for agent in there}):
        raise BadInput(f"--only {unknown[0]}: no such adapter; there are {', '.join(agent.name for agent in there)}")
    return tuple(agent for agent in there if not only or agent.name in only)


def _agents(store: Store, run: str, trained: Iterable[Adapter]) -> Iterable[Agent]:
    for adapter in trained:
        if place := adapters.locate(adapter.name, run):
            yield Agent(f"{adapter.role}-{adapter.agent + 1}", adapter, required(store, place[0], "training"))
