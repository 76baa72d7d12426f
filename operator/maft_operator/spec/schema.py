"""A resource's schema (a file of crds/): defaults, bounds and CEL rules, applied as the API server does.

Order as there: unknown fields, defaults, types and bounds, then CEL. Rules about changes (oldSelf) have nothing to say here.
"""

import copy
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import yaml
from cel_expr_python import cel
from jsonschema import Draft4Validator
from jsonschema.exceptions import ValidationError, relevance
from jsonschema.validators import extend

from maft.errors import meant
from maft_operator.spec.scalars import HALF, HALF_FOUND

GROUP, VERSION, KIND = "maft.dev", "v1alpha1", "MultiAgentFinetune"
COMPARISON, SOCIETY = "MultiAgentComparison", "Society"
PLURALS = {KIND: "multiagentfinetunes", COMPARISON: "multiagentcomparisons", SOCIETY: "societies"}  # by kind; names of crds/, too
Json = dict[str, Any]
_EXACT = 2**53  # a float below it is the only one of its value
_LABEL, _NAME = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?"), re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")


class BadSpec(Exception):
    """A resource that will never run. One line: the field, what was found, what to do."""


@functools.cache
def openapi(kind: str = KIND) -> Json:
    """Reads the openAPIV3Schema of the version that this release serves."""
    text = (resources.files("maft_operator") / "crds" / f"{PLURALS[kind]}.yaml").read_text()
    return dict(yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def checked(resource: Mapping[str, Any], kind: str = KIND) -> Json:
    """Fills defaults in and checks the resource; BadSpec naming the first field that is wrong."""
    whole = _plain(resource)
    whole.pop("status", None)  # the operator's, and ignored where a resource is applied
    _identity(whole, kind)
    _known(whole, openapi(kind), "")
    whole = filled(whole, kind)
    if error := next(iter(sorted(_validator()(openapi(kind)).iter_errors(whole), key=relevance)), None):
        raise BadSpec(_explain(error))
    for path, rule, message in _violations(whole, openapi(kind), ""):
        raise BadSpec(message or f"{path}: breaks the rule {rule}")
    return whole


def fit(value: Any, schema: Json, where: str) -> None:
    """Checks the value of one field by its schema, but for rules; BadSpec that calls it `where`."""
    _known(value, schema, where)
    if error := next(iter(sorted(_validator()(schema).iter_errors(_whole(value, schema)), key=relevance)), None):
        error.path.appendleft(where)
        raise BadSpec(_explain(error))


def filled(resource: Json, kind: str = KIND) -> Json:
    """Fills defaults in, in place, and checks nothing. A status is the operator's to give."""
    whole = openapi(kind)
    schema = {**whole, "properties": {name: field for name, field in whole["properties"].items() if name != "status"}}
    _fill(resource, schema)
    return dict(_whole(resource, schema))


def _plain(resource: Mapping[str, Any]) -> Json:
    """A copy as JSON has it: keys are texts, and so are what YAML takes for dates."""
    try:
        whole: Json = json.loads(json.dumps(dict(resource), default=str))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSpec(f"the resource cannot be written as JSON: {error}") from None
    return whole


def _identity(resource: Json, kind: str) -> None:
    wanted = f"{GROUP}/{VERSION}"
    if resource.get("apiVersion") != wanted:
        raise BadSpec(f"apiVersion: {resource.get('apiVersion')!r}; this release reads {wanted}")
    if resource.get("kind") != kind:
        raise BadSpec(f"kind: {resource.get('kind')!r}; expected {kind}")
    metadata = resource.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise BadSpec("metadata.name: missing; give the run a name")
    name, namespace = metadata["name"], metadata.get("namespace") or "default"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "Services are named after it: small letters, digits and -, a letter first"
        raise BadSpec(f"metadata.name: {name!r}; {rule}{_quoted(name)}")
    if not isinstance(namespace, str) or not _LABEL.fullmatch(namespace):
        raise BadSpec(f"metadata.namespace: {namespace!r}; expected small letters, digits and -")
    for section in ("labels", "annotations"):
        _texts(metadata.get(section), f"metadata.{section}")


def _texts(value: Any, path: str) -> None:
    """BadSpec unless it is an object of texts, as the API server wants it; it takes null for absent."""
    if not isinstance(value, dict | None):
        raise BadSpec(f"{path}: is {_named(value)}; expected an object")
    for name, one in (value or {}).items():
        if not isinstance(one, str | None):
            raise BadSpec(f"{path}.{name}: is {_named(one)}; expected a string{_quoted(one)}")


def _known(value: Any, schema: Json, path: str) -> None:
    """The API server prunes unknown fields or, for kubectl's default, refuses them; so do we, with the nearest name. What it
    refuses and JSON Schema does not: an item that a set has twice, numbers and characters that are none."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            _known(item, schema.get("items", {}), f"{path}[{i}]")
            if schema.get("x-kubernetes-list-type") == "set" and item in value[:i]:
                raise BadSpec(f"{path}[{i}]: {item!r} is there twice")
    if wrong := _no_json(value):
        raise BadSpec(f"{path}: {wrong}")
    properties = properties_of(value, schema)
    if not isinstance(value, dict) or not properties or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name, child in value.items():
        if name not in properties:
            raise BadSpec(_misspelt(f"{path}.{name}".lstrip("."), name, properties))
        _known(child, properties[name], f"{path}.{name}".lstrip("."))


def _no_json(value: Any) -> str:
    """Says what of a value Python has and JSON does not; nothing where it is sound."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}; expected a number"
    if isinstance(value, str) and HALF.search(value):
        return HALF_FOUND
    return ""


def _misspelt(path: str, name: str, properties: Json) -> str:
    folded = [known for known in properties if known.lower() == name.replace("_", "").replace("-", "").lower()]
    known = f"known are {', '.join(sorted(properties))}"
    return f"{path}: unknown field; {meant(name, folded, cutoff=0) or meant(name, properties, known)}"


def _fill(value: Any, schema: Json) -> None:
    """Structural defaulting: a missing property with a default gets it, then its own properties are filled."""
    if isinstance(value, list):
        for item in value:
            _fill(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for name, child in properties_of(value, schema).items():
        if name not in value and "default" in child:
            value[name] = copy.deepcopy(child["default"])
        if name in value:
            _fill(value[name], child)


def properties_of(value: Any, schema: Json) -> Json:
    """Returns the schema of each property; of a map, of those that are there."""
    each = schema.get("additionalProperties")
    return dict.fromkeys(value, each) if isinstance(value, dict) and isinstance(each, dict) else schema.get("properties", {})


def _whole(value: Any, schema: Json) -> Any:
    """The API server takes 1024.0 for an integer: JSON has one kind of number."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return {name: _whole(child, properties.get(name, {})) for name, child in value.items()}
    if isinstance(value, list):
        return [_whole(item, schema.get("items", {})) for item in value]
    exact = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return int(value) if exact and schema.get("type") == "integer" else value


@functools.cache
def _validator() -> Any:
    """Draft 4 is the JSON Schema that OpenAPI 3.0 follows: exclusiveMinimum is a flag beside minimum."""
    return extend(Draft4Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


def _pattern(validator: Any, pattern: str, value: Any, schema: Json) -> Iterator[ValidationError]:
    """Go's $ is the end of the text; Python's lets a last newline pass."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield ValidationError(f"{value!r} does not match {pattern}")


def _explain(error: ValidationError) -> str:
    path = _dotted(error.absolute_path)
    value: Any = error.instance
    limit: Any = error.validator_value
    schema: Any = error.schema
    if error.validator == "required":
        missing = next(name for name in limit if name not in value)
        return f"{_dotted([*error.absolute_path, missing])}: missing; see its description in `kubectl explain` or docs/resource.md"
    texts = {
        "type": _expected(value, limit, schema.get("enum", ())) if isinstance(limit, str) else "",
        "enum": f"{value!r}; expected one of {', '.join(map(str, limit))}" if isinstance(limit, list) else "",
        "minimum": f"{value}; expected {'more than' if schema.get('exclusiveMinimum') else 'at least'} {limit}",
        "maximum": f"{value}; expected at most {limit}",
        "minLength": f"shorter than {limit} characters" if value else "is empty",
        "maxLength": f"longer than {limit} characters",
        "minItems": f"has {len(value) if isinstance(value, list) else 0} items; expected at least {limit}",
        "maxItems": f"has more than {limit} items",
        "minProperties": f"has {len(value) if isinstance(value, dict) else 0} entries; expected at least {limit}",
        "maxProperties": f"has more than {limit} entries",
        "pattern": f"{value!r}; expected to match {limit}",
    }
    return f"{path}: {texts.get(str(error.validator)) or error.message}"


def _expected(value: Any, kind: str, choices: Sequence[str] = ()) -> str:
    if choices:  # in quotes it would be none of them either: thinking: off
        return f"is {_named(value)}; expected one of {', '.join(map(str, choices))}"
    hint = _quoted(value) if kind == "string" else ""
    return f"is {_named(value)}; expected {'an' if kind[0] in 'aio' else 'a'} {kind}{hint}"


def _quoted(value: Any) -> str:
    """YAML takes many a text for something else: 12345e6, 1_000, on, {question}."""
    return "; put it in quotes" if isinstance(value, bool | int | float | dict | list) else ""


def _named(value: Any) -> str:
    """What was found, in words: long things by their kind, short ones as they are."""
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"the text {value!r}" if isinstance(value, str) else repr(value)


def _dotted(path: Any) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "the resource"


def rules(schema: Json | None = None, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yields every CEL rule of the schema with the path it stands at."""
    schema = openapi() if schema is None else schema
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule
    for name, child in schema.get("properties", {}).items():
        yield from rules(child, f"{path}.{name}".lstrip("."))
    if items := schema.get("items"):
        yield from rules(items, f"{path}[]")


def _violations(value: Any, schema: Json, path: str) -> Iterator[tuple[str, str, str]]:
    rules = [rule for rule in schema.get("x-kubernetes-validations", ()) if "oldSelf" not in rule["rule"]]
    seen = _visible(value, schema) if rules else None
    for rule in rules:
        if not _holds(rule["rule"], seen):
            yield path, rule["rule"], rule.get("message", "")
    for name, child in schema.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            yield from _violations(value[name], child, f"{path}.{name}".lstrip("."))
    for i, item in enumerate(value if isinstance(value, list) else ()):
        yield from _violations(item, schema.get("items", {}), f"{path}[{i}]")


def _visible(value: Any, schema: Json) -> Any:
    """What rules may see: not what the schema leaves open."""
    if isinstance(value, list):
        return [_visible(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    known = {name: child for name, child in schema["properties"].items() if not child.get("x-kubernetes-preserve-unknown-fields")}
    return {name: _visible(value[name], child) for name, child in known.items() if name in value}


@functools.cache
def _compiled(rule: str) -> Any:
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}).compile(rule)


def _holds(rule: str, value: Any) -> bool:
    return _compiled(rule).eval(data={"self": value}).value() is True
