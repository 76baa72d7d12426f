r"""A last number that belongs to others before it: one of several (x = 3 or x = 5), an end of a range, a bound, the year of a date.

What an announcement says is read whole; of the last number of a text only the words right beside it are. Patterns are anchored at
the number and look no further than a bound, so that time stays linear.
"""

import re

from maft.answers.spelling import AND, OR

_VALUE = r"[-−]?\d[\d.,/]{0,20}(?<![.,])"
_UNIT = r"(?:[^\S\n]?[%°$)*]{1,3}|[^\S\n]?(?!(?:which|that|so|then|are|were|is|was)(?![^\W_]))[^\W\d_]{1,14}){0,2}"
_LETTER = r"(?<![^\W_])[A-Za-z](?:_\{?\w{1,3}\}?|[₀-₉]{1,2})?"
_AND = rf",?[ ](?:and|or|{AND}|{OR}|as[ ]well[ ]as|along[ ]with|together[ ]with|plus)[ ]"
_JOINED = rf"(?:{_AND}|[,;][ ]?)"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
_UNCOUNTED = (
    r"(?<![\w.,:])(?<!day[ ])(?<!(?:step|case|part|year|week|task)[ ])(?<!question[ ])(?<!(?:problem|example)[ ])"  # Day 3 : 5
)
# What stands before one that is no value of its own, whatever follows.
_BEFORE = re.compile(
    rf"""(?: {_LETTER}[ ]?=[ ]?\$?{_VALUE}{_UNIT}{_JOINED}\$?{_LETTER}[ ]?=[ ]?[$(]?  # x = 3 or x = 5
      | (?<![^\W_])between[ ][$(]?{_VALUE}{_UNIT}[ ]and[ ][$(]?        # between 3 and 5 hours
      | {_VALUE}{_UNIT}[ ](?:(?:divided|multiplied)[ ])?by[ ][$(]?     # 3 m by 5 m
      | {_UNCOUNTED}{_VALUE}[ ]:[ ]                                    # 3 : 5
      | (?<![\w.,])\d{{1,9}}[ ]                                         # 5 6 7
      | \d[%)]?[ ](?:out[ ])?of[ ][$(]?                                # 3 of 30
      | (?<![^\W_]){_MONTH}[ ]\d{{1,2}}(?:st|nd|rd|th)?,?[ ] | (?<![\w.,])\d{{1,2}}[ ]{_MONTH},?[ ]  # May 5, 2024
      | (?<=\S)[ ]?(?:(?<![-=~|<>/])[<>]=?|[≤≥]|\\(?:leq?|geq?|lt|gt)(?![a-z]))[ ]?[$(]?  # x > 3
      | (?<![^\W_])(?:less|more|fewer|greater|larger|smaller)[ ]than[ ][$(]?              # 3 more than 5
    )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_SEPARATOR = r"(?:(?:\\[!,;:])?[ ]?,|[ ]|、)"
_GROUPS = re.compile(rf"(?<![\w.,])\d{{1,3}}(?:{_SEPARATOR}\d{{3}}){{0,3}}{_SEPARATOR}\Z")  # 12 345
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,60}>[ ]?\Z")  # <b>5
# ... and of the last one of several of a kind, where nothing more is said of it: 5 and 6.  5 cm and 6 cm  1, 2
_LISTED = re.compile(rf"(?<![\w.,])(?P<value>{_VALUE})(?:(?P<unit>{_UNIT})(?:{_AND}|;[ ]?)|(?P<comma>,[ ]?))[$(]?\Z", re.IGNORECASE)
_VERB = r"(?:is|are|was|were|remain\w*|left|leave|more|stay\w*|still|go|goes|went|make\w*|total|altogether|in)"
_ENDS_BARE = re.compile(r"[$)*\s]{0,4}(?:[.;!?](?!\d)|\n|\Z)")
_ENDS = re.compile(rf"(?P<unit>{_UNIT})[$)*\s]{{0,4}}(?:[.;!?]|\n|\Z)", re.IGNORECASE)
_SAYS = re.compile(rf"[^.;!?\n]{{0,30}}?(?<![^\W_]){_VERB}(?![^\W_])", re.IGNORECASE)
# ... and of one in brackets: (3, 5)  {1, 2}
_OPENED = re.compile(rf"[(\[{{]\$?(?:{_VALUE}[,;][ ]?){{1,8}}\Z")
_CLOSED = re.compile(r"[ ]?\\?[)\]}]")
_ON = 80  # characters before a number that are looked at


def is_of_several(text: str, start: int, end: int) -> bool:
    """Tells whether the number that stands there belongs to others, of which it is no more the value than they are."""
    before, number = text[max(0, start - _ON) : start], text[start:end]
    if (_BEFORE.search(before) and not _TAG.search(before)) or (_GROUPS.search(before) and re.match(r"\d{3}(?!\d)", number)):
        return True
    if _OPENED.search(before) and _CLOSED.match(text, end):
        return True
    listed = _LISTED.search(before)
    if listed is None or listed["value"] == number or _SAYS.match(text, end):
        return False
    if listed["comma"]:
        return bool(_ENDS_BARE.match(text, end))
    ends = _ENDS.match(text, end)
    return ends is not None and _word(listed["unit"]) in ("", _word(ends["unit"]))


def _word(unit: str) -> str:
    """A unit without its signs, of one and of several alike."""
    return re.sub(r"[\W_]", "", unit).casefold().rstrip("s")
