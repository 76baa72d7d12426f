"""A chat request, decoded: what is asked, of whom, and how; a field that the society cannot honour is refused by its name. Pure."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from maft.asked import chat_text, question_id
from maft.endpoint import chat
from maft.endpoint.refused import Refused
from maft.errors import shown
from maft.records import Entry, Message, Problem
from maft.spec import UNREADABLE, GeneratorSpec

# What a society has no way to honour, with the values that ask for nothing.
_UNABLE: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "moderation": (),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "verbosity": (),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
}
# What says nothing about the answer.
_PASSED_OVER = (
    *("user", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
# msgspec's names of types, as a reader of JSON calls them.
_TYPES = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "|": "or",
}
_FIELD = re.compile(r"field `(?P<name>[^`]+)`")
Tokens = Annotated[int, Meta(ge=1, le=2**31)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[str, Meta(min_length=1)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a stream is."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Extra(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What only a society is asked for."""

    transcript: bool = False
    """The whole debate comes with the answer."""
    progress: bool = False
    """Of a stream: turns are told as they come."""
    prompt: bool | None = None
    """The question is put in the words of the run's task; None: to the society yes, to one agent no."""
    mode: Literal["paper", "fast"] | None = None
    """Of the debate; None: the run's."""
    timeout_seconds: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    """That the answer may take; None: as many as the society allows, which is the most."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request asks for. None: as the run has it."""

    model: str
    messages: Any
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    """Of each answer of an agent."""
    max_completion_tokens: Tokens | None = None
    """The newer name of the same."""
    seed: Seed | None = None
    stop: Stop | tuple[Stop, ...] = ()
    store: bool = True
    """May be kept, where the society keeps questions."""
    maft: Extra = Extra()
    turns: tuple[Message, ...] = ()
    """The messages, read."""

    @property
    def most(self) -> int | None:
        """Returns the limit of tokens."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def ends(self) -> tuple[str, ...]:
        """Lists the texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop

    @property
    def characters(self) -> int:
        """Counts those of all messages."""
        return sum(len(turn.content) for turn in self.turns)

    def problem(self, generator: GeneratorSpec | None) -> Problem:
        """Makes the question that is debated: named as the run would name it."""
        entry = Entry(generator.name, msgspec.json.encode(generator.config).decode(), 0, 0) if generator else None
        *history, last = self.turns
        return Problem(question_id(chat_text(self.turns)), last.content, "", tuple(history), entry)


def read(body: bytes) -> Asked:
    """Decodes a request; Refused for the first field that is wrong."""
    try:
        fields = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise Refused(400, f"the request is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Refused(400, "the request is no JSON object; send model and messages")
    given = {name: value for name, value in fields.items() if value is not None and name not in _PASSED_OVER}
    for name in given.keys() & _UNABLE.keys():
        _check_unable(name, given.pop(name))
    if "turns" in given:  # ours, and no field of a request
        raise Refused(400, "turns: no field that the society knows; leave it out", param="turns")
    try:
        asked = msgspec.convert(given, Asked)
    except msgspec.ValidationError as error:
        raise _explained(error, given) from None
    if asked.maft.progress and not asked.stream:
        raise Refused(400, "maft.progress: turns are told in a stream alone; set stream, or leave it out", param="maft.progress")
    return msgspec.structs.replace(asked, turns=chat.turns(asked.messages), messages=None)


def _check_unable(name: str, value: Any) -> None:
    if not any(type(value) is type(nothing) and value == nothing for nothing in _UNABLE[name]):
        raise Refused(400, f"{name}: {shown(value)}; the society cannot do this, leave it out", param=name)


def _explained(error: msgspec.ValidationError, given: dict[str, Any]) -> Refused:
    """Names the field first and what it holds: msgspec names it last, and shows types alone."""
    text, _, place = str(error).partition(" - at `$")
    field = _FIELD.search(text)
    path = ".".join(part for part in (place.rstrip("`").lstrip("."), field["name"] if field else "") if part)
    if field:
        text = "missing; give it" if "missing" in text else "no field that the society knows; leave it out"
    else:
        text = f"{_held(given, path)}{_in_words(text.partition(', got ')[0].replace('`', ''))}"
    return Refused(400, f"{path}: {text}" if path else text, param=path or None)


def _in_words(expected: str) -> str:
    """Turns `Expected float | null` into words."""
    return " ".join(_TYPES.get(word, word) for word in expected.replace("Expected", "expected").split(" "))


def _held(given: Any, path: str) -> str:
    """Shows the value there; nothing where the way leads through a list."""
    for name in path.split("."):
        if not isinstance(given, dict) or name not in given:
            return ""
        given = given[name]
    return f"{shown(given)}; "
