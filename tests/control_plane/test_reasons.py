"""The table of reasons, and which one a program's last line stands for."""

import re
from collections import Counter

import pytest
from conftest import ROOT

from maft_operator.cluster import reasons
from maft_operator.cluster.reasons import Reason, of_input, refusal_reason, sentence

# Conditions of runs that nobody has to do anything about.
CONTENT = {
    reasons.ACCEPTED,
    reasons.WORKING,
    reasons.RUNNING,
    reasons.COMPLETE,
    reasons.UNFINISHED,
    reasons.NO_FAILURE,
    reasons.NOT_STALLED,
    reasons.SERVING,
    reasons.STARTING,
    reasons.COMPARED,
}


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(r.name for r in reasons.ALL).items() if count > 1] == []
    assert len(reasons.ALL) > 25


@pytest.mark.parametrize("reason", reasons.ALL, ids=lambda r: r.name)
def test_names_are_words_that_conditions_may_have(reason: Reason) -> None:
    """metav1.Condition.reason: ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$, by convention in CamelCase."""
    assert re.fullmatch("([A-Z][a-z0-9]+)+", reason.name)


@pytest.mark.parametrize("reason", reasons.ALL, ids=lambda r: r.name)
def test_who_has_to_do_something_is_told_what(reason: Reason) -> None:
    assert (len(reason.hint) > 10) == (reason not in CONTENT)
    assert not reason.hint.endswith(".")


def test_the_page_about_the_status_has_every_reason_with_its_hint() -> None:
    page = (ROOT / "docs" / "status.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", page.partition("## Reasons")[2].partition("## Fields")[0], re.MULTILINE))
    assert rows == {reason.name: reason.hint or "nothing to do" for reason in reasons.ALL}


# Where each is produced: the file, and the tests or cases in it.
PRODUCED = {
    "TableMade": "test_comparison_controller.py test_from_the_first_run_to_the_table",
    "RunsFailed": "test_comparison_controller.py test_where_all_runs_failed_so_has_the_comparison",
    "Accepted": "test_conditions.py test_a_run_that_nothing_is_wrong_with_has_a_reason_in_every_condition",
    "InvalidSpec": "test_cluster_backend.py test_a_run_that_never_began_is_rejected",
    "Working": "test_conditions.py test_a_run_that_nothing_is_wrong_with_has_a_reason_in_every_condition",
    "WrongMajority": "test_conditions.py test_a_majority_that_is_mostly_wrong_is_told_and_stops_nothing",
    "NothingTrained": "test_conditions.py test_that_nothing_was_trained_is_told_with_the_reason_and_what_to_change",
    "AnswersCut": "test_conditions.py test_too_many_answers_that_were_cut_off_are_told",
    "Retrying": "test_observed.py [an attempt failed], [two attempts failed]",
    "Disrupted": "test_observed.py [a pod was preempted]",
    "Unschedulable": "test_why.py [unschedulable]",
    "QuotaExceeded": "test_why.py test_quota",
    "ImagePullFailed": "test_why.py [image]",
    "SecretMissing": "test_why.py [secret]",
    "SecretKeyMissing": "test_why.py [key]",
    "VolumeMissing": "test_why.py [claim]",
    "PodRefused": "test_why.py [refused], [malformed]",
    "OperatorForbidden": "test_why.py test_a_right_that_is_missing_meanwhile",
    "NewerSpec": "test_cluster_backend.py test_a_run_that_cannot_be_read_keeps_what_it_had_in_the_new_shape",
    "Queued": "test_observed.py [a queue holds the pod], [a queue holds the Job]",
    "QueueUnusable": "test_workloads.py test_a_queue_that_will_never_admit_it_is_told_apart",
    "WebhookUnavailable": "test_workloads.py test_a_webhook_that_is_away_is_told",
    "MetricsUnreadable": "test_measured.py test_what_metrics_say",
    "DebatesLackRoom": "test_kueue.py test_servers_make_room_where_no_debate_finds_any_beside_them",
    "PeersMissing": "test_observed.py test_pods_that_did_not_all_come_lack_places_until_all_are_there",
    "ServersGivenBack": "test_places.py test_two_runs_that_hold_half_of_the_slots_each_both_finish",
    "NameTaken": "test_cluster_backend.py test_what_is_somebody_elses_is_not_taken_over",
    "TooManyObjects": "test_api.py test_a_list_without_an_end_is_refused",
    "NodeLost": "test_observed.py [its node is silent]",
    "SidecarRunsOn": "test_observed.py test_a_program_has_done_its_work_though_a_sidecar_runs_on",
    "PodRejected": "test_observed.py [the node refuses its pods]",
    "PodStuck": "test_observed.py [a reason that nobody knows], [any Warning]",
    "InputInvalid": "test_why.py [questions], test_a_server_with_a_flag_that_vllm_does_not_know",
    "StoreUnusable": "test_why.py [bucket]",
    "ModelGated": "test_why.py test_a_gated_model",
    "ModelUnusable": "test_why.py [model], [vision]",
    "AdapterUnusable": "test_on_cluster.py test_a_damaged_adapter_fails_the_run_with_its_name",
    "OutOfMemory": "test_why.py [memory], test_memory_runs_out_for_good",
    "Evicted": "test_why.py test_a_pod_that_takes_more_than_its_volume_has_is_an_attempt",
    "DeadlineExceeded": "test_why.py [deadline]",
    "BudgetSpent": "test_why.py [budget]",
    "CrashLoop": "test_why.py test_a_server_that_keeps_ending",
    "BackoffLimitExceeded": "test_observed.py [too many attempts]",
    "Suspended": "test_lifecycle.py test_suspending_five_times_changes_nothing",
    "NotSuspended": "test_conditions.py test_a_run_that_nothing_is_wrong_with_has_a_reason_in_every_condition",
    "Serving": "test_society.py test_what_the_status_says",
    "Starting": "test_society.py test_what_the_status_says",
    "ScaledToZero": "test_society.py test_what_the_status_says",
    "RunMissing": "test_society.py test_a_run_that_is_not_there",
    "RunUnusable": "test_society.py test_why_nothing_can_be_made",
    "RunUnfinished": "test_society.py test_why_nothing_can_be_made",
    "IterationUnfinished": "test_society.py test_why_nothing_can_be_made",
    "IterationMissing": "test_society.py test_why_nothing_can_be_made",
    "RunWithoutAdapters": "test_society.py test_why_nothing_can_be_made",
    "NotStalled": "test_conditions.py test_kstatus_tells_what_goes_on_from_what_failed_and_what_is_over",
    "AllIterationsDone": "test_on_cluster.py test_kubectl_shows_it",
    "Unfinished": "test_conditions.py test_a_run_that_nothing_is_wrong_with_has_a_reason_in_every_condition",
    "NoFailure": "test_conditions.py test_a_run_that_nothing_is_wrong_with_has_a_reason_in_every_condition",
    "ModelWarning": "test_conditions.py test_each_warning_is_an_event_once",
    "OperatorWarning": "test_cluster_backend.py test_a_field_that_is_not_known_is_told_once_and_the_run_begins",
}


def test_every_reason_is_produced_in_some_test() -> None:
    assert set(PRODUCED) == {reason.name for reason in reasons.ALL}
    texts = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for reason, (file, _, cases) in ((reason, where.partition(" ")) for reason, where in PRODUCED.items()):
        assert file in texts and cases, f"{reason}: a file by itself produces nothing, name a test or a case of it"
        for case in cases.split(", "):
            assert f"def {case}(" in texts[file] or f'"{case.strip("[]")}": (' in texts[file], case


def test_conditions_are_words_too() -> None:
    assert reasons.CONDITIONS == ("Accepted", "Progressing", "Suspended", "Complete", "Failed", "Reconciling", "Stalled")


WEIGHTS = "s3://b/default/r/iterations/1/adapters/generator-0/adapter_model.safetensors"
STORE = "store s3://bucket/runs: "
HUB = "Access to model org/m is restricted and you are not in the authorized list. Visit https://hub/org/m to ask for access."


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (f"{STORE}the access key is unknown; check the storage settings", reasons.STORE_UNUSABLE),
        (f"error: {STORE}no such bucket", reasons.STORE_UNUSABLE),
        ("storage.bucket: no such bucket", reasons.STORE_UNUSABLE),
        ("model.source: org/m is no model folder (it has no config.json)", reasons.MODEL_UNUSABLE),
        ("model.source: /m/model.safetensors is damaged: bad header", reasons.MODEL_UNUSABLE),
        ("model.source: org/aggregated is a vit model, not a causal language model", reasons.MODEL_UNUSABLE),
        ("model.revision: org/m has no v2", reasons.MODEL_UNUSABLE),
        (f"model.source: org/m cannot be read as a model: {HUB}", reasons.MODEL_GATED),
        ("model.source: Cannot access gated repo for url https://hub/org/m", reasons.MODEL_GATED),
        ("model.source: Your request to access model org/m is awaiting a review from the repo authors.", reasons.MODEL_GATED),
        ("model.source: the previous adapter does not fit this model: size mismatch", reasons.ADAPTER_UNUSABLE),
        (f"{WEIGHTS}: damaged, sha256 0a1b2c3d4e5f where f5e4d3c2b1a0 was committed", reasons.ADAPTER_UNUSABLE),
        (f"{WEIGHTS}: gone, though it was committed", reasons.ADAPTER_UNUSABLE),
        (f"server r-server: http://r-server:8000 refused a request (422): adapter x: {WEIGHTS}: damaged", reasons.ADAPTER_UNUSABLE),
        ("s3://b/default/r/iterations/1/debate/transcripts.jsonl: damaged, sha256 0a1b", reasons.INPUT_INVALID),
        ("server r-server: http://r-server:8000 refused a request (404): no model x", reasons.INPUT_INVALID),
        ("task.source: q.jsonl holds no questions; give it some", reasons.INPUT_INVALID),
        ("task.answer: none of the answers to the first 20 questions holds a number about a model.", reasons.INPUT_INVALID),
        ("training.learningRate: the adapter's weights are not finite (last loss nan); lower the rate", reasons.INPUT_INVALID),
        ("training.lora.rank: vLLM refused the adapter; set 64", reasons.INPUT_INVALID),
        ("inference.extraArgs: the adapter does not fit what they say", reasons.INPUT_INVALID),
        ("spec.iterations: was 2 when this run began, is 1; restore it, or use another name", reasons.INPUT_INVALID),
        ("", reasons.INPUT_INVALID),
    ],
)
def test_what_a_programs_last_line_is_about(message: str, reason: Reason) -> None:
    assert of_input(message) == reason


QUOTA = 'pods "r-1-debate-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (QUOTA, reasons.QUOTA_EXCEEDED),
        ('pods "r-x" is forbidden: failed quota: q: must specify limits.cpu for: debate', reasons.QUOTA_EXCEEDED),
        ('jobs.batch "r" is forbidden: exceeded quota: volumes, requested: count/jobs.batch=1', reasons.QUOTA_EXCEEDED),
        ('jobs.batch is forbidden: User "system:serviceaccount:x:maft" cannot create resource "jobs"', reasons.FORBIDDEN),
        ('pods "r" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi', reasons.POD_REFUSED),
        (
            'pods "r" is forbidden: violates PodSecurity "restricted:latest": restricted volume types (volume "v" uses hostPath)',
            reasons.POD_REFUSED,
        ),
        ('Job.batch "r" is invalid: spec.template.spec.containers[0].volumeMounts[3].name: Not found: "v"', reasons.POD_REFUSED),
        ('admission webhook "policy" denied the request: volume "v" is not allowed', reasons.POD_REFUSED),
    ],
)
def test_why_the_api_server_refuses(message: str, reason: Reason) -> None:
    assert refusal_reason(message) == reason


@pytest.mark.parametrize(
    ("messages", "hint", "text"),
    [
        (["no room."], "free nodes", "no room. Free nodes"),
        (["no room; ", " no light.\n", " "], "free nodes", "no room; no light. Free nodes"),
        ([], "free nodes", "Free nodes"),
        (["no room"], "", "no room"),
        ([""], "", ""),
        (["a\x1b[31mb\r\n2026-01-01 ERROR forged\u202e\x00"], "read", "a [31mb 2026-01-01 ERROR forged. Read"),
    ],
)
def test_a_sentence_says_what_was_found_then_what_to_do(messages: list[str], hint: str, text: str) -> None:
    assert sentence(Reason("X", hint), messages) == text


def test_a_long_message_does_not_push_out_the_hint() -> None:
    text = sentence(reasons.UNSCHEDULABLE, ["x" * 100_000])
    assert len(text) < 32_768  # metav1.Condition.message
    assert text.lower().endswith(reasons.UNSCHEDULABLE.hint.lower())
