r"""One spelling for what can be written in several: full-width letters, vulgar fractions, raised digits, thousands separators.

Numbers, choices, texts and mathematics are read in this spelling, so that what one kind knows all of them do.
"""

import html
import re
import unicodedata
from fractions import Fraction

# Of scripts that write no spaces between words: 一共有42个
CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"

# Between two that are offered together, in other languages: 5 oder 6  5或6
OR = "o|oder|ou|oppure|или|або|eller|lub|albo|nebo|alebo|veya|atau|hoặc|tai|أو"
OR_CJK = "或者|或|または|もしくは|또는"
# ... and between two that belong together: 5 und 6  5和6
AND = r"and|und|et|e|y|и|і|og|och|(?<!,\s)en|ja|ve|dan|và|oraz|i|та|sowie"
AND_CJK = "、|和|与|與|及|と|와|과"
# Before what is denied, and before what stands in its place: nicht 5, sondern 6  不是5，而是6
NOT = r"nicht|keine?|niet|pas|non|não|nie|inte|ikke|ei|не|değil|bukan|không\s(?:phải|chọn)(?:\slà)?"
NOT_CJK = "(?:而|并)?不(?:是|选|選)|(?:而|并)非"
NOT_BUT_CJK = r"(?:では|じゃ|で)なく|(?:이|가)?\s?아니라"  # behind it: 5ではなく6
BUT = "sondern|maar|mais|sino|ma|bensì|mas|sed|utan|men|lecz|tylko|ale|а|но|mà|tapi|melainkan|而是"
# Before a number below zero: moins 42
MINUS = "moins|menos|meno|минус|мінус|負|负|マイナス|마이너스"

# Read by nobody: zero-width space, joiner and byte order mark, soft hyphen, marks of direction, variation selectors.
_UNSEEN = [0x20E3, 0x200B, 0x2060, 0xFEFF, 0xAD, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFE0E, 0xFE0F]
_FULL_WIDTH: dict[int, int | str] = {
    **{0xFEE0 + code: code for code in range(0x21, 0x7F)},
    **{0x3000: " ", 0x3002: ". ", 0x066B: ".", 0x066C: ","},
}
_CIRCLED = {0x24B6 + n: f"({letter})" for n, letter in enumerate("ABCDEFGHIJ")} | {
    0x24D0 + n: f"({letter})" for n, letter in enumerate("abcdefghij")
}
_STYLES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0x1D400, 0x1D800)}  # of mathematics: 𝐁 𝟒𝟐
_LIKE = {ord(sign): like for sign, like in zip("∕⧸∶✕⨯∗∙﹣➖﹢➕", "//:××*·--++", strict=True)}
_PLAIN: dict[int, int | str | None] = {**dict.fromkeys(_UNSEEN), **_FULL_WIDTH, **_CIRCLED, **_STYLES, **_LIKE}

_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
_LOWERED = "₀₁₂₃₄₅₆₇₈₉"
_DIGITS = str.maketrans(_RAISED + _LOWERED + "⁄", "0123456789+-0123456789/")
_VULGAR = re.compile(r"(?P<after>(?<=\d)\s?)?(?P<sign>[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒])")  # 3½  ⅔
_SET = re.compile(rf"(?<![{_RAISED[:10]}])(?P<after>(?<=\d))?(?P<sign>[{_RAISED[:10]}]++⁄[{_LOWERED}]++)")  # 3¹⁄₂
_POWER = re.compile(rf"[{_RAISED}]++")  # 10⁻³
_RAISED_SIGN = re.compile(rf"(?<![{_RAISED}\w)\]}}])⁻(?=\d)")
_AGAIN = r"\\(?:overline|bar|dot)\s?\{(?P<again>\d{1,9})\}|\((?P<again2>\d{1,9})\)"
_REPEATING = re.compile(rf"(?<![\d.])(?P<whole>\d{{0,9}})\.(?P<fixed>\d{{0,9}})(?:{_AGAIN})(?!\d)")  # 0.1\overline{{6}}  0.(3)
_TOPS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_BOTTOMS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
}
# 3 and a half  5 and two thirds, but a fifth may be the fifth of several
_SAID = re.compile(
    rf"(?<=\d)\sand\s(?:(?P<top>a|one)[\s-](?P<one>half|third|quarter)"
    rf"|(?P<tops>{'|'.join(list(_TOPS)[2:])})[\s-](?P<several>{'|'.join(list(_BOTTOMS)[1:])})s)(?![^\W_])",
    re.IGNORECASE,
)

# 1,000  1{,}000  1'000  1_000, the spaces that are not as wide as one, and LaTeX's, with or without a comma: 1\,000  1,\! 000
_NARROW = r"[\u00a0\u2002-\u200a\u202f\u205f]"
_THIN = r"-?(?:0?\.\d{1,3}\s?(?:em|ex|cm|in)|[1-9](?:\.\d{1,3})?\s?(?:mu|pt|sp|px))"  # a space of another width parts two numbers
_KERN = r"\\(?:m?kern|[mh]skip)\s?"
_TEX_SPACE = rf"(?:\\[,!;:>\ ]|\\(?:neg)?(?:thin|med|thick)space(?![A-Za-z])|\\hspace\*?\s?\{{{_THIN}\}}|{_KERN}{_THIN}|~)"
_WIDE = rf"(?:{_TEX_SPACE}|(?:\\[hv]space\*?\s?\{{|{_KERN})-?[\d.]{{1,5}}\s?(?:em|ex|mu|pt|mm|cm|in|px|sp)\}}?)"
# {,}  {{,}}  \text{,}  \mathord{,}  ,{}
_COMMA = rf"(?>(?:\\(?:text|mathrm|mbox|math(?:ord|punct|bin|rel|op|inner|close)))?)\{{(?:,|{_TEX_SPACE}|\{{,\}})\}}"
_BRACED = rf"(?>(?:{_COMMA}|,\{{\}}|\{{\}},)(?:\{{\}})?)"
_BACK = r",?+(?>(?:\\(?:!|negthinspace(?![A-Za-z]))\ ?+)+),?"
_TEX = (  # no comma of a list
    rf"(?>(?:{_TEX_SPACE}\ ?)?){_BRACED}\ ?+(?>{_TEX_SPACE}?)\ ?+|{_BACK}|(?>(?:{_TEX_SPACE}\ ?+){{1,3}})|{_NARROW}"
)
_ANY = rf",?+(?>(?:{_TEX_SPACE}\ ?+){{1,3}})|{_TEX}|[,'’ʼ´`،_]"


def _grouped(separator: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?<!\d[.,:'’_])\d{{1,3}}+(?>(?:(?:{separator})\d{{3}}(?!\d))+)(?!(?:{separator})?\d)")


_THOUSANDS, _IN_LISTS = _grouped(_ANY), _grouped(_TEX)
# What may separate thousands or numbers: 1\phantom{,}234  1&234  1 234 567  1, 234, 567. Neither side of it is a number of its own.
_OPERATOR = (
    r"(?:times|cdot|div|pm|mp|over|choose|[bp]?mod|leq?|geq?|lt|gt|neq?|approx|sim|equiv|to|cup|cap|in|land|lor|vee|wedge|quad|qquad|text"
    r"|mathrm|mbox|[lc]?dots|implies|[dtc]?frac|sqrt|binom|begin|end|left|right|circ|degree|iff|pi|ln|log|item|newline)(?![A-Za-z])"
)
_COMMAND = rf"\\(?!{_OPERATOR})[A-Za-z]{{2,20}}\*?\s?"
_LEFT = rf"{_COMMAND}\{{[^{{}}\d]{{0,8}}\}}\s?|\{{[^{{}}\d]{{0,6}}\}}|{_WIDE}?\ ?{_BRACED}{_WIDE}?\ ?|{_BACK}\ ?|{_WIDE}|[´`،]"
_UNKNOWN = re.compile(rf"(?<=\d)(?:(?:{_LEFT})(?=\d)|(?:{_COMMAND}(?:\{{[^{{}}]{{0,8}}\}}\s?)?|&|,\n)(?=\d{{3}}(?!\d)))")
_SPACED = re.compile(r"(?<![\d.,])(?<!\d[ ])(?<!\d, )[1-9]\d{0,2}(?:(?: \d{3}){2,9}|(?:, \d{3}){2,9})(?![\d.]\d|\d| \d|, \d)")
_INLINE = "b|strong|i|em|u|span|font|mark|big|small|ins|a|code|kbd|var|tt"
_STYLED = re.compile(rf"<({_INLINE})(?:\s[^<>\n]{{0,200}})?>([^<>\n]{{0,200}})</\1>", re.IGNORECASE)  # <b>7</b>
_LINK = re.compile(r"(?<!!)\[([^\[\]\n]{1,200})\]\((?:https?://|www\.|mailto:|[#/])[^()\s]{0,300}\)")  # [7](https://a.b/3)
_COMMENT = re.compile(r"<!--(?:(?!-->)[\s\S]){0,500}-->")  # nobody sees it
_BREAK = re.compile(r"<br\s?/?>", re.IGNORECASE)
_ENTITY = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|thinsp|hairsp|numsp|puncsp|ensp|comma|period|minus|times|divide|deg|frac\d\d|#\d{1,6}|#[xX][0-9a-fA-F]{1,5});"
)  # Tom &amp; Jerry
# ~~5~~ 6  <del>5</del> 6  \cancel{5} 6, but <s> that begins a reply begins a turn
_STRUCK = re.compile(
    r"(?<!~)~~(?!~)[^~\n]{1,200}~~(?!~)|<(?P<tag>del|strike|(?<=\S.)s|(?<=\S..)s)>[^<>\n]{1,200}</(?P=tag)>"
    r"|\\(?:[bx]?cancel|sout|st)\s?\{[^{}\n]{1,100}\}",
    re.IGNORECASE,
)
# What is folded away, unless it is said to be the answer
_FOLDED = re.compile(
    r"<details(?:\s[^<>\n]{0,80})?>(?!\s*<summary>[^<\n]{0,80}(?:answer|solution|result|conclusion|response))[\s\S]{0,20000}?</details>",
    re.IGNORECASE,
)
_SPACES = re.compile(rf"(?<!\\){_WIDE}")
_FENCE = re.compile(r"\\(?:left|right)(?![A-Za-z])")  # \left( \right)


def plain(text: str) -> str:
    """Replaces full-width and circled signs and HTML's names of signs, and removes those that nobody sees, and HTML's around what
    is emphasised, and where links lead."""
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), _BREAK.sub("\n", _COMMENT.sub("", text))).translate(_PLAIN)
    for _ in range(3):  # one in another
        text = _STYLED.sub(r"\2", text)
    return _LINK.sub(r"\1", text)


def without_struck(text: str) -> str:
    """Removes what Markdown, HTML and LaTeX show as struck out."""
    return _STRUCK.sub("", text)


def without_folded(text: str) -> str:
    """Removes what HTML folds away: <details>...</details>, where a reply has its scratch work."""
    return _FOLDED.sub("\n", text) if "</details>" in text.lower() else text


def arithmetic(text: str) -> str:
    """Writes fractions and powers on the line: 3½ as 3 1/2, 10² as 10^{2}, 0.\\overline{3} as 1/3."""
    text = _SET.sub(_fraction, _VULGAR.sub(_fraction, text)).replace("⁄", "/")
    text = _RAISED_SIGN.sub("-", text)  # ⁻7
    text = _POWER.sub(lambda power: "^{" + power[0].translate(_DIGITS) + "}", text)
    text = _REPEATING.sub(_repeating, text)
    return _SAID.sub(_in_words, text)


def without_separators(text: str, *, lists: bool = False) -> str:
    """Removes separators of thousands; 1,2 and 12,34,567 and 1.234 keep theirs, which may be others. lists: so do (1,234) and
    1_234, which may be a pair and an index. What may separate and is not known becomes a colon, so that nobody reads a part."""
    if lists:
        return _IN_LISTS.sub(_digits, text)
    return _SPACED.sub(lambda number: re.sub(r",? ", ":", number[0]), _UNKNOWN.sub(":", _THOUSANDS.sub(_digits, text)))


def _digits(number: re.Match[str]) -> str:
    return re.sub(r"\D", "", re.sub(_TEX_SPACE, "", number[0]))


def without_layout(text: str) -> str:
    """Removes LaTeX's stretched brackets, and puts a space in the place of its spaces."""
    return _FENCE.sub("", _SPACES.sub(" ", text))


def _fraction(sign: re.Match[str]) -> str:
    written = unicodedata.normalize("NFKC", sign["sign"]).translate(_DIGITS)
    return (" " if sign["after"] is not None else "") + written


def _in_words(fraction: re.Match[str]) -> str:
    top, bottom = (fraction["top"] or fraction["tops"]).lower(), (fraction["one"] or fraction["several"]).lower()
    return f" {_TOPS[top]}/{_BOTTOMS[bottom]}"


def _repeating(decimal: re.Match[str]) -> str:
    again = decimal["again"] or decimal["again2"]
    unit = 10 ** len(decimal["fixed"])
    fixed = Fraction(int((decimal["whole"] or "0") + decimal["fixed"]), unit)
    return str(fixed + Fraction(int(again), unit * (10 ** len(again) - 1)))
