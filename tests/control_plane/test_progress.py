"""Metrics of tasks: whoever answers, the operator reads two numbers or says why not, soon and with little memory."""

import asyncio
import contextlib
import gzip
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

from maft.program import Progress
from maft_operator import progress
from maft_operator.progress import Unreadable, units

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]
GOOD = b"maft_progress_done 3.0\nmaft_progress_expected 24.0\n"


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def answering(data: bytes, again: bytes = b"", *, holds: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Somebody who sends that to every request, then `again` for ever, or nothing more (holds). Yields the URL and the requests."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(data)
            while again:
                writer.write(again)
                await writer.drain()
            if holds:
                await reader.read()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics", asked
    finally:
        server.close()


def read(data: bytes, again: bytes = b"", *, holds: bool = False) -> progress.Units | Unreadable | None:
    async def scenario() -> progress.Units | Unreadable | None:
        async with answering(data, again, holds=holds) as (url, _):
            return await progress.read(url)

    return asyncio.run(scenario())


# --- the answer ---


def test_what_a_program_serves_is_read() -> None:
    own = Progress(("127.0.0.1", 0))
    own.total.set(24)
    own.done.set(3)
    assert read(response(generate_latest(own.registry))) == (3, 24)


def test_nobody_is_there() -> None:
    async def scenario() -> None:
        async with answering(b"") as (url, _):
            pass
        assert await progress.read(url) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("end", ["abort", "close"])
def test_who_ends_the_connection_without_an_answer_is_no_trouble(end: str) -> None:
    """As a mesh does with mTLS STRICT that plain HTTP reaches: a reset, or a close without a byte. docs/operations.md says so."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if end == "abort":  # with linger of 0 s: the other side reads ECONNRESET
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert await raw(port) == {"abort": ConnectionResetError, "close": b""}[end]
            assert await progress.read(f"http://127.0.0.1:{port}/metrics") is None

    async def raw(port: int) -> bytes | type[OSError]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        try:
            return await reader.read()
        except ConnectionResetError:
            return ConnectionResetError
        finally:
            writer.close()

    asyncio.run(scenario())


def test_a_redirect_is_not_followed() -> None:
    async def scenario() -> None:
        async with answering(response(GOOD)) as (other, asked):
            moved = response(b"", "302 Found", f"Location: {other}")
            async with answering(moved) as (url, _):
                assert await progress.read(url) == Unreadable("were answered with HTTP status 302")
        assert asked == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (response(GOOD, "503 Service Unavailable"), "HTTP status 503"),
        (response(GOOD, "206 Partial Content"), "HTTP status 206"),
        (response(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip"), "compressed"),
        (response(GOOD, "200 OK", "Content-Encoding: br"), "compressed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer of HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 5000 + b"\r\n", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", "64 KiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nmaft_progress_done 1", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-FFFFFFFFFFFFFFFFFFFF\r\n", "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx", "no answer of HTTP"),
    ],
)
def test_what_is_no_answer_says_why(data: bytes, words: str) -> None:
    answer = read(data)
    assert isinstance(answer, Unreadable)
    assert words in answer.why


def test_an_answer_of_gigabytes_takes_no_memory() -> None:
    bomb = gzip.compress(bytes(256 * 1024 * 1024), 9)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    tracemalloc.start()
    try:
        assert read(head + bomb[:60_000]) == Unreadable("are compressed, which nobody asked for")
        assert read(head, bomb) == Unreadable("are longer than 64 KiB")
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_an_answer_without_an_end_is_cut_off(head: bytes) -> None:
    line = b"# HELP x y\n" * 100
    chunk = b"%x\r\n%s\r\n" % (len(line), line)
    assert read(head, chunk if b"chunked" in head else line) == Unreadable("are longer than 64 KiB")


def test_an_endless_greeting_is_cut_off() -> None:
    assert read(b"", b"HTTP/1.1 100 Continue\r\n\r\n") == Unreadable("are longer than 64 KiB")


def test_who_does_not_come_to_an_end_is_left_soon() -> None:
    async def scenario() -> float:
        clock = asyncio.get_running_loop().time
        async with answering(b"HTTP/1.1 ", holds=True) as (url, _):
            begun = clock()
            assert await progress.read(url) is None
            return clock() - begun

    assert asyncio.run(scenario()) < 3 * progress.PATIENCE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 "]))
def test_any_bytes_are_read_or_refused(data: bytes, head: bytes) -> None:
    answer = read(head + data)
    assert answer is None or isinstance(answer, Unreadable | tuple)


# --- the text ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, (3, 24)),
        (b"maft_progress_done 3 1700000000000\nmaft_progress_expected 24\n", (3, 24)),
        (b"maft_progress_expected 24\r\nmaft_progress_done\t3\r\n", (3, 24)),
        (b'maft_progress_done{pod="x"} 7\n' + GOOD, (3, 24)),  # of somebody else
        (GOOD + b"other{ 1e\n\xff\xfe", (3, 24)),  # a sidecar's, which nobody reads
        (b"maft_progress_done 30\nmaft_progress_expected 24\n", (24, 24)),
        (b"maft_progress_done 0\nmaft_progress_expected 0\n", None),
        (b"maft_progress_done 3\n", None),
        (b"", None),
    ],
)
def test_two_numbers_are_found(text: bytes, expected: progress.Units | None) -> None:
    assert units(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"maft_progress_done 1\nmaft_progress_expected 1e\n", "could not convert"),
        (b"maft_progress_expected\n", "parse"),
        (b"maft_progress_done 1\nmaft_progress_expected NaN\n", "of nan units"),
        (b"maft_progress_done 1\nmaft_progress_expected +Inf\n", "of inf units"),
        (b"maft_progress_done -1\nmaft_progress_expected 2\n", "-1"),
        (b"maft_progress_done 1\nmaft_progress_expected -2\n", "of -2"),
        (b"maft_progress_done 1\nmaft_progress_expected 1e300\n", "1e+300"),
        (b"maft_progress_done " + b"9" * 170 + b"\nmaft_progress_expected 1\n", "units"),
        (b"maft_progress_done{a=\n", "parse"),
        (b'maft_progress_done{a="x", ="y"} 1\n', "parse"),
        (b"maft_progress_done " + b"1" * 300 + b"\n", "200 characters"),
    ],
)
def test_what_is_no_number_says_so(text: bytes, words: str) -> None:
    answer = units(text)
    assert isinstance(answer, Unreadable), answer
    assert words in answer.why


SOUP = st.lists(
    st.sampled_from(["maft_progress_done", "maft_progress_expected", *'{}"=,\\ #', "\n", "1", "1e9", "nan", "a", "_total", "\x85"])
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(SOUP.map("".join) | st.text())
def test_any_text_gives_numbers_or_says_why(text: str) -> None:
    for line in (text, f"maft_progress_done{text}", f'maft_progress_expected{{a="{text}'):
        answer = units(line.encode(errors="replace"))
        assert answer is None or isinstance(answer, Unreadable) or 0 <= answer[0] <= answer[1] <= progress.MOST
