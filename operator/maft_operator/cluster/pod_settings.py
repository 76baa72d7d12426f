"""What whoever runs the operator decides for the pods of all runs. Pure; the chart's values become it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from maft_operator.cluster.fields import part
from maft_operator.spec.schema import Json

NVIDIA = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Of all pods; what a run's podTemplate says comes after it."""

    cpu_limits: bool = True
    """Containers have a limit of processors: quotas of `limits.cpu` ask for one."""
    disk: bool = True
    """Containers ask for `ephemeral-storage`, and have a limit of it."""
    ids: bool = True
    """Pods say which user, group and group of files they have; false: whoever admits them does, as OpenShift."""
    gpu_resource: str = NVIDIA
    """What a GPU is called that a run asks for."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """A podTemplate that is merged into all pods before the run's own."""
    labels: tuple[str, ...] = ()
    """Of a run, which its Jobs, Deployments and pods have as well."""
    annotations: tuple[str, ...] = ()
    """The same of annotations."""

    @property
    def digest(self) -> str:
        """Names these settings, in short; empty for the usual ones."""
        if self == PodSettings():
            return ""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def inherited(self, thing: Json) -> "Inherited":
        """Picks what is handed on of a run's metadata, or was handed on to a child: what a child has is not changed."""
        return Inherited(_texts(thing, "labels", self.labels), _texts(thing, "annotations", self.annotations))


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a child has of its run."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def _texts(thing: Json, kind: str, names: tuple[str, ...]) -> dict[str, str]:
    there = part(thing, "metadata", kind)
    return {name: value for name in names if isinstance(value := there.get(name), str)}
