"""How large a model is: in a folder, in a bucket, on a hub; and that nothing fails where it cannot be seen."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from small import TINY

from maft.prepare import sizes
from maft.spec import ModelSpec
from maft.store.urls import open_store

WEIGHTS = (TINY / "model.safetensors").stat().st_size
SHARDS = {"model-00001-of-00002.safetensors": 5, "model-00002-of-00002.safetensors": 7, "model.safetensors.index.json": 99}


def of(source: str, revision: str = "", hub: Any = None) -> int:
    unset: dict[str, Any] = {"trust_remote_code": False, "max_length": 0, "cache_claim": ""}
    return sizes.weight_bytes(ModelSpec(source=source, revision=revision, **unset), hub)


@pytest.mark.parametrize(
    ("files", "total"),
    [
        (SHARDS, 12),
        ({"model.safetensors": 3, "consolidated.safetensors": 3, "config.json": 1}, 3),  # the same weights in two formats
        ({"a.safetensors": 3, "b.safetensors": 4}, 7),  # an index may name them otherwise
        ({"model.safetensors": 3, "onnx/model.safetensors": 9}, 3),
        ({"config.json": 1}, 0),
        ({"model-00001-of-00002.safetensors": 5, "model-00002-of-00002.safetensors": None}, 0),  # of a mirror that keeps silent
        ({"model-00001-of-00002.safetensors": 5, "model-00002-of-00002.safetensors": 0}, 0),
        ({"model.safetensors": 5, "other.safetensors": None}, 5),  # which is not loaded
        ({}, 0),
    ],
)
def test_what_is_loaded_counts_once(files: dict[str, int | None], total: int) -> None:
    assert sizes.loaded(files) == total


def test_a_folder() -> None:
    assert of(str(TINY)) == WEIGHTS > 0


def test_a_bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    url = s3.url("models/sized")
    store = open_store(url)
    for name, size in SHARDS.items():
        store.write(name, bytes(size))
    store.write("below/model.safetensors", bytes(50))
    assert of(url) == 12


@pytest.mark.parametrize("source", ["/nowhere/at/all", "s3://nobody/model?endpoint=http://127.0.0.1:9&region=x"])
def test_what_cannot_be_seen_is_no_mistake(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert of(source) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"the size of {source} is not known: ")


@pytest.fixture(name="hub")
def hub_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[HfApi]:
    """A hub with one model, of two revisions."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            revision = "other" if "/revision/other" in self.path else "main"
            known = self.path.startswith("/api/models/somebody/model")
            files = [{"rfilename": name, "size": size * (2 if revision == "other" else 1)} for name, size in SHARDS.items()]
            whole = {"id": "somebody/model", "siblings": files if "blobs=true" in self.path.lower() else []}
            body = json.dumps(whole if known else {"error": "Repository not found"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token=False)
    server.shutdown()
    server.server_close()


def test_a_hub(hub: HfApi) -> None:
    assert of("somebody/model", hub=hub) == 12
    assert of("somebody/model", revision="other", hub=hub) == 24
    assert of("nobody/none", hub=hub) == 0


def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    assert of("somebody/model", hub=HfApi(endpoint="http://127.0.0.1:9", token=False)) == 0
