"""moto, an S3 server unlike the first one: `moto_server.py` installs it into a folder of its own in the tests' cache.

Exactly as requirements/moto.txt says (hashes checked), with uv where there is one. Runs under the Python that the tests run under.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "cluster"))
from settings import CACHE, ROOT

LOCKED = ROOT / "requirements" / "moto.txt"


def folder() -> Path:
    """Where its packages lie once they are installed: those of one list, for one Python."""
    made_of = LOCKED.read_bytes() + f"{sys.version_info[:2]}".encode()
    return CACHE / "tools" / f"moto-{hashlib.sha256(made_of).hexdigest()[:12]}"


def install() -> None:
    """Installs them, all or none."""
    if folder().is_dir():
        return
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder().parent, prefix=".moto-") as scratch:
        made = Path(scratch) / "made"
        flags = ["--quiet", "--no-deps", "--require-hashes", "--target", str(made), "-r", str(LOCKED)]
        subprocess.run([*installer(), *flags], check=True)
        try:
            made.rename(folder())
        except OSError:
            if not folder().is_dir():  # else another process was first
                raise


def installer() -> list[str]:
    """The command up to its options."""
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".tools" / "uv" / "bin")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    outside = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")  # an environment may have no pip
    return [str(outside), "-m", "pip", "install", "--disable-pip-version-check"]


if __name__ == "__main__":
    install()
