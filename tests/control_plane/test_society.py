"""A Society: what is made of it and its run, why nothing can be made, what its status says, how its reconciler goes about it."""

import asyncio
import contextlib
import copy
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import resource as small_resource
from kube_objects import START, STORAGE, at, by_type, writer

from maft import program
from maft.debate import society as debated
from maft.endpoint import __main__ as endpoint
from maft.endpoint import served as endpoint_served
from maft.serve import __main__ as serve
from maft.society_spec import SocietySpec
from maft_operator.cluster import drift, kinds, pods, reasons
from maft_operator.cluster.api import Refused
from maft_operator.cluster.following import Following
from maft_operator.cluster.handlers import Watched, registry
from maft_operator.cluster.images import TEMPLATE, Images
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.pod_settings import Inherited, PodSettings
from maft_operator.cluster.quantities import amount
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.society import objects, reading
from maft_operator.cluster.society.controller import Societies
from maft_operator.cluster.society.reading import Obstacle, Wish
from maft_operator.cluster.society.status import Seen, status
from maft_operator.spec.schema import openapi

IMAGES = Images("registry/maft", "1", isolated=True, scraped_from=("monitoring",))
KEY = "societies/default/s"
OVER = [{"type": "Complete", "status": "True"}]


def a_run(state: Json | None = None, **spec: Any) -> Json:
    """`r`, of two agents and two iterations, with its status."""
    made = small_resource("r", **{"agents": 2, "iterations": 2, "storage": STORAGE, "training": {"topology": "Shared"}, **spec})
    metadata = {**made["metadata"], "uid": "uid-r", "namespace": "default"}
    done = {"startTime": at(0), "done": {"train": "1-2"}, "conditions": OVER, "phase": "Complete", "model": {"bytes": 3_400_000}}
    return {**made, "metadata": metadata, "status": done if state is None else {"startTime": at(0), **state}}


def a_society(**spec: Any) -> Json:
    """`s`, of the run `r`, as the API server has it."""
    metadata = {"name": "s", "namespace": "default", "uid": "uid-s", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": metadata, "spec": {"run": "r", **spec}}


OF_TWO_BASES: Json = {
    "inference": {"topology": "PerAgent"},
    "agentOverrides": [{"agent": 1, "model": {"source": "org/other"}}],
}


def wished(run: Json | None = None, **spec: Any) -> Wish | Obstacle:
    asked = reading.asked(a_society(**spec))
    assert not isinstance(asked, Obstacle)
    return reading.wished(asked, a_run() if run is None else run)


def wish(run: Json | None = None, **spec: Any) -> Wish:
    made = wished(run, **spec)
    assert isinstance(made, Wish), made
    return made


def made_of(wish: Wish, images: Images) -> list[Json]:
    return objects.objects(wish, objects.own_images(wish, images), Inherited())


def made(kind: str, run: Json | None = None, images: Images = IMAGES, **spec: Any) -> Json:
    [thing] = [o for o in made_of(wish(run, **spec), images) if o["kind"] == kind]
    return thing


def pod(run: Json | None = None, images: Images = IMAGES, **spec: Any) -> Json:
    body: Json = made("Deployment", run, images, **spec)["spec"]["template"]["spec"]
    return body


def containers(run: Json | None = None, images: Images = IMAGES, **spec: Any) -> tuple[Json, Json]:
    server, beside = pod(run, images, **spec)["containers"]
    assert (server["name"], beside["name"]) == ("inference", "debate")
    return server, beside


# --- reading ---


def test_record_and_schema_have_the_same_fields_and_defaults() -> None:
    properties = openapi("Society")["properties"]["spec"]["properties"]
    records = (reading.Served, SocietySpec)
    fields = {f.encode_name: f for record in records for f in msgspec.structs.fields(record)}
    assert fields.keys() == properties.keys()
    for name, field in fields.items():
        default = None if field.default is msgspec.NODEFAULT else field.default
        assert properties[name].get("default") == default, name


def test_bounds_are_those_of_the_record() -> None:
    properties = openapi("Society")["properties"]["spec"]["properties"]
    records = {**msgspec.json.schema(SocietySpec)["$defs"], **msgspec.json.schema(reading.Served)["$defs"]}
    limits = {name: field for record in records.values() for name, field in record["properties"].items()}
    numbers = [name for name, field in properties.items() if field["type"] == "integer"]
    assert {"maxConcurrentDebates", "replicas"} <= set(numbers)
    for name in numbers:
        least = limits[name].get(
            "minimum", next((one["minimum"] for one in limits[name].get("anyOf", ()) if "minimum" in one), None)
        )
        assert least == properties[name]["minimum"], name
        assert limits[name].get("maximum", properties[name]["maximum"]) == properties[name]["maximum"], name


DONE = {"done": {"train": "1"}, "conditions": OVER}
GOING = {"done": {"train": "1"}, "phase": "Debating"}


@pytest.mark.parametrize(
    ("state", "spec", "iteration"),
    [
        (None, {}, 2),
        (None, {"iteration": 1}, 1),
        (DONE, {}, 1),
        (GOING, {"iteration": 1}, 1),
        ({"done": {"train": "1-2"}, "conditions": OVER, "best": {"iteration": 1}}, {}, 1),
        ({"done": {"train": "1-2"}, "conditions": OVER, "best": {"iteration": 0}}, {}, 2),
        ({"done": {"train": "1-2"}, "conditions": OVER, "best": "nonsense"}, {}, 2),
    ],
)
def test_whose_adapters_answer(state: Json | None, spec: Json, iteration: int) -> None:
    assert wish(a_run(state), **spec).iteration == iteration


NOTHING = [{"iteration": 1, "trained": 0}, {"iteration": 2, "trained": 0}]


@pytest.mark.parametrize(
    ("run", "spec", "reason", "passes", "words"),
    [
        (a_run(GOING), {}, reasons.RUN_UNFINISHED, True, "run r has not finished"),
        (a_run({}), {}, reasons.RUN_UNFINISHED, True, "has not finished"),
        (a_run(GOING), {"iteration": 2}, reasons.ITERATION_UNFINISHED, True, "2 of run r is not trained; trained are 1"),
        (a_run(DONE), {"iteration": 2}, reasons.ITERATION_MISSING, False, "trained are 1"),
        (a_run(), {"iteration": 3}, reasons.ITERATION_MISSING, False, "the iterations 1 to 2"),
        (a_run({"conditions": OVER}), {}, reasons.RUN_WITHOUT_ADAPTERS, False, "no iteration of it is trained"),
        (a_run(method="debate"), {}, reasons.RUN_WITHOUT_ADAPTERS, False, "trains nothing (method debate)"),
        (a_run({**DONE, "done": {"train": "1-2"}, "iterations": NOTHING}), {}, reasons.RUN_WITHOUT_ADAPTERS, False, "no iteration"),
        (a_run(storage=None), {}, reasons.RUN_UNUSABLE, False, "spec.storage: missing"),
        ({**a_run(), "spec": {"model": 7}}, {}, reasons.RUN_UNUSABLE, False, "spec"),
    ],
)
def test_why_nothing_can_be_made(run: Json, spec: Json, reason: reasons.Reason, passes: bool, words: str) -> None:
    if run["spec"].get("storage", 1) is None:
        del run["spec"]["storage"]
    obstacle = wished(run, **spec)
    assert isinstance(obstacle, Obstacle) and (obstacle.reason, obstacle.passes) == (reason, passes)
    assert words in obstacle.message


def test_a_run_that_is_not_there() -> None:
    asked = reading.asked(a_society())
    assert not isinstance(asked, Obstacle)
    obstacle = reading.wished(asked, None)
    assert isinstance(obstacle, Obstacle) and obstacle.reason == reasons.RUN_MISSING and not obstacle.passes
    assert obstacle.message == "spec.run: no MultiAgentFinetune r is in namespace default"


def test_an_iteration_that_trained_nothing_has_the_adapters_before_it() -> None:
    rows = [{"iteration": 1, "trained": 4}, {"iteration": 2, "trained": 0}]
    assert wish(a_run({"done": {"train": "1-2"}, "conditions": OVER, "iterations": rows})).iteration == 2


def test_trainings_of_each_agent_have_to_be_done_all() -> None:
    state = {"done": {"train-0": "1-2", "train-1": "1"}, "conditions": OVER}
    assert wish(a_run(state, training={"topology": "PerAgent"})).iteration == 1


@pytest.mark.parametrize("spec", [{"run": 5}, {"replicas": -1}, {"timeoutSeconds": 0}, {"apiKeysSecret": "x"}, {"mode": "slow"}])
def test_what_another_release_wrote_and_this_one_cannot_read_is_told(spec: Json) -> None:
    obstacle = reading.asked(a_society(**spec))
    assert isinstance(obstacle, Obstacle) and obstacle.reason == reasons.INVALID_SPEC and "$." in obstacle.message


def test_fields_of_a_newer_release_are_passed_over() -> None:
    assert wish(unheardOf={"a": 1}).iteration == 2


# --- objects ---


def decoded(line: tuple[str, ...] | list[str], parser: Any) -> Any:
    assert line[0] == "-m"
    return parser.parse_args([argument.replace("$$", "$") for argument in line[2:]])


def test_the_programs_take_their_command_lines(tmp_path: Path) -> None:
    server, beside = containers(iteration=1, mode="fast", apiKeysSecret={"name": "k"}, timeoutSeconds=30)
    given = decoded(beside["args"], endpoint.parser())
    assert program.decode(given).iteration == 1 and program.decode(given).run == "default/r"
    assert dict(program.decode(given).servers) == {"society": ["http://127.0.0.1:8000"]}
    assert endpoint.decode_asked(given.society) == SocietySpec(mode="fast", timeout_seconds=30)
    (tmp_path / "me").write_text("secret")
    assert endpoint.listens(argparse_with(given, keys=str(tmp_path))).port == 8080 and given.keys == "/keys"
    other = decoded(server["args"], serve.parser())
    listening = serve.listens(other)
    assert (listening.host, listening.port, listening.adapters) == ("127.0.0.1", 8000, 4)
    assert program.decode(other).run == "default/r" and program.decode(other).gpus == 1


def argparse_with(given: Any, **more: str) -> Any:
    changed = copy.copy(given)
    for name, value in more.items():
        setattr(changed, name, value)
    return changed


@pytest.mark.parametrize(
    "spec", [{}, {"debate": {"critics": False}}, {"method": "single-agent"}, {"method": "majority-finetuning"}]
)
def test_models_are_those_that_the_program_names(spec: Json) -> None:
    mine = wish(a_run(**spec))
    own = mine.run.spec
    names = tuple(f"m{n}" for n in range(own.held_out_agents(2)))
    players = debated.Society(names, names, names)
    critics = endpoint_served._agents(players, critics=own.debate.critics)
    assert mine.models == (endpoint_served.SOCIETY, endpoint_served.MAJORITY, *critics)


def test_the_server_is_reached_by_its_own_pod_alone() -> None:
    server, beside = containers()
    assert "ports" not in server and [port["containerPort"] for port in beside["ports"]] == [8080]
    assert not {"httpGet", "tcpSocket"} & {*server["startupProbe"], *server["livenessProbe"]}  # the kubelet comes from outside
    assert made("Service")["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]


def test_a_new_pod_answers_before_an_old_one_goes_and_that_answers_what_it_began() -> None:
    body = made("Deployment", timeoutSeconds=100)["spec"]
    assert body["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    server, beside = body["template"]["spec"]["containers"]
    assert beside["readinessProbe"]["httpGet"]["path"] == "/ready"
    drained = int(next(a for a in beside["args"] if a.startswith("--grace=")).partition("=")[2])
    assert body["template"]["spec"]["terminationGracePeriodSeconds"] > 100 + drained
    assert "8080" in server["lifecycle"]["preStop"]["exec"]["command"][-1]  # the server stays until the program has ended


def test_what_the_probes_run_is_python() -> None:
    server, _ = containers()
    for probe in (server["startupProbe"], server["lifecycle"]["preStop"]):
        compile(probe["exec"]["command"][-1], "probe", "exec")


def test_pods_are_as_those_of_runs() -> None:
    body = pod()
    assert body["automountServiceAccountToken"] is False and body["securityContext"]["runAsNonRoot"] is True
    assert body["securityContext"]["runAsUser"] == 65532
    assert "runAsUser" not in pod(images=replace(IMAGES, pods=PodSettings(ids=False)))["securityContext"]
    for container in body["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys()
        assert {e["name"] for e in container["env"]} >= {"AWS_ACCESS_KEY_ID", "HOME"}
    assert {v["name"] for v in body["volumes"]} == {"tmp", "shm", "cache"}


def test_gpus_are_the_runs_unless_it_says_otherwise() -> None:
    run = a_run(inference={"topology": "Shared", "gpus": 2})
    for spec, gpus in (({}, "2"), ({"gpus": 1}, "1"), ({"gpus": 0}, None)):
        server, beside = containers(run, **spec)
        assert server["resources"]["limits"].get("nvidia.com/gpu") == gpus
        assert "nvidia.com/gpu" not in beside["resources"]["limits"]


def test_its_own_pod_template_takes_the_place_of_the_runs() -> None:
    theirs = {"podTemplate": {"spec": {"nodeSelector": {"pool": "train"}}}}
    own = {
        "podTemplate": {
            "spec": {"serviceAccountName": "s", "containers": [{"name": "debate", "env": [{"name": "A", "value": "b"}]}]}
        }
    }
    assert pod(a_run(**theirs))["nodeSelector"] == {"pool": "train"}
    assert "nodeSelector" not in pod(a_run(**theirs), podTemplate={})
    mixed = pod(a_run(**theirs), **own)
    assert "nodeSelector" not in mixed and mixed["serviceAccountName"] == "s"
    assert [len([e for e in c["env"] if e["name"] == "A"]) for c in mixed["containers"]] == [0, 1]


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], [{}], {}])
@pytest.mark.parametrize("field", ["spec", "metadata", "containers", "volumes", "name", "resources", "env"])
def test_a_pod_template_of_no_shape_is_for_the_api_server_to_refuse(field: str, value: Any) -> None:
    containers = {"name": [{"name": value}], "containers": value}.get(field, [{"name": "debate", field: value}])
    inner = {"volumes": value} if field == "volumes" else {"containers": containers}
    template = {field: value} if field in ("spec", "metadata") else {"spec": inner}
    assert made("Deployment", podTemplate=template)["spec"]["template"]


def test_the_operators_defaults_reach_both_containers() -> None:
    defaults = {
        "spec": {"containers": [{"name": n, "env": [{"name": "P", "value": n}]} for n in ("debate", "inference", "trainer")]}
    }
    body = pod(images=replace(IMAGES, pods=PodSettings(defaults=defaults)))
    assert [next(e["value"] for e in c["env"] if e["name"] == "P") for c in body["containers"]] == ["inference", "debate"]


def test_agents_of_several_bases_have_a_server_for_each_in_every_pod() -> None:
    body = pod(a_run(**OF_TWO_BASES), gpus=2)
    assert [c["name"] for c in body["containers"]] == ["inference", "inference-1", "debate"]
    *servers, beside = body["containers"]
    lines = [decoded(server["args"], serve.parser()) for server in servers]
    assert [(serve.listens(line).port, serve.listens(line).adapters) for line in lines] == [(8000, 2), (8001, 2)]
    assert [line.base_of for line in lines] == [None, "1"]
    assert all(server["resources"]["limits"]["nvidia.com/gpu"] == "2" for server in servers)
    assert len({server["image"] for server in servers}) == 1
    for server, port in zip(servers, (8000, 8001), strict=True):
        assert all(f"'127.0.0.1', {port}," in server[probe]["exec"]["command"][-1] for probe in ("startupProbe", "livenessProbe"))
        assert "8080" in server["lifecycle"]["preStop"]["exec"]["command"][-1]
    asked = program.decode(decoded(beside["args"], endpoint.parser()))
    assert asked.servers == {"society-0": ["http://127.0.0.1:8000"], "society-1": ["http://127.0.0.1:8001"]}


def test_several_servers_share_a_pods_volumes() -> None:
    one, two = (pod(a_run(**spec), gpus=2)["volumes"] for spec in ({}, OF_TWO_BASES))
    sizes = [{v["name"]: amount(v["emptyDir"]["sizeLimit"]) for v in volumes} for volumes in (one, two)]
    assert sizes[1]["shm"] == 2 * sizes[0]["shm"]
    assert sizes[0]["cache"] < sizes[1]["cache"] < 2 * sizes[0]["cache"]  # the program's part is there once


def test_what_is_said_of_servers_is_said_of_each() -> None:
    theirs = {"containers": [{"name": "inference", "env": [{"name": "A", "value": "b"}]}, {"name": "beside", "image": "x"}]}
    body = pod(a_run(**OF_TWO_BASES, podTemplate={"spec": theirs}))
    said = {c["name"]: [e for e in c.get("env", []) if e["name"] == "A"] for c in body["containers"]}
    assert {name: len(variables) for name, variables in said.items()} == {
        "inference": 1,
        "inference-1": 1,
        "debate": 0,
        "beside": 0,
    }


def test_the_server_that_has_trouble_is_the_one_that_is_told() -> None:
    ready = {"ready": True, "restartCount": 0}
    several = [
        {"name": "inference", **ready},
        {"name": "inference-1", "ready": False, "restartCount": 3},
        {"name": "debate", **ready},
    ]
    assert pods.own(several)["name"] == "inference-1"


def test_api_keys_are_mounted_where_they_are_asked_for() -> None:
    body = pod(apiKeysSecret={"name": "k"})
    assert {"name": "keys", "secret": {"secretName": "k"}} in body["volumes"]
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in body["containers"][1]["volumeMounts"]
    assert "--keys=/keys" in body["containers"][1]["args"] and not any("--keys" in a for a in pod()["containers"][1]["args"])


def test_a_certificate_encrypts_what_reaches_the_pod() -> None:
    secured = {"tls": {"secretName": "c"}}
    assert {"name": "tls", "secret": {"secretName": "c"}} in pod(**secured)["volumes"]
    _, beside = containers(**secured)
    assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in beside["volumeMounts"]
    given = decoded(beside["args"], endpoint.parser())
    assert (given.tls_cert, given.tls_key) == ("/tls/tls.crt", "/tls/tls.key")
    for probe in (beside["readinessProbe"], beside["livenessProbe"]):
        assert (probe["httpGet"]["scheme"], probe["httpGet"]["port"]) == ("HTTPS", "https")
    assert made("Service", **secured)["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}]
    assert made("NetworkPolicy", **secured) == made("NetworkPolicy")
    asked = reading.asked(a_society(**secured))
    assert not isinstance(asked, Obstacle)
    state = status(asked, wish(**secured), Seen(), {}, 1, START)
    assert state["url"] == "https://s.default.svc/v1"
    assert not objects.is_made_for(made_of(wish(**secured), IMAGES), made("Deployment"))  # pods are replaced


def a_pod(protocol: str, name: str = "p", ready: str = "True", **state: Any) -> Json:
    """A pod of the Deployment that was made with or without a certificate."""
    body = pod(**({"tls": {"secretName": "c"}} if protocol == "https" else {}))
    owner = {"kind": "ReplicaSet", "name": f"s-{protocol}", "controller": True, "uid": protocol}
    labels = {"maft.dev/society": "s", "maft.dev/child": "s", "pod-template-hash": protocol}
    metadata = {"name": name, "namespace": "default", "uid": name, "creationTimestamp": at(0), "labels": labels}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
    return {"kind": "Pod", "metadata": {**metadata, "ownerReferences": [owner], **state}, "spec": body, "status": status}


@pytest.mark.parametrize(("before", "after"), [("http", "https"), ("https", "http")])
def test_while_pods_are_replaced_for_a_certificate_each_port_leads_to_those_that_speak_its_protocol(
    before: str, after: str
) -> None:
    of = {"http": {}, "https": {"tls": {"secretName": "c"}}}
    old, starting, ready = a_pod(before, "a"), a_pod(after, "b", ready="False"), a_pod(after, "b")
    ending, ended = a_pod(before, "a", deletionTimestamp=at(1)), {**old, "status": {"phase": "Succeeded"}}
    seen = [([old], before), ([old, starting], before), ([old, ready], after), ([ending, ready], after), ([ended, ready], after)]
    for there, expected in [*seen, ([starting], after), ([], after)]:
        wanted = wish(**OUTSIDE, **of[after])
        things = {o["kind"]: o for o in objects.objects(wanted, objects.own_images(wanted, IMAGES), Inherited(), there)}
        ports = {p["name"]: (p["port"], p["targetPort"]) for p in things["Service"]["spec"]["ports"]}
        left = {before} if old in there or ending in there else set()
        assert ports == {n: ({"http": 80, "https": 443}[n], n) for n in left | {after}}
        assert ("Ingress" in things) == (expected == after)
        state = told_of(wish(**of[after]), there, **of[after])
        assert state["url"] == f"{expected}://s.default.svc/v1"
        moving = by_type(state["conditions"])["Reconciling"]["message"]
        assert (f"by {before} until" in moving) == (expected == before)


def told_of(wished: Wish, there: list[Json], **spec: Any) -> Json:
    """The status where those pods are there and not all are as they should be."""
    from maft_operator.cluster.children import Child

    asked = reading.asked(a_society(**spec))
    assert not isinstance(asked, Obstacle)
    rolling = a_deployment(1, 2)
    return status(asked, wished, Seen(Child("s", rolling, tuple(there))), {}, 3, START)


def test_without_keys_only_the_namespace_may_ask() -> None:
    [closed] = made("NetworkPolicy")["spec"]["ingress"]
    [opened] = made("NetworkPolicy", apiKeysSecret={"name": "k"})["spec"]["ingress"]
    assert {"podSelector": {}} in closed["from"] and len(closed["from"]) == 2
    assert "from" not in opened and opened["ports"] == closed["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert [o["kind"] for o in made_of(wish(), replace(IMAGES, isolated=False))] == ["Service", "Deployment"]


def test_children_go_with_it_and_are_no_runs() -> None:
    for thing in made_of(wish(), IMAGES):
        [owner] = thing["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Society", "uid-s", True)
        assert kinds.RUN.label not in thing["metadata"]["labels"] and thing["metadata"]["labels"][kinds.SOCIETY.label] == "s"
    body = made("Deployment")["spec"]
    assert body["selector"]["matchLabels"].items() <= body["template"]["metadata"]["labels"].items()
    assert kinds.RUN.label not in body["template"]["metadata"]["labels"]


def note(**spec: Any) -> str:
    return str(made("Deployment", **spec)["metadata"]["annotations"][TEMPLATE])


def test_what_replaces_pods_and_what_does_not() -> None:
    """Another number of pods, another release and another size of the model do not."""
    assert note() == note(replicas=5) == note(unheardOf=1)
    assert len({note(), note(iteration=1), note(gpus=0), note(mode="fast"), note(apiKeysSecret={"name": "k"})}) == 5
    newer = replace(IMAGES, tag="2", release="9.9.9")
    wanted = made_of(wish(), newer)
    assert objects.is_made_for(wanted, made("Deployment")) and not objects.is_made_for(wanted, made("Deployment", iteration=1))


def test_who_scales_the_deployment_itself_does_not_take_the_number_from_the_society() -> None:
    """It would be so for ever: an autoscaler of the Society, and zero of it, would change nothing any more."""
    scale = {"manager": "kubectl", "operation": "Update", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    stored = a_deployment(5, 5)
    stored["metadata"]["managedFields"] = [scale]
    wanted = made("Deployment", replicas=2)
    assert drift.difference(wanted, stored) == {".spec.replicas": 5}
    assert drift.to_apply(wanted, stored)["spec"]["replicas"] == 2


class Newer(SocietySpec, frozen=True, kw_only=True):
    """With a field that a later release brings."""

    language: str = "en"


def test_a_field_that_a_newer_release_brings_replaces_no_pod() -> None:
    def noted(answers: SocietySpec) -> str:
        one = wish()
        [made] = [o for o in made_of(replace(one, asked=replace(one.asked, answers=answers)), IMAGES) if o["kind"] == "Deployment"]
        return str(made["metadata"]["annotations"][TEMPLATE])

    assert noted(Newer()) == noted(SocietySpec()) != noted(Newer(language="de"))


OUTSIDE = {"apiKeysSecret": {"name": "k"}, "ingress": {"host": "society.example.com"}}


def test_an_ingress_leads_to_what_clients_ask_and_to_nothing_else() -> None:
    asked = made("Ingress", **OUTSIDE)
    [rule] = asked["spec"]["rules"]
    backend = {"service": {"name": "s", "port": {"name": "http"}}}
    assert rule["host"] == "society.example.com"
    assert rule["http"]["paths"] == [{"path": "/v1", "pathType": "Prefix", "backend": backend}]  # not /metrics
    assert asked["spec"].keys() == {"rules"} and asked["metadata"]["ownerReferences"][0]["kind"] == "Society"
    whole = {"className": "nginx", "tlsSecretName": "c", "annotations": {"a": "b"}}
    full = {**OUTSIDE, "ingress": {**OUTSIDE["ingress"], **whole}, "tls": {"secretName": "own"}}
    asked = made("Ingress", **full)
    assert asked["spec"]["ingressClassName"] == "nginx" and asked["metadata"]["annotations"]["a"] == "b"
    assert asked["spec"]["tls"] == [{"hosts": ["society.example.com"], "secretName": "c"}]
    assert asked["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] == {"name": "https"}
    urls = [told(wish(**spec), a_deployment(1), **spec)["url"] for spec in (OUTSIDE, full)]
    assert urls == ["http://society.example.com/v1", "https://society.example.com/v1"]


def test_an_ingress_replaces_no_pod() -> None:
    keyed = {"apiKeysSecret": {"name": "k"}}
    assert objects.is_made_for(made_of(wish(**OUTSIDE), IMAGES), made("Deployment", **keyed))


# --- status ---


def a_deployment(ready: int, wanted: int = 1, total: int | None = None) -> Json:
    thing = made("Deployment", replicas=wanted)
    state = {
        "observedGeneration": 1,
        "replicas": wanted if total is None else total,
        "updatedReplicas": ready,
        "availableReplicas": ready,
    }
    metadata = {**thing["metadata"], "uid": "uid-d", "generation": 1, "creationTimestamp": at(0)}
    return {**thing, "metadata": metadata, "status": state}


def told(wished: Wish | Obstacle, deployment: Json | None = None, *troubles: reasons.Trouble, **spec: Any) -> Json:
    from maft_operator.cluster.children import Child

    asked = reading.asked(a_society(**spec))
    assert not isinstance(asked, Obstacle)
    seen = Seen(Child("s", deployment, ()) if deployment else None, troubles)
    return status(asked, wished, seen, {}, 3, START + timedelta(seconds=5))


def conditions(whole: Json) -> dict[str, tuple[str, str]]:
    return {kind: (c["status"], c["reason"]) for kind, c in by_type(whole["conditions"]).items()}


AWAY = Obstacle(reasons.RUN_MISSING, "spec.run: none")
LATER = Obstacle(reasons.RUN_UNFINISHED, "run r has not finished", passes=True)
NO_NODE = reasons.Trouble("s", reasons.UNSCHEDULABLE, "0/3 nodes")
SOON = replace(NO_NODE, blocking=False)
ALL_WELL = {"Ready": ("True", "Serving"), "Reconciling": ("False", "Serving"), "Stalled": ("False", "NotStalled")}


@pytest.mark.parametrize(("keys", "idle"), [({}, True), ({"apiKeysSecret": {"name": "k"}}, False)])
def test_a_limit_for_each_key_that_limits_nobody_is_said(keys: Json, idle: bool) -> None:
    spec = {"maxConcurrentPerKey": 4, **keys}
    message = by_type(told(wish(**spec), a_deployment(1), **spec)["conditions"])["Ready"]["message"]
    assert message.startswith("1 of 1 pod answers") and ("spec.maxConcurrentPerKey: 4, and without API keys" in message) is idle


def test_the_definition_lists_the_phases() -> None:
    words = openapi("Society")["properties"]["status"]["properties"]["phase"]["description"]
    phases = [told(AWAY), told(wish(), a_deployment(0)), told(wish(), a_deployment(1))]
    phases.append(told(wish(replicas=0), a_deployment(0, 0), replicas=0))
    assert f"{', '.join(state['phase'] for state in phases)}." in words


@pytest.mark.parametrize(
    ("arguments", "spec", "phase", "expected"),
    [
        (
            (AWAY,),
            {},
            "Waiting",
            {"Ready": ("False", "RunMissing"), "Reconciling": ("False", "RunMissing"), "Stalled": ("True", "RunMissing")},
        ),
        ((AWAY, a_deployment(1)), {}, "Ready", {**ALL_WELL, "Stalled": ("True", "RunMissing")}),
        (
            (LATER,),
            {},
            "Waiting",
            {"Ready": ("False", "RunUnfinished"), "Reconciling": ("True", "RunUnfinished"), "Stalled": ("False", "NotStalled")},
        ),
        ((wish(), a_deployment(1)), {}, "Ready", ALL_WELL),
        ((wish(), a_deployment(1, 2)), {"replicas": 2}, "Ready", {**ALL_WELL, "Reconciling": ("True", "Starting")}),
        (
            (wish(), a_deployment(0)),
            {},
            "Starting",
            {"Ready": ("False", "Starting"), "Reconciling": ("True", "Starting"), "Stalled": ("False", "NotStalled")},
        ),
        (
            (wish(), a_deployment(0), NO_NODE),
            {},
            "Starting",
            {"Ready": ("False", "Unschedulable"), "Reconciling": ("False", "Unschedulable"), "Stalled": ("True", "Unschedulable")},
        ),
        (
            (wish(), a_deployment(0), SOON),
            {},
            "Starting",
            {"Ready": ("False", "Unschedulable"), "Reconciling": ("True", "Unschedulable"), "Stalled": ("False", "NotStalled")},
        ),
        ((wish(), a_deployment(1), NO_NODE), {}, "Ready", {**ALL_WELL, "Stalled": ("True", "Unschedulable")}),
        ((wish(), a_deployment(1, 1, total=2)), {}, "Ready", {**ALL_WELL, "Reconciling": ("True", "Starting")}),
        (
            (wish(), a_deployment(1, 0, total=1)),
            {"replicas": 0},
            "Stopped",
            {"Ready": ("False", "ScaledToZero"), "Reconciling": ("True", "ScaledToZero"), "Stalled": ("False", "NotStalled")},
        ),
        (
            (wish(), a_deployment(0, 0)),
            {"replicas": 0},
            "Stopped",
            {"Ready": ("False", "ScaledToZero"), "Reconciling": ("False", "ScaledToZero"), "Stalled": ("False", "NotStalled")},
        ),
    ],
)
def test_what_the_status_says(arguments: Any, spec: Json, phase: str, expected: Json) -> None:
    whole = told(*arguments, **spec)
    assert (whole["phase"], conditions(whole)) == (phase, expected)


def test_what_the_scale_subresource_reads() -> None:
    whole = told(wish(), a_deployment(1, 2, total=3), replicas=2)
    assert (whole["replicas"], whole["readyReplicas"], whole["ready"], whole["selector"]) == (3, 1, "1/2", "maft.dev/society=s")
    assert whole["url"] == "http://s.default.svc/v1" and whole["iteration"] == 2
    assert whole["images"] == {"inference": {"image": "registry/maft/inference:1"}, "debate": {"image": "registry/maft/debate:1"}}


def test_the_status_has_only_fields_of_the_schema() -> None:
    properties = openapi("Society")["properties"]["status"]["properties"]
    assert set(told(wish(), a_deployment(1))) == set(properties)
    columns = {"phase", "iteration", "ready", "url", "models"}
    assert columns <= set(properties)


# --- the reconciler, against an API server in memory ---


class Server:
    """Stores what is applied; each time it is another generation. Pods of Deployments are ready once `available` is called."""

    def __init__(self, *objects: Json, refuses: dict[str, Refused] | None = None) -> None:
        self.objects = {(o["kind"], o["metadata"]["name"]): copy.deepcopy(o) for o in objects}
        self.refuses = refuses or {}
        self.written: list[str] = []
        self.states: list[Json] = []
        self.unlisted: dict[str, Refused] = {}
        """Kinds that may not be listed, and what the API server says."""

    async def get(self, kind: kinds.Kind, namespace: str, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get((kind.name, name)))

    async def list(self, kind: kinds.Kind, namespace: str | None, **selectors: str) -> list[Json]:
        if kind.name in self.unlisted:
            raise self.unlisted[kind.name]
        items = [o for (k, _), o in self.objects.items() if k == kind.name]
        if "label_selector" in selectors:
            label, _, value = selectors["label_selector"].partition("=")
            items = [o for o in items if o["metadata"].get("labels", {}).get(label) == value]
        if selectors.get("field_selector", "").startswith("metadata.name="):
            items = [o for o in items if o["metadata"]["name"] == selectors["field_selector"].partition("=")[2]]
        if selectors.get("field_selector", "").startswith("involvedObject"):
            uid = selectors["field_selector"].partition("=")[2]
            items = [o for o in items if o["involvedObject"]["uid"] == uid]
        return copy.deepcopy(items)

    async def apply(self, body: Json) -> Json:
        if body["kind"] in self.refuses:
            raise self.refuses[body["kind"]]
        key = body["kind"], body["metadata"]["name"]
        before = self.objects.get(key, {})
        self.written.append(body["kind"])
        about = {
            "uid": f"uid-{body['kind']}",
            "creationTimestamp": at(0),
            "generation": before.get("metadata", {}).get("generation", 0) + 1,
        }
        self.objects[key] = {**before, **copy.deepcopy(body), "metadata": {**body["metadata"], **about}}
        return self.objects[key]

    async def apply_status(self, body: Json) -> Json:
        self.states.append(body["status"])
        stored = self.objects[body["kind"], body["metadata"]["name"]]
        stored["status"] = copy.deepcopy(body["status"])
        stored["metadata"]["resourceVersion"] = str(int(stored["metadata"]["resourceVersion"]) + 1)
        return copy.deepcopy(stored)

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        return body

    async def delete(self, kind: kinds.Kind, namespace: str, name: str, uid: str = "") -> None:
        assert self.objects.pop((kind.name, name))["metadata"]["uid"] == uid

    def available(self, number: int = 1) -> None:
        thing = self.objects["Deployment", "s"]
        state = {"replicas": number, "updatedReplicas": number, "availableReplicas": number}
        thing["status"] = {"observedGeneration": thing["metadata"]["generation"], **state}


def looked(server: Server, *changes: Any, images: Images = IMAGES) -> list[float | None]:
    """Looks once, and again after each change; when it would look again."""

    async def scenario() -> list[float | None]:
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        known = Societies(server, images, keys=keys, writer=writer(server, metrics))  # type: ignore[arg-type]
        again = [await known.look(KEY, keys.state(KEY))]
        for change in changes:
            change(server)
            again.append(await known.look(KEY, keys.state(KEY)))
        return again

    return asyncio.run(scenario())


def test_a_society_comes_and_nothing_is_written_twice() -> None:
    server = Server(a_society(), a_run())
    looked(server, Server.available, lambda s: None)
    assert server.written == ["NetworkPolicy", "Service", "Deployment"]
    assert [conditions(state)["Ready"][1] for state in server.states] == ["Starting", "Serving"]


def test_a_copy_of_its_deployment_is_not_taken_for_it() -> None:
    """Also one without the label that names the child, and one that the API server lists first."""

    def copied(server: Server) -> None:
        copy_ = copy.deepcopy(server.objects["Deployment", "s"])
        copy_["metadata"] |= {"name": "a-copy", "uid": "uid-c", "labels": {"maft.dev/society": "s"}}
        copy_["metadata"]["annotations"]["maft.dev/images"] = json.dumps({"inference": "elsewhere:1"})
        other = copy.deepcopy(copy_)
        other["metadata"] |= {"name": "another", "labels": server.objects["Deployment", "s"]["metadata"]["labels"]}
        server.objects = {("Deployment", "a-copy"): copy_, ("Deployment", "another"): other, **server.objects}

    server = Server(a_society(), a_run())
    looked(server, Server.available, copied)
    assert server.written == ["NetworkPolicy", "Service", "Deployment"]
    assert (
        server.states[-1]["phase"] == "Ready" and server.states[-1]["images"]["inference"]["image"] == "registry/maft/inference:1"
    )


def spec(server: Server, **change: Any) -> None:
    thing = server.objects["Society", "s"]
    thing["spec"] |= change
    thing["metadata"]["generation"] += 1


def test_a_change_replaces_pods_and_another_number_only_counts() -> None:
    server = Server(a_society(), a_run())
    looked(server, Server.available, lambda s: spec(s, replicas=3), lambda s: spec(s, iteration=1))
    assert server.written[3:] == ["Deployment", "Deployment"]
    made = server.objects["Deployment", "s"]
    assert made["spec"]["replicas"] == 3 and "--iteration=1" in made["spec"]["template"]["spec"]["containers"][1]["args"]


def test_another_release_of_the_operator_replaces_no_pod_until_the_spec_changes() -> None:
    server, newer = Server(a_society(), a_run()), replace(IMAGES, tag="2", release="9.9.9")
    looked(server)
    before = copy.deepcopy(server.objects["Deployment", "s"]["spec"]["template"])
    looked(server, images=newer)
    assert server.objects["Deployment", "s"]["spec"]["template"] == before
    looked(server, lambda s: spec(s, replicas=2), images=newer)
    assert (
        server.objects["Deployment", "s"]["spec"]["template"] == before
        and server.objects["Deployment", "s"]["spec"]["replicas"] == 2
    )
    looked(server, lambda s: spec(s, mode="fast"), images=newer)
    assert [c["image"] for c in server.objects["Deployment", "s"]["spec"]["template"]["spec"]["containers"]] == [
        "registry/maft/inference:2",
        "registry/maft/debate:2",
    ]


def test_another_run_is_taken_up_with_its_bucket_keys_and_base() -> None:
    storage = {**STORAGE, "bucket": "other", "credentialsSecret": {"name": "keys-2"}}
    newer = a_run(storage=storage, model={"source": "org/other"})
    newer["metadata"] |= {"name": "r2", "uid": "uid-r2"}
    server = Server(a_society(), a_run(), newer)
    looked(server, Server.available)
    before = server.objects["Deployment", "s"]["spec"]["template"]
    looked(server, lambda s: spec(s, run="r2"))
    after = server.objects["Deployment", "s"]["spec"]["template"]
    assert server.states[-1]["models"] == list(wish().models) and server.states[-1]["iteration"] == 2
    of_old, of_new = (msgspec.json.encode(template["spec"]).decode() for template in (before, after))
    for words in ("s3://other/", "keys-2", "org/other", "default/r2"):
        assert words in of_new and words not in of_old, words
    assert "s3://bucket/" in of_old and "s3://bucket/" not in of_new and '"keys"' not in of_new


def gone(server: Server) -> None:
    del server.objects["MultiAgentFinetune", "r"]


def test_pods_go_on_and_scale_where_the_run_is_gone() -> None:
    server = Server(a_society(), a_run())
    looked(server, Server.available, gone, lambda s: spec(s, replicas=2))
    made = server.objects["Deployment", "s"]
    assert made["spec"]["replicas"] == 2 and len(made["spec"]["template"]["spec"]["containers"]) == 2
    assert made["metadata"]["annotations"][TEMPLATE] == note()
    last = server.states[-1]
    assert conditions(last)["Ready"] == ("True", "Serving") and conditions(last)["Stalled"] == ("True", "RunMissing")
    assert last["models"] == list(wish().models) and last["iteration"] == 2


@pytest.mark.parametrize("run", [None, a_run(GOING), a_run(method="debate")])
def test_without_a_run_to_serve_there_is_nothing(run: Json | None) -> None:
    server = Server(a_society(), *([run] if run else []))
    looked(server)
    assert server.written == [] and server.states[-1]["phase"] == "Waiting"


def test_what_cannot_be_read_is_told() -> None:
    server = Server(a_society(replicas="many"))
    looked(server)
    assert server.written == [] and conditions(server.states[-1])["Stalled"] == ("True", "InvalidSpec")


def test_an_ingress_changes_with_its_field_and_goes_with_it() -> None:
    server = Server(a_society(**OUTSIDE), a_run())
    host = OUTSIDE["ingress"]
    looked(
        server, Server.available, lambda s: spec(s, ingress={**host, "annotations": {"a": "b"}}), lambda s: spec(s, ingress=host)
    )
    assert server.written == ["NetworkPolicy", "Service", "Ingress", "Deployment", "Ingress", "Ingress"]
    looked(server, lambda s: s.objects["Society", "s"]["spec"].pop("ingress"))
    assert ("Ingress", "s") not in server.objects and ("Service", "s") in server.objects
    assert server.states[-1]["url"] == "http://s.default.svc/v1"


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refused(403, 'User "maft" cannot list resource "services"'), "OperatorForbidden"),
        (Refused(413, "Service objects with its label take more than 64 MiB"), "TooManyObjects"),
    ],
)
def test_one_that_cannot_be_looked_at_says_why(refusal: Refused, reason: str) -> None:
    def look_in_vain(server: Server) -> None:
        server.unlisted = {"Service": refusal}
        with pytest.raises(Refused):
            looked(server)

    fresh, served = Server(a_society(), a_run()), Server(a_society(), a_run())
    look_in_vain(fresh)
    assert conditions(fresh.states[-1]) == {
        "Ready": ("False", reason),
        "Reconciling": ("False", reason),
        "Stalled": ("True", reason),
    }
    looked(served, Server.available)
    served.objects["Society", "s"]["metadata"]["generation"] = 2
    look_in_vain(served)
    whole = served.states[-1]
    assert conditions(whole) == {"Ready": ("True", "Serving"), "Reconciling": ("False", reason), "Stalled": ("True", reason)}
    assert (whole["phase"], whole["observedGeneration"], whole["url"]) == ("Ready", 2, "http://s.default.svc/v1")
    assert str(refusal) in by_type(whole["conditions"])["Stalled"]["message"]
    served.unlisted = {}
    looked(served)
    assert conditions(served.states[-1])["Stalled"] == ("False", "NotStalled")


def test_an_operator_that_may_not_list_ingresses_serves_societies_all_the_same() -> None:
    server = Server(a_society(), a_run())
    server.unlisted = {"Ingress": Refused(403, "ingresses is forbidden")}
    looked(server, Server.available)
    assert server.written == ["NetworkPolicy", "Service", "Deployment"] and server.states[-1]["phase"] == "Ready"


def test_the_old_port_and_the_ingress_stay_until_a_pod_with_the_certificate_is_ready() -> None:
    """The pod of before is a stranger's to nobody: it carries its ReplicaSet's name, as the API server has it."""
    server = Server(a_society(**OUTSIDE), a_run(), a_pod("http", "old"))
    ports, backends = [], []

    def noted(server: Server) -> None:
        ports.append([p["name"] for p in server.objects["Service", "s"]["spec"]["ports"]])
        rule = server.objects["Ingress", "s"]["spec"]["rules"][0]["http"]["paths"][0]
        backends.append(rule["backend"]["service"]["port"]["name"])

    def pods_are(server: Server, *those: Json) -> None:
        noted(server)
        server.objects = {key: o for key, o in server.objects.items() if key[0] != "Pod"}
        server.objects |= {("Pod", p["metadata"]["name"]): p for p in those}

    new = a_pod("https", "new")
    looked(
        server,
        lambda s: spec(s, tls={"secretName": "c"}),
        lambda s: pods_are(s, a_pod("http", "old"), new),
        lambda s: pods_are(s, new),
        noted,
    )
    assert ports == [["http", "https"], ["http", "https"], ["https"]]
    assert backends == ["http", "https", "https"]


def test_somebody_elses_service_is_not_taken_over() -> None:
    other = {"kind": "Service", "metadata": {"name": "s", "namespace": "default", "uid": "x", "labels": {}}, "spec": {}}
    server = Server(a_society(), a_run(), other)
    assert looked(server)[0] is not None
    state = conditions(server.states[-1])
    assert state["Stalled"] == ("True", "NameTaken") and "Service" not in server.written


def test_a_refusal_is_told() -> None:
    quota = Refused(403, 'deployments.apps "s" is forbidden: exceeded quota: few')
    server = Server(a_society(), a_run(), refuses={"Deployment": quota})
    looked(server)
    assert conditions(server.states[-1])["Stalled"] == ("True", "QuotaExceeded")


def test_one_that_is_deleted_is_forgotten() -> None:
    assert looked(Server(a_run())) == [None]
    going = a_society()
    going["metadata"]["deletionTimestamp"] = at(0)
    server = Server(going, a_run())
    assert looked(server) == [None] and server.written == []


# --- who follows a run ---


def test_a_run_that_changes_wakes_the_societies_that_name_it() -> None:
    async def scenario() -> list[list[str]]:
        queue, metrics = Queue(), Metrics()
        watched = Watched(Keys(queue, metrics), metrics)
        registry(watched, (kinds.RUN, kinds.SOCIETY))
        due = []
        body, version = {**a_run(GOING)}, iter("123456789")
        body["metadata"] |= {"creationTimestamp": at(0)}

        def run(kind: str, **state: Any) -> None:
            body["metadata"]["resourceVersion"] = next(version)
            watched.run(kind, {**body, "status": {**body["status"], **state}})

        for event in (
            lambda: watched.parent(kinds.SOCIETY, "ADDED", a_society()),
            lambda: run("MODIFIED"),
            lambda: run("MODIFIED", progress={"percent": 50}),
            lambda: run("MODIFIED", done={"train": "1-2"}),
            lambda: body["metadata"].update(generation=2) or run("MODIFIED", done={"train": "1-2"}),  # another podTemplate, say
            lambda: run("DELETED"),
            lambda: watched.parent(kinds.SOCIETY, "DELETED", a_society()),
            lambda: run("ADDED"),
        ):
            event()
            due.append(sorted([await queue.get() for _ in range(len(queue))]))
            for keys in due[-1]:
                queue.done(keys)
        return due

    run, society = "default/r", KEY
    both = [run, society]
    assert asyncio.run(scenario()) == [[society], both, [run], both, both, [society], [], [run]]


def test_of_runs_that_nobody_follows_nothing_is_remembered() -> None:
    """What stays would be as many entries as runs were ever deleted; who comes to follow one would not hear of the same again."""
    following = Following()
    for body in (None, a_run()):
        assert following.woken("default/r", body) == []
        following.note(kinds.SOCIETY, KEY, a_society())
        assert following.woken("default/r", body) == [KEY]
        following.forget(KEY)
    assert following.woken("default/r", a_run()) == []


# --- what runs in the server's container beside the server ---


@contextlib.contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on this machine that answers so; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            thread.join()


def script(text: str, port: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-S", "-c", text.format(port)], stderr=subprocess.DEVNULL)


@pytest.mark.programs
@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_probe_of_the_server_asks_it(status: int, code: int) -> None:
    with answering(status) as port:
        assert script(objects._HEALTHY, port).wait(20) == code
    assert script(objects._HEALTHY, port).wait(20) == 1  # nobody listens there any more


@pytest.mark.programs
def test_the_server_waits_for_the_program_beside_it() -> None:
    with answering(200) as port:
        waiting = script(objects._UNTIL_IT_ENDS, port)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
    assert waiting.wait(20) == 0
