"""Two sides measured on the same machine in one run: alternating, as ratios. Pure but for `alternate`, which calls both sides.

A ratio is taken of neighbours: of each pair of runs, one side right after the other, who is first changing from pair to pair. Other
load on the machine is then mostly on both, and a pair that it hit on one side shows in the range and not in the median.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

RUNS = 5  # pairs, at least, of a measurement that is kept
SLACK = 2.0  # bench-quick fails on less than half of a goal, or more than twice
Side = Callable[[], float]


class Goal(msgspec.Struct, frozen=True):
    """What a ratio has to be."""

    is_: Literal["at least", "at most"]
    value: float

    def met(self, ratio: float) -> bool:
        """Tells whether a ratio is as good."""
        return ratio >= self.value if self.is_ == "at least" else ratio <= self.value

    def loosened(self, slack: float = SLACK) -> "Goal":
        """Returns the goal of a quick look, which only a gross loss misses."""
        return Goal(self.is_, self.value / slack if self.is_ == "at least" else self.value * slack)

    def text(self) -> str:
        """Writes it as people do."""
        return f"{'≥' if self.is_ == 'at least' else '≤'} {number(self.value)}"


class Condition(msgspec.Struct, frozen=True):
    """What a goal asks for beside its ratio."""

    text: str
    holds: bool


class Ratio(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measured ratio: the first side's numbers over the second's, pair by pair."""

    row: int
    """Of the table of goals."""
    name: str
    """What is divided by what."""
    unit: str
    """Of both sides."""
    first: tuple[float, ...]
    second: tuple[float, ...]
    goal: Goal | None = None
    sample: str = ""
    """How much was measured, and of what."""
    note: str = ""
    """What else was seen: equal results, errors of estimates, a smaller number of pairs and why."""
    besides: Condition | None = None
    """The other half of the goal, where it has one."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Divides each pair."""
        return tuple(one / other for one, other in zip(self.first, self.second, strict=True))

    @property
    def median(self) -> float:
        """Returns the ratio that is reported."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Tells whether the median is as good as the goal, and what it asks for besides holds; None without one."""
        return self.goal.met(self.median) and (self.besides is None or self.besides.holds) if self.goal else None

    def grossly_missed(self) -> bool:
        """Tells whether the best pair misses even half the goal: what bench-quick fails on."""
        if self.goal is None:
            return False
        loose = self.goal.loosened()
        return not any(loose.met(ratio) for ratio in self.ratios)


class Part(msgspec.Struct, frozen=True):
    """What one call measured, and where."""

    name: str
    begun: str
    """UTC."""
    seconds: float
    load: dict[str, float]
    """Of the machine's run queue, over one minute: at the beginning, at the end, most."""
    machine: dict[str, Any]
    rows: tuple[Ratio, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Numbers of both sides, pair by pair."""

    first: tuple[float, ...]
    second: tuple[float, ...]


def alternate(first: Side, second: Side, runs: int = RUNS, *, warm_up: bool = True) -> Pairs:
    """Measures both sides in turn, after one run of each that does not count; who begins changes from pair to pair."""
    if warm_up:
        first(), second()
    pairs = []
    for pair in range(runs):
        order = (first, second) if pair % 2 == 0 else (second, first)
        values = {side: side() for side in order}
        pairs.append((values[first], values[second]))
    return Pairs(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def fewer(pairs: int, why: str) -> str:
    """Makes the note on fewer pairs than a kept measurement has; empty where there are enough."""
    return f"Only {pairs}: {why}" if pairs < RUNS else ""


def number(value: float) -> str:
    """Writes three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 0.1 else 4
    return f"{value:.{1 if abs(value) >= 10 else digits}f}"


HEADS = ("#", "measure", "goal", "measured: median (least to most)", "reached", "sample")


def table(parts: Sequence[Part]) -> str:
    """Makes the Markdown table of all rows, in the order of their numbers."""
    rows = sorted((row for part in parts for row in part.rows), key=lambda row: row.row)
    lines = ["| " + " | ".join(HEADS) + " |", "|---:|---|---|---|---|---|"]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(row: Ratio) -> str:
    spread = f"**{number(row.median)}** ({number(min(row.ratios))} to {number(max(row.ratios))})"
    sample = f"{row.sample}; {len(row.ratios)} pairs" + (f". {row.note}" if row.note else "")
    return f"| {row.row} | {row.name} | {_goal(row)} | {spread} | {_reached(row)} | {sample} |"


def _goal(row: Ratio) -> str:
    return "; ".join([*([row.goal.text()] if row.goal else []), *([row.besides.text] if row.besides else [])])


def _reached(row: Ratio) -> str:
    if row.goal is None or row.met:
        return "yes" if row.met else ""
    return "**no**: the ratio alone" if row.goal.met(row.median) else "**no**"


def measured_with(parts: Sequence[Part]) -> str:
    """Says with which machine and versions; parts that had others stand apart."""
    return "Measured with " + "; ".join(dict.fromkeys(_machine(part.machine) for part in parts)) + "."


def _machine(machine: dict[str, Any]) -> str:
    rest = {name: value for name, value in machine.items() if name not in ("gpu", "versions")} | machine.get("versions", {})
    listed = ", ".join(f"{name} {value}" for name, value in rest.items())
    return f"rows on a GPU with {machine['gpu']}, {listed}" if machine.get("gpu") else listed


def circumstances(parts: Sequence[Part]) -> str:
    """Says of every part when and on what it was measured."""
    lines = ["| part | begun (UTC) | took | load at the beginning, the end, at most |", "|---|---|---:|---|"]
    for part in parts:
        load = ", ".join(f"{part.load[key]:.1f}" for key in ("begin", "end", "most"))
        lines.append(f"| `{part.name}` | {part.begun} | {part.seconds / 60:.1f} min | {load} |")
    return "\n".join(lines)
