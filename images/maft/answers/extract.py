"""Answers: found in a text, compared, voted on. The one place where this is decided.

Kinds: `number` (integers, decimals, fractions, mixed numbers; signs, thousands separators, currency, units and LaTeX around
them), `choice` (a letter A to J), `text` (exact after folding case and space), `math` (LaTeX, equality by math-verify).
Patterns give back nothing that they have taken (possessive quantifiers), so that a hostile text costs linear time.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Literal

Kind = Literal["number", "choice", "text", "math"]
Equal = Callable[[str, str], bool]

# --- where a text says its answer ---

_SAID = re.compile(
    r"""(?<!\#)\#{4}\s*+(?!\#|\d++[.):]\s)(?=[^\s\w]{0,9}+\d|\S{1,60}+[ \t]*+(?:\n|$))  # GSM8K; "#### 2. Solve" is a heading
      | (?<![^\W_])(?:answer|correct\s(?:choice|option))(?![^\W_])
        (?:\s(?:to|of|for|in)\s[^\n.:=]{0,60}?)?     # the answer to the second part
        (?: [\s*_"']*+ [:=]
          | \s++ (?:is|was|remains|stays|(?:would|will|should|must)\sbe|equals|becomes|comes\s(?:out\s)?to)(?![^\W_]) (?:\s*+:)?+
          | [*_ \t]*+ \n )
        [\s*_]*+""",
    re.VERBOSE | re.IGNORECASE,
)
_SENTENCE = re.compile(r"\.(?=[\s*_\"')]|$)")
# What follows explains the answer. "not": what follows is not the answer.
_REMARK = re.compile(
    r"(?<![^\W_])(?:because|since|where|which|given|when|if|not|rather|instead)(?![^\W_])|(?<=[\w$%}*])\s\(", re.IGNORECASE
)
_LONG_SENTENCE = re.compile(r"(?<=[a-z0-9)\]*\"'}]{3})\.\s++(?=[A-Z])")  # leaves "St. Petersburg" whole
_MATH = re.compile(r"(?<!\\)\$\$?+\s*+((?:[^$\\]|\\.)++)\$|\\\(((?:[^\\]|\\[^()])++)\\\)|\\\[((?:[^\\]|\\[^\[\]])++)\\\]")

# --- numbers ---

_SEPARATOR = r"(?:,|\{,\}|[\u2009\u202f\u00a0])"
_DIGITS = rf"(?:\d{{1,3}}(?:{_SEPARATOR}\d{{3}})++(?!\d)|\d++)"
_PART = r"-?(?:\d[\d,]*+(?:\.\d++)?+|\.\d++)"
_NUMBER = re.compile(
    rf"""(?<![^\W_])(?<![^\W_]_)(?<![.^])(?<!\d[,:/])(?<!\^\{{)(?<!\}}\{{)(?<!frac\{{)(?<!sqrt\{{)
        (?P<sign>[-+−–‐‑－]\s?+|(?:minus|negative)\s)?+ (?P<money>[$€£]\s?+(?P<inner>[-−])?+)?+
        (?=[\d.\\])
        (?: (?:(?P<ones>{_DIGITS})\s*+)?+\\[dtc]?frac\s*+(?:\{{\s*+(?P<top>{_PART})\s*+\}}|(?P<top1>\d))
                                                    \s*+(?:\{{\s*+(?P<bottom>{_PART})\s*+\}}|(?P<bottom1>\d))
          | (?P<mixed>{_DIGITS})\s(?P<over>\d++)\s?/\s?(?P<under>\d++)
          | (?P<whole>{_DIGITS}(?:\.\d++)?+|\.\d++)(?P<exponent>[eE][+-]?+\d{{1,3}}+(?!\w))?+
                (?:\s?(?:\\times|\\cdot|[×·*x])\s?10\s?\^(?:\{{\s?(?P<power>-?\d{{1,3}})\s?\}}|(?P<power1>-?\d{{1,3}}+(?!\d))))?+
                (?:\s?/\s?(?P<divisor>{_DIGITS}))?+ )
        (?![.,:]\d|\s?/\s?\d|[eE][+-]?\d|\s*+(?:\\sqrt|\\pi|[π√])|\^(?!\s*+\{{?+\\circ))""",
    re.VERBOSE,
)
_LABEL = re.compile(r"(?<![^\W_])(?:agent|round|step)\s\d++", re.IGNORECASE)
_SPACE = re.compile(r"(?<!\\)\\[,;:!> ]|~")
_FENCE = re.compile(r"\\(?:left|right)(?![A-Za-z])")
_EQUALS = re.compile(r"=|≈|\\approx(?![A-Za-z])")
_ASSIGNED = re.compile(r"[^\W\d_]\s?=")
_JOINED = re.compile(r"[%$)\s]*+(?:[-+−–*×·÷/^,&±]|\\(?:times|cdot|div|pm)|and|or|to|(?<=\s))[$(\s]*+(?:\d|\\[dtc]?frac)")

# --- choices and texts ---

# A bare "A" or "I" before a word in small letters is an article or a pronoun.
_CHOICE = re.compile(
    r"""(?<![^\W_])(?:\(([A-Ja-j])\)
        |([A-J])(?![^\W_]|['’])(?!(?<=I)\s[a-z])(?!(?<=A)\s(?!(?:is|was|and|or|as|because|since|would|must|should|seems)\b)[a-z]))""",
    re.VERBOSE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*+(?:\{|(?P<bare>-?\d[^\s$\\{}]*+))")
_WRAPPED = re.compile(r"\\(?:text\w*+|math\w++|mbox)\s?\{([^{}]*+)\}")
_MARKS = " \t.,;:!*_`\"'$()[]{}"


def extract(text: str, kind: Kind, *, complete: bool = True) -> str | None:
    """The final answer in a model's text in canonical form, or None.

    Looked for in this order: the last \\boxed{...}, the last "#### x" or "answer is x" / "Answer: x" that gives one, and,
    where the text was not cut off (`complete`), the last number or choice in it. What is said to be the answer and is no
    single number ("3 + 4", "12:30", "5 or 6") is no answer, and nothing else is taken for it.
    """
    boxed = last_boxed(text)
    if boxed and boxed.strip():
        return canonical(boxed, kind)
    for line in _said(text):
        if kind == "number":
            clause = _REMARK.split(_SENTENCE.split(_plain(line), 1)[0], 1)[0]
            if any(c.isdigit() for c in clause):
                return _number(clause, alone=False)
        elif found := _first(line, kind):
            return found
    return _last(text, kind) if complete else None


def canonical(answer: str, kind: Kind) -> str | None:
    """A bare answer (a reference, or the inside of a box) in canonical form; None if it is not of that kind."""
    if kind == "number":
        return _number(answer, alone=True)
    if kind == "choice":
        return _choice(answer)
    if kind == "text":
        folded = " ".join(_WRAPPED.sub(r"\1", answer).casefold().split())
        return folded.strip(_MARKS) or folded or None
    return _tidy_latex(answer) or None


def last_boxed(text: str) -> str | None:
    """The inside of the last \\boxed{...} (or \\fbox{...}) with balanced braces, or the number after a bare \\boxed; or None."""
    last = deque(_BOX.finditer(text), maxlen=1)
    if not last:
        return None
    opened = last[0]
    if opened["bare"]:
        return opened["bare"]
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opened.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)  # \{ and \} are signs, not brackets
        if depth == 0:
            return text[opened.end() : brace.start()]
    return None


def _said(text: str) -> Iterator[str]:
    """What follows each marker, last one first: up to the next marker, and of that the first line that says something."""
    end = len(text)
    for marker in reversed(list(_SAID.finditer(text))):
        lines = text[marker.end() : end].split("\n")
        yield next((line for line in lines if re.search(r"[^\W_]", line)), "")
        end = marker.start()


def _first(line: str, kind: Kind) -> str | None:
    if kind == "math" and (math := _MATH.search(line)):
        line = next(part for part in math.groups() if part is not None)
    return canonical(_LONG_SENTENCE.split(line, 1)[0], kind) if line.strip() else None


def _last(text: str, kind: Kind) -> str | None:
    if kind == "number":
        last = deque(_NUMBER.finditer(_plain(text)), maxlen=1)
        return _value(last[0]) if last else None
    found = _CHOICE.findall(text) if kind == "choice" else []
    return (found[-1][0] or found[-1][1]).upper() if found else None


def _choice(answer: str) -> str | None:
    bare = _WRAPPED.sub(r"\1", answer).strip(_MARKS)
    if len(bare) == 1:
        return bare.upper() if bare.upper() in "ABCDEFGHIJ" else None
    found = _CHOICE.search(answer)
    return (found[1] or found[2]).upper() if found else None


def _plain(text: str) -> str:
    """Without what is no part of a number: LaTeX spacing, and the numbers that agents and steps have for names."""
    return _LABEL.sub("", _FENCE.sub("", _SPACE.sub("", text.replace("\\$", "$").replace("\\%", "%"))))


def _number(phrase: str, *, alone: bool) -> str | None:
    """The number that a phrase gives, after its last equals sign. None if it gives an expression or several; `alone`: numbers
    that follow have to be the same one."""
    phrase = _plain(phrase)
    if len(_ASSIGNED.findall(phrase)) > 1:
        return None
    for side in reversed(_EQUALS.split(phrase)):
        if found := list(_NUMBER.finditer(side)):
            values = {_value(match) for match in found}
            several = len(values) > 1 if alone else _JOINED.match(side, found[0].end())
            return None if several else _value(found[0])
    return None


def _value(match: re.Match[str]) -> str | None:
    part = {name: re.sub(r"[^-\d.eE+]", "", text) for name, text in match.groupdict().items() if text}
    try:
        if "mixed" in part:
            size = int(part["mixed"]) + Fraction(int(part["over"]), int(part["under"]))
        elif "whole" in part:
            power = int(part.get("power") or part.get("power1") or "0")
            size = Fraction(part["whole"] + part.get("exponent", "")) * Fraction(10) ** power / int(part.get("divisor", 1))
        else:
            top, bottom = part.get("top") or part["top1"], part.get("bottom") or part["bottom1"]
            size = int(part.get("ones", 0)) + Fraction(top) / Fraction(bottom)
        return str(-size if _negative(match) else size)
    except (ZeroDivisionError, ValueError):  # ValueError: more digits than Python converts
        return None


def _negative(match: re.Match[str]) -> bool:
    """Whether the sign belongs to the number: not in "7 - 3", "Profit - 12" or a list's "- 12 apples"."""
    sign = match["sign"] or ""
    if match["inner"]:
        return True
    if not sign or sign[0] == "+":
        return False
    before = match.string[max(0, match.start() - 16) : match.start()]
    said, gap = before.rstrip(), before[len(before.rstrip()) :]
    if sign[-1].isspace() and not sign[0].isalpha():
        return not gap.endswith("\n") and (not said or said[-1] in "=:(≈<>$*[{|")
    return "\n" in gap or not said or not (said[-1].isdigit() or said[-1] in ")]}")


def _tidy_latex(answer: str) -> str:
    answer = re.sub(r"(?<=\d)(?:\\[,!]|,\\!|\{,\})++(?=\d{3})", "", answer)
    answer = re.sub(r"\\\$|\\?%", "", answer)  # units, as to the graders of MATH: 50\% is 50 and not 0.5
    answer = _FENCE.sub("", _SPACE.sub(" ", answer)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return " ".join(answer.split()).strip("$* ").rstrip(".").strip("$* ")


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
