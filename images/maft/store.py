"""Objects in a folder (file://) or a bucket (s3://), and the commit protocol over them.

A publication uploads its files, checks them and writes `_COMMIT.json` last, with a conditional write: the second writer of
the same content succeeds, of other content is refused. Readers follow commits and verify sha256 while they read.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from maft import records
from maft.errors import BadInput
from maft.records import Commit, StoredFile

COMMIT = "_COMMIT.json"
_TEMPORARY = ".tmp-"


class Missing(Exception):
    """No object of that key."""


class Store(Protocol):
    """The seam. Keys are relative, with forward slashes. Faults of the store itself raise BadInput or OSError."""

    url: str

    def read(self, key: str) -> bytes:
        """The object's bytes; Missing if there is none."""

    def download(self, key: str, path: Path) -> str:
        """Writes the object to `path` and returns its hex sha256; Missing if there is none."""

    def write(self, key: str, data: bytes | Path) -> None:
        """Creates or replaces the object, all or nothing."""

    def create(self, key: str, data: bytes) -> bool:
        """Creates the object if there is none (If-None-Match: *); False if there is one."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with `prefix`, sorted. Only for models of others and for cleaning up."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes the objects; those that are not there are no error."""

    def clean(self, prefix: str) -> None:
        """Removes what interrupted uploads below `prefix` left behind."""


def open_store(url: str) -> Store:
    """The store at `file:///folder`, a plain path, or `s3://bucket/prefix?endpoint=URL&region=NAME`."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from maft.store_s3 import S3Store  # boto3 comes with the extra `s3`

        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if unknown := set(query) - {"endpoint", "region"}:
            raise BadInput(f"store {url}: unknown option {sorted(unknown)[0]!r}; there are endpoint and region")
        return S3Store(parts.netloc, parts.path.strip("/"), query.get("endpoint"), query.get("region"))
    if parts.scheme not in ("", "file") or (parts.scheme == "file" and parts.netloc):
        raise BadInput(f"store {url!r}: not a file:///folder, a path or an s3://bucket/prefix URL")
    return FileStore(Path(unquote(parts.path)).absolute())


class FileStore:
    """Objects as files below a folder. Writes go to a temporary name first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"file://{root}"

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key) from None

    def download(self, key: str, path: Path) -> str:
        try:
            with self._path(key).open("rb") as source, path.open("wb") as target:
                return copy_hashed(iter(lambda: source.read(1 << 20), b""), target)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key) from None

    def write(self, key: str, data: bytes | Path) -> None:
        with self._temporary(key, data) as temporary:
            os.replace(temporary, self._path(key))

    def create(self, key: str, data: bytes) -> bool:
        with self._temporary(key, data) as temporary:
            try:
                os.link(temporary, self._path(key))
            except FileExistsError:
                return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        folder = self._path(prefix).parent if not prefix.endswith("/") and prefix else self._path(prefix)
        found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(_TEMPORARY))
        keys = (p.relative_to(self.root).as_posix() for p in found)
        yield from sorted(key for key in keys if key.startswith(prefix))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def clean(self, prefix: str) -> None:
        for leftover in self._path(prefix).glob(f"{_TEMPORARY}*"):
            leftover.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise BadInput(f"store {self.url}: {key!r} is not a relative key")
        return self.root / key

    @contextlib.contextmanager
    def _temporary(self, key: str, data: bytes | Path) -> Iterator[Path]:
        target = self._path(key)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_durably(temporary, data)
            yield temporary
        except OSError as error:
            raise _explained(error, f"store {self.url}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes | Path) -> None:
    with path.open("wb") as target:
        if isinstance(data, Path):
            with data.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
        else:
            target.write(data)
        target.flush()
        os.fsync(target.fileno())


def _explained(error: OSError, where: str) -> Exception:
    hints = {
        errno.ENOSPC: "the disk is full; free some space and start again",
        errno.EDQUOT: "the disk quota is used up; free some space and start again",
        errno.EROFS: "read-only; choose a store that can be written",
        errno.EACCES: "no permission to write; choose another store or change its owner",
        errno.EPERM: "no permission to write; choose another store or change its owner",
        errno.ENOTDIR: "a part of the path is a file; choose a folder",
        errno.EEXIST: "a part of the path is a file; choose a folder",
    }
    hint = hints.get(error.errno or 0)
    return BadInput(f"{where}: {hint}") if hint else error


def copy_hashed(chunks: Iterator[bytes], target: Any) -> str:
    """Writes the chunks to a binary file and returns their hex sha256."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def committed(store: Store, prefix: str) -> Commit | None:
    """The commit below `prefix` (ends with a slash), or None."""
    try:
        data = store.read(prefix + COMMIT)
    except Missing:
        return None
    return records.decode(data, Commit, f"{store.url}/{prefix}{COMMIT}")


def required(store: Store, prefix: str, made_by: str) -> Commit:
    """The commit below `prefix`; BadInput naming the program that makes it if there is none."""
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
    store.clean(prefix)
    entries = tuple(_upload(store, prefix, name, files[name]) for name in sorted(files))
    commit = Commit(prefix, entries, tuple(parents), dict(meta or {}))
    data = records.encode(commit)
    if not store.create(prefix + COMMIT, data) and store.read(prefix + COMMIT) != data:
        raise BadInput(f"{store.url}/{prefix}: other content is committed there; use another name or remove that prefix")
    return commit


def _upload(store: Store, prefix: str, name: str, content: bytes | Path) -> StoredFile:
    digest, size = _measure(content)
    store.write(prefix + name, content)
    stored = hashlib.sha256(store.read(prefix + name)).hexdigest() if size < 1 << 24 else _stored_hash(store, prefix + name)
    if stored != digest:
        raise OSError(f"{store.url}/{prefix}{name}: read back with sha256 {stored}, {digest} was written")
    return StoredFile(name, size, digest)


def _measure(content: bytes | Path) -> tuple[str, int]:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest(), len(content)
    with content.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest(), content.stat().st_size


def _stored_hash(store: Store, key: str) -> str:
    return store.download(key, Path(os.devnull))


def fetch(store: Store, commit: Commit, name: str) -> bytes:
    """The bytes of one file of a commit; BadInput if they are not those that were committed."""
    data = store.read(commit.prefix + name)
    _verify(store, commit, name, hashlib.sha256(data).hexdigest())
    return data


def fetch_folder(store: Store, commit: Commit, folder: Path) -> Path:
    """All files of a commit as `folder`, which appears whole or not at all. An existing folder is verified and kept."""
    if folder.exists() and _folder_matches(commit, folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    temporary = folder.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        for entry in commit.files:
            _verify(store, commit, entry.name, store.download(commit.prefix + entry.name, temporary / plain_name(entry.name)))
        _settle(temporary, folder, commit)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _settle(temporary: Path, folder: Path, commit: Commit) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:  # another process was first: the same commit, so the same content
        if not _folder_matches(commit, folder):
            raise


def _folder_matches(commit: Commit, folder: Path) -> bool:
    def matches(entry: StoredFile) -> bool:
        path = folder / plain_name(entry.name)
        return path.is_file() and path.stat().st_size == entry.size and _measure(path)[0] == entry.sha256

    return all(matches(entry) for entry in commit.files)


def plain_name(name: str) -> str:
    """`name` if it is a file name without path parts; a commit that says otherwise is not followed."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise BadInput(f"commit file {name!r}: not a plain file name")
    return name


def _verify(store: Store, commit: Commit, name: str, found: str) -> None:
    expected = commit.file(name).sha256
    if found != expected:
        raise BadInput(f"{store.url}/{commit.prefix}{name}: damaged, sha256 {found[:12]} where {expected[:12]} was committed")


def probe(store: Store, prefix: str) -> None:
    """Writes below `prefix` to see whether the store is there, writable and honours conditional writes."""
    key = f"{prefix}.probe-{uuid.uuid4().hex}"
    try:
        if not store.create(key, b"maft") or store.read(key) != b"maft":
            raise BadInput(f"store {store.url}: does not give back what was written")
        if store.create(key, b"other"):
            raise BadInput(f"store {store.url}: ignores conditional writes (If-None-Match: *), so two writers could mix; use another")
    except OSError as error:
        raise BadInput(f"{error}; check storage.endpoint and the network") from error
    finally:
        with contextlib.suppress(Exception):
            store.delete([key])
