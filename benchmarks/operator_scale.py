"""`maft operator` among many runs, on a real API server: `python benchmarks/operator_scale.py --runs 1000`.

Measured: memory and CPU of the operator at rest beside N settled runs, its start, and how soon it acts. Prints a table and keeps
the numbers in benchmarks/operator_scale.json; `--write` puts them into docs/performance.md. Children do no work: see stand_in.py.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import page
import psutil
import yaml
from control_plane import ROOT, ControlPlane, control_plane, process
from stand_in import NAMESPACE, Cluster, Json, connected

from maft_operator.local.ports import free_port

OUTPUT = Path(__file__).with_suffix(".json")
PATTERN = "pattern-0"  # the run that settled runs are copies of
STAGES = ("1-debate", "1-train", "1-evaluate", "1-report")
MIB = 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The flags. rate, pace: runs a second that are made, and that begin to live; hold: seconds that a Job takes; rest: seconds."""

    runs: int
    created: int
    rate: float
    lives: int
    pace: float
    hold: float
    rest: float
    plain: bool


def main() -> None:
    """One measurement, or only the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="settled runs")
    parser.add_argument("--created", type=int, default=200, help="runs that are made beside them")
    parser.add_argument("--rate", type=float, default=20.0, help="of them a second")
    parser.add_argument("--lives", type=int, default=30, help="of these, runs that are taken through all their stages")
    parser.add_argument("--pace", type=float, default=1.0, help="of them a second")
    parser.add_argument("--hold", type=float, default=3.0, help="seconds that a Job takes")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds over which the CPU share at rest is taken")
    parser.add_argument("--plain", action="store_true", help="no NetworkPolicies and keys of servers, and nothing is kept of it")
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/performance.md")
    parser.add_argument("--keep-logs", type=Path, help="folder for the operator's log")
    arguments = vars(parser.parse_args())
    write, logs = arguments.pop("write"), arguments.pop("keep_logs")
    results: dict[str, Any] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    if not write:
        options = Options(**arguments)
        results[str(options.runs)] = measured(options, logs)
        if options.plain:
            print(markdown({str(options.runs): results[str(options.runs)]}))
            return
        OUTPUT.write_text(json.dumps(dict(sorted(results.items(), key=lambda item: int(item[0]))), indent=1) + "\n")
    print(markdown(results))
    if write:
        page.put("performance.md", "operator_scale", markdown(results))


def measured(options: Options, logs: Path | None) -> Json:
    """The whole benchmark, from nothing to nothing."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="maft-scale-") as folder, control_plane(Path(folder)) as plane:
        found = asyncio.run(Benchmark(plane, options, logs or Path(folder)).run())
    facts = {"machine": machine(), "versions": {**versions(), **found.pop("versions")}, "parameters": dataclasses.asdict(options)}
    return {**facts, "seconds": round(time.monotonic() - begun), "measured": found}


class Benchmark:
    """The phases, in order, on one control plane."""

    def __init__(self, plane: ControlPlane, options: Options, logs: Path) -> None:
        self._plane = plane
        self._options = options
        self._log = logs / "operator.log"
        self._port = free_port()  # of the operator's metrics
        self._latencies: dict[str, list[float]] = {}
        self._shares: dict[str, float] = {}

    async def run(self) -> Json:
        """All numbers."""
        async with connected(self._plane) as cluster:
            version = (await cluster.ask("GET", "/version"))["gitVersion"]
            await self._install(cluster)
            children = await self._populate(cluster)
            say(f"{self._options.runs} settled runs with {children} children each")
            with self._operator() as operator:
                rest = await self._at_rest(operator)
                async with cluster.watching():
                    names = await self._creations(cluster, operator)
                    await self._lives(cluster, names[: self._options.lives])
                peak = memory(operator)["peak"]
            restart = await self._restart(cluster, names[self._options.lives :])
        facts = {"versions": {"kubernetes": version}, "children": children}
        latencies = {name: spread(values) for name, values in self._latencies.items()}
        return {**facts, **rest, "peakBusy": peak, **restart, "creations": self._shares, "latency": latencies}

    async def _install(self, cluster: Cluster) -> None:
        """The CRD, and the operator's own rights. Its Deployment is a process of ours."""
        await cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        homes = {
            "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            "Namespace": "/api/v1/namespaces",
            "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/maft-system/roles",
            "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/maft-system/rolebindings",
            "Lease": "/apis/coordination.k8s.io/v1/namespaces/maft-system/leases",
        }
        for path in (ROOT / "crds" / "multiagentfinetunes.yaml", ROOT / "deploy" / "operator.yaml"):
            for body in yaml.safe_load_all(path.read_text()):
                if body["kind"] in homes:
                    await cluster.ask("POST", homes[body["kind"]], body)
        await _until(lambda: cluster.labelled("MultiAgentFinetune", "none"), 30)

    async def _populate(self, cluster: Cluster) -> dict[str, int]:
        """The operator itself brings one run to its end; the others are copies of it. Says how many children each has."""
        with self._operator():
            async with cluster.watching():
                await cluster.create("MultiAgentFinetune", resource(PATTERN))
                await self._live(cluster, PATTERN, hold=0.0)
        self._latencies.clear()
        await cluster.copy(PATTERN, (f"settled-{n}" for n in range(1, self._options.runs)))
        return {kind: len(await cluster.labelled(kind, PATTERN)) for kind in ("Job", "Pod", "Deployment")}

    async def _at_rest(self, operator: psutil.Process) -> Json:
        """From its start to its rest, and then over a while."""
        start = await quiet(operator)
        peak = memory(operator)["peak"]
        say(f"start took {start:.1f} s; at rest for {self._options.rest:.0f} s")
        share = await cpu_share(operator, self._options.rest)
        rest = {"startSettled": start, "peakStart": peak, "rss": memory(operator)["now"], "cpuPercent": 100 * share}
        return {**rest, "scrape": statistics.median([await self.scrape() for _ in range(5) if not await asyncio.sleep(5)])}

    async def scrape(self) -> float:
        """Seconds that a scrape of the operator's metrics takes."""
        begun = time.perf_counter()
        await self.metrics()
        return time.perf_counter() - begun

    async def metrics(self) -> str:
        """The operator's metrics, as Prometheus gets them."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self._port}/metrics") as answer:
            return await answer.text()

    async def _creations(self, cluster: Cluster, operator: psutil.Process) -> list[str]:
        """Runs at a fixed rate, whatever the operator does; their first Jobs stay unfinished."""
        names = [f"new-{n}" for n in range(self._options.created)]
        before, begun = self._work(operator), time.perf_counter()
        await asyncio.gather(*(self._creation(cluster, name, n / self._options.rate) for n, name in enumerate(names)))
        passed, after = time.perf_counter() - begun, self._work(operator)
        self._shares = {who: round(100 * (after[who] - before[who]) / passed, 1) for who in after}
        say(f"{len(names)} runs made; % of a core: {self._shares}")
        return names

    async def _creation(self, cluster: Cluster, name: str, after: float) -> None:
        await asyncio.sleep(after)
        begun = time.perf_counter()
        await cluster.create("MultiAgentFinetune", resource(name))
        moment, job = await cluster.appears("Job", f"{name}-0-prepare")
        self._took("spec → first Job", moment - begun)
        await cluster.start_pod(job)

    async def _lives(self, cluster: Cluster, names: Sequence[str]) -> None:
        say(f"{len(names)} runs go through their stages")
        await asyncio.gather(*(self._delayed_life(cluster, name, n / self._options.pace) for n, name in enumerate(names)))

    async def _delayed_life(self, cluster: Cluster, name: str, after: float) -> None:
        await asyncio.sleep(after)
        await self._live(cluster, name, self._options.hold, begun=True)

    async def _live(self, cluster: Cluster, name: str, hold: float, *, begun: bool = False) -> None:
        """A run from its first Job to Complete. begun: that Job has its pod already."""
        _, job = await cluster.appears("Job", f"{name}-0-prepare")
        if not begun:
            await cluster.start_pod(job)
        await asyncio.sleep(hold)
        done = await cluster.finish(job)
        done = await self._stage(cluster, f"{name}-0-preflight", hold, ("Job done → next Job", done))
        moment, _ = await cluster.appears("Deployment", f"{name}-server")
        self._took("Job done → server", moment - done)
        done = await cluster.make_available(f"{name}-server")
        for number, stage in enumerate(STAGES):
            what = "Job done → next Job" if number else "server ready → Job"
            done = await self._stage(cluster, f"{name}-{stage}", hold, (what, done))
        moment, _ = await cluster.appears("Complete", name)
        self._took("last Job done → Complete", moment - done)

    async def _stage(self, cluster: Cluster, name: str, hold: float, since: tuple[str, float]) -> float:
        """A Job from its appearance to its end; the moment of that. since: what came before it, and when."""
        what, before = since
        moment, job = await cluster.appears("Job", name)
        self._took(what, moment - before)
        await cluster.start_pod(job)
        await asyncio.sleep(hold)
        return await cluster.finish(job)

    async def _restart(self, cluster: Cluster, names: Sequence[str]) -> Json:
        """While no operator is there, a Job of every unfinished run ends: they are reconciled when all have their next child."""
        say(f"restart with {len(names)} unfinished runs, each with a Job that ended meanwhile")
        for name in names:
            await cluster.finish(await cluster.get("Job", f"{name}-0-prepare"))
        async with cluster.watching():
            begun = time.perf_counter()
            with self._operator() as operator:
                moments = [(await cluster.appears("Job", f"{name}-0-preflight"))[0] for name in names]
                return {"restart": max(moments) - begun, "peakRestart": memory(operator)["peak"]}

    @contextlib.contextmanager
    def _operator(self) -> Iterator[psutil.Process]:
        """`maft operator` with the kubeconfig of its service account."""
        environment = {**os.environ, "KUBECONFIG": str(self._plane.folder / "kubeconfig")}
        command = [
            sys.executable,
            "-m",
            "maft_operator",
            "operator",
            "--images=maft",
            f"--port={self._port}",
            "--no-server-keys" if self._options.plain else "--network-policies",  # deploy/operator.yaml and the chart: the latter
            "--lease-namespace=maft-system",
        ]
        with process(command, self._log, environment) as started:
            yield psutil.Process(started.pid)

    def _work(self, operator: psutil.Process) -> dict[str, float]:
        """CPU seconds so far, by who took them; others: whatever else is on the machine, with the children that it waited for."""
        names = {operator.pid: "operator", os.getpid(): "benchmark", **dict.fromkeys(self._plane.pids, "API server and etcd")}
        found = dict.fromkeys((*names.values(), "others"), 0.0)
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[names.get(each.pid, "others")] += sum(each.cpu_times()[: 2 if each.pid in names else 4])
        return found

    def _took(self, what: str, seconds: float) -> None:
        self._latencies.setdefault(what, []).append(seconds)


def resource(name: str) -> Json:
    """A run of six Jobs and one server."""
    spec = {
        "model": {"source": "s3://models/tiny?endpoint=http://minio:9000&region=us-east-1"},
        "task": {"kind": "arithmetic"},
        "iterations": 1,
        "evaluation": {"baselines": []},
        "training": {"topology": "Shared"},
        "inference": {"topology": "Shared", "lifetime": "Run"},
        "storage": {"bucket": "maft", "endpoint": "http://minio:9000", "credentialsSecret": {"name": "keys"}},
    }
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentFinetune", "metadata": {"name": name}, "spec": spec}


# --- the operator's process ---


async def quiet(operator: psutil.Process) -> float:
    """Seconds from its start until it rests: less than a twentieth of a core over the three seconds after."""
    begun, used = time.time() - operator.create_time(), [cpu_seconds(operator)]
    while len(used) < 7 or used[-1] - used[-7] > 0.15 or used[-7] < 0.5:  # its imports alone take half a second
        await asyncio.sleep(0.5)
        used.append(cpu_seconds(operator))
    return begun + 0.5 * (len(used) - 7)


async def cpu_share(operator: psutil.Process, seconds: float) -> float:
    """Of a core."""
    begun, before = time.perf_counter(), cpu_seconds(operator)
    await asyncio.sleep(seconds)
    return (cpu_seconds(operator) - before) / (time.perf_counter() - begun)


def cpu_seconds(operator: psutil.Process) -> float:
    """User and system."""
    times = operator.cpu_times()
    return float(times.user + times.system)


def memory(operator: psutil.Process) -> dict[str, float]:
    """Resident set in MiB: now, and the most that it ever was."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{operator.pid}/status").read_text().splitlines())
    return {"now": operator.memory_info().rss / MIB, "peak": int(lines["VmHWM"].split()[0]) / 1024}


# --- telling ---


def spread(values: Sequence[float]) -> Json:
    """In seconds."""
    ordered = sorted(values)
    at = {f"p{share}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in (50, 95)}
    return {"count": len(ordered), **{name: round(value, 3) for name, value in at.items()}, "max": round(ordered[-1], 3)}


ROWS = (  # what, key, unit, target
    ("memory at rest", "rss", "MiB", 256),
    ("… most at the start", "peakStart", "MiB", None),
    ("… most under load", "peakBusy", "MiB", None),
    ("… most at the restart", "peakRestart", "MiB", None),
    ("CPU at rest", "cpuPercent", "% of a core", 5),
    ("a scrape of its metrics", "scrape", "s", 0.3),
    ("start → at rest", "startSettled", "s", 60),
    ("restart → all unfinished runs reconciled", "restart", "s", 60),
)


def markdown(results: dict[str, Any]) -> str:
    """A column for each number of runs."""
    lines = ["| settled runs | target | " + " | ".join(f"{int(runs):,}" for runs in results) + " |"]
    lines.append("|---" * (len(results) + 2) + "|")
    for what, key, unit, most in ROWS:
        digits, found = 3 if key == "scrape" else 1, [result["measured"].get(key) for result in results.values()]
        values = " | ".join("not measured" if one is None else f"{one:.{digits}f} {unit}" for one in found)
        lines.append(f"| {what} | {'' if most is None else f'≤ {most} {unit}'} | {values} |")
    for what in next(iter(results.values()))["measured"]["latency"]:
        target = "p95 ≤ 1 s" if what in ("spec → first Job", "Job done → next Job") else ""
        found = [result["measured"]["latency"][what] for result in results.values()]
        lines.append(f"| {what}: p50 / p95 / max | {target} | " + " | ".join(_three(each) for each in found) + " |")
    return "\n".join(lines)


def _three(found: Json) -> str:
    return f"{found['p50']:.2f} / {found['p95']:.2f} / {found['max']:.2f} s"


def machine() -> Json:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory_ = round(psutil.virtual_memory().total / 2**30, 1)
    return {"cores": os.cpu_count(), "cpu": model, "memoryGiB": memory_, "load": os.getloadavg()[0], "system": platform.platform()}


def versions() -> dict[str, str]:
    """What was measured."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    packages = {name: importlib.metadata.version(name) for name in ("maft", "kopf", "kubernetes", "aiohttp")}
    return {"python": platform.python_version(), "commit": commit, **packages}


def say(text: str) -> None:
    """Progress, on the terminal."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


async def _until(attempt: Any, limit: float) -> None:
    """Tries until it does not fail."""
    deadline = time.monotonic() + limit
    while True:
        try:
            await attempt()
            return
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.3)


if __name__ == "__main__":
    main()
