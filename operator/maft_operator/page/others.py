"""What the page shows of comparisons and societies, read from their resources as `shown.py` reads runs. Pure."""

from dataclasses import dataclass

from maft.readable import OF_A_COMPARISON, Readable
from maft_operator.cluster.comparison.held import held
from maft_operator.cluster.fields import count, part, parts, text
from maft_operator.page.shown import LONGEST, SHORT, report_folder, report_link
from maft_operator.spec.schema import Json

HELD = 20  # runs of a comparison that wait or failed
TABLE = 8000  # characters: a row for each method, and as many columns as the paper has
_WHY_NOT = (("Accepted", "False"), ("Failed", "True"), ("Stalled", "True"), ("Suspended", "True"), ("Ready", "False"))


@dataclass(frozen=True, slots=True)
class ShownComparison:
    """One comparison. held: its runs that wait or failed, with why; table: the paper's, as lines; report, link
    and folder as of a run."""

    namespace: str
    name: str
    phase: str
    message: str
    runs: str
    held: tuple[str, ...]
    best: str
    table: str
    report: str
    link: str
    folder: str


@dataclass(frozen=True, slots=True)
class ShownSociety:
    """One society: the agents of `run` after `iteration` (0: not known yet). ready: pods that answer, of how many."""

    namespace: str
    name: str
    phase: str
    message: str
    run: str
    iteration: int
    ready: str
    url: str


def comparison(thing: Json, readable: Readable | None = None) -> ShownComparison:
    """Reads what the page shows of a comparison. readable: reports that the page may read; None: none."""
    status, report = part(thing, "status"), text(thing, "status", "report")
    storage = part(thing, "spec", "template", "storage")
    return ShownComparison(
        text(thing, "metadata", "namespace"),
        text(thing, "metadata", "name"),
        text(status, "phase")[:SHORT] or "Pending",
        _why_not(status),
        text(status, "runs", "text")[:SHORT],
        _held(thing),
        text(status, "best", "text")[:LONGEST],
        text(status, "table")[:TABLE].rstrip(),
        report,
        report_link(report, text(storage, "endpoint")),
        report_folder(thing, storage, OF_A_COMPARISON, readable) if report else "",
    )


def _held(thing: Json) -> tuple[str, ...]:
    """Of many the first, and how many more."""
    lines = [line[:LONGEST] for line in held(thing)]
    return (*lines[:HELD], f"and {len(lines) - HELD} more") if len(lines) > HELD else tuple(lines)


def society(thing: Json) -> ShownSociety:
    """Reads what the page shows of a society."""
    status = part(thing, "status")
    return ShownSociety(
        text(thing, "metadata", "namespace"),
        text(thing, "metadata", "name"),
        text(status, "phase")[:SHORT] or "Pending",
        _why_not(status),
        text(thing, "spec", "run")[:SHORT],
        count(status, "iteration"),
        text(status, "ready")[:SHORT],
        text(status, "url")[:LONGEST],
    )


def _why_not(status: Json) -> str:
    """Why it failed, was suspended or does not answer."""
    conditions = {text(c, "type"): c for c in parts(status, "conditions")}
    chosen = next((conditions[kind] for kind, value in _WHY_NOT if text(conditions.get(kind), "status") == value), None)
    return f"{text(chosen, 'reason')}: {text(chosen, 'message')}"[:LONGEST] if chosen else ""
