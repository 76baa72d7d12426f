"""What the page shows of a run, read from its resource field by field: nobody is believed. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from maft.readable import OF_A_RUN, Readable
from maft_operator.cluster.fields import count, part, parts, text
from maft_operator.page.curve import Point
from maft_operator.spec.schema import Json

_ENDPOINT = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")  # as the schema has it
_BUCKET = re.compile(r"s3://[A-Za-z0-9._~/-]+")
LONGEST, SHORT = 400, 60  # characters of a message, and of what stands in a column


@dataclass(frozen=True, slots=True)
class Shown:
    """One run. report: where it lies; link: the same as a browser takes it, empty where it does not; folder: BUCKET/…/ of the
    report, empty where the page may not read it."""

    namespace: str
    name: str
    phase: str
    iteration: str
    progress: str
    stage: str
    percent: int
    accuracy: str
    base: str
    points: tuple[Point, ...]
    spent: str
    tokens: int
    message: str
    report: str
    link: str
    folder: str
    created: str
    ended: str

    @property
    def order(self) -> tuple[bool, str, str]:
        """Sorts runs that go on before those that have ended, the latest last: reversed it is the page's order."""
        return not self.ended, self.ended or self.created, f"{self.namespace}/{self.name}"


def shown(run: Json, readable: Readable | None = None) -> Shown:
    """Reads what the page shows of it. readable: reports that the page may read; None: none."""
    status = part(run, "status")
    rows = parts(status, "iterations")
    report = text(status, "artifacts", "report")
    ended, storage = text(status, "completionTime"), part(run, "spec", "storage")
    return Shown(
        text(run, "metadata", "namespace"),
        text(run, "metadata", "name"),
        text(status, "phase")[:SHORT] or "Pending",
        text(status, "iteration", "text")[:SHORT],
        text(status, "progress", "text")[:SHORT],
        text(status, "progress", "stage")[:LONGEST],
        min(100, max(0, count(status, "progress", "percent"))),
        text(status, "accuracy", "text")[:SHORT],
        text(status, "baseAccuracy", "text")[:SHORT],
        tuple(_points(rows)),
        text(status, "spent", "text")[:SHORT],
        sum(count(row, kind) for row in rows for kind in ("promptTokens", "completionTokens")),
        _message(status),
        report,
        report_link(report, text(storage, "endpoint")) if ended else "",
        report_folder(run, storage, OF_A_RUN, readable) if ended and report else "",
        text(run, "metadata", "creationTimestamp"),
        ended,
    )


def _points(rows: Iterable[Json]) -> Iterable[Point]:
    for row in rows:
        mean, stderr = _number(row, "mean"), _number(row, "stderr")
        if mean is not None:
            yield Point(count(row, "iteration"), mean, stderr or 0.0)


def _number(row: Json, name: str) -> float | None:
    value: Any = part(row, "accuracy").get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1 else None


def _message(status: Json) -> str:
    """Why it failed, was suspended or waits."""
    conditions = {text(c, "type"): c for c in parts(status, "conditions")}
    ended = [conditions[kind] for kind in ("Failed", "Suspended") if text(conditions.get(kind), "status") == "True"]
    waiting = conditions.get("Progressing") if text(conditions.get("Progressing"), "status") == "False" else None
    chosen = next(iter(ended), waiting)
    words = f"{text(chosen, 'reason')}: {text(chosen, 'message')}" if chosen and text(chosen, "reason") != "Succeeded" else ""
    return words[:LONGEST] if not text(status, "completionTime") or ended else ""


def report_link(report: str, endpoint: str) -> str:
    """Writes the address of a report in an S3 server that has one: whoever follows it needs a right there."""
    if not (_ENDPOINT.fullmatch(endpoint) and _BUCKET.fullmatch(report)):
        return ""
    return f"{endpoint.rstrip('/')}/{report.removeprefix('s3://')}"


def report_folder(thing: Json, storage: Json, kind: str, readable: Readable | None) -> str:
    """Returns BUCKET/…/ of a report by the spec alone, for a status may say anything; empty where the page may not read it."""
    if readable is None:
        return ""
    key = f"{text(thing, 'metadata', 'namespace')}/{text(thing, 'metadata', 'name')}"
    endpoint, bucket, prefix = (text(storage, field) for field in ("endpoint", "bucket", "prefix"))
    return readable.folder(endpoint, bucket, prefix, key, kind)
