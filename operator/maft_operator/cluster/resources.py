"""What a pod asks of its node and may take at most: processors, memory, disk. Pure.

Requests are what a pod was measured to need, so that it finds a node; limits are what it may take at most: wide, since a pod that
is killed has done its work in vain. What lies between both is promised to nobody: a node whose pods all take it runs short and ends
those that are furthest above their requests. Who wants none of that requests as much as is limited. Programs that load no model
have fixed figures, which were measured; those that do have theirs from the model's size, which `prepare` reports.
docs/operations.md has the table. What a podTemplate says of `resources` has the last word, name by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from maft.spec import RunSpec
from maft.summaries import AnySummary, PrepareSummary
from maft_operator.cluster.fields import count
from maft_operator.cluster.quantities import amount, of_bytes, of_thousandths
from maft_operator.plan.disk import (
    GIB,
    LARGEST,
    MIB,
    Range,
    adapter_of,
    cache_of,
    rounded,
    scratch_of,
    scratch_of_answers,
    storage,
)
from maft_operator.plan.graph import ProgramName, Server, Task, adapters_of, on_a_device
from maft_operator.spec.schema import Json

# Taken for a model whose size nobody told. It asks for little, and is not killed for being what a large one is: on processors eight
# billion weights of two bytes, on each GPU half of what the largest ones hold, for twice the model is allowed.
ON_CPU, AT_MOST_ON_CPU, AT_MOST_ON_A_GPU = GIB // 2, 16 * GIB, 96 * GIB
_QUESTION = 8 * 2**10  # bytes of memory for a question, its source and the splits
_SHARED = 256 * MIB  # /dev/shm of programs that load no model


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one pod."""

    cpu: Range
    """Thousandths of a processor."""
    memory: Range
    """Bytes, those of /dev/shm included: the kernel counts them there."""
    cache: Range
    """Bytes of models and of what is compiled, on the node's disk unless another volume keeps them."""
    scratch: int
    """Bytes below /tmp at most."""
    shared: str
    """Limit of /dev/shm, as it is written."""
    bounded: bool = True
    """Whether the disk has limits: not where they would follow from a size that nobody told."""


# Measured on the demo, in GiB: prepare, debate, evaluate and report 0.1, preflight 0.9; vLLM on two cores 3.4, training 0.6. Beside
# it: a source of questions takes 3.2 times its size, 5.4 times with a single sign of four bytes; grading mathematics has a process
# of 25 MiB for each processor.
_PROGRAMS: dict[ProgramName, Range] = {
    "prepare": Range(512 * MIB, 4 * GIB),
    "preflight": Range(GIB, 8 * GIB),
    "debate": Range(256 * MIB, 4 * GIB),
    "evaluate": Range(256 * MIB, 4 * GIB),
    "report": Range(256 * MIB, 4 * GIB),
    "compare": Range(256 * MIB, 4 * GIB),
    "export": Range(256 * MIB, 4 * GIB),
}


def needs(item: Task | Server, model_bytes: int) -> Needs:
    """Decides what the pods of a task or server ask for. item: as a cluster has it, with its number of GPUs; model_bytes: of the
    weights as they are stored; 0: not known."""
    return _of_model(item, model_bytes) if on_a_device(item) else _of_program(item, model_bytes)


def _of_program(item: Task | Server, model_bytes: int) -> Needs:
    assert isinstance(item, Task)
    spec, memory, answers = item.run.spec, _PROGRAMS[item.kind], scratch_of_answers(item.run.spec)
    if item.kind == "preflight" and spec.training.gpus == 0:  # it reads its own limit for the trainer's
        memory = Range(memory.request, max(memory.limit, _of_training_on_cpu(_sizes(model_bytes, 0)).limit))
    if item.kind == "prepare":
        source = 12 * GIB if _reads_a_source(spec) else 0
        memory = Range(memory.request, memory.limit + source + rounded(_questions(spec) * _QUESTION))
    reads = item.kind in ("report", "compare")  # files of 64 MB (store/lines.py), one at a time; those of 0.1 are larger
    handed_on = adapters_of(item.run, tuple(spec.trained_agents)) if item.kind == "export" else 0  # by way of /tmp
    return Needs(
        cpu=Range(100, 2000),  # one thread, and those that talk to the store
        memory=Range(memory.request, memory.limit + _SHARED),
        cache=Range(0, 8 * GIB),  # questions, tokenizers, configurations
        scratch=GIB + (min(answers, 4 * GIB) if reads else answers) + handed_on * adapter_of(spec, model_bytes),
        shared=of_bytes(_SHARED),
        bounded=not handed_on or model_bytes > 0,
    )


def _of_model(item: Task | Server, model_bytes: int) -> Needs:
    gpus, spec = item.gpus or 0, item.run.spec
    size = _sizes(model_bytes, gpus)
    section = spec.inference if isinstance(item, Server) else spec.training
    shared = section.shared_memory or of_bytes(GIB + gpus * 2 * GIB)  # several GPUs talk through it
    memory = _on_gpus(gpus, size) if gpus else _serving(size) if isinstance(item, Server) else _of_training_on_cpu(size)
    loaded = 2 * item.adapters * adapter_of(spec, size.limit) if isinstance(item, Server) else 0  # as --max-cpu-loras says
    return Needs(
        cpu=Range(1000 * gpus, 8000 * gpus) if gpus else Range(250, 4000),
        memory=Range(memory.request, memory.limit + int(amount(shared) or 0) + loaded),
        cache=cache_of(item, model_bytes),
        scratch=scratch_of(item, model_bytes),
        shared=shared,
        bounded=model_bytes > 0,
    )


def of_endpoint(concurrent: int) -> Needs:
    """Decides what the program asks for that holds the debates of a society. concurrent: how many at a time."""
    return Needs(
        cpu=Range(250, 4000),  # one thread, and those that compare answers
        memory=Range(512 * MIB, 2 * GIB + concurrent * 4 * MIB + _SHARED),  # transcripts of debates that are under way
        cache=Range(0, 8 * GIB),  # tokenizers, configurations
        scratch=GIB,
        shared=of_bytes(_SHARED),
    )


def together(servers: Sequence[Needs], program: Needs) -> Needs:
    """Adds up what the containers of a pod write to the volumes that they share. In /dev/shm the program writes little."""
    all_of_them = (*servers, program)
    cache = Range(sum(each.cache.request for each in all_of_them), sum(each.cache.limit for each in all_of_them))
    shared = servers[0].shared if len(servers) == 1 else of_bytes(sum(int(amount(each.shared) or 0) for each in servers))
    scratch, bounded = sum(each.scratch for each in all_of_them), all(each.bounded for each in all_of_them)
    return replace(servers[0], cache=cache, scratch=scratch, shared=shared, bounded=bounded)


def _sizes(model_bytes: int, gpus: int) -> Range:
    """How large the model is taken to be where memory is asked for, and where it is limited."""
    known = rounded(model_bytes)
    return Range(known, known) if known else Range(ON_CPU, AT_MOST_ON_A_GPU * gpus or AT_MOST_ON_CPU)


def _on_gpus(gpus: int, size: Range) -> Range:
    """A process with CUDA for each GPU, one that leads them, and weights on their way to the GPUs."""
    return Range((2 + 3 * gpus) * GIB, (8 + 8 * gpus) * GIB + 2 * size.limit)


def _serving(size: Range) -> Range:
    """vLLM, a GiB of keys and values, and weights that become twice as large, beside those that were read."""
    return Range(3 * GIB + 3 * size.request, 8 * GIB + 6 * size.limit)


def _of_training_on_cpu(size: Range) -> Range:
    """Weights that become twice as large, and activations, which grow with the model; training makes do with what is there."""
    return Range(GIB + 3 * size.request, 6 * GIB + 12 * size.limit)


def _reads_a_source(spec: RunSpec) -> bool:
    """Whether questions come from a file or a hub: it is read as a whole, however few are asked for, and nobody knows its size."""
    return any(task.kind not in ("arithmetic", "reasoning-gym") for task in (spec.task, spec.held_out_task))  # which are made


def _questions(spec: RunSpec) -> int:
    return spec.task.train + spec.task.probe + spec.held_out_task.held_out + spec.evaluation.validation


def model_bytes(status: Json, summaries: Iterable[AnySummary]) -> int:
    """Finds how large the run's model is: as its status says, else as `prepare` does; 0: not known."""
    reported = (summary.model_bytes for summary in summaries if isinstance(summary, PrepareSummary))
    size = count(status, "model", "bytes") or next(reported, 0)
    return min(max(0, size), LARGEST)


# --- as pods have them ---


def written(needs: Needs, *, cached: bool, cpu_limits: bool = True, disk: bool = True) -> Json:
    """Writes them as `resources` of a container. cpu_limits, disk: whether a limit of processors, and the disk, are named."""
    kept = storage(needs.cache, needs.scratch, cached=cached)
    requests = {"cpu": of_thousandths(needs.cpu.request), "memory": of_bytes(needs.memory.request)}
    limits = {"cpu": of_thousandths(needs.cpu.limit)} if cpu_limits else {}
    limits["memory"] = of_bytes(needs.memory.limit)
    if disk:
        requests["ephemeral-storage"] = of_bytes(kept.request)
    if disk and needs.bounded:
        limits["ephemeral-storage"] = of_bytes(kept.limit)
    return {"requests": requests, "limits": limits}


def reconciled(resources: Any, ours: Json) -> Any:
    """Mends requests that are larger than their limit, where one of both is ours and the other one is a podTemplate's."""
    if not isinstance(resources, Mapping):
        return resources
    whole = {part: dict(v) if isinstance(v := resources.get(part), Mapping) else {} for part in ("requests", "limits")}
    for name in whole["requests"].keys() & whole["limits"].keys():
        request, limit = (amount(whole[part][name]) for part in ("requests", "limits"))
        if request is None or limit is None or request <= limit:
            continue
        if whole["limits"][name] == ours["limits"].get(name):
            whole["limits"][name] = whole["requests"][name]
        elif whole["requests"][name] == ours["requests"].get(name):
            whole["requests"][name] = whole["limits"][name]
    return {**resources, **{part: values for part, values in whole.items() if values}}
