"""Requests to an API server whose answers others decide."""

import asyncio
import contextlib
import json
import tracemalloc

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from maft_operator.cluster import kinds, reasons
from maft_operator.cluster.api import MOST, Api, Refused
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics


async def listed(*body: bytes) -> list[Json]:
    """What a list of pods gives, of a server that answers with this; the last piece again and again, if there are two."""
    head, again = body[0], body[1:]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n" + head)
            while again:
                writer.write(again[0])
                await writer.drain()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ApiClient(Configuration(host=host)) as client:
            return await Api(client, Metrics()).list(kinds.POD, "default")
    finally:
        server.close()


def test_a_list_is_read() -> None:
    assert asyncio.run(listed(json.dumps({"items": [{"metadata": {"name": "x"}}]}).encode())) == [{"metadata": {"name": "x"}}]


def test_a_list_without_an_end_is_refused() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as error:
            asyncio.run(listed(b'{"items": [', b'{"metadata": {}},' * 10_000))
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST
    finally:
        tracemalloc.stop()
    assert reasons.refusal_reason(str(error.value)) == reasons.TOO_MANY_OBJECTS
