"""Tenants of one cluster: how many runs a namespace may have."""

import json

import pytest
from installed import Installed
from kube import Json
from kubernetes.dynamic.exceptions import DynamicApiError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
COUNT = "count/multiagentfinetunes.maft.dev"


def test_a_namespace_has_as_many_runs_as_its_quota_says(maft: Installed, namespace: str) -> None:
    """The API server counts them, whoever makes them; one that goes makes room."""
    kube = maft.kube
    about = {"name": "runs", "namespace": namespace}
    kube.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": about, "spec": {"hard": {COUNT: "1"}}})

    def used() -> str:
        status: Json = (kube.get("ResourceQuota", namespace, "runs") or {}).get("status", {})
        return str(status.get("used", {}).get(COUNT))

    kube.wait(lambda: used() == "0", 60)
    kube.create(maft.resource("first", namespace, suspend=True), namespace)
    with pytest.raises(DynamicApiError) as caught:
        kube.create(maft.resource("second", namespace, suspend=True), namespace)
    assert caught.value.status == 403
    message = json.loads(caught.value.body)["message"]
    assert "exceeded quota: runs, requested: count/multiagentfinetunes.maft.dev=1" in message and "limited: " in message
    kube.delete("MultiAgentFinetune", namespace, "first")
    kube.wait(lambda: used() == "0", 60)
    kube.create(maft.resource("second", namespace, suspend=True), namespace)
