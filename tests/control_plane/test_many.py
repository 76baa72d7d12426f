"""Many iterations and many runs: the status stays small, and so does what Prometheus is told; a scrape stops nobody."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

import aiohttp
from conftest import free_port
from kube_objects import a_run, at, done, planned
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from statuses import MEASURED, debated, evaluated, state, summarized, trained, usage

from maft.summaries import Answers, ProbeScore, ProgramSummary
from maft_operator.cluster import health
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.series import OLD, RECENT

LARGEST = 100_000  # bytes of a status, of the 1.5 MB that etcd takes for an object
BIG = usage(10**9, 10**8)


def hundred_iterations() -> Json:
    """Everything that eight agents can leave of a run as long as it may be, written at one look."""
    run = a_run(agents=8, iterations=100, evaluation={"diversity": 8}, training={"topology": "PerAgent"})
    answers, kept = Answers(asked=10**6, cut=10**5, clipped=10**5), dict.fromkeys(("generator", "critic"), (10**4,) * 8)
    summaries: dict[str, ProgramSummary] = {
        "debate": debated(
            kept=kept,
            abstained=10**4,
            probe=ProbeScore(0.1234, 0.0123, 10**4),
            answers=answers,
            usage=BIG,
            left_out={"noConsensus": 10**5, "cut": 10**5, "wrong": 10**5},
        ),
        "evaluate": evaluated(0.1234, 0.4321, asked=BIG, answers=answers),
        "train": trained(2),
        "diversity": MEASURED,
    }
    tasks = planned(run).tasks[:-1]
    pods = [summarized(t.name, summaries[t.kind]) for t in tasks if t.kind in summaries]
    return state(*(done(t.name) for t in tasks), *pods, run=run)


def test_the_status_of_a_hundred_iterations_is_small_and_whole() -> None:
    whole = hundred_iterations()
    assert [row["iteration"] for row in whole["iterations"]] == list(range(101))
    assert all({"accuracy", "majority", "answer", "consensus", "nll", "seconds"} <= row.keys() for row in whole["iterations"])
    assert all({"kept", "trained", "agreement", "probe", "leftOut"} <= row.keys() for row in whole["iterations"][1:])
    assert whole["done"] == {"debate": "1-100", "diversity": "0-100", "evaluate": "0-100"} | {
        f"train-{n}": "1-100" for n in range(8)
    }
    assert len(json.dumps(whole, separators=(",", ":"))) < LARGEST


# --- metrics ---


def finished(number: int) -> Json:
    row = {"iteration": 1, "accuracy": {"mean": 0.5, "stderr": 0.1}}
    status = {"phase": "Complete", "iterations": [row], **({"completionTime": at(number)} if number >= 0 else {})}
    return {"metadata": {"name": "r", "creationTimestamp": at(0)}, "spec": {}, "status": status}


def collected(metrics: Metrics) -> Iterable[Metric]:
    return text_string_to_metric_families(metrics.encoded(generate_latest).decode())


def test_of_runs_that_finished_long_ago_one_series_is_left() -> None:
    metrics, many = Metrics(), RECENT + 50
    for number in range(many):
        metrics.seen(f"ns/r{number}", finished(number))
    for number in range(5):
        metrics.seen(f"ns/working{number}", finished(-1))
    series = Counter(s.labels["run"] for f in collected(metrics) for s in f.samples if "run" in s.labels)
    assert [series[f"r{number}"] for number in range(50)] == [1] * 50
    assert len({series[f"r{number}"] for number in range(50, many)} | {series[f"working{number}"] for number in range(5)}) == 1
    assert series["working0"] > 1
    [of_all] = [s.value for f in collected(metrics) if f.name == "maft_runs" for s in f.samples]
    assert of_all == many + 5  # they are counted all the same
    old = [f.name for f in collected(metrics) for s in f.samples if s.labels.get("run") == "r0"]
    assert old == [OLD]


def test_a_run_that_is_deleted_makes_room_for_another() -> None:
    metrics = Metrics()
    for number in range(RECENT + 1):
        metrics.seen(f"ns/r{number}", finished(number))
    count = lambda: sum(s.labels.get("run") == "r0" for f in collected(metrics) for s in f.samples)  # noqa: E731
    assert count() == 1
    metrics.gone(f"ns/r{RECENT}")
    assert count() > 1


class Slow(Collector):
    """Yields nothing until somebody else has had his turn."""

    def __init__(self) -> None:
        self.begun, self.others = threading.Event(), threading.Event()

    def collect(self) -> Iterator[Metric]:
        self.begun.set()
        assert self.others.wait(30), "nobody else had his turn"
        yield GaugeMetricFamily("slow", "It took a while", value=1)


def test_a_scrape_that_takes_long_stops_nobody() -> None:
    registry, slow, port = CollectorRegistry(), Slow(), free_port()
    slow.others.set()
    registry.register(slow)  # asks once
    slow.begun.clear()
    slow.others.clear()

    async def scenario() -> tuple[str, str]:
        runner = await health.serve(port, lambda: "", lambda encode: encode(registry), None)
        address = f"http://127.0.0.1:{port}"
        try:
            async with aiohttp.ClientSession() as session:
                scrape = asyncio.create_task(text(session, f"{address}/metrics"))
                await asyncio.to_thread(slow.begun.wait, 30)
                other = await text(session, f"{address}/healthz")  # while the scrape is under way
                slow.others.set()
                return other, await scrape
        finally:
            await runner.cleanup()

    healthy, scraped = asyncio.run(scenario())
    assert healthy == "ok\n"
    assert "slow 1.0" in scraped


async def text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=40)) as response:
        return await response.text()
