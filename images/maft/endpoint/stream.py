"""Server-sent events: how a stream is written, and what keeps a silent one alive."""

import asyncio
import contextlib
from typing import Any

import msgspec
from aiohttp import web

KEEP_ALIVE = 10.0  # seconds after which proxies and clients hear that somebody is at work
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Events:
    """The stream of one request. opening: its first event, sent with whatever comes first: each write wakes a client."""

    def __init__(self, request: web.Request, opening: dict[str, Any]) -> None:
        self._request = request
        self._unsent = _written(opening)
        self._ended = False
        self.response = web.StreamResponse(headers=_HEADERS)

    @property
    def begun(self) -> bool:
        """Tells whether the head is sent: from there on errors are events, too."""
        return self.response.prepared

    async def send(self, *events: dict[str, Any]) -> None:
        """Sends events, all at once."""
        await self._write(b"".join(map(_written, events)))

    async def _write(self, data: bytes) -> None:
        await self.response.prepare(self._request)
        data, self._unsent = self._unsent + data, b""
        if data:
            await self.response.write(data)

    async def keep_alive(self, silence: float = KEEP_ALIVE) -> None:
        """Sends comments, which clients pass over, until cancelled or ended; none while others wait to be read."""
        with contextlib.suppress(ConnectionError):
            while not self._ended:
                await asyncio.sleep(silence)
                if not self._ended and (transport := self._request.transport) and not transport.get_write_buffer_size():
                    await self._write(b": at work\n\n")

    async def end(self) -> None:
        """Says that all is sent."""
        self._ended = True
        await self._write(b"data: [DONE]\n\n")
        await self.response.write_eof()

    async def break_off(self, event: dict[str, Any]) -> None:
        """Says why there is no more, and ends. Who does not read what there is gets no words, and is not waited for."""
        transport = self._request.transport
        if transport and transport.get_write_buffer_size() > transport.get_write_buffer_limits()[0]:
            transport.abort()
        elif transport:
            await self.send(event)
            await self.end()


def _written(event: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
