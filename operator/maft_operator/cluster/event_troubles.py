"""What Events say about objects that do nothing and do not say why. Pure.

Any Warning counts, whoever wrote it and whatever its reason, until an Event says that the object went on.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from maft_operator.cluster import reasons
from maft_operator.cluster.fields import text, time
from maft_operator.cluster.reasons import Trouble
from maft_operator.spec.schema import Json

_WENT_ON = ("Scheduled", "SuccessfulCreate", "Pulling", "Pulled", "Created", "Started")
_TIMES = (("series", "lastObservedTime"), ("lastTimestamp",), ("eventTime",), ("metadata", "creationTimestamp"))


def troubles_in(events: Iterable[Json], unexplained: Mapping[str, str]) -> tuple[Trouble, ...]:
    """Reads Events about these objects; the last one of each child counts. unexplained: by uid, the child."""
    last: dict[str, Json] = {}
    for event in sorted(events, key=_order):
        uid = text(event, "involvedObject", "uid")
        if uid in unexplained and (_warns(event) or text(event, "reason") in _WENT_ON):
            last[uid] = event
    warnings = sorted(((uid, event) for uid, event in last.items() if _warns(event)), key=lambda item: _order(item[1]))
    return tuple({unexplained[uid]: _trouble(unexplained[uid], event) for uid, event in warnings}.values())


def _warns(event: Json) -> bool:
    return text(event, "type") == "Warning"


def _trouble(child: str, event: Json) -> Trouble:
    name, message = text(event, "reason"), text(event, "message")
    reason = reasons.event_reason(name, message)
    line = message if reason not in (reasons.POD_STUCK, reasons.NODE_LOST) else f"{name}: {message}"
    return Trouble(child, reason, line or name)


def _order(event: Json) -> tuple[datetime, str]:
    """When it was last seen; of those in one second the name decides, which ends with the time in nanoseconds."""
    times = [moment for path in _TIMES if (moment := time(event, *path))]
    return max(times, default=datetime.min.replace(tzinfo=UTC)), text(event, "metadata", "name")
