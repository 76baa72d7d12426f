"""A store that is away, busy, or damages what it says: nothing wrong is accepted, nothing given up that may pass, all ends in time.

A real S3 server behind a proxy that does to requests what networks do; and answers that servers and gateways were seen to give.
"""

import hashlib
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from small import ROOT, a_spec
from unreliable import AS_OFTEN_AS_SEEN, Faults, Request, Unreliable, unreliable

from maft.errors import BadInput
from maft.prepare import earlier
from maft.program import Assignment
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.base import Damaged, Missing, Passing, Store
from maft.store.check import PATIENCE, check
from maft.store.commits import COMMIT, committed, fetch, fetch_folder, publish, required
from maft.store.pace import Pace, Paced, TooSlow
from maft.store.patience import FIRST, LONGEST, Patience
from maft.store.s3 import PARTS, S3Store
from maft.store.s3 import PATIENCE as S3_PATIENCE
from maft.store.s3_client import ONCE, Requests
from maft.store.urls import open_store
from maft.summaries import BAD_INPUT

pytestmark = pytest.mark.s3


@dataclass
class Clock:
    """Time that passes where somebody waits."""

    now: float = 0.0
    lock: Any = field(default_factory=threading.Lock)

    def wait(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, lambda: self.now, self.wait)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(s3: S3Server, request: pytest.FixtureRequest) -> Iterator[Unreliable]:
    with unreliable(s3.endpoint, seed=len(request.node.name)) as made:
        yield made


@pytest.fixture
def direct(s3: S3Server, keys: None, tmp_path: Path) -> Store:
    """The same objects, without the proxy."""
    return S3Store(s3.bucket, f"faults/{tmp_path.name}", s3.endpoint, "us-east-1")


@pytest.fixture
def store(s3: S3Server, keys: None, proxy: Unreliable, clock: Clock, tmp_path: Path) -> Store:
    """Through the proxy; its waiting takes no time."""
    place = (s3.bucket, f"faults/{tmp_path.name}", proxy.endpoint, "us-east-1")
    return S3Store(*place, patience=clock.patience(30.0), requests=ONCE)


def refusal(call: Callable[[], object], *words: str) -> None:
    """The call refuses in one line that has these words."""
    with pytest.raises(BadInput) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert [word for word in words if word not in line] == [], line


def is_away(call: Callable[[], object]) -> None:
    """The call finds no store, in a line that says what to look at; whoever asks again may find one."""
    hint = "check the storage settings, and that the store is up"
    with pytest.raises(Passing, match=rf"^store s3://[^\n]*: unreachable: [^\n]*; {hint}$"):
        call()


# Patience


def test_pauses_grow_and_the_last_fault_is_raised_in_time(clock: Clock) -> None:
    begun: list[float] = []

    def act() -> None:
        begun.append(clock.now)
        raise Passing(f"fault {len(begun)}")

    heard: list[str] = []
    with pytest.raises(Passing) as caught:
        clock.patience(100.0).begin().call(act, lambda error: heard.append(str(error)))
    pauses = [after - before for before, after in zip(begun, begun[1:], strict=False)]
    assert pauses[:5] == [FIRST * 2**n for n in range(5)]
    assert max(pauses) == LONGEST
    assert begun[-1] == 100.0
    assert [*heard, str(caught.value)] == [f"fault {n + 1}" for n in range(len(begun))]


def test_what_will_not_pass_is_not_tried_again(clock: Clock) -> None:
    for error in (BadInput("wrong"), Missing("x"), OSError("strange"), KeyboardInterrupt()):
        tried = iter([error])

        def act(tried: Iterator[BaseException] = tried) -> None:
            raise next(tried)

        with pytest.raises(type(error)):
            clock.patience(100.0).begin().call(act)
    assert clock.now == 0.0


# Through the proxy


def test_publications_through_faults_leave_what_was_published(
    store: Store, direct: Store, proxy: Unreliable, tmp_path: Path
) -> None:
    """As often as they were seen at real stores; more often what only some requests can meet, for each is to happen."""
    proxy.faults = replace(AS_OFTEN_AS_SEEN, cut=3, flipped=3)
    for number in range(25):
        prefix, files = f"x{number}/", {name: os.urandom(size) for name, size in (("a", 3), ("b", 70_000), ("c", 1_100_000))}
        commit = publish(store, prefix, files, meta={"number": number})
        assert commit == committed(store, prefix) == committed(direct, prefix)
        assert {name: fetch(direct, commit, name) for name in files} == files
        made = fetch_folder(store, commit, tmp_path / prefix)
        assert {path.name: path.read_bytes() for path in made.iterdir()} == files
        assert sorted(direct.list(prefix)) == [prefix + name for name in (COMMIT, "a", "b", "c")]
    assert proxy.unmet() == set(), proxy.met


def test_flipped_bits_are_never_believed(store: Store, direct: Store, proxy: Unreliable, tmp_path: Path) -> None:
    proxy.faults = Faults(flipped=10)
    for number in range(15):
        prefix, files = f"x{number}/", {"a": os.urandom(20), "b": os.urandom(1_100_000)}
        commit = publish(store, prefix, files, meta={"number": number})
        assert commit == required(store, prefix, "the test") == required(direct, prefix, "the test")
        assert {name: fetch(store, commit, name) for name in files} == files
        made = fetch_folder(store, commit, tmp_path / prefix)
        assert {path.name: path.read_bytes() for path in made.iterdir()} == files
        for name, data in files.items():
            assert store.read(f"{prefix}{name}") == data
    assert proxy.met["flipped"] > 10


def hidden(*names: str) -> Callable[[Request, bytes], bytes]:
    """The lists of a store leave out objects that are called so."""
    key = rb"<Key>[^<]*(?:%s)</Key>" % "|".join(names).encode()
    entry = re.compile(rb"<Contents>(?:(?!</Contents>).)*%s.*?</Contents>" % key, re.DOTALL)
    return lambda request, body: entry.sub(b"", body) if "list-type=2" in request.line else body


def test_a_commit_that_a_list_leaves_out_is_there(store: Store, direct: Store, proxy: Unreliable, tmp_path: Path) -> None:
    """What is committed is read by its name; whoever does the work again with another result is told, and overwrites nothing."""
    commit = publish(direct, "x/", {"a": b"1", "b": b"2"})
    proxy.edited = hidden(COMMIT, "a")
    assert list(store.list("x/")) == ["x/b"]
    assert committed(store, "x/") == commit
    assert fetch_folder(store, commit, tmp_path / "made").joinpath("a").read_bytes() == b"1"
    assert publish(store, "x/", {"a": b"1", "b": b"2"}) == commit
    refusal(lambda: publish(store, "x/", {"a": b"other", "b": b"2"}), "x/: other content is committed there")
    assert fetch(direct, commit, "a") == b"1" and sorted(direct.list("x/")) == [f"x/{COMMIT}", "x/a", "x/b"]


def test_a_stage_whose_commit_a_list_leaves_out_is_done_again(store: Store, direct: Store, proxy: Unreliable) -> None:
    for iteration in (1, 2):
        publish(direct, layout.datasets("ns/run", iteration), {"generator-0.jsonl": b"{}"})
    assignment = Assignment(store=store, run="ns/run", given_spec=a_spec(iterations=3))
    assert earlier.found(assignment).debates == "1-2"
    proxy.edited = hidden(f"2/datasets/{COMMIT}")
    assert earlier.found(assignment).debates == "1"


def slowly(s3: S3Server, proxy: Unreliable, tmp_path: Path, clock: Clock, seconds: float) -> Store:
    """Through the proxy: a body has to come at ten thousand bytes a second."""
    place = (s3.bucket, f"faults/{tmp_path.name}", proxy.endpoint, "us-east-1")
    return S3Store(*place, patience=clock.patience(seconds), requests=replace(ONCE, pace=Pace(10_000.0, 0.1)))


def test_a_body_that_trickles_is_given_up(
    s3: S3Server, keys: None, direct: Store, proxy: Unreliable, clock: Clock, tmp_path: Path
) -> None:
    """Each byte comes in time for the socket, and all of them would take minutes."""
    direct.write("x", bytes(5_000))
    store = slowly(s3, proxy, tmp_path, clock, 0.0)
    proxy.faults = Faults(trickled=100, trickled_seconds=0.03)
    began = time.monotonic()
    for call in (
        lambda: store.read("x"),
        lambda: store.read_part("x", 10, 4_000),
        lambda: store.download("x", tmp_path / "x"),
        lambda: store.fetch("x", tmp_path / "x"),
    ):
        with pytest.raises(Passing, match=r"^store s3://[^\n]* bytes came within [^\n]*, 10000 a second are the least$"):
            call()
    assert time.monotonic() - began < 30.0
    assert proxy.met["trickled"] >= 4


def test_a_body_that_trickled_is_asked_for_again(
    s3: S3Server, keys: None, direct: Store, proxy: Unreliable, clock: Clock, tmp_path: Path
) -> None:
    body = os.urandom(5_000)
    direct.write("x", body)
    store = slowly(s3, proxy, tmp_path, clock, 600.0)
    proxy.faults = Faults(trickled=60, trickled_seconds=0.03)
    for _ in range(4):
        assert store.read("x") == body
        assert store.download("x", tmp_path / "x") == hashlib.sha256(body).hexdigest()
        store.fetch("x", tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == body
    assert proxy.met["trickled"] > 4


class Pieces:
    """A stream whose pieces take seconds to come, and some to be used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pieces: tuple[int, float]) -> None:
        self.now = 0.0
        self._pieces = iter(pieces)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def read1(self, most: int) -> bytes:
        size, seconds = next(self._pieces, (0, 0.0))
        assert size <= most
        self.now += seconds
        return bytes(size)


def test_a_pace_is_the_mean_of_what_the_store_took(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [(20_000, 19.0), (1_000, 0.5), (60_000, 45.0), (1, 19.0)]  # a silence, and what it held back at its end; the last ones
    stream = Pieces(monkeypatch, *pieces)
    body = Paced(stream, Pace())
    while piece := body.read(100_000 if stream.now else 20_000):
        assert len(piece) in (20_000, 61_001)
        stream.now += 1000.0  # a slow disk
    stream = Pieces(monkeypatch, (20_000, 19.0), (479, 1.0))
    with pytest.raises(TooSlow, match=r"^20479 bytes came within 20 s, 1024 a second are the least$"):
        Paced(stream, Pace()).read()


def test_a_slow_body_is_asked_for_again_in_time() -> None:
    assert Pace().seconds < S3_PATIENCE.seconds


def test_an_outage_at_each_step_of_a_publication_costs_nothing(
    store: Store, direct: Store, proxy: Unreliable, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Longer than an operation is tried: the publication itself goes on, and says so."""
    seconds, step = 90.0, 0
    while True:
        requests, ends = 0, clock.now + seconds

        def down(request: Request, step: int = step, ends: float = ends) -> bool:
            nonlocal requests
            requests += 1
            return requests > step and clock.now < ends

        proxy.down = down
        commit = publish(store, f"x{step}/", {"a": b"1", "b": b"2"}, patience=clock.patience(600.0))
        proxy.down = lambda _: False
        assert commit == committed(direct, f"x{step}/")
        assert [fetch(direct, commit, name) for name in ("a", "b")] == [b"1", b"2"]
        if requests <= step:
            break
        step += 1
    assert step > 8
    assert "x0/ is not published yet, tried for 600 s: store s3://" in capsys.readouterr().err


def test_an_outage_without_an_end_ends_the_publication(store: Store, proxy: Unreliable, clock: Clock) -> None:
    proxy.down = lambda _: True
    with pytest.raises(Passing, match="unreachable"):
        publish(store, "x/", {"a": b"1"}, patience=clock.patience(600.0))
    assert 500.0 < clock.now < 700.0


def test_a_probe_rides_out_faults(s3: S3Server, direct: Store, proxy: Unreliable, clock: Clock, tmp_path: Path) -> None:
    place = (s3.bucket, f"faults/{tmp_path.name}", proxy.endpoint, "us-east-1")
    store = S3Store(*place, patience=Patience(0.0), requests=ONCE)
    proxy.faults = Faults(slow_down=10, page=5, reset=5, cut=5, lost=20)
    for number in range(20):
        check(store, f"run-{number}/", clock.patience(30.0))
    assert list(direct.list("")) == []
    assert proxy.met["slow_down"] and proxy.met["reset"]


def test_a_probe_of_a_store_that_stays_away_ends_in_time_and_leaves_nothing(
    store: Store, direct: Store, proxy: Unreliable, clock: Clock
) -> None:
    proxy.down = lambda _: True
    is_away(lambda: check(store, "run/", clock.patience(30.0)))
    assert clock.now < 60.0
    served = 3

    def after_some(request: Request) -> bool:
        nonlocal served
        served -= 1
        return served < 0

    proxy.down = after_some
    is_away(lambda: check(store, "run/", clock.patience(30.0)))
    proxy.down = lambda _: False
    [left] = direct.list("run/.probe-")
    age = left.split("-")[1]
    direct.write(left.replace(age, str(int(age) - 7200)), b"maft")
    check(store, "run/", clock.patience(30.0))
    assert list(direct.list("")) == [left]  # it is young: another probe may be under way


# Answers


class Answers(socketserver.ThreadingTCPServer):
    """A server that gives these answers in turn, the last one again and again. They are found by method and path; "" is any."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: dict[str, list[bytes]] = {}
        self.requests: list[str] = []

    def next(self, line: str) -> bytes:
        self.requests.append(line)
        method, target, _ = line.split(" ")
        found = next(several for start, several in self.answers.items() if f"{method} {target}".startswith(start) or start == "")
        return found.pop(0) if len(found) > 1 else found[0]


class Answer(socketserver.StreamRequestHandler):
    server: Answers

    def handle(self) -> None:
        line, headers = self.rfile.readline().decode().strip(), {}
        while found := self.rfile.readline().decode("latin-1").strip():
            name, _, value = found.partition(":")
            headers[name.lower()] = value.strip()
        if "100-continue" in headers.get("expect", ""):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.rfile.read(int(headers.get("content-length", "0")))
        if line:
            self.wfile.write(self.server.next(line))


def answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    tag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", f'ETag: "{tag}"', *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def fault(status: str, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode())


GATEWAY = b"<!DOCTYPE html><html><head><title>no</title></head><body><center>nginx</center><hr></body></html>"
DONE = answer("200 OK")
EMPTY_LIST = answer("200 OK", b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    with Answers() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def answered(answers: Answers) -> S3Store:
    """The store that believes in it. It tries once; tests of patience say so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        place = ("bucket", "", f"http://127.0.0.1:{answers.server_address[1]}", "here")
        return S3Store(*place, patience=Patience(0.0), requests=ONCE)


@pytest.fixture
def patient(answered: S3Store, clock: Clock) -> Iterator[S3Store]:
    """The same, with a clock."""
    answered._patience = clock.patience(30.0)
    yield answered
    answered._patience = Patience(0.0)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("Location: https://s3.example.org/bucket/x?token=secret", ["redirects to https://s3.example.org;", "storage.endpoint"]),
        ("Location: https://user:secret@other:8443/", ["redirects to https://other:8443;", "storage.endpoint"]),
        ("Location: /login", ["redirects to /login;", "storage.endpoint"]),
        ("X-Nothing: here", ["redirects to another place;", "storage.endpoint"]),
        ("x-amz-bucket-region: eu-west-3", ["the region eu-west-3", "storage.region"]),
    ],
)
def test_an_endpoint_that_redirects(answers: Answers, answered: Store, status: str, header: str, words: list[str]) -> None:
    answers.answers, before = {"": [answer(status, b"<html/>", header)]}, len(answers.requests)
    for call in (lambda: answered.read("x"), lambda: answered.create("x", b"1"), lambda: list(answered.list("x"))):
        refusal(call, "store s3://bucket: ", *words)
    refusal(lambda: answered.write("x", Path(__file__)), *words)
    refusal(lambda: check(answered, "run/"), *words)
    assert len(answers.requests) - before < 10


def test_a_redirect_says_no_secret(answers: Answers, answered: Store) -> None:
    answers.answers = {"": [answer("302 Found", b"", "Location: https://user:secret@host/x?token=secret")]}
    with pytest.raises(BadInput) as caught:
        answered.read("x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "broken",
    [
        answer("200 OK", b"half", length=8),
        answer("404 Not Found", b"<Error><Code>NoSuch", length=400),
        answer("503 Slow Down", b"<Error>", length=400),
        answer("502 Bad Gateway", GATEWAY),
        answer("404 Not Found", GATEWAY),
        answer("404 Not Found"),
        answer("200 OK", b"<html>")[:30],
        fault("503 Slow Down", "SlowDown"),
        fault("500 Internal Server Error", "InternalError"),
        fault("429 Too Many Requests", "TooManyRequests"),
        fault("400 Bad Request", "RequestTimeout"),
    ],
)
def test_what_may_pass_is_asked_again(
    answers: Answers, answered: S3Store, patient: S3Store, clock: Clock, tmp_path: Path, broken: bytes
) -> None:
    good = answer("200 OK", b"maft")
    answers.answers = {"": [broken, broken, good]}
    assert patient.read("x") == b"maft"
    answers.answers = {"": [broken, broken, good]}
    assert patient.download("x", tmp_path / "x") == hashlib.sha256(b"maft").hexdigest()
    assert (tmp_path / "x").read_bytes() == b"maft"
    answers.answers = {"": [broken, broken, EMPTY_LIST]}
    assert list(patient.list("x")) == []
    before, requests = clock.now, len(answers.requests)
    answers.answers = {"": [broken]}
    with pytest.raises(Passing, match="s3://bucket"):
        patient.read("x")
    assert clock.now - before == 30.0
    assert 4 < len(answers.requests) - requests < 20


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer("502 Bad Gateway", GATEWAY), ["HTTP 502 Bad Gateway"]),
        (answer("503 Service Unavailable", b"<html><body>closed</body></html>"), ["HTTP 503 Service Unavailable"]),
        (answer("404 Not Found", GATEWAY), ["HTTP 404 Not Found"]),
        (answer("413 Request Entity Too Large", GATEWAY), ["HTTP 413"]),
        (fault("400 Bad Request", "Strange"), ["HTTP 400 Strange", "said so"]),
    ],
)
def test_a_fault_keeps_its_status_and_its_operation(answers: Answers, answered: Store, reply: bytes, words: list[str]) -> None:
    answers.answers = {"": [reply]}
    with pytest.raises(OSError) as caught:
        answered.read("x")
    assert [word for word in ["GetObject", "s3://bucket: x", *words] if word not in str(caught.value)] == []


def test_only_what_the_store_says_is_missing_is_missing(answers: Answers, answered: Store, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: answered.read("x"),
        lambda: answered.read_part("x", 0, 4),
        lambda: answered.download("x", tmp_path / "x"),
        lambda: answered.fetch("x", tmp_path / "x"),
    ]
    for call in calls:
        answers.answers = {"HEAD": [answer("404 Not Found")], "": [fault("404 Not Found", "NoSuchKey")]}
        with pytest.raises(Missing):
            call()
        for gone in (answer("404 Not Found", GATEWAY), answer("404 Not Found"), fault("404 Not Found", "DefaultBackend")):
            answers.answers = {"": [gone]}
            with pytest.raises(Passing):
                call()
    answers.answers = {"": [answer("404 Not Found", GATEWAY)]}
    with pytest.raises(Passing):
        committed(answered, "x/")


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "RequestExpired"])
def test_clocks_that_differ(answers: Answers, answered: Store, code: str) -> None:
    answers.answers = {"": [fault("403 Forbidden", code)]}
    refusal(lambda: check(answered, "run/"), "s3://bucket", "clocks", "NTP")


@pytest.mark.parametrize(
    "lacking",
    [
        fault("501 Not Implemented", "NotImplemented"),
        fault("405 Method Not Allowed", "MethodNotAllowed"),
        answer("501 Not Implemented", GATEWAY),
        answer("405 Method Not Allowed"),
    ],
)
def test_what_a_store_lacks_is_named_with_its_operation(
    answers: Answers, answered: S3Store, capsys: pytest.CaptureFixture[str], lacking: bytes
) -> None:
    answers.answers = {"": [lacking]}
    refusal(lambda: answered.create("x", b"1"), "PutObject with If-None-Match: *", "conditional writes")
    refusal(lambda: answered.write("x", b"1"), "does not implement PutObject;")
    refusal(lambda: answered.read("x"), "does not implement GetObject")
    refusal(lambda: list(answered.list("x")), "does not implement ListObjectsV2")
    answered._lists_uploads = answered._deletes_many = True
    answered.clean("x/")
    answered.clean("y/")
    assert capsys.readouterr().err.count("ListMultipartUploads") == 1
    answers.answers, before = {"POST": [lacking], "DELETE": [answer("204 No Content")]}, len(answers.requests)
    answered.delete(["a", "b"])
    answered.delete(["c"])
    assert [line.split(" ")[0] for line in answers.requests[before:]] == ["POST", "DELETE", "DELETE", "DELETE"]
    answered._deletes_many = True
    answers.answers = {"": [lacking]}
    refusal(lambda: answered.delete(["a"]), "does not implement DeleteObject;")


@pytest.mark.parametrize("wanted", ["MissingContentMD5", "InvalidRequest", "InvalidArgument"])
def test_a_store_that_wants_another_checksum_deletes_one_by_one(answers: Answers, answered: S3Store, wanted: str) -> None:
    answers.answers, before = {"POST": [fault("400 No", wanted)], "DELETE": [answer("204 No Content")]}, len(answers.requests)
    answered._deletes_many = True
    answered.delete(["a", "b"])
    assert [line.split(" ")[0] for line in answers.requests[before:]] == ["POST", "DELETE", "DELETE"]


def test_uploads_are_none_where_there_never_was_one(answers: Answers, answered: S3Store) -> None:
    answered._lists_uploads = True
    answers.answers = {"": [fault("404 Not Found", "NoSuchUpload")]}
    answered.clean("x/")
    answers.answers = {"": [fault("403 Forbidden", "AccessDenied")]}
    refusal(lambda: answered.clean("x/"), "ListMultipartUploads", "access denied")


def test_an_endpoint_that_never_answers_is_told_of_in_time(keys: None) -> None:
    """A request of a probe is waited for a short while, once."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = ("bucket", "", f"http://127.0.0.1:{silent.getsockname()[1]}", "here")
        store = S3Store(*place, patience=Patience(0.0), requests=Requests(ONCE.attempts, 0.5))
        began = time.monotonic()
        is_away(lambda: check(store, "run/", Patience(1.0)))
        assert time.monotonic() - began < 10.0
    assert PATIENCE.seconds + 2 * ONCE.silence < 60.0


@pytest.mark.programs
def test_a_store_that_is_away_ends_prepare_for_good_only_where_somebody_watches(keys: None) -> None:
    """On a cluster it may be the second look at a run that began long ago."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        store = f"s3://bucket/runs?endpoint=http://127.0.0.1:{nobody.getsockname()[1]}&region=here"
        command = [
            sys.executable,
            "-m",
            "maft.prepare",
            f"--store={store}",
            "--run=ns/run",
            f"--spec={immutable_spec_json(a_spec())}",
        ]
        environments = ({}, {"MAFT_WATCHED": "1"})
        programs = [
            subprocess.Popen(command, env={**os.environ, **more}, stderr=subprocess.PIPE, text=True) for more in environments
        ]
        ends = [(program.communicate(timeout=120)[1], program.returncode) for program in programs]
    assert [code for _, code in ends] == [1, BAD_INPUT]
    for words, _ in ends:  # that its log cannot be kept there either is a line of its own
        [line] = [line for line in words.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: store s3://bucket/runs: unreachable: ")


def test_reads_that_no_tag_vouches_for_are_made_twice(answers: Answers, answered: Store) -> None:
    """A server's tag need not be a hash of the content: then two equal reads are believed."""
    odd = answer("200 OK", b"maft").replace(b"ETag", b"X-Tag")
    answers.answers, before = {"": [odd]}, len(answers.requests)
    assert answered.read("x") == b"maft"
    assert len(answers.requests) - before == 2
    answers.answers = {"": [odd.replace(b"maft", b"mafu"), odd]}
    with pytest.raises(Passing, match="twice"):
        answered.read("x")
    answers.answers, before = {"": [answer("200 OK", b"maft")]}, len(answers.requests)
    assert answered.read("x") == b"maft"
    assert len(answers.requests) - before == 1


def test_a_list_need_not_have_tags(answers: Answers, answered: S3Store) -> None:
    """S3Proxy gives none for an object that is being written."""
    listed = b"<Contents><Key>x</Key><Size>4</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
    whole = b"<ListBucketResult><IsTruncated>false</IsTruncated>" + listed + b"</ListBucketResult>"
    answers.answers = {"": [answer("200 OK", whole)]}
    [entry] = answered.entries("")
    assert (entry.key, entry.size, entry.tag) == ("x", 4, "")


LISTED = b"<Contents><Key>x</Key><Size>4</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"


def listing(truncated: str, token: str = "", entries: bytes = LISTED) -> bytes:
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    page = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}".encode()
    return answer("200 OK", page + entries + b"</ListBucketResult>")


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (listing("true", "same"), BadInput, ["ListObjectsV2", "the same pages come again"]),
        (listing("true", "same", b""), BadInput, ["ListObjectsV2", "the same pages come again"]),
        (listing("true"), Passing, ["ListObjectsV2", "does not say how"]),
        (listing("false", entries=LISTED.replace(b"<Size>4</Size>", b"")), Passing, ["none of an S3 server", "Size"]),
        (listing("false", entries=LISTED.replace(b"2026-01-01T00:00:00.000Z", b"soon")), Passing, ["none of an S3 server"]),
    ],
    ids=["the same page for ever", "an empty page for ever", "no token", "no size", "no date"],
)
def test_a_list_that_is_none_is_told(
    answers: Answers, answered: S3Store, reply: bytes, error: type[Exception], words: list[str]
) -> None:
    answers.answers = {"": [reply]}
    with pytest.raises(error) as caught:
        list(answered.list(""))
    assert [word for word in ["s3://bucket", *words] if word not in str(caught.value)] == []


def test_a_list_that_goes_round_in_circles_ends_after_the_first(answers: Answers, answered: S3Store) -> None:
    pages = [listing("true", f"to-{next_}", LISTED.replace(b"x", key)) for key, next_ in ((b"a", "b"), (b"b", "c"), (b"c", "a"))]
    answers.answers = {"": pages * 10}
    several = answered.list("run/")
    assert [next(several) for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(BadInput, match=r"^store s3://bucket: run/: ListObjectsV2: the same pages come again and again; [^\n]*$"):
        next(several)


def test_pages_without_a_key_are_no_circle_as_long_as_they_lead_on(answers: Answers, answered: S3Store) -> None:
    """Of a store that has many deleted objects to pass over."""
    empty = [listing("true", f"to-{number}", b"") for number in range(5)]
    answers.answers = {"": [*empty, listing("true", "rest"), listing("false", "", LISTED.replace(b"x", b"y"))]}
    assert list(answered.list("run/")) == ["x", "y"]


def test_a_full_page_goes_on_also_where_that_is_said_oddly(answers: Answers, answered: S3Store) -> None:
    full = b"".join(LISTED.replace(b"<Key>x", b"<Key>%04d" % n) for n in range(1000))
    answers.answers = {"": [listing("True", "more", full), listing("False")]}
    assert len(list(answered.list(""))) == 1001


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nmaft\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "whole", [CHUNKED, answer("200 OK", b"maft"), answer("206 Partial", b"maft", "Content-Range: bytes 0-3/*")]
)
def test_a_store_without_ranges_gives_files_as_wholes(answers: Answers, answered: S3Store, tmp_path: Path, whole: bytes) -> None:
    """Within the time of a test: boto3 waits for ever for what these answers do not say."""
    answers.answers = {"": [whole]}
    answered.fetch("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"maft"


def tagged(tag: str, *headers: str) -> bytes:
    """An object whose ETag is not the MD5 of what comes."""
    return answer("200 OK", b"maft", *headers).replace(hashlib.md5(b"maft").hexdigest().encode(), tag.encode())


@pytest.mark.parametrize(
    ("object_", "beside"),
    [
        (tagged("0" * 32), tagged("0" * 32)),  # no MD5s in this store
        (tagged("0" * 32, "x-amz-server-side-encryption: aws:kms"), answer("200 OK", b"maft")),
        (tagged("0" * 32, "x-amz-server-side-encryption-customer-algorithm: AES256"), answer("200 OK", b"maft")),
        (tagged("0" * 32 + "-2"), answer("200 OK", b"maft")),  # nobody can tell how large the parts were
        (tagged("0x8DC"), answer("200 OK", b"maft")),
    ],
    ids=["of the store", "KMS", "the customer's key", "parts", "no hash"],
)
def test_an_etag_that_is_no_md5_proves_nothing(
    answers: Answers, answered: S3Store, tmp_path: Path, object_: bytes, beside: bytes
) -> None:
    answers.answers = {
        "GET /bucket?": [listing("false", entries=LISTED.replace(b"x", b"y"))],
        "GET /bucket/y": [beside],
        "": [object_],
    }
    answered.fetch("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"maft"


def test_an_etag_that_is_an_md5_is_believed_where_others_beside_it_are(answers: Answers, answered: S3Store, tmp_path: Path) -> None:
    listed, whole = listing("false", entries=LISTED.replace(b"x", b"y")), answer("200 OK", b"maft")
    answers.answers = {"GET /bucket?": [listed], "GET /bucket/y": [whole], "": [tagged("0" * 32)]}
    with pytest.raises(Damaged, match=rf"^store s3://bucket: x: what lies there has the MD5 \w+, and its ETag is {'0' * 32}: "):
        answered.fetch("x", tmp_path / "x")
    answers.answers = {"": [tagged("0" * 32), tagged("0" * 32), whole]}  # the first time alone
    answered.fetch("x", tmp_path / "x")


def test_an_upload_in_parts_is_looked_for_when_it_has_ended(answers: Answers, answered: S3Store, tmp_path: Path) -> None:
    """Completing one is answered by 200, and by nothing more where it fails late."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(PARTS.multipart_threshold)
    begun = answer("200 OK", b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    five = answer("206 Partial", b"m", "Content-Range: bytes 0-0/5")
    answers.answers = {"POST /bucket/x?uploads": [begun], "GET": [five], "": [DONE]}
    for there, said in ((answers.answers["GET"][0], "5 bytes"), (fault("404 Not Found", "NoSuchKey"), "0 bytes")):
        answers.answers["GET"] = [there]
        with pytest.raises(Passing, match=rf"CompleteMultipartUpload: {said} are there of {PARTS.multipart_threshold}"):
            answered.write("x", large)


def test_uploads_of_others_are_left_alone(answers: Answers, answered: S3Store) -> None:
    """Some servers list all of a bucket's, whatever prefix is asked for."""
    uploads = b"".join(b"<Upload><Key>%s</Key><UploadId>u</UploadId></Upload>" % key for key in (b"other/x", b"run/x"))
    page = b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>" + uploads + b"</ListMultipartUploadsResult>"
    answered._lists_uploads, before = True, len(answers.requests)
    answers.answers = {"GET": [answer("200 OK", page)], "DELETE": [answer("204 No Content")]}
    answered.clean("run/")
    assert [line.split(" ")[1] for line in answers.requests[before:] if line.startswith("DELETE")] == ["/bucket/run/x?uploadId=u"]


@pytest.mark.parametrize("code", ["IfNoneMatchFailed", "ConditionNotMet", "PreconditionFailed"])
def test_what_is_there_is_there_in_any_words(answers: Answers, answered: S3Store, code: str) -> None:
    answers.answers = {"": [fault("412 Precondition Failed", code)]}
    assert answered.create("x", b"1") is False
    answers.answers = {"": [fault("409 Conflict", "BlobAlreadyExists")]}
    assert answered.create("x", b"1") is False


def test_a_store_that_gives_what_is_not_there_is_refused(answers: Answers, answered: S3Store) -> None:
    puts = [DONE, fault("412 Precondition Failed", "PreconditionFailed")]
    mine = [answer("200 OK", b"maft"), answer("200 OK", b"maft"), answer("200 OK")]
    answers.answers = {"PUT": puts, "GET": mine, "": [answer("204 No Content")]}
    refusal(lambda: check(answered, "run/"), "not there", "GetObject")


def test_files_go_side_by_side(store: Store, proxy: Unreliable, tmp_path: Path) -> None:
    """Of a store whose every answer takes a second, a publication of many files takes about as long as one of one file."""
    most = Together(proxy)
    files = {f"f{n}": b"%d" % n for n in range(8)}
    commit = publish(store, "x/", files)
    assert most.found >= 4
    most.found = 0
    made = fetch_folder(store, commit, tmp_path / "made")
    assert {path.name: path.read_bytes() for path in made.iterdir()} == files
    assert most.found >= 4


class Together:
    """Counts how many requests wait at the proxy at the same time: each waits for others, a short while."""

    def __init__(self, proxy: Unreliable) -> None:
        self.found = 0
        self._now = 0
        self._lock = threading.Condition()
        proxy.before = self._wait

    def _wait(self) -> None:
        with self._lock:
            self._now += 1
            self.found = max(self.found, self._now)
            self._lock.notify_all()
            self._lock.wait_for(lambda: self._now >= 4, 0.1)
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize("prefix", ["a//b", "a/./b", "./a", "a/../b", "a/.", "..", "a/%2E%2E/b", "a%2F%2Fb"])
def test_prefixes_that_servers_resolve_are_refused(prefix: str) -> None:
    refusal(lambda: open_store(f"s3://bucket/{prefix}?endpoint=http://127.0.0.1:9"), "s3://bucket/", "prefix", "storage.prefix")


def test_the_page_is_made_of_what_was_found() -> None:
    """`python scripts/stores_reference.py` after it tried servers."""
    sys.path.append(str(ROOT / "scripts"))
    import stores_reference

    assert stores_reference.PAGE.read_text() == stores_reference.page()
    assert {"versitygw", "moto"} <= stores_reference.facts().keys()
