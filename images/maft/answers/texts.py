r"""Texts and mathematics as answers: one spelling for what reads the same."""

import re
import unicodedata

from maft.answers import multiples
from maft.answers.numbers import exact
from maft.answers.spelling import OR, OR_CJK, arithmetic, plain, without_layout, without_separators

_WRAPPED = re.compile(r"\\(?:text\w*+|math\w++|mbox|emph|operatorname)\s?\{([^{}]*+)\}")  # \text{B}  \mathrm{B}
_ESCAPED = re.compile(r"\\([%&_$#])")  # 50\%
_AROUND = '$*`" '  # mathematics
_MARKS = " \t.,;:!?*_`\"'$()[]{}"
_SIGNS = str.maketrans(
    {"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "「": '"', "」": '"'}
    | dict.fromkeys("‐‑‒–—−", "-")
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
_REMARK = re.compile(
    r",?\s(?:because|rather\sthan|instead\sof|since(?=\s(?:it|the|this|that)\s))\s|[;!]\s(?=(?:it|this|that|they|the|there)\s)"
    r"|,\s(?:but\sI(?:['’]m)?|although|while|so|since|as|which|where|and\snot|but\snot|not|given)\s|\s(?:and|but)\snot\s|\s\((?!\w{1,3}\))",
    re.I,
)
_LONG_SENTENCE = re.compile(
    r"(?<=[a-z0-9)\]*\"'}]{3})\.\s++(?=[A-Z])|\.\s++(?=(?:It|He|She|They|This|That|There|I|We)\s)"
)  # leaves "St. Petersburg" whole
_SAYS_WHY = r"(?:it|this|that|they|the|there|he|she|we|you|I)(?![^\W_])"
_TRUTH = re.compile(  # Yes. It is.  No, it is not.
    rf"[\s*_\"']*+(?P<word>yes|no|true|false)[*_\"']*+(?:[.;!]\s(?!\d)|\s?[–—]\s?|\s-\s|,\s{_SAYS_WHY})", re.IGNORECASE
)
_QUOTED = re.compile(r"""[\s*_]*+["“«]([^"”»\n]++)["”»](?!\W*(?:or|nor)(?![^\W_]))""")  # "Life or Death"
_MAYBE = r"(?:maybe|perhaps|possibly|probably|alternatively)"
_SEVERAL = re.compile(rf"(?<![^\W_])(?:or|nor|either|neither)(?![^\W_])|\s/\s|(?<=\w),\s(?:but\s)?{_MAYBE}\s", re.I)
_HEDGE = re.compile(rf"[\s*_]*(?:{_MAYBE}|definitely|clearly|simply|likely)\s(?=\S)", re.IGNORECASE)

_DOLLARS = r"(?<!\\)\$\$?+\s*+((?>(?:[^$\\]++|\\.)+))\$\$?"  # $x+1$  $$x+1$
_PARENTHESES = r"\\\(((?>(?:[^\\]++|\\[^()])+))\\\)"  # \(x+1\)
_BRACKETS = r"\\\[((?>(?:[^\\]++|\\[^\[\]])+))\\\]"  # \[x+1\]
_MATH = re.compile(f"{_DOLLARS}|{_PARENTHESES}|{_BRACKETS}")
_JOINED = rf"(?:(?:or|and|nor|to|/|vs\.?|{OR})(?![^\W_])|{OR_CJK})"
_MORE = re.compile(rf"\s*+\??+\s*+(?P<comma>,)?\s*(?P<word>{_JOINED}\s*)?(?:(?:maybe|perhaps|possibly|even)\s*)?", re.IGNORECASE)
_GOES_ON = re.compile(r"\s(?:is|are|was|has|means|stands)(?![^\W_])")  # $5$, and $x$ is 3


def text_of(answer: str) -> str | None:
    """Gives a text its canonical form: compatible letters, case, quotation marks, dashes and spaces made alike."""
    answer = _ESCAPED.sub(r"\1", _WRAPPED.sub(r"\1", without_layout(plain(answer))))
    answer = _POWER.sub(r"^\1", arithmetic(answer))  # 10² is not 102
    folded = " ".join(_compatible(_compatible(answer).translate(_SIGNS).casefold()).split())
    return folded.strip(_MARKS) or folded or None


def text_said(line: str) -> str | None:
    """Finds the text that a line gives; empty if it offers several."""
    if truth := _TRUTH.match(line):
        return text_of(truth["word"])
    line = _HEDGE.sub("", line, count=1) if _HEDGE.match(line) else line
    if quoted := _QUOTED.match(line):
        return text_of(quoted[1])
    sentence = _REMARK.split(_LONG_SENTENCE.split(line, maxsplit=1)[0], maxsplit=1)[0]
    return "" if _SEVERAL.search(sentence) else text_of(sentence)


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
    """Finds the mathematics that a line gives; empty if it offers several."""
    first = _MATH.search(line)
    if first is None:
        sentence = _REMARK.split(_LONG_SENTENCE.split(line, maxsplit=1)[0], maxsplit=1)[0]
        return "" if _SEVERAL.search(sentence) else math_of(sentence)
    inside = _inside(first)
    times = multiples.beside(line, first.end()) if exact(inside) is not None else ""
    return "" if _several(line, first) else math_of(inside + times)


def is_mathematics(text: str) -> bool:
    """Whether a text is mathematics and nothing else: $x$"""
    return bool(_MATH.fullmatch(text.strip(" .,;*_")))


def _several(line: str, first: re.Match[str]) -> bool:
    """Whether a list of mathematics begins: $1$ or $2$, and $1$, $2$, but not "$5$, $x$ being 3"."""
    end, number, joined = first.end(), 1, False
    while (join := _MORE.match(line, end)) and (more := _MATH.match(line, join.end())) and (join["comma"] or join["word"]):
        joined, end, number = joined or bool(join["word"]), more.end(), number + 1
    return (joined and not _GOES_ON.match(line, end)) or (number > 1 and not re.search(r"[^\W_]", line[end:]))


def _inside(math: re.Match[str]) -> str:
    return next(part for part in math.groups() if part is not None)


def unwrapped(phrase: str) -> str:
    """Removes the commands and marks around a phrase."""
    return without_commands(phrase).strip(_MARKS)


def without_commands(phrase: str) -> str:
    """Removes the commands around words: \\text{B}, \\mathrm{B}."""
    return _WRAPPED.sub(r"\1", phrase)


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
