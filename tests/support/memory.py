"""A Backend in memory: what a cluster would do, in a table. Tests move it on with `finish`."""

from dataclasses import dataclass

from maft_operator.plan.graph import Server, Task
from maft_operator.plan.reconcile import Refusal
from maft_operator.plan.step import Observed, ServerState, TaskState


@dataclass(frozen=True)
class MemorySnapshot:
    observed: Observed


class MemoryBackend:
    """Tasks run until they are finished by hand; servers are ready when asked the second time."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskState] = {}
        self.servers: dict[str, ServerState] = {}
        self.created: list[str] = []

    async def observe(self) -> MemorySnapshot:
        seen = MemorySnapshot(Observed(dict(self.tasks), dict(self.servers)))
        self.servers = {name: ServerState(ready=True) for name in self.servers}
        return seen

    async def create(self, item: Task | Server) -> tuple[Refusal, ...]:
        if isinstance(item, Server):
            self.servers.setdefault(item.name, ServerState(ready=False))
        elif item.name not in self.tasks or self.tasks[item.name].status == "failed":
            before = self.tasks.get(item.name)
            self.tasks[item.name] = TaskState("running", before.failures if before else 0)
            self.created.append(item.name)
        return ()

    async def keep(self, item: Task | Server) -> tuple[Refusal, ...]:
        assert item.name in {*self.tasks, *self.servers}
        return ()

    async def delete(self, name: str) -> None:
        self.tasks.pop(name, None)
        self.servers.pop(name, None)

    async def finish(self, name: str, exit_code: int = 0, message: str = "") -> None:
        failures = self.tasks[name].failures
        done = TaskState("succeeded") if exit_code == 0 else TaskState("failed", failures + 1, exit_code, message)
        self.tasks[name] = done
