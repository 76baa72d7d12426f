"""What whoever runs the operator decides for the pods of all runs. Pure; the chart's values become it."""

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Of all pods; what a run's podTemplate says comes after it."""

    cpu_limits: bool = True
    """Containers have a limit of processors: quotas of `limits.cpu` ask for one."""
    disk: bool = True
    """Containers ask for `ephemeral-storage`, and have a limit of it."""

    @property
    def digest(self) -> str:
        """Names these settings, in short; empty for the usual ones."""
        if self == PodSettings():
            return ""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
