"""What the machine has to have: Debian's packages are installed where they are missing, if that is possible."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from settings import CACHE

CNI = Path("/usr/lib/cni")
CLUSTER = {
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "openssl": "openssl",
    str(CNI / "bridge"): "containernetworking-plugins",
}
IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}
_HIDDEN = ("/etc", "/opt", "/run", "/var/lib", "/var/log")  # the cluster has folders of its own there; see sandbox.py


class Unable(Exception):
    """The machine cannot run the cluster; the message says what to do."""


def require(programs: Mapping[str, str]) -> None:
    """Installs the Debian packages of those programs that are missing; Unable where that cannot be done."""
    _require_root()
    missing = sorted({package for program, package in programs.items() if not _there(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Unable(f"these programs are missing: {' '.join(missing)} (names of Debian's packages); install them")
    print(f"cluster: installing {' '.join(missing)}", file=sys.stderr)
    _apt("update")
    _apt("install", "-y", "--no-install-recommends", *missing)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise Unable("the test cluster needs root (namespaces, cgroups, mounts); or set KUBECONFIG to a cluster of yours")
    if any(CACHE.is_relative_to(folder) for folder in _HIDDEN):
        raise Unable(f"{CACHE} lies where the cluster has folders of its own; set MAFT_CLUSTER_CACHE to a folder elsewhere")


def _there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "-q", *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Unable(f"apt-get {arguments[0]} failed: {(done.stderr or done.stdout)[-1500:]}")
