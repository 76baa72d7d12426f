"""What pods of one training task say to each other, and the connections by which they do."""

import select
import socket
import time

import msgspec

from maft.errors import PeerLost

ASK = 5.0  # seconds between two looks at whether there is anything left to wait for
LINE = 65536  # bytes of a message at most
# A node that went without a word is noticed after 20 + 5 x 5 seconds.
ALIVE = {socket.TCP_KEEPIDLE: 20, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 5}


class Hello(msgspec.Struct, frozen=True):
    """What a pod says that has come."""

    task: str
    index: int
    secret: str
    """That which the first pod wrote into the run's store."""


class Assigned(msgspec.Struct, frozen=True):
    """What it is told when all are there; at the end the same, with nothing to train."""

    adapters: tuple[str, ...] = ()
    """As ROLE-AGENT: what the first pod found missing. Others may look at another moment."""
    port: int = 0
    """Where the ranks meet, on the first pod."""


class Link:
    """A connection to another pod. who: that pod, in words."""

    def __init__(self, connection: socket.socket, who: str) -> None:
        self._connection = connection
        self._rest = b""
        self.who = who
        self.ended = False
        """The other said that all is done."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def fileno(self) -> int:
        """Names the open file, for select."""
        return self._connection.fileno()

    @property
    def address(self) -> str:
        """Names the other pod's address."""
        return str(self._connection.getpeername()[0])

    def say(self, message: msgspec.Struct) -> None:
        """Sends a message. PeerLost if the connection has ended."""
        try:
            self._connection.sendall(msgspec.json.encode(message) + b"\n")
        except OSError as error:
            raise PeerLost(f"{self.who} is lost: {error.strerror or error}") from error

    def line(self, within: float) -> bytes | None:
        """Waits for a message; None after so many seconds without one. PeerLost if the connection has ended."""
        until = time.monotonic() + within
        while b"\n" not in self._rest:
            if not select.select([self], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            self._rest += self._received()
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _received(self) -> bytes:
        try:
            data = self._connection.recv(LINE)
        except OSError as error:
            raise PeerLost(f"{self.who} is lost: {error.strerror or error}") from error
        if not data or len(self._rest) > LINE:
            raise PeerLost(f"{self.who} is lost: its connection ended")
        return data

    def heard(self) -> bool:
        """Reads what has come in the middle of a training; tells whether to listen on. PeerLost where the other is lost."""
        self.ended = self.ended or self.line(0.0) is not None
        return not self.ended

    def wait_for_the_end(self) -> None:
        """Waits until the other says that all is done; PeerLost where it is lost before that."""
        while not self.ended:
            self.ended = self.line(ASK) is not None

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()
