"""Likelihoods among agents of several base models: one base in memory at a time, in numbers that all their tokenizers share.

A token of one model is no token of another, so likelihoods are per byte of what was said, and distributions are compared among
agents of one base alone.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from maft import lora, models
from maft.chat_template import ChatTemplate, Tokens
from maft.device import Device
from maft.diversity.likelihoods import Generators, likelihoods, surprise
from maft.records import Message, Transcript
from maft.spec import ModelSpec, Spec


@dataclass(frozen=True, slots=True)
class Answers:
    """First answers of one agent, as chats."""

    model: ModelSpec
    chats: tuple[tuple[Message, ...], ...]

    @property
    def bytes(self) -> int:
        """Counts the bytes of the answers."""
        return sum(len((chat[-1].thought + chat[-1].content).encode(errors="replace")) for chat in self.chats)

    def as_read(self, template: ChatTemplate, model: ModelSpec) -> list[Tokens]:
        """Tokenizes them for an agent of that model: as they were sampled by the same model, else by their text."""
        own = model == self.model
        chats = [chat if own else (*chat[:-1], replace(chat[-1], ids=())) for chat in self.chats]
        return [template.tokens(chat, every_turn=False) for chat in chats]


def measured(
    spec: Spec, transcripts: Sequence[Transcript], folders: Sequence[Path | None], device: Device
) -> tuple[list[list[float]], float | None]:
    """Computes the matrix nll[i][j] in nats per byte, and the mean KL in nats over pairs of one base; None: there is no such pair.

    folders: of each agent's adapter; None: its base."""
    agents = range(len(folders))
    answers = [_answers(spec, transcripts, n) for n in agents]
    nll = [[0.0 for _ in agents] for _ in agents]
    divergence, pairs = 0.0, 0
    for alike in spec.by_base(len(folders)):
        generators = Generators(lora.load_base(spec.model_of(alike[0]), device, spec.training.base), [folders[n] for n in alike])
        templates = [models.template_of(spec, n) for n in alike]
        for place, j in enumerate(alike):
            for i in agents:
                read = answers[i].as_read(templates[place], spec.model_of(j))
                nll[i][j] = surprise(generators, place, read) / max(1, answers[i].bytes)
        own = [answers[n].as_read(template, spec.model_of(n)) for n, template in zip(alike, templates, strict=True)]
        count = len(alike) * (len(alike) - 1)
        divergence, pairs = divergence + count * likelihoods(generators, own)[1], pairs + count
        del generators
        gc.collect()  # PEFT's models hold themselves: the next base needs their memory
    return nll, divergence / pairs if pairs else None


def _answers(spec: Spec, transcripts: Sequence[Transcript], agent: int) -> Answers:
    system = spec.debate_of(agent).system
    chats = (t.dialogue(agent, 1, system=system) for t in transcripts if t.turns[agent][0].call.text)
    return Answers(spec.model_of(agent), tuple(chats))
