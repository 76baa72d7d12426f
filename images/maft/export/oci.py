"""`--to oci`: the adapters as one ModelPack artifact of an OCI registry: a file is a layer, and nothing is packed.

Equal commits give the manifest of equal digest: what is there is not sent again, and files that several artifacts share lie there
once. Credentials are those of docker's configuration. Source: OCI distribution and image specifications, CNCF's model-spec.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from maft.errors import BadInput, one_line
from maft.export import folders, society
from maft.export.ledger import Ledger
from maft.export.target import Request, Sent
from maft.store.uploads import measured

LIMIT = 60.0  # seconds that an answer may let us wait
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
_LAYERS = {".safetensors": "weight", ".json": "weight.config", ".md": "doc"}  # by the end of a file's name
_REFERENCE = re.compile(r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*):(?P<tag>\w[\w.-]{0,127})", re.ASCII)
_MAY_PASS = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an artifact goes."""

    host: str
    name: str
    tag: str
    scheme: str = "https"

    @property
    def reference(self) -> str:
        """Writes it as registries' clients do."""
        return f"{self.host}/{self.name}:{self.tag}"


def check(to: str) -> Place:
    """Reads `[http://]HOST[:PORT]/NAME:TAG`; BadInput for anything else."""
    whole = to if "://" in to else f"https://{to}"
    try:
        parts = urlsplit(whole)
        host, match = parts.netloc, _REFERENCE.fullmatch(parts.path.removeprefix("/"))
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine, host, match = False, "", None
    if "@" in host:
        raise BadInput("--to oci: credentials in the address; `docker login` keeps them in its configuration")
    if not fine or match is None:
        raise BadInput(f"--to oci={to}: expected oci=HOST/NAME:TAG, in small letters; http:// before it for one without TLS")
    return Place(host, match["name"], match["tag"], parts.scheme)


class Registry:
    """A repository of a registry, with the credentials that docker keeps for it."""

    def __init__(self, where: Place) -> None:
        from oras.provider import Registry as Client

        self._where = where
        self._client: Any = Client(where.host, insecure=where.scheme == "http")
        folder = os.environ.get("DOCKER_CONFIG")
        self._client.auth.load_configs(self._client.get_container(where.reference), [f"{folder}/config.json"] if folder else None)

    def digest(self) -> str:
        """Returns the digest of the manifest under the tag; empty where there is none."""
        answer = self._ask("HEAD", f"manifests/{self._where.tag}", accept=(404,), headers={"Accept": MANIFEST})
        return str(answer.headers.get("Docker-Content-Digest", "")) if answer.status_code == 200 else ""

    def blob(self, path: Path, digest: str) -> bool:
        """Uploads a file, unless it is there; tells whether it was not."""
        if self._ask("HEAD", f"blobs/{digest}", accept=(404,)).status_code == 200:
            return False
        session = self._ask("POST", "blobs/uploads/").headers.get("Location", "")
        if not session:
            raise OSError(f"--to oci: {self._where.host} begins an upload and does not say where")
        target = session if "://" in session else f"{self._where.scheme}://{self._where.host}{session}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        with path.open("rb") as opened:
            self._ask("PUT", f"{target}{'&' if '?' in target else '?'}digest={digest}", data=opened, headers=headers)
        return True

    def manifest(self, data: bytes) -> None:
        """Puts the manifest under the tag."""
        self._ask("PUT", f"manifests/{self._where.tag}", data=data, headers={"Content-Type": MANIFEST})

    def _ask(self, method: str, path: str, accept: tuple[int, ...] = (), **more: Any) -> Any:
        """Sends one request: BadInput where it is refused, OSError where the registry is away or busy."""
        where = self._where
        url = path if "://" in path else f"{where.scheme}://{where.host}/v2/{where.name}/{path}"
        try:
            answer = self._answer(method, url, **more)
        except ValueError:  # oras has no answer to what it is asked for
            raise BadInput(f"--to oci: {where.reference}: the registry wants a login; `docker login {where.host}`") from None
        except OSError as error:  # of requests, too
            raise OSError(f"--to oci: {where.host} is away: {_reason(error)}") from None
        if answer.status_code < 300 or answer.status_code in accept:
            return answer
        text = one_line(answer.text, 200)
        line = f"--to oci: {where.reference}: {method}: status {answer.status_code}" + (f": {text}" if text else "")
        raise (OSError if answer.status_code >= 500 or answer.status_code in _MAY_PASS else BadInput)(line)

    def _answer(self, method: str, url: str, headers: Mapping[str, str] | None = None, data: Any = None) -> Any:
        """Asks, and where the registry wants to know who does, once more. The client's own function would try for minutes, without
        a limit of time."""
        client, known = self._client, self._client.auth.get_auth_header() if getattr(self._client.auth, "token", None) else {}
        answer = client.session.request(method, url, headers={**(headers or {}), **known}, data=data, timeout=LIMIT)
        if answer.status_code not in (401, 403):
            return answer
        named = self._login(answer, headers or {}, refresh=bool(known))
        if data is not None and not isinstance(data, bytes):
            data.seek(0)
        return client.session.request(method, url, headers=named, data=data, timeout=LIMIT)

    def _login(self, answer: Any, headers: Mapping[str, str], *, refresh: bool) -> Mapping[str, str]:
        """Answers what the registry asks: with a token for docker's credentials, or with these. ValueError if it cannot."""
        basic = getattr(self._client.auth, "_basic_auth", "")
        if basic and answer.headers.get("WWW-Authenticate", "").lower().startswith("basic"):
            return {**headers, "Authorization": f"Basic {basic}"}
        named, changed = self._client.auth.authenticate_request(answer, dict(headers), refresh=refresh)
        if not changed:
            raise ValueError("no credentials")
        return dict(named)


def _reason(error: OSError) -> str:
    """Says why without the names of the libraries around it."""
    inner = getattr(error.args[0], "reason", error) if error.args else error
    text = one_line(inner, 200).rpartition(": Failed to establish a new connection: ")[2]
    return f"{text}; http:// before HOST for a registry without TLS" if "WRONG_VERSION_NUMBER" in text else text


def send(request: Request) -> Sent:
    """Pushes the artifact unless the registry has it."""
    where = check(request.to)
    ledger = Ledger(request.store, request.run.key, "oci", where.reference)
    registry = Registry(where)
    with TemporaryDirectory() as scratch:
        top = Path(scratch)
        folders.put_adapters(request, request.agents(), top)
        config = top / "config"
        layers = [_layer(path, top) for path in sorted(top.rglob("*")) if path.is_file()]
        config.write_bytes(_config(request, layers))
        manifest = _manifest(request, _descriptor(config, CONFIG), layers)
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        if registry.digest() == digest:
            return Sent(f"{where.reference}@{digest}", 0)
        for layer in layers:
            registry.blob(top / layer["annotations"][FILEPATH], layer["digest"])
        registry.blob(config, _descriptor(config, CONFIG)["digest"])
        registry.manifest(manifest)
    ledger.known_as(digest)
    return Sent(f"{where.reference}@{digest}", len(layers))


def _descriptor(path: Path, kind: str) -> dict[str, Any]:
    size, sha256 = measured(path)
    return {"mediaType": kind, "digest": f"sha256:{sha256}", "size": size}


def _layer(path: Path, top: Path) -> dict[str, Any]:
    kind = f"application/vnd.cncf.model.{_LAYERS.get(path.suffix, 'weight.config')}.v1.raw"
    name = str(path.relative_to(top))
    return {**_descriptor(path, kind), "annotations": {FILEPATH: name, TITLE: name}}  # ModelPack's clients read one, oras the other


def _config(request: Request, layers: list[dict[str, Any]]) -> bytes:
    """What ModelPack says of a model. No times: equal commits give equal bytes."""
    licenses = {"licenses": [request.license]} if request.license else {}
    sources = ", ".join(society.sources(society.spec(request.run)))
    facts: Mapping[str, Any] = {
        "descriptor": {
            "name": request.name,
            "title": f"Adapters of {sources}",
            "baseModel": sources,
            **licenses,
        },
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
        "config": {"format": "safetensors"},
    }
    return json.dumps(facts, sort_keys=True).encode()


def _manifest(request: Request, config: Mapping[str, Any], layers: list[dict[str, Any]]) -> bytes:
    notes = {TITLE: request.name, "dev.maft.run": request.run.key}
    whole = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT, "config": config, "layers": layers}
    return json.dumps({**whole, "annotations": notes}, sort_keys=True).encode()
