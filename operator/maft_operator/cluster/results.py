"""What a run has achieved so far: a row for each iteration, the accuracies, where things lie. Pure.

Rows come from summaries of finished tasks. What is written once stays, also when the pods that said it have gone.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from maft import stopping
from maft.summaries import (
    Answers,
    AnySummary,
    DebateSummary,
    DiversitySummary,
    EvaluateSummary,
    PreflightSummary,
    PrepareSummary,
    Score,
    TrainSummary,
    Validation,
)
from maft_operator.cluster import reasons
from maft_operator.cluster.fields import count, part
from maft_operator.cluster.observed import Snapshot
from maft_operator.plan import best
from maft_operator.plan.graph import Graph, Task, on_cluster
from maft_operator.spec.parse import Run, store_url
from maft_operator.spec.schema import Json

COUNTED = 8  # agents up to which the status has the examples of each: it has to stay small
_WARNING = (PrepareSummary, PreflightSummary)  # who says what works and may surprise
WARNINGS = 20  # of what they say; each becomes an Event
REASONS = 2  # the commonest, for which questions gave no example
WARNING = 600  # characters of one of them
_NAME = re.compile("[A-Za-z]{1,40}")  # of roles, and of reasons why a question gave no example
_STAGES = ("debate", "train", "evaluate", "diversity")  # of an iteration


def rows(graph: Graph, snapshot: Snapshot, old: Iterable[Json]) -> list[Json]:
    """Makes a row for each iteration that has something to say. old: the rows before, as rows.py reads them."""
    made: dict[int, Json] = {row["iteration"]: row for row in old}
    tasks = [task for task in graph.tasks if task.kind in _STAGES]
    for iteration in sorted({task.iteration for task in tasks}):
        own = [task for task in tasks if task.iteration == iteration]
        before = made.get(iteration, {})
        if new := _measured(own, snapshot) | _sums(_paid_for(iteration, tasks, graph), snapshot, before):
            made[iteration] = {**before, "iteration": iteration, **new}
    return [made[iteration] for iteration in sorted(made)]


# --- what was measured ---


def _measured(tasks: Iterable[Task], snapshot: Snapshot) -> Json:
    made: Json = {}
    for task in tasks:
        made |= _of_summary(snapshot.summaries.get(task.name))
    return made


def _of_summary(summary: AnySummary | None) -> Json:
    match summary:
        case EvaluateSummary(validation=Validation() as validation):
            return {"validation": validated(validation)}
        case EvaluateSummary():
            return _evaluated(summary)
        case DebateSummary():
            return _debated(summary)
        case DiversitySummary():
            measured = {"nll": summary.nll, "kl": summary.kl, "dissimilarity": summary.dissimilarity}
            return {name: value for name, value in measured.items() if value is not None}
    return {}


def _evaluated(summary: EvaluateSummary) -> Json:
    return {
        "accuracy": _score(summary.debate),
        "majority": _score(summary.majority),
        "answer": _score(summary.answer),
        "consensus": _score(summary.consensus),
        "wrongToRight": summary.wrong_to_right,
        "rightToWrong": summary.right_to_wrong,
    }


def validated(validation: Validation) -> Json:
    """Makes `validation` of a row: accuracy, and the gain where there was an iteration before."""
    made: Json = msgspec.to_builtins(validation.accuracy)
    return made if validation.gain is None else {**made, "gain": msgspec.to_builtins(validation.gain)}


def _debated(summary: DebateSummary) -> Json:
    kept = {role: _kept(counts) for role, counts in summary.kept.items() if counts and _NAME.fullmatch(role)}
    probe = {} if summary.probe is None else {"probe": _score(summary.probe)}
    abstained = {} if summary.abstained is None else {"abstained": summary.abstained}
    commonest = Counter({name: count for name, count in summary.left_out.items() if _NAME.fullmatch(name)}).most_common(REASONS)
    left_out = {"leftOut": dict(commonest)} if commonest else {}
    return {"agreement": summary.agreement, **probe, **abstained, "kept": kept, **left_out}


def _score(score: Score) -> Json:
    """The record's own fields; a probe has one more than the others."""
    made: Json = msgspec.to_builtins(score)
    return made


def _kept(counts: Sequence[int]) -> Json:
    each = {"counts": list(counts)} if len(counts) <= COUNTED else {}
    return {"fewest": min(counts), "most": max(counts), **each}


# --- what it took ---


def _paid_for(iteration: int, tasks: Iterable[Task], graph: Graph) -> list[Task]:
    """The tasks whose cost stands in that row. The best iteration debates the held-out questions when Jobs of its own may have
    gone, and their sums with them: that stands in the row of the last one."""
    return [task for task in tasks if (_last(task, graph) if best.of_the_best(task) else task.iteration) == iteration]


def _last(task: Task, graph: Graph) -> int:
    decided = graph.decisions.get(task.run.key)
    return decided.last if decided else task.iteration


def _sums(tasks: Sequence[Task], snapshot: Snapshot, before: Json) -> Json:
    """Sums over an iteration's finished tasks; never less than before, for pods that knew their part may have gone."""
    states = snapshot.observed.tasks
    done = [t for t in tasks if t.name in states and states[t.name].status == "succeeded"]
    training = [task for task in tasks if task.kind == "train"]
    sums = {**_times(done, snapshot.seconds), **_tokens(done, snapshot), **_trained(done, snapshot)}
    if training and all(task in done for task in training):
        sums |= _not_trained(training, snapshot)
    whole = _answers(done, snapshot, before.get("answers", {}))
    return {key: max(int(value), before.get(key, 0)) for key, value in sums.items()} | whole if done else {}


def _answers(done: Iterable[Task], snapshot: Snapshot, before: Json) -> Json:
    summaries = (snapshot.summaries.get(task.name) for task in done)
    answers = [s.answers for s in summaries if isinstance(s, DebateSummary | EvaluateSummary)]
    total: Json = {**msgspec.to_builtins(sum(answers, Answers()))}
    most = {key: max(total.get(key, 0), before.get(key, 0)) for key in ("asked", "cut", "clipped")}
    return {"answers": most} if most["asked"] else {}


def _times(done: Iterable[Task], seconds: Mapping[str, float]) -> dict[str, float]:
    taken = [((on_cluster(task).gpus or 0) * task.nodes, seconds.get(task.name, 0.0)) for task in done]
    return {"seconds": sum(s for _, s in taken), "gpuSeconds": sum(gpus * s for gpus, s in taken)}


def _tokens(done: Iterable[Task], snapshot: Snapshot) -> dict[str, float]:
    summaries = (snapshot.summaries.get(task.name) for task in done)
    usages = [s.usage for s in summaries if isinstance(s, DebateSummary | EvaluateSummary)]
    return {
        "promptTokens": sum(usage.prompt_tokens for usage in usages),
        "completionTokens": sum(usage.completion_tokens for usage in usages),
    }


def _trained(done: Sequence[Task], snapshot: Snapshot) -> dict[str, float]:
    if not any(task.kind == "train" for task in done):
        return {}
    summaries = (snapshot.summaries.get(task.name) for task in done)
    return {"trained": sum(s.trained for s in summaries if isinstance(s, TrainSummary))}


def _not_trained(training: Iterable[Task], snapshot: Snapshot) -> dict[str, float]:
    """Of an iteration that has trained what it trains: adapters that stayed as they were, turns that did not count."""
    summaries = [s for task in training if isinstance(s := snapshot.summaries.get(task.name), TrainSummary)]
    counts = {"untrained": sum(s.kept for s in summaries), "turnsLeftOut": sum(s.turns_left_out for s in summaries)}
    return {key: count for key, count in counts.items() if count}


# --- of the whole run ---


def tokens(made: Iterable[Json]) -> int:
    """Counts the tokens that debates have read and written."""
    return sum(count(row, name) for row in made for name in ("promptTokens", "completionTokens"))


def validations(made: Iterable[Json]) -> dict[int, Validation]:
    """Reads what rows say of validation questions, by iteration; a row that somebody spoilt says nothing."""
    read = {}
    for row in made:
        written = part(row, "validation")
        gain = {"gain": written["gain"]} if "gain" in written else {}
        with suppress(msgspec.ValidationError):
            read[row["iteration"]] = msgspec.convert({"accuracy": written, **gain}, Validation)
    return read


def chosen(made: Iterable[Json]) -> Json:
    """Makes `best`: the iteration that validation questions have chosen by now, with its accuracy on them."""
    known = validations(made)
    iteration = stopping.best(known)
    if iteration not in known:
        return {}
    return {"best": {"iteration": iteration, "accuracy": worded(_score(known[iteration].accuracy))}}


def accuracies(run: Run, made: Iterable[Json]) -> Json:
    """Makes `accuracy`, of the last evaluated iteration, and `baseAccuracy`, of one answer of the untrained model."""
    made = list(made)
    untrained_counts = run.spec.iterations == 0  # some methods do not train: that debate is all they have
    reached = [row["accuracy"] for row in made if "accuracy" in row and (row["iteration"] or untrained_counts)]
    base = [row["answer"] for row in made if "answer" in row and not row["iteration"]]
    return {
        **({"accuracy": worded(reached[-1])} if reached else {}),
        **({"baseAccuracy": worded(base[0])} if base else {}),
    }


def worded(score: Json) -> Json:
    """Adds to a score what a printer column shows."""
    return {**score, "text": Score(score["mean"], score["stderr"]).percent}


def warnings(snapshot: Snapshot, old: Sequence[str]) -> list[str]:
    """Lists what works and may surprise, as prepare and preflight said it. old: the lines before, which stay where one of them is
    not heard."""
    heard = [summary for kind in _WARNING for summary in snapshot.summaries.values() if isinstance(summary, kind)]
    lines = [reasons.line(text, WARNING) for summary in heard for text in summary.warnings]
    before = old if len(heard) < len(_WARNING) else ()
    return [*before, *(line for line in lines if line not in before)][:WARNINGS]


def artifacts(run: Run, made: Iterable[Json], trained: Collection[int]) -> Json:
    """Names where things lie, without the options of the store's URL: those are for programs. trained: iterations all of whose
    adapters are there."""
    top = f"{store_url(run.spec.storage).partition('?')[0]}/{run.key}"
    chosen = stopping.best(validations(made)) or max(trained, default=None)
    places = {"store": top, "report": f"{top}/report/index.html"}
    return {**places, "adapters": f"{top}/iterations/{chosen}/adapters/"} if chosen else places
