"""Which revision of its model a run uses: the one that `prepare` finds, to the run's end.

Of a hub's model it is the commit, however its branch moves: `prepare` writes it beside the questions, and every later program reads
it there. A model in a bucket is used as it lies there, so the state of its files is kept, and a program that finds another says so
and ends. Folders have none. A run that began before there was this goes on as it began.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from maft import models
from maft.errors import BadInput
from maft.spec import AgentOverride, ModelSpec, Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed

META = "revision"  # in the meta of the questions' commit
OWN = "revisions"  # there, by agent: of those that have another model
_CONFIG = "config.json"


def is_hub(source: str) -> bool:
    """Tells whether the source names a model of a hub."""
    return not models.is_path(source) and not models.is_stored(source)


def resolved(model: ModelSpec) -> str:
    """Asks the hub which commit the model's branch or tag is now. Without an answer it is the one that lies in the cache; where
    none does, nothing: whoever loads the model says why. Of a model in a bucket: the state of its files."""
    if models.is_stored(model.source):
        return models.stored_state(model.source)
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
    """Returns the spec with that commit of a hub's model, also where an agent names that model once more; as it is where there is
    none."""
    if not revision or not is_hub(spec.model.source):
        return spec
    again = {str(each.agent): revision for each in spec.agent_overrides if not spec.has_own_model(each.agent)}
    return with_own(msgspec.structs.replace(spec, model=msgspec.structs.replace(spec.model, revision=revision)), again)


def resolved_own(spec: Spec, find: Callable[[ModelSpec], str] = resolved) -> dict[str, str]:
    """Asks for the commits of the models that agents have beside the spec's, by agent. find: whom it asks, once for each model."""
    own = {each.agent: spec.model_of(each.agent) for each in spec.agent_overrides if spec.has_own_model(each.agent)}
    places = {(model.source, model.revision): model for model in own.values()}
    commits = {place: find(model) for place, model in places.items()}  # once: those of one base stay so, whatever moves
    return {str(agent): commit for agent, model in own.items() if (commit := commits[model.source, model.revision])}


def with_own(spec: Spec, revisions: Any) -> Spec:
    """Returns the spec with those revisions of agents' own models. revisions: by agent, as a commit's meta has them."""
    if not isinstance(revisions, dict) or not revisions:
        return spec
    return msgspec.structs.replace(spec, agent_overrides=tuple(_with_own(each, revisions) for each in spec.agent_overrides))


def _with_own(override: AgentOverride, revisions: dict[str, Any]) -> AgentOverride:
    revision = revisions.get(str(override.agent))
    if override.model is None or not isinstance(revision, str) or not is_hub(override.model.source):
        return override
    return msgspec.structs.replace(override, model=msgspec.structs.replace(override.model, revision=revision))


def pinned(store: Store, questions: str, run: str, spec: Spec) -> Spec:
    """Returns the spec with the revisions that `prepare` found; BadInput where a model in a bucket is another one by now.
    questions: the run whose questions are asked, which on one machine are prepared once for a whole comparison."""
    if spec.bases_differ:
        spec = _with_own_checked(spec, _meta(store, run).get(OWN) or _meta(store, questions).get(OWN))
    if models.is_path(spec.model.source):
        return spec
    revision = str(_meta(store, questions).get(META) or "")
    if revision and models.is_stored(spec.model.source):
        _check_unchanged(spec.model.source, revision)
    return with_revision(spec, revision)


def _meta(store: Store, run: str) -> dict[str, Any]:
    commit = committed(store, f"{run}/{layout.PROBLEMS}")
    return commit.meta if commit else {}


def _with_own_checked(spec: Spec, revisions: Any) -> Spec:
    for override in spec.agent_overrides:
        revision = revisions.get(str(override.agent)) if isinstance(revisions, dict) else None
        if override.model and isinstance(revision, str) and models.is_stored(override.model.source):
            _check_unchanged(override.model.source, revision, f"agentOverrides[agent={override.agent}].")
    return with_own(spec, revisions)


def _check_unchanged(source: str, revision: str, section: str = "") -> None:
    if models.stored_state(source) != revision:
        raise BadInput(
            f"{section}model.source: the files of {source} are no longer those that the run began with; put them back, or make a"
            " run of another name (a model that changes wants a prefix for each version)"
        )
