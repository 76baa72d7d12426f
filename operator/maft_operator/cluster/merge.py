"""Strategic merge of `spec.podTemplate` into the pods that we make. Pure.

As `kubectl patch --type=strategic` merges a pod template: objects key by key, lists of named things by their merge key, other
lists whole; null removes a field. A volume that names another source loses the one it had, as with `kubectl apply`
(`retainKeys`). Source: Kubernetes, "Use a Strategic Merge Patch"; merge keys from the API's PodSpec.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from maft_operator.spec.schema import Json

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}
_ONE_SOURCE = ("volumes",)


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
        return merged(old if isinstance(old, Mapping) else {}, new)
    if key in _KEYS and _keyed(new, _KEYS[key]):
        return _named(old if _keyed(old, _KEYS[key]) else [], new, _KEYS[key], retain=key in _ONE_SOURCE)
    return copy.deepcopy(new)


def _keyed(value: Any, key: str) -> bool:
    """A list of objects that all say which one they are. Others replace ours, and the API server says what is wrong with them."""
    return isinstance(value, list) and all(isinstance(item, Mapping) and item.get(key) is not None for item in value)


def _named(old: Sequence[Any], new: Sequence[Any], key: str, *, retain: bool) -> list[Any]:
    """retain: of an item that is merged only what the patch names stays, if it names anything."""
    result = list(copy.deepcopy(old))
    for item in new:
        places = [i for i, known in enumerate(result) if known[key] == item[key]]
        if item.get("$patch") == "delete":
            result = [known for known in result if known[key] != item[key]]
        elif places:
            before = result[places[0]]
            kept = {k: v for k, v in before.items() if k in item} if retain and len(item) > 1 else before
            result[places[0]] = merged(kept, item)
        else:
            result.append(merged({}, item))
    return result
