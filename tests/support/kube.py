"""What end-to-end tests do to a cluster: a thin layer over the official client, and waiting that explains itself."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, NotFoundError
from urllib3.exceptions import HTTPError

Json = dict[str, Any]
RUNS = "MultiAgentFinetune"
NOT_FOUND = 404
_VERSIONS = {
    "Job": "batch/v1",
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    RUNS: "maft.dev/v1alpha1",
    "MultiAgentComparison": "maft.dev/v1alpha1",
    "Society": "maft.dev/v1alpha1",
    "PriorityClass": "scheduling.k8s.io/v1",
    "Workload": "kueue.x-k8s.io/v1beta2",
    "LocalQueue": "kueue.x-k8s.io/v1beta2",
    "ClusterQueue": "kueue.x-k8s.io/v1beta2",
    "ResourceFlavor": "kueue.x-k8s.io/v1beta2",
    "WorkloadPriorityClass": "kueue.x-k8s.io/v1beta2",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "APIService": "apiregistration.k8s.io/v1",
    "Lease": "coordination.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
}


def condition_of(thing: Json | None, kind: str) -> Json:
    """An object's condition of that type; empty while it has none."""
    conditions = ((thing or {}).get("status") or {}).get("conditions") or ()  # a definition's are null at first
    return next((c for c in conditions if c["type"] == kind), {})


def holds(thing: Json | None, kind: str) -> bool:
    return condition_of(thing, kind).get("status") == "True"


class Kube:
    """Requests by kind and namespace; objects are plain dicts."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._client = DynamicClient(config.new_client_from_config(config_file=str(kubeconfig)))

    def apply(self, *objects: Json, namespace: str | None = None) -> None:
        """Server-side apply, as a user."""
        for body in objects:
            kind = self._of(body)
            where = namespace if namespace and kind.namespaced else body["metadata"].get("namespace")
            self._client.server_side_apply(kind, body=body, namespace=where, field_manager="tests", force_conflicts=True)

    def create(self, body: Json, namespace: str | None, **options: Any) -> Json:
        """Creates it; raises the client's exceptions."""
        return self._client.create(self._of(body), body=body, namespace=namespace, **options).to_dict()

    def get(self, kind: str, namespace: str | None, name: str) -> Json | None:
        try:
            return self._client.get(self._kind(kind), name=name, namespace=namespace).to_dict()
        except NotFoundError:
            return None

    def list(self, kind: str, namespace: str | None, labels: str | None = None, fields: str | None = None) -> list[Json]:
        answer = self._client.get(self._kind(kind), namespace=namespace, label_selector=labels, field_selector=fields)
        return [item.to_dict() for item in answer.items]

    def delete(self, kind: str, namespace: str | None, name: str, *, grace: int | None = None) -> None:
        try:
            body = {"propagationPolicy": "Background", **({} if grace is None else {"gracePeriodSeconds": grace})}
            self._client.delete(self._kind(kind), name=name, namespace=namespace, body=body)
        except NotFoundError:
            pass

    def evict(self, namespace: str, pod: str) -> bool:
        """By the eviction API, as draining a node does; False where it is gone."""
        try:
            about = {"name": pod, "namespace": namespace}
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about}
            client.CoreV1Api(self._client.client).create_namespaced_pod_eviction(pod, namespace, body)
        except client.ApiException as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return True

    def merge(self, kind: str, namespace: str | None, name: str, patch: Json) -> None:
        """A JSON merge patch, as `kubectl patch --type=merge`."""
        self._client.patch(
            self._kind(kind), name=name, namespace=namespace, body=patch, content_type="application/merge-patch+json"
        )

    def merge_status(self, kind: str, namespace: str | None, name: str, patch: Json) -> None:
        """The same on the status."""
        status = self._kind(kind).status
        status.patch(name=name, namespace=namespace, body=patch, content_type="application/merge-patch+json")

    def log(self, namespace: str, pod: str, lines: int = 40) -> str:
        return client.CoreV1Api(self._client.client).read_namespaced_pod_log(pod, namespace, tail_lines=lines)

    def _kind(self, kind: str) -> Any:
        return self._client.resources.get(api_version=_VERSIONS.get(kind, "v1"), kind=kind)

    def _of(self, body: Json) -> Any:
        return self._client.resources.get(api_version=body["apiVersion"], kind=body["kind"])

    # --- runs ---

    def status(self, namespace: str, name: str) -> Json:
        resource = self.get(RUNS, namespace, name)
        return (resource or {}).get("status") or {}

    def condition(self, namespace: str, name: str, kind: str) -> Json:
        return condition_of({"status": self.status(namespace, name)}, kind)

    def is_true(self, namespace: str, name: str, kind: str) -> bool:
        return self.condition(namespace, name, kind).get("status") == "True"

    def wait_complete(self, namespace: str, name: str, limit: float) -> Json:
        """The status of a run that completed; fails at once where it failed."""

        def ended() -> bool:
            failed = self.condition(namespace, name, "Failed")
            assert failed.get("status") != "True", self.explain(namespace, name)
            return self.is_true(namespace, name, "Complete")

        self.wait(ended, limit, lambda: self.explain(namespace, name))
        return self.status(namespace, name)

    def wait(self, condition: Callable[[], Any], limit: float, explain: Callable[[], str] = lambda: "") -> Any:
        """Polls until the condition holds, and returns what it gave; fails after `limit` seconds."""
        deadline = time.monotonic() + limit
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {limit:.0f} s: {explain()}"
            time.sleep(0.2)
        return value

    @contextlib.contextmanager
    def with_parts(
        self, namespace: str, parts: Sequence[Json], ready: Callable[[], Any], limit: float, explain: Callable[[], str]
    ) -> Iterator[None]:
        """These objects and a namespace for them, from when they are ready to the end of the block; then none of them is left."""
        try:
            self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, *parts)
            self.wait(ready, limit, explain)
            yield
        finally:
            for part in reversed(parts):
                self.delete(part["kind"], part["metadata"].get("namespace"), part["metadata"]["name"])
            self.delete("Namespace", None, namespace)
            self.wait(lambda: self.get("Namespace", None, namespace) is None, limit, explain)

    def explain(self, namespace: str, name: str) -> str:
        """The status of a run, its pods and what the last of them said."""
        pods = self.list("Pod", namespace, f"maft.dev/run={name}")
        parts = [yaml.safe_dump(self.status(namespace, name))]
        for pod in pods:
            parts.append(f"{pod['metadata']['name']}: {json.dumps(pod['status'].get('containerStatuses'))}"[:1500])
        for pod in pods[-2:]:
            try:
                parts.append(self.log(namespace, pod["metadata"]["name"]) or "")
            except client.ApiException as error:
                parts.append(str(error.reason))
        return "\n".join(parts)


AWAY = 120.0  # seconds that an API server may be away
_BUSY = 429


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        deadline = time.monotonic() + AWAY
        while True:
            try:
                return method(*arguments, **options)
            except (HTTPError, client.ApiException, DynamicApiError) as error:
                status = getattr(error, "status", None) or 500  # without one, nobody answered
                if time.monotonic() > deadline or (status != _BUSY and status < 500):
                    raise
            time.sleep(0.5)

    return call


class PatientKube(Kube):
    """The same, of a server that may be away for a while: every request is sent again."""

    apply, create, get, list = map(_patient, (Kube.apply, Kube.create, Kube.get, Kube.list))
    delete, evict, merge, log = map(_patient, (Kube.delete, Kube.evict, Kube.merge, Kube.log))
