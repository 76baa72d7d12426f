"""GPU slots of this machine: who has which, and whether a run fits at all."""

from pathlib import Path

from maft_operator.plan.graph import Graph
from maft_operator.spec.schema import BadSpec


def count() -> int:
    """Counts NVIDIA GPUs of this machine."""
    return len([p for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdigit()])


class Slots:
    """Hands out GPU indices by holder. Without GPUs everything runs on the CPU and nothing is handed out."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._held: dict[str, tuple[int, ...]] = {}

    def acquire(self, holder: str, wanted: int) -> tuple[int, ...] | None:
        """Hands out indices to the holder, the same as before if it has some; None while there are too few."""
        if holder in self._held or not self.total:
            return self._held.get(holder, ())
        free = [i for i in range(self.total) if all(i not in held for held in self._held.values())]
        if len(free) < wanted:
            return None
        self._held[holder] = tuple(free[:wanted])
        return self._held[holder]

    def release(self, holder: str) -> None:
        """Takes back what the holder has."""
        self._held.pop(holder, None)


def fits(graph: Graph, total: int) -> None:
    """Raises BadSpec if the machine has GPUs but fewer than the run needs at one time."""
    if not total:
        return  # everything runs on the CPU
    servers = sum(s.gpus * s.replicas for s in graph.servers)
    training = max((t.gpus for t in graph.tasks), default=0)
    at_one_time = max(servers, training) if graph.servers_release_gpus else servers + training
    if at_one_time <= total:
        return
    if servers > total:
        raise BadSpec(
            f"inference.topology: the servers need {servers} GPUs, this machine has {total}; use Shared, or fewer gpus or replicas"
        )
    if training > total:
        raise BadSpec(f"training.gpus: {training} asked for, this machine has {total}")
    raise BadSpec(
        f"inference.lifetime: Run keeps {servers} GPUs while training needs {training}, this machine has {total}; use Phase"
    )
