"""Readers of pods, Jobs, Deployments and Events are given anything: they find a state, a trouble or nothing, and never end."""

import asyncio
import copy
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import test_cluster_backend as runs
import test_comparison_controller as comparisons
import test_society as society
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from kube_objects import (
    RUNNING,
    SERVER,
    START,
    a_run,
    at,
    condition,
    deployment,
    done,
    ended,
    event,
    failed,
    job,
    planned,
    pod,
    replica,
    terminating,
    unscheduled,
    waiting,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from statuses import DEBATING, KEPT, MEASURED, evaluated, preflight, state, usage
from test_cluster_backend import resource

from maft.summaries import (
    LIMIT,
    DebateSummary,
    Earlier,
    Failure,
    PrepareSummary,
    ProbeScore,
    TrainSummary,
    encode_summary,
    numbers_in,
)
from maft_operator.cluster import conditions, kinds, observed, rows
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.reasons import ALL, FORBIDDEN
from maft_operator.cluster.status import Reconciled, status
from maft_operator.plan.done import found
from maft_operator.plan.reconcile import Outcome
from maft_operator.plan.step import step
from maft_operator.spec.schema import openapi

RUN = a_run(inference={"replicas": 2, "lifetime": "Phase"})
GRAPH = planned(RUN)
TASK = "r-1-debate"
NOW = START + timedelta(seconds=1000)
DEBATED = DebateSummary(
    questions=9, agreement=0.5, margins=(9,), kept=KEPT, left_out={"cut": 3}, probe=ProbeScore(0.4, 0.1, 9), usage=usage(3, 4)
)
EARLIER = Earlier(
    debates="1", evaluations="0-1", diversities="0", adapters={"1": "0-1", "2-9": "0"}, scores={"0": (0.5, 0.1), "7": (0.6, 0.1)}
)
SUMMARIES = (
    PrepareSummary(train=9, held_out=9, earlier=EARLIER),
    preflight("the template drops thoughts"),
    evaluated(0.5, 0.4),
    DEBATED,
    TrainSummary(adapters=(), trained=4, kept=1),
    evaluated(0.6, 0.5),
    MEASURED,
    Failure(error="store s3://b: unreachable"),
)
SAID = [encode_summary(summary).decode() for summary in SUMMARIES]
CRASHED = {"restarts": 3, "last": ended(2, "usage: x")}
OBJECTS: list[Json] = [
    done("r-0-prepare"),
    failed("r-0-preflight", "DeadlineExceeded"),
    job(TASK, condition("Complete", "False"), failed=1, activeDeadlineSeconds=60, queue="gpus"),
    job("r-1-train", suspend=True, start=None),
    deployment(condition("ReplicaFailure", "False"), ready=1, wanted=2),
    pod(TASK, "Running", ended(0, SAID[0]), podIP="10.0.0.1", conditions=[condition("Ready", "False")]),
    pod(TASK, "Failed", ended(137, reason="OOMKilled"), memory="1Gi", number=1, reason="Evicted", message="x"),
    pod("r-0-prepare", "Succeeded", ended(0, SAID[1])),
    pod("r-0-preflight", "Pending", waiting("PodInitializing"), init=waiting("CrashLoopBackOff", "x")),
    unscheduled("r-1-train", "0/3 nodes"),
    replica(RUNNING, ready=True, **CRASHED),
    terminating(replica(waiting("CrashLoopBackOff"), number=1, **CRASHED), 900),
]
EVENTS: list[Json] = [event(f"uid-{TASK}", "FailedCreate", "exceeded quota"), event(f"uid-{SERVER}", "Pulling", "x", kind="Normal")]

TIMES = [
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "10000-01-01T00:00:00Z",
    "2026-01-01T00:00:00",
    "never",
]
RANGES = ["0-9999," * 565, "0-999," * 680, "0-1", "3-0", "٣"]
TEXTS = st.sampled_from(
    [*TIMES, *SAID, *RANGES, "Failed", "Running", "Unknown", "True", "a\x1b[31m\nb\u202e", "\ud800", "{" * 9, "[" * 4096]
)
NUMBERS = st.sampled_from([-1, 0, 2**31, 2**53, 2**63, 10**40, -0.5, 1e300, 5e-324])
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=8) | TEXTS | NUMBERS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3))


def places(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the object, from the outside in."""
    inner = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    return [*([path] if path else []), *(place for key, value in inner for place in places(value, (*path, key)))]


def at_place(thing: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        thing = thing[key]
    return thing


@st.composite
def any_of(draw: st.DrawFn, originals: list[Json]) -> list[Json]:
    """These objects, changed at up to eight places: gone, of their type or of any. kind stays: it says which list they are in."""
    things = copy.deepcopy(originals)
    for _ in range(draw(st.integers(0, 8))):
        thing = draw(st.sampled_from(things))
        *where, key = draw(st.sampled_from([p for p in places(thing) if p != ("kind",)] or [("metadata",)]))
        holder = at_place(thing, tuple(where))
        value = holder.get(key) if isinstance(holder, dict) else holder[key]
        alike = TEXTS if isinstance(value, str) else NUMBERS if isinstance(value, int | float) else VALUES
        holder[key] = draw(alike | VALUES)
        if isinstance(holder, dict) and draw(st.integers(0, 3)) == 0:
            del holder[key]
    return things


SCHEMA = Draft4Validator(openapi()["properties"]["status"])
FUZZ = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def status_of(snapshot: Snapshot) -> Json:
    """The status that follows, if the API server would take it, and it stays the same at the next look."""
    seen = replace(snapshot.observed, done=found(GRAPH, snapshot.summaries.values()))
    outcome = Outcome(step(GRAPH, seen), replace(snapshot, observed=seen), (), GRAPH)
    made = status(Reconciled(RUN, GRAPH, outcome, {}), {}, 1, NOW)
    SCHEMA.validate(json.loads(json.dumps(made, allow_nan=False)))
    assert status(Reconciled(RUN, GRAPH, outcome, {}), made, 1, NOW) == made
    return made


@FUZZ
@given(any_of(OBJECTS), any_of(EVENTS))
def test_whatever_the_objects_say_a_status_comes_of_it(objects: list[Json], events: list[Json]) -> None:
    by_kind = {k.name: [o for o in objects if o["kind"] == k.name] for k in kinds.children(isolated=True)}
    made = status_of(observed.explained(observed.read(GRAPH, by_kind, NOW), events))
    assert {c["reason"] for c in made["conditions"]} <= {reason.name for reason in ALL}
    assert all(c["message"].isprintable() and len(c["message"]) < 3000 for c in made["conditions"])


@FUZZ
@given(any_of([json.loads(text) for text in SAID]))
def test_whatever_a_program_says_a_status_comes_of_it(summaries: list[Json]) -> None:
    tasks = [task.name for task in GRAPH.tasks]
    objects = {
        "Job": [done(name) for name in tasks],
        "Pod": [pod(name, "Succeeded", ended(0, json.dumps(one))) for name, one in zip(tasks, summaries, strict=False)],
    }
    made = status_of(observed.read(GRAPH, objects, NOW))
    assert made["phase"] == "Complete"
    assert all(line.isprintable() for line in made.get("warnings", ()))


WHOLE = json.loads(SAID[0])  # what `prepare` says
MANY: list[Json] = [
    {"scores": {f"{i}-9999": [] for i in range(240)}},
    {"scores": {str(i): [0.5, 0.1] for i in range(200)}},
    {"debates": "0-9999," * 550, "evaluations": "0"},
    {"adapters": {f"{i}-9999": "0-9999" for i in range(180)}},
    {"adapters": {f"{i}-999": "0-999" for i in range(180)}},
]


@pytest.mark.parametrize("earlier", MANY)
def test_what_an_earlier_start_is_said_to_have_left_is_bounded_by_the_run(earlier: Json) -> None:
    """A termination message of 4 KiB names more iterations than any run has; each look reads it again."""
    message = json.dumps({**WHOLE, "earlier": earlier}, separators=(",", ":"))
    assert len(message) <= LIMIT
    objects = {"Job": [done("r-0-prepare")], "Pod": [pod("r-0-prepare", "Succeeded", ended(0, message))]}
    made = status_of(observed.read(GRAPH, objects, NOW))
    iterations = {task.iteration for task in GRAPH.tasks}
    assert {row["iteration"] for row in made.get("iterations", ())} <= iterations
    assert {n for text in made.get("done", {}).values() for n in numbers_in(text)} <= iterations


@pytest.mark.parametrize("thing", [None, 0, "x", [], {}, {"metadata": None}, {"metadata": [], "status": 7, "spec": "x"}])
def test_objects_without_anything(thing: Any) -> None:
    snapshot = observed.read(GRAPH, {"Job": [thing], "Pod": [thing, thing], "Deployment": [thing]}, NOW)
    assert snapshot.observed.servers == {}
    assert observed.explained(snapshot, [thing]).troubles == snapshot.troubles


# --- statuses, as whoever may write them left them ---

SCORE = {"mean": 0.5, "stderr": 0.1}
ROW: Json = {
    **dict.fromkeys(("accuracy", "majority", "answer", "consensus"), SCORE),
    **{"iteration": 1, "agreement": 0.5, "nll": 0.1, "kl": 0.1, "dissimilarity": 0.1, "abstained": 2},
    **{"wrongToRight": 7, "rightToWrong": 3, "trained": 0, "untrained": 2, "turnsLeftOut": 1},
    **{"seconds": 60, "gpuSeconds": 60, "promptTokens": 9, "completionTokens": 9},
    "validation": {**SCORE, "gain": {"over": 0, **SCORE}},
    "probe": {"mean": 0.4, "stderr": 0.1, "questions": 9},
    "kept": {"generator": {"fewest": 1, "most": 3, "counts": [1, 3]}},
    "leftOut": {"cut": 3},
    "answers": {"asked": 9, "cut": 4, "clipped": 1},
}
STATED: Json = {
    **state(*DEBATING),
    **{name: {**SCORE, "text": "50.0 ± 10.0"} for name in ("accuracy", "baseAccuracy")},
    "best": {"iteration": 1, "accuracy": {**SCORE, "text": "50.0 ± 10.0"}},
    "completionTime": at(900),
    "warnings": ["the template drops thoughts"],
    "done": {"debate": "0-1", "train": "1"},
    "spent": {"seconds": 9, "gpuSeconds": 9, "text": "x", "gpus": 1, "at": at(900)},
    "servers": {"givenBack": 1, "until": at(1100), "since": at(900)},
    "room": {"givenBack": 1, "until": at(1100), "since": at(900), "waits": at(900), "message": "x"},
    "model": {"bytes": 9},
    "images": {"debate": {"image": "registry/maft/debate:1", "digest": "sha256:0"}},
    "serverKey": "r-key",
    "exports": [{"to": "s3", "address": "a", "phase": "Sent", "iteration": 1, "last": True, "message": "x", "time": at(900)}],
    "iterations": [{"iteration": 0, "accuracy": SCORE}, ROW],
}
OF_0_1: Json = {"iteration": "1/2", "accuracy": "50.0 ± 1.0", "iterations": [{"iteration": 1, "kept": {"generator": "1 to 3"}}]}
STATUSES = any_of([STATED]).map(lambda drawn: drawn[0]) | any_of([{**STATED, **OF_0_1}]).map(lambda drawn: drawn[0])
ENDED = [{**condition(kind), "reason": "x", "message": "x"} for kind in ("Complete", "Failed")]
READS = settings(FUZZ, max_examples=60)


def test_the_status_that_is_spoilt_has_all_fields_of_the_definition() -> None:
    properties = openapi()["properties"]["status"]["properties"]
    assert STATED.keys() == properties.keys() and ROW.keys() == properties["iterations"]["items"]["properties"].keys()
    assert ROW.keys() == rows.FIELDS.keys() and rows.read(STATED) == STATED["iterations"]
    SCHEMA.validate(STATED)


@FUZZ
@given(STATUSES)
def test_whatever_the_status_was_another_one_comes_of_it(old: Json) -> None:
    made = state(*DEBATING, old=old)
    SCHEMA.validate(json.loads(json.dumps(made, allow_nan=False)))
    assert state(*DEBATING, old=made) == made
    for after in (made, old):
        conditions.transitions(old, after), conditions.warned(old, after), conditions.important(old, after)
    conditions.blocked(FORBIDDEN, "x", old, 1, NOW)
    conditions.rejected(FORBIDDEN, "x", old, 1, NOW)
    conditions.summed(old, NOW)


@FUZZ
@given(STATUSES)
def test_whatever_the_status_says_a_scrape_can_be_read(old: Json) -> None:
    metrics = Metrics()
    metrics.seen("default/r", resource(old))
    families = text_string_to_metric_families(metrics.encoded(generate_latest).decode())
    several = [(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples]
    assert len(several) == len({*several}) and 0 < sum(("run", "r") in each for each in several) <= 61


async def delivered(watched: Watched, run: Json) -> None:
    watched.run(None, run)


@READS
@given(STATUSES, st.sampled_from([[], ENDED[:1], ENDED[1:]]))
def test_whatever_the_status_says_its_run_is_looked_at(old: Json, ended: list[Json]) -> None:
    """By the watches, by the run's own reconciler, by that of its comparison and of a society."""
    status = {**old, "conditions": ended} if ended else old
    server = runs.Server(runs.resource(status, export=[{"to": "s3", "address": "s3://b/x"}]))
    _, _, watched = runs.look(server)
    [run] = server.objects["MultiAgentFinetune"]
    asyncio.run(delivered(watched, run))
    assert watched.versions == {runs.KEY: run["metadata"]["resourceVersion"]}
    assert society.looked(society.Server(society.a_society(), {**society.a_run(), "status": status}))
    compared = comparisons.Server()
    comparisons.looked(compared)
    for made in compared.runs.values():
        made["status"] = copy.deepcopy(status)
    comparisons.looked(compared)


@READS
@given(STATUSES)
def test_whatever_their_own_status_says_others_are_looked_at(old: Json) -> None:
    society.looked(society.Server({**society.a_society(), "status": old}, society.a_run()))
    compared = comparisons.Server()
    compared.objects["MultiAgentComparison"]["arithmetic"]["status"] = old
    asyncio.run(compared.comparisons.look(comparisons.KEY, compared.keys.state(comparisons.KEY)))
