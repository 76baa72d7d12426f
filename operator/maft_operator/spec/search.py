"""What `spec.search` of a comparison says: how many trials, over which values of which fields. Pure.

Whoever asks for the next trial is plan/search.py. Records are hashable, so that what was asked once can be kept: values are JSON.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from maft_operator.spec.schema import BadSpec, Json, fit
from maft_operator.spec.varied import Point, schema_of, text

DIGITS = 3  # significant ones of a number that is drawn: names of rows stay short
TRIED = 64  # points at most that are all tried for whether they fit; each takes milliseconds, for every method


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field: from low to high, or some values."""

    path: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    """Whole numbers alone."""
    values: tuple[str, ...] = ()
    """As JSON; empty where there is a range."""

    @property
    def ends(self) -> list[Any]:
        """Lists what has to fit for all to fit: the ends of a range, or every value."""
        if self.values:
            return [json.loads(value) for value in self.values]
        return [int(end) if self.whole else end for end in (self.low, self.high)]

    def rounded(self, value: float) -> float | int:
        """Returns a number of few digits within the range."""
        if self.whole or not value:
            return int(value) if self.whole else value
        few = round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
        return min(self.high, max(self.low, few))

    def has(self, value: Any) -> bool:
        """Tells whether it is one that may be drawn."""
        if self.values:
            return json.dumps(value) in self.values
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Search:
    """Trials of every method that trains; the value of one is its accuracy on validation questions."""

    trials: int
    seed: int
    sampler: Literal["tpe", "random"]
    parameters: tuple[Parameter, ...]

    def has(self, point: Any) -> bool:
        """Tells whether these are values that may be drawn."""
        by_path = {parameter.path: parameter for parameter in self.parameters}
        return isinstance(point, dict) and {*point} == {*by_path} and all(by_path[path].has(point[path]) for path in point)

    def corners(self) -> Iterator[Point]:
        """Lists points that have to fit: where they are few, all of the ends of every parameter; else some with each end in one of
        them, and all the highest ones together in the last."""
        paths, ends = [one.path for one in self.parameters], [one.ends for one in self.parameters]
        if math.prod(map(len, ends)) <= TRIED:
            yield from (dict(zip(paths, values, strict=True)) for values in itertools.product(*ends))
            return
        first = {path: values[0] for path, values in zip(paths, ends, strict=True)}
        yield first
        for path, values in zip(paths, ends, strict=True):
            yield from ({**first, path: value} for value in values[1:])
        yield {path: values[-1] for path, values in zip(paths, ends, strict=True)}


def read(spec: Json) -> Search | None:
    """Reads it; None where nothing is searched. BadSpec where it does not fit the rest of the comparison."""
    section = spec.get("search")
    if section is None:
        return None
    if spec.get("grid"):
        raise BadSpec("spec.grid: set beside spec.search, which chooses values itself; leave one of them out")
    if not (spec["template"].get("evaluation") or {}).get("validation"):
        raise BadSpec(
            "spec.template.evaluation.validation: 0; a search chooses by validation questions, which are neither trained on nor"
            " held out: set how many"
        )
    parameters = tuple(_parameter(path, one) for path, one in section["parameters"].items())
    return Search(section["trials"], section["seed"], section["sampler"], parameters)


def _parameter(path: str, section: Mapping[str, Any]) -> Parameter:
    where = f"spec.search.parameters[{path}]"
    schema = schema_of(path, where, "a search")
    if "values" not in section:
        return _range(path, section, schema, where)
    if others := [name for name in ("low", "high", "log") if section.get(name)]:
        raise BadSpec(f"{where}: {' and '.join(others)} beside values; set values, or low and high")
    for i, value in enumerate(section["values"]):
        fit(value, schema, f"{where}.values[{i}]")
    return Parameter(path, values=tuple(_apart(where, section["values"])))


def _range(path: str, section: Mapping[str, Any], schema: Json, where: str) -> Parameter:
    if missing := [name for name in ("low", "high") if name not in section]:
        raise BadSpec(f"{where}: {' and '.join(missing)} missing; set values, or low and high")
    low, high, log, whole = section["low"], section["high"], section.get("log", False), schema.get("type") == "integer"
    if schema.get("type") not in ("integer", "number"):
        raise BadSpec(f"{where}: is no number; set values in place of low and high")
    if whole and not all(float(end).is_integer() for end in (low, high)):
        raise BadSpec(f"{where}: {low} to {high}; expected whole numbers")
    if not low < high:
        raise BadSpec(f"{where}: {low} to {high}; expected low below high")
    if log and low <= 0:
        raise BadSpec(f"{where}: log from {low}; expected more than 0")
    for name in ("low", "high"):
        fit(section[name], schema, f"{where}.{name}")
    return Parameter(path, float(low), float(high), log, whole)


def _apart(where: str, values: Iterable[Any]) -> Iterator[str]:
    seen: set[str] = set()
    for value in values:
        written = json.dumps(value)
        if written in seen:
            raise BadSpec(f"{where}: {text(value)} is there twice")
        seen.add(written)
        yield written
