"""Whether an object on the cluster still is what we want it to be. Pure.

Fields that we do not set are others' business. Of a Job only what Kubernetes lets change is compared.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from maft_operator.cluster import kinds
from maft_operator.spec.schema import Json


def differs(wanted: Json, stored: Json) -> bool:
    """Tells whether the stored object lacks something of the wanted one."""
    if wanted["kind"] == kinds.JOB.name:
        wanted = {**wanted, "spec": {k: v for k, v in wanted["spec"].items() if k not in ("template", "podFailurePolicy")}}
    return not _within(wanted, stored)


def keeping_template(wanted: Json, stored: Json) -> Json:
    """Takes the pod template of an existing Job into the wanted one: Kubernetes lets none be changed."""
    if wanted["kind"] != kinds.JOB.name:
        return wanted
    kept = {key: stored["spec"][key] for key in ("template", "podFailurePolicy") if key in stored["spec"]}
    return {**wanted, "spec": {**wanted["spec"], **kept}}


def version(stored: Json) -> str:
    """Returns what changes with the spec: the generation, where the kind counts one."""
    metadata = stored["metadata"]
    return str(metadata.get("generation") or metadata.get("resourceVersion"))


def fingerprint(wanted: Json) -> str:
    """Hashes the object; equal for equal ones."""
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def _within(wanted: Any, stored: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(stored, Mapping) and all(_kept(value, stored.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(stored, list) and len(wanted) == len(stored) and all(map(_within, wanted, stored))
    return bool(wanted == stored)


def _kept(wanted: Any, stored: Any) -> bool:
    """The API server drops what is empty."""
    return _within(wanted, stored) or (stored is None and wanted in ({}, [], "", None))
