"""Real Helm (tests/support/tools/helm), and the project's chart."""

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "maft"
IMAGES = "registry.test/maft"
PROMETHEUS = ("--api-versions", "monitoring.coreos.com/v1")
Json = dict[str, Any]


@functools.cache
def folder(name: str) -> Path:
    """What scripts/build-tool.sh has built or fetched before (prepare.py)."""
    done = subprocess.run([ROOT / "scripts" / "build-tool.sh", "--there", name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def call(*arguments: str, values: Mapping[str, Any] | None = None, limit: float = 300) -> "subprocess.CompletedProcess[str]":
    """`helm ARGUMENTS`, with the values on its standard input."""
    given = ["--values", "-"] if values is not None else []
    text = yaml.safe_dump(dict(values)) if values is not None else None
    return subprocess.run([folder("helm") / "helm", *arguments, *given], input=text, capture_output=True, text=True, timeout=limit)


def run(*arguments: str, values: Mapping[str, Any] | None = None, limit: float = 300) -> str:
    """The same; its output. Fails with what Helm said."""
    done = call(*arguments, values=values, limit=limit)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(values: Mapping[str, Any], *arguments: str, release: str = "maft", namespace: str = "maft-system") -> list[Json]:
    """`helm template`; where the images are is set, if the values leave it open."""
    values = {**values, "images": {"prefix": IMAGES, **values.get("images", {})}}
    text = run("template", release, str(CHART), "--namespace", namespace, *arguments, values=values)
    return [body for body in yaml.safe_load_all(text) if body]
