"""A run with adapters, without training it; and its society, with the stand-in for vLLM behind it."""

import contextlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conftest import MOCK, free_port, serving
from small import Json, a_spec

from maft import adapters, records
from maft.records import ROLES, Adapter, DatasetCounts, trained_roles
from maft.society_spec import SocietySpec, encode_society
from maft.spec import FORMAT, Spec, immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore

RUN = "ns/run"
QUESTION = "What is 7+3*4?"


def trained(
    folder: Path, *, iterations: int = 1, unfinished: int = 0, untrained: bool = False, run: str = RUN, **spec: Any
) -> Spec:
    """Lays a run's spec and adapters into the folder. unfinished: an iteration whose training is under way; untrained: no agent had
    enough examples."""
    asked = a_spec(iterations=max(iterations, unfinished), **spec)
    store = FileStore(folder)
    fixed = json.loads(immutable_spec_json(asked))
    store.write(f"{run}/{layout.RUN}", records.encode({"format": FORMAT, "spec": fixed}))
    for iteration in range(1, max(iterations, unfinished) + 1):
        of = [(role, agent) for agent in asked.trained_agents for role in trained_roles(asked.debate)]
        counts = [DatasetCounts(role, agent, 9, {}) for role, agent in of]
        publish(store, layout.datasets(run, iteration), {}, meta={"counts": records.plain(counts)})
        for role, agent in of if iteration != unfinished else of[:1]:
            digest = f"{iteration}{agent}{ROLES.index(role)}".ljust(64, "a")
            name = "base" if untrained else adapters.name(role, agent, iteration, digest)
            made = Adapter(role, agent, iteration, name, not untrained, 9, 3, 1.0, 0.5)
            publish(store, layout.adapter(run, iteration, role, agent), {}, meta={"adapter": records.plain(made)})
    return asked


def endpoint(store: Path, port: int, server: str, society: SocietySpec | None = None, *more: str) -> list[str]:
    """The command line of the society's program."""
    line = [sys.executable, "-m", "maft.endpoint", f"--store={store}", f"--run={RUN}", f"--server=society={server}"]
    return [*line, f"--society={encode_society(society or SocietySpec())}", "--host=127.0.0.1", f"--port={port}", *more]


@contextlib.contextmanager
def mock_server(spec: Spec, folder: Path, port: int = 0, **environment: str) -> Iterator[str]:
    """The stand-in for vLLM."""
    port = port or free_port()
    command = [sys.executable, str(MOCK), "--port", str(port), f"--spec={immutable_spec_json(spec)}"]
    with serving(command, port, folder / "mock.txt", 60, **environment) as url:
        yield url


@contextlib.contextmanager
def society(folder: Path, spec: Spec, asked: SocietySpec | None = None, *more: str, **environment: str) -> Iterator[str]:
    """A society over the run in `folder / "store"`, ready. environment: of its server."""
    port = free_port()
    with mock_server(spec, folder, **environment) as server:
        command = endpoint(folder / "store", port, server, asked, *more)
        with serving(command, port, folder / "endpoint.txt", 60, health="/ready") as url:
            yield url


def post(url: str, body: Any, *, key: str = "", path: str = "/v1/chat/completions") -> tuple[int, Json, dict[str, str]]:
    """Status, JSON and headers of the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{url}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read()), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), dict(error.headers)


def ask(model: str = "society", question: str = QUESTION, **fields: Any) -> Json:
    """A request."""
    return {"model": model, "messages": [{"role": "user", "content": question}], **fields}


def metrics(url: str) -> str:
    """What Prometheus reads."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        return str(response.read().decode())
