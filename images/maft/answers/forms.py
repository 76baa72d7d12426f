"""Canonical forms of the answers to generated questions. Two answers are the same one if their canonical forms are.

A form reads a bare answer: layout and spelling that say nothing are removed, what the generator's scorer tells apart stays apart.
What it gives is what the scorer is given, so each form writes as scorers want it, in a small set of characters: some scorers
evaluate what they get as Python. None: not of this form.
"""

import json
import re
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from maft.answers.extract import canonical

Read = Callable[[str], str | None]

_FENCE = re.compile(r"^```[^\n]*\n|\n?```\s*$")  # of Markdown, around an answer
_MARKS = " \t\r\n*`\"'$“”‘’"
_NUMBER = re.compile(r"[+-]?\d{1,40}(?:\.\d{1,40})?")
_FIRST = re.compile(r"[,;.]\s")  # "No, it does not follow": what comes after explains
_NOT = re.compile(r"\b(?:not|never|neither|isn't|or)\b", re.IGNORECASE)  # what follows, or one of two, is no answer
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_DIGITS = Context(prec=40)


def bare(text: str) -> str:
    """Removes marks of Markdown, quotes and dollar signs around an answer."""
    return _FENCE.sub("", text.strip()).strip(_MARKS)


# --- numbers ---


def number(text: str) -> str | None:
    """Reads a number: `1,234.50` is `1234.5`."""
    value = canonical(text, "number")
    return decimal(value) if value else None


def decimal(value: str) -> str:
    """Writes a fraction as `canonical` has it as a decimal number, without an exponent: scorers read decimals."""
    fraction = Fraction(value)
    return _plain(_DIGITS.divide(Decimal(fraction.numerator), Decimal(fraction.denominator)))


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def count(text: str) -> str | None:
    """Reads a whole number, of days or of nothing."""
    match = re.fullmatch(r"(-?\d{1,40})(?:\s(?:\w+\s)?days?)?", bare(text).rstrip("."))
    return str(int(match[1])) if match else None


def unsigned(text: str) -> str | None:
    """Reads a number for a scorer that passes signs over."""
    value = number(text)
    return value.removeprefix("-") if value is not None else None


def three_digits(text: str) -> str | None:
    """Reads a number to three significant figures, as its scorer does: `-527.9038` is `-5.28e+2`."""
    value = canonical(text, "number")
    return None if not value else format(Decimal(_DIGITS.divide(*map(Decimal, Fraction(value).as_integer_ratio()))), ".2e")


def fraction(text: str) -> str | None:
    """Reads `a/b`, not reduced: a scorer that wants lowest terms tells 2/4 from 1/2."""
    match = re.fullmatch(r"(-?\d{1,40})\s*(?:/\s*(\d{1,40}))?", _LATEX_FRACTION.sub(r"\1/\2", bare(text)).strip(" .$"))
    return "/".join(str(int(part)) for part in match.groups() if part) if match else None


def hexadecimal(text: str) -> str | None:
    """Reads a hexadecimal number with its sign, `0x` before its digits."""
    match = re.fullmatch(r"([+-]?)0[xX]([0-9a-fA-F]{1,400})", bare(text).rstrip("."))
    return hex(int(match[1] + match[2], 16)) if match else None


def complex_number(text: str) -> str | None:
    """Reads `a + bi`; either part may be missing."""
    plain = re.sub(r"\s*([+-])\s*", r"\1", bare(text).lower().replace("j", "i").replace("−", "-")).rstrip(".")
    match = re.fullmatch(r"(?:([+-]?\d+(?:\.\d+)?)(?=[+-]|$))?(?:([+-]?(?:\d+(?:\.\d+)?)?)i)?", plain.strip("()"))
    if not match or not any(part is not None for part in match.groups()):
        return None
    one = {"": "1", "+": "1", "-": "-1"}
    real, imaginary = float(match[1] or 0) + 0.0, float(one.get(match[2], match[2] or 0) if match[2] is not None else 0)
    return f"{real} {'-' if imaginary < 0 else '+'} {abs(imaginary)}i"


def roots(text: str) -> str | None:
    """Reads numbers between commas, in any order, names of unknowns before them."""
    parts = re.split(r",|;|\band\b", re.sub(r"[A-Za-z]\w?\s*=", "", bare(text)).rstrip("."))
    if not all(_NUMBER.fullmatch(part.strip()) for part in parts):
        return None
    return ", ".join(str(value) for value in sorted(float(part) + 0.0 for part in parts))


def factors(text: str) -> str | None:
    """Reads prime factors, in any order."""
    parts = re.split(r"×|x|\*|\\times|\\cdot|·", bare(text).rstrip("."))
    if not all(re.fullmatch(r"\d{1,40}", part.strip()) for part in parts):
        return None
    return " × ".join(str(factor) for factor in sorted(int(part) for part in parts))


# --- words ---


def one_of(*words: str) -> Read:
    """Reads one of these words, alone or as the only one of them in a sentence, whatever its case."""
    folded = {word.casefold(): word for word in words}

    def read(text: str) -> str | None:
        whole = bare(text).rstrip(".!").strip(_MARKS).casefold()
        if whole in folded:
            return folded[whole]
        named = {word for word in folded if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", whole)}
        return folded[named.pop()] if len(named) == 1 and not _NOT.search(_FIRST.split(whole)[0]) else None

    return read


def either(*reads: Read) -> Read:
    """Reads the first of several forms that fits."""
    return lambda text: next((read for form in reads if (read := form(text)) is not None), None)


def token(pattern: str, change: Callable[[str], str] = str) -> Read:
    """Reads one word of that pattern. change: of case, where the scorer folds it."""
    wanted = re.compile(pattern)

    def read(text: str) -> str | None:
        word = bare(text)
        word = word if wanted.fullmatch(word) else word.rstrip(".!").strip(_MARKS)
        return change(word) if wanted.fullmatch(word) else None

    return read


def sentence(text: str) -> str | None:
    """Reads one line of text, quotes and spaces in it as they are."""
    line = _FENCE.sub("", text.strip()).strip()
    return line if line and "\n" not in line else None


def folded(text: str) -> str | None:
    """Reads one line of text for a scorer that passes case and spaces over."""
    line = sentence(text)
    return " ".join(line.lower().split()) if line else None


def joined(text: str) -> str | None:
    """Reads a word or name for a scorer that passes case and spaces over."""
    word = "".join(bare(text).rstrip(".!").lower().split())
    return word if 0 < len(word) <= 64 else None


def words(text: str) -> str | None:
    """Reads words between commas, in their order."""
    parts = [part.strip(_MARKS) for part in bare(text).strip("[]").rstrip(".").split(",")]
    return ", ".join(parts) if all(re.fullmatch(r"\S+", part) for part in parts) else None


def signs(text: str) -> str | None:
    """Reads a row of tokens `A#`, `#A`, `B#`, `#B`."""
    tokens = bare(text).strip(".").split()
    return " ".join(tokens) if tokens and {*tokens} <= {"A#", "#A", "B#", "#B"} else None


ROLES = "altruist angel devil egoist fool hero knave knight laggard pioneer sage saint sinner villain"


def assignments(text: str) -> str | None:
    """Reads who is a knight and who a knave, in any order."""
    roles, statements, name = ROLES.split(), [], ""
    for word in re.findall(r"[\w-]+", bare(text).lower()):
        if word in roles and name:
            statements.append(f"{name} is a {word}")
            name = ""
        elif word not in ("is", "a", "an", "and", *roles):
            name = word
    return ", ".join(sorted(set(statements))) or None


# --- several lines, lists ---


def rows(text: str) -> str | None:
    """Reads a matrix: a row a line, or nested brackets."""
    plain = re.sub(r"\]\s*,?\s*\[", "\n", _FENCE.sub("", text.strip())).translate(str.maketrans("[](),;|", " " * 7))
    lines = [line.split() for line in plain.split("\n") if line.strip()]
    if not lines or not all(_NUMBER.fullmatch(token) for line in lines for token in line):
        return None
    return "\n".join(" ".join(token if "." in token else str(int(token)) for token in line) for line in lines)


def row(text: str) -> str | None:
    """Reads numbers in their order, on one line."""
    numbers = rows(bare(text).rstrip("."))
    return " ".join(numbers.split()) if numbers else None


def lines(text: str) -> str | None:
    """Reads lines as they are, but for space at their ends."""
    stripped = [line.rstrip() for line in _FENCE.sub("", text.strip("\r\n")).strip("\r\n").split("\n")]
    return "\n".join(stripped) if any(stripped) else None


def _listed(text: str) -> Any:
    """JSON, or a list as Python writes it; None for anything else."""
    plain = _FENCE.sub("", text.strip()).strip(" `.\n")
    for attempt in (plain, plain.replace("'", '"')):
        try:
            return json.loads(attempt)
        except (ValueError, RecursionError):
            continue
    return None


def integers(text: str) -> str | None:
    """Reads a list of whole numbers."""
    items = _listed(text)
    return json.dumps(items) if isinstance(items, list) and all(type(item) is int for item in items) else None


def numerals(text: str) -> str | None:
    """Reads a list of numbers as they are spelled, written as Python writes a list of texts."""
    match = re.fullmatch(r"\[(.*)\]", _FENCE.sub("", text.strip()).strip(" `."), re.DOTALL)
    spelled = [part.strip(_MARKS) for part in match[1].split(",")] if match and match[1].strip() else []
    return repr(spelled) if match and all(_NUMBER.fullmatch(part) for part in spelled) else None


def groups(text: str) -> str | None:
    """Reads lists of words, in any order of groups and of words."""
    lists = _listed(text)
    return json.dumps(sorted(sorted(group) for group in lists)) if _nested(lists) else None


def partitions(text: str) -> str | None:
    """Reads lists of words, in any order of lists; each counts once."""
    lists = _listed(text)
    return json.dumps([list(part) for part in sorted({tuple(group) for group in lists})]) if _nested(lists) else None


def _nested(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(g, list) and all(isinstance(word, str) for word in g) for g in value)
