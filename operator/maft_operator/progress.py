"""How far a running task is, as its own metrics say. A failed read is never an error.

Whoever answers there is trusted with nothing: the answer is a few bytes that are read within a short time, then parsed where they
cost nothing more. No redirect is followed, nothing is decompressed. What is no metrics comes back as an `Unreadable`, a task that
does not answer (yet) as None.
"""

import asyncio
import http.client
import io
import math
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 2.0  # seconds for the whole answer
LIMIT = 64 * 1024  # bytes of it, its head included; a program's own metrics are about 5 KiB
MOST = 1e15  # units of work; more is no count
DONE, EXPECTED = "maft_progress_done", "maft_progress_expected"
_LINE = 200  # characters; the parser's time grows with the square of a line's length

Units = tuple[float, float]  # of work: done, and in all


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An answer that is no metrics."""

    why: str
    """In words that go behind `its metrics`."""


_TOO_LONG = Unreadable(f"are longer than {LIMIT // 1024} KiB")


async def read(url: str) -> Units | Unreadable | None:
    """Reads units of work done and in all; None where the task does not say. url: http://HOST:PORT/PATH."""
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await _answer(urlsplit(url))
    except (OSError, TimeoutError):
        return None
    return parsed(answer) if answer else None


def parsed(answer: bytes) -> Units | Unreadable | None:
    """Finds the two numbers in an answer of HTTP: head and body, up to the connection's end."""
    if len(answer) > LIMIT:
        return _TOO_LONG
    response = http.client.HTTPResponse(_Received(answer))  # type: ignore[arg-type]  # it only asks for makefile
    try:
        response.begin()
        return _refused(response) or units(response.read())
    except (http.client.HTTPException, ValueError, OverflowError) as error:
        return Unreadable(f"are no answer of HTTP ({type(error).__name__})")


def units(text: bytes) -> Units | Unreadable | None:
    """Finds the two numbers in the text of metrics."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.startswith((DONE, EXPECTED))]
    if any(len(line) > _LINE for line in lines):
        return Unreadable(f"have a line of more than {_LINE} characters")
    try:
        values = _values("\n".join(lines))
    except (ValueError, IndexError) as error:  # what the parser raises
        return Unreadable(f"do not parse: {str(error)[:_LINE] or type(error).__name__}")
    return _units(values.get(DONE), values.get(EXPECTED))


# --- over the network ---


async def _answer(url: SplitResult) -> bytes:
    """What comes until the connection ends, or enough to see that it is too long."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=LIMIT)
    try:
        head = (f"GET {url.path} HTTP/1.1", f"Host: {url.netloc}", "Accept-Encoding: identity", "Connection: close", "", "")
        writer.write("\r\n".join(head).encode())
        return await _start(reader)
    finally:
        writer.transport.abort()  # whatever still comes


async def _start(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while len(data) <= LIMIT and (more := await reader.read(LIMIT)):
        data += more
    return bytes(data)


# --- in memory ---


@dataclass(frozen=True, slots=True)
class _Received:
    """Bytes in the place of a socket."""

    data: bytes

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.data)


def _refused(response: http.client.HTTPResponse) -> Unreadable | None:
    if response.status != http.client.OK:
        return Unreadable(f"were answered with HTTP status {response.status}")
    encoding = response.getheader("Content-Encoding", "identity")
    return None if encoding == "identity" else Unreadable("are compressed, which nobody asked for")


def _values(text: str) -> dict[str, float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: float(sample.value) for sample in samples if not sample.labels}


def _units(done: float | None, expected: float | None) -> Units | Unreadable | None:
    if done is None or not expected:
        return None
    if not all(math.isfinite(number) and 0 <= number <= MOST for number in (done, expected)):
        return Unreadable(f"count {done} of {expected} units")
    return min(done, expected), expected
