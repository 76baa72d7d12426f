"""Conditions with reasons that people can act on; which changes are told, and which statuses are the last ones."""

import json
import re
from datetime import timedelta

import pytest
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional
from kube_objects import START, a_run, at, by_type, condition, deployment, done, ended, failed, job, planned, pod, unscheduled
from small import ROOT
from statuses import (
    ALL,
    CASES,
    DEBATED,
    GOES_ON,
    NO_NODE,
    PREPARED,
    RETRIED,
    SUMMARIZED,
    TRAINED,
    TRIED,
    UNTRAINED,
    WRONG,
    conditions,
    debated,
    preflight,
    probed,
    state,
    summarized,
    trained,
)

from maft.summaries import Answers, Failure, TrainSummary
from maft_operator.cluster import conditions as decide
from maft_operator.cluster import reasons
from maft_operator.cluster.events import event, warning
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.writing import own_status
from maft_operator.plan.reconcile import Refusal
from maft_operator.spec import schema

OBJECT = {
    "apiVersion": "maft.dev/v1alpha1",
    "kind": "MultiAgentFinetune",
    "metadata": {"name": "r", "namespace": "default", "uid": "u", "resourceVersion": "1"},
}
MAY_NOT = 'services is forbidden: User "maft" cannot create resource "services"'


@pytest.mark.parametrize("name", CASES)
def test_conditions(name: str) -> None:
    whole, phase, expected = CASES[name]
    assert whole["phase"] == phase
    assert conditions(whole) == expected
    assert [c["type"] for c in whole["conditions"]] == list(reasons.CONDITIONS)


def test_a_run_that_nothing_is_wrong_with_has_a_reason_in_every_condition() -> None:
    whole = by_type(state(job("r-0-prepare"))["conditions"])
    assert {kind: (c["status"], c["reason"]) for kind, c in whole.items()} == {
        "Accepted": ("True", "Accepted"),
        "Progressing": ("True", "Working"),
        "Suspended": ("False", "NotSuspended"),
        "Complete": ("False", "Unfinished"),
        "Failed": ("False", "NoFailure"),
        "Reconciling": ("True", "Working"),
        "Stalled": ("False", "NotStalled"),
    }


@pytest.mark.parametrize(
    ("whole", "kind", "message"),
    [
        (state(*NO_NODE), "Progressing", f"r-0-prepare: 0/3 nodes are available. {reasons.UNSCHEDULABLE.hint}"),
        (state(*WRONG), "Failed", f"r-0-prepare: model.source: no such model. {reasons.MODEL_UNUSABLE.hint}"),
        (state(*WRONG), "Progressing", f"r-0-prepare: model.source: no such model. {reasons.MODEL_UNUSABLE.hint}"),
        (state(run=a_run(suspend=True)), "Suspended", reasons.SUSPENDED.hint),
        (state(job("r-0-prepare")), "Progressing", "prepare: checks and questions"),
        (state(PREPARED, job("r-0-preflight")), "Progressing", "preflight: the model, tried on random weights"),
    ],
)
def test_messages_say_what_was_found_and_what_to_do(whole: Json, kind: str, message: str) -> None:
    assert by_type(whole["conditions"])[kind]["message"].lower() == message.lower()


def test_what_blocks_is_said_before_what_passes_and_a_refusal_counts() -> None:
    refusals = (Refusal("r-server", MAY_NOT),)
    assert conditions(state(*RETRIED, refusals=refusals))["Progressing"] == ("False", "OperatorForbidden")
    assert conditions(state(*NO_NODE, refusals=refusals))["Progressing"] == ("False", "OperatorForbidden")
    assert by_type(state(refusals=refusals)["conditions"])["Progressing"]["message"].startswith(f"r-server: {MAY_NOT}. ")
    passing = pod("r-1-debate", "Failed", ended(137), reason="Evicted", message="short of memory")
    both = (
        PREPARED,
        TRIED,
        UNTRAINED,
        job("r-1-debate"),
        passing,
        deployment(),
        unscheduled("r-server", "0/3 nodes are available"),
    )
    assert conditions(state(*both))["Progressing"] == ("False", "Unschedulable")


def test_times_move_with_the_status_of_a_condition_alone() -> None:
    history = [((), 10), (RETRIED, 20), (NO_NODE, 30), (RETRIED, 40), ((PREPARED,), 50), (ALL, 60), (ALL, 70)]
    whole: Json = {}
    moved: dict[str, list[str]] = {kind: [] for kind in reasons.CONDITIONS}
    for objects, now in history:
        whole = state(*objects, old=whole, now=now)
        for kind, entry in by_type(whole["conditions"]).items():
            moved[kind].append(entry["lastTransitionTime"])
    assert moved["Progressing"] == [at(n) for n in (10, 10, 30, 40, 40, 60, 60)]
    assert moved["Complete"] == [at(n) for n in (10, 10, 10, 10, 10, 60, 60)]
    assert moved["Accepted"] == moved["Failed"] == moved["Suspended"] == [at(10)] * 7


def test_the_generation_is_in_every_condition() -> None:
    whole = state(generation=7)
    assert {whole["observedGeneration"], *(c["observedGeneration"] for c in whole["conditions"])} == {7}


@pytest.mark.parametrize("name", CASES)
def test_an_equal_world_gives_an_equal_status(name: str) -> None:
    whole = CASES[name][0]
    assert not decide.important(whole, json.loads(json.dumps(whole)))
    assert decide.transitions(whole, whole) == []


# --- for tools that read any resource alike ---


def kstatus(whole: Json, generation: int = 1) -> str:
    """What kstatus makes of a resource with such conditions (cli-utils, pkg/kstatus/status/generic.go)."""
    statuses = {c["type"]: c["status"] for c in whole.get("conditions", ())}
    if whole.get("observedGeneration", generation) != generation or statuses.get("Reconciling") == "True":
        return "InProgress"
    return "Failed" if statuses.get("Stalled") == "True" else "Current"


@pytest.mark.parametrize("name", CASES)
def test_kstatus_tells_what_goes_on_from_what_failed_and_what_is_over(name: str) -> None:
    whole = CASES[name][0]
    values = conditions(whole)
    failed, over = values["Failed"][0] == "True", "True" in (values["Complete"][0], values["Suspended"][0])
    waits = values["Progressing"][0] == "False" and not over
    assert kstatus(whole) == ("Failed" if failed or waits else "Current" if over else "InProgress")
    messages = {kind: c["message"] for kind, c in by_type(whole["conditions"]).items()}
    assert messages["Stalled"] == (messages["Progressing"] if kstatus(whole) == "Failed" else "")


@pytest.mark.parametrize("kind", schema.PLURALS)
def test_what_no_operator_has_looked_at_goes_on(kind: str) -> None:
    """Without a status kstatus says Current: the default of the definition says otherwise, and is no status for us."""
    default = schema.openapi(kind)["properties"]["status"]["default"]
    assert kstatus({}) == "Current" and kstatus(default) == "InProgress"
    assert own_status({"status": default}) == own_status({}) == {}
    begun = {**default, "phase": "Training"}  # of a release that named no generation
    assert own_status({"status": begun}) == begun


FLUX = re.compile(r"^    (current|failed): (.+)$", re.MULTILINE)


@pytest.mark.parametrize("name", [*CASES, ""])
def test_the_expressions_for_flux_in_the_docs_know_the_end_of_a_run(name: str) -> None:
    """They are given the object's fields as variables. Source: Flux, Kustomization, `.spec.healthCheckExprs`."""
    expressions = dict(FLUX.findall((ROOT / "docs" / "operations.md").read_text()))
    environment = cel.NewEnv(variables={"status": cel.Type.DYN}, extensions=[ext_optional.ExtOptional()])
    status = CASES[name][0] if name else schema.openapi()["properties"]["status"]["default"]
    verdict = {key: environment.compile(text).eval(data={"status": status}).plain_value() for key, text in expressions.items()}
    values = conditions(status) if name else {}
    assert verdict == {
        "current": values.get("Complete", ("",))[0] == "True",
        "failed": bool(name) and kstatus(status) == "Failed",
    }


def test_a_rejected_run_and_one_that_may_not_be_worked_at_have_stalled() -> None:
    assert kstatus(decide.rejected(reasons.INVALID_SPEC, "x", {}, 1, START)) == "Failed"
    default = schema.openapi()["properties"]["status"]["default"]
    for before in (state(PREPARED), {}):
        blocked = decide.blocked(reasons.FORBIDDEN, "x", before, 2, START)
        assert kstatus({**default, **blocked}, generation=2) == "Failed"


def test_a_finished_run_of_an_older_release_gets_them() -> None:
    for objects, verdict in ((ALL, "Current"), (WRONG, "Failed")):
        new = state(*objects)
        old = {**new, "conditions": [c for c in new["conditions"] if c["type"] not in reasons.SUMMARIES]}
        resource = {"metadata": {"generation": 1}, "spec": {}}
        assert not decide.settled({**resource, "status": old}) and decide.settled({**resource, "status": new})
        assert decide.summed(new, START) is new
        assert kstatus(decide.summed(old, START)) == verdict and decide.settled({**resource, "status": decide.summed(old, START)})


def test_what_is_wrong_from_the_start_is_told() -> None:
    """A run that waits in its very first status gets its Event; that it has not failed goes without saying."""
    first = [condition("Accepted"), condition("Progressing", "False", reason="PodRefused"), condition("Failed", "False")]
    assert [c["type"] for c in decide.transitions({}, {"conditions": first})] == ["Accepted", "Progressing"]


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({}, False),
        ({"progress": {"percent": 50}}, False),
        ({"conditions": [condition("Progressing", reason="Working", message="other", seconds=9)]}, False),
        ({"conditions": [condition("Progressing", reason="Retrying")]}, True),
        ({"conditions": [condition("Progressing", "False", reason="Working")]}, True),
        ({"conditions": [{**condition("Progressing", reason="Working"), "observedGeneration": 2}]}, True),
        ({"conditions": []}, True),
        ({"phase": "Training"}, True),
        ({"iteration": {"current": 1, "total": 2, "text": "1/2"}}, True),
        ({"observedGeneration": 2}, True),
        ({"iterations": [{"iteration": 1}]}, True),
        ({"completionTime": at(1)}, True),
    ],
)
def test_what_is_important(change: Json, matters: bool) -> None:
    before = {
        "phase": "Debating",
        "progress": {"percent": 1},
        "conditions": [condition("Progressing", reason="Working", message="x")],
    }
    assert decide.important(before, {**before, **change}) == matters
    assert decide.important({**before, **change}, before) == matters


@pytest.mark.parametrize(
    ("old", "new", "events"),
    [
        ({}, state(), ["Accepted", "Progressing"]),
        (state(), state(*NO_NODE), ["Progressing"]),
        (state(), state(*RETRIED), ["Progressing"]),
        (state(*NO_NODE), state(), ["Progressing"]),
        (state(), state(PREPARED), []),
        (state(), state(*ALL), ["Progressing", "Complete"]),
        (state(), state(*WRONG), ["Progressing", "Failed"]),
        (state(), state(run=a_run(suspend=True)), ["Progressing", "Suspended"]),
        (state(run=a_run(suspend=True)), state(), ["Progressing", "Suspended"]),
        (state(), state(generation=2), []),
    ],
)
def test_what_becomes_an_event(old: Json, new: Json, events: list[str]) -> None:
    assert [c["type"] for c in decide.transitions(old, new)] == events


@pytest.mark.parametrize(
    ("share", "condition_"),
    [(0.0, ("True", "WrongMajority")), (0.49, ("True", "WrongMajority")), (0.5, ("True", "Working")), (0.9, ("True", "Working"))],
)
def test_a_majority_that_is_mostly_wrong_is_told_and_stops_nothing(share: float, condition_: tuple[str, str]) -> None:
    whole = state(PREPARED, TRIED, UNTRAINED, DEBATED, job("r-1-train"), probed(share))
    assert conditions(whole) == GOES_ON | {"Progressing": condition_}
    assert whole["phase"] == "Training"
    if share < 0.5:
        message = (
            f"iteration 1: the majority is right on {100 * share:.1f} ± 5.0 % of the probe questions, fewer than half. Training "
        )
        assert by_type(whole["conditions"])["Progressing"]["message"].startswith(message)
    later = state(PREPARED, TRIED, UNTRAINED, DEBATED, job("r-1-train"), old=whole)  # its pod has gone
    assert conditions(later) == conditions(whole)


@pytest.mark.parametrize(("share", "kind"), [(0.2, "Warning"), (0.8, "Normal")])
def test_the_event_of_a_wrong_majority_is_a_warning(share: float, kind: str) -> None:
    whole = state(PREPARED, TRIED, UNTRAINED, DEBATED, job("r-1-train"), probed(share))
    assert event(OBJECT, by_type(whole["conditions"])["Progressing"], START)["type"] == kind


def test_a_warning_yields_to_what_blocks_and_to_the_end() -> None:
    wrong = (PREPARED, TRIED, UNTRAINED, DEBATED, probed(0.2))
    blocked = state(*wrong, job("r-1-train"), unscheduled("r-1-train", "0/3 nodes are available"))
    assert conditions(blocked)["Progressing"] == ("False", "Unschedulable")
    assert conditions(state(*ALL, probed(0.2)))["Progressing"] == ("False", "AllIterationsDone")
    assert conditions(state(*wrong, run=a_run(suspend=True)))["Progressing"] == ("False", "Suspended")


def test_the_last_probe_counts() -> None:
    run = a_run(iterations=2)
    names = [task.name for task in planned(run).tasks][:-2]
    whole = state(*map(done, names), probed(0.2), probed(0.7, "r-2-debate"), job("r-2-evaluate"), run=run)
    assert conditions(whole)["Progressing"] == ("True", "Working")
    assert [row.get("probe") for row in whole["iterations"]] == [
        None,
        *({"mean": mean, "stderr": 0.05, "questions": 100} for mean in (0.2, 0.7)),
    ]


SAID_NOTHING = TrainSummary(adapters=(), trained=0, kept=4)
UNDECIDED = debated(kept={"generator": (2, 3), "critic": (0, 1)}, left_out={"noConsensus": 40, "cut": 12})
WHY = (
    "nothing was trained: too few examples (the largest dataset has 3); mostly left out: no consensus (40 of 52). To change that, "
)


def nothing_trained(iteration: int = 1) -> tuple[Json, Json]:
    return summarized(f"r-{iteration}-debate", UNDECIDED), summarized(f"r-{iteration}-train", SAID_NOTHING)


def test_that_nothing_was_trained_is_told_with_the_reason_and_what_to_change() -> None:
    whole = state(PREPARED, TRIED, UNTRAINED, DEBATED, TRAINED, job("r-1-evaluate"), *nothing_trained())
    assert conditions(whole) == GOES_ON | {"Progressing": ("True", "NothingTrained")}
    message = by_type(whole["conditions"])["Progressing"]["message"]
    assert message.startswith(f"iteration 1: {WHY}lower debate.temperature")
    assert "training.minExamples" in message
    assert event(OBJECT, by_type(whole["conditions"])["Progressing"], START)["type"] == "Warning"
    later = state(PREPARED, TRIED, UNTRAINED, DEBATED, TRAINED, job("r-1-evaluate"), old=whole)  # its pods have gone
    assert conditions(later) == conditions(whole)


def test_a_run_is_complete_and_says_that_nothing_was_trained() -> None:
    whole = state(*ALL, *nothing_trained())
    assert conditions(whole)["Complete"] == ("True", "AllIterationsDone")
    complete = by_type(whole["conditions"])["Complete"]
    assert complete["message"].startswith(f"iteration 1: {WHY}")
    assert WHY in event(OBJECT, complete, START)["message"]
    assert by_type(state(*ALL, *SUMMARIZED)["conditions"])["Complete"]["message"] == ""


def test_only_the_last_training_is_warned_of_and_the_end_counts_all() -> None:
    run = a_run(iterations=2)
    names = [task.name for task in planned(run).tasks]
    pods = (*nothing_trained(1), summarized("r-2-train", trained(4)))
    under_way = state(*map(done, names[:-2]), *pods, job("r-2-evaluate"), run=run)
    assert conditions(under_way)["Progressing"] == ("True", "Working")
    message = by_type(state(*map(done, names), *pods, run=run)["conditions"])["Complete"]["message"]
    assert message.startswith(f"1 of 2 iterations trained nothing; iteration 1: {WHY}")


@pytest.mark.parametrize(("cut", "condition_"), [(0, "Working"), (10, "Working"), (11, "AnswersCut"), (100, "AnswersCut")])
def test_too_many_answers_that_were_cut_off_are_told(cut: int, condition_: str) -> None:
    pod = summarized("r-1-debate", debated(answers=Answers(asked=100, cut=cut, clipped=7)))
    whole = state(PREPARED, TRIED, UNTRAINED, DEBATED, job("r-1-train"), pod)
    assert conditions(whole)["Progressing"] == ("True", condition_)
    if cut > 10:
        message = by_type(whole["conditions"])["Progressing"]["message"]
        assert message.startswith(f"iteration 1: {cut} of 100 answers cut off, 7 of 100 to a clipped prompt. ")
        assert "debate.maxTokens" in message and "debate.thinkingTokens" in message and "model.maxLength" in message
        assert event(OBJECT, by_type(whole["conditions"])["Progressing"], START)["type"] == "Warning"


# --- what preflight says ---


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("model.source: org/m has no chat template; use an instruction-tuned model", "ModelUnusable"),
        ("training.lora.rank: 512 makes an adapter that is refused; set 256 or less", "InputInvalid"),
    ],
)
def test_a_model_that_cannot_be_used_fails_the_run_before_any_server(line: str, reason: str) -> None:
    end = pod("r-0-preflight", "Failed", ended(2, Failure(error=line).error), container="trainer")
    whole = state(PREPARED, failed("r-0-preflight", "PodFailurePolicy"), end)
    assert (whole["phase"], conditions(whole)["Failed"]) == ("Failed", ("True", reason))
    assert by_type(whole["conditions"])["Failed"]["message"].startswith(f"r-0-preflight: {line}. ")


def test_each_warning_is_an_event_once() -> None:
    warned = summarized("r-0-preflight", preflight("the template knows no enable_thinking", "prompts are clipped"), "trainer")
    before, first = state(PREPARED), state(PREPARED, TRIED, warned)
    assert decide.warned(before, first) == ["the template knows no enable_thinking", "prompts are clipped"]
    assert decide.important(before, first)
    later = state(PREPARED, TRIED, UNTRAINED, old=first)  # its pod has gone
    assert decide.warned(first, later) == []
    assert conditions(first) == GOES_ON  # nothing stops
    resource = OBJECT
    one, other = (warning(resource, line, START) for line in first["warnings"])
    assert (one["type"], one["reason"]) == ("Warning", "ModelWarning")
    assert one["message"].startswith("the template knows no enable_thinking. The run goes on")
    assert one["metadata"]["name"] != other["metadata"]["name"]
    assert one["metadata"] == warning(resource, first["warnings"][0], START + timedelta(hours=1))["metadata"]


# --- resources that cannot be worked at ---


def test_a_resource_that_cannot_be_read() -> None:
    message = "spec.agents: 0; expected at least 1"
    whole = decide.rejected(reasons.INVALID_SPEC, message, {}, 3, START)
    assert (whole["phase"], whole["observedGeneration"]) == ("Rejected", 3)
    accepted, *rest = whole["conditions"]
    assert {c["type"]: c["status"] for c in rest} == {"Reconciling": "False", "Stalled": "True"}
    assert (accepted["type"], accepted["status"], accepted["reason"]) == ("Accepted", "False", "InvalidSpec")
    assert message in accepted["message"]
    assert decide.rejected(reasons.INVALID_SPEC, message, whole, 3, START + timedelta(hours=1)) == whole
    assert not decide.finished(whole)


def test_what_a_run_had_stays_when_it_can_no_longer_be_read() -> None:
    """An operator that is newer or older may read the schema otherwise."""
    before = state(*ALL[:5], *SUMMARIZED)
    whole = decide.rejected(reasons.INVALID_SPEC, "x", before, 1, START)
    assert whole["iterations"] == before["iterations"]
    assert conditions(state(*ALL[:5], *SUMMARIZED, old=whole)) == conditions(before)


def test_a_run_that_the_operator_may_not_work_at() -> None:
    before = state(PREPARED, now=10)
    whole = decide.blocked(reasons.FORBIDDEN, "may not list pods", before, 1, START + timedelta(seconds=20))
    assert conditions(whole) == {**conditions(before), "Progressing": ("False", "OperatorForbidden")}
    assert [c["type"] for c in whole["conditions"]] == list(reasons.CONDITIONS)
    assert by_type(whole["conditions"])["Progressing"]["lastTransitionTime"] == at(20)
    assert by_type(whole["conditions"])["Accepted"] == by_type(before["conditions"])["Accepted"]
    assert {key: whole[key] for key in ("phase", "progress")} == {key: before[key] for key in ("phase", "progress")}
    fresh = decide.blocked(reasons.FORBIDDEN, "may not list pods", {}, 1, START)
    assert (fresh["phase"], [c["type"] for c in fresh["conditions"]]) == ("Pending", ["Progressing", "Reconciling", "Stalled"])


def test_a_condition_that_somebody_else_wrote_is_no_obstacle() -> None:
    before = state(PREPARED)
    foreign = {**before, "conditions": [*before["conditions"], condition("Foreign")]}
    whole = decide.blocked(reasons.FORBIDDEN, "may not list pods", foreign, 1, START)
    assert [c["type"] for c in whole["conditions"]] == list(reasons.CONDITIONS)


@pytest.mark.parametrize(("name", "over"), [("begins", False), ("is suspended", False), ("is complete", True), ("failed", True)])
def test_what_is_finished(name: str, over: bool) -> None:
    assert decide.finished(CASES[name][0]) == over
    assert not decide.finished({})


@pytest.mark.parametrize(
    ("change", "settled"),
    [
        ({}, True),
        ({"spec": {"ttlSecondsAfterFinished": 60}}, False),
        ({"metadata": {"generation": 2}}, False),
        ({"status": None}, False),
        ({"status": state(PREPARED)}, False),
        ({"status": {**state(*ALL), "iteration": "1/1"}}, False),  # release 0.1 wrote it
    ],
)
def test_what_is_settled(change: Json, settled: bool) -> None:
    """A watch does not wake those: there is nothing left to do about them."""
    resource = {"metadata": {"generation": 1}, "spec": {}, "status": state(*ALL)}
    assert decide.settled({**resource, **change}) == settled
