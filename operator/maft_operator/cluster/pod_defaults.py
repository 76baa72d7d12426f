"""The admin's podTemplate for all runs: a file, checked as the operator starts. What is wrong with it would otherwise be found in
each pod of each run.

Its fields are those that the API's own client knows; what values mean is left to the API server.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from maft.errors import meant
from maft_operator.cluster.pod_template import DEBATE, OWN, SERVE, TRAIN
from maft_operator.cluster.quantities import amount
from maft_operator.spec.schema import BadSpec, Json

FLAG = "--pod-defaults"
_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_AMOUNTS = ("limits", "requests", "overhead")  # objects of amounts
# No pod of a run is without.
_NEEDED: dict[str, Any] = {"metadata": {"labels": {}}, "spec": {"containers": {}, "volumes": {}, "restartPolicy": {}}}
_NOT_SHARED = {  # Deployments or Jobs, or both, are refused with these
    "restartPolicy": "servers need Always, tasks Never; leave it out, the operator sets it",
    "activeDeadlineSeconds": "servers cannot have one; leave it out, and set spec.activeDeadlineSeconds of a run for its tasks",
    "ephemeralContainers": "no pod is made with one; leave it out, or name it in containers or initContainers",
}
_SCALARS: dict[str, tuple[type, str]] = {"str": (str, "a text; put it into quotes"), "bool": (bool, "true or false")}
_SCALARS |= {"int": (int, "a whole number"), "float": (int | float, "a number")}  # type: ignore[dict-item]


def read(file: Path | None) -> Json:
    """Reads the file; BadSpec in one line where it is none or wrong. None: there is none."""
    if file is None:
        return {}
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise BadSpec(f"{FLAG} {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise BadSpec(f"{FLAG} {file}: is no YAML: {' '.join(str(error).split())[:200]}") from None
    try:
        return checked({} if document is None else _whole(document))
    except BadSpec as error:
        raise BadSpec(f"{FLAG} {file}: {error}") from None
    except RecursionError:
        raise BadSpec(f"{FLAG} {file}: an anchor stands inside of what it names") from None


def _whole(value: Any) -> Any:
    """Helm writes large whole numbers as 1.00065e+09."""
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def names(flag: str, given: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of what runs hand on, in order and once each; BadSpec for what the operator, or kubectl, sets itself."""
    for name in given:
        if not _NAME.fullmatch(name):
            raise BadSpec(
                f"{flag} {name!r}: no name of a label or annotation; expected one such as cost-center or example.com/team"
            )
        if OWN.fullmatch(name) or name.partition("/")[0].endswith(("kubernetes.io", "k8s.io")):
            raise BadSpec(f"{flag} {name}: is set by Kubernetes or the operator; take another name")
    return tuple(sorted(set(given)))


def checked(defaults: Any) -> Json:
    """Returns the template where it has the shape of one and touches nothing by which pods are found; BadSpec otherwise."""
    _check(defaults, "V1PodTemplateSpec", "")
    defaults = _without_nulls(defaults)
    _check_metadata(defaults.get("metadata") or {})
    spec = defaults.get("spec") or {}
    for name, words in _NOT_SHARED.items():
        if spec.get(name) is not None:
            raise BadSpec(f"spec.{name}: {spec[name]!r}; {words}")
    for container in spec.get("containers") or ():
        _check_container(container)
    return dict(defaults)


def _without_nulls(defaults: Json, needed: Json = _NEEDED) -> Json:
    """null takes a field away: here it is a heading with nothing below it."""
    there = {name: value for name, value in defaults.items() if value is not None or name not in needed}
    return {name: _without_nulls(value, needed[name]) if needed.get(name) else value for name, value in there.items()}


def _check_metadata(metadata: Json) -> None:
    if others := sorted(set(metadata) - {"labels", "annotations"}):
        raise BadSpec(f"metadata.{others[0]}: pods of all runs cannot share it; labels and annotations can be set")
    if own := sorted(f"{part}.{name}" for part, names in metadata.items() for name in names or {} if OWN.fullmatch(name)):
        raise BadSpec(f"metadata.{own[0]}: is the operator's own, by which it finds pods; take another name")


def _check_container(container: Json) -> None:
    name = container.get("name")
    if not name:
        raise BadSpec(f"spec.containers: one has no name; {DEBATE}, {TRAIN} and {SERVE} are those of runs")
    if name not in (DEBATE, TRAIN, SERVE) and not container.get("image"):
        raise BadSpec(
            f"spec.containers[{name}]: no container of runs, which are {DEBATE}, {TRAIN} and {SERVE}; another needs an image"
        )


def _check(value: Any, kind: str, path: str) -> None:
    """The value is of that kind, as the client names it: V1Container, List[str], Dict[str, str]."""
    inner = kind.partition("[")[2].removesuffix("]")
    if value is None or kind in ("object", "datetime"):  # null takes a field away
        return
    if kind.startswith("List["):
        for number, item in enumerate(_of_type(value, list, path, "a list")):
            if item is None:
                raise BadSpec(f"{path}[{number}]: is empty; remove it")
            _check(item, inner, f"{path}[{_named(item, number)}]")
    elif kind.startswith("Dict["):
        for name, item in _of_type(value, dict, path, "an object").items():
            _of_type(name, str, path, "names that are texts; put them into quotes")
            _check_amount(item, f"{path}.{name}") if path.endswith(_AMOUNTS) else _check(
                item, inner.split(", ")[1], f"{path}.{name}"
            )
    elif kind in _SCALARS:
        _check_scalar(value, kind, path)
    else:
        _check_fields(_of_type(value, dict, path, "an object"), kind, path)


def _check_fields(value: Json, kind: str, path: str) -> None:
    from kubernetes.aio import client  # takes half a second, which only an operator has

    model = getattr(client, kind)
    kinds = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    for name, item in value.items():
        place = f"{path}.{name}".lstrip(".")
        if name == "$patch":
            _check_directive(value, place)
        elif name in kinds:
            _check(item, kinds[name], place)
        else:
            known = f"known are {', '.join(sorted(kinds))}"
            raise BadSpec(f"{place}: unknown field; {meant(str(name), kinds, known)}")


def _check_directive(value: Json, place: str) -> None:
    if value["$patch"] != "delete" or not place.endswith("].$patch"):
        raise BadSpec(f"{place}: {value['$patch']!r}; only delete is known, of an item of a list")
    if value.get("name") in (DEBATE, TRAIN, SERVE) and place.startswith("spec.containers"):
        raise BadSpec(f"{place}: takes away the container {value['name']}, which does the work")


def _check_scalar(value: Any, kind: str, path: str) -> None:
    if path.endswith("sizeLimit"):
        _check_amount(value, path)
        return
    wanted, words = _SCALARS[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise BadSpec(f"{path}: {value!r}; expected {words}")


def _check_amount(value: Any, path: str) -> None:
    if value is not None and amount(value) is None:
        raise BadSpec(f"{path}: {value!r}; expected an amount such as 500m or 2Gi")


def _of_type(value: Any, wanted: type, path: str, words: str) -> Any:
    if not isinstance(value, wanted):
        raise BadSpec(f"{path or 'the file'}: {str(value)[:60]!r}; expected {words}")
    return value


def _named(item: Any, number: int) -> str:
    return str(item["name"]) if isinstance(item, Mapping) and item.get("name") else str(number)
