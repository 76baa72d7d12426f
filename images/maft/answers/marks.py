"""Marks in a text that grows: the tags, ends and headers by which `thoughts` tells a thought from a reply, and beginnings of them.

Made of the tables of `thoughts`; what a mark does is asked of `split`, and not known here.
"""

import re

from maft.answers.thoughts import ENDS, PAIRS, WRAPPERS, any_of, tag

_HARMONY = ("<|start|>", "<|channel|>", "<|constrain|>", "<|call|>")
_CLOSE = (*(closing for _, closing in PAIRS), "<|message|>", "assistantfinal")
_ALL = (*(opening for opening, _ in PAIRS), *_CLOSE, *WRAPPERS, *ENDS, *_HARMONY)

MARK, CLOSING = (re.compile(any_of(marks), re.IGNORECASE) for marks in (_ALL, _CLOSE))
_BEGINNINGS = frozenset(tag(mark)[:length] for mark in _ALL for length in range(1, len(tag(mark))))
LONGEST = max(map(len, _ALL)) + 3  # with spaces


def beginning(text: str) -> int:
    """Returns where what may be the beginning of a mark begins at the text's end: its length where there is none."""
    first = max(0, len(text) - LONGEST)
    return next((at for at in range(first, len(text)) if tag(text[at:]) in _BEGINNINGS), len(text))
