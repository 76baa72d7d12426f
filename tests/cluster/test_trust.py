"""Who reaches a run on a cluster whose network enforces policies, and what the key of its servers is good for."""

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import policing
import pytest
from installed import SYSTEM, Installed, install, make_namespace
from kube import Json

from maft.spec import SERVER_KEY
from maft_operator.cluster import manifests

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMIT = 300.0  # seconds for a small run, on two busy cores
ENFORCED = 60.0  # seconds until the engine has heard of a pod or policy
SCRAPERS = "e2e-scrapers"
SPEC: Json = {"iterations": 1, "agents": 2}
# Asks each address of its arguments, and says what became of it.
ASK = f"""
import json, os, sys, urllib.error, urllib.request
def ask(url):
    key = os.environ.get("{SERVER_KEY}")
    headers = {{"Authorization": "Bearer " + key}} if key else {{}}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=3).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        name = type(getattr(error, "reason", error)).__name__
        return "closed" if name in ("TimeoutError", "ConnectionRefusedError") else name
print(json.dumps([ask(url) for url in sys.argv[1:]]))
"""
CLOSED = "closed"


@pytest.fixture(scope="module", autouse=True)
def enforced(maft: Installed) -> Iterator[None]:
    """An engine, and an operator that lets one namespace scrape."""
    make_namespace(maft, SCRAPERS)
    install(maft, networkPolicy={"scrapeNamespaces": [SCRAPERS]})
    with policing.engine(maft.kube):
        yield
    install(maft)
    maft.kube.delete("Namespace", None, SCRAPERS)


def asked(
    maft: Installed, namespace: str, urls: list[str], labels: Mapping[str, str] | None = None, key: str = ""
) -> list[int | str]:
    """What a pod of that namespace is answered. key: the Secret with the key that it shows."""
    kube, name = maft.kube, f"asks-{uuid.uuid4().hex[:6]}"
    reference = {"name": SERVER_KEY, "valueFrom": {"secretKeyRef": {"name": key, "key": "key"}}}
    command, env = ["python3", "-c", ASK, *urls], [reference] if key else []
    kube.apply(maft.restricted_pod(namespace, name, command, dict(labels or {}), env=env))
    kube.wait(lambda: (kube.get("Pod", namespace, name) or {}).get("status", {}).get("phase") == "Succeeded", LIMIT)
    found: list[int | str] = json.loads(kube.log(namespace, name))
    kube.delete("Pod", namespace, name, grace=0)
    return found


def answered(maft: Installed, expected: list[int], namespace: str, urls: list[str], *more: Any) -> None:
    """So it is answered, as soon as the engine has heard of the pod that asks."""
    answers: list[list[int | str]] = []

    def as_expected() -> bool:
        answers.append(asked(maft, namespace, urls, *more))
        return answers[-1] == expected

    maft.kube.wait(as_expected, ENFORCED, lambda: str(answers))


def begin(maft: Installed, namespace: str, name: str, latency: float = 0.4, **spec: Any) -> tuple[str, str]:
    """A run whose debate goes on for a while; addresses of its server, and of its task's metrics."""
    kube = maft.kube
    kube.apply(maft.resource(name, namespace, **{**SPEC, **maft.mocked(latency, slots=2), **spec}))
    kube.wait(lambda: kube.status(namespace, name).get("phase") == "Debating", LIMIT, lambda: kube.explain(namespace, name))

    def address() -> str:
        pods = kube.list("Pod", namespace, f"maft.dev/run={name},app.kubernetes.io/component in (debate,evaluate)")
        found = [p["status"]["podIP"] for p in pods if p["status"].get("phase") == "Running" and p["status"].get("podIP")]
        return found[0] if found else ""

    task = kube.wait(address, LIMIT, lambda: kube.explain(namespace, name))
    return f"http://{name}-server.{namespace}.svc:8000", f"http://{task}:9100"


@pytest.mark.nightly
def test_a_run_is_closed_to_all_but_its_own_pods_the_operator_and_who_scrapes(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    server, task = begin(maft, namespace, "closed")
    urls = [f"{server}/health", f"{server}/v1/models", f"{task}/metrics"]
    answers: list[list[int | str]] = []

    def closed() -> bool:
        answers.append(asked(maft, namespace, urls))
        return answers[-1] == [CLOSED] * 3

    kube.wait(closed, ENFORCED, lambda: str(answers))
    impostor = {"app.kubernetes.io/name": "maft-operator", manifests.MANAGED_BY: manifests.MANAGER}
    assert asked(maft, namespace, urls, impostor) == [CLOSED] * 3
    assert asked(maft, "default", urls) == [CLOSED] * 3
    answered(maft, [200, 401, 200], SCRAPERS, urls)  # metrics, and of the model nothing: no key
    stage = kube.wait(
        lambda: "(" in (s := kube.status(namespace, "closed").get("progress", {}).get("stage", "")) and s,
        LIMIT,
        lambda: kube.explain(namespace, "closed"),
    )
    assert " of " in stage  # what the operator read from the task's metrics
    # Whoever may make pods in the namespace may make one of the run's, and may read the Secret: SECURITY.md says so.
    key = kube.status(namespace, "closed")["serverKey"]
    own = {manifests.RUN: "closed"}
    answered(maft, [200, 401, 200], namespace, urls, own)
    answered(maft, [200, 200, 200], namespace, urls, own, key)
    kube.wait_complete(namespace, "closed", LIMIT)


def test_the_operator_may_make_secrets_and_not_read_them(maft: Installed) -> None:
    account = f"system:serviceaccount:{SYSTEM}:maft-operator"
    review: Json = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    allowed = {}
    for verb in ("create", "get", "list", "watch", "update", "patch", "delete"):
        asks = {"user": account, "resourceAttributes": {"resource": "secrets", "verb": verb, "namespace": "default"}}
        allowed[verb] = maft.kube.create({**review, "spec": asks}, None)["status"]["allowed"]
    assert allowed == {verb: verb == "create" for verb in allowed}
