r"""A text that goes through the options: "A) 5 ... B) 6 ... C) 7", "Option A is too small. Option B is right. Option C ...".

Its letters name what is looked at and are no choices; what is chosen stands behind the list, or is the one item that it calls
right.
Patterns look no further than a bound, so that time stays linear.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from maft.answers.spelling import CJK

_NAMED = r"(?:(?:option|choice|statement|answer)\s)?"
# Where an item may begin: A) 5  **B:** no  , C错误  (D) False
_START = re.compile(
    rf"(?:^|(?<=[.!?;,❌✅✓✔✗✘])\s?|(?<=\s)(?=\())[\s*_>•-]{{0,6}}{_NAMED}\(?(?P<letter>[A-J])(?:[).:*_]{{1,4}}(?=\s+\S)|\s(?=\S)|\)(?=\s\S)|(?=[{CJK}]))",
    re.IGNORECASE | re.MULTILINE,
)
_LAST = re.compile(r"[.!?](?=\s|$)|\n|$")  # where the last item ends
_JOINED = re.compile(r"\s*(?:and|or|nor|und|et|y|e)(?![^\W_])|[,&/]", re.IGNORECASE)  # A and B ... is no item A
# Said of an item, and not what it says: C) True  B is right  A ✅, but not (A) True, False
_RIGHT = re.compile(
    r"""[✅✓✔☑] | \A\W{0,4}(?:the\s)?(?:correct|right|true|yes|best|matches|fits|richtig|vrai|correct[ao]|верно)\b
        (?=\W{0,3}(?:\Z|because|since|as\s|it|this|that|–|—|-|\d|\n|[.;:!(]))
      | (?<![^\W_])(?:is|seems|looks|ist|est|es)\s(?:the\s)?(?:\w+ly\s)?
        (?:correct|right|true|best|answer|richtig|vrai)(?!\sto)(?![^\W_])
      | (?<![^\W_])(?:matches|fits)(?![^\W_]) | 正确|正確|正しい|对""",
    re.IGNORECASE | re.VERBOSE,
)
_WRONG = re.compile(
    r"(?<![^\W_])(?:not|no|never|none|hardly|wrong|false|incorrect|partly|almost|nicht|pas)(?![^\W_])|n['’]t(?![^\W_])|不|❌|✗|✘|错|誤",
    re.IGNORECASE,
)
FEWEST = 3


@dataclass(frozen=True, slots=True)
class Options:
    """The last list of a text."""

    start: int
    end: int
    right: str | None
    """The letter that it calls right, where it is one alone."""


def options(text: str) -> Options | None:
    """Finds the last list of three or more options in a text, in their order from A on."""
    last: list[re.Match[str]] = []
    for run in _runs(text):
        last = run if len(run) >= FEWEST else last
    if not last:
        return None
    closes = _LAST.search(text, last[-1].end())
    ends = [*(item.start() for item in last[1:]), closes.start() if closes else len(text)]
    right = [item["letter"] for item, end in zip(last, ends, strict=True) if _is_right(text[item.end() : end])]
    return Options(last[0].start(), ends[-1], right[0].upper() if len(right) == 1 else None)


def _runs(text: str) -> Iterator[list[re.Match[str]]]:
    """Rows of items whose letters follow each other."""
    run = list[re.Match[str]]()
    for item in _START.finditer(text):
        if _JOINED.match(text, item.end()):
            continue
        if item["letter"].upper() == chr(ord("A") + len(run)):
            run.append(item)
        elif item["letter"] == "A":
            yield run
            run = [item]
    yield run


def _is_right(what: str) -> bool:
    return bool(_RIGHT.search(what)) and not _WRONG.search(what)
