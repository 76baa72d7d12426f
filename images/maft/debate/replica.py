"""One server process as its client sees it: whether it is away, whether it works, and when a request at it is given up."""

import asyncio
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HANG = 900.0  # seconds in which a server that has requests writes no token: it hangs
SLOWEST = 10.0  # seconds for a token, above which a request counts as lost: in line behind many, on a CPU
_GAUGE = re.compile(rb"^vllm:num_requests_(running|waiting)\{[^}]*\} (\S{1,40})", re.MULTILINE)
_TOKENS = re.compile(rb"^vllm:(?:prompt|generation)_tokens(?:_total)?\{[^}]*\} (\S{1,40})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at one server or all of them."""

    running: int  # being computed
    waiting: int  # in line


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that is under way."""

    since: float
    tokens: int  # at most, of its answer
    timeout: asyncio.Timeout


@dataclass(slots=True, eq=False)
class Replica:
    """One server process. Times are those of the event loop's clock."""

    url: str  # with an address for a host
    origin: str  # the URL that it was given as
    busy: int = 0  # our requests that it has
    failing: float | None = None  # when the row of failures began that no success has ended
    waiting: set[Waiting] = field(default_factory=set)
    _tokens: float = 0.0  # read and written, as its counters have it; 0: not known
    _moved: float = 0.0  # when the counters were last seen to move

    def failed(self, now: float) -> float:
        """Notes a failure; returns the seconds since the first one of the row."""
        if self.failing is None:
            self.failing = now
        return now - self.failing

    def succeeded(self) -> None:
        """Notes an answer: patience begins anew."""
        self.failing = None

    def read(self, metrics: bytes, now: float) -> Load:
        """Reads vLLM's metrics: the load, and whether it works."""
        gauges = {b"running": 0, b"waiting": 0}
        for name, value in _GAUGE.findall(metrics):  # one line per model
            gauges[name] += int(_number(value))
        if (tokens := sum(map(_number, _TOKENS.findall(metrics)))) != self._tokens:
            self._tokens, self._moved = tokens, now
        return Load(gauges[b"running"], gauges[b"waiting"])

    def give_up(self, now: float, hang: float = HANG) -> None:
        """Ends requests for which no answer can be expected any more, so that they are asked again."""
        silent = now - self._moved if self._tokens else 0.0
        for one in list(self.waiting):
            if is_lost(now - one.since, silent, one.tokens, hang):
                one.timeout.reschedule(now)


def _number(text: bytes) -> float:
    """A value of metrics; what is no count of anything counts for nothing."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value < 2**53 else 0.0


def is_lost(waited: float, silent: float, tokens: int, hang: float = HANG) -> bool:
    """Tells whether a request is given up. waited: since it was sent; silent: since its server last read or wrote a token, 0
    where it does not say; tokens: that the answer may have.

    A server that works is waited for, however long the answer may be: only one that stands still hangs, or a request that takes
    longer than any answer of its length is lost."""
    return min(waited, silent) > hang or waited > hang + tokens * SLOWEST


def keeps_alive(info: tuple[int, int, int, str, object]) -> socket.socket:
    """Makes a socket that notices within three minutes that its other end is gone without a word, as when a node is lost."""
    family, kind, protocol, *_ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):  # other systems have other names
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


def addresses(url: str) -> list[str]:
    """Resolves a URL to one per address. A headless Service has one for every replica; each has to answer before it is used. Of
    IPv6 only where there is no other: of a host that has both each replica would count twice. Encrypted ones keep their name, by
    which they are known."""
    url = url.rstrip("/")
    parts = urlsplit(url)
    if parts.scheme.lower() == "https":
        return [url]
    try:
        entries = socket.getaddrinfo(parts.hostname, parts.port or 80, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except OSError:
        return [url]  # not known yet: requests wait for it
    family = min((entry[0] for entry in entries), key=lambda family: family != socket.AF_INET)
    chosen = [str(entry[4][0]) for entry in entries if entry[0] == family]
    hosts = sorted({f"[{host}]" if family == socket.AF_INET6 else host for host in chosen})
    return [f"{parts.scheme}://{host}:{parts.port or 80}{parts.path}" for host in hosts]
