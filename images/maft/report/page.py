"""The page: the template filled with what a run has committed, its charts, and its debates as JSON in data blocks.

What models wrote is not trusted: it reaches the page as JSON, and a script puts it there as text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from maft import __version__, charts, records
from maft.records import BASE, ROLES
from maft.report.cards import CATEGORIES, Card, embeddable
from maft.report.read import ReportedRun, Stage
from maft.report.remarks import alike, cut, untrained
from maft.report.scripts import DEBATES, THEME, packaged, sha256
from maft.report.sentences import NAMES, details, facts, headline, method, rows, tight, unfinished, warning
from maft.shortage import words
from maft.summaries import Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """A line of the table of tokens and time: a stage, or what an iteration trained."""

    name: str
    questions: int | None
    usage: Usage | None
    seconds: float | None

    @property
    def rate(self) -> str:
        """Writes tokens written per second; empty unless both are known."""
        return f"{self.usage.completion_tokens / self.seconds:,.0f}" if self.usage and self.seconds else ""


def costs(run: ReportedRun) -> list[Cost]:
    """Lists the stages in the order in which they ran."""
    lines: list[Cost] = []
    for i in run.iterations:
        if i.debate:
            lines.append(Cost(f"debate {i.number}", i.debate.questions, i.debate.usage, i.debate.seconds))
        if i.training.adapters:
            lines.append(Cost(f"training {i.number}", None, None, i.training.seconds))
        if i.validation:
            lines.append(Cost(f"validation {i.number}", i.validation.questions, i.validation.usage, i.validation.seconds))
        if i.evaluation:
            name = f"evaluation {i.number}" if i.number else "evaluation, untrained"
            lines.append(Cost(name, i.evaluation.questions, i.evaluation.usage, i.evaluation.seconds))
    return lines


def drawings(run: ReportedRun) -> list[Markup]:
    """Draws the charts as SVG elements; those without data are left out."""
    debates = {i.number: i.debate for i in run.iterations if i.debate}
    held_out = {i.number: i.evaluation for i in run.iterations if i.evaluation}
    chosen_by = {i.number: i.validation for i in run.iterations if i.validation}
    counts = {i.number: i.training.counts for i in run.iterations if i.training.counts}
    trained = {i.number: i.training.seconds for i in run.iterations if i.training.seconds is not None}
    drawn = (
        charts.accuracy(run.evaluations),
        charts.validation({number: one.accuracy for number, one in run.validations.items()}),
        charts.consensus(*({s.learnt: s.agreement for s in stages.values()} for stages in (held_out, debates))),
        charts.diversity([i.diversity for i in run.iterations if i.diversity]),
        *(charts.kept(role, counts) for role in ROLES),
        charts.tokens({"debate": _usages(debates), "evaluation": _usages(held_out), **_named(_usages(chosen_by))}),
        charts.time({"debate": _times(debates), "training": trained, "evaluation": _times(held_out), **_named(_times(chosen_by))}),
    )
    return [Markup(svg) for svg in drawn if svg]


def _usages(stages: Mapping[int, Stage]) -> dict[int, Usage]:
    return {number: stage.usage for number, stage in stages.items()}


def _named(values: dict[int, T]) -> dict[str, dict[int, T]]:
    """Those of validation questions, where there are any."""
    return {"validation": values} if values else {}


def _times(stages: Mapping[int, Stage]) -> dict[int, float]:
    return {number: stage.seconds for number, stage in stages.items() if stage.seconds is not None}


def label(stage: Stage) -> str:
    """Names the stage for the list of stages."""
    agents = f"agents after iteration {stage.learnt}" if stage.learnt else "untrained agents"
    if stage.part != "training":
        return f"{stage.part.capitalize()} questions, {agents}"
    return f"Training questions of iteration {stage.iteration}, {agents}"


def _stages(run: ReportedRun) -> list[dict[str, Any]]:
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


def page(run: ReportedRun, shown: Sequence[Sequence[Card]]) -> str:
    """Renders the whole HTML page, with nothing outside of it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"bare": attrgetter("percent"), "tight": tight, "clock": clock, "number": "{:,}".format, "hash": sha256}
    template = environment.from_string(packaged("page.html.j2"))
    counts = [(i.number, c) for i in run.iterations for c in i.training.counts]
    return template.render(
        style=Markup(packaged("style.css")),
        theme=Markup(packaged(THEME)),
        script=Markup(packaged(DEBATES)),
        run=run,
        facts=facts(run),
        headline=headline(run),
        details=details(run),
        unfinished=unfinished(run),
        notices=[notice for notice in (untrained(run), warning(run), cut(run), alike(run)) if notice],
        debated=[(label(stage), stage.whole) for stage in run.stages],
        rows=rows(run),
        validations=list(run.validations.items()),
        charts=drawings(run),
        counts=counts,
        reasons=sorted({(words(reason), reason) for _, c in counts for reason in c.left_out}),
        adapters=[a for i in run.iterations for a in i.training.adapters],
        turns=any(a.turns_left_out for i in run.iterations for a in i.training.adapters),
        costs=costs(run),
        blocks=[Markup((b"[" + b",".join(c.data for c in cards) + b"]").decode()) for cards in shown],
        stages=embeddable(records.encode(_stages(run))),
        base=BASE,
        method=method(run),
        variation=run.method not in NAMES,
        labels=run.method == "star",
        version=__version__,
    )


def clock(seconds: float | None) -> str:
    """Writes seconds as people say them; empty if unknown."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
