"""The journal of finished debates: written, found again after a restart, never mistaken for something else."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from maft import records
from maft.debate.journal import Journal, clear
from maft.errors import BadInput
from maft.records import Call, Problem, Transcript, Turn, Vote
from maft.store.files import FileStore
from maft.store.sealed import seal

PREFIX = "ns/run/iterations/1/debate/"


def transcript(index: int, said: str = "7") -> Transcript:
    call = Call("base", 2**53 - 1, 5, 7, "stop", f"Größe: {said}\n\N{LINE SEPARATOR}end")
    turn = Turn("Q?", call, said, agrees=True, right=False)
    return Transcript(index, Problem(f"{index:016x}", f"Question {index}?", "8"), ((turn,),), (), (Vote(said, 1, 0, False, False),))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / PREFIX).glob("*"))


def found(journal: Journal) -> dict[int, Transcript]:
    """What it has, by index; of a question that is there twice the last one."""
    return {one.index: one for one in journal.read()}


def line(index: int, said: str = "7") -> bytes:
    return records.encode(transcript(index, said))


def flushed(journal: Journal, *transcripts: Transcript) -> Journal:
    for one in transcripts:
        journal.add(records.encode(one))
    asyncio.run(journal.flush())
    return journal


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def test_nothing_there(store: FileStore, tmp_path: Path) -> None:
    journal = Journal(store, PREFIX)
    assert found(journal) == {}
    flushed(journal)
    journal.remove()
    assert names(tmp_path) == []


def test_what_was_added_is_read_back(store: FileStore) -> None:
    flushed(Journal(store, PREFIX), transcript(3), transcript(0))
    assert found(Journal(store, PREFIX)) == {3: transcript(3), 0: transcript(0)}


def test_each_write_is_an_object_of_its_own(store: FileStore, tmp_path: Path) -> None:
    journal = flushed(Journal(store, PREFIX), transcript(0))
    flushed(flushed(journal, transcript(1), transcript(2)))
    assert names(tmp_path) == ["journal-000000.jsonl", "journal-000001.jsonl"]
    assert set(found(Journal(store, PREFIX))) == {0, 1, 2}


def test_numbering_goes_on_after_a_restart(store: FileStore, tmp_path: Path) -> None:
    flushed(flushed(Journal(store, PREFIX), transcript(0)), transcript(1))
    again = Journal(store, PREFIX)
    assert set(found(again)) == {0, 1}
    flushed(again, transcript(2))
    assert names(tmp_path) == [f"journal-00000{i}.jsonl" for i in range(3)]
    assert set(found(Journal(store, PREFIX))) == {0, 1, 2}


def test_a_question_debated_again_replaces_the_earlier_debate(store: FileStore) -> None:
    flushed(flushed(Journal(store, PREFIX), transcript(0, "7")), transcript(0, "9"))
    assert found(Journal(store, PREFIX)) == {0: transcript(0, "9")}


def test_a_gap_loses_nothing_and_numbering_goes_on_behind_it(store: FileStore, tmp_path: Path) -> None:
    journal = Journal(store, PREFIX)
    for i in range(3):
        flushed(journal, transcript(i))
    (tmp_path / PREFIX / "journal-000001.jsonl").unlink()
    again = Journal(store, PREFIX)
    assert set(found(again)) == {0, 2}
    flushed(again, transcript(5))
    assert names(tmp_path) == [f"journal-00000{i}.jsonl" for i in (0, 2, 3)]


def test_journals_of_other_prefixes_are_not_seen(store: FileStore) -> None:
    flushed(Journal(store, "ns/run/iterations/1/evaluation/"), transcript(0))
    assert found(Journal(store, PREFIX)) == {}


LINE = records.encode(transcript(0))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (LINE + b"\n" + LINE[: len(LINE) // 2], 2),
        (b"not json\n", 1),
        (b'{"format": 1, "index": 0}\n', 1),
        (b"[]\n", 1),
        (b"\xff\xfe\n", 1),
        (LINE.replace(b'"index":0', b'"index":"0"'), 1),
        (seal(LINE)[:-5], 1),
        (seal(LINE).replace(b'"index":0', b'"index":4'), 1),
    ],
)
def test_a_torn_or_foreign_line_is_named_and_its_question_debated_again(
    store: FileStore, content: bytes, line: int, capsys: pytest.CaptureFixture[str]
) -> None:
    flushed(Journal(store, PREFIX), transcript(3))
    store.write(f"{PREFIX}journal-000001.jsonl", content)
    assert found(Journal(store, PREFIX)) == {3: transcript(3), **({0: transcript(0)} if line == 2 else {})}
    said = capsys.readouterr().err
    assert said.startswith("the journal has a damaged line, whose question is debated again: ")
    assert f"{PREFIX}journal-000001.jsonl line {line}" in said


def test_no_flipped_bit_is_believed(store: FileStore) -> None:
    """Of each bit of a line: its question is debated again, or the line is what it was."""
    flushed(Journal(store, PREFIX), transcript(0))
    whole = store.read(f"{PREFIX}journal-000000.jsonl")
    for at in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        store.write(f"{PREFIX}journal-000000.jsonl", bytes(flipped))
        assert found(Journal(store, PREFIX)) in ({}, {0: transcript(0)}), at


def test_a_line_without_a_checksum_is_read(store: FileStore) -> None:
    """As releases before wrote them."""
    store.write(f"{PREFIX}journal-000000.jsonl", LINE + b"\n")
    assert found(Journal(store, PREFIX)) == {0: transcript(0)}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"index": 0}', "made before formats had numbers, by maft 0.1 or older; "),
        (LINE.replace(b'"format":1', b'"format":2'), "is of format 2, this release reads 1; "),
        (seal(LINE.replace(b'"format":1', b'"format":2')), "is of format 2, this release reads 1; "),
        (seal(b'{"format":1,"index":0}'), "not a Transcript record: "),
    ],
)
def test_an_object_of_another_release_is_named(store: FileStore, line: bytes, says: str) -> None:
    store.write(f"{PREFIX}journal-000000.jsonl", LINE + b"\n" + line)
    with pytest.raises(BadInput) as caught:
        found(Journal(store, PREFIX))
    assert str(caught.value).startswith(f"{PREFIX}journal-000000.jsonl line 2: {says}")


def test_an_empty_object_holds_nothing_and_is_no_gap(store: FileStore) -> None:
    store.write(f"{PREFIX}journal-000000.jsonl", b"")
    store.write(f"{PREFIX}journal-000001.jsonl", LINE + b"\n")
    assert set(found(Journal(store, PREFIX))) == {0}


def test_remove_leaves_everything_else(store: FileStore, tmp_path: Path) -> None:
    journal = Journal(store, PREFIX)
    for i in range(3):
        flushed(journal, transcript(i))
    store.write(f"{PREFIX}_COMMIT.json", b"{}")
    after = Journal(store, PREFIX)
    assert set(found(after)) == {0, 1, 2}
    after.remove()
    assert names(tmp_path) == ["_COMMIT.json"]
    assert found(Journal(store, PREFIX)) == {}


class Counting(FileStore):
    """A folder that counts what is read and listed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.done: Counter[str] = Counter()

    def read(self, key: str) -> bytes:
        self.done["read"] += 1
        return super().read(key)

    def list(self, prefix: str) -> Iterator[str]:
        self.done["list"] += 1
        return super().list(prefix)


def test_it_is_listed_once_read_once_and_not_read_to_be_removed(tmp_path: Path) -> None:
    for i in range(3):
        before = Journal(FileStore(tmp_path), PREFIX)
        found(before)
        flushed(before, transcript(i))
    store = Counting(tmp_path)
    journal = Journal(store, PREFIX)
    assert set(found(journal)) == {0, 1, 2}
    flushed(journal, transcript(3))
    assert store.done == {"list": 1, "read": 3}
    journal.remove()
    assert (store.done, names(tmp_path)) == ({"list": 1, "read": 3}, [])


def test_what_is_left_of_a_committed_debate_is_removed_unread(tmp_path: Path) -> None:
    flushed(Journal(FileStore(tmp_path), PREFIX), transcript(0))
    (tmp_path / PREFIX / "part-0.jsonl").write_text("committed")
    (tmp_path / PREFIX / "journal-000007.jsonl").write_text("torn")
    store = Counting(tmp_path)
    clear(store, PREFIX)
    assert (store.done, names(tmp_path)) == ({"list": 1}, ["part-0.jsonl"])


class Slow(FileStore):
    """A folder whose writes wait for a word, and may fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.started = threading.Event()
        self.go = threading.Event()
        self.second = threading.Event()
        self.under_way = self.most = 0
        self.failing = False

    def write(self, key: str, data: bytes | Path) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.started.set()
        assert self.go.wait(20)
        self.under_way -= 1
        if self.failing:
            raise OSError("disk on fire")
        super().write(key, data)
        if key.endswith("-000001.jsonl"):
            self.second.set()


def count(store: FileStore, number: int) -> int:
    return len(store.read(f"{PREFIX}journal-{number:06d}.jsonl").splitlines())


def test_one_write_at_a_time_and_what_finishes_meanwhile_goes_into_the_next(tmp_path: Path) -> None:
    slow = Slow(tmp_path)

    async def main() -> None:
        journal = Journal(slow, PREFIX)
        keep = asyncio.create_task(journal.keep())
        journal.add(line(0))
        await asyncio.to_thread(slow.started.wait, 20)
        for i in range(1, 6):
            journal.add(line(i))
            await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.to_thread(slow.second.wait, 20)
        keep.cancel()
        await asyncio.gather(keep, return_exceptions=True)

    asyncio.run(main())
    assert slow.most == 1
    assert [count(slow, 0), count(slow, 1)] == [1, 5]
    assert set(found(Journal(slow, PREFIX))) == set(range(6))


def test_cancelled_in_the_middle_of_a_write_nothing_is_lost(tmp_path: Path) -> None:
    slow = Slow(tmp_path)

    async def main() -> None:
        journal = Journal(slow, PREFIX)
        keep = asyncio.create_task(journal.keep())
        journal.add(line(0))
        await asyncio.to_thread(slow.started.wait, 20)
        keep.cancel()
        await asyncio.sleep(0)
        assert not keep.done()  # it waits for the thread: nothing may be written after it has gone
        journal.add(line(1))
        slow.go.set()
        await asyncio.gather(keep, return_exceptions=True)
        await journal.flush()

    asyncio.run(main())
    assert set(found(Journal(slow, PREFIX))) == {0, 1}


def test_a_failed_write_is_tried_again_under_the_same_number(tmp_path: Path) -> None:
    slow = Slow(tmp_path)
    slow.go.set()
    journal = flushed(Journal(slow, PREFIX), transcript(0))
    slow.failing = True
    with pytest.raises(OSError, match="disk on fire"):
        flushed(journal, transcript(1))
    slow.failing = False
    flushed(journal, transcript(2))
    assert names(tmp_path) == ["journal-000000.jsonl", "journal-000001.jsonl"]
    assert set(found(Journal(slow, PREFIX))) == {0, 1, 2}


def test_a_failed_write_ends_keep(tmp_path: Path) -> None:
    slow = Slow(tmp_path)
    slow.go.set()
    slow.failing = True
    journal = Journal(slow, PREFIX)
    journal.add(line(0))
    with pytest.raises(OSError, match="disk on fire"):
        asyncio.run(asyncio.wait_for(journal.keep(), 20))
