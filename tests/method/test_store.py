"""Folder and bucket keep the same contract; the bucket is that of a real S3 server."""

import contextlib
import dataclasses
import hashlib
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from s3server import S3Server, moto_fixture, s3_fixture  # noqa: F401 - the fixtures `s3` and `moto`

from maft import records
from maft.errors import BadInput
from maft.records import Commit, StoredFile
from maft.store.base import Missing, Passing, Store
from maft.store.check import check
from maft.store.commits import COMMIT, committed, fetch, fetch_folder, publish, required
from maft.store.patience import Patience
from maft.store.urls import open_store

MIB = 1 << 20
PROBE_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Place:
    """A store, the URL that opens it, and what interrupted uploads left below a prefix."""

    url: str
    store: Store
    leftovers: Callable[[str], list[str]]


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


def opened(server: S3Server) -> Store:
    """A store of the server: to open one takes half a second."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        return open_store(server.url("tests/store"))


@pytest.fixture(scope="session")
def opened_s3(s3: S3Server) -> Store:
    """The store of all tests."""
    return opened(s3)


@pytest.fixture(scope="session")
def opened_moto(moto: S3Server) -> Store:
    """Of those that both servers have."""
    return opened(moto)


def emptied(s3: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty prefix in the bucket of the server, with its credentials in the environment."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    client, base = s3.client(), "tests/store/"

    def uploads(prefix: str) -> list[dict[str, str]]:
        with contextlib.suppress(ClientError):  # some servers cannot say
            return list(client.list_multipart_uploads(Bucket=s3.bucket, Prefix=base + prefix).get("Uploads", []))
        return []

    for upload in uploads(""):
        client.abort_multipart_upload(Bucket=s3.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    for entry in client.list_objects_v2(Bucket=s3.bucket, Prefix=base).get("Contents", []):
        client.delete_object(Bucket=s3.bucket, Key=entry["Key"])
    return Place(s3.url("tests/store"), store, lambda prefix: [u["Key"].removeprefix(base) for u in uploads(prefix)])


@pytest.fixture
def bucket(s3: S3Server, opened_s3: Store, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The first server's."""
    return emptied(s3, opened_s3, monkeypatch)


@pytest.fixture
def bucket_of_moto(moto: S3Server, opened_moto: Store, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The other one's."""
    return emptied(moto, opened_moto, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    """A folder that is not there yet."""
    root = tmp_path / "store"

    def leftovers(prefix: str) -> list[str]:
        return [path.relative_to(root).as_posix() for path in (root / prefix).rglob(".tmp-*")]

    return Place(root.as_uri(), open_store(root.as_uri()), leftovers)


@pytest.fixture(params=["folder", *(pytest.param(name, marks=pytest.mark.s3) for name in ("bucket", "bucket_of_moto"))])
def place(request: pytest.FixtureRequest) -> Place:
    """All, one after the other."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Place)
    return found


@pytest.fixture
def store(place: Place) -> Store:
    """All, one after the other."""
    return place.store


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keys(store: Store, prefix: str = "") -> list[str]:
    return list(store.list(prefix))


def refusal(call: Callable[[], object], *words: str) -> str:
    """The one line with which the call refuses wrong input; it has these words."""
    with pytest.raises(BadInput) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert [word for word in words if word not in line] == [], line
    return line


def at_once(*calls: Callable[[], object]) -> list[object]:
    """What the calls return or raise when threads make them at the same time."""
    barrier = threading.Barrier(len(calls))

    def outcome(call: Callable[[], object]) -> object:
        barrier.wait(30)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


# Objects


def test_an_object_is_what_was_written_last(store: Store) -> None:
    store.write("a/b.json", b"first")
    store.write("a/b.json", b"")
    assert store.read("a/b.json") == b""
    store.write("a/b.json", bytes(range(256)) * 100)
    assert store.read("a/b.json") == bytes(range(256)) * 100


@pytest.mark.parametrize("key", ["nothing", "a", "a/", "a/nothing", "a/b/c"])
def test_there_is_no_other_object(store: Store, tmp_path: Path, key: str) -> None:
    """Servers over folders may think that there is: a run asks for no key that is a folder's or below an object's."""
    store.write("a/b", b"1")
    with pytest.raises(Missing):
        store.read(key)
    with pytest.raises(Missing):
        store.download(key, tmp_path / "target")
    store.delete(["a/b/nothing"])
    assert keys(store) == ["a/b"]


def test_download_returns_the_hash(store: Store, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB + 1)
    store.write("weights", data)
    (tmp_path / "target").write_bytes(b"longer than nothing")
    assert store.download("weights", tmp_path / "target") == sha256(data)
    assert (tmp_path / "target").read_bytes() == data


def test_download_into_no_folder_does_not_look_like_a_missing_object(store: Store, tmp_path: Path) -> None:
    store.write("weights", b"1")
    with pytest.raises(OSError, match="nowhere"):
        store.download("weights", tmp_path / "nowhere" / "target")


def test_create_keeps_what_is_there(store: Store) -> None:
    assert store.create("x/commit", b"first") is True
    assert store.create("x/commit", b"second") is False
    assert store.create("x/commit", b"first") is False
    assert store.read("x/commit") == b"first"


def test_one_of_many_creates(store: Store) -> None:
    for number in range(5):
        created = at_once(*(lambda i=i, key=f"x/{number}": store.create(key, b"%d" % i) for i in range(4)))
        assert sorted(map(str, created)) == ["False", "False", "False", "True"]
        assert store.read(f"x/{number}") == b"%d" % created.index(True)


def test_list_is_sorted_and_by_prefix(store: Store) -> None:
    written = ["b", "a/b/2", "a/b/1", "a/b.json", "a/b-1", "a/c", "a b/1", "ab", "é/x"]
    for key in written:
        store.write(key, b"1")
    assert keys(store) == sorted(written)
    assert keys(store, "a/") == ["a/b-1", "a/b.json", "a/b/1", "a/b/2", "a/c"]
    assert keys(store, "a/b") == ["a/b-1", "a/b.json", "a/b/1", "a/b/2"]
    assert keys(store, "a/b/") == ["a/b/1", "a/b/2"]
    assert keys(store, "a/b/1") == ["a/b/1"]
    assert keys(store, "é") == ["é/x"]
    assert keys(store, "no") == keys(store, "no/") == keys(store, "b/") == []


def test_delete(store: Store) -> None:
    there = [f"a/{i}" for i in (0, 1, 998, 999, 1000, 1001, 1100)]
    for key in [*there, "a/kept"]:
        store.write(key, b"1")
    store.delete([*(f"a/{i}" for i in range(1101)), "a/no", "no/no"])
    store.delete([])
    assert keys(store) == ["a/kept"]


@pytest.mark.parametrize(
    "key", ["a b/c d", "ä/日本語/😀", "v1.2/.hidden/x..y/...", "a+b&c=d?e#f%20g", "quote'\"<>", "-", "a/" + "n" * 200]
)
def test_odd_keys(store: Store, tmp_path: Path, key: str) -> None:
    assert store.create(key, b"1") is True
    store.write(key, b"2")
    assert store.read(key) == b"2"
    assert store.download(key, tmp_path / "target") == sha256(b"2")
    assert keys(store) == keys(store, key[:1]) == [key]
    store.delete([key])
    assert keys(store) == []


@pytest.mark.parametrize("key", ["../x", "/x", "..", "a/../../x", "a/..", "a//x", "a/./x", "./x", "a/.", "//"])
def test_keys_do_not_lead_out_of_the_store(store: Store, tmp_path: Path, key: str) -> None:
    refusal(lambda: store.read(key), store.url, repr(key))
    refusal(lambda: store.download(key, tmp_path / "target"), store.url, repr(key))
    refusal(lambda: store.write(key, b"1"), store.url, repr(key))
    refusal(lambda: store.write(key, Path(__file__)), store.url, repr(key))
    refusal(lambda: store.create(key, b"1"), store.url, repr(key))
    refusal(lambda: keys(store, key), store.url, repr(key))
    refusal(lambda: store.delete(["fine", key]), store.url, repr(key))
    refusal(lambda: store.clean(key), store.url, repr(key))


@pytest.mark.parametrize("size", [0, 1, 65 * MIB])
def test_files_of_any_size(place: Place, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    (tmp_path / "other").write_bytes(data[::-1] + b"2")
    place.store.write("deep/weights", tmp_path / "source")
    assert place.store.create("deep/weights", tmp_path / "other") is False
    assert place.store.download("deep/weights", tmp_path / "target") == sha256(data)
    assert (tmp_path / "target").stat().st_size == size
    assert place.store.create("deep/other", tmp_path / "other") is True
    assert place.store.download("deep/other", Path(os.devnull)) == sha256(data[::-1] + b"2")
    assert place.leftovers("") == []


def test_no_source_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        store.write("x", tmp_path / "nothing")
    assert keys(store) == []


# Commits


def test_nothing_committed(store: Store) -> None:
    store.write("x/part-0.jsonl", b"1")
    assert committed(store, "x/") is None
    refusal(lambda: required(store, "x/", "the task `prepare`"), f"{store.url}/x/", "the task `prepare`")


def test_publish_and_fetch(store: Store, tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"\0" * (17 * MIB))
    commit = publish(store, "x/", {"b.bin": tmp_path / "b.bin", "a.json": b"{}"}, parents=["w/"], meta={"seed": 1, "f": 0.1})
    assert commit == Commit(
        "x/",
        (StoredFile("a.json", 2, sha256(b"{}")), StoredFile("b.bin", 17 * MIB, sha256(b"\0" * (17 * MIB)))),
        ("w/",),
        {"seed": 1, "f": 0.1},
    )
    assert committed(store, "x/") == required(store, "x/", "") == commit
    assert fetch(store, commit, "a.json") == b"{}"
    refusal(lambda: fetch(store, commit, "c.json"), "x/", "'c.json'")
    made = fetch_folder(store, commit, tmp_path / "cache" / "adapter")
    assert made == tmp_path / "cache" / "adapter"
    assert {path.name: sha256(path.read_bytes()) for path in made.iterdir()} == {f.name: f.sha256 for f in commit.files}
    assert [path.name for path in made.parent.iterdir()] == ["adapter"]


def test_a_commit_of_no_files(store: Store, tmp_path: Path) -> None:
    commit = publish(store, "x/", {}, meta={"trained": False})
    assert committed(store, "x/") == commit
    assert list(fetch_folder(store, commit, tmp_path / "made").iterdir()) == []


def test_the_same_content_again(store: Store) -> None:
    files = {"a": b"1", "b": b"2"}
    first = publish(store, "x/", files, parents=["w/"], meta={"k": [1, 2.5, None]})
    before = keys(store)
    assert before == [f"x/{COMMIT}", "x/a", "x/b"]
    assert publish(store, "x/", dict(reversed(files.items())), parents=["w/"], meta={"k": [1, 2.5, None]}) == first
    assert keys(store) == before
    store.write("x/a", b"damaged")
    publish(store, "x/", files, parents=["w/"], meta={"k": [1, 2.5, None]})
    assert store.read("x/a") == fetch(store, first, "a") == b"1"
    assert keys(store) == before


@pytest.mark.parametrize(
    ("files", "parents", "seed"),
    [
        ({"a": b"other"}, ["w/"], 1),
        ({"a": b"1", "b": b"2"}, ["w/"], 1),
        ({"b": b"1"}, ["w/"], 1),
        ({}, ["w/"], 1),
        ({"a": b"1"}, ["v/"], 1),
        ({"a": b"1"}, ["w/"], 2),
    ],
)
def test_other_content_is_refused_and_harms_nothing(store: Store, files: dict[str, bytes], parents: list[str], seed: int) -> None:
    commit = publish(store, "x/", {"a": b"1"}, parents=["w/"], meta={"seed": 1})
    before = {key: store.read(key) for key in keys(store)}
    refusal(lambda: publish(store, "x/", files, parents=parents, meta={"seed": seed}), f"{store.url}/x/", "use another name")
    assert {key: store.read(key) for key in keys(store)} == before
    assert committed(store, "x/") == commit
    assert fetch(store, commit, "a") == b"1"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "..", ".hidden", "", "a\n", "a b"])
def test_names_that_are_not_plain_are_not_published(store: Store, name: str) -> None:
    refusal(lambda: publish(store, "x/", {"A": b"1", name: b"1"}), repr(name), "plain file name")
    assert keys(store) == []


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "a/../../evil", ".", ""])
def test_a_commit_does_not_lead_out_of_its_folder(store: Store, tmp_path: Path, name: str) -> None:
    evil = Commit("x/", (StoredFile("good", 1, sha256(b"1")), StoredFile(name, 4, sha256(b"evil"))), (), {})
    store.write(f"x/{COMMIT}", records.encode(evil))
    commit = required(store, "x/", "")
    refusal(lambda: fetch(store, commit, name), repr(name), "plain file name")
    refusal(lambda: fetch_folder(store, commit, tmp_path / "cache" / "made"), repr(name), "plain file name")
    (tmp_path / "cache" / "made").mkdir(parents=True)
    (tmp_path / "cache" / "made" / "good").write_bytes(b"1")
    refusal(lambda: fetch_folder(store, commit, tmp_path / "cache" / "made"), repr(name), "plain file name")
    assert sorted(path.name for path in tmp_path.rglob("*evil*")) == []


def test_a_commit_of_another_place(store: Store) -> None:
    publish(store, "x/", {"a": b"1"})
    store.write(f"y/{COMMIT}", store.read(f"x/{COMMIT}"))
    refusal(lambda: committed(store, "y/"), f"{store.url}/y/{COMMIT}", "x/")


@pytest.mark.parametrize("data", [b"", b"{}", b"[1", b'{"prefix":"x/","files":[{"name":1}],"parents":[],"meta":{}}', b"\xff"])
def test_a_commit_that_is_none(store: Store, data: bytes) -> None:
    store.write(f"x/{COMMIT}", data)
    refusal(lambda: committed(store, "x/"), f"{store.url}/x/{COMMIT}")
    refusal(lambda: publish(store, "x/", {"a": b"1"}), f"{store.url}/x/")
    assert store.read(f"x/{COMMIT}") == data


def test_damaged_and_lost_objects_are_named(store: Store, tmp_path: Path) -> None:
    commit = publish(store, "x/", {"a": b"1", "b": b"2"})
    store.write("x/b", b"3")
    refusal(lambda: fetch(store, commit, "b"), f"{store.url}/x/b: damaged", sha256(b"2")[:12], sha256(b"3")[:12])
    refusal(lambda: fetch_folder(store, commit, tmp_path / "made"), f"{store.url}/x/b: damaged")
    store.delete(["x/b"])
    refusal(lambda: fetch(store, commit, "b"), f"{store.url}/x/b: gone")
    refusal(lambda: fetch_folder(store, commit, tmp_path / "made"), f"{store.url}/x/b: gone")
    assert list(tmp_path.glob("**/made")) == list(tmp_path.glob(".tmp-*")) == []


def test_a_fetched_folder_is_kept(store: Store, tmp_path: Path) -> None:
    commit = publish(store, "x/", {"a": b"1", "b": b"2"})
    made = fetch_folder(store, commit, tmp_path / "made")
    before = made.stat().st_ino
    store.delete(keys(store))
    assert fetch_folder(store, commit, tmp_path / "made") == made
    assert made.stat().st_ino == before


def _shorten(path: Path) -> None:
    os.truncate(path / "a", 1)


def _change(path: Path) -> None:
    (path / "a").write_bytes(b"xx")


def _lose(path: Path) -> None:
    (path / "a").unlink()


def _replace(path: Path) -> None:
    for child in path.iterdir():
        child.unlink()
    path.rmdir()
    path.write_bytes(b"a file where the folder was")


@pytest.mark.parametrize("damage", [_shorten, _change, _lose, _replace])
def test_a_damaged_folder_is_repaired(store: Store, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    commit = publish(store, "x/", {"a": b"11", "b": b"2"})
    made = fetch_folder(store, commit, tmp_path / "cache" / "made")
    damage(made)
    assert fetch_folder(store, commit, made) == made
    assert {path.name: path.read_bytes() for path in made.iterdir()} == {"a": b"11", "b": b"2"}
    assert [path.name for path in made.parent.iterdir()] == ["made"]


def test_one_folder_fetched_by_many(store: Store, tmp_path: Path) -> None:
    commit = publish(store, "x/", {"a": b"1", "b": b"2"})
    for number in range(5):
        target = tmp_path / f"cache-{number}" / "made"
        assert at_once(*[lambda target=target: fetch_folder(store, commit, target)] * 4) == [target] * 4
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {"a": b"1", "b": b"2"}
        assert [path.name for path in target.parent.iterdir()] == ["made"]


def test_the_same_content_at_the_same_time(place: Place) -> None:
    for number in range(5):
        prefix = f"x{number}/"
        first, second = at_once(*[lambda p=prefix: publish(place.store, p, {"a": b"1", "b": b"2" * MIB})] * 2)
        assert first == second == committed(place.store, prefix)
        assert fetch(place.store, required(place.store, prefix, ""), "b") == b"2" * MIB
        assert place.leftovers(prefix) == []


def test_other_content_at_the_same_time(place: Place) -> None:
    def attempt(prefix: str, data: bytes) -> Commit:
        return publish(place.store, prefix, {"a": data, "b": data * MIB})

    for number in range(5):
        prefix = f"x{number}/"
        outcomes = at_once(*(lambda p=prefix, d=data: attempt(p, d) for data in (b"1", b"2", b"3")))
        commit = required(place.store, prefix, "")
        assert [o for o in outcomes if isinstance(o, Commit)] == [commit], outcomes
        refused = [str(o) for o in outcomes if isinstance(o, BadInput)]
        assert len(refused) == 2, outcomes
        assert all("other content is committed" in line for line in refused)
        data = fetch(place.store, commit, "a")
        assert fetch(place.store, commit, "b") == data * MIB
        assert keys(place.store, prefix) == [prefix + name for name in (COMMIT, "a", "b")]
        assert (place.store.read(f"{prefix}a"), place.store.read(f"{prefix}b")) == (data, data * MIB)
        assert place.leftovers(prefix) == []


def nothing(key: str) -> None:
    """Does nothing."""


class Disturbed:
    """A store; before and after each file that is written, something else happens there."""

    def __init__(
        self, store: Store, *, before: Callable[[str], object] = nothing, after: Callable[[str], object] = nothing
    ) -> None:
        self._store, self._before, self._after = store, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, key: str, data: bytes | Path) -> None:
        self._before(key)
        self._store.write(key, data)
        self._after(key)

    def create(self, key: str, data: bytes | Path) -> bool:
        if key.endswith(COMMIT):
            return self._store.create(key, data)
        self._before(key)
        created = self._store.create(key, data)
        self._after(key)
        return created


def disturbed(store: Store, **acts: Callable[[str], object]) -> Store:
    return cast(Store, Disturbed(store, **acts))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_another_commit_during_an_upload(store: Store, moment: str) -> None:
    def other(key: str) -> None:
        publish(store, "x/", {"a": b"other", "b": b"other"})

    refusal(lambda: publish(disturbed(store, **{moment: other}), "x/", {"a": b"1", "b": b"2"}), "other content is committed")
    assert {key: store.read(key) for key in keys(store) if not key.endswith(COMMIT)} == {"x/a": b"other", "x/b": b"other"}
    commit = required(store, "x/", "")
    assert fetch(store, commit, "a") == fetch(store, commit, "b") == b"other"


def test_the_same_commit_during_an_upload(store: Store) -> None:
    store.write("x/a", b"of a dead attempt")
    files = {"a": b"1", "b": b"2"}
    commit = publish(disturbed(store, after=lambda _: publish(store, "x/", files)), "x/", files)
    assert commit == committed(store, "x/")
    assert {key: store.read(key) for key in keys(store) if key != f"x/{COMMIT}"} == {"x/a": b"1", "x/b": b"2"}


def test_nothing_is_written_where_other_content_is_committed(store: Store) -> None:
    publish(store, "x/", {"a": b"1"})
    written: list[str] = []
    refusal(lambda: publish(disturbed(store, before=written.append), "x/", {"a": b"2"}), "other content is committed")
    assert written == []


def test_nothing_is_overwritten_before_the_commit(store: Store) -> None:
    store.write("x/a", b"of a dead or a slow attempt")
    seen = []

    def look(key: str) -> None:
        if not committed(store, "x/"):
            seen.append(store.read("x/a"))

    publish(disturbed(store, before=look), "x/", {"a": b"1", "b": b"2"})
    assert seen == [b"of a dead or a slow attempt"] * 2
    assert store.read("x/a") == b"1"
    assert len(keys(store)) == 3


def test_a_commit_whose_files_are_not_in_place_yet(store: Store, tmp_path: Path) -> None:
    def die(key: str) -> None:
        if committed(store, "x/"):
            raise KeyboardInterrupt

    store.write("x/a", b"of a dead attempt")
    with pytest.raises(KeyboardInterrupt):
        publish(disturbed(store, before=die), "x/", {"a": b"1", "b": b"2"})
    assert store.read("x/a") == b"of a dead attempt"
    commit = required(store, "x/", "")
    assert fetch(store, commit, "a") == b"1"
    assert (fetch_folder(store, commit, tmp_path / "made") / "a").read_bytes() == b"1"
    refusal(lambda: publish(store, "x/", {"a": b"2", "b": b"2"}), "other content is committed")
    refusal(lambda: publish(store, "x/", {"a": b"1", "b": b"2"}, meta={"seed": 1}), "other content is committed")
    assert fetch(store, commit, "a") == b"1"
    publish(store, "x/", {"a": b"1", "b": b"2"})
    assert {key: store.read(key) for key in keys(store) if key != f"x/{COMMIT}"} == {"x/a": b"1", "x/b": b"2"}


def test_who_loses_leaves_a_commit_whose_files_are_not_in_place_yet(store: Store) -> None:
    def die(key: str) -> None:
        if committed(store, "x/"):
            raise KeyboardInterrupt

    def other(key: str) -> None:
        if key == "x/b" and not committed(store, "x/"):
            with pytest.raises(KeyboardInterrupt):
                publish(disturbed(store, before=die), "x/", {"a": b"other", "b": b"other"})

    refusal(lambda: publish(disturbed(store, after=other), "x/", {"a": b"1", "b": b"2"}), "other content is committed")
    commit = required(store, "x/", "")
    assert fetch(store, commit, "a") == fetch(store, commit, "b") == b"other"


@pytest.mark.parametrize("size", [1, 17 * MIB])
def test_what_does_not_arrive_is_not_committed(store: Store, size: int) -> None:
    data = b"1" * size
    for act in (lambda key: store.write(key, data[1:]), lambda key: store.delete([key])):
        with pytest.raises(OSError, match=re.escape(f"{store.url}/x/")):
            publish(disturbed(store, after=act), "x/", {"a": data})
        assert committed(store, "x/") is None


# What interrupted programs leave

# A program that publishes a folder, or writes its weights, and in the middle of weights.bin is killed or meets another that cleans
# up.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from maft.store.commits import publish
from maft.store.urls import open_store

url, prefix, folder, what, how = sys.argv[1:]
store = open_store(url)
acts = [lambda: os.kill(os.getpid(), signal.SIGKILL) if what == "die" else store.clean(prefix)]
sent = 0

def in_the_middle(event, arguments):
    global sent
    if event in ("os.link", "os.rename"):
        there = str(arguments[1]).endswith("weights.bin")
    else:
        sent += len(arguments[1]) if event == "http.client.send" and isinstance(arguments[1], bytes) else 0
        there = sent > 40 << 20
    if there and acts:
        acts.pop()()

sys.addaudithook(in_the_middle)
files = {path.name: path for path in Path(folder).iterdir()}
if how == "publish":
    publish(store, prefix, files)
else:
    store.write(prefix + "weights.bin", files["weights.bin"])
assert not acts
"""


def adapter(path: Path, size: int) -> Path:
    """A folder with that much in it."""
    path.mkdir()
    (path / "adapter.json").write_bytes(b"{}")
    with (path / "weights.bin").open("wb") as file:
        file.write(os.urandom(MIB))
        file.truncate(size)
    return path


def program(place: Place, prefix: str, folder: Path, what: str, how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, place.url, prefix, str(folder), what, how]
    return subprocess.run(command, check=False, timeout=60).returncode


def test_a_killed_publication_leaves_no_commit_and_its_leftovers_go(place: Place, tmp_path: Path) -> None:
    assert program(place, "x/", adapter(tmp_path / "made", 100 * MIB), "die", "publish") == -9
    assert committed(place.store, "x/") is None
    assert len(place.leftovers("x/")) == place.url.startswith("file:")  # of a bucket, it was one request
    assert keys(place.store) == ["x/adapter.json"]
    commit = publish(place.store, "x/", {"adapter.json": b"[]", "weights.bin": b"trained again"})
    assert place.leftovers("") == []
    assert keys(place.store) == [f"x/{COMMIT}", "x/adapter.json", "x/weights.bin"]
    for name, data in (("adapter.json", b"[]"), ("weights.bin", b"trained again")):
        assert fetch(place.store, commit, name) == place.store.read(f"x/{name}") == data


def test_a_killed_write_of_a_large_file_leaves_none_and_its_leftovers_go(place: Place, tmp_path: Path) -> None:
    assert program(place, "x/", adapter(tmp_path / "made", 100 * MIB), "die", "write") == -9
    assert len(place.leftovers("x/")) == 1
    assert keys(place.store) == []
    publish(place.store, "x/", {"a": b"1"})
    assert place.leftovers("") == []


@pytest.mark.parametrize("how", ["publish", "write"])
def test_an_upload_that_another_publication_cleans_up_starts_again(place: Place, tmp_path: Path, how: str) -> None:
    made = adapter(tmp_path / "made", 65 * MIB)
    assert program(place, "x/", made, "clean", how) == 0
    assert place.store.download("x/weights.bin", Path(os.devnull)) == sha256((made / "weights.bin").read_bytes())
    assert place.leftovers("") == []
    if how == "publish":
        assert [file.size for file in required(place.store, "x/", "").files] == [2, 65 * MIB]
        assert keys(place.store) == [f"x/{COMMIT}", "x/adapter.json", "x/weights.bin"]


@pytest.mark.s3
def test_interrupted_uploads_of_others_stay(bucket: Place, s3: S3Server) -> None:
    base = bucket.store.url.removeprefix(f"s3://{s3.bucket}/")
    for key in ("x/a", "x/deep/b", "x1/c", "x", "y/x/d"):
        s3.client().create_multipart_upload(Bucket=s3.bucket, Key=f"{base}/{key}")
    publish(bucket.store, "x/", {"a": b"1"})
    assert sorted(bucket.leftovers("")) == ["x", "x1/c", "y/x/d"]


def test_temporary_files_go_but_not_those_of_others(folder: Place) -> None:
    root = Path(folder.url.removeprefix("file://"))
    for key in ("x/.tmp-1", "x/deep/.tmp-2", "x1/.tmp-3", ".tmp-4"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"half")
    assert keys(folder.store) == []
    publish(folder.store, "x/", {"a": b"1"})
    assert sorted(folder.leftovers("")) == [".tmp-4", "x1/.tmp-3"]


# Probing


def test_probe(place: Place) -> None:
    check(place.store, "team/run/")
    assert keys(place.store) == []


@pytest.mark.s3
def test_probe_of_an_unreachable_endpoint(bucket: Place) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"s3://some-bucket/some/prefix?endpoint=http://127.0.0.1:{nobody.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(Passing, match=r"s3://some-bucket/some/prefix: unreachable: .*; check the storage settings"):
            check(open_store(url), "run/", Patience(1.0))
        assert time.monotonic() - started < PROBE_SECONDS


@pytest.mark.s3
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bucket": "no-such-bucket"}, ["s3://no-such-bucket", "no such bucket", "create it"]),
        ({"AWS_ACCESS_KEY_ID": "unknown"}, ["s3://maft", "access key is unknown", "AWS_ACCESS_KEY_ID"]),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, ["s3://maft", "secret key is wrong", "AWS_SECRET_ACCESS_KEY"]),
        ({"AWS_ACCESS_KEY_ID": None}, ["s3://maft", "credentials"]),
        ({"AWS_SECRET_ACCESS_KEY": None}, ["s3://maft", "missing: AWS_SECRET_ACCESS_KEY"]),
    ],
)
def test_probe_of_a_wrong_bucket_or_key(
    bucket: Place, s3: S3Server, monkeypatch: pytest.MonkeyPatch, change: dict[str, str | None], words: list[str]
) -> None:
    url = s3.url("some/prefix", bucket=change.get("bucket") or "")
    for name in set(change) - {"bucket"}:
        value = change[name]
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    started = time.monotonic()
    line = refusal(lambda: check(open_store(url), "run/"), *words)
    assert time.monotonic() - started < PROBE_SECONDS
    assert s3.secret_key not in line


@pytest.mark.s3
def test_refused_uploads_are_explained(bucket: Place, s3: S3Server, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(65 * MIB)
    store = open_store(s3.url(bucket="no-such-bucket"))
    for path in (tmp_path / "large", Path(__file__)):
        refusal(partial(store.write, "file", path), "s3://no-such-bucket", "no such bucket")
    refusal(lambda: publish(store, "run/", {"a": b"1"}), "s3://no-such-bucket", "no such bucket")


@pytest.mark.s3
def test_objects_that_cannot_be_deleted(bucket: Place, s3: S3Server) -> None:
    client = s3.client()
    name = f"locked-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}, ChecksumAlgorithm="CRC32"
    )
    store = open_store(s3.url(bucket=name))
    store.write("a", b"1")
    refusal(lambda: store.delete(["a"]), f"s3://{name}", "access denied", "DeleteObject")
    refusal(lambda: check(store, "run/"), f"s3://{name}", "access denied", "DeleteObject")


@pytest.mark.s3
@pytest.mark.parametrize("secret", ["right", "wrong"])
def test_credentials_of_a_file(bucket: Place, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    key = s3.secret_key if secret == "right" else "wrong"
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {key}\n")
    if secret == "right":
        check(open_store(bucket.url), "run/")
    else:
        refusal(lambda: check(open_store(bucket.url), "run/"), "secret key is wrong")


class Answers(socketserver.ThreadingTCPServer):
    """A server that gives these answers in turn, the last one again and again, to any request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: list[bytes] = []
        self.requests = 0

    def next(self) -> bytes:
        self.requests += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Answer(socketserver.StreamRequestHandler):
    server: Answers

    def handle(self) -> None:
        headers = {}
        self.rfile.readline()
        while line := self.rfile.readline().strip():
            name, _, value = line.lower().partition(b":")
            headers[name] = value.strip()
        if headers.get(b"expect") == b"100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.rfile.read(int(headers.get(b"content-length", b"0")))
        self.wfile.write(self.server.next())


def answer(status: str, body: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    tag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return f'HTTP/1.1 {status}\r\nContent-Length: {size}\r\nETag: "{tag}"\r\nConnection: close\r\n\r\n'.encode() + body


def fault(status: str, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>two\nlines</Message></Error>".encode())


DONE, MAFT, NONE = answer("200 OK"), answer("200 OK", b"maft"), fault("404 Not Found", "NoSuchKey")
CONDITIONAL = [DONE, MAFT, fault("412 No", "412"), MAFT]  # answers to what a probe asks first


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """The server."""
    with Answers() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def answered(answers: Answers) -> Store:
    """The store that believes in it, and tries once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        return open_store(f"s3://bucket?endpoint=http://127.0.0.1:{answers.server_address[1]}&region=here").impatient()


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([answer("200 OK", b"<html>console</html>")], ["does not give back", "check the storage settings"]),
        ([DONE, fault("404 Not Found", "NoSuchKey")], ["does not give back", "check the storage settings"]),
        ([answer("405 Method Not Allowed")], ["check the storage settings"]),
        ([answer("403 Forbidden")], ["access denied"]),
        ([fault("403 Forbidden", "ExpiredToken")], ["AWS_SESSION_TOKEN"]),
        ([fault("501 Not Implemented", "NotImplemented")], ["conditional writes"]),
        ([fault("400 Bad Request", "Strange")], ["Strange", "check the storage settings"]),
        ([DONE, MAFT, DONE, answer("204 No Content")], ["ignores conditional writes"]),
        ([*CONDITIONAL, NONE, answer("200 OK", b"<a><IsTruncated>false</IsTruncated></a>")], ["does not list"]),
        ([*CONDITIONAL, NONE, fault("400 No", "Odd"), DONE], ["ListMultipartUploads"]),
        ([*CONDITIONAL, DONE], ["for an object that is not there", "use another store"]),
    ],
)
def test_probe_of_servers_that_are_no_such_store(answers: Answers, answered: Store, replies: list[bytes], words: list[str]) -> None:
    answers.answers = list(replies)
    refusal(lambda: check(answered, "run/", Patience(0.0)), "s3://bucket", *words)


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([DONE, answer("404 Not Found")], ["GetObject", "HTTP 404 Not Found", "check the storage settings"]),
        ([answer("404 Not Found", b"<html>no</html>")], ["check the storage settings"]),
        ([*CONDITIONAL, NONE, answer("200 OK", b"<a/>")], ["no list", "check the storage settings"]),
        ([*CONDITIONAL, fault("404 Not Found", "NotFound")], ["GetObject", "HTTP 404 NotFound"]),
    ],
)
def test_probe_of_what_may_be_a_store_that_starts(
    answers: Answers, answered: Store, replies: list[bytes], words: list[str]
) -> None:
    """A proxy answers so for what is behind it, too: it may pass."""
    answers.answers = list(replies)
    with pytest.raises(Passing) as caught:
        check(answered, "run/", Patience(0.0))
    line = str(caught.value)
    assert "\n" not in line and line.startswith("store s3://bucket") and [word for word in words if word not in line] == []


def test_a_conflict_is_no_answer_to_a_conditional_write(answers: Answers, answered: Store) -> None:
    conflict = fault("409 Conflict", "ConditionalRequestConflict")
    answers.answers = [conflict, conflict, DONE]
    assert answered.create("x", b"1") is True
    answers.answers = [conflict, fault("412 Precondition Failed", "PreconditionFailed")]
    assert answered.create("x", b"1") is False
    answers.answers, before = [conflict], answers.requests
    with pytest.raises(OSError, match="s3://bucket: x"):
        answered.create("x", b"1")
    assert answers.requests > before + 2


def test_a_body_that_breaks_off_is_no_wrong_input(answers: Answers, answered: Store, tmp_path: Path) -> None:
    answers.answers = [answer("200 OK", b"half", length=8)]
    with pytest.raises(OSError, match="s3://bucket: "):
        answered.read("x")
    with pytest.raises(OSError, match="s3://bucket: "):
        answered.download("x", tmp_path / "target")


# Folders that cannot be written


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    for store in (open_store(str(tmp_path / "file")), open_store(str(tmp_path / "file" / "below"))):
        refusal(partial(check, store, "run/"), store.url, "a part of the path is a file", "choose a folder")
        refusal(partial(publish, store, "run/", {"a": b"1"}), store.url, "choose a folder")
        store.delete(["x"])
        assert keys(store) == []


# Runs a program in the folder $1, a file system of its own with the options $2.
MOUNTED = 'mount -t tmpfs -o "$2" none "$1" && cd "$1" && exec "$3" -c "$4"'


def mounted(path: Path, options: str, program: str) -> list[str]:
    """What a Python program prints in the folder `path`, a mount with these options that only it sees."""
    path.mkdir()
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", path], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    return printed([*unshare, "sh", "-ec", MOUNTED, "sh", str(path), options, sys.executable, program], path)


def printed(command: list[str], folder: Path) -> list[str]:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


REFUSED = """
from pathlib import Path
from maft.errors import BadInput
from maft.store.check import *
from maft.store.commits import *
from maft.store.urls import *

def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except BadInput as error:
        print(error)
    else:
        print("not refused")

store = open_store("store")
"""


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    program = """
commit = publish(store, "run/", {"a": b"1" * 20_000})
refused(publish, store, "other/", {"small": b"1", "weights.bin": bytes(1 << 20)})
print(*store.list("other/"), *Path().rglob(".tmp-*"))
refused(fetch_folder, store, commit, Path("cache/first"))
refused(fetch_folder, store, commit, Path("cache/second"))
print(*(path.name for path in Path("cache").iterdir()))
store.delete(list(store.list("other/")))
print(len(fetch(store, publish(store, "small/", {"a": b"1"}), "a")))
"""
    full, left, *fetched, cached, small = mounted(path, "size=64k", REFUSED + program)
    assert full == f"store file://{path}/store: the disk is full; free some space and start again"
    assert left == "other/small"
    assert fetched == ["not refused", f"folder {Path('cache/second')}: the disk is full; free some space and start again"]
    assert cached == "first"
    assert small == "1"


def test_a_read_only_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    program = """
refused(check, store, "run/")
refused(publish, store, "run/", {"a": b"1"})
"""
    expected = f"store file://{path}/store: read-only; choose a folder that can be written"
    assert mounted(path, "ro", REFUSED + program) == [expected, expected]


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    (tmp_path / "store" / "secret").touch(mode=0)
    bounded = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    program = """
refused(check, store, "run/")
refused(store.read, "secret")
refused(store.delete, ["secret"])
"""
    expected = f"store file://{tmp_path}/store: no permission; choose another folder or change its owner"
    assert printed([*bounded, sys.executable, "-c", REFUSED + program], tmp_path) == [expected] * 3


# URLs


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host/bucket", ["'http://host/bucket'", "s3://bucket/prefix"]),
        ("https://user:secret@host/bucket", ["'https://host/bucket'", "s3://bucket/prefix"]),
        ("ftp://host", ["'ftp://host'"]),
        ("file://host/folder", ["'file://host/folder'", "file:///folder"]),
        ("file:///folder?region=x", ["file:///folder", "'region'"]),
        ("file:///folder#1", ["file:///folder", "%23"]),
        ("s3://bucket/prefix#1", ["s3://bucket/prefix", "%23"]),
        ("s3://bucket/prefix?colour=red", ["s3://bucket", "'colour'", "endpoint and region"]),
        ("s3://bucket/prefix?colour", ["s3://bucket", "'colour'", "endpoint and region"]),
        ("s3://bucket?access_key=secret&secret_key=secret", ["s3://bucket", "'access_key'", "endpoint and region"]),
        ("s3://bucket?region=x&aws_secret_access_key=secret", ["s3://bucket", "'aws_secret_access_key'"]),
        ("s3://bucket?endpoint=http://a&endpoint=http://b", ["s3://bucket", "'endpoint' is there twice"]),
        ("s3://key:secret@bucket/prefix", ["s3://bucket", "without credentials"]),
        ("s3://bucket?endpoint=http://key:secret@host", ["s3://bucket", "credentials in the endpoint"]),
        ("s3:///prefix", ["the name of a bucket is missing", "s3://BUCKET/PREFIX"]),
        ("s3://b/prefix", ["s3://b: 'b' is no name of a bucket", "s3://BUCKET/PREFIX"]),
        ("s3://", ["s3://BUCKET/PREFIX"]),
        ("s3://[bucket", ["s3://[bucket"]),
        ("s3://bucket?endpoint=127.0.0.1:9000", ["s3://bucket", "127.0.0.1:9000", "check the storage settings"]),
        ("s3://bucket?region=not%20a%20region", ["s3://bucket", "not a region", "check the storage settings"]),
    ],
)
def test_urls_that_are_no_store(url: str, words: list[str]) -> None:
    line = refusal(lambda: open_store(url), "store ", *words)
    assert "=secret" not in line
    assert ":secret" not in line


def test_an_unknown_aws_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    refusal(lambda: open_store("s3://bucket"), "store s3://bucket", "nobody")


@pytest.mark.parametrize("name", ["plain", "with spaces", "100%25 é", "a#b?c=d", "a+b"])
def test_urls_and_paths_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "key").write_bytes(b"1")
    for url in (f"file://{tmp_path}/{quote(name)}", f"file://{tmp_path}/{quote(name)}/", str(tmp_path / name), name, f"./{name}"):
        store = open_store(url)
        assert store.read("key") == b"1"
        assert store.url == (tmp_path / name).as_uri()
        assert open_store(store.url).read("key") == b"1"


@pytest.mark.s3
@pytest.mark.parametrize("name", ["100%25 é", "a#b?c=d+e/"])
def test_prefixes_are_percent_decoded(bucket: Place, s3: S3Server, name: str) -> None:
    key = f"tests/{uuid.uuid4().hex}/{name}"
    store = open_store(s3.url(key))
    store.write("key", b"1")
    assert s3.client().get_object(Bucket=s3.bucket, Key=f"{key.rstrip('/')}/key")["Body"].read() == b"1"
    assert keys(store) == ["key"]


@pytest.mark.s3
def test_a_bucket_without_a_prefix(bucket: Place, s3: S3Server) -> None:
    key = f"tests/{uuid.uuid4().hex}"
    for url in (s3.url(), s3.url("/")):
        store = open_store(url)
        assert store.url == f"s3://{s3.bucket}"
        store.write(f"{key}/a", b"1")
        assert keys(store, key) == [f"{key}/a"]


@pytest.mark.s3
def test_a_page_in_a_bucket_is_shown_by_browsers(bucket: Place, s3: S3Server) -> None:
    bucket.store.write("report/index.html", b"<!DOCTYPE html>")
    assert s3.client().head_object(Bucket=s3.bucket, Key="tests/store/report/index.html")["ContentType"] == "text/html"
