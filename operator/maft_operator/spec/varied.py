"""Which fields of a run a comparison may vary, by path: what a grid and a search have in common. Pure."""

import copy
import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from maft.errors import meant
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec, Json, fit, openapi

VARIED = ("agents", "iterations", "debate", "training")  # questions and model stay the same
Point = Mapping[str, Any]  # values by the path of their field


def points(grid: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Lists every place of the grid; BadSpec for a path that is no field, and for a value that does not fit or is there twice."""
    for path, values in grid.items():
        schema = schema_of(path, f"spec.grid[{path}]", "a grid")
        for i, value in enumerate(values):
            fit(value, schema, f"spec.grid[{path}][{i}]")
        if twice := [value for i, value in enumerate(values) if value in values[:i]]:
            raise BadSpec(f"spec.grid[{path}]: {text(twice[0])} is there twice")
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def schema_of(path: str, where: str, what: str) -> Json:
    """Returns the schema of the field of a run; BadSpec where there is none that may be varied. where: names the path in the
    comparison; what: it is of."""
    if path.split(".", maxsplit=1)[0] not in VARIED:
        lists = {"method": "methods", "seed": "seeds"}
        only = f"{what} changes {', '.join(VARIED)}: questions and model stay the same"
        raise BadSpec(f"{where}: not of {what}; {f'set spec.{lists[path]}' if path in lists else only}")
    if path not in _leaves():
        raise BadSpec(f"{where}: no field of a run; {meant(path, _leaves(), 'docs/resource.md lists them', cutoff=0.5)}")
    return _leaves()[path]


def placed(spec: Json, point: Point) -> Json:
    """Sets these values in the spec, in place."""
    for path, value in point.items():
        *sections, name = path.split(".")
        place = spec
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = copy.deepcopy(value)
    return spec


def counts(run: Run, path: str, value: Any) -> bool:
    """Tells whether the field decides anything: a method may set it itself, and what is not trained knows no way of training."""
    if path.startswith("training.") and not run.spec.iterations:
        return False
    plain: Any = msgspec.json.decode(msgspec.json.encode(run.spec))  # as the value came: with lists, where records have tuples
    for part in path.split("."):
        plain = plain[part]
    return bool(plain == value)


def text(value: Any) -> str:
    """Writes a value on one line, as a row's name has it."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def worded(point: Point) -> list[str]:
    """Writes each value with its path."""
    return [f"{path}={text(value)}" for path, value in point.items()]


@functools.cache
def _leaves() -> dict[str, Json]:
    properties = openapi()["properties"]["spec"]["properties"]
    return dict(_walk({name: properties[name] for name in VARIED}))


def _walk(properties: Mapping[str, Json], above: str = "") -> Iterator[tuple[str, Json]]:
    for name, schema in properties.items():
        if inner := schema.get("properties"):
            yield from _walk(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", schema
