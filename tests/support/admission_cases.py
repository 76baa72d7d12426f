"""What the chart's ValidatingAdmissionPolicy lets through and what it refuses, with which line.

Held against the rendered expressions (tests/chart) and a real API server (tests/cluster).
"""

from typing import Any

from kube_objects import STORAGE

Json = dict[str, Any]
HERE: Json = {"model": {"source": "org/model"}, "task": {"kind": "gsm8k", "source": "", "prompt": "{question}"}, "storage": STORAGE}
STRICT: Json = {
    "enabled": True,
    "exemptNamespaces": ["free", "own"],
    "imagePrefixes": ["r.io/ml/", "r.io/maft/inference@"],
    "endpointHosts": ["s3", ".storage.svc"],
    "cacheClaims": ["models"],
    "workloadPriorityClasses": ["low"],
    "exportHosts": ["mlflow.ml.svc", ".r.io", "huggingface.co"],
    "secrets": [STORAGE["credentialsSecret"]["name"], "hub"],
    "podTemplate": {"annotations": ["description", "ml.r.io/"]},
    "ingress": {"hosts": ["ask.r.io", ".ml.r.io"], "annotations": ["timeout", "ml.r.io/"]},
}
OWN: Json = {
    "enabled": True,
    "trustRemoteCode": True,
    "podTemplate": {
        "specFields": ["containers", "volumes", "initContainers"],
        "sidecars": True,
        "containerFields": ["name", "image"],
    },
    "vllmFlags": ["--dtype", "--trust-remote-code"],
}


def pod(**spec: Any) -> Json:
    return {"podTemplate": {"spec": spec}}


def container(name: str = "trainer", **fields: Any) -> Json:
    return pod(containers=[{"name": name, **fields}])


def named(**metadata: Any) -> Json:
    return {"podTemplate": {"metadata": metadata}}


def apart(**model: Any) -> Json:
    """A run with an agent that has a model of its own."""
    return {"agentOverrides": [{"agent": 1, "model": model}], "inference": {"topology": "PerAgent"}}


LIBRARIES = ["NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "OMP_TOOL_LIBRARIES", "CUDA_INJECTION64_PATH", "NCCL_DEBUGX"]
QUESTIONS = {"kind": "jsonl", "prompt": "{question}"}
ENV = [{"name": "NCCL_DEBUG", "value": "INFO"}]
ALLOWED: dict[str, Json] = {
    "nothing special": {},
    "where pods run": pod(
        nodeSelector={"gpu": "a"}, tolerations=[{"operator": "Exists"}], runtimeClassName="nvidia", imagePullSecrets=[]
    ),
    "labels": named(labels={"team": "a"}),
    "annotations": named(annotations={"description": "a", "ml.r.io/a": "b"}),
    "an empty template": {"podTemplate": {}},
    "resources and variables": container(
        resources={"requests": {"cpu": "1"}, "limits": {"amd.com/gpu": 1, "memory": "1Gi"}}, env=ENV
    ),
    "no containers": pod(containers=None),
    "nothing below": container(env=None, resources=None),
    "nothing of resources": container(resources={"requests": None, "limits": {"cpu": None}}),
    "a variable from nowhere": container(env=[{**ENV[0], "valueFrom": None}]),
    "nothing in lists": pod(containers=[None, {"name": "trainer", "env": [None]}]),
    "a GPU of another name": {"gpuResource": "amd.com/gpu"},
    "a claim": {"model": {"cacheClaim": "models"}},
    "a token": {"model": {"tokenSecret": {"name": "hub", "key": "token"}}},
    "targets": {
        "export": [
            {"to": "mlflow", "address": "https://MLflow.ml.svc:5000/at#a/b", "tokenSecret": {"name": "hub"}},
            {"to": "hub", "address": "team/agents"},
            {"to": "oci", "address": "eu.r.io:5000/team/agents:v1"},
        ]
    },
    "a priority": {"workloadPriorityClass": "low"},
    "an image of theirs": {"inference": {"image": "r.io/ml/vllm:1"}},
    "a host below": {"storage": {**STORAGE, "endpoint": "https://MinIO.storage.svc:9000"}},
    "a model in a bucket": {"model": {"source": "s3://b/m?endpoint=http://s3:9000&region=x"}},
    "an agent's model": apart(source="s3://b/m?endpoint=http://s3", trustRemoteCode=False),
    "an agent that has none of its own": {"agentOverrides": [{"agent": 0, "temperature": 0.5}]},
    "the region first": {"model": {"source": "s3://b/m?region=x&endpoint=http://s3"}},
    "an endpoint as programs write it": {"model": {"source": "s3://b/m?endpoint=http%3A%2F%2Fs3%3a9000"}},
    "a dataset of the hub": {"task": {"kind": "gsm8k", "source": "org/data", "prompt": "{question}"}},
    "a file": {"task": {"kind": "jsonl", "source": "file:///q.jsonl", "prompt": "{question}"}},
    "flags": {"inference": {"extraArgs": ["--dtype", "float32", "--max-num-seqs=4"]}},
}
REFUSED: dict[str, tuple[Json, str]] = {
    "keys of another": (
        {"storage": {**STORAGE, "credentialsSecret": {"name": "payroll"}}},
        "the Secret payroll may not be used here, only ",
    ),
    "a token of another": ({"model": {"tokenSecret": {"name": "a", "key": "b"}}}, "the Secret a may not be used here"),
    "a target's secret of another": (
        {"export": [{"to": "hub", "address": "a/b", "tokenSecret": {"name": "payroll"}}]},
        "the Secret payroll may not be used here",
    ),
    **{
        f"a target elsewhere: {address}": (
            {"export": [{"to": to, "address": address}]},
            "spec.export: " + host + " may not get what runs make, only mlflow.ml.svc",
        )
        for to, address, host in (
            ("otel", "http://evil:4318", "evil"),
            ("mlflow", "http://evil#x.r.io", "evil"),
            ("mlflow", "http://xr.io", "xr.io"),
            ("oci", "http://evil.org:80/eu.r.io/a:v1", "evil.org"),
            ("oci", "[::1]:5000/a:v1", "::1"),
        )
    },
    "the node's network": (pod(hostNetwork=True), "spec.podTemplate: hostNetwork may not be set here; leave it out"),
    "an account": (pod(serviceAccountName="admin"), "spec.podTemplate: serviceAccountName may not be set here"),
    "a volume": (pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), "spec.podTemplate: volumes may not be set here"),
    "init containers": (pod(initContainers=[{"name": "trainer"}]), "initContainers may not be set here"),
    "a directive of the merge": (pod(**{"$patch": "replace"}), "spec.podTemplate: $patch may not be set here"),
    "a directive above": ({"podTemplate": {"$patch": "replace"}}, "spec.podTemplate: $patch may not be set here"),
    "a priority": (pod(priorityClassName="system-node-critical"), "spec.podTemplate: priorityClassName may not be set here"),
    "an owner": (named(ownerReferences=[]), "spec.podTemplate: metadata.ownerReferences may not be set here"),
    "other metadata": (named(finalizers=["a/b"]), "spec.podTemplate: metadata.finalizers may not be set"),
    "no labels": (named(labels=None), "spec.podTemplate: metadata.labels may not be set here"),
    "no metadata": ({"podTemplate": {"metadata": None}}, "spec.podTemplate: metadata may not be set here"),
    "a label of a Service": (
        named(labels={"app": "db", "team": "a"}),
        "spec.podTemplate: the label app may not be set here; leave it out",
    ),
    "another run's label": (named(labels={"maft.dev/run": "x"}), "the label maft.dev/run may not be set here"),
    "a label that begins as one": (named(labels={"team-x": "a"}), "the label team-x may not be set here"),
    "a role of the cloud": (
        named(annotations={"iam.amazonaws.com/role": "admin"}),
        "spec.podTemplate: the annotation iam.amazonaws.com/role may not be set here; leave it out",
    ),
    "a Secret of Vault": (named(annotations={"vault.hashicorp.com/agent-inject": "true"}), "may not be set here; leave it out"),
    "a device": (
        container(resources={"limits": {"cpu": 1, "r.io/kvm": 1}}),
        "spec.podTemplate: r.io/kvm may not be asked for here",
    ),
    "a device as a GPU": (
        {"gpuResource": "r.io/kvm"},
        "spec.gpuResource: r.io/kvm may not be asked for here, only nvidia.com/gpu, amd",
    ),
    "another's claim": ({"model": {"cacheClaim": "payroll"}}, "spec.model.cacheClaim: payroll may not be used here; leave it out"),
    "a priority before others": (
        {"workloadPriorityClass": "urgent"},
        "spec.workloadPriorityClass: urgent may not be used here; leave it out",
    ),
    "a library by a variable": (
        container(env=[{"name": name, "value": "/x.so"} for name in LIBRARIES]),
        f"the variable {', '.join(LIBRARIES)} may not be set here",
    ),
    "a sidecar": (container("proxy"), "the container proxy is none of debate, trainer, inference; leave it out"),
    "a sidecar without a name": (
        pod(containers=[{"env": ENV}]),
        "the container without a name is none of debate, trainer, inference",
    ),
    "a variable without a name": (container(env=[{"value": "x"}]), "the variable without a name may not be set here"),
    "our privileges gone": (container(securityContext=None), "securityContext may not be set of a container here"),
    "privileges": (container(securityContext={"privileged": True}), "securityContext may not be set of a container here"),
    "a command": (container(command=["sh"], args=["-c"]), "may not be set of a container here"),
    "a variable from a Secret": (
        container(env=[{"name": "NCCL_X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "spec.podTemplate: the variable NCCL_X may not be set here",
    ),
    "another hub": (container(env=[*ENV, {"name": "HF_ENDPOINT", "value": "http://x"}]), "the variable HF_ENDPOINT may not be set"),
    "code by a variable": (container(env=[{"name": "PYTHONPATH", "value": "/x"}]), "the variable PYTHONPATH may not be set"),
    "an image of others": (
        {"inference": {"image": "r.io/mlx/vllm:1"}},
        "the image r.io/mlx/vllm:1 may not be used here, only r.io/ml/, r.io",
    ),
    "a bucket elsewhere": (
        {"storage": {**STORAGE, "endpoint": "http://evil:9000"}},
        "an S3 server of http://evil:9000 may not be used here",
    ),
    "a host that only looks so": (
        {"storage": {**STORAGE, "endpoint": "http://xstorage.svc"}},
        "may not be used here, only s3, .storage.svc",
    ),
    "Amazon's": (
        {"storage": {k: v for k, v in STORAGE.items() if k != "endpoint"} | {"endpoint": None}},
        "https://amazonaws.com may not be used",
    ),
    "a model elsewhere": ({"model": {"source": "s3://b/m?endpoint=http://evil"}}, "http://evil may not be used here"),
    "an agent's model elsewhere": (apart(source="s3://b/m?endpoint=http://evil"), "http://evil may not be used here"),
    "an agent's remote code": (
        apart(source="org/other", trustRemoteCode=True),
        "spec.agentOverrides.model.trustRemoteCode: may not be true here; leave it out",
    ),
    "a bucket in capitals": ({"task": {**QUESTIONS, "source": "S3://b/q?endpoint=http://evil"}}, "may not be used here"),
    "a model of Amazon's": ({"model": {"source": "s3://b/m"}}, "https://amazonaws.com may not be used here"),
    "two endpoints": ({"model": {"source": "s3://b/m?endpoint=http://s3&endpoint=http://evil"}}, "may not be used here"),
    "an escaped endpoint": ({"model": {"source": "s3://b/m?%65ndpoint=http://evil"}}, "may not be used here"),
    **{
        f"a query that is read in two ways: {query}": ({"model": {"source": f"s3://s3/m?{query}"}}, "may not be used here")
        for query in (
            *("region=x", "", "region=s3&region=s3", "endpoint=http://evil/;x", "endpoint=http://s3;x", "endpoint=http://evil/%zz"),
            *("endpoint=http://s3&endpoint", "endpoint=http://s3&endpoint=", "endpoint", "endpoint=", "Endpoint=http://s3"),
            *(
                "region=x;endpoint=http://s3",
                "region=endpoint=http://s3",
                "endpoint=http://s3?endpoint=http://evil",
                "other=http://s3",
            ),
            *("endpoint=http://s3#@evil", "endpoint=http://evil%23.storage.svc", "endpoint=http://evil/.storage.svc"),
            *("endpoint=http://evil\\.storage.svc", "endpoint=http://evil／.storage.svc", "endpoint=//s3", "endpoint=s3"),
            *("endpoint=http://s3:x@evil", "endpoint=http://s3+x", "endpoint=ftp://s3", "endpoint=http://storage.svc"),
        )
    },
    "an endpoint twice, of a bucket with the name of a host": (
        {"model": {"source": "s3://s3/m?endpoint=http://evil&endpoint=http://evil"}},
        "may not be used here, only s3, .storage.svc",
    ),
    "no endpoint, of a bucket with the name of a host": (
        {"model": {"source": "s3://s3/m?region=x"}},
        "https://amazonaws.com may not be used here",
    ),
    "a second endpoint that Go does not read": (
        {"model": {"source": "s3://b/m?endpoint=http://s3&endpoint=http://evil/;"}},
        "may not be used here",
    ),
    "a second endpoint with a wrong escape": (
        {"model": {"source": "s3://b/m?endpoint=http://s3&endpoint=http://evil/%zz"}},
        "may not be used here",
    ),
    "a bucket before the query": ({"model": {"source": "s3://b#x?endpoint=http://s3"}}, "may not be used here"),
    "another protocol": (
        {"task": {"kind": "gsm8k", "source": "hf://org/data", "prompt": "{question}"}},
        "an S3 server of http://s3:9000, hf://org/data may not be used here",
    ),
    "held-out questions elsewhere": (
        {"task": {**QUESTIONS, "source": "q.jsonl", "heldOutSource": "s3://b/q?endpoint=http://evil"}},
        "http://evil may not be used here",
    ),
    "other questions elsewhere": (
        {"evaluation": {"task": {**QUESTIONS, "source": "s3://b/q?endpoint=http://evil"}}},
        "http://evil may not be used here",
    ),
    "questions elsewhere": (
        {"task": {"kind": "jsonl", "source": "s3://b/q?endpoint=http://evil", "prompt": "{question}"}},
        "http://evil may not be used here",
    ),
    "a user in the address": ({"model": {"source": "s3://b/m?endpoint=http://s3@evil"}}, "may not be used here"),
    "remote code": ({"model": {"trustRemoteCode": True}}, "spec.model.trustRemoteCode: may not be true here; leave it out"),
    "remote code by a flag": (
        {"inference": {"extraArgs": ["--trust-remote-code", "--dtype=auto"]}},
        "spec.inference.extraArgs: --trust-remote-code may not be given here",
    ),
    "in another spelling": ({"inference": {"extraArgs": ["--trust_remote_code"]}}, "--trust_remote_code may not be given here"),
    "code by a flag": ({"inference": {"extraArgs": ["--middleware=os.system"]}}, "--middleware=os.system may not be given here"),
    "a flag that begins as one": ({"inference": {"extraArgs": ["--dtypes"]}}, "--dtypes may not be given here"),
}


def of_template(line: str, over: str) -> str:
    """The line as it is of what has the spec as its template, where that is what is looked at."""
    return line.replace("spec.", "spec.template.", 1) if over == "comparisons" and line.startswith("spec.") else line


def opened(host: str = "ask.r.io", **fields: Any) -> Json:
    """A Society that is reached from outside."""
    return {"apiKeysSecret": {"name": "hub"}, "ingress": {"host": host, **fields}}


SOCIETIES_ALLOWED: dict[str, Json] = {
    "nothing special": {},
    "a template": container(resources={"requests": {"cpu": "1"}}, env=ENV),
    "keys and a certificate": {"apiKeysSecret": {"name": "hub"}, "tls": {"secretName": "hub"}},
    "a host": opened(className="c", tlsSecretName="hub", annotations={"timeout": "1", "ml.r.io/a": "b"}),
    "a host below": opened("a.b.ml.r.io"),
}
SOCIETIES_REFUSED: dict[str, tuple[Json, str]] = {
    "an account": (pod(serviceAccountName="admin"), "spec.podTemplate: serviceAccountName may not be set here"),
    "an image of others": (container(image="r.io/mlx/x:1"), "image may not be set of a container here"),
    "another's keys": ({"apiKeysSecret": {"name": "payroll"}}, "the Secret payroll may not be used here, only "),
    "another's certificate": ({"tls": {"secretName": "payroll"}}, "the Secret payroll may not be used here, only "),
    "another's certificate of a host": (opened(tlsSecretName="payroll"), "the Secret payroll may not be used here, only "),
    "another's host": (opened("bank.io"), "spec.ingress.host: bank.io may not be used here; leave it out"),
    "a host that only looks so": (opened("xml.r.io"), "spec.ingress.host: xml.r.io may not be used here"),
    "an annotation that runs code": (
        opened(annotations={"nginx.ingress.kubernetes.io/configuration-snippet": "x", "timeout": "1"}),
        "spec.ingress: the annotation nginx.ingress.kubernetes.io/configuration-snippet may not be set here; leave it out",
    ),
}
