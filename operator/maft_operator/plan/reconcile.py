"""The one loop body: observe, decide, act. Called by `maft run` on this machine and by the operator on a cluster."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from maft_operator.plan.best import settled
from maft_operator.plan.graph import Graph, Server, Task
from maft_operator.plan.step import Observed, Step, step


class Snapshot(Protocol):
    """What a backend has seen at one moment; the states of tasks and servers are what decisions are made from."""

    @property
    def observed(self) -> Observed:
        """Returns states by name."""


Snapshot_co = TypeVar("Snapshot_co", bound=Snapshot, covariant=True)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that will not be made, and why, in the words of whoever refused it."""

    child: str
    message: str


class Backend(Protocol[Snapshot_co]):
    """The seam: processes here, Kubernetes objects on a cluster, a table in tests. All methods may be repeated freely."""

    async def observe(self) -> Snapshot_co:
        """Looks at everything of this run that exists, and at what finished before."""

    async def create(self, item: Task | Server) -> tuple[Refusal, ...]:
        """Starts the task or server, unless it runs already or it is too early after a failure."""

    async def keep(self, item: Task | Server) -> tuple[Refusal, ...]:
        """Brings what exists back to what was made, where somebody changed it."""

    async def delete(self, name: str) -> None:
        """Stops the task or server and forgets it; an unknown name is no error."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Snapshot_co]):
    """One turn of the loop: what was decided, from what, and what was refused."""

    step: Step
    snapshot: Snapshot_co
    refusals: tuple[Refusal, ...]
    graph: Graph
    """What is to be done, as far as that is known by now."""


async def reconcile(backend: Backend[Snapshot_co], graph: Graph) -> Outcome[Snapshot_co]:
    """Looks at everything that exists and takes the next step. Deleting first: what goes may hold what comes next needs."""
    snapshot = await backend.observe()
    graph = settled(graph, snapshot.observed)
    decided = step(graph, snapshot.observed)
    for name in decided.delete:
        await backend.delete(name)
    refused = [await backend.create(item) for item in decided.create] + [await backend.keep(item) for item in decided.keep]
    return Outcome(decided, snapshot, tuple(refusal for several in refused for refusal in several), graph)
