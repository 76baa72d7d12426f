"""Accuracy by iteration as a small drawing in SVG, with standard errors. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from maft_operator.page.markup import Markup, tag

WIDTH, HEIGHT, EDGE = 180.0, 56.0, 6.0
MOST = 200  # points that are drawn, evenly chosen: a run may have a thousand iterations


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluated iteration; shares from 0 to 1."""

    iteration: int
    mean: float
    stderr: float


def curve(points: Sequence[Point]) -> Markup | None:
    """Draws them from 0 to 100 %; None without any."""
    points = [p for p in points if all(map(math.isfinite, (p.mean, p.stderr)))]
    if not points:
        return None
    points = points if len(points) <= MOST else [points[i * (len(points) - 1) // (MOST - 1)] for i in range(MOST)]
    first, last = points[0].iteration, points[-1].iteration
    places = [(_x(p.iteration, first, last), p) for p in points]
    line = " ".join(f"{'L' if number else 'M'}{x:.1f} {_y(p.mean):.1f}" for number, (x, p) in enumerate(places))
    words = ", ".join(f"iteration {p.iteration}: {100 * p.mean:.1f} ± {100 * p.stderr:.1f} %" for p in points[-8:])
    return tag(
        "svg",
        tag("title", f"Held-out accuracy: {words}"),
        *(tag("line", class_="grid", x1=EDGE, x2=WIDTH - EDGE, y1=_y(level), y2=_y(level)) for level in (0.0, 0.5, 1.0)),
        *(tag("line", class_="error", x1=x, x2=x, y1=_y(p.mean - p.stderr), y2=_y(p.mean + p.stderr)) for x, p in places),
        tag("path", class_="line", d=line),
        *(tag("circle", class_="point", cx=f"{x:.1f}", cy=f"{_y(p.mean):.1f}", r=2.5) for x, p in places),
        class_="curve",
        role="img",
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        width=f"{WIDTH:.0f}",
        height=f"{HEIGHT:.0f}",
    )


def _x(iteration: int, first: int, last: int) -> float:
    share = (iteration - first) / (last - first) if last > first else 0.5
    return round(EDGE + share * (WIDTH - 2 * EDGE), 1)


def _y(share: float) -> float:
    return round(HEIGHT - EDGE - min(1.0, max(0.0, share)) * (HEIGHT - 2 * EDGE), 1)
