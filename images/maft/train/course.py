"""One adapter on its way: what changes from step to step, as an object, and as what a checkpoint holds of it.

The order of the examples is no part of it: it follows from the seed, and a resumed training goes through it again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import get_cosine_schedule_with_warmup

from maft.spec import TrainingSpec

CLIP = 1.0  # norm of the gradient
_MOMENTS = "optimizer/"
_WEIGHTS = "weights/"
_RANDOM = "random/"


@dataclass(frozen=True, slots=True)
class State:
    """A course between two steps."""

    tensors: Mapping[str, torch.Tensor]
    """On the CPU: weights, moments of the optimizer, states of the generators, losses."""
    numbers: Mapping[str, Any]
    """What JSON holds: schedule, scaler, tokens of a row."""


class Course:
    """Weights of an adapter with optimizer, schedule and scaler; the loss of every step so far."""

    def __init__(self, model: Any, training: TrainingSpec, total: int, batch_tokens: int) -> None:
        self._training = training
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._parameters = list(self._named.values())
        self._device: torch.device = self._parameters[0].device
        self._optimizer = torch.optim.AdamW(self._parameters, lr=training.peak_rate, weight_decay=training.weight_decay)
        warmup = min(math.ceil(training.warmup * total), total - 1)  # it begins at a rate of 0: a single step would learn nothing
        self._schedule = get_cosine_schedule_with_warmup(self._optimizer, warmup, total)
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=model.dtype == torch.float16)
        self.curve: list[float] = []
        self.left_out = 0
        """Steps since this program began whose gradients half precision could not hold, and that changed nothing."""
        self.batch_tokens = batch_tokens
        """Most tokens of a row; fewer after memory ran out."""
        self._random = random_states(self._device)

    def step(self, loss: float, batch_tokens: int) -> None:
        """Changes the weights by the gradient that was accumulated, in rows of so many tokens at most."""
        self.scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self.scaler.step(self._optimizer)
        scale = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # so it says that it made no step
            self.left_out += 1
        else:
            self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.curve.append(loss)
        self.batch_tokens = batch_tokens
        self._random = random_states(self._device)

    def state(self) -> State:
        """Copies what the next step starts from, also in the middle of it: gradients and dropout so far are forgotten."""
        tensors = {_WEIGHTS + name: p.detach() for name, p in self._named.items()}
        for index, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"{_MOMENTS}{index}/{name}": value for name, value in moments.items()}
        tensors |= {_RANDOM + name: state for name, state in self._random.items()}
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float64)  # JSON has no NaN
        numbers = {
            "schedule": self._schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "batchTokens": self.batch_tokens,
        }
        return State({name: value.cpu().contiguous() for name, value in tensors.items()}, numbers)

    def restore(self, state: State) -> None:
        """Goes on from there."""
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(state.tensors[_WEIGHTS + name])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key in (key for key in state.tensors if key.startswith(_MOMENTS)):
            index, name = key.removeprefix(_MOMENTS).split("/")
            moments.setdefault(int(index), {})[name] = state.tensors[key]
        groups = self._optimizer.state_dict()["param_groups"]
        self._schedule.load_state_dict(dict(state.numbers["schedule"]))
        rates = self._schedule.get_last_lr()
        changed = [{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
        self._optimizer.load_state_dict({"state": moments, "param_groups": changed})
        self.scaler.load_state_dict(dict(state.numbers["scaler"]))
        self.batch_tokens = state.numbers["batchTokens"]
        self.curve = state.tensors["curve"].tolist()
        self._random = {key.removeprefix(_RANDOM): t for key, t in state.tensors.items() if key.startswith(_RANDOM)}
        set_random_states(self._random, self._device)


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Reads the states of the generators that training draws from: the CPU's, and the GPU's where it is on one."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Has them draw again what came after those states."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
