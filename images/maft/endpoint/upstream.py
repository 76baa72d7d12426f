"""One agent's answer as its server writes it: the client of vLLM that streams, where a debate's takes answers whole.

Who goes away closes the connection, and vLLM stops writing. A server that is away is told at once: nothing is asked again once a
word of it may have been heard.
"""

import asyncio
import codecs
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp.http_exceptions import LineTooLong

from maft.debate.engine import PLAIN, UNFINISHED, Count, Request
from maft.debate.replica import keeps_alive
from maft.endpoint.refused import Refused
from maft.errors import one_line
from maft.spec import UNREADABLE

_JSON = {"Content-Type": "application/json"}
MOST = 64 << 10  # bytes of a refusal
LINE = 1 << 20  # bytes of an event
REST = 1.0  # seconds in which a stream has to end once all is said
AGAIN = 2  # seconds after which a server that is away may be there


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. tokens: of prompt and answer, with the last piece."""

    text: str
    finish_reason: str | None = None
    tokens: tuple[int, int] | None = None


class _Choice(msgspec.Struct):
    text: str = ""
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count
    completion_tokens: Count = 0


class _Chunk(msgspec.Struct):
    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: Any = None
    """What broke off the answer."""


_CHUNK = msgspec.json.Decoder(_Chunk)


class Upstream:
    """The servers of the agents, over HTTP."""

    def __init__(self, servers: Mapping[str, Sequence[str]], key: str, connections: int) -> None:
        self._urls = {name: list(urls) for name, urls in servers.items()}
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60, socket_factory=keeps_alive)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)  # the request has a limit of its own
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=connector, headers={**PLAIN, **self._headers}, read_bufsize=LINE, auto_decompress=False
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session:
            await self._session.close()

    async def healthy(self) -> bool:
        """Tells whether every server says that it is well."""
        for url in (url for urls in self._urls.values() for url in urls):
            if not await self._is_healthy(url):
                return False
        return True

    async def _is_healthy(self, url: str) -> bool:
        assert self._session is not None, "use `async with`"
        try:
            limit = aiohttp.ClientTimeout(total=5)
            async with self._session.get(f"{url.rstrip('/')}/health", timeout=limit, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return False

    async def stream(self, server: str, request: Request, ends: Sequence[str]) -> AsyncGenerator[Piece, None]:
        """Yields the answer piece by piece; Refused where the server is away or says that it will not."""
        assert self._session is not None, "use `async with`"
        urls = self._urls[server]
        urls.append(urls.pop(0))  # of several replicas the next one
        body = msgspec.to_builtins(request) | {"return_token_ids": False, "stream": True, "stream_options": {"include_usage": True}}
        body |= {"stop": list(ends)} if ends else {}
        try:
            async with self._session.post(
                f"{urls[0].rstrip('/')}/v1/completions", data=msgspec.json.encode(body), headers=_JSON, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise _refused(response.status, await response.content.read(MOST))
                async with aclosing(_pieces(response.content)) as pieces:
                    async for piece in pieces:
                        yield piece
                await _read_out(response)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Refused(503, f"the server of the agents is away: {one_line(error)}", after=AGAIN) from None
        except (LineTooLong, ValueError):  # the latter before aiohttp 3.14
            raise _broken(f"an event of more than {LINE >> 20} MiB") from None


def _refused(status: int, data: bytes) -> Refused:
    reason = one_line(data.decode(errors="replace"), 300)
    return Refused(
        503 if status in (408, 425, 429) or status >= 500 else 502, f"the server of the agents says {status}: {reason}", after=AGAIN
    )


def _broken(reason: Any) -> Refused:
    return Refused(502, f"the server of the agents broke off: {one_line(reason, 300)}")


async def _read_out(response: aiohttp.ClientResponse) -> None:
    """Reads what is left after the answer: only a connection that was read to its end is used again."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):  # the answer is there already
        async with asyncio.timeout(REST):
            while await response.content.readany():
                pass


async def _pieces(lines: Any) -> AsyncGenerator[Piece, None]:
    """Reads the answer. The chunk about tokens comes last, or is the last of the text; so the end is told with it."""
    finish, tokens = None, None
    async for chunk in _chunks(lines):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if finish in UNFINISHED:
                raise Refused(503, "the server of the agents ended in the middle of an answer", after=AGAIN)
            if choice.text:
                yield Piece(choice.text)
        tokens = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) if chunk.usage else tokens
        if finish and tokens:
            yield Piece("", finish, tokens)
            return
    if finish:
        raise Refused(502, "the server of the agents does not say how many tokens it read and wrote (usage)")
    raise Refused(503, "the server of the agents went away in the middle of an answer", after=AGAIN)


async def _chunks(lines: Any) -> AsyncGenerator[_Chunk, None]:
    """Reads the events; comments and names of events are passed over."""
    async for line in lines:
        event, _, data = line.strip().removeprefix(codecs.BOM_UTF8).partition(b":")
        if event != b"data" or (data := data.lstrip()) == b"[DONE]":
            continue
        try:
            chunk = _CHUNK.decode(data)
        except UNREADABLE:
            raise _broken(data.decode(errors="replace")) from None
        if chunk.error:
            raise _broken(chunk.error)
        yield chunk
