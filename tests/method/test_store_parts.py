"""Large objects of a store: listed with their sizes, read in parts, fetched in ranges. Folder and bucket do it alike."""

import time
from pathlib import Path

import pytest
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`

from maft.store.base import Missing, Store
from maft.store.urls import open_store

PARTED = (64 << 20) + 5  # bytes: a bucket's client takes ranges from here on
KEYS = {"a/0": b"0123456789", "a/1": b"", "b": bytes(range(256)) * (PARTED // 256) + b"12345"}


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Both, one after the other, with the same objects."""
    if request.param == "folder":
        made = open_store((tmp_path / "store").as_uri())
    else:
        s3: S3Server = request.getfixturevalue("s3")
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        made = open_store(s3.url(tmp_path.name))
    for key, data in KEYS.items():
        (tmp_path / "data").write_bytes(data)
        made.write(key, tmp_path / "data")
    return made


def test_large_objects(store: Store, tmp_path: Path) -> None:
    assert dict(store.sizes("")) == {key: len(data) for key, data in KEYS.items()}
    assert dict(store.sizes("a/")) == {"a/0": 10, "a/1": 0}
    assert [store.read_part("a/0", *part) for part in ((0, 4), (3, 100), (9, 1), (10, 5), (99, 1))] == [
        b"0123",
        b"3456789",
        b"9",
        b"",
        b"",
    ]
    assert store.read_part("a/1", 0, 8) == b""
    for key, data in KEYS.items():
        store.fetch(key, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == data


def test_what_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Missing):
        store.read_part("nothing", 0, 8)
    with pytest.raises(Missing):
        store.fetch("nothing", tmp_path / "fetched")
    assert dict(store.sizes("nothing/")) == {}
    written = [entry.modified for entry in store.entries("")]
    assert written and all(abs(moment - time.time()) < 600 for moment in written)
