"""Files that appear whole or not at all, in folders that several programs may write to at a time.

Each writes a part of its own beside the place. Its name has nothing that two could have alike: in pods that share a volume the ids
of processes often are.
"""

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from maft.store.base import TEMPORARY

STALE = 24 * 3600.0  # seconds after the last byte from which on a part is nobody's: whoever wrote it was killed
_BESIDE = r"(\.[0-9a-fA-F]{8})?"  # what boto3 appends while it writes
_PART = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]+-(?P<name>.+?)(\.part{_BESIDE})?")  # without .part: up to release 0.1
NUMBERED = re.compile(rf"(?P<name>.+)\.[0-9]+\.part{_BESIDE}")  # files of models up to release 0.1


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Names a file to write, which is `path` once that has gone well; else nothing is left of it."""
    part = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def remove_stale(folder: Path, name: str = "", *patterns: re.Pattern[str]) -> None:
    """Removes the stale parts of a folder's files, or of the one of that name; one that somebody may still write stays, and so does
    what cannot be removed. patterns: what parts are called besides."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            match = next((m for pattern in (_PART, *patterns) if (m := pattern.fullmatch(path.name))), None)
            if match and name in ("", match["name"]) and time.time() - path.lstat().st_mtime > STALE:
                with contextlib.suppress(OSError):
                    path.unlink()
