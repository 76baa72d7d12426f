"""Which revision of a hub's model a run uses: the commit that `prepare` finds, to the run's end, however its branch moves.

`prepare` asks the hub and writes the commit beside the questions; every later program reads it there. Folders have none; of models
in a bucket none is kept. A run that began before there was this goes on as it began.
"""

from pathlib import Path

import msgspec

from maft.spec import ModelSpec, Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed

META = "revision"  # in the meta of the questions' commit
_CONFIG = "config.json"


def is_hub(source: str) -> bool:
    """Tells whether the source names a model of a hub."""
    return not source.startswith(("/", "./", "../", "s3://"))


def resolved(model: ModelSpec) -> str:
    """Asks the hub which commit the model's branch or tag is now. Without an answer it is the one that lies in the cache; where
    none does, nothing: whoever loads the model says why."""
    if not is_hub(model.source):
        return ""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:  # not `model_info`: this remembers what the branch was, for a start without the hub
        file = hf_hub_download(model.source, _CONFIG, revision=model.revision or None)
    except (HfHubHTTPError, HFValidationError, OSError):
        return ""
    return Path(file).parent.name  # …/snapshots/COMMIT/config.json


def with_revision(spec: Spec, revision: str) -> Spec:
    """Returns the spec with that revision of the model; as it is where there is none."""
    return msgspec.structs.replace(spec, model=msgspec.structs.replace(spec.model, revision=revision)) if revision else spec


def pinned(store: Store, questions: str, spec: Spec) -> Spec:
    """Returns the spec with the revision that `prepare` found. questions: the run whose questions are asked."""
    if not is_hub(spec.model.source):
        return spec
    commit = committed(store, f"{questions}/{layout.PROBLEMS}")
    revision = commit.meta.get(META) if commit else ""
    return with_revision(spec, revision if isinstance(revision, str) else "")
