"""Writes the table of reasons into docs/status.md from maft_operator/reasons.py."""

from pathlib import Path

from maft_operator.cluster import reasons

PAGE = Path(__file__).parents[1] / "docs" / "status.md"
BEGIN, END = "<!-- reasons: scripts/status_reference.py -->\n", "<!-- end of reasons -->\n"
# Where each is produced: the test of that name. A test compares this table with reasons.ALL.
TESTED = {
    "Accepted": "test_why.py",
    "InvalidSpec": "test_crd.py",
    "Working": "test_on_cluster.py",
    "WrongMajority": "test_status.py test_a_majority_that_is_mostly_wrong_is_told_and_stops_nothing",
    "Retrying": "test_world.py",
    "Unschedulable": "test_why.py [unschedulable]",
    "QuotaExceeded": "test_why.py test_quota",
    "ImagePullFailed": "test_why.py [image]",
    "SecretMissing": "test_why.py [secret]",
    "SecretKeyMissing": "test_why.py [key]",
    "VolumeMissing": "test_why.py [claim]",
    "PodRefused": "test_why.py [refused], [malformed]",
    "OperatorForbidden": "test_why.py test_a_right_that_is_missing_meanwhile",
    "Queued": "test_world.py",
    "InputInvalid": "test_why.py [questions], test_a_server_with_a_flag_that_vllm_does_not_know",
    "StoreUnusable": "test_why.py [bucket]",
    "ModelGated": "test_why.py test_a_gated_model",
    "ModelUnusable": "test_why.py [model], [vision]",
    "AdapterUnusable": "test_on_cluster.py test_a_damaged_adapter_fails_the_run_with_its_name",
    "OutOfMemory": "test_why.py [memory], test_memory_runs_out_for_good",
    "Evicted": "test_why.py test_eviction_does_not_count",
    "DeadlineExceeded": "test_why.py [deadline]",
    "CrashLoop": "test_why.py test_a_server_that_keeps_ending",
    "BackoffLimitExceeded": "test_world.py",
    "Suspended": "test_lifecycle.py test_suspending_five_times_changes_nothing",
    "NotSuspended": "test_lifecycle.py",
    "AllIterationsDone": "test_on_cluster.py test_kubectl_shows_it",
    "Unfinished": "test_status.py",
    "NoFailure": "test_status.py",
}


def table() -> str:
    """A row a reason, in the order of the module."""
    rows = [f"| `{r.name}` | {r.hint or 'nothing to do'} | {TESTED[r.name]} |" for r in reasons.ALL]
    return "\n".join(["| reason | what to do | produced in |", "|---|---|---|", *rows]) + "\n"


def page(text: str) -> str:
    """The page with a fresh table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
