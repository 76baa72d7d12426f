"""Training on the demo's model: what the loss counts, what comes out, what is kept, what is refused."""

import hashlib
import json
import re
import shutil

import pytest
import torch
from conftest import TINY
from msgspec.structs import replace
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small import a_spec
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from maft import adapters, lora, records
from maft.chat_template import load_chat_template
from maft.errors import BadInput
from maft.packing import largest_row, pack, split_batch
from maft.program import Assignment
from maft.records import BASE, Example, Message
from maft.store import layout
from maft.store.commits import committed, fetch_folder, publish, required
from maft.store.files import FileStore
from maft.train import __main__ as train
from maft.train import memory
from maft.train.memory import Needs, needs_checkpointing
from maft.train.trainer import Trainer, _check_finite, steps

MODEL = a_spec().model
TRAINING = a_spec(training={"batchSize": 4, "batchTokens": 4096}).training


def dialogue(i: int, turns: int = 1) -> tuple[Message, ...]:
    messages = []
    for turn in range(turns):
        messages += [
            Message("user", f"What is {i}+{turn}*2?"),
            Message("assistant", f"{turn}*2={turn * 2}. Answer: {i + 2 * turn}"),
        ]
    return tuple(messages)


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


@pytest.fixture
def base():
    return lora.load_base(MODEL)


@pytest.fixture(scope="module")
def examples(template):
    return [template.tokens(dialogue(i, 1 + i % 2), every_turn=False) for i in range(12)]


def trained(base, examples, folder, seed=1, training=TRAINING, previous=None):
    return Trainer(base, training, lambda loss: None).train(examples, folder, seed=seed, previous=previous)


def test_training_prompts_are_the_prompts_of_generation(template):
    """Token equality: what the debate sends is what the loss is conditioned on."""
    for turns in (1, 2, 3):
        messages = dialogue(7, turns)
        tokens = template.tokens(messages, every_turn=False)
        start = tokens.completion.index(True)
        assert list(tokens.ids[:start]) == template.prompt(messages[:-1])
        assert all(tokens.completion[start:]) and not any(tokens.completion[:start])


def test_one_row_equals_one_example_at_a_time(base, examples):
    """No padding, no leak between neighbours: logits of a packed row are those of each example alone."""
    together = lora.logits(base, pack(examples))
    apart = torch.cat([lora.logits(base, pack([e])) for e in examples])
    assert together.shape == apart.shape
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-3)


def test_loss_is_that_of_transformers(base, examples):
    """Against the library's own loss with labels -100 outside the completion."""
    for example in examples[:4]:
        ids = torch.tensor([example.ids])
        labels = torch.where(torch.tensor([example.completion]), ids, -100)
        expected = base(input_ids=ids, labels=labels).loss
        row = pack([example])
        loss = torch.nn.functional.cross_entropy(lora.logits(base, row), row.labels)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(base, examples, tmp_path):
    whole, parts = (replace(TRAINING, batch_tokens=n) for n in (100_000, 1))
    one = trained(base, examples, tmp_path / "whole", training=whole)
    two = trained(base, examples, tmp_path / "parts", training=parts)
    assert one == pytest.approx(two, rel=1e-3)


def test_a_single_step_learns_something(base, examples, tmp_path):
    """Its warm-up would be all there is."""
    few = examples[:2]
    training = replace(TRAINING, epochs=1, batch_size=2, warmup=0.1)
    assert steps(len(few), training) == 1
    trained(base, few, tmp_path, training=training)
    weights = load_file(str(tmp_path / adapters.WEIGHTS))
    assert any(bool(w.abs().sum() > 0) for name, w in weights.items() if "lora_B" in name)


def test_equal_seeds_give_equal_bytes_and_training_lowers_the_loss(base, examples, tmp_path):
    training = replace(TRAINING, epochs=6)
    curve = trained(base, examples, tmp_path / "a", training=training)
    trained(base, examples, tmp_path / "b", training=training)
    trained(base, examples, tmp_path / "c", seed=2, training=training)
    a, b, c = ((tmp_path / name / adapters.WEIGHTS).read_bytes() for name in "abc")
    assert a == b != c
    assert sum(curve[-3:]) < sum(curve[:3])
    assert len(curve) == steps(len(examples), training)


def test_the_base_is_as_before(base, examples, tmp_path):
    before = {name: p.clone() for name, p in base.named_parameters()}
    trained(base, examples, tmp_path / "a")
    after = dict(base.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_directory_loads_in_peft_unchanged(base, examples, tmp_path):
    trained(base, examples, tmp_path / "a")
    lora.tidy(tmp_path / "a", replace(MODEL, source="some/model"), "# card")
    weights = load_file(tmp_path / "a" / adapters.WEIGHTS)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY), tmp_path / "a")
    state = {k.replace(".default", ""): v for k, v in loaded.state_dict().items() if "lora_" in k}
    assert state.keys() == weights.keys() and all(torch.equal(state[k], weights[k]) for k in state)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/model"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} == set(config["target_modules"])


def test_training_goes_on_from_the_previous_adapter(base, examples, tmp_path):
    first = trained(base, examples, tmp_path / "a", training=replace(TRAINING, epochs=5))
    second = trained(base, examples, tmp_path / "b", previous=tmp_path / "a")
    assert second[0] < first[0]


def test_an_adapter_of_another_base_is_refused(examples, tmp_path, base):
    trained(base, examples, tmp_path / "a")
    config = LlamaConfig.from_pretrained(TINY)
    config.hidden_size, config.head_dim = 64, 16
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    for file in TINY.glob("*token*"):
        shutil.copy(file, tmp_path / "other")
    other = lora.load_base(replace(MODEL, source=str(tmp_path / "other")))
    with pytest.raises(BadInput, match=r"model\.source: the previous adapter does not fit"):
        trained(other, examples, tmp_path / "b", previous=tmp_path / "a")


def test_unknown_target_modules_are_refused(base, examples, tmp_path):
    with pytest.raises(BadInput, match=r"training\.lora\.targetModules: .*no_such"):
        unknown = replace(TRAINING.lora, target_modules=("no_such",))
        trained(base, examples, tmp_path / "a", training=replace(TRAINING, lora=unknown))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    save_file({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "a" / adapters.WEIGHTS)
    with pytest.raises(BadInput, match=r"training\.learningRate: the adapter's weights are not finite"):
        _check_finite(tmp_path / "a", [1.0])


def test_a_rate_that_blows_up_publishes_nothing(base, examples, tmp_path):
    with pytest.raises(BadInput, match="not finite"):
        trained(base, examples, tmp_path / "a", training=replace(TRAINING, learning_rate=1e30, epochs=3, warmup=0.0))


def test_checkpointing_only_when_memory_asks_for_it():
    config = LlamaConfig(hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, vocab_size=32000)

    def needs(tokens: int) -> Needs:
        return Needs.of(config, base=0, adapter=0, tokens=tokens, targets=tokens, value=2, device="cuda")

    assert needs_checkpointing(needs(16384), 40 * 2**30)
    assert not needs_checkpointing(needs(1024), 60 * 2**30)


def test_checkpointing_changes_no_result(base, examples, tmp_path, monkeypatch):
    plain = trained(base, examples, tmp_path / "a")
    monkeypatch.setattr(memory, "free", lambda device: 1)  # the machine's memory is not under test, the decision is
    saving = trained(base, examples, tmp_path / "b")
    assert saving == pytest.approx(plain, rel=1e-4)


def test_rows_keep_the_limit(examples):
    parts = list(split_batch(examples, 100))
    assert [e for part in parts for e in part] == examples
    assert all(len(part) == 1 or sum(len(e.ids) for e in part) <= 100 for part in parts)


@pytest.mark.parametrize(("limit", "largest"), [(1, 7), (9, 9), (16, 15)], ids=["one that is longer", "several", "all of them"])
def test_no_row_is_larger_than_is_reckoned_with(limit, largest):
    batch = [5, 7, 3]
    assert largest_row(batch, limit) == largest
    assert all(sum(part) <= largest for part in split_batch(batch, limit, int))


# --- the program ---


def assigned(store, iteration: int = 1, *, critics: bool = True, **more) -> Assignment:
    spec = a_spec(seed=0, debate={"critics": critics}, training={"minExamples": 3, "lossOn": "last", "batchSize": 4}, **more)
    return Assignment(store=store, run="ns/run", given_spec=spec, iteration=iteration, agents=(0,))


def datasets(store, iteration=1, generator=8, critic=8):
    def lines(count, turns):
        return records.encode_lines(Example(str(i), dialogue(i, turns)) for i in range(count))

    files = {"generator-0.jsonl": lines(generator, 1), "critic-0.jsonl": lines(critic, 2)}
    publish(store, layout.datasets("ns/run", iteration), files)


def test_the_program_publishes_both_roles_with_a_card(tmp_path):
    store = FileStore(tmp_path)
    datasets(store)
    summary = train.main(assigned(store))
    assert (summary.trained, summary.kept) == (2, 0)
    for role in ("generator", "critic"):
        commit = required(store, layout.adapter("ns/run", 1, role, 0), "test")
        assert {f.name for f in commit.files} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
        name = adapters.current(store, "ns/run", 1, role, 0).name
        assert name == f"{role}-0-1-{commit.file(adapters.WEIGHTS).sha256[:12]}"
        assert commit.meta["versions"].keys() == {"maft", "torch", "transformers", "peft"}
        folder = fetch_folder(store, commit, tmp_path / f"fetched-{role}")
        card = (folder / "README.md").read_text()
        assert "base_model:" in card and "generator" in card if role == "generator" else "critic" in card
        assert str(tmp_path) not in card


def test_an_agent_with_a_rate_of_its_own_trains_at_it(tmp_path):
    """Rates of other agents change no byte."""
    weights, cards = [], []
    for number, rate in enumerate((None, {"agent": 1, "learningRate": 0.5}, {"agent": 0, "learningRate": 0.0123})):
        store = FileStore(tmp_path / str(number))
        datasets(store)
        train.main(assigned(store, critics=False, agentOverrides=[rate] if rate else []))
        commit = required(store, layout.adapter("ns/run", 1, "generator", 0), "test")
        weights.append(commit.file(adapters.WEIGHTS).sha256)
        cards.append("| 0.0123 |" in (fetch_folder(store, commit, tmp_path / f"of-{number}") / "README.md").read_text())
    assert weights[0] == weights[1] != weights[2] and cards == [False, False, True]


def test_committed_adapters_are_not_trained_again(tmp_path, capsys):
    """And each says once that it was trained, by which chaos on a cluster knows (disturbed.py)."""
    store = FileStore(tmp_path)
    datasets(store)
    train.main(assigned(store, critics=False))
    before = committed(store, layout.adapter("ns/run", 1, "generator", 0))
    timing = (tmp_path / layout.adapter("ns/run", 1, "generator", 0) / layout.TIMING).stat().st_mtime_ns
    assert train.main(assigned(store)).trained == 2
    assert committed(store, layout.adapter("ns/run", 1, "generator", 0)) == before
    assert (tmp_path / layout.adapter("ns/run", 1, "generator", 0) / layout.TIMING).stat().st_mtime_ns == timing
    adapters_trained = [layout.adapter("ns/run", 1, role, 0) for role in ("generator", "critic")]
    assert re.findall(r"^(\S+): trained in [1-9]\d* steps$", capsys.readouterr().out, re.MULTILINE) == adapters_trained


def test_an_agent_with_too_few_examples_keeps_what_it_had(tmp_path):
    store = FileStore(tmp_path)
    datasets(store, 1, generator=8, critic=2)
    summary = train.main(assigned(store))
    assert (summary.trained, summary.kept) == (1, 1)
    assert adapters.current(store, "ns/run", 1, "critic", 0).name == BASE
    datasets(store, 2, generator=0, critic=8)
    second = assigned(store, 2)
    assert train.main(second).kept == 1
    first = adapters.current(store, "ns/run", 1, "generator", 0)
    kept = adapters.current(store, "ns/run", 2, "generator", 0)
    assert kept.name == first.name and not kept.trained and kept.examples == 0
    assert adapters.current(store, "ns/run", 2, "critic", 0).name.startswith("critic-0-2-")


def test_the_seed_is_of_role_agent_and_iteration(tmp_path):
    store = FileStore(tmp_path)
    datasets(store)
    train.main(assigned(store))
    digests = {
        hashlib.sha256(store.read(commit.prefix + adapters.WEIGHTS)).hexdigest()
        for role in records.ROLES
        if (commit := committed(store, layout.adapter("ns/run", 1, role, 0)))
    }
    assert len(digests) == 2


def test_training_before_the_debate_is_one_clear_line(tmp_path):
    with pytest.raises(BadInput, match=r"datasets/: nothing committed there; the debate of this iteration has to finish first"):
        train.main(assigned(FileStore(tmp_path)))


def test_a_model_that_cannot_be_loaded_is_refused(tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(TINY, broken)
    (broken / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"model\.source: .*cannot be loaded"):
        lora.load_base(replace(MODEL, source=str(broken)))
