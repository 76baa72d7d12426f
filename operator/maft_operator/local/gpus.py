"""GPUs of this machine: which may be used, who has which, and whether a run fits at all."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from maft import visible
from maft.visible import Shown
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Graph, Server, Task, adapters_of
from maft_operator.spec.schema import BadSpec


@dataclass(frozen=True, slots=True)
class Found:
    """What may be used here."""

    gpus: tuple[str, ...]
    """As the variable names them: indices, UUIDs, parts of a GPU."""
    limit: str = ""
    """NAME=value that says so, where a variable does."""

    @property
    def for_one(self) -> int:
        """Counts those that one process can use: of parts of a GPU (MIG) CUDA opens one alone."""
        return min(1, len(self.gpus)) if visible.parts(self.gpus) else len(self.gpus)

    def __str__(self) -> str:
        how_many = f"{len(self.gpus)} GPU{'s' if len(self.gpus) > 1 else ''}" if self.gpus else "no GPU"
        return how_many + (f" ({self.limit})" if self.limit else "")


def find(environment: Mapping[str, str] = os.environ, shown: Shown | None = None) -> Found:
    """Finds the GPUs of this machine that the environment lets be used."""
    there = visible.shown() if shown is None else shown
    return Found(visible.usable(environment, there), visible.given(environment, amd=there.amd) or "")


class Slots:
    """Hands out GPUs by holder. Where there is none, nothing is handed out and programs find out what there is."""

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self._gpus = tuple(gpus)
        self._held: dict[str, tuple[str, ...]] = {}

    def acquire(self, holder: str, wanted: int | None) -> tuple[str, ...] | None:
        """Hands out GPUs to the holder, the same as before if it has some; None while there are too few."""
        if holder in self._held or not self._gpus or wanted is None:
            return self._held.get(holder, ())
        free = [gpu for gpu in self._gpus if all(gpu not in held for held in self._held.values())]
        if len(free) < wanted:
            return None
        self._held[holder] = tuple(free[:wanted])
        return self._held[holder]

    @property
    def held(self) -> int:
        """Counts the GPUs that are handed out."""
        return sum(map(len, self._held.values()))

    def release(self, holder: str) -> None:
        """Takes back what the holder has."""
        self._held.pop(holder, None)


def environment(
    item: Task | Server, held: Sequence[str], inherited: Mapping[str, str] = os.environ, shown: Shown | None = None
) -> dict[str, str]:
    """Makes what shows a program the GPUs that it holds, and no other; nothing where it is to find out by itself."""
    if not plan.on_a_device(item) or (item.gpus != 0 and not held):
        return {}
    amd = (visible.shown() if shown is None else shown).amd
    return dict.fromkeys(visible.variables(inherited, amd=amd), ",".join(held))


def compiled(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Makes what tells libraries where to keep what they compile: below the user's cache, so that the next start finds it."""
    home = inherited.get("HOME") or str(Path.home())
    given = inherited.get("MAFT_CACHE") or inherited.get("XDG_CACHE_HOME")
    folder = Path(given or f"{home}/.cache")
    places = {
        "VLLM_CACHE_ROOT": folder / "vllm",
        "TRITON_CACHE_DIR": folder / "triton",
        "TORCHINDUCTOR_CACHE_DIR": folder / "inductor",  # by itself below /tmp
        "FLASHINFER_WORKSPACE_BASE": given or home,  # it goes on with .cache/flashinfer
    }
    return {name: str(place) for name, place in places.items() if not inherited.get(name)}


def dealt(graph: Graph, devices: Found) -> Graph:
    """Decides what the spec leaves open: a GPU for a server, and for training as many as there are and it has use for. Servers that
    would stay and leave none for it make room: a number that was given is refused by `fits` then.

    Where no GPU is seen, that stays open: programs look for themselves, and take the CPU."""
    if not devices.gpus:
        return graph
    servers = tuple(replace(s, gpus=1) if s.gpus is None else s for s in graph.servers)
    left, is_open = len(devices.gpus) - _held(servers), any(t.kind == "train" and t.gpus is None for t in graph.tasks)
    releases = graph.servers_release_gpus or (is_open and left < 1)
    free = len(devices.gpus) if releases else left
    tasks = tuple(replace(t, gpus=min(_of_use(t, graph, free), devices.for_one)) if t.gpus is None else t for t in graph.tasks)
    return replace(graph, servers=servers, tasks=tasks, servers_release_gpus=releases)


def _held(servers: Sequence[Server]) -> int:
    return sum((s.gpus or 0) * s.replicas for s in servers)


def _of_use(task: Task, graph: Graph, left: int) -> int:
    """GPUs for one process of training: its part of what is there, as many as it has adapters at most."""
    if task.kind != "train":
        return 1
    beside = sum(t.kind == "train" and (t.run.key, t.iteration) == (task.run.key, task.iteration) for t in graph.tasks)
    return max(1, min(left // beside, adapters_of(task.run, task.agents)))


def fits(graph: Graph, devices: Found) -> None:
    """Raises BadSpec if the machine has fewer GPUs than the run needs at one time, or would have to be several."""
    if (nodes := max((t.nodes for t in graph.tasks), default=1)) > 1:
        raise BadSpec(f"training.nodes: {nodes} asked for, and this is one machine; set it to 1, or use a cluster")
    total = len(devices.gpus)
    servers, training = _held(graph.servers), max((t.gpus or 0 for t in graph.tasks), default=0)
    at_one_time = max(servers, training) if graph.servers_release_gpus else servers + training
    _fits_parts(graph, devices)
    if not total and any(t.kind == "train" and t.run.spec.training.base == "nf4" for t in graph.tasks):
        raise BadSpec(f"training.base: nf4 needs a GPU, this machine has {devices}; set base to full")
    if at_one_time <= total:
        return
    if not total:
        field, asked = ("inference.gpus", max(s.gpus or 0 for s in graph.servers)) if servers else ("training.gpus", training)
        raise BadSpec(f"{field}: {asked} asked for, this machine has {devices}; leave it out to use the CPU")
    if servers > total:
        own = any(server.run.spec.bases_differ for server in graph.servers)
        instead = "fewer agents, or leave their models out (agentOverrides)" if own else "Shared"
        raise BadSpec(
            f"inference.topology: the servers need {servers} GPUs, this machine has {devices};"
            f" use {instead}, or fewer gpus or replicas"
        )
    if training > total:
        raise BadSpec(f"training.gpus: {training} asked for, this machine has {devices}")
    raise BadSpec(
        f"inference.lifetime: Run keeps {servers} GPUs while training needs {training}, this machine has {devices}; use Phase"
    )


def _fits_parts(graph: Graph, devices: Found) -> None:
    fields = [("inference.gpus", s.gpus or 0) for s in graph.servers] + [("training.gpus", t.gpus or 0) for t in graph.tasks]
    field, asked = max(fields, key=lambda each: each[1], default=("", 0))
    if asked > devices.for_one and visible.parts(devices.gpus):
        raise BadSpec(f"{field}: {asked} asked for, and a process uses one part of a GPU (MIG) of the {devices} here; set it to 1")


def device_line(graph: Graph, devices: Found) -> str:
    """Writes in a line what servers and training use."""
    server = next(iter(graph.servers), None)
    training = max((t for t in graph.tasks if t.kind == "train"), key=lambda t: t.gpus or 0, default=None)
    users = [("a server", server), ("a training process", training)]
    in_turn = graph.servers_release_gpus and graph.last.run.spec.inference.lifetime == "Run"
    instead = ", one after the other (inference.lifetime: Run would leave training none)" if in_turn else ""
    return f"Devices: {devices} here; " + ", ".join(f"{who} uses {_uses(item)}" for who, item in users if item) + instead


def _uses(item: Task | Server) -> str:
    return "the CPU" if not item.gpus else f"{item.gpus} GPU{'s' if item.gpus > 1 else ''}"
