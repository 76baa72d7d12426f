"""What preflight left is found by every release that runs the same spec: one with a field more, and one with other keys before."""

import hashlib

import msgspec
import pytest
from small import a_spec

from maft.spec import DebateSpec, LoraSpec, Spec, TrainingSpec, decode_spec, immutable_spec_json
from maft.store import layout, trials
from maft.store.commits import publish
from maft.store.files import FileStore

SPEC = decode_spec(immutable_spec_json(a_spec()))
WHOLE = msgspec.to_builtins(SPEC)


class LaterLora(LoraSpec, frozen=True, kw_only=True):
    """Of a release with one field more."""

    initialization: str = "gaussian"


class LaterTraining(TrainingSpec, frozen=True, kw_only=True):
    """The same."""

    nodes: int = 1
    lora: LaterLora


class LaterDebate(DebateSpec, frozen=True, kw_only=True):
    """The same."""

    opening: dict[str, int] = {}


class Later(Spec, frozen=True, kw_only=True):
    """The same."""

    training: LaterTraining
    debate: LaterDebate
    wait: int | None = None


def later(**changes) -> Later:
    """The spec as that release decodes it."""
    whole = {**WHOLE, **{name: {**WHOLE[name], **value} if isinstance(value, dict) else value for name, value in changes.items()}}
    return msgspec.convert(whole, Later)


def test_fields_with_their_defaults_change_no_key():
    assert trials.key(later()) == trials.key(SPEC)
    assert immutable_spec_json(later()) != immutable_spec_json(SPEC)


@pytest.mark.parametrize(
    "changes",
    [
        {"wait": 5},
        {"training": {"nodes": 2}},
        {"debate": {"opening": {"a": 1}}},
        {"training": {"lora": {**WHOLE["training"]["lora"], "initialization": "orthogonal"}}},
        {"training": {"lora": {**WHOLE["training"]["lora"], "rank": 2 * SPEC.training.lora.rank}}},
        {"agents": SPEC.agents + 1},
        {"debate": {"maxTokens": SPEC.debate.max_tokens + 1}},
    ],
)
def test_other_values_change_the_key(changes):
    assert trials.key(later(**changes)) != trials.key(SPEC)


def test_what_may_change_during_a_run_is_in_no_key():
    assert trials.key(a_spec(suspend=True, backoffLimit=9)) == trials.key(SPEC)


def test_what_is_left_is_found_by_a_later_release_and_by_the_same(tmp_path):
    store = FileStore(tmp_path)
    assert trials.found(store, "ns/run", SPEC) is None
    commit = publish(store, trials.prefix("ns/run", SPEC), {"config.json": b"{}"})
    assert trials.found(store, "ns/run", SPEC) == trials.found(store, "ns/run", later()) == commit
    assert trials.found(store, "ns/run", later(wait=5)) is trials.found(store, "ns/other", SPEC) is None


def test_what_a_release_before_left_is_found(tmp_path):
    """Its key was of all fields."""
    store, before = FileStore(tmp_path), hashlib.sha256(immutable_spec_json(SPEC).encode()).hexdigest()[:12]
    commit = publish(store, layout.preflight("ns/run", before), {"config.json": b"{}"})
    assert trials.found(store, "ns/run", SPEC) == commit
