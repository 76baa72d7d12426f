"""Several pods in one training task: how they find each other, and that none goes on without the others.

The pods are the indexes of one Job. The first one listens, the others connect and say who they are; when all are there it tells
them what is trained. The connections stay open until it says that all is done: one that ends before that was a pod that is lost.
What is trained is then between the ranks (sharded.py), which these pods start.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from maft.errors import BadInput, PeerLost
from maft.program import number

MEETING = "MAFT_TRAIN_MEETING"  # HOST:PORT at which the first pod listens
INDEX = "JOB_COMPLETION_INDEX"  # Kubernetes says it in the pods of an indexed Job
PATIENCE = 1800.0  # seconds that pods wait for each other: the last one's node may have to be started first
ASK = 5.0  # seconds between two looks at whether there is anything left to wait for
AGAIN = 1.0  # seconds between two tries to connect
LINE = 65536  # bytes of a message at most
# A node that went without a word is noticed after 20 + 5 x 5 seconds.
ALIVE = {socket.TCP_KEEPIDLE: 20, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 5}


@dataclass(frozen=True, slots=True)
class Node:
    """A pod's place among those of its task."""

    index: int
    nodes: int
    host: str
    """Of the first pod."""
    port: int
    patience: float = PATIENCE
    ask: float = ASK

    @property
    def leads(self) -> bool:
        """Tells whether the others come here."""
        return self.index == 0


class Hello(msgspec.Struct, frozen=True):
    """What a pod says that has come."""

    task: str
    index: int


class Told(msgspec.Struct, frozen=True):
    """What it is told when all are there; at the end the same, with nothing to train."""

    adapters: tuple[str, ...] = ()
    """As ROLE-AGENT: what the first pod found missing. Others may look at another moment."""
    port: int = 0
    """Where the ranks meet, on the first pod."""


def found(nodes: int, environment: Mapping[str, str]) -> Node | None:
    """Reads this pod's place; None where a task has one pod. BadInput where it has several and this is no pod of an indexed Job."""
    if nodes == 1:
        return None
    index, (host, _, port) = environment.get(INDEX, ""), environment.get(MEETING, "").rpartition(":")
    if not (index and host and port):
        raise BadInput(
            f"training.nodes: {nodes} nodes train together as pods of one Job on a cluster, and this is none of them"
            f" ({INDEX} and {MEETING} are not both set); set nodes to 1"
        )
    return Node(number(INDEX, index, most=nodes - 1), nodes, host, number(MEETING, port, least=1, most=65535))


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


# --- the first pod ---


@contextlib.contextmanager
def gathered(node: Node, task: str, told: Told) -> Iterator[Sequence[Link]]:
    """Waits for all others and tells them what is trained; at the end of the block, that all is done. OSError where some do not
    come."""
    there: dict[int, Link] = {}
    try:
        _gather(node, task, there)
        for link in there.values():
            link.say(told)
        print(f"nodes: all {node.nodes} are here", flush=True)
        yield list(there.values())
        for link in there.values():
            link.say(Told())
    finally:
        for link in there.values():
            link.close()


def _gather(node: Node, task: str, there: dict[int, Link]) -> None:
    """Fills in the others by index, as they come; some go again and come anew."""
    until = time.monotonic() + node.patience
    with _listening(node.port) as door:
        while len(there) < node.nodes - 1:
            watched: list[socket.socket | Link] = [door, *there.values()]
            readable = select.select(watched, [], [], max(0.0, until - time.monotonic()))[0]
            if not readable or time.monotonic() >= until:
                raise OSError(_too_few(node, len(there) + 1))
            for index in [index for index, link in there.items() if link in readable]:
                there.pop(index).close()  # nobody has anything to say yet: it has ended
            if door in readable and (come := _welcomed(door.accept()[0], node, task)):
                index, link = come
                if index in there:
                    there.pop(index).close()
                there[index] = link


def _listening(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _welcomed(connection: socket.socket, node: Node, task: str) -> tuple[int, Link] | None:
    """Reads who has come; None for strangers, and for pods of another task."""
    link = Link(connection, "a pod that has come")
    try:
        hello = msgspec.json.decode(link.line(ASK) or b"", type=Hello)
        if hello.task == task and 0 < hello.index < node.nodes:
            link.who = f"node {hello.index}"
            return hello.index, link
    except (PeerLost, msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    link.close()
    return None


def _too_few(node: Node, there: int) -> str:
    came = f"{there} of {node.nodes} pods came within {node.patience:.0f} seconds"
    return f"training.nodes: {came}; ask for no more nodes than can be had at one time"


# --- the others ---


def joined(node: Node, task: str, all_done: Callable[[], bool]) -> tuple[Link, Told] | None:
    """Goes to the first pod and waits until all are there; None where there is nothing left to train. OSError where they do not
    come. all_done: whether everything is committed, as it is when this pod was lost at the very end."""
    until = time.monotonic() + node.patience
    while time.monotonic() < until:
        if all_done():
            return None
        if link := _connected(node, task):
            if told := _told(node, link, until, all_done):
                print(f"nodes: this is {node.index}, all {node.nodes} are here", flush=True)
                return link, told
            link.close()
        time.sleep(AGAIN)
    raise OSError(
        f"training.nodes: node 0 at {node.host}:{node.port} did not gather all {node.nodes} pods within"
        f" {node.patience:.0f} seconds; ask for no more nodes than can be had at one time"
    )


def _connected(node: Node, task: str) -> Link | None:
    """Connects; None where nobody is there: the first pod has no address yet, or an old one."""
    try:
        link = Link(socket.create_connection((node.host, node.port), timeout=ASK), "node 0")
        link.say(Hello(task, node.index))
    except OSError:
        return None
    return link


def _told(node: Node, link: Link, until: float, all_done: Callable[[], bool]) -> Told | None:
    """Waits for what is trained; None where the first pod is lost before, or all is done."""
    try:
        while time.monotonic() < until and not all_done():
            if line := link.line(node.ask):
                return msgspec.json.decode(line, type=Told)
    except (PeerLost, msgspec.DecodeError, UnicodeError):
        pass
    return None
