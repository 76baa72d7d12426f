"""A list with which begins what a reply announces: several answers, the steps that lead to one, or one answer and its reason."""

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from maft.answers.choices import letter_alone
from maft.answers.numbers import number_of
from maft.answers.texts import is_mathematics, math_said, text_of
from maft.spec import AnswerKind

Sense = Literal["several", "steps", "first", ""]
"""What a list says: several answers; how one is reached, which follows it; its first item; or only what its line says."""

_MARK = re.compile(
    r"[\s*_]{0,8}(?:(?P<number>\d{1,2})[.)]|\(?(?P<letter>[a-z])\)|(?P<bullet>[-*+•]))[*_]{0,2}(?:\s{1,4}(?P<what>\S[^\n]*))?"
)
_WITHIN = re.compile(r"\s{2}|\t|\s*(?:\\[\[\]]|\$\$)")  # a line that belongs to an item, though a blank one stands before it
_AROUND = " \t*_`.;,"
_VALUE = r"\\?[$(]{0,2}[-−]?(?:\d[\d.,/]{0,40}|\\[dt]?frac\{?\d{1,9}\}?\{?\d{1,9}\}?)\\?[$)%°]{0,3}"
_BARE = re.compile(rf"(?P<unknown>\\?\(?\$?[A-Za-z]\s?=\s?)?{_VALUE}[*_]{{0,2}}(?:\s?(?P<unit>[^\W\d_]{{1,15}}))?")
_PROSE = re.compile(
    r"[.!?;]|(?<![^\W_])(?:is|are|was|were|has|have|had|does|do|did|can|will|would|gives?|makes?|because|since|so|then|we|I|it)(?![^\W_])",
    re.IGNORECASE,
)
_REASON = re.compile(r"[\s*_]*(?:because|since|as|which|for|due)(?![^\W_])", re.IGNORECASE)
_BECAUSE = re.compile(r",?\s(?:because|since)\s.*")  # B, because it has cells
_NOTE = re.compile(r"\A\(|:(?!\d)")  # Confidence: high  (capital of France)
_GIVES = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice)\s)?\(?[A-J]\)?:?\s(?:gives|yields|makes|equals|means)(?![^\W_])")  # (A) gives 5


@dataclass(frozen=True, slots=True)
class Listed:
    """Its items, and where it ends in what is announced."""

    mark: str
    """What its items begin with: `number`, `letter` or `bullet`."""
    items: tuple[str, ...]
    end: int


def listed(text: str) -> Listed | None:
    """Finds the list with which a text begins, where it has two items or more."""
    items, mark, place, end, parted = list[str](), "", 0, 0, False
    for line in text[:8000].split("\n"):
        item = _MARK.fullmatch(line.rstrip())
        if item and (not items or _kind(item) == mark) and _is_next(item, len(items)):
            mark, end = _kind(item), place + len(line)
            items.append((item["what"] or "").strip(_AROUND))
        elif line.strip(" *_`") and (not items or (parted and not _WITHIN.match(line))):
            break
        parted = not line.strip()
        place += len(line) + 1
    return Listed(mark, tuple(items), end) if len(items) > 1 and items[0] else None


def _kind(item: re.Match[str]) -> str:
    return next(kind for kind in ("number", "letter", "bullet") if item[kind])


def _is_next(item: re.Match[str], place: int) -> bool:
    """Whether it stands at its place: 1. 2. 3.  a) b) c)"""
    if item["number"]:
        return int(item["number"]) == place + 1
    return not item["letter"] or item["letter"] == chr(ord("a") + place)


def sense(of: Listed | None, kind: AnswerKind) -> Sense:
    """Decides what a list says where an answer of a kind is asked for."""
    if of is None or (kind == "choice" and of.mark == "letter"):
        return ""
    first, second = of.items[:2]
    bare = tuple(takewhile(lambda item: _is_bare(item, kind, of.mark), of.items))
    if any(_differ(first, item, kind) for item in bare[1:]) or (bare and of.mark == "number" and not second):
        return "several"
    if of.mark != "number":
        return ""
    if kind == "choice":
        return "first" if bare else ("steps" if _GIVES.match(first) and _GIVES.match(second) else "")
    with_number = any(map(str.isdigit, second)) or (kind == "math" and "$" in second)
    if bare and (len(bare) > 1 or _REASON.match(second) or not with_number):
        return "first"
    return "steps" if kind != "math" or with_number else ""


def _is_bare(item: str, kind: AnswerKind, mark: str) -> bool:
    """Whether an item is a value and nothing else. Bullets are also before what is said of one value, with its unit."""
    if kind == "choice":
        return _letter(item) is not None
    if kind == "text":
        is_note = mark == "bullet" and _NOTE.search(item)
        return bool(item) and len(item.split()) < 5 and not (_PROSE.search(item) or is_note)
    if kind == "math":
        return is_mathematics(item)
    number = _BARE.fullmatch(item)
    return number is not None and not (mark == "bullet" and (number["unit"] or number["unknown"]))


def _letter(item: str) -> str | None:
    return letter_alone(_BECAUSE.sub("", item, count=1))


def _differ(one: str, other: str, kind: AnswerKind) -> bool:
    if kind == "choice":
        return _letter(one) != _letter(other)
    if kind == "text":
        return text_of(one) != text_of(other)
    if kind == "math":
        return math_said(one) != math_said(other)
    return number_of(one, alone=True) != number_of(other, alone=True) or _units_differ(one, other)


def _units_differ(one: str, other: str) -> bool:
    """Whether both have a unit, and not the same."""
    units = {unit for item in (one, other) if (number := _BARE.fullmatch(item)) and (unit := number["unit"])}
    return len({unit.casefold().rstrip("s") for unit in units}) > 1
