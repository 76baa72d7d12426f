"""What the operator asked the API server for, by the server's own audit log: nothing denied, no right unused, never two writers.

Runs after all other tests of the cluster: the log tells of the whole session, its kills and upgrades included.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from installed import SYSTEM, Installed
from kube import RUNS, Json

from maft_operator.cluster.leader import LEASE

pytestmark = [pytest.mark.cluster, pytest.mark.afterwards, pytest.mark.timeout(900)]
LIMIT = 300.0
ACCOUNT = f"system:serviceaccount:{SYSTEM}:maft-operator"
WRITES = ("create", "update", "patch", "delete")
CREATED = 201
# Rights that a healthy session need not use, each with why it is there all the same.
RARE = {
    ("maft.dev", "multiagentcomparisons", "delete"): "a comparison that expires",
    ("networking.k8s.io", "ingresses", "create"): "a Society that is reached from outside; test_society_api makes one",
    ("networking.k8s.io", "ingresses", "patch"): "the same, where it changes",
    ("networking.k8s.io", "ingresses", "delete"): "and where it is reached from outside no more",
    ("kueue.x-k8s.io", "workloads", "list"): "where something is queued",
    ("coordination.k8s.io", "leases", "create"): "the chart's Lease is there; where it is left out, the operator makes one",
    ("coordination.k8s.io", "leases", "patch"): "a leader that ends gives its lease back; one that is killed does not",
}


def entries(maft: Installed) -> list[Json]:
    """The operator's requests, oldest first; the server begins a new file at 100 MB."""
    path = Path(maft.cluster.audit_log)
    found = []
    for file in sorted(path.parent.glob(f"{path.stem}*{path.suffix}")):
        with file.open() as lines:
            found += [entry for line in lines if ACCOUNT in line and (entry := json.loads(line))["user"]["username"] == ACCOUNT]
    return sorted(found, key=lambda entry: entry["requestReceivedTimestamp"])


def right(entry: Json) -> tuple[str, str, str]:
    """Server-side apply is a patch; of an object that was not there, it needed the right to create."""
    reference = entry.get("objectRef", {})
    resource = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
    created = entry["verb"] == "patch" and entry["responseStatus"]["code"] == CREATED
    return reference.get("apiGroup", ""), resource, "create" if created else entry["verb"]


def granted(maft: Installed) -> set[tuple[str, str, str]]:
    """By the roles that are bound to it."""
    rules = []
    for kind, namespace, name in (("ClusterRole", None, "maft-operator"), ("Role", SYSTEM, "maft-operator-lease")):
        rules += maft.kube.get(kind, namespace, name)["rules"]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


@pytest.fixture(scope="module")
def life(maft: Installed) -> Json:
    """A run that waits for a Secret, is suspended, drifts, completes and expires: every reason to ask for something."""
    from installed import make_namespace

    kube, namespace = maft.kube, "e2e-audit"
    kube.delete("Namespace", None, namespace)
    kube.wait(lambda: kube.get("Namespace", None, namespace) is None, 60)
    make_namespace(maft, namespace)
    began = len(entries(maft))
    storage = {"credentialsSecret": {"name": "later"}}
    spec = {"iterations": 1, "agents": 2, "ttlSecondsAfterFinished": 1, "storage": storage, **maft.mocked(0.3)}
    kube.apply(maft.resource("life", namespace, **spec))

    def explain() -> str:
        return kube.explain(namespace, "life")

    kube.wait(lambda: kube.condition(namespace, "life", "Progressing").get("reason") == "SecretMissing", 60, explain)
    keys = {"AWS_ACCESS_KEY_ID": maft.cluster.s3_access_key, "AWS_SECRET_ACCESS_KEY": maft.cluster.s3_secret_key}
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later", "namespace": namespace}, "stringData": keys})
    kube.wait(lambda: kube.status(namespace, "life").get("phase") == "Debating", LIMIT, explain)
    kube.merge(RUNS, namespace, "life", {"spec": {"suspend": True}})
    kube.wait(lambda: kube.is_true(namespace, "life", "Suspended"), 30, explain)
    kube.merge(RUNS, namespace, "life", {"spec": {"suspend": False}})
    kube.wait(lambda: kube.status(namespace, "life").get("phase") == "Debating", LIMIT, explain)
    kube.merge("Job", namespace, "life-1-debate", {"spec": {"backoffLimit": 99}})
    kube.merge("Deployment", namespace, "life-server", {"spec": {"replicas": 2}})
    kube.merge("Service", namespace, "life-server", {"spec": {"selector": {"maft.dev/child": "nobody"}}})
    kube.merge("NetworkPolicy", namespace, "life-server", {"spec": {"ingress": [{}]}})
    kube.wait(lambda: kube.get(RUNS, namespace, "life") is None, LIMIT, explain)
    kube.delete("Namespace", None, namespace)
    return {"began": began}


def test_nothing_was_denied(maft, life):
    """Admission may refuse, as in a namespace that is being deleted; authorization never does."""
    ours = entries(maft)[life["began"] :]
    assert len(ours) > 50
    assert not [right(e) for e in ours if e.get("annotations", {}).get("authorization.k8s.io/decision") != "allow"]


def test_no_right_is_unused(maft, life):
    unused = granted(maft) - {right(e) for e in entries(maft)}
    assert unused <= set(RARE)


def test_nothing_was_done_without_a_right(maft, life):
    """What everybody may do aside: asking for one's own rights, and what kinds there are."""
    asked = {right(e) for e in entries(maft)[life["began"] :] if "objectRef" in e}
    assert {r for r in asked if r[1] != "selfsubjectaccessreviews"} <= granted(maft)


def test_never_two_writers(maft, life):
    """Whenever another pod writes than before, the one before does not write again while its lease could still have held."""
    assert [*two_writers(written(entries(maft)))] == []


def written(found: Iterable[Json]) -> list[tuple[float, str]]:
    """When, and by which pod; the lease itself aside, which stand-bys ask for as well."""
    return [
        (
            datetime.fromisoformat(e["requestReceivedTimestamp"]).timestamp(),
            e["user"]["extra"]["authentication.kubernetes.io/pod-name"][0],
        )
        for e in found
        if e["verb"] in WRITES and e.get("objectRef", {}).get("resource") not in ("leases", "selfsubjectaccessreviews")
    ]


def two_writers(writes: list[tuple[float, str]]) -> Iterable[str]:
    for (before, old), (at, new) in pairwise(writes):
        if old != new and (back := [t for t, pod in writes if pod == old and at < t < at + LEASE]):
            yield f"{old} wrote at {before:.3f} and {back[0]:.3f}, {new} at {at:.3f}"


def test_two_writers_would_be_seen():
    assert not [*two_writers([(0, "a"), (1, "a"), (2, "b"), (40, "b"), (41, "a")])]
    assert len([*two_writers([(0, "a"), (2, "b"), (3, "a")])]) == 1
