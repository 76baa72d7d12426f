"""Finds an answer in a model's text. The one place where this is decided.

Kinds: `number` (numbers.py), `choice` (a letter A to J), `text` (exact after folding case and space), `math` (LaTeX, equality
by math-verify). Patterns give back nothing that they have taken (possessive quantifiers), so that a hostile text costs linear
time.
"""

import re
from collections import deque
from collections.abc import Iterator

from maft.answers.numbers import last_number, number_of, without_layout, without_names
from maft.spec import AnswerKind

# --- where a text announces its answer ---

# GSM8K's "#### 12". Headings are none: "##### Step", "#### 2. Solve", "#### Now we add".
_HASHES = r"""
    (?<!\#)\#{4}\s*+
    (?! \# | \d++[.):]\s )
    (?= [^\s\w]{0,9}+\d | \S{1,60}+[ \t]*+(?:\n|$) )
"""
_SUBJECT = r"(?<![^\W_])(?:answer|correct\s(?:choice|option))(?![^\W_])"
_PART = r"(?:\s(?:to|of|for|in)\s[^\n.:=]{0,60}?)?"  # the answer to the second part
_COLON = r"""[\s*_"']*+ [:=]"""  # Answer: 12  **Answer**: 12  answer = 12
_IS = r"(?:is|was|remains|stays|(?:would|will|should|must)\sbe|equals|becomes|comes\s(?:out\s)?to)"
_VERB = rf"\s++ {_IS}(?![^\W_]) (?:\s*+:)?+"  # the answer is 12  the answer would be: 12
_NEWLINE = r"[*_ \t]*+ \n"  # **Answer** alone on its line
_MARKER = re.compile(rf"{_HASHES} | {_SUBJECT} {_PART} (?: {_COLON} | {_VERB} | {_NEWLINE} ) [\s*_]*+", re.VERBOSE | re.IGNORECASE)

# --- where the answer ends ---

_SENTENCE = re.compile(r"\.(?=[\s*_\"')]|$)")  # leaves "3.5" whole
_LONG_SENTENCE = re.compile(r"(?<=[a-z0-9)\]*\"'}]{3})\.\s++(?=[A-Z])")  # leaves "St. Petersburg" whole
# What follows explains the answer: "12 because ...", "12 (see above)"; after "not" stands what is not the answer.
_REASON = r"(?<![^\W_])(?:because|since|where|which|given|when|if|not|rather|instead)(?![^\W_])"
_REMARK = re.compile(rf"{_REASON}|(?<=[\w$%}}*])\s\(", re.IGNORECASE)

# --- kinds of answers ---

_DOLLARS = r"(?<!\\)\$\$?+\s*+((?:[^$\\]|\\.)++)\$"  # $x+1$  $$x+1$
_PARENTHESES = r"\\\(((?:[^\\]|\\[^()])++)\\\)"  # \(x+1\)
_BRACKETS = r"\\\[((?:[^\\]|\\[^\[\]])++)\\\]"  # \[x+1\]
_MATH = re.compile(f"{_DOLLARS}|{_PARENTHESES}|{_BRACKETS}")

_IN_PARENTHESES = r"\((?P<enclosed>[A-Ja-j])\)"  # (b)
_BARE = r"(?P<bare>[A-J])(?![^\W_]|['’])"  # B, but not "Bob" or "I'm"
_NO_PRONOUN = r"(?!(?<=I)\s[a-z])"  # I think
_PREDICATE = r"(?:is|was|and|or|as|because|since|would|must|should|seems)"
_NO_ARTICLE = rf"(?!(?<=A)\s(?!{_PREDICATE}\b)[a-z])"  # A train, but "A is right" is a choice
_CHOICE = re.compile(rf"(?<![^\W_])(?:{_IN_PARENTHESES}|{_BARE}{_NO_PRONOUN}{_NO_ARTICLE})")

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*+(?:\{|(?P<bare>-?\d[^\s$\\{}]*+))")  # \boxed{x}  \boxed 12
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ and \} are signs, not brackets
_WRAPPED = re.compile(r"\\(?:text\w*+|math\w++|mbox)\s?\{([^{}]*+)\}")  # \text{B}  \mathrm{B}
_MARKS = " \t.,;:!*_`\"'$()[]{}"


def extract(text: str, kind: AnswerKind, *, complete: bool = True) -> str | None:
    """Finds the final answer in a model's text, in canonical form; None if there is none.

    Looked for in this order: the last \\boxed{...}, the last "#### x" or "answer is x" / "Answer: x" that gives one, and,
    where the text was not cut off (`complete`), the last number or choice in it. What is announced as the answer and is no
    single number ("3 + 4", "12:30", "5 or 6") is no answer, and nothing else is taken for it.
    """
    boxed = last_boxed(text)
    if boxed and boxed.strip():
        return canonical(boxed, kind)
    for line in _announced(text):
        if kind == "number":
            clause = _REMARK.split(_SENTENCE.split(without_names(line), 1)[0], 1)[0]
            if any(c.isdigit() for c in clause):
                return number_of(clause, alone=False)
        elif answer := _first(line, kind):
            return answer
    return _last(text, kind) if complete else None


def canonical(answer: str, kind: AnswerKind) -> str | None:
    """Gives a bare answer (a reference, or the inside of a box) its canonical form; None if it is not of that kind."""
    if kind == "number":
        return number_of(answer, alone=True)
    if kind == "choice":
        return _choice(answer)
    if kind == "text":
        folded = " ".join(_WRAPPED.sub(r"\1", answer).casefold().split())
        return folded.strip(_MARKS) or folded or None
    return _tidy_latex(answer) or None


def last_boxed(text: str) -> str | None:
    """Finds the inside of the last \\boxed{...} (or \\fbox{...}) with balanced braces, or the number after a bare \\boxed."""
    last = deque(_BOX.finditer(text), maxlen=1)
    if not last:
        return None
    opened = last[0]
    if opened["bare"]:
        return opened["bare"]
    depth = 1
    for brace in _BRACE.finditer(text, opened.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[opened.end() : brace.start()]
    return None


def _announced(text: str) -> Iterator[str]:
    """What follows each marker, last one first: up to the next marker, and of that the first line with a letter or a digit."""
    end = len(text)
    for marker in reversed(list(_MARKER.finditer(text))):
        lines = text[marker.end() : end].split("\n")
        yield next((line for line in lines if re.search(r"[^\W_]", line)), "")
        end = marker.start()


def _first(line: str, kind: AnswerKind) -> str | None:
    if kind == "math" and (math := _MATH.search(line)):
        line = next(part for part in math.groups() if part is not None)
    return canonical(_LONG_SENTENCE.split(line, 1)[0], kind) if line.strip() else None


def _last(text: str, kind: AnswerKind) -> str | None:
    if kind == "number":
        return last_number(text)
    last = deque(_CHOICE.finditer(text), maxlen=1) if kind == "choice" else ()
    return _letter(last[0]) if last else None


def _choice(answer: str) -> str | None:
    bare = _WRAPPED.sub(r"\1", answer).strip(_MARKS)
    if len(bare) == 1:
        return bare.upper() if bare.upper() in "ABCDEFGHIJ" else None
    choice = _CHOICE.search(answer)
    return _letter(choice) if choice else None


def _letter(choice: re.Match[str]) -> str:
    return (choice["enclosed"] or choice["bare"]).upper()


def _tidy_latex(answer: str) -> str:
    answer = re.sub(r"(?<=\d)(?:\\[,!]|,\\!|\{,\})++(?=\d{3})", "", answer)
    answer = re.sub(r"\\\$|\\?%", "", answer)  # units, as to the graders of MATH: 50\% is 50 and not 0.5
    answer = without_layout(answer, " ").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return " ".join(answer.split()).strip("$* ").rstrip(".").strip("$* ")
