"""Objects as files below a folder."""

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from maft.store.base import ATTEMPTS, TEMPORARY, Entry, Missing, copy_hashed, explained, relative


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
        files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(TEMPORARY))
        keys = (p.relative_to(self.root).as_posix() for p in files)
        yield from sorted(key for key in keys if key.startswith(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        yield from ((entry.key, entry.size) for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        for key in self.list(prefix):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                known = self._path(key).stat()
                yield Entry(key, known.st_size, known.st_mtime)

    def read_part(self, key: str, start: int, length: int) -> bytes:
        with self._opened(key) as source:
            source.seek(start)
            return source.read(length)

    def fetch(self, key: str, path: Path) -> None:
        self.download(key, path)

    def delete(self, keys: Sequence[str]) -> None:
        with self._explained():
            for key in keys:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self._path(key).unlink()

    def clean(self, prefix: str) -> None:
        with self._explained():
            for leftover in self._path(prefix).rglob(f"{TEMPORARY}*"):
                leftover.unlink(missing_ok=True)

    def impatient(self) -> "FileStore":
        return self

    def _path(self, key: str) -> Path:
        return self.root / relative(key, self.url)

    def _opened(self, key: str) -> BinaryIO:
        with self._explained():
            path = self._path(key)
            try:
                if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
                    raise Missing(key)
                return path.open("rb")
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
