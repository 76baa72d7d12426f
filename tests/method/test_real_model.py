"""The real pretrained model and its questions: what scripts/real_model.py and scripts/real_questions.py make."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import real_model
import real_questions

MAKE = [sys.executable, str(ROOT / "scripts" / "real_model.py")]


def rotated(pairs: np.ndarray, position: int) -> np.ndarray:
    """Pairs of a head's numbers, turned by their angles: what position embeddings do. pairs: (head size / 2, 2)."""
    angles = position / 100 ** (np.arange(len(pairs)) / len(pairs))
    cos, sin = np.cos(angles), np.sin(angles)
    x, y = pairs.T
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)


@pytest.mark.parametrize(("heads", "size"), [(1, 4), (3, 8), (9, 64)])
def test_attention_scores_stay_when_heads_are_put_back(heads, size):
    """GGUF pairs neighbours, transformers pairs the halves: the same scores between any two positions."""
    random = np.random.default_rng(0)
    query, key, token = (random.normal(size=shape) for shape in ((heads * size, 16), (heads * size, 16), (16,)))

    def scores(pairs_of):
        q, k = (np.stack([rotated(pairs_of(h), p) for h in (w @ token).reshape(heads, size)]) for w, p in weights)
        return np.einsum("hpx,hpx->h", q, k)

    weights = [(query, 5), (key, 2)]
    as_gguf = scores(lambda head: head.reshape(-1, 2))
    weights = [(real_model.unpermuted(w, heads), p) for w, p in weights]
    as_transformers = scores(lambda head: head.reshape(2, -1).T)
    np.testing.assert_allclose(as_transformers, as_gguf)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("blk.29.ffn_down.weight", "model.layers.29.mlp.down_proj.weight"),
    ],
)
def test_tensors_are_named_as_transformers_has_them(name, ours):
    assert real_model.llama_name(name) == ours


def test_a_folder_that_is_not_whole_is_none(tmp_path):
    assert not real_model.is_current(tmp_path / "nothing")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / real_model.MADE_FROM).write_text("{")
    assert not real_model.is_current(tmp_path)
    real_model.sign(tmp_path)
    assert real_model.is_current(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weigh")
    assert not real_model.is_current(tmp_path)


@pytest.mark.parametrize("task", real_questions.TASKS, ids=lambda task: task.name)
def test_no_pair_is_asked_on_both_sides(task):
    """Not the other way round either; the committed files are what the script makes."""
    sides = real_questions.split(task)
    train, held_out = ({frozenset(pair) for pair in side} for side in sides)
    assert not train & held_out
    for part, side in zip(("train", "held-out"), sides, strict=True):
        rows = [json.loads(line) for line in (real_questions.FOLDER / f"{task.name}-{part}.jsonl").read_text().splitlines()]
        assert rows == [real_questions.row(task, pair) for pair in side]
        assert len({row["question"] for row in rows}) == len(rows)
        assert {pair[::-1] for pair in side} == set(side)  # each in both orders


@pytest.mark.pretrained
@pytest.mark.programs
class TestTheModel:
    """As prepare.py has made it."""

    def test_a_second_call_says_that_it_is_there(self):
        done = subprocess.run(MAKE, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"real model: {real_model.FOLDER.name} is there\n"

    def test_it_is_what_transformers_reads(self):
        """The tokenizer gives back what it was given, digit by digit; the template has the model's own system turn."""
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(real_model.FOLDER)
        assert (config.model_type, config.num_hidden_layers, config.tie_word_embeddings) == ("llama", 30, True)
        tokenizer = AutoTokenizer.from_pretrained(real_model.FOLDER)
        for text in ("What is 12 plus 345?", "\n\nHello  world,\n it's 3.14²", "naïve 漢字 🙂", "  def f(x):\n\treturn x"):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert not [token for token in tokenizer.convert_ids_to_tokens(ids) if sum(c.isdigit() for c in token) > 1]
        chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
        assert chat.startswith("<|im_start|>system\n")
        assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")

    def test_it_ends_its_turns(self):
        generation = json.loads((Path(real_model.FOLDER) / "generation_config.json").read_text())
        assert generation["eos_token_id"] == 2


def test_what_cannot_be_installed_is_said_in_one_line(tmp_path):
    """Nothing is left behind."""
    for file in (real_model.PACKAGES, Path(real_model.__file__)):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir()
        copy.write_bytes(file.read_bytes())
    script = tmp_path / "scripts" / "real_model.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out" / "model")],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/nowhere", "HOME": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stderr == "error: uv is missing; run: make env\n"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.lock"]
