"""How a chat becomes tokens: the model's own chat template for what it reads, and what it said as it was sampled.

Generation and training both go through `ChatTemplate`, so a model is trained on exactly the tokens that it saw and said.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from maft.answers.thoughts import PAIRS, Said, split
from maft.errors import BadInput, one_line
from maft.records import Message
from maft.template_facts import CHANNELS, Chat, Options, facts, known_arguments, switched


@dataclass(frozen=True, slots=True)
class Tokens:
    """A chat as the trainer takes it."""

    ids: tuple[int, ...]
    """[length]"""
    completion: tuple[bool, ...]
    """[length], True where the loss counts."""
    left_out: int = 0
    """Earlier turns that were asked for and do not count: cut, or not in the model's view as it said them."""


class ChatTemplate:
    """A tokenizer's chat template as token ids."""

    def __init__(self, tokenizer: Any, source: str, options: Options | None = None) -> None:
        """Finds out what the template does; BadInput where it is missing, fails, or cannot do what the options ask for."""
        if not getattr(tokenizer, "chat_template", None):
            raise BadInput(f"model.source: {source} has no chat template; use an instruction-tuned model or add a template to it")
        if tokenizer.eos_token_id is None:
            raise BadInput(
                f"model.source: the tokenizer of {source} names no end token; set eos_token in its tokenizer_config.json"
            )
        options = options or Options()
        self._tokenizer = tokenizer
        self._source = source
        self._today = date.fromisoformat(options.date)
        text = self._text()
        self._arguments = switched(text, options)
        self._facts = facts(text, self._render, options, source)
        self._special = _special_tokens(tokenizer)
        self._suffix = self._encode(self._facts.suffix) if self._facts.suffix else []
        self.arguments_known = known_arguments(text)
        self.thinks = self._facts.thinks
        """Answers may begin with a thought."""
        self.turn_end = (self._turn_end(),)
        """What ends an answer, as the template writes it: a token."""
        self.stops = tuple(dict.fromkeys((*self.turn_end, int(tokenizer.eos_token_id))))
        """Tokens at which a server stops, beside those that it knows of itself."""
        self.keeps_special = self.thinks and any(name in self._special for name in self._tags(text))
        """Thoughts can be told from the reply by special tokens alone, so the server has to leave them in its text."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokenizes up to where the assistant's next answer begins. shape: [prompt tokens]."""
        return [*self._encode(self._render(self._chat(messages), True)), *self._suffix]

    def tokens(self, messages: Sequence[Message], *, every_turn: bool, thoughts: bool = True) -> Tokens:
        """Tokenizes a chat that ends with the assistant, and marks the last answer (or every answer that the model said).

        What stands before the last answer equals `prompt` token by token, and the answer is what was sampled. With `every_turn`
        an earlier answer counts where the model sees it as it said it: templates drop thoughts, and those turns are left out.
        thoughts: they count, too.
        """
        ids, start = self._answered(messages)
        marked = set(range(start + (0 if thoughts else self._thought_tokens(ids[start:])), len(ids)))
        left_out = 0
        for k, message in enumerate(messages[:-1] if every_turn else ()):
            if message.role != "assistant" or message.given:
                continue
            answered, start = self._answered(messages[: k + 1])
            if message.cut or ids[: len(answered)] != answered:
                left_out += 1
            else:
                marked.update(range(start, len(answered)))
        return Tokens(tuple(ids), tuple(i in marked for i in range(len(ids))), left_out)

    def split(self, text: str) -> Said:
        """Splits what a server returned for a prompt of this template into thought and reply."""
        return split(text, opened=self._facts.opened)

    def last_tokens(self, text: str, count: int) -> str:
        """Takes the end of a text, of at most that many tokens."""
        ids = self._encode(text)
        return text if len(ids) <= count else str(self._tokenizer.decode(ids[len(ids) - count :] if count else [])).lstrip("\ufffd")

    def count(self, text: str) -> int:
        """Counts the tokens of a text that stands alone."""
        return len(self._encode(text))

    def _answered(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """Prompt, last answer and the turn's end; and where the answer starts."""
        prompt = self.prompt(messages[:-1])
        said = messages[-1]
        answer = list(said.ids) or self._by_text(messages, prompt)
        ended = answer and self._tokenizer.convert_ids_to_tokens(answer[-1]) in self._special
        # A turn that a limit ended stays open: nothing after it was said.
        return [*prompt, *answer, *(() if ended or said.cut else self.turn_end)], len(prompt)

    def _by_text(self, messages: Sequence[Message], prompt: list[int]) -> list[int]:
        """The answer of a server that told no tokens: as the template writes it where it writes nothing else, or by itself."""
        said = messages[-1]
        whole = self._encode(self._render(self._chat(messages), False))
        [end] = self.turn_end
        if not said.thought and whole[: len(prompt)] == prompt and end in whole[len(prompt) :]:
            answer = whole[len(prompt) : whole.index(end, len(prompt))]
            if self._tokenizer.decode(answer).strip() == said.content.strip():
                return answer
        return self._encode(said.content if not said.thought else self._thought(said))

    def _thought(self, said: Message) -> str:
        opening, closing = next((pair for pair in PAIRS if pair[1] in self._text()), PAIRS[0])
        return f"{'' if self._facts.opened else opening}\n{said.thought}\n{closing}\n\n{said.content}"

    def _thought_tokens(self, answer: Sequence[int]) -> int:
        """How many tokens of an answer are its thought, tags included."""
        thought = self.split(self._tokenizer.decode(list(answer))).thought
        if not thought:
            return 0

        def complete(count: int) -> bool:
            said = self.split(self._tokenizer.decode(list(answer[:count])))
            return not said.open and said.thought == thought

        return bisect_left(range(len(answer) + 1), True, key=complete)

    def _turn_end(self) -> int:
        ids = self._encode(self._facts.tail)
        ends = (i for i in ids if self._tokenizer.convert_ids_to_tokens(i) in self._special)
        return int(next(ends, self._tokenizer.eos_token_id))

    def _chat(self, messages: Sequence[Message]) -> Chat:
        """Messages as templates take them; without system turns the first one begins the first user turn."""
        chat: Chat = [{"role": m.role, "content": m.content} for m in messages]
        if chat and chat[0]["role"] == "system" and not self._facts.system:
            system, *chat = chat
            user = next(m for m in chat if m["role"] == "user")
            user["content"] = f"{system['content']}\n\n{user['content']}"
        return chat

    def _render(self, chat: Chat, generation: bool) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=generation, strftime_now=self._today.strftime, **self._arguments
            )
        except Exception as error:  # a template is code of its model's makers: it may raise anything
            raise BadInput(f"model.source: the chat template of {self._source} fails: {one_line(error, 300)}") from error
        return str(rendered)

    def _encode(self, text: str) -> list[int]:
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _text(self) -> str:
        try:
            return str(self._tokenizer.get_chat_template())
        except ValueError as error:  # several by name, none of them the default
            raise BadInput(f"model.source: {self._source} has no default chat template: {one_line(error, 300)}") from error

    def _tags(self, text: str) -> list[str]:
        return [tag for tag in (*CHANNELS, *(tag for pair in PAIRS for tag in pair)) if tag in text]


def _special_tokens(tokenizer: Any) -> frozenset[str]:
    added = tokenizer.added_tokens_decoder.values() if hasattr(tokenizer, "added_tokens_decoder") else ()
    return frozenset((*tokenizer.all_special_tokens, *(token.content for token in added if token.special)))


def load_chat_template(
    path: str, revision: str | None, *, trust_remote_code: bool = False, options: Options | None = None
) -> ChatTemplate:
    """Loads the chat template of the model at `path` (a folder or a hub id)."""
    from transformers import AutoTokenizer

    try:
        _check_config(Path(path) / "tokenizer_config.json")
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # damaged files end in any exception
        raise BadInput(f"model.source: {path} has no usable tokenizer: {one_line(error, 300)}") from error
    return ChatTemplate(tokenizer, path, options)


def _check_config(file: Path) -> None:
    """transformers would say that a list has no attribute."""
    if file.is_file() and not isinstance(json.loads(file.read_text()), dict):
        raise ValueError(f"{file.name} holds no object")
