"""Collects a bundle of a run of this machine (`maft run`): logs, summaries, run.json."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from maft_operator.bundle import redaction
from maft_operator.bundle.archive import Bundle, Missing, Part
from maft_operator.spec.schema import BadSpec

END = 1024**2  # bytes of a file that are kept, from its end
_HELPFUL = (".txt", ".log", ".json")


def collect(folder: Path, namespace: str, name: str) -> Bundle:
    """Collects what `maft run --dir FOLDER` left of the run; BadSpec where there is nothing."""
    run = folder / namespace / name
    if not (run / "local").is_dir():
        raise BadSpec(f"run {namespace}/{name}: no folder {run / 'local'}; name that of `maft run` with --dir, and -n")
    parts, missing = [], []
    for path in _files(run):
        file = str(path.relative_to(run))
        try:
            parts.append(Part(file, _redacted(path)))
        except OSError as error:
            missing.append(Missing(file, str(error.strerror)))
    return Bundle(f"{namespace}/{name}", tuple(parts), tuple(missing))


def _files(run: Path) -> Iterator[Path]:
    yield from (path for path in (run / "run.json", run / "report" / "report.json") if path.is_file())
    yield from (p for p in sorted((run / "local").rglob("*")) if p.is_file() and p.suffix in _HELPFUL and not p.is_symlink())


def _redacted(path: Path) -> bytes:
    """A whole JSON by its names; the end of anything else as text."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - END - 1))
        data = file.read()
    if path.suffix == ".json" and size <= END:
        try:
            return msgspec.json.format(msgspec.json.encode(redaction.thing(msgspec.json.decode(data))), indent=1)
        except msgspec.DecodeError:
            pass
    return redaction.end(data, END)
