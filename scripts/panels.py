"""Draws what the dashboards show: every panel's queries go to a Prometheus, and the answers onto one picture per dashboard.

For docs/images, and to look at panels without a Grafana: python scripts/panels.py http://127.0.0.1:9090 --namespace demo
"""

import argparse
import io
import json
import math
import re
import textwrap
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "charts" / "maft" / "dashboards"
Json = dict[str, Any]
COLORS = {"green": "#3a8f4b", "yellow": "#c9920e", "red": "#c4302b", "blue": "#2f6db5"}


@dataclass(frozen=True, slots=True)
class Span:
    """The time range that a dashboard shows, in seconds since 1970, and the variables' values."""

    start: float
    end: float
    values: Mapping[str, str]

    def filled(self, expression: str) -> str:
        """PromQL as Grafana sends it."""
        known = {"__rate_interval": "20s", "__range": f"{max(1, int(self.end - self.start))}s", **self.values}
        return re.sub(r"\$(\w+)", lambda found: known.get(found.group(1), found.group()), expression)


def panels(document: Json) -> Iterator[Json]:
    """All panels that show data."""
    return (panel for panel in document["panels"] if panel["type"] != "row")


def answers(url: str, panel: Json, span: Span) -> list[list[Json]]:
    """What Prometheus says to each query of a panel."""
    return [ask(url, span, target["expr"], instant=target.get("instant", False)) for target in panel["targets"]]


def ask(url: str, span: Span, expression: str, *, instant: bool) -> list[Json]:
    """One query, at the end of the range or all along it."""
    what, when = ("query", {"time": span.end}) if instant else ("query_range", {"start": span.start, "end": span.end})
    step = {} if instant else {"step": max(1, int((span.end - span.start) / 300))}
    parameters = urllib.parse.urlencode({"query": span.filled(expression), **when, **step})
    with urllib.request.urlopen(f"{url}/api/v1/{what}?{parameters}", timeout=30) as response:
        result: list[Json] = json.load(response)["data"]["result"]
    return result


def named(legend: str, metric: Mapping[str, str]) -> str:
    """A series' name by the panel's pattern."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: metric.get(found.group(1), ""), legend) if legend else "value"


def shown(value: float, unit: str) -> str:
    """A number with its unit, as Grafana would write it."""
    writers: Mapping[str, Callable[[float], str]] = {
        "percentunit": lambda v: f"{100 * v:.0f} %",
        "s": lambda v: f"{v:.3g} s" if v < 120 else f"{v / 60:.1f} min",
        "bytes": lambda v: f"{v / 2**20:.0f} MiB",
        "dateTimeFromNow": lambda v: f"{max(0, time.time() - v / 1000) / 60:.0f} min ago",
        "dtdurations": lambda v: f"{int(v) // 60} min {int(v) % 60} s",
    }
    if math.isnan(value):
        return "-"
    return writers.get(unit, lambda v: f"{v:,.0f}" if v == int(v) or v >= 100 else f"{v:.2g}")(value)


def color(panel: Json, value: float) -> str:
    """By the panel's thresholds."""
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", ())
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLORS.get(reached[-1] if reached else "blue", "#2f6db5")


# --- one function for each kind of panel ---


def draw_stat(axes: Any, panel: Json, data: Sequence[Sequence[Json]], unit: str) -> None:
    """A number, or the word that stands for it."""
    axes.axis("off")
    value = float(data[0][0]["value"][1])
    words = next((m["options"] for m in panel["fieldConfig"]["defaults"].get("mappings", ())), {})
    word = words.get(f"{value:g}", {}).get("text") or shown(value, unit)
    axes.text(0.4, 0.6, word, ha="center", va="center", fontsize=20, color=color(panel, value), transform=axes.transAxes)


def draw_timeseries(axes: Any, panel: Json, data: Sequence[Sequence[Json]], unit: str) -> None:
    """Lines over time."""
    from matplotlib.dates import DateFormatter
    from matplotlib.ticker import FuncFormatter, LinearLocator

    for target, found in zip(panel["targets"], data, strict=True):
        for series in found:
            moments = [datetime.fromtimestamp(float(t), UTC) for t, _ in series["values"]]
            name = named(target.get("legendFormat", ""), series["metric"])
            axes.plot(moments, [float(v) for _, v in series["values"]], label=name, linewidth=1.4, marker=".", markersize=3)
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", ()):
        if step["value"] is not None and step["value"] <= axes.get_ylim()[1]:
            axes.axhline(step["value"], linestyle="--", linewidth=0.8, color=COLORS[step["color"]])
    highest = panel["fieldConfig"]["defaults"].get("max") or axes.get_ylim()[1]
    axes.set_ylim(bottom=0, top=1.05 * highest)
    axes.xaxis.set_major_locator(LinearLocator(max(4, int(axes.get_position().width * 18))))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=5.5, ncols=2, loc="best", framealpha=0.6)


def draw_bargauge(axes: Any, panel: Json, data: Sequence[Sequence[Json]], unit: str) -> None:
    """A bar for each series."""
    legend = panel["targets"][0].get("legendFormat", "")
    rows = [(named(legend, s["metric"]), float(s["value"][1])) for s in data[0]]
    names, values = [r[0] for r in rows], [r[1] for r in rows]
    axes.barh(names, values, color=[color(panel, v) for v in values])
    top = panel["fieldConfig"]["defaults"].get("max") or max([*values, 1e-9]) * 1.25
    axes.set_xlim(0, top)
    for place, value in enumerate(values):
        axes.text(min(value, top * 0.85), place, f" {shown(value, unit)}", va="center", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.set_xticks([])


def draw_barchart(axes: Any, panel: Json, data: Sequence[Sequence[Json]], unit: str) -> None:
    """Groups of bars along `at`."""
    places = sorted({s["metric"]["at"] for found in data for s in found})
    width = 0.8 / len(data)
    for number, (target, found) in enumerate(zip(panel["targets"], data, strict=True)):
        values = {s["metric"]["at"]: float(s["value"][1]) for s in found}
        bars = axes.bar(
            [i + number * width for i in range(len(places))],
            [values.get(p, 0) for p in places],
            width=width * 0.92,
            label=target["legendFormat"],
        )
        axes.bar_label(bars, [shown(values.get(p, 0), unit) for p in places], fontsize=5.5)
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(places))], places, fontsize=6)
    axes.set_ylim(0, 1.1 * (panel["fieldConfig"]["defaults"].get("max") or axes.get_ylim()[1]))
    axes.set_yticks([])
    axes.legend(fontsize=6, ncols=2, loc="upper left", framealpha=0.6)


def draw_table(axes: Any, panel: Json, data: Sequence[Sequence[Json]], unit: str) -> None:
    """Rows joined by their labels."""
    axes.axis("off")
    columns = next(t["options"]["renameByName"] for t in panel["transformations"] if t["id"] == "organize")
    units = {o["matcher"]["options"]: o["properties"][0]["value"] for o in panel["fieldConfig"].get("overrides") or ()}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for letter, found in zip("ABCDEFGH", data, strict=False):
        for series in found:
            row = rows.setdefault((series["metric"].get("namespace", ""), row_key(series["metric"])), {})
            row.update(series["metric"])
            field = f"Value #{letter}"
            row[field] = shown(float(series["value"][1]), units.get(columns.get(field, ""), ""))
    if not rows:
        axes.text(0.5, 0.5, panel["fieldConfig"]["defaults"].get("noValue", "No data"), ha="center", transform=axes.transAxes)
        return
    cells = [[wrapped(row.get(column, "")) for column in columns] for row in rows.values()]
    made = axes.table(cells, colLabels=list(columns.values()), loc="upper center", cellLoc="left", edges="horizontal")
    made.auto_set_font_size(False)
    made.set_fontsize(6.5)
    if len(columns) < 4:
        made.auto_set_column_width(list(range(len(columns))))
    made.scale(1, 1.25 * max(1, *(c.count("\n") + 1 for row in cells for c in row)))


def wrapped(text: str) -> str:
    """In lines of a cell's width."""
    return "\n".join(textwrap.wrap(re.sub(",(?=[a-z])", ", ", text), 34, break_on_hyphens=False))


def row_key(metric: Mapping[str, str]) -> str:
    """What a row is about. A society's run is one of its facts."""
    names = ("society",) if "society" in metric else ("alertname", "comparison", "run", "pod")
    return "/".join(metric.get(name, "") for name in names)


KINDS: Mapping[str, Callable[[Any, Json, Sequence[Sequence[Json]], str], None]] = {
    "stat": draw_stat,
    "timeseries": draw_timeseries,
    "bargauge": draw_bargauge,
    "barchart": draw_barchart,
    "table": draw_table,
}


def picture(url: str, document: Json, span: Span, target: Path) -> None:
    """A whole dashboard: panels and headings where its grid has them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in document["panels"])
    figure = plt.figure(figsize=(12, 0.32 * height + 0.4), facecolor="white")
    unit_x, unit_y = 1 / 24, 1 / (height + 1.2)
    figure.text(0.012, 1 - 0.75 * unit_y, document["title"], fontsize=13, weight="bold", va="center")
    for panel in document["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] * unit_x, 1 - (place["y"] + 1.2) * unit_y
        if panel["type"] == "row":
            figure.text(0.012, top - 0.55 * unit_y, panel["title"], fontsize=11, weight="bold", color="#444444", va="center")
            continue
        title = "\n".join(textwrap.wrap(panel["title"], max(14, int(place["w"] * 4.6))))
        figure.text(left + 0.012, top - 0.2 * unit_y, title, fontsize=8, weight="bold", va="top")
        narrow = panel["type"] in ("stat", "table")
        inset = 0.012 if narrow else 0.15 if panel["type"] == "bargauge" else 0.045
        box = (
            left + inset,
            top - (place["h"] - (0.2 if narrow else 1.2)) * unit_y,
            place["w"] * unit_x - inset - 0.012,
            (place["h"] - (1.2 if narrow else 2.6)) * unit_y,
        )
        axes = figure.add_axes(box)
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        data = answers(url, panel, span)
        if any(data):
            KINDS[panel["type"]](axes, panel, data, unit)
        else:
            axes.axis("off")
            words = panel["fieldConfig"]["defaults"].get("noValue", "No data")
            axes.text(0.5, 0.5, words, ha="center", color="#888888", transform=axes.transAxes)
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(64).save(target, optimize=True)  # a third of the size


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("panels.py", description=__doc__)
    parser.add_argument("url", help="of Prometheus")
    parser.add_argument("--namespace", default=".*", help="of runs")
    parser.add_argument("--run", default=".*")
    parser.add_argument("--system", default="maft-system", help="namespace of the operator")
    parser.add_argument("--start", type=float, default=time.time() - 3600, help="seconds since 1970 [an hour ago]")
    parser.add_argument("--end", type=float, default=time.time(), help="[now]")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    for path in sorted(FOLDER.glob("*.json")):
        namespace = arguments.system if path.stem == "operator" else arguments.namespace
        span = Span(arguments.start, arguments.end, {"cluster": ".*", "namespace": namespace, "run": arguments.run})
        picture(arguments.url, json.loads(path.read_text()), span, arguments.folder / f"{path.stem}.png")


if __name__ == "__main__":
    main()
