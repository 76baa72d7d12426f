r"""Whose answer it is that a reply tells of: its own, another agent's, or its own of before.

"Agent 2's answer is 5" and "Agent 1 got $\boxed{7}$" are others' words; "Earlier I wrote: Answer: 7" was its own. Neither is what
the reply answers now, unless it says nothing else and stands by it. Patterns look no further than a bound, so time stays linear.
"""

import re

_NAME = r"(?:\s(?:\d{1,3}|[A-Z])(?:(?:,\s|\s(?:and|or)\s|\s?&\s?)(?:\d{1,3}|[A-Z])){0,4})?"  # Agent 2  Agents 1 and 2
_OTHER = r"(?:(?:the\s)?(?:other|first|second|third|next)\s)?(?:agents?|models?|students?|solutions?|others?|responses?|one)"
_SAYS = r"(?:says?|said|claims?|claimed|writes?|wrote|thinks?|thought|believes?|suggests?|states?|stated|argues?|argued)"
BEFORE = r"(?:previous|earlier|initial|original|prior|old|former)"
_PAST = rf"""(?<![^\W_])(?:
        (?:earlier|previously|before|initially|originally|at\sfirst|first|last\s(?:round|time)
          |in\s(?:an?|the|my|our)\s(?:{BEFORE}|first|last)\s(?:round|turn|answer|response|message|reply|attempt)),?\s(?:I|we)
      | (?:I|we)\s(?:had\s)?(?:earlier|previously|initially|originally|first))
    \s(?:had\s)?(?:{_SAYS}|answered|replied|got|had|gave|found)(?:\sthat)?"""  # Earlier I wrote  I previously claimed that
_NOT_MINE = re.compile(
    rf"""(?: (?<![^\W_]){_OTHER}(?:\s(?:\d{{1,3}}|[A-Z]))?['’]s?\s(?:\w+\s)?
      | (?<![^\W_])according\sto\s{_OTHER}(?:\s(?:\d{{1,3}}|[A-Z]))?,?\s(?:the\s)?
      | (?<![^\W_])(?:their|his|her)\s(?:\w+\s)?
      | (?<![^\W_])(?:{BEFORE}|wrong|incorrect|tempting|na[iï]ve|common|typical|popular|intuitive)\s
      | (?<![^\W_])(?<!I\s)(?<!we\s)(?<!I\sstill\s)(?<!We\s){_SAYS}(?:\sthat)?:?\s["“'‘]?(?:(?:the|its|their)\s)?(?:\w+\s)?
      | (?<![^\W_])(?:at\sfirst\s(?:glance|sight)|na[iï]vely|intuitively),?\s(?:the\s)?(?:\w+\s)?
      | (?<![^\W_])(?:if|suppose|assume|assuming|whether)(?:\sthat)?\s(?:the|my)\s(?:\w+\s)?
    )$""",
    re.VERBOSE | re.IGNORECASE,
)
_MINE_BEFORE = re.compile(rf"""{_PAST}:?\s["“'‘]?(?:(?:the|my)\s)?(?:\w+\s)?$""", re.VERBOSE | re.IGNORECASE)

# --- boxes ---

# Only who debates has boxes of his own: "each student got $\boxed{5}$ pears" is a story.
SOME = r"(?:one|an?other|the\s(?:other|first|second)|both|all)"
_AGENT = rf"(?<![^\W_])(?:{SOME}\s(?:\w+\s)?agents?|agents?{_NAME})"
SPEAKER = r"(?<![^\W_])(?:(?:students?|models?|solutions?|responses?)\s(?:\d{1,3}|[A-Z])|the\sothers)"
OPINES = rf"(?:{_SAYS}|answered|proposes?|proposed|concludes?|concluded|agrees\swith)"
_REACHES = r"(?:arrive[sd]?\sat|reach(?:es|ed)?|(?:comput|deriv|obtain)e?[sd])"
_GETS = rf"(?:{OPINES}|{_REACHES}|answers?|gets?|got|finds?|found|gives?|gave|has|have|had)"
# Begins the reply's own words: Agent 1 says 7 but it is | 8
_TURNS = r"(?:I|me|my|we|our|but|so|hence|thus|therefore|yet|while|whereas|however|which|it|this|giving|making)"
_WORDS = rf"(?:\s(?!{_TURNS}(?![^\W_]))[^\s.,;:!?\d\\$]{{1,20}}){{0,6}}?"
_THEIR = r"(?:\w+\s)?(?:answers?|results?|box(?:es)?|replies|reply|responses?|conclusions?|solutions?(?=\s(?:of|is|was)\s))"
_THEIRS = rf"(?:\s{_THEIR}{_WORDS})?"  # Agent 1's | 7  Agent 1's final answer is | 7, but "Agent 1's method gives" is the reply's
_HELD = r"""(?:\s(?:=|[a-z]\s=))?(?:[:,]\s?|\s)\s?["“'‘*_$(\\\[]{0,6}$"""  # up to the box
_BOX_OF_OTHERS = re.compile(
    rf"""(?: {_AGENT}(?: ['’]s?{_THEIRS} | {_WORDS}\s{_GETS}(?:\sthat)?(?:\sit\sis)?{_WORDS} | (?=:\s|\s\() )
      | {SPEAKER}(?: ['’]s?\s{_THEIR}{_WORDS} | {_WORDS}\s{OPINES}{_WORDS} | (?=:\s|\s\() )
      | (?<![^\W_])according\sto\s{_OTHER}{_NAME},?(?:\s(?:it|the\sanswer)\s(?:is|was))?
    ){_HELD}""",
    re.VERBOSE | re.IGNORECASE,
)
_AND_THE_OTHER = re.compile(
    r"\sagents?(?![^\W_])(?:(?!\s(?:I|my|we)\s).){1,120}(?<![^\W_])"
    rf"(?:(?<=\}}\s)and|(?<=\}}\$\s)and|the\sother|another|the\ssecond|the\sthird)(?:\sone)?(?:\s{_GETS})?{_HELD}",
    re.IGNORECASE | re.DOTALL,
)
_BOX_OF_BEFORE = re.compile(
    rf"(?:{_PAST}{_WORDS}|(?<![^\W_])my\s(?:{BEFORE}|first|last)\s(?:answer|box|result|reply|response){_WORDS}){_HELD}",
    re.IGNORECASE | re.VERBOSE,
)
HOLDS = r"(?:agreed?|agreeing|concur|confirm(?:s|ed)?|correct|right|holds|accept|trust|go\swith|support|same)"
KEEPS = r"confirm(?:s|ed)?|correct|right|accept|trust|keep(?:ing)?|maintain|stand|stick|repeat|still"
_STANDS = re.compile(rf"(?<![^\W_])(?:{KEEPS})(?![^\W_])", re.IGNORECASE)
_KEPT = re.compile(rf"(?<![^\W_])(?:{HOLDS}|{KEEPS}|like|as|remains?|stays?|unchanged)(?![^\W_])", re.IGNORECASE)
_UPHELD = re.compile(rf"(?<!not\s)(?<!n['’]t\s)(?<!never\s)(?<!not\sbe\s)(?<![^\W_]){HOLDS}(?![^\W_])", re.IGNORECASE)
_DROPPED = re.compile(
    r"(?<![^\W_])(?:but|now|however|wrong|incorrect|instead|mistaken?|changed?|I\s(?:get|find))(?![^\W_])", re.IGNORECASE
)
_LABEL = re.compile(r"\W*agent\s\w{1,3}:\W*", re.IGNORECASE)  # a reply that calls itself by its name
_ANYTHING = re.compile(r"[^\W_]")
_SENTENCE = re.compile(r"[.!?;]\s|\n")
# Whose announcement it is: Agent 1 concluded the | answer is 7  Agent 1: The | answer ...  Per Agent 1, the | answer ...
TELLS = rf"(?:{_GETS}|determine[sd]?|calculate[sd]?|reports?|reported|insists?|agrees?|agreed)"
_TOLD = re.compile(
    rf"""(?: (?:{_AGENT}|{SPEAKER}|the\s(?:first|second|third|other)\s(?:solution|response|agent)){_WORDS}\s{TELLS}(?:\sthat)?
      | {_AGENT}(?:\s(?:final\s)?|\**\s?[:(]\**)
      | (?:per|for|according\sto|in)\s{_AGENT}(?:['’]s?\s\w+)?,?
    )\s?["“'‘*]{{0,3}}(?:(?:the|its|their)\s)?(?:\w+\s)?$""",
    re.VERBOSE | re.IGNORECASE,
)
# Supposed: If you forget the carry, the | answer is 9  For n = 5 the | answer would be 9
_SUPPOSED = re.compile(
    r"(?:,?\s(?:but|and|while|though)\s|(?<![^\W_]))(?:if|without|unless|had|suppose|assuming|ignoring|forgetting|neglecting)\s[^.!?;\n]{1,100},?\s(?:then\s)?(?:the|my)\s(?:\w+\s)?$",
    re.IGNORECASE,
)
_WOULD = re.compile(
    r"(?:,?\s(?:but|and|while|though)\s|(?<![^\W_]))(?:for|with|in)\s[^.!?;\n]{1,60}?,?\s(?:the|my)\s(?:\w+\s)?$", re.IGNORECASE
)
_BY_OTHERS = re.compile(
    r"\s(?:of|by|from|to)\s(?:the\s)?(?:(?:other|first|second)\s)?(?:agents?|others|(?:previous|earlier)\s(?:question|problem))(?![^\W_])",
    re.IGNORECASE,
)
# "The answer is 42". But ...
_QUOTED = re.compile(r"""["“](?:the\s)?$""", re.IGNORECASE)
_UNQUOTED = re.compile(r"""[^"”\n]{1,60}["”][.,]?\s(?:but|however|yet)(?![^\W_])""", re.IGNORECASE)
_SOMEBODY = re.compile(r"agent|student|model|solution|response|others", re.IGNORECASE)  # without whom the slow part need not look
_OWN = re.compile(r"(?<![^\W_])(?:I|[Mm]y)(?![^\W_])")
_THE = re.compile(r"the\s$", re.IGNORECASE)
_BACK, _ON = 160, 160  # characters before and behind a box that tell whose it is, and whether the reply stands by it


def is_of_others(text: str, marker: re.Match[str]) -> bool:
    """Tells whether what is announced there is another's answer, one of before, or supposed."""
    at = marker.start()
    if _NOT_MINE.search(text[max(0, at - 60) : at]):
        return True
    if _QUOTED.search(text[max(0, at - 6) : at]) and _UNQUOTED.match(text, marker.end()):
        return True
    if _BY_OTHERS.search(marker[0]):
        return not _UPHELD.search(text[marker.end() : marker.end() + _ON])
    clause = _SENTENCE.split(text[max(0, at - _BACK) : at])[-1]
    if not _SOMEBODY.search(clause) or not _TOLD.search(clause) or _OWN.search(clause) or _STANDS.search(clause):
        return False
    name = _THE.sub("", text[:at]) if at <= 30 else text  # Agent 1: The answer is ...
    return not _UPHELD.search(text[at : at + _ON]) and not _is_labelled(text, len(name))


def supposed_from(text: str, marker: re.Match[str]) -> int | None:
    """Finds where a clause begins that announces what the answer would be if something else were so; None where none does."""
    back = max(0, marker.start() - _BACK)
    clause = _SENTENCE.split(text[back : marker.start()])[-1]
    supposed = _SUPPOSED.search(clause) or ("would" in marker[0] and _WOULD.search(clause))
    return marker.start() - len(clause) + supposed.start() if supposed else None


def begins_sentence(text: str, at: int) -> int:
    """Finds where the sentence begins in which something stands, as far as it tells whose it is."""
    return at - len(_SENTENCE.split(text[max(0, at - _BACK) : at])[-1])


def sentence_before(text: str, at: int) -> str:
    """Returns the sentence that ends there, as far as it tells whose it is."""
    return next((part for part in reversed(_SENTENCE.split(text[max(0, at - _BACK) : at])) if part.strip()), "")


def is_somebodys(sentence: str) -> bool:
    """Tells whether a sentence speaks of another agent."""
    return bool(_SOMEBODY.search(sentence))


def is_of_before(text: str, at: int) -> bool:
    """Tells whether the reply announces there what it once answered."""
    return bool(_MINE_BEFORE.search(text[max(0, at - 100) : at]))


def owner(text: str, start: int) -> str:
    """Tells whose box starts there: empty for the reply's own, `other`, or `before` for one that it once gave."""
    before = text[max(0, start - _BACK) : start]
    clause = _SENTENCE.split(before)[-1].replace("**", "")
    if _KEPT.search(clause):
        return ""
    if _BOX_OF_BEFORE.search(clause) or _is_labelled(text, start):
        return "before"
    return "other" if _BOX_OF_OTHERS.search(clause) or _AND_THE_OTHER.search(" " + clause) else ""


def _is_labelled(text: str, start: int) -> bool:
    """Whether the box stands in a reply that calls itself by its name, and lists no other agent's."""
    return start <= 20 and bool(_LABEL.fullmatch(text[:start])) and "agent" not in text[start : start + _ON].lower()


def is_upheld(text: str, whose: str, end: int, until: int) -> bool:
    """Tells whether the reply stands by such an answer, by what it says between its end and the next one."""
    behind = text[end : min(until, end + _ON)]
    if whose == "before":
        return not _DROPPED.search(behind)
    return bool(_UPHELD.search(behind)) or not _ANYTHING.search(text, end, end + _ON)
