r"""Words that multiply the number before them: "1.5 million" is 1500000, "2 dozen" is 24.

They are a part of the number, so its value has them, wherever it stands: in an answer, a box, a reference. What may multiply and
may not (`10k`, `$5M`, `5 bn`, "2 tenths", "3 in a million") is not read, nor is the number before it. Pieces of the patterns of
numbers.py, verbose, an example beside each.
"""

import re

_FACTORS = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
    "quadrillion": 10**15,
    # In other languages; billions of some of them are trillions, and are not read.
    "docenas?|douzaines?|dutzend|dozijn": 12,
    "tausend|mille|duizend|тысяч[аи]?": 10**3,
    "millionen|mill[oó]n(?:es)?|mili?ón|milhão|milhões|milion[iey]|miljoen|миллион(?:а|ов)?": 10**6,
    "milliarden?|milliards?|miliardi?|miljard|миллиард(?:а|ов)?": 10**9,
    "百(?![分帕])|백": 10**2,
    "千(?![克米瓦卡赫字升帕焦牛伏安欧])|천": 10**3,
    "万|萬|만": 10**4,
    "亿|億|억": 10**8,
}
_WORD = rf"(?i:{'|'.join(_FACTORS)})"
_WORDS = rf"(?:{_WORD}s?+(?![A-Za-zа-я]))"
_ONES = "a|an|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen"
NUMERAL = rf"(?i:{_ONES}|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
_PARTS = "four|fif|six|seven|eigh|nin|ten|hundred|thousand|million|billion"

# On one line: 2 dozen  1.5-million  3 hundred thousand  $5$ million  **5** million  5\,\text{ million}
_END = r"(?>(?:\$|\\\)|\*{1,2})?)"
_TEX = r"(?>(?:\\(?:text(?:rm|bf|it)?|mathrm|mbox)\s?\{\s?)?)"
TIMES = rf"(?>(?P<times>(?>(?:{_END}(?:[^\S\n]|[~-]){{0,3}}\*{{0,2}}+{_TEX}{_WORDS}(?>(?:\s?\}}(?!\s?\{{))?)){{1,3}}))?)"

# What does not follow a number, because the number would be a part of it.
AFTER = rf"""
    (?(times)(?:\d|,?\s(?:and\s)?[$(]?(?:\d|(?:{NUMERAL}|half)(?![A-Za-z])) | -[A-Za-z]) | (?!))  # 5 million 200  4 hundred-dollar
  | [\s-]{{1,2}}(?i:(?:{_PARTS})ths|halves|thirds)(?![A-Za-z])  # 3 tenths
  | (?<=1)(?<!\d1)[\s-]{{1,2}}(?i:half|third|(?:{_PARTS})th)(?![A-Za-z])  # 1 half
  | [\s-]{{1,2}}(?i:quarters|fourths)\sof\s(?i:an?|the|one|\d)  # 3 quarters of an hour, but coins are quarters, too
  | \s(?:(?:in|per|out\sof)\s|(?:of\s)?(?=an?\s))(?:an?\s)?(?!dozen){_WORDS}  # 1 in a million  3/4 of a million
  | \s(?:half|baker['’]?s|full|whole|more|other|further|extra|additional)[\s-](?:a\s)?{_WORDS}  # 3 more dozens
  | \s?(?:[Mm]n|[Mm]ln|[Mm]io|[Mm]il|[Bb]n|[Tt]rn|MM)(?![A-Za-z]) | \sM(?![A-Za-z/^$])  # 5 bn  5 M
  | (?(money)(?:\s?(?:[KMBT]|k|tn)(?![A-Za-z/^$]) | m(?=[\s.,;!)*]|$)) | (?!))  # $5 M, but not $5 M$
"""
# What stands before a number of which it is a part: two hundred | 5  one hour | 30 minutes
BEFORE = rf"(?:\d\s?|(?<![^\W_]){NUMERAL}[\s-])(?:{_WORD}s?[\s-]?){{1,2}},?\s?(?:and\s)?"
FOLLOWING = rf"(?:[\s-]{_WORDS})?"

_BESIDE = re.compile(rf"\}}?+{TIMES}", re.VERBOSE)


def beside(text: str, end: int) -> str:
    """Writes as LaTeX what multiplies the mathematics that ends there, $5$ million; empty where nothing does."""
    match = _BESIDE.match(text, end)
    words = re.findall(_WORDS, match["times"]) if match and match["times"] else []
    return f"\\text{{ {' '.join(words)}}}" if words else ""


def factor(words: str | None) -> int:
    """Multiplies what the words of a match of TIMES say."""
    product = 1
    for word in re.findall(_WORDS, words or ""):
        product *= next(factor for form, factor in _FACTORS.items() if re.fullmatch(f"(?:{form})s?", word, re.IGNORECASE))
    return product
