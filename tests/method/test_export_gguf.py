"""`--to gguf`: what transformers and llama.cpp read from the files is what base and adapter say together; else it is refused."""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import locked_tool
import pytest
import real_tokenizers
import torch
from committed import RUN, adapter_files, put_run
from gguf import GGUFReader
from peft import PeftModel
from safetensors.torch import load, save
from small import ROOT, TINY
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from maft import committed_run
from maft.errors import BadInput
from maft.export import gguf_files, targets
from maft.export.gguf_family import FAMILIES
from maft.export.target import Request, Sent
from maft.store import unfinished
from maft.store.base import Store
from maft.store.files import FileStore

READER = ROOT / "tests" / "support" / "llama_reader.py"
NAME = "critic-2"
CHAT = [{"role": "user", "content": "What is 7+3*4?"}]
TEXTS = (
    "What is  12+345?\n\n  don't I'LL  7\tx",
    "<|user|>hi é 日本語 \N{SLIGHTLY SMILING FACE}",
    "１２ x²\r\n\r\n  ∑ 1234567  ",
)
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
# Half of the frequencies change at these lengths, and prompts are longer than the first of them.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {"model_type": "llama"},
    "LlamaForCausalLM, as 3.1": {"model_type": "llama", "rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "Qwen2ForCausalLM": {"model_type": "qwen2"},
    "Qwen3ForCausalLM": {"model_type": "qwen3", "head_dim": 32},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FileStore(tmp_path / "runs")


@pytest.fixture(scope="module", name="llama")
def llama_fixture() -> Callable[..., Any]:
    """Asks llama.cpp about a file."""
    locked_tool.install("llama")

    def ask(file: Path, texts: Sequence[str] = (), chats: Sequence[Any] = (), prompts: Sequence[list[int]] = ()):
        asked = json.dumps({"texts": texts, "chats": chats, "prompts": prompts})
        environment = {**os.environ, "PYTHONPATH": str(locked_tool.folder("llama"))}
        line = [sys.executable, str(READER), str(file)]
        done = subprocess.run(line, input=asked, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def hand_on(store: Store, to: Path, kind: str = "gguf", **more: Any) -> Sent:
    return targets.send(kind, Request(store, committed_run.read(store, RUN), str(to), **{"only": (NAME,), **more}))


def file_in(folder: Path) -> Path:
    return folder / NAME / f"{NAME}.gguf"


def both(store: Store, tmp_path: Path, base: Path) -> Any:
    """The base under PEFT's adapter: what all others are compared with."""
    hand_on(store, tmp_path / "peft", "peft")
    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(whole, tmp_path / "peft" / NAME).eval()


def base_of(folder: Path, tokenizer: Path = TINY, **changes: Any) -> Path:
    """A small model of random weights with that tokenizer: larger ones than usual, and of a seed with which no two tokens are about
    as likely in any answer of these tests, for kernels differ."""
    torch.manual_seed(2)
    tokens = AutoTokenizer.from_pretrained(tokenizer)
    sizes = {**SMALL, "vocab_size": len(tokens) + 8, "eos_token_id": tokens.eos_token_id, "bos_token_id": tokens.bos_token_id}
    settings = {**sizes, "pad_token_id": None, "dtype": "float32", **changes}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[settings.pop("model_type", "llama")](**settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else parameter.data.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def prompt_of(tokens: Any) -> list[int]:
    return tokens.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]


@torch.no_grad()
def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    made = model.generate(input_ids=torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None)
    return made[0][len(prompt) :].tolist()


def test_transformers_reads_from_it_what_base_and_adapter_say(store, tmp_path):
    put_run(store)
    sent = hand_on(store, tmp_path / "out")
    assert (sent.new, sorted(path.name for path in (tmp_path / "out").iterdir())) == (1, [NAME])
    given = {"gguf_file": file_in(tmp_path / "out").name}
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / NAME, dtype=torch.float32, **given)
    tokens, of_base = AutoTokenizer.from_pretrained(tmp_path / "out" / NAME, **given), AutoTokenizer.from_pretrained(TINY)
    assert tokens.chat_template == of_base.chat_template
    assert prompt_of(tokens) == prompt_of(of_base)
    ids = torch.tensor([prompt_of(tokens)])
    with torch.no_grad():
        assert torch.allclose(both(store, tmp_path, TINY)(ids).logits, read(ids).logits, atol=1e-3)
        assert not torch.allclose(AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)(ids).logits, read(ids).logits)


def test_a_second_start_writes_nothing_and_what_is_not_whole_is_written_again(store, tmp_path):
    put_run(store)
    hand_on(store, tmp_path / "out")
    file = file_in(tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in file.parent.iterdir()}
    assert set(before) == {file.name, "README.md", gguf_files.MADE_OF}
    assert hand_on(store, tmp_path / "out").new == 0
    assert {path.name: path.stat().st_mtime_ns for path in file.parent.iterdir()} == before
    made = file.read_bytes()
    (file.parent / gguf_files.MADE_OF).unlink()
    file.write_bytes(b"half")
    killed = [f".tmp-1-{file.name}", f".tmp-{uuid.uuid4().hex}-{file.name}.part"]
    for name in (*killed, another := f".tmp-{uuid.uuid4().hex}-{file.name}.part"):
        (file.parent / name).write_bytes(b"half")
    for name in killed:
        os.utime(file.parent / name, (time.time(), time.time() - unfinished.STALE - 60))
    assert hand_on(store, tmp_path / "out").new == 1
    assert file.read_bytes() == made
    assert {path.name for path in file.parent.iterdir()} == {*before, another}


def test_weights_keep_the_bases_precision_and_vectors_are_in_single(store, tmp_path):
    base = base_of(tmp_path / "base", dtype="bfloat16")
    put_run(store, base=base)
    hand_on(store, tmp_path / "out")
    read = {tensor.name: tensor for tensor in GGUFReader(file_in(tmp_path / "out")).tensors}
    assert {(len(t.shape), t.tensor_type.name) for t in read.values()} == {(1, "F32"), (2, "BF16")}
    hand_on(store, tmp_path / "merged", "merged")
    merged = load((tmp_path / "merged" / NAME / "model.safetensors").read_bytes())
    down = torch.frombuffer(bytearray(read["blk.1.ffn_down.weight"].data.tobytes()), dtype=torch.bfloat16)
    assert torch.allclose(down.float(), merged["model.layers.1.mlp.down_proj.weight"].flatten().float(), rtol=2**-7)


def test_the_card_says_what_the_file_is(store, tmp_path):
    put_run(store)
    hand_on(store, tmp_path / "out", license="apache-2.0")
    card = (tmp_path / "out" / NAME / "README.md").read_text()
    assert "library_name: gguf" in card and "A whole model as one GGUF file" in card and "Load it with" not in card
    assert GGUFReader(file_in(tmp_path / "out")).fields["general.license"].contents() == "apache-2.0"


@pytest.mark.tools
@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_says_what_base_and_adapter_say(store, tmp_path, llama, name):
    base = base_of(tmp_path / "base", **MODELS[name])
    assert AutoConfig.from_pretrained(base).architectures[0] == name.partition(",")[0]
    put_run(store, base=base)
    hand_on(store, tmp_path / "out")
    prompts = [[1, 3, *range(20, 40), 4], [1, *(5 + n * 7 % 300 for n in range(150))]]
    answers = llama(file_in(tmp_path / "out"), prompts=prompts)["said"]
    model = both(store, tmp_path, base)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert len(set(answer)) > 3
        assert answer == greedy(model, prompt, len(answer))


def test_every_architecture_is_compared_with_llama_cpp():
    assert {name.partition(",")[0] for name in MODELS} == set(FAMILIES)


@pytest.mark.tools
def test_the_tiny_models_chats_are_llama_cpps(store, tmp_path, llama):
    put_run(store)
    hand_on(store, tmp_path / "out")
    _same_tokens(llama(file_in(tmp_path / "out"), texts=TEXTS, chats=[CHAT]), TINY)


@pytest.mark.tools
def test_a_tokenizer_without_digits_of_its_own_is_gpt_2s(store, tmp_path, llama):
    base = base_of(tmp_path / "base")
    _change(base / "tokenizer.json", lambda it: it.update(pre_tokenizer=it["pre_tokenizer"]["pretokenizers"][1]))
    put_run(store, base=base)
    hand_on(store, tmp_path / "out")
    _same_tokens(llama(file_in(tmp_path / "out"), texts=TEXTS, chats=[CHAT]), base)


@pytest.mark.tools
@pytest.mark.tokenizers
@pytest.mark.parametrize(("name", "model_type"), [("llama3_1", "llama"), ("qwen3", "qwen3")])
def test_llama_cpp_cuts_texts_as_real_tokenizers_do(store, tmp_path, llama, name, model_type):
    tokenizer = real_tokenizers.folder(name)
    base = base_of(tmp_path / "base", tokenizer, model_type=model_type, tie_word_embeddings=True)
    put_run(store, base=base)
    hand_on(store, tmp_path / "out")
    _same_tokens(llama(file_in(tmp_path / "out"), texts=TEXTS, chats=[CHAT]), tokenizer)


def _same_tokens(answers: Any, tokenizer: Path) -> None:
    tokens = AutoTokenizer.from_pretrained(tokenizer)
    assert answers["texts"] == [tokens(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert answers["whole"] == [tokens(text)["input_ids"] for text in TEXTS]
    assert answers["chats"] == [prompt_of(tokens)]


@pytest.mark.nightly
@pytest.mark.tools
@pytest.mark.pretrained
def test_llama_cpp_answers_as_the_real_model_with_its_adapter_does(store, tmp_path, llama):
    base = ROOT / ".cache" / "models" / "smollm2-135m-instruct"
    put_run(store, base=base)
    hand_on(store, tmp_path / "out")
    tokens = AutoTokenizer.from_pretrained(base)
    prompt = prompt_of(tokens)
    answers = llama(file_in(tmp_path / "out"), texts=TEXTS, chats=[CHAT], prompts=[prompt])
    _same_tokens(answers, base)
    hand_on(store, tmp_path / "merged", "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / NAME)
    # The first alone: both round what they compute to bfloat16, each in its own places, and then two tokens may be as likely.
    assert answers["said"][0][:1] == greedy(merged, prompt, 1)


def _change(file: Path, how: Callable[[Any], object]) -> None:
    content = json.loads(file.read_text())
    how(content)
    file.write_text(json.dumps(content))


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda base: _change(base / "config.json", lambda it: it.update(changes))


def _tokens(**changes: Any) -> Callable[[Path], None]:
    return lambda base: _change(base / "tokenizer.json", lambda it: it.update(changes))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (_config(architectures=["MixtralForCausalLM"], model_type="mixtral"), "is a MixtralForCausalLM, and --to gguf knows Llama"),
        (_config(architectures=["Phi3ForCausalLM"], model_type="phi3"), "is a Phi3ForCausalLM, and --to gguf knows Llama"),
        (_config(quantization_config={"quant_method": "fp8"}), "is quantised with fp8; --to gguf takes full weights"),
        (_config(hidden_act="gelu"), "has hidden_act: gelu, which --to gguf does not know"),
        (_config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}), "has positions of type yarn"),
        (_config(vocab_size=300), "has token 343, and the model has weights for 300"),
        (_tokens(pre_tokenizer={"type": "Whitespace"}), "cuts text in a way that --to gguf does not know"),
        (_tokens(normalizer={"type": "Lowercase"}), "cuts text as smollm does, and changes it besides"),
    ],
)
def test_what_llama_cpp_would_not_repeat_is_refused(store, tmp_path, spoil, line):
    base = shutil.copytree(TINY, tmp_path / "base")
    put_run(store, base=base)
    spoil(base)
    with pytest.raises(BadInput, match=rf"^model\.source: .*{line}") as error:
        hand_on(store, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_what_the_base_has_not_is_refused(tmp_path):
    from maft.export.added import added

    files = adapter_files(1)
    (tmp_path / NAME).mkdir()
    odd = {"base_model.model.model.vision.lora_A.weight": torch.zeros(4, 4)}
    (tmp_path / NAME / "adapter_model.safetensors").write_bytes(save(odd))
    (tmp_path / NAME / "adapter_config.json").write_bytes(files["adapter_config.json"])
    with pytest.raises(BadInput, match=rf"^adapter {NAME}: the base has no tensor for its \S+vision.*; use --to peft"):
        added([TINY / "model.safetensors"], tmp_path / NAME)
    _change(tmp_path / NAME / "adapter_config.json", lambda it: it.update(use_dora=True))
    with pytest.raises(BadInput, match=rf"^adapter {NAME}: made with use_dora, which --to gguf does not add up"):
        added([TINY / "model.safetensors"], tmp_path / NAME)


def test_a_run_on_a_base_of_4_bits_is_refused(store, tmp_path):
    put_run(store, training={"base": "nf4"})
    with pytest.raises(BadInput, match=r"^training\.base: nf4; adapters of a 4-bit base"):
        hand_on(store, tmp_path / "out")


def test_the_extra_is_named_where_its_package_is_missing(store, tmp_path, monkeypatch):
    put_run(store)
    monkeypatch.delitem(sys.modules, "maft.export.gguf_files")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BadInput, match=r"^--to gguf: needs the package gguf; pip install 'maft\[gguf\]'$"):
        hand_on(store, tmp_path / "out")
