"""Requests to an API server whose answers others decide."""

import asyncio
import contextlib
import json
import tracemalloc
from urllib.parse import parse_qs, urlsplit

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


def test_what_may_be_many_and_large_is_read_in_parts() -> None:
    """As the API server gives them: a token with each part but the last."""
    asked: list[dict[str, list[str]]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        query = parse_qs(urlsplit(line).query)
        asked.append(query)
        first = int(query.get("continue", ["0"])[0])
        after = {"continue": str(first + 2)} if first < 4 else {}
        items = [{"metadata": {"name": str(n)}} for n in range(first, min(first + 2, 5))]
        body = json.dumps({"metadata": after, "items": items}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async def scenario() -> list[Json]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        try:
            host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with ApiClient(Configuration(host=host)) as client:
                return await Api(client, Metrics()).list_all(kinds.RUN, "default", page=2, label_selector="a=b")
        finally:
            server.close()

    assert [item["metadata"]["name"] for item in asyncio.run(scenario())] == ["0", "1", "2", "3", "4"]
    assert [(query["limit"], query["labelSelector"]) for query in asked] == [(["2"], ["a=b"])] * 3
