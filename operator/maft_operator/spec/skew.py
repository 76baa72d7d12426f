"""A resource as the operator reads it, which may be older or newer than whoever wrote or stored it. Pure.

`maft validate` and `maft run` are strict (parse.py): whoever types a field wants to hear that there is none of that name. On a
cluster the API server has done that, by a definition that may be of a newer release; and a run that has begun goes on.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maft_operator.spec.parse import Run, converted, parse
from maft_operator.spec.schema import KIND, BadSpec, Json, filled, openapi, properties_of

OPERATOR = "operator: "  # how lines begin that are about its release, and not about the run
TOLD = OPERATOR + "it does not know spec.{}, which a newer release has, and passes over it; upgrade it if the run needs that"
BEGUN = OPERATOR + "{}; the run was accepted when it began, so it goes on"
SHOWN = 5  # fields that are not known


@dataclass(frozen=True, slots=True)
class Reading:
    """A resource that can be run."""

    run: Run
    warnings: tuple[str, ...] = ()
    """What this release makes less of than whoever wrote it, a line each."""


def read(resource: Mapping[str, Any], *, begun: bool) -> Reading:
    """Reads the resource without what is not known here. BadSpec if it is wrong; of a run that has begun, only if it has not the
    shape of one."""
    known, unknown = pruned(resource)
    warnings = tuple(TOLD.format(path) for path in unknown[:SHOWN])
    try:
        return Reading(parse(known), warnings)
    except BadSpec as error:
        if not begun:
            raise
        return Reading(converted(filled(known)), (*warnings, BEGUN.format(error)))


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
