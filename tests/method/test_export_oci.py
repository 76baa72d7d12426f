"""Adapters in an OCI registry: a real one, read back by another client and by plain HTTP, hash by hash."""

import base64
import hashlib
import json
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import oras.client
import pytest
import registries
from committed import RUN, adapter_files, put_iteration, put_report, put_run
from conftest import free_port
from handled import handled
from peft import PeftModel
from small import TINY
from transformers import AutoModelForCausalLM

from maft import committed_run
from maft.errors import BadInput
from maft.export import artifacts, targets
from maft.export.target import Request, Sent
from maft.store.base import Store
from maft.store.files import FileStore


@pytest.fixture(scope="module", name="registry")
def registry_fixture(tmp_path_factory) -> Iterator[str]:
    """HOST:PORT of an empty registry."""
    with registries.serving(tmp_path_factory.mktemp("registry")) as where:
        yield where


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FileStore(tmp_path / "runs")


def hand_on(store: Store, to: str, **more: Any) -> Sent:
    return targets.send("oci", Request(store, committed_run.read(store, RUN), to, **more))


def get(registry: str, path: str, accept: str = "*/*") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(f"http://{registry}/v2/{path}", headers={"Accept": accept})) as answer:
        return answer.read()


@pytest.mark.tools
def test_every_byte_is_in_the_registry_and_is_sent_once(store, registry):
    put_run(store)
    sent = hand_on(store, f"http://{registry}/team/demo:v1", license="apache-2.0")
    raw = get(registry, "team/demo/manifests/v1", artifacts.MANIFEST)
    manifest = json.loads(raw)
    assert sent.place == f"{registry}/team/demo:v1@sha256:{hashlib.sha256(raw).hexdigest()}"
    assert (manifest["artifactType"], manifest["config"]["mediaType"]) == (artifacts.MODEL, artifacts.CONFIG)
    layers = {layer["annotations"][artifacts.FILEPATH]: layer for layer in manifest["layers"]}
    weights = layers["generator-1/adapter_model.safetensors"]
    assert weights["mediaType"] == "application/vnd.cncf.model.weight.v1.raw"
    assert get(registry, f"team/demo/blobs/{weights['digest']}") == adapter_files(100)["adapter_model.safetensors"]
    for layer in layers.values():
        assert f"sha256:{hashlib.sha256(get(registry, 'team/demo/blobs/' + layer['digest'])).hexdigest()}" == layer["digest"]
    described = json.loads(get(registry, f"team/demo/blobs/{manifest['config']['digest']}"))
    assert described["descriptor"]["licenses"] == ["apache-2.0"]
    assert described["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    again = hand_on(store, f"http://{registry}/team/demo:v1", license="apache-2.0")
    assert (again.new, again.place) == (0, sent.place)


@pytest.mark.tools
def test_another_client_pulls_what_peft_loads(store, registry, tmp_path):
    put_run(store)
    hand_on(store, f"http://{registry}/pulled:v1", only=("critic-1",))
    pulled(f"{registry}/pulled:v1", tmp_path / "pulled")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY), tmp_path / "pulled" / "critic-1")
    assert model.peft_config["default"].r == 4


@pytest.mark.tools
def test_a_newer_iteration_moves_the_tag_and_the_older_stays_by_its_digest(store, registry):
    put_run(store)
    first = hand_on(store, f"http://{registry}/moved:latest").place.partition("@")[2]
    put_iteration(store, 2)
    second = hand_on(store, f"http://{registry}/moved:latest").place.partition("@")[2]
    assert first != second
    assert json.loads(get(registry, f"moved/manifests/{first}", artifacts.MANIFEST))["artifactType"] == artifacts.MODEL
    assert f"sha256:{hashlib.sha256(get(registry, 'moved/manifests/latest', artifacts.MANIFEST)).hexdigest()}" == second


@pytest.mark.tools
def test_the_report_is_an_artifact_of_its_own_and_is_sent_once(store, registry, tmp_path):
    put_run(store)
    to = f"http://{registry}/reported:v1"
    before = hand_on(store, to)
    files = put_report(store)
    sent = hand_on(store, to, report=True)
    assert (sent.place, sent.new) == (before.place, len(files))  # the adapters were there
    raw = get(registry, "reported/manifests/v1-report", artifacts.MANIFEST)
    manifest = json.loads(raw)
    assert (manifest["artifactType"], manifest["config"]["mediaType"]) == (artifacts.REPORT, artifacts.EMPTY)
    assert sent.lines == (f"oras pull {registry}/reported:v1-report@sha256:{hashlib.sha256(raw).hexdigest()}",)
    assert sent_to_registry(store) == {"v1": sent.place.partition("@")[2], "v1-report": sent.lines[0].partition("@")[2]}
    assert hand_on(store, to, report=True).new == 0
    pulled(f"{registry}/reported:v1-report", tmp_path / "pulled")
    assert {path.name: path.read_bytes() for path in (tmp_path / "pulled" / "report").iterdir()} == files


@pytest.mark.tools
@pytest.mark.parametrize("report", [None, False], ids=["unasked", "refused"])
def test_the_report_goes_there_where_it_is_asked_for(store, registry, report):
    put_run(store)
    name = f"unreported-{report}".lower()
    to = f"http://{registry}/{name}:v1"
    put_report(store)
    alone = hand_on(store, to, report=report)
    assert (alone.lines, set(sent_to_registry(store))) == ((), {"v1"})
    assert json.loads(get(registry, f"{name}/tags/list"))["tags"] == ["v1"]
    assert hand_on(store, to, report=report).new == 0
    both = hand_on(store, to, report=True)
    assert (both.place, len(both.lines)) == (alone.place, 1)


@pytest.mark.tools
def test_a_newer_report_moves_its_tag_alone(store, registry):
    put_run(store)
    to = f"http://{registry}/renewed:v1"
    reports = []
    for text in ("first", "second"):
        put_report(store, text=text)
        reports.append(hand_on(store, to, report=True))
    assert [sent.new for sent in reports] == [reports[0].new, 2]
    assert reports[0].place == reports[1].place
    assert reports[0].lines != reports[1].lines
    store.delete(list(store.list(f"{RUN}/export/")))  # the registry knows what it has
    assert hand_on(store, to, report=True).new == 0
    assert set(sent_to_registry(store)) == {"v1", "v1-report"}


def test_a_tag_that_leaves_no_room_for_that_of_the_report_is_refused_where_one_is_wanted(store):
    put_run(store)
    to = f"127.0.0.1:{free_port()}/demo:{'v' * 121}"
    with pytest.raises(BadInput, match=r"v: a tag of 122 characters; with the report at most 121: its own ends with -report$"):
        hand_on(store, f"{to}v", report=True)
    for name, report in ((to, True), (f"{to}v", None)):  # both go on to the registry, which is away
        with pytest.raises(OSError, match="is away"):
            hand_on(store, name, report=report)


def sent_to_registry(store: Store) -> dict[str, str]:
    """What the run's ledger says."""
    [key] = store.list(f"{RUN}/export/oci-")
    return json.loads(store.read(key))["sent"]


def pulled(reference: str, into: Path) -> None:
    oras.client.OrasClient(insecure=True).pull(reference, outdir=str(into))


@pytest.mark.parametrize(
    "to",
    [
        "",
        "demo:v1",
        "host/demo",
        "host/Demo:v1",
        "host/demo:",
        "ftp://host/demo:v1",
        "host:port/demo:v1",
        "host/../demo:v1",
        "host/d/:v1",
    ],
)
def test_what_names_no_place(store, to):
    put_run(store)
    with pytest.raises(BadInput, match="expected oci=HOST/NAME:TAG"):
        hand_on(store, to)


def test_credentials_in_an_address_are_not_repeated(store):
    put_run(store)
    with pytest.raises(BadInput, match="docker login") as error:
        hand_on(store, "user:hunter2@host/demo:v1")
    assert "hunter2" not in str(error.value)


class Refusing(BaseHTTPRequestHandler):
    """A registry that answers everything alike."""

    status = 0
    headers_more: dict[str, str] = {}

    def _answer(self) -> None:
        body = b'{"errors": [{"message": "no\\nway"}]}'
        self.send_response(self.status)
        for name, value in {**self.headers_more, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.mark.parametrize(
    ("status", "headers", "kind", "line"),
    [
        (403, {"WWW-Authenticate": 'Basic realm="r"'}, BadInput, "the registry wants a login; `docker login 127.0.0.1"),
        (401, {}, BadInput, "the registry wants a login"),
        (405, {}, BadInput, "status 405"),
        (429, {}, OSError, "status 429"),
        (503, {}, OSError, "status 503"),
    ],
)
def test_a_registry_that_refuses_is_one_line(store, status, headers, kind, line):
    put_run(store)
    refusing = type("Handler", (Refusing,), {"status": status, "headers_more": headers})
    with handled(refusing) as url, pytest.raises(kind, match=line) as error:
        hand_on(store, f"{url}/demo:v1")
    assert "\n" not in str(error.value)


class Guarded(BaseHTTPRequestHandler):
    """A registry that takes what it is given from whoever has logged in."""

    scheme = ""
    taken: dict[str, bytes]

    def _answer(self) -> None:
        data, given = self.rfile.read(int(self.headers.get("Content-Length") or 0)), self.headers.get("Authorization", "")
        port = self.server.server_address[1]
        if self.path.startswith("/token"):
            return self._send(200 if given == f"Basic {LOGIN}" else 401, body=b'{"token": "t0"}')
        if given != ("Bearer t0" if self.scheme == "Bearer" else f"Basic {LOGIN}"):
            realm = (
                f'Bearer realm="http://127.0.0.1:{port}/token",service="s",scope="x"'
                if self.scheme == "Bearer"
                else 'Basic realm="r"'
            )
            return self._send(401, **{"WWW-Authenticate": realm})
        if self.command == "PUT":
            self.taken[self.path] = data
            return self._send(201)
        return self._send(202, Location="/upload") if self.command == "POST" else self._send(404)

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


LOGIN = base64.b64encode(b"somebody:hunter2").decode()


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_the_login_is_that_of_docker(store, tmp_path, monkeypatch, scheme):
    put_run(store)
    taken: dict[str, bytes] = {}
    with handled(type("Handler", (Guarded,), {"scheme": scheme, "taken": taken})) as url:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {url.removeprefix("http://"): {"auth": LOGIN}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        sent = hand_on(store, f"{url}/demo:v1")
    for path, data in taken.items():
        assert path == "/v2/demo/manifests/v1" or path.endswith(f"digest=sha256:{hashlib.sha256(data).hexdigest()}")
    manifest = json.loads(taken["/v2/demo/manifests/v1"])
    wanted = {layer["digest"] for layer in [manifest["config"], *manifest["layers"]]}
    assert {path.partition("digest=")[2] for path in taken} - {""} == wanted
    assert sent.new == len(manifest["layers"])


def test_a_registry_that_is_away(store):
    put_run(store)
    port = free_port()
    with pytest.raises(OSError, match=rf"^--to oci: 127\.0\.0\.1:{port} is away: \[Errno 111\] Connection refused$"):
        hand_on(store, f"http://127.0.0.1:{port}/demo:v1")


@pytest.mark.tools
def test_a_registry_without_tls_that_was_meant_with_it(store, registry):
    put_run(store)
    with pytest.raises(OSError, match=r"; http:// before HOST for a registry without TLS$"):
        hand_on(store, f"{registry}/demo:v1")


def test_a_run_that_trained_nothing_asks_no_registry(store):
    put_run(store, trained=False)
    with pytest.raises(BadInput, match="nothing was trained"):
        hand_on(store, f"http://127.0.0.1:{free_port()}/demo:v1")
