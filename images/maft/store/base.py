"""The seam to whatever keeps a run's objects, and what both of its sides need. What is committed is commits.py's."""

import contextlib
import errno
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from maft.errors import BadInput

ATTEMPTS = 5  # at a write that another process disturbs
TEMPORARY = ".tmp-"


class Missing(Exception):
    """No object of that key."""


class Store(Protocol):
    """The seam. Keys are relative, with forward slashes; others raise BadInput, as do faults of the store that the user can
    mend. Its other faults raise OSError."""

    url: str

    def read(self, key: str) -> bytes:
        """Reads the object's bytes; Missing if there is none."""

    def download(self, key: str, path: Path) -> str:
        """Writes the object to `path` and returns its hex sha256; Missing if there is none."""

    def write(self, key: str, data: bytes | Path) -> None:
        """Creates or replaces the object, all or nothing."""

    def create(self, key: str, data: bytes | Path) -> bool:
        """Creates the object, all or nothing, if there is none (If-None-Match: *); False if there is one."""

    def list(self, prefix: str) -> Iterator[str]:
        """Lists the keys that start with `prefix`, sorted. What was published is found by its commit, never by a listing."""

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Lists keys as `list` does, each with its object's bytes."""

    def read_part(self, key: str, start: int, length: int) -> bytes:
        """Reads so many bytes of the object from `start` on, fewer where it ends before; Missing if there is none."""

    def fetch(self, key: str, path: Path) -> None:
        """Writes a large object to `path`, several ranges at a time where the store has them; Missing if there is none."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes the objects; those that are not there are no error."""

    def clean(self, prefix: str) -> None:
        """Removes what interrupted uploads below `prefix` left behind. One that is still under way starts again."""


def relative(key: str, url: str) -> str:
    """Returns `key`, unless it leads out of the store at `url`: that is BadInput."""
    if key.startswith("/") or ".." in key.split("/"):
        raise BadInput(f"store {url}: {key!r} is not a relative key")
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


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns faults of a file system that the user can mend into BadInput with a hint; the others name `where`."""
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
