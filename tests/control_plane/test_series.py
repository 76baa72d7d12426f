"""What Prometheus is told of runs, in both of its formats, read by its client's strict parsers."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from maft_operator.cluster import series
from maft_operator.cluster.metrics import FAMILIES, Metrics
from maft_operator.cluster.series import OLD, Family, Sample
from maft_operator.spec.schema import Json

Encode = Callable[[CollectorRegistry], bytes]
FORMATS = [(generate_latest, read_plain), (generate_open, read_open)]
TEXTS = st.text(st.characters(exclude_characters="\r\x85\u2028\u2029", exclude_categories=["Cs"]))
VALUES = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)


def run(name: str, phase: str = "Training") -> Json:
    row = {"iteration": 0, "accuracy": {"mean": 0.25, "stderr": 0.1}, "seconds": 1e300}
    status = {"phase": phase, "conditions": [{"type": "Failed", "status": "True", "reason": "Odd", "lastTransitionTime": NOW}]}
    return {"metadata": {"name": name, "creationTimestamp": NOW}, "spec": {}, "status": {**status, "iterations": [row]}}


NOW = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(("encode", "read"), FORMATS)
def test_the_runs_stand_beside_the_operators_own(encode: Encode, read: Callable[[str], Iterable[Metric]]) -> None:
    metrics = Metrics()
    metrics.leads()
    metrics.seen("ns/a", run("a"))
    metrics.seen("ns/b", run("b", "Failed"))
    families = {family.name: family for family in read(metrics.encoded(encode).decode())}
    assert {*FAMILIES, "maft_runs", "maft_leader", "maft_society_info"} <= set(families)
    assert all(families[name].documentation == family.text for name, family in FAMILIES.items())
    assert {families[name].type for name in FAMILIES} == {"gauge"}
    accuracies = [(s.labels, s.value) for s in families["maft_run_accuracy_ratio"].samples]
    assert accuracies == [({"namespace": "ns", "run": each, "iteration": "0"}, 0.25) for each in ("a", "b")]
    counted = {s.labels["phase"]: s.value for s in families["maft_runs"].samples}
    assert counted == {"Training": 1, "Failed": 1}


@pytest.mark.parametrize(("encode", "read"), FORMATS)
@given(labels=st.tuples(TEXTS, TEXTS), value=VALUES)
def test_any_text_comes_back(
    encode: Encode, read: Callable[[str], Iterable[Metric]], labels: tuple[str, str], value: float
) -> None:
    own = dict(zip(("phase", "reason"), labels, strict=True))
    text = series.text({OLD: Family("Words", ("phase", "reason"))}, [series.seen("ns/a", [Sample(OLD, value, own)], "")])
    families = {family.name: family for family in read(text + (encode(CollectorRegistry()).decode()))}
    [sample] = families[OLD].samples
    assert (sample.labels, sample.value) == ({"namespace": "ns", "run": "a", **own}, value)
