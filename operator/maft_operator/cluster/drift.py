"""Whether an object on the cluster still has what we applied. Pure.

We own what we apply, and nothing else: what queues, webhooks, autoscalers, injectors and policies add is their business. Of a Job
only what Kubernetes lets change is compared. Source: Kubernetes, "Server-Side Apply" (managedFields, fieldsV1).
"""

import copy
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from maft_operator.cluster import kinds
from maft_operator.cluster.fields import part, parts, text
from maft_operator.cluster.images import TEMPLATE
from maft_operator.cluster.manifests import MANAGER
from maft_operator.spec.schema import Json

PEACE = timedelta(minutes=10)
"""How long what another has set anew stays, after we took it back once: two that never give in would write for ever."""
# Of a Job, once it is there. Not maxFailedIndexes: Kubernetes lets that change.
_FIXED = ("template", "podFailurePolicy", "managedBy", "completions", "completionMode", "backoffLimitPerIndex")
_SETS = ("drop", "add", "policyTypes")  # lists of words in which another's word beside ours is no change of ours
_CLOSED = ("ingress", "from")  # lists in which one more item opens what we closed


@dataclass(frozen=True, slots=True)
class Sent:
    """What we sent about an object last, and what became of it."""

    version: str
    """Of the object, after it."""
    wanted: str
    taken_back: frozenset[str]
    """Paths that another had set otherwise."""
    at: datetime


def differs(wanted: Json, stored: Json) -> bool:
    """Tells whether the stored object lacks something of the wanted one."""
    return bool(difference(wanted, stored))


def difference(wanted: Json, stored: Json) -> Json:
    """Finds which of our fields are otherwise: by path, what stands there instead."""
    if wanted["kind"] == kinds.JOB.name:
        wanted = {**_noted_as_made(wanted, stored), "spec": {k: v for k, v in wanted["spec"].items() if k not in _FIXED}}
    left = _left_to_others(wanted, stored)
    return {path: value for path, value in _unlike(wanted, stored, "") if path not in left}


def is_settled(sent: Sent | None, wanted: Json, stored: Json, now: datetime) -> bool:
    """Tells whether what differs is to stay: sent already and kept otherwise, or set anew by somebody after we took it back."""
    if sent is None or sent.wanted != fingerprint(wanted):
        return False
    again = sent.taken_back >= set(difference(wanted, stored)) and now - sent.at < PEACE
    return again or sent.version == version(stored)


def sent(wanted: Json, before: Json | None, after: Json, now: datetime) -> Sent:
    """Notes what was applied. before: the object as it was, None where there was none."""
    taken_back = frozenset(() if before is None else difference(wanted, before))
    return Sent(version(after), fingerprint(wanted), taken_back, now)


def to_apply(wanted: Json, stored: Json) -> Json:
    """Makes what is applied to an object that is there: without what is another's by now.

    The template of a Job is the one it has, as far as it is ours: Kubernetes lets none be changed, and queues fill it in."""
    left = _left_to_others(wanted, stored)
    spec = {key: value for key, value in _without(wanted["spec"], left).items() if f".spec.{key}" not in left}
    if wanted["kind"] == kinds.JOB.name:
        ours = owned(stored)
        spec = {key: value for key, value in spec.items() if key not in _FIXED}
        spec |= {key: ours[key] for key in _FIXED if key in ours}
        wanted = _noted_as_made(wanted, stored)
    return {**wanted, "spec": spec}


def _noted_as_made(wanted: Json, stored: Json) -> Json:
    """A Job keeps its template, and the note with which podTemplate that was made."""
    notes, there = dict(part(wanted, "metadata", "annotations")), part(stored, "metadata", "annotations")
    if notes.pop(TEMPLATE, None) is None:
        return wanted
    notes |= {key: value for key, value in there.items() if key == TEMPLATE}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": notes}}


def version(stored: Json) -> str:
    """Returns what changes with the spec: the generation, where the kind counts one."""
    metadata = stored["metadata"]
    return str(metadata.get("generation") or metadata.get("resourceVersion"))


def fingerprint(wanted: Json) -> str:
    """Hashes the object; equal for equal ones."""
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


# --- comparing ---


def _unlike(wanted: Any, stored: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Our values that the stored object has not, by path, each with what it has. The API server drops what is empty."""
    if stored is None and wanted in ({}, [], "", None):
        return
    if isinstance(wanted, Mapping) and isinstance(stored, Mapping):
        for key, value in wanted.items():
            yield from _unlike(value, stored.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(stored, list):
        yield from _unlike_items(wanted, stored, path)
    elif wanted != stored:
        yield path, stored


def _unlike_items(wanted: list[Any], stored: list[Any], path: str) -> Iterator[tuple[str, Any]]:
    """Named things are compared with their namesakes, rules with any; words have their order, apart from those of sets."""
    name = path.rpartition(".")[2]
    if name in _CLOSED and len(stored) != len(wanted):
        yield path, stored
    elif all(isinstance(item, Mapping) for item in wanted):
        for item in wanted:
            yield from _unlike_item(item, [other for other in stored if isinstance(other, dict)], path)
    elif set(wanted) - set(stored) if name in _SETS else wanted != stored:
        yield path, stored


def _unlike_item(item: Json, stored: Sequence[Json], path: str) -> Iterator[tuple[str, Any]]:
    key = next((key for key in ("name", "mountPath", "devicePath", "uid") if key in item), None)
    if key is None:
        if all(any(_unlike(item, other, path)) for other in stored):
            yield path, list(stored)
        return
    namesake = next((other for other in stored if other.get(key) == item[key]), None)
    yield from _unlike(item, namesake, f"{path}[{item[key]}]")


# --- whose fields ---


def _left_to_others(wanted: Json, stored: Json) -> tuple[str, ...]:
    """A number of replicas that was set through `scale`, by an autoscaler or `kubectl scale` (zero would serve nobody), and what
    others have set of resources. A Society has a scale of its own, and says the number itself."""
    own = kinds.SOCIETY.label in part(wanted, "metadata", "labels")
    scaled = wanted["kind"] == kinds.DEPLOYMENT.name and not own and (stored.get("spec") or {}).get("replicas")
    entries = [e for e in _entries(stored) if e.get("subresource") == "scale"] if scaled else []
    replicas = (".spec.replicas",) if any("f:replicas" in _fields(e).get("f:spec", {}) for e in entries) else ()
    return (*replicas, *_resources_of_others(wanted, stored))


def _resources_of_others(wanted: Json, stored: Json) -> Iterator[str]:
    """Requests and limits of a server that are somebody else's by now, who may know more of it; to take them back would restart
    it. Those of another podTemplate are ours anew."""
    if wanted["kind"] != kinds.DEPLOYMENT.name or _template_of(wanted) != _template_of(stored):
        return
    ours = set(_resources(owned(stored)))
    yield from (path for path in _resources(stored["spec"]) if path not in ours)


def _template_of(thing: Json) -> str:
    return text(thing, "metadata", "annotations", TEMPLATE)


def _resources(spec: Json) -> Iterator[str]:
    """The paths of all requests and limits of containers."""
    for container in parts(spec, "template", "spec", "containers"):
        for kind in ("requests", "limits"):
            yield from (_path(container, kind, name) for name in part(container, "resources", kind))


def _path(container: Json, kind: str, name: str) -> str:
    return f".spec.template.spec.containers[{text(container, 'name')}].resources.{kind}.{name}"


def _without(spec: Json, paths: Collection[str]) -> Json:
    """The spec without these requests and limits."""
    if not any("].resources." in path for path in paths):
        return spec
    spec = copy.deepcopy(spec)
    for container in parts(spec, "template", "spec", "containers"):
        for kind in ("requests", "limits"):
            amounts = part(container, "resources", kind)
            for name in [name for name in amounts if _path(container, kind, name) in paths]:
                del amounts[name]
    return spec


def owned(stored: Json) -> Json:
    """Returns what we own of the spec. All of it where nothing says whose it is."""
    spec: Json = stored["spec"]
    applied = [e for e in _entries(stored) if e.get("manager") == MANAGER and e.get("operation") == "Apply"]
    return _owned(spec, _fields(applied[0]).get("f:spec", {})) if applied else spec


def _entries(stored: Json) -> list[Json]:
    entries: list[Json] = stored["metadata"].get("managedFields") or []
    return entries


def _fields(entry: Json) -> Json:
    fields: Json = entry.get("fieldsV1") or {}
    return fields


def _owned(value: Any, fields: Json) -> Any:
    """The part of a value that these fields name. A name without more is a whole value."""
    inner = {name: below for name, below in fields.items() if name != "."}
    if isinstance(value, Mapping) and inner:
        return {k[2:]: _owned(value[k[2:]], below) for k, below in inner.items() if k.startswith("f:") and k[2:] in value}
    if isinstance(value, list) and inner:
        return [_owned(item, below) for item in value for name, below in inner.items() if _is(item, name)]
    return value


def _is(item: Any, name: str) -> bool:
    """Whether the item of a list is the one of that name: `k:` and its keys, or `v:` and the item itself, as JSON."""
    kind, _, text = name.partition(":")
    if kind == "k" and isinstance(item, Mapping):
        return all(item.get(key) == value for key, value in json.loads(text).items())
    return kind == "v" and bool(item == json.loads(text))
