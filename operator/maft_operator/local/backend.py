"""The backend on this machine: tasks and servers as processes, a folder with a log and a summary for each.

What finished is known by its summary file, so a run that was killed goes on where it was.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from maft.spec import SERVER_KEY
from maft.summaries import BAD_INPUT, AnySummary, Failure
from maft_operator import progress
from maft_operator.local import gpus as devices
from maft_operator.local.gpus import Slots
from maft_operator.local.ports import free_port
from maft_operator.local.processes import TASK_GRACE, Child, start
from maft_operator.plan import best
from maft_operator.plan import graph as plan
from maft_operator.plan.graph import Server, Task
from maft_operator.plan.reconcile import Refusal
from maft_operator.plan.step import Observed, ServerState, TaskState
from maft_operator.run_folder import read_summary

HANG_LIMIT = 60.0  # seconds without an answer after which a server that was ready counts as hung
BACKOFF = (1.0, 5.0, 15.0, 30.0)  # seconds before the next attempt
HOST = "127.0.0.1"


@dataclass(slots=True)
class _Attempts:
    """What a task or replica went through in this process's life."""

    port: int
    child: Child | None = None
    failures: int = 0
    started: float = 0.0
    not_before: float = 0.0
    message: str = ""

    def failed(self, now: float, message: str) -> None:
        self.failures += 1
        self.message = message
        self.not_before = now + BACKOFF[min(self.failures, len(BACKOFF)) - 1]


@dataclass(slots=True)
class _Replica(_Attempts):
    """One process of a server."""

    ready: bool = False
    answered: float = 0.0
    """When it last did."""
    exit_code: int = 0
    patience: float = 0.0
    """Seconds until it has to be ready."""


@dataclass(frozen=True, slots=True)
class LocalSnapshot:
    """What runs here, and what finished before."""

    observed: Observed


class LocalBackend:
    """Processes under `folder`. `serve`: how a server is started in place of `python -m maft.serve` (tests)."""

    def __init__(self, folder: Path, slots: Slots, serve: Sequence[str] = (), hang_limit: float = HANG_LIMIT) -> None:
        self._hang_limit = hang_limit
        self._folder = folder
        self._slots = slots
        self._serve = tuple(serve)
        # Anybody on this machine reaches loopback. Servers that were started otherwise may want a key of their own.
        self.key = {SERVER_KEY: os.environ.get(SERVER_KEY) or secrets.token_urlsafe(32)}
        """What the servers want of whoever asks them, as programs find it in their environment."""
        self._tasks: dict[str, _Attempts] = {}
        self._servers: dict[str, list[_Replica]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        self._watch = asyncio.create_task(self._watch_servers())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._watch and self._session
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        await asyncio.gather(*(self.delete(name) for name in [*self._tasks, *self._servers]))
        await self._session.close()

    async def observe(self) -> LocalSnapshot:
        summaries = {file.parent.name: read_summary(file) for file in self._folder.glob("*/summary.json")}
        finished = {
            name: TaskState("succeeded") for name, summary in summaries.items() if summary and not isinstance(summary, Failure)
        }
        tasks = {name: self._task_state(name, attempts) for name, attempts in self._tasks.items()}
        servers = {name: self._server_state(r) for name, r in self._servers.items()}
        measured = best.validations(summaries)
        return LocalSnapshot(Observed({**finished, **tasks}, servers, validations=measured, tokens=best.tokens(summaries.values())))

    async def create(self, item: Task | Server) -> tuple[Refusal, ...]:
        await (self._create_task(item) if isinstance(item, Task) else self._create_server(item))
        return ()

    async def keep(self, item: Task | Server) -> tuple[Refusal, ...]:
        return ()  # nobody else changes our processes

    async def delete(self, name: str) -> None:
        attempts = self._tasks.pop(name, None)
        replicas = self._servers.pop(name, [])
        task = [attempts.child.stop(TASK_GRACE)] if attempts and attempts.child else []
        await asyncio.gather(*task, *(replica.child.stop() for replica in replicas if replica.child))
        for holder in (name, *(f"{name}/{i}" for i in range(len(replicas)))):
            self._slots.release(holder)

    # --- tasks ---

    async def _create_task(self, task: Task) -> None:
        attempts = self._tasks.setdefault(task.name, _Attempts(free_port()))
        running = attempts.child is not None and attempts.child.exit_code is None
        gpus = self._slots.acquire(task.name, task.gpus)
        if running or gpus is None or _now() < attempts.not_before:
            return
        folder = self._folder / task.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").unlink(missing_ok=True)
        urls = {name: self.urls(name) for name in task.servers}
        environment = {
            "MAFT_SUMMARY": str(folder / "summary.json"),
            "MAFT_METRICS_PORT": str(attempts.port),
            "MAFT_METRICS_HOST": HOST,
            "MAFT_WATCHED": "1",  # maft.pod
            # Threads that wait must sleep: spinning beside a server on the same cores makes training ten times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            **(self.key if task.servers else {}),
            **_environment(task, gpus),
        }
        attempts.started = _now()
        attempts.child = await start([sys.executable, *plan.command(task, urls)], environment, folder / "log.txt")

    def _task_state(self, name: str, attempts: _Attempts) -> TaskState:
        if attempts.child is None:  # waits for a GPU, or for the end of its pause
            return TaskState("failed", attempts.failures, 0, attempts.message)
        code = attempts.child.exit_code
        if code is None:
            return TaskState("running", attempts.failures, 0, attempts.message if attempts.failures else "")
        self._slots.release(name)
        if code == 0:
            return TaskState("succeeded")
        if attempts.not_before < attempts.started:  # seen for the first time
            attempts.failed(_now(), self._why(name, attempts.child, code))
        return TaskState("failed", attempts.failures, code, attempts.message)

    def _why(self, name: str, child: Child, code: int) -> str:
        summary = self.summary(name)
        return summary.error if isinstance(summary, Failure) else _ended("the program", code, child)

    async def progress(self, task: str) -> tuple[float, float] | None:
        """Reads units of work done and in all, as the running task itself counts them; None where it does not say."""
        attempts = self._tasks.get(task)
        if attempts is None or attempts.child is None or attempts.child.exit_code is not None:
            return None
        units = await progress.read(f"http://{HOST}:{attempts.port}/metrics")
        return None if isinstance(units, progress.Unreadable) else units

    def summary(self, task: str) -> AnySummary | None:
        """Reads what a task said at its end; None where it has not."""
        return read_summary(self._folder / task / "summary.json")

    # --- servers ---

    def urls(self, server: str) -> list[str]:
        """Lists where the replicas of a server listen."""
        return [f"http://{HOST}:{r.port}" for r in self._servers[server]]

    async def _create_server(self, server: Server) -> None:
        replicas = self._servers.setdefault(server.name, [])
        while len(replicas) < server.replicas:
            replicas.append(_Replica(free_port(), patience=server.run.spec.inference.startup_seconds))
        for i, replica in enumerate(replicas):
            _note_end(replica)  # an end that the watch has not seen yet counts too
            down = replica.child is None or replica.child.exit_code is not None
            gpus = self._slots.acquire(f"{server.name}/{i}", server.gpus)
            if down and gpus is not None and _now() >= replica.not_before:
                await self._start_replica(server, i, replica, gpus)

    async def _start_replica(self, server: Server, i: int, replica: _Replica, gpus: tuple[str, ...]) -> None:
        folder = self._folder / server.name
        where = (f"--host={HOST}", f"--port={replica.port}", f"--adapter-folder={folder / f'adapters-{i}'}")
        line = [*self._serve, *plan.serve_flags(server, *where)] if self._serve else [sys.executable, *plan.serve(server, *where)]
        replica.started = replica.answered = _now()
        replica.ready, replica.exit_code = False, 0
        environment = {"MAFT_DIE_WITH_PARENT": "1", **self.key, **_environment(server, gpus)}
        replica.child = await start(line, environment, folder / f"log-{i}.txt")

    def _server_state(self, replicas: Sequence[_Replica]) -> ServerState:
        """All replicas as one server: as bad as the worst, for good if one was told wrong things."""
        worst = max(replicas, key=lambda r: r.failures)
        down = any(r.child is None or r.child.exit_code is not None for r in replicas)
        wrong_input = any(r.exit_code == BAD_INPUT for r in replicas)
        return ServerState(
            ready=all(r.ready for r in replicas),
            failed=down,
            failures=worst.failures,
            exit_code=BAD_INPUT if wrong_input else worst.exit_code,
            message=worst.message,
        )

    async def _watch_servers(self) -> None:
        """Asks every replica how it is, once a second; ends those that hang."""
        while True:
            replicas = [replica for several in list(self._servers.values()) for replica in several]
            await asyncio.gather(*(self._look_at(replica) for replica in replicas))
            await asyncio.sleep(1)

    async def _look_at(self, replica: _Replica) -> None:
        child = replica.child
        _note_end(replica)
        if child is None or child.exit_code is not None:
            return
        if await self._healthy(replica.port):
            replica.ready, replica.answered = True, _now()
        elif _now() - replica.answered > (self._hang_limit if replica.ready else replica.patience):
            replica.ready = False
            await child.stop()

    async def _healthy(self, port: int) -> bool:
        assert self._session
        try:
            async with self._session.get(f"http://{HOST}:{port}/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


def _note_end(replica: _Replica) -> None:
    """Counts the end of a server's process, once."""
    child = replica.child
    if child is None or child.exit_code is None or replica.not_before > replica.started:
        return  # never started, still running, or its end is known
    replica.ready, replica.exit_code = False, child.exit_code
    replica.failed(_now(), _ended("the server", child.exit_code, child))


def _environment(item: Task | Server, gpus: tuple[str, ...]) -> dict[str, str]:
    # Tokenizers warn about forks and would compete with the model for the cores.
    fixed = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**fixed, **devices.compiled(), **devices.environment(item, gpus)}


def _ended(what: str, code: int, child: Child) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return "\n".join([f"{what} {how}; the last lines of {child.log}:", *(f"  {line}" for line in child.tail())])


def _now() -> float:
    return asyncio.get_running_loop().time()
