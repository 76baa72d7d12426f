"""How a chat becomes tokens: the model's own chat template, for generation and training alike.

Both go through `ChatTemplate`, so a model is trained on exactly the tokens that it will see.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from maft.errors import BadInput, one_line
from maft.records import Message


@dataclass(frozen=True, slots=True)
class Tokens:
    """A chat as the trainer takes it."""

    ids: tuple[int, ...]
    """[length]"""
    completion: tuple[bool, ...]
    """[length], True where the loss counts."""


class ChatTemplate:
    """A tokenizer's chat template as token ids."""

    def __init__(self, tokenizer: Any, source: str) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise BadInput(f"model.source: {source} has no chat template; use an instruction-tuned model or add a template to it")
        if tokenizer.eos_token_id is None:
            raise BadInput(
                f"model.source: the tokenizer of {source} names no end token; set eos_token in its tokenizer_config.json"
            )
        self._tokenizer = tokenizer
        self._source = source

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokenizes up to where the assistant's next answer begins. shape: [prompt tokens]."""
        return self._ids(messages, add_generation_prompt=True)

    def tokens(self, messages: Sequence[Message], *, every_turn: bool) -> Tokens:
        """Tokenizes a chat that ends with the assistant, and marks the last answer (or every answer).

        What stands before an answer equals `prompt` token by token; a template that rewrites earlier turns is BadInput
        with `every_turn`, because then no single token sequence shows the model what it saw.
        """
        ids, start = self._answered(messages)
        marked = set(range(start, len(ids)))
        for k in range(1, len(messages) - 1, 2) if every_turn else ():
            answered, start = self._answered(messages[: k + 1])
            if ids[: len(answered)] != answered:
                raise BadInput("training.lossOn: the model's chat template rewrites earlier turns, so only `last` is possible")
            marked.update(range(start, len(answered)))
        return Tokens(tuple(ids), tuple(i in marked for i in range(len(ids))))

    def _answered(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """Prompt, last answer and end token; and where the answer starts."""
        prompt = self.prompt(messages[:-1])
        whole = self._ids(messages, add_generation_prompt=False)
        end = self._tokenizer.eos_token_id
        if whole[: len(prompt)] == prompt and end in whole[len(prompt) :]:
            # What follows the end token (often a line feed) is never generated, so it is not trained on.
            return whole[: whole.index(end, len(prompt)) + 1], len(prompt)
        answer = self._tokenizer(messages[-1].content, add_special_tokens=False)["input_ids"]
        return [*prompt, *answer, end], len(prompt)

    def _ids(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> list[int]:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        try:
            ids = self._tokenizer.apply_chat_template(chat, add_generation_prompt=add_generation_prompt, return_dict=False)
        except TemplateError as error:
            raise BadInput(f"model.source: the chat template of {self._source} fails: {one_line(error, 300)}") from error
        return [int(i) for i in ids]


def load_chat_template(path: str, revision: str | None, *, trust_remote_code: bool = False) -> ChatTemplate:
    """Loads the chat template of the model at `path` (a folder or a hub id)."""
    from transformers import AutoTokenizer

    try:
        _check_config(Path(path) / "tokenizer_config.json")
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"model.source: {path} has no usable tokenizer: {one_line(error, 300)}") from error
    template = ChatTemplate(tokenizer, path)
    template.prompt([Message("user", "?"), Message("assistant", "!"), Message("user", "?")])  # what fails, fails here
    return template


def _check_config(file: Path) -> None:
    """transformers would say that a list has no attribute."""
    if file.is_file() and not isinstance(json.loads(file.read_text()), dict):
        raise ValueError(f"{file.name} holds no object")
