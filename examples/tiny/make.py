"""Make the demo's base model: a tiny Llama pretrained on the dialogues of corpus.py.

In: a seed and a number of steps. Out, in one directory: the files of ARTIFACTS and, last, their SHA256SUMS.
The same seed and steps on the same machine with the same versions give the same bytes.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import corpus
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ARTIFACTS = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "questions.jsonl",
    "tokenizer.json",
    "tokenizer_config.json",
)

THREADS = 2  # the order of sums depends on it, and so do the bytes of the model
BATCH = 128  # dialogues a step
MICRO_BATCHES = 10  # of similar length: less padding, and activations that stay in the cache
TOKENIZER_SAMPLE = 5000  # dialogues
LEARNING_RATE = 3e-3
LAST_LEARNING_RATE = 0.02  # share of LEARNING_RATE at the end of the cosine
WARM_UP = 100  # steps
WEIGHT_DECAY = 0.05
IGNORED = -100  # the label that cross_entropy leaves out


class Example(NamedTuple):
    """A dialogue for the loss: a label for every id, IGNORED where the assistant does not speak."""

    ids: list[int]
    labels: list[int]


def encode(dialogues: Sequence[corpus.Dialogue], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """One example a dialogue, with a loss on every assistant turn."""
    texts = [corpus.render(dialogue) for dialogue in dialogues]
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    vocabulary = tokenizer.get_vocab()
    start, end = vocabulary[corpus.ASSISTANT], vocabulary[corpus.END]
    return [Example(encoding.ids, assistant_labels(encoding.ids, start, end)) for encoding in encodings]


def assistant_labels(ids: Sequence[int], start: int, end: int) -> list[int]:
    """The ids between each `start` and its `end`, the end included; everything else is ignored by the loss."""
    labels, speaking = [], False
    for token in ids:
        labels.append(token if speaking else IGNORED)
        speaking = token == start or (speaking and token != end)
    return labels


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """0.85 million parameters, drawn from the global seed."""
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=corpus.MAX_LENGTH,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        **tokens,
    )
    model = LlamaForCausalLM(config)
    # Servers take their sampling defaults from this file: it names the special tokens and nothing else.
    model.generation_config = GenerationConfig(**tokens)
    return model


def new_optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """AdamW; norms do not decay."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    norms = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))


def learning_rate(step: int, steps: int) -> float:
    """A linear warm-up under a cosine."""
    warm_up = min(1.0, (step + 1) / WARM_UP)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE * warm_up * (LAST_LEARNING_RATE + (1 - LAST_LEARNING_RATE) * cosine)


def collate(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded at the end, where causal attention does not see it: no mask is needed and any id does."""
    ids = pad_sequence([torch.tensor(example.ids) for example in examples], batch_first=True)
    labels = [torch.tensor(example.labels) for example in examples]
    return ids, pad_sequence(labels, batch_first=True, padding_value=IGNORED)


def summed_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Only the positions with a label go through the output layer, which saves most of its time."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    kept = targets != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]), targets[kept], reduction="sum")


def train_step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, examples: Sequence[Example]) -> float:
    """One update; gives the mean loss over the assistant's tokens."""
    count = sum(label != IGNORED for example in examples for label in example.labels)
    by_length = sorted(examples, key=lambda example: len(example.ids))
    total = 0.0
    size = math.ceil(len(examples) / MICRO_BATCHES)
    for first in range(0, len(examples), size):
        ids, labels = collate(by_length[first : first + size])
        loss = summed_loss(model, ids, labels) / count
        torch.autograd.backward(loss)
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def pretrain(model: LlamaForCausalLM, examples: Sequence[Example]) -> None:
    """One pass over the examples, a fresh batch for every step."""
    optimizer = new_optimizer(model)
    steps = len(examples) // BATCH
    begin, smoothed = time.monotonic(), 0.0
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = train_step(model, optimizer, examples[step * BATCH : (step + 1) * BATCH])
        smoothed = 0.98 * smoothed + 0.02 * loss if step else loss
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"step {step + 1}/{steps}  loss {smoothed:.4f}  {time.monotonic() - begin:.0f} s", flush=True)


def write_questions(path: Path) -> None:
    """One JSON object a line: what is asked, and the right answer as text."""
    questions = corpus.held_out_questions()
    lines = [json.dumps({"question": question.text, "answer": str(question.answer)}) for question in questions]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_checksums(directory: Path) -> None:
    """SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in ARTIFACTS]
    (directory / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Corpus, tokenizer, pretraining, files."""
    parser = argparse.ArgumentParser(description="Make the demo's base model, a tiny Llama on synthetic dialogues.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="directory (default: the script's own)")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus and the first weights (default: 0)")
    parser.add_argument("--steps", type=int, default=1400, help=f"updates, {BATCH} dialogues each (default: 1400)")
    arguments = parser.parse_args()

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    dialogues = list(corpus.dialogues(arguments.steps * BATCH, arguments.seed))
    tokenizer = corpus.train_tokenizer(dialogues[:TOKENIZER_SAMPLE])
    model = new_model(tokenizer)
    examples = encode(dialogues, tokenizer)
    print(f"{len(dialogues)} dialogues, {sum(len(example.ids) for example in examples)} tokens", flush=True)

    pretrain(model, examples)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    write_questions(arguments.out / "questions.jsonl")
    write_checksums(arguments.out)


if __name__ == "__main__":
    main()
