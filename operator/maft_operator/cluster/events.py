"""The Events that tell of a condition that changed and of a warning. Pure: the time comes in."""

import hashlib
from datetime import datetime

from maft_operator.cluster import kinds, reasons
from maft_operator.cluster.fields import stamp
from maft_operator.cluster.manifests import MANAGER
from maft_operator.spec.schema import Json
from maft_operator.spec.skew import OPERATOR


def event(resource: Json, condition: Json, now: datetime) -> Json:
    """Makes the Event of a condition that changed."""
    change = " ".join(condition[key] for key in ("type", "status", "reason", "lastTransitionTime"))
    message = condition["message"] or f"{condition['type']} is {condition['status']}"
    kind = "Warning" if _warns(condition) else "Normal"
    return _event(resource, change, kind=kind, reason=condition["reason"], message=message, now=now)


def warning(resource: Json, line: str, now: datetime) -> Json:
    """Makes the Event of a line of status.warnings."""
    reason = reasons.OPERATOR_WARNING if line.startswith(OPERATOR) else reasons.MODEL_WARNING
    message = reasons.sentence(reason, [line.removeprefix(OPERATOR)])
    return _event(resource, line, kind="Warning", reason=reason.name, message=message, now=now)


def _event(resource: Json, change: str, *, kind: str, reason: str, message: str, now: datetime) -> Json:
    """Its name is made of the change, so that telling twice is harmless."""
    metadata = resource["metadata"]
    name = hashlib.sha256(f"{metadata['uid']} {change}".encode()).hexdigest()[:16]
    return {
        "apiVersion": kinds.EVENT.api_version,
        "kind": kinds.EVENT.name,
        "metadata": {
            "name": f"{metadata['name']}.{name}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            **{key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": MANAGER},
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
    }


def _warns(condition: Json) -> bool:
    """Whether somebody should have a look."""
    if condition["reason"] in {reason.name for reason in reasons.WARNINGS}:
        return True
    if condition["reason"] in (reasons.COMPLETE.name, reasons.SUSPENDED.name):
        return False
    if condition["type"] == "Ready":  # of a society: not while it starts or nobody is asked for
        usual = (reasons.STARTING.name, reasons.SCALED_TO_ZERO.name, reasons.RUN_UNFINISHED.name)
        return bool(condition["status"] == "False" and condition["reason"] not in usual)
    bad = (("Accepted", "False"), ("Progressing", "False"), ("Failed", "True"))
    return (condition["type"], condition["status"]) in bad
