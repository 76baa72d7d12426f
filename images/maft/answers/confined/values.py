"""How a value that a program returns is written: as JSON, so that two values are equal if and only if their texts are.

Runs in the confined process, and where expected outputs are read: standard library only.
"""

import json
from typing import Any

DIGITS = 10  # of a float that count: sums in another order differ in later ones; rounding keeps equality transitive


class NoValue(TypeError):
    """What was returned is none of the values that can be written."""


def written(value: Any) -> str:
    """Writes a value. Tuples are lists, floats count to ten digits and 2.0 is 2, but True is not 1; a set is told from a list.

    Raises NoValue for what has no such form: generators, objects, functions, bytes."""
    if value is None or isinstance(value, (bool, str)):
        return _text(value) if isinstance(value, str) else json.dumps(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return '{"set": [' + ", ".join(sorted(map(written, value))) + "]}"
    if isinstance(value, dict):
        members = {key if isinstance(key, str) else written(key): written(member) for key, member in value.items()}
        return "{" + ", ".join(f"{_text(key)}: {members[key]}" for key in sorted(members)) + "}"
    raise NoValue(f"returned a {type(value).__name__}; None, booleans, numbers, texts, lists, tuples, sets and dicts count")


def _text(value: str) -> str:
    value.encode()  # half a character has no bytes
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return f'{{"float": "{value}"}}'
    exact = value if value.is_integer() else float(format(value, f".{DIGITS}g"))
    return str(int(exact)) if exact.is_integer() else repr(exact)
