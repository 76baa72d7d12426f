"""The real Kueue in the test cluster: its program as an image, its own chart, and queues.

Its webhooks are asked about namespaces with the label CHOSEN alone, so tests beside go on while it comes, is away and goes.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import helm
import registry
import yaml
from clusters import Cluster
from kube import Json, Kube, holds
from kubernetes.dynamic.exceptions import DynamicApiError

SYSTEM = "kueue-system"
CHOSEN = {"maft-tests/queues": "kueue"}
API = "kueue.x-k8s.io/v1beta2"
MANAGER = "kueue-controller-manager"
LIMIT = 120.0  # seconds for Kueue to come or to go
PLENTY = {"memory": "1Ti", "ephemeral-storage": "100Ti"}
_CERTIFICATE = "kueue-webhook-server-cert"


def version() -> str:
    """That of the program, and of the chart."""
    lines = (helm.ROOT / "tests/support/cluster/tools/kueue-chart/go.mod").read_text().splitlines()
    return next(line.split()[-1] for line in lines if line.startswith("require sigs.k8s.io/kueue "))


@contextlib.contextmanager
def kueue(cluster: Cluster, kube: Kube) -> Iterator[None]:
    """Kueue, as long as the block lasts."""
    image = f"{cluster.registry}/kueue/manager:{version()}"
    registry.push(image, helm.folder("kueue") / "kueue", "/manager")
    parts = [
        _narrowed(part) for part in rendered(image) if part["kind"] != "APIService"
    ]  # ours could not ask them (no proxy client)
    kinds = [p for p in parts if p["kind"] == "CustomResourceDefinition"]
    others = [p for p in parts if p["kind"] != "CustomResourceDefinition"]
    try:
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}, *kinds)
        kube.wait(lambda: all(_is_established(kube, kind) for kind in kinds), LIMIT)
        kube.apply(*others)
        start(kube)
        yield
    finally:
        _cleared(kube)  # as long as there is somebody who takes finalizers off
        for part in (*reversed(others), *kinds):
            kube.delete(part["kind"], part["metadata"].get("namespace", SYSTEM), part["metadata"]["name"])
        kube.delete("Namespace", None, SYSTEM)
        kube.wait(lambda: not kube.get("Namespace", None, SYSTEM), LIMIT)


def rendered(image: str) -> list[Json]:
    """What Kueue's chart installs."""
    repository, _, tag = image.rpartition(":")
    values: Json = {
        "controllerManager": {
            "manager": {
                "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            },
            "readinessProbe": {"initialDelaySeconds": 1},
            "featureGates": [{"name": "VisibilityOnDemand", "enabled": False}],
        }
    }
    chart = str(helm.folder("kueue-chart") / "charts" / "kueue")
    text = helm.run("template", "kueue", chart, "--namespace", SYSTEM, "--include-crds", values=values)
    return [part for part in yaml.safe_load_all(text) if part]


def _narrowed(part: Json) -> Json:
    if not part["kind"].endswith("WebhookConfiguration"):
        return part
    return {**part, "webhooks": [{**hook, "namespaceSelector": {"matchLabels": CHOSEN}} for hook in part["webhooks"]]}


def start(kube: Kube) -> None:
    """Waits until its webhooks answer. The manager makes their certificate, which the kubelet shows at its next look at the pod."""
    kube.merge("Deployment", SYSTEM, MANAGER, {"spec": {"replicas": 1}})
    kube.wait(lambda: (kube.get("Secret", SYSTEM, _CERTIFICATE) or {}).get("data"), LIMIT)
    kube.wait(lambda: _looked_at(kube), LIMIT)
    kube.wait(lambda: _answers(kube), LIMIT)


def _answers(kube: Kube) -> bool:
    """Whether the API server reaches the webhooks: the way to a pod that is ready is there a moment later."""
    try:
        kube.create(_made("ResourceFlavor", "tried"), None, dry_run="All")
    except DynamicApiError as error:
        if error.status == 500 and "failed calling webhook" in str(error.body):
            return False
        raise
    return True


def stop(kube: Kube) -> None:
    """Nobody is behind the webhooks."""
    kube.merge("Deployment", SYSTEM, MANAGER, {"spec": {"replicas": 0}})
    kube.wait(lambda: not managers(kube), LIMIT)


def managers(kube: Kube) -> list[Json]:
    return kube.list("Pod", SYSTEM, "control-plane=controller-manager")


def _looked_at(kube: Kube) -> bool:
    for pod in managers(kube):
        kube.merge("Pod", SYSTEM, pod["metadata"]["name"], {"metadata": {"annotations": {"seen": str(time.monotonic())}}})
    deployment = kube.get("Deployment", SYSTEM, MANAGER) or {}
    return bool(deployment.get("status", {}).get("readyReplicas"))


def _is_established(kube: Kube, kind: Json) -> bool:
    return holds(kube.get("CustomResourceDefinition", None, kind["metadata"]["name"]), "Established")


def _cleared(kube: Kube) -> None:
    """Namespaces of the tests first: what was admitted there holds its queue, which holds its flavor."""
    chosen = ",".join(f"{name}={value}" for name, value in CHOSEN.items())
    for namespace in kube.list("Namespace", None, chosen):
        kube.delete("Namespace", None, namespace["metadata"]["name"])
    kube.wait(lambda: not kube.list("Namespace", None, chosen), LIMIT)
    for kind in ("ClusterQueue", "ResourceFlavor", "WorkloadPriorityClass"):
        for thing in kube.list(kind, None):
            kube.delete(kind, None, thing["metadata"]["name"])
        kube.wait(lambda kind=kind: not kube.list(kind, None), LIMIT)  # type: ignore[misc]


# --- queues ---


def _made(kind: str, name: str, namespace: str | None = None, **more: Any) -> Json:
    about = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API, "kind": kind, "metadata": about, **more}


def queue(kube: Kube, namespace: str, name: str, **quota: str) -> None:
    """A LocalQueue of that namespace with a ClusterQueue and a flavor of its own. quota: of each resource that it covers, beside
    memory and disk, of which there is plenty."""
    whole = f"{namespace}-{name}"
    quota = {**PLENTY, **quota}
    resources = [{"name": resource, "nominalQuota": amount} for resource, amount in quota.items()]
    groups = [{"coveredResources": [*quota], "flavors": [{"name": whole, "resources": resources}]}]
    spec = {"namespaceSelector": {}, "preemption": {"withinClusterQueue": "LowerPriority"}, "resourceGroups": groups}
    kube.apply(
        _made("ResourceFlavor", whole),
        _made("ClusterQueue", whole, spec=spec),
        _made("LocalQueue", name, namespace, spec={"clusterQueue": whole}),
    )
    kube.wait(lambda: is_active(kube, whole), LIMIT)


def priority(kube: Kube, name: str, value: int) -> None:
    """A WorkloadPriorityClass."""
    kube.apply(_made("WorkloadPriorityClass", name, value=value))


def is_active(kube: Kube, name: str) -> bool:
    """Whether that ClusterQueue admits."""
    return holds(kube.get("ClusterQueue", None, name), "Active")
