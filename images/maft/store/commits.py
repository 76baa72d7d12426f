"""The commit protocol over a store: what programs publish, and how others read it.

A publication uploads its files, checks them and writes `_COMMIT.json` last, with a conditional write: the second writer of
the same content succeeds, of other content is refused. Before the commit no attempt overwrites another's files: one that finds
its names taken by other content lays its own aside, and puts them in their place when it has committed. Readers follow
commits, verify sha256 while they read, and look in both places. What may pass is tried again: a publication, which can be begun
anew at any point, for minutes, for what it publishes may have taken hours.
"""

import contextlib
import hashlib
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from maft import records
from maft.errors import BadInput
from maft.records import Commit, StoredFile
from maft.store.base import TEMPORARY, Missing, Passing, Store, explained
from maft.store.patience import Patience
from maft.store.uploads import keys, laid_aside, measured, plain_name, side_by_side, upload_all

COMMIT = "_COMMIT.json"
PATIENCE = Patience(600.0)  # seconds that a publication is tried
READS = 5  # of a file in each of its places
T = TypeVar("T")


def committed(store: Store, prefix: str) -> Commit | None:
    """Reads the commit below `prefix` (ends with a slash); None if there is none. BadInput if it is no commit of that prefix."""
    key = f"{store.url}/{prefix}{COMMIT}"
    try:
        commit = _decoded(store, prefix + COMMIT, key)
    except Missing:
        return None
    if commit.prefix != prefix:
        raise BadInput(f"{key}: committed as {commit.prefix}; a run has to keep its name")
    return commit


def _decoded(store: Store, key: str, shown: str) -> Commit:
    """Reads it again where it is no commit: an answer may come damaged."""
    try:
        return records.decode(store.read(key), Commit, shown)
    except BadInput:
        return records.decode(store.read(key), Commit, shown)


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
    patience: Patience = PATIENCE,
) -> Commit:
    """Uploads the files, reads them back, and commits. BadInput if other content is committed there already.

    patience: for how long it is tried where the store is away; each new fault is said on stderr.
    """
    assert COMMIT not in files
    entries = tuple(StoredFile(plain_name(name), *measured(files[name])) for name in sorted(files))
    commit = Commit(prefix, entries, tuple(parents), dict(meta or {}))
    faults: list[str] = []

    def say(error: Passing) -> None:
        if not faults or faults[-1] != str(error):
            faults.append(str(error))
            print(f"{prefix} is not published yet, tried for {patience.seconds:.0f} s: {error}", file=sys.stderr, flush=True)

    return patience.begin().call(lambda: _publish(store, commit, files), say)


def _publish(store: Store, commit: Commit, files: Mapping[str, bytes | Path]) -> Commit:
    """One try. May follow another one that ended anywhere."""
    prefix, data = commit.prefix, records.encode(commit)
    _refuse_other(store, prefix, data)
    store.clean(prefix)
    try:
        aside = upload_all(store, commit, files)
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


def _tidy(store: Store, winner: Commit, *, settled: bool) -> None:
    """Removes what attempts laid aside, the winner's only if it is settled. Before the commit, any of them could still win."""
    aside = re.compile(rf"{re.escape(winner.prefix)}[0-9a-f]{{16}}/")
    kept = () if settled else (laid_aside(winner),)
    store.delete([key for key in store.list(winner.prefix) if aside.match(key) and not key.startswith(kept)])


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
    plain, aside = keys(commit, entry)
    fault = "gone, though it was committed"
    for key in (plain, aside) * READS:  # it may be put into its place meanwhile, or come damaged
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

    def download(entry: StoredFile) -> None:
        _verify(store, commit, entry, partial(store.download, path=folder / entry.name))

    list(side_by_side(download, ((entry,) for entry in commit.files)))


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
        return path.is_file() and path.stat().st_size == entry.size and measured(path) == (entry.size, entry.sha256)

    return folder.is_dir() and all(matches(entry) for entry in commit.files)
