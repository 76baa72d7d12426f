"""A resource as the operator reads it, which may be older or newer than whoever wrote or stored it. Pure.

`maft validate` and `maft run` are strict (parse.py): whoever types a field wants to hear that there is none of that name. On a
cluster the API server has done that, by a definition that may be of a newer release; and a run that has begun goes on.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maft_operator.spec.parse import Run, converted, parse
from maft_operator.spec.schema import KIND, BadSpec, Json, filled, fit, openapi, properties_of

OPERATOR = "operator: "  # how lines begin that are about its release, and not about the run
TOLD = OPERATOR + "it does not know spec.{}, which a newer release has, and passes over it; upgrade it if the run needs that"
BEGUN = OPERATOR + "{}; the run was accepted when it began, so it goes on"
SHOWN = 5  # fields that are not known
PLANNED = ("agents", "iterations", "evaluation.every")  # numbers by which a plan grows: beyond their bounds it fits nowhere


@dataclass(frozen=True, slots=True)
class Reading:
    """A resource that can be run."""

    run: Run
    warnings: tuple[str, ...] = ()
    """What this release makes less of than whoever wrote it, a line each."""


def read(resource: Mapping[str, Any], *, begun: bool) -> Reading:
    """Reads the resource without what is not known here. BadSpec if it is wrong; of a run that has begun, only if it has not the
    shape of one, or there would be no end to its plan."""
    known, unknown = pruned(resource)
    warnings = tuple(TOLD.format(path) for path in unknown[:SHOWN])
    try:
        return Reading(parse(known), warnings)
    except BadSpec as error:
        if not begun:
            raise
        whole = filled(known)
        _bounded(whole["spec"])
        return Reading(converted(whole), (*warnings, BEGUN.format(error)))


def _bounded(spec: Any) -> None:
    """BadSpec where a number by which the plan grows is none that this release plans with: all other runs would wait for it."""
    for path in PLANNED:
        value, schema = spec, openapi()["properties"]["spec"]
        for name in path.split("."):
            value, schema = value.get(name) if isinstance(value, dict) else None, schema["properties"][name]
        if value is not None:
            fit(value, schema, f"spec.{path}")


def pruned(resource: Mapping[str, Any], kind: str = KIND) -> tuple[Json, list[str]]:
    """Leaves out of a copy what the schema of this release does not have below `spec`; the second: the paths of that."""
    known = {name: copy.deepcopy(resource[name]) for name in ("apiVersion", "kind", "metadata", "spec") if name in resource}
    return known, sorted(set(_prune(known.get("spec"), openapi(kind)["properties"]["spec"], "")))


def _prune(value: Any, schema: Json, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _prune(item, schema.get("items", {}), f"{path}[]")
    properties = properties_of(value, schema)
    if not isinstance(value, dict) or not properties or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name in list(value):
        place = f"{path}.{name}".lstrip(".")
        if name in properties:
            yield from _prune(value[name], properties[name], place)
        else:
            del value[name]
            yield place
