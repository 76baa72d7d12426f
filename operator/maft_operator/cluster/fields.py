"""Fields of objects of the API as they come. Pure.

Nearly all of an object may be missing or null, and whoever has the right to may write much of it, up to a pod's status. What is
not there or not of its type is read as empty, so that no reader ends for what somebody else wrote.
"""

from datetime import UTC, datetime
from typing import Any

from maft_operator.spec.schema import Json


def part(thing: Any, *path: str) -> Json:
    """Reads an object in the object; empty where there is none."""
    value = _at(thing, path)
    return value if isinstance(value, dict) else {}


def parts(thing: Any, *path: str) -> list[Json]:
    """Reads a list of objects; empty where there is none."""
    value = _at(thing, path)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def text(thing: Any, *path: str) -> str:
    """Reads a text; empty where there is none."""
    value = _at(thing, path)
    return value if isinstance(value, str) else ""


def texts(thing: Any, *path: str) -> dict[str, str]:
    """Reads the texts of an object by name; empty where there is none."""
    return {name: value for name, value in part(thing, *path).items() if isinstance(value, str)}


def lines(thing: Any, *path: str) -> list[str]:
    """Reads a list of texts; empty where there is none."""
    value = _at(thing, path)
    return [line for line in value if isinstance(line, str)] if isinstance(value, list | tuple) else []


def count(thing: Any, *path: str) -> int:
    """Reads a whole number; 0 where there is none."""
    value = _at(thing, path)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def is_true(thing: Any, *path: str) -> bool:
    """Tells whether the field says true."""
    return _at(thing, path) is True


def controller(thing: Any) -> Json:
    """Reads the reference to what controls the object, of which there is one at most; empty where nothing does."""
    return next((owner for owner in parts(thing, "metadata", "ownerReferences") if is_true(owner, "controller")), {})


def condition(thing: Any, kind: str) -> Json:
    """Reads the condition of that kind, true or not; empty where there is none."""
    return next((c for c in parts(thing, "status", "conditions") if text(c, "type") == kind), {})


def true_condition(thing: Any, kind: str) -> Json:
    """Reads the condition of that kind where it is true; else it is empty."""
    present = condition(thing, kind)
    return present if text(present, "status") == "True" else {}


def time(thing: Any, *path: str) -> datetime | None:
    """Reads a time; None where there is none. The API has the year 0, which Python lacks."""
    try:
        moment = datetime.fromisoformat(text(thing, *path))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def seconds(thing: Any, *path: str, until: datetime) -> float:
    """Tells how long that was before `until`; 0 where nobody knows."""
    since = time(thing, *path)
    return (until - since).total_seconds() if since else 0.0


def stamp(moment: datetime) -> str:
    """Writes a time as metav1.Time: whole seconds, UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"  # strftime writes no year of four digits


def _at(thing: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        thing = thing.get(key) if isinstance(thing, dict) else None
    return thing
