"""Series of comparisons and societies, from what the watches deliver to what Prometheus reads."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest

from maft_operator.cluster import kinds, other_metrics
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.spec.schema import Json

COMPARISON = {"phase": "Running", "runs": {"total": 6, "active": 2, "complete": 3, "failed": 1}, "best": {"mean": 0.91}}
SOCIETY = {"phase": "Ready", "readyReplicas": 1, "iteration": 2}
STATUS = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))


def thing(name: str, status: object, **spec: object) -> Json:
    return {"metadata": {"namespace": "team", "name": name, "resourceVersion": "1"}, "spec": spec, "status": status}


def scraped(*events: tuple[kinds.Kind, str | None, Json]) -> set[str]:
    metrics = Metrics()

    async def deliver() -> None:
        watched = Watched(Keys(Queue(), metrics), metrics)
        for kind, event, body in events:
            watched.parent(kind, event, body)

    asyncio.run(deliver())
    lines = metrics.encoded(generate_latest).decode().splitlines()
    return {line for line in lines if line.startswith(("maft_comparison", "maft_society"))}


def test_what_is_there_is_shown() -> None:
    shown = scraped(
        (kinds.COMPARISON, None, thing("c", COMPARISON)), (kinds.SOCIETY, "ADDED", thing("s", SOCIETY, run="r", replicas=2))
    )
    of_c, of_s = 'namespace="team"', 'namespace="team",society="s"'
    assert shown == {
        f'maft_comparison_info{{comparison="c",{of_c},phase="Running"}} 1.0',
        f'maft_comparison_runs{{comparison="c",{of_c},state="total"}} 6.0',
        f'maft_comparison_runs{{comparison="c",{of_c},state="active"}} 2.0',
        f'maft_comparison_runs{{comparison="c",{of_c},state="complete"}} 3.0',
        f'maft_comparison_runs{{comparison="c",{of_c},state="failed"}} 1.0',
        f'maft_comparison_best_accuracy_ratio{{comparison="c",{of_c}}} 0.91',
        'maft_society_info{namespace="team",phase="Ready",run="r",society="s"} 1.0',
        f'maft_society_replicas{{{of_s},state="wanted"}} 2.0',
        f'maft_society_replicas{{{of_s},state="ready"}} 1.0',
        f"maft_society_iteration{{{of_s}}} 2.0",
    }


def test_what_was_deleted_is_gone_and_a_change_leaves_no_old_series() -> None:
    shown = scraped(
        (kinds.COMPARISON, None, thing("c", COMPARISON)),
        (kinds.COMPARISON, "MODIFIED", thing("c", {**COMPARISON, "phase": "Complete"})),
        (kinds.SOCIETY, None, thing("s", SOCIETY)),
        (kinds.SOCIETY, "DELETED", thing("s", SOCIETY)),
    )
    assert not any("society=" in line for line in shown)
    phases = [line for line in shown if "_info" in line]
    assert phases == ['maft_comparison_info{comparison="c",namespace="team",phase="Complete"} 1.0']


@given(STATUS, STATUS)
def test_any_status_and_spec_is_read(status: object, spec: object) -> None:
    for kind in (kinds.COMPARISON, kinds.SOCIETY):
        made = other_metrics.samples(kinds.key(kind, "ns", "n"), {"status": status, "spec": spec})
        assert all(len(label) <= 64 for sample in made for label in sample.labels)
