"""What kopf is used for: watching. Every event only wakes its run.

No change handlers (they annotate objects), no timers, daemons or indexes, no finalizer: this module holds no decision.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from maft_operator.cluster import kinds
from maft_operator.cluster.conditions import settled
from maft_operator.cluster.fields import part, text
from maft_operator.cluster.following import Following
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.logged import about
from maft_operator.cluster.manifests import MANAGED_BY, MANAGER
from maft_operator.cluster.metrics import Metrics

log = logging.getLogger("maft")
_AT_REST = ("Suspended", "Complete", "Failed", "Rejected")  # phases in which nothing is looked at again but for an event


_SETTLED: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    kind.name: settled for kind in (kinds.RUN, kinds.COMPARISON)
}  # of others nothing is ever over


class Watched:
    """What the watches have delivered.

    kinds: parent kinds that are watched; versions: resourceVersion of each of their objects, by key; settled: those that nothing is
    left to do about; heard: when anything came last, on the monotonic clock."""

    def __init__(self, keys: Keys, metrics: Metrics) -> None:
        self._keys = keys
        self._metrics = metrics
        self._following = Following()
        self.kinds: tuple[Kind, ...] = (kinds.RUN,)
        self.versions: dict[str, str] = {}
        self.settled: set[str] = set()
        self.heard = time.monotonic()

    def run(self, kind: str | None, body: Mapping[str, Any]) -> None:
        """Takes in an event of a MultiAgentFinetune. kind None: it was there when the watch began."""
        key = kinds.key(kinds.RUN, body["metadata"]["namespace"], body["metadata"]["name"])
        if kind != "DELETED":
            self._keys.note(key, at_work=text(dict(body), "status", "phase") not in _AT_REST)
        self.parent(kinds.RUN, kind, body)
        compared = kinds.COMPARISON.label in part(dict(body), "metadata", "labels")
        if compared and self._following.tells(key, body, gone=kind == "DELETED"):
            self.child(body["metadata"])
        for follower in self._following.woken(key, None if kind == "DELETED" else body):
            self._keys.wake(follower)

    def parent(self, of: Kind, kind: str | None, body: Mapping[str, Any]) -> None:
        """Takes in an event of an object of a parent kind. kind: of the event, as above."""
        self.heard = time.monotonic()
        metadata = body["metadata"]
        key = kinds.key(of, metadata["namespace"], metadata["name"])
        if kind == "DELETED":
            self.gone(key)
            return
        self.versions[key] = metadata["resourceVersion"]  # first of all: a watch that does not deliver ends the process
        self._following.note(of, key, body)
        self._wake(of, key, body)
        self._measure(key, body)

    def _wake(self, of: Kind, key: str, body: Mapping[str, Any]) -> None:
        if of.name in _SETTLED and _SETTLED[of.name](body):
            self.settled.add(key)
            return
        self.settled.discard(key)
        if not self._keys.is_echo(key, body["metadata"]["resourceVersion"]):
            self._keys.wake(key)

    def _measure(self, key: str, body: Mapping[str, Any]) -> None:
        """Hands it to the metrics. A fault there costs the series of this object and nothing else: all namespaces hang by it."""
        try:
            self._metrics.seen(key, body)
        except Exception:  # of whatever somebody wrote into a status
            self._metrics.gone(key)
            log.exception("%s: it has no series, for its status could not be read", key, extra=about(key))

    def child(self, metadata: Mapping[str, Any]) -> None:
        """Takes in an event of something that belongs to an object of a parent kind, which may be one itself."""
        self.heard = time.monotonic()
        for kind in self.kinds:
            name = (metadata.get("labels") or {}).get(kind.label)
            key = kinds.key(kind, metadata["namespace"], name or "")
            if name and key not in self.settled:
                self._keys.stir(key)

    def gone(self, key: str) -> None:
        """Drops what has been deleted."""
        self.versions.pop(key, None)
        self._following.forget(key)
        self.settled.discard(key)
        self._keys.forget(key)


def registry(watched: Watched, parents: Sequence[Kind] = (kinds.RUN,)) -> kopf.OperatorRegistry:
    """Registers all handlers. Logins: the service account of the pod, else the kubeconfig. parents: kinds that the cluster has."""
    watched.kinds = tuple(parents)
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def _login(**arguments: Any) -> Any:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.event(kinds.RUN.group, kinds.RUN.plural, registry=made)
    async def _run(event: Any, **_: Any) -> None:
        watched.run(event["type"], event["object"])

    async def _child(event: Any, **_: Any) -> None:
        watched.child(event["object"]["metadata"])

    for kind in parents:
        if kind != kinds.RUN:
            kopf.on.event(kind.group, kind.plural, registry=made, id=kind.plural)(_other(watched, kind))

    for kind in kinds.WATCHED_CHILDREN:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=made, id=kind.plural)(_child)
    return made


def _other(watched: Watched, kind: Kind) -> Any:
    """Makes the handler of a kind; in a loop, all would hear of the last one."""

    async def handle(event: Any, **_: Any) -> None:
        watched.parent(kind, event["type"], event["object"])

    return handle


def settings() -> kopf.OperatorSettings:
    """Sets every limit that kopf leaves open, in seconds, and server-side filters."""
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
    for kind in kinds.WATCHED_CHILDREN:
        made.watching.label_selectors[kind.group, kind.version, kind.plural] = f"{MANAGED_BY}={MANAGER}"
    # Pods that have done their work are as many as all tasks that ever ran; one that ends is told as deleted.
    made.watching.field_selectors[kinds.POD.group, kinds.POD.version, kinds.POD.plural] = "status.phase!=Succeeded"
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
    """Silences kopf, which logs a line for each event of each object; those are ours to tell."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
