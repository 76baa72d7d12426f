"""Trackers: packages in folders of their own (locked_tool.py), and an MLflow server on loopback."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import locked_tool
from conftest import free_port, serving


def packages(name: str) -> dict[str, str]:
    """The environment in which the packages of that list come first."""
    locked_tool.install(name)
    before = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{locked_tool.folder(name)}:{before}".rstrip(":")}


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """Serves an empty MLflow, its data below the folder; its URL."""
    port = free_port()
    line = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    line += [f"--backend-store-uri=sqlite:///{folder}/db.sqlite", f"--artifacts-destination={folder}/artifacts"]
    with serving(line, port, folder / "log.txt", 300, MLFLOW_DISABLE_TELEMETRY="true", **packages("mlflow")) as url:
        yield url
