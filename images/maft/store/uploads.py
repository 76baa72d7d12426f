"""The files of a commit in a store: where they lie, and how they get there."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from maft.errors import BadInput
from maft.records import Commit, StoredFile
from maft.store.base import ATTEMPTS, LARGEST, Missing, Store

SMALL = 1 << 20  # bytes up to which files go side by side: of a store that takes its time, each answer is waited for
AT_ONCE = 8
T = TypeVar("T")


def upload_all(store: Store, commit: Commit, files: Mapping[str, bytes | Path]) -> list[StoredFile]:
    """Uploads them, small ones side by side; returns those that lie aside. Of large ones, `files` may have one at a time."""

    def upload(entry: StoredFile, content: bytes | Path) -> StoredFile | None:
        return None if _upload(store, commit, entry, content) else entry

    small = [entry for entry in commit.files if entry.size <= SMALL]
    contents = ((entry, _in_memory(files[entry.name])) for entry in small)
    aside = list(side_by_side(upload, contents)) + [upload(e, files[e.name]) for e in commit.files if e.size > SMALL]
    return [entry for entry in aside if entry]


def _in_memory(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def side_by_side(act: Callable[..., T], arguments: Iterator[tuple[Any, ...]]) -> Iterator[T]:
    """Calls with each of the arguments, several at the same time; yields what is returned in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda several: act(*several), arguments)


def _upload(store: Store, commit: Commit, entry: StoredFile, content: bytes | Path) -> bool:
    """Returns False if another attempt's file has the name already, so that this one lies aside. Nobody's file is overwritten."""
    plain, aside = keys(commit, entry)
    sha256 = _stored_sha256(store, plain, entry)
    if sha256 is None and entry.size <= LARGEST:  # a larger one lies aside until it is committed
        store.create(plain, content)
        sha256 = _stored_sha256(store, plain, entry)
    if sha256 == entry.sha256:
        return True
    for _ in range(ATTEMPTS):  # it may be damaged on its way, there or back
        store.write(aside, content)
        sha256 = _stored_sha256(store, aside, entry)
        if sha256 == entry.sha256:
            return False
    raise OSError(f"{store.url}/{aside}: read back with sha256 {sha256}, {entry.sha256} was to be written")


def _stored_sha256(store: Store, key: str, entry: StoredFile) -> str | None:
    """Of the object at `key`, None if there is none. What may be large is not held in memory."""
    with contextlib.suppress(Missing):
        return hashlib.sha256(store.read(key)).hexdigest() if entry.size < 1 << 24 else store.download(key, Path(os.devnull))
    return None


def laid_aside(commit: Commit) -> str:
    """Where the commit's files lie as long as another attempt's have their names: named by content, so never for other files."""
    listing = "".join(f"{entry.name} {entry.sha256}\n" for entry in commit.files)
    return f"{commit.prefix}{hashlib.sha256(listing.encode()).hexdigest()[:16]}/"


def keys(commit: Commit, entry: StoredFile) -> tuple[str, str]:
    """Names where the file lies: in its place, or aside."""
    name = plain_name(entry.name)
    return commit.prefix + name, laid_aside(commit) + name


def measured(content: bytes | Path) -> tuple[int, str]:
    """Counts the bytes and returns their sha256 in hex."""
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as source:
        return content.stat().st_size, hashlib.file_digest(source, "sha256").hexdigest()


def is_plain_name(name: str) -> bool:
    """Tells whether it is a file name without path parts, of letters that every system has."""
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name))


def plain_name(name: str) -> str:
    """Returns `name` if it is a file name without path parts; a commit that says otherwise is not followed."""
    if not is_plain_name(name):
        raise BadInput(f"commit file {name!r}: not a plain file name")
    return name
