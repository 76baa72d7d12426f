"""What an earlier start of a run left, as `prepare` found it, in this one's status: its scores, and that there was one. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from maft.summaries import AnySummary, Earlier, PrepareSummary, Validation, numbers_in
from maft_operator.cluster import results
from maft_operator.cluster.images import Pins
from maft_operator.cluster.observed import Snapshot
from maft_operator.plan import best
from maft_operator.plan.graph import Graph, task_name
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import Json
from maft_operator.spec.skew import OPERATOR

RESUMED = OPERATOR + "an earlier start of the run"
_LINE = RESUMED + " left {} up to iteration {} in the store, and its status was lost: the run goes on after them with {}"
_SCORES = ("accuracy", "answer", "majority")  # in the order of a report's numbers


def completed(rows: Sequence[Json], summaries: Iterable[AnySummary], graph: Graph) -> list[Json]:
    """Adds the scores that `prepare` found to rows that lack them: nobody computes them again. The store may have more iterations
    than this run, whose spec may ask for fewer than the earlier one's."""
    made = {row["iteration"]: row for row in rows}
    for report in _reports(summaries):
        for iteration in _iterations(graph):
            numbers = {**_scores(report.scores.get(str(iteration), ())), **_validated(report.validations.get(str(iteration)))}
            if numbers:
                made[iteration] = {"iteration": iteration, **numbers, **made.get(iteration, {})}
    return [made[iteration] for iteration in sorted(made)]


def measured(run: Run, graph: Graph, snapshot: Snapshot, old: Iterable[Json]) -> Snapshot:
    """Adds what the next step is decided from: what is known of the run's debates. old: the status' rows before."""
    before = list(old)
    rows = completed(results.rows(graph, snapshot, before), snapshot.summaries.values(), graph)
    known = {task_name(run, iteration, "validate"): one for iteration, one in results.validations(rows).items()}
    observed = replace(snapshot.observed, validations=known)
    spent = results.rows(best.settled(graph, observed), snapshot, before)  # in the rows where the status has it, or it counts twice
    return replace(snapshot, observed=replace(observed, tokens=results.tokens(spent)))


def notices(summaries: Iterable[AnySummary], pins: Pins, graph: Graph) -> tuple[str, ...]:
    """Says that the run goes on after another start, and with which images; a line, or none."""
    stages = [line for report in _reports(summaries) if (line := _stages(report, _iterations(graph)))]
    images = ", ".join(pin.image for pin in pins.roles.values())
    return tuple(_LINE.format(*line, images) for line in stages)


def _stages(report: Earlier, own: frozenset[int]) -> tuple[str, str] | None:
    """Kinds of what is there of the run's own iterations, and the last one of which there is anything."""
    kinds = {
        "debates": numbers_in(report.debates),
        "adapters": frozenset(i for text in report.adapters for i in numbers_in(text)),
        "evaluations": numbers_in(report.evaluations),
        "validations": numbers_in(report.validated),
        "diversities": numbers_in(report.diversities),
    }
    there = {name: iterations & own for name, iterations in kinds.items() if iterations & own}
    return (" and ".join(there), str(max(map(max, there.values())))) if there else None


def _iterations(graph: Graph) -> frozenset[int]:
    return frozenset(task.iteration for task in graph.tasks)


def _reports(summaries: Iterable[AnySummary]) -> list[Earlier]:
    return [summary.earlier for summary in summaries if isinstance(summary, PrepareSummary)]


def _validated(validation: Validation | None) -> Json:
    return {"validation": results.validated(validation)} if validation else {}


def _scores(numbers: Sequence[float]) -> Json:
    pairs = zip(numbers[::2], numbers[1::2], strict=False)
    return {name: {"mean": mean, "stderr": stderr} for name, (mean, stderr) in zip(_SCORES, pairs, strict=False)}
