"""TCP ports for servers that are about to start: each goes to one process of this machine, however many look at the same time."""

import random
import socket
from collections import deque

RANGE = range(15_000, 30_000)  # below what kernels give to connections, which come and go between the look and the server's start


class Ports:
    """Those that one process asked for. kept: how many of the last it keeps others from; their servers may be starting still."""

    def __init__(self, among: range = RANGE, kept: int = 64) -> None:
        self._among, self._kept = among, kept
        self._names: deque[socket.socket] = deque()

    def free(self) -> int:
        """Finds a TCP port on loopback that nobody listens on. OSError where all are taken."""
        for port in random.Random().sample(self._among, len(self._among)):
            if self._takes(port):
                return port
        first, last = self._among[0], self._among[-1]
        raise OSError(f"no TCP port of 127.0.0.1 is free between {first} and {last}; end servers that are not needed")

    def _takes(self, port: int) -> bool:
        """Takes the port's name, if it is free: an abstract socket, which goes with this process and its network (unix(7))."""
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0maft-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            return False
        self._names.append(name)
        if len(self._names) > self._kept:
            self._names.popleft().close()
        return True

    def close(self) -> None:
        """Gives all back."""
        while self._names:
            self._names.pop().close()


_here = Ports()


def free_port() -> int:
    """Finds a TCP port on loopback that nobody listens on, and keeps other processes that ask this way from it for a while."""
    return _here.free()


def check_free(host: str, port: int) -> None:
    """Raises OSError where nobody could listen there: somebody does, who asks may not, or the host is none of this machine's."""
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended holds nobody up
            probe.bind(address)
