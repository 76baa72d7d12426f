"""Several pods in one training task: how they find each other, and that none goes on without the others.

The pods are the indexes of one Job. The first one listens, the others connect and say who they are, and a secret that it wrote into
the run's store; when all are there it tells them what is trained. The connections stay open until it says that all is done: one
that ends before that was a pod that is lost.
What is trained is then between the ranks (sharded.py), which these pods start.
"""

import contextlib
import hmac
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from maft.errors import BadInput, PeerLost, PeersMissing
from maft.program import INDEX, number
from maft.store.base import Missing, Store
from maft.train.links import ASK, Assigned, Hello, Link

MEETING = "MAFT_TRAIN_MEETING"  # HOST:PORT at which the first pod listens
PATIENCE = 1800.0  # seconds that pods wait for each other: the last one's node may have to be started first
AGAIN = 1.0  # seconds between two tries to connect
SAY = 5.0  # seconds that somebody who comes has to say who it is
AT_THE_DOOR = 100  # that have not yet said it; of more the first is sent away


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


# --- the secret ---


def made_secret(store: Store, key: str) -> str:
    """Writes a new secret as that object, or reads what an earlier start of this pod wrote."""
    fresh = secrets.token_hex(32)
    return fresh if store.create(key, fresh.encode()) else store.read(key).decode()


def read_secret(store: Store, key: str) -> str | None:
    """Reads the secret; None as long as there is none."""
    try:
        return store.read(key).decode()
    except Missing:
        return None


# --- the first pod ---


@contextlib.contextmanager
def gathered(node: Node, task: str, secret: str, message: Assigned) -> Iterator[Sequence[Link]]:
    """Waits for all others and tells them what is trained; at the end of the block, that all is done. PeersMissing where some do
    not come."""
    there: dict[int, Link] = {}
    try:
        _gather(node, Hello(task, node.index, secret), there)
        for link in there.values():
            link.say(message)
        print(f"nodes: all {node.nodes} are here", flush=True)
        yield list(there.values())
        for link in there.values():
            link.say(Assigned())
    finally:
        for link in there.values():
            link.close()


def _gather(node: Node, own: Hello, there: dict[int, Link]) -> None:
    """Fills in the others by index, as they come; some go again and come anew."""
    until = time.monotonic() + node.patience
    with _listening(node.port) as door, _waiting() as waiting:
        while len(there) < node.nodes - 1:
            watched: list[socket.socket | Link] = [door, *waiting, *there.values()]
            readable = select.select(watched, [], [], max(0.0, min([until, *waiting.values()]) - time.monotonic()))[0]
            if time.monotonic() >= until:
                raise PeersMissing(_too_few(node, len(there) + 1))
            for index in [index for index, link in there.items() if link in readable]:
                there.pop(index).close()  # nobody has anything to say yet: it has ended
            for link in list(waiting):
                if link in readable or time.monotonic() >= waiting[link]:
                    _hear(link, waiting, node, own, there)
            if door in readable:
                _let_wait(door.accept()[0], waiting)


@contextlib.contextmanager
def _waiting() -> Iterator[dict[Link, float]]:
    """Holds those that have come and not said who they are, each with the time until which it may."""
    waiting: dict[Link, float] = {}
    try:
        yield waiting
    finally:
        for link in waiting:
            link.close()


def _let_wait(come: socket.socket, waiting: dict[Link, float]) -> None:
    waiting[Link(come, "a pod that has come")] = time.monotonic() + SAY
    if len(waiting) > AT_THE_DOOR:
        _send_away(next(iter(waiting)), waiting)


def _send_away(link: Link, waiting: dict[Link, float]) -> None:
    del waiting[link]
    link.close()


def _hear(link: Link, waiting: dict[Link, float], node: Node, own: Hello, there: dict[int, Link]) -> None:
    """Reads what somebody at the door says; sends away strangers, pods of another task, and who took too long."""
    try:
        line = link.line(0.0)  # waits for nobody
        if line is None and time.monotonic() < waiting[link]:
            return
        hello = msgspec.json.decode(line or b"", type=Hello)
    except (PeerLost, msgspec.DecodeError, UnicodeError, RecursionError):
        return _send_away(link, waiting)
    if not (_knows(hello, own) and hello.task == own.task and 0 < hello.index < node.nodes):
        return _send_away(link, waiting)
    del waiting[link]
    link.who = f"node {hello.index}"
    if hello.index in there:
        there.pop(hello.index).close()
    there[hello.index] = link


def _knows(hello: Hello, own: Hello) -> bool:
    return hmac.compare_digest(hello.secret.encode(), own.secret.encode())


def _listening(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _too_few(node: Node, there: int) -> str:
    came = f"{there} of {node.nodes} pods came within {node.patience:.0f} seconds"
    return f"training.nodes: {came}; ask for no more nodes than can be had at one time"


# --- the others ---


def joined(node: Node, task: str, secret: Callable[[], str | None], all_done: Callable[[], bool]) -> tuple[Link, Assigned] | None:
    """Goes to the first pod and waits until all are there; None where there is nothing left to train. PeerLost where they do
    not come: that is the first pod's end, and counts once; where that one did not come either, PeersMissing in the second. secret:
    reads it, once it is there. all_done: whether everything is committed, as it is when this pod was lost at the very end."""
    until, met = time.monotonic() + node.patience, False
    while time.monotonic() < until:
        if all_done():
            return None
        shared_secret = secret()
        if shared_secret and (link := _connected(node, Hello(task, node.index, shared_secret))):
            met = True
            if message := _assigned(node, link, until, all_done):
                print(f"nodes: this is {node.index}, all {node.nodes} are here", flush=True)
                return link, message
            link.close()
        time.sleep(AGAIN)
    counts = node.index == 1 and not met
    raise (PeersMissing if counts else PeerLost)(
        f"training.nodes: node 0 at {node.host}:{node.port} did not gather all {node.nodes} pods within"
        f" {node.patience:.0f} seconds; ask for no more nodes than can be had at one time"
    )


def _connected(node: Node, hello: Hello) -> Link | None:
    """Connects; None where nobody is there: the first pod has no address yet, or an old one."""
    try:
        link = Link(socket.create_connection((node.host, node.port), timeout=ASK), "node 0")
        link.say(hello)
    except OSError:
        return None
    return link


def _assigned(node: Node, link: Link, until: float, all_done: Callable[[], bool]) -> Assigned | None:
    """Waits for what is trained; None where the first pod is lost before, or all is done."""
    try:
        while time.monotonic() < until and not all_done():
            if line := link.line(node.ask):
                return msgspec.json.decode(line, type=Assigned)
    except (PeerLost, msgspec.DecodeError, UnicodeError):
        pass
    return None
