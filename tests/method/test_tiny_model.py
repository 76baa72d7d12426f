"""The demo's model directory: complete, small, loadable, and asked only what its corpus never showed."""

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TINY = Path(__file__).parents[2] / "examples" / "tiny"
EXPRESSION = re.compile(r"(?<!\d)(?:\d+[+-]\d\*\d|\d\*\d[+-]\d+)(?!\d)")
DIALOGUE = [
    {"role": "user", "content": "What is 7+3*4?"},
    {"role": "assistant", "content": "3*4=12, 7+12=19. Answer: 19"},
    {"role": "user", "content": "Other agents said: 19 18: differ. 1 agent says 19, 1 agent says 18. What is 7+3*4?"},
    {"role": "assistant", "content": "19 19: same. I agree. Answer: 19"},
]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TINY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


corpus = load("corpus")
make = load("make")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture
def torch_settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(threads)


def rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in (TINY / "questions.jsonl").read_text().splitlines()]


def expression(question: str) -> str:
    return question.removeprefix("What is ").removesuffix("?")


def evaluate(expr: str) -> int:
    terms = re.findall(r"([+-]?\d+)(?:\*(\d+))?", expr)
    return sum(int(factor) * int(other or 1) for factor, other in terms)


def sums(directory: Path) -> dict[str, str]:
    lines = (directory / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_files_match_their_checksums() -> None:
    recorded = sums(TINY)
    assert set(recorded) == set(make.ARTIFACTS)
    assert recorded == {name: hashlib.sha256((TINY / name).read_bytes()).hexdigest() for name in recorded}


def test_size_is_at_most_six_megabytes() -> None:
    assert sum((TINY / name).stat().st_size for name in make.ARTIFACTS) <= 6_000_000


def test_card_names_the_weights() -> None:
    assert sums(TINY)["model.safetensors"] in (TINY / "README.md").read_text()


def test_every_question_is_of_the_held_out_eighth_and_none_is_missing() -> None:
    held_out = {question.text for question in corpus.pool() if corpus.held_out(question)}
    asked = [row["question"] for row in rows()]
    assert len(asked) == len(set(asked))
    assert set(asked) == held_out


def test_answers_are_right() -> None:
    wrong = [row for row in rows() if str(evaluate(expression(row["question"]))) != row["answer"]]
    assert wrong == []


def test_no_question_is_in_the_corpus() -> None:
    asked = {expression(row["question"]) for row in rows()}
    seen = {
        expr
        for dialogue in corpus.dialogues(20_000, seed=0)
        for message in dialogue
        for expr in EXPRESSION.findall(message["content"])
    }
    assert len(seen) > 5_000
    assert asked & seen == set()


def test_tokenizer_settings(tokenizer: Any) -> None:
    assert tokenizer.padding_side == "left"
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.model_max_length == 512


@pytest.mark.parametrize("text", [message["content"] for message in DIALOGUE] + ["Zwölf  mal\n\tπ = 漢字, don't ask."])
def test_tokenizer_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("turns", [1, 3])
def test_generation_prompt_is_a_prefix_of_the_dialogue(tokenizer: Any, turns: int) -> None:
    prompt = tokenizer.apply_chat_template(DIALOGUE[:turns], add_generation_prompt=True, return_dict=False)
    full = tokenizer.apply_chat_template(DIALOGUE[: turns + 1], return_dict=False)
    assert full[: len(prompt)] == prompt
    assert tokenizer.decode(full[len(prompt) :]) == DIALOGUE[turns]["content"] + "<|end|>"


def test_pretraining_saw_what_the_chat_template_renders(tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(DIALOGUE, return_dict=True, return_assistant_tokens_mask=True)
    [example] = make.encode([DIALOGUE], tokenizer)
    assert example.ids == rendered["input_ids"]
    assert [label != make.IGNORED for label in example.labels] == [bool(bit) for bit in rendered["assistant_masks"]]


def test_model_loads_and_answers(tokenizer: Any) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(TINY)
    dialogues = [[{"role": "user", "content": row["question"]}] for row in rows()[:8]]
    inputs = tokenizer.apply_chat_template(
        dialogues, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    texts = tokenizer.batch_decode(model.generate(**inputs, do_sample=False, max_new_tokens=40))
    assert type(model).__name__ == "LlamaForCausalLM"
    assert all(re.search(r"Answer: \d+<\|end\|>(<pad>)*$", text) for text in texts), texts


def test_generation_config_sets_no_sampling_defaults() -> None:
    settings = json.loads((TINY / "generation_config.json").read_text())
    assert set(settings) == {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}


@pytest.mark.usefixtures("torch_settings")
def test_making_it_twice_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        monkeypatch.setattr(sys, "argv", ["make.py", "--steps", "1", "--out", str(tmp_path / name)])
        make.main()
    assert sums(tmp_path / "first") == sums(tmp_path / "second")
    assert sums(tmp_path / "first")["questions.jsonl"] == sums(TINY)["questions.jsonl"]
