"""What go-yaml v2 takes a scalar for, and how Go writes it as JSON. Pure; `go_yaml.py` calls it.

YAML 1.1 with the numbers of Go: `yes`, `on` and `y` are true, `017` and `0o17` are 15, `1_000` is a number and `1:30` a text.
"""

import base64
import math
import re
import struct
from datetime import datetime
from typing import Any

HALF = re.compile("[\ud800-\udfff]")  # a surrogate without its other half
HALF_FOUND = "holds half a character (a surrogate without its other half); remove it"
_TAG = "tag:yaml.org,2002:"
_MOST = 2**63 - 1  # of Go's int64; what is larger becomes a float64 on its way through JSON
_WORDS: dict[str, tuple[str, Any]] = {
    **{form: ("bool", True) for word in ("y", "yes", "true", "on") for form in (word, word.capitalize(), word.upper())},
    **{form: ("bool", False) for word in ("n", "no", "false", "off") for form in (word, word.capitalize(), word.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), ("null", None)),
    **{sign + form: ("float", float(sign + "inf")) for sign in ("", "+", "-") for form in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), ("float", math.nan)),
}
_INTEGER = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BASES = (16, 2, 8, 10)
_TWICE_SIGNED = re.compile(r"0b([+-][01]+)")  # go-yaml tries once more what is no number of Go
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_POINT = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
_BASE64 = re.compile(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_TIME = r"(\d{1,2}):(\d{1,2}):(\d{1,2})([.,]\d+)?"
_TIMESTAMP = re.compile(rf"(\d{{4}})-(\d{{1,2}})-(\d{{1,2}})(?:[Tt]{_TIME}(?:Z|[+-]\d\d:\d\d)| {_TIME})?", re.ASCII)


def resolved(tag: str | None, text: str, *, plain: bool) -> Any:
    """Returns the scalar as go-yaml does: an int, float, bool, None or text. ValueError where the tag says
    something else, and for half a character."""
    if HALF.search(text):
        raise ValueError(HALF_FOUND)
    kind = (tag or "").removeprefix(_TAG)
    if not tag:
        return _guess(text)[1] if plain else text
    if kind == "binary":
        return _binary(text)
    if kind == "timestamp":
        return _timestamp(text)
    if not tag.startswith(_TAG) or kind not in ("bool", "int", "float", "null"):
        return text
    guessed_kind, value = _guess(text)
    if (kind, guessed_kind) == ("float", "int") and value <= _MOST:
        return float(value)
    if guessed_kind != kind:
        raise ValueError(f"{text!r} is no {kind}")
    return value


def _guess(text: str) -> tuple[str, Any]:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == ".":
        number = float(text.replace("_", "")) if _POINT.fullmatch(text) else math.inf
        return ("str", text) if math.isinf(number) else ("float", number)
    return _number(text.replace("_", ""), text) if text[0] in "+-0123456789" else ("str", text)


def _number(digits: str, text: str) -> tuple[str, Any]:
    whole = _integer(digits)
    if whole is not None:
        return "int", whole
    if _FLOAT.fullmatch(digits) and math.isfinite(number := float(digits)):
        return "float", number
    return "str", text


def _integer(digits: str) -> int | None:
    """A whole number in one of Go's notations, of 64 bits at most: beyond them it is a float or a text."""
    if again := _TWICE_SIGNED.fullmatch(digits):
        return _in_64_bits(int(again[1], 2), signed=True)
    if not (match := _INTEGER.fullmatch(digits)):
        return None
    sign, *notations = match.groups()
    [(base, number)] = [(b, n) for b, n in zip(_BASES, notations, strict=True) if n]
    if len(number) > 64:  # more digits than the most bits
        number = number.lstrip("0")[:65] or "0"
    return _in_64_bits(int(sign + number, base), signed=bool(sign))


def _in_64_bits(whole: int, *, signed: bool) -> int | None:
    return whole if -_MOST - 1 <= whole <= (_MOST if signed else 2 * _MOST + 1) else None


def _binary(text: str) -> str:
    if not _BASE64.fullmatch(joined := re.sub(r"[\r\n]", "", text)):
        raise ValueError("!!binary value contains invalid base64 data")
    return re.sub("[\udc80-\udcff]", "\ufffd", base64.b64decode(joined).decode(errors="surrogateescape"))


def _timestamp(text: str) -> str:
    if not (match := _TIMESTAMP.fullmatch(text)):
        raise ValueError(f"{text!r} is no timestamp")
    year, month, day, *times = match.groups()
    hour, minute, second = (int(times[i] or times[i + 4] or 0) for i in range(3))
    datetime(int(year), int(month), int(day), hour, minute, second)  # ValueError for a day that there is not
    return text


def as_json(value: Any) -> Any:
    """Returns the value as JSON of Go gives it back: floats without a fraction are whole numbers. ValueError for no number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, int) or value.is_integer():
        return int(value) if -_MOST - 1 <= value <= _MOST else float(value)
    return value


def as_key(value: Any) -> str:
    """Writes the key of a JSON object that Go makes of a scalar. ValueError where it makes none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float) or (isinstance(value, int) and value > _MOST):
        raise ValueError(f"{'null' if value is None else repr(value)[:60]} is no key")
    return _single(value) if isinstance(value, float) else str(value)


def _single(value: float) -> str:
    """As strconv.FormatFloat(value, 'g', -1, 32): the shortest that gives the same number of single precision."""
    try:
        single = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        single = math.copysign(math.inf, value)
    if not math.isfinite(single):
        return ".nan" if math.isnan(single) else f"{'-' * (single < 0)}.inf"
    texts = (f"{single:.{digits}e}" for digits in range(9))
    mantissa, exponent = next(t for t in texts if struct.pack("f", float(t)) == struct.pack("f", single)).split("e")
    if -4 <= int(exponent) < 6:
        return f"{float(mantissa + 'e' + exponent):.{max(0, len(mantissa.lstrip('-').replace('.', '')) - 1 - int(exponent))}f}"
    return f"{mantissa}e{exponent}"
