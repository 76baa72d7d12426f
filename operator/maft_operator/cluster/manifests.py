"""From tasks and servers to Kubernetes objects: a Job for a task, a Deployment and a Service for a server. Pure.

What their pods have in common is pod_template.py's.
"""

from dataclasses import dataclass, field

from maft.spec import TrainingSpec
from maft.summaries import BAD_INPUT, PEER_LOST
from maft_operator.cluster import export_pod, kinds, kueue, policies, resources, server_key
from maft_operator.cluster.images import Images
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.pod_settings import Inherited
from maft_operator.cluster.pod_template import DEBATE, METRICS_PORT, SERVE, TRAIN, Size, container, environment, template
from maft_operator.plan import graph as plan
from maft_operator.plan.exports import ATTEMPTS, DEADLINE
from maft_operator.plan.graph import Server, Task
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "maft"  # also the field manager of server-side apply
RUN, CHILD, ITERATION, COMPONENT = kinds.RUN.label, "maft.dev/child", "maft.dev/iteration", "app.kubernetes.io/component"
MEETING_PORT = 29400  # of the first pod of a task that has several
TRAINING_GRACE = 60  # seconds: a checkpoint may be of gigabytes; one that is written sooner ends the pod sooner


@dataclass(frozen=True, slots=True)
class Owner:
    """The resource that children belong to; Kubernetes removes them with it."""

    run: Run
    uid: str
    inherited: Inherited = field(default_factory=Inherited)
    """Of the resource's labels and annotations."""


def objects(item: Task | Server, owner: Owner, images: Images) -> list[Json]:
    """Lists what has to exist for the task or server."""
    theirs = owner.run.spec.pod_template
    if isinstance(item, Task):
        meeting = [_meeting(item, owner)] if item.nodes > 1 else []
        return [*_policies(item, owner, images), *meeting, images.noted_on(job(item, owner, images), theirs)]
    return [*_policies(item, owner, images), service(item, owner), images.noted_on(deployment(item, owner, images), theirs)]


def _policies(item: Task | Server, owner: Owner, images: Images) -> list[Json]:
    """Makes the NetworkPolicies of an item: a server's own, the one of all tasks, that of pods that train together."""
    if not images.isolated:
        return []
    run, own = owner.run, {RUN: owner.run.name}
    if isinstance(item, Server):
        spec = policies.of_server({**own, CHILD: item.name}, own, plan.PORT, images.scraped_from)
        return [_object(kinds.NETWORK_POLICY, item.name, owner, "serve", spec)]
    spec = policies.of_tasks(own, COMPONENT, METRICS_PORT, images.scraped_from, images.operated_from)
    tasks = _object(kinds.NETWORK_POLICY, f"{run.name}-tasks", owner, "tasks", spec)
    meeting = policies.of_meeting({**own, COMPONENT: item.kind})
    # The meeting's first: between the two, ranks under way would be closed to each other.
    return [*([_object(kinds.NETWORK_POLICY, meeting_name(run), owner, item.kind, meeting)] if item.nodes > 1 else []), tasks]


def job(task: Task, owner: Owner, images: Images) -> Json:
    """Makes the Job of a task. Kubernetes counts the attempts: exit code 2 ends the Job at once, disruptions do not count."""
    spec, size = owner.run.spec, _size(plan.on_cluster(task), images)
    made = _task_container(task, owner, images)
    limit = DEADLINE if task.export else spec.active_deadline_seconds
    deadline = {} if limit is None else {"activeDeadlineSeconds": limit}
    place: Json = {"subdomain": meeting_name(owner.run)} if task.nodes > 1 else {}
    place |= export_pod.volumes(task.export, size.volumes(owner.run)) if task.export else {}
    place |= {"terminationGracePeriodSeconds": TRAINING_GRACE} if task.kind == "train" else {}
    about = {**owner.inherited.labels, **labels(owner.run, task.name, task.kind, task.iteration)}
    body = {
        **_pods(task, ATTEMPTS if task.export else spec.backoff_limit),
        "podReplacementPolicy": "Failed",  # never two programs at one task
        "podFailurePolicy": {"rules": _failure_rules(made["name"], task.nodes)},
        **({"managedBy": spec.managed_by} if spec.managed_by else {}),
        **deadline,  # and never `suspend`: that is a queue's, also of a Job that names none
        "template": template(
            made,
            owner.run,
            size,
            about,
            {"restartPolicy": "Never", **place},
            owner.inherited.annotations,
        ),
    }
    return _object(kinds.JOB, task.name, owner, task.kind, body, task.iteration)


def _pods(task: Task, attempts: int) -> Json:
    """How many pods there are at a time, and how often they may fail: those that train together as one, those that each debate a
    part of the questions by themselves, and where one of these has no attempt left there is no use in the others."""
    several = max(task.nodes, task.programs)
    indexed = {"completionMode": "Indexed"} if several > 1 else {}
    each = {"backoffLimitPerIndex": attempts, "maxFailedIndexes": 0} if task.programs > 1 else {"backoffLimit": attempts}
    return {"parallelism": several, "completions": several, **indexed, **each}


def _task_container(task: Task, owner: Owner, images: Images) -> Json:
    urls = {name: [f"http://{name}.{owner.run.namespace}.svc:{plan.PORT}"] for name in task.servers}
    name = TRAIN if task.kind in ("preflight", "train", "diversity") else DEBATE  # those need torch
    task = plan.on_cluster(task)
    made = container(name, images.of(name), images.policy, plan.command(task, urls))
    made["env"] = [*environment(owner.run), {"name": "MAFT_METRICS_PORT", "value": str(METRICS_PORT)}]
    made["env"] += [] if task.gpus else [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]  # images of CUDA ask for all
    made["env"] += _of_ranks(owner.run.spec.training) if task.kind == "train" else []
    made["env"] += _of_nodes(task, owner.run) if task.nodes > 1 else []
    made["env"] += server_key.variable(images.key) if task.servers else []
    made["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
    return export_pod.of_target(made, task.export) if task.export else made


def _size(item: Task | Server, images: Images) -> Size:
    return Size(resources.needs(item, images.model_bytes), item.gpus or 0, images.pods)


def _of_nodes(task: Task, run: Run) -> list[Json]:
    """Where pods of one task meet: the first index of an indexed Job has a name of its own."""
    first = f"{task.name}-0.{meeting_name(run)}.{run.namespace}.svc:{MEETING_PORT}"
    return [{"name": "MAFT_TRAIN_MEETING", "value": first}]


def _of_ranks(training: TrainingSpec) -> list[Json]:
    """How ranks talk to each other, as NCCL and gloo read it. NCCL takes the beginning of a name unless "=" comes before it."""
    if training.parallelism != "Sharded":
        return []
    nccl = training.nccl
    variables: dict[str, str] = {"NCCL_DEBUG": nccl.debug}
    variables |= {} if nccl.infini_band else {"NCCL_IB_DISABLE": "1"}
    variables |= {"NCCL_SOCKET_IFNAME": f"={nccl.interface}", "GLOO_SOCKET_IFNAME": nccl.interface} if nccl.interface else {}
    return [{"name": name, "value": value} for name, value in variables.items()]


def _failure_rules(container: str, nodes: int) -> list[Json]:
    """Of several pods that end with one, only that one counts: the first, where it waited in vain for the others."""
    bad_input = {"containerName": container, "operator": "In", "values": [BAD_INPUT]}
    disruption = {"type": "DisruptionTarget", "status": "True"}
    lost = {"containerName": container, "operator": "In", "values": [PEER_LOST]}
    ours: list[Json] = [{"action": "FailJob", "onExitCodes": bad_input}, {"action": "Ignore", "onPodConditions": [disruption]}]
    return [*ours, {"action": "Ignore", "onExitCodes": lost}] if nodes > 1 else ours


def meeting_name(run: Run) -> str:
    """Names the Service of the run's training pods."""
    return f"{run.name}-train"


def _meeting(task: Task, owner: Owner) -> Json:
    """Makes the headless Service in which training pods have names, ready or not."""
    members = {RUN: owner.run.name, COMPONENT: task.kind}
    port = {"name": "meeting", "port": MEETING_PORT, "targetPort": MEETING_PORT, "protocol": "TCP"}
    service: Json = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": members, "ports": [port]}
    return _object(kinds.SERVICE, meeting_name(owner.run), owner, task.kind, service)


def deployment(server: Server, owner: Owner, images: Images) -> Json:
    """Makes the Deployment of a server. Recreate, not rolling: a second pod would find no free GPU."""
    inference, server = owner.run.spec.inference, plan.on_cluster(server)
    image = images.of(SERVE, inference.image)
    made = container(SERVE, image, images.policy, plan.serve(server, f"--port={plan.PORT}"))
    made["env"] = [*environment(owner.run), *server_key.variable(images.key)]
    made["ports"] = [{"name": "http", "containerPort": plan.PORT, "protocol": "TCP"}]
    health = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    made["startupProbe"] = {**health, "periodSeconds": 2, "failureThreshold": -(-inference.startup_seconds // 2)}
    made["readinessProbe"] = {**health, "periodSeconds": 5, "failureThreshold": 2}
    made["livenessProbe"] = {**health, "periodSeconds": 10, "failureThreshold": 6}
    group, annotations = kueue.together(owner.run, owner.uid)
    about = {**owner.inherited.labels, **labels(owner.run, server.name, "serve"), **group}
    annotations = {**owner.inherited.annotations, **annotations}
    body = {
        "replicas": server.replicas,
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": {RUN: owner.run.name, CHILD: server.name}},
        "template": template(made, owner.run, _size(server, images), about, {"restartPolicy": "Always"}, annotations),
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


def secret(owner: Owner, key: str, value: str) -> Json:
    """Makes the Secret of the run's servers. key: its name; value: the key itself."""
    return server_key.secret(key, value, _metadata(kinds.SECRET, key, owner, "serve"))


def labels(run: Run, child: str, component: str, iteration: int | None = None) -> dict[str, str]:
    """Makes the labels of a child and its pods."""
    ours = {"app.kubernetes.io/name": MANAGER, MANAGED_BY: MANAGER, COMPONENT: component, RUN: run.name, CHILD: child}
    return ours if iteration is None else {**ours, ITERATION: str(iteration)}


def _object(kind: Kind, name: str, owner: Owner, component: str, spec: Json, iteration: int | None = None) -> Json:
    metadata = _metadata(kind, name, owner, component, iteration)
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}


def _metadata(kind: Kind, name: str, owner: Owner, component: str, iteration: int | None = None) -> Json:
    works = kind in (kinds.JOB, kinds.DEPLOYMENT)
    inherited = owner.inherited if works else Inherited()  # others belong to several items, of which each was made at its time
    queued = kueue.labels(owner.run.spec) if works else {}
    annotations = {"annotations": dict(inherited.annotations)} if inherited.annotations else {}
    return {
        "name": name,
        "namespace": owner.run.namespace,
        "labels": {**inherited.labels, **labels(owner.run, name, component, iteration), **queued},
        **annotations,
        "ownerReferences": [reference(kinds.RUN, owner.run.name, owner.uid)],
    }


def reference(kind: Kind, name: str, uid: str) -> Json:
    """Makes the reference by which a child goes with its parent."""
    return {"apiVersion": kind.api_version, "kind": kind.name, "name": name, "uid": uid, "controller": True}
