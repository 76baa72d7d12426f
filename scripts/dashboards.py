"""Writes the Grafana dashboards of the chart: charts/maft/dashboards/{operator,runs,serving}.json, from the panels described here.

Queries of runs' pods use the labels that the chart's PodMonitor copies: maft_dev_run, app_kubernetes_io_component.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import barchart, bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as styles
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from maft_operator.cluster import reasons

FOLDER = Path(__file__).parents[1] / "charts" / "maft" / "dashboards"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNS = 'cluster=~"$cluster", namespace=~"$namespace", run=~"$run"'
PODS = 'cluster=~"$cluster", namespace=~"$namespace", maft_dev_run=~"$run"'
OWN = 'cluster=~"$cluster", namespace=~"$namespace"'
WAITING = "|".join(reason.name for reason in reasons.WAITING)
ENDED = "Complete|Failed|Suspended|Rejected"
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

Steps = Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and what its series are called. A panel of one moment asks for the end of the time range only."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """kind: stat, lines, bars (one bar a series), columns (groups of bars along the label `at`), table."""

    kind: str
    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 12
    height: int = 8
    steps: Steps = ()
    top: float | None = None
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard: rows of panels under their headings. variables: name and the query of its values."""

    name: str
    title: str
    text: str
    variables: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def one(expression: str, legend: str = "") -> tuple[Query, ...]:
    """A panel with a single query."""
    return (Query(expression, legend),)


def several(*expressions: str) -> tuple[Query, ...]:
    """A table with a column for each expression."""
    return tuple(Query(expression) for expression in expressions)


def quantiles(metric: str, where: str) -> tuple[Query, ...]:
    """Median and 95th percentile of a histogram."""
    rate = f"sum by (le) (rate({metric}_bucket{{{where}}}[$__rate_interval]))"
    return tuple(Query(f"histogram_quantile({q}, {rate})", name) for q, name in ((0.5, "half within"), (0.95, "95 % within")))


def of_runs(metric: str, by: str = "", more: str = "") -> str:
    """A metric of runs without the labels of the operator's pod, which change when another replica takes over."""
    return f"max by (cluster, namespace, run{by}) ({metric}{{{RUNS}{more}}})"


def of_kind(kind: str, metric: str, by: str = "", more: str = "") -> str:
    """The same of comparisons and societies, which carry the kind's name as the label of theirs."""
    return f"max by (cluster, namespace, {kind}{by}) (maft_{kind}_{metric}{{{OWN}{more}}})"


def at_iteration(metric: str) -> str:
    """The same with the label `at`: run and iteration in one, for the axis of a chart."""
    return f'label_join({of_runs(metric, ", iteration")}, "at", " · ", "run", "iteration")'


def renamed(expression: str) -> str:
    """Labels of pods as the operator's metrics have them."""
    inner = f'label_replace({expression}, "run", "$1", "maft_dev_run", "(.+)")'
    return f'label_replace({inner}, "component", "$1", "app_kubernetes_io_component", "(.+)")'


_PODS_UP = renamed(
    f"count by (cluster, namespace, maft_dev_run, app_kubernetes_io_component)"
    f' ({{__name__=~"maft_progress_expected|vllm:num_requests_running", {PODS}}})'
)
GPUS = (
    f"sum by (cluster, namespace, run, component) ({_PODS_UP} * on (cluster, namespace, run, component) group_left ()"
    f" max by (cluster, namespace, run, component) (maft_run_pod_gpus{{{RUNS}}}))"
)
IDLE = f"count(sum by (cluster, namespace, pod) (vllm:num_requests_running{{{PODS}}} + vllm:num_requests_waiting{{{PODS}}}) == 0)"
_PROCESS = f"and on (cluster, namespace, pod) maft_leader{{{OWN}}}"

OPERATOR = Page(
    "operator",
    "maft / operator",
    "Whether the operator itself is well: does one replica lead, does it see the cluster, does it keep up, what does it ask for.",
    (
        ("cluster", "Cluster", "label_values(maft_leader, cluster)"),
        ("namespace", "Operator's namespace", 'label_values(maft_leader{cluster=~"$cluster"}, namespace)'),
    ),
    (
        (
            "Is it well?",
            (
                Panel(
                    "stat", "Replicas that lead",
                    "Of each release exactly one replica works; the others stand by. None: no run goes on. Two: both may write.",
                    one(f"sum by (cluster, namespace, job) (maft_leader{{{OWN}}})", "{{cluster}} {{namespace}} {{job}}"), "none", 4, 4, ((0, RED), (1, GREEN), (2, RED)),
                ),
                Panel(
                    "stat", "Replicas in all", "Operator processes that Prometheus reaches.",
                    one(f"count(maft_leader{{{OWN}}})"), "none", 4, 4, ((0, RED), (1, GREEN)),
                ),
                Panel(
                    "stat", "Sees the cluster",
                    "Every five minutes the operator compares what its watches told it with a plain list. BLIND: the watches miss changes.",
                    one(f"max(maft_watch_blind{{{OWN}}})"), "none", 4, 4, ((0, GREEN), (1, RED)),
                    words={"0": ("yes", GREEN), "1": ("BLIND", RED)},
                ),
                Panel(
                    "stat", "Failed reconciles, last hour",
                    "Reconciles that ended in an error. Each is tried again, at most a minute later. A few after a restart are normal.",
                    one(f"sum(increase(maft_reconcile_errors_total{{{OWN}}}[1h]))"), "none", 4, 4, ((0, GREEN), (5, YELLOW), (30, RED)),
                ),
                Panel(
                    "stat", "Longest wait in the queue", "How long the run that waits longest for a reconcile has been due. Where for 5 min none comes to an end the operator restarts.",
                    one(f"max(maft_queue_age_seconds{{{OWN}}})"), "s", 4, 4, ((0, GREEN), (10, YELLOW), (120, RED)),
                ),
                Panel(
                    "stat", "Leader since", "When the replica that leads took over. Recent, without an update of yours: it lost its lease or crashed.",
                    one(f"1000 * max(maft_leader_since_timestamp_seconds{{{OWN}}} > 0)"), "dateTimeFromNow", 4, 4,
                ),
            ),
        ),
        (
            "Does it keep up?",
            (
                Panel(
                    "lines", "Reconciles per second", "A reconcile looks at a run and its pods, and does the next step. `failed` ones are tried again.",
                    (
                        Query(f"sum(rate(maft_reconcile_seconds_count{{{OWN}}}[$__rate_interval]))", "all"),
                        Query(f"sum by (kind) (rate(maft_reconcile_errors_total{{{OWN}}}[$__rate_interval]))", "failed: {{kind}}"),
                    ),
                    "ops", 8,
                ),
                Panel(
                    "lines", "Time of one reconcile", "Waiting for the API server, and for the metrics of running tasks (two seconds at most). Longer: the API server is slow.",
                    quantiles("maft_reconcile_seconds", OWN), "s", 8, steps=((0, GREEN), (2.5, YELLOW)),
                ),
                Panel(
                    "lines", "Runs in the queue", "Runs that are due now or at a set time. Steady is fine; growing with no end is not.",
                    one(f"max(maft_queue_depth{{{OWN}}})", "runs"), "none", 8,
                ),
            ),
        ),
        (
            "What it does",
            (
                Panel(
                    "lines", "Requests to the API server", "Reads (get) and writes. A settled run causes none.",
                    one(f"sum by (verb) (rate(maft_api_requests_total{{{OWN}}}[$__rate_interval]))", "{{verb}}"), "reqps", 12,
                ),
                Panel(
                    "lines", "Since the last event of the watches",
                    "With runs under way something comes every few seconds. Long and steady while runs work: see `Sees the cluster`.",
                    one(f"max(maft_watch_event_age_seconds{{{OWN}}} and on (cluster, namespace, pod) maft_leader == 1)", "seconds"), "s", 12,
                ),
                Panel(
                    "bars", "Changes of runs since the leader started", "Changes of runs' conditions, each counted once: working, complete, failed with the reason.",
                    one(
                        f"sort_desc(sum by (condition, status, reason) (maft_run_transitions_total{{{OWN}}} and on (cluster, namespace, pod) maft_leader == 1))",
                        "{{condition}}={{status}} {{reason}}",
                    ),
                    "none", 12, 9, empty="none yet",
                ),
                Panel(
                    "bars", "Requests that were not granted, since the leader started",
                    "403: a right is missing. 404: not there, often just an answer. 409: somebody was faster. 422, 500: an object that the schema refuses. A word: why a quota, a policy or a webhook refuses it, or the network.",
                    one(
                        f'sort_desc(sum by (code, verb, kind) (maft_api_requests_total{{{OWN}, code!~"2.."}} and on (cluster, namespace, pod) maft_leader == 1))',
                        "{{code}} {{verb}} {{kind}}",
                    ),
                    "none", 12, 9, empty="none",
                ),
            ),
        ),
        (
            "The process",
            (
                Panel(
                    "lines", "Memory", "Resident memory of each replica. The chart's limit is 512 MiB.",
                    one(f"process_resident_memory_bytes{{{OWN}}} {_PROCESS}", "{{pod}}"), "bytes", 8, steps=((0, GREEN), (450e6, RED)),
                ),
                Panel(
                    "lines", "Processor", "Cores that each replica keeps busy; it can use one.",
                    one(f"rate(process_cpu_seconds_total{{{OWN}}}[$__rate_interval]) {_PROCESS}", "{{pod}}"), "none", 8,
                    steps=((0, GREEN), (0.9, RED)),
                ),
                Panel(
                    "lines", "Lag of the event loop", "How late the program comes to its own clock. Above a second it is overloaded or held up.",
                    one(f"maft_loop_lag_seconds{{{OWN}}}", "{{pod}}"), "s", 8, steps=((0, GREEN), (1, RED)),
                ),
            ),
        ),
    ),
)  # fmt: skip

_TABLE = {
    "namespace": "Namespace", "run": "Run", "phase": "Phase", "reason": "Why",
    "Value #B": "Done", "Value #C": "Iteration", "Value #D": "of", "Value #E": "Best accuracy", "Value #F": "Untrained, one answer",
    "Value #G": "Tokens written", "Value #H": "Age", "cluster": "Cluster",
}  # fmt: skip
_COMPARISONS = {
    "namespace": "Namespace", "comparison": "Comparison", "phase": "Phase", "Value #B": "Runs", "Value #C": "under way",
    "Value #D": "complete", "Value #E": "failed", "Value #F": "Best accuracy", "cluster": "Cluster",
}  # fmt: skip
_SOCIETIES = {
    "namespace": "Namespace", "society": "Society", "phase": "Phase", "run": "Of run", "Value #B": "Iteration", "Value #C": "Pods asked for",
    "Value #D": "that answer", "cluster": "Cluster",
}  # fmt: skip
RUNS_PAGE = Page(
    "runs",
    "maft / runs",
    "Multiagent finetuning runs: which there are, how far they are, how accurate their agents have become, what they cost, what is wrong.",
    (
        ("cluster", "Cluster", "label_values(maft_run_info, cluster)"),
        ("namespace", "Namespace", 'label_values(maft_run_info{cluster=~"$cluster"}, namespace)'),
        ("run", "Run", 'label_values(maft_run_info{cluster=~"$cluster", namespace=~"$namespace"}, run)'),
    ),
    (
        (
            "What is there?",
            (
                Panel(
                    "stat", "Under way", "Runs that work, and nothing hinders them.",
                    one(f'count(maft_run_info{{{RUNS}, phase!~"{ENDED}", reason!~"{WAITING}"}}) or vector(0)'), "none", 4, 4, ((0, BLUE),),
                ),
                Panel(
                    "stat", "Waiting", "Runs that cannot go on until something outside of them changes: a node, a quota, a Secret, an image.",
                    one(f'count(maft_run_info{{{RUNS}, phase!~"{ENDED}", reason=~"{WAITING}"}}) or vector(0)'), "none", 4, 4,
                    ((0, GREEN), (1, YELLOW)),
                ),
                Panel(
                    "stat", "Failed", "Runs that ended without a result, and resources that were not accepted.",
                    one(f'count(maft_run_info{{{RUNS}, phase=~"Failed|Rejected"}}) or vector(0)'), "none", 4, 4, ((0, GREEN), (1, RED)),
                ),
                Panel(
                    "stat", "Complete", "Runs that did all iterations; their adapters and report are in the store.",
                    one(f'count(maft_run_info{{{RUNS}, phase="Complete"}}) or vector(0)'), "none", 4, 4, ((0, GREEN),),
                ),
                Panel(
                    "stat", "GPUs held now", "GPUs that running servers and trainers of these runs ask for.",
                    one(f"sum({GPUS}) or vector(0)"), "none", 4, 4, ((0, BLUE),),
                ),
                Panel(
                    "stat", "Servers that idle", "vLLM servers without a request. A run that trains with lifetime Run leaves its servers idle.",
                    one(f"{IDLE} or vector(0)"), "none", 4, 4, ((0, GREEN), (1, YELLOW)),
                ),
                Panel(
                    "table", "Runs",
                    "Phase: what happens now. Why: the reason of the condition that counts (docs/status.md). Accuracy: over held-out questions, "
                    "after the debate; compare it with one answer of the untrained model.",
                    several(
                        of_runs("maft_run_info", ", phase, reason"),
                        of_runs("maft_run_progress_ratio"),
                        of_runs("maft_run_iteration"),
                        of_runs("maft_run_iterations"),
                        f'max by (cluster, namespace, run) (maft_run_accuracy_ratio{{{RUNS}, iteration!="0"}})',
                        f'max by (cluster, namespace, run) (maft_run_answer_accuracy_ratio{{{RUNS}, iteration="0"}})',
                        f'max by (cluster, namespace, run) (maft_run_tokens{{{RUNS}, kind="completion"}})',
                        f"time() - {of_runs('maft_run_created_timestamp_seconds')}",
                    ),
                    width=24, height=7, columns=_TABLE,
                    units={"Done": "percentunit", "Best accuracy": "percentunit", "Untrained, one answer": "percentunit", "Age": "dtdurations"},
                ),
                Panel(
                    "table", "Comparisons", "Of all runs, whichever are chosen above. Best accuracy: the method's with the highest mean over its seeds.",
                    several(
                        of_kind("comparison", "info", ", phase"),
                        *(of_kind("comparison", "runs", more=f', state="{state}"') for state in ("total", "active", "complete", "failed")),
                        of_kind("comparison", "best_accuracy_ratio"),
                    ),
                    height=6, columns=_COMPARISONS, units={"Best accuracy": "percentunit"}, empty="none",
                ),
                Panel(
                    "table", "Societies", "Which answer, and whose agents they are. What they are asked: maft / serving.",
                    several(
                        of_kind("society", "info", ", phase, run"),
                        of_kind("society", "iteration"),
                        *(of_kind("society", "replicas", more=f', state="{state}"') for state in ("wanted", "ready")),
                    ),
                    height=6, columns=_SOCIETIES, empty="none",
                ),
            ),
        ),
        (
            "What is wrong?",
            (
                Panel(
                    "table", "Runs that failed or wait", "`kubectl describe maft RUN` says the same with what to do about it.",
                    one(
                        f'max by (cluster, namespace, run, phase, reason) (maft_run_info{{{RUNS}, phase=~"Failed|Rejected"}}'
                        f' or maft_run_info{{{RUNS}, phase!~"{ENDED}", reason=~"{WAITING}|Retrying|StoreUnusable|OutOfMemory|Evicted|CrashLoop"}})'
                    ),
                    columns={"namespace": "Namespace", "run": "Run", "phase": "Phase", "reason": "Why", "cluster": "Cluster"}, height=6, empty="nothing",
                ),
                Panel(
                    "table", "Alerts that fire", "Each has a page in docs/runbooks with what it means and what to do.",
                    one('max by (alertname, severity, cluster, namespace, run) (ALERTS{alertname=~"Maft.*", alertstate="firing"})'),
                    columns={"alertname": "Alert", "severity": "Severity", "namespace": "Namespace", "run": "Run", "cluster": "Cluster"}, height=6, empty="none",
                ),
            ),
        ),
        (
            "How far?",
            (
                Panel(
                    "lines", "Work done", "Share of all the run's work: debates, training and evaluations of all iterations. 100 %: complete.",
                    one(of_runs("maft_run_progress_ratio"), "{{run}}"), "percentunit", 12, top=1,
                ),
                Panel(
                    "lines", "Tasks under way",
                    "Each running task and its iteration: share of questions debated, or of training steps made.",
                    one(
                        f"max by (cluster, namespace, maft_dev_run, app_kubernetes_io_component, maft_dev_iteration, pod)"
                        f" (maft_progress_done{{{PODS}}} / (maft_progress_expected{{{PODS}}} > 0))",
                        "{{maft_dev_run}} {{app_kubernetes_io_component}} {{maft_dev_iteration}}",
                    ),
                    "percentunit", 12, top=1,
                ),
            ),
        ),
        (
            "How accurate?",
            (
                Panel(
                    "columns", "Accuracy per iteration",
                    "Held-out questions that were answered right. One answer: a single agent alone. Majority: the agents' vote without a debate. "
                    "Debate: the vote after it, which is the result. Iteration 0 is the untrained model. Where validation questions choose the best "
                    "iteration, it alone debates the held-out ones.",
                    (
                        Query(at_iteration("maft_run_answer_accuracy_ratio"), "one answer"),
                        Query(at_iteration("maft_run_majority_accuracy_ratio"), "majority"),
                        Query(at_iteration("maft_run_accuracy_ratio"), "debate"),
                        Query(at_iteration("maft_run_accuracy_stderr_ratio"), "± standard error"),
                        Query(at_iteration("maft_run_validation_accuracy_ratio"), "debate, validation questions"),
                    ),
                    "percentunit", 12, 9, top=1,
                ),
                Panel(
                    "columns", "Agreement and diversity per iteration",
                    "Consensus: share of agents behind the majority, over held-out questions. Diversity is the rest. "
                    "Diversity near 0 leaves nothing to debate; a consensus below one half makes the majority a weak teacher.",
                    (
                        Query(at_iteration("maft_run_consensus_ratio"), "consensus"),
                        Query(f'label_join(1 - {of_runs("maft_run_consensus_ratio", ", iteration")}, "at", " · ", "run", "iteration")', "diversity"),
                    ),
                    "percentunit", 12, 9, top=1,
                ),
                Panel(
                    "bars", "Answers that the last debate changed",
                    "Single agents' held-out answers. `wrong to right` should outweigh `right to wrong`; else the debate does harm.",
                    one(of_runs("maft_run_flips", ", direction"), "{{run}}: {{direction}}"), "none", 8,
                ),
                Panel(
                    "bars", "Training examples",
                    "That the last debate gave each role of an agent: of the agent with the fewest and of the one with the most. "
                    "Below training.minExamples an agent keeps the adapter that it had.",
                    one(of_runs("maft_run_kept_examples", ", role, agent"), "{{run}}: {{role}}, {{agent}}"), "none", 8,
                ),
                Panel(
                    "bars", "Agreement on training questions", "Share of agents behind the majority in the last training debate. No labels are used there.",
                    one(of_runs("maft_run_agreement_ratio"), "{{run}}"), "percentunit", 8, top=1, steps=((0, RED), (0.5, YELLOW), (0.6, GREEN)),
                ),
                Panel(
                    "lines", "Questions without consensus", "While a debate runs: share of its questions so far whose last vote was tied or empty.",
                    one(
                        f"max by (cluster, namespace, maft_dev_run, app_kubernetes_io_component, maft_dev_iteration) (maft_no_consensus_ratio{{{PODS}}})",
                        "{{maft_dev_run}} {{app_kubernetes_io_component}} {{maft_dev_iteration}}",
                    ),
                    "percentunit", 8, top=1, steps=((0, GREEN), (0.5, RED)),
                ),
                Panel(
                    "lines", "Agreement so far", "While a debate runs: share of agents that agree with the majority.",
                    one(
                        f"max by (cluster, namespace, maft_dev_run, app_kubernetes_io_component, maft_dev_iteration) (maft_agreement_ratio{{{PODS}}})",
                        "{{maft_dev_run}} {{app_kubernetes_io_component}} {{maft_dev_iteration}}",
                    ),
                    "percentunit", 8, top=1,
                ),
                Panel(
                    "lines", "Answers cut off", "While a debate runs: share of its answers so far that a limit of tokens ended. They never train.",
                    one(
                        f"max by (cluster, namespace, maft_dev_run, app_kubernetes_io_component, maft_dev_iteration) (maft_cut_ratio{{{PODS}}})",
                        "{{maft_dev_run}} {{app_kubernetes_io_component}} {{maft_dev_iteration}}",
                    ),
                    "percentunit", 8, top=1, steps=((0, GREEN), (0.1, RED)),
                ),
                Panel(
                    "lines", "Answers to clipped prompts", "While a debate runs: share of its answers so far to a prompt into which not all fitted that the others said.",
                    one(
                        f"max by (cluster, namespace, maft_dev_run, app_kubernetes_io_component, maft_dev_iteration) (maft_clipped_ratio{{{PODS}}})",
                        "{{maft_dev_run}} {{app_kubernetes_io_component}} {{maft_dev_iteration}}",
                    ),
                    "percentunit", 8, top=1,
                ),
                Panel(
                    "bars", "Answers cut or clipped", "Of the last iteration: ended by a limit of tokens, or to a prompt into which not all fitted.",
                    (
                        Query(of_runs("maft_run_cut_ratio"), "{{run}} cut"),
                        Query(of_runs("maft_run_clipped_ratio"), "{{run}} clipped"),
                    ),
                    "percentunit", 8, top=1, empty="none yet",
                ),
                Panel(
                    "lines", "Training loss", "Of the last step, in nats per token. It begins anew with each adapter, and should fall within one.",
                    one(f"max by (cluster, namespace, maft_dev_run, maft_dev_iteration, pod) (maft_train_loss{{{PODS}}})", "{{maft_dev_run}} iteration {{maft_dev_iteration}}"),
                    "none", 8,
                ),
                Panel(
                    "bars", "Majority right on the probe", "Of the labelled questions that train nothing (task.probe). Below one half training reinforces wrong answers.",
                    one(of_runs("maft_run_probe_accuracy_ratio"), "{{run}}"), "percentunit", 8, top=1, steps=((0, RED), (0.5, GREEN)), empty="no probe",
                ),
                Panel(
                    "bars", "Questions without a label", "Training questions of the last debate that train nothing: tied, or fewer than debate.minAgreement agents alike.",
                    one(of_runs("maft_run_abstained_questions"), "{{run}}"), "none", 8, empty="none yet",
                ),
                Panel(
                    "bars", "Diversity of the agents", "Negative log-likelihood of an agent's answers under the others' models, nats per token (evaluation.diversity). It should not fall towards 0.",
                    one(of_runs("maft_run_diversity_nats"), "{{run}}"), "none", 8, empty="not measured",
                ),
                Panel(
                    "bars", "The best iteration", "The one that validation questions have chosen by now (evaluation.validation): status.artifacts.adapters points at it.",
                    one(of_runs("maft_run_best_iteration"), "{{run}}"), "none", 8, empty="none is chosen",
                ),
            ),
        ),
        (
            "What does it cost?",
            (
                Panel(
                    "bars", "Tokens", "Read (prompt) and written (completion) by all finished debates and evaluations.",
                    one(of_runs("maft_run_tokens", ", kind") + " > 0", "{{run}}: {{kind}}"), "short", 8, empty="none yet",
                ),
                Panel(
                    "lines", "Tokens written per second", "By debates and evaluations that run.",
                    one(f"sum by (cluster, namespace, maft_dev_run) (rate(maft_completion_tokens_total{{{PODS}}}[$__rate_interval]))", "{{maft_dev_run}}"), "short", 8,
                ),
                Panel(
                    "bars", "Time of Jobs", "Seconds that the run's finished Jobs took, added up. Jobs side by side count each.",
                    one(of_runs("maft_run_stage_seconds") + " > 0", "{{run}}"), "s", 8, empty="none yet",
                ),
                Panel(
                    "bars", "GPU-seconds of training", "Time of finished training Jobs times their GPUs. Zero where training runs on processors.",
                    one(of_runs("maft_run_gpu_seconds"), "{{run}}"), "s", 8,
                ),
                Panel(
                    "bars", "GPU-seconds so far", "Of the whole run, servers and training, as spec.budget.gpuHours counts them. Zero where runs use processors.",
                    one(of_runs("maft_run_spent_gpu_seconds"), "{{run}}"), "s", 8,
                ),
                Panel(
                    "lines", "GPUs held", "By running pods: `serve` are vLLM servers, `train` trainers. Zero where runs use processors.",
                    one(GPUS, "{{run}} {{component}}"), "none", 8,
                ),
                Panel(
                    "bars", "GPU-seconds in the time shown", "GPUs held times time, for servers and trainers, over the dashboard's time range.",
                    one(f"sum_over_time(({GPUS})[$__range:15s]) * 15", "{{run}} {{component}}"), "s", 8,
                ),
            ),
        ),
    ),
)  # fmt: skip

_BY_SOCIETY, _WINDOW = "sum by (cluster, namespace, maft_dev_society)", f"{{{PODS}}}[$__rate_interval]"
_MARGIN = (
    f"{_BY_SOCIETY} (rate(maft_society_margin_ratio_sum{_WINDOW})) / {_BY_SOCIETY} (rate(maft_society_margin_ratio_count{_WINDOW}))"
)
_ABSTAINED = f"{_BY_SOCIETY} (rate(maft_society_abstentions_total{_WINDOW})) / {_BY_SOCIETY} (rate(maft_society_margin_ratio_count{_WINDOW}))"

SERVING = Page(
    "serving",
    "maft / serving",
    "The vLLM servers of runs: how busy they are, how fast they answer, how full their memory is. Servers come and go with a run's phases.",
    (
        ("cluster", "Cluster", "label_values(vllm:num_requests_running, cluster)"),
        ("namespace", "Namespace", 'label_values(vllm:num_requests_running{cluster=~"$cluster"}, namespace)'),
        ("run", "Run", 'label_values(vllm:num_requests_running{cluster=~"$cluster", namespace=~"$namespace"}, maft_dev_run)'),
    ),
    (
        (
            "Now",
            (
                Panel(
                    "stat", "Servers", "vLLM servers that Prometheus reaches. A run with lifetime Phase has none while it trains.",
                    one(f"count(vllm:num_requests_running{{{PODS}}}) or vector(0)"), "none", 4, 4, ((0, BLUE),),
                ),
                Panel(
                    "stat", "Servers that idle", "Without any request. Short breaks between tasks are normal.",
                    one(f"{IDLE} or vector(0)"), "none", 4, 4, ((0, GREEN), (1, YELLOW)),
                ),
                Panel(
                    "stat", "Requests at work", "Requests that are being answered.",
                    one(f"sum(vllm:num_requests_running{{{PODS}}}) or vector(0)"), "none", 4, 4, ((0, BLUE),),
                ),
                Panel(
                    "stat", "Requests that wait", "A few keep the server busy; the debate holds back more by itself.",
                    one(f"sum(vllm:num_requests_waiting{{{PODS}}}) or vector(0)"), "none", 4, 4, ((0, GREEN), (500, YELLOW)),
                ),
                Panel(
                    "stat", "Fullest cache", "Share of the key-value cache in use, of the fullest server. At 100 % requests are put off and begun anew.",
                    one(f"max(vllm:kv_cache_usage_perc{{{PODS}}}) or vector(0)"), "percentunit", 4, 4, ((0, GREEN), (0.9, YELLOW), (0.98, RED)), 1,
                ),
                Panel(
                    "stat", "Tokens written", "By all servers shown, in the last minute, per second.",
                    one(f"sum(rate(vllm:generation_tokens_total{{{PODS}}}[1m])) or vector(0)"), "short", 4, 4, ((0, BLUE),),
                ),
            ),
        ),
        (
            "How busy?",
            (
                Panel(
                    "lines", "Requests", "Per server. Zero at work for long while its run is not finished: the GPU stands idle.",
                    (
                        Query(f"sum by (cluster, namespace, pod) (vllm:num_requests_running{{{PODS}}})", "{{pod}} at work"),
                        Query(f"sum by (cluster, namespace, pod) (vllm:num_requests_waiting{{{PODS}}})", "{{pod}} waiting"),
                    ),
                    "none", 12,
                ),
                Panel(
                    "lines", "Cache in use", "Share of the key-value cache, per server.",
                    one(f"max by (cluster, namespace, pod) (vllm:kv_cache_usage_perc{{{PODS}}})", "{{pod}}"), "percentunit", 12, top=1,
                    steps=((0, GREEN), (0.9, YELLOW), (0.98, RED)),
                ),
                Panel(
                    "lines", "Tokens per second", "Read: prompts, those found in the cache included. Written: answers.",
                    (
                        Query(f"sum by (cluster, namespace, maft_dev_run) (rate(vllm:prompt_tokens_total{{{PODS}}}[$__rate_interval]))", "{{maft_dev_run}} read"),
                        Query(f"sum by (cluster, namespace, maft_dev_run) (rate(vllm:generation_tokens_total{{{PODS}}}[$__rate_interval]))", "{{maft_dev_run}} written"),
                    ),
                    "short", 12,
                ),
                Panel(
                    "lines", "Requests put off", "Begun anew because the cache was full (preemptions), per second. More than now and then: give the server more memory.",
                    one(f"sum by (cluster, namespace, pod) (rate(vllm:num_preemptions_total{{{PODS}}}[$__rate_interval]))", "{{pod}}"), "ops", 12,
                ),
            ),
        ),
        (
            "Societies that answer",
            (
                Panel(
                    "stat", "Pods that answer", "Pods of societies whose agents have all answered. Societies are of no run: choose all runs to see them.",
                    one(f"sum(maft_society_ready{{{PODS}}}) or vector(0)"), "none", 4, 8, ((0, BLUE),),
                ),
                Panel(
                    "stat", "Questions under way", "At all societies shown; each pod takes maxConcurrentDebates of them.",
                    one(f"sum(maft_society_requests_active{{{PODS}}}) or vector(0)"), "none", 4, 8, ((0, BLUE),),
                ),
                Panel(
                    "lines", "Questions by model and status", "200: answered. 429: beyond the cap. 408: too slow. 499: whoever asked went. 503: the agents' server is away.",
                    one(f"sum by (cluster, namespace, maft_dev_society, model, status) (rate(maft_society_requests_total{{{PODS}}}[$__rate_interval]))", "{{maft_dev_society}} {{model}} {{status}}"),
                    "ops", 16,
                ),
                Panel("lines", "Time of an answer", "From a question to the end of its answer.", quantiles("maft_society_request_seconds", PODS), "s", 8),
                Panel("lines", "Tokens of an answer", "Written by all agents in all rounds, summaries included.", quantiles("maft_society_answer_tokens", PODS), "short", 8),
                Panel(
                    "lines", "How sure they are", "Mean margin of the vote, as a share of the agents, and the share of debates without a majority.",
                    (
                        Query(_MARGIN, "{{maft_dev_society}} margin"),
                        Query(_ABSTAINED, "{{maft_dev_society}} no majority"),
                    ),
                    "percentunit", 8, top=1,
                ),
                Panel(
                    "lines", "Questions kept", "Written to the bucket for a next run, where the society keeps questions; lost: the bucket was away for long.",
                    (
                        Query(f"sum by (cluster, namespace, maft_dev_society) (rate(maft_society_questions_kept_total{{{PODS}}}[$__rate_interval]))", "{{maft_dev_society}} kept"),
                        Query(f"sum by (cluster, namespace, maft_dev_society) (rate(maft_society_questions_lost_total{{{PODS}}}[$__rate_interval]))", "{{maft_dev_society}} lost"),
                    ),
                    "ops", 12,
                ),
            ),
        ),
        (
            "How fast?",
            (
                Panel(
                    "lines", "Time to the first token", "From a request's arrival to its first token.",
                    quantiles("vllm:time_to_first_token_seconds", PODS), "s", 8,
                ),
                Panel(
                    "lines", "Time between tokens", "Per token after the first; one over it is the speed of a single answer.",
                    quantiles("vllm:inter_token_latency_seconds", PODS), "s", 8,
                ),
                Panel(
                    "lines", "Time of a request", "From arrival to the last token.", quantiles("vllm:e2e_request_latency_seconds", PODS), "s", 8,
                ),
            ),
        ),
        (
            "Prompts, answers, adapters",
            (
                Panel(
                    "lines", "Prompts found in the cache", "Share of prompt tokens that had not to be read again. Debates share long prefixes: it should be high in later rounds.",
                    one(
                        f"sum by (cluster, namespace, maft_dev_run) (rate(vllm:prefix_cache_hits_total{{{PODS}}}[$__rate_interval]))"
                        f" / (sum by (cluster, namespace, maft_dev_run) (rate(vllm:prefix_cache_queries_total{{{PODS}}}[$__rate_interval])) > 0)",
                        "{{maft_dev_run}}",
                    ),
                    "percentunit", 8, top=1,
                ),
                Panel(
                    "bars", "How answers ended", "By all servers in the time shown. stop: by themselves. length: cut off at debate.maxTokens; many of those lose their answer. abort: the client went away.",
                    one(f"sum by (finished_reason) (last_over_time(vllm:request_success_total{{{PODS}}}[$__range]))", "{{finished_reason}}"), "short", 8,
                ),
                Panel(
                    "table", "Adapters used last", "Names of the adapters in each server's last batch that had any: role, agent, iteration and hash. None in iteration 0 and 1: the base model debates.",
                    one(f"topk by (cluster, namespace, pod) (1, last_over_time(vllm:lora_requests_info{{{PODS}, running_lora_adapters!=\"\"}}[$__range]))"),
                    width=8, columns={"pod": "Server", "running_lora_adapters": "Adapters"}, empty="none",
                ),
            ),
        ),
    ),
)  # fmt: skip

PAGES = (OPERATOR, RUNS_PAGE, SERVING)

# --- from the descriptions to Grafana's model ---


def target(query: Query, number: int, kind: str) -> prometheus.Dataquery:
    """One query of a panel."""
    made = prometheus.Dataquery().expr(query.expression).ref_id(chr(ord("A") + number)).legend_format(query.legend)
    if kind == "lines":
        return made.range()
    made.instant()
    return made.format(PromQueryFormat.TABLE) if kind in ("table", "columns") else made


def built(panel: Panel) -> Any:
    """The builder of a panel."""
    makers = {
        "stat": stat.Panel, "lines": timeseries.Panel, "bars": bargauge.Panel, "columns": barchart.Panel, "table": table.Panel,
    }  # fmt: skip
    made: Any = makers[panel.kind]()
    made.title(panel.title).description(panel.text).datasource(SOURCE).unit(panel.unit).span(panel.width).height(panel.height)
    for number, query in enumerate(panel.queries):
        made.with_target(target(query, number, panel.kind))
    if panel.empty:
        made.no_value(panel.empty)
    if panel.top is not None:
        made.min(0).max(panel.top)
    if panel.words:
        made.mappings([models.ValueMap({k: models.ValueMappingResult(text=t, color=c) for k, (t, c) in panel.words.items()})])
    if panel.steps:
        steps = [models.Threshold(None if not i else value, color) for i, (value, color) in enumerate(panel.steps)]
        made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    _STYLES[panel.kind](made, panel)
    return made


def _stat(made: stat.Panel, panel: Panel) -> None:
    made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).graph_mode(styles.BigValueGraphMode.NONE)
    made.color_mode(styles.BigValueColorMode.VALUE)


def _lines(made: timeseries.Panel, panel: Panel) -> None:
    made.line_width(2).fill_opacity(8).axis_soft_min(0)
    legend = common.VizLegendOptions().display_mode(styles.LegendDisplayMode.LIST).placement(styles.LegendPlacement.BOTTOM)
    made.legend(legend.show_legend(True))
    if panel.steps:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(styles.GraphThresholdsStyleMode.DASHED))


def _bars(made: bargauge.Panel, panel: Panel) -> None:
    made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).orientation(styles.VizOrientation.HORIZONTAL)
    made.display_mode(styles.BarGaugeDisplayMode.BASIC).min(0)


def _columns(made: barchart.Panel, panel: Panel) -> None:
    names = {f"Value #{chr(ord('A') + i)}": query.legend for i, query in enumerate(panel.queries)}
    made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    shown = models.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Time": True, "cluster": True, "namespace": True, "run": True, "iteration": True},
            "renameByName": names,
        },
    )
    made.with_transformation(shown)
    order = {"fields": {}, "sort": [{"field": "at", "desc": False}]}
    made.with_transformation(models.DataTransformerConfig(id_val="sortBy", options=order))
    made.x_field("at").show_value(styles.VisibilityMode.AUTO).group_width(0.7)


def _table(made: table.Panel, panel: Panel) -> None:
    if len(panel.queries) > 1:
        made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    order = {name: i for i, name in enumerate(panel.columns)}
    options = {"indexByName": order, "renameByName": dict(panel.columns), "includeByName": dict.fromkeys(panel.columns, True)}
    made.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
    for name, unit in panel.units.items():
        made.override_by_name(name, [models.DynamicConfigValue("unit", unit)])


_STYLES: Mapping[str, Any] = {"stat": _stat, "lines": _lines, "bars": _bars, "columns": _columns, "table": _table}


def variables(page: Page) -> Iterator[Any]:
    """The data source, then what the page can be narrowed to."""
    yield dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    for name, label, query in page.variables:
        made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query({"query": query, "refId": name})
        made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.NATURAL_ASC)
        yield made.multi(True).include_all(True).all_value(".*").current(models.VariableOption(text="All", value="$__all"))


def document(page: Page) -> str:
    """A dashboard as JSON."""
    made = dashboard.Dashboard(page.title).uid(f"maft-{page.name}").description(page.text).tags(["maft"]).timezone("browser")
    made.time("now-1h", "now").refresh("30s").tooltip(models.DashboardCursorSync.CROSSHAIR).editable()
    others = dashboard.DashboardLink("maft").type(models.DashboardLinkType.DASHBOARDS).tags(["maft"]).keep_time(True)
    made.link(others.include_vars(True))
    for variable in variables(page):
        made.with_variable(variable)
    for title, panels in page.rows:
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(built(panel))
    return json.dumps(json.loads(json.dumps(made.build(), cls=JSONEncoder)), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for page_ in PAGES:
        FOLDER.joinpath(f"{page_.name}.json").write_text(document(page_))
