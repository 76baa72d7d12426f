"""Jobs, Deployments and Services: what the spec says is in them, and the cluster's rules are kept."""

import re
from typing import Any
from unittest.mock import ANY

import pytest
from conftest import resource
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import IMAGES, a_run, made, owner, planned

from maft.spec import decode_spec
from maft.summaries import BAD_INPUT, PEER_LOST
from maft_operator.cluster import kueue, manifests
from maft_operator.cluster.images import Images
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.plan import graph as plan
from maft_operator.spec.parse import Run, parse

KINDS = ("Job", "Deployment", "Service", "NetworkPolicy")
KEYS = {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "AWS_ACCESS_KEY_ID"}}}
VARIED: dict[str, dict[str, Any]] = {
    "small": {},
    "everything": {
        "model": {"tokenSecret": {"name": "hub"}, "cacheClaim": "models"},
        "iterations": 2,
        "queueName": "queue",
        "activeDeadlineSeconds": 60,
        "training": {"topology": "PerAgent", "gpus": 2},
        "inference": {"topology": "PerAgent", "replicas": 2, "gpus": 4},
        "podTemplate": {"spec": {"nodeSelector": {"a": "b"}}},
    },
    "nodes": {"training": {"parallelism": "Sharded", "nodes": 2, "gpus": 0}},
}


def pods(run: Run) -> list[Json]:
    """The pod templates of Jobs, then of Deployments."""
    return [thing["spec"]["template"] for kind in ("Job", "Deployment") for thing in made(run, kind)]


def containers(run: Run, kind: str = "Job") -> list[Json]:
    """Our container of each pod of that kind."""
    return [thing["spec"]["template"]["spec"]["containers"][0] for thing in made(run, kind)]


def accelerators(container: Json) -> dict[str, str]:
    """What is asked for beside processors, memory and disk."""
    return {name: count for name, count in container["resources"]["limits"].items() if "/" in name}


def environment(container: Json) -> dict[str, Json]:
    return {entry["name"]: entry for entry in container["env"]}


# --- all objects ---


@pytest.mark.parametrize("spec", VARIED)
def test_everything_belongs_to_the_run_and_can_be_selected(spec: str) -> None:
    run = a_run(**VARIED[spec])
    for kind in KINDS:
        for thing in made(run, kind):
            metadata = thing["metadata"]
            assert metadata["namespace"] == "default"
            [reference] = metadata["ownerReferences"]
            assert (reference["uid"], reference["name"], reference["controller"]) == ("uid-of-run", "r", True)
            assert "blockOwnerDeletion" not in reference  # setting it takes rights on the owner's finalizers
            assert metadata["labels"]["app.kubernetes.io/managed-by"] == "maft"
            assert (metadata["labels"]["maft.dev/run"], metadata["labels"]["maft.dev/child"]) == ("r", metadata["name"])


@pytest.mark.parametrize("spec", VARIED)
def test_pods_carry_what_selectors_ask_for(spec: str) -> None:
    run = a_run(**VARIED[spec])
    for kind in ("Job", "Deployment"):
        for thing in made(run, kind):
            ours, theirs = thing["metadata"]["labels"], thing["spec"]["template"]["metadata"]["labels"]
            assert {name: value for name, value in theirs.items() if name != kueue.GROUP} == {
                name: value for name, value in ours.items() if name != kueue.QUEUE
            }
    serving = [service for service in made(run, "Service") if service["metadata"]["labels"][manifests.COMPONENT] == "serve"]
    for service, deployment in zip(serving, made(run, "Deployment"), strict=True):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert (
            service["spec"]["ports"][0]["targetPort"] == deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"]
        )


def test_names_and_labels_fit() -> None:
    run = parse(resource("a" * 40, agents=8, iterations=100, training={"topology": "PerAgent"}, inference={"topology": "PerAgent"}))
    for kind in KINDS:
        for thing in made(run, kind):
            values = [thing["metadata"]["name"], *thing["metadata"]["labels"].values()]
            assert all(re.fullmatch("[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", value) for value in values)


def test_the_component_and_the_iteration_are_labels() -> None:
    labels = {job["metadata"]["name"]: job["metadata"]["labels"] for job in made(a_run(iterations=2), "Job")}
    key = "app.kubernetes.io/component"
    assert (labels["r-2-train"][key], labels["r-2-train"]["maft.dev/iteration"]) == ("train", "2")
    assert (labels["r-0-evaluate"][key], labels["r-0-evaluate"]["maft.dev/iteration"]) == ("evaluate", "0")
    [server] = made(a_run(), "Deployment")
    assert server["metadata"]["labels"][key] == "serve"
    assert "maft.dev/iteration" not in server["metadata"]["labels"]


# --- the restricted Pod Security Standard, and more ---


@pytest.mark.parametrize("spec", VARIED)
def test_pods_are_restricted(spec: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted; test_crd.py asks the API server."""
    for template in pods(a_run(**VARIED[spec])):
        whole = template["spec"]
        security = whole["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0 and security["runAsGroup"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert whole["automountServiceAccountToken"] is False
        assert whole["shareProcessNamespace"] is True
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(whole)
        assert all(set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for volume in whole["volumes"])
        for container in whole["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert not any("hostPort" in port for port in container["ports"])


@pytest.mark.parametrize("spec", VARIED)
def test_what_programs_write_to_is_a_volume(spec: str) -> None:
    """The root file system is read-only."""
    for template in pods(a_run(**VARIED[spec])):
        [container] = template["spec"]["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == {volume["name"] for volume in template["spec"]["volumes"]}
        assert {"/tmp", "/dev/shm", "/cache"} == set(mounts)
        folders = [environment(container)[name]["value"] for name in ("HOME", "HF_HOME", "MAFT_CACHE")]
        assert all(folder.startswith(tuple(mounts)) for folder in folders)
        memory = {volume["name"]: volume.get("emptyDir", {}).get("medium") for volume in template["spec"]["volumes"]}
        assert memory["shm"] == "Memory"


# --- command lines ---


def expanded(argument: str, variables: dict[str, str]) -> str:
    """As the kubelet does it (k8s.io/kubernetes/third_party/forked/golang/expansion)."""
    text = re.sub(r"\$\$|\$\(([^()$]*)\)", lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]), argument)
    return str(text)


@given(st.text(st.sampled_from("$()HOME {}")))
def test_the_kubelet_leaves_arguments_as_they_were(prompt: str) -> None:
    prompt += "{question}"
    run = a_run(task={"prompt": prompt})
    task = next(t for t in planned(run).tasks if t.kind == "debate")
    [container] = manifests.job(task, owner(run), IMAGES)["spec"]["template"]["spec"]["containers"]
    arguments = [expanded(argument, {"HOME": "/tmp", "": "x", "M": "y"}) for argument in container["args"]]
    [spec] = [argument.removeprefix("--spec=") for argument in arguments if argument.startswith("--spec=")]
    assert decode_spec(spec).task.prompt == prompt
    assert arguments == list(plan.command(task, {name: [f"http://{name}.default.svc:8000"] for name in task.servers}))


@pytest.mark.parametrize("replicas", [1, 2])
def test_tasks_ask_the_services_of_their_servers(replicas: int) -> None:
    run = a_run(inference={"topology": "PerAgent", "replicas": replicas})
    names = [service["metadata"]["name"] for service in made(run, "Service")]
    assert len(names) == 2
    for task, container in zip(planned(run).tasks, containers(run), strict=True):
        asked = [argument.partition("=")[2] for argument in container["args"] if argument.startswith("--server=")]
        assert asked == [f"{name}=http://{name}.default.svc:8000" for name in names if task.servers]


def test_a_server_listens_where_its_service_and_its_probes_look() -> None:
    run = a_run(inference={"extraArgs": ["--max-num-seqs=$x"]})
    [container] = containers(run, "Deployment")
    assert container["args"][-1] == "--port=8000"
    [spec] = [argument for argument in container["args"] if argument.startswith("--spec=")]
    assert "--max-num-seqs=$$x" in spec
    assert decode_spec(expanded(spec, {}).removeprefix("--spec=")).inference.extra_args == ("--max-num-seqs=$x",)
    assert container["ports"] == [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


@pytest.mark.parametrize(("replicas", "headless"), [(1, False), (2, True)])
def test_a_service_of_several_replicas_names_each_of_them(replicas: int, headless: bool) -> None:
    run = a_run(inference={"replicas": replicas})
    [service], [deployment] = made(run, "Service"), made(run, "Deployment")
    assert (service["spec"].get("clusterIP") == "None") == headless
    assert deployment["spec"]["replicas"] == replicas
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_servers_are_reached_by_the_runs_own_pods_and_by_who_reads_metrics() -> None:
    run = a_run(inference={"topology": "PerAgent"})
    servers = made(run, "Deployment")
    policies = [policy for policy in made(run, "NetworkPolicy") if "server" in policy["metadata"]["name"]]
    assert len(policies) == 2
    for policy, server in zip(policies, servers, strict=True):
        assert policy["spec"]["podSelector"] == server["spec"]["selector"]
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        [rule] = policy["spec"]["ingress"]
        own, monitoring = rule["from"]
        assert all(own["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items() for pod in pods(run))
        assert monitoring == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_network_policies_are_made_where_they_are_asked_for() -> None:
    [server] = planned(a_run()).servers
    kinds = [
        [thing["kind"] for thing in manifests.objects(server, owner(a_run()), Images("p", "1", isolated=yes))]
        for yes in (False, True)
    ]
    assert kinds == [["Service", "Deployment"], ["NetworkPolicy", "Service", "Deployment"]]


# --- Jobs ---


@pytest.mark.parametrize("name", ["r-0-prepare", "r-0-preflight", "r-1-debate", "r-1-train", "r-1-evaluate", "r-1-report"])
def test_how_often_kubernetes_tries_a_task(name: str) -> None:
    [job] = [job for job in made(a_run(backoffLimit=5), "Job") if job["metadata"]["name"] == name]
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (5, 1, 1)
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    at_once, disrupted = spec["podFailurePolicy"]["rules"]
    [container] = spec["template"]["spec"]["containers"]
    assert (at_once["action"], at_once["onExitCodes"]) == (
        "FailJob",
        {"containerName": container["name"], "operator": "In", "values": [BAD_INPUT]},
    )
    assert (disrupted["action"], disrupted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


def test_training_has_time_for_a_checkpoint_as_it_ends() -> None:
    """No less than the run's own podTemplate says, where it says something."""

    def grace(run: Run) -> dict[str, int]:
        pods = {job["metadata"]["name"]: job["spec"]["template"]["spec"] for job in made(run, "Job")}
        return {name: pod["terminationGracePeriodSeconds"] for name, pod in pods.items()}

    assert {name: seconds for name, seconds in grace(a_run()).items() if seconds != 20} == {"r-1-train": manifests.TRAINING_GRACE}
    assert set(grace(a_run(podTemplate={"spec": {"terminationGracePeriodSeconds": 110}})).values()) == {110}


NODES = {"training": {"parallelism": "Sharded", "nodes": 3, "gpus": 2, "topology": "PerAgent"}}


def test_nodes_are_the_pods_of_one_job_that_begin_and_end_together() -> None:
    run = a_run(iterations=2, **NODES)
    jobs = {job["metadata"]["name"]: job for job in made(run, "Job")}
    several = {name for name, job in jobs.items() if job["spec"].get("completionMode") == "Indexed"}
    assert several == {"r-1-train-0", "r-1-train-1", "r-2-train-0", "r-2-train-1"}
    for name in several:
        spec = jobs[name]["spec"]
        assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (3, 3, run.spec.backoff_limit)
        assert spec["podReplacementPolicy"] == "Failed"
        *_, lost = spec["podFailurePolicy"]["rules"]
        # One that ends because another one did costs no attempt.
        ignored = {"containerName": "trainer", "operator": "In", "values": [PEER_LOST]}
        assert lost == {"action": "Ignore", "onExitCodes": ignored}
        [container] = spec["template"]["spec"]["containers"]
        assert accelerators(container) == {"nvidia.com/gpu": "2"} and "--gpus=2" in container["args"]
    others = [job["spec"] for name, job in jobs.items() if name not in several]
    assert all((spec["parallelism"], spec["completions"]) == (1, 1) and "completionMode" not in spec for spec in others)
    assert all(len(spec["podFailurePolicy"]["rules"]) == 2 for spec in others)
    assert not any("subdomain" in spec["template"]["spec"] for spec in others)


NETWORK = ("NCCL_DEBUG", "NCCL_IB_DISABLE", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


@pytest.mark.parametrize(
    ("training", "variables"),
    [
        ({}, {}),
        ({"nccl": {"debug": "INFO"}}, {}),
        ({"parallelism": "Sharded", "gpus": 2}, {"NCCL_DEBUG": "WARN"}),
        (
            {**NODES["training"], "nccl": {"interface": "eth0,eth1", "infiniBand": False, "debug": "INFO"}},
            {
                "NCCL_DEBUG": "INFO",
                "NCCL_IB_DISABLE": "1",
                "NCCL_SOCKET_IFNAME": "=eth0,eth1",
                "GLOO_SOCKET_IFNAME": "eth0,eth1",
            },
        ),
    ],
)
def test_how_ranks_talk_is_told_to_them_alone(training: Json, variables: dict[str, str]) -> None:
    seen: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for template in pods(a_run(training=training)):
        given = environment(template["spec"]["containers"][0])
        trains = template["metadata"]["labels"][manifests.COMPONENT] == "train"
        seen[trains].append({name: given[name]["value"] for name in NETWORK if name in given})
    assert seen[True] and all(each == variables for each in seen[True])
    assert seen[False] and not any(seen[False])


def test_what_a_pod_template_says_of_the_network_stands() -> None:
    container = {"name": "trainer", "env": [{"name": "NCCL_DEBUG", "value": "TRACE"}]}
    run = a_run(**NODES, podTemplate={"spec": {"containers": [container]}})
    trains = [pod for pod in pods(run) if pod["metadata"]["labels"][manifests.COMPONENT] == "train"]
    assert trains and all(environment(pod["spec"]["containers"][0])["NCCL_DEBUG"]["value"] == "TRACE" for pod in trains)


def test_nodes_meet_at_the_first_ones_name() -> None:
    """Kubernetes names the pods of an indexed Job JOB-INDEX, below the Service that is their subdomain."""
    run = a_run(**NODES)
    [service] = [thing for thing in made(run, "Service") if thing["metadata"]["name"] == "r-train"][:1]
    [policy] = [thing for thing in made(run, "NetworkPolicy") if thing["metadata"]["name"] == "r-train"][:1]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    trains = [job for job in made(run, "Job") if job["metadata"]["labels"][manifests.COMPONENT] == "train"]
    assert len(trains) == 2
    for job in trains:
        template = job["spec"]["template"]
        assert template["spec"]["subdomain"] == "r-train"
        [container] = template["spec"]["containers"]
        host, _, port = environment(container)["MAFT_TRAIN_MEETING"]["value"].rpartition(":")
        assert host == f"{job['metadata']['name']}-0.r-train.default.svc"
        assert int(port) == service["spec"]["ports"][0]["port"]
        labels = template["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]
    others = [pod for pod in pods(run) if pod["metadata"]["labels"][manifests.COMPONENT] != "train"]
    assert not any(service["spec"]["selector"].items() <= pod["metadata"]["labels"].items() for pod in others)
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": service["spec"]["selector"]}}]}]


def test_what_nodes_need_is_not_made_for_one() -> None:
    assert [thing["metadata"]["name"] for thing in made(a_run(), "Service")] == ["r-server"]
    [task] = [task for task in planned(a_run(**NODES)).tasks if task.name == "r-1-train-0"]
    kinds = [
        [thing["kind"] for thing in manifests.objects(task, owner(a_run(**NODES)), Images("p", "1", isolated=yes))]
        for yes in (False, True)
    ]
    assert kinds == [["Service", "Job"], ["NetworkPolicy", "NetworkPolicy", "Service", "Job"]]


SHARDS = {"debate": {"shards": 4}}


def test_programs_of_one_debate_are_the_pods_of_one_job_that_fail_by_themselves() -> None:
    run = a_run(**SHARDS, backoffLimit=5)
    jobs = {job["metadata"]["name"]: job["spec"] for job in made(run, "Job")}
    several = {name for name, spec in jobs.items() if spec.get("completionMode") == "Indexed"}
    assert several == {"r-0-evaluate", "r-1-debate", "r-1-evaluate"}
    for name in several:
        spec = jobs[name]
        assert (spec["parallelism"], spec["completions"]) == (4, 4)
        assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (5, 0) and "backoffLimit" not in spec
        assert spec["podReplacementPolicy"] == "Failed"  # never two programs at one part
        assert not any(argument.startswith("--shard") for argument in spec["template"]["spec"]["containers"][0]["args"])
    others = [spec for name, spec in jobs.items() if name not in several]
    assert all(spec["backoffLimit"] == 5 and "backoffLimitPerIndex" not in spec for spec in others)
    assert [thing["metadata"]["name"] for thing in made(run, "Service")] == ["r-server"]


def test_one_program_is_the_job_that_it_was() -> None:
    assert all(spec["completions"] == 1 and "completionMode" not in spec for spec in (job["spec"] for job in made(a_run(), "Job")))


def test_a_deadline_is_each_jobs() -> None:
    assert [job["spec"]["activeDeadlineSeconds"] for job in made(a_run(activeDeadlineSeconds=60), "Job")] == [60] * 7
    assert not any("activeDeadlineSeconds" in job["spec"] for job in made(a_run(), "Job"))


def test_a_queue_admits_jobs_itself() -> None:
    for label, field in (("kueue.x-k8s.io/queue-name", "queueName"), ("kueue.x-k8s.io/priority-class", "workloadPriorityClass")):
        for kind in ("Job", "Deployment"):
            assert all(thing["metadata"]["labels"][label] == "q" for thing in made(a_run(**{field: "q"}), kind))
            assert not any(label in thing["metadata"]["labels"] for thing in made(a_run(), kind))
        assert not any(label in thing["metadata"]["labels"] for thing in made(a_run(**{field: "q"}), "Service"))
    for run in (a_run(queueName="q"), a_run()):
        assert not any("suspend" in job["spec"] for job in made(run, "Job"))


@pytest.mark.parametrize(
    ("inference", "pods"),
    [({}, "1"), ({"replicas": 3}, "3"), ({"topology": "PerAgent"}, "2"), ({"topology": "PerAgent", "replicas": 4}, "8")],
)
@pytest.mark.parametrize("queue", ["", "q"])
def test_the_servers_of_a_run_are_one_group_for_a_queue(inference: dict[str, Any], pods: str, queue: str) -> None:
    """Also without a queue of its own: the namespace may have one for all."""
    run = a_run(inference=inference, queueName=queue)
    for server in made(run, "Deployment"):
        about = server["spec"]["template"]["metadata"]
        assert about["labels"]["kueue.x-k8s.io/pod-group-name"] == kueue.group(run, "uid-of-run") == "r-servers-uid-of-r"
        assert about["annotations"] == {
            "kueue.x-k8s.io/pod-group-total-count": pods,
            "kueue.x-k8s.io/pod-group-serving": "true",
        }
    assert not any("kueue" in str(job["spec"]["template"]["metadata"]) for job in made(run, "Job"))


def test_a_groups_name_is_the_runs_own_and_fits_a_label() -> None:
    uids = ("12345678-9", "87654321-9")
    names = {kueue.group(parse(resource(name)), uid) for name in ("a" * 40, "a" * 39 + "b", "r") for uid in uids}
    assert len(names) == 6 and all(re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)


def test_another_controller_may_work_the_jobs_off() -> None:
    name = "kueue.x-k8s.io/multikueue"
    assert {job["spec"]["managedBy"] for job in made(a_run(managedBy=name), "Job")} == {name}
    assert not any("managedBy" in job["spec"] for job in made(a_run(), "Job"))


def test_the_summary_comes_back_as_termination_message_and_progress_on_a_port() -> None:
    for container in containers(a_run()):
        assert environment(container)["MAFT_SUMMARY"]["value"] == "/dev/termination-log"
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert environment(container)["MAFT_METRICS_PORT"]["value"] == "9100"
        assert container["ports"] == [{"name": "metrics", "containerPort": 9100, "protocol": "TCP"}]
    [server] = containers(a_run(), "Deployment")
    assert "MAFT_METRICS_PORT" not in environment(server)


# --- what the spec says about pods ---


def test_images() -> None:
    run = a_run()
    used = {task.kind: container["image"] for task, container in zip(planned(run).tasks, containers(run), strict=True)}
    debate, trainer = "registry/maft/debate:1", "registry/maft/trainer:1"
    assert used == {
        "prepare": debate,
        "preflight": trainer,
        "debate": debate,
        "train": trainer,
        "evaluate": debate,
        "report": debate,
    }
    assert containers(run, "Deployment")[0]["image"] == "registry/maft/inference:1"
    assert containers(a_run(inference={"image": "mine:2"}), "Deployment")[0]["image"] == "mine:2"
    assert {c["imagePullPolicy"] for c in containers(run)} == {"IfNotPresent"}


def test_gpus() -> None:
    run = a_run(training={"gpus": 2}, inference={"gpus": 4})
    gpus = {job["metadata"]["name"]: accelerators(c) for job, c in zip(made(run, "Job"), containers(run), strict=True)}
    assert gpus.pop("r-1-train") == {"nvidia.com/gpu": "2"}
    assert set(map(str, gpus.values())) == {"{}"}
    assert accelerators(containers(run, "Deployment")[0]) == {"nvidia.com/gpu": "4"}
    assert accelerators(containers(a_run(inference={"gpus": 0}), "Deployment")[0]) == {}


def test_where_the_number_of_gpus_is_left_open_one_is_asked_for_and_the_program_is_told_so() -> None:
    run = a_run(evaluation={"diversity": 4})
    asking = {job["metadata"]["name"]: c for job, c in zip(made(run, "Job"), containers(run), strict=True) if accelerators(c)}
    assert {"r-1-train", "r-1-diversity"} <= set(asking)
    for container in [*asking.values(), *containers(run, "Deployment")]:
        assert accelerators(container) == {"nvidia.com/gpu": "1"}
        assert "--gpus=1" in container["args"]
    with_gpus = [c for c in containers(run) if any(word.startswith("--gpus") for word in c["args"])]
    assert with_gpus == list(asking.values())
    [server] = containers(a_run(inference={"gpus": 0}), "Deployment")
    assert "--gpus=0" in server["args"] and accelerators(server) == {}


@pytest.mark.parametrize(
    ("cluster", "asked", "name"),
    [
        ("nvidia.com/gpu", "", "nvidia.com/gpu"),
        ("amd.com/gpu", "", "amd.com/gpu"),
        ("amd.com/gpu", "nvidia.com/mig-3g.40gb", "nvidia.com/mig-3g.40gb"),
        ("nvidia.com/gpu", "example.com/gpu", "example.com/gpu"),
    ],
)
def test_a_gpu_is_what_the_run_or_else_the_cluster_calls_it(cluster: str, asked: str, name: str) -> None:
    """Of servers and trainers alike, and nothing else is asked for in its place."""
    settings = Images("p", "1", pods=PodSettings(gpu_resource=cluster))
    run = a_run(gpuResource=asked, training={"gpus": 2}, inference={"gpus": 4}, evaluation={"diversity": 4})
    graph = planned(run)
    things = [thing for item in (*graph.tasks, *graph.servers) for thing in manifests.objects(item, owner(run), settings)]
    by_child = {t["metadata"]["name"]: t["spec"]["template"]["spec"]["containers"][0] for t in things if "template" in t["spec"]}
    asking = {child: accelerators(container) for child, container in by_child.items() if accelerators(container)}
    diversities = {child: {name: "1"} for child in by_child if child.endswith("diversity")}
    assert asking == {"r-1-train": {name: "2"}, "r-server": {name: "4"}, **diversities}
    assert "--gpus=2" in by_child["r-1-train"]["args"] and diversities


def test_where_the_cluster_gives_ids_pods_name_none() -> None:
    """OpenShift gives each namespace its own, and refuses others; nothing has to be said in each run."""
    run = a_run(model={"cacheClaim": "models"})
    for item in (*planned(run).tasks, *planned(run).servers):
        for thing in manifests.objects(item, owner(run), Images("p", "1", pods=PodSettings(ids=False))):
            if "template" in thing["spec"]:
                pod = thing["spec"]["template"]["spec"]
                assert set(pod["securityContext"]) == {"runAsNonRoot", "seccompProfile", "fsGroupChangePolicy"}
                assert "runAs" not in str(pod["containers"])


def test_what_is_compiled_lies_where_it_is_kept() -> None:
    for container in [*containers(a_run()), *containers(a_run(), "Deployment")]:
        variables = environment(container)
        for name in ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"):
            assert variables[name]["value"].startswith("/cache")


@pytest.mark.parametrize(("seconds", "periods"), [(None, 900), (30, 15), (31, 16), (7200, 3600)])
def test_how_long_a_server_may_take_to_start_is_a_field(seconds: int | None, periods: int) -> None:
    [server] = containers(a_run(inference={"startupSeconds": seconds} if seconds else {}), "Deployment")
    assert server["startupProbe"]["failureThreshold"] == periods and server["startupProbe"]["periodSeconds"] == 2


def test_shared_memory_has_the_limit_that_the_spec_gives() -> None:
    run = a_run(training={"sharedMemory": "8Gi"}, inference={"sharedMemory": "512M"})
    limits = {}
    for template in pods(run):
        [shm] = [volume["emptyDir"] for volume in template["spec"]["volumes"] if volume["name"] == "shm"]
        assert shm["medium"] == "Memory"
        limits[template["metadata"]["labels"][manifests.COMPONENT]] = shm["sizeLimit"]
    assert (limits.pop("train"), limits.pop("serve")) == ("8Gi", "512M")
    assert set(limits.values()) == {"256Mi"}


@pytest.mark.parametrize("kind", ["Job", "Deployment"])
def test_secrets_are_named_not_read(kind: str) -> None:
    run = a_run(model={"tokenSecret": {"name": "hub", "key": "k"}})
    for container in containers(run, kind):
        variables = environment(container)
        assert variables["AWS_ACCESS_KEY_ID"] == KEYS
        assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "keys", "key": "AWS_SECRET_ACCESS_KEY"}
        assert variables["AWS_SESSION_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True
        assert variables["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "k"}
    for container in containers(a_run(storage={"bucket": "bucket"}), kind):
        assert not any("valueFrom" in entry for entry in container["env"])


def test_a_pod_without_gpus_is_shown_none() -> None:
    """Images of CUDA ask for all of a node's, and a runtime class for GPUs gives them."""

    def shown(gpus: int) -> dict[str, str]:
        jobs = made(a_run(training={"gpus": gpus}), "Job")
        pods = {job["metadata"]["labels"]["app.kubernetes.io/component"]: job["spec"]["template"]["spec"] for job in jobs}
        variables = {kind: environment(pod["containers"][0]).get("NVIDIA_VISIBLE_DEVICES") for kind, pod in pods.items()}
        return {kind: variable["value"] for kind, variable in variables.items() if variable}

    none = dict.fromkeys(("prepare", "preflight", "debate", "evaluate", "report"), "void")
    assert shown(1) == none and shown(0) == {**none, "train": "void"}


def test_models_are_kept_in_a_claim_where_there_is_one() -> None:
    for template in pods(a_run(model={"cacheClaim": "models"})):
        assert {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}} in template["spec"]["volumes"]
    for template in pods(a_run()):
        assert {"name": "cache", "emptyDir": ANY} in template["spec"]["volumes"]


# --- podTemplate ---


def test_users_have_the_last_word() -> None:
    template = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}},
        "spec": {
            "automountServiceAccountToken": True,
            "enableServiceLinks": None,
            "securityContext": {"runAsUser": 7},
            "tolerations": [{"operator": "Exists"}],
            "volumes": [{"name": "shm", "$patch": "delete"}],
        },
    }
    for pod in pods(a_run(podTemplate=template)):
        assert pod["metadata"]["labels"]["team"] == "a" and pod["metadata"]["labels"]["maft.dev/run"] == "r"
        assert pod["metadata"]["annotations"]["x"] == "y"
        assert pod["spec"]["automountServiceAccountToken"] is True
        assert "enableServiceLinks" not in pod["spec"]
        assert (pod["spec"]["securityContext"]["runAsUser"], pod["spec"]["securityContext"]["runAsNonRoot"]) == (7, True)
        assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]
        assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["tmp", "cache"]


OTHERS = {"maft.dev/run": "other", "maft.dev/child": "other-server", "maft.dev/new": "x", "app.kubernetes.io/component": "x"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": OTHERS, "annotations": OTHERS},
        {"labels": dict.fromkeys(OTHERS), "annotations": dict.fromkeys(OTHERS)},
        {"labels": None, "annotations": None},
        None,
    ],
)
def test_no_template_makes_a_pod_one_of_another_run(metadata: Json | None) -> None:
    """Nor one that none of our Services and NetworkPolicies finds."""
    for pod, untouched in zip(pods(a_run(podTemplate={"metadata": metadata})), pods(a_run()), strict=True):
        assert {**pod["metadata"], "annotations": {}} == {**untouched["metadata"], "annotations": {}}
        assert not any(name.startswith("maft.dev/") for name in pod["metadata"].get("annotations", {}))


def test_no_template_leaves_the_queue_of_its_run() -> None:
    others = {kueue.QUEUE: "other", kueue.GROUP: "other", "kueue.x-k8s.io/podset-preferred-topology": "rack"}
    servers = [
        pods(a_run(queueName="q", **more))[-1]["metadata"] for more in ({"podTemplate": {"metadata": {"labels": others}}}, {})
    ]
    assert servers[0]["labels"] == {**others, **servers[1]["labels"], kueue.QUEUE: "other"}
    assert servers[0]["annotations"] == servers[1]["annotations"]


def test_labels_of_no_such_shape_are_for_the_api_server_to_refuse() -> None:
    for metadata in ("x", {"labels": ["x"]}, {"annotations": "x"}):
        assert pods(a_run(podTemplate={"metadata": metadata}))[0]["metadata"] != pods(a_run())[0]["metadata"]


def test_a_container_of_another_kind_of_pod_is_left_out_and_a_new_one_goes_everywhere() -> None:
    names = {"debate": "1Gi", "trainer": "2Gi", "inference": "3Gi", "sidecar": "4Gi"}
    entries = [{"name": name, "resources": {"limits": {"memory": memory}}} for name, memory in names.items()]
    run = a_run(podTemplate={"spec": {"containers": entries, "nodeSelector": {"a": "b"}}}, training={"gpus": 1})
    for template in pods(run):
        ours, beside = template["spec"]["containers"]
        assert ours["resources"]["limits"]["memory"] == names[ours["name"]]
        assert beside == entries[3]
        assert template["spec"]["nodeSelector"] == {"a": "b"}
        if ours["name"] == "trainer":  # also of preflight, which needs no GPU
            trains = template["metadata"]["labels"][manifests.COMPONENT] == "train"
            assert ours["resources"]["limits"].get("nvidia.com/gpu") == ("1" if trains else None)


@pytest.mark.parametrize(
    "template",
    [{}, {"spec": {}}, {"spec": None}, {"spec": "x"}, {"spec": {"containers": "x"}}, {"spec": {"containers": ["x", None, {}]}}],
)
def test_a_malformed_pod_template_is_for_the_api_server_to_refuse(template: Json) -> None:
    assert [pod["metadata"] for pod in pods(a_run(podTemplate=template))] == [pod["metadata"] for pod in pods(a_run())]
