"""Answers: found in a text, compared, voted on. The one place where this is decided.

Kinds: `number` (integers, decimals, fractions; signs, thousands separators, currency, units and LaTeX around them),
`choice` (a letter), `text` (exact after folding case and space), `math` (LaTeX, equality by math-verify).
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

Kind = Literal["number", "choice", "text", "math"]
Equal = Callable[[str, str], bool]

_NUMBER = re.compile(
    r"""(?<![\w.])                                        # not inside a word or another number
        (?P<sign>[-+−–]\s?)?[$€£]?\s?(?P<inner>[-−])?
        (?:\\[dt]?frac\s*\{\s*(?P<top>-?[\d,]+)\s*\}\s*\{\s*(?P<bottom>-?[\d,]+)\s*\}
          |(?P<whole>\d{1,3}(?:(?:,|\{,\}|\\,|\\!,)\d{3})+(?!\d)|\d+)?(?P<decimals>\.\d+)?(?P<exponent>[eE][+-]?\d{1,3}(?!\w))?
           (?:\s?/\s?(?P<over>\d+)(?![\d.]))?)""",
    re.VERBOSE,
)
_SAID = re.compile(r"(?:####|answer(?:\s+is)?\s*[:=]?|answer\s*(?:is|:|=))\s*", re.IGNORECASE)
_CHOICE = re.compile(r"(?<![A-Za-z])\(?([A-J])\)?(?![A-Za-z'’])")
_TEX_SPACE = re.compile(r"\\[,;:!> ]|~")


def extract(text: str, kind: Kind, *, complete: bool = True) -> str | None:
    """The final answer in a model's text in canonical form, or None.

    Looked for in this order: the last \\boxed{...}, the last "#### x" or "answer is x" / "Answer: x", and, where the text
    was not cut off (`complete`), the last thing of that kind in it.
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return canonical(boxed, kind)
    said = [match.end() for match in _SAID.finditer(text)]
    for start in reversed(said):
        found = _first(text[start:], kind)
        if found is not None:
            return found
    return _last(text, kind) if complete and kind in ("number", "choice") else None


def canonical(answer: str, kind: Kind) -> str | None:
    """A bare answer (a reference, or the inside of a box) in canonical form; None if it is not of that kind."""
    if kind == "number":
        numbers = _numbers(answer)
        return numbers[0] if len(set(numbers)) == 1 else None
    if kind == "choice":
        letters = _CHOICE.findall(answer.strip().upper() if len(answer.strip()) <= 3 else answer)
        return letters[0] if letters else None
    if kind == "text":
        return " ".join(answer.casefold().split()).strip(" .") or None
    return _tidy_latex(answer) or None


def last_boxed(text: str) -> str | None:
    """The inside of the last \\boxed{...} with balanced braces, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + 7 : end]
    return None


def _first(text: str, kind: Kind) -> str | None:
    line = text.strip().split("\n", 1)[0]
    if kind == "number":
        # Only what follows at once: "The answer is unclear. 3 of them ..." says nothing.
        numbers = _numbers(re.split(r"(?<=[^\d])\.(?=\s|$)|(?<=\d)\.(?=\s|$)", line)[0])
        return numbers[-1] if numbers and ("=" in line or len(set(numbers)) == 1) else (numbers[0] if numbers else None)
    if kind == "choice":
        letters = _CHOICE.findall(line)
        return letters[0] if letters else None
    return canonical(line, kind)


def _last(text: str, kind: Kind) -> str | None:
    found = _numbers(text) if kind == "number" else _CHOICE.findall(text)
    return found[-1] if found else None


def _numbers(text: str) -> list[str]:
    text = _TEX_SPACE.sub("", text.replace("\\$", "$").replace("\\left", "").replace("\\right", ""))
    values = (_value(match) for match in _NUMBER.finditer(text))
    return [str(value) for value in values if value is not None]


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    digits = re.sub(r"[^\d]", "", part["whole"] or "")
    try:
        if part["top"]:
            size = Fraction(int(part["top"].replace(",", "")), int(part["bottom"].replace(",", "")))
        elif digits or part["decimals"]:
            size = Fraction((digits or "0") + (part["decimals"] or "") + (part["exponent"] or "")) / int(part["over"] or 1)
        else:
            return None
    except (ZeroDivisionError, ValueError):  # ValueError: more digits than Python converts
        return None
    return size * (-1 if _negative(match) else 1)


def _negative(match: re.Match[str]) -> bool:
    if match["inner"]:
        return True
    before = match.string[: match.start()]
    # "7 - 3", "12-3" and "x-3" hold a difference; in "I get -12" the sign belongs to the number.
    after_operand = bool(re.search(r"(?:[\d)}\]]\s*|[^\W\d_])$", before))
    return (match["sign"] or "").strip() in ("-", "−", "–") and not after_operand


def _tidy_latex(answer: str) -> str:
    answer = _TEX_SPACE.sub("", answer.strip().strip("$").rstrip("."))
    return answer.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\left", "").replace("\\right", "").strip()


def same(a: str, b: str) -> bool:
    """Equality of canonical answers for every kind but `math`, where checking.py decides."""
    return a == b


def groups(answers: Sequence[str | None], equal: Equal) -> list[list[int]]:
    """Indices of equal answers, by first appearance; None belongs to no group."""
    found: list[list[int]] = []
    for i, answer in enumerate(answers):
        if answer is None:
            continue
        home = next((g for g in found if equal(answers[g[0]] or "", answer)), None)
        if home is None:
            found.append([i])
        else:
            home.append(i)
    return found
