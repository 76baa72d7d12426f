"""`python -m maft.serve`: becomes a vLLM server of the base model that resolves the run's adapters from the store."""

import argparse
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from maft import models, pod, program, tensors, vllm_rules
from maft.errors import BadInput, with_kind
from maft.program import Assignment
from maft.records import BASE
from maft.serve import launch, resolver, room, tried, weights
from maft.serve.parts import Parts
from maft.serve.platform import Platform, check, check_model, find, flags, names, said, threads
from maft.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Listening:
    """What a server is told beside its assignment."""

    host: str
    port: int
    adapters: int
    """How many are asked for at a time."""
    folder: str
    """Where it keeps those that it fetched."""


def command(assignment: Assignment, listening: Listening, platform: Platform, targets: Sequence[str] = ()) -> list[str]:
    """Writes what `vllm serve` is told; what the user says comes last.

    targets: layers with adapters; of a mixture of experts vLLM would otherwise keep room for adapters of all experts.
    """
    spec = assignment.spec
    rank = vllm_rules.served_rank(spec.largest_rank)
    source = models.local(spec.model.source)
    parts = Parts.of(models.folder_of_config(source, spec.model.revision))
    each = 4 if platform.on_cpu else 2
    batched = room.batched(listening.adapters, rank, parts.sizes, platform.memory, bytes_each=each)
    line = [source, "--served-model-name", BASE, "--generation-config", "vllm"]
    line += ["--host", listening.host, "--port", str(listening.port)]
    line += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(batched)]
    # Twice as many in memory: while new adapters arrive, the previous iteration's are still asked for.
    line += ["--max-cpu-loras", str(2 * listening.adapters), "--middleware", "maft.serve.resolver.Closed"]
    line += ["--disable-uvicorn-access-log"]
    line += ["--load-format", "safetensors"]  # what training reads, also of models that bring Mistral's own form of weights along
    line += ["--revision", spec.model.revision] if spec.model.revision else []
    line += ["--trust-remote-code"] if spec.model.trust_remote_code else []
    line += ["--max-model-len", str(spec.model.max_length or "auto")]  # auto: the model's context, as far as the memory reaches
    line += ["--language-model-only"] if parts.towers else []
    line += ["--lora-target-modules", *targets] if parts.experts and targets else []
    line += flags(assignment.gpus, platform, parts, spec.inference.extra_args)
    return [*line, *spec.inference.extra_args]


def check_device(assignment: Assignment, platform: Platform) -> None:
    """Raises BadInput where what was asked for is not there, or does not serve the model."""
    check(assignment.gpus, platform)
    model = assignment.spec.model
    check_model(platform, Parts.of(models.folder_of_config(models.described(model.source), model.revision)), model.source)


def check_room(assignment: Assignment, platform: Platform) -> None:
    """Raises BadInput where the weights, as far as they are at hand, are more than the GPUs hold. Their headers are read."""
    model, given = assignment.spec.model, assignment.spec.inference.extra_args
    parts = Parts.of(models.folder_of_config(models.described(model.source), model.revision))
    if not platform.on_cpu and platform.memory and weights.are_told(parts, given):  # of processors vLLM tells one node's memory
        weights.check(weights.needed(_loaded(model), parts), platform, assignment.gpus, given, model.source)


def _loaded(model: ModelSpec) -> tensors.Shapes:
    """Reads the shapes of what vLLM will load; none where transformers knows no such model, for vLLM may."""
    shapes = models.shapes(model)
    try:
        return tensors.loaded(shapes, models.config(model)) if shapes else {}
    except BadInput:
        return {}


def environment(assignment: Assignment, store: str, folder: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Sets what vLLM and the plug-in read. store: the URL as it was given, for the plug-in opens it itself."""
    ours = {
        resolver.STORE: store,
        resolver.RUN: assignment.run,
        resolver.FOLDER: folder,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # vLLM asks resolvers only with this; `Closed` shuts what it opens besides
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    # GiB; the variable would overrule the flag.
    room = {} if names(assignment.spec.inference.extra_args, "--kv-cache-memory-bytes") else {"VLLM_CPU_KVCACHE_SPACE": "1"}
    defaults = {**room, "VLLM_LOGGING_LEVEL": "INFO", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**defaults, **inherited, **ours}


def check_free(host: str, port: int) -> None:
    """Raises BadInput if something listens there already; vLLM would say so only after loading the model."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadInput(pod.unheard(host, port, error)) from error


def parser() -> argparse.ArgumentParser:
    """Makes the command line."""
    flags = program.parser("serve", "Serves the base model and the run's adapters with vLLM.", takes=("spec", "gpus"))
    flags.add_argument("--host", default=pod.everywhere(), help="address to listen on")
    flags.add_argument("--port", default="8000")
    # Of its own name inside: where it is left out, it is no list of agents, as other programs have it.
    flags.add_argument("--agent", dest="base_of", help="whose base is served, from 0, where agents have several [the spec's model]")
    flags.add_argument("--adapters", required=True, help="adapters that are asked for at a time")
    flags.add_argument(
        "--adapter-folder", default=str(models.cache() / "adapters"), help="folder for fetched adapters; it only grows"
    )
    return flags


def listens(given: argparse.Namespace) -> Listening:
    """Decodes the flags that other programs do not have; BadInput for the first that cannot be read."""
    port = program.number("--port", given.port, most=program.PORTS)
    adapters = program.number("--adapters", given.adapters, least=1, most=2 * program.MOST)
    return Listening(given.host, port, adapters, given.adapter_folder)


def main() -> None:
    """Checks, then becomes vLLM: in this process, for importing it is most of a small model's start."""
    given = parser().parse_args()
    try:
        assignment = program.pinned(program.decode(given))
        listening = listens(given)
        agent = None if given.base_of is None else program.number("--agent", given.base_of, most=program.MOST)
        check_free(listening.host, listening.port)
        targets = tried.targets(assignment, agent)
        assignment = assignment if agent is None else replace(assignment, given_spec=assignment.spec.of_base(agent))
        os.environ |= environment(assignment, given.store, listening.folder, os.environ)
        platform = find()
        check_device(assignment, platform)
        inference = assignment.spec.inference
        vllm_rules.check_flags(inference.extra_args, inference.gpus)  # where preflight saw no GPU it could not ask
        check_room(assignment, platform)
        here = len(os.sched_getaffinity(0))
        os.environ |= {**threads(platform, here, pod.threads(here)), **os.environ}
        line = command(assignment, listening, platform, targets)
    except BadInput as error:
        program.fail(given.summary, error, 2)
    except OSError as error:  # of the store
        program.fail(given.summary, error, 1)
    except (ImportError, RuntimeError) as error:  # of vLLM's own packages
        program.fail(given.summary, RuntimeError(f"vLLM cannot be asked for its platform: {with_kind(error)}"), 1)
    print(said(assignment.gpus, platform), flush=True)
    launch.vllm(line)


if __name__ == "__main__":
    main()
