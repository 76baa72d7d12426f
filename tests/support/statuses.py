"""Statuses that reconciles would write: tasks of a small run in all states, what its programs said, and `state`.

For the tests of status, conditions and results, and for the real API server's (test_crd.py).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kube_objects import (
    START,
    a_run,
    by_type,
    deployment,
    done,
    ended,
    failed,
    job,
    planned,
    pod,
    replica,
    snapshot,
    unscheduled,
    waiting,
)

from maft.summaries import (
    DebateSummary,
    DiversitySummary,
    EvaluateSummary,
    Gain,
    PreflightSummary,
    ProbeScore,
    ProgramSummary,
    Score,
    TrainSummary,
    Usage,
    Validation,
    encode_summary,
)
from maft_operator.cluster import earlier, reasons, rows, spent
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.status import Reconciled, status
from maft_operator.plan.best import settled
from maft_operator.plan.reconcile import Outcome, Refusal
from maft_operator.plan.step import step
from maft_operator.spec.parse import Run

RUN = a_run()
PREPARED, UNTRAINED, DEBATED, TRAINED, EVALUATED, REPORTED = (
    done(name, start=60 * i, ended=60 * i + 60)
    for i, name in enumerate(("r-0-prepare", "r-0-evaluate", "r-1-debate", "r-1-train", "r-1-evaluate", "r-1-report"))
)
TRIED = done("r-0-preflight", start=40, ended=60)
ALL = (PREPARED, TRIED, UNTRAINED, DEBATED, TRAINED, EVALUATED, REPORTED)
NO_NODE = (job("r-0-prepare"), unscheduled("r-0-prepare", "0/3 nodes are available"))
RETRIED = (job("r-0-prepare", failed=1), pod("r-0-prepare", "Failed", ended(1, "store s3://b: unreachable")))
WRONG = (failed("r-0-prepare", "PodFailurePolicy"), pod("r-0-prepare", "Failed", ended(2, "model.source: no such model")))


def state(
    *objects: Json,
    run: Run = RUN,
    old: Json | None = None,
    now: float = 1000,
    generation: int = 1,
    units: Mapping[str, tuple[float, float]] | None = None,
    refusals: tuple[Refusal, ...] = (),
) -> Json:
    """The status that a reconcile would write, `now` seconds after START."""
    whole, seen = planned(run), snapshot(run, *objects, now=now)
    seen = earlier.measured(run, whole, seen, rows.read(old or {}))
    graph = settled(whole, seen.observed)
    outcome = Outcome(step(graph, seen.observed), seen, refusals, graph)
    moment = START + timedelta(seconds=now)
    work = Reconciled(run, graph, outcome, units or {}, spent=spent.read(old or {}, moment))
    return status(work, old or {}, generation, moment)


def conditions(whole: Json) -> dict[str, tuple[str, str]]:
    """Status and reason of each but those that follow from them."""
    own = {kind: c for kind, c in by_type(whole["conditions"]).items() if kind not in reasons.SUMMARIES}
    return {kind: (c["status"], c["reason"]) for kind, c in own.items()}


# --- statuses with the phase and the conditions that they should have ---

HEALTHY = {"Accepted": ("True", "Accepted"), "Suspended": ("False", "NotSuspended"), "Failed": ("False", "NoFailure")}
GOES_ON = HEALTHY | {"Progressing": ("True", "Working"), "Complete": ("False", "Unfinished")}
PAUSED = {"Suspended": ("True", "Suspended"), "Progressing": ("False", "Suspended")}
CASES: dict[str, tuple[Json, str, dict[str, tuple[str, str]]]] = {
    # status, phase, conditions
    "begins": (state(), "Preparing", GOES_ON),
    "works": (state(PREPARED, TRIED, UNTRAINED, job("r-1-debate"), deployment(ready=1)), "Debating", GOES_ON),
    "waits for a node": (state(*NO_NODE), "Preparing", GOES_ON | {"Progressing": ("False", "Unschedulable")}),
    "tries again": (state(*RETRIED), "Preparing", GOES_ON | {"Progressing": ("True", "Retrying")}),
    "is suspended": (state(PREPARED, run=a_run(suspend=True)), "Suspended", GOES_ON | PAUSED),
    "is complete": (
        state(*ALL),
        "Complete",
        HEALTHY | {"Progressing": ("False", "AllIterationsDone"), "Complete": ("True", "AllIterationsDone")},
    ),
    "failed": (state(*WRONG), "Failed", GOES_ON | {"Progressing": ("False", "ModelUnusable"), "Failed": ("True", "ModelUnusable")}),
    "server that fails": (
        state(PREPARED, TRIED, deployment(), replica(waiting("CrashLoopBackOff"), restarts=4, last=ended(1, "no GPU"))),
        "Failed",
        GOES_ON | {"Progressing": ("False", "CrashLoop"), "Failed": ("True", "CrashLoop")},
    ),
}


# --- under way ---

DEBATING = (PREPARED, TRIED, UNTRAINED, job("r-1-debate", start=400), deployment(ready=1))
APART = a_run(training={"topology": "PerAgent"})
TRAINING = (PREPARED, TRIED, UNTRAINED, DEBATED)


# --- what programs said ---


def summarized(name: str, summary: ProgramSummary, container: str = "debate") -> Json:
    """The pod of a task that ended well, with the program's summary."""
    return pod(name, "Succeeded", ended(0, encode_summary(summary).decode()), container=container)


def usage(prompt: int, completion: int) -> Usage:
    return Usage(1, prompt, completion)


def evaluated(debate: float, answer: float, *, asked: Usage | None = None, **more: Any) -> EvaluateSummary:
    values: dict[str, Any] = {"questions": 300, "agents": 2, "rounds": 2, "unparsed": 0, **more}
    return EvaluateSummary(
        debate=Score(debate, 0.02),
        majority=Score(0.5, 0.01),
        answer=Score(answer, 0.03),
        consensus=Score(0.6, 0.011),
        wrong_to_right=7,
        right_to_wrong=3,
        usage=asked or usage(0, 0),
        **values,
    )


def validated(accuracy: float, *gain: float) -> EvaluateSummary:
    """Of validation questions. gain: mean, standard error, over which iteration."""
    over = Gain(gain[0], gain[1], int(gain[2])) if gain else None
    measured = Validation(accuracy=Score(accuracy, 0.02), gain=over)
    return evaluated(accuracy, 0.3, asked=usage(1000, 100), validation=measured)


KEPT: dict[str, tuple[int, ...]] = {"generator": (5, 6), "critic": (4, 3)}
MEASURED = DiversitySummary(questions=10, nll=1.5, kl=0.25, dissimilarity=0.125, distinct=1.5, entropy=0.5)


def preflight(*warnings: str, context: int = 8192, thinks: bool = False) -> PreflightSummary:
    return PreflightSummary(
        architecture="LlamaForCausalLM", modules=210, context=context, longest_prompt=1234, thinks=thinks, warnings=warnings
    )


def debated(**more: Any) -> DebateSummary:
    return DebateSummary(
        **{"questions": 24, "agreement": 0.6543, "margins": (4, 20), "kept": KEPT, "usage": usage(200, 20), **more}
    )


def trained(count: int) -> TrainSummary:
    return TrainSummary(adapters=(), trained=count)


SUMMARIZED = (
    summarized("r-0-evaluate", evaluated(0.42, 0.3, asked=usage(100, 10))),
    summarized("r-1-debate", debated(abstained=4, probe=ProbeScore(0.61, 0.0488, 100))),
    summarized("r-1-train", trained(4)),
    summarized("r-1-evaluate", evaluated(0.625, 0.4, asked=usage(300, 30))),
)


def probed(share: float, name: str = "r-1-debate") -> Json:
    return summarized(name, debated(agreement=0.6, abstained=0, probe=ProbeScore(share, 0.05, 100)))
