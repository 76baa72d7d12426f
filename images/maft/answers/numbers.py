r"""Numbers in a text, as canonical fractions ("-7/2", "12"): integers, decimals, fractions and mixed numbers, with the signs,
thousands separators, currencies, units and LaTeX around them. A number is read as a whole or not at all.

Patterns are verbose and made of named pieces, an example beside each. They give back nothing that they have taken (possessive
quantifiers), so that a hostile text costs linear time.
"""

import re
from collections import deque
from fractions import Fraction
from itertools import takewhile

from maft.answers import multiples, partial
from maft.answers.spelling import (
    AND,
    AND_CJK,
    CJK,
    MINUS,
    NOT,
    NOT_BUT_CJK,
    NOT_CJK,
    OR,
    OR_CJK,
    arithmetic,
    without_layout,
    without_separators,
)
from maft.answers.together import is_of_several

# --- one number ---

_ARGUMENT = r"-?(?:\d++(?>(?:\.\d++)?)|\.\d++)"  # of \frac

# What a number does not follow, because it would be a part of something else.
_BEFORE = rf"""
    (?<![^\W_{CJK}])     # a word: x2
    (?<![^\W_]_)         # an index: a_2
    (?<![.^√∛±∓])        # decimals: 3.5, exponents: 2^3
    (?<!\d[,:/'’])       # lists, times, quotients: 1,2  12:30  1/2  5'3"
    (?<!\^\{{)(?<!_\{{)(?<!\}}\{{)(?<!\]\{{)  # LaTeX's arguments: 2^{{3}}  \binom{{5}}{{2}}
    (?<!\^-)(?<!\^\{{-)                       # 10^{{-3}}
    (?<!frac\{{)(?<!sqrt\{{)(?<!sqrt\[)
"""
# In other languages where a phrase begins: "5 moins 3" is a difference, and "au moins 5" a bound
_MINUS = rf"(?:(?<![^=:(])|(?<=[=:(]\s)|(?<=\sest\s)|(?<=\ses\s)|(?<=\sé\s)|(?<=\sè\s))(?:{MINUS})\s?"
_SIGN = rf"(?>(?P<sign>[-+−–‐‑‒－]\s?+|(?:minus|negative)\s|{_MINUS})?)"  # -5  - 5  minus 5  moins 5
_MONEY = r"(?>(?P<money>[$€£¥₹]\s?+(?>(?P<inner>[-−])?))?)"  # $5  $-5

_FRACTION = rf"""
    (?>(?:(?P<ones>\d++)\s*+)?)                                      # 2\frac{{1}}{{2}}
    \\[dtc]?frac\s*+(?:\{{\s*+(?P<top>{_ARGUMENT})\s*+\}}|(?P<top1>\d))  # \frac{{1}}{{2}}  \frac12  \dfrac{{1}}2
                \s*+(?:\{{\s*+(?P<bottom>{_ARGUMENT})\s*+\}}|(?P<bottom1>\d))
"""
_MIXED = r"(?P<mixed>\d++)\s(?P<over>\d++)\s?/\s?(?P<under>\d++)"  # 2 1/2

_LONGER = r"(?!\.\.|…|\s?\\[cld]?dots)"  # 0.333...
_WHOLE = rf"(?P<whole>\d++(?>(?:\.\d++{_LONGER})?)|\.\d++{_LONGER})"  # 1234.5  .5
_EXPONENT = r"(?>(?P<exponent>[eE][+-]?+\d{1,3}+(?!\w))?)"  # 1e6
_POWER = r"\^(?:\{\s?(?P<power>[-+]?\d{1,3})\s?\}|(?P<power1>-?\d{1,3}+(?!\d)))"  # ^{-3}  ^6
_TEN_TO_THE = rf"(?>(?:\s?(?:\\times|\\cdot|[×·⋅*x])\s?10\s?{_POWER})?)"  # 3 \times 10^6
_DIVISOR = r"(?>(?:\s?/\s?(?P<divisor>\d++))?)"  # 3/4

# Units that another quantity follows: 1 hour 30 minutes, 5 ft 3 in.
_LARGE = rf"""(?:{partial.LARGE}
    |hours?|hrs?|h|minutes?|mins?|m|days?|weeks?|months?|years?|yrs?|feet|foot|ft|yards?|yd|pounds?|lbs?|stone
    |gallons?|quarts?|lit(?:er|re)s?|L|tonnes?|tons?|t|[KkMGT]B|(?:kilo|mega|giga|tera)bytes?|dollars?|euros?|degrees?|km|kg|miles?
    |Stunden?|heures?|horas?|uur|час(?:а|ов)?|Minuten|minutos?|минуты?|Tage?|jours?|d[ií]as?|Wochen?|semaines?|semanas?|°|'|′|\^\{{?\\circ\}}?)"""
_SMALL = rf"""(?:{partial.SMALL}
    |hours?|hrs?|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|inch(?:es)?|in|ounces?|oz|pence|cents?|grams?|g
    |kg|m[lL]|c[lL]|millilit(?:er|re)s?|[KkMG]B|cm|mm|m|s|h|feet|ft|'|"|′|″)(?![^\W_])"""
_LARGE_CJK = r"(?:元|角|小时|小時|时|時間?|分钟|分鐘|分之?|天|日|米|厘米|公里|千?克|点|點|年|月|시간|분|일|원|円)"  # 3元5角
_HALF = r"(?:y\smedi[ao]|et\sdemie?|e\smezz[ao]|e\smei[ao]|с\sполовиной|und\sein(?:e|\s)?\s?halb)"  # 3 y medio
_FUNCTION = r"(?:sqrt|root|ln|log|lg|exp|sin|cos|tan|cot|arc[a-z]{3})"

_BASE = r"(?!10(?!\d))\d|two|three|four|five|six|seven|eight|nine|twelve|sixteen"
_BEYOND = r"(?:more|fewer|less|greater|higher|above|up)"  # 5 or more
# What does not follow a number, because the number would be a part of it.
_AFTER = rf"""
    (?! [.,:;(]\d | \{{[,\s]\}}\s?\d          # dates, versions, times: 1.2.3  12:30  1{{,}}00
      | \s?/\s?\d                         # 1/2/3
      | [eE][+-]?\d                       # 1e5000
      | \s*+(?:\\(?:sqrt|pi|overline|bar|dot)|[πτ√∛])  # 2\sqrt{{3}}  2π  1\overline{{6}}
      | \s?\\?(?:pi|{_FUNCTION})(?![a-z]) # 2 pi  2 \ln 3
      | \.\s?(?:\\overline|\\bar|\\dot|\(\d) # 0.\overline{{3}}  0.(3)
      | [\u0300-\u036f₀-₉]                # 3̅  101₂
      | (?:\.\.\.?|…)\s?\d               # 1...9
      | _\{{?\d                           # 101_2
      | (?!(?:[kcdm]?m|ft|in|yd)[23](?![^\W_]))[A-Za-z]{{1,12}}\d  # 3x4  1h30, but 12 cm2
      | 0?[xob][0-9a-fA-F]{{2}}           # 0xFF
      | [aeikKnquvwxyz](?![A-Za-z])       # 2n  3i  5k
      | (?:M|Bn?|bn)(?![A-Za-z])          # $5M
      | \s*+!(?:\s?(?!\*\*(?:[\s.,]|$))[-+*/×·^)(\d.,;:?=<>$\\}}%]|\s[a-z]) # 5! ways  5!. but an exclamation ends a sentence: 5!
      | (?:,?\swith\sa?\s?|,\s|\s\(|\s)?(?:R|[Rr]em(?:\.|ainder)?)(?:\sof|\sis|:)?\s?(?!0(?!\d))\d # 3 R 2  7 (remainder 2)
      | \s?{_LARGE_CJK}\d | [{CJK}]?半 | (?:\s[^\W\d_]{{1,12}})?\s{_HALF}(?![^\W_])
      | (?:\s[A-Za-z]{{1,12}}){{1,2}}\sand\s(?:a|one)[\s-](?:half|quarter|third)(?![^\W_])  # 3 hours and a half
      | \s\(?(?:in\s)?base[\s-]?(?:{_BASE})  # 101 base 2
      | \s(?:\(|\(?(?:in|as)\s)(?:binary|octal|hex(?:adecimal)?)(?![^\W_]) | _\{{?\\text
      | \s?(?:\\?%|percent)\sof\s[$(]?\d   # 5% of 200
      | \s?/\s?[exyπ](?![A-Za-z])         # 2/x
      | \s(?:squared|cubed|factorial|to\sthe\s(?:power|\d\w*|\w{{1,12}}\spower))(?![^\W_])
      | \s(?:in|per|over|out\sof)\s(?!(?:1[5-9]|20)\d\d(?!\d))\d++(?!\s?[A-Za-z%.,]\w)  # 1 in 6, but 500 in 2020
      | ['’′″"]\d | [€£¥₹]\d              # 5'3"
      | \s*+\}}\s?(?:\{{|[_^](?!\s?\{{?\s?\\circ))  # the first argument of a command, or where a sum begins
      | \s?(?:[≤≥≠]|\\(?:leq?|geq?|lt|gt|neq?)(?![a-z]))\s?[A-Za-z\\]  # 5 \le x: a bound is no value
      | \s?[<>]=?\s?[A-Za-z](?![A-Za-z>])  # 5 < x, but no tag
      | (?:\s[A-Za-z]{{1,12}})?\s(?:or\s{_BEYOND}|at\s(?:least|most))(?![^\W_])(?!\s(?:than|[a-z]+ly)(?![^\W_]))
      | (?:\s[A-Za-z]{{1,12}})?\s(?:and\s{_BEYOND}|at\sthe\s(?:least|most))(?![^\W_])(?!\s[A-Za-z])  # but 5 apples and more pears
      | \s{_LARGE},?\s(?:and\s)?(?!an?\s){multiples.NUMERAL}\s{_SMALL}  # 3 weeks and two days
      | \s?{_LARGE}(?:\s|\s(?:{AND})\s)\s?\d++(?!\snights?(?![^\W_])) | \s?[h°'′]\d  # but 5 days and 4 nights
      | \s?{_LARGE},\s(?:and\s)?\d++(?>(?:\.\d++)?)\s?{_SMALL}
      | \^(?!\s*+\{{?+\\circ)            # 2^n, though not 90^\circ
      | {partial.AFTER} | {multiples.AFTER} )
"""
_NUMBER = re.compile(
    rf"""{_BEFORE} {_SIGN} {_MONEY}
        (?=[\d.\\])  # before the slow part
        (?(money)|(?:(?<![$€£¥₹])(?<![$€£¥₹]\s)|(?![\d.]++\s?(?:[KMBTkm]|tn)(?![A-Za-z/^$]))))  # nor the 5 of $5 M without its $
        (?: {_FRACTION} | {_MIXED} | {_WHOLE} {_EXPONENT} {_TEN_TO_THE} {_DIVISOR} ) {multiples.TIMES}
        {_AFTER}""",
    re.VERBOSE,
)

_EITHER = rf"(?:\s(?i:or|nor|to|through|{OR})\s|\s?(?:{OR_CJK})\s?)"  # 5 or | 6
_ENDS_WITH_WORD = re.compile(rf"(?:[^\W\d_]{{2}}|[{CJK}])\Z")  # Total|-9|, but not x|-4|
_RULE = re.compile(r"[\s:|-]*(?:--|:-|-:)[\s:|-]*")  # under the head of a table
# What stands before a number of which it is a part: 3 x | 4, 1 hour | 30 minutes, 5 or | 6, 2020-01-| 15, \ln | 2, \pm | 3.
_PART_OF = re.compile(
    rf"""(?: \d!?[$)]*+\s?(?:x|X|[×*·⋅÷∙]|\\times|\\cdot|\\div|times|by|vs\.?|versus)\s?[$(]?
      | \d\s?{_LARGE}(?:,?\s(?:and\s)?)
      | (?<![^\W_]){multiples.NUMERAL}\s{_LARGE},?\sand\s | {multiples.BEFORE}
      | \d\S{{0,3}}(?:\s[A-Za-z]{{1,12}})?{_EITHER}(?:(?:maybe|perhaps|possibly|even|about|(?:is|was)\sit)\s)?[$(]?
      | \d[-–/.]\d{{1,4}}[-–/.] | \d– | \d!\s?[-+/]\s? | \d[a-z]\s?[-+*/×·]?\s?
      | (?<![^\W_])\\?{_FUNCTION}(?:_\{{?\w{{1,4}}\}}?)?\s?[({{$]?
      | (?<![^\W_])(?:could|might|may)\s(?:also|equally|just\sas\swell|even)\sbe\s[$(]?  # could be 5, but could also be | 6
      | (?:(?<![^\W_])(?:not|never|rather\sthan|instead\sof|{NOT})|n['’]t)\s(?:be\s|equal\s(?:to\s)?)?[$(]? | (?:{NOT_CJK})\s?
      | (?<![^\W_])(?:half|twice|double|triple)\s(?:of\s)?[$(]? # twice 6
      | [π√∛]\s?[/(]? | (?:[±∓]|\\pm|\\mp|\+/-)\s?
      | (?:≠|\\neq?(?![a-z])|\\not\s?=|(?<!\d)!=)\s?[$(]?  # x \ne 5
      | (?:∞|\\infty)[)\]]?\s?(?:[,;]|or|and|to|\\cup|∪)\s?[$([]?  # -\infty, 5
      | (?<![^\W_])(?<!\\)[A-Za-z]\(\s? | (?:[⌊⌈]|\\l(?:floor|ceil))\s?  # f(2)  \lfloor 4.5 \rfloor
      | \\l?[vV]ert(?![a-z])\s?  # \lvert -4 \rvert
      | {partial.BEFORE}
    )$""",
    re.VERBOSE,
)
# The same in words, and what follows then: one hour | 30 minutes, but not "in one hour | 30 pears".
_LARGE_UNIT = re.compile(rf"(?<![^\W_]){multiples.NUMERAL}\s{_LARGE},?\s$", re.VERBOSE | re.IGNORECASE)
_SMALL_UNIT = re.compile(rf"\s?+(?:{_SMALL}|[.,;!?)]|$)", re.VERBOSE | re.IGNORECASE)
_OR_EQUALLY = re.compile(r"[\s,()$]*(?:or(?:\s[a-z]{1,12}ly)?|;)[\s,()$]*")  # 1/2 or 0.5, or equivalently 0.5  1/2; 0.5
# What takes a number back that another one stands before: 6, not 5.
_NOT_THIS = re.compile(
    rf"(?<=\d)(?P<unit>[^\d\n.]{{0,20}}),?\s(?:(?:but|{AND})\s)?(?:not|rather\sthan|instead\sof|{NOT})\s[$(]?-?\d[\d.,/]*+{multiples.FOLLOWING}",
    re.IGNORECASE,
)
# The same of one that was found and is not taken: 42 (rejecting x = -3)  -3 is extraneous
_NAMED = r"(?:(?:the|negative|other|extraneous|second|first|root|solution|value|case|answer|of)\s){0,4}(?:[A-Za-z]\s?=\s?)?[$(]?"
_VALUE = r"[-−]?\d[\d.,/]{0,20}(?<![.,])"
_IS_NOT = r"""(?: (?:['’]s|\s(?:is|was|seems|looks|must\sbe))\s(?:\w{1,12}ly\s)?(?:then\s)?
        (?:wrong|incorrect|false|impossible|mistaken|a\smistake|rejected|discarded|dismissed|extraneous|invalid|inadmissible|ruled\sout
          |not\s(?:right|correct|true|valid|admissible|allowed|possible|a\ssolution))
      | \s(?:(?:is|was|ca)n['’]t|cannot)\s(?:be\s)?(?:right|correct|true) )(?![^\W_])"""
_REJECTED = re.compile(
    rf"""(?:(?<=[(,;–—])\s?|(?<=[(,;–—]\s)|(?<=\s)(?=excluding)|(?<![^\W_])(?:I|we)\s(?:can\s|must\s|may\s)?)
        (?:reject|discard|dismiss|ignor|exclud|eliminat)(?:e|ing)?\s{_NAMED}(?P<value>{_VALUE})(?:\s[a-z]{{1,12}}){{0,3}}
      | (?<![^\W_])(?:[A-Za-z]\s?=\s?)?[$(]?(?P<other>{_VALUE})[$)]?{_IS_NOT}""",
    re.IGNORECASE | re.VERBOSE,
)
# -(5)  -(-5), but not 20-(5)
_SIGNED = re.compile(
    r"(?<![\w)\]}%!])(?<![\w)\]}%!]\s)(?P<sign>[-−])\((?P<inner>[-−])?\s?(?P<number>\d[\d.,/]{0,99}+)\)(?!\s?[(!^\d])"
)
_BOUND_ABROAD = r"""(?:au|du)\s(?:moins|plus)|al\smen(?:os|o)|almeno|(?:pelo|a\slo)\smen?os|(?:como|no)\smáximo
    |(?:mindesten|höchsten)s|minstens|не\s(?:менее|более)|至少|至多|最多|最少"""  # au moins 5
_BOUND = re.compile(  # x > 3, at least 3: a bound is no value
    rf"""(?:[<>]=?|[≤≥]|\\(?:leq?|geq?|lt|gt)(?![a-z])|(?:less|more|fewer|greater|larger|smaller)\sthan|at\s(?:least|most)|up\sto
    |{_BOUND_ABROAD})[\s$({{]*+$""",
    re.IGNORECASE | re.VERBOSE,
)
_TERM = re.compile(r"(?<![A-Za-z])(?:\d|(?<![^\W\d_])[A-Za-z])\)?\s?[-+*/×·^]\s?$")  # x + | 3
# What makes a number an operand of what nobody has worked out: 1 + | 7, x + | 3. A line's own sign begins an item of a list.
_OPERAND = re.compile(rf"(?:\d[%)$°]{{0,3}}[^\S\n]?(?:[-+−–]|plus|minus|{MINUS})|(?<![^\W_])[A-Za-z]\)?[^\S\n]?\+)[^\S\n]?[-−(]?$")
_WORKED_OUT = re.compile(  # 2 + 9, which is | 11
    r"(?P<term>\d[)$]?\s?[-+−×*·÷/]\s?[$(]?\d[\d.,]*+\)?),?\swhich\s(?:is|equals|makes|gives)\s(?=[-$]?\d)"
)
_REST = re.compile(
    rf"(?<![^\W_{CJK}])(?<!\^)(?<!\^\{{)(?<!\^-)(?<!\^\{{-)\d|\\(?:[dtc]?frac|sqrt|binom)(?![A-Za-z])"
)  # a number left over

# --- what stands around numbers ---

# Numbers that are names, and counts of those who agree: Agent 2  Response 2 is correct  All 3 agents agree
_WHO = r"(?:agent|solution|response|student|model)"
_FINDS = r"(?:agree|concur|say|said|claim|answered|are\s(?:right|wrong|correct))"
_SEVERAL = r"\#?\d++(?>(?:(?:,?\s(?:and|or|&)|,)\s\#?\d++)+)"  # 1 and 2  1, 2 and 3
_COUNTED = rf"(?:agents|(?:{_WHO}|answer)s(?=\s(?:all\s)?{_FINDS}(?![^\W_])))"
_NAME = re.compile(
    rf"""(?<![^\W_])(?:
        (?:agent|round|step)\s\#?\d++ | (?:agents|rounds|steps)\s{_SEVERAL}
      | (?<=with\s)(?:{_WHO}\s\#?\d++ | {_WHO}s\s{_SEVERAL})
      | {_WHO}s\s{_SEVERAL}(?=\s(?:are\s(?:\w+ly\s)?(?:correct|right|wrong|incorrect)|agree)(?![^\W_]))
      | (?<!the\s)(?<!my\s)(?<!our\s){_WHO}\s\#?\d++(?=['’]s\s(?:answer|solution|reasoning|result)
          |\s(?:is|was|seems|looks)\s(?:\w+ly\s)?(?:correct|right|wrong|incorrect|mistaken|best|better)(?![^\W_]))
      | (?:\d++\s(?:out\s)?of\s)?(?>(?:(?:all|both|the|these|other)\s){{1,2}})\d++\s(?:other\s)?{_COUNTED}
      | \d++\s(?:other\s)?{_WHO}s(?=\s(?:all\s)?{_FINDS}(?![^\W_]))
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# What is rounded from a number that stands before it: 1/6 ≈ 0.167  1/6 (about 0.167)  1/6, or about 16.7%
_ABOUT = r"(?:about|approximately|roughly)"
_ROUNDED = re.compile(
    rf"(?<=[\d}}])\s?\$?(?:\s?(?:≈|\\approx(?![A-Za-z]))|\s\((?:{_ABOUT}|≈)|,?\sor\s{_ABOUT})\s?\$?\d[\d.,]*+\\?%?\)?"
)
_EQUALS = re.compile(r"(?<![<>])(?<![^\d)]!)=|≈|\\approx(?![A-Za-z])")  # no bound: x <= 5
# 42\n\nExplanation: 40 and 2 are added, which takes 1 step.
_EXPLAINED = re.compile(
    r"[\s*_`]*+(?P<number>[-−$]?[\d][^\n*_`]{0,40}?)[*_`.]*+[ \t]*+\n\W{0,20}"
    r"(?:explanation|reason(?:ing)?|because|note|solution|confidence|to\s(?:find|solve|get))(?![^\W_])",
    re.IGNORECASE,
)
_FACTORIAL = re.compile(r"[\d)\]}]\s?!(?!=)")  # where nothing is exclaimed: in a box or a reference
_COMPUTED = re.compile(
    r"[\s$(]*\d[\d.,/]*+(?>(?:[\s()$]*+(?:[-+−×·*/÷^]|\\(?:times|cdot|div))[\s()$]*+\d[\d.,/]*+)+)[\s.)$]*+$"
)  # 12 + 5
_ASSIGNMENT = re.compile(r"[^\W\d_]\s?=")  # x = 3; two of them are two answers
_FILLER = r"(?:maybe|perhaps|possibly|probably|alternatively|even|either|else|about)"
_TO = r"bis|à|(?<![,;:–—-]\s)a(?=\s\d++(?!-))|hasta|до|tot|til|till|do"  # 3 bis 4  3 a 4, but not 17, a 2-digit number
_CJK_AND = f"{OR_CJK}|{AND_CJK}|到|至|から|부터"
_ALSO = rf"or|nor|as\swell\sas|along\swith|together\swith|{OR}|{AND}|{_TO}|{_CJK_AND}"
_WORD = (
    rf"(?:{_ALSO}|to|through|till|until|vs\.?|versus|against|by|x|times|plus|minus|{MINUS}|mod|choose|(?:divided|multiplied)\sby)"
)
_TEX = r"(?:\\(?:times|cdot|div|pm|mp|l?dots|over|sim|lor|vee)|\\(?:text|mathrm|mbox)\s?\{\s?(?:or|and|to)\s?\})"
_THAN = r"(?:more|less|fewer|greater)\sthan"
_OPERATOR = rf"(?:[-+−–—*×⋅∙·÷/^,&±:→⇒]|\.\.|…|{_TEX}|{_WORD}|{_THAN}|{_FILLER}|(?<=\s))"
_GOES_ON = re.compile(  # after a number: 3 + 4  5 or 6  5 6  5 cm or 6 cm
    rf"(?:[%$()\s]*+{_OPERATOR}){{1,4}}?[$(\s]*+(?:\d|\\[dtc]?frac|[-+−]?\s?(?:∞|\\infty))"
    rf"|(?:\s?[^\W\d_]{{1,12}}|\s?[°%$]{{1,3}}){{1,2}}?,?\s(?:{_ALSO}|to|by|x|×)\s(?:{_FILLER}\s)?[$(]?\d"
    rf"|[{CJK}]{{1,3}}?(?:{_CJK_AND})\s?\d",
    re.IGNORECASE,
)
# One value between semicolons: 7  and 8 km
_ONE = (
    rf"[\s$(*]{{0,4}}(?:(?:{_ALSO})\s)?[$(]{{0,3}}(?P<value>{_VALUE})[)$%°]{{0,4}}"
    r"(?:\s?(?P<unit>[^\W\d_]{1,12}))?[)$]{0,2}\s?\.?[\s$*_]{0,9}"
)
_PARTED = re.compile(_ONE, re.IGNORECASE)
_ENDS_WITH_ONE = re.compile(rf"(?<![\w.,/]){_ONE}\Z", re.IGNORECASE)  # x = 2  the numbers are 3


_NOT_BUT = re.compile(rf"{_VALUE}(?:{NOT_BUT_CJK}|\s(?:değil|emas)(?![^\W_]))[,、]?")  # 5ではなく6


def without_names(text: str) -> str:
    """Puts numbers into one spelling, and removes the numbers that agents and steps have for names."""
    text = without_separators(arithmetic(text.replace("\\$", "$").replace("\\%", "%")))
    text = _SIGNED.sub(lambda signed: ("" if signed["inner"] else signed["sign"]) + signed["number"], without_layout(text))
    return _WORKED_OUT.sub(r"\g<term> = ", _NOT_BUT.sub("", _NAME.sub("", text)))


def last_number(text: str) -> str | None:
    """Finds the last number of a text, whatever it is there for, or the one that stands alone above what explains it; None if the
    last one is a part of something else, or one of several."""
    if (above := _EXPLAINED.match(text)) and (value := exact(above["number"])) is not None:
        return str(value)
    text, rejected = _without_rejected(_NOT_THIS.sub(lambda taken: taken["unit"], _ROUNDED.sub("", without_names(text))))
    last = deque(_NUMBER.finditer(text), maxlen=1)
    if not last or _value(last[0]) in rejected:
        return None
    if _REST.search(text, last[0].end()) or _is_part(last[0]) or _OPERAND.search(_before(last[0])):
        return None
    if is_of_several(text, *last[0].span()):
        return None
    return _value(last[0])


def _without_rejected(text: str) -> tuple[str, set[str]]:
    """The text without the numbers that it rejects; and those, unless it goes on with a number: exclude 5 of 10, which leaves 5."""
    rejections = list(_REJECTED.finditer(text))
    if not rejections:
        return text, set()
    goes_on = _NUMBER.search(text, rejections[-1].end())
    rejected = set[str]() if goes_on else {str(exact(one["value"] or one["other"])) for one in rejections}
    return _REJECTED.sub("", text), rejected


def number_of(phrase: str, *, alone: bool) -> str | None:
    """Finds the number that a phrase gives, after its last equals sign. None if it gives an expression or several; `alone`:
    numbers that follow have to be the same one."""
    phrase = _ROUNDED.sub("", without_names(phrase))
    if alone and _FACTORIAL.search(phrase):
        return None
    if not alone and ";" in phrase:
        phrase = _first_clause(phrase)
    if len(_ASSIGNMENT.findall(phrase)) > 1:
        return None
    sides = [side for side in _EQUALS.split(phrase) if _REST.search(side)]
    if not sides:
        return None
    return _only(sides[-1], alone=alone) or _first_side(sides)


def _first_clause(phrase: str) -> str:
    """What stands before the first semicolon, where that is one value: what follows explains it. Empty where others of its unit
    follow: 7; 8  7 km; 8 km  x = 7; 8"""
    first, *others = phrase.split(";")
    one = _ENDS_WITH_ONE.search(first)
    if one is None:
        return phrase
    more = takewhile(lambda part: part and part["unit"] == one["unit"], map(_PARTED.fullmatch, others))
    if not {exact(part["value"]) for part in more if part} <= {exact(one["value"])}:
        return ""
    return first if one.start() == 0 else phrase


def _first_side(sides: list[str]) -> str | None:
    """The number that an equation begins with, where what it equals remains to be computed: 17 = 12 + 5."""
    first, *others = sides
    computed = others and all(map(_COMPUTED.match, others)) and not any(exact(side) is not None for side in others)
    value = exact(first) if computed else None
    return None if value is None else str(value)


def exact(phrase: str) -> Fraction | None:
    """Reads a phrase that is one number and nothing else, units apart from percent and money included."""
    phrase = without_names(phrase).strip(" $")
    number = _NUMBER.fullmatch(phrase)
    value = _value(number) if number else None
    return None if value is None else Fraction(value)


def is_whole(number: str, behind: str) -> bool:
    """Tells whether a number is no part of what stands behind it: not 5 of 5\\sqrt{2}, 3 of 3/4, 5 of 5 hours 30 minutes."""
    written = without_names(number)
    match = _NUMBER.match(without_names(number + behind))
    return match is not None and len(written) in (match.end(), match.start("times"))


def _only(side: str, *, alone: bool) -> str | None:
    numbers = list(_NUMBER.finditer(side))
    if not numbers:
        return None
    first = numbers[0]
    if len(numbers) > 1 and _is_said_twice(first, numbers[1]):
        return _value(first)
    if _is_of_more(first) or _GOES_ON.match(side, first.end()) or (alone and not _are_one(numbers)):
        return None
    return _value(first)


def _is_said_twice(number: re.Match[str], other: re.Match[str]) -> bool:
    """Whether the other one says the same in other words: 1/2 or 0.5."""
    between = number.string[number.end() : other.start()][:40]
    return _value(other) == _value(number) and bool(_OR_EQUALLY.fullmatch(between))


def _is_of_more(number: re.Match[str]) -> bool:
    """Whether it belongs to what stands before it: a term, a bound, a part, one of several."""
    start = number.start()
    bound = _BOUND.search(number.string[max(0, start - 40) : start])
    return bool(_TERM.search(_before(number)) or bound or _is_part(number) or _REST.search(number.string[:start]))


def _before(number: re.Match[str]) -> str:
    """What stands before it, with its sign, which may be an operator."""
    return number.string[max(0, number.start() - 40) : number.start()] + (number["sign"] or "")


def _are_one(numbers: list[re.Match[str]]) -> bool:
    """Whether all are the same number, and nothing between or behind them is another."""
    side, ends = numbers[0].string, [0, *(number.end() for number in numbers)]
    gaps = (side[end : number.start()] for end, number in zip(ends, numbers, strict=False))
    values = {_value(number) for number in numbers}
    return len(values) == 1 and not any(map(_REST.search, gaps)) and not _REST.search(side, ends[-1])


def _is_part(number: re.Match[str]) -> bool:
    before = number.string[max(0, number.start() - 40) : number.start()]
    of_units = _LARGE_UNIT.search(before) and _SMALL_UNIT.match(number.string, number.end())
    return bool(_PART_OF.search(before) or of_units or _is_between_bars(number))


def _is_between_bars(number: re.Match[str]) -> bool:
    """Whether bars take its sign away: |-4|, but not in a row of a table, which has more of them, a word of two letters or
    more, or a rule above it."""
    text, start, end = number.string, number.start(), number.end()
    if not (number["sign"] and text[max(0, start - 1) : start] == "|" and text.startswith("|", end)):
        return False
    begin = text.rfind("\n", 0, start) + 1
    is_row = text[begin:].partition("\n")[0].count("|") != 2 or _ENDS_WITH_WORD.search(text[begin : start - 1][-2:])
    above = takewhile(lambda line: "|" in line, reversed(text[max(0, begin - 400) : begin].split("\n")[:-1]))
    return not (is_row or any(map(_RULE.fullmatch, above)))


def _value(number: re.Match[str]) -> str | None:
    groups = {name: re.sub(r"[^-\d.eE+]", "", text) for name, text in number.groupdict().items() if text}
    if "divisor" in groups and partial.is_season(groups["whole"], groups["divisor"]):
        return None
    try:
        size = _size(groups) * multiples.factor(number["times"])
        return str(-size if _is_negative(number) else size)
    except (ZeroDivisionError, ValueError):  # ValueError: more digits than Python converts
        return None


def _size(groups: dict[str, str]) -> Fraction:
    """The number without its sign. groups: the groups of the pattern that matched, digits alone."""
    if "mixed" in groups:
        return int(groups["mixed"]) + Fraction(int(groups["over"]), int(groups["under"]))
    if "whole" in groups:
        power = int(groups.get("power") or groups.get("power1") or "0")
        return Fraction(groups["whole"] + groups.get("exponent", "")) * Fraction(10) ** power / int(groups.get("divisor", 1))
    top, bottom = groups.get("top") or groups["top1"], groups.get("bottom") or groups["bottom1"]
    return int(groups.get("ones", 0)) + Fraction(top) / Fraction(bottom)


def _is_negative(number: re.Match[str]) -> bool:
    """Whether the sign belongs to the number: not in "7 - 3", "Profit - 12" or a list's "- 12 apples"."""
    sign = number["sign"] or ""
    if number["inner"]:
        return True
    if not sign or sign[0] == "+":
        return False
    before = number.string[max(0, number.start() - 16) : number.start()]
    text = before.rstrip()
    gap = before[len(text) :]
    if sign[-1].isspace() and not sign[0].isalpha():
        return not gap.endswith("\n") and (not text or text[-1] in "=:(≈<>$*[{|")
    return "\n" in gap or not text or not (text[-1].isdigit() or text[-1] in ")]}")
