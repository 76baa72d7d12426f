"""The table of reasons, and which one a program's last line stands for."""

import re
from collections import Counter

import pytest
from conftest import ROOT

from maft_operator.cluster import reasons
from maft_operator.cluster.reasons import Reason, of_input, sentence

# Conditions of runs that nobody has to do anything about.
CONTENT = {
    reasons.ACCEPTED,
    reasons.WORKING,
    reasons.RUNNING,
    reasons.COMPLETE,
    reasons.UNFINISHED,
    reasons.NO_FAILURE,
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
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*?) \| [^|]*\|$", page.partition("## Reasons")[2].partition("## Fields")[0], re.MULTILINE)
    )
    assert rows == {reason.name: reason.hint or "nothing to do" for reason in reasons.ALL}


def test_conditions_are_words_too() -> None:
    assert reasons.CONDITIONS == ("Accepted", "Progressing", "Suspended", "Complete", "Failed")


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
        ("spec.iterations: was 2 when this run began, is 1; restore it, or use another name", reasons.INPUT_INVALID),
        ("", reasons.INPUT_INVALID),
    ],
)
def test_what_a_programs_last_line_is_about(message: str, reason: Reason) -> None:
    assert of_input(message) == reason


@pytest.mark.parametrize(
    ("messages", "hint", "text"),
    [
        (["no room."], "free nodes", "no room. Free nodes"),
        (["no room; ", " no light.\n", " "], "free nodes", "no room; no light. Free nodes"),
        ([], "free nodes", "Free nodes"),
        (["no room"], "", "no room"),
        ([""], "", ""),
    ],
)
def test_a_sentence_says_what_was_found_then_what_to_do(messages: list[str], hint: str, text: str) -> None:
    assert sentence(Reason("X", hint), messages) == text


def test_a_long_message_does_not_push_out_the_hint() -> None:
    text = sentence(reasons.UNSCHEDULABLE, ["x" * 100_000])
    assert len(text) < 32_768  # metav1.Condition.message
    assert text.lower().endswith(reasons.UNSCHEDULABLE.hint.lower())
