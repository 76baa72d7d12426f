"""Where preflight leaves what it tried, and how it is found again: by the spec, whatever release of ours asks.

The key is a hash of what in the spec is not as it was before there was a field for it: a release that has one field more, with its
default, finds what the release before it left.
"""

import hashlib
import json
from typing import Any

import msgspec

from maft.records import Commit
from maft.spec import MUTABLE, Section, Spec, immutable_spec_json
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed


def prefix(run: str, spec: Spec, agent: int = 0) -> str:
    """Names the prefix of what was tried with that spec. agent: the first of those that are alike, where they differ."""
    return layout.preflight(run, f"{key(spec)}-{agent}" if agent else key(spec))


def found(store: Store, run: str, spec: Spec, agent: int = 0) -> Commit | None:
    """Finds what was tried with that spec, by this release or, under the hash of all fields, by one before it."""
    if agent:
        return committed(store, prefix(run, spec, agent))
    older = hashlib.sha256(immutable_spec_json(spec).encode()).hexdigest()[:12]
    places = (prefix(run, spec), layout.preflight(run, older))
    return next((commit for place in places if (commit := committed(store, place))), None)


def key(spec: Spec) -> str:
    """Hashes the spec without fields that have their record's default, and without those that may change during a run."""
    kept = {name: value for name, value in _said(spec).items() if name not in MUTABLE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _said(section: Section) -> dict[str, Any]:
    fields = ((f, getattr(section, f.name)) for f in msgspec.structs.fields(section))
    return {f.encode_name: _plain(value) for f, value in fields if not _is_default(f, value)}


def _is_default(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    if field.default_factory is not msgspec.NODEFAULT:
        return bool(value == field.default_factory())
    return bool(value == field.default)


def _plain(value: Any) -> Any:
    return _said(value) if isinstance(value, Section) else msgspec.to_builtins(value)
