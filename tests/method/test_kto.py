"""KTO on the demo's model: the loss against arithmetic done plainly and against TRL's trainer, and where its numbers come from."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY
from msgspec.structs import replace
from safetensors.torch import load_file
from small import a_spec

from maft import adapters, lora, records
from maft.chat_template import load_chat_template
from maft.errors import BadInput
from maft.packing import split_batch
from maft.program import Assignment
from maft.records import Example, Message
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.train import __main__ as train
from maft.train.forward import Forward
from maft.train.kto import Graded, Grades, balanced
from maft.train.objectives import prepare
from maft.train.samples import samples
from maft.train.trainer import Trainer, steps

MODEL = a_spec().model
TRAINING = a_spec(training={"method": "kto", "warmup": 0, "batchSize": 4, "batchTokens": 4096, "preferenceRate": 1}).training
BETA = 0.5
TOGETHER = Forward(packs=True)
ANSWERS = [(f"3*4=12. {i}+12={i + 12}. Answer: {i + 12}", True) if i % 3 else (f"Answer: {i + 13}", False) for i in range(6)]


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


@pytest.fixture
def base():
    return lora.load_base(MODEL)


def example(i: int, text: str, desirable: bool) -> Example:
    return Example(str(i), (Message("user", f"What is {i}+3*4?"), Message("assistant", text)), desirable=desirable)


@pytest.fixture(scope="module")
def graded(template) -> list[Graded]:
    return list(samples(TRAINING, template, [example(i, *answer) for i, answer in enumerate(ANSWERS)]))


def plain(model, tokens) -> float:
    """Log-probability of the answer, the whole sequence through the model alone."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens.ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[place - 1, tokens.ids[place]]) for place in range(1, len(tokens.ids)) if tokens.completion[place])


def by_hand(answers, moved: float, weights: tuple[float, float]) -> float:
    """Section 4.2 of arXiv 2402.01306; answers: of each its gain and whether it is desirable."""

    def value(gain: float, desirable: bool) -> float:
        return 1 / (1 + math.exp(-BETA * ((gain - moved) if desirable else (moved - gain))))

    return sum(weights[desirable] * (1 - value(gain, desirable)) for gain, desirable in answers) / len(answers)


def loss(model, batch, limit: int = 4096) -> float:
    """As the trainer computes it, in parts."""
    objective = Grades(BETA)
    with torch.no_grad():
        parts = list(split_batch(batch, limit))
        mean = sum(float(objective.followed(model, part, TOGETHER).sum()) for part in parts) / len(batch)
        told = objective.following(batch, mean)
        total = 0.0
        for part in split_batch(told, limit):
            row, each = TOGETHER.log_probabilities(model, objective.sequences(part))
            total += float(objective.loss(each, row, part, told))
    return total


@pytest.mark.parametrize("shift", [-3.0, 3.0])
@pytest.mark.parametrize("limit", [1, 60, 4096])
def test_the_loss_is_that_of_the_paper_computed_plainly(base, graded, shift, limit):
    """Whatever the reference: where strangers became less likely, the divergence is none below zero."""
    weights = (3.0, 2.0)
    given = [
        dataclasses.replace(
            e,
            reference=plain(base, e.answer) - i / 2 + 1,
            stranger_reference=plain(base, e.stranger) - shift,
            weight=weights[e.desirable],
        )
        for i, e in enumerate(graded)
    ]
    answers = [(i / 2 - 1, e.desirable) for i, e in enumerate(graded)]
    assert loss(base, given, limit) == pytest.approx(by_hand(answers, max(0.0, shift), weights), rel=1e-4)


def test_where_training_starts_policy_and_reference_agree(base, graded):
    prepared = prepare(Grades(BETA), base, graded, TOGETHER, 60)
    assert [e.reference for e in prepared] == pytest.approx([plain(base, e.answer) for e in graded], abs=1e-3)
    assert [e.stranger_reference for e in prepared] == pytest.approx([plain(base, e.stranger) for e in graded], abs=1e-3)
    assert [e.weight for e in prepared] == [1.0 if e.desirable else 2.0 for e in graded]
    assert loss(base, list(prepared)) == pytest.approx(0.5 * 8 / 6, rel=1e-4)


@pytest.mark.parametrize(
    ("desirable", "others", "weights"),
    [(4, 2, (2.0, 1.0)), (1, 3, (1.0, 3.0)), (5, 5, (1.0, 1.0)), (7, 0, (1.0, 1.0)), (0, 7, (1.0, 1.0))],
)
def test_both_kinds_count_as_much(desirable, others, weights):
    assert balanced(desirable, others) == weights


def test_a_stranger_answers_another_question(template):
    """Also in a pool, where answers to one question stand side by side."""
    several = [example(i // 3, f"Answer: {i}", i % 2 == 0) for i in range(9)]
    made = list(samples(TRAINING, template, several))
    own = {template.tokens(e.messages, every_turn=False).ids: e.problem for e in several}
    for one in made:
        prompt = one.answer.completion.index(True)
        assert one.stranger.ids[:prompt] == one.answer.ids[:prompt]
        answers = {
            e.problem for e in several if template.tokens(e.messages, every_turn=False).ids[prompt:] == one.stranger.ids[prompt:]
        }
        assert answers and own[one.answer.ids] not in answers
    assert sorted(own[e.answer.ids] for e in made) == [e.problem for e in several]


def test_one_question_has_no_stranger_but_itself(template):
    [made] = samples(TRAINING, template, [example(1, "Answer: 13", True)])
    assert made.answer == made.stranger


def test_training_makes_desirable_answers_likelier_and_others_less_likely(base, graded, tmp_path):
    before = [plain(base, e.answer) for e in graded]
    training = replace(TRAINING, batch_size=6, epochs=6, learning_rate=0.001)
    curve = Trainer(base, training, lambda value: None, Grades(BETA)).train(graded, tmp_path, seed=1, previous=None)
    model = lora.adapt(base, training.lora, tmp_path).eval()
    gains = [plain(model, e.answer) - b for e, b in zip(graded, before, strict=True)]
    assert len(curve) == steps(len(graded), training) and curve[0] == pytest.approx(2 / 3, abs=1e-3)
    assert max(g for g, e in zip(gains, graded, strict=True) if not e.desirable) < 0
    assert min(g for g, e in zip(gains, graded, strict=True) if e.desirable) > max(
        g for g, e in zip(gains, graded, strict=True) if not e.desirable
    )


def test_equal_seeds_give_equal_bytes(base, graded, tmp_path):
    training = replace(TRAINING, lora=replace(TRAINING.lora, dropout=0.1))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        Trainer(base, training, lambda value: None, Grades(BETA)).train(graded, tmp_path / name, seed=seed, previous=None)
    a, b, c = ((tmp_path / name / adapters.WEIGHTS).read_bytes() for name in "abc")
    assert a == b != c


# --- the program ---


def assigned(store) -> Assignment:
    training = {"minExamples": 3, "batchSize": 4, "method": "kto"}
    spec = a_spec(seed=0, debate={"critics": False}, training=training)
    return Assignment(store=store, run="ns/run", given_spec=spec, iteration=1, agents=(0,))


def published(store, examples) -> None:
    meta = {"examples": "graded", "pooled": False}
    publish(store, layout.datasets("ns/run", 1), {"generator-0.jsonl": records.encode_lines(examples)}, meta=meta)


def test_the_program_trains_on_grades_and_its_card_says_so(tmp_path):
    store = FileStore(tmp_path)
    published(store, [example(i, *answer) for i, answer in enumerate(ANSWERS)])
    assert train.main(assigned(store)).trained == 1
    made = adapters.current(store, "ns/run", 1, "generator", 0)
    assert made.examples == 6 and made.loss_first == pytest.approx(2 / 3, abs=0.2)
    card = store.read(layout.adapter("ns/run", 1, "generator", 0) + "README.md").decode()
    assert "graded by whether they agree with the majority of the debate; no reference answers were used" in card


def test_single_answers_are_no_grades(tmp_path):
    store = FileStore(tmp_path)
    published(store, [replace(example(i, *answer), desirable=records.msgspec.UNSET) for i, answer in enumerate(ANSWERS)])
    with pytest.raises(BadInput, match=r"^training\.method: kto needs graded answers, and this dataset has none"):
        train.main(assigned(store))


# --- TRL's trainer, on the same tokens and weights, has the same losses and ends with the same adapter ---

TRL = """
import json, sys
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

source, file, start, output = sys.argv[1:]
rows = json.load(open(file))
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), start, is_trainable=True)
config = KTOConfig(
    output_dir=output, num_train_epochs=4, learning_rate=3e-3, per_device_train_batch_size=6, beta=0.5, desirable_weight=1.0,
    undesirable_weight=2.0, lr_scheduler_type="cosine", warmup_steps=0, max_grad_norm=1.0, weight_decay=0.0, use_cpu=True,
    bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1,
    seed=1, max_length=None, precompute_ref_log_probs=True,
)
trainer = KTOTrainer(
    model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(source)
)
trainer.train()
trainer.model.save_pretrained(output)
json.dump([r["loss"] for r in trainer.state.log_history if "loss" in r], open(output + "/losses.json", "w"))
"""


@pytest.mark.programs
def test_trls_trainer_comes_to_the_same_losses_and_adapter(base, graded, tmp_path):
    """From an adapter that was trained before, which is the reference. The data is one batch: TRL pairs strangers within it."""
    pytest.importorskip("accelerate")
    pytest.importorskip("datasets")
    training = replace(TRAINING, batch_size=6, epochs=4)
    start = tmp_path / "start"
    Trainer(base, replace(training, epochs=1), lambda value: None, Grades(BETA)).train(graded, start, seed=3, previous=None)
    curve = Trainer(base, training, lambda value: None, Grades(BETA)).train(graded, tmp_path / "ours", seed=1, previous=start)
    losses = trl(start, tmp_path / "theirs")
    assert curve == pytest.approx(losses, abs=2e-4)
    ours, theirs = (load_file(tmp_path / name / adapters.WEIGHTS) for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    far = max(float((weight - load_file(start / adapters.WEIGHTS)[name]).abs().max()) for name, weight in ours.items())
    for name, weight in ours.items():
        # Of gradients near zero Adam takes the sign.
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=far / 20)


def trl(start: Path, output: Path) -> list[float]:
    """Trains by TRL from that adapter; returns the loss of each step."""
    output.mkdir()
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {i}+3*4?"}],
            "completion": [{"role": "assistant", "content": text}],
            "label": desirable,
        }
        for i, (text, desirable) in enumerate(ANSWERS)
    ]
    (output / "rows.json").write_text(json.dumps(rows))
    line = [sys.executable, "-c", TRL, str(TINY), str(output / "rows.json"), str(start), str(output)]
    subprocess.run(line, check=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT / "images")})
    made: list[float] = json.loads((output / "losses.json").read_text())
    return made
