"""`python -m maft.report`: what a run has committed, as one HTML page and one JSON file. Runs last, and again whenever asked.

Reads commits and nothing else, so an unfinished run gives a page about what is there. What models wrote is not trusted: it
reaches the page as JSON in data blocks, and a script puts it there as text.
"""

import argparse
import base64
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, TypeVar

import msgspec
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from maft import __version__, layout, program, records, report_plots
from maft.errors import BadInput
from maft.records import BASE, ROLES, Adapter, Call, Commit, DatasetCounts, Evaluation, Score, Timing, Transcript, Turn, Usage
from maft.store import Missing, Store, committed, fetch, open_store

T = TypeVar("T")

Part = Literal["held-out", "training"]
CORRECTED, TALKED_OUT, NO_CONSENSUS = "corrected", "talked-out", "no-consensus"
CATEGORIES = (CORRECTED, TALKED_OUT, NO_CONSENSUS)
EMBEDDED = 8_000_000  # bytes of debates in a page: a browser still opens it at once
NOISE = 2.0  # standard errors within which a difference is called no difference
SUMMARY_ROWS = 30  # of the table in the summary, which holds 4 KiB


# --- what a run has committed ---


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The expressions of kind arithmetic."""

    operands: int = 0
    minimum: int = 0
    maximum: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """The questions as the spec has them."""

    kind: str = ""
    source: str = ""
    answer: str = ""
    arithmetic: Arithmetic = Arithmetic()


@dataclass(frozen=True, slots=True)
class Rounds:
    """The debate as the spec has it."""

    rounds: int = 0
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Baselines:
    """The reference rows that the spec asks for."""

    baselines: tuple[str, ...] = ("base", "majority", "debate")


@dataclass(frozen=True, slots=True)
class Spec:
    """What the report takes from the run's spec; runs without Kubernetes need not have one."""

    agents: int = 0
    iterations: int = 0
    seed: int | None = None
    task: Task = Task()
    debate: Rounds = Rounds()
    evaluation: Baselines = Baselines()


@dataclass(frozen=True, slots=True)
class Card:
    """One debate as the page has it. data: JSON that may stand inside a script element."""

    tags: tuple[str, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Stage:
    """The debate over one part of the questions. learnt: finetuning iterations behind the agents; agreement: share of agents
    with the final majority; right: by problem, whether the majority is; counts: debates by category, all of them; cards:
    those that may become part of the page."""

    part: Part
    iteration: int
    learnt: int
    questions: int
    agents: int
    rounds: int
    seed: int | None
    agreement: Score
    usage: Usage
    seconds: float | None
    right: Mapping[str, bool]
    counts: Mapping[str, int]
    cards: Sequence[Card]
    prefix: str


@dataclass(frozen=True, slots=True)
class Training:
    """What an iteration trained. seconds: summed over adapters, None if no adapter has a timing."""

    counts: tuple[DatasetCounts, ...]
    adapters: tuple[Adapter, ...]
    seconds: float | None
    versions: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Every data set has become an adapter."""
        return bool(self.counts) and len(self.adapters) == len(self.counts)


@dataclass(frozen=True, slots=True)
class Iteration:
    """Whatever is there of an iteration; 0 has nothing but an evaluation."""

    number: int
    debate: Stage | None
    training: Training
    evaluation: Stage | None
    numbers: Evaluation | None

    @property
    def empty(self) -> bool:
        """Nothing is committed."""
        return not (self.debate or self.evaluation or self.training.counts or self.training.adapters)


@dataclass(frozen=True, slots=True)
class Run:
    """Whatever is there of a run. meta: of the problems' commit; questions: by file of problems."""

    key: str
    meta: Mapping[str, Any]
    spec: Spec
    questions: Mapping[str, int]
    iterations: tuple[Iteration, ...]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """By iteration, the untrained one first."""
        return tuple(i.numbers for i in self.iterations if i.numbers)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Debates in the order in which they were held."""
        return tuple(stage for i in self.iterations for stage in (i.debate, i.evaluation) if stage)

    @property
    def trained(self) -> int:
        """Iterations that have all their adapters."""
        return sum(i.training.complete for i in self.iterations)

    @property
    def planned(self) -> int:
        """Iterations in the spec, or as many as there are where it has none."""
        return max(self.spec.iterations, self.iterations[-1].number if self.iterations else 0)


def read(store: Store, run: str) -> Run:
    """Everything committed; BadInput if that is nothing."""
    problems = committed(store, f"{run}/{layout.PROBLEMS}")
    iterations = tuple(i for i in _iterations(store, run) if not i.empty)
    if problems is None and not iterations:
        raise BadInput(f"{store.url}/{run}/: nothing committed there; check --store and --run, or start the run first")
    meta = problems.meta if problems else {}
    spec = records.decode(str(meta.get("spec") or "{}").encode(), Spec, f"{store.url}/{run}/{layout.PROBLEMS}: spec")
    names = [entry.name for entry in problems.files] if problems else []
    questions = {name: len(fetch(store, problems, name).splitlines()) for name in names} if problems else {}
    return Run(run, meta, spec, questions, iterations)


def _iterations(store: Store, run: str) -> Iterator[Iteration]:
    """From 0 (evaluation only) up to the first that has nothing."""
    for number in itertools.count():
        found = _iteration(store, run, number)
        if number and found.empty:
            return
        yield found


def _iteration(store: Store, run: str, number: int) -> Iteration:
    held_out = committed(store, layout.evaluation(run, number))
    debate = committed(store, layout.debate(run, number)) if number else None
    numbers = None
    if held_out:
        numbers = records.decode(fetch(store, held_out, layout.EVALUATION), Evaluation, held_out.prefix + layout.EVALUATION)
    return Iteration(
        number,
        _stage(store, debate, "training", number) if debate else None,
        _training(store, run, number),
        _stage(store, held_out, "held-out", number) if held_out else None,
        numbers,
    )


def _stage(store: Store, commit: Commit, part: Part, iteration: int) -> Stage:
    source = commit.prefix + layout.TRANSCRIPTS
    transcripts = records.decode_lines(fetch(store, commit, layout.TRANSCRIPTS), Transcript, source)
    if not transcripts:
        raise BadInput(f"{store.url}/{source}: holds no debates")
    return Stage(
        part=part,
        iteration=iteration,
        learnt=iteration if part == "held-out" else iteration - 1,
        questions=len(transcripts),
        agents=len(transcripts[0].turns),
        rounds=max(len(t.votes) for t in transcripts),
        seed=commit.meta.get("seed"),
        agreement=mean([sum(turns[-1].agrees for turns in t.turns) / len(t.turns) for t in transcripts]),
        usage=_usage(transcripts),
        seconds=_seconds(store, commit.prefix),
        right={t.problem.id: t.vote.right for t in transcripts},
        counts=Counter(tag for t in transcripts for tag in categories(t)),
        cards=fit([[card(t) for t in transcripts]], EMBEDDED)[0],
        prefix=commit.prefix,
    )


def _usage(transcripts: Sequence[Transcript]) -> Usage:
    calls = [call for transcript in transcripts for call in transcript.calls()]
    return Usage(len(calls), sum(c.prompt_tokens for c in calls), sum(c.completion_tokens for c in calls))


def _training(store: Store, run: str, number: int) -> Training:
    data = committed(store, layout.datasets(run, number)) if number else None
    if data is None:
        return Training((), (), None, {})
    counts = _meta(data, "counts", tuple[DatasetCounts, ...])
    found = [committed(store, layout.adapter(run, number, c.role, c.agent)) for c in counts]
    commits = [commit for commit in found if commit]
    seconds = [s for s in (_seconds(store, commit.prefix) for commit in commits) if s is not None]
    versions = {k: v for commit in commits for k, v in commit.meta.get("versions", {}).items()}
    return Training(counts, tuple(_meta(c, "adapter", Adapter) for c in commits), sum(seconds) if seconds else None, versions)


def _meta(commit: Commit, key: str, kind: type[T]) -> T:
    try:
        return msgspec.convert(commit.meta[key], kind)
    except (KeyError, msgspec.ValidationError) as error:
        raise BadInput(f"{commit.prefix}: its commit does not describe its {key}: {error}") from None


def _seconds(store: Store, prefix: str) -> float | None:
    try:
        return records.decode(store.read(prefix + layout.TIMING), Timing, prefix + layout.TIMING).seconds
    except Missing:
        return None


# --- debates as cards ---


def categories(transcript: Transcript) -> tuple[str, ...]:
    """Under which filters a debate is found."""
    ends = [(turns[0].right, turns[-1].right) for turns in transcript.turns]
    member = {
        CORRECTED: (False, True) in ends,
        TALKED_OUT: (True, False) in ends,
        NO_CONSENSUS: transcript.vote.tied or transcript.vote.answer is None,
    }
    return tuple(tag for tag in CATEGORIES if member[tag])


def card(transcript: Transcript) -> Card:
    """A debate without what nobody reads: seeds, token counts, prompts."""
    agents = range(len(transcript.turns))
    shown = {
        "number": transcript.index + 1,
        "question": transcript.problem.question,
        "answer": transcript.problem.answer,
        "vote": transcript.vote,
        "tags": (tags := categories(transcript)),
        "agents": [[_turn(transcript, n, m) for m in range(len(transcript.turns[n]))] for n in agents],
    }
    return Card(tags, embeddable(records.encode(shown)).encode())


def _turn(transcript: Transcript, agent: int, m: int) -> dict[str, Any]:
    turn: Turn = transcript.turns[agent][m]
    heard = (s.call for s in transcript.summaries if s.round == m + 1 and s.agent in (agent, None))
    summary: Call | None = next(heard, None)
    return {
        "text": turn.call.text,
        "model": turn.call.model,
        "end": turn.call.finish_reason,
        "parsed": turn.parsed,
        "agrees": turn.agrees,
        "right": turn.right,
        "summary": summary.text if summary else None,
    }


def fit(stages: Sequence[Sequence[Card]], limit: int) -> list[list[Card]]:
    """As many cards as `limit` bytes hold, in their order. Those of a category first: of every stage and category as many, so
    that a rare category is not crowded out by a common one."""
    ranked = sorted((rank, k, s) for s, cards in enumerate(stages) for k, rank in enumerate(_ranks(cards)))
    chosen: set[tuple[int, int]] = set()
    for _, k, s in ranked:
        size = len(stages[s][k].data) + 1
        if size <= limit:
            limit -= size
            chosen.add((s, k))
    return [[c for k, c in enumerate(cards) if (s, k) in chosen] for s, cards in enumerate(stages)]


def _ranks(cards: Sequence[Card]) -> list[tuple[bool, int]]:
    """When each card's turn is: by its best place in one of its categories, after all of those the cards without one."""
    seen: Counter[str] = Counter()
    ranks: list[tuple[bool, int]] = []
    for card_ in cards:
        tags = card_.tags or ("",)
        ranks.append((not card_.tags, min(seen[tag] for tag in tags)))
        seen.update(tags)
    return ranks


# --- numbers and words ---


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the paper's table. numbers: the debate behind it; None for what is only a part of the untrained debate."""

    name: str
    accuracy: Score
    numbers: Evaluation | None


def rows(run: Run) -> list[Row]:
    """The paper's table: reference rows of the untrained debate, then one row per evaluated iteration."""
    found: list[Row] = []
    for e in run.evaluations:
        if e.iteration:
            found.append(Row(f"multiagent finetuning, iteration {e.iteration}", e.votes[-1], e))
            continue
        reference = {
            "base": Row("base (one answer)", e.answers[0], None),
            "majority": Row(f"majority of {len(e.agents)}", e.votes[0], None),
            "debate": Row("debate (untrained)", e.votes[-1], e),
        }
        found += [row for key, row in reference.items() if key in run.spec.evaluation.baselines]
    return found


def mean(values: Sequence[float]) -> Score:
    """Mean and standard error, as `maft.evaluate` has them."""
    n = len(values)
    middle = sum(values) / n
    variance = sum((v - middle) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    return Score(middle, math.sqrt(variance / n))


def gain(run: Run) -> Score | None:
    """Accuracy of the last evaluated iteration less that of the untrained debate, over the questions that both answered."""
    stages = [i.evaluation for i in run.iterations if i.evaluation]
    if len(stages) < 2 or stages[0].iteration != 0:
        return None
    before, after = stages[0].right, stages[-1].right
    changes = [float(after[p] - before[p]) for p in after if p in before]
    return mean(changes) if changes else None


def headline(run: Run) -> str:
    """What happened, in one sentence."""
    first = next((e for e in run.evaluations if e.iteration == 0), None)
    last = next((e for e in reversed(run.evaluations) if e.iteration), None)
    if last is None:
        if first is None:
            return "No held-out evaluation is finished yet, so there is no accuracy to tell."
        share = percent(first.votes[-1])
        return f"The untrained debate gets {share} of the held-out questions right; no iteration is evaluated yet."
    after, share = f"after {_iterations_of(last.iteration)} of finetuning", percent(last.votes[-1])
    if first is None:
        return f"The debate gets {share} of the held-out questions right {after}; it was not evaluated untrained."
    verb, tail = _change(gain(run))
    return f"Held-out accuracy of the debate {verb} from {percent(first.votes[-1])} (untrained) to {share} {after}{tail}."


def _change(change: Score | None) -> tuple[str, str]:
    """A verb and a remark: no rise is told where chance may have made it."""
    if change is None:
        return "went", ""
    if abs(change.mean) <= NOISE * change.stderr:  # both are 0 where nothing changed
        return "went", ", which is no more than chance explains"
    return ("rose" if change.mean > 0 else "fell"), ""


def _iterations_of(number: int) -> str:
    return "1 iteration" if number == 1 else f"{number} iterations"


def details(run: Run) -> str:
    """The sentences after the headline."""
    found: list[str] = []
    if change := gain(run):
        points = f"{100 * change.mean:+.1f} ± {100 * change.stderr:.1f}".replace("-", "−")
        found.append(f"Question by question that is a difference of {points} percentage points.")
    if run.evaluations:
        last = run.evaluations[-1]
        n, asked = last.iteration, len(last.agents) * last.questions
        who = f"after iteration {n}" if n else "untrained"
        found.append(
            f"In the last evaluation ({who}, {last.questions:,} questions) the debate turned {last.wrong_to_right:,} of {asked:,} "
            f"first answers from wrong to right and {last.right_to_wrong:,} from right to wrong."
        )
    return " ".join(found)


def unfinished(run: Run) -> str:
    """What is still missing, or nothing."""
    if not run.iterations or run.trained < run.planned:
        return f"This run is unfinished: {run.trained} of {run.planned} iterations have all their adapters."
    last = run.iterations[-1]
    return "" if last.evaluation else f"The held-out evaluation of iteration {last.number} is not finished."


def bare(score: Score) -> str:
    """`58.0 ± 2.2`: percent, in a column that says so."""
    return f"{100 * score.mean:.1f} ± {100 * score.stderr:.1f}"


def percent(score: Score) -> str:
    """`58.0 ± 2.2 %`."""
    return f"{bare(score)} %"


def tight(text: str) -> str:
    """No line ends inside `58.0 ± 2.2 %`."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")


def clock(seconds: float | None) -> str:
    """Seconds as people say them; empty if unknown."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def facts(run: Run) -> dict[str, str]:
    """The head of the page."""
    spec, stage = run.spec, run.stages[0] if run.stages else None
    seed = spec.seed if spec.seed is not None else stage.seed if stage else None
    train, held_out = (run.questions.get(f"{part}.jsonl") for part in ("train", "held-out"))
    found = {
        "Model": str(run.meta.get("model", "")),
        "Task": _task(spec.task),
        "Questions": f"{train:,} for training, {held_out:,} held out" if train is not None and held_out is not None else "",
        "Agents": str(spec.agents or (stage.agents if stage else "")),
        "Rounds of debate": str(spec.debate.rounds or max((s.rounds for s in run.stages), default=0) or ""),
        "Iterations": f"{run.trained} of {run.planned}",
        "Seed": "" if seed is None else str(seed),
        "Versions": ", ".join(f"{name} {number}" for name, number in sorted(versions(run).items())),
    }
    return {name: value for name, value in found.items() if value}


def _task(task: Task) -> str:
    if task.kind == "arithmetic":
        numbers = task.arithmetic
        return f"arithmetic, {numbers.operands} integers from {numbers.minimum} to {numbers.maximum}"
    return ", ".join(part for part in (task.kind, task.source) if part)


def versions(run: Run) -> dict[str, str]:
    """Of the libraries that trained the adapters, and of maft when the run began."""
    began = {"maft": str(run.meta["version"])} if "version" in run.meta else {}
    return {k: v for i in run.iterations for k, v in i.training.versions.items()} | began


def data(run: Run, shown: Sequence[Sequence[Card]]) -> dict[str, Any]:
    """The numbers of the page, for other programs."""
    return {
        "run": run.key,
        "facts": facts(run),
        "headline": headline(run),
        "details": details(run),
        "unfinished": unfinished(run),
        "gain": gain(run),
        "accuracy": [{"name": row.name, "accuracy": row.accuracy} for row in rows(run)],
        "evaluations": run.evaluations,
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
    """A line of the table of tokens and time."""

    name: str
    questions: int | None
    usage: Usage | None
    seconds: float | None

    @property
    def rate(self) -> str:
        """Tokens written per second, where both are known."""
        return f"{self.usage.completion_tokens / self.seconds:,.0f}" if self.usage and self.seconds else ""


def costs(run: Run) -> list[Cost]:
    """Stages in the order in which they ran."""
    found: list[Cost] = []
    for i in run.iterations:
        if i.debate:
            found.append(Cost(f"debate {i.number}", i.debate.questions, i.debate.usage, i.debate.seconds))
        if i.training.adapters:
            found.append(Cost(f"training {i.number}", None, None, i.training.seconds))
        if i.evaluation:
            name = f"evaluation {i.number}" if i.number else "evaluation, untrained"
            found.append(Cost(name, i.evaluation.questions, i.evaluation.usage, i.evaluation.seconds))
    return found


def charts(run: Run) -> list[Markup]:
    """SVG elements; those without data are left out."""
    debates = {i.number: i.debate for i in run.iterations if i.debate}
    held_out = {i.number: i.evaluation for i in run.iterations if i.evaluation}
    counts = {i.number: i.training.counts for i in run.iterations if i.training.counts}
    trained = {i.number: i.training.seconds for i in run.iterations if i.training.seconds is not None}
    drawn = (
        report_plots.accuracy(run.evaluations),
        report_plots.consensus(*({s.learnt: s.agreement for s in found.values()} for found in (held_out, debates))),
        *(report_plots.kept(role, counts) for role in ROLES),
        report_plots.tokens({"debate": _usages(debates), "evaluation": _usages(held_out)}),
        report_plots.time({"debate": _times(debates), "training": trained, "evaluation": _times(held_out)}),
    )
    return [Markup(svg) for svg in drawn if svg]


def _usages(stages: Mapping[int, Stage]) -> dict[int, Usage]:
    return {number: stage.usage for number, stage in stages.items()}


def _times(stages: Mapping[int, Stage]) -> dict[int, float]:
    return {number: stage.seconds for number, stage in stages.items() if stage.seconds is not None}


def label(stage: Stage) -> str:
    """What the list of stages calls it."""
    agents = f"agents after iteration {stage.learnt}" if stage.learnt else "untrained agents"
    if stage.part == "held-out":
        return f"Held-out questions, {agents}"
    return f"Training questions of iteration {stage.iteration}, {agents}"


def _stages(run: Run) -> list[dict[str, Any]]:
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


def embeddable(json_: bytes) -> Markup:
    """JSON that may stand inside a script element: it cannot end the element nor open a comment."""
    return Markup(json_.replace(b"<", b"\\u003c").decode())


def page(run: Run, shown: Sequence[Sequence[Card]]) -> str:
    """The whole HTML page, with nothing outside of it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"bare": bare, "tight": tight, "clock": clock, "number": "{:,}".format, "hash": _hash}
    template = environment.from_string(resources.files("maft").joinpath("report.html.j2").read_text("utf-8"))
    counts = [(i.number, c) for i in run.iterations for c in i.training.counts]
    return template.render(
        run=run,
        facts=facts(run),
        headline=headline(run),
        details=details(run),
        unfinished=unfinished(run),
        rows=rows(run),
        charts=charts(run),
        counts=counts,
        reasons=sorted({reason for _, c in counts for reason in c.left_out}),
        adapters=[a for i in run.iterations for a in i.training.adapters],
        costs=costs(run),
        blocks=[Markup((b"[" + b",".join(c.data for c in cards) + b"]").decode()) for cards in shown],
        stages=embeddable(records.encode(_stages(run))),
        base=BASE,
        version=__version__,
    )


def _hash(script: str) -> str:
    """How a content security policy names the one script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes both files anew."""
    store = open_store(arguments.store)
    run = read(store, arguments.run)
    shown = fit([stage.cards for stage in run.stages], EMBEDDED)
    prefix = f"{arguments.run}/{layout.REPORT}"
    store.write(f"{prefix}report.json", json.dumps(records.plain(data(run, shown)), indent=1, ensure_ascii=False).encode())
    store.write(f"{prefix}index.html", page(run, shown).encode())
    return {
        "report": f"{store.url}/{prefix}index.html",
        "accuracy": summary_rows(run),
        "debates": sum(stage.questions for stage in run.stages),
        "inPage": sum(len(cards) for cards in shown),
    }


def summary_rows(run: Run) -> list[list[Any]]:
    """Name, accuracy and its standard error; of a long run the reference rows and the last iterations."""
    found = [[row.name, round(row.accuracy.mean, 4), round(row.accuracy.stderr, 4)] for row in rows(run)]
    return found if len(found) <= SUMMARY_ROWS else found[:3] + found[3 - SUMMARY_ROWS :]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return program.parser("report", "Makes a page of everything that the run has committed.")


if __name__ == "__main__":
    program.run(main, parser())
