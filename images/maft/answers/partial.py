r"""Words and signs that make a number a part of what they say: half past | 7, 5 | (mod 3), the cube of | 3, 6 | May 2024.

Pieces of the patterns of numbers.py, verbose, an example beside each.
"""

_MONTHS = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)"
)
# Units that another quantity follows, beside those of numbers.py: 2d 5h  2 gal 1 qt
LARGE = r"d|wks?|mos?|gals?|qts?|pts?|tbsp|mi|yds"
SMALL = r"qts?|pts?|tbsp|tsp|fl\soz|yds?|ft"
_DOTTED = r"(?:hrs?|mins?|ft|lbs?|yds?|gals?|wks?|qts?)\."

# What does not follow a number. It takes part in a pattern with the groups divisor, top (of fractions) and money.
AFTER = rf"""
    \s\(?(?:repeating|recurring)(?![^\W_])   # 0.33 repeating
  | (?<=\.\d\d)\s?[ap]\.?m(?![^\W_]) | \s(?:minutes\s)?past\s\d  # 7.30pm  10 past 7
  | \+(?=\s*(?:[.,;)}}\]]|\Z)) | \sk(?![^\W_]) | (?(money)(?:mm|b)(?![A-Za-z])|(?!))  # 3+  5 k  $5mm
  | \sraised\sto\s | (?:st|nd|rd|th)\s(?:power|root)\sof\s | 十
  | -and-an?-[a-z] | -and-(?:one|two|three)-[a-z]  # 5-and-a-half
  | (?:[xyz]{{2,3}}|[abn][xyz]|[xyz][abn])(?![A-Za-z]) | \s[xyz](?=\s*(?:[.,;)$*]|\Z))  # 3xy  3 x
  | \s?\+\s?(?:[A-Za-z]{{2}}|[b-z](?![A-Za-z]))  # $5 + tax
  | (?(divisor)\sof\s[$(]?\d|(?!)) | (?(top)\$?\sof\s[$(]?\d|(?!))  # 1/2 of 30
  | \s?\\?\(?\\?p?mod(?:ulo)?(?![A-Za-z])\s?\{{?\s?\d  # 5 (mod 3)
  | ,?\sr\.?\s?\d                           # 7 r 2
  | \s?\\?%\soff\s[$(]?\d                   # 30% off $50
  | (?:st|nd|rd|th)?\s(?:of\s)?{_MONTHS}\.?,?\s\d{{4}}(?!\d)  # 6 May 2024
  | \s{_DOTTED}\s\d{{1,3}}\s?(?:{SMALL}|mins?|secs?|in|oz|s)(?![^\W_])  # 2 hrs. 30 min.
  | \|\d | \s?(?:≠|\\neq?(?![a-z])|!=)\s?\d # 5|6  5 ≠ 6
  | \s?(?:Mrd|Tsd|Mlrd|Mld|mld|mrd|tys|тыс|млн|млрд|[Cc]r|lacs?|bil|bln|tril)(?![^\W_])  # 5 Mrd.
  | (?(money)(?!)|\s(?:score|gross)(?=\s*(?:[.,;)*]|\Z|of\s)))  # 2 score
"""
# What stands before a number of which it is a part.
BEFORE = rf"""
    (?<![^\W_])(?:roots?|cubes?|square|power|factorial|reciprocal|inverse|negative|opposite|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?
      |tenths?|percent|percentage)\sof\s[$(]?   # the square root of 16  two thirds of 30
  | (?<![^\W_])(?:half\spast|(?<!by\s)(?<!by\sa\s)quarter\s(?:past|to|after|till))\s  # half past 7
  | %\s(?:of|off)\s[$(]?                        # 30% off $50
  | (?<![A-Za-z])\\?p?mod(?:ulo)?(?:\{{\s?|\s)   # 5 (mod 3)
  | \d,?\sr\.?\s?                              # 7 r 2
  | \d\s(?:minutes\s)?past\s | \d\s?(?:\+/-?|∠)\s? | \d(?:\*\*|\(|[€£]|—|[点點时時]) | 分之 # 10 past 7  3 +/- 1  2**10
  | \d\s?(?:\\over|choose|against|with|to\sthe|raised\sto\sthe\s\w{{1,8}}(?:\sof)?|(?:in\s)?base)\s  # 5 choose 2
  | \d\s{_DOTTED}\s                            # 2 hrs. 30 min.
"""
# A season, no fraction: 2019/20
_CENTURY = range(1900, 2100)


def is_season(whole: str, divisor: str) -> bool:
    """Tells whether two numbers around a slash are a year and the last digits of the next one."""
    return len(divisor) == 2 and whole.isdigit() and int(whole) in _CENTURY and int(divisor) == (int(whole) + 1) % 100
