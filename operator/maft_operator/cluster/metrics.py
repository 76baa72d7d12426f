"""Prometheus metrics of the operator. Runs are shown as they are at a scrape, so a deleted run is gone at the next one.

No label has unbounded values: runs by name, and of their iterations the untrained one, the best and the last few.
docs/metrics.md is generated from here.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from maft_operator.cluster import other_metrics, rows, series
from maft_operator.cluster.fields import count, part, parts, text
from maft_operator.cluster.fields import time as moment
from maft_operator.cluster.series import Family, Sample, Seen
from maft_operator.cluster.upgrade import upgraded
from maft_operator.spec.schema import Json

SHOWN = 7  # iterations of a run that have series of their own: the first, which is untrained, the best and the last ones
LONGEST = 64  # characters of a label: phases and reasons are words
_ROLES = ("generator", "critic")
_END = b"# EOF\n"  # of OpenMetrics, after the last series
_FAULTS = ("refused", "unreachable", "fault")  # of a reconcile
_IF_TRUE, _ELSE = ("Failed", "Complete", "Suspended"), ("Progressing", "Accepted")  # conditions, the one that counts first


FAMILIES: dict[str, Family] = {
    "maft_run_info": Family("1 for each run, with its phase and the reason of the condition that counts", ("phase", "reason")),
    "maft_run_created_timestamp_seconds": Family("When the run was created"),
    "maft_run_last_transition_timestamp_seconds": Family("When a condition of the run changed last"),
    "maft_run_iteration": Family("Iteration under way"),
    "maft_run_iterations": Family("Iterations asked for"),
    "maft_run_progress_ratio": Family("Share of the run's work that is done"),
    "maft_run_accuracy_ratio": Family("Held-out accuracy after an iteration's debate; 0 is untrained", ("iteration",)),
    "maft_run_accuracy_stderr_ratio": Family("Standard error of the held-out accuracy, over questions", ("iteration",)),
    "maft_run_majority_accuracy_ratio": Family("Held-out accuracy of the majority of first answers", ("iteration",)),
    "maft_run_answer_accuracy_ratio": Family("Held-out accuracy of one first answer", ("iteration",)),
    "maft_run_validation_accuracy_ratio": Family(
        "Accuracy on validation questions, which choose the best iteration", ("iteration",)
    ),
    "maft_run_best_iteration": Family("The iteration that validation questions have chosen by now"),
    "maft_run_consensus_ratio": Family("Held-out: share of agents behind the majority", ("iteration",)),
    "maft_run_agreement_ratio": Family("Training questions of the last debate: share of agents behind the majority"),
    "maft_run_diversity_nats": Family("Of an agent's answers under the others' models, negative log-likelihood per token"),
    "maft_run_probe_accuracy_ratio": Family("Probe questions of the last debate: majority right; below 0.5 training is harmful"),
    "maft_run_abstained_questions": Family("Training questions of the last debate without a label: no majority, or too small"),
    "maft_run_cut_ratio": Family("Answers of the last iteration that a limit of tokens cut off; above 0.1 is too many"),
    "maft_run_clipped_ratio": Family("Answers of the last iteration to a prompt into which not all fitted that the others said"),
    "maft_run_kept_examples": Family("Training examples of the agent with the fewest and with the most", ("role", "agent")),
    "maft_run_flips": Family("Held-out answers that the last debate changed", ("direction",)),
    "maft_run_adapters_trained": Family("Adapters trained so far"),
    "maft_run_tokens": Family("Tokens read (prompt) and written (completion) so far", ("kind",)),
    "maft_run_stage_seconds": Family("Seconds that the run's finished Jobs took"),
    "maft_run_spent_gpu_seconds": Family("GPUs times seconds that its pods held on nodes, servers too"),
    "maft_run_gpu_seconds": Family("The same of Jobs that train, times their GPUs"),
    "maft_run_pod_gpus": Family("GPUs that one pod of the run asks for", ("component",)),
}


class Metrics:
    """The operator's own, and runs by what the watches last delivered."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody asks for
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._runs: dict[str, Seen] = {}
        self._others: dict[str, tuple[other_metrics.Sample, ...]] = {}
        own: dict[str, Any] = {"registry": self.registry}
        buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
        self.reconcile = Histogram("maft_reconcile_seconds", "Time of one reconcile", buckets=buckets, **own)
        self.errors = Counter("maft_reconcile_errors", "Reconciles that failed and are tried again", ["kind"], **own)
        for kind in _FAULTS:  # at zero from the start, so that rates see the first one
            self.errors.labels(kind)
        self.transitions = Counter("maft_run_transitions", "Changes of runs' conditions", ["condition", "status", "reason"], **own)
        codes = "code: 403 is a right that is missing, another 403 has its reason, an error on the way its name"
        self.requests = Counter("maft_api_requests", f"Requests to the API server; {codes}", ["verb", "kind", "code"], **own)
        self.leader = Gauge("maft_leader", "1 if this replica works, 0 if it stands by", **own)
        self.since = Gauge("maft_leader_since_timestamp_seconds", "When this process took the lease; 0 while it stands by", **own)
        self.depth = Gauge("maft_queue_depth", "Runs that are due or will be", **own)
        self.age = Gauge("maft_queue_age_seconds", "How long the oldest run has been due", **own)
        self.lag = Gauge("maft_loop_lag_seconds", "How late the event loop was at its last look, once a second", **own)
        self.blind = Gauge("maft_watch_blind", "1 if the watches do not deliver what a list shows", **own)
        self.watch = Gauge("maft_watch_event_age_seconds", "Since the watches last delivered anything", **own)
        self.registry.register(other_metrics.Others(self._others))

    def leads(self) -> None:
        """Notes that this process has taken the lease. One that loses it ends, and with it these."""
        self.leader.set(1)
        self.since.set(time.time())

    def seen(self, key: str, resource: Mapping[str, Any]) -> None:
        """Takes in what a run, a comparison or a society looks like now."""
        if others := other_metrics.samples(key, resource):
            self._others[key] = others
            return
        ended = text(dict(resource), "status", "completionTime")
        self._runs[key] = series.seen(key, samples(resource), ended)

    def gone(self, key: str) -> None:
        """Drops what has been deleted."""
        self._runs.pop(key, None)
        self._others.pop(key, None)

    def encoded(self, encode: Callable[[CollectorRegistry], bytes]) -> bytes:
        """Returns all series. encode: of Prometheus' client, either format; of runs, which may be thousands, the text is there."""
        own = encode(self.registry)
        end = _END if own.endswith(_END) else b""
        return own.removesuffix(end) + series.text(FAMILIES, list(self._runs.values())).encode() + end


def samples(resource: Mapping[str, Any]) -> Iterator[Sample]:
    """Makes a run's series; at most 61, whatever it has been through."""
    whole = dict(resource)
    state, spec = upgraded(part(whole, "status")), part(whole, "spec")
    why = reason(parts(state, "conditions"))
    yield Sample("maft_run_info", 1, {"phase": text(state, "phase")[:LONGEST] or "Pending", "reason": why[:LONGEST]})
    if created := moment(whole, "metadata", "creationTimestamp"):
        yield Sample("maft_run_created_timestamp_seconds", created.timestamp())
    if times := [since for c in parts(state, "conditions") if (since := moment(c, "lastTransitionTime"))]:
        yield Sample("maft_run_last_transition_timestamp_seconds", max(times).timestamp())
    yield Sample("maft_run_iterations", float(count(spec, "iterations") or 1))
    yield Sample("maft_run_iteration", count(state, "iteration", "current"))
    yield Sample("maft_run_progress_ratio", count(state, "progress", "percent") / 100)
    yield from _of_rows(rows.read(state), count(state, "best", "iteration") if "iteration" in part(state, "best") else None)
    yield Sample("maft_run_spent_gpu_seconds", float(count(state, "spent", "gpuSeconds")))
    for component, section in (("serve", "inference"), ("train", "training")):
        asked = part(spec, section)
        gpus = (count(asked, "gpus") if "gpus" in asked else 1) if section in spec else 0  # left out: one is asked for
        yield Sample("maft_run_pod_gpus", float(gpus), {"component": component})


def reason(conditions: Iterable[Json]) -> str:
    """Finds the reason that counts: of Failed, Complete, Suspended where one is true, else of Progressing, else of Accepted."""
    by_type = {text(c, "type"): c for c in conditions}
    true = [by_type[t] for t in _IF_TRUE if text(by_type.get(t), "status") == "True"]
    rest = [by_type[t] for t in _ELSE if t in by_type]
    return next((text(c, "reason") for c in (*true, *rest)), "") or "Pending"


def _of_rows(several: Sequence[Json], best: int | None) -> Iterator[Sample]:
    if best is not None:
        yield Sample("maft_run_best_iteration", best)
    yield from _scores(_with_scores(several, best))
    yield from _last(several)
    yield from _whole(several)
    yield from _sums(several)


def _with_scores(rows: Sequence[Json], best: int | None) -> list[Json]:
    """The first row, the last ones, and the best iteration's, which alone may have the held-out accuracy."""
    last = rows[1:][1 - SHOWN :]
    chosen = [row for row in rows[1:] if row["iteration"] == best and row not in last]
    return [*rows[:1], *chosen, *last[len(chosen) :]]


def _scores(rows: Iterable[Json]) -> Iterator[Sample]:
    names = {
        "accuracy": "maft_run_accuracy_ratio",
        "majority": "maft_run_majority_accuracy_ratio",
        "answer": "maft_run_answer_accuracy_ratio",
        "consensus": "maft_run_consensus_ratio",
        "validation": "maft_run_validation_accuracy_ratio",
    }
    for row in rows:
        for field, name in names.items():
            if field in row:
                yield Sample(name, row[field]["mean"], {"iteration": str(row["iteration"])})
        if "accuracy" in row:
            yield Sample("maft_run_accuracy_stderr_ratio", row["accuracy"]["stderr"], {"iteration": str(row["iteration"])})


def _last(rows: Sequence[Json]) -> Iterator[Sample]:
    debated = [row for row in rows if "agreement" in row][-1:]
    for row in debated:
        yield Sample("maft_run_agreement_ratio", row["agreement"])
        if "probe" in row:
            yield Sample("maft_run_probe_accuracy_ratio", row["probe"]["mean"])
        if "abstained" in row:
            yield Sample("maft_run_abstained_questions", row["abstained"])
        for role in [role for role in _ROLES if role in row.get("kept", {})]:
            for agent in ("fewest", "most"):
                yield Sample("maft_run_kept_examples", row["kept"][role][agent], {"role": role, "agent": agent})
    for row in [row for row in rows if "nll" in row][-1:]:
        yield Sample("maft_run_diversity_nats", row["nll"])
    for row in [row for row in rows if {"wrongToRight", "rightToWrong"} <= row.keys()][-1:]:
        yield Sample("maft_run_flips", row["wrongToRight"], {"direction": "wrong_to_right"})
        yield Sample("maft_run_flips", row["rightToWrong"], {"direction": "right_to_wrong"})


def _whole(rows: Sequence[Json]) -> Iterator[Sample]:
    for row in [row for row in rows if "answers" in row][-1:]:
        for kind in ("cut", "clipped"):
            yield Sample(f"maft_run_{kind}_ratio", row["answers"][kind] / row["answers"]["asked"])


def _sums(rows: Sequence[Json]) -> Iterator[Sample]:
    def total(field: str) -> float:
        return float(sum(row.get(field, 0) for row in rows))

    yield Sample("maft_run_adapters_trained", total("trained"))
    yield Sample("maft_run_tokens", total("promptTokens"), {"kind": "prompt"})
    yield Sample("maft_run_tokens", total("completionTokens"), {"kind": "completion"})
    yield Sample("maft_run_stage_seconds", total("seconds"))
    yield Sample("maft_run_gpu_seconds", total("gpuSeconds"))
