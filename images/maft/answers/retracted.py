"""Where a reply takes its answer back: "The answer is 7. Wait, that's wrong. It's 8."

Only what it says of itself, in a sentence of its own: "Agent 2's answer is 8. That is wrong" takes nothing back. Patterns look no
further than a bound, so that time stays linear.
"""

import re

from maft.answers.announced import SETTLED
from maft.answers.whose import is_somebodys, sentence_before

_HALT = r"(?:wait|no|oops|sorry|actually|hold\son|hang\son|on\ssecond\sthought)[,.;:!…–—-]{1,3}\s?"
_HALTS = rf"(?:(?:oh|ah|hmm+|uh|but)[,.…]{{0,3}}\s)?(?:{_HALT}){{1,2}}"
_WRONG = r"(?:\w{1,12}ly\s)?(?:wrong|incorrect|false|not\s(?:right|correct)|a\smistake|an\serror)"
_IS_WRONG = (
    rf"(?:['’]s|\sis|\swas|\sseems|\slooks)\s{_WRONG}"
    r"|\s(?:(?:is|was|ca|could)n['’]t|cannot)\s(?:be\s)?(?:right|correct)"
)
_IT = rf"(?:that|this|it|(?:my|the)\s(?:answer|result))(?:{_IS_WRONG})"  # that's wrong
_MADE = r"made\s(?:an?|some)\s(?:\w{1,12}\s)?(?:mistakes?|errors?|slip)"
_SLIP = rf"(?:I|we)(?:['’]ve|\shave|\shad)?\s(?:{_MADE}|was\swrong|were\swrong|mis(?:calculated|counted|read|took))"
_ONCE = (
    r"[^.!?;:\n–—]{0,60}(?<![^\W_])(?:before|earlier|previous(?:ly)?|initial(?:ly)?|original(?:ly)?|rounds?|at\sfirst)(?![^\W_])"
)
# Up to the end of the sentence: Wait, that's wrong.  Oops, I made a mistake in the second step:
_BACK = re.compile(rf"(?<![^\W_]){_HALTS}(?:{_IT}|{_SLIP}(?!{_ONCE}))(?![^\W_])[^.!?;:\n–—]{{0,60}}[.!;:–—\n]", re.IGNORECASE)
_IT_IS = re.compile(
    r"\A\s*(?:so\s|then\s)?(?:it|that|this)(?:['’]s|\s(?:is|should\sbe|must\sbe|would\sbe|equals))(?:\sactually)?\s", re.IGNORECASE
)
_NO = re.compile(r"no(?![^\W_])", re.IGNORECASE)
_HELD = re.compile(r"(?<![^\W_])(?:still|correct|right|holds|confirm(?:s|ed)?|after\sall|fine)(?![^\W_])", re.IGNORECASE)


def place(masked: str) -> int | None:
    """Finds where the last sentence ends by which a reply takes back an answer that it has announced; None where it takes none
    back. masked: the reply without its asides."""
    settled = SETTLED.search(masked)
    back = next(reversed([*_BACK.finditer(masked, settled.end())]), None) if settled else None
    return back.end() if back and _is_own(masked, back) else None


def _is_own(masked: str, back: re.Match[str]) -> bool:
    """Whether it is the answer that is taken back: not another agent's, nor a doubt of its own (Is it 9? No, that's wrong)."""
    before = sentence_before(masked, back.start())
    return not is_somebodys(before) and bool(SETTLED.search(before) or not _NO.match(back[0]))


def in_its_place(rest: str) -> str:
    """Has what follows announce what it says instead: It's 8."""
    return _IT_IS.sub("The answer is ", rest)


def is_held(rest: str) -> bool:
    """Tells whether what follows comes back to the answer: "Wait, that's wrong. No, it holds"."""
    return bool(_HELD.search(rest))
