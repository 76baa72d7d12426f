"""`spec.export`: which exports are begun when, what their pods get, what the status says; and that none of it is the run's."""

import contextlib
import copy
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from kube_objects import IMAGES, START, a_run, at, done, ended, failed, job, owner, planned, pod, snapshot, waiting
from statuses import ALL, PREPARED, TRIED, UNTRAINED, state, summarized
from test_cluster_backend import Server, look, resource, stored

from maft.errors import BadInput
from maft.export import __main__ as program
from maft.summaries import Exported, ExportSummary
from maft_operator.__main__ import described
from maft_operator.cluster import conditions, exporting, manifests
from maft_operator.cluster.api import Refused
from maft_operator.cluster.looks import CALM
from maft_operator.cluster.manifests import Json
from maft_operator.plan import exports as plan
from maft_operator.plan.exports import Past
from maft_operator.plan.step import Observed, TaskState, step
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec

MLFLOW = {"to": "mlflow", "address": "http://mlflow:5000#ours"}
HUB = {"to": "hub", "address": "team/agents", "license": "MIT", "tokenSecret": {"name": "hub"}}
OTEL = {"to": "otel", "address": "http://collector:4318", "tokenSecret": {"name": "collector", "key": "headers"}}
OCI = {"to": "oci", "address": "r.io/team/agents:v1", "tokenSecret": {"name": "login", "key": ".dockerconfigjson"}}
RUNNING, SENT, GIVEN_UP = TaskState("running"), TaskState("succeeded"), TaskState("failed", 21)
BEGUN = ("r-0-prepare", "r-0-preflight", "r-0-evaluate")


def a_sender(*targets: Json, **spec: Any) -> Run:
    return a_run(**{"export": list(targets) or [MLFLOW], "iterations": 3, **spec})


def names(run: Run) -> list[str]:
    """Of the exports of its first target, in order."""
    return [task.name for task in plan.tasks(planned(run), run.spec.export[0])]


def seen(*tasks: str) -> Observed:
    """These have succeeded, and what comes before all of them."""
    return Observed({name: TaskState("succeeded") for name in (*BEGUN, *tasks)})


def iteration(*numbers: int) -> list[str]:
    return [f"r-{n}-{stage}" for n in numbers for stage in ("debate", "train", "evaluate")]


# --- what is begun when ---

FIRST, SECOND, THIRD, LAST = names(a_sender())
GONE = "r-1-export-abcdef"  # of a target that is not in the list
WHEN: dict[str, tuple[Observed, dict[str, TaskState], Past, bool, tuple[str, ...], tuple[str, ...]]] = {
    # observed, exports that there are, what ended before, whether the run is over; what is begun, what is deleted
    "nothing is evaluated but the base": (seen("r-1-debate"), {}, Past(), False, (), ()),
    "the first iteration is": (seen(*iteration(1)), {}, Past(), False, (FIRST,), ()),
    "it is being sent": (seen(*iteration(1)), {FIRST: RUNNING}, Past(), False, (), ()),
    "it was sent": (seen(*iteration(1)), {FIRST: SENT}, Past(1), False, (), ()),
    "it was sent, and its Job has gone": (seen(*iteration(1)), {}, Past(1), False, (), ()),
    "its status is lost": (seen(*iteration(1)), {FIRST: SENT}, Past(), False, (), ()),
    "the second is evaluated": (seen(*iteration(1, 2)), {FIRST: SENT}, Past(1), False, (SECOND,), (FIRST,)),
    "the second is while the first is tried": (seen(*iteration(1, 2)), {FIRST: RUNNING}, Past(), False, (), ()),
    "the first was given up": (seen(*iteration(1)), {FIRST: GIVEN_UP}, Past(1), False, (), ()),
    "what was given up goes with the next": (seen(*iteration(1, 2)), {FIRST: GIVEN_UP}, Past(1), False, (SECOND,), (FIRST,)),
    "only the report is missing": (seen(*iteration(1, 2, 3)), {SECOND: SENT}, Past(2), False, (), ()),
    "the run is over": (seen(*iteration(1, 2, 3), "r-3-report"), {SECOND: SENT}, Past(2), True, (LAST,), (SECOND,)),
    "it is over while one is tried": (seen(*iteration(1, 2, 3), "r-3-report"), {SECOND: RUNNING}, Past(1), True, (), ()),
    "all is sent": (seen(*iteration(1, 2, 3), "r-3-report"), {LAST: SENT}, Past(3, True), True, (), ()),
    "all was given up": (seen(*iteration(1, 2, 3), "r-3-report"), {LAST: GIVEN_UP}, Past(3, True), True, (), ()),
    "all is sent, and nothing is left": (seen(*iteration(1, 2, 3), "r-3-report"), {}, Past(3, True), True, (), ()),
    "a target was taken out": (
        seen(*iteration(1)),
        {GONE: RUNNING, FIRST: SENT},
        Past(1),
        False,
        (),
        (GONE,),
    ),
}


@pytest.mark.parametrize("case", WHEN)
def test_what_is_begun_when(case: str) -> None:
    observed, there, past, over, create, delete = WHEN[case]
    decided = plan.decide(planned(a_sender()), observed, there, {"mlflow=http://mlflow:5000#ours": past}, over=over)
    assert (tuple(task.name for task in decided.create), decided.delete) == (create, delete)


def test_targets_do_not_wait_for_each_other() -> None:
    run = a_sender(MLFLOW, OTEL)
    mlflow, otel = ([task.name for task in plan.tasks(planned(run), target)] for target in run.spec.export)
    decided = plan.decide(planned(run), seen(*iteration(1, 2)), {mlflow[0]: RUNNING, otel[0]: SENT}, {}, over=False)
    assert (decided.delete, [task.name for task in decided.create]) == ((otel[0],), [otel[1]])


def test_a_suspended_run_begins_no_export_and_one_that_is_over_does() -> None:
    graph = planned(a_sender(suspend=True))
    assert plan.decide(graph, seen(*iteration(1)), {}, {}, over=False).create == ()
    assert [task.name for task in plan.decide(graph, seen(*iteration(1)), {}, {}, over=True).create] == [LAST]


def test_a_suspended_run_frees_the_pods_of_its_exports_too() -> None:
    graph = planned(a_sender(suspend=True))
    assert plan.decide(graph, seen(*iteration(1)), {FIRST: RUNNING}, {}, over=False).delete == (FIRST,)
    assert plan.decide(graph, seen(*iteration(1)), {FIRST: SENT}, {}, over=False).delete == ()
    assert plan.decide(graph, seen(*iteration(1)), {LAST: RUNNING}, {}, over=True).delete == ()
    sending = exporting.rows(graph, seen(*iteration(1)), {FIRST: exporting.Export(RUNNING)}, {}, START)
    assert exporting.rows(graph, seen(*iteration(1)), {}, {"exports": sending}, START) == []  # nobody sends


def test_a_place_in_the_list_names_nothing() -> None:
    one, other = a_sender(MLFLOW, OTEL), a_sender(OTEL, MLFLOW)
    assert {*names(one)} == {t.name for t in plan.tasks(planned(other), other.spec.export[1])}
    assert not {*names(one)} & {*names(other)}
    longest = names(a_sender(iterations=100))[-1]
    assert len(longest) - len("r") + 40 <= 63


def test_no_export_is_a_task_of_the_run() -> None:
    """Its graph is the same, so nothing waits for an export, and none of them makes the run fail."""
    without, having = planned(a_run(iterations=3)), planned(a_sender())
    assert [task.name for task in without.tasks] == [task.name for task in having.tasks]
    assert step(having, seen(*iteration(1))).create == step(planned(a_sender()), seen(*iteration(1))).create


def test_the_plan_shows_them_with_their_command() -> None:
    run = a_sender(MLFLOW, HUB)
    whole, without = described(run, planned(run)), described(a_run(iterations=3), planned(a_run(iterations=3)))
    lines = whole.removeprefix(without).splitlines()
    assert len(lines) == 2 and whole.startswith(without)
    assert all(line.endswith("# export, after each evaluated iteration and at the end, beside the run") for line in lines)
    assert "--to=hub=team/agents --license=MIT" in lines[1]


# --- what is read ---


def export_job(name: str = "", **more: Any) -> Json:
    return labelled(job(name or FIRST, **more))


def labelled(thing: Json) -> Json:
    thing = copy.deepcopy(thing)
    thing["metadata"]["labels"][manifests.COMPONENT] = "export"
    return thing


PLACE = "http://mlflow:5000 experiment ours run 1a"
SUMMARY = ExportSummary(targets=(Exported(to="mlflow", place=PLACE, new=3),))


def away(name: str) -> Json:
    return pod(name, "Failed", ended(1, "--to mlflow: http://mlflow:5000 is away: refused"))


NO_SECRET = pod(FIRST, "Pending", waiting("CreateContainerConfigError", 'secret "tokens" not found'))
WORKING = (PREPARED, TRIED, UNTRAINED, done("r-1-debate"), done("r-1-train"), done("r-1-evaluate"))
READ: dict[str, tuple[tuple[Json, ...], str, str]] = {  # objects; phase and message
    "has said what steers terminals": (  # the tracker's words, and longer than a status takes
        (labelled(done(FIRST)), summarized(FIRST, ExportSummary(targets=(Exported(to="mlflow", place="a\x1b[2Jb\nc", new=1),)))),
        "Sent",
        "a [2Jb c",
    ),
    "has just begun": ((export_job(),), "Sending", ""),
    "failed once": ((export_job(failed=1), away(FIRST)), "Retrying", "--to mlflow: http://mlflow:5000 is away: refused"),
    "failed, and its pod has gone": ((export_job(failed=2),), "Retrying", ""),
    "lacks its Secret": ((export_job(), NO_SECRET), "Retrying", 'secret "tokens" not found'),
    "is sent": ((labelled(done(FIRST)), summarized(FIRST, SUMMARY)), "Sent", PLACE),
    "is refused": (
        (labelled(failed(FIRST, "PodFailurePolicy")), pod(FIRST, "Failed", ended(2, "--to mlflow: status 403"))),
        "Failed",
        "--to mlflow: status 403",
    ),
    "could not begin for a day": ((labelled(failed(FIRST, "DeadlineExceeded")),), "Failed", "not done within 24 hours"),
    "was tried for long": ((labelled(failed(FIRST)), away(FIRST)), "Failed", "--to mlflow: http://mlflow:5000 is away: refused"),
}


@pytest.mark.parametrize("case", READ)
def test_what_became_of_an_export_is_said_and_is_none_of_the_run(case: str) -> None:
    objects, phase, message = READ[case]
    run = a_sender()
    look, without = (snapshot(run, *WORKING, *more) for more in (objects, ()))
    [row] = exporting.rows(planned(run), look.observed, look.exports, {}, START)
    expected = {"to": "mlflow", "address": "http://mlflow:5000#ours", "phase": phase, "iteration": 1, "last": False}
    assert row == {**expected, **({"message": message} if message else {}), "time": at(0)}
    rest = (look.observed, look.summaries, look.troubles, look.ended, look.metrics, look.unexplained, look.passing, look.gpus)
    assert rest == (without.observed, {}, (), {}, {}, without.unexplained, False, 0)
    assert state(*WORKING, *objects, run=run) == state(*WORKING, run=run)


def test_a_row_keeps_its_time_and_what_its_pod_said() -> None:
    run = a_sender()
    look = snapshot(run, *WORKING, labelled(done(FIRST)))  # whose pod has gone
    before = exporting.rows(planned(run), look.observed, look.exports, {}, START)
    old = {"exports": [{**before[0], "message": PLACE}]}
    assert exporting.rows(planned(run), look.observed, look.exports, old, START + timedelta(hours=1)) == old["exports"]
    assert exporting.rows(planned(run), look.observed, {}, old, START) == old["exports"]  # its Job, too
    again = exporting.begun([plan.task(planned(run), run.spec.export[0], 2)], ())
    [row] = exporting.rows(planned(run), look.observed, look.exports | again, old, START + timedelta(hours=1))
    assert (row["phase"], row["iteration"], row["time"], row.get("message")) == ("Sending", 2, at(3600), None)


def test_the_label_of_an_export_makes_no_task_one() -> None:
    """Anybody may write labels: the run would make a task anew whose Job it no longer sees."""
    look = snapshot(a_sender(), *WORKING[:-1], labelled(WORKING[-1]))
    assert look.observed.tasks["r-1-evaluate"].status == "succeeded" and not look.exports


# --- what is made ---


def made(target: Json, **spec: Any) -> Json:
    run = a_sender(target, **spec)
    objects = manifests.objects(plan.last(planned(run), run.spec.export[0]), owner(run), IMAGES)
    return next(thing for thing in objects if thing["kind"] == "Job")


def container(job: Json) -> Json:
    [one] = job["spec"]["template"]["spec"]["containers"]
    return dict(one)


def variables(job: Json) -> dict[str, Any]:
    pairs = container(job)["env"]
    assert len({pair["name"] for pair in pairs}) == len(pairs)  # the API server merges them by name
    return {pair["name"]: pair.get("value", pair.get("valueFrom", {}).get("secretKeyRef")) for pair in pairs}


LICENSES = (
    "",
    "MIT",
    "Apache-2.0 WITH LLVM-exception",
    "(MIT OR Apache-2.0) AND BSD-3-Clause",
    "Apache 2.0",
    "MIT OR",
    "(",
    " MIT",
)


@pytest.mark.parametrize("text", LICENSES)
def test_a_license_that_cards_do_not_take_is_refused_before_the_run_begins(text: str) -> None:
    given = program.parser().parse_args(["--store=s", "--run=ns/r", "--to=hub=team/agents", f"--license={text}", "--check"])
    taken = []
    for decide in (lambda: program.main(cast(Any, None), given), lambda: a_sender({**HUB, "license": text})):
        with contextlib.suppress(BadInput, BadSpec):
            decide()
            taken.append(True)
    assert len(taken) in (0, 2), text
    assert bool(taken) == (text in LICENSES[:4])


@pytest.mark.parametrize("target", [MLFLOW, HUB, OTEL, OCI], ids=lambda target: target["to"])
def test_the_program_takes_what_the_plan_writes(target: Json) -> None:
    minus_m, module, *line = container(made(target, group="g"))["args"]
    assert (minus_m, module) == ("-m", "maft.export")
    given = program.parser().parse_args(line)
    assert given.to == [f"{target['to']}={target['address']}"]
    assert (given.license, given.run, given.group) == (target.get("license", ""), "default/r", "default/g")
    assert given.store == "s3://bucket/runs?endpoint=http%3A%2F%2Fs3%3A9000"


@pytest.mark.parametrize("target", [MLFLOW, HUB, OTEL, OCI], ids=lambda target: target["to"])
def test_whether_a_target_gets_the_report_is_said_where_the_field_is_there(target: Json) -> None:
    plain, stated, without = (made({**target, **field}) for field in ({}, {"report": True}, {"report": False}))
    line = container(plain)["args"]
    assert [word for word in line if "report" in word] == []  # the kind decides
    assert container(stated)["args"] == [*line, "--report"]
    assert container(without)["args"] == [*line, "--no-report"]
    assert {job["metadata"]["name"] for job in (stated, without)} == {plain["metadata"]["name"]}
    given = [program.parser().parse_args(container(job)["args"][2:]) for job in (plain, stated, without)]
    assert [one.report for one in given] == [None, True, False]


def test_each_target_gets_its_secret_as_its_own_clients_read_it() -> None:
    model = {"model": {"source": "org/model", "tokenSecret": {"name": "model"}}}
    assert variables(made(HUB, **model))["HF_TOKEN"] == {"name": "hub", "key": "token"}
    assert variables(made(OTEL, **model))["OTEL_EXPORTER_OTLP_HEADERS"] == {"name": "collector", "key": "headers"}
    basic = variables(made({**MLFLOW, "tokenSecret": {"name": "m"}}))
    several = {"TOKEN": "token", "USERNAME": "username", "PASSWORD": "password"}
    optional = {f"MLFLOW_TRACKING_{name}": {"name": "m", "key": key, "optional": True} for name, key in several.items()}
    assert optional.items() <= basic.items()
    oci = made(OCI, **model)
    assert variables(oci)["DOCKER_CONFIG"] == "/target"
    [volume] = [volume for volume in oci["spec"]["template"]["spec"]["volumes"] if "secret" in volume]
    assert volume["secret"] == {"secretName": "login", "items": [{"key": ".dockerconfigjson", "path": "config.json"}]}
    assert {"name": volume["name"], "mountPath": "/target", "readOnly": True} in container(oci)["volumeMounts"]
    for other in (made(OTEL, **model), oci, made(MLFLOW, **model)):
        assert "HF_TOKEN" not in variables(other)  # the model's


def test_no_other_pod_has_the_secrets_of_targets() -> None:
    run = a_sender(MLFLOW, HUB, OTEL, OCI)
    graph = planned(run)
    whole = [manifests.objects(item, owner(run), IMAGES) for item in (*graph.tasks, *graph.servers)]
    assert not any(secret in str(whole) for secret in ("'hub'", "'collector'", "'login'"))
    assert whole == [manifests.objects(item, owner(a_run(iterations=3)), IMAGES) for item in (*graph.tasks, *graph.servers)]


def test_an_export_is_tried_for_long_and_ends_at_once_where_that_is_of_no_use() -> None:
    spec = made(MLFLOW, activeDeadlineSeconds=60, backoffLimit=0)["spec"]
    assert spec["backoffLimit"] == plan.ATTEMPTS
    assert {made(MLFLOW, **own)["spec"]["activeDeadlineSeconds"] for own in ({"activeDeadlineSeconds": 60}, {})} == {plan.DEADLINE}
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]


def test_pods_of_exports_may_go_out_and_nobody_comes_in_but_for_metrics() -> None:
    run = a_sender()
    made_of = manifests.objects(plan.last(planned(run), run.spec.export[0]), owner(run), IMAGES)
    [policy] = [thing for thing in made_of if thing["kind"] == "NetworkPolicy"]
    assert policy["metadata"]["name"] == "r-tasks" and policy["spec"]["policyTypes"] == ["Ingress"]


# --- the controller ---

ONLY = plan.last(planned(a_run(export=[MLFLOW])), a_run(export=[MLFLOW]).spec.export[0]).name


def kept(thing: Json) -> Json:
    """As a child of the resource on a server."""
    whole = stored(thing)
    owners = whole["metadata"]["ownerReferences"] if thing["kind"] == "Pod" else [{"uid": "u", "controller": True}]
    return {**whole, "metadata": {**whole["metadata"], "ownerReferences": owners}}


def looked(objects: Sequence[Json], status: Json | None, **spec: Any) -> tuple[Server, float | None, Json, bool]:
    """One look at a run of one iteration: the server, seconds until the next one, the status, whether nothing is left to do."""
    server = Server(resource(status, **{"export": [MLFLOW], **spec}), *map(kept, objects))
    delay, _, _ = look(server)
    [run] = server.objects["MultiAgentFinetune"]
    return server, delay, run["status"], conditions.settled(run)


def test_a_run_that_is_complete_sends_all_and_then_is_over() -> None:
    server, delay, complete, settled = looked(ALL, None)
    assert ("apply", "Job", ONLY) in server.wrote()
    assert (complete["phase"], [row["phase"] for row in complete["exports"]], settled) == ("Complete", ["Sending"], False)
    assert delay == CALM
    server, delay, trying, settled = looked([*ALL, export_job(ONLY, failed=1), away(ONLY)], complete)
    assert [asked for asked in server.wrote() if asked[0] != "apply_status"] == []
    assert ([row["phase"] for row in trying["exports"]], delay, settled) == (["Retrying"], CALM, False)
    server, delay, sent, settled = looked([*ALL, labelled(done(ONLY)), summarized(ONLY, SUMMARY)], trying)
    [row] = sent["exports"]
    assert (row["phase"], row["last"], row["message"], row["iteration"]) == ("Sent", True, PLACE, 1)
    assert (delay, settled) == (None, True)
    assert looked([], sent)[0].wrote() == []


def test_a_run_does_not_expire_before_all_is_sent_or_given_up() -> None:
    _, delay, complete, _ = looked(ALL, None, ttlSecondsAfterFinished=0)
    assert delay == CALM
    server, delay, _, _ = looked([*ALL, export_job(ONLY)], complete, ttlSecondsAfterFinished=0)
    assert delay == CALM and ("delete", "MultiAgentFinetune", "r") not in server.wrote()
    server, _, status, _ = looked([*ALL, labelled(failed(ONLY)), away(ONLY)], complete, ttlSecondsAfterFinished=0)
    assert status["exports"][0]["phase"] == "Failed" and ("delete", "MultiAgentFinetune", "r") in server.wrote()


def test_a_target_that_is_added_to_a_run_that_is_over_gets_all() -> None:
    _, _, plain, settled = looked(ALL, None, export=[])
    assert settled and "exports" not in plain
    server, _, status, settled = looked(ALL, plain)
    assert ("apply", "Job", ONLY) in server.wrote() and not settled
    assert status["phase"] == "Complete" and status["exports"][0]["phase"] == "Sending"


def test_a_target_that_is_taken_out_of_a_run_that_is_over_is_tried_no_more() -> None:
    _, _, complete, _ = looked(ALL, None)
    server, _, status, settled = looked([*ALL, export_job(ONLY, failed=1), away(ONLY)], complete, export=[])
    assert ("delete", "Job", ONLY) in server.wrote() and settled
    assert "exports" not in status and status["phase"] == "Complete"


def test_a_target_that_was_given_up_is_tried_again_once_it_is_taken_out_and_put_in() -> None:
    _, _, complete, _ = looked(ALL, None)
    given_up = [*ALL, labelled(failed(ONLY)), away(ONLY)]
    _, _, status, settled = looked(given_up, complete)
    assert status["exports"][0]["phase"] == "Failed" and settled
    server, _, status, _ = looked(given_up, status, export=[])
    assert ("delete", "Job", ONLY) in server.wrote() and "exports" not in status
    server, _, status, _ = looked(ALL, status)
    assert ("apply", "Job", ONLY) in server.wrote() and status["exports"][0]["phase"] == "Sending"


def test_a_run_that_is_over_and_sends_where_only_another_release_can_stays_as_it_is() -> None:
    _, _, complete, _ = looked(ALL, None)
    newer = {"to": "elsewhere", "address": "there", "license": ""}
    server, delay, status, settled = looked(ALL, complete, export=[MLFLOW, newer])
    assert (server.wrote(), delay, settled) == ([], CALM, False)
    assert status["exports"] == complete["exports"]


def test_a_run_that_failed_sends_what_it_has_evaluated_and_nothing_else() -> None:
    broken = [PREPARED, TRIED, UNTRAINED, failed("r-1-debate"), pod("r-1-debate", "Failed", ended(1, "no luck"))]
    _, delay, status, settled = looked(broken, None)
    assert (status["phase"], "exports" in status, delay, settled) == ("Failed", False, None, True)
    server, _, status, settled = looked([*WORKING, failed("r-1-report")], None)
    assert status["phase"] == "Failed" and ("apply", "Job", ONLY) in server.wrote()
    assert (status["exports"][0]["last"], settled) == (True, False)


def test_exports_are_of_the_operators_release_and_the_run_keeps_its_own() -> None:
    """A run that began before there were exports has images without their program; what they read is any release's."""
    older = {"debate": {"image": "r.io/maft/debate:0.1.0"}}
    _, _, plain, _ = looked(ALL, None, export=[])
    server, applied = Server(resource({**plain, "images": older}, export=[MLFLOW]), *map(kept, ALL)), dict[str, Json]()

    async def apply(body: Json) -> Json:
        applied[body["metadata"]["name"]] = body
        return {**body, "metadata": {**body["metadata"], "uid": "new", "generation": 1}}

    server.apply = apply  # type: ignore[method-assign]
    look(server)
    assert container(applied[ONLY])["image"] == IMAGES.of("debate") != older["debate"]["image"]


def test_what_an_export_runs_says_nothing_of_the_runs_images() -> None:
    newer = export_job(FIRST)
    newer["spec"]["template"] = {"spec": {"containers": [{"name": "debate", "image": "r.io/maft/debate:newer"}]}}
    newer["metadata"].pop("annotations", None)
    _, _, status, _ = looked([*WORKING, newer], None, iterations=3)
    assert status["images"]["debate"]["image"] == IMAGES.of("debate")


def test_a_job_that_is_refused_is_told_in_its_row_alone() -> None:
    server = Server(resource(None, export=[MLFLOW]), *map(kept, ALL))

    async def apply(body: Json) -> Json:
        if body["metadata"]["name"] == ONLY:
            raise Refused(403, "pods are forbidden: quota")
        return {**body, "metadata": {**body["metadata"], "uid": "new", "generation": 1}}

    server.apply = apply  # type: ignore[method-assign]
    look(server)
    [run] = server.objects["MultiAgentFinetune"]
    assert run["status"]["phase"] == "Complete"
    [row] = run["status"]["exports"]
    assert row["phase"] == "Retrying" and "quota" in row["message"]
