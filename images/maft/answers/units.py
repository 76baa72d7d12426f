r"""Units behind mathematics, which graders of MATH drop: 5\text{ cm} is 5, and 2\sqrt{3} cm is 2\sqrt{3}.

Only what nobody takes for a part of the value: \pi r^2 h is not \pi r^2, and n\text{ even} is not n. In a text behind a value with
variables it is a unit that has a name, behind one without any noun; without a text it has two letters or more, and four or more
behind variables.
"""

import re

_LENGTHS = r"(?:kilo|centi|milli|deci)?met(?:er|re)|[kcmd]m|inch(?:es)?|feet|foot|ft|yard|yd|mile"
_TIMES = r"second|sec|minute|min|hour|hr|day|week|month|year|yr"
_WEIGHTS = r"(?:kilo|milli)?gram|[km]g|pound|lb|ounce|oz|tonne|ton|(?:milli)?lit(?:er|re)|m[lL]|gallon|gal|quart|acre"
_OTHERS = r"dollar|cent|euro|degree|deg|rad(?:ian)?|k?mph|rpm|unit|percent|pct|k?Hz|k?Pa|(?:kilo)?joule|newton|watt|volt|ohm|people"
LARGE = r"(?:hours?|hrs?|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|yards?|pounds?|lbs?|gallons?|dollars?|km|kg|m|h)"
"""Which others follow: 5 ft 3 in"""
_POWER = r"(?:\s*\^\s*(?:\d|-\d|\{\s*-?\d\s*\})|[23](?!\d)|\s(?:squared|cubed))?"  # cm^2  cm2  cm squared
# square meters  cm^2  apples, but not st, th, ab, bc, ms: these may be two variables
_NAMED = rf"(?:(?:square|sq\.?|cubic|cu\.?)\s)?(?:(?:{_LENGTHS}|{_TIMES}|{_WEIGHTS}|{_OTHERS})s?|[a-z]{{3,20}}s)(?![a-z]){_POWER}"
_SYMBOL = r"(?:[mgsthlLCFK]|[kM]?[NJWVA]|k?mol|[kM]?eV|in)(?![A-Za-z])"  # may be variables without a text
_IN_A_TEXT = rf"(?:{_NAMED}|{_SYMBOL}{_POWER}|st|nd|rd|th)"
_PER = r"\s?(?:/|per|\s)\s?"

_SPACE = r"(?>(?:\s|~|\\[,;:! ]|\\quad(?![A-Za-z])){0,4})"
_TEXT = rf"\\(?:text(?:rm|bf|it|normal)?|math(?:rm|bf|it)|mbox)\s?\{{(?P<%s>[^{{}}]{{1,60}}+)\}}{_POWER}"
# 5\text{ cm}^2  5\;\mathrm{km}/\mathrm{h}  5\,\frac{\text{m}}{\text{s}}
_BEHIND = re.compile(
    rf"(?<=[\w)\]}}.]){_SPACE}(?:\\cdot\s?)?(?:{_TEXT % 'unit'}(?:{_SPACE}(?:/|\\cdot)?{_SPACE}{_TEXT % 'per'})?"
    rf"|\\[dt]?frac\s?\{{\s?{_TEXT % 'top'}\s?\}}\s?\{{\s?{_TEXT % 'bottom'}\s?\}})\.?\Z"
)
_SPEED = r"m/s(?:\s?\^\s?(?:2|\{\s?2\s?\}))?(?![A-Za-z])"
_RATE = rf"(?:{_NAMED}(?:{_PER}(?:{_NAMED}|[sh](?![a-z])))?|per\s{_NAMED}|{_SPEED})"
_BARE = re.compile(rf"(?:(?<=[\d)\]}}.])|(?<=[A-Za-z])(?=\s)){_SPACE}(?P<unit>{_RATE})\.?\Z")
_MORE = r"(?:\s(?:old|high|long|wide|deep|tall|away|apart|left|in\stotal|altogether))?"
_UNIT = re.compile(rf"[\s~]*{_IN_A_TEXT}(?:{_PER}{_IN_A_TEXT})?{_MORE}[\s.]*")
_NOUN = re.compile(r"[\s~]*[^\W\d_]{2,}(?:[\s-][^\W\d_]+){0,5}[\s.]*")
_WORDS = re.compile(r"(?:(?!alpha|theta|gamma|sigma)[a-z]{4,20}[\s.]*){1,3}")  # behind variables, too: 2x meters, but x cm is cmx
# What is said of the value: 5\text{ or more}  5\text{ times}  n\text{ is even}
_PARTS = r"(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand|million)ths?|half|halves|quarters?|thirds?"
_LARGE = r"dozens?|hundreds?|thousands?|lakhs?|crores?|[a-z]{1,7}illions?"
_SAID = re.compile(
    r"(?<![^\W_])(?:or|and|nor|not|if|for|when|where|unless|mod|modulo|rem|remainder|more|less|fewer|greater|than|least|most|up|over|under"
    rf"|times|plus|minus|choose|is|are|was|has|gives|equals|even|odd|{_LARGE}|{_PARTS}|base|only|some|factorials?|undefined|positive"
    r"|negative|below|above|before|after|[AP]M|[ap]m|BCE?|CE|AD|north|south|east|west|radix|axis|cos|sinus|roots?)(?![^\W_])",
    re.IGNORECASE,
)
_RELATION = re.compile(r"[=<>≈≤≥]|\\(?:leq?|geq?|lt|gt|approx)(?![A-Za-z])")
_SIGN = re.compile(r"\\(?P<command>[A-Za-z]+)|(?P<letter>[A-Za-z])")
_CONSTANT = re.compile(r"[dtc]?frac|sqrt|pi|times|cdot|div|pm|mp|left|right|circ|ln|log|quad")


def without_units(text: str) -> str:
    """Removes the unit behind LaTeX."""
    behind = _BEHIND.search(text) or _BARE.search(text)
    if behind is None:
        return text
    value, written = text[: behind.start()], behind[0].strip()
    value = value.replace(f"{written},", ",")  # 3\text{ cm}, 4\text{ cm}
    side = _RELATION.split(value)[-1]
    units = [unit for unit in behind.groupdict().values() if unit]
    if "\\text" in side or _SAID.search(" ".join(units)):
        return text
    if _is_constant(side):
        known = all(_UNIT.fullmatch(unit) or _NOUN.fullmatch(unit) for unit in units)
    else:
        known = all((_UNIT if behind.re is _BEHIND else _WORDS).fullmatch(unit) for unit in units)
    return value if known else text


def _is_constant(value: str) -> bool:
    """Whether a value has no variables."""
    signs = [sign["command"] or sign["letter"] for sign in _SIGN.finditer(value)]
    return bool(value.strip()) and all(sign in "ei" or _CONSTANT.fullmatch(sign) for sign in signs)
