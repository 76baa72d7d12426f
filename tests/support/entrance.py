"""A real ingress controller in the test cluster, Skipper, through which clients from outside come: its program as an image, and
what its own manifests install.

Source: zalando/skipper, docs/kubernetes/deploy.
"""

import contextlib
from collections.abc import Iterator

import helm
import registry
from clusters import Cluster
from kube import Json, Kube

SYSTEM = NAME = "skipper"
CLASS = "skipper"  # spec.ingress.className of those that it serves
LIMIT = 120.0  # seconds until it has read the Ingresses for the first time
_LABELS = {"app": NAME}
_READS = {
    "": ["namespaces", "services", "endpoints", "secrets"],
    "discovery.k8s.io": ["endpointslices"],
    "networking.k8s.io": ["ingresses", "ingressclasses"],
}
_PORTS = {"http": 9999, "https": 9443}


@contextlib.contextmanager
def ingress_controller(cluster: Cluster, kube: Kube) -> Iterator[str]:
    """It answers at ports 80 and 443 of the address, as long as the block lasts."""
    program = helm.folder("skipper") / "skipper"
    image = f"{cluster.registry}/skipper:{program.parent.name}"  # the folder is named by what it was made of
    registry.push(image, program, "/skipper")
    parts = [*_rights(), *_program(image)]
    with kube.with_parts(SYSTEM, parts, lambda: _is_available(kube), LIMIT, lambda: _explained(kube)):
        yield (kube.get("Service", SYSTEM, NAME) or {})["spec"]["clusterIP"]


def _is_available(kube: Kube) -> bool:
    return bool((kube.get("Deployment", SYSTEM, NAME) or {}).get("status", {}).get("availableReplicas"))


def _explained(kube: Kube) -> str:
    return str([pod["status"] for pod in kube.list("Pod", SYSTEM)])


def _rights() -> list[Json]:
    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [group], "resources": kinds, "verbs": ["get", "list"]} for group, kinds in _READS.items()]
    reference = {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME}
    subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": SYSTEM}]
    about = {"metadata": {"name": NAME}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": SYSTEM}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", **about, "rules": rules},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", **about, "roleRef": reference, "subjects": subjects},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": CLASS},
            "spec": {"controller": "zalando.org/skipper"},
        },
    ]


def _program(image: str) -> list[Json]:
    flags = ["-kubernetes", "-kubernetes-in-cluster", "-enable-kubernetes-endpointslices", f"-kubernetes-ingress-class=^{CLASS}$"]
    flags += ["-kubernetes-path-mode=path-prefix", "-kubernetes-enable-tls", "-kubernetes-https-redirect=false"]
    flags += [
        f"-address=:{_PORTS['https']}",
        f"-insecure-address=:{_PORTS['http']}",
        "-wait-first-route-load",
        "-source-poll-timeout=1000",
        "-insecure",  # it asks pods by their addresses, which no certificate of a Service names
    ]
    container = {
        "name": NAME,
        "image": image,
        "args": flags,
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS.items()],
        "readinessProbe": {"tcpSocket": {"port": "https"}, "periodSeconds": 2},
    }
    template = {"metadata": {"labels": _LABELS}, "spec": {"serviceAccountName": NAME, "containers": [container]}}
    about = {"name": NAME, "namespace": SYSTEM}
    ports = [{"name": name, "port": {"http": 80, "https": 443}[name], "targetPort": name} for name in _PORTS]
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": about,
            "spec": {"selector": {"matchLabels": _LABELS}, "template": template},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {"selector": _LABELS, "ports": ports}},
    ]
