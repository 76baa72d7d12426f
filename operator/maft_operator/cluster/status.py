"""The status of a resource: what was decided and seen, as the fields that people and scripts read. Pure: the time comes in.

Conditions are metav1.Condition with the reasons of reasons.py. Results once written stay, also when the pods that said them
have gone. Called at the end of each reconcile by controller.py; equal worlds give equal status.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from maft_operator.cluster import reasons
from maft_operator.cluster.observed import Trouble, World
from maft_operator.cluster.reasons import Condition, Reason, sentence
from maft_operator.plan.graph import Graph, Step, Task
from maft_operator.plan.summaries import percent, title
from maft_operator.spec.parse import Run, store_url
from maft_operator.spec.schema import Json

GUESS = 0.05  # share of the work after which the time left is worth telling
_ROWS = ("debate", "train", "evaluate", "diversity")  # stages of an iteration
_WEIGHTS = {  # of a stage in the run's work
    "prepare": 0.1,
    "report": 0.1,
    "train": 1.0,
    "debate": 1.0,
    "evaluate": 1.0,
    "diversity": 0.3,
    "compare": 0.1,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reconcile ends with. done: work units of running tasks; refused: what the API server would not take."""

    run: Run
    graph: Graph
    step: Step
    world: World
    done: Mapping[str, tuple[float, float]]
    refused: tuple[Trouble, ...] = ()


def status(seen: Seen, old: Json, generation: int, now: datetime) -> Json:
    """The whole status. old: the one before, whose times and results are kept."""
    iterations = _iterations(seen, old)
    found: Json = {
        "observedGeneration": generation,
        "phase": seen.step.phase,
        "iteration": f"{_current(seen)}/{seen.run.spec.iterations}",
        "progress": _progress(seen, old.get("progress", {}).get("percent", 0), now),
        "startTime": old.get("startTime") or stamp(now),
        "conditions": conditions(_wanted(seen, iterations), old.get("conditions", ()), generation, now),
        **({"iterations": iterations} if iterations else {}),
        "artifacts": _artifacts(seen.run, iterations),
    }
    trains = seen.run.spec.iterations > 0  # some methods do not: the untrained society is all they have
    reached = [row["accuracy"] for row in iterations if "accuracy" in row and (row["iteration"] or not trains)]
    untrained = next((row["answer"] for row in iterations if not row["iteration"] and "answer" in row), None)
    found |= {"accuracy": reached[-1]} if reached else {}
    found |= {"baseAccuracy": untrained} if untrained else {}
    if seen.step.phase in ("Complete", "Failed"):
        found["completionTime"] = old.get("completionTime") or stamp(now)
    return found


def rejected(reason: Reason, message: str, old: Json, generation: int, now: datetime) -> Json:
    """The status of a resource that cannot be read: Accepted is False, and nothing else is said about it."""
    wanted: Wanted = {"Accepted": (False, reason, sentence(reason, [message]))}
    kept = {key: value for key, value in old.items() if key not in ("conditions", "phase", "observedGeneration")}
    found = conditions(wanted, old.get("conditions", ()), generation, now)
    return {**kept, "observedGeneration": generation, "phase": "Rejected", "conditions": found}


def blocked(reason: Reason, message: str, old: Json, generation: int, now: datetime) -> Json:
    """The old status, with Progressing False for a reason that is the operator's own."""
    before: Sequence[Json] = old.get("conditions", ())
    wanted: Wanted = {"Progressing": (False, reason, sentence(reason, [message]))}
    others = [c for c in before if c["type"] != "Progressing"]
    ordered = sorted([*others, *conditions(wanted, before, generation, now)], key=lambda c: reasons.CONDITIONS.index(c["type"]))
    return {**old, "phase": old.get("phase") or "Pending", "conditions": ordered}


def finished(old: Json) -> bool:
    """Whether the run is Complete or Failed. Both are for good."""
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in old.get("conditions", ()))


def important(old: Json, new: Json) -> bool:
    """Whether more than progress moved."""
    return _essence(old) != _essence(new)


def transitions(old: Json, new: Json) -> list[Json]:
    """Conditions whose status or reason changed: each is one Event."""
    before = {c["type"]: (c["status"], c["reason"]) for c in old.get("conditions", ())}
    return [c for c in new.get("conditions", ()) if before.get(c["type"], _unsaid(c)) != (c["status"], c["reason"])]


def _unsaid(condition: Json) -> tuple[str, str] | None:
    """What goes without saying at first: that a run is not suspended, not complete and has not failed."""
    return ("False", condition["reason"]) if condition["type"] in ("Suspended", "Complete", "Failed") else None


def stamp(moment: datetime) -> str:
    """As metav1.Time: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _essence(whole: Json) -> Json:
    conditions_ = [(c["type"], c["status"], c["reason"], c.get("observedGeneration")) for c in whole.get("conditions", ())]
    return {**{k: v for k, v in whole.items() if k not in ("progress", "conditions")}, "conditions": conditions_}


# --- conditions ---

Wanted = Mapping[Condition, tuple[bool, Reason, str]]


def conditions(wanted: Wanted, before: Iterable[Json], generation: int, now: datetime) -> list[Json]:
    """metav1.Condition each; lastTransitionTime moves with the status alone."""
    old = {c["type"]: c for c in before}
    made = []
    for kind, (true, reason, message) in wanted.items():
        value = "True" if true else "False"
        same = old.get(kind, {}).get("status") == value
        made.append(
            {
                "type": kind,
                "status": value,
                "reason": reason.name,
                "message": message,
                "observedGeneration": generation,
                "lastTransitionTime": old[kind]["lastTransitionTime"] if same else stamp(now),
            }
        )
    return made


def _wanted(seen: Seen, iterations: Sequence[Json]) -> Wanted:
    phase = seen.step.phase
    failed = _failure(seen) if phase == "Failed" else None
    suspended = phase == "Suspended"
    complete = phase == "Complete"
    return {
        "Accepted": (True, reasons.ACCEPTED, "the spec is valid"),
        "Progressing": _progressing(seen, failed, _warnings(iterations)),
        "Suspended": (suspended, reasons.SUSPENDED if suspended else reasons.RUNNING, reasons.SUSPENDED.hint if suspended else ""),
        "Complete": (complete, reasons.COMPLETE if complete else reasons.UNFINISHED, ""),
        "Failed": (True, failed.reason, _told(failed)) if failed else (False, reasons.NO_FAILURE, ""),
    }


def _progressing(seen: Seen, failed: Trouble | None, warnings: Sequence[Trouble]) -> tuple[bool, Reason, str]:
    phase = seen.step.phase
    if failed:
        return False, failed.reason, _told(failed)
    if phase in ("Complete", "Suspended"):
        reason = reasons.COMPLETE if phase == "Complete" else reasons.SUSPENDED
        return False, reason, reason.hint
    troubles = sorted((*seen.refused, *seen.world.troubles, *warnings), key=lambda t: not t.blocking)
    if troubles:
        return not troubles[0].blocking, troubles[0].reason, _told(troubles[0])
    return True, reasons.WORKING, _stage(seen) or phase


def _warnings(iterations: Iterable[Json]) -> list[Trouble]:
    """Of the last debate that had a probe: the majority, which becomes the label, is mostly wrong."""
    last = [row for row in iterations if "probe" in row][-1:]
    wrong = [row for row in last if float(row["probe"].partition(" ")[0]) < 50]
    return [
        Trouble(
            "",
            reasons.WRONG_MAJORITY,
            f"iteration {row['iteration']}: the majority is right on {row['probe']} % of the probe questions, fewer than half",
            blocking=False,
        )
        for row in wrong
    ]


def _failure(seen: Seen) -> Trouble:
    """Of the child that failed the run: what the cluster says of it, else what it said itself."""
    found = seen.world.ended.get(seen.step.culprit)
    return found or Trouble(seen.step.culprit, reasons.ATTEMPTS_EXHAUSTED, seen.step.message)


def _told(trouble: Trouble) -> str:
    return sentence(trouble.reason, [f"{trouble.child}: {trouble.message}" if trouble.child else trouble.message])


# --- progress ---


def _progress(seen: Seen, before: int, now: datetime) -> Json:
    """Never back: a stage that just ended has no metrics any more, and its Job does not count yet."""
    if seen.step.phase == "Complete":
        return {"percent": 100, "text": "100 %"}
    share, seconds = _work(seen)
    share = max(share, before / 100)
    found: Json = {"percent": int(100 * share), "text": f"{int(100 * share)} %"}
    if stage := _stage(seen):
        found["stage"] = stage + _units(seen)
    if share > GUESS and seconds and _moving(seen):
        left = round(seconds * (1 - share) / share / 10) * 10
        found["eta"] = stamp(now + timedelta(seconds=left))
        found["text"] += f", {_clock(left)} left"
    return found


def _work(seen: Seen) -> tuple[float, float]:
    """Share of the run's work that is done, and the seconds that it took; agents that train side by side count once."""
    total = done = seconds = 0.0
    for task in seen.graph.tasks:
        beside = sum(t.kind == task.kind and t.iteration == task.iteration for t in seen.graph.tasks)
        weight = _WEIGHTS[task.kind] / beside
        state = seen.world.observed.tasks.get(task.name)
        part = seen.done.get(task.name)
        total += weight
        if state and state.status == "succeeded":
            done += weight
        elif part and part[1]:
            done += weight * min(1.0, part[0] / part[1])
        else:
            continue
        seconds += seen.world.seconds.get(task.name, 0.0) / beside
    return done / total, seconds


def _moving(seen: Seen) -> bool:
    return seen.step.phase not in ("Suspended", "Failed")


def _running(seen: Seen) -> list[Task]:
    states = seen.world.observed.tasks
    return [t for t in seen.graph.tasks if t.name in states and states[t.name].status == "running"]


def _stage(seen: Seen) -> str:
    tasks = _running(seen)
    return ", ".join(title(t) for t in tasks[:2]) + (f" and {len(tasks) - 2} more" if len(tasks) > 2 else "")


def _units(seen: Seen) -> str:
    parts = [seen.done[t.name] for t in _running(seen) if t.name in seen.done]
    return f" ({sum(p[0] for p in parts):.0f} of {sum(p[1] for p in parts):.0f})" if parts else ""


def _current(seen: Seen) -> int:
    """The iteration of the first task that is not done."""
    states = seen.world.observed.tasks
    left = [t.iteration for t in seen.graph.tasks if t.name not in states or states[t.name].status != "succeeded"]
    return min(left, default=seen.run.spec.iterations)


def _clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{int(seconds) % 60:02d}s"


# --- results ---


def _iterations(seen: Seen, old: Json) -> list[Json]:
    """A row per iteration that has something to say."""
    rows: dict[int, Json] = {row["iteration"]: dict(row) for row in old.get("iterations", ())}
    for iteration in range(seen.run.spec.iterations + 1):
        tasks = [t for t in seen.graph.tasks if t.iteration == iteration and t.kind in _ROWS]
        before = rows.get(iteration, {})
        new = {**_scores(tasks, seen.world), **_sums(tasks, seen.world, before)}
        if new:
            rows[iteration] = {**before, "iteration": iteration, **new}
    return [rows[iteration] for iteration in sorted(rows)]


def _scores(tasks: Iterable[Task], world: World) -> Json:
    return {key: value for task in tasks for key, value in _results(task, world.summaries.get(task.name, {})).items()}


def _results(task: Task, summary: Json) -> Json:
    if task.kind == "evaluate" and "debate" in summary:
        scores = {"accuracy": "debate", "majority": "majority", "answer": "answer", "consensus": "consensus"}
        flips: Json = {key: summary[key] for key in ("wrongToRight", "rightToWrong") if key in summary}
        return {**{name: percent(summary[key]) for name, key in scores.items()}, **flips}
    if task.kind == "debate" and "agreement" in summary:
        kept = {role: _counts(counts) for role, counts in summary.get("kept", {}).items() if counts}
        guards: Json = {"probe": percent(summary["probe"])} if "probe" in summary else {}
        guards |= {"abstained": summary["abstained"]} if "abstained" in summary else {}
        return {"agreement": f"{100 * summary['agreement']:.1f}", **guards, "kept": kept}
    if task.kind == "diversity":
        return {name: f"{summary[name]:.4f}" for name in ("nll", "kl", "dissimilarity") if name in summary}
    return {}


def _counts(counts: Sequence[int]) -> str:
    """One an agent; of more than eight agents the fewest and the most, for the status has to stay small."""
    return "/".join(map(str, counts)) if len(counts) <= 8 else f"{min(counts)} to {max(counts)}"


def _sums(tasks: Sequence[Task], world: World, old: Json) -> Json:
    """Over an iteration's finished tasks; never less than before, for pods that knew their part may have gone."""
    states = world.observed.tasks
    ended = [t for t in tasks if t.name in states and states[t.name].status == "succeeded"]
    summaries = [world.summaries.get(t.name, {}) for t in ended]
    usage = [s["usage"] for s in summaries if "usage" in s]
    sums: dict[str, float] = {
        "seconds": sum(world.seconds.get(t.name, 0.0) for t in ended),
        "gpuSeconds": sum(world.seconds.get(t.name, 0.0) * t.gpus for t in ended),
        "promptTokens": sum(u["prompt_tokens"] for u in usage),
        "completionTokens": sum(u["completion_tokens"] for u in usage),
    }
    sums |= {"trained": sum(s["trained"] for s in summaries if "trained" in s)} if any(t.kind == "train" for t in ended) else {}
    return {key: max(int(value), old.get(key, 0)) for key, value in sums.items()} if ended else {}


def _artifacts(run: Run, iterations: Sequence[Json]) -> Json:
    """Places without the options of the URL: those are for programs."""
    top = f"{store_url(run.spec.storage).partition('?')[0]}/{run.key}"
    trained = [row["iteration"] for row in iterations if "trained" in row]
    found = {"store": top, "report": f"{top}/report/index.html"}
    return {**found, "adapters": f"{top}/iterations/{trained[-1]}/adapters/"} if trained else found
