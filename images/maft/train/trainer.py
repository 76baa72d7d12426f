"""Trains LoRA adapters on one device: tokens in, a PEFT directory out (paper, appendix on finetuning; LoRA in place of full
weights).

One copy of the base serves all adapters, one after the other. What is minimised is an objective (objectives.py).
"""

import contextlib
import gc
import math
import random
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft.helpers import disable_input_dtype_casting
from safetensors.torch import load_file

from maft import lora
from maft.adapters import WEIGHTS
from maft.errors import BadInput, one_line
from maft.packing import largest_row, split_batch
from maft.spec import TrainingSpec
from maft.train import forward, memory
from maft.train.checkpoints import Keeper, kept
from maft.train.course import Course, random_states, set_random_states
from maft.train.examples import lengths
from maft.train.memory import Needs
from maft.train.objectives import NextToken, Objective, prepare

T = TypeVar("T")


def _batches(examples: int, order: random.Random, training: TrainingSpec) -> Iterator["array[int]"]:
    """Yields the numbers of the examples of every step; the order is another one in each epoch."""
    numbers = array("I", range(examples))
    for _ in range(training.epochs):
        order.shuffle(numbers)
        for start in range(0, examples, training.batch_size):
            yield numbers[start : start + training.batch_size]


def steps(examples: int, training: TrainingSpec) -> int:
    """Counts the optimizer steps over all epochs."""
    return training.epochs * math.ceil(examples / training.batch_size)


class Trainer:
    """Trains adapters of one base, one after the other. objective: what is minimised; examples are what it takes."""

    def __init__(
        self, base: Any, training: TrainingSpec, step_done: Callable[[float], None], objective: Objective | None = None
    ) -> None:
        self._base = base
        self._training = training
        self._step_done = step_done
        self._objective = objective or NextToken()
        self._saves_memory = False
        self.batch_tokens = training.batch_tokens
        """Tokens of a forward pass: fewer than the spec's after memory ran out, lora.ALONE where each example has its own."""

    @property
    def packs(self) -> bool:
        """Tells whether several examples share a row, as the last training found."""
        return self._forward.packs

    @property
    def lowered_to(self) -> int:
        """Tells to how many tokens memory that ran out lowered training.batchTokens; 0: to none."""
        return 0 if self.batch_tokens in (self._training.batch_tokens, lora.ALONE) else self.batch_tokens

    def train(
        self, examples: Sequence[Any], folder: Path, *, seed: int, previous: Path | None, keeper: Keeper | None = None
    ) -> list[float]:
        """Writes the adapter to `folder`; returns the loss of every step, in nats per token. The base stays as it was. keeper: of
        its checkpoint, from which it goes on. BadInput where it does not fit, however small its rows."""
        longest = max(lengths(examples))
        with memory.explained(longest, self._base.device):
            return self._train(examples, folder, seed, previous, keeper)

    def _train(self, examples: Sequence[Any], folder: Path, seed: int, previous: Path | None, keeper: Keeper | None) -> list[float]:
        torch.manual_seed(seed)
        with self._autocast():
            self._forward = forward.fitting(self._base, self._objective.sequences([examples[0], examples[-1]]), self._agreed)
        self.batch_tokens = self._training.batch_tokens if self._forward.packs else lora.ALONE
        model = lora.adapt(self._base, self._training.lora, previous)
        try:
            with self._forward.attending(self._base), disable_input_dtype_casting(model, active=self._halved):
                self._save_memory(model, examples)
                prepared = self._prepare(model, examples)
                curve = self._run(model, prepared, random.Random(seed), keeper)
            model.save_pretrained(str(folder), safe_serialization=True)
        finally:
            # In mid-training too: what PEFT put into the base comes out again.
            if self._saves_memory:
                memory.keep_activations(model)
            self._base, self._saves_memory = model.unload(), False
        _check_finite(folder, curve)
        return curve

    def _agreed(self, value: bool) -> bool:
        """Tells what all who hold the base together go by."""
        return value

    def _begin_alike(self, course: Course) -> None:
        """OSError where others who hold the base have gone on from elsewhere."""

    @property
    def device(self) -> str:
        """Names what the base is on: a kind of device, and its precision, such as `cuda, bfloat16`."""
        return f"{self._base.device.type}, {str(self._base.dtype).removeprefix('torch.')}"

    def _save_memory(self, model: Any, examples: Sequence[Any]) -> None:
        """Computes activations anew in the backward pass where the largest row's would not fit."""
        largest = largest_row(nlargest(self._training.batch_size, lengths(examples)), self.batch_tokens)
        device, value = self._base.device, self._base.dtype.itemsize
        needs = Needs.of(self._base.config, base=0, adapter=0, tokens=largest, targets=largest, value=value, device=device.type)
        if memory.needs_checkpointing(needs, memory.free(device)):
            self._save_activations(model)

    def _save_activations(self, model: Any) -> None:
        memory.save_activations(model)
        self._saves_memory = True

    def _prepare(self, model: Any, examples: Sequence[Any]) -> Sequence[Any]:
        with self._autocast():
            return self._fitted(
                model, examples, lambda: prepare(self._objective, model, examples, self._forward, self.batch_tokens)
            )

    def _run(self, model: Any, examples: Sequence[Any], order: random.Random, keeper: Keeper | None) -> list[float]:
        """Makes all steps, or those that are left of them; returns the loss of each."""
        course = Course(model, self._training, steps(len(examples), self._training), self.batch_tokens)
        with kept(keeper, course) as undisturbed:
            self._begin_alike(course)
            self.batch_tokens = course.batch_tokens
            for loss in course.curve:
                self._step_done(loss)
            model.train()
            for numbers in islice(_batches(len(examples), order, self._training), len(course.curve), None):
                loss = self._accumulate(model, [examples[number] for number in numbers], course.scaler)
                with undisturbed():
                    course.step(loss, self.batch_tokens)
                self._step_done(loss)
        if course.left_out:
            print(
                f"{course.left_out} of {len(course.curve)} steps changed nothing: gradients were larger than float16 holds",
                file=sys.stderr,
                flush=True,
            )
        return course.curve

    def _accumulate(self, model: Any, batch: Sequence[Any], scaler: Any) -> float:
        """Accumulates the gradient of the batch's loss, in rows that fit; returns the loss."""
        return self._fitted(model, batch, lambda: self._in_rows(model, batch, scaler))

    def _in_rows(self, model: Any, batch: Sequence[Any], scaler: Any) -> float:
        loss, batch = 0.0, self._followed(model, batch)
        for part in split_batch(batch, self.batch_tokens):
            with self._autocast():
                row, each = self._forward.log_probabilities(model, self._objective.sequences(part))
                part_loss = self._objective.loss(each, row, part, batch)
            scaler.scale(part_loss).backward()
            loss += part_loss.item()
        return loss

    def _followed(self, model: Any, batch: Sequence[Any]) -> Sequence[Any]:
        """Adds to the batch what the objective has to know of the model as it is now."""
        if not self._objective.follows:
            return batch
        model.eval()
        with torch.no_grad(), self._autocast():
            total = self._sum_followed(model, batch)
        model.train()
        return self._objective.following(batch, total / len(batch))

    def _sum_followed(self, model: Any, batch: Sequence[Any]) -> float:
        parts = split_batch(batch, self.batch_tokens)
        return sum(float(self._objective.followed(model, part, self._forward).sum()) for part in parts)

    def _fitted(self, model: Any, batch: Sequence[Any], work: Callable[[], T]) -> T:
        """Does the work over the batch; where memory runs out, anew from its start in smaller rows."""
        drawn = random_states(self._base.device)
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not memory.is_shortage(error):
                    raise
                message = one_line(error, 200)
            # The error is gone, and with it the tensors that its traceback held.
            model.zero_grad(set_to_none=True)
            self._use_less(model, lengths(batch), message)
            set_random_states(drawn, self._base.device)

    def _use_less(self, model: Any, each: Sequence[int], message: str) -> None:
        less = memory.halved(self.batch_tokens, each)
        if less is None and self._saves_memory:
            raise memory.too_large(max(each), self._base.device)
        if less is None:
            self._save_activations(model)
        self.batch_tokens = less or self.batch_tokens
        todo = f"training.batchTokens is {less:,} from here on" if less else "activations are computed anew in the backward pass"
        print(f"memory ran out ({message}): {todo}", file=sys.stderr, flush=True)
        gc.collect()
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _halved(self) -> bool:
        """Tells whether the base is in half precision, to which autocast then brings the adapters' part of the work.

        What adapters are given has that precision already; PEFT would double it, for autocast to halve it again."""
        return bool(self._base.dtype != torch.float32)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self._base.device.type, self._base.dtype) if self._halved else contextlib.nullcontext()


def _check_finite(folder: Path, curve: Sequence[float]) -> None:
    weights = load_file(folder / WEIGHTS)
    if not all(bool(torch.isfinite(w).all()) for w in weights.values()):
        raise BadInput(f"training.learningRate: the adapter's weights are not finite (last loss {curve[-1]}); lower the rate")
    if not math.isfinite(curve[-1]):  # in float16 steps without finite gradients are left out, so that weights stay finite
        raise BadInput(
            f"model.source: the loss is {curve[-1]}: the model computes numbers that float16 does not hold; train on a GPU with"
            " bfloat16 (NVIDIA's from compute capability 8.0 on), or use another model"
        )
