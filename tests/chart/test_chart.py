"""The Helm chart without a cluster: what it renders for which values, what it refuses, and that its papers are current."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import helm
import pytest
import yaml
from helm import CHART, IMAGES, PROMETHEUS, ROOT, Json, call, rendered, run

from maft_operator import __version__
from maft_operator.cluster import kinds as parents
from maft_operator.cluster import manifests, pod_defaults, rbac
from maft_operator.cluster.kinds import Kind

sys.path.insert(0, str(ROOT / "scripts"))

pytestmark = pytest.mark.tools
LEASE = {(r.group, r.resource, v) for r in rbac.OWN for v in r.verbs}
WATCHED = {(r.group, r.resource, v) for r in rbac.WATCHED for v in r.verbs}
KEYING = {(r.group, r.resource, v) for r in rbac.KEYING for v in r.verbs}
ISOLATING = {(r.group, r.resource, v) for r in rbac.ISOLATING for v in r.verbs}
REVIEWING = {(r.group, r.resource, v) for r in rbac.REVIEWING for v in r.verbs}


PAGE = "maft-operator-page"


def page_of(objects: "Objects", name: str = "page") -> Json:
    """A container of the live page's pod, which has no others than these two."""
    containers = {c["name"]: c for c in objects.one("Deployment", PAGE)["spec"]["template"]["spec"]["containers"]}
    assert list(containers) in (["page"], ["page", "reports"])
    return containers[name]


REPORTS = {"page": {"enabled": True, "reports": {
    "read": ["bucket/runs", "other"], "secretName": "page-key", "endpoint": "http://s3.example:9000", "region": "r1",
}}}  # fmt: skip
READ = ["--read=bucket/runs", "--read=other"]


SET = ("--set", f"images.prefix={IMAGES}")


class Objects(list[Json]):
    """What Helm rendered."""

    def of(self, kind: str, name: str = "") -> list[Json]:
        return [o for o in self if o["kind"] == kind and name in ("", o["metadata"]["name"])]

    def one(self, kind: str, name: str = "maft-operator") -> Json:
        (thing,) = self.of(kind, name)
        return thing

    @property
    def pod(self) -> Json:
        return self.one("Deployment")["spec"]["template"]

    @property
    def container(self) -> Json:
        (container,) = self.pod["spec"]["containers"]
        return container

    @property
    def args(self) -> list[str]:
        return self.container["args"]

    @property
    def test(self) -> Json:
        return self.one("Pod", "maft-operator-test")

    @property
    def alerts(self) -> dict[str, Json]:
        return {rule["alert"]: rule for group in self.one("PrometheusRule")["spec"]["groups"] for rule in group["rules"]}

    @property
    def names(self) -> set[tuple[str, str]]:
        return {(o["kind"], o["metadata"]["name"]) for o in self}

    def granted(self, kind: str, name: str = "maft-operator") -> set[tuple[str, str, str]]:
        return {right for role in self.of(kind, name) for right in triples(role)}


def triples(role: Json) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    }


def crd_of(kind: Kind) -> Json:
    """A definition as it stands in crds/."""
    return dict(yaml.safe_load((ROOT / "crds" / f"{kind.plural}.yaml").read_text()))


def on_parents(*verbs: str, scale: tuple[str, ...]) -> set[tuple[str, str, str]]:
    several = {(kind.group, kind.plural, verb) for kind in parents.PARENTS for verb in verbs}
    return several | {("maft.dev", "societies/scale", verb) for verb in scale}


def aggregated(role: Json) -> set[str]:
    """Into which of Kubernetes' own roles."""
    return {key.rpartition("-to-")[2] for key in role["metadata"]["labels"] if "aggregate" in key}


def render(values: Json, *arguments: str, **where: str) -> Objects:
    return Objects(rendered(values, *arguments, **where))


def security(spec: Json) -> bool:
    """The Pod Security Standard `restricted`, and a read-only root."""
    (container,) = spec["containers"]
    inner, outer = container["securityContext"], spec["securityContext"]
    return (
        inner["capabilities"] == {"drop": ["ALL"]}
        and inner["allowPrivilegeEscalation"] is False
        and inner["readOnlyRootFilesystem"] is True
        and outer["runAsNonRoot"] is True
        and outer["runAsUser"] == outer["runAsGroup"] == 65532
        and outer["seccompProfile"] == {"type": "RuntimeDefault"}
    )


def kinds(*expected: str) -> Callable[[Objects], bool]:
    return lambda o: not set(expected) - {each["kind"] for each in o}


def lacks(*unwanted: str) -> Callable[[Objects], bool]:
    return lambda o: not set(unwanted) & {each["kind"] for each in o}


ALERTS = [rule for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
TWO = {"namespaces": ["maft-a", "maft-b"]}
GROUPS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
TERM = {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}}
AUTH = {"metrics": {"auth": True, "tls": {"secretName": "s"}}}
TOKEN = {"type": "Bearer", "credentials": {"name": "scraper", "key": "token"}}
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
CLUSTERED = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}

RUNS_POLICY = "maft-operator-runs"
DIGEST, FOUR = f"sha256:{64 * 'a'}", ("operator", "debate", "trainer", "inference")
POD_DEFAULTS = {
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "securityContext": {"runAsUser": 1000650000},
        "volumes": [{"name": "cache", "hostPath": {"path": "/c"}}],
        "containers": [{"name": "debate", "env": [{"name": "HTTPS_PROXY", "value": "http://p:1"}]}],
    },
}

# Each: values, arguments of `helm template` beside them, what has to be true of the objects.
TABLE: dict[str, tuple[Json, tuple[str, ...], Callable[[Objects], Any]]] = {
    # names, labels
    "names": ({}, (), lambda o: {("Deployment", "maft-operator"), ("Service", "maft-operator")} <= o.names),
    "no name twice": (
        TWO, (), lambda o: len({(k["kind"], k["metadata"]["name"], k["metadata"].get("namespace")) for k in o}) == len(o)
    ),
    "other name": (
        {"fullnameOverride": "ops"}, (),
        lambda o: {("Deployment", "ops"), ("ClusterRole", "ops-view"), ("Role", "ops-lease")} <= o.names,
    ),
    "namespace": (
        {}, (), lambda o: {k["metadata"].get("namespace") for k in o if k["kind"] not in CLUSTERED} == {"maft-system"}
    ),
    "selectors find the pods": (
        {"replicas": 2, "podLabels": {"a": "b"}}, (),
        lambda o: all(
            selector.items() <= o.pod["metadata"]["labels"].items()
            for selector in (
                o.one("Deployment")["spec"]["selector"]["matchLabels"],
                o.one("Service")["spec"]["selector"],
                o.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            )
        ),
    ),
    "labels everywhere": (
        {"labels": {"team": "ml"}, "replicas": 2, "networkPolicy": {"operator": True}}, PROMETHEUS,
        lambda o: all(k["metadata"]["labels"]["team"] == "ml" for k in o if k["kind"] != "CustomResourceDefinition")
        and o.pod["metadata"]["labels"]["team"] == "ml",
    ),
    "own labels win": (
        {"labels": {"app.kubernetes.io/name": "x"}, "podLabels": {"app.kubernetes.io/instance": "z"}}, (),
        lambda o: o.pod["metadata"]["labels"] == {"app.kubernetes.io/name": "maft-operator", "app.kubernetes.io/instance": "maft"},
    ),
    "pod labels and annotations": (
        {"podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}}, (),
        lambda o: o.pod["metadata"]["labels"]["a"] == "b" and o.pod["metadata"]["annotations"] == {"c": "d"},
    ),
    # the resource
    "crd": ({}, (), lambda o: o.one("CustomResourceDefinition", "multiagentfinetunes.maft.dev")),
    "crd stays": (
        {}, (),
        lambda o: [crd["metadata"]["annotations"] for crd in o.of("CustomResourceDefinition")]
        == [{"helm.sh/resource-policy": "keep"}] * len(parents.PARENTS),
    ),
    "crd is that of crds/": (
        {}, (),
        lambda o: {crd["metadata"]["name"]: crd["spec"] for crd in o.of("CustomResourceDefinition")}
        == {f"{kind.plural}.maft.dev": crd_of(kind)["spec"] for kind in parents.PARENTS},
    ),
    "crd as ever": ({"crds": {"install": True}}, (), lambda o: o.one("CustomResourceDefinition", "multiagentfinetunes.maft.dev")),
    "no crd": ({"crds": {"install": False}}, (), lacks("CustomResourceDefinition")),
    # the operator
    "image": (
        {"images": {"prefix": "r.io/x", "tag": "7", "pullPolicy": "Always"}}, (),
        lambda o: o.container["image"] == "r.io/x/operator:7" and o.container["imagePullPolicy"] == "Always",
    ),
    "images of runs": (
        {"images": {"prefix": "r.io/x", "tag": "7", "pullPolicy": "Never"}}, (),
        lambda o: {"--images=r.io/x", "--tag=7", "--pull-policy=Never"} <= set(o.args),
    ),
    "tag": ({}, (), lambda o: o.container["image"] == f"{IMAGES}/operator:{__version__}" and f"--tag={__version__}" in o.args),
    "pull secrets": (
        {"imagePullSecrets": [{"name": "p"}]}, (),
        lambda o: o.pod["spec"]["imagePullSecrets"] == o.test["spec"]["imagePullSecrets"] == [{"name": "p"}],
    ),
    "default args": (
        {}, (), lambda o: not [a for a in o.args if a.startswith(("--namespace", "--metrics", "--no-", "--verbose"))]
    ),
    "log": ({"log": {"format": "json", "verbose": True}}, (), lambda o: {"--log-format=json", "--verbose"} <= set(o.args)),
    "namespaces as args": (
        TWO, (), lambda o: [a for a in o.args if "namespace" in a] == ["--namespace=maft-a", "--namespace=maft-b"]
    ),
    "further args": ({"extraArgs": ["--lease-namespace=x: y"]}, (), lambda o: o.args[-1] == "--lease-namespace=x: y"),
    "the operator starts under a quota": (
        {}, (),
        lambda o: all(
            set(c["resources"][part]) == {"cpu", "memory", "ephemeral-storage"}
            for c in (o.container, o.test["spec"]["containers"][0])
            for part in ("requests", "limits")
        )
        and o.pod["spec"]["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
    ),
    "resources of runs": (
        {"pods": {"cpuLimits": False, "ephemeralStorage": False}}, (),
        lambda o: {"--no-cpu-limits", "--no-disk-requests"} <= set(o.args)
    ),
    "usual resources of runs": ({}, (), lambda o: not [a for a in o.args if a.startswith(("--no-", "--gpu"))]),
    "OpenShift": (
        {"pods": {"ids": False}, "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}, (),
        lambda o: "--no-pod-ids" in o.args
        and o.pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    ),
    "another GPU": ({"pods": {"gpuResource": "amd.com/gpu"}}, (), lambda o: "--gpu-resource=amd.com/gpu" in o.args),
    "an image of its own": (
        {"images": {"operator": {"repository": "r.io/ops/maft"}, "trainer": {"tag": "cuda"}, "inference": {"digest": DIGEST}}}, (),
        lambda o: o.container["image"] == f"r.io/ops/maft:{__version__}"
        and [a for a in o.args if a.startswith("--image=")]
        == [f"--image=trainer={IMAGES}/trainer:cuda", f"--image=inference={IMAGES}/inference@{DIGEST}"],
    ),
    "images without a prefix": (
        {"images": {"prefix": ""} | {role: {"repository": f"r.io/{role}", "tag": "7", "digest": DIGEST} for role in FOUR}}, (),
        lambda o: o.container["image"] == f"r.io/operator:7@{DIGEST}" and not [a for a in o.args if a.startswith("--images")]
        and {f"--image={role}=r.io/{role}:7@{DIGEST}" for role in FOUR[1:]} <= set(o.args),
    ),
    "defaults of pods": (
        {"podDefaults": POD_DEFAULTS}, (),
        lambda o: "--pod-defaults=/etc/maft/pod-defaults.yaml" in o.args
        and {"name": "pod-defaults", "mountPath": "/etc/maft", "readOnly": True} in o.container["volumeMounts"]
        and {"name": "pod-defaults", "configMap": {"name": "maft-operator-pod-defaults"}} in o.pod["spec"]["volumes"],
    ),
    "no defaults of pods": (
        {}, (),
        lambda o: not o.of("ConfigMap") and "annotations" not in o.pod["metadata"] and len(o.pod["spec"]["volumes"]) == 1
    ),
    "what runs hand on": (
        {"pods": {"inherit": {"labels": ["cost-center", "a.b/c"], "annotations": ["owner"]}}}, (),
        lambda o: {"--inherit-label=cost-center", "--inherit-label=a.b/c", "--inherit-annotation=owner"} <= set(o.args),
    ),
    "metrics auth arg": (AUTH, (), lambda o: "--metrics-auth" in o.args),
    "policies arg": (
        {"networkPolicy": {"workloads": True, "scrapeNamespaces": ["mon", "tor"]}}, (),
        lambda o: o.args[-3:] == ["--network-policies", "--scrape-namespace=mon", "--scrape-namespace=tor"],
    ),
    "policies arg alone": (
        {}, (),
        lambda o: "--network-policies" in o.args and not [a for a in o.args if "scrape" in a],
    ),
    "no policies, no scrape arg": (
        {"networkPolicy": {"workloads": False, "scrapeNamespaces": ["mon", "tor"]}}, (),
        lambda o: not [a for a in o.args if "scrape" in a or "network" in a],
    ),
    "one replica": ({}, (), lambda o: o.one("Deployment")["spec"]["replicas"] == 1 and not o.of("PodDisruptionBudget")),
    "one replica, no spread": ({}, (), lambda o: "topologySpreadConstraints" not in o.pod["spec"]),
    "two replicas": ({"replicas": 2}, (), lambda o: o.one("Deployment")["spec"]["replicas"] == 2),
    "two replicas, a budget": ({"replicas": 2}, (), lambda o: o.one("PodDisruptionBudget")["spec"]["minAvailable"] == 1),
    "two replicas, spread": (
        {"replicas": 2}, (),
        lambda o: o.pod["spec"]["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway",
    ),
    "never none": (
        {}, (),
        lambda o: o.one("Deployment")["spec"]["strategy"]
        == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    ),
    "resources": (
        {"resources": {"limits": {"memory": "1Gi", "cpu": None}}}, (),
        lambda o: o.container["resources"]["limits"] == {"memory": "1Gi", "ephemeral-storage": "1Gi"}
    ),
    "node selector": (
        {"nodeSelector": {"a": "b"}}, (),
        lambda o: o.pod["spec"]["nodeSelector"] == o.test["spec"]["nodeSelector"] == {"a": "b"},
    ),
    "tolerations": (
        {"tolerations": [{"operator": "Exists"}]}, (),
        lambda o: o.pod["spec"]["tolerations"] == o.test["spec"]["tolerations"] == [{"operator": "Exists"}],
    ),
    "affinity": ({"affinity": AFFINITY}, (), lambda o: o.pod["spec"]["affinity"] == AFFINITY),
    "priority": ({"priorityClassName": "high"}, (), lambda o: o.pod["spec"]["priorityClassName"] == "high"),
    "probes": (
        {}, (),
        lambda o: o.container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        and o.container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"},
    ),
    "restricted": ({}, (), lambda o: security(o.pod["spec"]) and security(o.test["spec"])),
    "ids of the platform": (
        {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}, (),
        lambda o: o.pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    ),
    "somewhere to write": (
        {}, (),
        lambda o: o.pod["spec"]["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}]
        and o.container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}],
    ),
    "service": (
        {}, (),
        lambda o: o.one("Service")["spec"]["ports"][0].items() >= {"name": "metrics", "port": 8080, "targetPort": "metrics"}.items()
        and o.container["ports"][0]["name"] == "metrics",
    ),
    # accounts and rights
    "account": ({}, (), lambda o: o.one("ServiceAccount") and o.pod["spec"]["serviceAccountName"] == "maft-operator"),
    "account annotations": (
        {"serviceAccount": {"annotations": {"a": "b"}}}, (),
        lambda o: o.one("ServiceAccount")["metadata"]["annotations"] == {"a": "b"},
    ),
    "account of a name": (
        {"serviceAccount": {"name": "mine"}}, (),
        lambda o: o.one("ServiceAccount", "mine")
        and {s["name"] for b in o.of("ClusterRoleBinding") for s in b["subjects"]} == {"mine"},
    ),
    "account of somebody": (
        {"serviceAccount": {"create": False, "name": "theirs"}}, (),
        lambda o: not o.of("ServiceAccount", "theirs") and o.pod["spec"]["serviceAccountName"] == "theirs",
    ),
    "rights, cluster-wide": (
        {}, (),
        lambda o: o.granted("ClusterRole") == WATCHED | KEYING | ISOLATING and not o.of("Role", "maft-operator"),
    ),
    "rights on the lease": (
        {}, (),
        lambda o: o.granted("Role", "maft-operator-lease") == LEASE
        and o.one("Role", "maft-operator-lease")["metadata"]["namespace"] == "maft-system",
    ),
    "the lease, and rights on no other": (
        {}, (),
        lambda o: "spec" not in o.one("Lease") and "--lease-name=maft-operator" in o.args
        and [(r.get("resourceNames"), r["verbs"]) for r in o.one("Role", "maft-operator-lease")["rules"]]
        == [(["maft-operator"], ["get", "update", "patch"]), (None, ["create"])],
    ),
    "the lease of another name": (
        {"fullnameOverride": "ops"}, (),
        lambda o: o.one("Lease", "ops") and o.one("Role", "ops-lease")["rules"][0]["resourceNames"] == ["ops"],
    ),
    "rights in two namespaces": (
        TWO, (),
        lambda o: [(r["metadata"]["namespace"], triples(r)) for r in o.of("Role", "maft-operator")]
        == [(name, WATCHED | KEYING | ISOLATING) for name in ("maft-a", "maft-b")],
    ),
    "bindings in two namespaces": (
        TWO, (),
        lambda o: [
            (b["metadata"]["namespace"], b["roleRef"]["kind"], b["subjects"][0]["namespace"])
            for b in o.of("RoleBinding", "maft-operator")
        ]
        == [("maft-a", "Role", "maft-system"), ("maft-b", "Role", "maft-system")],
    ),
    "nothing cluster-wide": (TWO, (), lacks("ClusterRole", "ClusterRoleBinding")),
    "nothing cluster-wide, not even the crd": (
        {**TWO, "crds": {"install": False}}, (),
        lambda o: {k["metadata"].get("namespace") for k in o} == {*TWO["namespaces"], "maft-system"}
    ),
    "its own namespace": (
        {"namespaces": ["maft-system"]}, (),
        lambda o: {r["metadata"]["name"] for r in o.of("Role")} == {"maft-operator", "maft-operator-lease", "maft-operator-test"},
    ),
    "no rights of policies": (
        {"networkPolicy": {"workloads": False}}, (), lambda o: o.granted("ClusterRole") == WATCHED | KEYING
    ),
    "servers want keys": ({}, (), lambda o: "--no-server-keys" not in o.args),
    "secrets are made and never read": ({}, (), lambda o: KEYING == {("", "secrets", "create")} <= o.granted("ClusterRole")),
    "no keys": (
        {"serverKeys": False}, (), lambda o: "--no-server-keys" in o.args and o.granted("ClusterRole") == WATCHED | ISOLATING
    ),
    "rights of reviews": (
        AUTH, (),
        lambda o: o.granted("ClusterRole", "maft-operator-metrics-auth") == REVIEWING
        and o.one("ClusterRoleBinding", "maft-operator-metrics-auth"),
    ),
    "who reads metrics": (
        AUTH, (),
        lambda o: o.one("ClusterRole", "maft-operator-metrics-reader")["rules"]
        == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
    ),
    "no reviews": ({}, (), lambda o: not o.of("ClusterRole", "maft-operator-metrics-auth")),
    "no rights": (
        {"rbac": {"create": False, "userRoles": False}}, (),
        lambda o: {n for k, n in o.names if "Role" in k} == {"maft-operator-test"},
    ),
    "users": (
        {}, (),
        lambda o: o.granted("ClusterRole", "maft-operator-view")
        == on_parents("get", "list", "watch", scale=("get", "list", "watch"))
        and o.granted("ClusterRole", "maft-operator-edit")
        == on_parents("create", "update", "patch", "delete", "deletecollection", scale=("update", "patch")),
    ),
    "view and edit": (
        {}, (),
        lambda o: aggregated(o.one("ClusterRole", "maft-operator-view")) == {"admin", "edit", "view"}
        and aggregated(o.one("ClusterRole", "maft-operator-edit")) == {"admin", "edit"},
    ),
    "no users": ({"rbac": {"userRoles": False}}, (), lambda o: not o.of("ClusterRole", "maft-operator-view")),
    "users all the same": ({**TWO, "rbac": {"userRoles": True}}, (), lambda o: len(o.of("ClusterRole")) == 2),
    # network
    "no policy": ({}, (), lacks("NetworkPolicy")),
    "policy": (
        {"networkPolicy": {"operator": True}}, (),
        lambda o: o.one("NetworkPolicy")["spec"]["ingress"] == [{"ports": [{"port": "metrics", "protocol": "TCP"}]}],
    ),
    "policy for some": (
        {"networkPolicy": {"operator": True, "from": MONITORING}}, (),
        lambda o: (peers := o.one("NetworkPolicy")["spec"]["ingress"][0]["from"])[:1] == MONITORING
        and peers[1]["podSelector"]["matchLabels"].items() <= o.test["metadata"]["labels"].items(),
    ),
    "policy's ways out": (
        {"networkPolicy": {"operator": True, "apiServerPorts": [16443]}}, (),
        lambda o: [p["port"] for e in o.one("NetworkPolicy")["spec"]["egress"] for p in e["ports"]] == [16443, 53, 53, 9100],
    ),
    # monitoring
    "auto without the API": ({}, (), lacks(*GROUPS)),
    "auto with the API": ({}, PROMETHEUS, kinds("ServiceMonitor", "PodMonitor")),
    "not wanted": (
        {"metrics": {k: {"enabled": False} for k in ("serviceMonitor", "podMonitor", "rules", "dashboards")}}, PROMETHEUS,
        lacks(*GROUPS, "ConfigMap"),
    ),
    "wanted without the API": (
        {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, (),
        kinds("ServiceMonitor", "PodMonitor"),
    ),
    "service monitor": (
        {"metrics": {"serviceMonitor": {"labels": {"release": "kps"}, "interval": "1m"}}}, PROMETHEUS,
        lambda o: (m := o.one("ServiceMonitor"))["metadata"]["labels"]["release"] == "kps"
        and m["spec"]["endpoints"] == [{"port": "metrics", "interval": "1m", "honorLabels": True}]
        and m["spec"]["selector"]["matchLabels"].items() <= o.one("Service")["metadata"]["labels"].items(),
    ),
    "service monitor shows a token": (
        AUTH, PROMETHEUS, lambda o: {"bearerTokenFile", "tlsConfig"} <= o.one("ServiceMonitor")["spec"]["endpoints"][0].keys()
    ),
    "service monitor shows a token of a Secret": (
        {"metrics": {**AUTH["metrics"], "serviceMonitor": {"authorization": TOKEN}}}, PROMETHEUS,
        lambda o: (e := o.one("ServiceMonitor")["spec"]["endpoints"][0])["authorization"] == TOKEN and "bearerTokenFile" not in e,
    ),
    "no token without auth": (
        {"metrics": {"serviceMonitor": {"authorization": TOKEN}}}, PROMETHEUS,
        lambda o: "authorization" not in o.one("ServiceMonitor")["spec"]["endpoints"][0],
    ),
    "metrics over tls": (
        {"metrics": {"tls": {"secretName": "s"}}}, PROMETHEUS,
        lambda o: {"--metrics-tls-cert=/etc/maft-tls/tls.crt", "--metrics-tls-key=/etc/maft-tls/tls.key"} <= set(o.args)
        and {p["httpGet"]["scheme"] for p in (o.container["livenessProbe"], o.container["readinessProbe"])} == {"HTTPS"}
        and {"name": "tls", "secret": {"secretName": "s"}} in o.pod["spec"]["volumes"]
        and {"name": "OPERATOR", "value": "https://maft-operator.maft-system.svc:8080"} in o.test["spec"]["containers"][0]["env"]
        and o.one("ServiceMonitor")["spec"]["endpoints"][0]["tlsConfig"]
        == {"ca": {"secret": {"name": "s", "key": "ca.crt"}}, "serverName": "maft-operator.maft-system.svc"},
    ),
    "tls as prometheus is told": (
        {"metrics": {"tls": {"secretName": "s", "tlsConfig": {"insecureSkipVerify": True}}}}, PROMETHEUS,
        lambda o: (e := o.one("ServiceMonitor")["spec"]["endpoints"][0])["scheme"] == "https"
        and e["tlsConfig"] == {"insecureSkipVerify": True},
    ),
    "no tls": ({}, PROMETHEUS, lambda o: not [a for a in o.args if "tls" in a] and "scheme" not in str(o.one("ServiceMonitor"))),
    "pod monitor": (
        {}, PROMETHEUS,
        lambda o: (s := o.one("PodMonitor", "maft-operator-runs")["spec"])["namespaceSelector"] == {"any": True}
        and [(e["port"], e.get("scheme")) for e in s["podMetricsEndpoints"]]
        == [("metrics", None), ("http", None), ("https", "https")],
    ),
    "pod monitor names the run": (
        {}, PROMETHEUS,
        lambda o: o.one("PodMonitor", "maft-operator-runs")["spec"]["podTargetLabels"]
        == [manifests.RUN, parents.SOCIETY.label, manifests.ITERATION, manifests.COMPONENT],
    ),
    "pod monitor in two namespaces": (
        TWO, PROMETHEUS,
        lambda o: o.one("PodMonitor", "maft-operator-runs")["spec"]["namespaceSelector"] == {"matchNames": TWO["namespaces"]},
    ),
    "alerts as they are": (
        {}, PROMETHEUS,
        lambda o: o.one("PrometheusRule")["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text()),
    ),
    "alerts with labels and pages of one's own": (
        {"metrics": {"rules": {"additionalLabels": {"team": "ml", "severity": "no"}, "runbookUrl": "https://x.example/books/"}}},
        PROMETHEUS,
        lambda o: all(
            r["labels"]["team"] == "ml" and r["labels"]["severity"] in ("warning", "critical")
            and r["annotations"]["runbook_url"] == f"https://x.example/books/{r['alert']}.md"
            for r in o.alerts.values()
        ),
    ),
    "an alert that is switched off": (
        {"metrics": {"rules": {"alerts": {"MaftGpuIdle": {"enabled": False}, "MaftAnswersCut": {"enabled": True}}}}}, PROMETHEUS,
        lambda o: set(render({}, *PROMETHEUS).alerts) - set(o.alerts) == {"MaftGpuIdle"},
    ),
    "all alerts of a group switched off": (
        {"metrics": {"rules": {"alerts": {r["alert"]: {"enabled": False} for r in ALERTS if "Run" not in r["alert"]}}}}, PROMETHEUS,
        lambda o: [g["name"] for g in o.one("PrometheusRule")["spec"]["groups"]] == ["maft-runs"] and len(o.alerts) == 3,
    ),
    "an alert's threshold, time and severity": (
        {"metrics": {"rules": {"alerts": {"MaftAnswersCut": {"threshold": 0.25, "for": "7m", "severity": "page"}}}}}, PROMETHEUS,
        lambda o: (a := o.alerts["MaftAnswersCut"])["expr"].count("> 0.25") == 2 and "> 0.1" not in a["expr"]
        and (a["for"], a["labels"]["severity"]) == ("7m", "page"),
    ),
    # the page
    "no page": ({}, (), lambda o: not [name for _, name in o.names if name.endswith("-page")]),
    "a page that may read runs": (
        {"page": {"enabled": True}}, (),
        lambda o: o.granted("ClusterRole", PAGE)
        == {("maft.dev", kind.plural, verb) for kind in parents.PARENTS for verb in ("get", "list", "watch")}
        and o.one("ClusterRoleBinding", PAGE)["subjects"] == [{"kind": "ServiceAccount", "name": PAGE, "namespace": "maft-system"}]
        and not o.of("Role", PAGE),
    ),
    "a page of two namespaces": (
        {**TWO, "page": {"enabled": True}}, (),
        lambda o: [r["metadata"]["namespace"] for r in o.of("Role", PAGE)] == TWO["namespaces"] and not o.of("ClusterRole", PAGE)
        and {f"--namespace={n}" for n in TWO["namespaces"]} <= set(page_of(o)["args"]),
    ),
    "a page that only its own pod reaches": (
        {"page": {"enabled": True}}, (),
        lambda o: o.one("Service")["spec"]["selector"].items()
        > o.one("Deployment", PAGE)["spec"]["template"]["metadata"]["labels"].items() - {("app.kubernetes.io/name", "maft-page")}
        and [port["containerPort"] for port in page_of(o)["ports"]] == [8091] and len(o.of("Service")) == 1,
    ),
    "a page as restricted pods are": (
        {"page": {"enabled": True}}, (),
        lambda o: page_of(o)["securityContext"] == o.container["securityContext"] and page_of(o)["image"] == o.container["image"],
    ),
    "a page that reads no bucket": (
        {"page": {"enabled": True}}, (),
        lambda o: not [a for a in page_of(o)["args"] if a.startswith(("--read", "--endpoint"))]
        and len((pod := o.one("Deployment", PAGE)["spec"]["template"]["spec"])["containers"]) == 1
        and "automountServiceAccountToken" not in pod and "env" not in page_of(o),
    ),
    "a page with reports": (
        REPORTS, (),
        lambda o: page_of(o)["args"][-4:] == ["--reader=/reader/socket", "--endpoint=http://s3.example:9000", *READ]
        and page_of(o, "reports")["args"]
        == ["--socket=/reader/socket", "--endpoint=http://s3.example:9000", "--region=r1", *READ]
        and page_of(o, "reports")["image"] == f"{IMAGES}/debate:{__version__}"
        and page_of(o, "reports")["securityContext"] == o.container["securityContext"],
    ),
    "a page whose key and account lie in two containers": (
        REPORTS, (),
        lambda o: {v["valueFrom"]["secretKeyRef"]["name"] for v in page_of(o, "reports")["env"]} == {"page-key"}
        and [v["name"] for v in page_of(o, "reports")["env"] if not v["valueFrom"]["secretKeyRef"].get("optional")]
        == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        and "env" not in page_of(o) and "ports" not in page_of(o, "reports")
        and [m["name"] for m in page_of(o, "reports")["volumeMounts"]] == ["reader"]
        and "account" in [m["name"] for m in page_of(o)["volumeMounts"]]
        and o.one("Deployment", PAGE)["spec"]["template"]["spec"]["automountServiceAccountToken"] is False,
    ),
    "reports of no page": (
        {"page": {**REPORTS["page"], "enabled": False}}, (), lambda o: not [name for _, name in o.names if name.endswith("-page")],
    ),
    # admission
    "no admission": ({}, (), lacks("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")),
    "admission": (
        {"admission": {"enabled": True}}, (),
        lambda o: o.one("ValidatingAdmissionPolicy", RUNS_POLICY)
        and o.one("ValidatingAdmissionPolicyBinding", RUNS_POLICY)["spec"]
        == {"policyName": RUNS_POLICY, "validationActions": ["Deny"]},
    ),
    "admission where the operator serves": (
        {**TWO, "admission": {"enabled": True, "exemptNamespaces": ["x"]}}, (),
        lambda o: [
            (e["operator"], e["values"])
            for where in o.one("ValidatingAdmissionPolicyBinding", f"{RUNS_POLICY}.maft-system")["spec"]["matchResources"].values()
            for e in where["matchExpressions"]
        ]
        == [("In", TWO["namespaces"]), ("NotIn", ["x"])],
    ),
    "admission says what it says": (
        {"admission": {"enabled": True, "imagePrefixes": ["r.io/a-b:1@"], "endpointHosts": [".x"], "trustRemoteCode": True}}, (),
        lambda o: (v := [str(v) for v in o.one("ValidatingAdmissionPolicy", RUNS_POLICY)["spec"]["validations"]])
        and any("r.io/a-b:1@" in line for line in v) and not any("trustRemoteCode" in line for line in v),
    ),
    # helm test
    "helm test": (
        {}, (),
        lambda o: {k["kind"] for k in o if k["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"}
        == {"ServiceAccount", "Role", "RoleBinding", "Pod"},
    ),
    "helm test may create runs only": (
        {}, (), lambda o: o.granted("Role", "maft-operator-test") == {("maft.dev", "multiagentfinetunes", "create")}
    ),
    "helm test where runs are": (
        TWO, (),
        lambda o: o.one("Role", "maft-operator-test")["metadata"]["namespace"] == "maft-a"
        and {"name": "NAMESPACE", "value": "maft-a"} in o.test["spec"]["containers"][0]["env"],
    ),
    "helm test, metrics closed": (
        AUTH, (), lambda o: {"name": "METRICS", "value": "401"} in o.test["spec"]["containers"][0]["env"]
    ),
    "helm test is a program": ({}, (), lambda o: compile(o.test["spec"]["containers"][0]["args"][0], "test.py", "exec")),
    # all variants
    "no wildcard, no secret that is read": (
        {**AUTH, "networkPolicy": {"workloads": True}}, PROMETHEUS,
        lambda o: not [
            right
            for role in (*o.of("Role"), *o.of("ClusterRole"))
            for right in triples(role)
            if ("secrets" in right and right[2] != "create") or any("*" in part for part in right)
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_rendered(case):
    values, arguments, holds = TABLE[case]
    assert holds(render(values, *arguments))


@pytest.mark.parametrize(
    ("release", "name"),
    [("maft", "maft-operator"), ("my-maft", "my-maft-operator"), ("prod", "prod-maft-operator"), ("the-operator", "the-operator")],
)
def test_names_after_the_release(release, name):
    objects = render({}, release=release)
    assert {o["metadata"]["name"] for o in objects.of("Deployment")} == {name}
    assert all(o["metadata"]["name"].startswith(name) for o in objects if o["kind"] != "CustomResourceDefinition")


def test_names_of_long_releases_fit():
    assert all(len(o["metadata"]["name"]) <= 63 for o in render({"replicas": 2}, release="a" * 53))


EVERYTHING = {
    "replicas": 2, "rbac": {"userRoles": True}, "admission": {"enabled": True}, "podDefaults": POD_DEFAULTS, **REPORTS,
    "networkPolicy": {"operator": True, "from": MONITORING},
    "metrics": {**AUTH["metrics"], "dashboards": {"namespace": "grafana"}},
}  # fmt: skip


def made_for(team: str) -> set[tuple[str, str, str]]:
    """What a release called maft in a team's namespace makes for that namespace."""
    objects = render({**EVERYTHING, "namespaces": [team]}, *PROMETHEUS, namespace=team)
    wheres = [(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects]
    return {where for where in wheres if where[0] != "CustomResourceDefinition"}


def test_releases_of_one_name_share_no_object():
    """Helm refuses to install what belongs to another release."""
    one, other = made_for("team-a"), made_for("team-b")
    assert not one & other and len(one) == len(other)
    shared = {"ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ConfigMap"}
    assert {kind for kind, where, name in one if name.endswith(".team-a")} == shared


def test_what_names_an_object_of_the_whole_cluster_names_it_whole():
    objects = render({**EVERYTHING, "namespaces": ["team-a"]}, namespace="team-a")
    bindings = objects.of("ValidatingAdmissionPolicyBinding")
    assert {b["spec"]["policyName"] for b in bindings} == {p["metadata"]["name"] for p in objects.of("ValidatingAdmissionPolicy")}
    assert objects.of("ClusterRole", objects.of("ClusterRoleBinding")[0]["roleRef"]["name"])


def kinds_of_values(value: Any) -> Any:
    """The same tree, with the type in each value's place."""
    if isinstance(value, dict):
        return {key: kinds_of_values(item) for key, item in value.items()}
    return [kinds_of_values(item) for item in value] if isinstance(value, list) else type(value)


def named_by(words: list[str]) -> list[Json]:
    """Everything of a release whose names are these: of the release, its namespace, a namespace that it serves, and others."""
    release, namespace, served, other, shape = words
    values = {
        **EVERYTHING, "namespaces": [served], "fullnameOverride": other, "priorityClassName": other, "images": {"tag": other},
        "serviceAccount": {"name": shape}, "pods": {"inherit": {"labels": [f"{other}:"]}}, "imagePullSecrets": [{"name": other}],
        "page": {"enabled": True, "reports": {"read": [f"{served}/a: b"], "secretName": other, "region": f"{shape}: #"}},
    }  # fmt: skip
    values["metrics"] = {**EVERYTHING["metrics"], "tls": {"secretName": other}}
    return render(values, *PROMETHEUS, release=release, namespace=namespace)


def test_texts_that_look_like_something_else_stay_texts():
    """Kubernetes takes neither a number nor a truth for a name."""
    looking, plain = named_by(["7", "2024", "0123", "123", "true"]), named_by(["aoperator", "b", "eee", "d", "f"])
    assert kinds_of_values(looking) == kinds_of_values(plain)
    assert {o["metadata"]["labels"]["app.kubernetes.io/instance"] for o in looking if "labels" in o["metadata"]} == {"7"}


REFUSED = {
    "unknown key": ({"replica": 2}, "additional properties 'replica' not allowed"),
    "unknown key below": (
        {"metrics": {"serviceMonitors": {}}},
        "at '/metrics': additional properties 'serviceMonitors' not allowed",
    ),
    "a Secret without its key": (
        {"metrics": {"serviceMonitor": {"authorization": {"credentials": {"name": "s"}}}}},
        "at '/metrics/serviceMonitor/authorization/credentials': missing property 'key'",
    ),
    "unknown image key": ({"images": {"repository": "x"}}, "at '/images': additional properties 'repository' not allowed"),
    "too many": ({"replicas": 3}, "at '/replicas': maximum: got 3, want 2"),
    "none": ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    "text for a number": ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    "text for a list": ({"namespaces": "a"}, "at '/namespaces': got string, want array"),
    "no name of a namespace": ({"namespaces": ["A B"]}, "at '/namespaces/0': 'A B' does not match pattern"),
    "twice": ({"namespaces": ["a", "a"]}, "at '/namespaces': items at 0 and 1 are equal"),
    "log format": ({"log": {"format": "xml"}}, "at '/log/format': value must be one of 'text', 'json'"),
    "pull policy": ({"images": {"pullPolicy": "always"}}, "value must be one of 'Always', 'IfNotPresent', 'Never'"),
    "no prefix": ({}, "images.prefix: not set; name where nodes find the images, such as registry.example.com/maft"),
    "an empty prefix": ({"images": {"prefix": ""}}, "images.prefix: not set; "),
    "no place of images": ({"images": {"prefix": "/maft"}}, "at '/images/prefix': '/maft' does not match pattern"),
    "number for a tag": ({"images": {"tag": 1.1}}, "at '/images/tag': got number, want string"),
    "three states": ({"metrics": {"rules": {"enabled": "yes please"}}}, "value must be one of true, false, 'auto'"),
    "tokens over plain HTTP": (
        {"images": {"prefix": "x"}, "metrics": {"auth": True}},
        "metrics.auth: true without metrics.tls.secretName: tokens would be read on their way; name a Secret with a certificate",
    ),
    "reports without a key": (
        {"images": {"prefix": "x"}, "page": {"enabled": True, "reports": {"read": ["bucket"]}}},
        "page.reports.read: without page.reports.secretName; name a Secret with a key that may read these buckets",
    ),
    "reports of no bucket": (
        {"page": {"reports": {"read": ["s3://bucket"]}}},
        "at '/page/reports/read/0': 's3://bucket' does not match pattern",
    ),
    "reports of an endpoint with a path": (
        {"page": {"reports": {"endpoint": "http://s3.example/x"}}},
        "at '/page/reports/endpoint': 'http://s3.example/x' does not match pattern",
    ),
    "text for a truth": ({"metrics": {"auth": "true"}}, "at '/metrics/auth': got string, want boolean"),
    "interval": ({"metrics": {"podMonitor": {"interval": "15"}}}, "at '/metrics/podMonitor/interval': '15' does not match pattern"),
    "label": ({"labels": {"a": 1}}, "at '/labels/a': got number, want string"),
    "port": ({"networkPolicy": {"apiServerPorts": [70000]}}, "at '/networkPolicy/apiServerPorts/0': maximum"),
    "memory": ({"resources": {"limits": {"memory": "1 GB"}}}, "at '/resources/limits/memory': '1 GB' does not match pattern"),
    "a registry's name that others begin with": (
        {"admission": {"imagePrefixes": ["registry.example.org"]}},
        "at '/admission/imagePrefixes/0': 'registry.example.org' does not match pattern",
    ),
    "a quote": ({"admission": {"imagePrefixes": ["x' + y"]}}, "at '/admission/imagePrefixes/0'"),
    "pull secret": ({"imagePullSecrets": ["p"]}, "at '/imagePullSecrets/0': got string, want object"),
    "name of a GPU": ({"pods": {"gpuResource": "gpu"}}, "at '/pods/gpuResource': 'gpu' does not match pattern"),
    "short digest": (
        {"images": {"debate": {"digest": "sha256:12"}}},
        "at '/images/debate/digest': 'sha256:12' does not match pattern",
    ),
    "tag in a repository": (
        {"images": {"debate": {"repository": "r.io/x@y"}}},
        "at '/images/debate/repository': 'r.io/x@y' does not",
    ),
    "prefix for one": ({"images": {"prefix": "", "debate": {"repository": "r.io/x"}}}, "images.prefix: not set; "),
    "no template of pods": (
        {"podDefaults": {"nodeSelector": {}}},
        "at '/podDefaults': additional properties 'nodeSelector' not allowed",
    ),
    "label of pods": ({"podDefaults": {"metadata": {"labels": {"a": 1}}}}, "at '/podDefaults/metadata/labels/a': got number"),
    "a prefix with its protocol": (
        {"images": {"prefix": "https://r.io/x"}},
        "at '/images/prefix': 'https://r.io/x' does not match",
    ),
    "a prefix with a tag": ({"images": {"prefix": "r.io/x:1"}}, "at '/images/prefix': 'r.io/x:1' does not match"),
    "a name that YAML reads": (
        {"pods": {"inherit": {"annotations": ["a: b"]}}},
        "at '/pods/inherit/annotations/0': 'a: b' does not",
    ),
    "a policy of nothing": ({"admission": {"podTemplate": {"specFields": None}}}, "at '/admission/podTemplate"),
    "what runs hand on": ({"pods": {"inherit": {"labels": "cost-center"}}}, "at '/pods/inherit/labels': got string, want array"),
    "pods of runs": ({"pods": {"cpuLimits": "no"}}, "at '/pods/cpuLimits': got string, want boolean"),
    "no such alert": (
        {"metrics": {"rules": {"alerts": {"MaftGpuIdel": {"enabled": False}}}}},
        "invalid propertyName 'MaftGpuIdel'",
    ),
    "no such switch": (
        {"metrics": {"rules": {"alerts": {"MaftGpuIdle": {"disabled": True}}}}},
        "at '/metrics/rules/alerts/MaftGpuIdle': additional properties 'disabled' not allowed",
    ),
    "a threshold that the alert lacks": (
        {
            "images": {"prefix": "x"},
            "metrics": {"rules": {"enabled": True, "alerts": {"MaftTwoLeaders": {"threshold": 2}}}},
        },
        "metrics.rules.alerts.MaftTwoLeaders.threshold: this alert has none",
    ),
    "arguments": ({"extraArgs": "--verbose"}, "at '/extraArgs': got string, want array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    values, words = REFUSED[case]
    done = call("template", "maft", str(CHART), values=values)
    assert done.returncode == 1 and words in done.stderr


def test_alerts_that_can_be_changed_are_those_that_there_are():
    """Each threshold is a comparison of its alert's expression, and of nothing longer; every alert can be switched off by name."""
    rules = {rule["alert"]: rule["expr"] for rule in ALERTS}
    thresholds = yaml.safe_load((CHART / "files" / "thresholds.yaml").read_text())
    assert set(thresholds) <= set(rules)
    for name, text in thresholds.items():
        assert re.search(rf"(?<![<>=!]){re.escape(text)}(?![\d.])", rules[name]) and not re.search(
            rf"{re.escape(text)}[\d.]", rules[name]
        )
    schema = json.loads((CHART / "values.schema.json").read_text())
    allowed = schema["properties"]["metrics"]["properties"]["rules"]["properties"]["alerts"]["propertyNames"]["enum"]
    assert allowed == list(rules)


def test_helm_finds_nothing_to_say():
    text = run("lint", "--strict", str(CHART), "--set", "replicas=2", "--set", "metrics.serviceMonitor.enabled=true", *SET)
    assert "[WARNING]" not in text and "0 chart(s) failed" in text


def test_the_package_has_all_files(tmp_path):
    """The packed chart renders what the folder does."""
    run("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    assert package.name == f"maft-{yaml.safe_load((CHART / 'Chart.yaml').read_text())['version']}.tgz"
    packed = call("template", "maft", str(package), *SET)
    assert packed.stdout == run("template", "maft", str(CHART), *SET) and "CustomResourceDefinition" in packed.stdout
    assert packed.stderr == ""


def test_the_resource_has_one_source():
    """scripts/resource_reference.py copies it. Flux leaves out what is a symbolic link: an operator without its resource."""
    assert not [path for path in CHART.rglob("*") if path.is_symlink()]
    several = {path.name: path.read_bytes() for path in (ROOT / "crds").glob("*.yaml")}
    assert several == {path.name: path.read_bytes() for path in (CHART / "files" / "crds").iterdir()}
    assert several.keys() == {f"{kind.plural}.yaml" for kind in parents.PARENTS}


def test_the_page_about_security_lists_what_the_operator_may():
    _, page = (ROOT / "SECURITY.md").read_text().split("**The operator** may")
    rows = re.findall(r"^\| (`.+`) \| ([a-z, ]+) \|$", page, re.MULTILINE)
    listed = {(name, verb) for names, verbs in rows for name in re.findall(r"`(.+?)`", names) for verb in verbs.split(", ")}
    assert listed == {(resource, verb) for _, resource, verb in WATCHED | ISOLATING | KEYING}
    assert yaml.safe_load((CHART / "values.yaml").read_text())["namespaces"] == []  # all of them, as the page says


def test_the_readme_is_made_from_the_values():
    done = subprocess.run([ROOT / "scripts" / "chart-readme.sh", "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (CHART / "README.md").read_text().strip()


def test_every_value_is_explained():
    lines = [line for line in (CHART / "README.md").read_text().splitlines() if line.startswith("| ") and line.count(" | ") == 3]
    assert len(lines) > 40 and not [line for line in lines if line.endswith(" |  |")]


def test_schema_and_values_have_the_same_keys():
    def keys(schema: Json, values: Any, path: str = "") -> None:
        if schema.get("additionalProperties") is False and values:
            assert set(schema["properties"]) - {"global", "claims"} >= set(values), path
            missing = set(schema["properties"]) - set(values) - {"global"}
            assert path == ".resources" or not missing, (path, missing)
            for name, value in values.items():
                keys(schema["properties"][name], value, f"{path}.{name}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    keys(schema, yaml.safe_load((CHART / "values.yaml").read_text()))


def test_dashboards_and_alerts_are_packed(tmp_path):
    """Whatever lies in dashboards/ and files/alerts.yaml, braces included, is rendered as it is; without them the chart works."""
    chart = tmp_path / "maft"
    shutil.copytree(CHART, chart)
    shutil.rmtree(chart / "dashboards", ignore_errors=True)
    (chart / "files" / "alerts.yaml").unlink(missing_ok=True)
    bare = [d for d in yaml.safe_load_all(run("template", "maft", str(chart), *PROMETHEUS, *SET)) if d]
    assert not {"PrometheusRule", "ConfigMap"} & {d["kind"] for d in bare}
    (chart / "dashboards").mkdir()
    board = {"title": "Runs", "legend": "{{ run }}", "text": "a\nb"}
    (chart / "dashboards" / "runs.json").write_text(json.dumps(board, indent=2) + "\n")
    rule = {"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.run }}"}}
    (chart / "files" / "alerts.yaml").write_text("# about\n" + yaml.safe_dump({"groups": [{"name": "maft", "rules": [rule]}]}))
    values = {
        "metrics": {
            "dashboards": {"annotations": {"grafana_folder": "maft"}, "namespace": "grafana"},
            "rules": {"labels": {"r": "k"}},
        }
    }
    text = run("template", "maft", str(chart), *PROMETHEUS, *SET, values=values)
    objects = Objects(d for d in yaml.safe_load_all(text) if d)
    shown = objects.one("ConfigMap", "maft-operator-dashboard-runs")
    assert json.loads(shown["data"]["runs.json"]) == board
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1" and shown["metadata"]["namespace"] == "grafana"
    assert shown["metadata"]["annotations"] == {"grafana_folder": "maft"}
    rules = objects.one("PrometheusRule")
    assert rules["spec"]["groups"][0]["rules"] == [rule] and rules["metadata"]["labels"]["r"] == "k"


def test_the_plain_manifest_is_the_chart():
    import operator_manifest

    assert (ROOT / "deploy" / "operator.yaml").read_text() == operator_manifest.manifest(str(helm.folder("helm") / "helm"))


def test_the_operator_reads_the_defaults_that_the_chart_writes(tmp_path):
    objects = render({"podDefaults": POD_DEFAULTS})
    file = tmp_path / "pod-defaults.yaml"
    file.write_text(objects.one("ConfigMap", "maft-operator-pod-defaults")["data"][file.name])
    assert pod_defaults.read(file) == POD_DEFAULTS


def test_other_defaults_restart_the_operator_which_reads_them_once():
    several = (POD_DEFAULTS, {"spec": {"priorityClassName": "x"}})
    values = [{"podDefaults": defaults, "podAnnotations": {"a": "b"}} for defaults in several]
    notes = [render(each).pod["metadata"]["annotations"] for each in values]
    assert notes[0] != notes[1] and all(note["a"] == "b" for note in notes)
