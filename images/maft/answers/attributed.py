r"""Values that a reply tells of and does not give: another agent's, its own of before. "I got 8, while Agent 1 got 7."

They are replaced before the last number or choice is looked for, each with its clause. The reply's own they are where it stands by
them: "I agree with Agent 2, who got 9". Patterns look no further than a bound, so that time stays linear.
"""

import re

from maft.answers.whose import BEFORE, HOLDS, KEEPS, OPINES, SOME, SPEAKER, TELLS

_SIGN = "\x1a"  # in the place of a clause, as of an aside: it joins nothing
# What ends another's clause: Agent 1 says 7 | but it is 8  Agent 2 got 9 | , the total is 8
_TURN = r"""(?:,?\s(?:but|so|while|whereas|although|though|however|yet|hence|thus|therefore|which|giving|making|I|we|my|mine|our
    |and\s(?:I|it|this|that|so|then|the|agent)) | ,\s(?:it|the|this|that|then|actually|in\sfact|here|not))(?![^\W_])"""
_CLAUSE = rf"(?>(?:(?!{_TURN})(?:[^.!?;\n\x1a]|\.(?=\d))){{0,200}})"
_NUMBERED = r"agents?\s(?:\#?\d{1,3}|[A-HJ-Z])(?:(?:,\s|\s(?:and|or)\s|\s?&\s?)(?:agent\s)?(?:\d{1,3}|[A-HJ-Z])){0,4}"
_WHO = rf"(?:(?:{_NUMBERED}|{SOME}\s(?:\w+\s)?agents?)(?![^\W_]))"
_TAKES = (
    r"(?:prefer(?:s|red)?|ch(?:oo|o)se[sn]?|pick(?:s|ed)?|select(?:s|ed)?|(?:goes|went)\s(?:with|for)|favou?r(?:s|ed)?"
    r"|vote[sd]?(?:\sfor)?|opt(?:s|ed)?\sfor)"
)
_TELL = rf"(?:,?\s(?:who|all|both|also|each|then|still|now|\w+ly)){{0,2}}\s(?:{TELLS}|{_TAKES})(?![^\W_])"
_OPINE = rf"(?:\s(?:all|both|also|still|\w+ly))?\s(?:{OPINES}|{_TAKES}|got)(?![^\W_])"
_CHOICE_OF = r"(?:answers?|results?|boxes|box|reply|response|conclusion|choices?|picks?|values?|totals?|votes?)"
_VALUE = r"[$(*\\]{0,4}(?:[-−]?\d|[A-J](?![^\W_]))"
_OTHERS = re.compile(
    rf"""(?<![^\W_])(?:
        {_WHO}(?: {_TELL} | \s(?:is|was)\s(?:\w+ly\s)?(?:wrong|incorrect|mistaken|off)(?![^\W_])
          | ['’]s?\s(?:(?:\w+\s)?{_CHOICE_OF}(?![^\W_]) | (?:is|was)\s | (?={_VALUE})) )
      | (?:{SPEAKER}|(?:the|some|two|three|\d)\sothers|others){_OPINE}
      | (?:answers?|results?|choices?)\s(?:of|by|from)\s{_WHO}
      | (?:their|his|her)\s(?:\w+\s)?(?:answers?|choices?|repl(?:y|ies))\s(?:is|was|are|were|of)(?![^\W_])
    ){_CLAUSE}
    | (?<![^\W_]){_WHO}\**\s?\([^()\n]{{1,60}}\)
    | ^[^\w\n]{{0,8}}{_WHO}(?:['’]s\sanswer)?\**\s?[:=]{_CLAUSE}""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# Of its own, before: I'm changing my answer to 9 (it was 8)  Now 9, previously 8  my first answer was 8
_FORMERLY = r"(?:previously|formerly|originally|earlier|initially)"
_ONCE = re.compile(
    rf"""(?: \((?:(?:it|this|that)\s)?(?:was|used\sto\sbe)\s(?:\w+ly\s)?[^()\n]{{1,20}}\)
      | (?:(?<=[,(;])|(?<=[,(;]\s)){_FORMERLY}(?:\sit\swas)?\s[^\s,;()\n]{{1,16}}(?=\s?(?:[.)\n]|\Z))
      | (?<![^\W_])my\s(?:{BEFORE}|first|last)\s{_CHOICE_OF}\s(?:is|was|of){_CLAUSE} )""",
    re.VERBOSE | re.IGNORECASE,
)
_SOMEBODY = re.compile(r"agent|student|model|solution|response|others|their|his|her", re.IGNORECASE)
_BEGINS = re.compile(rf"[.!?;,\n\d–—]|{_TURN}", re.IGNORECASE | re.VERBOSE)
_HELD = re.compile(
    rf"(?<![^\W_])(?:{HOLDS}|{KEEPS}|correctly|rightly|verif\w+|join|stay(?:ing)?|(?:so|as)\sdo\sI|likewise|agrees|match(?:es|ing)?|coincides?)(?![^\W_])",
    re.IGNORECASE,
)
_LIKE = re.compile(r"(?<![^\W_])(?:as|like)\s\Z", re.IGNORECASE)
_FIXED = re.compile(
    r"(?<![^\W_])(?:found|noticed|spotted|caught|corrected|fixed)\s(?:my|our|the|an?)\s(?:\w+\s)?(?:mistake|error|slip)",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"(?<![^\W_])(?:not|never|cannot|wrong\w*|incorrect\w*|false|mistake\w*|error|disagree|however|but|forgets?|forgot|miss\w*)(?![^\W_])|n['’]t(?![^\W_])",
    re.IGNORECASE,
)
_ANOTHER = re.compile(r"\d|(?<![^\W_])[B-HJ](?![^\W_])|\x1a")
_ALL = re.compile(r"(?:both|all)\s", re.IGNORECASE)
_LABEL = re.compile(r"[\W_]*agent\s\w{1,3}\W{0,4}[:=]", re.IGNORECASE)
_SIDES = re.compile(
    r"(?<!n['’]t\s)(?<!not\s)(?<![^\W_])(?:agree|concur|side|go)\w{0,3}\swith\s(?P<whom>agent\s\w{1,3})(?![^\W_])", re.IGNORECASE
)
_ON = 160  # characters before and behind a clause that tell whether the reply stands by it


def own_words(text: str) -> str:
    """Replaces the clauses of a reply that tell of others' answers, and of its own of before, unless it stands by them."""
    if _SOMEBODY.search(text):
        first = _ANOTHER.search(text)
        begins = first.start() if first else len(text)
        only = text.lower().count("agent") == 1
        text = _OTHERS.sub(lambda clause: clause[0] if _is_own(clause, begins, only=only) else _SIGN, text)
    return _ONCE.sub(lambda once: once[0] if _is_upheld(once) else _SIGN, text)


def _is_own(clause: re.Match[str], begins: int, *, only: bool) -> bool:
    """Whether a reply stands by what others say, or is one that calls itself by its name, the only one in it. begins: where its
    first value stands; what all the others found before it has one of its own is its own."""
    if _is_upheld(clause):
        return True
    if clause.start() > begins:
        return False
    if only and _LABEL.match(clause[0]):
        return True
    return bool(_ALL.match(clause[0])) and not _DOUBT.search(clause.string, clause.start(), clause.end() + _ON)


def _is_upheld(clause: re.Match[str]) -> bool:
    """Whether the reply stands by a clause: "I agree with Agent 2, who got 9", and not only by another agent's."""
    text, start, end = clause.string, clause.start(), clause.end()
    before = _BEGINS.split(text[max(0, start - _ON) : start])[-1]
    behind = text[end : end + _ON]
    if side := _SIDES.search(behind):
        return side["whom"].lower() in clause[0].lower()
    words = f"{before}{clause[0]}{_ANOTHER.split(behind, maxsplit=1)[0]}"
    if _FIXED.search(words):  # Agent 2 found my mistake: it is 12
        return True
    return bool(_HELD.search(words) or _LIKE.search(before)) and not _DOUBT.search(words)
