"""A proxy before a real S3 server that does what networks and busy stores do: refuses, answers late, breaks off, loses answers.

What happens to the nth request is a function of a seed and n, so that a test's faults are the same in each of its runs.
"""

import contextlib
import http.client
import random
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
PAGE = b"<!DOCTYPE html><html><body><h1>502</h1><br>nobody is <b>here</body></html>"
END = (http.client.HTTPException, OSError)
KINDS = ("slow_down", "page", "reset", "late", "lost", "cut", "flipped", "trickled")
OF_READS = ("cut", "flipped", "trickled")
REFUSALS = ("slow_down", "page", "reset", "down")  # the server does not see the request
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True, slots=True)
class Faults:
    """How many of a hundred requests meet each fault."""

    slow_down: float = 0
    page: float = 0
    """An HTML page of a gateway, 502."""
    reset: float = 0
    """The connection ends before the answer; the server has not seen the request."""
    cut: float = 0
    """The answer's body breaks off."""
    late: float = 0
    late_seconds: float = 0.05
    """As long as an answer is late; ten where it was seen."""
    flipped: float = 0
    """One bit of a body that is read."""
    lost: float = 0
    """Of conditional writes: done, but the answer does not come."""
    trickled: float = 0
    """A body that is read comes byte by byte."""
    trickled_seconds: float = 0.02
    """Between two of them."""

    def names(self) -> set[str]:
        """Returns those that requests are to meet."""
        return {name for name in KINDS if getattr(self, name)}


AS_OFTEN_AS_SEEN = Faults(slow_down=5, page=1, reset=1, cut=1, late=1, flipped=1, lost=20)


@dataclass(frozen=True, slots=True)
class Request:
    """What the client sent."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def conditional(self) -> bool:
        """Tells whether it is a conditional write."""
        return "if-none-match" in self.headers

    @property
    def reads(self) -> bool:
        """Tells whether it reads an object or a list."""
        return self.line.startswith("GET ")


class Unreliable(socketserver.ThreadingTCPServer):
    """The proxy. `faults` and `down` may be changed while it runs; `met` counts what happened, not what was only chosen."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.upstream = urlsplit(upstream).netloc
        self.faults = Faults()
        self.down: Callable[[Request], bool] = lambda _: False
        """Asked at each request: is the store away?"""
        self.before: Callable[[], None] = lambda: None
        """Called before a request is passed on."""
        self.edited: Callable[[Request, bytes], bytes] = lambda _, body: body
        """What is made of the body of an answer."""
        self.met: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Returns where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, request: Request) -> str:
        """Decides what happens to the request; empty: nothing."""
        with self._lock:
            down, chosen = self.down(request), self._random.random() * 100
            return "down" if down else self._chosen(request, chosen)

    def count(self, fault: str) -> None:
        """Notes that it happened."""
        with self._lock:
            self.met[fault] += 1

    def unmet(self) -> set[str]:
        """Names the faults that were to happen and did not."""
        return {name for name in self.faults.names() if not self.met[name]}

    def _chosen(self, request: Request, chosen: float) -> str:
        impossible = {"lost": not request.conditional, **dict.fromkeys(OF_READS, not request.reads)}
        for name in (name for name in KINDS if not impossible.get(name)):
            chosen -= getattr(self.faults, name)
            if chosen < 0:
                return name
        return ""

    def share(self) -> float:
        """Draws a number from 0 to 1."""
        with self._lock:
            return self._random.random()


class _Connection(socketserver.StreamRequestHandler):
    server: Unreliable

    def handle(self) -> None:
        with contextlib.suppress(*END):
            while request := self._request():
                if not self._serve(request, self.server.fault(request)):
                    return self._reset()

    def _request(self) -> Request | None:
        line = self.rfile.readline().decode("latin-1").strip()
        headers = {}
        while header := self.rfile.readline().decode("latin-1").strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        if "100-continue" in headers.get("expect", ""):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(int(headers.get("content-length", "0")))
        return Request(line, headers, body) if line else None

    def _serve(self, request: Request, fault: str) -> bool:
        """Whether the connection goes on."""
        if fault in REFUSALS:
            self.server.count(fault)
            return self._refuse(fault)
        status, headers, body = self._forward(request)
        body = self.server.edited(request, body)
        if fault in OF_READS and not body:
            fault = ""
        self.server.count(fault)
        if fault == "lost":
            return False
        if fault == "late":
            threading.Event().wait(self.server.faults.late_seconds)
        if fault == "flipped":
            body = self._flipped(body)
        if fault == "trickled":
            return self._answer(status, headers, b"", length=len(body)) and self._trickle(body)
        return self._answer(status, headers, body, cut=fault == "cut", head=request.line.startswith("HEAD "))

    def _refuse(self, fault: str) -> bool:
        if fault == "slow_down":
            return self._answer(503, {"content-type": "application/xml"}, SLOW_DOWN)
        return fault == "page" and self._answer(502, {"content-type": "text/html"}, PAGE)

    def _flipped(self, body: bytes) -> bytes:
        at = int(self.server.share() * len(body))
        return body[:at] + bytes([body[at] ^ 1 << int(self.server.share() * 8)]) + body[at + 1 :]

    def _trickle(self, body: bytes) -> bool:
        for at in range(len(body)):
            self.wfile.write(body[at : at + 1])
            threading.Event().wait(self.server.faults.trickled_seconds)
        return True

    def _forward(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        self.server.before()
        method, target, _ = request.line.split(" ")
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name != "expect":
                    connection.putheader(name, value)
            connection.endheaders(request.body)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read()

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False, head: bool = False, length: int | None = None
    ) -> bool:
        """length: of a body that comes later."""
        kept = {name: value for name, value in headers.items() if name not in HOP}
        size = str(len(body) if length is None else length)
        if status != 204:
            kept["content-length"] = headers.get("content-length", "0") if head else size
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}", *(f"{n}: {v}" for n, v in kept.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (body[: len(body) // 2] if cut else body))
        return not cut

    def _reset(self) -> None:
        """Ends the connection at once, not in order."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def unreliable(upstream: str, seed: int = 0) -> Iterator[Unreliable]:
    """The proxy, as long as the block lasts; at first it is reliable."""
    with Unreliable(upstream, seed) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
