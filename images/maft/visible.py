"""Which GPUs a machine or pod shows, and which of them may be used: the variables that vendors have for it. Needs no library."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

CUDA = "CUDA_VISIBLE_DEVICES"  # torch and vLLM read it on ROCm, too
ROCR = "ROCR_VISIBLE_DEVICES"
VARIABLES = (CUDA, "HIP_VISIBLE_DEVICES", ROCR)
_PART = "MIG-"
_UUID = re.compile(r"(GPU|MIG)-[\w./-]+", re.ASCII)  # of a GPU, or of a part of one
_INDEX = re.compile(r"\+?\d+", re.ASCII)  # CUDA reads "+1" and "1st" as 1
_AMD = "sys/class/kfd/kfd/topology/nodes/*/gpu_id"  # 0: a processor
_WITHOUT_FILES = ("usr/lib/wsl/lib/libcuda.so.1", "dev/nvhost-gpu")  # Windows' subsystem for Linux, Jetson: one GPU


def given(environment: Mapping[str, str]) -> str | None:
    """Finds the variable that says which GPUs may be used, as NAME=value; None where there is none: all may."""
    return next((f"{name}={environment[name]}" for name in VARIABLES if name in environment), None)


def variables(environment: Mapping[str, str]) -> list[str]:
    """Lists the variables in which a program is to be told its GPUs: those that are given, CUDA's where none is. ROCm's own is
    looked at first; the others, by which GPUs are counted here, choose among what it leaves."""
    names = [name for name in VARIABLES if name in environment] or [CUDA]
    return [name for name in names if name != ROCR] if len(names) > 1 else names


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


def usable(environment: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Lists the GPUs that may be used of `count` that are there, as the variable names them."""
    setting = given(environment)
    if setting is None or not count:
        return tuple(str(index) for index in range(count))
    gpus = entries(setting.partition("=")[2])
    beyond = next((i for i, entry in enumerate(gpus) if entry.isdigit() and int(entry) >= count), len(gpus))
    return gpus[:beyond]


def shown(root: Path = Path("/")) -> int:
    """Counts the GPUs that a machine or pod shows as files: NVIDIA's, else AMD's."""
    nvidia = [file for file in root.glob("dev/nvidia[0-9]*") if file.name[6:].isdigit()]
    amd = [file for file in root.glob(_AMD) if (root / "dev/kfd").exists() and text(file).strip() not in ("", "0")]
    return len(nvidia) or len(amd) or int(any((root / name).exists() for name in _WITHOUT_FILES))


def text(file: Path) -> str:
    """Reads a file of the kernel's; empty where there is none."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
