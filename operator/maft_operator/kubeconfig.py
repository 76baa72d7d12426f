"""Which context of the kubeconfig counts, as kubectl takes it: of several files the first that names one decides.

Libraries would take the last. The environment is read at each question, for a process may change it; a file once, until it changes.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEFAULT = "~/.kube/config"


def paths() -> list[Path]:
    """Lists the files of KUBECONFIG, whether they are there or not."""
    given = os.environ.get("KUBECONFIG") or DEFAULT
    return [Path(part).expanduser() for part in given.split(os.pathsep) if part]


def read(path: Path) -> Any:
    """Reads one file, nothing of which is to be changed; OSError, ValueError or YAMLError where it cannot be read."""
    now = path.stat()
    return _read(path, (now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size))


@functools.lru_cache(maxsize=16)
def _read(path: Path, _state: tuple[int, ...]) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except RecursionError:
        raise ValueError(f"{path} nests too deep to be read") from None


def present() -> str:
    """Names the present context; empty where no file does."""
    return next((name for file in _files() if (name := _text(file.get("current-context")))), "")


def contexts() -> list[str]:
    """Lists the names of all contexts."""
    return [name for name, _ in _contexts()]


def namespace(context: str = "") -> str:
    """Reads the namespace of that context, else of the present one."""
    wanted = context or present()
    return next((space for name, space in _contexts() if name == wanted), "") or "default"


def _contexts() -> Iterator[tuple[str, str]]:
    """The name of each context, with its namespace."""
    for file in _files():
        entries = file.get("contexts")
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and (name := _text(entry.get("name"))):
                inner = entry.get("context")
                yield name, _text(inner.get("namespace")) if isinstance(inner, dict) else ""


def _files() -> list[dict[str, Any]]:
    """The files that are there; what cannot be read is told when a client is made of them."""
    files = []
    for path in paths():
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            files.append(read(path))
    return [file for file in files if isinstance(file, dict)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
