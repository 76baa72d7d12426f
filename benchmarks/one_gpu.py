"""One GPU for a benchmark: of several, libraries take more than the other side has, and memory is counted on the first alone."""

import os
import sys

from maft import device, visible
from maft.train import workers


def environment() -> dict[str, str]:
    """Makes what shows a program the first of this process's GPUs alone; nothing where there is none."""
    shown = visible.shown()
    return workers.device(os.environ, 0, amd=shown.amd) if shown.count else {}


def alone() -> None:
    """Starts this program anew with one GPU where it may use several: CUDA reads once which it may use."""
    if len(visible.usable(os.environ, visible.shown())) > 1:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **environment()})


def name() -> str:
    """Names the GPU and its driver; empty where there is none."""
    facts = device.read()
    return f"{facts.name}, driver {facts.driver}" if facts.driver else facts.name
