"""What a run has taken (plan/budget.py) as the cluster has it: the GPUs that its pods hold, and the record in the status. Pure.

It is written anew where the number of GPUs changes; whoever looks next counts on from there, also an operator that has just begun.
"""

from collections.abc import Iterable
from datetime import datetime

from maft_operator.cluster.children import Child
from maft_operator.cluster.fields import count, part, parts, stamp, text, time
from maft_operator.cluster.pods import is_active
from maft_operator.cluster.quantities import amount
from maft_operator.plan.accelerators import GPU
from maft_operator.plan.budget import Spent, worded
from maft_operator.plan.graph import Graph, on_cluster
from maft_operator.spec.schema import Json

_MOST = 2**53  # seconds in a status that somebody else wrote: the API server refuses sums over 2**63
_MOST_GPUS = 10**6


def held(graph: Graph, children: Iterable[Child], gpu_resource: str = "") -> int:
    """Counts the GPUs of pods that have a node, also while they start or end. gpu_resource: the operator's, where the run names
    none; other vendors call theirs as they like."""
    each = {task.name: on_cluster(task).gpus or 0 for task in graph.tasks}
    each |= {server.name: on_cluster(server).gpus or 0 for server in graph.servers}
    own = graph.tasks[0].run.spec.gpu_resource or gpu_resource
    return sum(max(each.get(child.name, 0), _named(pod, own)) for child in children for pod in child.pods if _holds(pod))


def _named(pod: Json, own: str) -> int:
    """GPUs that its containers name: podTemplates and webhooks may ask for more than the spec does. own: as the run calls them."""
    limits = [part(container, "resources", "limits") for container in parts(pod, "spec", "containers")]
    return sum(int(amount(value) or 0) for each in limits for name, value in each.items() if name == own or GPU.search(name))


def _holds(pod: Json) -> bool:
    return is_active(pod) and bool(text(pod, "spec", "nodeName"))


# --- in the status ---


def read(status: Json, now: datetime) -> Spent:
    """Reads the record. A time that is still to come counts as now: a clock that ran ahead wrote it, or somebody else."""
    at = time(status, "spent", "at")
    most = {"seconds": _MOST, "gpuSeconds": _MOST, "gpus": _MOST_GPUS}
    seconds, gpu_seconds, gpus = (min(max(0, count(status, "spent", name)), limit) for name, limit in most.items())
    return Spent(seconds, gpu_seconds, gpus if at else 0, min(at, now.replace(microsecond=0)) if at else None)


def written(spent: Spent) -> Json:
    """Makes the record."""
    since = {"gpus": spent.gpus, "at": stamp(spent.at)} if spent.at else {}
    return {"seconds": spent.seconds, "gpuSeconds": spent.gpu_seconds, "text": worded(spent), **since}
