"""From tasks and servers to Kubernetes objects: a Job for a task, a Deployment and a Service for a server. Pure.

Every pod passes the `restricted` Pod Security Standard and runs with a read-only root file system. What the resource's
podTemplate says is merged last, so users have the last word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maft_operator.cluster import kinds
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.merge import merged
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Server, Task
from maft_operator.plan.step import BAD_INPUT
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "maft"  # also the field manager of server-side apply
RUN, CHILD, ITERATION, COMPONENT = "maft.dev/run", "maft.dev/child", "maft.dev/iteration", "app.kubernetes.io/component"
QUEUE = "kueue.x-k8s.io/queue-name"
METRICS_PORT = 9100  # of tasks
USER = 65532  # "nonroot" of the distroless images; any number but 0 would do
# Container names, which are also those of the images. A podTemplate names them to reach one kind of pod only.
DEBATE, TRAIN, SERVE = "debate", "trainer", "inference"
COMPILED = {  # what is compiled at a start, and found again at the next: below the claim where there is one
    "VLLM_CACHE_ROOT": "/cache/vllm",
    "TRITON_CACHE_DIR": "/cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
    "FLASHINFER_WORKSPACE_BASE": "/cache",  # it goes on with .cache/flashinfer
}
GRACE = 20  # seconds: a program needs about one to end, vLLM a few


@dataclass(frozen=True, slots=True)
class Images:
    """Where the workload images are: PREFIX/debate:TAG and so on."""

    prefix: str
    tag: str
    policy: str = "IfNotPresent"
    """Their imagePullPolicy."""
    isolated: bool = False
    """Servers get a NetworkPolicy each, which lets in the run's own pods and those of `scraped_from`."""
    scraped_from: tuple[str, ...] = ()
    """Namespaces whose pods may read the servers' metrics."""

    def of(self, name: str) -> str:
        """Names the image of that container."""
        return f"{self.prefix}/{name}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The resource that children belong to; Kubernetes removes them with it."""

    run: Run
    uid: str


def objects(item: Task | Server, owner: Owner, images: Images) -> list[Json]:
    """Lists what has to exist for the task or server."""
    if isinstance(item, Task):
        return [job(item, owner, images)]
    policies = [network_policy(item, owner, images.scraped_from)] if images.isolated else []
    return [*policies, service(item, owner), deployment(item, owner, images)]


def job(task: Task, owner: Owner, images: Images) -> Json:
    """Makes the Job of a task. Kubernetes counts the attempts: exit code 2 ends the Job at once, disruptions do not count."""
    spec = owner.run.spec
    container = _task_container(task, owner, images)
    deadline = {} if spec.active_deadline_seconds is None else {"activeDeadlineSeconds": spec.active_deadline_seconds}
    queued = {} if spec.queue_name else {"suspend": False}  # a queue suspends and admits the Job itself
    body = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": spec.backoff_limit,
        "podReplacementPolicy": "Failed",  # never two programs at one task
        "podFailurePolicy": {"rules": _failure_rules(container["name"])},
        **deadline,
        **queued,
        "template": _template(container, owner, task.name, task.kind, task.iteration, {"restartPolicy": "Never"}),
    }
    return _object(kinds.JOB, task.name, owner, task.kind, body, task.iteration)


def _task_container(task: Task, owner: Owner, images: Images) -> Json:
    urls = {name: [f"http://{name}.{owner.run.namespace}.svc:{plan.PORT}"] for name in task.servers}
    name = TRAIN if task.kind in ("preflight", "train", "diversity") else DEBATE  # those need torch
    task = plan.on_cluster(task)
    container = _container(name, images.of(name), images.policy, plan.command(task, urls), task.gpus)
    container["env"] = [*_environment(owner.run), {"name": "MAFT_METRICS_PORT", "value": str(METRICS_PORT)}]
    container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
    return container


def _failure_rules(container: str) -> list[Json]:
    bad_input = {"containerName": container, "operator": "In", "values": [BAD_INPUT]}
    disruption = {"type": "DisruptionTarget", "status": "True"}
    return [{"action": "FailJob", "onExitCodes": bad_input}, {"action": "Ignore", "onPodConditions": [disruption]}]


def deployment(server: Server, owner: Owner, images: Images) -> Json:
    """Makes the Deployment of a server. Recreate, not rolling: a second pod would find no free GPU."""
    inference, server = owner.run.spec.inference, plan.on_cluster(server)
    image = inference.image or images.of(SERVE)
    container = _container(SERVE, image, images.policy, plan.serve(server, f"--port={plan.PORT}"), server.gpus)
    container["env"] = _environment(owner.run)
    container["ports"] = [{"name": "http", "containerPort": plan.PORT, "protocol": "TCP"}]
    health = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    container["startupProbe"] = {**health, "periodSeconds": 2, "failureThreshold": -(-inference.startup_seconds // 2)}
    container["readinessProbe"] = {**health, "periodSeconds": 5, "failureThreshold": 2}
    container["livenessProbe"] = {**health, "periodSeconds": 10, "failureThreshold": 6}
    body = {
        "replicas": server.replicas,
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": {RUN: owner.run.name, CHILD: server.name}},
        "template": _template(container, owner, server.name, "serve", None, {"restartPolicy": "Always"}),
    }
    return _object(kinds.DEPLOYMENT, server.name, owner, "serve", body)


def service(server: Server, owner: Owner) -> Json:
    """Makes the Service of a server: one address for one replica; of more, the name stands for all of them (headless)."""
    body: Json = {
        "selector": {RUN: owner.run.name, CHILD: server.name},
        "ports": [{"name": "http", "port": plan.PORT, "targetPort": "http", "protocol": "TCP"}],
    }
    if server.replicas > 1:
        body["clusterIP"] = "None"
    return _object(kinds.SERVICE, server.name, owner, "serve", body)


def network_policy(server: Server, owner: Owner, scraped_from: tuple[str, ...]) -> Json:
    """Makes the NetworkPolicy of a server. vLLM asks nobody who they are, so only the run's own pods and Prometheus reach it."""
    own: Json = {"podSelector": {"matchLabels": {RUN: owner.run.name}}}
    others = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in scraped_from]
    body = {
        "podSelector": {"matchLabels": {RUN: owner.run.name, CHILD: server.name}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [own, *others], "ports": [{"protocol": "TCP", "port": plan.PORT}]}],
    }
    return _object(kinds.NETWORK_POLICY, server.name, owner, "serve", body)


def labels(run: Run, child: str, component: str, iteration: int | None = None) -> dict[str, str]:
    """Makes the labels of a child and its pods."""
    ours = {"app.kubernetes.io/name": MANAGER, MANAGED_BY: MANAGER, COMPONENT: component, RUN: run.name, CHILD: child}
    return ours if iteration is None else {**ours, ITERATION: str(iteration)}


def _object(kind: Kind, name: str, owner: Owner, component: str, spec: Json, iteration: int | None = None) -> Json:
    reference = {
        "apiVersion": kinds.RUN.api_version,
        "kind": kinds.RUN.name,
        "name": owner.run.name,
        "uid": owner.uid,
        "controller": True,
    }
    queued = owner.run.spec.queue_name and kind in (kinds.JOB, kinds.DEPLOYMENT)
    queue = {QUEUE: owner.run.spec.queue_name} if queued else {}
    metadata = {
        "name": name,
        "namespace": owner.run.namespace,
        "labels": {**labels(owner.run, name, component, iteration), **queue},
        "ownerReferences": [reference],
    }
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}


def _container(name: str, image: str, policy: str, arguments: tuple[str, ...], gpus: int | None) -> Json:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": policy,
        # The kubelet expands $(NAME) and turns $$ into $; prompts are meant literally.
        "args": [argument.replace("$", "$$") for argument in arguments],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "cache", "mountPath": "/cache"},
        ],
    }


def _environment(run: Run) -> list[Json]:
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
        variables += [_from_secret(name, secret, name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        variables.append(_from_secret("AWS_SESSION_TOKEN", secret, "AWS_SESSION_TOKEN", optional=True))
    if spec.model.token_secret:
        variables.append(_from_secret("HF_TOKEN", spec.model.token_secret.name, spec.model.token_secret.key))
    return variables


def _from_secret(variable: str, secret: str, key: str, *, optional: bool = False) -> Json:
    reference: Json = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _template(container: Json, owner: Owner, child: str, component: str, iteration: int | None, spec: Mapping[str, Any]) -> Json:
    claim = owner.run.spec.model.cache_claim
    limit = _shared_memory(owner.run, container["name"])
    ours = {
        "metadata": {"labels": labels(owner.run, child, component, iteration)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "shareProcessNamespace": True,  # as PID 1 a program that still imports, and has no handler yet, would not hear SIGTERM
            "terminationGracePeriodSeconds": GRACE,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory", **limit}},  # workers talk through it; a pod has 64 MiB otherwise
                {"name": "cache", **({"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}})},
            ],
            **spec,
        },
    }
    return merged(ours, _for_container(owner.run.spec.pod_template or {}, container["name"]))


def _shared_memory(run: Run, container: str) -> Json:
    sizes = {TRAIN: run.spec.training.shared_memory, SERVE: run.spec.inference.shared_memory}
    return {"sizeLimit": size} if (size := sizes.get(container)) else {}


def _for_container(template: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The podTemplate without what it says about the containers of other kinds of pods."""
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(containers, list):
        return template
    others = {DEBATE, TRAIN, SERVE} - {name}
    mine = [c for c in containers if not (isinstance(c, Mapping) and c.get("name") in others)]
    return {**template, "spec": {**spec, "containers": mine}}
