"""How many processes grade at once: as many as the program may use processors, by its affinity and by its pod's limit."""

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of each period, or max; in a container its own


def processors() -> int:
    """Counts the processors that this program may use."""
    try:
        quota = QUOTA.read_text()
    except OSError:  # an old kernel, or no container: no limit
        quota = "max"
    return allowed(len(os.sched_getaffinity(0)), quota)


def allowed(affinity: int, quota: str) -> int:
    """Computes how many processors that quota leaves of those, rounded up. quota: as cpu.max has it, `200000 100000`."""
    share, _, period = quota.strip().partition(" ")
    if not (share.isdecimal() and period.isdecimal() and int(period)):
        return affinity
    return max(1, min(affinity, math.ceil(int(share) / int(period))))
