"""The pod of a task or server: our container, its environment, volumes and security. Pure.

Every pod passes the `restricted` Pod Security Standard and runs with a read-only root file system. What the operator's defaults
say is merged into it, then the resource's podTemplate, so users have the last word, but for the names by which pods are found.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maft_operator.cluster import resources
from maft_operator.cluster.fields import parts, text
from maft_operator.cluster.merge import merged
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.cluster.quantities import of_bytes
from maft_operator.cluster.resources import Needs
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json

METRICS_PORT = 9100  # of tasks
USER = 65532  # "nonroot" of the distroless images; any number but 0 would do
# Container names, which are also those of the images. A podTemplate names them to reach one kind of pod only.
DEBATE, TRAIN, SERVE = "debate", "trainer", "inference"
CACHE = "/cache"
COMPILED = {  # what is compiled at a start, and found again at the next: below the claim where there is one
    "VLLM_CACHE_ROOT": "/cache/vllm",
    "TRITON_CACHE_DIR": "/cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
    "FLASHINFER_WORKSPACE_BASE": "/cache",  # it goes on with .cache/flashinfer
}
OWN = re.compile(
    r"maft\.dev/.*|app\.kubernetes\.io/(name|managed-by|component)"
)  # by these pods are found, and NetworkPolicies tell them apart
_QUEUES = "kueue.x-k8s.io/"  # by these they are admitted
GRACE = 20  # seconds: a program needs about one to end, vLLM a few


@dataclass(frozen=True, slots=True)
class Size:
    """How large a pod is, and by whose rules."""

    needs: Needs
    gpus: int
    settings: PodSettings

    def resources(self, run: Run, *, cached: bool) -> Json:
        """Writes what its container asks for. cached: the cache lies on the node's disk and counts."""
        rules = self.settings
        made = resources.written(self.needs, cached=cached, cpu_limits=rules.cpu_limits, disk=rules.disk)
        gpus = {run.spec.gpu_resource or rules.gpu_resource: str(self.gpus)} if self.gpus else {}
        return {**made, "limits": {**made["limits"], **gpus}}

    def volumes(self, run: Run) -> list[Json]:
        """Lists what programs write to. In /dev/shm workers talk to each other; without it a pod has 64 MiB."""
        claim, needs = run.spec.model.cache_claim, self.needs
        shared = {"medium": "Memory", "sizeLimit": needs.shared}
        return [
            {"name": "tmp", **self._on_disk(needs.scratch)},
            {"name": "shm", "emptyDir": shared},
            _claimed(claim) if claim else {"name": "cache", **self._on_disk(needs.cache.limit)},
        ]

    def _on_disk(self, limit: int) -> Json:
        return {"emptyDir": {"sizeLimit": of_bytes(limit)} if self.needs.bounded else {}}


def _claimed(claim: str) -> Json:
    return {"name": "cache", "persistentVolumeClaim": {"claimName": claim}}


def container(name: str, image: str, policy: str, arguments: tuple[str, ...]) -> Json:
    """Makes our container. arguments: as the program gets them."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": policy,
        # The kubelet expands $(NAME) and turns $$ into $; prompts are meant literally.
        "args": [argument.replace("$", "$$") for argument in arguments],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "cache", "mountPath": CACHE},
        ],
    }


def environment(run: Run) -> list[Json]:
    """Lists the variables of every program."""
    spec = run.spec
    fixed = {
        "HOME": "/tmp",
        "HF_HOME": "/cache/huggingface",
        "MAFT_CACHE": "/cache/maft",
        **COMPILED,
        "MAFT_SUMMARY": "/dev/termination-log",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin starve their neighbours on a shared node
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    variables = [{"name": name, "value": value} for name, value in fixed.items()]
    if spec.storage and spec.storage.credentials_secret:
        secret = spec.storage.credentials_secret.name
        variables += [from_secret(name, secret, name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        variables.append(from_secret("AWS_SESSION_TOKEN", secret, "AWS_SESSION_TOKEN", optional=True))
    if spec.model.token_secret:
        variables.append(from_secret("HF_TOKEN", spec.model.token_secret.name, spec.model.token_secret.key))
    return variables


def from_secret(variable: str, secret: str, key: str, *, optional: bool = False) -> Json:
    """Makes a variable that has the value of a Secret's key."""
    reference: Json = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def template(
    container: Json,
    run: Run,
    size: Size,
    labels: Mapping[str, str],
    spec: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """Makes the pod template around our container; the operator's defaults are merged into it, then the run's podTemplate.
    spec: more of its fields."""
    return of_several([(container, size)], run, size.volumes(run), labels, spec, annotations)


def of_several(
    sized: Sequence[tuple[Json, Size]],
    run: Run,
    volumes: list[Json],
    labels: Mapping[str, str],
    spec: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """Makes the template of a pod with several of our containers, which share its volumes. sized: each with its size."""
    containers, settings = [container for container, _ in sized], sized[0][1].settings
    names = {container["name"] for container in containers}
    places = _with_theirs({"spec": {"containers": containers, "volumes": volumes}}, names, run, settings)
    asked = {c["name"]: size.resources(run, cached=_on_the_nodes_disk(places, c["name"])) for c, size in sized}
    ours = {
        "metadata": {"labels": dict(labels), **({"annotations": dict(annotations)} if annotations else {})},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "shareProcessNamespace": True,  # as PID 1 a program that still imports, and has no handler yet, would not hear SIGTERM
            "terminationGracePeriodSeconds": GRACE,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **_ids(settings)},
            "containers": [{**container, "resources": asked[container["name"]]} for container in containers],
            "volumes": volumes,
            **spec,
        },
    }
    return _reconciled(_with_theirs(ours, names, run, settings), asked)


def _with_theirs(ours: Json, names: Collection[str], run: Run, settings: PodSettings) -> Json:
    """Merges the operator's defaults into the template, then the run's own."""
    claim = run.spec.model.cache_claim
    whole = merged(ours, _for_containers(settings.defaults, names))
    whole = merged(whole, {"spec": {"volumes": [_claimed(claim)]}} if claim else {})  # the run's own, whatever the defaults keep
    whole = merged(whole, _for_containers(run.spec.pod_template or {}, names))
    return {**whole, "metadata": _metadata(ours.get("metadata", {}), whole.get("metadata"))}


def _metadata(ours: Json, merged: Any) -> Any:
    """What we say of names that are the operator's, whoever else says so: a pod with the label of another run would be an endpoint
    of its servers. Other labels and annotations as merged. What has no such shape is for the API server to refuse."""
    metadata = {} if merged is None else merged
    parts = ("labels", "annotations")
    if not isinstance(metadata, Mapping) or not all(isinstance(metadata.get(part) or {}, Mapping) for part in parts):
        return metadata
    named = {part: _named(ours.get(part) or {}, metadata.get(part) or {}) for part in parts}
    return {**metadata, **{part: names for part, names in named.items() if names or part in metadata}}


def _named(ours: Mapping[str, str], merged: Mapping[str, Any]) -> Json:
    theirs = {name: value for name, value in merged.items() if not OWN.fullmatch(name)}
    return {**theirs, **{name: value for name, value in ours.items() if OWN.fullmatch(name) or name.startswith(_QUEUES)}}


def _on_the_nodes_disk(template: Json, name: str) -> bool:
    """Tells whether what our container finds at /cache counts as its ephemeral storage: an emptyDir that is not in memory. A
    claim, a volume of a class and a folder of the node do not."""
    mounts = [mount for c in parts(template, "spec", "containers") if c.get("name") == name for mount in parts(c, "volumeMounts")]
    cache = {text(mount, "name") for mount in mounts if text(mount, "mountPath").rstrip("/") == CACHE}
    volumes = [volume for volume in parts(template, "spec", "volumes") if text(volume, "name") in cache]
    return any("emptyDir" in volume and text(volume, "emptyDir", "medium") != "Memory" for volume in volumes)


def _ids(settings: PodSettings) -> Json:
    """With fsGroup a node would go through all files of a claim at each start, but for the policy."""
    ids = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER} if settings.ids else {}
    return {**ids, "fsGroupChangePolicy": "OnRootMismatch"}


def _reconciled(template: Json, asked: Mapping[str, Json]) -> Json:
    """A podTemplate may ask for more than our limit, or allow less than we ask for."""
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, Mapping) else None
    for container in containers if isinstance(containers, list) else ():
        ours = asked.get(str(container.get("name"))) if isinstance(container, dict) else None
        if ours is not None and "resources" in container:
            container["resources"] = resources.reconciled(container["resources"], ours)
    return template


def role(container: str) -> str:
    """Tells the image of one of our containers by its name: beside `inference` others of its kind carry a number."""
    return SERVE if container.startswith(f"{SERVE}-") else container


def _for_containers(template: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """The podTemplate without what it says about the containers of other kinds of pods; what it says about a kind goes to all."""
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(containers, list):
        return template
    named = [c for c in containers if isinstance(c, Mapping) and str(c.get("name")) in (DEBATE, TRAIN, SERVE)]
    of_names = [{**c, "name": name} for c in named for name in sorted(names) if role(name) == c["name"]]
    return {**template, "spec": {**spec, "containers": [*of_names, *(c for c in containers if c not in named)]}}
