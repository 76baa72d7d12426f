"""The Event that tells of a condition that changed. Pure: the time comes in."""

import hashlib
from datetime import datetime

from maft_operator.cluster import kinds, reasons
from maft_operator.cluster.conditions import stamp
from maft_operator.cluster.manifests import MANAGER
from maft_operator.spec.schema import Json


def event(resource: Json, condition: Json, now: datetime) -> Json:
    """Makes the Event. Its name is made of the change, so that telling twice is harmless."""
    metadata = resource["metadata"]
    change = f"{metadata['uid']} {condition['type']} {condition['status']} {condition['reason']} {condition['lastTransitionTime']}"
    return {
        "apiVersion": kinds.EVENT.api_version,
        "kind": kinds.EVENT.name,
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(change.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": kinds.RUN.api_version,
            "kind": kinds.RUN.name,
            **{key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
        },
        "type": "Warning" if _warns(condition) else "Normal",
        "reason": condition["reason"],
        "message": condition["message"] or f"{condition['type']} is {condition['status']}",
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
    bad = (("Accepted", "False"), ("Progressing", "False"), ("Failed", "True"))
    return (condition["type"], condition["status"]) in bad
