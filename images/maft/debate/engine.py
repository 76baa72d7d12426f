"""The client of the inference servers: token ids in, one recorded call out, over the OpenAI-compatible completions API.

Aiohttp sessions for the whole program; no per-call objects beyond the request itself. A server that is away (restarting,
overloaded, ending) is waited for, and so is one in whose place somebody else answers: a gateway without a route yet, a mesh that
is not ready. What it refuses for good (4xx, in JSON) is BadInput. Answers come whole and not as streams: a stream costs the client
a piece of work for every token (docs/performance.md).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Annotated, Any, Protocol, Self, TypeVar

import aiohttp
import msgspec
from msgspec import Meta

from maft.debate import limits
from maft.debate.replica import HANG, Load, Replica, Waiting, addresses, keeps_alive
from maft.errors import BadInput, one_line
from maft.records import BASE, Call
from maft.spec import SERVER_KEY

PATIENCE = 300.0  # seconds that a server may be away beside what it takes to start: until that is noticed, and another is made
LOOK = 5.0  # seconds until a question about a server's state has to be answered
_PASSING = {408, 409, 425, 429}  # what the server itself may answer, and otherwise the next time
_KEYLESS = 401
MOST = 64 << 20  # bytes of an answer: a hundred thousand tokens with their ids are one or two million
UNFINISHED = {"abort", "error"}  # a server that ends says so, with the half of an answer
PLAIN = {"Accept-Encoding": "identity"}  # compressed, a few kilobytes of a stranger's would be gigabytes here
_JSON = {"Content-Type": "application/json", **PLAIN}
_Token = Annotated[int, Meta(ge=0, lt=2**31)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
T = TypeVar("T")


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


class Engine(Protocol):
    """The seam: HTTP servers, or a mock in tests."""

    async def complete(self, server: str, request: Request) -> Call:
        """Asks the named server for one completion. BadInput if it refuses, OSError if it stays away."""

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Waits until every replica of the server has answered for every model; returns the context length in tokens."""

    async def load(self) -> Load:
        """Asks the servers how busy they are; zeros where they do not say."""


class _Choice(msgspec.Struct):
    text: str
    index: int = 0
    finish_reason: str | None = None
    token_ids: tuple[_Token, ...] | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count
    completion_tokens: Count


class _Completion(msgspec.Struct):
    choices: tuple[_Choice, ...]
    usage: _Usage
    error: Any = None
    """What broke off the answer beside it, from proxies."""

    def __post_init__(self) -> None:
        only = self.choices[0] if len(self.choices) == 1 and not self.error else None
        if only is None or only.index or only.finish_reason in UNFINISHED:
            raise ValueError("not a whole answer")


class _Listed(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Listing(msgspec.Struct):
    data: list[_Listed]


_COMPLETION = msgspec.json.Decoder(_Completion)
_LISTING = msgspec.json.Decoder(_Listing)


class HttpEngine:
    """vLLM servers, over HTTP."""

    def __init__(
        self,
        servers: Mapping[str, Sequence[str]],
        patience: float = PATIENCE,
        owner: str = "",
        *,
        key: str = "",
        connections: int = limits.MOST,
        hang: float = HANG,
    ) -> None:
        """Looks the replicas up. Sends nothing yet.

        servers: name to the URLs of its replicas, e.g. {"server-0": ["http://127.0.0.1:8000"]}; a URL whose host has several
        addresses stands for a replica at each. patience: seconds that a server may be away, from its first failure on.
        key: that the servers want; empty: none. connections: that may be open. hang: seconds in which a server that works is
        sure to write a token.
        """
        self._owner = owner  # the run whose adapters are meant, where servers have those of several runs
        self._replicas = {
            name: [Replica(address, url) for url in urls for address in addresses(url)] for name, urls in servers.items()
        }
        self._patience = patience
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._connections = connections
        self._hang = hang
        self._session: aiohttp.ClientSession | None = None
        self._looks: aiohttp.ClientSession | None = None  # apart: requests under way may be all that there is room for

    async def __aenter__(self) -> Self:
        # Idle connections count as open files: a limit for each host keeps both together below the limit of all.
        each = max(1, self._connections // max(1, sum(map(len, self._replicas.values()))))
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=each, keepalive_timeout=60, socket_factory=keeps_alive)
        # No limit of time: an answer may take hours. Who waits in vain is found by `load`.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            connector=connector,
            headers={**_JSON, **self._headers},
            auto_decompress=False,
        )
        looking = aiohttp.TCPConnector(limit=0, limit_per_host=1, keepalive_timeout=60)
        self._looks = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=LOOK), connector=looking, headers=PLAIN, auto_decompress=False
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for session in (self._session, self._looks):
            if session:
                await session.close()

    async def complete(self, server: str, request: Request) -> Call:
        # One that is away is asked by those who wait for it; others go where there is an answer.
        replica = min(self._replicas[server], key=lambda r: (r.failing is not None, r.busy))
        replica.busy += 1
        try:
            return await self._complete(replica, server, request)
        finally:
            replica.busy -= 1

    async def ready(self, server: str, models: Iterable[str]) -> int:
        watching = asyncio.create_task(self._watch())  # the window, which looks at the load later, has not begun yet
        try:
            return min([await self._ready(replica, server, list(models)) for replica in self._replicas[server]])
        finally:
            watching.cancel()

    async def load(self) -> Load:
        loads = await asyncio.gather(*(self._load(r) for replicas in self._replicas.values() for r in replicas))
        return Load(sum(load.running for load in loads), sum(load.waiting for load in loads))

    async def _watch(self) -> None:
        """Gives up requests that hang, until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK, self._hang))
            await self.load()

    async def _ready(self, replica: Replica, server: str, models: list[str]) -> int:
        """Asks for one token of every model: the first request for an adapter is what makes the replica fetch it."""
        listing = await self._ask(server, replica, "/v1/models", None, _LISTING)
        context = next((m.max_model_len for m in listing.data if m.id == BASE), None)
        if not context:
            raise BadInput(f"server {server}: {replica.url} does not serve a model {BASE!r} with a max_model_len")
        probe = [Request(model, [0], 0, 0.0, 1.0, 1) for model in models]
        await asyncio.gather(*(self._complete(replica, server, request) for request in probe))
        return context

    async def _complete(self, replica: Replica, server: str, request: Request) -> Call:
        # A server of several runs finds an adapter by its run's name before it; the record keeps the plain name.
        named = request if request.model == BASE or not self._owner else replace(request, model=f"{self._owner}.{request.model}")
        body, tokens = msgspec.json.encode(named), request.max_tokens
        answer = await self._ask(server, replica, "/v1/completions", body, _COMPLETION, tokens)
        choice = answer.choices[0]
        return Call(
            model=request.model,
            seed=request.seed,
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
            finish_reason=choice.finish_reason or "",
            text=choice.text,
            ids=choice.token_ids or (),
        )

    async def _ask(
        self, server: str, replica: Replica, path: str, body: bytes | None, kind: msgspec.json.Decoder[T], tokens: int = 0
    ) -> T:
        """Asks until there is an answer: a server that is away is asked again, less and less often, wherever it is now."""
        pause = 0.2
        while True:
            url = f"{replica.url}{path}"
            status, data = await self._send(replica, url, body, tokens)
            if status == 200:
                try:
                    answer = kind.decode(data)
                except _UNREADABLE as error:  # of a server that ends, or of somebody else in its place
                    data = f"no answer of vLLM ({one_line(error)}): ".encode() + data[:300]
                else:
                    replica.succeeded()
                    return answer
            reason = one_line(data.decode(errors="replace"), 300)
            if status == _KEYLESS:  # servers or this program are older than the key: another pod of it has the present one
                raise OSError(f"server {server}: {url} wants another key than {SERVER_KEY} gives ({status}): {reason}")
            if _is_refusal(status, data):
                raise BadInput(f"server {server}: {url} refused a request ({status}): {reason}")
            if replica.failed(asyncio.get_running_loop().time()) > self._patience:
                raise OSError(f"server {server}: {url} away for more than {self._patience:.0f} s: {reason}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
            await self._relocate(server, replica)

    async def _relocate(self, server: str, replica: Replica) -> None:
        """Moves the replica to an address of its host that nobody uses: a pod that was replaced has another one."""
        known = await asyncio.to_thread(addresses, replica.origin)
        used = {other.url for other in self._replicas[server]}
        free = [url for url in known if url not in used]
        if replica.url not in known and free:
            replica.url = free[0]

    async def _send(self, replica: Replica, url: str, body: bytes | None, tokens: int) -> tuple[int, bytes]:
        """The answer's status and bytes; a connection that fails, and a request that is given up, are as good as a 503."""
        assert self._session is not None, "use `async with`"
        try:
            async with asyncio.timeout(None) as limit:
                waiting = Waiting(asyncio.get_running_loop().time(), tokens, limit)
                replica.waiting.add(waiting)
                try:
                    method = "POST" if body else "GET"
                    async with self._session.request(method, url, data=body, allow_redirects=False) as response:
                        return response.status, await _body(response)
                finally:
                    replica.waiting.discard(waiting)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return 503, f"{type(error).__name__}: {error}".encode()

    async def _load(self, replica: Replica) -> Load:
        assert self._looks is not None, "use `async with`"
        data = b""
        try:
            async with self._looks.get(f"{replica.url}/metrics", allow_redirects=False) as response:
                data = await _body(response) if response.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            pass  # who asks it for an answer says so
        now = asyncio.get_running_loop().time()
        load = replica.read(data, now) if data else Load(0, 0)
        replica.give_up(now, self._hang)
        return load


def _is_refusal(status: int, data: bytes) -> bool:
    """Whether the server itself will not have it: in the words of vLLM or of FastAPI, which it is made with. Gateways and other
    strangers have words of their own."""
    if not 400 <= status < 500 or status in _PASSING:
        return False
    try:
        body = msgspec.json.decode(data)
    except _UNREADABLE:
        return False
    return isinstance(body, dict) and (isinstance(body.get("error"), dict) or body.get("object") == "error" or "detail" in body)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Reads the answer, as far as one of a server can go."""
    if response.content_length is not None and response.content_length <= MOST:
        return await response.read()
    data = bytearray()
    async for part in response.content.iter_chunked(1 << 16):
        data += part
        if len(data) > MOST:
            raise aiohttp.ClientPayloadError(f"an answer of more than {MOST >> 20} MiB")
    return bytes(data)
