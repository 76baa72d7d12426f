"""Series of runs as text, made when a run changes and not when Prometheus asks: a scrape of thousands of runs only joins them.

The text is that of gauges, on which both of Prometheus' formats agree (prometheus.io/docs/instrumenting/exposition_formats).
"""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.utils import floatToGoString

RECENT = 200  # finished runs that have all their series: those that finished last; of the others there is OLD alone
OLD = "maft_run_info"
TALLY = "maft_runs"
_TALLIED = "Runs by phase and reason"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a run. labels: beside namespace and run."""

    name: str
    value: float
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of runs: its help text and the labels beside namespace and run."""

    text: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as the watches last delivered it. lines: by metric. ended: when it finished, as the API writes times, or empty."""

    lines: Mapping[str, str]
    state: tuple[tuple[str, str], ...]  # the labels of OLD, by which runs are counted
    ended: str


def seen(key: str, samples: Iterable[Sample], ended: str) -> Seen:
    """Makes the text of a run's series. key: NAMESPACE/NAME."""
    namespace, _, run = key.partition("/")
    own, lines, state = {"namespace": namespace, "run": run}, dict[str, str](), dict[str, str]()
    for sample in samples:
        labels = sample.labels or {}
        lines[sample.name] = lines.get(sample.name, "") + _line(sample.name, {**own, **labels}, sample.value)
        state.update(labels if sample.name == OLD else {})
    return Seen(lines, tuple(state.items()), ended)


def text(families: Mapping[str, Family], runs: Sequence[Seen]) -> str:
    """Joins the series of all runs, family by family, and counts runs by their state."""
    whole = _whole(runs)
    parts = [part for name, family in families.items() for part in _family(name, family.text, runs if name == OLD else whole)]
    tally = Tally(run.state for run in runs)
    counts = (_line(TALLY, dict(state), count) for state, count in sorted(tally.items()))
    return "".join([*parts, _head(TALLY, _TALLIED), *counts])


def _whole(runs: Sequence[Seen]) -> list[Seen]:
    """Those that are not over or finished lately; of the others a scrape has one series, so that it stays short."""
    ended = sorted(run.ended for run in runs if run.ended)
    since = ended[-RECENT] if len(ended) > RECENT else ""
    return [run for run in runs if not run.ended or run.ended >= since]


def _family(name: str, words: str, runs: Iterable[Seen]) -> Iterator[str]:
    yield _head(name, words)
    yield from (run.lines[name] for run in runs if name in run.lines)


def _head(name: str, words: str) -> str:
    return f"# HELP {name} {words}\n# TYPE {name} gauge\n"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{content.translate(_ESCAPES)}"' for label, content in sorted(labels.items()))
    number = floatToGoString(value)  # type: ignore[no-untyped-call]
    return f"{name}{{{pairs}}} {number}\n"
