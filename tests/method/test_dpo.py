"""DPO on the demo's model: the loss against arithmetic done plainly, what the gradient does, and that sft is as it was."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, TINY
from msgspec.structs import replace
from peft import PeftModel
from safetensors.torch import load_file
from small import a_spec
from transformers import AutoModelForCausalLM

from maft import adapters, lora, records
from maft.chat_template import load_chat_template
from maft.errors import BadInput
from maft.packing import split_batch
from maft.program import Assignment
from maft.records import Example, Message
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import committed, publish
from maft.store.files import FileStore
from maft.train import __main__ as train
from maft.train.dpo import Pair, Preferences
from maft.train.forward import Forward
from maft.train.objectives import prepare
from maft.train.trainer import Trainer, steps

MODEL = a_spec().model
TRAINING = a_spec(training={"warmup": 0, "batchSize": 4, "batchTokens": 4096}).training
BETA = 0.5
TOGETHER, ALONE = Forward(packs=True), Forward(packs=False)


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


@pytest.fixture
def base():
    return lora.load_base(MODEL)


@pytest.fixture(scope="module")
def pairs(template) -> list[Pair]:
    """Answers of different lengths, so that a sum is told from a mean."""

    def tokens(i: int, text: str):
        return template.tokens((Message("user", f"What is {i}+3*4?"), Message("assistant", text)), every_turn=False)

    return [Pair(tokens(i, f"3*4=12. {i}+12={i + 12}. Answer: {i + 12}"), tokens(i, f"Answer: {i + 13}")) for i in range(6)]


def plain(model, tokens) -> float:
    """Log-probability of the answer, the whole sequence through the model alone, token by token in Python's numbers."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens.ids])).logits[0].double()
    total = 0.0
    for place in range(1, len(tokens.ids)):
        if tokens.completion[place]:
            scores = [float(v) for v in logits[place - 1]]
            highest = max(scores)
            total += scores[tokens.ids[place]] - highest - math.log(sum(math.exp(s - highest) for s in scores))
    return total


def margin(model, pair: Pair) -> float:
    return plain(model, pair.chosen) - plain(model, pair.rejected)


def by_hand(margins, references) -> float:
    """Equation 7 of arXiv 2305.18290."""
    terms = [-math.log(1 / (1 + math.exp(-BETA * (m - r)))) for m, r in zip(margins, references, strict=True)]
    return sum(terms) / len(terms)


def loss(model, pairs_, limit=4096, forward=TOGETHER) -> float:
    """As the trainer computes it, in parts."""
    objective = Preferences(BETA)
    total = 0.0
    with torch.no_grad():
        for part in split_batch(pairs_, limit):
            row, each = forward.log_probabilities(model, objective.sequences(part))
            total += float(objective.loss(each, row, part, pairs_))
    return total


def trained(base, examples, folder, *, training=TRAINING, seed=1, previous=None, beta=BETA):
    return Trainer(base, training, lambda value: None, Preferences(beta)).train(examples, folder, seed=seed, previous=previous)


def adapted(folder):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32), folder).eval()


def test_the_loss_is_that_of_the_paper_computed_plainly(base, pairs):
    margins = [margin(base, pair) for pair in pairs]
    references = [0.3 * i - 1 for i in range(len(pairs))]
    given = [dataclasses.replace(pair, reference_margin=r) for pair, r in zip(pairs, references, strict=True)]
    assert loss(base, given) == pytest.approx(by_hand(margins, references), rel=1e-4)
    assert loss(base, given) != pytest.approx(by_hand(margins, [0.0] * len(pairs)), rel=1e-2)


def test_the_reference_is_the_margin_before_training(base, pairs):
    prepared = prepare(Preferences(BETA), base, list(pairs), TOGETHER, 4096)
    assert [pair.reference_margin for pair in prepared] == pytest.approx([margin(base, pair) for pair in pairs], rel=1e-3, abs=1e-3)
    assert [(p.chosen, p.rejected) for p in prepared] == [(p.chosen, p.rejected) for p in pairs]
    assert loss(base, prepared) == pytest.approx(math.log(2), rel=1e-4)  # where training starts, policy and reference agree


@pytest.mark.parametrize("limit", [1, 60, 150])
def test_how_pairs_are_packed_does_not_change_loss_or_reference(base, pairs, limit):
    given = [dataclasses.replace(pair, reference_margin=float(i)) for i, pair in enumerate(pairs)]
    assert loss(base, given, limit) == pytest.approx(loss(base, given), rel=1e-4)
    apart, together = (prepare(Preferences(BETA), base, list(pairs), TOGETHER, n) for n in (limit, 4096))
    assert [p.reference_margin for p in apart] == pytest.approx([p.reference_margin for p in together], rel=1e-3, abs=1e-3)


class Mixing(torch.nn.Module):
    """Every token carries on all that stood before it in the row, whatever the positions say."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(512, 16), torch.nn.Linear(16, 512)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, input_ids, position_ids=None, logits_to_keep=slice(None), use_cache=False):
        states = torch.tanh(self.embed(input_ids).cumsum(1))
        return SimpleNamespace(logits=self.head(states[:, logits_to_keep]))


def test_a_model_that_mixes_neighbours_gets_each_answer_alone(pairs):
    torch.manual_seed(0)
    model = Mixing().eval()
    sequences = Preferences(BETA).sequences(pairs)
    with torch.no_grad():
        assert not lora.supports_packing(model, sequences, lora.logits_alone(model, sequences))
    margins = [margin(model, pair) for pair in pairs]
    apart = prepare(Preferences(BETA), model, list(pairs), ALONE, 1)
    assert [pair.reference_margin for pair in apart] == pytest.approx(margins, rel=1e-3, abs=1e-3)
    assert loss(model, pairs, 1, ALONE) == pytest.approx(by_hand(margins, [0.0] * len(pairs)), rel=1e-4)
    assert loss(model, pairs) != pytest.approx(loss(model, pairs, 1, ALONE), rel=1e-3)


def test_training_makes_the_chosen_answers_likelier_than_the_rejected(base, pairs, tmp_path):
    before = [margin(base, pair) for pair in pairs]
    curve = trained(base, pairs, tmp_path / "a", training=replace(TRAINING, epochs=4))
    model = adapted(tmp_path / "a")
    assert all(margin(model, pair) > m for pair, m in zip(pairs, before, strict=True))
    assert curve[0] == pytest.approx(math.log(2), rel=1e-3) and curve[-1] < curve[0]
    assert len(curve) == steps(len(pairs), TRAINING) * 4
    swapped = [Pair(pair.rejected, pair.chosen) for pair in pairs]
    trained(base, swapped, tmp_path / "b", training=replace(TRAINING, epochs=4))
    model = adapted(tmp_path / "b")
    assert all(margin(model, pair) < m for pair, m in zip(pairs, before, strict=True))


def test_beta_weighs_the_gradient(base, pairs):
    """At the start the gradient is beta / 2 times that of the margins: policy and reference agree there."""

    def gradient(beta: float) -> torch.Tensor:
        model = base.requires_grad_(True)
        objective = Preferences(beta)
        prepared = prepare(objective, model, list(pairs), TOGETHER, 4096)
        row, each = TOGETHER.log_probabilities(model, objective.sequences(prepared))
        model.zero_grad()
        objective.loss(each, row, prepared, prepared).backward()
        return model.get_input_embeddings().weight.grad.clone()

    one, three = gradient(0.1), gradient(0.3)
    torch.testing.assert_close(three, 3 * one, rtol=1e-3, atol=1e-6)
    assert one.abs().max() > 0


def test_equal_seeds_give_equal_bytes(base, pairs, tmp_path):
    training = replace(TRAINING, epochs=2, lora=replace(TRAINING.lora, dropout=0.1))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trained(base, pairs, tmp_path / name, training=training, seed=seed)
    a, b, c = ((tmp_path / name / adapters.WEIGHTS).read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(("method", "rate"), [("sft", 0.004), ("distill", 0.004), ("dpo", 0.001)])
def test_preferences_have_a_rate_of_their_own(method, rate):
    assert a_spec(training={"method": method, "learningRate": 0.004, "preferenceRate": 0.25}).training.peak_rate == rate


def test_the_rate_of_an_agent_is_scaled_too():
    spec = a_spec(training={"method": "dpo"}, agentOverrides=[{"agent": 1, "learningRate": 0.5}])
    assert spec.training_of(1).peak_rate == pytest.approx(0.05)


def test_a_scaled_rate_trains_as_that_rate(base, pairs, tmp_path):
    scaled = replace(TRAINING, method="dpo", learning_rate=0.004, preference_rate=0.25)
    for name, training in (("a", scaled), ("b", replace(scaled, learning_rate=0.001, preference_rate=1.0)), ("c", TRAINING)):
        trained(base, pairs, tmp_path / name, training=training)
    a, b, c = ((tmp_path / name / adapters.WEIGHTS).read_bytes() for name in "abc")
    assert a == b != c


def test_the_previous_adapter_is_the_reference_of_the_next_iteration(base, pairs, tmp_path):
    trained(base, pairs, tmp_path / "a", training=replace(TRAINING, epochs=4))
    curve = trained(base, pairs, tmp_path / "b", training=replace(TRAINING, batch_size=6), previous=tmp_path / "a")
    assert curve[0] == pytest.approx(math.log(2), rel=1e-3)  # against the base it would be far less
    first = adapted(tmp_path / "a")
    references = [margin(base, pair) for pair in pairs]
    assert by_hand([margin(first, pair) for pair in pairs], references) < 0.9 * math.log(2)


def test_dropout_does_not_blur_the_reference(base, pairs, tmp_path):
    trained(base, pairs, tmp_path / "a", training=replace(TRAINING, epochs=4, lora=replace(TRAINING.lora, dropout=0.5)))
    model = PeftModel.from_pretrained(base, tmp_path / "a", is_trainable=True).train()
    one, two = (prepare(Preferences(BETA), model, list(pairs), TOGETHER, 4096) for _ in range(2))
    assert one == two


# --- the program ---


def assigned(store, **training) -> Assignment:
    spec = a_spec(seed=0, debate={"critics": False}, training={"minExamples": 3, "lossOn": "all", "batchSize": 4, **training})
    return Assignment(store=store, run="ns/run", given_spec=spec, iteration=1, agents=(0,))


def data(store, *, rejected: bool, **meta):
    examples = [Example(str(i), (Message("user", f"What is {i}+1?"), Message("assistant", f"Answer: {i + 1}"))) for i in range(5)]
    if rejected:
        examples = [replace(e, rejected=Message("assistant", "Answer: 99")) for e in examples]
    publish(store, layout.datasets("ns/run", 1), {"generator-0.jsonl": records.encode_lines(examples)}, meta=meta)


def test_the_program_trains_on_pairs_and_its_card_says_so(tmp_path):
    store = FileStore(tmp_path)
    data(store, rejected=True, examples="pairs", pooled=False)
    summary = train.main(assigned(store, method="dpo", beta=0.1))
    assert summary.trained == 1
    made = adapters.current(store, "ns/run", 1, "generator", 0)
    assert made.loss_first == pytest.approx(math.log(2), abs=2e-3) and made.examples == 5
    card = store.read(layout.adapter("ns/run", 1, "generator", 0) + "README.md").decode()
    assert "preferred to others that do not; no reference answers were used" in card
    assert f"| {assigned(store, method='dpo').spec.training.peak_rate:g} |" in card


def test_a_card_does_not_hide_that_labels_were_read(tmp_path):
    store = FileStore(tmp_path)
    data(store, rejected=False, examples="hinted", pooled=True)
    train.main(assigned(store))
    card = store.read(layout.adapter("ns/run", 1, "generator", 0) + "README.md").decode()
    assert "outputs of all agents that equal the reference answers" in card
    assert "no reference answers" not in card


def test_single_answers_are_no_pairs(tmp_path):
    store = FileStore(tmp_path)
    data(store, rejected=False)
    with pytest.raises(BadInput, match=r"^training\.method: dpo needs pairs, and this dataset has single answers"):
        train.main(assigned(store, method="dpo", beta=0.1))
    assert committed(store, layout.adapter("ns/run", 1, "generator", 0)) is None


def test_a_pair_counts_both_answers(pairs):
    assert all(len(p.ids) == len(p.chosen.ids) + len(p.rejected.ids) for p in pairs)
    parts = list(split_batch(pairs, 150))
    assert len(parts) > 1 and all(sum(len(p.ids) for p in part) <= 150 for part in parts)


# --- sft is what this loop does, written out: all logits at once, and a mask over the row ---

PLAIN = """
import json, math, random, sys
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import get_cosine_schedule_with_warmup
from maft import lora
from maft.chat_template import Tokens
from maft.packing import split_batch
from maft.spec import decode_spec

examples = [Tokens(tuple(ids), tuple(counts)) for ids, counts in json.load(open(sys.argv[1]))]
base = lora.load_base(decode_spec(sys.argv[2]).model)
torch.manual_seed(5)
model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"))
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
total = 2 * math.ceil(len(examples) / 4)
schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.1 * total), total)
order = random.Random(5)
model.train()
for _ in range(2):
    order.shuffle(examples)
    for start in range(0, len(examples), 4):
        batch = examples[start : start + 4]
        counted = sum(sum(e.completion) for e in batch)
        for part in split_batch(batch, 100):
            ids = torch.tensor([[i for e in part for i in e.ids]])
            positions = torch.tensor([[p for e in part for p in range(len(e.ids))]])
            marked = [c and p > 0 for e in part for p, c in enumerate(e.completion)]
            target_positions = torch.tensor([i - 1 for i, c in enumerate(marked) if c])
            logits = model(input_ids=ids, position_ids=positions, logits_to_keep=target_positions, use_cache=False).logits[0]
            (cross_entropy(logits.float(), ids[0][target_positions + 1], reduction="sum") / counted).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
model.save_pretrained(sys.argv[3], safe_serialization=True)
"""


@pytest.mark.programs
def test_sft_is_the_plain_loop(base, template, tmp_path):
    dialogues = [(Message("user", f"What is {i}+2*2?"), Message("assistant", f"2*2=4. Answer: {i + 4}")) for i in range(10)]
    examples = [template.tokens(messages, every_turn=False) for messages in dialogues]
    (tmp_path / "examples.json").write_text(json.dumps([[e.ids, e.completion] for e in examples]))
    training = replace(
        TRAINING, lora=replace(TRAINING.lora, dropout=0.1), warmup=0.1, weight_decay=0.01, epochs=2, batch_tokens=100
    )
    Trainer(base, training, lambda value: None).train(examples, tmp_path / "ours", seed=5, previous=None)
    line = [sys.executable, "-c", PLAIN, str(tmp_path / "examples.json"), immutable_spec_json(a_spec()), str(tmp_path / "plain")]
    subprocess.run(line, check=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT / "images")})
    ours, theirs = (load_file(tmp_path / name / adapters.WEIGHTS) for name in ("ours", "plain"))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        # Of gradients near zero Adam takes the sign.
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=TRAINING.learning_rate / 30)
