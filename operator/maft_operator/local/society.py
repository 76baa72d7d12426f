"""`maft serve`: a vLLM server with a run's adapters and the society before it, as processes of this machine."""

import asyncio
import contextlib
import fcntl
import itertools
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from maft.society_spec import SocietySpec, encode_society
from maft.spec import RunSpec
from maft.summaries import BAD_INPUT
from maft_operator.local import gpus
from maft_operator.local.backend import HOST, LocalBackend
from maft_operator.local.place import Place
from maft_operator.local.ports import check_free, free_port
from maft_operator.local.processes import Child, start
from maft_operator.plan import society
from maft_operator.plan.graph import Graph, Server
from maft_operator.spec.parse import Run
from maft_operator.spec.schema import BadSpec

SERVER = "society-server"
LOOK = 0.5  # seconds between two looks
TRIES = 3  # starts of a server that ends each time


class Facts(msgspec.Struct, frozen=True):
    """What a run has to serve, as the society's program says."""

    spec: dict[str, Any]
    iteration: int
    adapters: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served, and where."""

    place: Place
    iteration: int
    """0: the best, else the last that has all its adapters."""
    society: SocietySpec
    folder: Path
    """For logs and adapters."""
    host: str = HOST
    port: int = 0
    """0: any that is free."""
    keys: str = ""
    tls: tuple[str, str] | None = None
    """Files of the certificate and its key; None: http."""
    gpus: int | None = None
    """Of the server; None: as many as the run's had where they are here, else what is there."""
    serve: Sequence[str] = ()
    """How the server is started in place of `python -m maft.serve` (tests)."""


class Ended(Exception):
    """A process that has to run has ended: the words and the exit code for the user."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def facts(wanted: Wanted) -> Facts:
    """Asks what the run has to serve; BadSpec in the program's own words where it has nothing."""
    place = wanted.place
    command = [sys.executable, "-m", "maft.endpoint", f"--store={place.store}", f"--run={place.key}", "--facts"]
    done = subprocess.run([*command, f"--iteration={wanted.iteration}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadSpec(done.stderr.strip().rpartition("\n")[2].removeprefix("error: "))
    return msgspec.json.decode(done.stdout, type=Facts)


def servers(wanted: Wanted, known: Facts, devices: gpus.Found) -> dict[tuple[int, ...], Server]:
    """Plans the server of all agents, or one of each base with its agents, on the GPUs that there are or the CPU; BadSpec if more
    are asked for."""
    spec = msgspec.convert({**known.spec, "suspend": False, "backoffLimit": 0}, RunSpec)
    shared = msgspec.structs.replace(spec.inference, replicas=1, topology="Shared")
    run = Run(wanted.place.namespace, wanted.place.name, msgspec.structs.replace(spec, inference=shared))
    of_run = shared.gpus if (shared.gpus or 0) <= len(devices.gpus) else None  # it may have had another machine
    asked = of_run if wanted.gpus is None else wanted.gpus
    by_agents = society.servers(run, wanted.place.store, SERVER, known.iteration, asked)
    planned = gpus.dealt(Graph((), tuple(by_agents.values()), False, 0), devices)
    gpus.fits(planned, devices)
    return dict(zip(by_agents, planned.servers, strict=True))


def command(wanted: Wanted, known: Facts, urls: Mapping[tuple[int, ...], str], port: int) -> list[str]:
    """Writes how the society is started. urls: of the servers, by their agents."""
    place = wanted.place
    line = [sys.executable, "-m", "maft.endpoint", f"--store={place.store}", f"--run={place.key}"]
    line += [f"--spec={msgspec.json.encode(known.spec).decode()}", f"--iteration={known.iteration}"]
    line += [*society.server_flags(SERVER, urls), f"--society={encode_society(wanted.society)}"]
    line += [f"--host={wanted.host}", f"--port={port}"]
    line += [f"--tls-cert={wanted.tls[0]}", f"--tls-key={wanted.tls[1]}"] if wanted.tls else []
    return [*line, *([f"--keys={wanted.keys}"] if wanted.keys else [])]


@dataclass(frozen=True, slots=True)
class Running:
    """The society as it runs. `watch` it: it raises Ended when something has gone for good."""

    url: str
    servers: Mapping[tuple[int, ...], str]
    """URLs of the vLLM servers behind it, by their agents (to ask them beside it)."""
    known: Facts
    watch: Callable[[], Any]


@contextlib.asynccontextmanager
async def running(wanted: Wanted, known: Facts, say: Callable[[str], None]) -> AsyncIterator[Running]:
    """Starts both, waits until the agents answer, and ends both with the block: the society first, so that it answers what is
    under way."""
    _check_address(wanted)
    with claimed(wanted.folder) as own:
        async with _running(replace(wanted, folder=own), known, say) as started:
            yield started


@contextlib.asynccontextmanager
async def _running(wanted: Wanted, known: Facts, say: Callable[[str], None]) -> AsyncIterator[Running]:
    devices = gpus.find()
    planned, port = servers(wanted, known, devices), wanted.port or free_port()
    async with LocalBackend(wanted.folder, gpus.Slots(devices.gpus), wanted.serve) as backend:
        for each in planned.values():
            await backend.create(each)
            say(f"Starting the server of {each.adapters} adapters of iteration {known.iteration}; logs in {wanted.folder}")
        urls = {agents: backend.urls(each.name)[0] for agents, each in planned.items()}
        line = command(wanted, known, urls, port)
        summary = str(wanted.folder / "endpoint.json")
        environment = {"MAFT_SUMMARY": summary, "TOKENIZERS_PARALLELISM": "false", **backend.key}
        child = await start(line, environment, wanted.folder / "endpoint.txt")

        async def watch() -> None:
            while True:
                await _look(backend, planned.values(), child)
                await asyncio.sleep(LOOK)

        url = url_of(wanted.host, port, secured=wanted.tls is not None)
        try:
            await _ready(url, watch)
            yield Running(url, urls, known, watch)
        finally:
            await child.stop()


def _check_address(wanted: Wanted) -> None:
    """BadSpec, before a model is loaded, where the society could not listen: another one may answer there, and would be taken for
    this one."""
    if not wanted.port:
        return
    try:
        check_free(wanted.host, wanted.port)
    except OSError as error:
        where, other = ("--host", "address") if isinstance(error, socket.gaierror) else ("--port", "port")
        given = wanted.host if where == "--host" else wanted.port
        raise BadSpec(f"{where} {given}: {error.strerror}; choose another {other}") from None


def url_of(host: str, port: int, *, secured: bool = False) -> str:
    """Writes where it is asked; an address of IPv6 stands in brackets."""
    scheme = "https" if secured else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def _look(backend: LocalBackend, planned: Iterable[Server], child: Child) -> None:
    """Starts a server again where it has ended; Ended if that helps no more."""
    if child.exit_code is not None:
        raise Ended(next(iter(child.tail()[-1:]), "the society ended").removeprefix("error: "), child.exit_code)
    states = (await backend.observe()).observed.servers
    for server in planned:
        state = states[server.name]
        if state.failed and (state.exit_code == BAD_INPUT or state.failures >= TRIES):
            raise Ended(state.message, state.exit_code)
        await backend.create(server)


async def _ready(url: str, watch: Callable[[], Any]) -> None:
    watching = asyncio.create_task(watch())
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while not await _is_ready(session, url):
                await asyncio.wait([watching], timeout=LOOK)
                if watching.done():
                    watching.result()
    finally:
        watching.cancel()


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/ready", ssl=False) as response:  # whose certificate it is, we know: our own child's
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Takes the folder for this block alone, or where another process has it, the next one: society, society-2 and so on. A lock
    goes with its process, however that ends."""
    for number in itertools.count(1):
        own = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        own.mkdir(parents=True, exist_ok=True)
        with (own / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield own
            return


def folder(place: Place, top: Path) -> Path:
    """Names the folder for logs of a run's society: the run's own where it lies in a folder, else one below `top`."""
    return (top / place.key if "://" in place.store else Path(place.url)) / "local" / "society"
