"""The way in: `Client.local` and `Client.cluster` give a client each, with the same methods."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maft_client.results import Event, MaftError, Results, RunFailed, Status, Unreachable

LOOK = 1.0  # seconds between two looks of `wait`
PATIENCE = 300.0  # seconds for which `wait` goes on without an answer: an API server that is upgraded is away for a while


class Client(ABC):
    """Runs of one place. A run is named NAME or NAMESPACE/NAME; wrong input and refusals are a MaftError of one line."""

    @staticmethod
    def local(store: str | Path = "runs", *, folder: str | Path | None = None) -> "Client":
        """Opens runs of this machine. store: the folder of `maft run --dir`, or the s3:// URL of its `--store`; folder: where logs
        lie, if the store is a URL [runs]."""
        from maft_client.local import LocalClient

        return LocalClient(str(store), Path(folder) if folder else None)

    @staticmethod
    def cluster(context: str | None = None, namespace: str | None = None) -> "Client":
        """Opens runs of a cluster. context: of the kubeconfig [its present one; in a pod, the pod's account]; namespace: where runs
        are that are named without one [the context's]."""
        from maft_client.cluster import ClusterClient

        return ClusterClient(context, namespace)

    @property
    @abstractmethod
    def comparisons(self) -> "Client":
        """Returns a client of this place's comparisons (MultiAgentComparison), with the same methods: `results` has a record for
        each of its runs, `report` is its table's page."""

    @abstractmethod
    def submit(self, resource: Mapping[str, Any] | str | Path) -> str:
        """Starts a run of a MultiAgentFinetune, a mapping or a YAML file, and returns NAMESPACE/NAME. One that was stopped goes on.
        Refused where the resource is wrong."""

    @abstractmethod
    def status(self, run: str) -> Status:
        """Reads how far it is. NoSuchRun where there is none."""

    @abstractmethod
    def events(self, run: str) -> Sequence[Event]:
        """Reads what happened, the oldest first: Kubernetes' Events about it, or what `maft run` has said."""

    @abstractmethod
    def results(self, run: str) -> Results:
        """Reads what was measured so far."""

    @abstractmethod
    def stop(self, run: str) -> None:
        """Stops it after what is committed; `submit` goes on from there."""

    def adapters(self, run: str) -> str:
        """Says where the adapters lie that count: of the best iteration, else of the last; empty before there are any."""
        return self.status(run).adapters

    def wait(self, run: str, timeout: float | None = None, *, check: bool = True) -> Status:
        """Waits until the run is over, at most `timeout` seconds (TimeoutError). check: raise RunFailed where it failed or was
        stopped. Whoever knows may be away for a while, but not at first (Unreachable)."""
        begun = heard = time.monotonic()
        status = self.status(run)
        while not status.over:
            if timeout is not None and time.monotonic() >= begun + timeout:
                raise TimeoutError(f"{status.run}: {status.phase} after {timeout:g} seconds")
            time.sleep(LOOK)
            try:
                status, heard = self.status(run), time.monotonic()
            except Unreachable:
                if time.monotonic() >= heard + PATIENCE:
                    raise
        if check and not status.phase == "Complete":
            raise RunFailed(status)
        return status


def key(run: str, namespace: str) -> tuple[str, str]:
    """Splits NAMESPACE/NAME. namespace: where the run is named without one."""
    parts = run.split("/")
    if len(parts) > 2 or "" in parts or any(part in (".", "..") for part in parts):
        raise MaftError(f"run {run!r}: expected NAME or NAMESPACE/NAME")
    return (parts[0], parts[1]) if len(parts) == 2 else (namespace, parts[0])
