"""Requests to an API server whose answers others decide."""

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from maft_operator.cluster import kinds, reasons
from maft_operator.cluster.api import FREE, MOST, Api, Refused
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"


@contextlib.asynccontextmanager
async def served(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], metrics: Metrics | None = None
) -> AsyncIterator[Api]:
    """Requests to a server that answers like this."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ApiClient(Configuration(host=host)) as client:
            yield Api(client, metrics or Metrics())
    finally:
        server.close()


async def listed(*body: bytes) -> list[Json]:
    """What a list of pods gives, of a server that answers with this; the last piece again and again, if there are two."""
    return (await listed_at_once(*body, times=1))[0]


async def listed_at_once(*body: bytes, times: int) -> list[Any]:
    """The same of so many lists at once; what was raised stands in their place, where there are several."""
    head, again = body[0], body[1:]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + head)
            while again:
                writer.write(again[0])
                await writer.drain()
            writer.close()

    async with served(answer) as api:
        return await asyncio.gather(*(api.list(kinds.POD, "default") for _ in range(times)), return_exceptions=times > 1)


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


USER = 'User "system:serviceaccount:maft-system:maft-operator" cannot patch resource "jobs" in API group "batch"'


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (403, f'jobs.batch "r-0" is forbidden: {USER} in the namespace "a"', "403"),
        (403, 'jobs.batch "r-0" is forbidden: exceeded quota: q, requested: count/jobs.batch=1', "QuotaExceeded"),
        (403, 'admission webhook "policy.example.org" denied the request: no', "PodRefused"),
        (422, 'admission webhook "policy.example.org" denied the request: no', "422"),
    ],
)
def test_a_refusal_for_another_reason_counts_as_no_missing_right(status: int, message: str, code: str) -> None:
    """MaftApiDenied counts 403, and says that the operator may not."""
    body, metrics = json.dumps({"message": message}).encode(), Metrics()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD.replace(b"200 OK", str(status).encode() + b" No") + body)
        writer.close()

    async def scenario() -> None:
        async with served(answer, metrics) as api:
            await api.list(kinds.JOB, "a")

    with pytest.raises(Refused, match=r"r-0|denied"):
        asyncio.run(scenario())
    assert metrics.registry.get_sample_value("maft_api_requests_total", {"verb": "get", "kind": "Job", "code": code}) == 1


def test_lists_that_are_read_at_once_take_the_memory_of_one() -> None:
    tracemalloc.start()
    try:
        ends = asyncio.run(listed_at_once(b'{"items": [', b'{"metadata": {}},' * 10_000, times=6))
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST
    finally:
        tracemalloc.stop()
    assert [type(end) for end in ends] == [Refused] * 6


def test_large_lists_are_all_read_in_the_end() -> None:
    body = json.dumps({"items": [{"metadata": {"name": "x" * FREE}}] * 8}).encode()
    lists = asyncio.run(listed_at_once(body, times=40))
    assert [len(items) for items in lists] == [8] * 40


def test_a_large_list_that_goes_on_stops_no_small_ones_and_lets_others_in_when_it_is_given_up() -> None:
    """More than sockets hold: what the server has got rid of, the operator has read."""
    large, read = b'{"items": [{"metadata": {"name": "' + b"x" * (3 * MOST // 4), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        with contextlib.suppress(ConnectionError):
            writer.transport.set_write_buffer_limits(0)
            writer.write(HEAD + (b'{"items": [' if b"small" in line else large))
            await writer.drain()
            if b"stuck" in line:
                read.set()
                await reader.read()  # until the operator gives it up
            writer.write(b"]}" if b"small" in line else b'"}}]}')
            writer.close()

    async def scenario() -> None:
        async with served(answer) as api:
            stuck = asyncio.create_task(api.list(kinds.POD, "stuck"))
            await read.wait()
            waits = [asyncio.create_task(api.list(kinds.POD, f"large-{n}")) for n in range(2)]
            assert await asyncio.gather(*(api.list(kinds.POD, f"small-{n}") for n in range(20))) == [[]] * 20
            waits[0].cancel()  # as one that waits
            stuck.cancel()  # and as one whose turn it is
            assert len(await waits[1]) == 1
            assert [type(end) for end in await asyncio.gather(stuck, waits[0], return_exceptions=True)] == [
                asyncio.CancelledError
            ] * 2

    asyncio.run(scenario())


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
        writer.write(HEAD + body)
        await writer.drain()
        writer.close()

    async def scenario() -> Sequence[Json]:
        async with served(answer) as api:
            return await api.list_all(kinds.RUN, "default", page=2, label_selector="a=b")

    assert [item["metadata"]["name"] for item in asyncio.run(scenario())] == ["0", "1", "2", "3", "4"]
    assert [(query["limit"], query["labelSelector"]) for query in asked] == [(["2"], ["a=b"])] * 3
