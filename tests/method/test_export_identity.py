"""By what trackers tell runs apart: one id for a run from wherever it is exported, another one for every other run of its name."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from committed import RUN, put_run
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`

from maft import committed_run
from maft.errors import BadInput
from maft.export.target import Request
from maft.store.base import Store
from maft.store.files import FileStore
from maft.store.urls import open_store


def begun(folder: Path, **spec: object) -> FileStore:
    store = FileStore(folder)
    put_run(store, iterations=0, **spec)
    return store


def identity(store: Store) -> str:
    return Request(store, committed_run.read(store, RUN), "").identity()


def test_it_goes_with_the_run_and_not_with_its_path(tmp_path):
    """A folder in a network has another path on each machine."""
    here = identity(begun(tmp_path / "here"))
    assert identity(FileStore(tmp_path / "here")) == here
    (tmp_path / "here").rename(tmp_path / "there")
    assert identity(FileStore(tmp_path / "there")) == here


def test_runs_of_one_name_and_one_spec_in_two_stores_are_two(tmp_path):
    assert identity(begun(tmp_path / "a")) != identity(begun(tmp_path / "b"))


@pytest.mark.s3
def test_a_bucket_has_one_for_each_prefix_whoever_asks(s3: S3Server, monkeypatch):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    for prefix in ("identity-a", "identity-b"):
        put_run(open_store(s3.url(prefix)), iterations=0)
    outside = s3.url("identity-a").replace("127.0.0.1", "localhost")  # as a cluster's endpoint has another name outside
    asked = [identity(open_store(url)) for url in (s3.url("identity-a"), outside, s3.url("identity-b"))]
    assert asked[0] == asked[1] != asked[2]


def test_a_run_that_is_made_anew_is_another_one(tmp_path):
    before = identity(begun(tmp_path / "runs"))
    shutil.rmtree(tmp_path / "runs" / RUN)
    assert identity(begun(tmp_path / "runs")) != before


def test_what_is_left_of_an_earlier_run_is_not_taken_for_its_own(tmp_path):
    before = identity(begun(tmp_path / "runs"))
    for part in ("problems", "iterations"):
        shutil.rmtree(tmp_path / "runs" / RUN / part)
    assert identity(begun(tmp_path / "runs", seed=5)) != before


def test_targets_that_are_exported_to_at_a_time_agree(tmp_path):
    """On a cluster each has a pod of its own."""
    begun(tmp_path / "runs")
    with ThreadPoolExecutor(8) as several:
        drawn = set(several.map(lambda _: identity(FileStore(tmp_path / "runs")), range(32)))
    assert len(drawn) == 1


@pytest.mark.parametrize("data", [b"{}", b'{"format": 1, "id": "../.."}', b'{"format": 99, "id": "x"}', b"\0"])
def test_an_object_that_is_none_is_one_line(tmp_path, data):
    store = begun(tmp_path / "runs")
    store.write(f"{RUN}/export/identity.json", data)
    with pytest.raises(BadInput, match=r"export/identity.json: ") as error:
        identity(store)
    assert "\n" not in str(error.value)
