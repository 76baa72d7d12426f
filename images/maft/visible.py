"""Which GPUs a machine or pod shows, and which of them may be used: the variables that vendors have for it. Needs no library."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CUDA = "CUDA_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"
ROCR = "ROCR_VISIBLE_DEVICES"
# ROCm's driver looks at its own first; HIP's, or CUDA's where there is none, chooses among what that leaves. torch reads HIP's
# before CUDA's likewise, and vLLM wants the two to be equal.
_ON_AMD = (HIP, CUDA, ROCR)
_PART = "MIG-"
_UUID = re.compile(r"(GPU|MIG)-[\w./-]+", re.ASCII)  # of a GPU, or of a part of one
_INDEX = re.compile(r"\+?\d+", re.ASCII)  # CUDA reads "+1" and "1st" as 1
_AMD = "sys/class/kfd/kfd/topology/nodes/*/gpu_id"  # 0: a processor
_WITHOUT_FILES = ("usr/lib/wsl/lib/libcuda.so.1", "dev/nvhost-gpu")  # Windows' subsystem for Linux, Jetson: one GPU


@dataclass(frozen=True, slots=True)
class Shown:
    """GPUs that a machine or pod shows."""

    count: int = 0
    amd: bool = False
    """Whether they are AMD's: other variables count there."""


def given(environment: Mapping[str, str], *, amd: bool) -> str | None:
    """Finds the variable that says which GPUs may be used, as NAME=value; None where there is none: all may."""
    names = _ON_AMD if amd else (CUDA,)
    return next((f"{name}={environment[name]}" for name in names if name in environment), None)


def variables(environment: Mapping[str, str], *, amd: bool) -> list[str]:
    """Lists the variables in which a program is to be told its GPUs, all by the same entries."""
    if not amd:
        return [CUDA]
    return [name for name in (HIP, CUDA) if name in environment] or [ROCR if ROCR in environment else CUDA]


def entries(value: str) -> tuple[str, ...]:
    """Reads such a value as CUDA does: what stands behind an entry that is none does not count; doubles are none at all."""
    gpus: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        index = _INDEX.match(entry)
        if not index and not _UUID.fullmatch(entry):
            break
        gpus.append(str(int(index[0])) if index else entry)
    return tuple(gpus) if len(set(gpus)) == len(gpus) else ()


def parts(gpus: Iterable[str]) -> bool:
    """Tells whether one of them is a part of a GPU (MIG). Of these a process of CUDA's opens one alone, the first."""
    return any(gpu.startswith(_PART) for gpu in gpus)


def usable(environment: Mapping[str, str], there: Shown) -> tuple[str, ...]:
    """Lists the GPUs that may be used of those that are there, as the variable names them."""
    setting = given(environment, amd=there.amd)
    if setting is None or not there.count:
        return tuple(str(index) for index in range(there.count))
    name, _, value = setting.partition("=")
    chosen_from = there.count
    if there.amd and name != ROCR and ROCR in environment:
        chosen_from = len(_existing(environment[ROCR], there.count))
    return _existing(value, chosen_from)


def _existing(value: str, count: int) -> tuple[str, ...]:
    """Reads such a value up to the first index that `count` GPUs do not have."""
    gpus = entries(value)
    beyond = next((i for i, entry in enumerate(gpus) if entry.isdigit() and int(entry) >= count), len(gpus))
    return gpus[:beyond]


def shown(root: Path = Path("/")) -> Shown:
    """Counts the GPUs that a machine or pod shows as files: NVIDIA's, else AMD's."""
    nvidia = [file for file in root.glob("dev/nvidia[0-9]*") if file.name[6:].isdigit()]
    amd = [file for file in root.glob(_AMD) if (root / "dev/kfd").exists() and text(file).strip() not in ("", "0")]
    if amd and not nvidia:
        return Shown(len(amd), amd=True)
    return Shown(len(nvidia) or int(any((root / name).exists() for name in _WITHOUT_FILES)))


def text(file: Path) -> str:
    """Reads a file of the kernel's; empty where there is none."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
