"""What a run has made, for comparison: equal runs have equal bytes, on a cluster or on one machine, whatever happened meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from installed import Installed
from small import MOCK

LIMIT = 300.0  # seconds for a small run, on two busy cores


def products(maft: Installed, namespace: str, name: str) -> dict[str, str]:
    """sha256 of everything that equal runs have in common, by its key below the run."""
    hashes = {}
    top = f"runs/{namespace}/{name}/"
    for key in maft.keys(namespace, name):
        if key.endswith("_COMMIT.json") and any(part in key for part in ("/debate/", "/datasets/", "/adapters/", "/evaluation/")):
            folder = key.removeprefix(top).removesuffix("_COMMIT.json")
            hashes |= {folder + f["name"]: f["sha256"] for f in json.loads(maft.read(key))["files"] if f["name"] != "README.md"}
    return hashes


def made_here(maft: Installed, folder: Path, name: str, **spec: Any) -> dict[str, str]:
    """What `maft run` makes of the same file on this machine, with the same engine, into the same bucket. A bucket that stays uses
    again what these sources made before, and not what older ones did."""
    namespace = f"local-{maft.tag.rpartition('-')[2]}"
    (folder / "run.yaml").write_text(yaml.safe_dump(maft.resource(name, namespace, **spec)))
    keys = {"AWS_ACCESS_KEY_ID": maft.cluster.s3_access_key, "AWS_SECRET_ACCESS_KEY": maft.cluster.s3_secret_key}
    command = [sys.executable, "-m", "maft_operator", "run", "run.yaml", "--serve", f"{sys.executable} {MOCK}"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **keys}, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return products(maft, namespace, name)
