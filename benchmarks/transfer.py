"""store: an iteration published and fetched again, by our commits ÷ by s5cmd. Row 10. Same bytes, same S3 server, on loopback.

Ours reads back and hashes what it wrote, and hashes what it fetches; s5cmd copies. Both start with everything on the disk.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from peers import S5CMD, s5cmd
from ratio import RUNS, Goal, Ratio, alternate

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]

MIB = 1 << 20
# As an iteration of the pretrained model leaves it: debate, six datasets, six adapters of rank 8 or (large) 64.
SMALL = {"debate": (6.0,), "datasets": (0.5,) * 6, **{f"adapters/{n}": (9.3, 0.01, 0.01) for n in range(6)}}
LARGE = {"debate": (48.0,), "datasets": (4.0,) * 6, **{f"adapters/{n}": (74.0, 0.01, 0.01) for n in range(6)}}
Sizes = Mapping[str, tuple[float, ...]]  # MiB of every file, by the prefix that commits them


def write(folder: Path, sizes: Sizes) -> None:
    """Writes files that no compression makes smaller."""
    draw = random.Random(0)
    for prefix, several in sizes.items():
        (folder / prefix).mkdir(parents=True)
        for i, size in enumerate(several):
            (folder / prefix / f"file-{i}.bin").write_bytes(draw.randbytes(round(size * MIB)))


class Transfers:
    """Both sides over one server; each run has a prefix and a folder of its own."""

    def __init__(self, source: Path, scratch: Path, url: str, bucket: str, endpoint: str) -> None:
        from maft.store.urls import open_store

        self._store = open_store(url)
        self._source, self._scratch, self._number = source, scratch, 0
        self._bucket, self._endpoint = bucket, endpoint
        self._prefixes = sorted({path.parent.relative_to(source).as_posix() for path in source.rglob("*.bin")})

    def _next(self) -> tuple[str, Path]:
        self._number += 1
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        return f"run-{self._number}", self._scratch / "fetched"

    def publish(self) -> float:
        """Publishes all commits; seconds."""
        from maft.store.commits import publish

        run, _ = self._next()
        begun = time.monotonic()
        for prefix in self._prefixes:
            publish(self._store, f"{run}/{prefix}/", {p.name: p for p in sorted((self._source / prefix).iterdir())})
        return time.monotonic() - begun

    def fetch(self) -> float:
        """Fetches what was published last, into a new folder; seconds."""
        from maft.store.commits import fetch_folder, required

        run = f"run-{self._number}"
        shutil.rmtree(self._scratch)
        begun = time.monotonic()
        for prefix in self._prefixes:
            commit = required(self._store, f"{run}/{prefix}/", "publish")
            target = self._scratch / "fetched" / prefix
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch_folder(self._store, commit, target)
        return time.monotonic() - begun

    def both(self) -> float:
        """Publishes and fetches; seconds."""
        return self.publish() + self.fetch()

    def s5cmd(self) -> float:
        """The same by s5cmd: one copy there, one back; seconds."""
        run, target = self._next()
        there = f"s3://{self._bucket}/s5/{run}/"
        begun = time.monotonic()
        self._copy(f"{self._source}/", there)
        self._copy(f"{there}*", f"{target}/")
        return time.monotonic() - begun

    def _copy(self, source: str, target: str) -> None:
        line = [str(s5cmd()), "--log", "error", "--endpoint-url", self._endpoint, "cp", source, target]
        subprocess.run(line, check=True, env={**os.environ, "AWS_REGION": "us-east-1"})


def store(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 10."""
    return [_measured("rank 8", SMALL, runs)] + ([] if quick else [_measured("rank 64", LARGE, runs)])


def _measured(name: str, sizes: Sizes, runs: int) -> Ratio:
    import s3server

    s5cmd()
    with tempfile.TemporaryDirectory() as scratch, s3server.running(Path(scratch) / "objects") as server:
        os.environ.update(server.environment())
        folder = Path(scratch)
        write(folder / "source", sizes)
        transfers = Transfers(folder / "source", folder / "work", server.url("ours"), server.bucket, server.endpoint)
        pairs = alternate(transfers.both, transfers.s5cmd, runs)
    files = sum(len(several) for several in sizes.values())
    size = sum(sum(several) for several in sizes.values())
    return Ratio(
        10,
        f"publish and fetch of an iteration ÷ s5cmd, adapters of {name}",
        "s",
        pairs.first,
        pairs.second,
        Goal("at most", 1.2),
        f"{files} files, {size:.0f} MiB, versitygw on loopback; s5cmd of the wheel {S5CMD}",
    )
