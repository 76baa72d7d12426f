"""The questions of a group of runs (`spec.group`): whoever prepares first draws them, and all others take what lies there.

They lie below the group's own prefix, where debates of the group read them, and once more below each run's, as if it stood alone:
its report and whoever resumes it need not know of the group. Two that draw at once commit the same bytes; where the hub moved in
between, the commit that was first counts for both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from maft import records, revision
from maft.answers.likeness import META
from maft.errors import BadInput
from maft.prepare import alike, same
from maft.program import Assignment
from maft.records import Commit
from maft.spec import ModelSpec, Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch, publish
from maft.summaries import Threshold

_SHARED = ("model", "task")  # sections of the spec that decide which questions there are, for which model


@dataclass(frozen=True, slots=True)
class Questions:
    """What the runs of a group ask."""

    files: Mapping[str, bytes]
    revision: str
    """Of the model, where a hub has it."""
    threshold: Threshold | None
    """From which on answers are the same; None: they are compared otherwise."""

    @property
    def meta(self) -> dict[str, Any]:
        """Returns what a commit says of them."""
        pin = {revision.META: self.revision} if self.revision else {}
        return {**pin, **({META: records.plain(self.threshold)} if self.threshold else {})}


def committed_questions(assignment: Assignment) -> Questions | None:
    """Reads the group's questions; None where there are none yet, or no group. BadInput if another spec drew them."""
    if not assignment.group or (commit := committed(assignment.store, _prefix(assignment))) is None:
        return None
    return _read(assignment, commit)


def publish_questions(assignment: Assignment, drawn: Questions) -> Questions:
    """Commits what was drawn as the group's, and returns what counts: these, or those of a run that was faster."""
    return _read(assignment, _first(assignment.store, _prefix(assignment), drawn.files, _meta(assignment.spec, drawn)))


def revision_of(assignment: Assignment, model: ModelSpec) -> str:
    """Finds which commit an agent's own model is: for all runs of a group the one that the first of them found."""
    if not assignment.group:
        return revision.resolved(model)
    store, asked = assignment.store, {"source": model.source, "asked": model.revision}
    prefix = layout.model(assignment.group, sha256(records.encode(asked)).hexdigest()[:12])
    first = committed(store, prefix)
    if first is None and (now := revision.resolved(model)):
        first = _first(store, prefix, {}, {**asked, revision.META: now})
    return str(first.meta[revision.META]) if first else ""


def _first(store: Store, prefix: str, files: Mapping[str, bytes], meta: Mapping[str, Any]) -> Commit:
    """Commits that, or returns what a run that was faster has committed there."""
    try:
        return publish(store, prefix, files, meta=meta)
    except BadInput:
        if (first := committed(store, prefix)) is None:
            raise
        return first


def _read(assignment: Assignment, commit: Commit) -> Questions:
    store, spec = assignment.store, assignment.spec
    where = f"{store.url}/{assignment.group}"
    same.run(commit, spec, where, _SHARED)
    before, now = _evaluated(commit.meta.get("spec", {})), _evaluated(_described(spec))
    if before.get("task") != now.get("task"):
        raise BadInput(f"store {where}: its held-out questions come from another evaluation.task; use another group or prefix")
    drawn, asked = before.get("validation", 0), now.get("validation", 0)
    if drawn != asked:
        raise BadInput(
            f"store {where}: made with spec.evaluation.validation {drawn!r}, this is {asked}; use another group or prefix"
        )
    pin, files = commit.meta.get(revision.META, ""), {entry.name: fetch(store, commit, entry.name) for entry in commit.files}
    return Questions(files, pin if isinstance(pin, str) else "", alike.committed(commit))


def _evaluated(described: Any) -> dict[str, Any]:
    evaluation = described.get("evaluation") if isinstance(described, dict) else None
    return evaluation if isinstance(evaluation, dict) else {}


def _meta(spec: Spec, drawn: Questions) -> dict[str, Any]:
    """Says nothing of the run that drew them: two at once write the same."""
    return {"spec": _described(spec), "model": spec.model.source, "taskSeed": spec.task.seed, **drawn.meta}


def _described(spec: Spec) -> dict[str, Any]:
    plain = records.plain(spec)
    chosen_by = {"validation": spec.evaluation.validation} if spec.evaluation.validation else {}
    return {**{name: plain[name] for name in _SHARED}, "evaluation": {"task": plain["evaluation"].get("task"), **chosen_by}}


def _prefix(assignment: Assignment) -> str:
    return f"{assignment.group}/{layout.PROBLEMS}"
