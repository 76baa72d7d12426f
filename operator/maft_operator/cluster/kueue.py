"""What Kueue is told by a run's objects: their queue, their priority, and which pods start together or not at all. Pure.

A run that names no queue tells it the same, but for the queue: a namespace may have one for all. Without Kueue nobody reads it.
Source: Kueue, "Run Plain Pods" (pod groups), "Workload Priority Class".
"""

from maft.spec import RunSpec
from maft_operator.plan.graph import server_names
from maft_operator.spec.parse import Run

QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
GROUP = "kueue.x-k8s.io/pod-group-name"
_TOTAL, _SERVING = "kueue.x-k8s.io/pod-group-total-count", "kueue.x-k8s.io/pod-group-serving"


def labels(spec: RunSpec) -> dict[str, str]:
    """Makes the labels of Jobs and Deployments, which Kueue passes on to their pods."""
    values = {QUEUE: spec.queue_name, PRIORITY: spec.workload_priority_class}
    return {name: value for name, value in values.items() if value}


def group(run: Run, uid: str) -> str:
    """Names the group of all pods of the run's servers, and the Workload that Kueue makes of it. uid: of the resource, so that
    a run of the same name does not join the group of the one before."""
    return f"{run.name}-servers-{uid[:8]}"


def together(run: Run, uid: str) -> tuple[dict[str, str], dict[str, str]]:
    """Makes the labels and annotations by which the pods of all servers are admitted together: a part of them serves no debate.

    The queue on a Deployment alone admits pod by pod, and two runs may then hold half of what each needs."""
    pods = len(server_names(run)) * run.spec.inference.replicas
    return {GROUP: group(run, uid)}, {_TOTAL: str(pods), _SERVING: "true"}
