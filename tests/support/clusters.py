"""The Kubernetes cluster that tests marked `cluster` use: the one of KUBECONFIG, else the project's own (tests/support/cluster/).

`make test` has built and started the own one before (prepare.py). A session on its own, for which all is built when its tests are
collected (prepared.py), starts it in some seconds and ends it again, unless MAFT_KEEP_CLUSTER is set. Where it cannot run, these
tests are skipped; with CI or MAFT_REQUIRE_CLUSTER set they fail instead.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import pytest
from prepare import host

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "support" / "cluster" / "cluster.py"
FACTS = ROOT / ".cache" / "cluster" / "cluster.json"


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach it. Of a cluster of the user's only the first two fields are known. host_address: of this machine, for pods."""

    kubeconfig: str
    kubectl: str = "kubectl"
    registry: str = ""
    s3_endpoint: str = ""
    s3_access_key: str = ""
    s3_secret_key: str = ""
    audit_log: str = ""
    host_address: str = ""


@pytest.fixture(scope="session", name="cluster")
def cluster_fixture() -> Iterator[Cluster]:
    """The one cluster of a test session."""
    given = os.environ.get("KUBECONFIG", "")
    if given and given != _facts().get("kubeconfig"):
        yield Cluster(given)
        return
    if why := host.unable():
        _do_without(why)
    found_up = _run("status").returncode == 0
    started = _run("use")
    if started.returncode:
        pytest.fail(f"the cluster does not start: {started.stdout[-3000:]}", pytrace=False)
    yield own()
    if not found_up and not os.environ.get("MAFT_KEEP_CLUSTER"):
        _run("down")


def own() -> Cluster:
    """The project's own, which is up."""
    known = {field.name for field in fields(Cluster)}
    return Cluster(**{name: value for name, value in _facts().items() if name in known})


def _facts() -> dict[str, Any]:
    """What the own cluster wrote down about itself, if it ever was up."""
    return dict(json.loads(FACTS.read_text())) if FACTS.exists() else {}


def _do_without(why: str) -> NoReturn:
    text = f"{why}; or set KUBECONFIG to a cluster of yours"
    if os.environ.get("CI") or os.environ.get("MAFT_REQUIRE_CLUSTER"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def _run(command: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, str(SCRIPT), command]
    return subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
