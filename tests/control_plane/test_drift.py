"""Whether an object still is what is wanted; what the API server adds or writes otherwise is no drift."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kube_objects import IMAGES, a_run, made

from maft_operator.cluster import drift, images
from maft_operator.cluster.manifests import Json

RUN = a_run(activeDeadlineSeconds=60, inference={"gpus": 0})
SIZED = replace(IMAGES, model_bytes=2**30)
WANTED: dict[str, Json] = {kind: made(RUN, kind, SIZED)[0] for kind in ("Job", "Deployment", "Service")}


def stored(kind: str) -> Json:
    """As the API server gives it back: with defaults, with fields of others, without what is empty."""
    child = copy.deepcopy(WANTED[kind])
    child["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1, "creationTimestamp": "now", "managedFields": [{}]}
    child["metadata"]["labels"]["somebody-elses"] = "x"
    child["spec"] |= {"added": True, "ipFamilies": ["IPv4"]}
    child["status"] = {"ready": 1}
    if "template" in child["spec"]:
        pod = child["spec"]["template"]["spec"]
        pod |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
        for container in pod["containers"]:
            container |= {"terminationMessagePath": "/dev/termination-log"}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in pod["containers"][0]:
                pod["containers"][0][probe] |= {"successThreshold": 1}
    return child


@pytest.mark.parametrize("kind", WANTED)
def test_what_the_api_server_adds_is_no_drift(kind: str) -> None:
    assert not drift.differs(WANTED[kind], stored(kind))
    assert not drift.differs(WANTED[kind], WANTED[kind])


def change(path: str, value: object) -> Callable[[Json], None]:
    """Sets a field, such as spec.replicas; None removes it."""

    def apply(thing: Json) -> None:
        *sections, last = path.split(".")
        for section in sections:
            thing = thing[int(section)] if isinstance(thing, list) else thing[section]
        if value is None:
            del thing[last]
        else:
            thing[last] = value

    return apply


CONTAINER = "spec.template.spec.containers.0"


@pytest.mark.parametrize(
    ("kind", "path", "value", "drifted"),
    [
        ("Deployment", "spec.replicas", 0, True),
        ("Deployment", "spec.strategy.type", "RollingUpdate", True),
        ("Deployment", f"{CONTAINER}.image", "other", True),
        ("Deployment", f"{CONTAINER}.args", ["-m"], True),
        ("Deployment", f"{CONTAINER}.args", None, True),
        ("Deployment", f"{CONTAINER}.env", [], True),
        ("Deployment", "spec.template.spec.tolerations", [{"operator": "Exists"}], False),
        ("Deployment", "spec.template.spec.securityContext.runAsNonRoot", False, True),
        ("Deployment", "spec.paused", True, False),
        ("Service", "spec.selector", {"app": "other"}, True),
        ("Service", "spec.ports", [], True),
        ("Service", "spec.clusterIP", "10.96.0.9", False),
        ("Service", "metadata.ownerReferences", [], True),
        ("Service", "metadata.annotations", {"a": "b"}, False),
        ("Job", "spec.backoffLimit", 9, True),
        ("Job", "spec.suspend", True, False),
        ("Job", "spec.completionMode", "Indexed", False),
        ("Job", "spec.activeDeadlineSeconds", None, True),
        ("Job", "metadata.labels", {"maft.dev/run": "r"}, True),
        # Kubernetes lets these of a Job not be changed, so nothing can be done about them
        ("Job", f"{CONTAINER}.image", "other", False),
        ("Job", "spec.podFailurePolicy", None, False),
    ],
)
def test_what_is_drift(kind: str, path: str, value: object, drifted: bool) -> None:
    child = stored(kind)
    change(path, value)(child)
    assert drift.differs(WANTED[kind], child) == drifted


@pytest.mark.parametrize(
    ("wanted", "child", "drifted"),
    [
        ({"a": {}}, {}, False),
        ({"a": []}, {}, False),
        ({"a": ""}, {}, False),
        ({"a": 0}, {}, True),
        ({"a": False}, {}, True),
        ({"a": "x"}, {}, True),
        ({"a": {"b": {}}}, {}, True),
        ({"a": {}}, {"a": {"b": 1}}, False),
        ({"a": {}}, {"a": "x"}, True),
        ({"a": [1]}, {"a": [1, 2]}, True),
        ({"a": [{}]}, {"a": [{"b": 1}]}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, True),
        ({"a": 1}, {"a": "1"}, True),
    ],
)
def test_empty_is_missing_and_lists_are_as_they_are(wanted: Json, child: Json, drifted: bool) -> None:
    assert drift.differs({"kind": "Service", **wanted}, {"kind": "Service", **child}) == drifted


# --- fields of others: what each of them is known to set, and nothing of it is ours ---

POD = "spec.template.spec"
SIDECAR = {"name": "istio-proxy", "image": "proxy", "args": ["x"]}
FOREIGN: dict[str, tuple[str, str, object]] = {
    "a queue suspends a Job": ("Job", "spec.suspend", True),
    "a queue hands a Job over": ("Job", "spec.managedBy", "kueue.x-k8s.io/multikueue"),
    "a default queue": ("Job", "metadata.labels.kueue.x-k8s.io/queue-name", "default"),
    "a queue's flavor": ("Job", f"{POD}.nodeSelector", {"gpu": "h100"}),
    "a flavor's tolerations": ("Job", f"{POD}.tolerations", [{"key": "gpu", "operator": "Exists"}]),
    "a topology": ("Job", f"{POD}.schedulingGates", [{"name": "kueue.x-k8s.io/topology"}]),
    "a queue's annotation": ("Job", "metadata.annotations.kueue.x-k8s.io/job-completions", "1"),
    "a default queue of servers": ("Deployment", "metadata.labels.kueue.x-k8s.io/queue-name", "default"),
    "a queue marks pods": ("Deployment", "spec.template.metadata.labels.kueue.x-k8s.io/managed", "true"),
    "a queue suspends pods": (
        "Deployment",
        "spec.template.metadata.annotations.kueue.x-k8s.io/pod-suspending-parent",
        "deployment",
    ),
    "gates": ("Deployment", f"{POD}.schedulingGates", [{"name": "kueue.x-k8s.io/admission"}]),
    "kubectl rollout restart": ("Deployment", "spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt", "now"),
    "a sidecar": ("Deployment", f"{POD}.containers.1", SIDECAR),
    "a sidecar before ours": ("Deployment", f"{POD}.containers.-1", SIDECAR),
    "an init container": ("Deployment", f"{POD}.initContainers", [SIDECAR]),
    "a volume": ("Deployment", f"{POD}.volumes.9", {"name": "ca", "configMap": {"name": "ca"}}),
    "a mount": ("Deployment", f"{CONTAINER}.volumeMounts.-1", {"name": "ca", "mountPath": "/etc/ssl"}),
    "a variable": ("Deployment", f"{CONTAINER}.env.-1", {"name": "HTTPS_PROXY", "value": "proxy"}),
    "variables of a Secret": ("Deployment", f"{CONTAINER}.envFrom", [{"secretRef": {"name": "s"}}]),
    "a port": ("Deployment", f"{CONTAINER}.ports.-1", {"containerPort": 15090, "protocol": "TCP"}),
    "requests": ("Deployment", f"{CONTAINER}.resources.requests.hugepages-2Mi", "4Mi"),
    "a claim": ("Deployment", f"{CONTAINER}.resources.claims", [{"name": "gpu"}]),
    "a security context": ("Deployment", f"{CONTAINER}.securityContext.seLinuxOptions", {"level": "s0:c1"}),
    "a capability less": ("Deployment", f"{CONTAINER}.securityContext.capabilities.drop.-1", "NET_RAW"),
    "a lifecycle": ("Deployment", f"{CONTAINER}.lifecycle", {"preStop": {"sleep": {"seconds": 5}}}),
    "a priority": ("Deployment", f"{POD}.priorityClassName", "low"),
    "a runtime": ("Deployment", f"{POD}.runtimeClassName", "gvisor"),
    "an affinity": ("Deployment", f"{POD}.affinity", {"nodeAffinity": {}}),
    "a spread": ("Deployment", f"{POD}.topologySpreadConstraints", [{"topologyKey": "zone", "maxSkew": 1}]),
    "pull secrets": ("Deployment", f"{POD}.imagePullSecrets", [{"name": "mirror"}]),
    "a scheduler": ("Deployment", f"{POD}.schedulerName", "volcano"),
    "a DNS": ("Deployment", f"{POD}.dnsConfig", {"options": [{"name": "ndots", "value": "2"}]}),
    "a host": ("Deployment", f"{POD}.hostAliases", [{"ip": "10.0.0.1", "hostnames": ["a"]}]),
    "a pause": ("Deployment", "spec.paused", True),
    "the deployment controller": ("Deployment", "metadata.annotations.deployment.kubernetes.io/revision", "1"),
    "a finalizer": ("Deployment", "metadata.finalizers", ["foregroundDeletion"]),
    "an owner": ("Deployment", "metadata.ownerReferences.-1", {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}),
    "a cloud's annotation": ("Service", "metadata.annotations.cloud.google.com/neg", "{}"),
    "a port of a Service": ("Service", "spec.ports.-1", {"name": "metrics", "port": 9090, "protocol": "TCP"}),
    "a number of a port": ("Service", "spec.ports.0.nodePort", 30000),
    "a rollout's selector": ("Service", "spec.selector.rollouts-pod-template-hash", "abc"),
    "traffic": ("Service", "spec.trafficDistribution", "PreferClose"),
}


def put(thing: Json, path: str, value: object) -> None:
    """Sets that field. The place -1 of a list is before all others, one that it has not is after them."""
    keys = split(path)
    for key in keys[:-1]:
        thing = thing[int(key)] if isinstance(thing, list) else thing.setdefault(key, {})
    if isinstance(thing, list):
        thing.insert(max(0, int(keys[-1])), value)
    else:
        thing[keys[-1]] = value


def split(path: str) -> list[str]:
    """Names of labels and annotations have dots."""
    for section in ("labels.", "annotations.", "selector."):
        head, separator, name = path.partition(f".{section}")
        if separator:
            return [*head.split("."), section[:-1], name]
    return path.split(".")


@pytest.mark.parametrize("who", FOREIGN)
def test_what_others_set_is_left_to_them(who: str) -> None:
    kind, path, value = FOREIGN[who]
    child = stored(kind)
    put(child, path, value)
    assert child != stored(kind)
    assert drift.difference(WANTED[kind], child) == {}


@pytest.mark.parametrize("kind", WANTED)
def test_what_others_set_all_together_is_left_to_them(kind: str) -> None:
    child = stored(kind)
    for path, value in ((path, value) for of, path, value in FOREIGN.values() if of == kind and "-1" not in path):
        put(child, path, value)
    assert drift.difference(WANTED[kind], child) == {}


def managed(manager: str, fields: Json, **more: str) -> Json:
    return {"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields, **more}


@pytest.mark.parametrize(("number", "subresource", "ours"), [(3, "scale", False), (0, "scale", True), (3, "", True), (0, "", True)])
def test_an_autoscaler_scales_and_nothing_else_does(number: int, subresource: str, ours: bool) -> None:
    child = stored("Deployment")
    child["spec"]["replicas"] = number
    child["metadata"]["managedFields"] = [managed("autoscaler", {"f:spec": {"f:replicas": {}}}, subresource=subresource)]
    assert drift.differs(WANTED["Deployment"], child) == ours
    change(f"{CONTAINER}.image", "other")(child)
    assert ("replicas" in drift.to_apply(WANTED["Deployment"], child)["spec"]) == ours
    assert list(drift.difference(WANTED["Deployment"], child))[-1] == ".spec.template.spec.containers[inference].image"


OURS = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"inference"}': {"f:name": {}, "f:resources": {}}}}}}}


def tuned() -> Json:
    """A server of which another has set what it asks for: that is what fields with another owner are."""
    child = stored("Deployment")
    resources = child["spec"]["template"]["spec"]["containers"][0]["resources"]
    resources["requests"]["cpu"], resources["limits"]["memory"] = "7", "700Gi"
    owned = copy.deepcopy(OURS)
    [container] = owned["f:spec"]["f:template"]["f:spec"]["f:containers"].values()
    container["f:resources"] = {
        "f:requests": {"f:memory": {}, "f:ephemeral-storage": {}},
        "f:limits": {"f:cpu": {}},
    }
    child["metadata"]["managedFields"] = [managed("maft", owned) | {"operation": "Apply"}]
    return child


def test_what_another_has_set_of_resources_stays() -> None:
    """To take it back would restart a server, each time."""
    child, wanted = tuned(), WANTED["Deployment"]
    assert drift.difference(wanted, child) == {}
    change(f"{CONTAINER}.image", "other")(child)
    assert list(drift.difference(wanted, child)) == [".spec.template.spec.containers[inference].image"]
    applied = drift.to_apply(wanted, child)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert set(applied["requests"]) == {"memory", "ephemeral-storage"}
    assert set(applied["limits"]) == {"cpu"}  # a model whose size nobody told has no limit of disk
    assert "memory" in wanted["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]  # and ours is as it was


def test_what_is_ours_of_resources_is_taken_back() -> None:
    child = tuned()
    change(f"{CONTAINER}.resources.limits.cpu", "1")(child)
    assert list(drift.difference(WANTED["Deployment"], child)) == [".spec.template.spec.containers[inference].resources.limits.cpu"]
    [entry] = child["metadata"]["managedFields"]
    entry["fieldsV1"] = OURS  # all of them
    assert len(drift.difference(WANTED["Deployment"], child)) == 3


def test_another_pod_template_sets_resources_anew() -> None:
    child = tuned()
    child["metadata"]["annotations"][images.TEMPLATE] = "of another one"
    assert len(drift.difference(WANTED["Deployment"], child)) == 1 + 2
    assert drift.to_apply(WANTED["Deployment"], child)["spec"] == WANTED["Deployment"]["spec"]


# --- what is written about ---


def stage(**spec: Any) -> Json:
    """The Job of several pods that the run has."""
    return next(job for job in made(a_run(**spec), "Job") if job["spec"]["completions"] > 1)


SHARDS, NODES = {"debate": {"shards": 2}}, {"training": {"parallelism": "Sharded", "nodes": 2, "gpus": 0}}
FIXED = ("completions", "completionMode", "podFailurePolicy")


def test_another_limit_of_attempts_at_shards_counts_from_the_next_stage_on() -> None:
    """Kubernetes refuses another backoffLimitPerIndex, and all that is applied with it."""
    child, wanted = stage(**SHARDS, backoffLimit=3), stage(**SHARDS, backoffLimit=5)
    assert not drift.differs(wanted, child)
    body = drift.to_apply(wanted, child)
    assert {name: body["spec"][name] for name in (*FIXED, "backoffLimitPerIndex")} == {
        name: child["spec"][name] for name in (*FIXED, "backoffLimitPerIndex")
    }
    change("spec.maxFailedIndexes", 1)(child)  # which may change
    assert drift.difference(wanted, child) == {".spec.maxFailedIndexes": 1}
    assert drift.to_apply(wanted, child)["spec"]["maxFailedIndexes"] == 0


def test_another_limit_of_attempts_at_nodes_counts_at_once() -> None:
    child, wanted = stage(**NODES, backoffLimit=3), stage(**NODES, backoffLimit=5)
    assert drift.difference(wanted, child) == {".spec.backoffLimit": 3}
    body = drift.to_apply(wanted, child)
    assert body["spec"]["backoffLimit"] == 5
    assert {name: body["spec"][name] for name in FIXED} == {name: child["spec"][name] for name in FIXED}


def test_a_job_is_applied_with_the_template_that_it_has() -> None:
    child = stored("Job")
    change(f"{CONTAINER}.image", "older")(child)
    change("spec.podFailurePolicy.rules", [])(child)
    before = copy.deepcopy((WANTED["Job"], child))
    body = drift.to_apply(WANTED["Job"], child)
    assert body["spec"]["template"] == child["spec"]["template"]
    assert body["spec"]["podFailurePolicy"] == child["spec"]["podFailurePolicy"]
    assert body["spec"]["backoffLimit"] == WANTED["Job"]["spec"]["backoffLimit"]
    assert not drift.differs(body, child)
    assert (WANTED["Job"], child) == before
    assert drift.to_apply(WANTED["Deployment"], stored("Deployment")) == WANTED["Deployment"]


def test_of_a_template_only_what_we_applied_is_applied_again() -> None:
    """What a queue or an injector put into it stays theirs: they may take it out again."""
    child = stored("Job")
    pod = child["spec"]["template"]["spec"]
    pod |= {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"operator": "Exists"}]}
    pod["containers"].insert(0, SIDECAR)
    pod["containers"][1]["env"].append({"name": "HTTPS_PROXY", "value": "proxy"})
    variable = {"k:" + json.dumps({"name": "HOME"}): {".": {}, "f:name": {}, "f:value": {}}}
    container = {
        ".": {},
        "f:name": {},
        "f:image": {},
        "f:args": {},
        "f:env": variable,
        "f:securityContext": {"f:capabilities": {"f:drop": {}}},
    }
    owned = {
        "f:template": {"f:spec": {"f:restartPolicy": {}, "f:containers": {'k:{"name":"debate"}': container}}},
        "f:podFailurePolicy": {},
    }
    child["metadata"]["managedFields"] = [
        managed("kueue", {"f:spec": {"f:template": {"f:spec": {"f:nodeSelector": {}, "f:tolerations": {}}}}}),
        managed("maft", {"f:spec": owned}, operation="Apply"),
    ]
    body = drift.to_apply(WANTED["Job"], child)
    ours = pod["containers"][1]
    assert body["spec"]["podFailurePolicy"] == child["spec"]["podFailurePolicy"]
    assert body["spec"]["template"] == {
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "debate",
                    "image": ours["image"],
                    "args": ours["args"],
                    "env": [{"name": "HOME", "value": "/tmp"}],
                    "securityContext": {"capabilities": {"drop": ["ALL"]}},
                }
            ],
        }
    }


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_two_that_never_give_in_do_not_write_for_ever() -> None:
    """Somebody sets a field again as often as we take it back: that is let be, for a while."""
    wanted, writes, generation, before = WANTED["Deployment"], 0, 1, None
    for second in range(0, 3600, 5):
        child, now = stored("Deployment"), NOW + timedelta(seconds=second)
        change("spec.strategy.type", "RollingUpdate")(child)
        child["metadata"]["generation"] = generation
        if drift.differs(wanted, child) and not drift.is_settled(before, wanted, child, now):
            after = {**stored("Deployment"), "metadata": {"generation": generation + 1}}
            before = drift.sent(wanted, child, after, now)
            writes, generation = writes + 1, generation + 2
    assert writes == 6


def test_what_is_changed_elsewhere_is_taken_back_all_the_same() -> None:
    wanted, child = WANTED["Deployment"], stored("Deployment")
    change("spec.strategy.type", "RollingUpdate")(child)
    before = drift.sent(wanted, child, {"metadata": {"generation": 2}}, NOW)
    child["metadata"]["generation"] = 3
    assert drift.is_settled(before, wanted, child, NOW)
    change("spec.replicas", 0)(child)
    assert not drift.is_settled(before, wanted, child, NOW)
    assert not drift.is_settled(before, {**wanted, "metadata": {}}, child, NOW)
    assert not drift.is_settled(None, wanted, child, NOW)


def test_nobody_opens_a_policy() -> None:
    wanted = made(RUN, "NetworkPolicy")[-1]
    child = copy.deepcopy(wanted)
    child["spec"]["policyTypes"].append("Egress")
    assert not drift.differs(wanted, child)
    child["spec"]["ingress"].append({})
    assert drift.differs(wanted, child)
    child["spec"]["ingress"] = [{**wanted["spec"]["ingress"][0], "from": [{"podSelector": {}}]}]
    assert drift.differs(wanted, child)


def test_versions_count_specs_where_they_can() -> None:
    assert drift.version({"metadata": {"generation": 3, "resourceVersion": "77"}}) == "3"
    assert drift.version({"metadata": {"resourceVersion": "77"}}) == "77"  # Services have no generation


def test_fingerprints_tell_objects_apart_and_nothing_else() -> None:
    again = a_run(activeDeadlineSeconds=60, inference={"gpus": 0})
    assert [drift.fingerprint(j) for j in made(again, "Job")] == [drift.fingerprint(j) for j in made(RUN, "Job")]
    assert len({drift.fingerprint(thing) for kind in WANTED for thing in made(RUN, kind)}) == 9
    assert drift.fingerprint({"a": 1, "b": 2}) == drift.fingerprint({"b": 2, "a": 1})
