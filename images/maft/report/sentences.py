"""What the report says in words and in its table of accuracy: pure functions of what read.py has read."""

from dataclasses import dataclass

from maft import stopping
from maft.records import Evaluation
from maft.report.read import ReportedRun, Stage
from maft.report.remarks import partly
from maft.scores import score
from maft.spec import TaskSpec
from maft.store import layout
from maft.summaries import HARMFUL, Score

NOISE = 2.0  # standard errors within which a difference is called no difference
NAMES = {"multiagent": "multiagent finetuning", "": "finetuned"}  # of methods that are not called as in spec.method


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """A row of the paper's table."""

    name: str
    accuracy: Score
    numbers: Evaluation | None  # of the debate behind it; None for what is only a part of another row's


def rows(run: ReportedRun) -> list[AccuracyRow]:
    """Makes the paper's table: reference rows of the untrained society, then one row per evaluated iteration."""
    table: list[AccuracyRow] = []
    for e in run.evaluations:
        if e.iteration:
            table.append(AccuracyRow(_name(run, e), e.votes[-1], e))
        else:
            table += _untrained(run, e)
    return table


def _name(run: ReportedRun, e: Evaluation) -> str:
    """Agents that nothing was trained of are the base model, whatever the method."""
    if run.still_base(e.iteration):
        return f"{who(e).removeprefix('the ')}, nothing was trained, iteration {e.iteration}"
    idle = any(i.training.untrained for i in run.iterations if i.number == e.iteration)
    chosen = ", chosen by validation" if e.iteration == run.best else ""
    return f"{method(run)}, iteration {e.iteration}{chosen}{' (nothing new was trained)' if idle else ''}"


def _untrained(run: ReportedRun, e: Evaluation) -> list[AccuracyRow]:
    """What the spec asks for, as far as there is a majority or a debate, and the method itself where it trains nothing."""
    reference = {"base": AccuracyRow("base (one answer)", e.answers[0], None)}
    if len(e.agents) > 1:
        reference["majority"] = AccuracyRow(f"majority of {len(e.agents)}", e.votes[0], None)
    if len(e.votes) > 1:
        reference["debate"] = AccuracyRow("debate (untrained)", e.votes[-1], e)
    itself = run.method
    shown = [row for key, row in reference.items() if key in (*run.baselines, itself)]
    trained = run.planned or itself in NAMES
    return shown if trained or itself in reference else [*shown, AccuracyRow(itself, e.votes[-1], e)]


def method(run: ReportedRun) -> str:
    """Names the method as the tables do."""
    return NAMES.get(run.method, run.method)


def who(e: Evaluation) -> str:
    """Names those whose accuracy an evaluation gives."""
    if len(e.agents) == 1:
        return "one answer"
    return "the debate" if len(e.votes) > 1 else "the majority"


def gain(run: ReportedRun) -> Score | None:
    """Measures by how much the last evaluated iteration is more accurate than the untrained debate, over the questions that both
    answered."""
    stages = [i.evaluation for i in run.iterations if i.evaluation]
    if len(stages) < 2 or stages[0].iteration != 0:
        return None
    before, after = stages[0].right, stages[-1].right
    changes = [float(after[p] - before[p]) for p in after if p in before]
    return score(changes) if changes else None


def facts(run: ReportedRun) -> dict[str, str]:
    """Lists what the head of the page shows, by its label."""
    train, held_out, validation = (run.questions.get(layout.questions(part)) for part in ("train", "held-out", "validation"))
    chosen_by = f", {validation:,} for validation" if validation else ""
    values = {
        "Method": run.method,
        "Model": run.model,
        "Task": _task(run.spec.task) if run.spec else "",
        "Questions": f"{train:,} for training, {held_out:,} held out{chosen_by}" if None not in (train, held_out) else "",
        "Agents": _number(run.agents),
        "Rounds of debate": _number(run.rounds),
        "Iterations": f"{run.trained} of {run.planned}{', stopped' if run.decision and run.decision.early else ''}",
        "Seed": _number(run.seed),
        "Versions": ", ".join(f"{name} {number}" for name, number in sorted(run.versions.items())),
    }
    return {name: value for name, value in values.items() if value}


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _task(task: TaskSpec) -> str:
    if task.kind == "arithmetic":
        numbers = task.arithmetic
        return f"arithmetic, {numbers.operands} integers from {numbers.minimum} to {numbers.maximum}"
    return ", ".join(part for part in (task.kind, task.source) if part)


def headline(run: ReportedRun) -> str:
    """Says what happened, in one sentence."""
    first = next((e for e in run.evaluations if e.iteration == 0), None)
    last = next((e for e in reversed(run.evaluations) if e.iteration), None)
    if last is None and first is None:
        return "No held-out evaluation is finished yet, so there is no accuracy to tell."
    if last is None:
        assert first
        rest = "no iteration is evaluated yet" if run.planned else "this method trains nothing"
        return f"Untrained, {who(first)} is right on {percent(first.votes[-1])} of the held-out questions; {rest}."
    after, share = f"after {_iterations_of(last.iteration)} of finetuning", percent(last.votes[-1])
    if run.still_base(last.iteration):
        return _nothing_trained(first, last)
    if first is None:
        return f"{after.capitalize()}, {who(last)} is right on {share} of the held-out questions; it was not evaluated untrained."
    verb, tail = _change(gain(run))
    if who(first) == who(last):
        return f"Held-out accuracy of {who(last)} {verb} from {percent(first.votes[-1])} (untrained) to {share} {after}{tail}."
    before = f"{percent(first.votes[-1])} ({who(first)}, untrained)"
    return f"Held-out accuracy {verb} from {before} to {share} ({who(last)}) {after}{tail}."


def _nothing_trained(first: Evaluation | None, last: Evaluation) -> str:
    """Two numbers of the same model, or one."""
    before = f" ({percent(first.votes[-1])} untrained; the difference is chance)" if first and who(first) == who(last) else ""
    return (
        f"Nothing was trained: after {_iterations_of(last.iteration)} the agents are still the base model, and {who(last)} is "
        f"right on {percent(last.votes[-1])} of the held-out questions{before}."
    )


def _change(change: Score | None) -> tuple[str, str]:
    """A verb and a remark: no rise is told where chance may have made it."""
    if change is None:
        return "went", ""
    if abs(change.mean) <= NOISE * change.stderr:  # both are 0 where nothing changed
        return "went", ", which is no more than chance explains"
    return ("rose" if change.mean > 0 else "fell"), ""


def _iterations_of(number: int) -> str:
    return "1 iteration" if number == 1 else f"{number} iterations"


def details(run: ReportedRun) -> str:
    """Writes the sentences after the headline."""
    sentences: list[str] = []
    if change := gain(run):
        points = f"{100 * change.mean:+.1f} ± {100 * change.stderr:.1f}".replace("-", "−")
        sentences.append(f"Question by question that is a difference of {points} percentage points.")
    if sentence := chosen(run):
        sentences.append(sentence)
    if run.evaluations and len(run.evaluations[-1].votes) > 1:
        sentences.append(_flips(run.evaluations[-1]))
    if sentence := partly(run):
        sentences.append(sentence)
    if probes := probed(run):
        stage, probe = probes[-1]
        sentences.append(
            f"Of the probe questions {percent(probe)} had a right majority when iteration {stage.iteration} was trained."
        )
    return " ".join(sentences)


def chosen(run: ReportedRun) -> str:
    """Says which iteration the validation questions have chosen; empty without them."""
    known, decided = run.validations, run.decision
    if not (run.spec and decided) or decided.best not in known:
        return ""
    text, share = stopping.words(run.spec, decided), percent(known[decided.best].accuracy)
    right = f"Of these {run.questions.get(layout.VALIDATION, 0):,} questions it answers {share} right."
    return f"{text[0].upper()}{text[1:]}. {right} The held-out questions had no part in that choice."


def _flips(last: Evaluation) -> str:
    n, asked = last.iteration, len(last.agents) * last.questions
    when = f"after iteration {n}" if n else "untrained"
    return (
        f"In the last evaluation ({when}, {last.questions:,} questions) the debate turned {last.wrong_to_right:,} of {asked:,} "
        f"first answers from wrong to right and {last.right_to_wrong:,} from right to wrong."
    )


def probed(run: ReportedRun) -> list[tuple[Stage, Score]]:
    """Lists the debates of training questions that had a probe beside them, with its score."""
    return [(stage, stage.probe) for stage in run.stages if stage.probe]


def warning(run: ReportedRun) -> str:
    """Warns of iterations whose labels are mostly wrong; empty if there are none."""
    harmful = [f"{percent(probe)} (iteration {stage.iteration})" for stage, probe in probed(run) if probe.mean < HARMFUL]
    if not harmful:
        return ""
    return f"Training reinforces wrong answers: the majority was right on {', '.join(harmful)} of the probe questions."


def unfinished(run: ReportedRun) -> str:
    """Says what is still missing; empty if nothing is."""
    planned = run.decision.last if run.decision else run.planned
    if not run.iterations or run.trained < planned:
        return f"This run is unfinished: {run.trained} of {planned} iterations have all their adapters."
    if run.spec and stopping.validated(run.spec) and not run.decision:
        return f"The validation of iteration {run.iterations[-1].number} is not finished."
    counts = next((i for i in run.iterations if i.number == run.best), run.iterations[-1])
    return "" if counts.evaluation else f"The held-out evaluation of iteration {counts.number} is not finished."


def percent(score: Score) -> str:
    """Writes `58.0 ± 2.2 %`."""
    return f"{score.percent} %"


def tight(text: str) -> str:
    """Keeps a line from ending inside `58.0 ± 2.2 %`."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")
