"""Values of any record for property tests, by the types of its fields."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

# A float in JSON is a number; integers are those that every reader of JSON keeps exact.
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    bool: st.booleans(),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    msgspec.UnsetType: st.just(msgspec.UNSET),
    Any: st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
        max_leaves=4,
    ),
}


def values(kind: Any, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """All values of a type that stands in a record, or of a record itself. fixed: its fields with values of their own."""
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__ if name not in fixed}, **fixed)
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        pattern = next((meta.pattern for meta in arguments[1:] if isinstance(meta, msgspec.Meta) and meta.pattern), None)
        return st.from_regex(pattern, fullmatch=True) if pattern else values(arguments[0])
    if get_origin(kind) is Literal:
        return st.sampled_from(arguments)
    if get_origin(kind) in (Union, UnionType):
        return st.one_of([values(one) for one in arguments])
    if get_origin(kind) is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    assert get_origin(kind) is tuple, kind
    if arguments[1:] == (...,):
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    return st.tuples(*map(values, arguments))


def subclasses(kind: type) -> list[type]:
    """All below it, however deep."""
    children: list[type] = kind.__subclasses__()
    return [one for child in children for one in (child, *subclasses(child))]


def camel(name: str) -> str:
    """The name of a field in JSON."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
