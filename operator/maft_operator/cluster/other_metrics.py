"""Series of comparisons and societies, as the watches last delivered them. Pure: read field by field, for nobody is believed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from maft_operator.cluster import kinds
from maft_operator.cluster.fields import count, part, text
from maft_operator.spec.schema import Json

OF_COMPARISONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "maft_comparison_info": ("1 for each comparison, with its phase", ("namespace", "comparison", "phase")),
    "maft_comparison_runs": ("Its runs: all of them, and by what became of them", ("namespace", "comparison", "state")),
    "maft_comparison_best_accuracy_ratio": ("Mean held-out accuracy of its best method", ("namespace", "comparison")),
}
OF_SOCIETIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "maft_society_info": ("1 for each society, with its phase and whose agents answer", ("namespace", "society", "phase", "run")),
    "maft_society_replicas": ("Its pods: asked for, and those that answer", ("namespace", "society", "state")),
    "maft_society_iteration": ("The iteration whose agents answer", ("namespace", "society")),
}
_STATES = ("total", "active", "complete", "failed")
_LONGEST = 64  # characters of a label: phases are words, names have fewer


@dataclass(frozen=True, slots=True)
class Sample:
    """One value. labels: all of its family, in order."""

    name: str
    labels: tuple[str, ...]
    value: float


def samples(key: str, resource: Mapping[str, Any]) -> tuple[Sample, ...]:
    """Makes the series of an object by its key (kinds.key); none of a run."""
    kind, namespace, name = kinds.addressed(key)
    make = {kinds.COMPARISON.name: _comparison, kinds.SOCIETY.name: _society}.get(kind.name)
    return tuple(make((namespace, name), dict(resource))) if make else ()


def _comparison(own: tuple[str, str], resource: Json) -> Iterator[Sample]:
    status = part(resource, "status")
    yield Sample("maft_comparison_info", (*own, _phase(status)), 1)
    for state in _STATES:
        yield Sample("maft_comparison_runs", (*own, state), count(status, "runs", state))
    mean = part(status, "best").get("mean")
    if isinstance(mean, float | int) and not isinstance(mean, bool):
        yield Sample("maft_comparison_best_accuracy_ratio", own, float(mean))


def _society(own: tuple[str, str], resource: Json) -> Iterator[Sample]:
    status, spec = part(resource, "status"), part(resource, "spec")
    yield Sample("maft_society_info", (*own, _phase(status), text(spec, "run")[:_LONGEST]), 1)
    yield Sample("maft_society_replicas", (*own, "wanted"), count(spec, "replicas") if "replicas" in spec else 1)
    yield Sample("maft_society_replicas", (*own, "ready"), count(status, "readyReplicas"))
    yield Sample("maft_society_iteration", own, count(status, "iteration"))


def _phase(status: Json) -> str:
    return text(status, "phase")[:_LONGEST] or "Pending"


class Others(Collector):
    """All series of comparisons and societies, by what is there at a scrape."""

    def __init__(self, there: Mapping[str, tuple[Sample, ...]]) -> None:
        self._there = there

    def collect(self) -> Iterator[Metric]:
        """Yields them, family by family."""
        made = {n: GaugeMetricFamily(n, words, labels=labels) for n, (words, labels) in (OF_COMPARISONS | OF_SOCIETIES).items()}
        for several in list(self._there.values()):
            for sample in several:
                made[sample.name].add_metric(sample.labels, sample.value)
        yield from made.values()
