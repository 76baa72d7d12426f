"""The cluster's namespaces: network, mounts and processes of its own, held by one process.

All parts and all containers live in them, so ending the holder ends every process, mount, address and iptables rule of the
cluster at once, however badly it is doing; only the cgroups and the state folder remain to be removed. Within, /run, /var/lib
and /var/log are folders of the cluster, and what is written to /etc and /opt is kept apart, so that programs with paths built in
leave nothing on the machine.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import settings as s

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 10.0
END_SECONDS = 60.0
_CGROUPS = Path("/sys/fs/cgroup")
# Not the caller's: its proxies, for one, do not lead to the cluster.
_ENVIRONMENT = {"PATH": PATH, "HOME": "/root"}

_HOLD = f"""
set -eu
for folder in etc opt; do
    mount -t overlay -o "lowerdir=/$folder,upperdir={s.STATE}/$folder/over,workdir={s.STATE}/$folder/work" overlay "/$folder"
done
mount -t tmpfs tmpfs /run
mount --bind {s.STATE}/lib /var/lib
mount --bind {s.LOGS}/var /var/log
ip link set lo up
ip link add {s.BRIDGE} type bridge
ip addr add {s.NODE}/24 dev {s.BRIDGE}
ip link set {s.BRIDGE} up
ip route add {s.SERVICES} dev {s.BRIDGE}
echo 1 > /proc/sys/net/ipv4/ip_forward
touch /run/held
exec "$1"
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The holder: its pid, and when it started, for pids are used again."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return _started(self.pid) == self.started

    def path(self, inside: str) -> Path:
        """An absolute path of the cluster's mount namespace, as seen from outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command, in the namespaces."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--", *command]

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """A part of the cluster. It outlives this process and ends with the holder."""
        with (s.LOGS / f"{name}.log").open("ab") as log:
            line = self.enter(command)
            return subprocess.Popen(
                line, env={**_ENVIRONMENT, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )


def create(holder: Path) -> Sandbox:
    """New namespaces, held by the program `holder`; RuntimeError if that fails."""
    for folder in ("lib", "log/var", "etc/over", "etc/work", "opt/over", "opt/work"):
        (s.STATE / folder).mkdir(parents=True, exist_ok=True)
    line = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    line += ["sh", "-c", _HOLD, "hold", str(holder)]
    with (s.LOGS / "sandbox.log").open("wb") as log:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _until(lambda: process.poll() is not None or _held(process.pid), "the namespaces")
    if process.poll() is not None:
        raise RuntimeError(f"no namespaces: {(s.LOGS / 'sandbox.log').read_text()}")
    pid = _child(process.pid) or 0
    return Sandbox(pid, _started(pid) or 0)


def connect(sandbox: Sandbox) -> None:
    """The pair of devices and the routes by which the machine reaches node, pods and services."""
    _ip("link", "add", s.OUTSIDE, "type", "veth", "peer", "name", s.INSIDE, "netns", str(sandbox.pid))
    _run(sandbox.enter(["ip", "addr", "add", f"{s.INSIDE_IP}/{s.PAIR_BITS}", "dev", s.INSIDE]))
    _run(sandbox.enter(["ip", "link", "set", s.INSIDE, "up"]))
    _ip("addr", "add", f"{s.OUTSIDE_IP}/{s.PAIR_BITS}", "dev", s.OUTSIDE)
    _ip("link", "set", s.OUTSIDE, "up")
    for network in (s.PODS, s.SERVICES):
        _ip("route", "add", network, "via", s.INSIDE_IP)


def make_cgroups() -> None:
    """The cluster's cgroup in every hierarchy of the machine; all pods are below it."""
    for hierarchy in _hierarchies():
        (hierarchy / s.CGROUP).mkdir(exist_ok=True)


def destroy(sandbox: Sandbox | None) -> None:
    """Ends the cluster, whatever is left of it, and removes what the kernel does not."""
    if sandbox and sandbox.alive():
        os.kill(sandbox.pid, signal.SIGKILL)
        _until(lambda: not sandbox.alive(), "the end of the cluster's processes", END_SECONDS)
    if Path(f"/sys/class/net/{s.OUTSIDE}").exists():
        subprocess.run(["ip", "link", "del", s.OUTSIDE], capture_output=True)  # the kernel may have been faster
    for hierarchy in _hierarchies():
        _until(lambda h=hierarchy: _remove_cgroup(h / s.CGROUP), f"the removal of the cgroup {s.CGROUP}")  # type: ignore[misc]


def _held(unshare: int) -> bool:
    """Whether all is set up."""
    holder = _child(unshare)
    return holder is not None and Path("/proc", str(holder), "root", "run", "held").exists()


def _child(pid: int) -> int | None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
    return None


def _started(pid: int) -> int | None:
    """Clock ticks from the machine's start to the process's; None if there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    return None if state in "ZX" and threads < 2 else started  # the first thread may be the first to go


def _hierarchies() -> list[Path]:
    """Version 1: a folder per controller. Version 2: the one root."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [folder for folder in _CGROUPS.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _remove_cgroup(folder: Path) -> bool:
    """Removes it with all below; False while the kernel still has a process there."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not folder.exists()


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _until(condition: Callable[[], bool], what: str, limit: float = START_SECONDS) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {limit:.0f} s")
        time.sleep(0.02)
