"""Packages that tests ask, each in a folder of its own in the tests' cache: `locked_tool.py NAME...` installs them.

moto is an S3 server unlike the first one, mlflow a tracker, trackers has clients of others, llama is llama.cpp. Exactly as their
lists in requirements/ say (hashes checked), with uv where there is one. They run under the Python that the tests run under.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "cluster"))
from settings import CACHE, ROOT


def locked(name: str) -> Path:
    """The list of its packages."""
    return ROOT / "requirements" / f"{name}.txt"


def folder(name: str) -> Path:
    """Where its packages lie once they are installed: those of one list, for one Python."""
    made_of = locked(name).read_bytes() + f"{sys.version_info[:2]}".encode()
    return CACHE / "tools" / f"{name}-{hashlib.sha256(made_of).hexdigest()[:12]}"


def install(name: str) -> None:
    """Installs them, all or none."""
    if folder(name).is_dir():
        return
    folder(name).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder(name).parent, prefix=f".{name}-") as scratch:
        made = Path(scratch) / "made"
        flags = ["--quiet", "--no-deps", "--require-hashes", "--target", str(made), "-r", str(locked(name))]
        subprocess.run([*installer(), *flags], check=True)
        try:
            made.rename(folder(name))
        except OSError:
            if not folder(name).is_dir():  # else another process was first
                raise


def installer() -> list[str]:
    """The command up to its options."""
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tools" / "uv" / "bin")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    outside = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")  # an environment may have no pip
    return [str(outside), "-m", "pip", "install", "--disable-pip-version-check"]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        install(name)
