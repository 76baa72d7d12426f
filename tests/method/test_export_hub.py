"""Adapters on a hub: what its own library sends to a small server that speaks as the hub does, large files included."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from committed import RUN, adapter_files, put_iteration, put_run
from conftest import free_port
from small import TINY

from maft.store.files import FileStore

pytestmark = pytest.mark.programs
TOKEN = "hf_secret"


class Hub(BaseHTTPRequestHandler):
    """One repository: small files come in the commit, weights by LFS."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    large: dict[str, bytes]
    made: list[dict[str, Any]]
    commits: list[str]
    refuse: dict[str, Any]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.refuse:
            return self._send(self.refuse["status"], {"error": "no"})
        if not self.path.startswith("/put/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "who?"})
        self._send(200, self._reply(body))

    def _reply(self, body: bytes) -> dict[str, Any]:
        here = f"http://127.0.0.1:{self.server.server_address[1]}"
        if self.path.endswith("/repos/create"):
            self.made.append(json.loads(body))
            return {"url": f"{here}/team/demo"}
        if "/preupload/" in self.path:
            paths = [entry["path"] for entry in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            return {"files": [{"path": p, "uploadMode": mode[p.endswith(".safetensors")], "shouldIgnore": False} for p in paths]}
        if self.path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            return {
                "transfer": "basic",
                "objects": [{**o, "actions": {"upload": {"href": f"{here}/put/{o['oid']}"}}} for o in objects],
            }
        if self.path.startswith("/put/"):
            self.large[self.path.rpartition("/")[2]] = body
            return {}
        if "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"{here}/team/demo/commit/abc", "commitOid": "abc", "success": True}
        return {"id": "team/demo", "sha": "abc", "siblings": []}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]

    def _send(self, status: int, reply: dict[str, Any]) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_HEAD = _answer

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(name="hub")
def hub_fixture() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("Handler", (Hub,), {"files": {}, "large": {}, "made": [], "commits": [], "refuse": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def export(tmp_path: Path, url: str, to: str = "team/demo", token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "maft.export", "--store", str(tmp_path / "runs"), "--run", RUN, f"--to=hub={to}"]
    variables = {
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
    }
    return subprocess.run(line, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120)


def test_every_file_arrives_whole_once_and_again_when_it_is_newer(tmp_path, hub):
    url, handler = hub
    store = FileStore(tmp_path / "runs")
    put_run(store)
    done = export(tmp_path, url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"hub: {url}/team/demo (1 new)\n"
    assert handler.files["generator-1/adapter_model.safetensors"] == adapter_files(100)["adapter_model.safetensors"]
    assert all(hashlib.sha256(data).hexdigest() == oid for oid, data in handler.large.items())
    card = handler.files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == str(TINY)
    assert "`critic-2`" in card
    assert handler.made[0].get("visibility", handler.made[0].get("private")) in ("private", True)

    assert export(tmp_path, url).stdout == f"hub: {url}/team/demo (all there before)\n"
    assert handler.commits == [f"{RUN}, iteration 1"]
    put_iteration(store, 2)
    assert export(tmp_path, url).returncode == 0
    assert handler.commits == [f"{RUN}, iteration 1", f"{RUN}, iteration 2"]
    assert handler.files["generator-1/adapter_model.safetensors"] == adapter_files(200)["adapter_model.safetensors"]


def test_a_hub_that_refuses_or_is_away_is_one_line(tmp_path, hub):
    url, handler = hub
    put_run(FileStore(tmp_path / "runs"))
    wrong = export(tmp_path, url, token="hf_wrong")
    assert (wrong.returncode, "status 401" in wrong.stderr.splitlines()[-1]) == (2, True)
    assert "hf_wrong" not in wrong.stdout + wrong.stderr
    away = export(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert (away.returncode, "the hub is away" in away.stderr.splitlines()[-1]) == (1, True)
    name = export(tmp_path, url, to="demo")
    assert (name.returncode, name.stderr) == (2, "error: --to hub=demo: expected OWNER/NAME\n")
    assert handler.commits == []
