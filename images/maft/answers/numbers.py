r"""Numbers in a text, as canonical fractions ("-7/2", "12"): integers, decimals, fractions and mixed numbers, with the signs,
thousands separators, currencies, units and LaTeX around them.

Patterns are verbose and made of named pieces, an example beside each. They give back nothing that they have taken (possessive
quantifiers), so that a hostile text costs linear time.
"""

import re
from collections import deque
from fractions import Fraction

# --- one number ---

_SEPARATOR = r"(?:,|\{,\}|[\u2009\u202f\u00a0])"  # of thousands: 1,000  1{,}000  1 000
_DIGITS = rf"(?:\d{{1,3}}(?:{_SEPARATOR}\d{{3}})++(?!\d)|\d++)"
_ARGUMENT = r"-?(?:\d[\d,]*+(?:\.\d++)?+|\.\d++)"  # of \frac

# What a number does not follow, because it would be a part of something else.
_BEFORE = r"""
    (?<![^\W_])          # a word: x2
    (?<![^\W_]_)         # an index: a_2
    (?<![.^])            # decimals: 3.5, exponents: 2^3
    (?<!\d[,:/])         # lists, times, quotients: 1,2  12:30  1/2
    (?<!\^\{)(?<!\}\{)   # LaTeX's arguments: 2^{3}  \binom{5}{2}
    (?<!frac\{)(?<!sqrt\{)
"""
_SIGN = r"(?P<sign>[-+−–‐‑－]\s?+|(?:minus|negative)\s)?+"  # -5  - 5  minus 5
_MONEY = r"(?P<money>[$€£]\s?+(?P<inner>[-−])?+)?+"  # $5  $-5

_FRACTION = rf"""
    (?:(?P<ones>{_DIGITS})\s*+)?+                                     # 2\frac{{1}}{{2}}
    \\[dtc]?frac\s*+(?:\{{\s*+(?P<top>{_ARGUMENT})\s*+\}}|(?P<top1>\d))  # \frac{{1}}{{2}}  \frac12  \dfrac{{1}}2
                \s*+(?:\{{\s*+(?P<bottom>{_ARGUMENT})\s*+\}}|(?P<bottom1>\d))
"""
_MIXED = rf"(?P<mixed>{_DIGITS})\s(?P<over>\d++)\s?/\s?(?P<under>\d++)"  # 2 1/2

_WHOLE = rf"(?P<whole>{_DIGITS}(?:\.\d++)?+|\.\d++)"  # 1,234.5  .5
_EXPONENT = r"(?P<exponent>[eE][+-]?+\d{1,3}+(?!\w))?+"  # 1e6
_POWER = r"\^(?:\{\s?(?P<power>-?\d{1,3})\s?\}|(?P<power1>-?\d{1,3}+(?!\d)))"  # ^{-3}  ^6
_TEN_TO_THE = rf"(?:\s?(?:\\times|\\cdot|[×·*x])\s?10\s?{_POWER})?+"  # 3 \times 10^6
_DIVISOR = rf"(?:\s?/\s?(?P<divisor>{_DIGITS}))?+"  # 3/4

# What does not follow a number, because the number would be a part of it.
_AFTER = r"""
    (?! [.,:]\d                           # dates, versions, times: 1.2.3  12:30
      | \s?/\s?\d                         # 1/2/3
      | [eE][+-]?\d                       # 1e5000
      | \s*+(?:\\sqrt|\\pi|[π√])          # 2\sqrt{3}  2π
      | \^(?!\s*+\{?+\\circ) )            # 2^n, though not 90^\circ
"""
_NUMBER = re.compile(
    rf"""{_BEFORE} {_SIGN} {_MONEY}
        (?=[\d.\\])  # before the slow part
        (?: {_FRACTION} | {_MIXED} | {_WHOLE} {_EXPONENT} {_TEN_TO_THE} {_DIVISOR} )
        {_AFTER}""",
    re.VERBOSE,
)

# --- what stands around numbers ---

_NAME = re.compile(r"(?<![^\W_])(?:agent|round|step)\s\d++", re.IGNORECASE)  # Agent 2: a number that is a name
_SPACE = re.compile(r"(?<!\\)\\[,;:!> ]|~")  # of LaTeX: 5\,000  5~m
_FENCE = re.compile(r"\\(?:left|right)(?![A-Za-z])")  # \left( \right)
_EQUALS = re.compile(r"=|≈|\\approx(?![A-Za-z])")
_ASSIGNMENT = re.compile(r"[^\W\d_]\s?=")  # x = 3; two of them are two answers
_OPERATOR = r"(?:[-+−–*×·÷/^,&±]|\\(?:times|cdot|div|pm)|and|or|to|(?<=\s))"
_GOES_ON = re.compile(rf"[%$)\s]*+{_OPERATOR}[$(\s]*+(?:\d|\\[dtc]?frac)")  # after a number: 3 + 4  5 or 6  5 6


def without_names(text: str) -> str:
    """Removes what is no part of a number: LaTeX's spacing, and the numbers that agents and steps have for names."""
    return _NAME.sub("", without_layout(text.replace("\\$", "$").replace("\\%", "%"), ""))


def without_layout(text: str, space: str) -> str:
    """Removes LaTeX's stretched brackets, and puts `space` in the place of its spaces."""
    return _FENCE.sub("", _SPACE.sub(space, text))


def last_number(text: str) -> str | None:
    """Finds the last number of a text, whatever it is there for."""
    last = deque(_NUMBER.finditer(without_names(text)), maxlen=1)
    return _value(last[0]) if last else None


def number_of(phrase: str, *, alone: bool) -> str | None:
    """Finds the number that a phrase gives, after its last equals sign. None if it gives an expression or several; `alone`:
    numbers that follow have to be the same one."""
    phrase = without_names(phrase)
    if len(_ASSIGNMENT.findall(phrase)) > 1:
        return None
    for side in reversed(_EQUALS.split(phrase)):
        if numbers := list(_NUMBER.finditer(side)):
            values = {_value(number) for number in numbers}
            several = len(values) > 1 if alone else _GOES_ON.match(side, numbers[0].end())
            return None if several else _value(numbers[0])
    return None


def _value(number: re.Match[str]) -> str | None:
    parts = {name: re.sub(r"[^-\d.eE+]", "", text) for name, text in number.groupdict().items() if text}
    try:
        size = _size(parts)
        return str(-size if _is_negative(number) else size)
    except (ZeroDivisionError, ValueError):  # ValueError: more digits than Python converts
        return None


def _size(parts: dict[str, str]) -> Fraction:
    """The number without its sign. parts: the groups of the pattern that matched, digits alone."""
    if "mixed" in parts:
        return int(parts["mixed"]) + Fraction(int(parts["over"]), int(parts["under"]))
    if "whole" in parts:
        power = int(parts.get("power") or parts.get("power1") or "0")
        return Fraction(parts["whole"] + parts.get("exponent", "")) * Fraction(10) ** power / int(parts.get("divisor", 1))
    top, bottom = parts.get("top") or parts["top1"], parts.get("bottom") or parts["bottom1"]
    return int(parts.get("ones", 0)) + Fraction(top) / Fraction(bottom)


def _is_negative(number: re.Match[str]) -> bool:
    """Whether the sign belongs to the number: not in "7 - 3", "Profit - 12" or a list's "- 12 apples"."""
    sign = number["sign"] or ""
    if number["inner"]:
        return True
    if not sign or sign[0] == "+":
        return False
    before = number.string[max(0, number.start() - 16) : number.start()]
    text = before.rstrip()
    gap = before[len(text) :]
    if sign[-1].isspace() and not sign[0].isalpha():
        return not gap.endswith("\n") and (not text or text[-1] in "=:(≈<>$*[{|")
    return "\n" in gap or not text or not (text[-1].isdigit() or text[-1] in ")]}")
