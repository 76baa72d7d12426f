"""The commit protocol over a store: what programs publish, and how others read it.

A publication uploads its files, checks them and writes `_COMMIT.json` last, with a conditional write: the second writer of
the same content succeeds, of other content is refused. Before the commit no attempt overwrites another's files: one that finds
its names taken by other content lays its own aside, and puts them in their place when it has committed. Readers follow
commits, verify sha256 while they read, and look in both places.
"""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from maft import records
from maft.errors import BadInput
from maft.records import Commit, StoredFile
from maft.store.base import TEMPORARY, Missing, Store, explained

COMMIT = "_COMMIT.json"
T = TypeVar("T")


def committed(store: Store, prefix: str) -> Commit | None:
    """Reads the commit below `prefix` (ends with a slash); None if there is none. BadInput if it is no commit of that prefix."""
    key = f"{store.url}/{prefix}{COMMIT}"
    try:
        commit = records.decode(store.read(prefix + COMMIT), Commit, key)
    except Missing:
        return None
    if commit.prefix != prefix:
        raise BadInput(f"{key}: committed as {commit.prefix}; a run has to keep its name")
    return commit


def required(store: Store, prefix: str, made_by: str) -> Commit:
    """Reads the commit below `prefix`; BadInput naming the program that makes it if there is none."""
    commit = committed(store, prefix)
    if commit is None:
        raise BadInput(f"{store.url}/{prefix}: nothing committed there; {made_by} has to finish first")
    return commit


def publish(
    store: Store,
    prefix: str,
    files: Mapping[str, bytes | Path],
    *,
    parents: Sequence[str] = (),
    meta: Mapping[str, Any] | None = None,
) -> Commit:
    """Uploads the files, reads them back, and commits. BadInput if other content is committed there already."""
    assert COMMIT not in files
    entries = tuple(StoredFile(plain_name(name), *_measure(files[name])) for name in sorted(files))
    commit = Commit(prefix, entries, tuple(parents), dict(meta or {}))
    data = records.encode(commit)
    _refuse_other(store, prefix, data)
    store.clean(prefix)
    try:
        aside = [entry for entry in entries if not _upload(store, commit, entry, files[entry.name])]
    except OSError:
        if _refuse_other(store, prefix, data):  # an attempt with the same content was first and tidied up
            return commit
        raise
    store.create(prefix + COMMIT, data)
    winner = required(store, prefix, "this program")
    won = records.encode(winner) == data
    for entry in aside if won else ():  # only what is committed overwrites
        store.write(prefix + entry.name, files[entry.name])
    _tidy(store, winner, settled=won)
    _refuse_other(store, prefix, data)
    return commit


def _refuse_other(store: Store, prefix: str, data: bytes) -> bool:
    """Whether that commit is there. BadInput if another one is."""
    try:
        stored = store.read(prefix + COMMIT)
    except Missing:
        return False
    if stored != data:
        raise BadInput(f"{store.url}/{prefix}: other content is committed there; use another name or remove that prefix")
    return True


def _upload(store: Store, commit: Commit, entry: StoredFile, content: bytes | Path) -> bool:
    """Returns False if another attempt's file has the name already, so that this one lies aside. Nobody's file is overwritten."""
    plain, aside = _keys(commit, entry)
    sha256 = _stored_sha256(store, plain, entry)
    if sha256 is None:
        store.create(plain, content)
        sha256 = _stored_sha256(store, plain, entry)
    if sha256 == entry.sha256:
        return True
    store.write(aside, content)
    sha256 = _stored_sha256(store, aside, entry)
    if sha256 != entry.sha256:
        raise OSError(f"{store.url}/{aside}: read back with sha256 {sha256}, {entry.sha256} was to be written")
    return False


def _stored_sha256(store: Store, key: str, entry: StoredFile) -> str | None:
    """Of the object at `key`, None if there is none. What may be large is not held in memory."""
    with contextlib.suppress(Missing):
        return hashlib.sha256(store.read(key)).hexdigest() if entry.size < 1 << 24 else store.download(key, Path(os.devnull))
    return None


def _tidy(store: Store, winner: Commit, *, settled: bool) -> None:
    """Removes what attempts laid aside, the winner's only if it is settled. Before the commit, any of them could still win."""
    aside = re.compile(rf"{re.escape(winner.prefix)}[0-9a-f]{{16}}/")
    kept = () if settled else (_folder(winner),)
    store.delete([key for key in store.list(winner.prefix) if aside.match(key) and not key.startswith(kept)])


def _folder(commit: Commit) -> str:
    """Where the commit's files lie as long as another attempt's have their names: named by content, so never for other files."""
    listing = "".join(f"{entry.name} {entry.sha256}\n" for entry in commit.files)
    return f"{commit.prefix}{hashlib.sha256(listing.encode()).hexdigest()[:16]}/"


def _keys(commit: Commit, entry: StoredFile) -> tuple[str, str]:
    name = plain_name(entry.name)
    return commit.prefix + name, _folder(commit) + name


def _measure(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as source:
        return content.stat().st_size, hashlib.file_digest(source, "sha256").hexdigest()


def fetch(store: Store, commit: Commit, name: str) -> bytes:
    """Reads one file of a commit; BadInput if its bytes are not those that were committed."""
    data = b""

    def read(key: str) -> str:
        nonlocal data
        data = store.read(key)
        return hashlib.sha256(data).hexdigest()

    _verify(store, commit, commit.file(name), read)
    return data


def fetch_file(store: Store, commit: Commit, name: str, path: Path) -> None:
    """Writes one file of a commit to `path`; BadInput if its bytes are not those that were committed."""
    with explained(f"folder {path.parent}"):
        _verify(store, commit, commit.file(name), partial(store.download, path=path))


def fetch_record(store: Store, commit: Commit, name: str, kind: type[T]) -> T:
    """Reads the record that a file of the commit is; BadInput naming the file if it has another shape."""
    return records.decode(fetch(store, commit, name), kind, commit.prefix + name)


def fetch_records(store: Store, commit: Commit, name: str, kind: type[T]) -> list[T]:
    """Reads the records of a JSON lines file of the commit; BadInput names the first bad line."""
    return records.decode_lines(fetch(store, commit, name), kind, commit.prefix + name)


def _verify(store: Store, commit: Commit, entry: StoredFile, read: Callable[[str], str]) -> None:
    """Reads the file, wherever it lies; BadInput if `read` returns the sha256 of something else."""
    plain, aside = _keys(commit, entry)
    fault = "gone, though it was committed"
    for key in (plain, aside, plain):  # it may be put into its place meanwhile
        with contextlib.suppress(Missing):
            sha256 = read(key)
            if sha256 == entry.sha256:
                return
            fault = f"damaged, sha256 {sha256[:12]} where {entry.sha256[:12]} was committed"
    raise BadInput(f"{store.url}/{plain}: {fault}")


def fetch_folder(store: Store, commit: Commit, folder: Path) -> Path:
    """Fetches all files of a commit as `folder`, which appears whole or not at all. An existing folder is verified and kept, or
    replaced.

    BadInput if the store's objects are not those that were committed, or `folder` cannot be written.
    """
    if _folder_matches(commit, folder):
        return folder
    workspace = folder.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with explained(f"folder {folder}"):
            _download(store, commit, workspace / "new")
            _settle(commit, workspace / "new", folder, workspace / "old")
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return folder


def _download(store: Store, commit: Commit, folder: Path) -> None:
    for entry in commit.files:
        plain_name(entry.name)
    folder.mkdir(parents=True)
    for entry in commit.files:
        _verify(store, commit, entry, partial(store.download, path=folder / entry.name))


def _settle(commit: Commit, fresh: Path, folder: Path, aside: Path) -> None:
    if folder.exists() and not _folder_matches(commit, folder):
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            folder.rename(aside)
    try:
        fresh.rename(folder)
    except OSError:  # another process was first: the same commit, so the same content
        if not _folder_matches(commit, folder):
            raise


def _folder_matches(commit: Commit, folder: Path) -> bool:
    def matches(entry: StoredFile) -> bool:
        path = folder / entry.name
        return path.is_file() and path.stat().st_size == entry.size and _measure(path) == (entry.size, entry.sha256)

    return folder.is_dir() and all(matches(entry) for entry in commit.files)


def plain_name(name: str) -> str:
    """Returns `name` if it is a file name without path parts; a commit that says otherwise is not followed."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise BadInput(f"commit file {name!r}: not a plain file name")
    return name
