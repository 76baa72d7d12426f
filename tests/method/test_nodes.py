"""Several pods in one training task: how they meet, who is let in, and that none goes on without the others. Sockets alone."""

import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest
from conftest import free_port

from maft.errors import BadInput, PeerLost, PeersMissing
from maft.store.files import FileStore
from maft.train.links import Assigned, Hello, Link
from maft.train.nodes import INDEX, MEETING, Node, found, gathered, joined, made_secret, read_secret

TASK = "ns/run 1 [0]"
SECRET = "5e" * 32
TOLD = Assigned(("generator-0", "critic-0"), 4321)


def never() -> bool:
    return False


def told_secret() -> str:
    return SECRET


def says(hello: object) -> bytes:
    return msgspec.json.encode(hello) + b"\n"


@pytest.fixture
def first() -> Node:
    return Node(0, 3, "localhost", free_port(), patience=30)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as made:
        yield made


def following(pool: ThreadPoolExecutor, first: Node, index: int) -> "Future[tuple[Link, Assigned] | None]":
    return pool.submit(joined, replace(first, index=index), TASK, told_secret, never)


def met(future: "Future[tuple[Link, Assigned] | None]") -> tuple[Link, Assigned]:
    made = future.result(30)
    assert made
    return made


def test_all_are_told_the_same_when_all_are_there(first, pool):
    others = [following(pool, first, index) for index in (2, 1)]
    with gathered(first, TASK, SECRET, TOLD) as links:
        assert sorted(link.who for link in links) == ["node 1", "node 2"]
        made = [met(other) for other in others]
        assert [told for _, told in made] == [TOLD, TOLD]
        assert all(link.address in ("127.0.0.1", "::1") for link, _ in made)
    for link, _ in made:
        link.wait_for_the_end()
        link.close()


def test_who_leads_tells_the_end_only_where_it_ended_well(first, pool):
    others = [following(pool, first, index) for index in (1, 2)]
    with pytest.raises(OSError, match="no disk"), gathered(first, TASK, SECRET, TOLD):
        links = [met(other)[0] for other in others]
        raise OSError("no disk")
    for link in links:
        with pytest.raises(PeerLost, match="node 0 is lost"):
            link.wait_for_the_end()
        link.close()


def test_a_pod_that_is_lost_is_noticed_by_its_connection(first, pool):
    others = [following(pool, first, index) for index in (1, 2)]
    with pytest.raises(PeerLost, match="node 2 is lost"), gathered(first, TASK, SECRET, TOLD) as links:
        kept, gone = (met(other)[0] for other in others)
        gone.close()
        for link in links:
            if link.who == "node 2":
                link.line(30)
    kept.close()


def test_a_pod_that_comes_anew_takes_its_own_place(first, pool):
    """The pod of index 1 was lost while the third was awaited, and one that still had its connection was taken for it."""
    gathering: list[str] = []

    def gather() -> None:
        with gathered(first, TASK, SECRET, TOLD) as links:
            gathering.extend(link.who for link in links)

    thread = threading.Thread(target=gather)
    thread.start()
    early = [connected(first, Hello(TASK, 1, SECRET)) for _ in range(2)]
    early[0].close()
    late = [following(pool, first, 1)]
    with pytest.raises(PeerLost):  # sent away for the one that came anew; whoever comes last makes the group whole
        early[1].line(30)
    late.append(following(pool, first, 2))
    for other in late:
        met(other)[0].close()
    thread.join(30)
    assert sorted(gathering) == ["node 1", "node 2"]
    early[1].close()


def connected(first: Node, hello: Hello) -> Link:
    """A pod by hand, which waits until somebody listens."""
    while True:
        try:
            link = Link(socket.create_connection((first.host, first.port), 5), "node 0")
        except OSError:
            continue
        link.say(hello)
        return link


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\n",
        b"[" * 30000 + b"\n",
        says(Hello("ns/other 1 [0]", 1, SECRET)),
        says(Hello(TASK, 0, SECRET)),
        says(Hello(TASK, 3, SECRET)),
        says(Hello(TASK, 1, "")),
        says(Hello(TASK, 1, SECRET[:-1])),
        says(Hello(TASK, 1, "ü" * 64)),
        says({"task": TASK, "index": 1}),
        says({"task": TASK, "secret": SECRET}),
        b"",
    ],
)
def test_strangers_are_sent_away(first, pool, said):
    others = [following(pool, first, 1)]

    def come() -> None:
        stranger = connected(first, Hello("?", 1, SECRET)) if not said else None
        if stranger is None:
            stranger = raw(first)
            stranger._connection.sendall(said)
        stranger.close()
        others.append(following(pool, first, 2))

    thread = threading.Thread(target=come)
    thread.start()
    with gathered(first, TASK, SECRET, TOLD) as links:
        assert sorted(link.who for link in links) == ["node 1", "node 2"]
        thread.join(30)
        for other in others:
            met(other)[0].close()


def test_who_is_silent_keeps_nobody_out(first, pool):
    """Each of them held the door for five seconds."""
    hasty = replace(first, patience=10)
    silent: list[Link] = []

    def come() -> None:
        silent.extend(raw(first) for _ in range(150))
        silent[-1]._connection.sendall(b'{"task": ')

    thread = threading.Thread(target=come)
    thread.start()
    others: list[Future[tuple[Link, Assigned] | None]] = []
    late = pool.submit(lambda: (thread.join(30), others.extend(following(pool, first, index) for index in (1, 2))))
    with gathered(hasty, TASK, SECRET, TOLD) as links:
        assert sorted(link.who for link in links) == ["node 1", "node 2"]
        late.result(30)
        for other in others:
            met(other)[0].close()
    for link in silent:
        with pytest.raises(PeerLost):
            link.line(30)
        link.close()


def test_who_takes_a_pods_place_has_to_know_its_secret(first, pool):
    """It came before the pod, was told where the ranks meet, and had a part of the base."""
    others: list[Future[tuple[Link, Assigned] | None]] = []

    def come() -> None:
        stranger = raw(first)
        stranger._connection.sendall(says(Hello(TASK, 1, "0" * 64)))
        with pytest.raises(PeerLost):
            stranger.line(30)
        others.extend(following(pool, first, index) for index in (1, 2))

    came = pool.submit(come)
    with gathered(first, TASK, SECRET, TOLD):
        came.result(30)
        for other in others:
            met(other)[0].close()


def test_who_has_not_read_the_secret_waits_for_it(first, pool):
    secrets = iter([None, SECRET])
    others = [pool.submit(joined, replace(first, index=1), TASK, lambda: next(secrets), never), following(pool, first, 2)]
    with gathered(first, TASK, SECRET, TOLD):
        for other in others:
            met(other)[0].close()


def test_the_secret_is_made_once_and_only_the_store_knows_it(tmp_path):
    store = FileStore(tmp_path)
    assert read_secret(store, "run/meeting") is None
    secret = made_secret(store, "run/meeting")
    assert len(secret) == 64 and secret == read_secret(store, "run/meeting") == made_secret(store, "run/meeting")
    store.delete(["run/meeting"])
    assert made_secret(store, "run/meeting") != secret


def raw(first: Node) -> Link:
    while True:
        try:
            return Link(socket.create_connection((first.host, first.port), 5), "a stranger")
        except OSError:
            continue


def test_the_wait_for_others_ends_with_a_line(first):
    alone = replace(first, patience=0.01)
    error = r"^training\.nodes: 1 of 3 pods came within 0 seconds; ask for no more nodes than"
    with pytest.raises(PeersMissing, match=error), gathered(alone, TASK, SECRET, TOLD):
        pass
    error = r"^training\.nodes: node 0 at localhost:\d+ did not gather all 3 pods within 0 seconds"
    with pytest.raises(PeersMissing, match=error):  # nobody else counts the attempt where the first one is not there
        joined(replace(first, index=1, patience=0.01), TASK, told_secret, never)
    with pytest.raises(PeerLost, match=error):
        joined(replace(first, index=2, patience=0.01), TASK, told_secret, never)
    with socket.create_server(("", first.port)), pytest.raises(PeerLost, match=error):
        joined(replace(first, index=1, patience=0.2, ask=0.01), TASK, told_secret, never)


def test_who_comes_when_all_is_committed_has_nothing_to_wait_for(first):
    assert joined(replace(first, index=1), TASK, told_secret, lambda: True) is None


def test_who_waits_for_others_sees_that_all_is_committed(first):
    """The first pod has ended well, and the one that was lost at the very end comes back to nobody."""
    looks = iter([False, False, True])
    with socket.create_server(("", first.port)):  # somebody who never answers
        assert joined(replace(first, index=1, ask=0.01), TASK, told_secret, lambda: next(looks, True)) is None


# --- what the pod is told ---


def test_a_pods_place():
    environment = {INDEX: "1", MEETING: "r-1-train-0.r-train.default.svc:29400"}
    assert found(2, environment) == Node(1, 2, "r-1-train-0.r-train.default.svc", 29400)
    assert found(2, {**environment, INDEX: "0", MEETING: "fd00::1:29400"}) == Node(0, 2, "fd00::1", 29400)
    assert found(1, environment) is None


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "training.nodes: 2 nodes train together as pods of one Job on a cluster, and this is none of them"),
        ({INDEX: "1"}, "are not both set"),
        ({INDEX: "1", MEETING: "host"}, "are not both set"),
        ({INDEX: "2", MEETING: "host:1"}, "JOB_COMPLETION_INDEX '2': expected a whole number from 0 to 1"),
        ({INDEX: "x", MEETING: "host:1"}, "JOB_COMPLETION_INDEX 'x': expected a whole number"),
        ({INDEX: "1", MEETING: "host:0"}, "MAFT_TRAIN_MEETING '0': expected a whole number from 1 to 65535"),
    ],
)
def test_a_place_that_makes_no_sense(environment, says):
    with pytest.raises(BadInput, match=says):
        found(2, environment)
