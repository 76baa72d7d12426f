"""Runs on the cluster that are disturbed at random, and what became of each. Seeded: what is done to which run, and in which order.

Who compares: benchmarks/chaos.py, which writes a table, and tests/cluster/test_chaos.py, which asserts.
"""

import base64
import dataclasses
import hashlib
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Literal

import disturbances
from daemons import Daemons
from disturbances import Disturbance, Target
from host import FAKETIME
from installed import BUCKET, Installed, make_namespace
from kube import Json, PatientKube
from products import products

from maft.store import layout

Engine = Literal["mock", "vllm"]
NAME = "chaos"
SPEC: Json = {"iterations": 1, "agents": 2, "backoffLimit": 30}  # kills count as attempts; evictions and quotas do not
LATENCY = 0.3  # seconds of an answer: a debate of half a minute
LIMITS: dict[Engine, float] = {"mock": 1500.0, "vllm": 3000.0}  # seconds to the end of a run among others
GAPS: dict[Engine, tuple[float, float]] = {"mock": (3.0, 25.0), "vllm": (10.0, 60.0)}  # seconds between two disturbances of a run
DISTURBED = (3, 6)  # times that a run is disturbed
CLOCKS = {"mock": (*[""] * 6, "+4m", "+4m", "-9m", "-9m", "+2h"), "vllm": ("",)}  # of all pods of a run; drawn
EVICTED = "task: pod evicted"  # as disturbances.py names it
WRONG_CLOCK = "+2h"  # a store refuses what is signed a quarter of an hour off
# What Python sleeps by (clock_nanosleep until a moment), that library refuses with EINVAL; it lets select be.
_SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
_SMALL: Json = {"resources": {"requests": {"cpu": "20m", "memory": "256Mi"}}}  # one node has the pods of several runs
_TRAINED = re.compile(r"^(\S+/adapters/\S+): trained in \d+ steps$", re.MULTILINE)  # as maft.train says it of what it has published
_ALONE = threading.Lock()
Plan = list[tuple[float, Disturbance]]
"""What is to be done to a run, each with the seconds before it."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run. right: complete and equal to the undisturbed one, or failed by the name of what does not pass."""

    seed: int
    number: int
    engine: Engine
    clock: str
    disturbances: tuple[str, ...]
    end: str
    seconds: float
    right: bool


def run_all(
    maft: Installed,
    seed: int,
    runs: int,
    engine: Engine,
    expected: dict[str, str],
    at_once: int,
    among: tuple[Disturbance, ...] = disturbances.ALL,
    seconds: float = math.inf,
) -> list[Outcome]:
    """Applies them, so many at a time, disturbs them, and waits for their ends. expected: products of the undisturbed run.
    seconds: afterwards none is begun."""
    daemons, last = Daemons(), time.monotonic() + seconds

    def one(number: int) -> Outcome | None:
        if time.monotonic() > last:
            return None
        own = dataclasses.replace(maft, kube=PatientKube(maft.kube.kubeconfig))  # a client is not made for several threads
        target = Target(own, daemons, f"chaos-{seed}-{number}", NAME, Random(f"{seed}/{number}"))
        first = dealt(seed, number, runs) if engine == "vllm" else []
        outcome = _run(target, seed, number, engine, expected, lambda random: planned(random, engine, among, first))
        clock, applied = outcome.clock or "right", ", ".join(outcome.disturbances)
        print(f"{outcome.number:3}: {outcome.end}, {outcome.seconds:.0f} s, clock {clock}: {applied}")
        return outcome

    with ThreadPoolExecutor(at_once) as pool:
        outcomes = [outcome for outcome in pool.map(one, range(runs)) if outcome]
    assert daemons.well(), "the cluster is not well afterwards"
    return outcomes


def _run(
    target: Target, seed: int, number: int, engine: Engine, expected: dict[str, str], draw: Callable[[Random], Plan]
) -> Outcome:
    maft, kube, begun = target.maft, target.maft.kube, time.monotonic()
    kube.delete("Namespace", None, target.namespace)
    kube.wait(lambda: kube.get("Namespace", None, target.namespace) is None, 120)
    with _ALONE:  # who asks the store itself, now or at the end, asks one that is there
        for key in maft.keys(target.namespace, NAME):  # of an earlier run of this seed
            maft.objects.delete_object(Bucket=BUCKET, Key=key)
    make_namespace(maft, target.namespace)
    clock, plan = target.random.choice(CLOCKS[engine]), draw(target.random)
    kube.apply(*_clock_library(target.namespace, clock), resource(maft, target.namespace, engine, clock))
    done = disturb(target, plan)
    try:
        kube.wait(lambda: _ended(target), LIMITS[engine])
        end, right = _end(target, engine, clock, expected, done)
    except AssertionError:
        end, right = f"no end within {LIMITS[engine]:.0f} s: {kube.explain(target.namespace, NAME)}", False
    kube.delete("Namespace", None, target.namespace)
    return Outcome(seed, number, engine, clock, tuple(done), end, round(time.monotonic() - begun, 1), right)


def planned(random: Random, engine: Engine, among: tuple[Disturbance, ...], first: Sequence[Disturbance] = ()) -> Plan:
    """Draws what is to be done to a run. first: what comes before anything else, and counts as drawn."""
    times = random.randint(*DISTURBED) - len(first)
    drawn = [(random.uniform(*GAPS[engine]), random.choice(among)) for _ in range(times)]
    return [*((random.uniform(*GAPS[engine]), each) for each in first), *drawn]


def dealt(seed: int, number: int, runs: int) -> list[Disturbance]:
    """Draws what a run of so many meets first: each of them a part of one loss of every kind, in an order of the seed's."""
    random, named = Random(f"{seed}/first"), {each.name: each for each in disturbances.ALL}
    losses = [named[random.choice(kind)] for kind in disturbances.FIRST]
    random.shuffle(losses)
    return losses[number::runs]


def disturb(target: Target, plan: Plan) -> list[str]:
    """Disturbs the run until all is done or it has ended, each as soon as there is something to do it to; the names of what was
    done."""
    done: list[str] = []
    for pause, chosen in plan:
        time.sleep(pause)
        while not (ended := _ended(target)) and not _acted(chosen, target):
            time.sleep(0.5)
        if ended:
            break
        done.append(chosen.name)
    return done


def _acted(chosen: Disturbance, target: Target) -> bool:
    if not chosen.alone:
        return chosen.act(target)
    with _ALONE:
        return chosen.act(target)


def resource(maft: Installed, namespace: str, engine: Engine, clock: str = "") -> Json:
    """The run. clock: how far its pods' clocks are off."""
    mocked = maft.mocked(LATENCY) if engine == "mock" else {"podTemplate": {"spec": {"containers": [], "volumes": []}}}
    pods = mocked["podTemplate"]["spec"]
    pods["volumes"].append({"name": "tmp", "emptyDir": {"sizeLimit": str(disturbances.OVER // 2)}})
    given = {"debate": _SMALL, "trainer": _SMALL, **{c["name"]: c for c in pods["containers"]}}
    pods["containers"] = [{**container, "name": name} for name, container in given.items()]
    if clock:
        pods["containers"] = [_with_clock(container, clock) for container in pods["containers"]]
        pods["volumes"].append({"name": "faketime", "configMap": {"name": "faketime"}})
    return maft.resource(NAME, namespace, **{**SPEC, **mocked})


def _with_clock(container: Json, clock: str) -> Json:
    variables = {"LD_PRELOAD": f"/faketime/{FAKETIME.name}", "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    variables["PYTHONPATH"] = "/faketime:/opt/maft"  # sitecustomize.py, and what the images have
    mounts = [*container.get("volumeMounts", ()), {"name": "faketime", "mountPath": "/faketime"}]
    more = [{"name": name, "value": value} for name, value in variables.items()]
    return {**container, "env": [*container.get("env", ()), *more], "volumeMounts": mounts}


def _clock_library(namespace: str, clock: str) -> list[Json]:
    if not clock:
        return []
    data = {FAKETIME.name: base64.b64encode(FAKETIME.read_bytes()).decode()}
    about = {"name": "faketime", "namespace": namespace}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "binaryData": data, "data": {"sitecustomize.py": _SLEEP}}]


def _ended(target: Target) -> bool:
    return any(target.maft.kube.is_true(target.namespace, target.name, kind) for kind in ("Complete", "Failed"))


def _end(target: Target, engine: Engine, clock: str, expected: dict[str, str], done: Sequence[str]) -> tuple[str, bool]:
    """In words, and whether it is right. done: what was done to it."""
    failed = target.maft.kube.condition(target.namespace, target.name, "Failed")
    if failed.get("status") == "True":
        named = failed["reason"] == "StoreUnusable" and "clocks" in failed["message"]
        # A pod that is evicted right after it failed takes its words along: what its Job knows is the exit code, for wrong input.
        unread = EVICTED in done and "exit code 2" in failed["message"]
        return f"failed, {failed['reason']}: {failed['message']}", clock == WRONG_CLOCK and (named or unread)
    if clock == WRONG_CLOCK:
        return f"complete, with clocks {clock}", False
    with _ALONE:
        made = products(target.maft, target.namespace, target.name)
        damaged = _damaged(target, made)
        twice = trained_twice(_logs(target)) if engine == "vllm" else []  # there is nothing to compare its products with
    if damaged:
        return f"complete, but damaged: {', '.join(damaged)}", False
    if twice:
        return f"complete, but trained twice: {', '.join(twice)}", False
    if engine == "mock":
        different = sorted(key for key in {*made, *expected} if made.get(key) != expected.get(key))
        return ("complete, equal", True) if not different else (f"complete, but different: {', '.join(different)}", False)
    return "complete, consistent", True


def _damaged(target: Target, made: dict[str, str]) -> list[str]:
    """Files whose bytes are not the committed ones."""
    top = f"runs/{target.namespace}/{target.name}/"
    return [key for key, wanted in made.items() if hashlib.sha256(target.maft.read(top + key)).hexdigest() != wanted]


def _logs(target: Target) -> list[str]:
    """What trainings have left of theirs in the bucket; one that was killed leaves none."""
    top = f"runs/{target.namespace}/{target.name}/{layout.LOGS}train-"
    return [target.maft.read(key).decode() for key in target.maft.keys(target.namespace, target.name) if key.startswith(top)]


def trained_twice(logs: Iterable[str]) -> list[str]:
    """Names the adapters that more than one training says it has published."""
    times = Counter(adapter for log in logs for adapter in _TRAINED.findall(log))
    return sorted(adapter for adapter, count in times.items() if count > 1)
