"""The servers of a society that answers: one for all agents, or one for each base model that they have. Pure."""

from collections.abc import Mapping

from maft_operator.plan.graph import Server, adapters_of
from maft_operator.spec.parse import Run

Agents = tuple[int, ...]


def servers(run: Run, store: str, name: str, iteration: int, gpus: int | None) -> dict[Agents, Server]:
    """Plans them by the agents that each serves. name: of the one server; those of another base than the spec's carry the number
    of their first agent; gpus: of each."""
    groups = run.spec.by_base(run.spec.held_out_agents(iteration))
    return {tuple(group): _server(run, store, name, tuple(group), gpus) for group in groups}


def _server(run: Run, store: str, name: str, agents: Agents, gpus: int | None) -> Server:
    own = agents[0] if run.spec.has_own_model(agents[0]) else None
    adapters = max(1, adapters_of(run, tuple(agent for agent in run.spec.trained_agents if agent in agents)))
    return Server(name if own is None else f"{name}-{own}", run, store, adapters, gpus, agent=own)


def server_flags(name: str, urls: Mapping[Agents, str]) -> list[str]:
    """Writes where the society's program finds its servers: the one for all, or one for each agent, in their order."""
    if len(urls) == 1:
        return [f"--server={name}={url}" for url in urls.values()]
    by_agent = sorted((agent, url) for agents, url in urls.items() for agent in agents)
    return [f"--server={name}-{agent}={url}" for agent, url in by_agent]
