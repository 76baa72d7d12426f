"""Daemons of the running test cluster that tests kill, pause and start again. Never the holder of its namespaces."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import keys
import parts
import psutil
import settings as s
from sandbox import Sandbox

READY_SECONDS = 90.0  # for one that was started again, on a busy machine
GONE_SECONDS = 10.0


class Daemons:
    """The programs of this machine's cluster, by the names of their logs: api, kubelet, containerd, s3, …"""

    def __init__(self) -> None:
        record = json.loads(s.RECORD.read_text())
        self.sandbox = Sandbox(**record["holder"])
        account = parts.S3Keys(record["facts"]["s3_access_key"], record["facts"]["s3_secret_key"])
        stages = parts.stages(parts.build_tools(), keys.Keys(), account)
        self._parts = {part.name: part for stage in stages for part in stage}

    def pid(self, name: str) -> int | None:
        """That of the daemon; None while it does not run."""
        command = self._parts[name].command
        return next((pid for pid in _processes() if _line(pid) == command), None)

    @contextlib.contextmanager
    def killed(self, *names: str) -> Iterator[None]:
        """SIGKILL; away as long as the block lasts, then started again and waited for."""
        try:
            for name in names:
                self._kill(name)
            yield
        finally:
            for name in names:
                self._start(name)

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """SIGSTOP: whoever asks it hears nothing, as long as the block lasts."""
        pid = self.pid(name)
        assert pid, f"{name} does not run"
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
            # It stops with what it waits for (nsenter(1)): left so, it would take in nobody's end, and the cluster's never come.
            if (before := psutil.Process(pid).parent()) and before.name() == "nsenter":
                before.send_signal(signal.SIGCONT)

    def well(self) -> bool:
        """Whether all of them run and answer."""
        return all(self.pid(name) and (not part.ready or part.ready(self.sandbox)) for name, part in self._parts.items())

    def in_pod(self, uid: str) -> list[int]:
        """Programs of ours in the pod, whichever container they are in."""
        return [pid for pid in _processes() if uid in _cgroup(pid) and _is_program(pid)]

    def volume(self, uid: str, name: str) -> Path:
        """The folder of a pod's emptyDir on the node."""
        return self.sandbox.path(f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/{name}")

    def run(self, *command: str) -> None:
        """A command in the cluster's namespaces."""
        subprocess.run(self.sandbox.enter(command), check=True, capture_output=True)

    def _kill(self, name: str) -> None:
        if pid := self.pid(name):
            os.kill(pid, signal.SIGKILL)
        _until(lambda: self.pid(name) is None, f"the end of {name}", GONE_SECONDS)

    def _start(self, name: str) -> None:
        part = self._parts[name]
        if not self.pid(name):
            self.sandbox.start(name, part.command, part.environment)
        _until(lambda: self.pid(name) and (not part.ready or part.ready(self.sandbox)), f"{name}, started again", READY_SECONDS)


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _line(pid: int) -> list[str]:
    return [part.decode(errors="replace") for part in _read(pid, "cmdline").split(b"\0")[:-1]]


def _cgroup(pid: int) -> str:
    return _read(pid, "cgroup").decode(errors="replace")


def _is_program(pid: int) -> bool:
    """Not what holds the pod's namespaces, nor the runtime's."""
    line = _line(pid)
    return bool(line) and Path(line[0]).name not in ("pause", "runc")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def _until(condition, what: str, limit: float) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {limit:.0f} s")
        time.sleep(0.1)
