"""The client of the inference servers: token ids in, one recorded call out, over the OpenAI-compatible completions API.

One aiohttp session for the whole program; no per-call objects beyond the request itself. A server that is away (restarting,
overloaded) is waited for; what it refuses for good (4xx) is BadInput.
"""

import asyncio
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from maft.errors import BadInput, one_line
from maft.records import BASE, Call

PATIENCE = 300.0  # seconds that a server may be away: longer than it takes to restart one with a large model in the page cache
HANG = 900.0  # seconds without a byte of an answer before a request is asked again
_AWAY = {408, 425, 429, 500, 502, 503, 504}
_GAUGE = re.compile(rb"^vllm:num_requests_(running|waiting)\{[^}]*\} ([0-9.e+]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Request:
    """One completion, in the words of the completions API."""

    model: str
    prompt: Sequence[int]  # token ids
    seed: int  # of this request alone
    temperature: float
    top_p: float
    max_tokens: int  # new tokens
    stop_token_ids: Sequence[int] = ()  # beside those that the server knows of itself
    skip_special_tokens: bool = True  # in the text that comes back
    return_token_ids: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at all servers together."""

    running: int  # being computed
    waiting: int  # in line


class Engine(Protocol):
    """The seam: HTTP servers, or a mock in tests."""

    async def complete(self, server: str, request: Request) -> Call:
        """Asks the named server for one completion. BadInput if it refuses, OSError if it stays away."""

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Waits until every replica of the server has answered for every model; returns the context length in tokens."""

    async def load(self) -> Load:
        """Asks the servers how busy they are; zeros where they do not say."""


class HttpEngine:
    """vLLM servers, over HTTP."""

    def __init__(self, servers: Mapping[str, Sequence[str]], patience: float = PATIENCE, owner: str = "") -> None:
        """Looks the replicas up. Sends nothing yet.

        servers: name to the URLs of its replicas, e.g. {"server-0": ["http://127.0.0.1:8000"]}; a URL whose host has several
        addresses stands for a replica at each. patience: seconds that a server may be away.
        """
        self._owner = owner  # the run whose adapters are meant, where servers have those of several runs
        self._replicas = {
            name: [_Replica(address, url) for url in urls for address in _addresses(url)] for name, urls in servers.items()
        }
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=HANG)
        # limit 0: the debate's window decides how much is under way, not the pool.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session:
            await self._session.close()

    async def complete(self, server: str, request: Request) -> Call:
        replica = min(self._replicas[server], key=lambda r: r.busy)
        replica.busy += 1
        try:
            return await self._complete(replica, server, request)
        finally:
            replica.busy -= 1

    async def ready(self, server: str, models: Iterable[str]) -> int:
        contexts = [await self._ready(replica, server, list(models)) for replica in self._replicas[server]]
        return min(contexts)

    async def load(self) -> Load:
        loads = await asyncio.gather(*(self._load(r.url) for replicas in self._replicas.values() for r in replicas))
        return Load(sum(load.running for load in loads), sum(load.waiting for load in loads))

    async def _ready(self, replica: "_Replica", server: str, models: list[str]) -> int:
        """Asks for one token of every model: the first request for an adapter is what makes the replica fetch it."""
        listing = await self._ask(server, replica, "/v1/models", None)
        context = next((m.get("max_model_len") for m in listing["data"] if m["id"] == BASE), None)
        if not context:
            raise BadInput(f"server {server}: {replica.url} does not serve a model {BASE!r} with a max_model_len")
        probe = [Request(model, [0], 0, 0.0, 1.0, 1) for model in models]
        await asyncio.gather(*(self._complete(replica, server, request) for request in probe))
        return int(context)

    async def _complete(self, replica: "_Replica", server: str, request: Request) -> Call:
        # A server of several runs finds an adapter by its run's name before it; the record keeps the plain name.
        named = request if request.model == BASE or not self._owner else replace(request, model=f"{self._owner}.{request.model}")
        answer = await self._ask(server, replica, "/v1/completions", msgspec.json.encode(named))
        choice, usage = answer["choices"][0], answer["usage"]
        return Call(
            model=request.model,
            seed=request.seed,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            finish_reason=choice["finish_reason"] or "",
            text=choice["text"],
            ids=tuple(choice.get("token_ids") or ()),
        )

    async def _ask(self, server: str, replica: "_Replica", path: str, body: bytes | None) -> Any:
        """Asks until there is an answer: a server that is away is asked again, less and less often, wherever it is now."""
        deadline, pause = asyncio.get_running_loop().time() + self._patience, 0.2
        while True:
            url = f"{replica.url}{path}"
            status, data = await self._send(url, body)
            if status == 200:
                return msgspec.json.decode(data)
            reason = one_line(data.decode(errors="replace"), 300)
            if status not in _AWAY:
                raise BadInput(f"server {server}: {url} refused a request ({status}): {reason}")
            if asyncio.get_running_loop().time() > deadline:
                raise OSError(f"server {server}: {url} away for more than {self._patience:.0f} s: {reason}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
            await self._relocate(server, replica)

    async def _relocate(self, server: str, replica: "_Replica") -> None:
        """Moves the replica to an address of its host that nobody uses: a pod that was replaced has another one."""
        known = await asyncio.to_thread(_addresses, replica.origin)
        used = {other.url for other in self._replicas[server]}
        free = [url for url in known if url not in used]
        if replica.url not in known and free:
            replica.url = free[0]

    async def _send(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        """The answer's status and bytes; a connection that fails is as good as a 503."""
        assert self._session is not None, "use `async with`"
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.request("POST" if body else "GET", url, data=body, headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return 503, f"{type(error).__name__}: {error}".encode()

    async def _load(self, url: str) -> Load:
        status, data = await self._send(f"{url}/metrics", None)
        gauges = {"running": 0, "waiting": 0}
        for name, value in _GAUGE.findall(data) if status == 200 else ():  # one line per model
            gauges[name.decode()] += int(float(value))
        return Load(**gauges)


class _Replica:
    """One server process."""

    def __init__(self, url: str, origin: str) -> None:
        self.url = url  # with an address for a host
        self.origin = origin  # the URL that it was given as
        self.busy = 0  # our requests that it has


def _addresses(url: str) -> list[str]:
    """Resolves a URL to one per address. A headless Service has one for every replica; each has to answer before it is used."""
    url = url.rstrip("/")
    parts = urlsplit(url)
    try:
        addresses = socket.getaddrinfo(parts.hostname, parts.port or 80, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return [url]  # not known yet: requests wait for it
    hosts = sorted({str(entry[4][0]) for entry in addresses})
    return [f"{parts.scheme}://{host}:{parts.port or 80}" for host in hosts]
