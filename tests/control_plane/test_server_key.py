"""The key of a run's servers: when its Secret is made, who gets it, and what becomes of it over restarts, losses and releases."""

import asyncio
import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from kube_objects import IMAGES, START, a_run, condition, owner, planned, replica, waiting
from test_cluster_backend import Server, stored

from maft.spec import SERVER_KEY
from maft_operator.cluster import images, manifests, server_key
from maft_operator.cluster.api import Refused
from maft_operator.cluster.backend import ClusterBackend
from maft_operator.cluster.images import Images
from maft_operator.cluster.manifests import Json
from maft_operator.plan.reconcile import Refusal, reconcile
from maft_operator.spec.parse import Run

RUN = a_run()
NAME = "r-key-uid-of-r"
KEYED = replace(IMAGES, keyed=True)
HAS_ONE: Json = {"startTime": "2026-01-01T00:00:00Z", "serverKey": NAME}
OF_AN_EARLIER_RELEASE: Json = {"startTime": "2026-01-01T00:00:00Z"}


class Keeper(Server):
    """The API server in memory, as it keeps Secrets from the operator: it makes them, once, and shows none."""

    def __init__(self, *objects: Json, kept: Iterable[Json] = (), refuses: dict[str, Refused] | None = None) -> None:
        super().__init__(*objects, refuses=refuses)
        self.kept = {secret["metadata"]["name"]: secret for secret in kept}

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        await super().create(body, namespace)
        if body["kind"] == "Secret" and body["metadata"]["name"] in self.kept:
            raise Refused(409, f'secrets "{body["metadata"]["name"]}" already exists')
        if body["kind"] == "Secret":
            self.kept[body["metadata"]["name"]] = copy.deepcopy(body)
        return body


def look(server: Server, status: Json | None = None, *, offered: Images = KEYED, run: Run = RUN) -> tuple[Any, tuple[Refusal, ...]]:
    """One turn of the loop; the Snapshot and what was refused."""
    one = ClusterBackend(server, owner(run), planned(run), offered, now=START, applied={}, status=status)  # type: ignore[arg-type]
    outcome = asyncio.run(reconcile(one, planned(run)))
    return outcome.snapshot, outcome.refusals


def child(name: str, *, keyed: bool, finished: bool = False) -> Json:
    """A child of the run as it stands on the cluster."""
    graph, used = planned(RUN), images.pins(IMAGES, {}, {}, {}).used_by(IMAGES)
    item = next(i for i in (*graph.tasks, *graph.servers) if i.name == name)
    *_, made = manifests.objects(item, owner(RUN), replace(used, key=NAME if keyed else ""))
    return {**stored(made), "status": {"conditions": [condition("Complete")] if finished else []}}


def pod_without_key() -> Json:
    return replica(waiting("CreateContainerConfigError", f'secret "{NAME}" not found'))


def variables(made: Json) -> dict[str, Json]:
    [container] = made["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable for variable in container["env"]}


# --- when it is made ---


def test_the_secret_is_there_before_anything_else_of_the_run() -> None:
    server = Keeper()
    snapshot, refusals = look(server)
    assert [asked for asked in server.asked if asked[0] != "list"] == [
        *[("create", "Secret", ""), ("apply", "NetworkPolicy", "r-tasks"), ("apply", "Job", "r-0-prepare")]
    ]
    assert (snapshot.server_key, refusals) == (NAME, ())
    [secret] = server.kept.values()
    assert len(secret["stringData"]["key"]) >= 40 and secret["immutable"] is True
    [reference] = secret["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"], reference["controller"]) == ("MultiAgentFinetune", "uid-of-run", True)


def test_no_two_runs_have_the_same_key() -> None:
    keys = set()
    for _ in range(3):
        server = Keeper()
        look(server)
        keys |= {secret["stringData"]["key"] for secret in server.kept.values()}
    assert len(keys) == 3


def test_it_is_asked_for_once_and_never_read() -> None:
    server = Keeper(child("r-0-prepare", keyed=True))
    look(server, HAS_ONE)
    assert [verb for verb, kind, _ in server.asked if kind == "Secret"] == []


def test_an_operator_that_was_killed_after_it_made_the_secret_goes_on_with_that() -> None:
    server = Keeper()
    look(server)
    [before] = copy.deepcopy([*server.kept.values()])
    again = Keeper(child("r-0-prepare", keyed=True), kept=[before])
    snapshot, refusals = look(again, {})
    assert (snapshot.server_key, refusals, [*again.kept.values()]) == (NAME, (), [before])
    assert not [asked for asked in again.wrote() if asked[0] == "delete"]


def test_where_no_secret_can_be_made_nothing_else_is_and_the_run_says_so() -> None:
    server = Keeper(refuses={"Secret": Refused(403, "secrets is forbidden: exceeded quota: small")})
    _, refusals = look(server, HAS_ONE)
    assert refusals == (Refusal("r-0-prepare", "secrets is forbidden: exceeded quota: small"),)
    assert server.wrote() == [("create", "Secret", "")]


# --- who gets it ---


def test_servers_and_those_who_ask_them_get_it_and_nobody_else() -> None:
    graph, keyed = planned(RUN), replace(IMAGES, key=NAME)
    for item in (*graph.tasks, *graph.servers):
        *_, made = manifests.objects(item, owner(RUN), keyed)
        expected = {"name": SERVER_KEY, "valueFrom": {"secretKeyRef": {"name": NAME, "key": "key"}}}
        has_it = item in graph.servers or bool(getattr(item, "servers", ()))
        assert variables(made).get(SERVER_KEY) == (expected if has_it else None), item.name
        assert NAME not in " ".join(made["spec"]["template"]["spec"]["containers"][0]["args"])


def test_without_one_nothing_of_it_stands_anywhere() -> None:
    graph = planned(RUN)
    for item in (*graph.tasks, *graph.servers):
        assert SERVER_KEY not in str(manifests.objects(item, owner(RUN), IMAGES))
        assert server_key.NOTE not in str(manifests.objects(item, owner(RUN), IMAGES))


# --- whose runs have one ---

CASES = {
    "a run that begins": ({}, [], True, NAME),
    "where keys are not wanted": ({}, [], False, ""),
    "it had one, and keys are not wanted any more": (HAS_ONE, [], False, NAME),
    "of an earlier release: its programs know of no key": (OF_AN_EARLIER_RELEASE, [], True, ""),
    "of an earlier release, whose status is lost": ({}, [child("r-0-prepare", keyed=False)], True, ""),
    "its status is lost": ({}, [child("r-0-prepare", keyed=True)], False, NAME),
    "its status and children are lost": ({}, [], True, NAME),
    "restored under another uid": ({**HAS_ONE, "serverKey": "r-key-before"}, [], True, NAME),
    "a status of nonsense": ({**HAS_ONE, "serverKey": {"a": 1}}, [], True, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_whether_a_run_has_a_key_is_settled_as_it_begins(case: str) -> None:
    status, jobs, offered, expected = CASES[case]
    assert server_key.settled(NAME, status, {"Job": jobs}, offered=offered) == expected


def test_a_run_of_an_earlier_release_gets_servers_without_a_key() -> None:
    """Its clients are of that release, too (status.images), and would not send any."""
    before = [child(name, keyed=False, finished=True) for name in ("r-0-prepare", "r-0-preflight")]
    server = Keeper(*before)
    made: list[Json] = []

    async def apply(body: Json) -> Json:
        made.append(body)
        return body | {"metadata": body["metadata"] | {"uid": "new", "generation": 1}}

    server.apply = apply  # type: ignore[method-assign]
    look(server, OF_AN_EARLIER_RELEASE)
    [deployment] = [body for body in made if body["kind"] == "Deployment"]
    assert SERVER_KEY not in variables(deployment)
    assert not server.kept


# --- lost ---


def test_a_lost_secret_is_made_again_and_everybody_takes_the_new_one() -> None:
    """A pod that starts again does not find it. What has the old key would not agree with what gets the new one."""
    holders = child("r-server", keyed=True), child("r-0-evaluate", keyed=True)
    others = child("r-0-prepare", keyed=True, finished=True), child("r-0-preflight", keyed=True, finished=True)
    server = Keeper(*holders, *others, pod_without_key())
    look(server, HAS_ONE)
    assert [*server.kept] == [NAME]
    deleted = {(kind, name) for verb, kind, name in server.asked if verb == "delete"}
    assert deleted == {("Deployment", "r-server"), ("Job", "r-0-evaluate")}


def test_a_secret_that_is_there_after_all_changes_nothing() -> None:
    """The pod's kubelet has not heard of it yet."""
    checks = (child(name, keyed=True, finished=True) for name in ("r-0-prepare", "r-0-preflight"))
    holders = child("r-server", keyed=True), child("r-0-evaluate", keyed=True)
    server = Keeper(*checks, *holders, pod_without_key(), kept=[{"metadata": {"name": NAME}}])
    look(server, HAS_ONE)
    assert ("create", "Secret", "") in server.asked
    assert not [asked for asked in server.asked if asked[0] == "delete"]
