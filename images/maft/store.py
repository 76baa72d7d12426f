"""Objects in a folder (file://) or a bucket (s3://), and the commit protocol over them.

A publication uploads its files, checks them and writes `_COMMIT.json` last, with a conditional write: the second writer of
the same content succeeds, of other content is refused. Before the commit no attempt overwrites another's files: one that finds
its names taken by other content lays its own aside, and puts them in their place when it has committed. Readers follow
commits, verify sha256 while they read, and look in both places.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from maft import records
from maft.errors import BadInput
from maft.records import Commit, StoredFile

COMMIT = "_COMMIT.json"
ATTEMPTS = 5  # at a write that another process disturbs
_TEMPORARY = ".tmp-"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


class Missing(Exception):
    """No object of that key."""


class Store(Protocol):
    """The seam. Keys are relative, with forward slashes; others raise BadInput, as do faults of the store that the user can
    mend. Its other faults raise OSError."""

    url: str

    def read(self, key: str) -> bytes:
        """The object's bytes; Missing if there is none."""

    def download(self, key: str, path: Path) -> str:
        """Writes the object to `path` and returns its hex sha256; Missing if there is none."""

    def write(self, key: str, data: bytes | Path) -> None:
        """Creates or replaces the object, all or nothing."""

    def create(self, key: str, data: bytes | Path) -> bool:
        """Creates the object, all or nothing, if there is none (If-None-Match: *); False if there is one."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with `prefix`, sorted. Only for models of others and for cleaning up."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes the objects; those that are not there are no error."""

    def clean(self, prefix: str) -> None:
        """Removes what interrupted uploads below `prefix` left behind. One that is still under way starts again."""


def open_store(url: str) -> Store:
    """The store at `file:///folder`, a plain path, or `s3://bucket/prefix?endpoint=URL&region=NAME`.

    Folder and prefix of a URL are percent-decoded. BadInput for any other URL; credentials are never taken from it.
    """
    shown = _without_user(url.partition("?")[0])  # what follows may be a secret, too
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadInput(f"store {shown!r}: {error}") from None
    if not parts.scheme:
        return FileStore(Path(url).absolute())
    if parts.scheme not in ("file", "s3") or (parts.scheme == "file" and parts.netloc):
        raise BadInput(f"store {shown!r}: not a file:///folder, a path or an s3://bucket/prefix URL")
    if parts.fragment or url.endswith("#"):
        raise BadInput(f"store {shown!r}: a # in a URL has to be written %23")
    query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return _open_s3(parts.netloc, unquote(parts.path), query) if parts.scheme == "s3" else _open_file(shown, parts.path, query)


def _open_file(shown: str, path: str, query: Mapping[str, str]) -> Store:
    if query:
        raise BadInput(f"store {shown}: unknown option {min(query)!r}; a folder has none")
    return FileStore(Path(unquote(path)).absolute())


def _open_s3(bucket: str, path: str, query: Mapping[str, str]) -> Store:
    if not _BUCKET.fullmatch(bucket):
        raise BadInput(f"store s3://{_without_user(bucket)}: no bucket name; write s3://BUCKET/PREFIX, without credentials")
    if unknown := set(query) - {"endpoint", "region"}:
        raise BadInput(f"store s3://{bucket}: unknown option {min(unknown)!r}; there are endpoint and region")
    if "@" in query.get("endpoint", ""):
        raise BadInput(f"store s3://{bucket}: credentials in the endpoint; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    from maft.store_s3 import S3Store  # boto3 comes with the extra `s3`

    return S3Store(bucket, path.strip("/"), query.get("endpoint") or None, query.get("region") or None)


def _without_user(url: str) -> str:
    return re.sub(r"^(\w+://)?[^/]*@", r"\1", url)


def relative(key: str, url: str) -> str:
    """`key`, unless it leads out of the store at `url`: that is BadInput."""
    if key.startswith("/") or ".." in key.split("/"):
        raise BadInput(f"store {url}: {key!r} is not a relative key")
    return key


class FileStore:
    """Objects as files below a folder. Writes go to a temporary name first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()

    def read(self, key: str) -> bytes:
        with self._opened(key) as source:
            return source.read()

    def download(self, key: str, path: Path) -> str:
        with self._opened(key) as source, path.open("wb") as target:
            return copy_hashed(iter(lambda: source.read(1 << 20), b""), target)

    def write(self, key: str, data: bytes | Path) -> None:
        self._place(key, data, _replaced)

    def create(self, key: str, data: bytes | Path) -> bool:
        return self._place(key, data, _linked)

    def list(self, prefix: str) -> Iterator[str]:
        folder = self._path(prefix).parent if not prefix.endswith("/") and prefix else self._path(prefix)
        found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(_TEMPORARY))
        keys = (p.relative_to(self.root).as_posix() for p in found)
        yield from sorted(key for key in keys if key.startswith(prefix))

    def delete(self, keys: Sequence[str]) -> None:
        with self._explained():
            for key in keys:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self._path(key).unlink()

    def clean(self, prefix: str) -> None:
        with self._explained():
            for leftover in self._path(prefix).rglob(f"{_TEMPORARY}*"):
                leftover.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / relative(key, self.url)

    def _opened(self, key: str) -> BinaryIO:
        with self._explained():
            try:
                return self._path(key).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise Missing(key) from None

    def _place(self, key: str, data: bytes | Path, place: Callable[[Path, Path], bool]) -> bool:
        target = self._path(key)
        for _ in range(ATTEMPTS):
            # FileNotFoundError: another process cleans up.
            with self._explained(), self._temporary(target, data) as temporary, contextlib.suppress(FileNotFoundError):
                return place(temporary, target)
        raise OSError(f"store {self.url}: {key}: other processes keep removing what is being written")

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return _explained(f"store {self.url}")

    @contextlib.contextmanager
    def _temporary(self, target: Path, data: bytes | Path) -> Iterator[Path]:
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_durably(temporary, data)
            yield temporary
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


def _replaced(temporary: Path, target: Path) -> bool:
    temporary.replace(target)
    return True


def _linked(temporary: Path, target: Path) -> bool:
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        return False
    return True


_HINTS = {
    errno.ENOSPC: "the disk is full; free some space and start again",
    errno.EDQUOT: "the disk quota is used up; free some space and start again",
    errno.EROFS: "read-only; choose a folder that can be written",
    errno.EACCES: "no permission; choose another folder or change its owner",
    errno.EPERM: "no permission, or a file system without hard links; choose another folder",
    errno.EOPNOTSUPP: "a file system without hard links; choose another folder",
    errno.ENOTDIR: "a part of the path is a file; choose a folder",
    errno.EEXIST: "a part of the path is a file; choose a folder",
}


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        raise BadInput(f"{where}: {hint}") if hint else OSError(f"{where}: {error}") from error


def copy_hashed(chunks: Iterator[bytes], target: Any) -> str:
    """Writes the chunks to a binary file and returns their hex sha256."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def committed(store: Store, prefix: str) -> Commit | None:
    """The commit below `prefix` (ends with a slash), or None. BadInput if it is no commit of that prefix."""
    key = f"{store.url}/{prefix}{COMMIT}"
    try:
        commit = records.decode(store.read(prefix + COMMIT), Commit, key)
    except Missing:
        return None
    if commit.prefix != prefix:
        raise BadInput(f"{key}: committed as {commit.prefix}; a run has to keep its name")
    return commit


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
        found = store.read(prefix + COMMIT)
    except Missing:
        return False
    if found != data:
        raise BadInput(f"{store.url}/{prefix}: other content is committed there; use another name or remove that prefix")
    return True


def _upload(store: Store, commit: Commit, entry: StoredFile, content: bytes | Path) -> bool:
    """False if another attempt's file has the name already, so that this one lies aside. Nobody's file is overwritten."""
    plain, aside = _keys(commit, entry)
    found = _stored_hash(store, plain, entry)
    if found is None:
        store.create(plain, content)
        found = _stored_hash(store, plain, entry)
    if found == entry.sha256:
        return True
    store.write(aside, content)
    found = _stored_hash(store, aside, entry)
    if found != entry.sha256:
        raise OSError(f"{store.url}/{aside}: read back with sha256 {found}, {entry.sha256} was to be written")
    return False


def _stored_hash(store: Store, key: str, entry: StoredFile) -> str | None:
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
    """The bytes of one file of a commit; BadInput if they are not those that were committed."""
    data = b""

    def read(key: str) -> str:
        nonlocal data
        data = store.read(key)
        return hashlib.sha256(data).hexdigest()

    _verify(store, commit, commit.file(name), read)
    return data


def _verify(store: Store, commit: Commit, entry: StoredFile, read: Callable[[str], str]) -> None:
    """Reads the file, wherever it lies; BadInput if `read` returns the sha256 of something else."""
    plain, aside = _keys(commit, entry)
    fault = "gone, though it was committed"
    for key in (plain, aside, plain):  # it may be put into its place meanwhile
        with contextlib.suppress(Missing):
            found = read(key)
            if found == entry.sha256:
                return
            fault = f"damaged, sha256 {found[:12]} where {entry.sha256[:12]} was committed"
    raise BadInput(f"{store.url}/{plain}: {fault}")


def fetch_folder(store: Store, commit: Commit, folder: Path) -> Path:
    """All files of a commit as `folder`, which appears whole or not at all. An existing folder is verified and kept, or replaced.

    BadInput if the store's objects are not those that were committed, or `folder` cannot be written.
    """
    if _folder_matches(commit, folder):
        return folder
    workspace = folder.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        with _explained(f"folder {folder}"):
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
    """`name` if it is a file name without path parts; a commit that says otherwise is not followed."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise BadInput(f"commit file {name!r}: not a plain file name")
    return name


def probe(store: Store, prefix: str) -> None:
    """Does below `prefix` what programs do; BadInput unless the store is there, permits it and honours conditional writes."""
    key = f"{prefix}.probe-{uuid.uuid4().hex}"
    try:
        store.create(key, b"maft")
        try:
            _probe(store, key)
        except BaseException:
            with contextlib.suppress(Exception):
                store.delete([key])
            raise
        store.delete([key])
    except OSError as error:
        raise BadInput(f"{error}; check the storage settings, and that the store is up") from error


def _probe(store: Store, key: str) -> None:
    if _read(store, key) != b"maft":
        raise BadInput(f"store {store.url}: does not give back what was written; is it an S3 server? check the storage settings")
    if store.create(key, b"other") or _read(store, key) != b"maft":
        raise BadInput(
            f"store {store.url}: ignores conditional writes (If-None-Match: *), so two writers could mix; use another store"
        )
    store.clean(key)
    if list(store.list(key)) != [key]:
        raise BadInput(f"store {store.url}: does not list what was written; use another store")


def _read(store: Store, key: str) -> bytes:
    try:
        return store.read(key)
    except Missing:
        return b""
