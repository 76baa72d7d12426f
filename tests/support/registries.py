"""A real registry on loopback: CNCF Distribution, built from source by scripts/build-tool.sh."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from conftest import free_port
from conftest import serving as served
from small import ROOT


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves an empty one, its data below the folder; HOST:PORT of it."""
    built = subprocess.run([str(ROOT / "scripts" / "build-tool.sh"), "registry"], capture_output=True, text=True, timeout=580)
    assert built.returncode == 0, built.stderr
    port, config = free_port(), folder / "config.yaml"
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
    config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}))
    line = [f"{built.stdout.strip()}/registry", "serve", str(config)]
    with served(line, port, folder / "log.txt", 60, health="/v2/"):
        yield f"127.0.0.1:{port}"
