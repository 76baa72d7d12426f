"""Records that are too many for memory: JSON lines on disk, one decoded at a time, and files of them in a commit.

A file of a commit that would be larger than `SHARD` is several: `layout.shard` has their names, and readers take them as one.
"""

import bisect
import copy
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from maft import records
from maft.records import Commit
from maft.store import layout
from maft.store.base import Store, explained
from maft.store.commits import fetch_file

SHARD = 64_000_000  # bytes of a file at most, unless a single line has more
SMALL = 1 << 20  # bytes that stay in memory: of lines, and of a file to be published
NONE = -1
T = TypeVar("T")


class Lines(Sequence[T]):
    """Records by number, encoded, in a file without a name; of each, memory holds where it lies."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._file = tempfile.SpooledTemporaryFile(max_size=SMALL, prefix="maft-")  # noqa: SIM115 - as long as this object
        self._end = 0
        self._starts = array("q")
        self._sizes = array("I")
        self._parts = [(0, "", 1)]  # of each file that was read: number of its first record, name, and that record's line

    def begin(self, where: str, line: int = 1) -> None:
        """Names the file that the next lines come from. line: of the next one."""
        self._parts.append((len(self), where, line))

    def append(self, line: bytes) -> None:
        """Keeps one more record, encoded."""
        self.put(len(self), line)

    def put(self, number: int, line: bytes) -> None:
        """Keeps a record, encoded, under that number; it replaces an earlier one."""
        for _ in range(number + 1 - len(self)):
            self._starts.append(NONE)
            self._sizes.append(0)
        self._starts[number], self._sizes[number] = self._end, len(line)
        with explained(f"folder {tempfile.gettempdir()}"):
            self._file.seek(0, os.SEEK_END)
            self._file.write(line)
        self._end += len(line)

    def has(self, number: int) -> bool:
        """Tells whether there is a record of that number."""
        return number < len(self) and self._starts[number] != NONE

    def raw(self, number: int) -> bytes:
        """Reads a record as it is encoded."""
        self._file.seek(self._starts[number])
        return self._file.read(self._sizes[number])

    def size(self, number: int) -> int:
        """Counts its bytes."""
        return self._sizes[number]

    def part(self, first: int, stop: int) -> "Lines[T]":
        """Returns the records of some numbers, to be read: they lie where they are."""
        made = copy.copy(self)
        made._starts, made._sizes, made._parts = self._starts[first:stop], self._sizes[first:stop], [(0, "", 1)]
        return made

    def chosen(self, numbers: Iterable[int]) -> "Lines[T]":
        """Returns some of the records, in that order, to be read: they lie where they are."""
        made, several = copy.copy(self), array("I", numbers)
        made._starts = array("q", (self._starts[i] for i in several))
        made._sizes = array("I", (self._sizes[i] for i in several))
        made._parts = [(0, "", 1)]
        return made

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> list[T]: ...
    def __getitem__(self, number: int | slice) -> T | list[T]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        return records.decode(self.raw(number), self._kind, self._where(number))

    __hash__ = None  # type: ignore[assignment] # as a list

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lines) or len(self) != len(other):
            return False
        return all(self.raw(i) == other.raw(i) for i in range(len(self)))

    def _where(self, number: int) -> str:
        first, where, line = self._parts[bisect.bisect_right(self._parts, number, key=lambda part: part[0]) - 1]
        return f"{where} line {number - first + line}"


def encoded(kind: type[T], several: Iterable[T]) -> Lines[T]:
    """Keeps these records."""
    lines = Lines(kind)
    for record in several:
        lines.append(records.encode(record))
    return lines


class Files(Mapping[str, bytes | Path]):
    """Files of a publication that are made of lines: each when it is asked for, so that one at a time takes room."""

    def __init__(self, lines: Mapping[str, Lines[Any]], others: Mapping[str, bytes] | None = None) -> None:
        """others: files that go beside them."""
        self._others = dict(others or {})
        self._folder = tempfile.TemporaryDirectory(prefix="maft-files-")
        self._parts = {
            layout.shard(name, k): (several, part)
            for name, several in lines.items()
            for k, part in enumerate(cut([several.size(i) + 1 for i in range(len(several))], SHARD))
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.cleanup()

    def __iter__(self) -> Iterator[str]:
        return iter((*self._parts, *self._others))

    def __len__(self) -> int:
        return len(self._parts) + len(self._others)

    def __getitem__(self, name: str) -> bytes | Path:
        if name in self._others:
            return self._others[name]
        lines, part = self._parts[name]
        if sum(lines.size(i) + 1 for i in part) <= SMALL:
            return b"".join(lines.raw(i) + b"\n" for i in part)
        path = Path(self._folder.name) / "shard.jsonl"  # in the place of the one before
        with explained(f"folder {path.parent}"), path.open("wb") as target:
            target.writelines(lines.raw(i) + b"\n" for i in part)
        return path


def cut(sizes: Sequence[int], limit: int) -> list[range]:
    """Cuts lines of those sizes into parts of at most `limit`, in their order: one part at least, and one line in each."""
    parts, first, total = [], 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > limit:
            parts.append(range(first, number))
            first, total = number, 0
        total += size
    return [*parts, range(first, len(sizes))]


def shards(commit: Commit, name: str) -> list[str]:
    """Lists the files that hold the lines of `name`: that one, and those that go on after it."""
    more = (layout.shard(name, k) for k in count(1))
    names = [commit.file(name).name]
    for shard in more:
        if not commit.has(shard):
            break
        names.append(shard)
    return names


def iterate_lines(store: Store, commit: Commit, name: str, kind: type[T]) -> Iterator[T]:
    """Reads the records of a JSON lines file of the commit one after the other; BadInput names the first bad line."""
    for shard in shards(commit, name):
        for number, line in _raw_lines(store, commit, shard):
            yield records.decode(line, kind, f"{commit.prefix}{shard} line {number}")


def fetch_lines(store: Store, commit: Commit, name: str, kind: type[T]) -> Lines[T]:
    """Fetches the records of a JSON lines file of the commit, to be read in any order."""
    lines = Lines(kind)
    for shard in shards(commit, name):
        expected = 0
        for number, line in _raw_lines(store, commit, shard):
            if number != expected:  # the first one, and after empty ones
                lines.begin(f"{commit.prefix}{shard}", number)
            lines.append(line)
            expected = number + 1
    return lines


def _raw_lines(store: Store, commit: Commit, shard: str) -> Iterator[tuple[int, bytes]]:
    """The lines of one file of the commit, which is verified before any of them is read; empty ones are passed over."""
    with tempfile.TemporaryDirectory(prefix="maft-lines-") as folder:
        path = Path(folder) / "shard.jsonl"
        fetch_file(store, commit, shard, path)
        with path.open("rb") as source:
            for number, line in enumerate(source, 1):
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
