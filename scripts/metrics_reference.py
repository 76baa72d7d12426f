"""Writes docs/metrics.md from the code: every metric of the operator and of the programs, with type, labels and meaning."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from maft import program
from maft.debate.progress import DebateProgress
from maft.endpoint.measured import Measured
from maft.train.shown import loss_gauge
from maft_operator.cluster.metrics import FAMILIES, Metrics
from maft_operator.cluster.other_metrics import OF_COMPARISONS, OF_SOCIETIES
from maft_operator.cluster.scrapes import FRESH
from maft_operator.cluster.series import OLD, RECENT

ROOT = Path(__file__).parents[1]
NOWHERE = ("", 0)  # metrics are made, not served
PROGRAMS: Mapping[str, Callable[[program.Progress], object]] = {
    "debate, evaluate": DebateProgress,
    "train": loss_gauge,
}
HEAD = f"""# Metrics

Made by `scripts/metrics_reference.py` from the code. The operator serves them at `:8080/metrics`, tasks of runs on a cluster at
`:9100`, vLLM servers at `:8000`. How to look at them: [observability.md](observability.md).

- Ratios are 0 to 1, times are seconds, tokens and examples are counts. Accuracies are over held-out questions.
- A run has at most 61 series at the operator, whatever it has been through: of its iterations, the untrained one and the last
  seven.
- Of finished runs the last {RECENT} have all of them, older ones `{OLD}` alone; `maft_runs` counts all. A scrape of 5,000 finished
  runs takes a tenth of a second and goes beside the operator's work.
- Metrics of runs are made from the runs as they are when Prometheus asks: they are gone at the first scrape after a run was
  deleted. Who asks within {FRESH:.0f} s of another is given the same text, and who asks while it is made waits for it.
  Counters are of one operator process and begin at zero with it; `maft_run_transitions_total` counts each change of a
  condition once.
- Only the replica that leads knows runs. Take its own labels away with `max by (namespace, run, …)`, so that a change of leader
  leaves no gap. Let the scrape keep the label `namespace` of runs (`honorLabels: true`, as the chart's ServiceMonitor has it).
- The chart's PodMonitor gives pods' metrics the labels `maft_dev_run` or `maft_dev_society`, `maft_dev_iteration` and
  `app_kubernetes_io_component` (`serve`, `debate`, `train`, `evaluate`, `prepare`, `preflight`, `report`, `society`) beside
  `namespace` and `pod`.
- `maft_run_gpu_seconds` is of training alone. What servers hold: running pods times `maft_run_pod_gpus`, as the dashboard
  `maft / runs` has it.
"""
SOCIETY = """Of `python -m maft.endpoint`, which answers users ([serving.md](serving.md)), at `/metrics` of its own port. `model`:
as requests name it.
"""
TAIL = """
## vLLM's

As vLLM has them (`vllm:*`, see its documentation); the dashboard `maft / serving` uses these:

"""


def table(families: Iterator[Metric] | list[Metric], labels: Mapping[str, tuple[str, ...]]) -> str:
    """One row per metric."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        shown = ", ".join(f"`{label}`" for label in labels.get(name, ()))
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation.rstrip('.')} |")
    return "\n".join(rows) + "\n"


def own(metrics: object) -> dict[str, tuple[str, ...]]:
    """Labels of metrics that an object holds."""
    found = [value for value in vars(metrics).values() if hasattr(value, "_labelnames")]
    return {family.name + ("_total" if family.type == "counter" else ""): m._labelnames for m in found for family in m.describe()}


def programs() -> str:
    """Metrics of tasks: those of all, then of each."""
    common = program.Progress(NOWHERE).registry
    parts = [f"### Of every task\n\n{table(list(common.collect()), {})}"]
    seen = {family.name for family in common.collect()}
    for name, make in PROGRAMS.items():
        progress = program.Progress(NOWHERE)
        make(progress)
        parts.append(f"### Of {name}\n\n{table([f for f in progress.registry.collect() if f.name not in seen], {})}")
    return "\n".join(parts)


def society() -> str:
    """Metrics of the society that answers."""
    measured = Measured()
    return table([family for family in measured.registry.collect() if not family.name.endswith("_created")], own(measured))


def operator() -> str:
    """Runs as the operator knows them, the operator's own, its process."""
    metrics = Metrics()
    text = metrics.encoded(generate_latest).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    runs = [families[name] for name in FAMILIES] + [families["maft_runs"]]
    others = OF_COMPARISONS | OF_SOCIETIES
    rest = [f for name, f in families.items() if name.startswith("maft_") and f not in runs and name not in others]
    process = [f for name, f in families.items() if name.startswith("process_")]
    labels = {name: ("namespace", "run", *family.labels) for name, family in FAMILIES.items()} | {"maft_runs": ("phase", "reason")}
    return (
        f"## Runs\n\n{table(runs, labels)}\n## Comparisons and societies\n\n"
        f"{table([families[name] for name in others], {name: labels for name, (_, labels) in others.items()})}\n"
        f"## The operator\n\n{table(rest, own(metrics))}\n### Its process\n\n{table(process, {})}"
    )


def vllm() -> str:
    """What the serving dashboard asks of vLLM."""
    text = (ROOT / "charts" / "maft" / "dashboards" / "serving.json").read_text()
    expressions = [t["expr"] for p in json.loads(text)["panels"] for t in p.get("targets", ())]
    names = {re.sub("_bucket$", "", name) for expression in expressions for name in re.findall(r"vllm:\w+", expression)}
    return "\n".join(f"- `{name}`" for name in sorted(names)) + "\n"


def reference() -> str:
    """The whole page."""
    return f"{HEAD}\n{operator()}\n## Tasks\n\n{programs()}\n## Societies\n\n{SOCIETY}\n{society()}{TAIL}{vllm()}"


def registries() -> list[CollectorRegistry]:
    """Of every program, for checks of their names."""
    found = []
    for make in PROGRAMS.values():
        progress = program.Progress(NOWHERE)
        make(progress)
        found.append(progress.registry)
    return [*found, Measured().registry]


if __name__ == "__main__":
    ROOT.joinpath("docs", "metrics.md").write_text(reference())
