r"""Boxes of LaTeX in a text: \boxed{...}, \fbox{...}, and a number after a bare \boxed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from maft.answers.spelling import OR, OR_CJK
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
# Between two that are offered together: \boxed{5} or \boxed{6}  $\boxed{5}$, $\boxed{6}$  x = \boxed{5} and y = \boxed{6}
_WORD = rf"(?:or|and|nor|and/or|to|by|x|{OR}|{OR_CJK})(?:\s(?:maybe|perhaps|possibly|even))?"
_TEXT = r"(?:\\(?:text|mathrm|mbox)\s?\{\s?)?"
_NAME = r"(?:[A-Za-z](?:_\{?\w\}?)?\s?=\s?)?"
_JOINED = rf"(?:(?:\\q?quad\s?)?{_TEXT}{_WORD}\s*\}}?|(?<!\s)[,;/&]|[–×])"
_OR = re.compile(
    rf"[$\\)\]\s*]*,?\s*{_JOINED}\s*(?:\\q?quad|\\[ ,;])?[$\\(\[\s*]*{_NAME}[$\\(\[\s]*",
    re.IGNORECASE,
)
_CHANGED = re.compile(r"(?<![^\W_])(?:chang|updat|correct|revis|adjust|switch)\w*[^.\n]{0,60}$", re.IGNORECASE)  # from 5 to 6
# The same of what is in no box. Behind it: \boxed{5} (or 6)  \boxed{A}, C.  $\boxed{x}$ and $y$.  Before it: 5 or \boxed{6}
_CLOSED = r"\}?[$\\)\]}\s*]{0,8}"
_VAGUE = r"(?:so|the\slike|thereabouts|not|more|less|fewer|else|similar|something|equivalently|in\sother\swords)(?![^\W_])"  # or so
_OFFERED = re.compile(
    rf"{_CLOSED},?\s?\(?{_TEXT}(?:or|and/or|{OR}|{OR_CJK})(?![^\W_])\s?\}}?\s?(?!{_VAGUE})(?P<other>[^\n;)]{{1,60}})",
    re.IGNORECASE,
)
_VALUE = r"\$[^$\n]{1,60}\$|\$?[-−]?\d[\d.,/]{0,20}(?<![.,])\$?|\(?[A-J]\)?"
_MORE = re.compile(rf"{_CLOSED}(?:,|;|\s(?:and|to|by|&)|–)\s?(?P<other>{_VALUE})(?=\s?(?:[.;\n]|$))")
_BEFORE = re.compile(rf"(?<![\w.,/])(?P<other>{_VALUE})(?:\s[a-z]{{1,12}})?\s(?:or|by|×)\s[$\\(\[\s]{{0,4}}$", re.IGNORECASE)
_EITHER = re.compile(r"(?<![^\W_])either\s(?P<other>[^.\n]{1,40})\sor\s[$\\(\[\s]{0,4}$", re.IGNORECASE)
_NEXT = re.compile(r"[,.](?=\s|$)|\s(?:or|and|but|which|so|as|since|because)\s", re.IGNORECASE)

_TAGGED = re.compile(r"<\|begin_of_box\|>((?:(?!<\|)[^\n]){0,500})<\|end_of_box\|>")  # GLM's

FEW = 8  # boxes of a reply that are looked at, from its end


@dataclass(frozen=True, slots=True)
class Box:
    """One box."""

    inside: str
    start: int
    end: int
    beside: str | None
    """The inside of another one that is offered with it: $\\boxed{5}$ or $\\boxed{6}$."""
    others: tuple[str, ...] = ()
    """What is offered with it and has no box: $\\boxed{5}$ or 6."""
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
            beside = text[before:until] if 0 <= until < start and _are_together(text, until, start) else None
            whose = owner(text, start)
            upheld = not whose or is_upheld(text, whose, end, spans[i + 1][0] if i + 1 < len(spans) else len(text))
            yield Box(text[begin:end], start, end, beside, _others(text, start, end), not whose, upheld)


def _are_together(text: str, until: int, start: int) -> bool:
    """Whether two boxes are offered together, by what stands between them."""
    return bool(_OR.fullmatch(text[until:start].removeprefix("}")[:60])) and not _CHANGED.search(text[max(0, start - 90) : start])


def _others(text: str, start: int, end: int) -> tuple[str, ...]:
    before, behind = text[max(0, start - 60) : start], text[end : end + 100]
    others = (_OFFERED.match(behind), _MORE.match(behind), _BEFORE.search(before), _EITHER.search(before))
    return tuple(_NEXT.split(other["other"], maxsplit=1)[0] for other in others if other)


def written(text: str) -> str:
    """Writes boxes that have tags as LaTeX."""
    return _TAGGED.sub(r"\\boxed{\1}", text)


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
