"""An image of one static program, put into a registry by its HTTP API. Source: OCI distribution and image specifications."""

import gzip
import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LIMIT = 60.0  # seconds of one request
_MANIFEST, _CONFIG, _LAYER = (
    f"application/vnd.oci.image.{kind}" for kind in ("manifest.v1+json", "config.v1+json", "layer.v1.tar+gzip")
)
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def push(image: str, program: Path, inside: str) -> None:
    """Puts REGISTRY/NAME:TAG there, unless it is: the program at that path, run by nobody in particular."""
    host, _, rest = image.partition("/")
    name, _, tag = rest.rpartition(":")
    api = f"http://{host}/v2/{name}"
    if _is_there(f"{api}/manifests/{tag}"):
        return
    packed = _layer(inside.lstrip("/"), program.read_bytes())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [inside], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(packed))]},
    }
    described = {"config": _blob(api, _CONFIG, json.dumps(config).encode()), "layers": [_blob(api, _LAYER, packed)]}
    body = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, **described}).encode()
    _send("PUT", f"{api}/manifests/{tag}", body, _MANIFEST)


def _layer(name: str, program: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()


def _blob(api: str, kind: str, data: bytes) -> dict[str, Any]:
    """Uploads it; how a manifest names it."""
    place = urlsplit(_send("POST", f"{api}/blobs/uploads/", b"").headers["Location"])
    query = f"{place.query}&" if place.query else ""
    target = f"{place.scheme or 'http'}://{place.netloc or urlsplit(api).netloc}{place.path}?{query}digest={_digest(data)}"
    _send("PUT", target, data, "application/octet-stream")
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


def _is_there(url: str) -> bool:
    try:
        _send("HEAD", url, None, accept=_MANIFEST)
    except urllib.error.HTTPError as error:
        assert error.code == 404, error
        return False
    return True


def _send(method: str, url: str, data: bytes | None, kind: str = "", accept: str = "*/*") -> Any:
    headers = {"Accept": accept, **({"Content-Type": kind} if kind else {})}
    with _DIRECT.open(urllib.request.Request(url, data, headers, method=method), timeout=LIMIT) as response:
        response.read()
        return response


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
