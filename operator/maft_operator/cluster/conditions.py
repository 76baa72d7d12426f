"""Conditions of a run (metav1.Condition), with the reasons of reasons.py: which it should have, and which of them changed. Pure.

Scripts and alerts read conditions, never the phase. `finished` and `settled` decide what the operator still looks at.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from maft import stopping
from maft.shortage import shortage
from maft.summaries import HARMFUL, Answers, Score
from maft_operator.cluster import exporting, reasons, upgrade
from maft_operator.cluster.fields import count, lines, part, parts, stamp, text
from maft_operator.cluster.observed import Snapshot
from maft_operator.cluster.reasons import Condition, Reason, Trouble, refusal_reason, sentence
from maft_operator.plan.reconcile import Outcome
from maft_operator.spec.schema import Json

Wanted = Mapping[Condition, tuple[bool, Reason, str]]  # status, reason and message


def conditions(wanted: Wanted, old: Json, generation: int, now: datetime) -> list[Json]:
    """Makes the conditions; lastTransitionTime moves with the status alone. old: the whole status before."""
    before = _stated(old)
    return [_condition(kind, *value, before.get(kind, {}), generation, now) for kind, value in wanted.items()]


def _stated(status: Json) -> dict[str, Json]:
    return {text(c, "type"): c for c in parts(status, "conditions")}


def _condition(kind: Condition, true: bool, reason: Reason, message: str, old: Json, generation: int, now: datetime) -> Json:
    status = "True" if true else "False"
    return {
        "type": kind,
        "status": status,
        "reason": reason.name,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": (text(old, "lastTransitionTime") if old.get("status") == status else "") or stamp(now),
    }


def summed(status: Json, now: datetime) -> Json:
    """Adds to the status of a run that is over what releases before 0.2 did not write: Reconciling and Stalled."""
    by_type = _stated(status)
    if by_type.keys() >= {*reasons.SUMMARIES} or "Progressing" not in by_type:
        return status
    last, complete = by_type["Progressing"], by_type.get("Complete", {}).get("status") == "True"
    made = summaries((False, Reason(text(last, "reason")), text(last, "message")), over=complete)
    added = conditions(made, {}, count(last, "observedGeneration"), now)
    return {**status, "conditions": [*by_type.values(), *added]}


# --- which conditions a run should have ---


def wanted(outcome: Outcome[Snapshot], rows: Iterable[Json], stage: str) -> Wanted:
    """Decides all conditions of a run that is worked at. rows: of its iterations; stage: what is under way, in words."""
    phase = outcome.step.phase
    failure = _failure(outcome) if phase == "Failed" else None
    suspended, complete = phase == "Suspended", phase == "Complete"
    own: Wanted = {
        "Accepted": (True, reasons.ACCEPTED, "the spec is valid"),
        "Progressing": _progressing(outcome, failure, rows, stage),
        "Suspended": (suspended, reasons.SUSPENDED if suspended else reasons.RUNNING, reasons.SUSPENDED.hint if suspended else ""),
        "Complete": (complete, reasons.COMPLETE if complete else reasons.UNFINISHED, _ending(outcome, rows) if complete else ""),
        "Failed": (True, failure.reason, _message(failure)) if failure else (False, reasons.NO_FAILURE, ""),
    }
    return {**own, **summaries(own["Progressing"], over=suspended or complete)}


def summaries(decisive: tuple[bool, Reason, str], *, over: bool = False) -> Wanted:
    """Makes what kstatus reads of any resource (Flux, cli-utils): Stalled, because it failed or somebody has to change something;
    Reconciling, while it is neither that nor over. https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus"""
    true, reason, message = decisive
    stalled = not true and not over
    return {
        "Reconciling": (true, reason, message),
        "Stalled": (True, reason, message) if stalled else (False, reasons.NOT_STALLED, ""),
    }


def _progressing(outcome: Outcome[Snapshot], failure: Trouble | None, rows: Iterable[Json], stage: str) -> tuple[bool, Reason, str]:
    phase = outcome.step.phase
    if failure:
        return False, failure.reason, _message(failure)
    if phase in ("Complete", "Suspended"):
        reason = reasons.COMPLETE if phase == "Complete" else reasons.SUSPENDED
        return False, reason, reason.hint
    troubles = sorted((*_refused(outcome), *outcome.snapshot.troubles, *_warnings(rows)), key=lambda t: not t.blocking)
    if troubles:
        return not troubles[0].blocking, troubles[0].reason, _message(troubles[0])
    return True, reasons.WORKING, stage or phase


def _failure(outcome: Outcome[Snapshot]) -> Trouble:
    """Why the child failed that failed the run: what the cluster says of it, else what it said itself; or its budget."""
    child = outcome.step.failed_child
    if not child:
        return Trouble("", reasons.BUDGET_SPENT, outcome.step.message)
    return outcome.snapshot.ended.get(child) or Trouble(child, reasons.ATTEMPTS_EXHAUSTED, outcome.step.message)


def _refused(outcome: Outcome[Snapshot]) -> list[Trouble]:
    return [Trouble(r.child, refusal_reason(r.message), r.message) for r in outcome.refusals]


def _warnings(rows: Iterable[Json]) -> list[Trouble]:
    """Of the last iteration that says it: that nothing was trained; that the majority, which becomes the label, is mostly wrong;
    that many answers were cut off."""
    rows = list(rows)
    probed = [row for row in rows if "probe" in row][-1:]
    answered = [row for row in rows if "answers" in row][-1:]
    return [
        *(_nothing_trained(row) for row in _untrained(rows)[-1:] if row is _trained(rows)[-1]),
        *(_wrong_majority(row) for row in probed if row["probe"]["mean"] < HARMFUL),
        *(_answers_cut(row) for row in answered if _answers(row).too_many_cut),
    ]


def _trained(rows: Iterable[Json]) -> list[Json]:
    return [row for row in rows if "trained" in row]


def _untrained(rows: Iterable[Json]) -> list[Json]:
    """Iterations that have trained all that they train, and that is nothing."""
    return [row for row in _trained(rows) if not row["trained"] and row.get("untrained")]


def _nothing_trained(row: Json) -> Trouble:
    most = max((kept["most"] for kept in row.get("kept", {}).values()), default=0)
    why, change = shortage(most, row.get("leftOut", {}))
    message = f"iteration {row['iteration']}: nothing was trained: {why}. To change that, {change}"
    return Trouble("", reasons.NOTHING_TRAINED, message, blocking=False)


def _answers(row: Json) -> Answers:
    return msgspec.convert(row["answers"], Answers)


def _answers_cut(row: Json) -> Trouble:
    message = f"iteration {row['iteration']}: {_answers(row).text}"
    return Trouble("", reasons.ANSWERS_CUT, message, blocking=False)


def _ending(outcome: Outcome[Snapshot], rows: Iterable[Json]) -> str:
    """What has to be known of a run that is complete: which iteration is the best, and in which nothing was trained."""
    specs = {task.run.key: task.run.spec for task in outcome.graph.tasks}
    chosen = [stopping.words(specs[run], decision) for run, decision in outcome.graph.decisions.items()]
    return "; ".join(part for part in (*chosen, _reservation(rows)) if part)


def _reservation(rows: Iterable[Json]) -> str:
    """Iterations in which nothing was trained."""
    rows = list(rows)
    none, trained = _untrained(rows), _trained(rows)
    several = f"{len(none)} of {len(trained)} iterations trained nothing; " if len(trained) > 1 else ""
    return several + _nothing_trained(none[-1]).message if none else ""


def _wrong_majority(row: Json) -> Trouble:
    share = Score(row["probe"]["mean"], row["probe"]["stderr"]).percent
    message = f"iteration {row['iteration']}: the majority is right on {share} % of the probe questions, fewer than half"
    return Trouble("", reasons.WRONG_MAJORITY, message, blocking=False)


def _message(trouble: Trouble) -> str:
    return sentence(trouble.reason, [f"{trouble.child}: {trouble.message}" if trouble.child else trouble.message])


# --- runs that are not worked at ---


def rejected(reason: Reason, message: str, old: Json, generation: int, now: datetime) -> Json:
    """Makes the status of a resource that cannot be read: Accepted is False, and nothing else is said about it."""
    refused = False, reason, sentence(reason, [message])
    accepted: Wanted = {"Accepted": refused, **summaries(refused)}
    kept = {key: value for key, value in old.items() if key not in ("conditions", "phase", "observedGeneration")}
    made = conditions(accepted, old, generation, now)
    return {**kept, "observedGeneration": generation, "phase": "Rejected", "conditions": made}


def blocked(reason: Reason, message: str, old: Json, generation: int, now: datetime) -> Json:
    """Makes the old status with Progressing False, for a reason that is the operator's own."""
    held = False, reason, sentence(reason, [message])
    progressing: Wanted = {"Progressing": held, **summaries(held)}
    others = [c for kind, c in _stated(old).items() if kind in {*reasons.CONDITIONS} - progressing.keys()]  # none of another writer
    made = [*others, *conditions(progressing, old, generation, now)]
    ordered = sorted(made, key=lambda c: reasons.CONDITIONS.index(c["type"]))
    return {**old, "observedGeneration": generation, "phase": text(old, "phase") or "Pending", "conditions": ordered}


# --- what conditions say ---


def finished(status: Json) -> bool:
    """Tells whether the run is Complete or Failed. Both are for good."""
    return any(text(c, "status") == "True" for kind, c in _stated(status).items() if kind in ("Complete", "Failed"))


def settled(resource: Mapping[str, Json]) -> bool:
    """Tells whether there is nothing left to do about the run: finished, of this spec, kept for ever and written as today."""
    status, spec = part(dict(resource), "status"), part(dict(resource), "spec")
    current = status.get("observedGeneration") == resource["metadata"].get("generation")
    whole = _stated(status).keys() >= {*reasons.SUMMARIES}
    stays = "ttlSecondsAfterFinished" not in spec or reasons.is_at_limit(status)
    rests = stays and not upgrade.is_old(status) and not exporting.is_pending(resource)
    return finished(status) and current and whole and rests


def transitions(old: Json, new: Json) -> list[Json]:
    """Lists conditions whose status or reason changed: each is one Event. Summaries say nothing that another one does not."""
    before, own = ({kind: (text(c, "status"), text(c, "reason")) for kind, c in _stated(status).items()} for status in (old, new))
    changed = {kind for kind, value in own.items() if before.get(kind, _at_first(kind, value)) != value}
    return [c for kind, c in _stated(new).items() if kind in changed - {*reasons.SUMMARIES}]


def warned(old: Json, new: Json) -> list[str]:
    """Lists warnings that were not there before: each is one Event."""
    before = lines(old, "warnings")
    return [line for line in lines(new, "warnings") if line not in before]


def _at_first(kind: str, value: tuple[str, str]) -> tuple[str, str] | None:
    """What goes without saying: that a new run is not suspended, not complete and has not failed."""
    return ("False", value[1]) if kind in ("Suspended", "Complete", "Failed") else None


def important(old: Json, new: Json) -> bool:
    """Tells whether more than progress moved."""
    return _essence(old) != _essence(new)


def _essence(status: Json) -> Json:
    names = ("type", "status", "reason", "observedGeneration")
    kept = [tuple(c.get(name) for name in names) for c in parts(status, "conditions")]
    return {**{k: v for k, v in status.items() if k not in ("progress", "spent", "conditions")}, "conditions": kept}
