"""LoRA training on one device: tokens in, a PEFT directory out (paper, appendix on finetuning; LoRA in place of full weights).

Examples of a batch are laid end to end in one row with positions that start anew (no padding), and the language-model head
runs only where the loss counts. Models that mix such neighbours, found by trying, get one example at a time.
"""

import contextlib
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from maft import models
from maft.chat_template import Tokens
from maft.errors import BadInput
from maft.spec import ModelSpec, TrainingSpec

CLIP = 1.0  # norm of the gradient


@dataclass(frozen=True, slots=True)
class Row:
    """Examples laid end to end. ids, positions: [1, tokens]; heads: [k] indices whose next token counts; labels: [k];
    owners: [k] which example a head belongs to."""

    ids: torch.Tensor
    positions: torch.Tensor
    heads: torch.Tensor
    labels: torch.Tensor
    owners: torch.Tensor

    def to(self, device: Any) -> "Row":
        """On that device."""
        return Row(*(getattr(self, name).to(device) for name in ("ids", "positions", "heads", "labels", "owners")))


def steps(examples: int, training: TrainingSpec) -> int:
    """Optimizer steps over all epochs."""
    return training.epochs * math.ceil(examples / training.batch_size)


def lay(examples: Sequence[Tokens]) -> Row:
    """One row of several examples."""
    ids = [i for e in examples for i in e.ids]
    positions = [p for e in examples for p in range(len(e.ids))]
    counted = [c and p > 0 for e in examples for p, c in enumerate(e.completion)]
    heads = [i - 1 for i, c in enumerate(counted) if c]
    owners = [n for n, e in enumerate(examples) for p, c in enumerate(e.completion) if c and p > 0]
    tensor = torch.tensor
    return Row(tensor([ids]), tensor([positions]), tensor(heads), tensor([ids[i + 1] for i in heads]), tensor(owners))


def rows(batch: Sequence[Any], limit: int) -> Iterator[list[Any]]:
    """The batch in parts of at most `limit` tokens each; a longer example stands alone."""
    part: list[Any] = []
    for example in batch:
        if part and sum(len(e.ids) for e in part) + len(example.ids) > limit:
            yield part
            part = []
        part.append(example)
    yield part


def load_base(model_spec: ModelSpec) -> Any:
    """The base model on the best device, frozen, in the widest precision that is fast there."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    path = models.local(model_spec.source)
    flash = torch.cuda.is_available() and find_spec("flash_attn") is not None
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=model_spec.revision or None,
            trust_remote_code=model_spec.trust_remote_code,
            use_safetensors=True,
            dtype=_dtype(),
            attn_implementation="flash_attention_2" if flash else "sdpa",
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"model.source: {path} cannot be loaded: {_one_line(error)}") from error
    model.requires_grad_(False)
    model.config.use_cache = False
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _dtype() -> torch.dtype:
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


class NextToken:
    """The objective of sft: mean loss over the batch's completion tokens."""

    def ready(self, model: Any, examples: list[Any], limit: int) -> list[Any]:
        """Nothing is needed beforehand."""
        return examples

    def flat(self, part: Sequence[Any]) -> list[Tokens]:
        """What is laid in a row."""
        return list(part)

    def loss(self, logits: torch.Tensor, row: Row, part: Sequence[Any], batch: Sequence[Any]) -> torch.Tensor:
        """The part's share of the batch's loss, in nats per token. logits: [k, vocabulary]."""
        counted = sum(sum(e.completion) for e in batch)
        return cross_entropy(logits, row.labels, reduction="sum") / counted


def lays(model: Any, examples: Sequence[Tokens]) -> bool:
    """Whether neighbours in a row leave each other alone in this model: tried on two examples."""
    pair = [examples[0], examples[-1]]
    with torch.no_grad():
        device = model.device
        together, apart = logits(model, lay(pair).to(device)), torch.cat([logits(model, lay([e]).to(device)) for e in pair])
    loose = model.dtype != torch.float32
    return bool(torch.allclose(together.float(), apart.float(), rtol=0.05 if loose else 1e-3, atol=0.5 if loose else 1e-3))


def logits(model: Any, row: Row) -> torch.Tensor:
    """[k, vocabulary], at the heads alone. The row lies on the model's device."""
    output = model(input_ids=row.ids, position_ids=row.positions, logits_to_keep=row.heads, use_cache=False)
    found: torch.Tensor = output.logits[0]
    return found


def forward(model: Any, examples: Sequence[Tokens], limit: int) -> tuple[Row, torch.Tensor]:
    """The examples as a row with its logits in single precision; with a limit of 1 token each is computed alone."""
    row = lay(examples).to(model.device)
    if limit > 1 or len(examples) == 1:
        return row, logits(model, row).float()
    return row, torch.cat([logits(model, lay([e]).to(model.device)).float() for e in examples])


def needs_checkpointing(config: Any, tokens: int, value_bytes: int, free_bytes: int) -> bool:
    """Whether the activations of a forward pass over `tokens` would not fit: about 34 values per hidden unit and layer
    (Korthikanti et al. 2022, without the attention matrix), and three copies of the logits."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    activations = tokens * layers * 34 * max(hidden, getattr(config, "intermediate_size", hidden) // 3) * value_bytes
    logits = 3 * tokens * config.vocab_size * 4
    return bool(activations + logits > 0.8 * free_bytes)


def free_memory(device: torch.device) -> int:
    """Bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else int(psutil.virtual_memory().available)


class Trainer:
    """Trains adapters of one base, one after the other. objective: what is minimised; examples are what it takes."""

    def __init__(self, base: Any, training: TrainingSpec, step_done: Callable[[float], None], objective: Any = None) -> None:
        self._base = base
        self._training = training
        self._step_done = step_done
        self._objective = objective or NextToken()

    def train(self, examples: Sequence[Any], folder: Path, *, seed: int, previous: Path | None) -> list[float]:
        """Writes the adapter to `folder`; gives the loss of every step, in nats per token. The base stays as it was."""
        torch.manual_seed(seed)
        flat = self._objective.flat(examples)
        limit = self._training.batch_tokens if lays(self._base, flat) else 1
        model = self._adapted(previous)
        try:
            self._save_memory(model, examples)
            with self._autocast():
                ready = self._objective.ready(model, list(examples), limit)
            curve = self._run(model, ready, random.Random(seed), limit)
            model.save_pretrained(str(folder), safe_serialization=True)
        finally:
            # In mid-training too: what PEFT put into the base comes out again.
            self._base = model.unload()
        _finite(folder, curve)
        return curve

    def _adapted(self, previous: Path | None) -> Any:
        lora = self._training.lora
        targets: str | list[str] = list(lora.target_modules)
        if targets == ["all-linear"]:
            targets = "all-linear"
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
        )
        try:
            if previous:
                return PeftModel.from_pretrained(self._base, str(previous), is_trainable=True)
            return get_peft_model(self._base, config)
        except RuntimeError as error:
            raise BadInput(f"model.source: the previous adapter does not fit this model: {_one_line(error)}") from error
        except ValueError as error:
            raise BadInput(f"training.lora.targetModules: {_one_line(error)}") from error

    def _save_memory(self, model: Any, examples: Sequence[Any]) -> None:
        longest = max(self._training.batch_tokens, *(len(e.ids) for e in examples))
        largest = min(longest, sum(sorted((len(e.ids) for e in examples), reverse=True)[: self._training.batch_size]))
        if needs_checkpointing(self._base.config, largest, self._base.dtype.itemsize, free_memory(self._base.device)):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()

    def _run(self, model: Any, examples: list[Any], order: random.Random, limit: int) -> list[float]:
        training = self._training
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
        total = steps(len(examples), training)
        warmup = min(math.ceil(training.warmup * total), total - 1)  # it begins at a rate of 0: a single step would learn nothing
        schedule = get_cosine_schedule_with_warmup(optimizer, warmup, total)
        scaler = torch.amp.GradScaler(enabled=self._base.dtype == torch.float16)
        curve: list[float] = []
        model.train()
        for _ in range(training.epochs):
            order.shuffle(examples)
            for start in range(0, len(examples), training.batch_size):
                loss = self._gradients(model, examples[start : start + training.batch_size], limit, scaler)
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(parameters, CLIP)
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                curve.append(loss)
                self._step_done(loss)
        return curve

    def _gradients(self, model: Any, batch: Sequence[Any], limit: int, scaler: Any) -> float:
        """Accumulates the gradient of the batch's loss, whatever rows it takes; the loss."""
        loss = 0.0
        for part in rows(batch, limit):
            with self._autocast():
                row, found = forward(model, self._objective.flat(part), limit)
                part_loss = self._objective.loss(found, row, part, batch)
            scaler.scale(part_loss).backward()
            loss += part_loss.item()
        return loss

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = self._base.dtype
        return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(self._base.device.type, dtype)


def _finite(folder: Path, curve: Sequence[float]) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    if not all(bool(torch.isfinite(w).all()) for w in weights.values()):
        raise BadInput(f"training.learningRate: the adapter's weights are not finite (last loss {curve[-1]}); lower the rate")


def tidy(folder: Path, model: ModelSpec, card: str) -> None:
    """Makes the directory the same wherever it was trained: no local paths, no set order, our model card."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = model.source
    config["revision"] = model.revision or None
    config["inference_mode"] = True
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").write_text(card)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
