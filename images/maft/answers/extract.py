r"""Finds an answer in what a model said. This room is the one place where it is decided.

thoughts.py parts thoughts from the reply, announced.py finds where the reply states its answer, retracted.py where it takes it
back, and each kind reads what stands there: `number` (numbers.py), `choice` (choices.py: a letter A to J), `text` and `math`
(texts.py; equality.py compares mathematics). `code` is the last block of Python (blocks.py), of `judge` and
`semantic` the whole reply counts. A reader returns None for what is
not of its kind, and an empty text for what is and gives no single answer.
Patterns give back nothing that they have taken (possessive quantifiers, atomic groups) or look no further than a bound, so
that a hostile text costs linear time.
"""

import re
from collections.abc import Iterable

from maft.answers import multiples, parts, retracted
from maft.answers.announced import SETTLED, Statement, in_order, statements
from maft.answers.asides import mask
from maft.answers.attributed import own_words
from maft.answers.blocks import program
from maft.answers.boxes import Box, boxes, written
from maft.answers.choices import choice_of, last_choice
from maft.answers.listed import sense
from maft.answers.numbers import exact, is_whole, last_number, number_of, without_names
from maft.answers.spelling import CJK, plain, without_folded, without_struck
from maft.answers.texts import math_of, math_said, text_of, text_said
from maft.answers.thoughts import ENDS, split
from maft.spec import AnswerKind

_SMALLER = r"(?<=[a-z]\.)\s\d{1,3}\s?(?:mins?|secs?|in|oz|s|pts?|qts?)(?:\.|\s*$)"  # 2 hrs. 30 min.
# Leaves "3.5" whole, and "5!." which is a factorial: no sentence ends twice
_SENTENCE = re.compile(rf"(?<!!)\.(?=[\s*_\"')]|$)(?!{_SMALLER})")
# What follows explains the answer: "12 because ...", "12 (see above)"; after "not" stands what is not the answer.
_REASON = r"(?<![^\W_])(?:because|since|where|which|given|when|if|not|rather|instead)(?![^\W_])"
_HEDGED = r"\(?(?:or|maybe|perhaps|possibly|alternatively)(?![^\W_])"  # 12 (or 13) is no remark
# Nor is 7 (remainder 2), or 101 (base 2)
_PARTED = r"(?:with\s|a\s){0,2}rem(?:ainder|\.)|mod(?:ulo)?\s|repeating|recurring|(?:in\s)?(?:base|binary|octal|hex)"
_REMARK = re.compile(rf"{_REASON}|(?:(?<=[\w$%}}*])\s|(?<=\d)(?=\(\d*[{CJK}]))\((?!{_HEDGED}|{_PARTED}|[A-J]\))", re.IGNORECASE)


# An answer that is none, and no number of what explains it: none, because 5 is odd
_NONE = re.compile(
    r"[\s*_]*(?:none|no\ssuch|there\s(?:is|are)\sno|undefined|impossible|(?:cannot|can['’]t)\sbe)(?![^\W_])", re.IGNORECASE
)
_WORDS = re.compile(r"\s*[A-Za-z]{2}")  # 8 or eight
_CLOSED = re.compile(r"\A\}?(?:\s?(?:\$+|\\\)|\\\]))?")
_BROKEN = re.compile(r"(?<=\d),\n(?=\d{3}(?!\d))")  # a number, or a list, over two lines
# Another question: Question: ...  Q2:  Human: ...
_NEXT = re.compile(r"\n\s*[*_#]{0,4}(?:Question|Q|Human|User|Problem)[*_ ]{0,3}\d{0,3}[*_ ]{0,3}:|<\|endoftext\|>")
# The end of a turn: what a model writes behind it are others' turns. </s> may be HTML's, and <s>5</s> is struck out
_ENDED = "|".join(re.escape(plain(end)) + (r"(?=\s*(?:\Z|<|\[|[A-Z][a-z]{1,20}:))" if end == "</s>" else "") for end in ENDS)
_END = re.compile(rf"(?<![`\"'“‘])(?:{_ENDED})")


# Kinds whose answer is the whole reply; debate/meaning.py says which mean the same.
FREE: tuple[AnswerKind, ...] = ("judge", "semantic")


def extract(text: str, kind: AnswerKind, *, complete: bool = True) -> str | None:
    """Finds the final answer in a model's text, in canonical form; None if there is none.

    Only the reply is searched, never a thought. Looked for in this order: the last \\boxed{...}, the last "#### x",
    <answer>x</answer> or "answer is x" / "Answer: x", of both the last one that gives an answer of the kind, and, where the text
    was not cut off (`complete`), the last number or choice in it. What is announced as the answer and is no single one ("3 + 4",
    "12:30", "5 or 6", "A or C") is no answer, and nothing else is taken for it.
    """
    if kind == "code":
        return program(text, "", complete=complete)
    if kind in FREE:
        return (split(text).reply or None) if complete else None
    spoken = split(text)
    reply = _without_next(without_struck(written(_BROKEN.sub(":" if kind == "number" else ", ", plain(spoken.reply)))))
    reply = in_order(reply) if kind in ("number", "choice") else reply
    if spoken.answer and "\n" not in reply:
        reply = f"<answer>{reply}</answer>"
    shown = without_folded(reply)
    answer = None if shown == reply else _given(shown, kind, complete)
    return (_given(reply, kind, complete) if answer is None else answer) or None


def _given(reply: str, kind: AnswerKind, complete: bool) -> str | None:
    """The answer that a reply gives, or what it puts in the place of one that it takes back; empty where it gives no single one."""
    masks = _masks(reply)
    back = retracted.retraction(masks[0])
    if back is None:
        return _searched(reply, masks, kind, complete)
    rest = retracted.in_its_place(reply, back)
    instead = _searched(rest, _masks(rest), kind, complete)
    return _searched(reply, masks, kind, complete) if instead is None and retracted.is_held(rest) else instead


def _masks(reply: str) -> tuple[str, str]:
    """The reply without its asides; and with the one that ends it."""
    return mask(reply, ending=True), mask(reply, ending=False)


def _searched(reply: str, masks: Iterable[str], kind: AnswerKind, complete: bool) -> str | None:
    """The answer of a reply, or of what is left of one; empty where it gives no single one."""
    for masked in dict.fromkeys(masks):
        answer, after = _announced(reply, masked, kind)
        if answer is not None:
            return answer
    return _last(masked[after:], kind) if complete else None


def _without_next(reply: str) -> str:
    """Cuts off the next question that small models go on with behind their answer, as worked examples had it, and what they write
    behind the end of their turn."""
    end = next((end for end in _END.finditer(reply) if _ends(reply, end)), None)
    reply = reply[: end.start()] if end else reply
    settled = SETTLED.search(reply)
    turn = _NEXT.search(reply, settled.end()) if settled else None
    return reply[: turn.start()] if turn else reply


def _ends(reply: str, end: re.Match[str]) -> bool:
    """Whether a turn ends there: something was said, and nothing is struck out."""
    before = reply[: end.start()].strip().removeprefix("<s>")
    return bool(before) and not (end[0] == "</s>" and "<s>" in before)


def canonical(answer: str, kind: AnswerKind) -> str | None:
    """Gives a bare answer (a reference, or the inside of a box) its canonical form; None if it is not of that kind."""
    if kind == "number":
        return number_of(plain(answer), alone=True)
    if kind == "choice":
        return choice_of(plain(answer)) or None
    if kind in FREE:
        return answer.strip() or None
    if kind == "code":
        return answer.strip("\n").rstrip() or None
    return text_of(answer) if kind == "text" else math_of(answer)


def _announced(reply: str, masked: str, kind: AnswerKind) -> tuple[str | None, int]:
    """The announced answer, empty if what is announced is none; and from where on a last number or choice may be it."""
    after, weak, once = 0, None, None
    for box in boxes(masked):
        answer = _in_box(box, masked, kind)
        if answer is None:
            after = after or (box.end if kind == "choice" else len(reply))
        elif box.own:
            return answer, 0
        elif box.upheld:
            once = once or answer
    for statement in statements(reply, masked):
        answer = _stated(statement, kind)
        if statement.before:
            once = once or answer
            continue
        if answer is not None and not statement.doubted:
            return answer, 0
        weak = weak or (answer if kind in ("text", "math") else None)
        after = max(after, _passed(statement, kind))
    return weak if once is None else once, after


def _passed(statement: Statement, kind: AnswerKind) -> int:
    """Up to where nothing is the last number or choice: behind what an announcement denies, and behind the steps that it lists."""
    if statement.listed and sense(statement.listed, kind) == "steps":
        return statement.listed.end
    return statement.end if statement.denied else 0


def _in_box(box: Box, masked: str, kind: AnswerKind) -> str | None:
    """What a box gives; empty where it offers another one beside it."""
    inside = _whole(box, masked, kind)
    answer = _boxed(inside, kind) if inside is not None else ""
    if not answer:
        return answer
    others = [(_read(other, kind), other) for other in box.others if kind != "math" or not _WORDS.match(other)]
    if box.beside is not None:
        others.append((_boxed(box.beside, kind), box.beside))
    return answer if all(other is None or _is_same(other, written, answer, kind) for other, written in others) else ""


def _is_same(other: str, written: str, answer: str, kind: AnswerKind) -> bool:
    """Whether what is offered beside an answer is the same one: 1/2 or 0.5, 0.42 or 42%."""
    one, value = (exact(text) if kind in ("number", "math") else None for text in (other, answer))
    return other == answer or (value is not None and one is not None and one in (value, 100 * value if "%" in written else value))


def _whole(box: Box, text: str, kind: AnswerKind) -> str | None:
    """What a box holds, with the sign before it and what multiplies a number in it: -\\boxed{5} million; None where it is a part:
    \\boxed{5}\\sqrt{2}."""
    if kind not in ("number", "math"):
        return box.inside
    number = exact(box.inside) is not None
    sign = parts.sign_before(text, box.start, box.end + text.startswith("}", box.end), number=number)
    if sign is None or not number:
        return sign if sign is None else parts.signed(sign, box.inside)
    signed = sign + box.inside.strip(" $")
    behind = _CLOSED.sub("", text[box.end : box.end + 60].partition("\n")[0])
    return signed + multiples.beside(text, box.end) if is_whole(signed, behind) else None


def _boxed(inside: str, kind: AnswerKind) -> str | None:
    """What a box gives."""
    if not inside.strip():
        return None
    if kind == "number":
        return canonical(inside, kind) or ("" if any(c.isdigit() for c in inside) else None)
    if kind == "choice":
        return choice_of(inside)
    return text_said(inside) if kind == "text" else canonical(inside, kind)


def _stated(statement: Statement, kind: AnswerKind) -> str | None:
    """What an announcement gives; what it takes back or denies is not that."""
    literal = kind == "text" and not statement.corrections and (statement.colon or statement.titled)
    listed = sense(statement.listed, kind)
    if statement.only or listed == "several":
        return ""
    if statement.listed and listed in ("first", "steps"):
        return _read(statement.listed.items[0], kind) if listed == "first" else None
    lines = statement.corrections
    if literal or not statement.denied:
        lines = (*reversed(lines), statement.line)
    return next((answer for line in lines if (answer := _read(line, kind)) is not None), None)


def _read(line: str, kind: AnswerKind) -> str | None:
    if not line.strip():
        return None
    if kind == "text":
        return text_said(line)
    if kind == "math":
        return math_said(line)
    clause = _REMARK.split(_SENTENCE.split(without_names(line) if kind == "number" else line, maxsplit=1)[0], maxsplit=1)[0]
    if kind == "choice":
        return choice_of(clause)
    if _NONE.match(line):
        return ""
    return number_of(clause, alone=False) or "" if any(c.isdigit() for c in clause) else None


def _last(text: str, kind: AnswerKind) -> str | None:
    if kind == "number":
        return last_number(own_words(text))
    return last_choice(own_words(text)) if kind == "choice" else None
