"""Rows of `status.iterations` as they come: of a row, what is not whole is left out. Pure.

The definition asks for no field of a row but its number, and whoever may write the status writes rows, or restores those of
another release. Who reads a row from here may trust every field that it knows.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from maft.summaries import Gain, Score
from maft_operator.cluster.fields import parts
from maft_operator.spec.schema import Json

Count = Annotated[int, Meta(ge=0)]


class Kept(msgspec.Struct, frozen=True):
    """Training examples of a role, by agent."""

    fewest: Count
    most: Count
    counts: list[Count] = []


class Asked(msgspec.Struct, frozen=True):
    """Answers of its debates, of which there are some."""

    asked: Annotated[int, Meta(ge=1)]
    cut: Count
    clipped: Count


class Probed(Score, frozen=True):
    """With how many questions that was."""

    questions: Count | UnsetType = UNSET


class Validated(Score, frozen=True):
    """With what it gained, where there was one before."""

    gain: Gain | UnsetType = UNSET


_SCORES = ("accuracy", "majority", "answer", "consensus")
_NUMBERS = ("agreement", "nll", "kl", "dissimilarity")
_COUNTS = ("abstained", "wrongToRight", "rightToWrong", "trained", "untrained", "turnsLeftOut")
_SUMS = ("promptTokens", "completionTokens", "seconds", "gpuSeconds")
FIELDS: Mapping[str, Any] = {  # by name: what it is where it is whole
    "iteration": Count,
    **dict.fromkeys(_SCORES, Score),
    "probe": Probed,
    "validation": Validated,
    **dict.fromkeys(_NUMBERS, float),
    **dict.fromkeys((*_COUNTS, *_SUMS), Count),
    "kept": dict[str, Kept],
    "leftOut": dict[str, Count],
    "answers": Asked,
}


def read(status: Mapping[str, Any]) -> list[Json]:
    """Reads the rows in order, one of each iteration; fields that this release does not know stay as they are."""
    rows = (_whole(row) for row in parts(dict(status), "iterations"))
    by_iteration = {row["iteration"]: row for row in rows if "iteration" in row}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def _whole(row: Json) -> Json:
    return {name: value for name, value in row.items() if name not in FIELDS or _is(value, FIELDS[name])}


def _is(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True
