"""Where a reply announces its answer: "the answer is ...", "Answer: ...", "#### ...", and where it speaks of something else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from maft.answers.abroad import ANNOUNCED, NOT_THIS
from maft.answers.asides import BLOCK
from maft.answers.listed import Listed, listed
from maft.answers.spelling import BUT
from maft.answers.values import CLEFT, IT_IS, NAME, SAYS, VALUE
from maft.answers.whose import begins_sentence, is_of_before, is_of_others, is_upheld, supposed_from

# --- announcements ---

# GSM8K's "#### 12". Headings are none: "##### Step", "#### 2. Solve", "#### Now we add".
_HASHES = r"""
    (?<!\#)\#{4}\s*+
    (?! \# | \d++[.):]\s )
    (?= [^\s\w]{0,9}+[\d½⅓⅔¼¾⅕-⅞⅐-⅒] | \S{1,60}+[ \t]*+(?:\n|$)
      | (?>(?:\\[A-Za-z]{1,12} | [^\W\d_](?![^\W\d_]) | [^\w\n\\] | [\d_]){1,120})(?:\n|$) )  # -x**2 + x, without words
"""
_SUBJECT = r"(?<![^\W_])(?:answer|(?-i:ANS|Ans)(?=\.?[*_]{0,2}\s?:)\.?|correct\s(?:choice|option)|final\sresult)(?![^\W_])"
_QUESTION = r"""[^\n.:="“]{0,30}+["“][^\n"“”]{0,300}+["”]"""  # the answer to the question "What is 9 + 5?"
_GIVEN = r"[^\n.:=]{0,40}?\w\s?=\s?-?\d[\d.,/]{0,12}+(?=\s(?:is|was|equals)\s)"  # the answer for x = 3 is 7
_FOUND = r"(?:that\s)?(?:I|we)(?:['’]ve)?\s(?:get|got|find|found|obtain(?:ed)?|have|reach(?:ed)?|computed?|arrive\sat|c[oa]me\sto)"
_PART = (  # to the second part  I get  (in cm)
    rf"(?:\s(?:to|of|for|in|by|from)\s(?:{_QUESTION}|{_GIVEN}|(?:[^\n.:=()]|\([^()\n.:=]{{0,30}}\)){{0,60}}?)|\s(?:when|if|at|with)\s{_GIVEN}"
    rf"|\s{_FOUND}|\s\((?![A-J]\))[^()\n.:=]{{1,30}}\)|,\s(?:in|to|for|rounded)\s[^\n,.:=()]{{1,30}},)?"
)
_BESIDE = r"(?>(?:[*_]{0,2}\s\((?![A-J]\))[^()\n]{1,30}\))?)"  # Answer (in cm): 12
_COLON = rf"""(?P<colon>{_BESIDE}[\s*_"']*+ (?:[:=]>?|→|⇒|->))"""  # Answer: 12  **Answer**: 12  answer = 12
_MODAL = r"(?:does|would|will|should|must|can|could)"
_DENIAL = rf"""(?P<denial>(?:(?:is|was|wo|ca|{_MODAL})n['’]t | {_MODAL}\s?(?:not|never))(?:\s(?:be|equal))?)"""  # cannot be 12
_NO_RULE = r"(?!\s(?:\w+(?:ed|en)\s|(?:between|within|in|an?|at|less|more|greater)(?![^\W_])))"  # needs to be rounded to 2 digits
_OUGHT = rf"(?:(?:has|had|needs)\s(?:got\s)?to|ought\sto|can\sonly)\sbe{_NO_RULE}"  # has to be 12
_BE = rf"(?:(?:would|will|should|must)\s(?:be|equal)|{_OUGHT})"
_COMES = (
    r"(?:(?:comes|came)(?:\sout)?\s(?:to|as|at)|(?:turns|turned|works|worked)\sout\s(?:to\sbe|to|as|at)|ends\sup\s(?:being|as|at))"
)
_IS = rf"(?:is|was|remains|stays|{_BE}|equals|becomes|{_COMES}|amounts\sto|evaluates\sto)"
_VERB = rf"\s++ (?:{_DENIAL}|{_IS})(?![^\W_]) (?>(?:\s*+(?::|\.{{3}}|…))?)"  # the answer is 12  the answer would be: 12
_NEWLINE = r"(?P<newline>[*_ \t]*+ \n)"  # **Answer** alone on its line
# <final_answer>12</final_answer>  [ANSWER]12[/ANSWER]
_TAG = r"""(?:<(?:(?:final[_\ ]?)?answer|solution(?=>(?:[^<.\n]|\.\d){1,40}</))>
    | \[(?:final[_\ ]?)?answer\](?=[\s\S]{0,400}?\[/(?:final[_\ ]?)?answer\]))"""
# Answer: 5\nCorrected: 6  I change my answer to 9
_CORRECTING = rf"""(?<=\n)[\s*_]{{0,4}}(?:edit|updated?|correct(?:ed|ion)|revised)[*_]{{0,2}}(?P<corrected>:)[\s*_]++
    (?:{IT_IS}\s)?(?={VALUE}|{NAME})"""
_CHANGED = rf"""(?<![^\W_])(?:chang|revis|updat|correct)(?:e|ed|ing)\s(?:my|our|the)\s(?:\w+\s)?answer\s
    (?:from\s\S{{1,20}}\s)?to:?\s(?={VALUE}|{NAME})"""
_MARKER = re.compile(
    rf"{_TAG}\s*+ | {_HASHES} | {_CORRECTING} | {_CHANGED} | {ANNOUNCED}[\s*_]*+"
    rf"| {_SUBJECT} {_PART} (?: {_COLON} | {_VERB} | {_NEWLINE} ) [\s*_]*+",
    re.VERBOSE | re.IGNORECASE,
)
_TAG_END = re.compile(r"</(?:(?:final[_ ]?)?answer|solution)>|\[/(?:final[_ ]?)?answer\]", re.IGNORECASE)

SETTLED = re.compile(r"answer|\\boxed|####", re.IGNORECASE)
"""Tells that an answer may stand before what follows."""
# 42 is the answer.  So (C) is the correct choice.
_REVERSED = re.compile(
    r"""(?P<before>(?:^|[.!?:;,]\s|\n|(?<![^\W_])(?:so|thus|hence|therefore|that|means|conclude|think)\s)[\s*_]{0,4})
        (?P<what>(?:option\s|choice\s)?[$(*\\\[]{0,4}(?:[-−]?\d[\d.,/]{0,20}(?<![.,])|[A-J])[)$*\]\\]{0,4}(?:\s[a-z]{1,12})?)
        \s(?:is|must\sbe)\s(?:the|my|our)\s(?:(?:final|correct|right|best)\s)?(?:answer|choice|option)(?![^\W_])
        (?=[$*_)"'”’\]\\]{0,4}\s?(?:$|[.,;:!(–—\n]|(?<=\s)(?:-|(?:because|since|and|but|not|so|here|then)(?![^\W_]))))""",
    re.IGNORECASE | re.VERBOSE,
)
_UNSURE = re.compile(
    r"(?:n['’]t|(?<![^\W_])(?:not|cannot|never|unlikely|doubt|might|may|many|some))(?![^\W_])"
    r".{0,60}(?:that|means?|conclude|think)\s\W*$",
    re.IGNORECASE,
)
_SOMETHING = re.compile(r"[^\W_]|[½⅓⅔¼¾⅕-⅞⅐-⅒]")

# --- what an announcement denies, and what it puts in its place ---

_REMOTE = r"(?:hardly|far from|nowhere near)(?=\s[$\\(*]*(?:[-\d]|[A-J]\b))"  # hardly 5, but "far from home" is a text
_ALL_BUT = r"(?:anything|all|everything)\s(?:but|except)"
_NOT = re.compile(
    rf"[\s*_]*+(?:\w+ly\s)?(?P<word>not|never|neither|nor|no longer|{_ALL_BUT}|unlikely to be|nicht|{NOT_THIS}|{_REMOTE})"
    r"(?![^\W_])(?P<only>\s(?:only|just|merely))?",
    re.IGNORECASE,
)
_AS_TEXT = re.compile(r"all|everything", re.IGNORECASE)  # everything but water
_INSTEAD = re.compile(
    rf"(?<![^\W_])(?:{BUT}|but(?:\s(?:rather|instead))?|rather|instead|(?:it|that|this)(?:['’]s|\s(?:is|was|equals|must\sbe|should\sbe|would\sbe)))"
    rf"(?![^\W_])[,:]?+\s++(?!not\b|that\b|than\b|of\b)",
    re.IGNORECASE,
)
# "5. No, 6": the first is taken back. "5 is wrong": so is this.
_NO = r"(?:no|wait|oops|correction|scratch\sthat|hold\son|on\ssecond\sthought|let\sme\scorrect\sthat)"
_SORRY = (
    r"(?:sorry|actually|(?:my\s)?apologies|my\s(?:mistake|bad)|(?:up)?on\s(?:further\s)?reflection|(?:no|wait|sorry),\sactually)"
)
_TAKEN_BACK = re.compile(
    rf"""(?:[.?!,;:…–—(-]|\s)\s*+(?:(?:oh|ah|hmm+|but),?\s)?(?:
        (?:{_NO}[,.;:!…–—-]+\s++){{1,2}}
      | (?:{_NO}|{_SORRY})[,.;:!…–—-]*+\s++
        (?:{IT_IS}\s(?=(?!{CLEFT}){VALUE}|{NAME}) | (?={VALUE}(?!{SAYS}) | (?-i:[A-Z][^\s.]*[.!)]?\s*$)))
      | (?:edit|updated?|corrected|revised):\s++(?={VALUE}|{NAME}) | (?:I\smean|make\sthat|or\srather)\s++ )
      | (?<=\d)\s?->\s?(?=[-−]?\d)  # 7 -> 8""",
    re.IGNORECASE | re.VERBOSE,
)
# Of an answer that was: "5 but is now 6", "5, now I get 6", "5. It has become 6".
_WAS = re.compile(r"\swas\b", re.IGNORECASE)
_WHO = r"(?:it|that|this|(?:the|my)\sanswer|I|we)"
_HOLDS = r"(?:is|['’]s|equals|becomes|stands\sat|get|got|found|say|think(?:\sit\sis)?)"
_SINCE = re.compile(
    rf"""(?<![^\W_])(?:
        (?:(?:is|it['’]s|that['’]s)\s(?:now|currently) | now\s(?:{_WHO}\s?)?{_HOLDS} | but\s(?:is\s)?now(?=\s[-$(*\d"'A-Z\\])
        | (?<=[,;]\s)now(?=\s[-$(*]{{0,3}}\d) | (?:is|it['’]s)(?=\s[^\s.]{{1,20}}\snow(?![^\W_]))
        | (?:I|we)\s(?:now|then)\s{_HOLDS} | but\sthen\s(?:{_WHO}\s?)?(?:was|{_HOLDS}))(?:\s(?:at|to\sbe))?
      | (?:(?:has|have)\s(?:since\s|now\s)?become|became|(?:changed|corrected|revised|updated)\s(?:it\s)?to)
    )(?![^\W_]):?\s++(?!(?:clear|obvious|evident|known|confirmed|verified|proven|correct|right|final)(?![^\W_]))""",
    re.IGNORECASE | re.VERBOSE,
)
_WRONG = re.compile(
    r"""\S{1,40}+\s(?:is|was|seems|looks|would\sbe)\s(?:\w+ly\s)?(?:wrong|incorrect|false|mistaken|impossible|a\smistake)(?![^\W_])""",
    re.IGNORECASE,
)
# Announces nothing, or what comes on the next line.
_EMPTY = re.compile(
    r"(?:(?:un)?clear|obvious|simple|easy|straightforward|as follows|the (?:same|following)|above|below)(?! \w).*", re.I
)
_AHEAD = re.compile(r"[\s*_]*(?:as follows|the following|below|here|this|given by)?[\s*_]*:?[\s*_]*", re.IGNORECASE)
_OFFERED = re.compile(r"[\s*_$(]*(?:or|nor)(?![^\W_])", re.IGNORECASE)  # begins a line that belongs to the one before it
_SENTENCE = re.compile(r"[.!?;](?=\s|$)|\n")
_ITEM = re.compile(r"^\s{0,8}[-*+•]\s{1,4}(?=\S)")  # "- 12 apples" of a list; "-12" is a number
# The mark before a single number is none of it: "1. 7", "1. **18 dollars**"
_BARE = r"[$(*_\\]{0,4}[-−]?\d[\d.,/]{0,40}[$)*_\\%°]{0,4}(?:\s[^\W\d_]{1,15})?[*_]{0,3}[.;,]?[*_]{0,3}\s*"
_NUMBERED = re.compile(rf"^\s{{0,8}}\d[.)][*_]{{0,2}}\s{{1,4}}(?={_BARE}$)")


@dataclass(frozen=True, slots=True)
class Statement:
    """What follows an announcement: up to the next one, and of that the first line with a letter or a digit."""

    line: str
    colon: bool
    """Announced by a colon or a heading, not by a verb."""
    denied: bool
    """It says what the answer is not."""
    titled: bool
    """It begins with "Not", or "everything but", and may be a text that does."""
    doubted: bool
    """It asks ("The answer is 5?"), or announces nothing ("The answer is clear")."""
    only: bool
    """It says "not only": there are several."""
    listed: Listed | None
    """The list with which it begins, and ends there in the reply."""
    corrections: tuple[str, ...]
    """What it says the answer is instead; where it denies nothing: what takes its line back."""
    end: int
    """Where its first sentence ends, in the reply."""
    before: bool = False
    """It is what the reply once answered ("Earlier I wrote: Answer: 7"), or would if something else were so."""


def in_order(reply: str) -> str:
    """Writes "42 is the answer" as "The answer is 42", but not where a sentence doubts it."""
    return _REVERSED.sub(_turned, reply)


def _turned(behind: re.Match[str]) -> str:
    sentence = _SENTENCE.split(behind.string[max(0, behind.start() - 80) : behind.start("what")])[-1]
    return behind[0] if _UNSURE.search(sentence) else f"{behind['before']}The answer is {behind['what']}"


def statements(reply: str, masked: str) -> Iterator[Statement]:
    """Finds the reply's own announcements, last one first. masked: the same without its asides, where what is announced may lie."""
    end = len(reply)
    markers = list(_MARKER.finditer(masked))
    for n, marker in reversed(list(enumerate(markers))):
        supposed = supposed_from(masked, marker)
        before = supposed is not None or is_of_before(masked, marker.start())
        others = not before and is_of_others(masked, marker)
        if not others:
            statement = _statement(marker, _TAG_END.split(reply[marker.end() : end], maxsplit=1)[0])
            if not before or statement.denied or is_upheld(masked, "before", marker.end(), end):
                yield replace(statement, before=before and not statement.denied)
        begins = supposed if supposed is not None else begins_sentence(masked, marker.start()) if others else 0
        end = begins if n and begins >= markers[n - 1].end() else marker.start()


# Mathematics over several lines, with which an announcement begins: $$...$$  \[...\]  \begin{pmatrix}...\end{pmatrix}
_DISPLAYED = re.compile(
    r"\A[\s:*_]{0,9}(?:\$\$[^$]{0,2000}\$\$|\\\[(?:(?!\\\])[\s\S]){0,2000}\\\]"
    r"|\\begin\{(\w{1,12}\*?)\}[\s\S]{0,2000}?\\end\{\1\})"
)


def _statement(marker: re.Match[str], text: str) -> Statement:
    first, *others = _DISPLAYED.sub(lambda shown: shown[0].replace("\n", " "), text, count=1).split("\n")
    if "\n" in marker[0].rstrip(" *_"):
        first = _unmarked(first)
    elif marker["colon"] and first.startswith("1"):
        first = _NUMBERED.sub("", first)
    lines = [part for part in (first, *map(_unmarked, others)) if _SOMETHING.search(part)] or [""]
    if len(lines) > 1 and _AHEAD.fullmatch(lines[0]):
        lines = lines[1:]
    goes_on = len(lines) > 1 and (_OFFERED.match(lines[1]) or lines[0].rstrip().endswith((" or", " nor", " but")))
    line = f"{lines[0]} {lines[1]}" if goes_on else lines[0]
    colon = bool(marker["colon"] or marker["newline"] or marker["corrected"] or marker["abroad"]) or marker[0].startswith(
        ("#", "<", "[")
    )
    not_ = _NOT.match(line)
    past = bool(_WAS.search(marker[0]) and _SINCE.search(line[:400]))
    denied = bool(marker["denial"] or not_ or past or _WRONG.match(line))
    pattern = _SINCE if past else _INSTEAD if denied else _TAKEN_BACK
    head = text[:400] if denied else line[:400]
    parts = tuple(_tail(head, correction) for correction in pattern.finditer(head, not_.end() if not_ else 0))
    sentence = _SENTENCE.search(text)
    end = marker.end() + (sentence.end() if sentence else len(text))
    titled, only = bool(not_ and (not_["word"].istitle() or _AS_TEXT.match(not_["word"]))), bool(not_ and not_["only"])
    asks = bool(sentence and sentence[0] == "?" and not parts)
    doubted = asks or (not colon and bool(_EMPTY.fullmatch(line.strip(" .:*"))))
    return Statement(line, colon, denied, titled, doubted, only, _list(marker, text, colon=colon), () if only else parts[:4], end)


def _tail(head: str, correction: re.Match[str]) -> str:
    """What it corrects to: up to the end of its line, or of its brackets (sorry, 8)."""
    return head[correction.end() :].partition("\n")[0].partition(")" if correction[0].lstrip().startswith("(") else "\n")[0]


def _list(marker: re.Match[str], text: str, *, colon: bool) -> Listed | None:
    """The list with which begins what is announced on the next line, or behind a colon."""
    _, next_line, begun = marker[0].partition("\n")
    its = listed(begun + text) if next_line or colon else None
    return its and replace(its, end=marker.end() - len(begun) + its.end)


def _unmarked(line: str) -> str:
    """A line without the mark of a quotation or of a list's item; empty for the fence of a block."""
    line = "" if BLOCK.match(line) else line.lstrip("> ") if line.lstrip().startswith(">") else line
    return _NUMBERED.sub("", _ITEM.sub("", line, count=1), count=1)
