"""Marks in a text that grows: the tags, ends and headers by which `thoughts` tells a thought from a reply, and beginnings of them.

Made of the tables of `thoughts`; what a mark does is asked of `split`, and not known here.
"""

import re
from collections.abc import Iterable

from maft.answers.thoughts import ENDS, PAIRS, WRAPPERS

_HARMONY = ("<|start|>", "<|channel|>", "<|constrain|>", "<|call|>")
_CLOSE = (*(closing for _, closing in PAIRS), "<|message|>", "assistantfinal")
_ALL = (*(opening for opening, _ in PAIRS), *_CLOSE, *WRAPPERS, *ENDS, *_HARMONY)


def _any(marks: Iterable[str]) -> re.Pattern[str]:
    """A pattern of any of them; in tags models put spaces."""
    longest_first = sorted(marks, key=len, reverse=True)
    return re.compile("|".join(map(_spaced, longest_first)), re.IGNORECASE)


def _spaced(mark: str) -> str:
    return re.sub(r"^(</?)", r"\1\\s?", re.escape(mark)).replace(">", r"\s?>") if mark.startswith("<") else re.escape(mark)


def _plain(mark: str) -> str:
    """A mark as the tables have it, but for case and for spaces in a tag."""
    return re.sub(r"\s", "", mark).lower() if mark.startswith("<") else mark.lower()


MARK, CLOSING = _any(_ALL), _any(_CLOSE)
_BEGINNINGS = frozenset(_plain(mark)[:length] for mark in _ALL for length in range(1, len(_plain(mark))))
LONGEST = max(map(len, _ALL)) + 3  # with spaces


def beginning(text: str) -> int:
    """Returns where what may be the beginning of a mark begins at the text's end: its length where there is none."""
    first = max(0, len(text) - LONGEST)
    return next((at for at in range(first, len(text)) if _plain(text[at:]) in _BEGINNINGS), len(text))
