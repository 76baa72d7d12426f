"""The one loop body: observe, decide, act. Called by `maft run` on this machine and by the operator on a cluster."""

from typing import Protocol

from maft_operator.plan.graph import Graph, Observed, Server, Step, Task, step


class Backend(Protocol):
    """The seam: processes here, Kubernetes objects on a cluster, a table in tests. All methods may be repeated freely."""

    async def observe(self) -> Observed:
        """Everything of this run that exists, and what finished before."""

    async def create(self, item: Task | Server) -> None:
        """Starts the task or server, unless it runs already or it is too early after a failure."""

    async def delete(self, name: str) -> None:
        """Stops the task or server and forgets it; an unknown name is no error."""


async def reconcile(backend: Backend, graph: Graph) -> Step:
    """Reads the whole world and takes the next step in it. Deleting first: what goes may hold what comes next needs."""
    decided = step(graph, await backend.observe())
    for name in decided.delete:
        await backend.delete(name)
    for item in decided.create:
        await backend.create(item)
    return decided
