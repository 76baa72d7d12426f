"""API keys: a folder with one file for each, as a Secret is mounted; read anew when it changes."""

import hashlib
import hmac
import sys
import time
from pathlib import Path

from maft.errors import BadInput, one_line

INTERVAL = 1.0  # seconds between two looks at the folder


class Keys:
    """Whoever knows one of them may ask."""

    def __init__(self, folder: Path) -> None:
        """Reads them; BadInput where that is no folder."""
        self._folder = folder
        self._looked = time.monotonic()
        try:
            self._seen, self._digests = self._read()
        except (OSError, UnicodeError) as error:
            raise BadInput(f"--keys {folder}: {one_line(error)}; give a folder with a file for each key") from None

    def name(self, header: str) -> str | None:
        """Names the key of an Authorization header; None if it is none of them. Takes as long for each: all are compared."""
        self._look()
        scheme, _, given = header.partition(" ")
        digest = _digest(given.strip().encode(errors="replace"))
        matching = [name for name, known in self._digests.items() if hmac.compare_digest(known, digest)]
        return matching[0] if matching and scheme.lower() == "bearer" else None

    def _look(self) -> None:
        """Reads the folder anew where a file of it is another one. While it cannot be read, what was read before counts."""
        if (now := time.monotonic()) - self._looked < INTERVAL:
            return
        self._looked = now
        try:
            if self._signature() != self._seen:
                self._seen, self._digests = self._read()
        except (OSError, UnicodeError) as error:
            print(f"warning: --keys {self._folder}: {one_line(error)}; the keys stay as they were", file=sys.stderr, flush=True)

    def _signature(self) -> dict[str, tuple[int, int, int]]:
        stats = {file.name: file.stat() for file in self._files()}
        return {name: (stat.st_mtime_ns, stat.st_ino, stat.st_size) for name, stat in stats.items()}

    def _read(self) -> tuple[dict[str, tuple[int, int, int]], dict[str, bytes]]:
        seen = self._signature()
        texts = {file.name: file.read_bytes().strip() for file in self._files()}
        for name in (name for name, text in texts.items() if not text):
            print(f"warning: --keys {self._folder}: {name} is empty, and opens nothing", file=sys.stderr, flush=True)
        if not any(texts.values()):
            print(
                f"warning: --keys {self._folder}: holds no key, so nobody may ask until one is there", file=sys.stderr, flush=True
            )
        return seen, {name: _digest(text) for name, text in texts.items() if text}

    def _files(self) -> list[Path]:
        # Of a mounted Secret, names that begin with a dot are how it is put in place.
        return [file for file in sorted(self._folder.iterdir()) if not file.name.startswith(".") and file.is_file()]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()  # of one length, so that comparing tells nothing of the key's
