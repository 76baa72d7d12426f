"""How a chat becomes tokens: the model's own chat template for what it reads, and what it said as it was sampled.

Generation and training both go through `ChatTemplate`, so a model is trained on exactly the tokens that it saw and said.
"""

import contextlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from maft.answers.thoughts import PAIRS, Said, split
from maft.errors import BadInput, one_line
from maft.records import Message
from maft.template_facts import MESSAGE, NEXT, PROBE, Chat, Options, facts, known_arguments, switched, takes_parts

_TAGS = frozenset((MESSAGE, *(tag for pair in PAIRS for tag in pair)))


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
        _check_has_template(tokenizer, source)
        options = options or Options()
        self._tokenizer = tokenizer
        self._source = source
        self._today = _day(options.date)
        text = self._text()
        self.arguments_known = known_arguments(text)
        """What the template reads beside what every one is given."""
        self._given = tuple(options.arguments)
        self._arguments, options = switched(self.arguments_known, options)
        self._parts = False
        self._parts = takes_parts(self._render)
        self._facts = facts(text, self.arguments_known, self._render, options, source)
        self._special = _special_tokens(tokenizer)
        self._added = frozenset(i for i, token in _added_tokens(tokenizer).items() if str(token).strip())
        """Without white space in rows, which some have as tokens."""
        self._channels = MESSAGE in text
        self.thinks = self._facts.thinks
        """Answers may begin with a thought."""
        self.turn_end = self._turn_end()
        """What ends an answer, as the template writes it: tokens, of which a server stops at the last."""
        self.stops = tuple(dict.fromkeys((self.turn_end[-1], int(tokenizer.eos_token_id))))
        """Tokens at which a server stops, beside those that it knows of itself."""
        self.keeps_special = not _TAGS.isdisjoint(map(str, tokenizer.convert_ids_to_tokens(sorted(self._special))))
        """Thoughts can be told from the reply by special tokens alone, so the server has to leave them in its text: also where
        none are asked for and where the template knows of none, for a model may think all the same, or say that it does not."""

    @property
    def tokenizer(self) -> Any:
        """Returns the tokenizer that the template belongs to."""
        return self._tokenizer

    def check_rounds(self, rounds: int) -> None:
        """BadInput for the first round whose prompt the template does not write, or from which it leaves out what was said."""
        chat: Chat = [{"role": "user", "content": PROBE}]
        for number in range(2, rounds + 1):
            chat += [{"role": "assistant", "content": "?"}, {"role": "user", "content": NEXT}]
            try:
                prompt = self._render(chat, True)
            except BadInput as error:
                why = str(error).removeprefix("model.source: ")
            else:
                if PROBE in prompt and prompt.count(NEXT) == number - 1:
                    continue
                why = f"the chat template of {self._source} leaves out what was said before"
            raise BadInput(
                f"debate.rounds: {rounds}, and in round {number} {why}; set it to {number - 1}, or take another template"
            )

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokenizes up to where the assistant's next answer begins. shape: [prompt tokens]."""
        return self._encode(self._render(self._chat(messages), True) + self._facts.suffix)

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
        return text if len(ids) <= count else self._decode(ids[len(ids) - count :] if count else []).lstrip("\ufffd")

    def count(self, text: str) -> int:
        """Counts the tokens of a text that stands alone."""
        return len(self._encode(text))

    def _answered(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """Prompt, last answer and the turn's end; and where the answer starts."""
        prompt = self.prompt(messages[:-1])
        last = messages[-1]
        answer = list(last.ids) or self._by_text(messages, prompt)
        ended = answer and (answer[-1] in self.stops or answer[-1] in self._special)
        # A turn that a limit ended stays open: nothing after it was said.
        return [*prompt, *answer, *(() if ended or last.cut else self.turn_end)], len(prompt)

    def _by_text(self, messages: Sequence[Message], prompt: list[int]) -> list[int]:
        """The answer of a server that told no tokens: as the template writes it where it writes nothing else, or by itself."""
        last, chat = messages[-1], self._chat(messages)
        if last.thought:
            chat[-1] |= {"reasoning_content": last.thought, "thinking": last.thought}  # each template knows one of them
        whole = self._encode(self._render(chat, False))
        answer, end = whole[len(prompt) :], self.turn_end[0]
        ended = end in answer
        answer = answer[: answer.index(end)] if ended else answer
        text = self._decode(answer)
        # Where the template writes no end, white space behind an answer may be the template's.
        same = whole[: len(prompt)] == prompt and self._says(text, last) and (ended or text.endswith(last.content.strip() or "-"))
        return answer if same else self._encode(self._written(last))

    def _says(self, text: str, message: Message) -> bool:
        """Whether a text is what was said; an empty thought was not, a channel was."""
        if not message.thought and not self._channels:
            return text.strip() == message.content.strip()
        parts = self.split(text)
        return (parts.thought, parts.reply) == (message.thought.strip(), message.content.strip())

    def _written(self, message: Message) -> str:
        """An answer as models write it."""
        if not message.thought:
            return message.content
        if self._facts.closing:
            return f"\n{message.thought}\n{self._facts.closing}\n\n{message.content}"
        opening, closing = next((pair for pair in PAIRS if pair[1] in self._text()), PAIRS[0])
        return f"{opening}\n{message.thought}\n{closing}\n\n{message.content}"

    def _thought_tokens(self, answer: Sequence[int]) -> int:
        """How many tokens of an answer are its thought, tags included."""
        thought = self.split(self._decode(answer)).thought
        if not thought:
            return 0

        def complete(count: int) -> bool:
            parts = self.split(self._decode(answer[:count]))
            return not parts.open and parts.thought == thought

        return bisect_left(range(len(answer) + 1), True, key=complete)

    def _turn_end(self) -> tuple[int, ...]:
        """The tail's tokens up to the tokenizer's end token where all turns have it, else the first one that was added to the
        tokenizer, special or not; else the first special one of what begins the next turn (GLM says it instead of an end)."""
        eos, tail, between = int(self._tokenizer.eos_token_id), *map(self._encode, (self._facts.tail, self._facts.between))
        if eos in tail and eos in between:
            return tuple(i for i in tail[: tail.index(eos) + 1] if i in self._added or i == eos)
        begins = self._tokenizer.bos_token_id
        ends = (*(i for i in tail if i in self._special or i in self._added), *(i for i in between if i in self._special))
        return (next((i for i in ends if i != begins), eos),)

    def _chat(self, messages: Sequence[Message]) -> Chat:
        """Messages as templates take them; without system turns the first one begins the first user turn."""
        chat: Chat = [{"role": m.role, "content": m.content} for m in messages]
        if chat and chat[0]["role"] == "system" and not self._facts.system:
            system, *chat = chat
            user = next(m for m in chat if m["role"] == "user")
            user["content"] = f"{system['content']}\n\n{user['content']}"
        return chat

    def _apply(self, chat: Chat, generation: bool, arguments: Mapping[str, Any]) -> Any:
        return self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=generation, strftime_now=self._today.strftime, **arguments
        )

    def _culprit(self, chat: Chat, generation: bool) -> str:
        """Names the field of the argument without which a template that fails would not; else the model's."""
        for name in self._given:
            with contextlib.suppress(Exception):
                self._apply(chat, generation, {other: value for other, value in self._arguments.items() if other != name})
                return f"model.chatTemplateArguments.{name}: {json.dumps(self._arguments[name])}"
        return "model.source"

    def _render(self, chat: Chat, generation: bool) -> str:
        if self._parts:
            chat = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in chat]
        try:
            rendered = self._apply(chat, generation, self._arguments)
        except Exception as error:  # a template is code of its model's makers: it may raise anything
            field = self._culprit(chat, generation)
            raise BadInput(f"{field}: the chat template of {self._source} fails: {one_line(error, 300)}") from error
        return str(rendered)

    def _encode(self, text: str) -> list[int]:
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def _text(self) -> str:
        try:
            return str(self._tokenizer.get_chat_template())
        except ValueError as error:  # by name, none of them the default
            names = one_line(", ".join(sorted(map(str, self._tokenizer.chat_template))), 200)
            raise BadInput(
                f"model.source: the chat templates of {self._source} are named {names}, and none is the default; "
                "name the one to use `default` in tokenizer_config.json"
            ) from error


def _check_has_template(tokenizer: Any, source: str) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(f"model.source: {source} has no chat template; use an instruction-tuned model or add a template to it")
    if tokenizer.eos_token_id is None:
        raise BadInput(f"model.source: the tokenizer of {source} names no end token; set eos_token in its tokenizer_config.json")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"model.date: {text!r} is no day ({error}); give one such as 2026-01-31") from None


def _added_tokens(tokenizer: Any) -> dict[int, Any]:
    return dict(getattr(tokenizer, "added_tokens_decoder", {}))


def _special_tokens(tokenizer: Any) -> frozenset[int]:
    added = (i for i, token in _added_tokens(tokenizer).items() if token.special)
    return frozenset(map(int, (*tokenizer.all_special_ids, *added)))


def load_chat_template(
    path: str, revision: str | None, *, trust_remote_code: bool = False, options: Options | None = None
) -> ChatTemplate:
    """Loads the chat template of the model at `path` (a folder or a hub id)."""
    from transformers import AutoTokenizer

    try:
        _check_config(Path(path) / "tokenizer_config.json")
        # Cleaning up would take white space out of what was said.
        given: dict[str, Any] = {"trust_remote_code": trust_remote_code, "clean_up_tokenization_spaces": False}
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, **given)
        tokenizer.chat_template = tokenizer.chat_template or _of_processor(path, revision)
    except Exception as error:  # damaged files end in any exception
        raise BadInput(f"model.source: {path} has no usable tokenizer: {one_line(error, 300)}") from error
    return ChatTemplate(tokenizer, path, options)


def _of_processor(path: str, revision: str | None) -> str | None:
    """The template that older models which see have beside their processor."""
    from transformers.utils import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(path, "chat_template.json", revision=revision, **quiet)
    return str(json.loads(Path(file).read_text())["chat_template"]) if file else None


def _check_config(file: Path) -> None:
    """transformers would say that a list has no attribute."""
    if file.is_file() and not isinstance(json.loads(file.read_text()), dict):
        raise ValueError(f"{file.name} holds no object")
