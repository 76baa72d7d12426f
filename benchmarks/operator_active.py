"""`maft operator` among many runs at work, on a real API server: `python benchmarks/operator_active.py --runs 1000` (as root).

Measured, once all have been looked at: requests to the API server a second, CPU, memory, the time of a scrape, and how soon a new
run has its Job. Children do no work; their metrics, at one address of a network of the benchmark's own, grow. `--write` puts the
table into docs/performance.md.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import operator_scale as scale
import page
import psutil
from aiohttp import web
from control_plane import ControlPlane, control_plane
from prometheus_client.parser import text_string_to_metric_families
from stand_in import Cluster, Json, connected

OUTPUT = Path(__file__).with_suffix(".json")
PATTERN = "active-0"
PODS = "192.0.2.7"  # TEST-NET-1: where all pods are, by what the benchmark says of them
ISOLATED = "MAFT_BENCHMARK_NETWORK"


def main() -> None:
    """One measurement, or only the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--settle", type=float, default=120.0, help="seconds before it is measured: until all have been looked at")
    parser.add_argument("--over", type=float, default=120.0, help="seconds over which it is measured")
    parser.add_argument("--created", type=int, default=20, help="runs that are made meanwhile, one in two seconds")
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/performance.md")
    options = parser.parse_args()
    if options.write:
        page.put("performance.md", "operator_active", markdown(json.loads(OUTPUT.read_text())))
        return
    if ISOLATED not in os.environ:  # the pods' address is in a network that nobody else sees
        line = ["unshare", "--net", sys.executable, *sys.argv]
        raise SystemExit(subprocess.run(line, env={**os.environ, ISOLATED: "1"}, check=False).returncode)
    pair = ("ip link add pods type veth peer name nobody", "ip link set pods up", "ip link set nobody up")
    # The API server wants a route into the world before it starts, and an address to be known by.
    for command in ("ip link set lo up", *pair, f"ip address add {PODS}/24 dev pods", "ip route add default dev pods"):
        subprocess.run(command.split(), check=True)
    results: dict[str, Any] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    results[str(options.runs)] = measured(options)
    OUTPUT.write_text(json.dumps(dict(sorted(results.items(), key=lambda item: int(item[0]))), indent=1) + "\n")
    print(markdown(results))


def measured(options: argparse.Namespace) -> Json:
    """The whole benchmark, from nothing to nothing."""
    with tempfile.TemporaryDirectory(prefix="maft-active-") as folder, control_plane(Path(folder)) as plane:
        found = asyncio.run(Active(plane, options, Path(folder)).run())
    return {"machine": scale.machine(), "versions": scale.versions(), "parameters": vars(options), "measured": found}


class Active(scale.Benchmark):
    """Runs at work, all in their first Job."""

    def __init__(self, plane: ControlPlane, options: argparse.Namespace, logs: Path) -> None:
        super().__init__(plane, scale.Options(options.runs, 0, 0, 0, 0, 0, 0, plain=False), logs)
        self._asked = options

    async def run(self) -> Json:
        """All numbers."""
        async with connected(self._plane) as cluster, pods_metrics():
            await self._install(cluster)
            await self._begin(cluster)
            await cluster.copy(PATTERN, (f"active-{n}" for n in range(1, self._asked.runs)))
            scale.say(f"{self._asked.runs} runs at work")
            with self._operator() as operator:
                await asyncio.sleep(self._asked.settle)
                return await self._observed(cluster, operator)

    async def _begin(self, cluster: Cluster) -> None:
        """The operator itself brings the pattern to where its first program runs."""
        with self._operator():
            async with cluster.watching():
                await cluster.create("MultiAgentFinetune", scale.resource(PATTERN))
                _, job = await cluster.appears("Job", f"{PATTERN}-0-prepare")
                await cluster.start_pod(job)
                await cluster.set_status("Pod", f"{PATTERN}-0-prepare-x", running(job))
                await asyncio.sleep(15)  # its status says so

    async def _observed(self, cluster: Cluster, operator: psutil.Process) -> Json:
        before, begun, used = await self._requests(), time.perf_counter(), scale.cpu_seconds(operator)
        async with cluster.watching(), asyncio.TaskGroup() as group:
            group.create_task(self._creations(cluster, operator))
            scrapes = [await self.scrape() for _ in range(int(self._asked.over // 15)) if not await asyncio.sleep(15)]
        passed, after = time.perf_counter() - begun, await self._requests()
        asked = {f"{verb} {kind}": round((after[verb, kind] - before[verb, kind]) / passed, 2) for verb, kind in sorted(after)}
        return {
            "requests": round((after.total() - before.total()) / passed, 1),
            "byKind": {what: rate for what, rate in asked.items() if rate},
            "cpuPercent": round(100 * (scale.cpu_seconds(operator) - used) / passed, 1),
            "rss": round(scale.memory(operator)["now"], 1),
            "scrape": round(statistics.median(scrapes), 3),
            "latency": scale.spread(self._latencies["spec → first Job"]),
        }

    async def _creations(self, cluster: Cluster, operator: psutil.Process) -> list[str]:
        names = [f"new-{n}" for n in range(self._asked.created)]
        for name in names:
            begun = time.perf_counter()
            await cluster.create("MultiAgentFinetune", scale.resource(name))
            moment, _ = await cluster.appears("Job", f"{name}-0-prepare")
            self._took("spec → first Job", moment - begun)
            await asyncio.sleep(2)
        return names

    async def _requests(self) -> Counter[tuple[str, str]]:
        """How many the operator has sent, by verb and kind."""
        counts: Counter[tuple[str, str]] = Counter()
        for family in text_string_to_metric_families(await self.metrics()):
            for sample in family.samples:
                if sample.name == "maft_api_requests_total":
                    counts[sample.labels["verb"], sample.labels["kind"]] += int(sample.value)
        return counts


def running(job: Json) -> Json:
    """What the kubelet says of a pod whose program runs."""
    container, now = job["spec"]["template"]["spec"]["containers"][0], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    state = {"name": container["name"], "image": container["image"], "imageID": "sha256:0", "ready": True, "restartCount": 0}
    statuses = [{**state, "state": {"running": {"startedAt": now}}}]
    address = {"podIP": PODS, "podIPs": [{"ip": PODS}]}
    return {"phase": "Running", "startTime": now, **address, "containerStatuses": statuses}


@contextlib.asynccontextmanager
async def pods_metrics() -> AsyncIterator[None]:
    """Answers for all pods: each time a little more is done, so that each glance has something to write."""
    count = itertools.count()

    async def metrics(_: web.Request) -> web.Response:
        done = min(1.0, next(count) / 1e6)
        return web.Response(text=f"maft_progress_done {1000 * done:.3f}\nmaft_progress_expected 1000\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, PODS, 9100).start()
    try:
        yield
    finally:
        await runner.cleanup()


ROWS = (("requests to the API server", "requests", "a second", 100), ("CPU", "cpuPercent", "% of a core", None))
MORE = (("memory", "rss", "MiB", 512), ("a scrape of its metrics", "scrape", "s", 0.3))


def markdown(results: dict[str, Any]) -> str:
    """A column for each number of runs."""
    lines = [
        "| runs at work | target | " + " | ".join(f"{int(runs):,}" for runs in results) + " |",
        "|---" * (len(results) + 2) + "|",
    ]
    for what, key, unit, most in (*ROWS, *MORE):
        values = " | ".join(f"{result['measured'][key]:g} {unit}" for result in results.values())
        lines.append(f"| {what} | {'' if most is None else f'≤ {most} {unit}'} | {values} |")
    delays = " | ".join("{p50:.2f} / {p95:.2f} / {max:.2f} s".format(**r["measured"]["latency"]) for r in results.values())
    return "\n".join([*lines, f"| spec → first Job: p50 / p95 / max | p95 ≤ 1 s | {delays} |"])


if __name__ == "__main__":
    main()
