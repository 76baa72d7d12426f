"""What a run has to serve: its spec, the iteration whose adapters answer, and the models that a request may name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec
from msgspec.structs import replace

from maft import adapters, records, stopping, validation
from maft.committed_run import check_is_run
from maft.debate import society
from maft.debate.society import Rules, Society
from maft.errors import BadInput
from maft.records import BASE, Formatted
from maft.society_spec import SocietySpec
from maft.spec import Spec
from maft.store import layout
from maft.store.base import Missing, Store

SOCIETY, MAJORITY = "society", "society/majority"


class _Begun(Formatted, frozen=True, kw_only=True):
    """What run.json says of a run's beginning."""

    spec: Spec


@dataclass(frozen=True, slots=True)
class Served:
    """The society as it answers."""

    players: Society
    rules: Rules
    agents: Mapping[str, tuple[int, str]]
    """By the name in requests: an agent, from 0, and the model that it is asked as."""

    @property
    def models(self) -> tuple[str, ...]:
        """Lists what a request may name."""
        return (SOCIETY, MAJORITY, *self.agents)

    @property
    def adapters(self) -> int:
        """Counts the adapters that are asked for at a time."""
        return len(self.players.models() - {BASE})


def begun(store: Store, run: str) -> Spec:
    """Reads the spec that the run began with; BadInput where there is no run."""
    key = f"{run}/{layout.RUN}"
    try:
        return records.decode(store.read(key), _Begun, f"{store.url}/{key}").spec
    except Missing:
        raise BadInput(f"{store.url}/{run}: no run is there (no {layout.RUN}); name it as STORE/NAMESPACE/NAME") from None


def chosen(store: Store, run: str, spec: Spec) -> int:
    """Finds whose adapters answer where nobody says: the best iteration once validation questions have chosen one, else the last of
    which every adapter is committed. BadInput if there is none."""
    if not spec.iterations:
        raise BadInput(f"{run}: iterations: 0, so the run trains no adapters; serve one that does")
    decided = _decided(store, run, spec)
    best = (decided.best,) if decided else ()
    for iteration in chain(best, range(spec.iterations, 0, -1)):
        if adapters.are_all_there(store, run, iteration):
            return iteration
    check_is_run(store, run, spec.seed)
    raise BadInput(
        f"{store.url}/{run}: no adapters yet; the training of iteration 1 has to finish first (`maft run` goes on with it)"
    )


def _decided(store: Store, run: str, spec: Spec) -> stopping.Decision | None:
    """What validation questions have decided by now."""
    return stopping.decision(spec, validation.known(store, run, stopping.validated(spec)))


def load(store: Store, run: str, spec: Spec, iteration: int, servers: Sequence[str], asked: SocietySpec) -> Served:
    """Loads the society after that iteration; BadInput if its training has not finished, or trained nothing."""
    decided = _decided(store, run, spec)
    last = decided.last if decided else spec.iterations
    if not 1 <= iteration <= last:
        early = f"stopped after iteration {last} (stopWhen); it " if last < spec.iterations else ""
        raise BadInput(f"--iteration {iteration}: the run {early}has the iterations 1 to {last}")
    agents = spec.held_out_agents(iteration)
    if spec.bases_differ and len(servers) != agents:
        raise BadInput(
            f"--server: {len(servers)} given; the {agents} agents of {run} have several base models, so give each its own"
        )
    players = society.load(store, run, spec, iteration, agents, servers)
    if players.models() == {BASE}:
        raise BadInput(
            f"{run}: iteration {iteration} trained no adapter, every agent had too few examples; lower training.minExamples, or ask"
            " more questions"
        )
    return Served(players, _rules(spec, iteration, asked), _agents(players, critics=spec.debate.critics))


def _rules(spec: Spec, iteration: int, asked: SocietySpec) -> Rules:
    """Those of held-out questions, in the words of the task that the agents learnt."""
    own = replace(spec, evaluation=replace(spec.evaluation, task=None))
    if asked.mode:
        own = replace(own, debate=replace(own.debate, mode=asked.mode))
    return society.held_out_rules(own, iteration)


def _agents(players: Society, *, critics: bool) -> dict[str, tuple[int, str]]:
    roles = [("generator", players.generators), *([("critic", players.critics)] if critics else [])]
    return {f"{SOCIETY}/{role}-{n}": (n - 1, model) for role, models in roles for n, model in enumerate(models, 1)}


def facts(store: Store, run: str, spec: Spec, iteration: int) -> str:
    """Writes what somebody who starts a server for the society has to know, as JSON."""
    served = load(store, run, spec, iteration, ["society"] * spec.held_out_agents(iteration), SocietySpec())
    known = {"spec": spec, "iteration": iteration, "adapters": served.adapters, "models": served.models}
    return msgspec.json.encode(known).decode()
