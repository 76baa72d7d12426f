r"""Choices in a text: a letter A to J that stands for an answer, and not for itself ("A train", "I think")."""

import re
from collections import deque

from maft.answers.options import options
from maft.answers.spelling import AND, AND_CJK, CJK, NOT, NOT_BUT_CJK, NOT_CJK, OR, OR_CJK
from maft.answers.texts import unwrapped, without_commands

_IN_PARENTHESES = r"\((?P<enclosed>[A-Ja-j])\)"  # (b)
_BARE = rf"(?P<bare>[A-J])(?![^\W_{CJK}]|['’])"  # B, but not "Bob" or "I'm"
_NO_PRONOUN = r"(?!(?<=I)\s[a-z])"  # I think
_WITH = r"along\swith|together\swith|as\swell\sas|plus"
_PREDICATE = (
    rf"(?:is|was|or|nor|{OR}|{AND}|{NOT}|{_WITH}|to|through|vs|as|but|because|since|would|must|should|seems|not|rather|than"
    r"|though|although|beats|over|while)"
)
_NO_ARTICLE = rf"(?!(?<=A)\s(?!{_PREDICATE}\b)[a-z])"  # A train, but "A is right" is a choice
_CHOICE = re.compile(rf"(?<![^\W_{CJK}])(?:{_IN_PARENTHESES}|{_BARE}{_NO_PRONOUN}{_NO_ARTICLE})")

_NAMED = r"(?:(?:the\s)?(?:option|choice|answer|letter)\s)?"
_OR = rf"(?:or|nor|and/or|vs\.?|to|through|{OR}|{AND}|{_WITH})"
_HEDGE = r"(?:maybe|perhaps|possibly|probably|alternatively|even|also|either|else)"
# Between two choices that are offered together: A or C  A/C  (A) and (C)  A, maybe C  (A) 5 or (C) 7
_TOGETHER = re.compile(
    rf"""[)\]$*_}}"']*+(?:\s?(?:[,;/&+|–—、-]|{OR_CJK}|{AND_CJK})\s?|\s|[,;]?\s\(?{_HEDGE},?\s)(?:\(?{_OR}\s)?(?:\(?{_HEDGE},?\s)?{_NAMED}[$*_"']*+
      | [)\]$*_}}"']*+[?!]{{1,3}}["']?\s\(?(?:{_OR}|{_HEDGE}),?\s(?:{_HEDGE}\s|(?:is|was)\sit\s)?{_NAMED}[$*_"'(]*+  # A? or C?
      | \)[^.;\n]{{1,60}}\s{_OR}\s(?:{_HEDGE}\s)?{_NAMED}""",
    re.IGNORECASE | re.VERBOSE,
)
# A small letter is a choice where it begins what is announced, or a line: b) Paris  option b
_OPTION = r"(?:the\s)?(?:option|choice|letter)\s(?P<named>[a-j])(?=[\s*_]*(?:[.,;:)!]|$))"
_SMALL = re.compile(rf"[\s*_\"']*+(?:{_OPTION}|(?P<listed>[a-j])(?:\)|:\s|\s[-–—]\s))", re.IGNORECASE)
_SMALL_OFFERED = re.compile(r"[)\s*_,]*+(?:or|and|nor|[/&])\s?(?:(?:option|choice)\s)?\(?[a-j](?![^\W_])", re.IGNORECASE)
_SMALL_LINE = re.compile(r"^[ \t*_>-]*+(?P<listed>[a-j])(?:\)|\.(?=\s))", re.MULTILINE)
# No choices: agents whose name is a letter, a reason behind a choice, what it is preferred to (B > A).
_AGENT = re.compile(r"(?<![^\W_])agents?\s[A-J](?:(?:,|\sand|\sor|,\sand)\s[A-J])*(?![^\W_])", re.IGNORECASE)
_REASON = re.compile(
    r"(?P<choice>(?<![^\W_])(?:\([A-Ja-j]\)|[A-J](?![^\W_]))[*_$)]*+)"
    r"(?:,?\s(?:since|because|over|rather\sthan|as(?!\swell)|(?:even\s)?though|although|unlike|beats|than|while|whereas)\s|\s?>\s?"
    r"|\s(?:is|seems|looks|fits)\s(?:\w{1,10}\s)?(?:better|stronger|likelier|closer|more\s\w{1,16})\sthan\s)"
    r"(?:(?!\s(?:but|so|then|therefore|thus|hence|yet|until)\s)(?:[^.?!,;\n]|,\s(?:and\s)?(?=\(?[A-J](?![^\W_])))){0,200}"
)
_HEDGED = re.compile(r"(?<![^\W_])(?:could|might|may)\s(?:also|equally|just\sas\swell|even)\sbe\s[$*_(\"']*$", re.IGNORECASE)
# It's B. D would need more: one that is chosen, and what is only said of another one
_CHOSEN = re.compile(
    r"(?<![^\W_])(?:it['’]s|it\sis|(?:I|we)(?:['’]d|['’]ll|\swould|\swill)?\s(?:choose|pick|select|take|say|prefer|keep|go\swith|stand\sby|stick\swith))\s"
    rf"{_NAMED}[$*_(]*+(?P<letter>(?-i:[B-HJ]|[AI](?!\s[a-z])))(?![^\W_])(?=[)$*_]*+[.;,:]?\s)",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r"[)*_]*+\s(?:would|could|might|may|needs|requires|has|does|only|also|is\s(?:too|only|close|less|similar|tempting))(?![^\W_])(?!\sbe\s(?:the|right|correct|true|better|best))"
)
# Said of a choice that is not taken: not A, rule out A, A is wrong.
_DENIED_BEFORE = re.compile(
    rf"(?:(?<![^\W_])(?:not|never|neither|nor|cannot|(?:better|stronger|likelier|closer|rather|more\s\w{{1,16}})\sthan|instead\sof|unlike"
    r"|exclude|eliminate|discard|reject|rules?\sout|ruled\sout|hardly)"
    rf"|n['’]t|{NOT})\s(?:be\s|choose\s|pick\s)?{_NAMED}[$*_(]*$|(?:{NOT_CJK})\s?[$*_(]*$",
    re.IGNORECASE,
)
_WRONG = r"(?:n['’]t|not|wrong|incorrect|false|out|impossible|eliminated|excluded|clearly\swrong)"
_WRONG_ABROAD = (
    r"\s(?:ist|is|est|es|è|é|está|är|er)\s(?:falsch|nicht\s(?:richtig|korrekt)|faux|fausse|incorrect[eao]?|falso|sbagliat[ao]|errad[ao]|fout|fel|feil)"
    r"|\s?(?:—\s)?(?:не\s?верн\w+|неправильн\w+)"
)
_WRONG_CJK = rf"\s?[はが]?\s?(?:是?[错錯]|誤り|間違い|不正解|違|是?不[对對]|是?不正[确確]|是?不符|太)|{NOT_BUT_CJK}"
_DENIED_AFTER = re.compile(  # A is wrong
    r"[)\]$*_}]*+(?:\s(?:(?:does|do|did|has|would|will|should)\s?(?:n['’]t|not)(?!\s(?:exist|change|depend|have|affect|contradict)(?![^\W_]))|has\san?\s(?:\w{1,12}\s)?(?:error|mistake|flaw)"
    rf"|(?:is|are|was|were|seems|looks|would\sbe|can|could)\s?{_WRONG})"
    # A and B are wrong, but not "A, and B is wrong", which denies B alone
    rf"|(?:,\s\(?[A-J]\)?){{0,8}},?\s(?:and|or)\s\(?[A-J](?![^\W_])[)\]$*_}}]{{0,3}}\s(?:do\s?(?:n['’]t|not)|(?:are|were)\s?{_WRONG})|{_WRONG_ABROAD})(?![^\W_])"
    rf"|[)\]$*_}}]*+(?:{_WRONG_CJK})",
    re.IGNORECASE,
)
# A line that is a choice and nothing else: **B**  (b)  Option B.
_ALONE = re.compile(r"[\s*_$`(\"']*+(?:(?:option|choice)\s)?\(?(?P<letter>[A-Ja-j])[\s*_$`).:!\"']*+", re.IGNORECASE)
# A text that begins with its verdict: B is the correct answer because ...  B. Because ...  (B) - since ...
_VERDICT = re.compile(
    r"[\s*_]*+(?:the\s)?(?:(?:option|choice|answer)\s)?\(?(?P<letter>[A-J])(?:[)*_]*+\s(?:is|must\sbe)\s(?:the\s)?(?:only\s)?(?:correct|right|best|answer)"
    r"|[).:,*_]*+\s(?:[-–—]\s)?(?:because|since|given\sthat|due\sto))(?![^\W_])",
    re.IGNORECASE,
)
_ITEM = re.compile(  # C) A and B  D — A and B
    r"[\s*_]*\(?(?P<letter>[A-J])(?:(?:\)|:)\s+(?!(?:or|and|nor|&)(?![^\W_])|\(?[A-J][):])(?=\S)|\s[–—-]\s(?=[A-J]\s(?:and|or)\s[A-J](?![^\W_])))"
)


def choice_of(phrase: str) -> str | None:
    """Finds the choice that a phrase takes; None if there is none, empty if it takes several."""
    phrase = " ".join(without_commands(phrase).split())
    if (item := _ITEM.match(phrase)) and not re.search(r"(?<![^\W_])[A-J][):]", phrase[item.end() :]):
        return item["letter"]
    bare = unwrapped(phrase)
    if len(bare) == 1:
        return bare.upper() if bare.upper() in "ABCDEFGHIJ" else None
    if _both(bare):
        return ""
    small = _SMALL.match(phrase)
    if small and not _CHOICE.search(phrase[: small.end()]):
        return "" if _SMALL_OFFERED.match(phrase, small.end()) else (small["named"] or small["listed"]).upper()
    first = next((choice for choice in _CHOICE.finditer(phrase) if not _is_denied(choice)), None)
    if first is None:
        return None
    return "" if _is_one_of_several(first) else _letter(first)


def last_choice(text: str) -> str | None:
    """Finds the last choice of a text, whatever it is there for; those that it rejects are none, nor is one of several, nor are
    the letters of a list of the options."""
    if first := _first_line(text):
        return first
    if looked_at := options(text):
        chosen = deque(_CHOSEN.finditer(text, 0, looked_at.start), maxlen=1)  # and no letter of the question
        return _last(text[looked_at.end :]) or looked_at.right or (chosen[0]["letter"].upper() if chosen else None)
    return _last(text)


def _last(text: str) -> str | None:
    own = _REASON.sub(lambda reason: reason["choice"], _AGENT.sub("", text))
    taken = deque((choice for choice in _CHOICE.finditer(own) if not _is_denied(choice)), maxlen=2)
    if not taken:
        return _small(text)
    if _WEAK.match(own, taken[-1].end()) and (chosen := deque(_CHOSEN.finditer(own, 0, taken[-1].start()), maxlen=1)):
        return chosen[0]["letter"].upper()
    hedged = _HEDGED.search(own[max(0, taken[-1].start() - 40) : taken[-1].start()])
    return None if hedged or (len(taken) == 2 and _are_together(*taken)) else _letter(taken[-1])


def letter_alone(line: str) -> str | None:
    """The letter of a line that is a choice and nothing else."""
    alone = _ALONE.fullmatch(line)
    return alone["letter"].upper() if alone else None


def _first_line(text: str) -> str | None:
    """The letter that a text begins with, alone on its line, where no other line is one, or as its verdict: what follows explains
    it."""
    first, *others = text.strip().split("\n")
    alone = letter_alone(first)
    if alone and not any(map(letter_alone, others)):
        return alone
    verdict = _VERDICT.match(first)
    return verdict["letter"].upper() if verdict else None


def _small(text: str) -> str | None:
    """The one small letter with which lines begin, as b) Paris."""
    letters = {line["listed"] for line in _SMALL_LINE.finditer(text)}
    return letters.pop().upper() if len(letters) == 1 else None


def _both(bare: str) -> bool:
    return bool(re.fullmatch(r"[A-J](?:\s?[,/&+]\s?[A-J])+", bare))


def _is_one_of_several(first: re.Match[str]) -> bool:
    """Whether another letter is offered beside the first."""
    other = _CHOICE.search(first.string, first.end(), first.end() + 100)
    return other is not None and _are_together(first, other) and not _is_denied(other) and not _goes_on(other)


def _are_together(first: re.Match[str], other: re.Match[str]) -> bool:
    between = first.string[first.end() - (first["enclosed"] is not None) : other.start()]
    return _letter(first) != _letter(other) and len(between) < 100 and bool(_TOGETHER.fullmatch(between))


def _goes_on(choice: re.Match[str]) -> bool:
    """Whether a sentence of its own begins with the letter: "B, A is too small"."""
    return bool(
        re.match(r"[)\]]?\s(?:is|was|would|has|does|seems|looks)(?![^\W_])", choice.string[choice.end() : choice.end() + 12])
    )


def _is_denied(choice: re.Match[str]) -> bool:
    before = choice.string[max(0, choice.start() - 40) : choice.start()]
    return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(choice.string, choice.end()))


def _letter(choice: re.Match[str]) -> str:
    return (choice["enclosed"] or choice["bare"]).upper()
