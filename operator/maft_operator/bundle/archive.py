"""The archive: files, and `manifest.json`, which says what is in it and what could not be had, and why."""

import gzip
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from maft_operator import __version__
from maft_operator.spec.schema import BadSpec


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive."""

    file: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not in the archive. why: one line."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that was collected of a run. run: NAMESPACE/NAME."""

    run: str
    parts: Sequence[Part]
    missing: Sequence[Missing]


def write(bundle: Bundle, path: Path, now: datetime) -> None:
    """Writes it as a tar.gz that only its owner may read; BadSpec where the file cannot be written."""
    folder = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    try:
        _replace(path, _packed(bundle, folder, now))
    except OSError as error:
        raise BadSpec(f"--output {path}: {error.strerror}; name a file in a folder that can be written") from None


def manifest(bundle: Bundle, now: datetime) -> bytes:
    """Writes what is there and what is not."""
    files = [{"file": part.file, "bytes": len(part.content)} for part in bundle.parts]
    missing = [{"file": gap.file, "why": gap.why} for gap in bundle.missing]
    made = {"run": bundle.run, "maft": __version__, "made": now.isoformat(timespec="seconds"), "files": files, "missing": missing}
    return json.dumps(made, indent=1).encode()


def _replace(path: Path, data: bytes) -> None:
    """Puts a new file into its place: one that was there keeps its mode when it is written to, and whoever has it open reads on."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _packed(bundle: Bundle, folder: str, now: datetime) -> bytes:
    data, seconds = io.BytesIO(), int(now.timestamp())
    with (
        gzip.GzipFile(fileobj=data, mode="wb", mtime=seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for part in (Part("manifest.json", manifest(bundle, now)), *bundle.parts):
            entry = tarfile.TarInfo(f"{folder}/{part.file}")
            entry.size, entry.mtime, entry.mode = len(part.content), seconds, 0o600
            tar.addfile(entry, io.BytesIO(part.content))
    return data.getvalue()
