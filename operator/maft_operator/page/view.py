"""The page itself: one document without scripts, which loads itself anew. Pure."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

from maft_operator.page.curve import curve
from maft_operator.page.markup import Markup, joined, tag
from maft_operator.page.shown import Shown

REFRESH = 10  # seconds
MOST = 300  # runs
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
COLUMNS = ("Run", "Phase", "Iteration", "Progress", "Accuracy by iteration", "Accuracy", "Base", "Cost", "Report")


def page(runs: Sequence[Shown], fault: str, now: datetime) -> str:
    """Writes it. fault: why the list may be old or empty, in a line."""
    ordered = sorted(runs, key=lambda run: run.order, reverse=True)
    more = f"{len(ordered) - MOST} older runs are not shown." if len(ordered) > MOST else None
    body = joined(
        tag("header", tag("h1", "maft"), tag("p", _counts(runs))),
        tag("p", fault, class_="fault", role="alert") if fault else None,
        tag("div", _table(ordered[:MOST]), class_="wide") if ordered else tag("p", "No runs."),
        tag("p", more) if more else None,
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


def _table(runs: Sequence[Shown]) -> Markup:
    head = tag("tr", *(tag("th", name, scope="col") for name in COLUMNS))
    return tag("table", tag("thead", head), tag("tbody", *(_row(run) for run in runs)))


def _row(run: Shown) -> Markup:
    tokens = f"{run.tokens:,} tokens" if run.tokens else ""
    return tag(
        "tr",
        tag("th", tag("span", f"{run.namespace}/", class_="namespace"), run.name, scope="row"),
        tag("td", tag("span", run.phase, class_=f"phase {_kind(run)}"), _small(run.message)),
        tag("td", run.iteration),
        tag("td", tag("progress", run.progress, value=run.percent, max=100), _small(run.progress), _small(run.stage)),
        tag("td", curve(run.points)),
        tag("td", run.accuracy, class_="number"),
        tag("td", run.base, class_="number"),
        tag("td", run.spent, _small(tokens)),
        tag("td", _report(run)),
    )


def _kind(run: Shown) -> str:
    return {"Complete": "good", "Failed": "bad", "Suspended": "still"}.get(run.phase, "on")


def _small(words: str) -> Markup | None:
    return tag("small", words) if words else None


def _report(run: Shown) -> Markup | None:
    if not run.ended:
        return None
    if run.link:
        return tag("a", run.link, href=run.link, rel="noreferrer noopener", target="_blank")
    return tag("code", run.report) if run.report else None
