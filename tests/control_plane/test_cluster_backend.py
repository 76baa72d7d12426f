"""The backend on a cluster and the controller against an API server in memory: what they ask for, what they make of refusals."""

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from conftest import resource as small_resource
from kube_objects import (
    IMAGES,
    RUNNING,
    START,
    STORAGE,
    a_run,
    at,
    deployment,
    done,
    ended,
    event,
    failed,
    job,
    owner,
    planned,
    pod,
    terminating,
    unscheduled,
    waiting,
)
from statuses import ALL, PREPARED, WRONG, state, summarized
from test_upgrade import NEW, OLD

from maft.summaries import PrepareSummary
from maft_operator.cluster import explaining, images, kinds, manifests, reasons
from maft_operator.cluster.api import Refused
from maft_operator.cluster.backend import ClusterBackend
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.drift import Sent
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.looks import expiry, sooner
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.recorder import Recorder
from maft_operator.cluster.writing import Writer
from maft_operator.plan.reconcile import Refusal, reconcile
from maft_operator.spec.parse import Run

RUN = a_run()
KEY = "default/r"
Asked = tuple[str, str, str]  # verb, kind, name


class Server:
    """Objects by kind. refuses: by kind, what it says to every request; asked: what was asked for."""

    def __init__(self, *objects: Json, refuses: dict[str, Refused] | None = None) -> None:
        self.objects: dict[str, list[Json]] = {}
        for thing in objects:
            self.objects.setdefault(thing["kind"], []).append(copy.deepcopy(thing))
        self.refuses = refuses or {}
        self.asked: list[Asked] = []

    def _ask(self, verb: str, kind: str, name: str = "") -> None:
        self.asked.append((verb, kind, name))
        if kind in self.refuses:
            raise self.refuses[kind]

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        self._ask("get", kind.name, name)
        return next(iter(self.objects.get(kind.name, [])), None)

    async def list(self, kind: Kind, namespace: str | None, **selectors: str) -> Sequence[Json]:
        self._ask("list", kind.name)
        return self.objects.get(kind.name, [])

    async def list_served(self, kind: Kind, namespace: str | None, **selectors: str) -> Sequence[Json] | None:
        return await self.list(kind, namespace, **selectors)

    async def apply(self, body: Json) -> Json:
        self._ask("apply", body["kind"], body["metadata"]["name"])
        return {**body, "metadata": {**body["metadata"], "uid": "new", "generation": 1}}

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        self._ask("create", body["kind"])
        return body

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> None:
        self._ask("delete", kind.name, name)

    async def apply_status(self, body: Json) -> Json:
        return await self._write("apply_status", body["metadata"]["name"], body["status"], merge=False)

    async def patch_status(self, resource: Json, status: Json) -> Json:
        return await self._write("patch_status", resource["metadata"]["name"], status, merge=True)

    async def _write(self, verb: str, name: str, status: Json, *, merge: bool) -> Json:
        self._ask(verb, "status", name)
        [run] = self.objects["MultiAgentFinetune"]
        run["status"] = {**(run["status"] if merge else {}), **status}
        run["metadata"]["resourceVersion"] = str(int(run["metadata"]["resourceVersion"]) + 1)
        return copy.deepcopy(run)

    def wrote(self) -> Sequence[Asked]:
        return [asked for asked in self.asked if asked[0] not in ("get", "list")]


class Sending(Server):
    """sent: what was applied."""

    def __init__(self, *objects: Json) -> None:
        super().__init__(*objects)
        self.sent: list[Json] = []

    async def apply(self, body: Json) -> Json:
        self.sent.append(body)
        return await super().apply(body)


def backend(server: Server, images: Images = IMAGES, *, run: Run = RUN, fresh: bool = False) -> ClusterBackend:
    moment = START + timedelta(seconds=1000)
    return ClusterBackend(server, owner(run), planned(run), images, now=moment, applied={}, fresh=fresh)  # type: ignore[arg-type]


def stored(thing: Json) -> Json:
    """As a child of the run on a server."""
    child = copy.deepcopy(thing)
    child["metadata"] |= {"uid": f"uid-{thing['metadata']['name']}", "generation": 1, "creationTimestamp": at(0)}
    child["metadata"].setdefault("ownerReferences", [{"uid": "uid-of-run", "controller": True}])
    return child


def wanted(*kinds_: str) -> list[Json]:
    graph, used = planned(RUN), images.pins(IMAGES, {}, {}, {}).used_by(IMAGES)
    objects = [o for item in (graph.tasks[0], *graph.servers) for o in manifests.objects(item, owner(RUN), used)]
    once = {(o["kind"], o["metadata"]["name"]): o for o in objects}  # several tasks have one policy
    return [o for o in once.values() if o["kind"] in kinds_]


def test_a_fresh_run_is_not_looked_for() -> None:
    server = Server()
    outcome = asyncio.run(reconcile(backend(server, fresh=True), planned(RUN)))
    made = [("NetworkPolicy", "r-tasks"), ("Job", "r-0-prepare")]
    # Whether somebody else's has its name is asked before.
    assert server.asked == [asked for kind, name in made for asked in (("list", kind, ""), ("apply", kind, name))]
    assert [item.name for item in outcome.step.create] == ["r-0-prepare"]


@pytest.mark.parametrize("isolated", [False, True])
def test_a_look_lists_each_kind_once(isolated: bool) -> None:
    server = Server()
    asyncio.run(backend(server, Images("p", "1", isolated=isolated)).observe())
    listed = [kind.name for kind in kinds.children(isolated=isolated)]
    assert server.asked == [("list", kind, "") for kind in listed]
    assert ("NetworkPolicy" in listed) == isolated


def test_what_is_as_wanted_is_left_alone_and_what_differs_is_taken_back() -> None:
    [wish] = wanted("Job")
    same, other = stored(wish), stored(wish)
    other["spec"]["backoffLimit"] = 99
    for child, writes in ((same, []), (other, [("apply", "Job", "r-0-prepare")])):
        child["metadata"]["labels"] |= {"of": "somebody"}
        server = Server(child, *map(stored, wanted("NetworkPolicy")))
        outcome = asyncio.run(reconcile(backend(server), planned(RUN)))
        assert [item.name for item in outcome.step.keep] == ["r-0-prepare"]
        assert [w for w in server.wrote() if w[1] == "Job"] == writes


def under_another_template(*pods: Json, note: str | None = "") -> list[Asked]:
    """What is done about a Job under way when its run has got a podTemplate since. note: of the one that it was made with."""
    run = a_run(podTemplate={"spec": {"nodeSelector": {"gpu": "a"}}})
    graph, used = planned(run), images.pins(IMAGES, {}, {}, {}).used_by(IMAGES)
    [made] = [stored(o) for o in manifests.objects(graph.tasks[0], owner(RUN), used) if o["kind"] == "Job"]
    made["metadata"]["annotations"][images.TEMPLATE] = note
    if note is None:
        del made["metadata"]["annotations"][images.TEMPLATE]
    for pod_ in pods:
        pod_["metadata"]["ownerReferences"] = [{"kind": "Job", "uid": made["metadata"]["uid"], "controller": True}]
    server = Server(made, *pods)
    asyncio.run(reconcile(backend(server, run=run), graph))
    return [asked for asked in server.wrote() if asked[1] == "Job"]


def of_first(phase: str, state: Json | None = None, **more: Any) -> Json:
    return pod("r-0-prepare", phase, state, **more)


ANEW = [("delete", "Job", "r-0-prepare")]


@pytest.mark.parametrize(
    ("pods", "writes"),
    [
        ([], ANEW),  # a quota, or a queue
        ([unscheduled("r-0-prepare", "0/3 nodes")], ANEW),
        ([of_first("Pending", waiting("ErrImagePull", "no such host"))], ANEW),
        ([of_first("Failed", ended(137, reason="OOMKilled"))], ANEW),  # the next attempt comes
        ([of_first("Running", RUNNING)], []),
        ([of_first("Failed", ended(1)), of_first("Running", RUNNING, number=1)], []),
        ([of_first("Unknown", RUNNING)], []),
        ([terminating(of_first("Pending", waiting("ContainerCreating")), 900)], []),  # its node is lost
    ],
)
def test_a_job_that_stands_still_is_made_anew_for_another_pod_template(pods: list[Json], writes: list[Asked]) -> None:
    """Kubernetes lets no template of a Job be changed: what it waits for may be what was corrected."""
    assert under_another_template(*pods) == writes
    own = manifests.objects(planned(RUN).tasks[0], owner(a_run(podTemplate={"spec": {"nodeSelector": {"gpu": "a"}}})), IMAGES)
    [same] = [o["metadata"]["annotations"][images.TEMPLATE] for o in own if o["kind"] == "Job"]
    assert under_another_template(*pods, note=same) == under_another_template(*pods, note=None) == []


def test_what_the_server_writes_in_other_words_is_sent_once() -> None:
    [wish] = wanted("Job")
    other = stored(wish)
    other["spec"]["backoffLimit"] = 99
    other["metadata"]["uid"] = "new"

    async def twice() -> Sequence[Asked]:
        server, applied = Server(other, *map(stored, wanted("NetworkPolicy"))), dict[str, Sent]()
        for _ in range(2):
            again = ClusterBackend(server, owner(RUN), planned(RUN), IMAGES, now=START, applied=applied)  # type: ignore[arg-type]
            await reconcile(again, planned(RUN))
        return server.wrote()

    assert asyncio.run(twice()) == [("apply", "Job", "r-0-prepare")]


def test_a_queue_suspends_and_admits_a_job_and_nothing_is_written() -> None:
    """Also of a run that names no queue: a namespace may have one for all."""
    [wish] = wanted("Job")
    assert "suspend" not in wish["spec"]

    async def looks() -> Sequence[Asked]:
        child, wrote, applied = stored(wish), [], dict[str, Sent]()
        for generation in range(1, 50):
            child["spec"]["suspend"] = generation % 2 == 1
            child["metadata"]["generation"] = generation
            server = Server(child, *map(stored, wanted("NetworkPolicy")))
            again = ClusterBackend(server, owner(RUN), planned(RUN), IMAGES, now=START, applied=applied)  # type: ignore[arg-type]
            await reconcile(again, planned(RUN))
            wrote += server.wrote()
        return wrote

    assert asyncio.run(looks()) == []


def test_a_refusal_comes_back_and_the_other_objects_are_made() -> None:
    server = Server(refuses={"Service": Refused(403, "exceeded quota: services")})
    [item] = planned(RUN).servers
    refusals = asyncio.run(backend(server).create(item))
    assert refusals == (Refusal("r-server", "exceeded quota: services"),)
    assert [kind for verb, kind, _ in server.asked if verb == "apply"] == ["NetworkPolicy", "Deployment"]


@pytest.mark.parametrize(
    "error",
    [
        Refused(409, "the object has been modified"),
        Refused(403, "because it is being terminated"),
        Refused(422, "Only one reference can have Controller set to true"),
    ],
)
def test_what_passes_by_itself_is_no_refusal(error: Refused) -> None:
    [item] = planned(RUN).servers
    assert asyncio.run(backend(Server(refuses={"Service": error})).keep(item)) == ()


def test_events_explain_what_nothing_else_does_and_may_be_forbidden() -> None:
    waits = stored(job("r-0-prepare"))
    failure = event("uid-r-0-prepare", "FailedCreate", "exceeded quota: small")
    snapshot = asyncio.run(backend(Server(waits, {**failure, "kind": "Event"})).observe())
    assert [trouble.message for trouble in snapshot.troubles] == ["exceeded quota: small"]
    forbidden = asyncio.run(backend(Server(waits, refuses={"Event": Refused(403, "events is forbidden")})).observe())
    assert (forbidden.troubles, forbidden.observed) == ((), snapshot.observed)


def test_a_run_that_waits_for_what_may_not_be_read_goes_on_and_the_right_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its Job makes no pod, for a quota or a webhook does not let it; the Event that says so is forbidden, as are our own ones."""
    explaining.say_unread.cache_clear()
    why = 'events is forbidden: User "system:serviceaccount:maft-system:x" cannot list resource "events" in API group ""'
    waits = stored(job("r-0-prepare"))
    waits["metadata"]["ownerReferences"] = [{"uid": "u", "controller": True}]  # of `resource`
    server = Server(resource(state(job("r-0-prepare"))), waits, refuses={"Event": Refused(403, why)})
    for _ in range(3):
        again, *_ = look(server)
        assert again is not None  # by itself, and not by the back-off of a look that failed
    assert ("list", "Event", "") in server.asked
    [run] = server.objects["MultiAgentFinetune"]
    assert {(c["type"], c["reason"]) for c in run["status"]["conditions"]} >= {("Progressing", "Working")}
    [line] = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert line.startswith(f"events in namespace default cannot be read, so it is not told why pods there wait: {why}; add the")


def test_children_of_a_namesake_are_not_ours() -> None:
    other = stored(job("r-0-prepare"))
    other["metadata"]["ownerReferences"] = [{"uid": "of another", "controller": True}]
    assert asyncio.run(backend(Server(other)).observe()).observed.tasks == {}


def test_what_the_run_only_owns_and_does_not_control_is_somebody_elses() -> None:
    """Whoever wants an object to go with a run may name it as an owner."""
    other = stored(deployment())
    other["metadata"]["ownerReferences"] = [{"kind": kinds.RUN.name, "uid": "uid-of-run"}]
    server = Server(other)
    assert asyncio.run(backend(server).observe()).observed.servers == {}
    [item] = planned(RUN).servers
    assert asyncio.run(backend(server).create(item)) == (
        Refusal("r-server", "the Deployment r-server exists and is not the run's"),
    )


def copied(thing: Json, name: str = "a-copy") -> Json:
    """With its labels and its owner under another name, as `kubectl get -o yaml` and an editor leave it."""
    return {**thing, "metadata": {**thing["metadata"], "name": name, "uid": f"uid-{name}"}}


@pytest.mark.parametrize("first", ["the copy", "the child"])
def test_a_copy_of_a_child_under_another_name_is_nobodys(first: str) -> None:
    """Whatever has become of it: it would speak for the real one, and nothing would ever delete it."""
    children = [stored(job("r-0-prepare")), stored(deployment(ready=1)), *map(stored, wanted("Service", "NetworkPolicy"))]
    copies = [copied(stored(failed("r-0-prepare"))), copied(stored(deployment())), *map(copied, children[2:])]
    server = Server(*(copies + children if first == "the copy" else children + copies))
    snapshot = asyncio.run(backend(server).observe())
    assert {name: task.status for name, task in snapshot.observed.tasks.items()} == {"r-0-prepare": "running"}
    assert {name: one.ready for name, one in snapshot.observed.servers.items()} == {"r-server": True}
    assert (snapshot.ended, snapshot.troubles) == ({}, ())


def test_a_copy_alone_is_no_child() -> None:
    alone = Server(copied(stored(done("r-0-prepare"))), copied(stored(deployment(ready=1))))
    outcome = asyncio.run(reconcile(backend(alone), planned(RUN)))
    assert (outcome.snapshot.observed.tasks, outcome.snapshot.observed.servers) == ({}, {})
    assert [item.name for item in outcome.step.create] == ["r-0-prepare"]


def test_a_child_whose_label_was_changed_gets_it_back() -> None:
    """Only what differs is sent: the template of a Job cannot be changed, and queues fill it in."""
    [child] = map(stored, wanted("Job"))
    child["metadata"]["labels"] |= {manifests.CHILD: "r-9-debate"}
    child["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "of-a-queue"}
    server = Sending(child, *map(stored, wanted("NetworkPolicy")))
    assert asyncio.run(reconcile(backend(server), planned(RUN))).refusals == ()
    [sent] = server.sent
    assert (sent["metadata"]["name"], sent["metadata"]["labels"][manifests.CHILD]) == ("r-0-prepare", "r-0-prepare")
    assert sent["spec"]["template"] == child["spec"]["template"]


def test_what_is_somebody_elses_is_not_taken_over() -> None:
    [item] = planned(RUN).servers
    theirs = {"kind": "Deployment", "metadata": {"name": "r-server", "namespace": "default", "uid": "theirs"}}
    server = Server(theirs)
    [refusal] = asyncio.run(backend(server).create(item))
    assert refusal == Refusal("r-server", "the Deployment r-server exists and is not the run's")
    assert reasons.refusal_reason(refusal.message) == reasons.NAME_TAKEN
    assert ("apply", "Deployment", "r-server") not in server.asked
    before = {"kind": kinds.RUN.name, "uid": "before", "controller": True}
    namesakes = {**theirs, "metadata": {**theirs["metadata"], "ownerReferences": [before]}}
    server = Server(namesakes)  # of a run that was deleted: the API server says for itself that it is not ready
    assert asyncio.run(backend(server).create(item)) == ()
    assert ("apply", "Deployment", "r-server") in server.asked


def test_deleting_spares_what_is_going_already() -> None:
    going = stored(deployment())
    going["metadata"]["deletionTimestamp"] = at(900)
    server = Server(going, *map(stored, wanted("Service", "NetworkPolicy")))

    async def scenario() -> None:
        one = backend(server)
        await one.observe()
        await one.delete("r-server")
        await one.delete("nobody")

    asyncio.run(scenario())
    assert server.wrote() == [("delete", "Service", "r-server"), ("delete", "NetworkPolicy", "r-server")]


# --- the controller ---


def resource(status: Json | None, **spec: Any) -> Json:
    made = small_resource("r", **{"agents": 2, "storage": STORAGE, **spec})
    metadata = {
        "name": "r",
        "namespace": "default",
        "uid": "u",
        "generation": 1,
        "resourceVersion": "7",
        "creationTimestamp": at(0),
    }
    return {**made, "metadata": metadata, **({} if status is None else {"status": status})}


def look(server: Server, images: Images = IMAGES) -> tuple[float | None, Keys, Watched]:
    """One reconcile: the delay until the next one, and what is remembered."""

    async def scenario() -> tuple[float | None, Keys, Watched]:
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        recorder = Recorder(server)  # type: ignore[arg-type]
        made = Controller(server, images, keys=keys, writer=Writer(server, metrics, recorder))  # type: ignore[arg-type]
        again = await made.reconcile(KEY, keys.state(KEY))
        await recorder.send()
        return again, keys, Watched(keys, metrics)

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("delays", "soonest"),
    [
        ((0.0, 5.0), 0.0),  # at once is not never
        ((0.0, None), 0.0),
        ((3.0, 5.0), 3.0),
        ((None, 5.0), 5.0),
        ((None, None), None),
        ((-2.0, None), -2.0),
    ],
)
def test_the_sooner_of_two_looks(delays: tuple[float | None, float | None], soonest: float | None) -> None:
    assert sooner(*delays) == soonest


def test_a_finished_run_of_release_0_1_is_written_anew_at_the_first_look() -> None:
    server = Server(resource(OLD))
    delay, keys, watched = look(server)
    assert delay is None
    assert server.wrote() == [("patch_status", "status", "r"), ("apply_status", "status", "r")]
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"] == NEW
    assert keys.is_echo(KEY, run["metadata"]["resourceVersion"])
    watched.run("MODIFIED", run)
    assert watched.settled == {KEY}


def test_a_run_under_way_of_release_0_1_is_written_anew_and_goes_on() -> None:
    under_way = {**OLD, "phase": "Training", "conditions": []}
    del under_way["completionTime"]
    server = Server(resource(under_way))
    look(server)
    assert [verb for verb, _, _ in server.wrote()][:5] == ["patch_status", "apply_status", "apply", "apply", "apply_status"]
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"]["iterations"] == NEW["iterations"]


def test_a_status_of_today_is_not_patched() -> None:
    server = Server(resource(state(*ALL)))
    assert look(server)[0] is None
    assert server.wrote() == []


@pytest.mark.parametrize("spec", [{"storage": None}, {"agents": 10**5}])
def test_a_run_that_cannot_be_read_keeps_what_it_had_in_the_new_shape(spec: Json) -> None:
    """It had begun, so it waits for a release that can read it, and what it has stays as it is."""
    under_way = {**OLD, "phase": "Training", "conditions": []}
    server = Server(resource(under_way, **spec), *map(stored, wanted("Deployment")))
    look(server)
    [run] = server.objects["MultiAgentFinetune"]
    assert (run["status"]["phase"], run["status"]["iterations"]) == ("Training", NEW["iterations"])
    assert {(c["type"], c["status"], c["reason"]) for c in run["status"]["conditions"]} >= {("Progressing", "False", "NewerSpec")}
    assert {kind for _, kind, _ in server.wrote()} == {"status", "Event"}


@pytest.mark.parametrize(
    ("status", "training", "phase"),
    [(None, {}, "Rejected"), (None, {"gpus": 0}, "Preparing"), (state(PREPARED), {}, "Preparing")],
)
def test_where_the_clusters_gpus_serve_alone_a_run_that_trains_does_not_begin(
    status: Json | None, training: Json, phase: str
) -> None:
    """One that has begun goes on."""
    server = Server(resource(status, training=training))
    look(server, replace(IMAGES, pods=PodSettings(gpu_resource="gpu.intel.com/xe")))
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"]["phase"] == phase
    refusal = "gpuResource: gpu.intel.com/xe, as the operator has it; training needs CUDA or ROCm"
    assert (refusal in str(run["status"]["conditions"])) is (phase == "Rejected")


def test_a_run_that_never_began_is_rejected() -> None:
    server = Server(resource(None, storage=None))
    look(server)
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"]["phase"] == "Rejected"
    [accepted] = [c for c in run["status"]["conditions"] if c["type"] == "Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")


def test_a_field_that_is_not_known_is_told_once_and_the_run_begins() -> None:
    server = Server(resource(None, scheduling={"gang": "Auto"}))
    events: list[Json] = []

    async def create(body: Json, namespace: str | None = None) -> Json:
        events.append(body)
        return body

    server.create = create  # type: ignore[method-assign]
    for _ in range(2):
        look(server)
    [run] = server.objects["MultiAgentFinetune"]
    [line] = run["status"]["warnings"]
    assert "spec.scheduling," in line
    assert run["status"]["phase"] == "Preparing"
    assert [e["message"].partition(";")[0] for e in events if e["reason"] == "OperatorWarning"] == [
        line.removeprefix("operator: ").partition(";")[0]
    ]


def test_a_run_that_an_older_operator_rejected_after_it_had_begun_goes_on() -> None:
    before = {**state(PREPARED, job("r-0-preflight")), "phase": "Rejected", "conditions": []}
    server = Server(resource(before, scheduling={"gang": "Auto"}))
    look(server)
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"]["phase"] == "Preparing"


def test_echoes_do_not_wake_and_other_versions_do() -> None:
    async def scenario() -> list[int]:
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        watched = Watched(keys, metrics)
        keys.state(KEY).written = "8"
        due = []
        for version in ("8", "9"):
            body = resource(state())
            watched.run("MODIFIED", {**body, "metadata": {**body["metadata"], "resourceVersion": version}})
            due.append(len(queue))
        watched.run("DELETED", resource(state()))
        assert not keys.is_echo(KEY, "8")
        return [*due, len(queue)]

    assert asyncio.run(scenario()) == [0, 1, 0]


@pytest.mark.parametrize(("status", "due"), [(state(*ALL), 0), (state(), 1), (OLD, 1), (None, 1)])
def test_a_child_wakes_its_run_unless_that_is_settled(status: Json | None, due: int) -> None:
    async def scenario() -> int:
        queue, metrics = Queue(), Metrics()
        watched = Watched(Keys(queue, metrics), metrics)
        watched.run(None, resource(status))
        if len(queue):
            queue.done(await queue.get())
        watched.child(stored(job("r-1-debate"))["metadata"])
        watched.child({"namespace": "default", "labels": {manifests.RUN: ""}})  # names no run
        watched.child({"namespace": "default"})
        return len(queue)

    assert asyncio.run(scenario()) == due


@pytest.mark.parametrize(
    ("ended", "ttl", "left"),
    [
        (at(0), 60, 60.0),
        (at(-100), 60, -40.0),
        (at(0), None, None),
        ("", 60, None),
        ("9999-12-31T23:59:59Z", 86400, 251_600_000_000.0),  # whoever may write a status may write that
        ("yesterday", 60, None),
    ],
)
def test_when_a_finished_run_expires(ended: str, ttl: int | None, left: float | None) -> None:
    remaining = expiry({"completionTime": ended}, ttl, START)
    assert remaining == left or (left is not None and remaining is not None and remaining > left > 1e9)


@pytest.mark.parametrize("reason", reasons.ALL)
def test_what_took_all_that_it_may_does_not_expire(reason: reasons.Reason) -> None:
    """A tool that applies it anew would have it begin anew, with a whole budget and all its time, again and again."""
    stays = reason in (reasons.BUDGET_SPENT, reasons.DEADLINE_EXCEEDED)
    wrong = state(*WRONG)
    failed_for = {**wrong, "conditions": [{**c, "reason": reason.name} for c in wrong["conditions"]]}
    compared = {"completionTime": at(0), "rows": [{"phase": "Complete"}, {"phase": "Failed", "reason": reason.name}]}
    for status in (failed_for, compared):
        assert (expiry(status, 60, START + timedelta(days=1)) is None) == stays
    server = Server(resource(failed_for, ttlSecondsAfterFinished=0))
    delay, _, watched = look(server)
    assert (("delete", "MultiAgentFinetune", "r") not in server.asked) == stays and delay is None
    [run] = server.objects["MultiAgentFinetune"]
    if stays:
        watched.run("MODIFIED", run)
        assert watched.settled == {KEY}


def test_the_models_size_is_kept_when_the_pod_that_told_it_has_gone() -> None:
    summary = PrepareSummary(train=24, held_out=16, model_bytes=3_396_032)
    prepared = stored(PREPARED)
    prepared["metadata"]["ownerReferences"] = [{"uid": "u", "controller": True}]
    server = Server(resource(None), prepared, stored(summarized("r-0-prepare", summary)))
    look(server)
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"]["model"] == {"bytes": 3_396_032}
    server.objects["Pod"] = []
    look(server)
    assert run["status"]["model"] == {"bytes": 3_396_032}
