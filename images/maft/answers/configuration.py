"""Configurations of generators, checked against the fields and types that reasoning-gym gives them. Runs in the worker."""

import typing
from typing import Any

import msgspec

from maft.answers.gym import library
from maft.errors import BadInput, meant, one_line

OURS = {"seed": "task.seed", "size": "task.train and task.heldOut"}  # what the spec says elsewhere


def check(generator: str, config: dict[str, Any], where: str) -> None:
    """Raises BadInput for the first argument that the generator does not have, or not of that type. where: its field."""
    types = _types(generator)
    for name, value in config.items():
        if name in OURS:
            raise BadInput(f"{where}.{name}: leave it out and set {OURS[name]}")
        if name not in types:
            hint = meant(name, types, f"{generator} has {', '.join(sorted(types)) or 'none'}")
            raise BadInput(f"{where}.{name}: unknown argument; {hint}")
        try:
            _convert(value, types[name])
        except msgspec.ValidationError as error:
            raise BadInput(f"{where}.{name}: {one_line(error, 200)}") from None


def typed(generator: str, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments as the generator's types: JSON has no tuples and no dataclasses."""
    types = _types(generator)
    return {name: _convert(value, types[name]) for name, value in config.items()}


def _types(generator: str) -> dict[str, Any]:
    kind = library().DATASETS[generator][1]
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in kind.__dataclass_fields__ if name not in OURS}


def _convert(value: Any, wanted: Any) -> Any:
    try:
        return msgspec.convert(value, wanted)
    except TypeError:  # a type that msgspec does not know: the generator's own checks remain
        return value
