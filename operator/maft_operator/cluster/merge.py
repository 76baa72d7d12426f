"""Strategic merge of `spec.podTemplate` into the pods that we make. Pure.

As `kubectl patch --type=strategic` merges a pod template: objects key by key, lists of named things by their merge key, other
lists whole; null removes a field. What has one of several things loses the one it had where another is named, as a volume does
with `kubectl apply` (`retainKeys`): the API server refuses a pod that has both. Ports are the same of one number and protocol, as
in a server-side apply. Source: Kubernetes, "Use a Strategic Merge Patch"; merge keys from the API's PodSpec.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from maft_operator.spec.schema import Json

_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "resourceClaims": ("name",),
}
_WITHOUT = {"protocol": "TCP"}  # what a key is where it is not written
_HANDLERS = frozenset({"exec", "httpGet", "tcpSocket", "grpc", "sleep"})
_ANY: frozenset[str] = frozenset()
_ONE_OF = {  # of these fields an object of that name, or an item of such a list, has one alone; _ANY: of all its fields
    "env": frozenset({"value", "valueFrom"}),
    **dict.fromkeys(("livenessProbe", "readinessProbe", "startupProbe", "postStart", "preStop"), _HANDLERS),
    **dict.fromkeys(("volumes", "valueFrom", "seccompProfile", "appArmorProfile"), _ANY),
}


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """Merges into a new object; neither argument is changed."""
    result = {key: copy.deepcopy(value) for key, value in base.items()}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _value(key, result.get(key), value)
    return result


def _value(key: str, old: Any, new: Any) -> Any:
    if isinstance(new, Mapping):
        return merged(_retained(key, old, new) if isinstance(old, Mapping) else {}, new)
    if key in _KEYS and _keyed(new, key):
        return _named(old if _keyed(old, key) else [], new, key)
    return copy.deepcopy(new)


def _keyed(value: Any, key: str) -> bool:
    """A list of objects that all say which one they are. Others replace ours, and the API server says what is wrong with them."""
    return isinstance(value, list) and all(isinstance(item, Mapping) and None not in _identity(item, key) for item in value)


def _identity(item: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    return tuple(_WITHOUT.get(name) if item.get(name) is None else item[name] for name in _KEYS[key])


def _retained(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """The old object without what the new one stands in place of."""
    if key not in _ONE_OF:
        return old
    fields = (_ONE_OF[key] or {*old, *new}) - set(_KEYS.get(key, ()))
    chosen = {name for name in fields if new.get(name) is not None}
    return {name: value for name, value in old.items() if name not in fields - chosen} if chosen else old


def _named(old: Sequence[Any], new: Sequence[Any], key: str) -> list[Any]:
    result = list(copy.deepcopy(old))
    for item in new:
        same = [_identity(known, key) == _identity(item, key) for known in result]
        if item.get("$patch") == "delete":
            result = [known for known, gone in zip(result, same, strict=True) if not gone]
        elif any(same):
            place = same.index(True)
            result[place] = merged(_retained(key, result[place], item), item)
        else:
            result.append(merged({}, item))
    return result
