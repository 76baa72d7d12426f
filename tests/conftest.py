"""Fixtures shared by the suite. Servers are real processes; each is ended by the fixture that started it."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import groups
import prepared
import pytest
import yaml
from clusters import cluster_fixture  # noqa: F401 - the fixture `cluster`
from hypothesis import settings
from installed import maft_fixture, namespace_fixture, pushed_fixture  # noqa: F401 - `maft`, `namespace`, `pushed`
from small import MOCK, ROOT, TINY, a_spec, resource  # noqa: F401 - tests take them from here

from maft.spec import SERVER_KEY, immutable_spec_json
from maft_operator.local.ports import free_port

if not os.environ.get("CI"):  # there hypothesis has a profile of its own, without limits of time too
    settings.register_profile("here", deadline=None)
    settings.load_profile("here")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as maft.local sets it: servers and tests share the cores
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing comes from the real hub: where it is not reached, each look waits for 20 s


def pytest_configure(config: pytest.Config) -> None:
    for hooks in (prepared, groups):
        config.pluginmanager.register(hooks)


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """What a test leaves in the variables that programs read, the next test's programs would find."""
    before = _variables()
    yield
    assert _variables() == before


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("MAFT_", "AWS_", SERVER_KEY))}


@contextlib.contextmanager
def serving(
    command: list[str], port: int, log: Path, limit: float, *, health: str = "/health", **environment: str
) -> Iterator[str]:
    """A server process as long as the block lasts; fails with its log if it does not answer within the limit (seconds)."""
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        line = ["setpriv", "--pdeathsig", "KILL", "--", "env", *(f"{k}={v}" for k, v in environment.items()), *command]
        process = subprocess.Popen(line, stdout=output, stderr=output, start_new_session=True)
        try:
            wait_until(lambda: process.poll() is not None or answers(f"{url}{health}"), limit, lambda: log.read_text()[-3000:])
            assert process.poll() is None, log.read_text()[-3000:]
            yield url
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def wait_until(condition, limit: float, explain=lambda: "") -> None:
    """Polls; fails after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit} s: {explain()}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def mock_url(tmp_path_factory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, str(MOCK), "--port", str(port), f"--spec={immutable_spec_json(a_spec())}"]
    with serving(command, port, tmp_path_factory.mktemp("mock") / "log.txt", 60) as url:
        yield url


def write(path: Path, made: dict) -> Path:
    path.write_text(yaml.safe_dump(made))
    return path


KEY = "key-of-the-tests"  # what the real server wants of whoever asks it
RUN = "ns/run"  # the run whose adapters the real server resolves


def serve_command(store: Path, adapters: Path, port: int, *extra: str) -> list[str]:
    """A server of two adapters at a time on the loopback address. adapters: the folder that it fetches them to; extra: vLLM's."""
    spec = immutable_spec_json(a_spec(inference={"extraArgs": list(extra)}))
    command = [sys.executable, "-m", "maft.serve", "--store", str(store), "--run", RUN, f"--spec={spec}", "--adapters=2"]
    return [*command, "--adapter-folder", str(adapters), "--host", "127.0.0.1", "--port", str(port)]


@pytest.fixture(scope="session")
def vllm_store(tmp_path_factory) -> Path:
    """The folder of the store that the real server fetches adapters from; tests put adapters there while it runs."""
    return tmp_path_factory.mktemp("vllm-store")


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory, vllm_store) -> Iterator[str]:
    """One real vLLM server for the whole session, started as a run starts it. It wants KEY."""
    port, folder = free_port(), tmp_path_factory.mktemp("vllm")
    with serving(
        serve_command(vllm_store, folder / "adapters", port, "--max-num-seqs=64"),
        port,
        folder / "log.txt",
        400,
        MAFT_DIE_WITH_PARENT="1",
        VLLM_API_KEY=KEY,
    ) as url:
        yield url
