"""What a program that loads a model takes of its node's disk: the model, what is compiled for it, adapters, scratch. Pure.

docs/operations.md has the table. Figures are bytes; `model_bytes` is the size of the weights as they are stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from maft.spec import RunSpec
from maft_operator.plan.graph import Graph, Server, Task

MIB, GIB = 2**20, 2**30
LARGEST = 2**50  # bytes of a model; what is told beyond it is nonsense
TOKEN = 32  # bytes of a transcript for a token written; maft.preflight.cost has the same figure
_STEP = 64 * MIB  # to which figures that follow from the model are rounded up
_COPIES = 3  # of a token in a stage's scratch: of its request, of the debate, of a dataset


@dataclass(frozen=True, slots=True)
class Range:
    """Of one resource."""

    request: int
    limit: int


def cache_of(item: Task | Server, model_bytes: int) -> Range:
    """Counts the models, another file of the same weights, what is compiled; adapters. Of a model that is mounted nothing is
    fetched."""
    size = rounded(model_bytes)
    model = size * sum(not mounted(source) for source in _loaded(item))
    return Range(model, 2 * model + 10 * GIB + (_fetched(item, size) if isinstance(item, Server) else 0))


def scratch_of(item: Task | Server, model_bytes: int) -> int:
    """Counts what lies below /tmp at most; a checkpoint is smaller than the model."""
    return 4 * GIB + rounded(model_bytes) + (0 if isinstance(item, Server) else scratch_of_answers(item.run.spec))


def storage(cache: Range, scratch: int, *, cached: bool) -> Range:
    """Adds up what lies on the node's disk, the container's log with it. cached: the cache does, as an emptyDir."""
    kept = cache if cached else Range(0, 0)
    return Range(128 * MIB + kept.request, GIB + scratch + kept.limit)


def disk_line(graph: Graph, model_bytes: int) -> str:
    """Writes in a line what servers and training take of their node's disk, at least and at most; empty where nobody could tell the
    model's size."""
    training = [task for task in graph.tasks if task.kind == "train"]
    users: dict[str, Sequence[Task | Server]] = {"a server": graph.servers, "a training task": training}
    parts = [f"{who} {_least_and_most(items, model_bytes)}" for who, items in users.items() if items]
    return f"disk of a node, at least and at most: {', '.join(parts)}" if model_bytes > 0 and parts else ""


def _least_and_most(items: Sequence[Task | Server], model_bytes: int) -> str:
    claimed = any(item.run.spec.model.cache_claim for item in items)
    each = [storage(cache_of(one, model_bytes), scratch_of(one, model_bytes), cached=not claimed) for one in items]
    least, most = max(one.request for one in each), max(one.limit for one in each)
    return f"{least / GIB:.1f} to {most / GIB:.1f} GiB{' beside model.cacheClaim' if claimed else ''}"


def mounted(source: str) -> bool:
    """Tells whether the model is read where it lies, as the programs decide it: from a folder."""
    return source.startswith(("/", "./", "../"))


def _loaded(item: Task | Server) -> set[str]:
    """The sources of the base models that it loads: of a server one, of a task those of its agents."""
    spec = item.run.spec
    if isinstance(item, Server):
        return {spec.model.source if item.agent is None else spec.model_of(item.agent).source}
    return {spec.model_of(agent).source for agent in item.agents or range(spec.agents)}


def _fetched(server: Server, size: int) -> int:
    """Bytes of the adapters that a server keeps: those of the iteration before and of this one, and of all where it stays up."""
    spec = server.run.spec
    return server.adapters * adapter_of(spec, size) * (spec.iterations if spec.inference.lifetime == "Run" else 2)


def adapter_of(spec: RunSpec, size: int) -> int:
    """Counts bytes that one adapter is smaller than: its rank's share of the model."""
    return rounded(size * spec.largest_rank // 256)


def scratch_of_answers(spec: RunSpec) -> int:
    """Counts bytes of scratch that a debate may need, when every answer has as many tokens as it may have."""
    questions = max(spec.task.train + spec.task.probe, spec.held_out_task.held_out, spec.evaluation.validation)
    requests = questions * spec.agents * spec.debate.rounds * 2  # answers, and summaries or hints
    return rounded(requests * (spec.debate.max_tokens + spec.debate.thinking_tokens) * TOKEN * _COPIES)


def rounded(count: int) -> int:
    """Rounds bytes up to the step of such figures."""
    return -(-min(count, LARGEST) // _STEP) * _STEP
