"""Whether anything more comes of a resource by itself: of runs and comparisons alike, and never of a society. Pure.

Read as it comes: what is missing or of another type is empty, for whoever has the right to may write it.
"""

from collections.abc import Mapping
from typing import Any

REJECTED = "Rejected"  # by the operator, which has not begun it and looks again when it is changed


def is_over(resource: Mapping[str, Any]) -> bool:
    """Tells whether it has ended, or was rejected as it is now: it may have been changed since."""
    status, metadata = (_part(resource, name) for name in ("status", "metadata"))
    current = _count(status, "observedGeneration") >= _count(metadata, "generation")
    return bool(status.get("completionTime")) or (current and status.get("phase") == REJECTED)


def _part(thing: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = thing.get(name)
    return value if isinstance(value, Mapping) else {}


def _count(thing: Mapping[str, Any], name: str) -> int:
    value = thing.get(name)
    return value if isinstance(value, int) else 0
