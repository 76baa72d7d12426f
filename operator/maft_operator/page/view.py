"""The page itself: one document without scripts, which loads itself anew. Pure."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

from maft.readable import INDEX
from maft_operator.page.curve import curve
from maft_operator.page.markup import Markup, joined, tag
from maft_operator.page.others import ShownComparison, ShownSociety
from maft_operator.page.shown import Shown

REFRESH = 10  # seconds
_KINDS = {"Complete": "good", "Ready": "good", "Failed": "bad", "Rejected": "bad", "Suspended": "still"}  # style of a phase
MOST = 300  # runs
MOST_OTHERS = 100  # comparisons, and societies
STYLE = files("maft_operator.page").joinpath("style.css").read_text()
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_NOTHING = "; ".join(f"{what} 'none'" for what in ("default-src", "base-uri", "form-action", "frame-ancestors"))
HEADERS = {
    "Content-Security-Policy": f"{_NOTHING}; style-src 'sha256-{_HASH}'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
RUNS, COMPARISONS = "/reports", "/comparisons"  # what addresses of their reports begin with
COLUMNS = ("Run", "Phase", "Iteration", "Progress", "Accuracy by iteration", "Accuracy", "Base", "Cost", "Report")
OF_COMPARISONS = ("Comparison", "Phase", "Runs", "Best", "Table", "Report")
OF_SOCIETIES = ("Society", "Phase", "Run", "Iteration", "Ready", "URL")


def page(
    runs: Sequence[Shown],
    fault: str,
    now: datetime,
    comparisons: Sequence[ShownComparison] = (),
    societies: Sequence[ShownSociety] = (),
) -> str:
    """Writes it. fault: why the list may be old or empty, in a line."""
    ordered = sorted(runs, key=lambda run: run.order, reverse=True)
    more = f"{len(ordered) - MOST} older runs are not shown." if len(ordered) > MOST else None
    body = joined(
        tag("header", tag("h1", "maft"), tag("p", _counts(runs))),
        tag("p", fault, class_="fault", role="alert") if fault else None,
        _table(COLUMNS, [_row(run) for run in ordered[:MOST]]) if ordered else tag("p", "No runs."),
        tag("p", more) if more else None,
        _section("Comparisons", OF_COMPARISONS, [_comparison(one) for one in comparisons[:MOST_OTHERS]], len(comparisons)),
        _section("Societies", OF_SOCIETIES, [_society(one) for one in societies[:MOST_OTHERS]], len(societies)),
        tag("footer", f"As of {now:%Y-%m-%d %H:%M:%S} UTC; loaded anew every {REFRESH} seconds."),
    )
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=REFRESH),
        tag("title", f"maft: {len(runs)} runs"),
        tag("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def _counts(runs: Sequence[Shown]) -> str:
    phases = Counter(run.phase for run in runs).most_common()
    return f"{len(runs)} runs" + (": " + ", ".join(f"{number} {phase}" for phase, number in phases) if phases else "")


def _section(title: str, columns: Sequence[str], rows: Sequence[Markup], number: int) -> Markup | None:
    """Other kinds than runs; nothing where there are none."""
    more = tag("p", f"{number - len(rows)} more are not shown.") if number > len(rows) else None
    return tag("section", tag("h2", title), _table(columns, rows), more) if rows else None


def _table(columns: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = tag("tr", *(tag("th", name, scope="col") for name in columns))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide")


def _row(run: Shown) -> Markup:
    tokens = f"{run.tokens:,} tokens" if run.tokens else ""
    return tag(
        "tr",
        *_named(run),
        tag("td", run.iteration),
        tag("td", tag("progress", run.progress, value=run.percent, max=100), _small(run.progress), _small(run.stage)),
        tag("td", curve(run.points)),
        tag("td", run.accuracy, class_="number"),
        tag("td", run.base, class_="number"),
        tag("td", run.spent, _small(tokens)),
        tag("td", _report(run, RUNS) if run.ended else None),
    )


def _comparison(one: ShownComparison) -> Markup:
    return tag(
        "tr",
        *_named(one),
        tag("td", one.runs, *map(_small, one.held)),
        tag("td", one.best),
        tag("td", tag("pre", *_lines(one.table)) if one.table else None),
        tag("td", _report(one, COMPARISONS)),
    )


def _lines(table: str) -> list[Markup]:
    """Line by line: within a line, what moves a reader's cursor is replaced."""
    return [joined(line, Markup("\n")) for line in table.splitlines()]


def _society(one: ShownSociety) -> Markup:
    cells = (one.run, str(one.iteration or ""), one.ready)
    return tag("tr", *_named(one), *(tag("td", cell) for cell in cells), tag("td", tag("code", one.url) if one.url else None))


def _named(thing: Shown | ShownComparison | ShownSociety) -> tuple[Markup, Markup]:
    name = tag("th", tag("span", f"{thing.namespace}/", class_="namespace"), thing.name, scope="row")
    return name, tag("td", tag("span", thing.phase, class_=f"phase {_kind(thing.phase)}"), _small(thing.message))


def _kind(phase: str) -> str:
    return _KINDS.get(phase, "on")


def _small(words: str) -> Markup | None:
    return tag("small", words) if words else None


def _report(of: Shown | ShownComparison, route: str) -> Markup | None:
    """Links to the page's own copy where it may read the report, else to the S3 server."""
    link = f"{route}/{of.namespace}/{of.name}/{INDEX}" if of.folder else of.link
    if link:
        return tag("a", of.report if of.folder else link, href=link, rel="noreferrer noopener", target="_blank")
    return tag("code", of.report) if of.report else None
