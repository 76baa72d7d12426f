"""A whole run whose store does what stores were seen to do: it ends complete, with what a folder would have."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import MOCK, resource, write
from s3server import running
from unreliable import AS_OFTEN_AS_SEEN, Request, unreliable

pytestmark = [pytest.mark.run, pytest.mark.s3, pytest.mark.nightly, pytest.mark.timeout(2000)]
LIMIT = 900.0  # seconds; each outage and late answer takes as long as it does
OUTAGE = 20.0
# A run has some 400 requests: more often than they were seen, for it is to meet each of them.
FAULTS = replace(AS_OFTEN_AS_SEEN, page=3, reset=3, cut=5, late=3, late_seconds=10.0, flipped=5)


class Outages:
    """The store goes away when a publication begins (it asks for a commit), once for each of them."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._until = 0.0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> bool:
        method, target, _ = request.line.split(" ")
        with self._lock:
            if method == "PUT" and "adapters/" in target and target not in self._begun and "_COMMIT" in target:
                self._begun.add(target)
                self._until = time.monotonic() + OUTAGE
            return time.monotonic() < self._until

    @property
    def count(self) -> int:
        """Returns how many there were."""
        return len(self._begun)


def maft(folder: Path, store: str, environment: Mapping[str, str]) -> None:
    spec = write(folder / "run.yaml", resource())
    line = [sys.executable, "-m", "maft_operator", "run", str(spec), "--dir", str(folder / "runs"), "--store", store]
    line += ["--serve", f"{sys.executable} {MOCK}"]
    environment = {**os.environ, **environment}
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, env=environment, cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def products(objects: Path) -> dict[str, Any]:
    """The hash of each committed file, by name."""
    commits = [json.loads(path.read_text()) for path in objects.rglob("_COMMIT.json")]
    return {c["prefix"] + f["name"]: f["sha256"] for c in commits for f in c["files"] if "iterations/" in c["prefix"]}


def test_a_run_through_faults_leaves_what_a_folder_has(tmp_path: Path) -> None:
    for name in ("plain", "faulty"):
        (tmp_path / name).mkdir()
    maft(tmp_path / "plain", f"file://{tmp_path}/plain/store", {})
    outages = Outages()
    with running(tmp_path / "objects") as s3, unreliable(s3.endpoint) as proxy:
        proxy.faults, proxy.down = FAULTS, outages
        url = f"s3://{s3.bucket}/runs?endpoint={proxy.endpoint}&region=us-east-1"
        maft(tmp_path / "faulty", url, s3.environment())
    assert products(tmp_path / "objects") == products(tmp_path / "plain" / "store") != {}
    assert outages.count >= 2
    assert proxy.unmet() == set(), proxy.met
    logs = [path.read_text() for path in (tmp_path / "faulty").rglob("train*/log.txt")]
    assert not any("Traceback" in log for log in logs)
