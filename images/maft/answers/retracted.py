"""Where a reply takes its answer back: "The answer is 7. Wait, that's wrong. It's 8."

Only what it says of itself, in a sentence of its own: "Agent 2's answer is 8. That is wrong" takes nothing back. Patterns look no
further than a bound, so that time stays linear.
"""

import re
from dataclasses import dataclass

from maft.answers.announced import SETTLED
from maft.answers.values import CLEFT, IT_IS, NAME, SAYS, VALUE
from maft.answers.whose import is_somebodys, sentence_before

_HALT = r"(?:wait|no|oops|sorry|actually|hold\son|hang\son|correction|on\ssecond\sthought)[,.;:!…–—-]{1,3}\s?"
_HALTS = rf"(?:(?:oh|ah|hmm+|uh|but)[,.…]{{0,3}}\s)?(?:{_HALT}){{1,2}}"
_WRONG = r"(?:\w{1,12}ly\s)?(?:wrong|incorrect|false|not\s(?:right|correct)|a\smistake|an\serror)"
_IS_WRONG = (
    rf"(?:['’]s|\sis|\swas|\sseems|\slooks)\s{_WRONG}"
    r"|\s(?:(?:is|was|ca|could)n['’]t|cannot)\s(?:be\s)?(?:right|correct)"
)
_IT = rf"(?:that|this|it|(?:my|the)\s(?:answer|result))(?:{_IS_WRONG})"  # that's wrong
_MADE = r"made\s(?:an?|some)\s(?:\w{1,12}\s)?(?:mistakes?|errors?|slip)"
_AGAIN = r"let\sme\s(?:re(?:compute|calculate|count|do)|correct|fix)(?![^\W_])"
_MISSED = r"forgot(?:ten)?|overlooked|missed|left\sout|double-counted|ignored"
_SLIP = rf"(?:I|we)(?:['’]ve|\shave|\shad)?\s(?:{_MADE}|{_MISSED}|was\swrong|were\swrong|mis(?:calculated|counted|read|took))"
_ONCE = (
    r"[^.!?;:\n–—]{0,60}(?<![^\W_])(?:before|earlier|previous(?:ly)?|initial(?:ly)?|original(?:ly)?|rounds?|at\sfirst)(?![^\W_])"
)
_ENDS = r"[^.!?;:\n–—]{0,60}?(?:[.!;:–—\n]|,(?=\sso\s))"
# Up to the end of the sentence: Wait, that's wrong.  Oops, I made a mistake in the second step:  That was wrong. It's 8
_WRONG_SO = rf"(?:{_IT}|{_SLIP}(?!{_ONCE}))(?![^\W_]){_ENDS}(?=\s{{0,2}}{IT_IS}\s{VALUE})"
# Up to what it says instead: Actually it's | 6  Sorry, it should be | 6  Wait, no: | 6
_SOFT = (
    r"(?:sorry|actually|wait|no|oops|(?:my\s)?apologies|my\s(?:mistake|bad)|(?:up)?on\s(?:second\sthought|(?:further\s)?reflection)"
    r"|correction|edit|updated?|corrected)"
)
_BACK = re.compile(
    rf"(?<![^\W_])(?:{_HALTS}(?:{_IT}|{_SLIP}(?!{_ONCE})|{_AGAIN})(?![^\W_]){_ENDS}|{_WRONG_SO})",
    re.IGNORECASE,
)
_NOW = re.compile(
    rf"(?:(?<=[.!?)}}$*\n]\s)|(?<=\n))(?:(?:oh|ah|hmm+|but)[,.…]{{0,3}}\s)?(?:{_SOFT}[,.;:!…–—-]{{0,3}}\s){{1,2}}"
    rf"(?:(?={IT_IS}\s(?:(?!{CLEFT}){VALUE}|{NAME}))|(?<=:\s)(?={VALUE}(?!{SAYS})))",
    re.IGNORECASE,
)
_IT_IS = re.compile(rf"\A\s*{IT_IS}\s", re.IGNORECASE)
_NO = re.compile(r"no(?![^\W_])", re.IGNORECASE)
_HELD = re.compile(r"(?<![^\W_])(?:still|correct|right|holds|confirm(?:s|ed)?|after\sall|fine)(?![^\W_])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Retraction:
    """Where a reply takes its answer back."""

    end: int
    """Where what it says instead begins, or is derived."""
    instead: bool
    """The value follows directly: "Wait, no: 6"."""


def retraction(masked: str) -> Retraction | None:
    """Finds the last place where a reply takes back an answer that it has announced. masked: the reply without its asides."""
    settled = SETTLED.search(masked)
    if settled is None:
        return None
    places = [(back, pattern is _NOW) for pattern in (_BACK, _NOW) for back in pattern.finditer(masked, settled.end())]
    last, instead = max(places, key=lambda place: place[0].end(), default=(None, False))
    return Retraction(last.end(), instead) if last and _is_own(masked, last) else None


def _is_own(masked: str, back: re.Match[str]) -> bool:
    """Whether it is the answer that is taken back: not another agent's, nor a doubt of its own (Is it 9? No, that's wrong)."""
    before = sentence_before(masked, back.start())
    return not is_somebodys(before) and bool(SETTLED.search(before) or not _NO.match(back[0]))


def in_its_place(reply: str, back: Retraction) -> str:
    """Has what follows announce what it says instead: It's 8."""
    rest = _IT_IS.sub("The answer is ", reply[back.end :])
    return f"The answer is {rest}" if back.instead and rest == reply[back.end :] else rest


def is_held(rest: str) -> bool:
    """Tells whether what follows comes back to the answer: "Wait, that's wrong. No, it holds"."""
    return bool(_HELD.search(rest))
