"""A ValidatingAdmissionPolicy held against an object without an API server: order, variables and conditions as there.

The expressions are run by the CEL library that reads the resource's own rules, with what Kubernetes adds to it and the policy uses.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

Json = dict[str, Any]
_TEXT, _BOOL = cel.Type.STRING, cel.Type.BOOL
_ENV = cel.NewEnv(
    variables=dict.fromkeys(("object", "oldObject", "request", "variables"), cel.Type.DYN),
    extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()],
    functions=[
        cel.FunctionDecl("isURL", [cel.Overload("is_url", _BOOL, [_TEXT], False, lambda text: _is_url(text))]),
        cel.FunctionDecl("url", [cel.Overload("to_url", _TEXT, [_TEXT], False, lambda text: text)]),
        cel.FunctionDecl("getHostname", [cel.Overload("host", _TEXT, [_TEXT], True, lambda text: urlsplit(text).hostname or "")]),
    ],
)


def _is_url(text: str) -> bool:
    try:
        return bool(urlsplit(text).scheme)
    except ValueError:
        return False


def refusals(policy: Mapping[str, Any], resource: Json, before: Json | None = None) -> list[str]:
    """Says what the policy has against it; before: what it was, where it is changed."""
    spec = policy["spec"]
    data: Json = {
        "object": resource,
        "oldObject": before,
        "request": {"operation": "UPDATE" if before else "CREATE"},
        "variables": {},
    }
    if not all(_value(condition["expression"], data) for condition in spec["matchConditions"]):
        return []
    for variable in spec["variables"]:
        data["variables"][variable["name"]] = _value(variable["expression"], data)
    against = [v for v in spec["validations"] if _value(v["expression"], data) is not True]
    return [v.get("message") or _value(v["messageExpression"], data) for v in against]


def _value(expression: str, data: Json) -> Any:
    value = _ENV.compile(expression).eval(data=data)
    if value.type() == cel.Type.ERROR:
        raise ValueError(f"{value.value()}: {expression}")
    return value.plain_value()
