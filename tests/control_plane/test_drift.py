"""Whether an object still is what is wanted; what the API server adds or writes otherwise is no drift."""

import copy
from collections.abc import Callable

import pytest
from kube_objects import a_run, made

from maft_operator.cluster import drift
from maft_operator.cluster.manifests import Json

RUN = a_run(activeDeadlineSeconds=60, inference={"gpus": 0})
WANTED: dict[str, Json] = {kind: made(RUN, kind)[0] for kind in ("Job", "Deployment", "Service")}


def stored(kind: str) -> Json:
    """As the API server gives it back: with defaults, with fields of others, without what is empty."""
    found = copy.deepcopy(WANTED[kind])
    found["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1, "creationTimestamp": "now", "managedFields": [{}]}
    found["metadata"]["labels"]["somebody-elses"] = "x"
    found["spec"] |= {"added": True, "ipFamilies": ["IPv4"]}
    found["status"] = {"ready": 1}
    if "template" in found["spec"]:
        pod = found["spec"]["template"]["spec"]
        pod |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
        for container in pod["containers"]:
            container |= {"terminationMessagePath": "/dev/termination-log"}
            container.pop("resources")  # {} in what is wanted
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in pod["containers"][0]:
                pod["containers"][0][probe] |= {"successThreshold": 1}
    return found


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
        ("Job", "spec.suspend", True, True),
        ("Job", "spec.activeDeadlineSeconds", None, True),
        ("Job", "metadata.labels", {"maft.dev/run": "r"}, True),
        # Kubernetes lets these of a Job not be changed, so nothing can be done about them
        ("Job", f"{CONTAINER}.image", "other", False),
        ("Job", "spec.podFailurePolicy", None, False),
    ],
)
def test_what_is_drift(kind: str, path: str, value: object, drifted: bool) -> None:
    found = stored(kind)
    change(path, value)(found)
    assert drift.differs(WANTED[kind], found) == drifted


@pytest.mark.parametrize(
    ("wanted", "found", "drifted"),
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
def test_empty_is_missing_and_lists_are_as_they_are(wanted: Json, found: Json, drifted: bool) -> None:
    assert drift.differs({"kind": "Service", **wanted}, {"kind": "Service", **found}) == drifted


def test_a_job_keeps_the_template_that_it_has() -> None:
    found = stored("Job")
    change(f"{CONTAINER}.image", "older")(found)
    change("spec.podFailurePolicy.rules", [])(found)
    before = copy.deepcopy((WANTED["Job"], found))
    kept = drift.keeping_template(WANTED["Job"], found)
    assert kept["spec"]["template"] == found["spec"]["template"]
    assert kept["spec"]["podFailurePolicy"] == found["spec"]["podFailurePolicy"]
    assert kept["spec"]["backoffLimit"] == WANTED["Job"]["spec"]["backoffLimit"]
    assert not drift.differs(kept, found)
    assert (WANTED["Job"], found) == before
    assert drift.keeping_template(WANTED["Deployment"], stored("Deployment")) == WANTED["Deployment"]


def test_versions_count_specs_where_they_can() -> None:
    assert drift.version({"metadata": {"generation": 3, "resourceVersion": "77"}}) == "3"
    assert drift.version({"metadata": {"resourceVersion": "77"}}) == "77"  # Services have no generation


def test_fingerprints_tell_objects_apart_and_nothing_else() -> None:
    again = a_run(activeDeadlineSeconds=60, inference={"gpus": 0})
    assert [drift.fingerprint(j) for j in made(again, "Job")] == [drift.fingerprint(j) for j in made(RUN, "Job")]
    assert len({drift.fingerprint(thing) for kind in WANTED for thing in made(RUN, kind)}) == 9
    assert drift.fingerprint({"a": 1, "b": 2}) == drift.fingerprint({"b": 2, "a": 1})
