"""Server-sent events: how a stream is written, and what keeps a silent one alive."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

KEEP_ALIVE = 10.0  # seconds of silence after which proxies and clients hear that somebody is at work
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Events:
    """The stream of one request."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(headers=_HEADERS)

    async def begin(self) -> None:
        """Sends the head: from here on errors are events, too."""
        await self.response.prepare(self._request)

    async def send(self, event: dict[str, Any]) -> None:
        """Sends an event."""
        await self.response.write(b"data: " + msgspec.json.encode(event) + b"\n\n")

    async def still_there(self) -> None:
        """Sends a comment, which clients pass over."""
        await self.response.write(b": debating\n\n")

    async def end(self) -> None:
        """Says that all is sent."""
        await self.response.write(b"data: [DONE]\n\n")
        await self.response.write_eof()

    async def break_off(self, event: dict[str, Any]) -> None:
        """Says why there is no more, and ends. Who does not read what there is gets no words, and is not waited for."""
        transport = self._request.transport
        if transport and transport.get_write_buffer_size() > transport.get_write_buffer_limits()[0]:
            transport.abort()
        elif transport:
            await self.send(event)
            await self.end()


async def with_silence(queue: "asyncio.Queue[Any]", silence: float = KEEP_ALIVE) -> AsyncIterator[Any]:
    """Yields what the queue gets until it gets None itself; an empty tuple after each silence."""
    while True:
        try:
            item = await asyncio.wait_for(queue.get(), silence)
        except TimeoutError:
            yield ()
            continue
        if item is None:
            return
        yield item
