"""A small copy of the model with random weights goes through the run's own functions: made, adapted, trained for a step, saved."""

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from maft import lora
from maft.adapters import WEIGHTS
from maft.chat_template import ChatTemplate
from maft.errors import BadInput, one_line
from maft.preflight.shrink import shrunk, unquantised
from maft.records import Example, Message
from maft.spec import Spec, TrainingSpec
from maft.train.objectives import objective_of
from maft.train.samples import samples
from maft.train.trainer import Trainer

FILES = ("config.json", "adapter_config.json", WEIGHTS)  # what servers are asked about
ANSWERS = ("So it is 7. Answer: 7", "2 and 5 make 7.\n\nAnswer: 7", "Answer: 12")


@dataclass(frozen=True, slots=True)
class Tried:
    """What was seen."""

    architecture: str
    """The model's class."""
    modules: int
    """Layers that get an adapter, in the whole model."""
    packs: bool
    """Several examples train in one row."""
    untried: str = ""
    """Why no step was trained; empty: one was."""


def try_training(config: Any, spec: Spec, examples: Sequence[Any], folder: Path) -> Tried:
    """Trains an adapter of the small model into the folder, beside the model's configuration."""
    try:
        small, base = _small_base(config, spec)
        with _one_thread():
            packs = _train(base, spec, examples, folder)
    except MemoryError:
        raise
    except Exception as error:  # a model's own code may raise anything over a copy that is smaller than any real one
        if isinstance(error, BadInput) and str(error).startswith("training."):
            raise
        return _on_no_device(config, spec, folder, f"{type(error).__name__}: {one_line(error, 200)}")
    lora.tidy(folder, spec.model, "")
    small.architectures = config.architectures or [type(base).__name__]
    small.save_pretrained(folder)
    return Tried(type(base).__name__, _modules(folder, small, config), packs)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Over matrices this small several threads mostly wait for each other: many times as long where others compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(base: Any, spec: Spec, examples: Sequence[Any], folder: Path) -> bool:
    """Trains a step, and another one from the adapter that came out. Tells whether the model packs."""
    training = replace(spec.training, epochs=1, batch_size=len(examples))
    trainer = Trainer(base, training, _unseen, objective_of(training))
    trainer.train(examples, folder, seed=spec.seed, previous=None)
    trainer.train(examples, folder / "next", seed=spec.seed, previous=folder)
    return trainer.packs


def _unseen(loss: float) -> None:
    pass


def _small_base(config: Any, spec: Spec) -> tuple[Any, Any]:
    """A configuration and a model of it; towers whose parts do not fit when they are narrow keep their widths."""
    narrow = shrunk(config)
    try:
        return narrow, lora.new_base(narrow, spec.model)
    except BadInput:
        wide = shrunk(config, narrow=False)
        return wide, lora.new_base(wide, spec.model)


def without_weights(config: Any, spec: Spec) -> Any:
    """Makes the whole model with an adapter, and no memory for its weights."""
    whole = copy.deepcopy(config)
    unquantised(whole)
    with torch.device("meta"):
        return lora.adapt(lora.new_base(whole, spec.model), spec.training.lora, None)


def _on_no_device(config: Any, spec: Spec, folder: Path, why: str) -> Tried:
    """Its classes are there and take an adapter. The folder gets the configuration alone: vLLM is asked about the class."""
    adapted = without_weights(config, spec)
    name = type(adapted.get_base_model()).__name__
    whole = copy.deepcopy(config)
    unquantised(whole)
    whole.architectures = config.architectures or [name]
    shutil.rmtree(folder, ignore_errors=True)  # of a training that failed half-way
    whole.save_pretrained(folder)
    return Tried(name, len(adapted.targeted_module_names), packs=True, untried=why)


def _modules(folder: Path, small: Any, config: Any) -> int:
    """Layers with an adapter in the small model, as many more as the whole one is deeper."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as opened:
        adapted = sum("lora_A" in name for name in opened.keys())  # noqa: SIM118 - it is no dict
    layers, tried = (int(each.get_text_config().num_hidden_layers) for each in (config, small))
    return round(adapted * layers / tried)


def targets_of(folder: Path) -> list[str]:
    """Reads which layers the adapter in the folder is for, as its configuration names them."""
    if not (folder / FILES[1]).exists():
        return []
    named = json.loads((folder / FILES[1]).read_text())["target_modules"]
    return sorted(named) if isinstance(named, list) else []


def dialogues(template: ChatTemplate, training: TrainingSpec, question: str, system: str) -> list[Any]:
    """Makes examples as training gets them: of one turn and of two, pairs for dpo, or graded answers for kto."""
    user = Message("user", question)
    opening = [*([Message("system", system)] if system else []), user]
    chats = [[*opening, Message("assistant", answer)] for answer in ANSWERS]
    chats.append([*chats[0], user, Message("assistant", ANSWERS[2])])
    examples = [Example("", tuple(chat)) for chat in chats]
    if training.method == "dpo":
        examples = [replace(example, rejected=chats[2][-1]) for example in examples[:2]]
    if training.method == "kto":
        examples = [replace(example, desirable=not number) for number, example in enumerate(examples[:3])]
    return list(samples(training, template, examples))
