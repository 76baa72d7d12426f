"""Draws charts: numbers in, SVG elements out, for `maft.report` and `maft.compare`.

Colours are CSS variables of the page (`--series-1` to `--series-8`, `--grid`, currentColor), so that a chart follows its theme.
A chart without data is an empty string.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, StrMethodFormatter

from maft.records import DatasetCounts, Diversity, Evaluation, Role
from maft.summaries import Score, Usage

SERIES = tuple(f"#0000f{i}" for i in range(1, 9))  # stand for the page's colours until the SVG is written
INK, GRID = "#00000a", "#00000b"
MARKS = "osD^v"
LINES = ("-", "--", ":", "-.", "-")
ENDS = (-2.0, 102.0)  # of an axis in percent: a mark at 100 is whole
SPAN = 30.0  # percentage points that an axis shows at least, so that noise does not look like news
KINDS = ("debate", "training", "evaluation")  # of stages, each with its colour in every chart
WIDEST = 8  # agents with a bar each; more become one bar with its range
LEARNT = "finetuning iterations done (0: untrained)"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "maft",  # equal numbers give equal bytes
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a group."""

    height: float
    """Of the plain part."""
    top: float = 0.0
    """Height of a paler part above it."""
    spread: tuple[float, float] | None = None
    """Of an error bar, below and above the height."""


def accuracy(evaluations: Sequence[Evaluation]) -> str:
    """Draws held-out accuracy of the debate and of what the debate starts from, as far as there are rounds and others."""
    series = {
        "debate": {e.iteration: e.votes[-1] for e in evaluations if len(e.votes) > 1},
        "majority of first answers": {e.iteration: e.votes[0] for e in evaluations if len(e.agents) > 1},
        "one first answer": {e.iteration: e.answers[0] for e in evaluations},
    }
    return _lines("accuracy", ("Accuracy on held-out questions", LEARNT, "questions answered right (%)"), series)


def validation(accuracies: Mapping[int, Score]) -> str:
    """Draws the accuracy by which the best iteration is chosen."""
    texts = ("Accuracy on validation questions", LEARNT, "questions answered right (%)")
    return _lines("validation", texts, {"debate": accuracies})


def consensus(held_out: Mapping[int, Score], training: Mapping[int, Score]) -> str:
    """Draws agreement with the final majority; both by the iterations that the debating agents have behind them."""
    series = {"held-out questions": held_out, "training questions": training}
    return _lines("consensus", ("Agreement with the majority", LEARNT, "agents that agree (%)"), series)


def diversity(measured: Sequence[Diversity]) -> str:
    """Draws how far agents are from each other, in nats; see Diversity for the formulas."""
    series = {
        "likelihood of the others' answers (NLL)": {d.iteration: d.cross for d in measured},
        "KL between agents": {d.iteration: d.kl for d in measured if d.kl is not None},
    }
    series = {label: points for label, points in series.items() if points}
    if not measured:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(("Diversity of first answers", LEARNT, f"nats per {measured[0].per or 'token'}"))
        for k, (label, points) in enumerate(series.items()):
            axes.plot(*zip(*sorted(points.items()), strict=True), label=label, color=SERIES[k], marker=MARKS[k], linestyle=LINES[k])
        axes.set_ylim(0, None)
        _whole(axes, sorted(d.iteration for d in measured))
        return _svg(figure, "diversity", "Diversity of first answers")


def kept(role: Role, counts: Mapping[int, Sequence[DatasetCounts]]) -> str:
    """Draws training examples of one role per agent and iteration."""
    by_iteration = {i: {c.agent: c.kept for c in each if c.role == role} for i, each in counts.items()}
    agents = sorted({agent for by_agent in by_iteration.values() for agent in by_agent})
    texts = (f"Examples kept for the {role}s", "iteration", "examples")
    if len(agents) <= WIDEST:
        each = {f"agent {n}": {i: Bar(k[n]) for i, k in by_iteration.items() if n in k} for n in agents}
        return _bars(f"kept-{role}", texts, each)
    means = {i: _ranged(list(k.values())) for i, k in by_iteration.items() if k}
    return _bars(f"kept-{role}", texts, {f"mean of {len(agents)} agents, fewest to most": means})


def tokens(usage: Mapping[str, Mapping[int, Usage]]) -> str:
    """Draws tokens by kind of stage and iteration."""
    groups = {
        kind: {i: Bar(u.completion_tokens, u.prompt_tokens) for i, u in usage.get(kind, {}).items()} for kind in _kinds(usage)
    }
    return _bars("tokens", ("Tokens written (solid) and read (pale)", "iteration (0: untrained)", "tokens"), groups)


def time(seconds: Mapping[str, Mapping[int, float]]) -> str:
    """Draws hours, minutes or seconds by kind of stage and iteration."""
    longest = max((s for by_iteration in seconds.values() for s in by_iteration.values()), default=0.0)
    unit, size = ("hours", 3600) if longest >= 7200 else ("minutes", 60) if longest >= 120 else ("seconds", 1)
    groups = {kind: {i: Bar(s / size) for i, s in seconds.get(kind, {}).items()} for kind in _kinds(seconds)}
    return _bars("time", ("Time of the stages", "iteration (0: untrained)", unit), groups)


def _kinds(stages: Mapping[str, object]) -> tuple[str, ...]:
    """All of them; debates of validation questions are few runs' alone."""
    return (*KINDS, *(kind for kind in ("validation",) if kind in stages))


def compared(methods: Sequence[tuple[str, Score]]) -> str:
    """Draws accuracy per method with one standard error over questions, best first."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.7 + 0.28 * len(methods)), layout="constrained")
        axes = figure.subplots()
        title = "Held-out accuracy (%), one standard error over questions"
        axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
        places = range(len(methods))
        mean, error = ([100 * getattr(score, part) for _, score in methods] for part in ("mean", "stderr"))
        axes.errorbar(mean, places, xerr=error, fmt="o", color=SERIES[0], markersize=5, capsize=2.5)
        axes.set_yticks(places, [name for name, _ in methods])
        axes.invert_yaxis()
        axes.set_xlim(_limits([m + sign * e for m, e in zip(mean, error, strict=True) for sign in (-1, 1)]))
        axes.grid(axis="x", linewidth=0.6)
        return _svg(figure, "compared", title)


def _ranged(values: Sequence[int]) -> Bar:
    mean = sum(values) / len(values)
    return Bar(mean, spread=(mean - min(values), max(values) - mean))


def _lines(name: str, texts: tuple[str, str, str], series: Mapping[str, Mapping[int, Score]]) -> str:
    """Lines with error bars of one standard error, in percent."""
    shown = {label: points for label, points in series.items() if points}
    if not shown:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(texts)
        for k, (label, points) in enumerate(shown.items()):
            x = sorted(points)
            mean, error = ([100 * getattr(points[i], part) for i in x] for part in ("mean", "stderr"))
            shift = 0.04 * (k - (len(shown) - 1) / 2) if len(x) < WIDEST else 0.0  # error bars side by side
            look = {"color": SERIES[k], "marker": MARKS[k], "linestyle": LINES[k], "markersize": 4.5, "capsize": 2.5}
            axes.errorbar([i + shift for i in x], mean, yerr=error, label=label, **look)
        scores = [score for points in shown.values() for score in points.values()]
        axes.set_ylim(_limits([100 * (s.mean + sign * s.stderr) for s in scores for sign in (-1, 1)]))
        _whole(axes, sorted({i for points in shown.values() for i in points}))
        return _svg(figure, name, texts[0])


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """An axis in percent around the values, at least SPAN wide."""
    low, high = min(values) - 3, max(values) + 3
    grow = max(0.0, SPAN - (high - low)) / 2
    low, high = low - grow, high + grow
    shift = max(0.0, ENDS[0] - low) - max(0.0, high - ENDS[1])
    return max(ENDS[0], low + shift), min(ENDS[1], high + shift)


def _bars(name: str, texts: tuple[str, str, str], groups: Mapping[str, Mapping[int, Bar]]) -> str:
    """Groups of bars side by side. A group without bars takes no room, and the others keep their colours."""
    shown = [(label, bars, SERIES[k % len(SERIES)]) for k, (label, bars) in enumerate(groups.items()) if bars]
    if not shown:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(texts)
        width = 0.8 / len(shown)
        for k, (label, bars, color) in enumerate(shown):
            x = [i - 0.4 + width * (k + 0.5) for i in bars]
            _group(axes, x, list(bars.values()), width=0.92 * width, color=color, label=label)
        axes.yaxis.set_major_formatter(EngFormatter(sep=" ") if texts[2] == "tokens" else StrMethodFormatter("{x:,g}"))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=texts[2] in ("examples", "tokens"), steps=[1, 2, 2.5, 5, 10]))
        axes.set_ylim(0, None if any(bar.height + bar.top for _, bars, _ in shown for bar in bars.values()) else 1)
        _whole(axes, sorted({i for _, bars, _ in shown for i in bars}))
        return _svg(figure, name, texts[0])


def _group(axes: Any, x: Sequence[float], bars: Sequence[Bar], *, width: float, color: str, label: str) -> None:
    heights = [bar.height for bar in bars]
    axes.bar(x, heights, width, color=color, label=label)
    if any(bar.top for bar in bars):
        axes.bar(x, [bar.top for bar in bars], width, bottom=heights, color=color, alpha=0.35)
    for place, bar in zip(x, bars, strict=True):
        if bar.spread:
            axes.errorbar(place, bar.height, yerr=[[part] for part in bar.spread], color=INK, capsize=2.5)


def _axes(texts: tuple[str, str, str]) -> tuple[Any, Any]:
    figure = Figure(figsize=(4.4, 3.1), layout="constrained")
    axes = figure.subplots()
    title, x, y = texts
    axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y", linewidth=0.6)
    axes.tick_params(length=2.5)
    return figure, axes


def _whole(axes: Any, x: Sequence[int]) -> None:
    """Whole iterations on the x axis, and room for one of them at its ends."""
    axes.set_xlim(x[0] - 0.6, x[-1] + 0.6)
    axes.set_xticks(range(x[0], x[-1] + 1, 1 + (x[-1] - x[0]) // 12))


def _svg(figure: Any, name: str, title: str) -> str:
    """An SVG element for an HTML page: no prolog, no style of its own, ids that are unique in the page, colours of the page."""
    if any(axes.get_legend_handles_labels()[1] for axes in figure.axes):
        figure.legend(
            loc="outside lower left",
            ncols=4 if name.startswith("kept") else 3,
            frameon=False,
            handlelength=1.9,
            columnspacing=1.0,
            fontsize=8.5,
        )
    target = io.StringIO()
    figure.savefig(target, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    body = target.getvalue()
    body = re.sub(r"<style.*?</style>", "", body[body.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r"<svg[^>]*?viewBox=(\"[^\"]*\")[^>]*>", rf'<svg role="img" aria-label="{title}" viewBox=\1>', body, count=1)
    body = re.sub(r"(xlink:)?(href=\"#|url\(#|\bid=\")", rf"\2{name}-", body)
    for color, variable in _colors():
        body = body.replace(color, variable)
    return body


def _colors() -> Iterator[tuple[str, str]]:
    yield from ((color, f"var(--series-{i})") for i, color in enumerate(SERIES, 1))
    yield from ((INK, "currentColor"), (GRID, "var(--grid)"))
