"""`maft operator`: the control plane as one process. Checks its rights, waits for the Lease, watches, reconciles.

Ends with 0 when told to stop, 1 when it cannot go on (a right is missing, the lease is lost); Kubernetes starts it again.
"""

import asyncio
import logging
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kopf
from kubernetes.aio.client import ApiClient

from maft.certificate import Certificate
from maft_operator.cluster import health, kinds, rbac
from maft_operator.cluster.api import FAULTS, Api, Refused
from maft_operator.cluster.comparison.controller import Comparisons
from maft_operator.cluster.connection import NoCluster, connected
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.handlers import Watched, quiet, registry, settings
from maft_operator.cluster.health import WatchCheck
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.leader import Leadership
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.recorder import Recorder
from maft_operator.cluster.scrapes import MetricsAuth
from maft_operator.cluster.served import changed, served
from maft_operator.cluster.society.controller import Societies
from maft_operator.cluster.workers import Reconciler, Workers
from maft_operator.cluster.writing import Writer

log = logging.getLogger("maft")
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CRD = f"{kinds.RUN.plural}.{kinds.RUN.group}"


@dataclass(frozen=True, slots=True)
class Options:
    """The flags."""

    images: Images
    namespaces: tuple[str, ...]
    """Whose runs are worked at; empty for all."""
    own: str
    """Namespace of the Lease."""
    lease: str
    elect: bool
    port: int
    """Of health checks and metrics."""
    log_format: str
    verbose: bool
    metrics_auth: bool = False
    certificate: tuple[Path, Path] | None = None
    """Of the port, and its key; None: no TLS."""


class Stop(Exception):
    """The operator cannot go on. One line a reason."""


def own_namespace() -> str:
    """Reads the namespace of the pod that we are in, else `default`."""
    try:
        return _ACCOUNT.read_text().strip()
    except OSError:
        return "default"


def operate(options: Options) -> int:
    """Runs until a signal or a reason to stop; returns the exit code."""
    _logging(options)
    try:
        asyncio.run(_main(options, in_cluster=_ACCOUNT.exists()))
    except (Stop, NoCluster) as reason:
        for line in str(reason).splitlines():
            log.error("%s", line)
        return 1
    return 0


def _logging(options: Options) -> None:
    kopf.configure(verbose=options.verbose, log_format=kopf.LogFormat.JSON if options.log_format == "json" else kopf.LogFormat.FULL)
    quiet()


class _Operator:
    """The parts of the control plane, put together."""

    def __init__(self, api: Api, metrics: Metrics, options: Options) -> None:
        self.api = api
        self.options = options
        self.metrics = metrics
        self.queue = Queue()
        keys, self.recorder = Keys(self.queue, metrics), Recorder(api)
        writer = Writer(api, metrics, self.recorder)
        runs = Controller(api, options.images, keys=keys, writer=writer)
        reconcilers: dict[str, Reconciler] = {
            kinds.RUN.name: runs,
            kinds.SOCIETY.name: Societies(api, options.images, keys=keys, writer=writer),
            kinds.COMPARISON.name: Comparisons(api, options.images, keys=keys, writer=writer),
        }
        self.workers = Workers(reconcilers, queue=self.queue, keys=keys, metrics=metrics)
        self.watched = Watched(keys, metrics)
        self.check = WatchCheck(api, keys, self.watched, options.namespaces)

    def alive(self) -> str:
        """Says why the process should be started again; empty where it should not."""
        stuck = self.queue.stuck()
        return self.check.stale or (f"no look at a run has ended for {stuck:.0f} s" if stuck > health.STUCK else "")

    async def control(self, stop: asyncio.Event) -> None:
        """Runs kopf's watches, our workers and the resync together until one of them ends or we are told to stop."""
        measuring = health.measure(self.metrics, self.queue, self.watched, self.check)
        self.metrics.leads()
        await _first(self._watch(stop), self.workers.run(), self.check.run(), self.recorder.run(), measuring)

    async def _watch(self, stop: asyncio.Event) -> None:
        """Runs kopf's watches until we are told to stop; anew, where the cluster has come to know a kind that it lacked."""
        namespaces = list(self.options.namespaces)
        where: dict[str, Any] = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
        again = True
        while again:
            there, started = await served(self.api, self.workers.kinds, namespaces), asyncio.Event()
            made = registry(self.watched, there)
            watching = kopf.operator(registry=made, settings=settings(), standalone=True, ready_flag=started, **where)
            newer = asyncio.create_task(changed(self.api, self.workers.kinds, namespaces, there))
            await _first(watching, asyncio.wait([newer]), _stopped(started, stop))
            again = newer.done() and not stop.is_set()
            newer.cancel()


async def _main(options: Options, *, in_cluster: bool) -> None:
    async with connected(in_cluster=in_cluster) as client:
        metrics = Metrics()
        api = Api(client, metrics)
        await _allowed(api, options)
        operator = _Operator(api, metrics, options)
        auth, certificate = MetricsAuth(api) if options.metrics_auth else None, _certificate(options)
        try:
            runner = await health.serve(
                options.port, operator.alive, metrics.encoded, auth, certificate.context if certificate else None
            )
        except OSError as error:
            raise Stop(f"--port {options.port}: {error.strerror}; choose another port") from None
        try:
            working = _elected(operator, client) if options.elect else operator.control(asyncio.Event())
            await _first(working, *([certificate.follow()] if certificate else []))
        finally:
            await runner.cleanup()


def _certificate(options: Options) -> Certificate | None:
    if options.certificate is None:
        return None
    try:
        return Certificate(*options.certificate)
    except OSError as error:
        raise Stop(f"--metrics-tls-cert {options.certificate[0]}: {error}; give a certificate and its key as PEM files") from None


async def _elected(operator: _Operator, client: ApiClient) -> None:
    """Takes part in the election, and controls once elected."""
    identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{os.getpid()}"
    async with Leadership(client, operator.options.own, operator.options.lease, identity).contested() as leadership:
        await _led(leadership, operator)


async def _led(leadership: Leadership, operator: _Operator) -> None:
    """Waits for the lease, then controls until a signal comes or the lease is lost."""
    stop = asyncio.Event()
    _on_signals(stop)
    log.info("waiting for the lease %s in namespace %s", operator.options.lease, operator.options.own)
    await _first(leadership.held.wait(), leadership.lost.wait(), stop.wait())
    if leadership.held.is_set() and not stop.is_set():
        log.info("leading")
        await _first(operator.control(stop), leadership.lost.wait())
    if leadership.lost.is_set():
        raise Stop("the lease is lost; another replica may write now")


async def _stopped(started: asyncio.Event, stop: asyncio.Event) -> None:
    """Signals are ours: kopf, which takes them as it starts, would take its time with our lease in hand."""
    await started.wait()
    _on_signals(stop)
    await stop.wait()


def _on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _first(*coroutines: object) -> None:
    """Runs them until one ends; its failure is ours."""
    tasks = [asyncio.ensure_future(c) for c in coroutines]  # type: ignore[call-overload]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _allowed(api: Api, options: Options) -> None:
    """Stops where a right or the CRD is missing; warns where an optional right is."""
    try:
        lacking = await _lacking(api, options)
        for line in [line for right, line in lacking if right.optional]:
            log.warning("%s; going on without", line)
        if lines := [line for right, line in lacking if not right.optional]:
            raise Stop("\n".join(lines))
        if not await api.served(kinds.RUN, options.namespaces[0] if options.namespaces else None):
            raise Stop(f"the cluster does not know {_CRD}; kubectl apply -f crds/multiagentfinetunes.yaml")
    except (Refused, *FAULTS) as error:
        raise Stop(f"the API server does not answer as it should: {type(error).__name__}: {error}") from None


async def _lacking(api: Api, options: Options) -> list[tuple[rbac.Right, str]]:
    """Rights that these flags need and that are not there, each with its line."""
    lacking = await rbac.missing(api, rbac.OWN, options.own, options.lease) if options.elect else []
    for namespace in options.namespaces or (None,):
        lacking += await rbac.missing(api, rbac.WATCHED, namespace)
        lacking += await rbac.missing(api, rbac.ISOLATING, namespace) if options.images.isolated else []
        lacking += await rbac.missing(api, rbac.KEYING, namespace) if options.images.keyed else []
    lacking += await rbac.missing(api, rbac.REVIEWING, None) if options.metrics_auth else []
    return lacking
