"""One agent's answer as whoever asked hears it, piece by piece: joined, what `split` makes of the whole.

Plain words are told as they come. From the first mark in a reply on (a tag around the answer, a thought, the end of a turn) all
waits for the end, for what comes may take away what stands there. Work grows as the text does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from maft.answers.marks import CLOSING, LONGEST, MARK, beginning
from maft.chat_template import ChatTemplate
from maft.endpoint import answer
from maft.endpoint.answer import Answer
from maft.endpoint.upstream import Piece
from maft.records import Call

_PATIENCE = 2048  # characters that wait to be words, and are read anew with each piece: models write line feeds without end
_LOOKS = 16  # at the whole text before its end: a model may write no end of closing tags
_RUN_TOGETHER = re.compile(r"\s*(a(n(a(l(y(s(is?)?)?)?)?)?)?)?", re.ASCII)  # what harmony begins with, its special tokens gone


@dataclass(slots=True)
class _Words:
    """Plain words from the beginning of a reply on."""

    ends: Sequence[str]
    _waiting: str = ""
    """White space, which counts only before more words; what may become a mark or an end."""
    _at_start: bool = True
    _over: bool = False
    """A mark or an end was there."""

    def tell(self, text: str) -> str:
        """Takes in a text; returns the words that are sure."""
        if self._over:
            return ""
        text, self._waiting = self._waiting + text, ""
        if self._at_start and _RUN_TOGETHER.fullmatch(text):
            self._waiting = text
            return ""
        mark = MARK.search(text)
        sure, cut = answer.ended(text[: mark.start()] if mark else text, self.ends)
        sure = sure.lstrip() if self._at_start else sure
        if self._at_start and sure.startswith("analysis"):
            self._over, sure = True, ""
        elif cut or mark:
            self._over = True
            return sure.rstrip()
        kept = len(sure[: self._unsure(sure)].rstrip())
        self._waiting, self._at_start = sure[kept:], self._at_start and not kept
        self._over = self._over or len(self._waiting) > _PATIENCE
        return sure[:kept]

    def _unsure(self, text: str) -> int:
        """Where what may become a mark or an end begins, at the text's end."""
        starts = [end[:length] for end in self.ends for length in range(1, len(end))]
        return min(beginning(text), len(text) - max((len(start) for start in starts if text.endswith(start)), default=0))


@dataclass(slots=True)
class Hearing:
    """What one agent has said so far: the reply, once what it thinks first has ended, up to a text of `ends`."""

    template: ChatTemplate
    ends: Sequence[str] = ()
    """Of an agent that thinks; others are cut by their server."""
    _pieces: list[str] = field(default_factory=list)
    _sent: list[str] = field(default_factory=list)
    _words: _Words | None = None
    """Once the reply has begun."""
    _recent: str = ""
    """The end of a thought, as long as a mark."""
    _due: bool = False
    """A thought may have ended."""
    _looks: int = 0
    _end: Piece = field(default_factory=lambda: Piece(""))

    def hear(self, piece: Piece) -> str:
        """Takes in a piece; returns what is new for those who listen."""
        self._pieces.append(piece.text)
        if piece.tokens is None:
            new = self._words.tell(piece.text) if self._words else self._begun(piece.text)
        else:
            self._end = piece
            new = self._rest()
        self._sent.append(new)
        return new

    def answer(self) -> Answer:
        """Makes the answer of all that was heard."""
        prompt, completion = self._end.tokens or (0, 0)
        parts = self.template.split("".join(self._pieces))
        call = Call("", 0, prompt, completion, self._end.finish_reason or "stop", parts.reply, parts.thought)
        return answer.of_call(call, self._ends)

    @property
    def _ends(self) -> Sequence[str]:
        return self.ends if self.template.thinks else ()

    def _begun(self, text: str) -> str:
        """Tells the first words of a reply."""
        tail = self._reply(text) if self.template.thinks else text
        if not tail:
            return ""
        self._words = _Words(self._ends)
        return self._words.tell(tail)

    def _reply(self, text: str) -> str:
        """The text behind the thought, where that has ended and words have come: before that, they may turn out to be a thought."""
        recent = self._recent + text
        last = max((mark.end() for mark in CLOSING.finditer(recent)), default=0)
        self._due, self._recent = self._due or last > 0, recent[last:][-LONGEST:]
        if not self._due or not text.strip() or self._looks == _LOOKS:
            return ""
        self._looks += 1
        whole = "".join(self._pieces)
        parts = self.template.split(whole)
        *_, closing = CLOSING.finditer(whole)
        tail = whole[closing.end() :]
        self._due = not parts.open
        return tail if parts.reply and parts.reply == tail.strip() else ""

    def _rest(self) -> str:
        """What is left at the end. Where what was told turns out to be a thought, it is all of the answer, as a paragraph."""
        whole, sent = self.answer().text, "".join(self._sent)
        return whole[len(sent) :] if whole.startswith(sent) else f"\n\n{whole}" if whole else ""
