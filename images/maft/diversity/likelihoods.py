"""How likely what one agent said is to another, on one base model."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import log_softmax

from maft import lora
from maft.chat_template import Tokens
from maft.packing import in_parts, pack

LOGITS = 2**26  # of a forward pass, 4 bytes each: those of every agent are in memory at a time, of a long answer gigabytes


class Generators:
    """The agents' generators on one copy of the base."""

    def __init__(self, base: Any, folders: Sequence[Path | None]) -> None:
        self._names = [None if folder is None else f"agent-{n}" for n, folder in enumerate(folders)]
        self._model = base
        for name, folder in zip(self._names, folders, strict=True):
            if folder is not None and isinstance(self._model, PeftModel):
                self._model.load_adapter(str(folder), adapter_name=name, torch_device=str(base.device))
            elif folder is not None:
                self._model = PeftModel.from_pretrained(self._model, str(folder), adapter_name=name, torch_device=str(base.device))
        self._model.eval()
        self._targets = max(1, LOGITS // int(base.config.get_text_config().vocab_size))

    def parts(self, tokens: Tokens) -> Iterator[Tokens]:
        """Yields the dialogue again and again, with as many of its targets as go through a model at a time."""
        return in_parts(tokens, self._targets)

    def log_probabilities(self, agent: int, tokens: Tokens) -> torch.Tensor:
        """Computes [answer tokens, vocabulary] by one agent's model, for a dialogue that may be another agent's."""
        row = pack([tokens]).to(self._model.device)
        with torch.no_grad(), self._active(agent):
            return log_softmax(lora.logits(self._model, row).float(), dim=-1)

    def _active(self, agent: int) -> contextlib.AbstractContextManager[Any]:
        """Lets the agent's adapter work, or none for the base."""
        name = self._names[agent]
        if name is not None:
            self._model.set_adapter(name)
        elif isinstance(self._model, PeftModel):
            return self._model.disable_adapter()  # type: ignore[no-any-return]
        return contextlib.nullcontext()


def likelihoods(generators: Generators, answers: Sequence[Sequence[Tokens]]) -> tuple[list[list[float]], float]:
    """Computes the matrix nll[i][j], and the mean KL over i ≠ j, in nats per token.

    answers[i]: agent i's first answers as tokens."""
    agents = range(len(answers))
    nll = [[0.0 for _ in agents] for _ in agents]
    divergence, pairs = 0.0, 0
    for i in agents:
        counted = 0
        for tokens in answers[i]:
            counted += (targets := len(pack([tokens]).labels))
            for part in generators.parts(tokens):
                each = [generators.log_probabilities(j, part) for j in agents]
                for j in agents:
                    nll[i][j] -= _of_labels(each[j], part)
                    divergence += 0.0 if i == j else float((each[i].exp() * (each[i] - each[j])).sum()) / targets
            pairs += len(agents) - 1
        nll[i] = [value / max(1, counted) for value in nll[i]]
    return nll, divergence / max(1, pairs)


def surprise(generators: Generators, agent: int, answers: Sequence[Tokens]) -> float:
    """Adds up the negative log-likelihood of all answers under one agent's model, in nats."""
    parts = (part for tokens in answers for part in generators.parts(tokens))
    return -sum(_of_labels(generators.log_probabilities(agent, part), part) for part in parts)


def _of_labels(log_probabilities: torch.Tensor, tokens: Tokens) -> float:
    """Adds up those of what was said. log_probabilities: [targets, vocabulary]."""
    labels = pack([tokens]).labels.to(log_probabilities.device)
    return float(log_probabilities.gather(1, labels[:, None]).sum())
