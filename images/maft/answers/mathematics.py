r"""Whether two LaTeX answers are equal. Runs in the worker of equality.py, for sympy may never end.

Two rationals are equal or they are not: decimals become fractions before math-verify reads them, so that its tolerance has nothing
to forgive. What it takes for equal one way round only, or to a third answer that differs, is made alike first or kept apart:
x = 1 is 1, an inequality of one variable is its interval, a pair (1,2) is no list 1, 2.
"""

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from maft.answers.numbers import exact
from maft.answers.texts import text_of, unwrapped
from maft.answers.units import without_units

# x = 5  f(2) = 5  m\angle ABC = 5: a name for a value without variables, LaTeX's commands apart
_ASSIGNED = re.compile(
    r"\s*(?:[A-Za-z](?:_\{?\w+\}?)?(?:\(\w\))?|m?\s*\\angle\s*\{?[A-Z]{1,3}\}?)\s*=\s*(?P<value>(?:\\[A-Za-z]+|[^=<>A-Za-z\\])+)"
)
# In a list, too: (1,0.5). Not in 1,234.5 and 1.234,5, which are numbers to some and lists to others.
_DECIMAL = re.compile(
    r"(?<![\d.\w^])(?:(?<!\d,)|(?!\d{3}\.))(?![1-9]\d{0,2}\.\d{3},\d)(?P<digits>\d*\.\d+)(?P<power>\s*\^)?(?![\d.])"
)
_AFTER_A_NUMBER = re.compile(r"[\d}]\s*$")
_APART = re.compile(r"\d\s+\d")  # 1 000: one number to some and a product to others
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s'-]+[^\W\d_]+)*")

# Digits of a base, which math-verify reads without it: 1011_2  (1011)_2  52_{\text{eight}}  A3_{16}, but no index: x_1  2a_1
_BASE = r"[2-9]|1[0-6]|two|three|four|five|six|seven|eight|nine|ten"
_OF_BASE = re.compile(
    rf"""(?<![\w^.}}])\(?(?:
        (?P<digits>\d++)\)?\s?_\s?(?:(?P<base>[2-9])(?!\d)|\{{\s?(?:\\text\s?\{{)?(?P<long>{_BASE})\s?\}}+)
      | (?P<hex>[\dA-Fa-f]++)\)?\s?_\s?\{{\s?(?P<above>1[1-6])\s?\}} )""",
    re.VERBOSE,
)
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_SPACE = r"\s*(?:\\[,;: ]\s*)?"
_UNIT = r"\\(?:text|mathrm|mbox)\s*\{\s*(?P<%s>[A-Za-z]+)[\s.]*(?:and\s*)?\}"
# 4\text{ feet } 3\text{ inches}, but 4\text{ cm and } 3\text{ cm} are two lengths
_AND = r"(?:\\text\s*\{\s*and\s*\}\s*)?"
_TWO_UNITS = re.compile(rf"\d{_SPACE}{_UNIT % 'large'}{_SPACE}{_AND}\d++(?:\.\d++)?{_SPACE}{_UNIT % 'small'}")
# What math-verify leaves out, which takes A' for A then: 1,2,\ldots  0.3\ldots  f'(x)  A^T  z^*  2 \pmod 7
_LEFT_OUT = re.compile(
    r"\\ldots(?![A-Za-z])|\\pmod(?![A-Za-z])|(?:(?<![A-Za-z])[A-Za-z]|\\[A-Za-z]+|[})\]])'(?![A-Za-z])"
    r"|(?<!\d)\^\s*(?:T(?![A-Za-z])|\{\s*T\s*\}|(?:\{\s*)?(?:\*|\\(?:top|prime|dagger|ast|perp)(?![A-Za-z])))"
    # f^{(2)}(x)  \vec{a}\times\vec{b}  12\text{ p.m.}  100\text{ BC}
    r"|(?<![A-Za-z])[A-Za-z]\s*\^\s*\{\s*\(\s*\w+\s*\)\s*\}|\\(?:vec|mathbf|hat)\s*\{\s*[A-Za-z]\s*\}\s*\\times"
    r"|\\(?:text|mathrm|mbox)\s*\{\s*(?:[AaPp]\.?[Mm]\.?|BCE?|AD|CE|north|south|east|west)\s*\}"
    r"|\\(?:measured|spherical)?angle(?![A-Za-z])"  # \angle ABC is no product
)
_DERIVATIVE = re.compile(r"\s*[A-Za-z]'{1,3}(?:\(\w\))?\s*=(?=[^=']+$)")  # f'(x) = 2x  y' = 2x
_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")
_BRACED = re.compile(r"\{([\w*])\}")
_ANGLE = re.compile(r"(?<=angle)\{?([A-Z])([A-Z])([A-Z])\}?")
_UPRIGHT = re.compile(r"\\mathrm\s*\{\s*([ei])\s*\}")  # 3+2\mathrm{i}
_EMPTY = re.compile(r"\\(?:emptyset|varnothing)(?![A-Za-z])|\\\{\s*\\\}|∅")
_LOG_BASE = r"(?:(?P<short>\d)|\{\s*(?P<base>\d{1,4})\s*\})"
_LOGARITHM = re.compile(rf"\\log\s*_\s*{_LOG_BASE}\s*[({{]?\s*(?P<of>\d{{1,9}})\s*[)}}]?(?!\s*[\d.,^!/A-Za-z\\({{])")  # \log_2 8

_DEGREES = re.compile(  # \sin 30^\circ
    r"(?P<function>\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)?)\s*(?P<open>[({])?\s*(?P<degrees>\d{1,6})"
    r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})(?(open)\s*[)}])"
)

# math-verify reads A as a: where one answer has a letter in both cases they are two
_LETTER = re.compile(r"\\(?:text\w*|math\w+|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+|(?P<letter>[A-Za-z])")
_NAMES = "qwvuzkmnphgrstabcjl"

# A few forms of answers. The parser learns a grammar from what it reads: the first of a form takes a hundred times as long.
FORMS = (
    "2\\sqrt{3}",
    "\\sqrt{12}",
    "\\frac{\\sqrt{3}}{2}",
    "(1, 2)",
    "\\{1, 2\\}",
    "[3,\\infty)",
    "x^2-9",
    "(x-3)(x+3)",
    "\\frac{2\\pi}{3}",
    "3+2i",
    "x < 4",
    "y = 2x+1",
    "5^{10}",
)
DIGITS = 60  # to which expressions that are no rationals are compared


def verify(a: str, b: str) -> bool:
    """Tells whether two LaTeX answers are equal."""
    a, b = (_value(text) for text in (a, b))
    one, other = exact(a), exact(b)
    if one is not None and other is not None:
        return one == other
    same = a == b or _words(a, b)
    if same is not None:
        return same
    if _is_literal(a) or _is_literal(b):
        return _spelled(a) == _spelled(b)
    if _is_apart(a) or _is_apart(b):
        return False
    a, b = _with_names(without_units(a), without_units(b))
    return _verify(_with_fractions(a), _with_fractions(b))


def warm() -> None:
    """Makes the parser quick, for this process and those that are forked from it."""
    for form in FORMS:
        verify(form, f"{form}+x")


def _value(text: str) -> str:
    text = _DERIVATIVE.sub("", _UPRIGHT.sub(r"\1", text))
    assigned = _ASSIGNED.fullmatch(text)
    text = assigned["value"].strip() if assigned else text
    text = _DEGREES.sub(r"\g<function>(\\frac{\g<degrees>\\pi}{180})", text)
    return _LOGARITHM.sub(_logarithm, _EMPTY.sub(r"\\emptyset", _OF_BASE.sub(_of_base, text)))


def _logarithm(log: re.Match[str]) -> str:
    """The value of a logarithm where it is whole, \\log_2 8; else by natural ones, which math-verify compares."""
    base, of = int(log["short"] or log["base"]), int(log["of"])
    if base < 2 or of < 1:
        return log[0]
    power = next((n for n in range(31) if base**n >= of), 31)
    return str(power) if base**power == of else rf"\frac{{\ln {of}}}{{\ln {base}}}"


def _is_literal(text: str) -> bool:
    """Whether math-verify would drop a part of it: the base of digits, the second of two quantities, a prime."""
    units = _TWO_UNITS.search(text)
    two = units and not {"and", "or"} & set(units.groups()) and units["large"] != units["small"]
    return bool(two or _LEFT_OUT.search(text) or _OF_BASE.search(text))


def _spelled(text: str) -> str:
    """Its one spelling, without spaces, the braces of single signs and the case and full stops of words; CBA as ABC in
    an angle."""
    text = _TEXT.sub(lambda word: rf"\text{{{word[1].replace('.', '').lower()}}}", text)
    text = _BRACED.sub(r"\1", re.sub(r"\s|\\[,;: ]", "", text))
    return _ANGLE.sub(lambda angle: min(angle[1], angle[3]) + angle[2] + max(angle[1], angle[3]), text)


def _of_base(number: re.Match[str]) -> str:
    base = number["base"] or number["long"] or number["above"]
    base = _BASES.get(base, base)
    digits = (number["digits"] or number["hex"]).upper().lstrip("0") or "0"
    return digits if base == "10" else f"{digits}_{{{base}}}"


def _words(a: str, b: str) -> bool | None:
    """Whether both are the same words, \\text{even} and even; None if they are no words, as ab and ba may be products."""
    one, other = (unwrapped(text) for text in (a, b))
    if not (_WORDS.fullmatch(one) and _WORDS.fullmatch(other)):
        return None
    return text_of(one) == text_of(other) or (None if len(one) < 3 else False)


def _is_apart(text: str) -> bool:
    return exact(text) is None and bool(_APART.search(text))


def _with_names(a: str, b: str) -> tuple[str, str]:
    """Gives capitals another letter, where one of the two has the small one, too."""
    used = [{letter["letter"] for letter in _LETTER.finditer(text)} - {None} for text in (a, b)]
    capitals = sorted({letter for letters in used for letter in letters if letter.isupper() and letter.lower() in letters})
    unused = (name for name in _NAMES if not {name, name.upper()} & (used[0] | used[1]))
    names = dict(zip(capitals, unused, strict=False))
    one, other = (_LETTER.sub(lambda letter: names.get(letter["letter"], letter[0]), text) for text in (a, b))
    return one, other


def _with_fractions(text: str) -> str:
    """Writes decimals, and what is one number, as fractions."""
    number = exact(text)
    if number is not None:
        return f"{'-' if number < 0 else ''}\\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
    return _DECIMAL.sub(_fraction, text)


def _fraction(decimal: re.Match[str]) -> str:
    value = exact(decimal["digits"])
    if value is None:  # more digits than Python converts
        return decimal[0]
    written = f"\\frac{{{value.numerator}}}{{{value.denominator}}}" if value.denominator > 1 else str(value)
    factor = decimal["power"] or _AFTER_A_NUMBER.search(decimal.string[max(0, decimal.start() - 8) : decimal.start()])
    return (f"({written})" if factor else written) + (decimal["power"] or "")


def _verify(a: str, b: str) -> bool:
    import math_verify  # pulls in sympy: only where it is needed

    try:
        one, other = _parsed(a), _parsed(b)
        if not (one and other) or not _are_comparable(one[0], other[0]):
            return False
        # Either way round: math-verify treats a reference and a prediction differently, agents are neither.
        return any(
            math_verify.verify(list(pair[0]), list(pair[1]), numeric_precision=DIGITS, timeout_seconds=None)
            for pair in ((one, other), (other, one))
        )
    except Exception:  # on what is no mathematics sympy raises anything, RecursionError included
        return False


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[Any, ...]:
    import math_verify

    # As LaTeX or not at all: of what it cannot read it would take a number for the whole, 3 for 5 \bmod 3. Not without its units,
    # for it takes letters of \pi r^2 h and 2ab for some.
    usual = math_verify.LatexExtractionConfig()
    latex = replace(usual, normalization_config=replace(usual.normalization_config, units=False))
    return tuple(_alike(part) for part in math_verify.parse(f"${text}$", [latex], parsing_timeout=None))


def _are_comparable(one: Any, other: Any) -> bool:
    """A list is no pair, and an equation that gives no value is no value."""
    from sympy import Eq  # type: ignore[import-untyped]

    mixed = _is_list(one) != _is_list(other) and _is_pair(one) != _is_pair(other)
    return not mixed and isinstance(one, Eq) == isinstance(other, Eq)


def _alike(part: Any) -> Any:
    """An inequality of one variable as its set, an equation as the value that it gives, `x in S` as S."""
    from sympy import And, Eq, Set
    from sympy.core.relational import Relational  # type: ignore[import-untyped]

    relations = getattr(part, "_unsorted_args", part.args) if isinstance(part, And) else (part,)
    if not all(isinstance(each, Relational) for each in relations):
        return _complex(part)
    if all(isinstance(each, Eq) for each in relations):
        left, right = relations[0].lhs, relations[-1].rhs
        given = right if isinstance(right, Set) else _given(left, right)
        return given if isinstance(given, Eq) else _complex(given)
    return part.as_set() if len(part.free_symbols) == 1 else part


def _complex(part: Any) -> Any:
    r"""With the imaginary unit in the place of i, where that is the only letter: \frac{1}{i} is -i."""
    from sympy import I

    symbols = getattr(part, "free_symbols", ())
    return part.subs(dict.fromkeys(symbols, I)) if {symbol.name for symbol in symbols} == {"i"} else part


def _given(left: Any, right: Any) -> Any:
    """What an equation gives: y where it is linear in y, as a line is; the value of a name; the solution of a linear equation."""
    from sympy import Eq, Symbol
    from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]

    if not left.free_symbols:
        left, right = right, left
    symbols = left.free_symbols | right.free_symbols
    names = {symbol.name: symbol for symbol in symbols}
    unknown = names["y"] if {"x", "y"} <= set(names) else next(iter(symbols)) if len(symbols) == 1 else None
    if not symbols or isinstance(left, AppliedUndef):
        return right
    if unknown is not None and (solution := _solution(left, right, unknown)) is not None:
        return solution
    if isinstance(left, Symbol) and left not in right.free_symbols:
        return right
    return Eq(left, right, evaluate=False)


def _solution(left: Any, right: Any, unknown: Any) -> Any:
    """The unknown of a linear equation; None where it is none."""
    from sympy import Poly

    try:
        linear = Poly((left - right).doit(), unknown)
    except Exception:  # no polynomial
        return None
    if linear.degree() != 1:
        return None
    factor, rest = linear.all_coeffs()
    return -rest / factor


def _is_list(part: Any) -> bool:
    from sympy import FiniteSet

    return isinstance(part, FiniteSet) and len(part) > 1


def _is_pair(part: Any) -> bool:
    from sympy import Interval, Tuple

    return isinstance(part, Tuple) or (isinstance(part, Interval) and bool(part.is_open))
