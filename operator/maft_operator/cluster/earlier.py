"""What an earlier start of a run left, as `prepare` found it, in this one's status: its scores, and that there was one. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from maft.summaries import AnySummary, Earlier, PrepareSummary, numbers_in
from maft_operator.cluster.images import Pins
from maft_operator.spec.schema import Json
from maft_operator.spec.skew import OPERATOR

RESUMED = OPERATOR + "an earlier start of the run"
_LINE = RESUMED + " left {} up to iteration {} in the store, and its status was lost: the run goes on after them with {}"
_SCORES = ("accuracy", "answer", "majority")  # in the order of a report's numbers


def completed(rows: Sequence[Json], summaries: Iterable[AnySummary]) -> list[Json]:
    """Adds the scores that `prepare` found to rows that lack them: nobody computes them again."""
    made = {row["iteration"]: row for row in rows}
    for report in _reports(summaries):
        for text, numbers in report.scores.items():
            for iteration in numbers_in(text):
                made[iteration] = {"iteration": iteration, **_scores(numbers), **made.get(iteration, {})}
    return [made[iteration] for iteration in sorted(made)]


def with_adapters(rows: Iterable[Json], done: Mapping[str, str]) -> list[Json]:
    """Adds to what rows say of trained iterations those of which the record alone knows."""
    trained = [numbers_in(text) for stage, text in done.items() if stage == "train" or stage.startswith("train-")]
    known = {row["iteration"]: row for row in rows}
    for iteration in sorted(frozenset.intersection(*trained) if trained else ()):
        known[iteration] = {"trained": 0, **known.get(iteration, {"iteration": iteration})}
    return [known[iteration] for iteration in sorted(known)]


def notices(summaries: Iterable[AnySummary], pins: Pins) -> tuple[str, ...]:
    """Says that the run goes on after another start, and with which images; a line, or none."""
    found = [line for report in _reports(summaries) if (line := _stages(report))]
    images = ", ".join(pin.image for pin in pins.roles.values())
    return tuple(_LINE.format(*line, images) for line in found)


def _stages(report: Earlier) -> tuple[str, str] | None:
    """Kinds of what is there, and the last iteration of which there is anything."""
    kinds = {
        "debates": numbers_in(report.debates),
        "adapters": frozenset(i for text in report.adapters for i in numbers_in(text)),
        "evaluations": numbers_in(report.evaluations),
        "diversities": numbers_in(report.diversities),
    }
    there = {name: iterations for name, iterations in kinds.items() if iterations}
    return (" and ".join(there), str(max(map(max, there.values())))) if there else None


def _reports(summaries: Iterable[AnySummary]) -> list[Earlier]:
    return [summary.earlier for summary in summaries if isinstance(summary, PrepareSummary)]


def _scores(numbers: Sequence[float]) -> Json:
    pairs = zip(numbers[::2], numbers[1::2], strict=False)
    return {name: {"mean": mean, "stderr": stderr} for name, (mean, stderr) in zip(_SCORES, pairs, strict=False)}
