"""Agents that differ in what they are made of: their adapters, who summarizes, their models."""

import json

import pytest
from small import a_spec

from maft import adapters, records
from maft.errors import BadInput
from maft.preflight import __main__ as preflight
from maft.program import Assignment
from maft.records import Example, Message
from maft.serve import __main__ as serve
from maft.serve import tried
from maft.serve.platform import Platform
from maft.spec import LoraSpec
from maft.store import layout, trials
from maft.store.commits import fetch_folder, publish, required
from maft.store.files import FileStore
from maft.train import __main__ as train
from maft.variants import variants

WIDE = {"agent": 1, "lora": {"rank": 12, "alpha": 24, "targetModules": ["q_proj"]}}


def assigned(store, agents=(0, 1, 2), **spec) -> Assignment:
    return Assignment(FileStore(store), "ns/run", a_spec(**spec), iteration=1, agents=tuple(agents))


# --- adapters ---


def test_an_agent_has_adapters_of_its_own_kind():
    spec = a_spec(agentOverrides=[WIDE, {"agent": 2, "lora": {"dropout": 0.1}}])
    assert spec.training_of(0).lora == spec.training.lora
    assert spec.training_of(1).lora == LoraSpec(rank=12, alpha=24, dropout=0.0, target_modules=("q_proj",), experts=False)
    assert (spec.training_of(2).lora.rank, spec.training_of(2).lora.dropout) == (4, 0.1)
    assert spec.largest_rank == 12


@pytest.mark.parametrize(
    ("method", "largest"), [("multiagent", 12), ("single-agent", 4), ("debate", 4), ("star", 4), ("without-critics", 12)]
)
def test_room_is_kept_for_the_adapters_that_there_will_be(method, largest):
    """Of one model for all agents, those of agent 0."""
    assert a_spec(method=method, agentOverrides=[WIDE]).largest_rank == largest


def test_agents_that_are_alike_are_one_variant():
    assert [(each.agents, each.spec) for each in variants(a_spec())] == [((0, 1, 2), a_spec())]
    sampling = a_spec(agentOverrides=[{"agent": 1, "temperature": 0.2, "learningRate": 0.1}])
    assert [each.spec for each in variants(sampling)] == [sampling]
    same = a_spec(agentOverrides=[{"agent": 2, "lora": {"rank": 4}}])
    assert [each.agents for each in variants(same)] == [(0, 1, 2)]
    several = variants(a_spec(agents=4, agentOverrides=[WIDE, {**WIDE, "agent": 3, "system": "Be brief."}]))
    assert [each.agents for each in several] == [(0, 2), (1, 3)]
    assert [each.spec.training.lora.rank for each in several] == [4, 12]
    assert [override.system for override in several[1].spec.agent_overrides] == [None, "Be brief."]


def some_data(store: FileStore, agents=3):
    chats = [(Message("user", f"What is {i}+2*3?"), Message("assistant", f"Answer: {i + 6}")) for i in range(8)]
    rows = records.encode_lines(Example(str(i), chat) for i, chat in enumerate(chats))
    files = {layout.dataset_file(role, n): rows for role in ("generator", "critic") for n in range(agents)}
    publish(store, layout.datasets("ns/run", 1), files)


def test_each_trains_its_own_kind_and_no_other_changes(tmp_path):
    hashes = []
    for overrides in ([], [WIDE]):
        given = assigned(tmp_path / str(len(overrides)), agentOverrides=overrides, debate={"critics": False})
        some_data(given.store)
        train.main(given)
        commits = [required(given.store, layout.adapter("ns/run", 1, "generator", n), "test") for n in range(3)]
        hashes.append([commit.file(adapters.WEIGHTS).sha256 for commit in commits])
    folder = fetch_folder(given.store, commits[1], tmp_path / "fetched")
    made = json.loads((folder / "adapter_config.json").read_text())
    assert (made["r"], made["lora_alpha"], made["target_modules"]) == (12, 24, ["q_proj"])
    assert "| 12 | 24 " in (folder / "README.md").read_text()
    assert [one == other for one, other in zip(*hashes, strict=True)] == [True, False, True]


def test_a_server_keeps_room_for_the_largest(tmp_path):
    listening = serve.Listening("::", 8000, 6, str(tmp_path))
    line = serve.command(assigned(tmp_path, agentOverrides=[WIDE]), listening, Platform("cpu", 0, 4 << 30))
    assert line[line.index("--max-lora-rank") + 1] == "16"


@pytest.mark.models
def test_preflight_tries_each_kind(tmp_path):
    given = assigned(tmp_path, agentOverrides=[WIDE, {"agent": 2, "lora": {"targetModules": ["v_proj"]}}])
    summary = preflight.main(given)
    one = preflight.main(assigned(tmp_path / "alike"))
    assert summary.modules == one.modules and summary.stored_bytes < one.stored_bytes and summary.requests == one.requests
    assert preflight.main(given) == summary
    left = [trials.found(given.store, "ns/run", given.spec, n) for n in range(3)]
    assert [commit.meta["targets"] for commit in left[1:]] == [["q_proj"], ["v_proj"]]
    assert set(tried.targets(given)) == {"q_proj", "v_proj", *left[0].meta["targets"]}


@pytest.mark.models
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"targetModules": ["no_such"]}, r"agentOverrides\[agent=1\]\.lora\.targetModules: .*no_such"),
        ({"targetModules": ["lm_head"]}, r"agentOverrides\[agent=1\]\.lora\.targetModules: lm_head reads or writes tokens"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_its_field(override, line, tmp_path):
    with pytest.raises(BadInput, match=rf"^{line}") as caught:
        preflight.main(assigned(tmp_path, agentOverrides=[{"agent": 1, "lora": override}]))
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match=r"^training\.lora\.targetModules"):
        preflight.main(assigned(tmp_path, training={"lora": override}, agentOverrides=[{"agent": 1, "lora": {"rank": 8}}]))
