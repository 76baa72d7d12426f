"""`python -m maft.report`: what a run has committed, as one HTML page and one JSON file. Runs last, and again whenever asked.

Reads commits and nothing else, so an unfinished run gives a page about what is there. What models wrote is not trusted: it
reaches the page as JSON in data blocks, and a script puts it there as text.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from maft import __version__, charts, program, records
from maft.program import Assignment
from maft.records import BASE, ROLES
from maft.report.read import CATEGORIES, EMBEDDED, Card, CommittedRun, Stage, embeddable, fit, read
from maft.report.sentences import (
    NAMES,
    AccuracyRow,
    bare,
    details,
    gain,
    headline,
    method,
    probed,
    rows,
    tight,
    unfinished,
    warning,
)
from maft.scores import rounded
from maft.spec import TaskSpec
from maft.store import layout
from maft.summaries import ReportSummary, ResultRow, Usage, first_that_fits

SUMMARY_ROWS, FEWEST_ROWS = 18, 6  # of the table in the summary, which holds 4 KiB


def clock(seconds: float | None) -> str:
    """Writes seconds as people say them; empty if unknown."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def facts(run: CommittedRun) -> dict[str, str]:
    """Lists what the head of the page shows, by its label."""
    stage = run.stages[0] if run.stages else None
    train, held_out = (run.questions.get(f"{part}.jsonl") for part in ("train", "held-out"))
    seed = run.spec.seed if run.spec else stage.seed if stage else None
    values = {
        "Method": run.method,
        "Model": str(run.meta.get("model", "")),
        "Task": _task(run.spec.task) if run.spec else "",
        "Questions": f"{train:,} for training, {held_out:,} held out" if train is not None and held_out is not None else "",
        "Agents": str(run.spec.agents if run.spec else stage.agents if stage else ""),
        "Rounds of debate": str(run.spec.debate.rounds if run.spec else max((s.rounds for s in run.stages), default="")),
        "Iterations": f"{run.trained} of {run.planned}",
        "Seed": "" if seed is None else str(seed),
        "Versions": ", ".join(f"{name} {number}" for name, number in sorted(versions(run).items())),
    }
    return {name: value for name, value in values.items() if value}


def _task(task: TaskSpec) -> str:
    if task.kind == "arithmetic":
        numbers = task.arithmetic
        return f"arithmetic, {numbers.operands} integers from {numbers.minimum} to {numbers.maximum}"
    return ", ".join(part for part in (task.kind, task.source) if part)


def versions(run: CommittedRun) -> dict[str, str]:
    """Lists the versions of the libraries that trained the adapters, and of maft when the run began."""
    began = {"maft": str(run.meta["version"])} if "version" in run.meta else {}
    return {k: v for i in run.iterations for k, v in i.training.versions.items()} | began


def data(run: CommittedRun, shown: Sequence[Sequence[Card]]) -> dict[str, Any]:
    """Collects the numbers of the page, for other programs."""
    return {
        "run": run.key,
        "facts": facts(run),
        "headline": headline(run),
        "details": details(run),
        "unfinished": unfinished(run),
        "warning": warning(run),
        "probe": [{"iteration": stage.iteration, "right": probe} for stage, probe in probed(run)],
        "gain": gain(run),
        "accuracy": [{"name": row.name, "accuracy": row.accuracy} for row in rows(run)],
        "evaluations": run.evaluations,
        "diversity": [i.diversity for i in run.iterations if i.diversity],
        "datasets": {str(i.number): i.training.counts for i in run.iterations if i.training.counts},
        "adapters": [a for i in run.iterations for a in i.training.adapters],
        "stages": [_numbers(stage, cards) for stage, cards in zip(run.stages, shown, strict=True)],
        "trainingSeconds": {str(i.number): i.training.seconds for i in run.iterations if i.training.seconds is not None},
    }


def _numbers(stage: Stage, cards: Sequence[Card]) -> dict[str, Any]:
    return {
        "part": stage.part,
        "iteration": stage.iteration,
        "questions": stage.questions,
        "agreement": stage.agreement,
        "usage": stage.usage,
        "seconds": stage.seconds,
        "categories": {tag: stage.counts.get(tag, 0) for tag in CATEGORIES},
        "inPage": len(cards),
        "prefix": stage.prefix,
    }


# --- the page ---


@dataclass(frozen=True, slots=True)
class Cost:
    """A line of the table of tokens and time: a stage, or what an iteration trained."""

    name: str
    questions: int | None
    usage: Usage | None
    seconds: float | None

    @property
    def rate(self) -> str:
        """Tokens written per second, as text; empty unless both are known."""
        return f"{self.usage.completion_tokens / self.seconds:,.0f}" if self.usage and self.seconds else ""


def costs(run: CommittedRun) -> list[Cost]:
    """Lists the stages in the order in which they ran."""
    lines: list[Cost] = []
    for i in run.iterations:
        if i.debate:
            lines.append(Cost(f"debate {i.number}", i.debate.questions, i.debate.usage, i.debate.seconds))
        if i.training.adapters:
            lines.append(Cost(f"training {i.number}", None, None, i.training.seconds))
        if i.evaluation:
            name = f"evaluation {i.number}" if i.number else "evaluation, untrained"
            lines.append(Cost(name, i.evaluation.questions, i.evaluation.usage, i.evaluation.seconds))
    return lines


def drawings(run: CommittedRun) -> list[Markup]:
    """Draws the charts as SVG elements; those without data are left out."""
    debates = {i.number: i.debate for i in run.iterations if i.debate}
    held_out = {i.number: i.evaluation for i in run.iterations if i.evaluation}
    counts = {i.number: i.training.counts for i in run.iterations if i.training.counts}
    trained = {i.number: i.training.seconds for i in run.iterations if i.training.seconds is not None}
    drawn = (
        charts.accuracy(run.evaluations),
        charts.consensus(*({s.learnt: s.agreement for s in stages.values()} for stages in (held_out, debates))),
        charts.diversity([i.diversity for i in run.iterations if i.diversity]),
        *(charts.kept(role, counts) for role in ROLES),
        charts.tokens({"debate": _usages(debates), "evaluation": _usages(held_out)}),
        charts.time({"debate": _times(debates), "training": trained, "evaluation": _times(held_out)}),
    )
    return [Markup(svg) for svg in drawn if svg]


def _usages(stages: Mapping[int, Stage]) -> dict[int, Usage]:
    return {number: stage.usage for number, stage in stages.items()}


def _times(stages: Mapping[int, Stage]) -> dict[int, float]:
    return {number: stage.seconds for number, stage in stages.items() if stage.seconds is not None}


def label(stage: Stage) -> str:
    """Names the stage for the list of stages."""
    agents = f"agents after iteration {stage.learnt}" if stage.learnt else "untrained agents"
    if stage.part == "held-out":
        return f"Held-out questions, {agents}"
    return f"Training questions of iteration {stage.iteration}, {agents}"


def _stages(run: CommittedRun) -> list[dict[str, Any]]:
    """What the page's script gets besides the cards."""
    first = next((s for s in reversed(run.stages) if s.part == "held-out"), run.stages[-1] if run.stages else None)
    return [
        {
            "label": label(stage),
            "prefix": stage.prefix,
            "total": stage.questions,
            "counts": {tag: stage.counts.get(tag, 0) for tag in CATEGORIES},
            "chosen": stage is first,
        }
        for stage in run.stages
    ]


def page(run: CommittedRun, shown: Sequence[Sequence[Card]]) -> str:
    """Renders the whole HTML page, with nothing outside of it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"bare": bare, "tight": tight, "clock": clock, "number": "{:,}".format, "hash": _hash}
    template = environment.from_string(_file("page.html.j2"))
    counts = [(i.number, c) for i in run.iterations for c in i.training.counts]
    return template.render(
        style=Markup(_file("style.css")),
        theme=Markup(_file("theme.js")),
        script=Markup(_file("script.js")),
        run=run,
        facts=facts(run),
        headline=headline(run),
        details=details(run),
        unfinished=unfinished(run),
        warning=warning(run),
        rows=rows(run),
        charts=drawings(run),
        counts=counts,
        reasons=sorted({reason for _, c in counts for reason in c.left_out}),
        adapters=[a for i in run.iterations for a in i.training.adapters],
        costs=costs(run),
        blocks=[Markup((b"[" + b",".join(c.data for c in cards) + b"]").decode()) for cards in shown],
        stages=embeddable(records.encode(_stages(run))),
        base=BASE,
        method=method(run),
        variation=run.method not in NAMES,
        labels=run.method == "star",
        version=__version__,
    )


def _file(name: str) -> str:
    """The text of a file beside this one."""
    return resources.files("maft.report").joinpath(name).read_text("utf-8")


def _hash(script: str) -> str:
    """The name of a script in a content security policy: only what is named there may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def main(assignment: Assignment) -> ReportSummary:
    """Writes both files anew."""
    store = assignment.store
    run = read(store, assignment.run)
    shown = fit([stage.cards for stage in run.stages], EMBEDDED)
    prefix = f"{assignment.run}/{layout.REPORT}"
    store.write(f"{prefix}report.json", json.dumps(records.plain(data(run, shown)), indent=1, ensure_ascii=False).encode())
    store.write(f"{prefix}index.html", page(run, shown).encode())
    return summary(run, store.url, sum(len(cards) for cards in shown))


def summary(run: CommittedRun, store: str, in_page: int) -> ReportSummary:
    """What status and tables show. Where the store's URL takes the room, with fewer rows; then with the page's key alone."""
    key, debates = f"{run.key}/{layout.REPORT}index.html", sum(stage.questions for stage in run.stages)
    return first_that_fits(
        ReportSummary(report=place, results=summary_rows(run, most), debates=debates, in_page=in_page)
        for place in (f"{store}/{key}", key)
        for most in range(SUMMARY_ROWS, FEWEST_ROWS - 1, -1)
    )


def summary_rows(run: CommittedRun, most: int = SUMMARY_ROWS) -> tuple[ResultRow, ...]:
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
