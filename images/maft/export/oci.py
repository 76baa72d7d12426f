"""`--to oci`: the adapters as one ModelPack artifact of an OCI registry, and the report as one of its own.

Equal commits give the manifest of equal digest: what is there is not sent again, and files that several artifacts share lie there
once. Credentials are those of docker's configuration. Source: the OCI distribution specification.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from maft.errors import BadInput, one_line
from maft.export import artifacts
from maft.export.artifacts import MANIFEST, Artifact
from maft.export.ledger import Ledger
from maft.export.target import Request, Sent

LIMIT = 60.0  # seconds that an answer may let us wait
_REPORT = "-report"  # how the report's tag ends
LONGEST = 128 - len(_REPORT)  # characters of a tag that has a report
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

    def digest(self, tag: str) -> str:
        """Returns the digest of the manifest under a tag; empty where there is none."""
        answer = self._ask("HEAD", f"manifests/{tag}", accept=(404,), headers={"Accept": MANIFEST})
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

    def manifest(self, tag: str, data: bytes) -> None:
        """Puts a manifest under a tag."""
        self._ask("PUT", f"manifests/{tag}", data=data, headers={"Content-Type": MANIFEST})

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
    """Pushes what the registry does not have: the adapters under the tag, the report under one of its own."""
    where = check(request.to)
    if request.report and len(where.tag) > LONGEST:
        raise BadInput(
            f"--to oci={request.to}: a tag of {len(where.tag)} characters; with the report at most {LONGEST}:"
            f" its own ends with {_REPORT}"
        )
    ledger = Ledger(request.store, request.run.key, "oci", where.reference)
    registry, files = Registry(where), request.report_files()
    with TemporaryDirectory() as scratch:
        made = {where.tag: artifacts.adapters(request, Path(scratch))}
        if files:
            made[where.tag + _REPORT] = artifacts.report(request, files, Path(scratch))
        new = sum(_push(registry, tag, artifact) for tag, artifact in made.items())
    digests = {tag: artifact.digest for tag, artifact in made.items()}
    if ledger.missing(digests):
        ledger.arrived(digests[where.tag], digests)
    places = [f"{where.host}/{where.name}:{tag}@{digest}" for tag, digest in digests.items()]
    return Sent(places[0], new, tuple(f"oras pull {place}" for place in places[1:]))


def _push(registry: Registry, tag: str, artifact: Artifact) -> int:
    """Uploads files first, then the manifest that names them; returns how many layers the tag got, 0 if it has them."""
    if registry.digest(tag) == artifact.digest:
        return 0
    for digest, path in (*artifact.layers, artifact.config):
        registry.blob(path, digest)
    registry.manifest(tag, artifact.manifest)
    return len(artifact.layers)
