"""What chaos does to runs and to the cluster that they are on: each disturbance has a name, a beginning and an end.

In: the disturbed run and a random source of its own. Some hit one run, the others whoever is there. All of them pass: a run is to
end as if nothing had been. What does not pass (a clock an hour off) is a run's from its start: disturbed.py.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import settings as s
from daemons import Daemons
from installed import Installed, gone
from kube import RUNS, Json

LONGEST = 20.0  # seconds that something is away or stands still
OVER = 96 << 20  # bytes that fill the volume up; disturbed.py sets its limit


@dataclass(frozen=True)
class Target:
    """One run on the cluster, and the means to disturb it."""

    maft: Installed
    daemons: Daemons
    namespace: str
    name: str
    random: Random

    def pods(self, component: str = "") -> list[Json]:
        """Of the run, those that live. component: `serve`, or empty for tasks."""
        labels = f"maft.dev/run={self.name},app.kubernetes.io/component{'=' if component else '!='}{component or 'serve'}"
        pods = self.maft.kube.list("Pod", self.namespace, labels)
        return [pod for pod in pods if pod["status"].get("phase") in ("Pending", "Running") and not gone(pod)]

    def rest(self) -> None:
        """A while that is seldom long."""
        time.sleep(min(LONGEST, 1 + self.random.expovariate(1 / 5)))


Act = Callable[[Target], bool]
"""Does it and undoes it; False where there was nothing to be done it to."""


@dataclass(frozen=True)
class Disturbance:
    """alone: no other disturbance begins beside it."""

    name: str
    act: Act
    alone: bool = False


# --- pods ---


def _one(target: Target, component: str) -> Json | None:
    pods = target.pods(component)
    return target.random.choice(pods) if pods else None


def _deleted(component: str) -> Act:
    """Without any grace, as where a node has gone."""

    def act(target: Target) -> bool:
        if pod := _one(target, component):
            target.maft.kube.delete("Pod", target.namespace, pod["metadata"]["name"], grace=0)
        return bool(pod)

    return act


def _evicted(component: str) -> Act:
    def act(target: Target) -> bool:
        pod = _one(target, component)
        return bool(pod) and target.maft.kube.evict(target.namespace, pod["metadata"]["name"])

    return act


def _program_killed(component: str) -> Act:
    """As the kernel does where memory is short."""

    def act(target: Target) -> bool:
        pod = _one(target, component)
        pids = target.daemons.in_pod(pod["metadata"]["uid"]) if pod else []
        return _send(pids, signal.SIGKILL)

    return act


def _program_paused(component: str) -> Act:
    def act(target: Target) -> bool:
        pod = _one(target, component)
        pids = target.daemons.in_pod(pod["metadata"]["uid"]) if pod else []
        return _stopped(target, pids)

    return act


def _stopped(target: Target, pids: list[int]) -> bool:
    """Stops processes for a while; they go on whatever becomes of us."""
    if not _send(pids, signal.SIGSTOP):
        return False
    try:
        target.rest()
    finally:
        _send(pids, signal.SIGCONT)
    return True


def _send(pids: list[int], number: int) -> bool:
    sent = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent = True
    return sent


def _disk_filled(target: Target) -> bool:
    """A volume over its limit: the kubelet evicts the pod."""
    pod = _one(target, "")
    folder = target.daemons.volume(pod["metadata"]["uid"], "tmp") if pod else None
    if folder is None or not folder.is_dir():
        return False
    with contextlib.suppress(FileNotFoundError), (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, OVER)
    return True


# --- objects ---


def _removed(kind: str) -> Act:
    def act(target: Target) -> bool:
        things = [o for o in target.maft.kube.list(kind, target.namespace, f"maft.dev/run={target.name}") if not gone(o)]
        if things:
            target.maft.kube.delete(kind, target.namespace, target.random.choice(things)["metadata"]["name"])
        return bool(things)

    return act


def _suspended(target: Target) -> bool:
    kube = target.maft.kube
    kube.merge(RUNS, target.namespace, target.name, {"spec": {"suspend": True}})
    try:
        target.rest()
    finally:
        kube.merge(RUNS, target.namespace, target.name, {"spec": {"suspend": False}})
    return True


def _quota_gone(target: Target) -> bool:
    """No pod may be made for a while, and the ones that are there go."""
    kube, about = target.maft.kube, {"name": "chaos", "namespace": target.namespace}
    kube.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": about, "spec": {"hard": {"pods": "0"}}})
    try:
        _deleted("")(target)
        _deleted("serve")(target)
        target.rest()
    finally:
        kube.delete("ResourceQuota", target.namespace, "chaos")
    return True


def _operator_killed(target: Target) -> bool:
    target.maft.kill_operator()
    return True


def _operator_paused(target: Target) -> bool:
    pids = [pid for pod in target.maft.operator_pods() for pid in target.daemons.in_pod(pod["metadata"]["uid"])]
    return _stopped(target, pids)


# --- daemons and the network ---


def _killed(*names: str) -> Act:
    def act(target: Target) -> bool:
        with target.daemons.killed(*names):
            target.rest()
        return True

    return act


def _paused(name: str) -> Act:
    def act(target: Target) -> bool:
        with target.daemons.paused(name):
            target.rest()
        return True

    return act


def _cut_off(target: Target) -> bool:
    """Packets from pods to the store are lost: nobody refuses, nobody answers."""
    rule = ["INPUT", "-p", "tcp", "-s", s.PODS, "--dport", s.S3.rpartition(":")[2], "-j", "DROP"]
    target.daemons.run("iptables", "-I", *rule)
    try:
        target.rest()
    finally:
        target.daemons.run("iptables", "-D", *rule)
    return True


ALL: tuple[Disturbance, ...] = (
    Disturbance("task: pod deleted without grace", _deleted("")),
    Disturbance("task: pod evicted", _evicted("")),
    Disturbance("task: program killed (SIGKILL)", _program_killed("")),
    Disturbance("task: program stopped for a while (SIGSTOP)", _program_paused("")),
    Disturbance("task: its volume filled up", _disk_filled),
    Disturbance("task: Job deleted", _removed("Job")),
    Disturbance("server: pod deleted without grace", _deleted("serve")),
    Disturbance("server: pod evicted", _evicted("serve")),
    Disturbance("server: program killed (SIGKILL)", _program_killed("serve")),
    Disturbance("server: program stopped for a while (SIGSTOP)", _program_paused("serve")),
    Disturbance("server: Deployment deleted", _removed("Deployment")),
    Disturbance("run: suspended and resumed", _suspended),
    Disturbance("namespace: no pods by its quota, for a while", _quota_gone),
    Disturbance("operator: killed", _operator_killed),
    Disturbance("operator: stopped for a while (SIGSTOP)", _operator_paused, alone=True),
    Disturbance("API server: killed, away for a while", _killed("api"), alone=True),
    Disturbance("API server: stopped for a while (SIGSTOP)", _paused("api"), alone=True),
    Disturbance("etcd: killed, away for a while", _killed("etcd"), alone=True),
    Disturbance("controllers and scheduler: killed, away for a while", _killed("controllers", "scheduler"), alone=True),
    Disturbance("node: kubelet killed, away for a while", _killed("kubelet"), alone=True),
    Disturbance("node: kubelet stopped for a while (SIGSTOP)", _paused("kubelet"), alone=True),
    Disturbance("node: containerd killed, away for a while", _killed("containerd"), alone=True),
    Disturbance("network: proxy and DNS killed, away for a while", _killed("proxy", "coredns"), alone=True),
    Disturbance("network: packets to the store lost for a while", _cut_off, alone=True),
    Disturbance("store: killed, away for a while", _killed("s3"), alone=True),
    Disturbance("store: stopped for a while (SIGSTOP)", _paused("s3"), alone=True),
)
OWN = tuple(each for each in ALL if not each.alone)
"""What tests beside others may do: it hits the run itself, and the operator for no longer than it needs to start."""
FIRST: tuple[tuple[str, ...], ...] = (
    ("operator: killed",),
    ("server: pod deleted without grace", "server: program killed (SIGKILL)"),
    ("task: pod deleted without grace", "task: program killed (SIGKILL)"),
    ("task: pod evicted", "server: pod evicted"),
    ("node: kubelet killed, away for a while", "node: containerd killed, away for a while"),
    ("store: killed, away for a while",),
    ("API server: killed, away for a while",),
)
"""What few runs are to meet whatever is drawn: a loss of each kind, of which any of these will do."""
