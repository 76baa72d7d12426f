"""Files that are written whole or not at all: whoever reads meanwhile, and whoever comes after a kill, finds the one of before."""

import os
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Puts a new file in the path's place. OSError where it cannot be written; the one of before is there then."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
