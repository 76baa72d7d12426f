"""Real S3 servers for tests: versitygw, and moto, which differs from it. They end with the test process.

scripts/stores_reference.py starts others, and runs tests against the one that `SERVER` names in the environment.
"""

import contextlib
import functools
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import boto3
import locked_tool
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from maft_operator.local.ports import free_port

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "scripts" / "build-tool.sh"
SERVER = "MAFT_S3_SERVER"  # JSON of the fields of an S3Server that runs already
START_SECONDS = 60.0  # those of the suite take less than one
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where it listens, the keys of its one account, and a bucket that is there."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str

    @property
    def port(self) -> int:
        """Where it listens, on the loopback address."""
        return int(self.endpoint.rpartition(":")[2])

    def url(self, prefix: str = "", *, bucket: str = "") -> str:
        """The store URL of a prefix."""
        return f"s3://{bucket or self.bucket}/{quote(prefix)}?{urlencode({'endpoint': self.endpoint, 'region': 'us-east-1'})}"

    def environment(self) -> dict[str, str]:
        """What a program needs to use it, and nothing of the machine's own AWS configuration."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 client; the same one each time, for making one takes half a second."""
        return _client(self.endpoint, self.access_key, self.secret_key)


@functools.cache
def _client(endpoint: str, access_key: str, secret_key: str) -> Any:
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    return boto3.Session(access_key, secret_key, region_name="us-east-1").client("s3", endpoint_url=endpoint, config=config)


@functools.cache
def binary() -> Path:
    """The server's, which is built before (prepare.py); CalledProcessError where it is not."""
    done = subprocess.run([BUILD, "--there", "versitygw"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip()) / "versitygw"


@dataclass(frozen=True, slots=True)
class Kind:
    """A program that is an S3 server: how it is started over a folder, to listen where an S3Server says, with its keys."""

    name: str
    command: Callable[[Path, S3Server], list[str]]
    environment: Callable[[S3Server], Mapping[str, str]] = lambda server: {}
    seconds: float = START_SECONDS
    keys: tuple[str, str] | None = None
    """Where it has a pair of its own."""


VERSITYGW = Kind(
    "versitygw",
    lambda folder, server: [str(binary()), "--port", f"127.0.0.1:{server.port}", "posix", str(folder)],
    lambda server: {"ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key},
)
MOTO = Kind(
    "moto",
    lambda folder, server: [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)],
    lambda server: {"PYTHONPATH": str(locked_tool.folder("moto"))},
)


@contextlib.contextmanager
def running(folder: Path, kind: Kind = VERSITYGW) -> Iterator[S3Server]:
    """A server over `folder` with an empty bucket. RuntimeError with its output if it does not start."""
    server = S3Server(f"http://127.0.0.1:{free_port()}", *(kind.keys or ("maft-test", secrets.token_hex(16))), "maft")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["setpriv", "--pdeathsig", "KILL", *kind.command(folder, server)]
    log, environment = folder.with_name(f"{folder.name}.log"), {**os.environ, **kind.environment(server)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait(process, server, kind.seconds, log)
        yield server
    finally:
        _stop(process)


def _wait(process: "subprocess.Popen[bytes]", server: S3Server, seconds: float, log: Path) -> None:
    """Until its bucket is there: some listen before they serve."""
    end, why = time.monotonic() + seconds, "no answer"
    while process.poll() is None and time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=1):
                pass
            server.client().create_bucket(Bucket=server.bucket)
            return
        except server.client().exceptions.BucketAlreadyOwnedByYou:
            return
        except (OSError, BotoCoreError, ClientError) as error:
            why = str(error)
        time.sleep(0.02)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not start (exit code {process.poll()}, {why}): {tail}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session", name="s3")
def s3_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The one server of a test session. Tests keep to prefixes or buckets of their own."""
    if given := os.environ.get(SERVER):
        yield S3Server(**json.loads(given))
        return
    with running(tmp_path_factory.mktemp("s3") / "objects") as server:
        yield server


@pytest.fixture(scope="session", name="moto")
def moto_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Another server that is not like it, for tests of what stores have in common."""
    with running(tmp_path_factory.mktemp("moto") / "objects", MOTO) as server:
        yield server
