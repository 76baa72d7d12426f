r"""Texts and mathematics as answers: one spelling for what reads the same."""

import re
import unicodedata
from collections.abc import Callable

from maft.answers import multiples, parts
from maft.answers.numbers import exact
from maft.answers.spelling import OR, OR_CJK, arithmetic, plain, without_layout, without_separators
from maft.answers.units import LARGE, without_units

# \text{B}  \mathrm{B}  \underline{B}
_WRAPPED = re.compile(r"\\(?:text\w*+|math\w++|mbox|emph|operatorname|underline|boldsymbol|bm)\s?\{([^{}]*+)\}")
_DELIMITERS = re.compile(r"\\++[()\[\]]")
_LINK = re.compile(r"\s*\[([^\[\]]{1,200})\]\([^()\s]{0,300}\)\s*\.?")  # [Paris](url)
_ESCAPED = re.compile(r"\\([%&_$#])")  # 50\%
_AROUND = '$*`" '  # mathematics
# 👍 ✅ ✔ ✓ ⭐, but no sign of music or of cards: B♭  A♠
_ORNAMENTS = "".join(map(chr, (*range(0x1F1E6, 0x1F200), *range(0x1F300, 0x1FB00)))) + "✅✔☑✓⭐✨➡→☺❤"
_MARKS = " \t.,;:!?*_`\"'$()[]{}"
_SIGNS = str.maketrans(
    dict.fromkeys("‘’ʼ‚‛´❛❜‹›", "'") | dict.fromkeys("“”„‟«»「」『』《》〈〉【】〝〞❝❞", '"') | dict.fromkeys("‐‑‒–—−", "-")
)
_NUMBER_AS_WORD = re.compile(r"\\(?:text\w*+|math(?:bf|rm|it)|mbox)\s?\{\s?(-?\d[\d.,/]*+)\s?\}")  # \text{5}
_ROOT = re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)\s?(?:[({](?P<of>[^(){}]{1,40})[)}]|(?P<number>\d++|(?<=√)[a-z](?![a-z])))")
_TYPED = re.compile(r"(?<![\\A-Za-z])(?:pi|infty)(?![A-Za-z])")
_RAISED = re.compile(r"(?<=[\w)\]])\*\*(?=[\d({-])")  # x**2, but no bold type
_AS_LATEX = {"∞": "\\infty", "π": "\\pi", "·": "\\cdot", "×": "\\times"}
_SIGN = re.compile(r"([∞π·×])(?P<more>(?=[A-Za-z]))?")  # 2πr: a command ends before a letter
# What goes on: 1, 2, ...  0.333...  1 + 2 + \cdots, but a reply that ends in "12..." has ended
_DOTS = re.compile(r"\\[cdl]?dots[bcimo]?(?![A-Za-z])|(?P<kept>[,+]\s{0,3}|\.\d{1,40}+)(?:\.{3,}|…)")
_POWER = re.compile(r"\^\{([-+]?\d++)\}")

# What ends a text: a reason, a remark, another one that it is not.
_THINK = r"I\s(?:think|guess|believe|suppose|assume|presume|reckon|am\s(?:sure|certain)|would\ssay)(?:\sso)?(?=\W*(?:,|$))"
_OPINION = rf"(?:{_THINK}|if\sI|as\sfar\sas\sI|in\smy\sopinion)"  # Paris, I think
_SAYS_MORE = r"(?:,|\s[-–—])?\sand\s(?:it|this|that|he|she|they)\s(?:is|was|are|were|has|have|lies)\s"  # Paris and it is big
_REMARK = re.compile(
    r",?\s(?:because|rather\sthan|instead\sof|since(?=\s(?:it|the|this|that)\s))\s|[;!]\s(?=(?:it|this|that|they|the|there)\s)"
    r"|,\s(?:but\sI(?:['’]m)?|although|while|so|since|as|which|where|and\snot|but\snot|not|given)\s"
    rf"|,\s{_OPINION}(?![^\W_])|{_SAYS_MORE}|\s(?:and|but)\snot\s|\s\((?!\w{{1,3}}\))",
    re.I,
)
_LONG_SENTENCE = re.compile(
    r"(?<=[a-z0-9)\]*\"'}]{3})\.\s++(?=[A-Z])|\.\s++(?=(?:It|He|She|They|This|That|There|I|We)\s)"
)  # leaves "St. Petersburg" whole
_SAYS_WHY = r"(?:it|this|that|they|the|there|he|she|we|you|I)(?![^\W_])"
_TRUTH = re.compile(  # Yes. It is.  No, it is not.
    rf"[\s*_\"']*+(?P<word>yes|no|true|false)[*_\"']*+(?:[.;!]\s(?!\d)|\s?[–—]\s?|\s-\s|,\s{_SAYS_WHY})", re.IGNORECASE
)
_QUOTED = re.compile(r"""[\s*_]*+["“«「『《【]([^"”»」』》】\n]++)["”»」』》】](?!\W*(?:or|nor)(?![^\W_]))""")  # "Life or Death"
_MAYBE = r"(?:maybe|perhaps|possibly|probably|alternatively)"
_SEVERAL = re.compile(rf"(?<![^\W_])(?:or|nor|either|neither)(?![^\W_])|\s/\s|(?<=\w),\s(?:but\s)?{_MAYBE}\s", re.I)
# What stands before an answer and is none of it: therefore Paris  In fact, Paris, but "Still Alice" and "still life" are texts
_SO = r"(?:therefore|thus|hence|indeed|undoubtedly|most\slikely|without\s(?:a\s)?doubt|in\sfact|of\scourse|obviously|evidently)"
_ADVERB = "certain|sure|apparent|presumab|unquestionab|indisputab|absolute|actual|ultimate|consequent|according|natural|final"
_SURELY = rf"(?:(?:{_ADVERB})ly|still)"
_HEDGE = re.compile(
    rf"[\s*_]*(?:(?i:{_MAYBE}|definitely|clearly|simply|likely)\s|{_SO}\s|(?i:{_SO}|{_SURELY}),\s"
    rf"|{_SURELY}\s(?=[A-Z\d$\"“*]|(?:yes|no|true|false)(?![^\W_])))(?=\S)(?!(?:not|I|and|but|because)(?![^\W_])|[^\s\w\"'“‘«「『《(\[{{$\\*`.√-])"
)
_ITEM = re.compile(r"\s*[-*+•–—]\s+(?=[^\s\d.,])")  # - Paris

_DOLLARS = r"(?<!\\)\$\$?+\s*+((?>(?:[^$\\]++|\\.)+))\$\$?"  # $x+1$  $$x+1$
_PARENTHESES = r"\\\(((?>(?:[^\\]++|\\[^()])+))\\\)"  # \(x+1\)
_BRACKETS = r"\\\[((?>(?:[^\\]++|\\[^\[\]])+))\\\]"  # \[x+1\]
_MATH = re.compile(f"{_DOLLARS}|{_PARENTHESES}|{_BRACKETS}")
_JOINED = rf"(?:(?:or|and|nor|to|by|x|/|vs\.?|{OR})(?![^\W_])|[&;×]|{OR_CJK})"
_UNIT = rf"(?>(?:\s[^\W\d_]{{1,12}}(?=,?\s(?:{_JOINED})\s))?)"  # $3$ cm by $4$ cm
_MORE = re.compile(
    rf"{_UNIT}\s*+\??+\s*+(?P<comma>,)?\s*(?P<word>{_JOINED}\s*)?(?:(?:maybe|perhaps|possibly|even)\s*)?", re.IGNORECASE
)
_NUMBER = re.compile(rf"{_UNIT},?\s(?:\(?or|nor|by|to|{OR})\s[-−]?\d", re.IGNORECASE)  # $3$ or 4, but "and 4 steps"
_SMALLER = re.compile(rf"\s(?:{LARGE}),?\s(?:and\s)?(?:\$|\d)")  # $3$ hours | $4$ minutes
_OR_BEFORE = re.compile(r"(?<!more\s)(?<![^\W_])or\s$", re.IGNORECASE)
_RAISED_ALONE = re.compile(r"(?<=\w)\$([\^_][^$\n]{1,20})\$")  # x$^2$  5 cm$^2$
_EQUALS = re.compile(r"\s?(?:=|equals)\s?(?=\S)")  # $x$ = | $3$
_GOES_ON = re.compile(r"\s(?:is|are|was|has|means|stands)(?![^\W_])")  # $5$, and $x$ is 3


def text_of(answer: str) -> str | None:
    """Gives a text its canonical form: compatible letters, case, quotation marks, dashes and spaces made alike."""
    linked = _LINK.fullmatch(answer)
    answer = _DELIMITERS.sub("", without_layout(plain(linked[1] if linked else answer)))
    answer = _POWER.sub(r"^\1", arithmetic(_ESCAPED.sub(r"\1", without_commands(answer))))  # 10² is not 102
    folded = " ".join(_compatible(_compatible(answer.translate(_SIGNS)).translate(_SIGNS).casefold()).split())
    return _bare(folded) or folded.strip(_MARKS) or folded or None


def _bare(text: str) -> str:
    """A text without the marks and ornaments around it; the full stop of .NET is none."""
    bare = text.lstrip(_MARKS + _ORNAMENTS)
    before = text[: len(text) - len(bare)]
    stop = before.endswith(".") and not before.endswith("..") and bare[:1].isalnum()
    return ("." if stop else "") + bare.rstrip(_MARKS + _ORNAMENTS)


def text_said(line: str) -> str | None:
    """Finds the text that a line gives; empty if it offers several."""
    if truth := _TRUTH.match(line):
        return text_of(truth["word"])
    line = _unhedged(_ITEM.sub("", line, count=1) if _ITEM.match(line) else line)
    if quoted := _QUOTED.match(line):
        return text_of(quoted[1])
    return _sentence(line, text_of)


def _unhedged(line: str) -> str:
    return _HEDGE.sub("", line, count=1) if _HEDGE.match(line) else line


def _sentence(line: str, of: Callable[[str], str | None]) -> str | None:
    """What the first sentence gives, up to a remark; empty if it offers several."""
    sentence = _REMARK.split(_LONG_SENTENCE.split(line, maxsplit=1)[0], maxsplit=1)[0]
    return "" if _SEVERAL.search(sentence) else of(sentence)


def math_of(answer: str) -> str | None:
    """Gives LaTeX its canonical form: composed letters, no layout, no units that graders of MATH drop, plain separators."""
    answer = re.sub(r"\\\$|\\?%", "", unicodedata.normalize("NFC", plain(answer)))  # 50\% is 50 and not 0.5
    answer = _in_latex(_NUMBER_AS_WORD.sub(r"\1", answer.strip('`" ')))
    answer = (
        without_layout(without_separators(arithmetic(answer), lists=True)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    )
    answer = " ".join(answer.split()).strip(_AROUND).rstrip(".").strip(_AROUND)
    return answer if answer and _is_balanced(answer) else None


def _in_latex(answer: str) -> str:
    """Writes what people type in place of LaTeX as LaTeX: √2, [0,∞), pi/2, sqrt(2), x**2."""
    answer = _DOTS.sub(lambda dots: (dots["kept"] or "") + "\\ldots ", answer)
    answer = _ROOT.sub(lambda root: "\\sqrt{" + (root["of"] or root["number"]) + "}", answer)
    answer = _TYPED.sub(lambda typed: f"\\{typed[0]}", answer)
    answer = _SIGN.sub(lambda sign: _AS_LATEX[sign[1]] + (" " if sign["more"] is not None else ""), answer)
    return _RAISED.sub("^", answer)


def _is_balanced(latex: str) -> bool:
    """Whether its braces are; one that is not was cut off."""
    braces = re.sub(r"\\[\\{}]", "", latex)
    return braces.count("{") == braces.count("}")


def math_said(line: str) -> str | None:
    """Finds the mathematics that a line gives; empty if it offers several, or a part of some."""
    line = _right(_RAISED_ALONE.sub(r"\1", line))
    first = _MATH.search(line)
    if first is None:
        return _sentence(_unhedged(line), math_of)
    inside = _inside(first)
    number = exact(inside) is not None
    sign = parts.touching(line, first.start(), first.end(), number=number)
    if sign is None or _several(line, first) or _OR_BEFORE.search(line, 0, first.start()):
        return ""
    return math_of((parts.signed(sign, inside) or "") + (multiples.beside(line, first.end()) if number else ""))


def _right(line: str) -> str:
    """The right side of what is written as an equation, $x$ = $3$; its left one, where the right one remains to be computed."""
    for _ in range(4):
        first = _MATH.search(line)
        equals = _EQUALS.match(line, first.end()) if first else None
        if first is None or equals is None:
            break
        right = _MATH.match(line, equals.end())
        if exact(_inside(first)) is not None and not (right and exact(_inside(right)) is not None):
            return first[0]
        line = line[equals.end() :]
    return line


def is_mathematics(text: str) -> bool:
    """Whether a text is mathematics and nothing else: $x$"""
    return bool(_MATH.fullmatch(text.strip(" .,;*_")))


def _several(line: str, first: re.Match[str]) -> bool:
    """Whether a list of mathematics begins: $1$ or $2$, and $1$, $2$, and $3$ $4$, but not "$5$, $x$ being 3"."""
    end, number, joined = first.end(), 1, bool(_NUMBER.match(line, first.end()) or _SMALLER.match(line, first.end()))
    while (join := _MORE.match(line, end)) and (more := _MATH.match(line, join.end())) and not _is_unit(_inside(more)):
        if ";" in join[0] and "=" in _inside(more) and "=" not in _inside(first):
            break  # which explains it
        joined = joined or bool(join["word"]) or not join["comma"]
        end, number = more.end(), number + 1
    return (joined and not _GOES_ON.match(line, end)) or (number > 1 and not re.search(r"[^\W_]", line[end:]))


def _is_unit(mathematics: str) -> bool:
    """Whether it is the unit of what stands before it: $5$ $\\text{cm}$"""
    return without_units(f"1 {mathematics}") == "1"


def _inside(math: re.Match[str]) -> str:
    return next(part for part in math.groups() if part is not None)


def unwrapped(phrase: str) -> str:
    """Removes the commands and marks around a phrase."""
    return without_commands(phrase).strip(_MARKS)


def without_commands(phrase: str) -> str:
    """Removes the commands around words: \\text{B}, \\mathrm{B}."""
    for _ in range(4):  # one in another
        phrase = _WRAPPED.sub(r"\1", phrase)
    return phrase


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
