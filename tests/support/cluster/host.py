"""What the machine must have and allow: Debian's packages are installed where they are missing, if that is possible.

`host.py KIND...` installs what is missing of browser, chaos, cluster, images, prometheus. It runs before there is the project's
environment.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from settings import CACHE

CNI = Path("/usr/lib/cni")
FAKETIME = Path(f"/usr/lib/{platform.machine()}-linux-gnu/faketime/libfaketimeMT.so.1")  # gives programs a clock that is off
CLUSTER = {
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ipset": "ipset",
    "nsenter": "util-linux",
    "openssl": "openssl",
    str(CNI / "bridge"): "containernetworking-plugins",
}
IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}
PROMETHEUS = {"prometheus": "prometheus", "promtool": "prometheus"}
CHAOS = {str(FAKETIME): "libfaketime"}
BROWSER = {"chromium": "chromium", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf": "fonts-dejavu-core"}
KINDS = {"browser": BROWSER, "chaos": CHAOS, "cluster": CLUSTER, "images": IMAGES, "prometheus": PROMETHEUS}
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}  # bits of CapEff
LOCK_SECONDS = 600  # how long another program of the machine may hold the package manager
_HELD = "Could not get lock"
_HIDDEN = ("/etc", "/opt", "/run", "/var/lib", "/var/log")  # the cluster has folders of its own there; see sandbox.py


class Unable(Exception):
    """The machine cannot run the cluster; the message says what to do."""


def unable() -> str:
    """Why this machine cannot run the cluster; empty if it can."""
    if sys.platform != "linux":
        return "the test cluster needs Linux"
    if os.geteuid() != 0:
        return "the test cluster needs root (namespaces, cgroups, mounts)"
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    lacking = [name for name, bit in CAPABILITIES.items() if not int(status["CapEff"], 16) >> bit & 1]
    return f"the test cluster needs {' and '.join(lacking)}" if lacking else ""


def require(programs: Mapping[str, str]) -> None:
    """Installs the Debian packages of those programs that are missing; Unable where that cannot be done."""
    _require_place()
    if not _missing(programs):
        return
    with _alone():
        if missing := _missing(programs):  # while we waited, somebody else may have installed them
            _install(missing)


def can_install() -> bool:
    """Whether it is Debian or its kin, and we are root."""
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def _install(packages: list[str]) -> None:
    if not can_install():
        raise Unable(f"these programs are missing: {' '.join(packages)} (names of Debian's packages); install them")
    print(f"cluster: installing {' '.join(packages)}", file=sys.stderr)
    _apt("update")
    _apt("install", "-y", "--no-install-recommends", *packages)


def _require_place() -> None:
    if any(_below(CACHE, Path(folder)) for folder in _HIDDEN):
        raise Unable(f"{CACHE} lies where the cluster has folders of its own; set MAFT_CLUSTER_CACHE to a folder elsewhere")


def _below(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents


def _missing(programs: Mapping[str, str]) -> list[str]:
    return sorted({package for program, package in programs.items() if not _there(program)})


def _there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One installation at a time, also from several clones: dpkg has one lock, and does not wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _apt(*arguments: str) -> None:
    """apt-get. A lock that another program of the machine holds, as an upgrade at its start, is waited for."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}", *arguments]
    end = time.monotonic() + LOCK_SECONDS
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if (
            _HELD not in done.stderr or time.monotonic() > end
        ):  # of the lists of packages, apt-get itself does not wait for the lock
            break
        time.sleep(2)
    if done.returncode:
        raise Unable(f"apt-get {arguments[0]} failed: {(done.stderr or done.stdout)[-1500:]}")


def main() -> None:
    """Installs, by the names of KINDS."""
    try:
        require({program: package for kind in sys.argv[1:] for program, package in KINDS[kind].items()})
    except Unable as why:
        raise SystemExit(f"packages: failed: {why}") from None


if __name__ == "__main__":
    main()
