"""What whoever runs the operator gives to all pods: checked as it starts, merged before a run's podTemplate; what runs hand on."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from kube_objects import IMAGES, a_run, planned
from test_cluster_backend import Server
from test_pins import OLD, looked, settled, under_way
from test_resources import templates

from maft_operator.cluster import manifests, pod_defaults
from maft_operator.cluster.images import Images
from maft_operator.cluster.manifests import Owner
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec, Json

PROXY = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
TRUST = {"name": "trust", "configMap": {"name": "ca-bundle"}}
DEFAULTS: Json = {
    "metadata": {"labels": {"team": "a"}, "annotations": {"scan": "no"}},
    "spec": {
        "nodeSelector": {"pool": "ml"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [TRUST],
        "containers": [
            {"name": name, "env": [PROXY], "volumeMounts": [{"name": "trust", "mountPath": "/etc/ssl/certs"}]}
            for name in ("debate", "trainer", "inference")
        ],
    },
}


def of(run: Run, defaults: Json = DEFAULTS) -> dict[str, Json]:
    """The pods of a run where these are the defaults."""
    return templates(run, Images("p", "1", pods=PodSettings(defaults=defaults)))


# --- the template ---


def test_all_pods_have_the_defaults() -> None:
    for template in of(a_run()).values():
        pod, [container] = template["spec"], template["spec"]["containers"]
        assert (template["metadata"]["labels"]["team"], template["metadata"]["annotations"]["scan"]) == ("a", "no")
        assert template["metadata"]["labels"]["maft.dev/run"] == "r"
        assert (pod["nodeSelector"], pod["imagePullSecrets"]) == ({"pool": "ml"}, [{"name": "registry"}])
        assert PROXY in container["env"] and any(entry["name"] == "HOME" for entry in container["env"])
        assert {"name": "trust", "mountPath": "/etc/ssl/certs"} in container["volumeMounts"] and TRUST in pod["volumes"]
        assert len(container["volumeMounts"]) == 4


def test_what_is_about_one_kind_of_pod_reaches_no_other() -> None:
    one = {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"memory": "999Gi"}}}]}}
    limits = {name: t["spec"]["containers"][0]["resources"]["limits"]["memory"] for name, t in of(a_run(), one).items()}
    assert {name for name, limit in limits.items() if limit == "999Gi"} == {"r-0-preflight", "r-1-train"}
    assert all(len(t["spec"]["containers"]) == 1 for t in of(a_run(), one).values())


def test_a_runs_template_comes_after_the_defaults() -> None:
    theirs = {
        "metadata": {"labels": {"team": "b"}, "annotations": {"scan": None}},
        "spec": {
            "nodeSelector": {"pool": None, "disk": "fast"},
            "tolerations": [],
            "imagePullSecrets": [{"name": "mine"}],
            "containers": [{"name": "inference", "env": [{"name": "HTTPS_PROXY", "value": ""}]}],
        },
    }
    for name, template in of(a_run(podTemplate=theirs)).items():
        pod, [container] = template["spec"], template["spec"]["containers"]
        assert template["metadata"]["labels"]["team"] == "b" and "scan" not in template["metadata"]["annotations"]
        assert (pod["nodeSelector"], pod["tolerations"]) == ({"disk": "fast"}, [])
        assert pod["imagePullSecrets"] == [{"name": "registry"}, {"name": "mine"}]
        [proxy] = [entry["value"] for entry in container["env"] if entry["name"] == "HTTPS_PROXY"]
        assert proxy == ("" if name == "r-server" else PROXY["value"])


@pytest.mark.parametrize(
    "metadata",
    [None, {"labels": None}, {"labels": {"maft.dev/run": "other", "maft.dev/child": None, "app.kubernetes.io/name": "x"}}],
)
def test_no_template_takes_away_the_labels_by_which_pods_are_found(metadata: Json | None) -> None:
    def ours(run: Run) -> dict[str, Json]:
        own = ("maft.dev/", "app.kubernetes.io/")
        return {n: {k: v for k, v in t["metadata"]["labels"].items() if k.startswith(own)} for n, t in of(run, {}).items()}

    assert ours(a_run(podTemplate={"metadata": metadata})) == ours(a_run())


def test_both_are_said_of_resources_and_the_run_has_the_last_word() -> None:
    def saying(part: str, **amounts: str) -> Json:
        return {"spec": {"containers": [{"name": "inference", "resources": {part: amounts}}]}}

    run = a_run(podTemplate=saying("requests", memory="2Ti"), inference={"gpus": 0})
    resources = of(run, saying("limits", cpu="1", memory="1Gi"))["r-server"]["spec"]["containers"][0]["resources"]
    assert (resources["limits"]["cpu"], resources["limits"]["memory"], resources["requests"]["memory"]) == (
        "1",
        "1Gi",
        "2Ti",
    )  # both are theirs
    run = a_run(podTemplate=saying("limits", memory="2Gi"), inference={"gpus": 0})
    resources = of(run, saying("limits", memory="1Gi"))["r-server"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == "2Gi"


CACHES = {
    "hostPath": {"path": "/var/cache/maft", "type": "DirectoryOrCreate"},
    "ephemeral": {
        "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Ti"}}}}
    },
    "persistentVolumeClaim": {"claimName": "shared"},
}


@pytest.mark.parametrize("kind", CACHES)
def test_models_are_kept_where_the_admin_says_unless_the_run_says_otherwise(kind: str) -> None:
    defaults = pod_defaults.checked({"spec": {"volumes": [{"name": "cache", kind: CACHES[kind]}]}})
    for claim in ("", "mine"):
        for template in of(a_run(model={"cacheClaim": claim}), defaults).values():
            [cache] = [volume for volume in template["spec"]["volumes"] if volume["name"] == "cache"]
            assert cache == {
                "name": "cache",
                **({"persistentVolumeClaim": {"claimName": "mine"}} if claim else {kind: CACHES[kind]}),
            }
            assert {volume["name"] for volume in template["spec"]["volumes"]} == {"tmp", "shm", "cache"}


def test_other_defaults_restart_no_server() -> None:
    other = replace(OLD, pods=PodSettings(defaults=DEFAULTS))
    assert looked(Server(*under_way(OLD)), other, settled(OLD).status) == []
    changed = replace(OLD, pods=PodSettings(defaults={**DEFAULTS, "metadata": {}}))
    assert looked(Server(*under_way(other)), changed, settled(OLD).status) == []


def test_another_template_of_the_run_is_made_with_the_defaults_that_are_there_now() -> None:
    run = a_run(podTemplate={"spec": {"nodeSelector": {"gpu": "yes"}}})
    other = replace(OLD, pods=PodSettings(defaults=DEFAULTS))
    [body] = [b for b in looked(Server(*under_way(OLD)), other, settled(OLD).status, run) if b["kind"] == "Deployment"]
    assert body["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "ml", "gpu": "yes"}


# --- the file ---


def read(tmp_path: Path, text: str) -> Json:
    file = tmp_path / "defaults.yaml"
    file.write_text(text)
    return pod_defaults.read(file)


@pytest.mark.parametrize(
    "text", ["metadata:", "metadata: {labels: }", "spec:", "spec: {containers: }", "spec: {volumes: }", "spec: {restartPolicy: }"]
)
def test_a_heading_with_nothing_below_it_takes_nothing_away(tmp_path: Path, text: str) -> None:
    assert of(a_run(), read(tmp_path, text)) == of(a_run(), {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "spec: {}", "spec:", "metadata: {labels: }"])
def test_a_file_may_say_nothing(tmp_path: Path, text: str) -> None:
    assert not read(tmp_path, text).get("spec")
    assert pod_defaults.read(None) == {}


def test_whole_numbers_are_whole_however_helm_writes_them(tmp_path: Path) -> None:
    document = read(tmp_path, "spec: {securityContext: {runAsUser: 1.00065e+09, supplementalGroups: [2.5e+07]}}")
    assert repr(document["spec"]["securityContext"]) == "{'runAsUser': 1000650000, 'supplementalGroups': [25000000]}"


def test_whatever_the_api_has_may_be_said() -> None:
    whole = {
        "spec": {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
            "priorityClassName": "low",
            "runtimeClassName": "nvidia",
            "schedulerName": "other",
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
            "overhead": {"cpu": 1},
            "securityContext": {"runAsUser": 7, "seLinuxOptions": {"level": "s0"}, "fsGroup": None},
            "initContainers": [{"name": "warm", "image": "busybox", "command": ["true"]}],
            "containers": [
                {"name": "debate", "resources": {"requests": {"cpu": 0.5, "memory": "1Gi", "example.com/x": 1}}},
                {"name": "beside", "image": "proxy:1", "ports": [{"containerPort": 8080}]},
                {"name": "trainer", "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3}},
            ],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "5Gi"}}, {"name": "shm", "$patch": "delete"}],
        }
    }
    assert pod_defaults.checked(copy.deepcopy(whole)) == whole


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("&a [*a]", "an anchor stands inside"),
        ("spec: &a {affinity: *a}", "an anchor stands inside of what it names"),
        ("spec: {containers: [~]}", "spec.containers[0]: is empty; remove it"),
        ("spec: {volumes: [~]}", "spec.volumes[0]: is empty; remove it"),
        ("spec: {securityContext: {$patch: replace}}", "spec.securityContext.$patch: 'replace'; only delete is known"),
        ("spec: {$patch: delete}", "spec.$patch: 'delete'; only delete is known, of an item of a list"),
        ("spec: {containers: [{name: debate, $patch: delete}]}", "spec.containers[debate].$patch: takes away the container debate"),
        ("- a", "the file: \"['a']\"; expected an object"),
        ("text", "the file: 'text'; expected an object"),
        ("a: [", "is no YAML: while parsing"),
        ("sepc: {}", "sepc: unknown field; did you mean spec?"),
        ("kind: Pod", "kind: unknown field; known are metadata, spec"),
        ("spec: {nodeselector: {a: b}}", "spec.nodeselector: unknown field; did you mean nodeSelector?"),
        ("spec: {nodeSelector: {a: 1}}", "spec.nodeSelector.a: 1; expected a text; put it into quotes"),
        ("spec: {nodeSelector: [a]}", "spec.nodeSelector: \"['a']\"; expected an object"),
        ("spec: {tolerations: {key: a}}", "spec.tolerations: \"{'key': 'a'}\"; expected a list"),
        ("spec: {imagePullSecrets: [registry]}", "spec.imagePullSecrets[0]: 'registry'; expected an object"),
        ("spec: {hostNetwork: 'yes'}", "spec.hostNetwork: 'yes'; expected true or false"),
        ("spec: {terminationGracePeriodSeconds: 1.5}", "spec.terminationGracePeriodSeconds: 1.5; expected a whole number"),
        ("spec: {terminationGracePeriodSeconds: true}", "spec.terminationGracePeriodSeconds: True; expected a whole number"),
        ("spec: {containers: [{env: []}]}", "spec.containers: one has no name; debate, trainer and inference are those of runs"),
        ("spec: {containers: [{name: train}]}", "spec.containers[train]: no container of runs, which are debate, trainer and"),
        (
            "spec: {containers: [{name: debate, env: [{name: A, vlaue: b}]}]}",
            "spec.containers[debate].env[A].vlaue: unknown field; did",
        ),
        (
            "spec: {containers: [{name: debate, resources: {limits: {memory: 1 GB}}}]}",
            "spec.containers[debate].resources.limits.memory: '1 GB'; expected an amount such as 500m or 2Gi",
        ),
        (
            "spec: {volumes: [{name: tmp, emptyDir: {sizeLimit: big}}]}",
            "spec.volumes[tmp].emptyDir.sizeLimit: 'big'; expected an amount",
        ),
        ("spec: {restartPolicy: Never}", "spec.restartPolicy: 'Never'; servers need Always, tasks Never; leave it out"),
        ("spec: {restartPolicy: Always}", "spec.restartPolicy: 'Always'; servers need Always, tasks Never; leave it out"),
        ("spec: {activeDeadlineSeconds: 60}", "spec.activeDeadlineSeconds: 60; servers cannot have one; leave it out"),
        ("spec: {ephemeralContainers: []}", "spec.ephemeralContainers: []; no pod is made with one; leave it out"),
        ("metadata: {name: x}", "metadata.name: pods of all runs cannot share it; labels and annotations can be set"),
        ("metadata: {annotations: {maft.dev/server-key: x}}", "metadata.annotations.maft.dev/server-key: is the operator's own"),
        ("metadata: {labels: {maft.dev/run: x}}", "metadata.labels.maft.dev/run: is the operator's own, by which it finds pods"),
        (
            "metadata: {labels: {app.kubernetes.io/managed-by: x}}",
            "metadata.labels.app.kubernetes.io/managed-by: is the operator's own",
        ),
        ("metadata: {labels: {1: a}}", "metadata.labels: '1'; expected names that are texts; put them into quotes"),
        ("1: a", "1: unknown field; known are metadata, spec"),
        ("metadata: {annotations: {a: 1}}", "metadata.annotations.a: 1; expected a text; put it into quotes"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(BadSpec) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1500
    assert message.startswith(f"--pod-defaults {tmp_path}/defaults.yaml: {line}")


def test_the_example_of_the_page_is_one() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    [text] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if block.startswith("podDefaults:")]
    values = yaml.safe_load(text)
    for template in of(a_run(), pod_defaults.checked(values["podDefaults"])).values():
        [container] = template["spec"]["containers"]
        assert {"HTTPS_PROXY", "SSL_CERT_FILE"} < {entry["name"] for entry in container["env"]}
        assert "hostPath" in {source for volume in template["spec"]["volumes"] for source in volume}
    assert pod_defaults.names("--inherit-label", values["pods"]["inherit"]["labels"]) == ("cost-center",)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    for file, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadSpec, match=f"--pod-defaults {file}: {words}"):
            pod_defaults.read(file)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadSpec, match="is no YAML"):
        pod_defaults.read(tmp_path / "binary")


# --- what runs hand on ---

HANDED = PodSettings(labels=("cost-center", "example.com/team"), annotations=("owner",))


def resource(**labels: str) -> Json:
    return {"metadata": {"labels": labels, "annotations": {"owner": "me", "other": "x"}}}


def handing(**labels: str) -> Owner:
    return Owner(a_run(queueName="q"), "uid-of-run", HANDED.inherited(resource(**labels)))


def test_labels_and_annotations_that_are_named_are_handed_on() -> None:
    graph, by = planned(a_run()), handing(**{"cost-center": "42", "more": "x"})
    things = [thing for item in (*graph.tasks, *graph.servers) for thing in manifests.objects(item, by, IMAGES)]
    for thing in things:
        works = thing["kind"] in ("Job", "Deployment")
        for about in (thing["metadata"], *([thing["spec"]["template"]["metadata"]] if works else [])):
            assert about["labels"].get("cost-center") == ("42" if works else None)
            assert about["labels"]["maft.dev/run"] == "r" and "more" not in about["labels"]
            assert about.get("annotations", {}).get("owner") == ("me" if works else None)
            assert "other" not in about.get("annotations", {})
    assert all(thing["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q" for thing in things if thing["kind"] == "Job")
    assert "maft.dev/images" in next(thing for thing in things if thing["kind"] == "Job")["metadata"]["annotations"]


@pytest.mark.parametrize(
    "thing", [{}, {"metadata": {}}, {"metadata": {"labels": None}}, {"metadata": {"labels": {"cost-center": 7}}}]
)
def test_what_a_run_has_not_is_not_handed_on(thing: Json) -> None:
    assert not HANDED.inherited(thing).labels


def test_what_exists_keeps_what_it_was_given() -> None:
    """A label that changes during a run would restart its servers."""
    before = replace(OLD, pods=HANDED)
    things = under_way(before)
    for thing in things:
        if "template" in thing["spec"]:
            for about in (thing["metadata"], thing["spec"]["template"]["metadata"]):
                about["labels"]["cost-center"] = "41"
                about.setdefault("annotations", {})["owner"] = "them"
    assert looked(Server(*things), before, settled(OLD).status) == []
    assert looked(Server(*things), OLD, settled(OLD).status) == []  # an operator that hands nothing on
    [body] = looked(Server(*things), before, settled(OLD).status, a_run(backoffLimit=9))
    assert body["kind"] == "Job" and body["metadata"]["annotations"]["owner"] == "them"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("maft.dev/run", "is set by Kubernetes or the operator; take another name"),
        ("app.kubernetes.io/name", "is set by Kubernetes or the operator"),
        ("kueue.x-k8s.io/queue-name", "is set by Kubernetes or the operator"),
        ("kubectl.kubernetes.io/last-applied-configuration", "is set by Kubernetes or the operator"),
        ("", "no name of a label or annotation"),
        ("a b", "no name of a label or annotation"),
        ("a/b/c", "no name of a label or annotation"),
        ("-a", "no name of a label or annotation"),
    ],
)
def test_what_runs_cannot_hand_on(name: str, words: str) -> None:
    with pytest.raises(BadSpec, match=words):
        pod_defaults.names("--inherit-label", [name])


def test_names_are_said_once() -> None:
    assert pod_defaults.names("--inherit-label", ["b", "example.com/a", "b"]) == ("b", "example.com/a")
