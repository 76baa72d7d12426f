"""Lines on disk, and files of a commit that are several: whatever the size of a file, readers see the same records."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_probe import PROBED, RUN, World

from maft import records
from maft.errors import BadInput
from maft.records import Example, Problem, Transcript
from maft.report import read as report_read
from maft.store import layout, lines
from maft.store.commits import fetch, publish, required
from maft.store.files import FileStore
from maft.store.lines import Files, Lines, cut, encoded, fetch_lines, iterate_lines, shards

NAME = "held-out.jsonl"


def problems(count: int, *, long: int = 0) -> list[Problem]:
    return [Problem(str(i), f"What is {i}+1?" + "x" * (long * i % 1999), str(i + 1)) for i in range(count)]


@given(st.lists(st.integers(1, 30)), st.integers(1, 60))
def test_parts_are_whole_in_order_and_small(sizes: list[int], limit: int) -> None:
    parts = cut(sizes, limit)
    assert [i for part in parts for i in part] == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in part) <= limit or len(part) == 1 for part in parts)
    # No two neighbours fit into one: equal lines make equal files.
    assert all(sum(sizes[i] for i in (*a, *b[:1])) > limit for a, b in zip(parts, parts[1:], strict=False))


def test_names_of_parts() -> None:
    assert [layout.shard("part-0.jsonl", k) for k in (0, 1, 12)] == ["part-0.jsonl", "part-1.jsonl", "part-12.jsonl"]
    assert layout.shard("probe.jsonl", 1) == "probe.part-1.jsonl"
    files = [layout.dataset_file("critic", 1), layout.shard(layout.dataset_file("critic", 0), 1)]
    assert files == ["critic-1.jsonl", "critic-0.part-1.jsonl"]


def test_lines_are_a_sequence() -> None:
    several = problems(50, long=97)
    kept = encoded(Problem, several)
    assert (list(kept), kept[-1], kept[3:9:2], len(kept)) == (several, several[-1], several[3:9:2], 50)
    assert list(kept.part(10, 20)) == several[10:20]
    assert list(kept.chosen([7, 3, 7])) == [several[7], several[3], several[7]]
    assert kept == encoded(Problem, several) != encoded(Problem, several[1:])
    with pytest.raises(IndexError):
        kept[50]


def test_lines_that_come_in_any_order_and_again() -> None:
    several = problems(2000, long=1)  # more than stay in memory
    kept = Lines(Problem)
    for i in (*range(1999, -1, -3), *range(0, 2000, 2)):
        kept.put(i, records.encode(several[i]))
    assert [i for i in range(2001) if kept.has(i)] == [i for i in range(2000) if i % 2 == 0 or i % 3 == 1]
    assert all(kept[i] == several[i] for i in range(2000) if kept.has(i))
    kept.put(4, records.encode(several[5]))
    assert kept[4] == several[5]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as of very many questions, with few."""
    monkeypatch.setattr(lines, "SHARD", 20_000)
    monkeypatch.setattr(lines, "SMALL", 5_000)


@pytest.mark.usefixtures("small")
def test_of_many_files_one_at_a_time_lies_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scratch of a report is limited by that."""
    store, scratch = FileStore(tmp_path / "store"), tmp_path / "scratch"
    commit = published(store, problems(100, long=97))
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    sizes = [sum(p.stat().st_size for p in scratch.rglob("*.jsonl")) for _ in iterate_lines(store, commit, NAME, Problem)]
    assert len(sizes) == 100 and 0 < max(sizes) <= 20_000


def published(store: FileStore, several: list[Problem]) -> Any:
    with Files({NAME: encoded(Problem, several)}, {"other.json": b"{}"}) as files:
        return publish(store, "p/", files)


@pytest.mark.usefixtures("small")
def test_a_large_file_is_several_and_read_as_one(tmp_path: Path) -> None:
    store, several = FileStore(tmp_path), problems(100, long=97)
    commit = published(store, several)
    names = shards(commit, NAME)
    assert names == [layout.shard(NAME, k) for k in range(len(names))]
    assert len(names) > 3
    assert max(entry.size for entry in commit.files) <= 20_000
    assert b"".join(fetch(store, commit, name) for name in names) == records.encode_lines(several)
    assert list(iterate_lines(store, commit, NAME, Problem)) == list(fetch_lines(store, commit, NAME, Problem)) == several
    assert published(store, several) == commit  # a second writer of the same content


def test_nothing_is_a_file_too(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    commit = published(store, [])
    assert (commit.file(NAME).size, list(iterate_lines(store, commit, NAME, Problem))) == (0, [])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("reads", [iterate_lines, fetch_lines])
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, reads: Any) -> None:
    store = FileStore(tmp_path)
    files = {NAME: records.encode_lines(problems(3)), layout.shard(NAME, 1): records.encode_lines(problems(2)) + b"\nno json\n"}
    commit = publish(store, "p/", files)
    with pytest.raises(BadInput, match=r"^p/held-out\.part-1\.jsonl line 4: not a Problem record: "):
        list(reads(store, commit, NAME, Problem))


@pytest.mark.usefixtures("small")
def test_a_damaged_part_is_refused_before_any_of_its_lines_is_read(tmp_path: Path) -> None:
    store, several = FileStore(tmp_path), problems(100, long=97)
    commit = published(store, several)
    second = shards(commit, NAME)[1]
    store.write(f"p/{second}", fetch(store, commit, second).replace(b"What", b"When"))
    read = iterate_lines(store, commit, NAME, Problem)
    with pytest.raises(BadInput, match=rf"{second}: damaged"):
        for count, _ in enumerate(read):
            assert count < 100
    assert count + 1 == len(fetch(store, commit, NAME).splitlines())


def computed(folder: Path, url: str) -> Iterator[Any]:
    """What a run's programs say and commit, files of several parts as one."""
    world = World(folder, url, **PROBED)
    for kind, iteration in (("prepare", 0), ("evaluate", 0), ("debate", 1), ("train", 1), ("evaluate", 1), ("report", 0)):
        yield world.run(kind, iteration) if kind != "report" else report_read.read(world.store, RUN)
    for prefix, names in (
        (layout.debate(RUN, 1), {layout.TRANSCRIPTS: Transcript, layout.PROBE: Transcript}),
        (layout.evaluation(RUN, 1), {layout.TRANSCRIPTS: Transcript}),
        (layout.datasets(RUN, 1), {layout.dataset_file(role, n): Example for role in records.ROLES for n in range(3)}),
    ):
        commit = required(world.store, prefix, "the test")
        for name, kind_ in names.items():
            yield b"".join(fetch(world.store, commit, shard) for shard in shards(commit, name))
            yield list(iterate_lines(world.store, commit, name, kind_))


def timeless(said: object) -> str:
    return re.sub(r"seconds=[\d.]+|/whole|/parts", "", str(said))


def test_a_run_of_many_parts_is_the_same_run(tmp_path: Path, mock_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debates, datasets, weights, numbers and page do not depend on how many files there are."""
    whole = list(computed(tmp_path / "whole", mock_url))
    monkeypatch.setattr(lines, "SHARD", 20_000)
    monkeypatch.setattr(lines, "SMALL", 5_000)
    in_parts = list(computed(tmp_path / "parts", mock_url))
    commit = required(FileStore(tmp_path / "parts"), layout.debate(RUN, 1), "the test")
    assert len(shards(commit, layout.TRANSCRIPTS)) > 3
    assert len(shards(required(FileStore(tmp_path / "whole"), layout.debate(RUN, 1), ""), layout.TRANSCRIPTS)) == 1
    assert [timeless(said) for said in in_parts] == [timeless(said) for said in whole]
