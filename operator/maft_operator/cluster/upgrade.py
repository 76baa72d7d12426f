"""A status that release 0.1 wrote, in the shape of today: numbers instead of texts. Pure.

0.1 had "91.0 ± 1.7" (percent), "12/9/14" or "9 to 14" (examples), "1/2" (iterations) and "0.0899" (nats). A text that cannot be
read is left out. The controller rewrites such a status at its first look at the resource: with a merge patch, since server-side
apply refuses to change the type of a field. This module goes with the last cluster that has run 0.1.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from maft.summaries import Score
from maft_operator.cluster.fields import part, parts
from maft_operator.spec.schema import Json

_SCORE = re.compile(r"([0-9.]+) ± ([0-9.]+)")
_WHOLE = re.compile("[0-9]{1,18}")
_SCORES = ("accuracy", "majority", "answer", "consensus", "probe")  # of an iteration
_NUMBERS = ("nll", "kl", "dissimilarity")
_TEXTS = (*_SCORES, *_NUMBERS, "agreement")
RENEWED: Json = {"conditions": None, "progress": None}
"""What a patch also takes away of a run that is not finished. Whoever patches owns all that is left, beside the field manager of
apply, which then cannot drop it any more; of these two, parts go at times. Applied anew they are its own, and were they lost in
between, the next look would make them again."""


def is_old(status: Mapping[str, Any]) -> bool:
    """Tells whether 0.1 wrote it."""
    whole = any(isinstance(status.get(name), str) for name in ("iteration", "accuracy", "baseAccuracy"))
    return whole or any(_is_old_row(row) for row in parts(dict(status), "iterations"))


def upgraded(status: Mapping[str, Any]) -> Json:
    """Makes the status of today from one of any release."""
    if not is_old(status):
        return dict(status)
    made = {key: _upgraded(key, value) for key, value in status.items()}
    return {key: value for key, value in made.items() if value is not None}


def merge_patch(status: Mapping[str, Any]) -> Json:
    """Makes what has to be merged into an old status to make it the one of today; null takes a field away."""
    new = upgraded(status)
    return {key: new.get(key) for key, value in status.items() if new.get(key) != value}


def _is_old_row(row: Mapping[str, Any]) -> bool:
    return any(isinstance(value, str) for value in (*(row.get(name) for name in _TEXTS), *part(dict(row), "kept").values()))


def _upgraded(key: str, value: Any) -> Any:
    if key == "iterations":
        return [_row(row) for row in parts(value)]
    if not isinstance(value, str):
        return value
    if key == "iteration":
        return _iteration(value)
    return _worded(value) if key in ("accuracy", "baseAccuracy") else value


def _row(row: Mapping[str, Any]) -> Json:
    made = {key: _field(key, value) for key, value in row.items()}
    return {key: value for key, value in made.items() if value is not None}


def _field(key: str, value: Any) -> Any:
    if key == "kept":
        return {role: counts for role, text in part(value).items() if (counts := _kept(text))}
    if not isinstance(value, str):
        return value
    if key in _SCORES:
        return _score(value)
    number = _number(value)
    return _fraction(number) if key == "agreement" and number is not None else number


def _iteration(text: str) -> Json | None:
    numbers = text.split("/")
    if len(numbers) != 2 or not all(map(_WHOLE.fullmatch, numbers)):
        return None
    return {"current": int(numbers[0]), "total": int(numbers[1]), "text": text}


def _worded(text: str) -> Json | None:
    score = _score(text)
    return {**score, "text": Score(score["mean"], score["stderr"]).percent} if score else None


def _score(text: str) -> Json | None:
    match = _SCORE.fullmatch(text)
    mean, stderr = map(_number, match.groups()) if match else (None, None)
    return None if mean is None or stderr is None else {"mean": _fraction(mean), "stderr": _fraction(stderr)}


def _kept(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    counts = [int(count) for count in re.findall(_WHOLE, text)]
    if not counts:
        return None
    each = {} if " to " in text else {"counts": counts}
    return {"fewest": min(counts), "most": max(counts), **each}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _fraction(percentage: float) -> float:
    return round(percentage / 100, 4)
