"""The real metrics-server in the test cluster, which autoscalers ask: its program as an image, and what its own manifests install.

Source: kubernetes-sigs/metrics-server, manifests/base.
"""

import contextlib
from collections.abc import Iterator

import helm
import registry
from clusters import Cluster
from kube import Json, Kube

SYSTEM, NAME = "metrics-server", "metrics-server"
GROUP = "metrics.k8s.io"
LIMIT = 180.0  # seconds until it has measured for the first time, twice
_LABELS = {"k8s-app": NAME}


def version() -> str:
    """That of the program."""
    lines = (helm.ROOT / "tests/support/cluster/tools/metrics-server/go.mod").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith("sigs.k8s.io/metrics-server "))


@contextlib.contextmanager
def metrics_server(cluster: Cluster, kube: Kube) -> Iterator[None]:
    """It measures pods, as long as the block lasts."""
    image = f"{cluster.registry}/metrics-server:{version()}"
    registry.push(image, helm.folder("metrics-server") / "metrics-server", "/metrics-server")
    parts = [*_rights(), *_program(image)]
    with kube.with_parts(SYSTEM, parts, lambda: _is_available(kube), LIMIT, lambda: _explained(kube)):
        yield


def _is_available(kube: Kube) -> bool:
    service = kube.get("APIService", None, f"v1beta1.{GROUP}") or {}
    return any(c["type"] == "Available" and c["status"] == "True" for c in service.get("status", {}).get("conditions", ()))


def _explained(kube: Kube) -> str:
    pods = kube.list("Pod", SYSTEM)
    return str(kube.get("APIService", None, f"v1beta1.{GROUP}")) + "".join(str(pod["status"]) for pod in pods)


def _rights() -> list[Json]:
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": f"system:{NAME}"}, "rules": rules}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": SYSTEM}}
    subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": SYSTEM}]

    def bound(name: str, kind: str, role: str, namespace: str = "") -> Json:
        about = {"name": name, **({"namespace": namespace} if namespace else {})}
        reference = {"apiGroup": rbac, "kind": kind, "name": role}
        binding = "RoleBinding" if namespace else "ClusterRoleBinding"
        return {"apiVersion": f"{rbac}/v1", "kind": binding, "metadata": about, "roleRef": reference, "subjects": subjects}

    return [
        account,
        role,
        bound(f"system:{NAME}", "ClusterRole", f"system:{NAME}"),
        bound(f"{NAME}:system:auth-delegator", "ClusterRole", "system:auth-delegator"),
        bound(f"{NAME}-auth-reader", "Role", "extension-apiserver-authentication-reader", "kube-system"),
    ]


def _program(image: str) -> list[Json]:
    flags = ["--cert-dir=/tmp", "--secure-port=10250", "--kubelet-preferred-address-types=InternalIP"]
    flags += ["--metric-resolution=10s", "--kubelet-request-timeout=5s"]  # it ends at once where the second is not the smaller
    container = {
        "name": NAME,
        "image": image,
        "args": [*flags, "--kubelet-insecure-tls"],  # the test cluster's kubelet signs its certificate itself
        "ports": [{"name": "https", "containerPort": 10250}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "https", "scheme": "HTTPS"}, "periodSeconds": 2},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {"serviceAccountName": NAME, "containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    template = {"metadata": {"labels": _LABELS}, "spec": pod}
    about = {"name": NAME, "namespace": SYSTEM}
    deployment = {"selector": {"matchLabels": _LABELS}, "template": template}
    service = {"selector": _LABELS, "ports": [{"name": "https", "port": 443, "targetPort": "https"}]}
    asked = {"name": NAME, "namespace": SYSTEM}
    api = {"group": GROUP, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100, "service": asked}
    served = {"metadata": {"name": f"v1beta1.{GROUP}"}, "spec": {**api, "insecureSkipTLSVerify": True}}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": service},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", **served},
    ]
