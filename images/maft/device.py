"""Where training computes, and in which precision: decided over facts, so that what was asked for is what is used.

`read` finds the facts, `choose` decides. The policy of precision, by device and role:

| | GPU with bfloat16 | GPU without | CPU |
|---|---|---|---|
| base, in training and diversity | bfloat16 | float16 | float32 |
| adapters, optimizer, loss | float32 | float32 | float32 |
| servers (serve/platform.py) | as the model says | float16 | float32 |

What float16 does not hold (Gemma 2 and 3, GLM-4) is in float32 there, in training (lora.py) and as vLLM serves it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maft import visible
from maft.errors import BadInput, one_line

# CUDA's major version: the first branch of NVIDIA's driver that runs it (CUDA release notes, "minor version compatibility").
DRIVERS = {11: 450, 12: 525, 13: 580}
_VERSION = re.compile(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s")


@dataclass(frozen=True, slots=True)
class Facts:
    """What this process finds out about GPUs."""

    torch: str
    """Version of the wheel, such as 2.13.0+cu130."""
    cuda: str | None = None
    """The CUDA that the wheel was built for."""
    hip: str | None = None
    """The ROCm that the wheel was built for."""
    driver: str | None = None
    """Version of NVIDIA's driver."""
    present: int = 0
    """GPUs that this machine or pod shows, whether or not torch can use them."""
    visible: str | None = None
    """VARIABLE=value that says which of them may be used, as it was given; None: all."""
    usable: int = 0
    """GPUs that came up in torch."""
    error: str = ""
    """Why none came up, in torch's words."""
    bf16: bool = False
    name: str = ""
    """Of the first GPU."""


@dataclass(frozen=True, slots=True)
class Device:
    """What is used."""

    kind: Literal["cuda", "cpu"]
    """In torch's words; ROCm is cuda too."""
    count: int
    """GPUs; 0 on the CPU."""
    dtype: Literal["bfloat16", "float16", "float32"]
    """Of the base model."""
    log_line: str
    """What was chosen, in a line for the log."""
    amd: bool = False
    """Whether it is reached by ROCm."""


def choose(asked: int | None, facts: Facts, field: str = "training.gpus") -> Device:
    """Decides; BadInput where what was asked for is not there, and where a GPU is there that cannot be used.

    asked: GPUs; 0: the CPU; None: what is there."""
    hidden = facts.visible is not None and not facts.usable and not visible.entries(facts.visible.partition("=")[2])
    if asked == 0:
        return _cpu(f"{field}: 0")
    if asked is None and not facts.usable and (not facts.present or hidden):
        return _cpu(f"{facts.visible} hides the GPUs" if facts.present else "no GPU here")
    if not facts.usable:
        raise BadInput(f"{field}: {_why_none(facts, hidden=hidden)}")
    if asked is not None and facts.usable < asked:
        limit = f" with {facts.visible}" if facts.visible else ""
        raise BadInput(f"{field}: {asked} asked for, {facts.usable} there{limit} ({versions(facts)}); ask for no more than that")
    count = facts.usable if asked is None else asked
    dtype: Literal["bfloat16", "float16"] = "bfloat16" if facts.bf16 else "float16"
    log_line = f"device: {count} of {facts.usable} GPUs ({facts.name}; {versions(facts)}), base in {dtype}"
    return Device("cuda", count, dtype, log_line, amd=bool(facts.hip))


def _cpu(why: str) -> Device:
    return Device("cpu", 0, "float32", f"device: the CPU ({why}), base in float32")


def _why_none(facts: Facts, *, hidden: bool) -> str:
    """Why there is no usable GPU, with what to do."""
    software = versions(facts)
    if facts.cuda is None and facts.hip is None:
        return f"this torch is built for CPUs alone ({software}); install its CUDA build, or set 0 to use the CPU"
    if hidden:
        return f"{facts.visible} hides the GPUs ({software}); unset it, or set 0 to use the CPU"
    if too_old(facts.cuda, facts.driver):
        needed = DRIVERS[major(facts.cuda)]
        return f"CUDA does not come up: the driver is too old ({software}, which needs driver {needed} or newer); update the driver"
    what = "ROCm" if facts.hip else "CUDA"
    reason = f": {one_line(facts.error, 200)}" if facts.error else ""
    return f"{what} does not come up{reason} ({software}, GPUs shown: {facts.present}); mend that, or set 0 to use the CPU"


def versions(facts: Facts) -> str:
    """Writes driver, wheel, and the CUDA or ROCm that it was built for."""
    built = f"built for ROCm {facts.hip}" if facts.hip else f"built for CUDA {facts.cuda}" if facts.cuda else "built without CUDA"
    return f"driver {facts.driver or 'none found'}, torch {facts.torch} {built}"


def too_old(cuda: str | None, driver: str | None) -> bool:
    """Tells whether the driver is older than that CUDA wants; compatibility packages of data-center GPUs may bridge it."""
    needed = DRIVERS.get(major(cuda))
    return bool(needed and driver and major(driver) < needed)


def major(version: str | None) -> int:
    """Reads the first number of a version; 0 where there is none."""
    digits = re.match(r"\d+", version or "")
    return int(digits[0]) if digits else 0


def driver_version(text: str) -> str | None:
    """Reads the version of NVIDIA's driver from /proc/driver/nvidia/version."""
    match = _VERSION.search(text)
    return match[1] if match else None


def settled(asked: int | None) -> Device:
    """Reads, decides, and says so in the program's log."""
    device = choose(asked, read())
    print(device.log_line, flush=True)
    return device


def read() -> Facts:
    """Finds the facts of this process. Starts CUDA where it can be started."""
    import torch

    error, usable = "", 0
    try:
        usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if usable or torch.version.cuda or torch.version.hip:
            torch.cuda.init()
    except (RuntimeError, AssertionError) as problem:
        error, usable = str(problem), 0
    return Facts(
        torch=torch.__version__,
        cuda=torch.version.cuda,
        hip=torch.version.hip,
        driver=driver_version(visible.text(Path("/proc/driver/nvidia/version"))),
        present=visible.shown().count,
        visible=visible.given(os.environ, amd=bool(torch.version.hip)),
        usable=usable,
        error=error,
        bf16=bool(usable) and torch.cuda.is_bf16_supported(including_emulation=False),
        name=torch.cuda.get_device_name(0) if usable else "",
    )
