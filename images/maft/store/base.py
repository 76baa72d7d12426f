"""Objects in a folder (file://) or a bucket (s3://): the seam to whatever keeps them. What is committed is commits.py's."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from maft.errors import BadInput

ATTEMPTS = 5  # at a write that another process disturbs
TEMPORARY = ".tmp-"
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
    from maft.store.s3 import S3Store  # boto3 comes with the extra `s3`

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
        found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(TEMPORARY))
        keys = (p.relative_to(self.root).as_posix() for p in found)
        yield from sorted(key for key in keys if key.startswith(prefix))

    def delete(self, keys: Sequence[str]) -> None:
        with self._explained():
            for key in keys:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self._path(key).unlink()

    def clean(self, prefix: str) -> None:
        with self._explained():
            for leftover in self._path(prefix).rglob(f"{TEMPORARY}*"):
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
        return explained(f"store {self.url}")

    @contextlib.contextmanager
    def _temporary(self, target: Path, data: bytes | Path) -> Iterator[Path]:
        temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
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
def explained(where: str) -> Iterator[None]:
    """Faults of a file system that the user can mend become BadInput with a hint; the others name `where`."""
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
