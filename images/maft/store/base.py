"""The seam to whatever keeps a run's objects, and what both of its sides need. What is committed is commits.py's."""

import contextlib
import errno
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from maft.errors import BadInput

ATTEMPTS = 5  # at a write that another process disturbs
LARGEST = 5 << 30  # bytes that `create` takes: S3's limit of one request
TEMPORARY = ".tmp-"


class Missing(Exception):
    """No object of that key."""


class Damaged(BadInput):
    """The object is not what was written; the message says where it lies and what to do."""


class Passing(OSError):
    """A fault that may pass: the store is away or busy, an answer broke off or came damaged. Worth another try."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a listing. size: bytes; modified: when it was written, in seconds since 1970; tag: another one where the bytes
    are others, if the store has such a thing (the ETag of S3)."""

    key: str
    size: int
    modified: float
    tag: str = ""


class Store(Protocol):
    """The seam. Keys are relative, with forward slashes; others raise BadInput, as do faults of the store that the user can
    mend. Its other faults raise OSError: Passing, if another try may help."""

    url: str

    def read(self, key: str) -> bytes:
        """Reads the object's bytes; Missing if there is none."""

    def download(self, key: str, path: Path) -> str:
        """Writes the object to `path` and returns its hex sha256; Missing if there is none."""

    def write(self, key: str, data: bytes | Path) -> None:
        """Creates or replaces the object, all or nothing."""

    def create(self, key: str, data: bytes | Path) -> bool:
        """Creates the object, all or nothing, if there is none (If-None-Match: *); False if there is one. It has `LARGEST` bytes
        at most, for many S3 servers honour the condition in a single request alone."""

    def list(self, prefix: str) -> Iterator[str]:
        """Lists the keys that start with `prefix`, sorted. What was published is found by its commit, never by a listing."""

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Lists keys as `list` does, each with its object's bytes."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Lists objects as `list` does, each with its bytes and when it was written."""

    def read_part(self, key: str, start: int, length: int) -> bytes:
        """Reads so many bytes of the object from `start` on, fewer where it ends before; Missing if there is none."""

    def fetch(self, key: str, path: Path) -> None:
        """Writes a large object to `path`, several ranges at a time where the store has them; Missing if there is none, Damaged if
        the store has a hash of what was written, and it is not that."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes the objects; those that are not there are no error."""

    def clean(self, prefix: str) -> None:
        """Removes what interrupted uploads below `prefix` left behind. One that is still under way starts again."""

    def impatient(self) -> "Store":
        """Returns the same store for somebody who counts the tries: what fails or stays silent is told at once."""


def relative(key: str, url: str) -> str:
    """Returns `key`, unless it leads out of the store at `url`, or has parts that servers resolve or drop: that is BadInput."""
    parts = key.split("/")
    if "" in parts[:-1] or "." in parts or ".." in parts:
        raise BadInput(f"store {url}: {key!r} is not a relative key; write it without empty parts, . and ..")
    return key


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
_MAY_PASS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EHOSTDOWN, errno.EHOSTUNREACH}  # disks in a network


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns faults of a file system that the user can mend into BadInput with a hint; the others name `where`."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        kind = Passing if isinstance(error, Passing) or error.errno in _MAY_PASS else OSError
        raise BadInput(f"{where}: {hint}") if hint else kind(f"{where}: {error}") from error


def copy_hashed(chunks: Iterator[bytes], target: Any) -> str:
    """Writes the chunks to a binary file and returns their hex sha256."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()
