"""`python -m maft.report`: what a run has committed, as one HTML page and one JSON file. Runs last, and again whenever asked.

Reads commits and nothing else, so an unfinished run gives a page about what is there.
"""

import json
from collections.abc import Sequence
from typing import Any

from maft import program, records
from maft.committed_run import check_is_run
from maft.program import Assignment
from maft.report.cards import CATEGORIES, EMBEDDED, Card, fit
from maft.report.page import page
from maft.report.read import ReportedRun, Stage, read
from maft.report.remarks import cut, remarks, untrained
from maft.report.sentences import AccuracyRow, chosen, details, facts, gain, headline, probed, rows, unfinished, warning
from maft.scores import rounded
from maft.spec import FORMAT
from maft.store import layout
from maft.summaries import ReportSummary, ResultRow, first_that_fits

SUMMARY_ROWS, FEWEST_ROWS = 18, 6  # of the table in the summary, which holds 4 KiB


def data(run: ReportedRun, shown: Sequence[Sequence[Card]]) -> dict[str, Any]:
    """Collects the numbers of the page, for other programs."""
    train = layout.questions("train")
    parts = {"train": train, "heldOut": layout.HELD_OUT, "probe": layout.PROBE, "validation": layout.VALIDATION}
    return {
        "format": FORMAT,
        "run": run.key,
        "method": run.method,
        "model": run.model,
        "agents": run.agents,
        "rounds": run.rounds,
        "iterations": {"trained": run.trained, "planned": run.planned},
        "seed": run.seed,
        "questions": {name: run.questions[file] for name, file in parts.items() if file in run.questions},
        "versions": run.versions,
        "facts": facts(run),
        "headline": headline(run),
        "details": details(run),
        "unfinished": unfinished(run),
        "warning": warning(run),
        "untrained": untrained(run),
        "cut": cut(run),
        "probe": [{"iteration": stage.iteration, "right": probe} for stage, probe in probed(run)],
        "gain": gain(run),
        "accuracy": [{"name": row.name, "accuracy": row.accuracy} for row in rows(run)],
        "evaluations": run.evaluations,
        **_validation(run),
        "diversity": [i.diversity for i in run.iterations if i.diversity],
        "datasets": {str(i.number): i.training.counts for i in run.iterations if i.training.counts},
        "adapters": [a for i in run.iterations for a in i.training.adapters],
        "stages": [_numbers(stage, cards) for stage, cards in zip(run.stages, shown, strict=True)],
        "trainingSeconds": {str(i.number): i.training.seconds for i in run.iterations if i.training.seconds is not None},
    }


def _validation(run: ReportedRun) -> dict[str, Any]:
    """The curve by which the best iteration was chosen; nothing where none is chosen."""
    if not run.validations:
        return {}
    curve = [{"iteration": number, "accuracy": one.accuracy, "gain": one.gain} for number, one in run.validations.items()]
    return {"validation": {"best": run.best, "chosen": chosen(run), "curve": curve}}


def _numbers(stage: Stage, cards: Sequence[Card]) -> dict[str, Any]:
    return {
        "part": stage.part,
        "iteration": stage.iteration,
        "questions": stage.questions,
        "agreement": stage.agreement,
        "usage": stage.usage,
        "answers": {"asked": stage.whole.asked, "cut": stage.whole.cut, "clipped": stage.whole.clipped},
        "seconds": stage.seconds,
        "categories": {tag: stage.counts.get(tag, 0) for tag in CATEGORIES},
        "inPage": len(cards),
        "prefix": stage.prefix,
    }


def main(assignment: Assignment) -> ReportSummary:
    """Writes both files anew."""
    store = assignment.store
    run = read(store, assignment.run)
    check_is_run(store, assignment.run, run.seed or 0)
    shown = fit([stage.cards for stage in run.stages], EMBEDDED)
    prefix = f"{assignment.run}/{layout.REPORT}"
    numbers = records.plain(data(run, shown))
    store.write(f"{prefix}report.json", json.dumps(numbers, indent=1, ensure_ascii=False).encode())
    store.write(f"{prefix}index.html", page(run, shown).encode())
    return summary(run, store.url, sum(len(cards) for cards in shown))


def summary(run: ReportedRun, store: str, in_page: int) -> ReportSummary:
    """Picks what status and tables show. Where the store's URL takes the room, with fewer rows; then with the page's key alone,
    in the end without remarks."""
    key, debates = f"{run.key}/{layout.REPORT}index.html", sum(stage.questions for stage in run.stages)
    return first_that_fits(
        ReportSummary(report=place, results=summary_rows(run, most), debates=debates, in_page=in_page, remarks=sentences)
        for place, sentences in ((f"{store}/{key}", remarks(run)), (key, remarks(run)), (key, ()))
        for most in range(SUMMARY_ROWS, FEWEST_ROWS - 1, -1)
    )


def summary_rows(run: ReportedRun, most: int = SUMMARY_ROWS) -> tuple[ResultRow, ...]:
    """Makes the paper's table; of a long run the reference rows and the last iterations."""
    table = tuple(_summary_row(row) for row in rows(run))
    return table if len(table) <= most else table[:3] + table[3 - most :]


def _summary_row(row: AccuracyRow) -> ResultRow:
    if row.numbers is None:
        return ResultRow(name=row.name, accuracy=rounded(row.accuracy))
    return ResultRow(
        name=row.name,
        accuracy=rounded(row.accuracy),
        answer=rounded(row.numbers.answers[0]),
        consensus=rounded(row.numbers.consensus),
    )


PARSER = program.parser("report", "Makes a page of everything that the run has committed.")

if __name__ == "__main__":
    program.run(main, PARSER)
