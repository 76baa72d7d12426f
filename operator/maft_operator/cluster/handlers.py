"""What kopf is used for: watching. Every event only puts the key of its run into the controller's queue.

No change handlers (they annotate objects), no timers, daemons or indexes, no finalizer: this module holds no decision.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

import kopf

from maft_operator.cluster import status
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.manifests import MANAGED_BY, MANAGER, RUN
from maft_operator.spec.schema import GROUP

CHILDREN = (("batch", "v1", "jobs"), ("apps", "v1", "deployments"), ("", "v1", "services"), ("", "v1", "pods"))


class Watched:
    """What the watches have delivered. versions: resourceVersion of every run; settled: finished and not going to expire;
    heard: when anything came last, on the monotonic clock."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.versions: dict[str, str] = {}
        self.settled: set[str] = set()
        self.heard = time.monotonic()

    def run(self, kind: str | None, body: Mapping[str, Any]) -> None:
        """An event of a MultiAgentFinetune. kind None: it was there when the watch began."""
        self.heard = time.monotonic()
        metadata = body["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}"
        if kind == "DELETED":
            self.gone(key)
            return
        self.versions[key] = metadata["resourceVersion"]
        self._controller.metrics.seen(key, body)
        if _settled(body):
            self.settled.add(key)
            return
        self.settled.discard(key)
        if not self._controller.wrote(key, metadata["resourceVersion"]):
            self._controller.queue.add(key)

    def child(self, metadata: Mapping[str, Any]) -> None:
        """An event of something that belongs to a run."""
        self.heard = time.monotonic()
        key = f"{metadata['namespace']}/{metadata.get('labels', {}).get(RUN, '')}"
        if key not in self.settled:
            self._controller.queue.add(key)

    def gone(self, key: str) -> None:
        """The run has been deleted."""
        self.versions.pop(key, None)
        self.settled.discard(key)
        self._controller.forget(key)


def _settled(body: Mapping[str, Any]) -> bool:
    state, spec = body.get("status") or {}, body.get("spec") or {}
    same = state.get("observedGeneration") == body["metadata"].get("generation")
    return status.finished(dict(state)) and same and "ttlSecondsAfterFinished" not in spec


def registry(watched: Watched) -> kopf.OperatorRegistry:
    """All handlers. Logins: the service account of the pod, else the kubeconfig."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def _login(**arguments: Any) -> Any:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.event(GROUP, "multiagentfinetunes", registry=made)
    async def _run(event: Any, **_: Any) -> None:
        watched.run(event["type"], event["object"])

    async def _child(event: Any, **_: Any) -> None:
        watched.child(event["object"]["metadata"])

    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, registry=made, id=plural)(_child)
    return made


def settings() -> kopf.OperatorSettings:
    """Every limit that kopf leaves open, in seconds, and server-side filters."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.scanning.disabled = True  # no rights on namespaces and CRDs are asked for; resources are known when we start
    made.peering.standalone = True  # a Lease decides between replicas
    made.networking.request_timeout = 30
    made.networking.connect_timeout = 5
    made.networking.error_backoffs = [1, 2, 4, 8, 15, 30]
    made.watching.server_timeout = 600
    made.watching.client_timeout = 660
    made.watching.connect_timeout = 5
    made.watching.reconnect_backoff = 1
    made.watching.chunk_size = 100
    made.queueing.idle_timeout = 0.1  # a worker per object, with its last body, stays no longer: thousands of objects start at once
    made.queueing.exit_timeout = 1
    made.process.ultimate_exiting_timeout = 20
    made.persistence.diffbase_storage = _NoDiffs()
    for group, version, plural in CHILDREN:
        made.watching.label_selectors[group, version, plural] = f"{MANAGED_BY}={MANAGER}"
    # Pods that have done their work are as many as all tasks that ever ran; one that ends is told as deleted.
    made.watching.field_selectors["", "v1", "pods"] = "status.phase!=Succeeded"
    return made


class _NoDiffs(kopf.DiffBaseStorage):
    """For each event kopf copies the object several times to see what changed: four fifths of its time, and of no use to us."""

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


def quiet() -> None:
    """kopf logs a line for each event of each object; those are ours to tell."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
