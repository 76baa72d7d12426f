"""The status of a comparison: a row for each run, the table, conditions as those of a run. Pure: the time comes in."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from maft.summaries import CompareSummary
from maft_operator.cluster import conditions, reasons
from maft_operator.cluster.conditions import Wanted
from maft_operator.cluster.fields import stamp, text
from maft_operator.cluster.reasons import Reason, Trouble, sentence
from maft_operator.cluster.results import worded
from maft_operator.plan.comparison import ComparisonStep, RunState
from maft_operator.plan.search import Trial, chosen
from maft_operator.spec.comparison import Comparison
from maft_operator.spec.parse import store_url
from maft_operator.spec.schema import Json

WAITING = "Waiting"  # of a run that has not been made yet, and Pending of one that nobody has looked at
PENDING = "Pending"


@dataclass(frozen=True, slots=True)
class Compared:
    """What a look at a comparison ends with."""

    comparison: Comparison
    step: ComparisonStep
    runs: Mapping[str, RunState]
    table: CompareSummary | None = None
    troubles: Sequence[Trouble] = ()
    """What keeps runs from being made, or the table."""
    failure: Trouble | None = None
    """Why there will be no table."""
    notices: Sequence[str] = field(default_factory=tuple)
    trials: Sequence[Trial] = ()
    """Of a search."""

    @property
    def phase(self) -> str:
        """Names the phase that people see."""
        return "Failed" if self.failure else self.step.phase


def status(work: Compared, old: Json, generation: int, now: datetime) -> Json:
    """Makes the whole status. old: the one before, whose times and table are kept."""
    over = work.phase in ("Complete", "Failed")
    made = rows(work)
    best = _best(work, made)
    table = _table(work, work.table) if work.table else _kept(old, "table", "report", "accuracy")
    return {
        "observedGeneration": generation,
        "phase": work.phase,
        "startTime": text(old, "startTime") or stamp(now),
        **({"completionTime": text(old, "completionTime") or stamp(now)} if over else {}),
        "conditions": conditions.conditions(_wanted(work), old, generation, now),
        "runs": counts(work),
        "rows": made,
        **({"best": best} if best else {}),
        **({"search": searched(work)} if work.trials else {}),
        **({"warnings": list(work.notices)} if work.notices else {}),
        **table,
    }


def rows(work: Compared) -> list[Json]:
    """Makes a row for each run, in their order."""
    made = []
    refused = {trouble.child: trouble.reason.name for trouble in work.troubles}
    for child in work.comparison.children:
        state = work.runs.get(child.run.name)
        phase = WAITING if state is None else state.phase or PENDING
        accuracy = {"accuracy": dict(state.accuracy)} if state and state.accuracy else {}
        trial = {} if child.trial is None else {"trial": child.trial}
        validated = {"validated": state.validated} if trial and state and state.validated is not None else {}
        reason = refused.get(child.run.name) or (state.reason if state else "")
        own = {**({"reason": reason} if reason else {}), **trial, **validated, **accuracy}
        made.append({"method": child.label, "seed": child.seed, "run": child.run.name, "phase": phase, **own})
    return made


def searched(work: Compared) -> list[Json]:
    """Says for each method how far its search is, and which trial is the best by its validation questions."""
    best, methods = chosen(work.trials), dict.fromkeys(trial.method for trial in work.trials)
    return [{"method": method, "trials": _over(work, method), **_chosen(best.get(method))} for method in methods]


def _over(work: Compared, method: str) -> int:
    return sum(trial.over for trial in work.trials if trial.method == method)


def _chosen(trial: Trial | None) -> Json:
    if trial is None or trial.value is None:
        return {}
    return {"trial": trial.number, "row": trial.children[0].label, "validated": round(trial.value, 6)}


def counts(work: Compared) -> Json:
    """Counts the runs by what became of them."""
    own = [work.runs[child.run.name] for child in work.comparison.children if child.run.name in work.runs]
    total, complete = len(work.comparison.children), sum(state.phase == "Complete" for state in own)
    ended = sum(state.ended for state in own)
    active = sum(not state.ended and not state.suspended for state in own)
    return {"total": total, "active": active, "complete": complete, "failed": ended - complete, "text": f"{ended}/{total}"}


def _best(work: Compared, made: Sequence[Json]) -> Json | None:
    """The method with the best mean over seeds, once a run of it is complete. Of a search those that validation questions chose."""
    by_method: dict[str, list[float]] = {}
    best = {trial.children[0].label for trial in chosen(work.trials).values()}
    for row in made:
        if "trial" in row and row["method"] not in best:
            continue
        if row["phase"] == "Complete" and "accuracy" in row:
            by_method.setdefault(row["method"], []).append(row["accuracy"]["mean"])
    if not by_method:
        return None
    means = {method: statistics.fmean(values) for method, values in by_method.items()}
    method = max(means, key=lambda name: means[name])
    return {"method": method, "mean": round(means[method], 4), "text": f"{method} {100 * means[method]:.1f}"}


def _kept(old: Json, *names: str) -> Json:
    return {name: old[name] for name in names if name in old}


def _table(work: Compared, table: CompareSummary) -> Json:
    """Makes what the status says of the table."""
    accuracy = {"accuracy": worded(msgspec.to_builtins(table.accuracy))} if table.accuracy else {}
    return {"table": table.table, "report": _report(work), **accuracy}


def _report(work: Compared) -> str:
    """Without the options of the store's URL: those are for programs."""
    template = work.comparison.template
    return f"{store_url(template.spec.storage).partition('?')[0]}/{template.key}/compare/index.html"


# --- conditions ---


def _wanted(work: Compared) -> Wanted:
    phase = work.phase
    suspended, complete, failed = phase == "Suspended", phase == "Complete", phase == "Failed"
    progressing = _progressing(work)
    own: Wanted = {
        "Accepted": (True, reasons.ACCEPTED, "the spec is valid"),
        "Progressing": progressing,
        "Suspended": (suspended, reasons.SUSPENDED if suspended else reasons.RUNNING, reasons.SUSPENDED.hint if suspended else ""),
        "Complete": (complete, reasons.COMPARED if complete else reasons.UNFINISHED, _sentence(work) if complete else ""),
        "Failed": (True, progressing[1], progressing[2]) if failed else (False, reasons.NO_FAILURE, ""),
    }
    return {**own, **conditions.summaries(progressing, over=suspended or complete)}


def _progressing(work: Compared) -> tuple[bool, Reason, str]:
    if work.failure:
        return False, work.failure.reason, _told(work.failure)
    match work.phase:
        case "Failed":
            return False, reasons.RUNS_FAILED, sentence(reasons.RUNS_FAILED, [_sentence(work)])
        case "Complete":
            return False, reasons.COMPARED, _sentence(work)
        case "Suspended":
            return False, reasons.SUSPENDED, reasons.SUSPENDED.hint
    if work.troubles:
        worst = min(work.troubles, key=lambda trouble: not trouble.blocking)
        return not worst.blocking, worst.reason, _told(worst)
    return True, reasons.WORKING, "the table is being made" if work.phase == "Comparing" else _sentence(work)


def _sentence(work: Compared) -> str:
    counted = counts(work)
    failed = f", {counted['failed']} failed" if counted["failed"] else ""
    active = f", {counted['active']} under way" if counted["active"] else ""
    return f"{counted['complete']} of {counted['total']} runs complete{failed}{active}"


def _told(trouble: Trouble) -> str:
    return sentence(trouble.reason, [f"{trouble.child}: {trouble.message}" if trouble.child else trouble.message])
