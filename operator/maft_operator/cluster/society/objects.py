"""What a Society is made of: a Deployment whose pods are each the vLLM servers and the program that holds the debates, and a
Service. Pure.

There is a server for each base model of the agents, mostly one. They listen on the pod's own loopback alone, so nobody but the
program beside them asks them, and they need no key. A pod that is to go stops being ready, answers what it has begun, and ends; its
servers wait for that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import fields

from maft.society_spec import encode_society
from maft.spec import immutable_spec_json
from maft_operator.cluster import drift, kinds, manifests, resources
from maft_operator.cluster.fields import part, text
from maft_operator.cluster.images import TEMPLATE, Images
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.manifests import CHILD, COMPONENT, MANAGED_BY, MANAGER
from maft_operator.cluster.pod_settings import Inherited
from maft_operator.cluster.pod_template import DEBATE, SERVE, Size, container, environment, of_several
from maft_operator.cluster.society import reached
from maft_operator.cluster.society.reached import PORT, port_name
from maft_operator.cluster.society.reading import Asked, Wish
from maft_operator.plan import graph as plan
from maft_operator.plan import society
from maft_operator.plan.graph import Server
from maft_operator.spec.parse import store_url
from maft_operator.spec.schema import Json

NAME = "society"  # of the component, and of the server in the program's flags
KEYS, CERTIFICATE = "/keys", "/tls"  # where the API keys and the certificate are mounted
DRAIN = 15  # seconds in which requests still come to a pod that is to go: until every node knows of it
SPARE = 30  # seconds beside that, and beside the longest request, before a pod that is to go is killed
_NOTE = ("metadata", "annotations", TEMPLATE)
_HEALTHY = (
    "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', {}, timeout=8); c.request('GET', '/health');"
    " sys.exit(c.getresponse().status != 200)"
)
_UNTIL_IT_ENDS = "import socket, time\nwhile not socket.socket().connect_ex(('127.0.0.1', {})): time.sleep(0.5)"


def objects(wish: Wish, images: Images, inherited: Inherited, there: Sequence[Json] = ()) -> list[Json]:
    """Lists what has to exist. images: its own; inherited: of the Society's labels and annotations; there: the pods that it has."""
    asked = wish.asked
    policy = [_object(kinds.NETWORK_POLICY, asked, reached.network_policy(asked, images))] if images.isolated else []
    made = images.noted_on(deployment(wish, images, inherited), _decisive(wish))
    service = reached.service(asked, there)
    return [*policy, _object(kinds.SERVICE, asked, service["spec"], service["annotations"]), *_ingress(asked, there), made]


def _ingress(asked: Asked, there: Sequence[Json]) -> list[Json]:
    """None to be made or changed before a pod speaks what it leads to: its annotations say so as well, so it changes as a whole."""
    wanted = reached.ingress(asked) if reached.answered(asked, there) == port_name(asked) else None
    return [_object(kinds.INGRESS, asked, wanted["spec"], wanted["annotations"])] if wanted else []


def own_images(wish: Wish, images: Images) -> Images:
    """Settles which images its pods are made with now. images: the operator's."""
    roles = {DEBATE: images.of(DEBATE), SERVE: images.of(SERVE, wish.run.spec.inference.image)}
    return replace(images, pinned=roles, model_bytes=wish.model_bytes)


def is_made_for(wanted: Iterable[Json], deployment: Json) -> bool:
    """Tells whether a Deployment that is there was made for what is wanted, whichever release made it."""
    [same] = (thing for thing in wanted if thing["kind"] == kinds.DEPLOYMENT.name)
    return text(same, *_NOTE) == text(deployment, *_NOTE)


def scaled(asked: Asked, deployment: Json) -> Json:
    """Makes the Deployment as it is, with as many pods as are asked for now: all that is done where the run cannot be looked at."""
    notes = {name: note for name, note in part(deployment, "metadata", "annotations").items() if name.startswith("maft.dev/")}
    made = _object(kinds.DEPLOYMENT, asked, {**drift.owned(deployment), "replicas": asked.served.replicas})
    return {**made, "metadata": {**made["metadata"], "annotations": notes}}


def _decisive(wish: Wish) -> Mapping[str, Any]:
    """What a pod is replaced for; another release of the operator alone replaces none (images.py)."""
    answers = wish.asked.answers
    return {
        "run": wish.run_uid,
        "iteration": wish.iteration,
        # Not the defaults: a field that a newer release knows would replace all pods.
        "answers": {f.encode_name: asked for f in fields(answers) if (asked := getattr(answers, f.name)) != f.default},
        "gpus": wish.asked.served.gpus,
        "keys": _secret(wish.asked),
        "podTemplate": wish.run.spec.pod_template,
        **({"tls": tls.secret_name} if (tls := wish.asked.served.tls) else {}),  # where there is none, as before there were any
    }


def deployment(wish: Wish, images: Images, inherited: Inherited) -> Json:
    """Makes the Deployment. A new pod is ready before an old one is told to go."""
    asked = wish.asked
    sized = _sized(wish, images)
    *servers, program = (size.needs for _, size in sized)
    together = replace(sized[0][1], needs=resources.together(servers, program))
    volumes = [
        *together.volumes(wish.run),
        *({"name": name, "secret": {"secretName": secret}} for name, secret, _ in _mounted(asked)),
    ]
    pod = {"restartPolicy": "Always", "terminationGracePeriodSeconds": asked.answers.timeout_seconds + DRAIN + SPARE}
    about = {**inherited.labels, **_labels(asked)}
    body = {
        "replicas": asked.served.replicas,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "progressDeadlineSeconds": wish.run.spec.inference.startup_seconds + 600,
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": reached.selector(asked)},
        "template": of_several(sized, wish.run, volumes, about, pod, inherited.annotations),
    }
    return _object(kinds.DEPLOYMENT, asked, body)


def _sized(wish: Wish, images: Images) -> list[tuple[Json, Size]]:
    """The servers and the program, each with its size."""
    made = [(_server(wish, images, each), each.server) for each in _serving(wish)]
    servers = [(c, Size(resources.needs(s, wish.model_bytes), s.gpus or 0, images.pods)) for c, s in made]
    needs = resources.of_endpoint(wish.asked.answers.max_concurrent_debates)
    return [*servers, (_program(wish, images), Size(needs, 0, images.pods))]


@dataclass(frozen=True, slots=True)
class _Serving:
    """A server in its pod. container: its name; port: on the pod's loopback."""

    server: Server
    agents: tuple[int, ...]
    container: str
    port: int


def _serving(wish: Wish) -> list[_Serving]:
    """The servers as a run has them, that of the first agent first. Of several the others are named by their first agent."""
    run, gpus = wish.run, wish.asked.served.gpus
    asked = run.spec.inference.gpus if gpus is None else gpus
    planned = society.servers(run, store_url(run.spec.storage), wish.asked.name, wish.iteration, asked)
    return [
        _Serving(plan.on_cluster(server), agents, f"{SERVE}-{agents[0]}" if number else SERVE, plan.PORT + number)
        for number, (agents, server) in enumerate(planned.items())
    ]


def _server(wish: Wish, images: Images, serving: _Serving) -> Json:
    """vLLM with the adapters of its agents. Its probes run in the container: the kubelet does not reach its loopback."""
    run, port = wish.run, serving.port
    made = container(
        serving.container, images.of(SERVE), images.policy, plan.serve(serving.server, "--host=127.0.0.1", f"--port={port}")
    )
    made["env"] = environment(run)
    health = {"exec": {"command": ["python3", "-S", "-c", _HEALTHY.format(port)]}, "timeoutSeconds": 10}
    made["startupProbe"] = {**health, "periodSeconds": 5, "failureThreshold": -(-run.spec.inference.startup_seconds // 5)}
    made["livenessProbe"] = {**health, "periodSeconds": 30, "failureThreshold": 4}
    made["lifecycle"] = {"preStop": {"exec": {"command": ["python3", "-S", "-c", _UNTIL_IT_ENDS.format(PORT)]}}}
    return made


def _program(wish: Wish, images: Images) -> Json:
    """The program that answers."""
    made = container(DEBATE, images.of(DEBATE), images.policy, command(wish))
    made["env"] = environment(wish.run)
    name = port_name(wish.asked)
    made["ports"] = [{"name": name, "containerPort": PORT, "protocol": "TCP"}]
    scheme = {"scheme": "HTTPS"} if wish.asked.served.tls else {}  # kubelets look at no certificate
    made["readinessProbe"] = {"httpGet": {"path": "/ready", "port": name, **scheme}, "timeoutSeconds": 5, "periodSeconds": 2}
    made["livenessProbe"] = {
        "httpGet": {"path": "/health", "port": name, **scheme},
        "timeoutSeconds": 10,
        "periodSeconds": 10,
        "failureThreshold": 6,
        "initialDelaySeconds": 30,
    }
    mounts = [{"name": name, "mountPath": place, "readOnly": True} for name, _, place in _mounted(wish.asked)]
    made["volumeMounts"] = [*made["volumeMounts"], *mounts]
    return made


def command(wish: Wish) -> tuple[str, ...]:
    """Writes the arguments after `python` of the program that answers; a test feeds them to its own parser."""
    run, asked = wish.run, wish.asked
    keys = (f"--keys={KEYS}",) if _secret(asked) else ()
    tls = (f"--tls-cert={CERTIFICATE}/tls.crt", f"--tls-key={CERTIFICATE}/tls.key") if asked.served.tls else ()
    return (
        "-m",
        "maft.endpoint",
        f"--store={store_url(run.spec.storage)}",
        f"--run={run.key}",
        f"--spec={immutable_spec_json(run.spec)}",
        f"--iteration={wish.iteration}",
        *society.server_flags(NAME, {each.agents: f"http://127.0.0.1:{each.port}" for each in _serving(wish)}),
        f"--society={encode_society(asked.answers)}",
        f"--port={PORT}",
        f"--grace={DRAIN}",
        *keys,
        *tls,
    )


def _secret(asked: Asked) -> str:
    return asked.served.api_keys_secret.name if asked.served.api_keys_secret else ""


def _mounted(asked: Asked) -> list[tuple[str, str, str]]:
    """The Secrets that the program reads as files: the volume's name, the Secret's, and where."""
    tls = asked.served.tls
    keys = [("keys", _secret(asked), KEYS)] if _secret(asked) else []
    return [*keys, *([("tls", tls.secret_name, CERTIFICATE)] if tls else [])]


def _labels(asked: Asked) -> dict[str, str]:
    ours = {"app.kubernetes.io/name": MANAGER, MANAGED_BY: MANAGER, COMPONENT: NAME}
    return {**ours, CHILD: asked.name, **reached.selector(asked)}


def _object(kind: Kind, asked: Asked, spec: Json, annotations: Json | None = None) -> Json:
    metadata = {
        "name": asked.name,
        "namespace": asked.namespace,
        "labels": _labels(asked),
        **({"annotations": annotations} if annotations else {}),
        "ownerReferences": [manifests.reference(kinds.SOCIETY, asked.name, asked.uid)],
    }
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}
