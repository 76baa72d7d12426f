"""Makes a prompt fit into the context: what the others said is clipped, longest first, and keeps its end, where answers stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maft.chat_template import ChatTemplate
from maft.records import Message

MARK = "[...] "  # before what is left of a text
TRIES = 4  # tokens of a text depend on what stands beside it, so a first estimate may be a few too many


@dataclass(frozen=True, slots=True)
class Heard:
    """A user turn with what others said in it."""

    turn: Callable[[Sequence[str]], str]
    """Fills in their texts, or what is left of them."""
    texts: Sequence[str] = ()
    clipped: int = 0
    """How many others were clipped before, in a summary's prompt."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt."""

    turn: str
    """Its last user turn."""
    ids: Sequence[int]
    clipped: int
    """Texts in it that are not whole."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What the same dialogue will have to hold besides: a prompt that took all the room would leave later rounds none."""

    rounds: int = 0
    """After this one."""
    answer: int = 0
    """Tokens of an answer, by what was said so far."""


LAST = Ahead()


def fit(template: ChatTemplate, before: Sequence[Message], heard: Heard, room: int, ahead: Ahead = LAST) -> Fitted:
    """Makes the prompt that ends with the turn; where it would be longer than `room` tokens, with as much of the texts as fits.

    What is the agent's own (question, earlier turns) is never clipped, so the prompt may be too long even without the texts."""
    texts = list(heard.texts)
    made = _filled(template, before, heard, texts)
    if texts and len(made.ids) * (ahead.rounds + 1) + ahead.rounds * ahead.answer > room:
        room = _share(template, before, heard, room, ahead)
    lengths = [template.count(text) for text in texts] if len(made.ids) > room else []
    allowed = sum(lengths)
    for _ in range(TRIES):
        if len(made.ids) <= room or allowed <= 0:
            break
        allowed = max(0, allowed - (len(made.ids) - room) - template.count(MARK) * len(texts))
        made = _filled(template, before, heard, _clipped(template, texts, lengths, allowed))
    return made


def _share(template: ChatTemplate, before: Sequence[Message], heard: Heard, room: int, ahead: Ahead) -> int:
    """This round's part of the room: what others say has as much of it in each round."""
    bare = [MARK] * len(heard.texts)
    own = len(_filled(template, before, heard, bare).ids)
    later = ahead.rounds * (template.count(heard.turn(bare)) + ahead.answer)
    return own + max(0, room - own - later) // (ahead.rounds + 1)


def _clipped(template: ChatTemplate, texts: Sequence[str], lengths: Sequence[int], allowed: int) -> list[str]:
    given = shares(lengths, allowed)
    whole = [part >= length for part, length in zip(given, lengths, strict=True)]
    return [t if w else MARK + template.last_tokens(t, part) for t, w, part in zip(texts, whole, given, strict=True)]


def shares(lengths: Sequence[int], allowed: int) -> list[int]:
    """Shares `allowed` tokens among texts of those lengths: short ones stay whole, the long ones get the same each."""
    given = [0] * len(lengths)
    left = allowed
    for rank, i in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        given[i] = min(lengths[i], left // (len(lengths) - rank))
        left -= given[i]
    return given


def _filled(template: ChatTemplate, before: Sequence[Message], heard: Heard, texts: Sequence[str]) -> Fitted:
    text = heard.turn(texts)
    clipped = sum(a != b for a, b in zip(texts, heard.texts, strict=True))
    return Fitted(text, template.prompt([*before, Message("user", text)]), max(clipped, heard.clipped))
