"""What this pod, container or process may use: processors and memory, as the kernel's control groups (cgroups, both versions) have
it; the addresses that it has; whose child it is."""

import ctypes
import errno
import math
import os
import signal
import socket
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # in a container its own
_PDEATHSIG = 1  # of prctl(2)
_UNLIMITED = 2**60  # bytes; what version 1 writes where there is no limit


def processors() -> int:
    """Counts the processors that this program may use."""
    return threads(len(os.sched_getaffinity(0)))


def threads(wanted: int, root: Path = CGROUP) -> int:
    """Computes how many threads may compute of those that a library wants, which counts the node's processors: more than the quota
    grants would be stopped, all of them, for a part of each period."""
    return allowed(wanted, _quota(root))


def _quota(root: Path) -> str:
    """Microseconds of each period, or max, as version 2 writes them; empty where there is no limit, or no container."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            return " ".join((root / name).read_text().strip() for name in names)
        except OSError:
            continue
    return ""


def allowed(affinity: int, quota: str) -> int:
    """Computes how many processors that quota leaves of those, rounded up. quota: as cpu.max has it, `200000 100000`."""
    share, _, period = quota.strip().partition(" ")
    if not (share.isdecimal() and period.isdecimal() and int(period)):
        return affinity
    return max(1, min(affinity, math.ceil(int(share) / int(period))))


def memory(root: Path = CGROUP) -> tuple[int, int]:
    """Reads the limit of this pod or container and what it uses of it, in bytes; a limit of 0: there is none."""
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            most, current = ((root / name).read_text().strip() for name in (limit, used))
        except OSError:
            continue
        return (int(most), int(current)) if most.isdigit() and int(most) < _UNLIMITED else (0, 0)
    return 0, 0


def everywhere() -> str:
    """Names the address to listen at for all that this pod has, of both families; 0.0.0.0 where that of IPv6 takes no IPv4."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            alone = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            probe.bind(("::", 0))
    except OSError:  # a kernel without it
        return "0.0.0.0"
    return "0.0.0.0" if alone else "::"


def unheard(host: str, port: int, error: OSError) -> str:
    """Says why nobody can listen there: an address may be none, or another machine's; a port may be taken."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: {error.strerror}; give an address of this machine, such as 127.0.0.1"
    return f"--port {port}: {error.strerror}; choose another port or stop what listens there"


def is_watched() -> bool:
    """Tells whether `maft run` started this program: somebody waits who can start it again, on this machine; a cluster starts it
    again by itself, maybe elsewhere."""
    return "MAFT_WATCHED" in os.environ


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent goes, however that goes (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
