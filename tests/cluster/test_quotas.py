"""Clusters with an admin: a ResourceQuota that wants requests and limits of everything, without a LimitRange; pods' defaults."""

from typing import Any

import pytest
from installed import Installed, install
from kube import Json

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMIT = 300.0  # seconds for a small run, on two busy cores
HARD = {
    "requests.cpu": "600m",
    "requests.memory": "5Gi",
    "requests.ephemeral-storage": "2Gi",
    "limits.cpu": "8",
    "limits.memory": "20Gi",
    "limits.ephemeral-storage": "100Gi",
}


def quota(maft: Installed, namespace: str, **hard: str) -> None:
    about = {"name": "all", "namespace": namespace}
    maft.kube.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": about, "spec": {"hard": HARD | hard}})
    maft.kube.wait(lambda: used(maft, namespace), 30)


def used(maft: Installed, namespace: str) -> Json:
    found: Json = (maft.kube.get("ResourceQuota", namespace, "all") or {}).get("status", {}).get("used") or {}
    return found


def begin(maft: Installed, namespace: str, name: str, **spec: Any) -> None:
    """A run that says nothing of resources."""
    mocked = maft.mocked()
    del mocked["podTemplate"]["spec"]["containers"][0]["resources"]
    maft.kube.apply(maft.resource(name, namespace, iterations=1, agents=2, **{**mocked, **spec}))


def test_a_run_starts_unchanged_under_a_quota(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    quota(maft, namespace)
    begin(maft, namespace, "toy")
    seen: dict[str, Json] = {}

    def done() -> bool:
        seen.update({pod["metadata"]["name"]: pod for pod in kube.list("Pod", namespace, "maft.dev/run=toy")})
        return kube.is_true(namespace, "toy", "Complete")

    kube.wait(done, LIMIT, lambda: kube.explain(namespace, "toy"))
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in seen.values()}
    assert components == {"prepare", "preflight", "serve", "debate", "train", "evaluate", "report"}
    assert {pod["status"]["qosClass"] for pod in seen.values()} == {"Burstable"}
    assert kube.status(namespace, "toy")["model"]["bytes"] > 3_000_000
    for deployment in kube.list("Deployment", namespace):  # one template, from its first pod on
        assert deployment["metadata"]["generation"] == 1


def test_a_quota_that_is_too_small_is_told(maft: Installed, namespace: str) -> None:
    quota(maft, namespace, **{"limits.memory": "2Gi"})
    begin(maft, namespace, "large")
    waits = maft.kube.wait(
        lambda: (c := maft.kube.condition(namespace, "large", "Progressing")).get("reason") == "QuotaExceeded" and c,
        60,
        lambda: maft.kube.explain(namespace, "large"),
    )
    assert "exceeded quota: all, requested: limits.memory=" in waits["message"]


@pytest.mark.nightly
def test_what_another_sets_of_a_servers_resources_stays(maft: Installed, namespace: str) -> None:
    """To take it back would restart the server at each look."""
    kube = maft.kube
    begin(maft, namespace, "tuned")
    [server] = kube.wait(lambda: kube.list("Deployment", namespace), 120, lambda: kube.explain(namespace, "tuned"))
    containers = server["spec"]["template"]["spec"]["containers"]
    containers[0]["resources"]["requests"]["cpu"] = "77m"
    kube.merge("Deployment", namespace, "tuned-server", {"spec": {"template": {"spec": {"containers": containers}}}})
    generations: set[int] = set()

    def done() -> bool:
        generations.update(found["metadata"]["generation"] for found in kube.list("Deployment", namespace))
        return kube.is_true(namespace, "tuned", "Complete")

    kube.wait(done, LIMIT, lambda: kube.explain(namespace, "tuned"))
    assert generations == {2}


PROXY = {"name": "EXAMPLE_PROXY", "value": "http://proxy:3128"}
DEFAULTS = {
    "metadata": {"annotations": {"example.com/scan": "no"}},
    "spec": {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [{"name": name, "env": [PROXY]} for name in ("debate", "trainer", "inference")],
    },
}


@pytest.mark.nightly
def test_the_admins_defaults_reach_what_is_made_next_and_restart_nothing(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    resource = maft.resource("shared", namespace, iterations=1, agents=2, **maft.mocked(latency=0.3))
    resource["metadata"]["labels"] = {"cost-center": "42", "other": "x"}
    kube.apply(resource)
    try:
        serving = "maft.dev/child=shared-server"
        kube.wait(lambda: kube.list("Pod", namespace, serving), 120, lambda: kube.explain(namespace, "shared"))
        [server] = [pod["metadata"]["uid"] for pod in kube.list("Pod", namespace, serving)]
        install(maft, podDefaults=DEFAULTS, pods={"inherit": {"labels": ["cost-center"]}})
        kube.wait(lambda: kube.list("Job", namespace, "maft.dev/child=shared-1-train"), LIMIT, maft.operator_log)
        assert [pod["metadata"]["uid"] for pod in kube.list("Pod", namespace, serving)] == [server]
        kube.wait_complete(namespace, "shared", LIMIT)
    finally:
        install(maft)
    jobs = {job["metadata"]["name"]: job for job in kube.list("Job", namespace)}
    for name in ("shared-1-train", "shared-1-evaluate", "shared-1-report"):
        template = jobs[name]["spec"]["template"]
        assert PROXY in template["spec"]["containers"][0]["env"]
        assert template["spec"]["nodeSelector"] == DEFAULTS["spec"]["nodeSelector"]
        assert template["metadata"]["annotations"]["example.com/scan"] == "no"
        for about in (jobs[name]["metadata"], template["metadata"]):
            assert about["labels"]["cost-center"] == "42" and "other" not in about["labels"]


GPU = "maft.dev/test-gpu"


@pytest.mark.nightly
def test_a_gpu_of_another_name(maft: Installed, namespace: str) -> None:
    """A node has one; the server asks for it, and its hours count."""
    kube = maft.kube
    working = [pod["spec"]["nodeName"] for pod in maft.operator_pods()]  # a test beside may have made another node
    node = working[0]
    kube.merge_status("Node", None, node, {"status": {"capacity": {GPU: "1"}}})
    try:
        kube.wait(lambda: kube.get("Node", None, node)["status"]["allocatable"].get(GPU) == "1", 60)
        mocked = maft.mocked()
        mocked["inference"] |= {"gpus": 1}
        kube.apply(maft.resource("amd", namespace, iterations=1, agents=2, gpuResource=GPU, **mocked))
        [server] = kube.wait(lambda: kube.list("Deployment", namespace), 120, lambda: kube.explain(namespace, "amd"))
        [container] = server["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"][GPU] == "1" and "nvidia.com/gpu" not in container["resources"]["limits"]
        status = kube.wait_complete(namespace, "amd", LIMIT)
        assert status["spent"]["gpuSeconds"] > 0
    finally:
        kube.merge_status("Node", None, node, {"status": {"capacity": {GPU: None}}})
