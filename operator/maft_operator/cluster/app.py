"""`maft operator`: the control plane as one process. Checks its rights, waits for the Lease, watches, reconciles.

Ends with 0 when told to stop, 1 when it cannot go on (a right is missing, the lease is lost); Kubernetes starts it again.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kopf
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from maft_operator.cluster import health
from maft_operator.cluster import rbac as rights
from maft_operator.cluster.api import FAULTS, Api, Refused
from maft_operator.cluster.controller import Controller
from maft_operator.cluster.handlers import Watched, quiet, registry, settings
from maft_operator.cluster.leader import Leadership
from maft_operator.cluster.manifests import Images
from maft_operator.cluster.metrics import Metrics
from maft_operator.spec.schema import GROUP

log = logging.getLogger("maft")
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CRD = f"multiagentfinetunes.{GROUP}"


@dataclass(frozen=True, slots=True)
class Options:
    """The flags. namespaces: empty for all; own: where the Lease lies; port: of health checks and metrics."""

    images: Images
    namespaces: tuple[str, ...]
    own: str
    lease: str
    elect: bool
    port: int
    log_format: str
    verbose: bool
    metrics_auth: bool = False


class Stop(Exception):
    """The operator cannot go on. One line a reason."""


def own_namespace() -> str:
    """Of the pod that we are in, else `default`."""
    try:
        return _ACCOUNT.read_text().strip()
    except OSError:
        return "default"


def operate(options: Options) -> int:
    """Runs until a signal or a reason to stop; the exit code."""
    _logging(options)
    try:
        asyncio.run(_main(options, in_cluster=_ACCOUNT.exists()))
    except Stop as reason:
        for line in str(reason).splitlines():
            log.error("%s", line)
        return 1
    return 0


def _logging(options: Options) -> None:
    kopf.configure(verbose=options.verbose, log_format=kopf.LogFormat.JSON if options.log_format == "json" else kopf.LogFormat.FULL)
    quiet()


async def _main(options: Options, *, in_cluster: bool) -> None:
    async with _client(in_cluster=in_cluster) as client, _session() as session:
        metrics = Metrics()
        api = Api(client, metrics)
        await _allowed(api, options)
        controller = Controller(api, options.images, session, metrics)
        watched = Watched(controller)
        sight = health.Sight(api, controller, watched, list(options.namespaces))
        try:
            runner = await health.serve(
                options.port,
                lambda: _alive(sight, controller),
                metrics.registry,
                health.Readers(api) if options.metrics_auth else None,
            )
        except OSError as error:
            raise Stop(f"--port {options.port}: {error.strerror}; choose another port") from None
        try:
            if not options.elect:
                await _control(controller, watched, sight, options, asyncio.Event())
                return
            identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{os.getpid()}"
            async with Leadership(client, options.own, options.lease, identity).contested() as leadership:
                await _led(leadership, controller, watched, sight, options)
        finally:
            await runner.cleanup()


def _alive(sight: health.Sight, controller: Controller) -> str:
    late = controller.queue.late()
    return sight.blind or (f"a run has been due for {late:.0f} s" if late > health.STUCK else "")


async def _led(leadership: Leadership, controller: Controller, watched: Watched, sight: health.Sight, options: Options) -> None:
    """Waits for the lease, then controls until a signal comes or the lease is lost."""
    stop = asyncio.Event()
    _on_signals(stop)
    log.info("waiting for the lease %s in namespace %s", options.lease, options.own)
    await _first(leadership.held.wait(), leadership.lost.wait(), stop.wait())
    if leadership.held.is_set() and not stop.is_set():
        log.info("leading")
        await _first(_control(controller, watched, sight, options, stop), leadership.lost.wait())
    if leadership.lost.is_set():
        raise Stop("the lease is lost; another replica may write now")


async def _control(controller: Controller, watched: Watched, sight: health.Sight, options: Options, stop: asyncio.Event) -> None:
    """kopf's watches, our workers and the resync, together until one of them ends or we are told to stop."""
    where: dict[str, Any] = {"namespaces": list(options.namespaces)} if options.namespaces else {"clusterwide": True}
    started = asyncio.Event()
    watching = kopf.operator(registry=registry(watched), settings=settings(), standalone=True, ready_flag=started, **where)
    controller.metrics.leads()
    await _first(watching, controller.run(), sight.run(), health.measure(controller, watched, sight), _stopped(started, stop))


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
    """Stop where a right or the CRD is missing; a warning where an optional right is."""
    try:
        lacking = await rights.missing(api, rights.OWN, options.own, options.lease) if options.elect else []
        for namespace in options.namespaces or (None,):
            lacking += await rights.missing(api, rights.WATCHED, namespace)
            lacking += await rights.missing(api, rights.ISOLATING, namespace) if options.images.isolated else []
        lacking += await rights.missing(api, rights.REVIEWING, None) if options.metrics_auth else []
        for line in [line for right, line in lacking if right.optional]:
            log.warning("%s; going on without", line)
        if lines := [line for right, line in lacking if not right.optional]:
            raise Stop("\n".join(lines))
        if not await api.served(options.namespaces[0] if options.namespaces else None):
            raise Stop(f"the cluster does not know {_CRD}; kubectl apply -f crds/multiagentfinetunes.yaml")
    except (Refused, *FAULTS) as error:
        raise Stop(f"the API server does not answer as it should: {type(error).__name__}: {error}") from None


@contextlib.asynccontextmanager
async def _client(*, in_cluster: bool) -> AsyncIterator[ApiClient]:
    """A client for the cluster that we are in, else for the one of the kubeconfig."""
    settings_ = Configuration()
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=settings_)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                await config.load_kube_config(client_configuration=settings_)
    except config.ConfigException as error:
        raise Stop(f"no cluster: {error}; run this in a pod, or set KUBECONFIG") from None
    async with ApiClient(settings_) as client:
        yield client


@contextlib.asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        yield session
