"""A hub on loopback with one repository, which speaks as the Hugging Face hub does, large files included."""

import base64
import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from handled import handled

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


@contextlib.contextmanager
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """Serves one; its URL, and what it has seen."""
    handler = type("Handler", (Hub,), {"files": {}, "large": {}, "made": [], "commits": [], "refuse": {}})
    with handled(handler) as url:
        yield url, handler


def environment(url: str, home: Path, token: str = TOKEN) -> dict[str, str]:
    """What the hub's own library needs to use it, and nothing of this machine's."""
    return {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
