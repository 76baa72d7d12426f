r"""Whether mathematics is a part of what stands around it: 2$x$  $n^2$ + $n$  3\boxed{x}  \sqrt{\boxed{3}}  $-\boxed{x}$

It is whole where nothing or a relation stands directly before it, and an end mark, a unit or words behind it. Within mathematics
that holds of signs and letters; in a text only what touches it, or joins it by an operator, makes it a part. Patterns look no
further than a bound, so that time stays linear.
"""

import re
from dataclasses import dataclass, replace

from maft.answers.units import without_units

_NEAR = 160  # characters of a text that are looked at
_FAR = 1000  # between the signs that open and close mathematics

_DELIMITER = re.compile(r"(?<!\\)\$\$?|\\[()\[\]]")
_LAYOUT = r"(?:\s|~|\\[,;:!> ]|\\q?quad(?![A-Za-z])|\\(?:displaystyle|[lL]arge|LARGE|[hH]uge|bf|rm|left|right)(?![A-Za-z])|\{\})"
_LAYOUT_BEFORE, _LAYOUT_BEHIND = re.compile(rf"{_LAYOUT}{{1,9}}$"), re.compile(rf"(?>{_LAYOUT}{{1,9}})")
_FUNCTION = r"(?:sqrt|root|ln|log|lg|exp|sin|cos|tan|cot|sec|csc|arc[a-z]{3}|max|min|gcd|lcm|det)"
_OPERAND = r"(?:[$(√∛π\d]|\\(?!text|mathrm|mbox|[()\[\]])[A-Za-z(\[]|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))"  # 3  $x$  \sqrt{2}  x
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|varphi|omega"

# --- before ---

# An argument of a command: \sqrt{ | 3}  \text{ | 3}  ^{ | 3}
_ARGUMENT = re.compile(
    r"(?P<raised>[\^_]\s?)?(?P<command>\\[A-Za-z]+\*?)?(?P<others>(?:\[[^\[\]]{0,20}\]|\{[^{}]{0,40}\}){0,2})\{$"
)
_SHOWN = re.compile(
    r"\\(?:text\w*|math(?:bf|rm|it|sf|bb)|mbox|color|textcolor|colorbox|fcolorbox|bbox|boxed|fbox|underline|[lL]arge|bf)"
)
# Nothing that a value has: x = | 3  & | 3  \text{so } | 3  \$ | 3
_RELATION = (
    r"\\(?:approx|equiv|sim|cong|le|leq|ge|geq|lt|gt|in|to|(?:long)?rightarrow|(?:Long)?[Rr]ightarrow|implies|iff|therefore)"
)
_BEGINS = re.compile(
    rf"(?:^|(?<!!)=|[<>≈≡∈→⇒∴&$€£¥₹]|(?<!\d):|\\\\|{_RELATION}(?![A-Za-z])|[,;]\s?\\q?quad\s?"
    r"|\\(?:text\w*|mathrm|mbox|color|label|begin|end|hspace|vspace|tag)\*?\s?\{[^{}]*\}(?:\{[^{}]*\})?)$"
)
_WORD = re.compile(rf"(?<![\\A-Za-z])(?!{_FUNCTION}$)[A-Za-z]{{2,20}}[.:,]?$")
_NEGATIVE = re.compile(r"(?:(?:\A|\n|[=$(\[{:]\s?|\\[(\[]|[A-Za-z]{2}\s|\*\*)[-−]|=\s?[-−]\s)$")  # is -| 5
_SUBTRACTED = r"(?:(?<![A-Za-z]\s)\d{1,9}|(?<![^\W_])(?<![A-Za-z]{2}\s)[a-z]|\$)\s?[-−]\s?"  # 7 -| x, but "Step 7 -| x"
_TOUCHED = re.compile(
    rf"""(?: \d[)%]? | [√∛±∓+×·÷/^] | [\w)]\* | \d: | (?<![^\W_])[A-Za-z]\(  # 2| x  √| x  f(| x
      | (?<![^\W_])\\?{_FUNCTION}\s?\(?  # sin(| x
      | (?<![^\W_])(?:plus|minus|times|negative|(?:divided|multiplied)\sby)\s
      | (?:\d|(?<![^\W_])[A-Za-z]|[$)}}\]])\s?[+×·÷*/^]\s | {_SUBTRACTED}  # 2 +| x
      | \\(?:pm|mp|times|cdot|div|sqrt|ln|log)\s? | \$[-−]\$\s?
    )$""",
    re.VERBOSE,
)

# --- behind ---

_IS_EQUAL = rf"(?:=|≈|≡|[→⇒]|{_RELATION.replace('|le|leq|ge|geq|lt|gt', '')}(?![A-Za-z]))"
_LABELS = r"\\(?:text|mathrm|mbox|operatorname|tag|label|end|hspace|vspace|newline|checkmark|blacksquare|square|Box)"
_LISTED = r",\s*(?:[-−]?\s?(?:\d|\\(?:[dt]?frac|sqrt|pi))|\\boxed|[A-Za-z]\s*(?:,|$))"
# Within mathematics: 3 | \text{ cm}  3 | \%  3 | ^\circ  3 | = 1 + 2, but not 3 |, 4
_ENDS = re.compile(rf"\s*(?:$|[.;:!?](?!\d)|\\\\|&|{_LABELS}|\\[%$]|%|°|\^\s?\{{?\s?\\circ|\\degree|{_IS_EQUAL}|(?!{_LISTED}),)")
_VALUE = r"[-−]?\s?(?:\d[\d.,/]*+|\\[dt]?frac\s?\{\d+\}\s?\{\d+\})"
_EQUALS_NUMBER = re.compile(rf"(?:\\[A-Za-z]+|[^=<>\n,.;A-Za-z\\]){{0,20}}?=\s?{_VALUE}\s*(?=$|[.,;$\\)\n])")  # 3 + | = 8
_IS_NUMBER = re.compile(r"(?:^|[\s$])[-−]?\d[\d./]*\s?=[^=.,;\n]{0,40}$")  # 8 = 3 + |
_SIGNED = rf"(?:[-−]{_OPERAND}|–[$\d]|\s[-−]\s(?:\d[\d.,]*+\s?(?:[=+*.)]|$)|\$))"  # 3 | -x  3 | - 4. but "3 | - 4 steps"
_TOUCHES = re.compile(
    rf"""(?: \d | [√∛π∞_'′] | \^(?!\s?\{{?\s?\\circ) | \((?![A-Za-z]{{2}})  # x | ^2  x | (y+1)
      | \\(?:sqrt|pi|[dtc]?frac|cdot|times|div|pm|left|ln|log|sin|cos|tan|overline|binom|{_GREEK})(?![A-Za-z])
      | \s?(?:[+×·÷]|\*(?!\*)|\\(?:times|cdot|div|pm)(?![A-Za-z]))\s?{_OPERAND} | \s?/\s?[$\d\\(] | {_SIGNED}  # x | + 1  x | /y
      | \s(?:plus|minus|times|over|mod(?:ulo)?|choose|(?:divided|multiplied)\sby)\s{_OPERAND}
      | \s(?:squared|cubed|factorial)(?![^\W_]) | \s(?:of|by)\s[$\d]  # 1/2 | of $x$
      | ,?\s(?:and\s)(?:an?|one|two|three)[\s-](?:half|third|quarter|fourth|fifth)s?(?![^\W_])
      | !\s?[-+*/×·^=]
    )""",
    re.VERBOSE,
)
_MINUS = re.compile(r"[-−–]\s?$")
_OF_NUMBER = re.compile(r"[A-Za-z]|\s*[<>]\s?\d")  # whether letters are units says numbers.py
_VARIABLE = re.compile(r"[aeikKnpquvwxyz](?![A-Za-z])")  # 5x, but 5 m
_RELATES, _SUM = re.compile(r"[=<>,;]|\\(?:leq?|geq?)(?![A-Za-z])"), re.compile(r"[-+−]|\\[pm]{2}(?![a-z])")
_LETTER = re.compile(r"[A-Za-z](?![A-Za-z])")
_CLOSING = re.compile(r"\A(?:\}|\*\*|__|[\"'”’*])+")
_EMPHASIS = re.compile(r"(?:\*\*|__|(?<![\w)])[*_]|[\"'“‘])+$")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where mathematics lies, and how far what stands around it may touch it."""

    text: str
    start: int
    end: int
    first: int
    last: int
    opening: str
    """What opens the mathematics in which it lies; empty for a text."""

    @property
    def before(self) -> str:
        return self.text[max(self.first, self.start - _NEAR) : self.start]

    @property
    def behind(self) -> str:
        return self.text[self.end : min(self.last, self.end + _NEAR)]

    def widened(self, left: int, right: int) -> "_Place":
        """The same with what is around it."""
        return replace(self, start=self.start - left, end=self.end + right)


def sign_before(text: str, start: int, end: int, *, number: bool) -> str | None:
    """Finds the minus that belongs to the mathematics between start and end, which has no signs of its own around it; None where it
    is a part of what stands there. number: it is one, so that a letter behind it is a unit."""
    place = _within(text, start, end)
    sign = _sign(place, number=number)
    return "" if sign is None and number and _is_blank(place) else sign


def touching(text: str, start: int, end: int, *, number: bool) -> str | None:
    """The same of mathematics with its own signs around it, $x$, in a text."""
    return _sign_in_text(_in_line(text, start, end), number=number)


def signed(sign: str, mathematics: str) -> str | None:
    """Writes mathematics with its sign; None for an equation, which has none."""
    inside = mathematics.strip().strip("$")
    if not sign or not inside:
        return mathematics
    return None if _RELATES.search(inside) else f"-({inside})" if _SUM.search(inside) else f"-{inside}"


def _within(text: str, start: int, end: int) -> _Place:
    """The place within mathematics, or in its line of a text."""
    opened: re.Match[str] | None = None
    for sign in _DELIMITER.finditer(text, max(0, text.rfind("\n\n", 0, start), start - _FAR), start):
        opened = None if sign[0] in ("\\)", "\\]") or (opened and opened[0][0] == "$") else sign
    closed = _DELIMITER.search(text, end, end + _FAR) if opened else None
    return _Place(text, start, end, opened.end(), closed.start(), opened[0]) if opened and closed else _in_line(text, start, end)


def _in_line(text: str, start: int, end: int) -> _Place:
    last = text.find("\n", end)
    return _Place(text, start, end, text.rfind("\n", 0, start) + 1, last if last >= 0 else len(text), "")


def _sign(place: _Place, *, number: bool) -> str | None:
    whole = _unwrapped(place)
    if whole is None:
        return None
    if not place.opening:
        return _sign_in_text(whole, number=number)
    before, behind = whole.before, _ended(whole.behind)
    if behind is None or not _is_end(behind, number=number):
        return None
    minus = _MINUS.search(before)
    before = before[: minus.start()] if minus else before
    if before.strip():
        return ("-" if minus else "") if _BEGINS.search(_LAYOUT_BEFORE.sub("", before)) or _WORD.search(before.rstrip()) else None
    sign = "" if place.opening in ("$$", "\\[") else _sign_in_text(_around(place), number=number)
    return sign if sign is None or not minus else "" if sign else "-"


def _is_end(behind: str, *, number: bool) -> bool:
    """Whether mathematics may end before what stands behind it."""
    return bool(_ENDS.match(behind) or (number and _OF_NUMBER.match(behind))) or without_units(f"1{behind}") == "1"


def _around(place: _Place) -> _Place:
    """The mathematics in which it lies, in its line."""
    return _in_line(place.text, place.first - len(place.opening), place.last + len(place.opening))


def _sign_in_text(place: _Place, *, number: bool) -> str | None:
    before, behind = _EMPHASIS.sub("", place.before), _CLOSING.sub("", place.behind, count=1)
    touched = _TOUCHES.match(behind) or (_VARIABLE if number else _LETTER).match(behind)
    if _NEGATIVE.search(place.text[max(0, place.start - 8) : place.start]):
        return None if touched else "-"
    return None if touched or _TOUCHED.search(before) else ""


def _unwrapped(place: _Place) -> _Place | None:
    """The place with brackets and what says how it looks; None for an argument of another command: \\sqrt{3}"""
    for _ in range(4):
        if place.opening:
            left, right = _LAYOUT_BEFORE.search(place.before), _LAYOUT_BEHIND.match(place.behind)
            place = place.widened(len(left[0]) if left else 0, len(right[0]) if right else 0)
        argument = _ARGUMENT.search(place.before)
        if argument and (argument["raised"] or (argument["command"] and not _SHOWN.fullmatch(argument["command"]))):
            return None
        opened = len(argument[0]) if argument else 1
        if (place.before[-1:], place.behind[:1]) not in (("{", "}"), ("(", ")")):
            break
        place = place.widened(opened, 1)
    return place


def _ended(behind: str) -> str | None:
    """What stands behind, without the braces that end a text; None where it is an argument: \\frac{x}{2}"""
    rest = behind.lstrip("} ")
    return None if rest[:1] in tuple("{_^") and rest != behind and not rest.startswith(("^\\circ", "^{\\circ")) else rest


def _is_blank(place: _Place) -> bool:
    """Whether the number fills a blank of an equation: 3 + \\boxed{5} = 8"""
    return bool(_EQUALS_NUMBER.match(place.behind) or _IS_NUMBER.search(place.before))
