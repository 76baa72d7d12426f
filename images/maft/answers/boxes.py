r"""Boxes of LaTeX in a text: \boxed{...}, \fbox{...}, and a number after a bare \boxed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from maft.answers.whose import is_upheld, owner

_COMMAND = r"\\(?:boxed|fbox)(?![A-Za-z])"
_BOX = rf"{_COMMAND}\s*+(?:\{{|(?P<bare>-?\d[^\s$\\{{}}]*+))"  # \boxed{x}  \boxed 12
_TOKEN = re.compile(rf"(?P<box>{_BOX})|\\.|[{{}}]", re.DOTALL)  # \{ and \} are signs, not brackets
_ALONE = re.compile(rf"[\s$]*+{_COMMAND}\s*+\{{.*\}}[\s$.]*+", re.DOTALL)
_NOT = re.compile(
    r"(?:(?<![^\W_])(?:not|never|rather than|instead of)|n['’]t)\s(?:be\s|equal\s(?:to\s)?)?[$\\(\[\s]*$", re.IGNORECASE
)
_DENIED = re.compile(
    r"\}?[$\\)\]\s*]{0,6}(?:is|was|seems|looks)\s(?:\w+ly\s)?(?:not\s(?:right|correct)|wrong|incorrect|mistaken)(?![^\W_])",
    re.IGNORECASE,
)
_OR = re.compile(
    r"[$\\)\]\s]*,?\s*(?:\\(?:text|mathrm|mbox|quad)\s?\{?\s*)?(?:or|and|nor|or\s(?:maybe|perhaps|possibly|even))\s*\}?(?:\\quad)?[$\\(\[\s]*",
    re.IGNORECASE,
)

FEW = 8  # boxes of a reply that are looked at, from its end


@dataclass(frozen=True, slots=True)
class Box:
    """One box."""

    inside: str
    start: int
    end: int
    beside: str | None
    """The inside of another one that is offered with it: $\\boxed{5}$ or $\\boxed{6}$."""
    own: bool = True
    """Not another agent's, nor one that the reply gave before."""
    upheld: bool = True
    """The reply stands by it."""


def boxes(text: str) -> Iterator[Box]:
    """Finds the last few boxes that the text stands by, last one first; none if the last one never closes."""
    spans = _spans(text)
    if not spans or spans[-1][2] < 0:
        return
    for i in range(len(spans) - 1, max(-1, len(spans) - 1 - FEW), -1):
        start, begin, end = spans[i]
        _, before, until = spans[i - 1] if i else (0, 0, -1)
        if end >= 0 and not _NOT.search(text[max(0, start - 40) : start]) and not _DENIED.match(text, end):
            offered = 0 <= until < start and bool(_OR.fullmatch(text[until:start].removeprefix("}")[:60]))
            whose = owner(text, start)
            upheld = not whose or is_upheld(text, whose, end, spans[i + 1][0] if i + 1 < len(spans) else len(text))
            yield Box(text[begin:end], start, end, text[before:until] if offered else None, not whose, upheld)


def last_boxed(text: str) -> str | None:
    """Finds the inside of the last \\boxed{...} (or \\fbox{...}) with balanced braces, or the number after a bare \\boxed."""
    spans = _spans(text)
    return text[spans[-1][1] : spans[-1][2]] if spans and spans[-1][2] >= 0 else None


def unboxed(text: str) -> str:
    """Takes the box away from a text that is one and nothing else."""
    alone = _ALONE.fullmatch(text) and len(re.findall(_COMMAND, text)) == 1
    return (last_boxed(text) or text) if alone else text


def _spans(text: str) -> list[tuple[int, int, int]]:
    """Of each box in the order of their starts: where it starts, its inside begins and ends (-1: never)."""
    spans, open_ = list[tuple[int, int, int]](), list[int | None]()
    for token in _TOKEN.finditer(text):
        if token["bare"]:
            spans.append((token.start(), *token.span("bare")))
        elif token["box"]:
            open_.append(len(spans))
            spans.append((token.start(), token.end(), -1))
        elif token[0] == "{":
            open_.append(None)
        elif token[0] == "}" and open_ and (box := open_.pop()) is not None:
            spans[box] = (*spans[box][:2], token.start())
    return spans
