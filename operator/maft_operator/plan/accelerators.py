"""Which GPUs train: the trainer is built for CUDA or ROCm, and vLLM serves on more than that. Pure.

Asked of what would begin on a cluster: one machine has no such names, and what has begun goes on.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from maft_operator.plan import graph as plan
from maft_operator.spec.comparison import Comparison
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec

GPU = re.compile(r"/(gpu|mig-)")  # nvidia.com/gpu, amd.com/gpu, nvidia.com/gpu.shared, nvidia.com/mig-1g.10gb
# How names begin that device plugins give what has neither; names that nobody knows may be anybody's own for a GPU that has.
_SERVE_ALONE = ("gpu.intel.com/", "habana.ai/", "google.com/tpu", "aws.amazon.com/neuron")
_TRAINER = "trainer"  # the container of what trains, as podTemplates name it


def check(run: Run, usual: str = "", defaults: Mapping[str, Any] | None = None) -> None:
    """Raises BadSpec where the run trains on what serves alone. usual: what GPUs are called where the run does not say; defaults:
    a podTemplate of all runs."""
    name = run.spec.gpu_resource or usual
    if not name.startswith(_SERVE_ALONE) or not _trains_on_gpus(run) or _has_others(defaults) or _has_others(run.spec.pod_template):
        return
    whose = "" if run.spec.gpu_resource else ", as the operator has it"
    raise BadSpec(f"gpuResource: {name}{whose}; training needs CUDA or ROCm, so set training.gpus to 0, which trains on the CPU")


def check_all(one: Comparison, usual: str = "", defaults: Mapping[str, Any] | None = None) -> None:
    """Raises BadSpec for the first run of the comparison, or of what it may try, that `check` refuses."""
    runs = [(child.label, child.run) for child in one.children]
    runs += [(run.spec.method, run) for run in (one.origin.corners if one.origin else ())]
    for label, run in runs:
        try:
            check(run, usual, defaults)
        except BadSpec as error:
            raise BadSpec(f"run {label}: {error}") from None


def _trains_on_gpus(run: Run) -> bool:
    """Whether a task of it loads the base on GPUs: to train, or to measure how far agents are apart."""
    return any(plan.on_a_device(task) and plan.on_cluster(task).gpus for task in plan.graph(run, "").tasks)


def _has_others(template: Mapping[str, Any] | None) -> bool:
    """Whether that podTemplate gives the trainer GPUs of another name."""
    asked = [(name, amount) for limits in _limits(template) for name, amount in limits.items()]
    return any(
        GPU.search(name) and not name.startswith(_SERVE_ALONE) and str(amount) not in ("0", "None") for name, amount in asked
    )


def _limits(template: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    containers = _inside(template, "spec", "containers")
    for container in containers if isinstance(containers, list) else ():
        limits = _inside(container, "resources", "limits")
        if _inside(container, "name") == _TRAINER and isinstance(limits, Mapping):
            yield limits


def _inside(value: Any, *names: str) -> Any:
    """Reads a field of what the API server has not looked at yet; None where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
