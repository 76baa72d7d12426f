"""A network that enforces NetworkPolicies, as long as a block lasts: kube-router's firewall beside the test cluster's bridge.

It is a process in the cluster's namespaces, without its routing and its proxy; what it wrote into iptables goes with it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import helm
from kube import Kube

_CLUSTER = Path(__file__).parent / "cluster"
sys.path.append(str(_CLUSTER))

import keys  # noqa: E402
import sandbox  # noqa: E402
import settings  # noqa: E402

LIMIT = 60.0  # seconds until it has written its first rules
_OURS = ("KUBE-ROUTER", "KUBE-POD-FW", "KUBE-NWPLCY")  # chains of its own
_FLAGS = ("--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--iptables-sync-period=10s")


@contextlib.contextmanager
def engine(kube: Kube) -> Iterator[None]:
    """The engine; it follows policies and pods by watches."""
    space = sandbox.Sandbox(**json.loads(settings.RECORD.read_text())["holder"])
    line = [str(helm.folder("kube-router") / "kube-router"), f"--kubeconfig={keys.kubeconfig('admin')}"]
    line += [f"--hostname-override={settings.NODE_NAME}", f"--service-cluster-ip-range={settings.SERVICES}", *_FLAGS]
    process = space.start("kube-router", [*line, "--health-port=0", "--metrics-port=0"], {})
    try:
        kube.wait(lambda: process.poll() is not None or "KUBE-ROUTER-FORWARD" in _rules(space), LIMIT, _log)
        assert process.poll() is None, _log()
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # nsenter waits for it, and passes no signal on
        process.wait(30)
        _clean(space)


def _log() -> str:
    return (settings.LOGS / "kube-router.log").read_text(errors="replace")[-3000:]


def _rules(space: sandbox.Sandbox) -> str:
    return subprocess.run(space.enter(["iptables-save", "-t", "filter"]), capture_output=True, text=True, check=True).stdout


def _clean(space: sandbox.Sandbox) -> None:
    kept = "\n".join(line for line in _rules(space).splitlines() if not any(name in line for name in _OURS)) + "\n"
    subprocess.run(space.enter(["iptables-restore"]), input=kept, text=True, check=True)
