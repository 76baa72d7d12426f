"""The key that a run's servers want of whoever asks them: a Secret that the operator makes once, and cannot read. Pure.

It is there before anything else of the run is made. Whether a run has one is settled as it begins, and then stands in its status
and on its children: a run that an earlier release began has programs that know of no key, and goes on without.
"""

from collections.abc import Iterable, Mapping, Sequence

from maft.spec import SERVER_KEY
from maft_operator.cluster import kinds
from maft_operator.cluster.fields import part, parts, text
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json

NOTE = "maft.dev/server-key"  # annotation of a child of a run that has one: the Secret's name
STATUS = "serverKey"  # field of the status: the same
_ENTRY = "key"  # of the Secret's data


def name(run: Run, uid: str) -> str:
    """Names the Secret. With the uid: that of a run of the same name before goes when it likes."""
    return f"{run.name}-key-{uid[:8]}"


def settled(own: str, status: Json, children: Mapping[str, Sequence[Json]], *, offered: bool) -> str:
    """Settles whether the run has one: its Secret's name, or nothing. own: that name; status: the run's; offered: to runs
    that begin now."""
    made = _made(children)  # where the status was lost, or an older release wrote it, these know
    if text(status, STATUS) or any(text(child, "metadata", "annotations", NOTE) for child in made):
        return own
    return own if offered and not made and "startTime" not in status else ""


def is_missing(key: str, status: Json, children: Mapping[str, Sequence[Json]], troubles: Iterable[str]) -> bool:
    """Tells whether the Secret has to be made, as far as that is known without reading it: the status does not name it yet,
    nothing is there of the run, or a pod has not found it. troubles: what pods say."""
    begun = text(status, STATUS) == key and bool(_made(children))
    return bool(key) and (not begun or any(f'secret "{key}" not found' in line for line in troubles))


def secret(key: str, value: str, metadata: Json) -> Json:
    """Makes the Secret. value: the key itself; metadata: as every child of the run has it."""
    kind = kinds.SECRET
    about = {**metadata, "name": key}
    data = {"type": "Opaque", "immutable": True, "stringData": {_ENTRY: value}}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": about, **data}


def variable(key: str) -> list[Json]:
    """Lists what servers, and those who ask them, find in their environment."""
    reference = {"name": key, "key": _ENTRY}
    return [{"name": SERVER_KEY, "valueFrom": {"secretKeyRef": reference}}] if key else []


def holders(children: Mapping[str, Sequence[Json]]) -> list[tuple[kinds.Kind, Json]]:
    """Lists the Jobs and Deployments whose pods have the key; finished ones aside."""
    several = [(kind, child) for kind in (kinds.JOB, kinds.DEPLOYMENT) for child in children.get(kind.name, ())]
    return [(kind, child) for kind, child in several if _has_it(child) and not _is_over(child)]


def _made(children: Mapping[str, Sequence[Json]]) -> list[Json]:
    return [child for kind in (kinds.JOB, kinds.DEPLOYMENT) for child in children.get(kind.name, ())]


def _has_it(child: Json) -> bool:
    containers = parts(part(child, "spec", "template", "spec"), "containers")
    return any(text(variable, "name") == SERVER_KEY for c in containers for variable in parts(c, "env"))


def _is_over(child: Json) -> bool:
    ends = ("Complete", "Failed")
    return any(text(c, "type") in ends and text(c, "status") == "True" for c in parts(child, "status", "conditions"))
