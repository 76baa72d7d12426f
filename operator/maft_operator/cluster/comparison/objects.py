"""What a comparison has on a cluster, as objects: its runs, which are ordinary ones, and the Job of its table. Pure.

And back: what its runs say of themselves, field by field.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from maft_operator.cluster import kinds, manifests
from maft_operator.cluster.fields import condition, is_true, part, text, texts, true_condition
from maft_operator.cluster.images import Images
from maft_operator.cluster.manifests import CHILD, MANAGED_BY, MANAGER, RUN, Owner
from maft_operator.plan import search
from maft_operator.plan.comparison import RunState
from maft_operator.plan.graph import Task
from maft_operator.spec.comparison import Child, Comparison
from maft_operator.spec.schema import Json

LABEL = kinds.COMPARISON.label
METHOD, SEED = "maft.dev/method", "maft.dev/seed"
COMPARED = "maft.dev/compared"  # of the table's Job: a hash of the runs that it compares
TRIAL = "maft.dev/trial"  # annotation of a run of a search: which trial it is, as plan/search.py notes it
States = Mapping[str, RunState]


def run(child: Child, comparison: Comparison, uid: str) -> Json:
    """Makes the resource of a run. uid: the comparison's."""
    name = comparison.template.name
    labels = {"app.kubernetes.io/name": MANAGER, MANAGED_BY: MANAGER, LABEL: name, METHOD: child.method, SEED: str(child.seed)}
    metadata = {
        "name": child.run.name,
        "namespace": child.run.namespace,
        "labels": labels,
        "ownerReferences": [manifests.reference(kinds.COMPARISON, name, uid)],
        **({} if child.trial is None else {"annotations": {TRIAL: search.note(child)}}),
    }
    return {"apiVersion": kinds.RUN.api_version, "kind": kinds.RUN.name, "metadata": metadata, "spec": child.spec}


def with_suspend(made: Json, *, suspend: bool) -> Json:
    """Makes what is applied to stop a run or to go on with it: all that it has, since to leave a field out would take it away."""
    metadata = {key: made["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
    if trial := text(made, "metadata", "annotations", TRIAL):
        metadata["annotations"] = {TRIAL: trial}
    spec = {**part(made, "spec"), "suspend": suspend}
    return {"apiVersion": kinds.RUN.api_version, "kind": kinds.RUN.name, "metadata": metadata, "spec": spec}


def table_job(task: Task, comparison: Comparison, uid: str, images: Images) -> Json:
    """Makes the Job of the table: as a run's, but the comparison's own."""
    made = manifests.job(task, Owner(comparison.template, uid), images)
    made["metadata"]["annotations"] = {**part(made, "metadata", "annotations"), COMPARED: _hash(task)}
    made["metadata"]["ownerReferences"] = [manifests.reference(kinds.COMPARISON, comparison.template.name, uid)]
    for metadata in (made["metadata"], made["spec"]["template"]["metadata"]):
        labels = {key: value for key, value in metadata["labels"].items() if key != RUN}
        metadata["labels"] = {**labels, LABEL: comparison.template.name, CHILD: task.name}
    return made


def is_of_others(job: Json, task: Task) -> bool:
    """Tells whether a Job that there is makes the table of other runs: some were added since, or made again."""
    return text(job, "metadata", "annotations", COMPARED) not in ("", _hash(task)) and "deletionTimestamp" not in job["metadata"]


def _hash(task: Task) -> str:
    return hashlib.sha256(msgspec.json.encode(task.compared)).hexdigest()[:16]


def states(runs: Iterable[Json]) -> dict[str, RunState]:
    """Reads what became of each run, by name."""
    return {made["metadata"]["name"]: _state(made) for made in runs}


def _state(made: Json) -> RunState:
    return RunState(
        phase=text(made, "status", "phase"),
        suspended=is_true(made, "spec", "suspend"),
        done=texts(made, "status", "done"),
        accuracy=_accuracy(part(made, "status", "accuracy")),
        reason=_reason(made),
        terminating="deletionTimestamp" in made["metadata"],
        validated=_accuracy(part(made, "status", "best", "accuracy")).get("mean"),
        trial=text(made, "metadata", "annotations", TRIAL),
    )


def _reason(made: Json) -> str:
    """Of a run that does not go on. Of a complete one there is nothing to say."""
    if text(made, "status", "phase") == "Complete":
        return ""
    progressing = condition(made, "Progressing")
    waits = progressing if progressing.get("status") == "False" else {}
    return text(true_condition(made, "Failed") or waits, "reason")


def _accuracy(score: Mapping[str, Any]) -> Json:
    numbers = {name: score[name] for name in ("mean", "stderr") if isinstance(score.get(name), int | float)}
    return {**numbers, "text": text(dict(score), "text")} if len(numbers) == 2 else {}
