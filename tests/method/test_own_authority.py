"""A store and a registry whose certificates an own authority has signed, and the variables of docs/operations.md that trust it."""

import contextlib
import dataclasses
import json
import re
import socketserver
import ssl
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from certified import certified
from committed import put_run
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from small import ROOT
from test_export_oci import LOGIN, Guarded, hand_on
from unreliable import Unreliable

from maft.store.base import Passing
from maft.store.check import check
from maft.store.files import FileStore
from maft.store.patience import Patience
from maft.store.urls import open_store

ONCE = Patience(0.0)


class Trust:
    """The page's variables, all of which point at one bundle."""

    def __init__(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page = (ROOT / "docs" / "operations.md").read_text()
        self.names = re.findall(r"name: (\w+), value: /etc/trust/ca-bundle\.crt", page)
        self._bundle, self._monkeypatch = bundle, monkeypatch

    def all_but(self, *names: str) -> None:
        """Sets them, apart from these."""
        assert {*names} <= {*self.names}
        for name in self.names:
            if name in names:
                self._monkeypatch.delenv(name, raising=False)
            else:
                self._monkeypatch.setenv(name, str(self._bundle))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that nobody knows, which is its own authority, and its key."""
    return certified(tmp_path / "tls")


@pytest.fixture
def trust(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Trust:
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)  # requests reads it as well
    return Trust(files[0], monkeypatch)


@contextlib.contextmanager
def over_tls(server: socketserver.TCPServer, files: tuple[Path, Path]) -> Iterator[str]:
    """HOST:PORT of the server as long as the block lasts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.s3
def test_the_store_is_trusted_by_its_own_variable(
    s3: S3Server, files: tuple[Path, Path], trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    with over_tls(Unreliable(s3.endpoint), files) as host:
        url = dataclasses.replace(s3, endpoint=f"https://{host}").url("own-authority")
        trust.all_but("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")  # botocore reads either
        with pytest.raises(Passing, match="CERTIFICATE_VERIFY_FAILED"):
            check(open_store(url), "run/", ONCE)
        trust.all_but("REQUESTS_CA_BUNDLE")
        check(open_store(url), "run/", ONCE)


def test_a_registry_is_trusted_by_its_own_variable(
    files: tuple[Path, Path], trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, taken = FileStore(tmp_path / "runs"), dict[str, bytes]()
    put_run(store)
    handler = type("Handler", (Guarded,), {"scheme": "Basic", "taken": taken})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with over_tls(ThreadingHTTPServer(("127.0.0.1", 0), handler), files) as host:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": LOGIN}}}))
        trust.all_but("REQUESTS_CA_BUNDLE")
        with pytest.raises(OSError, match=r"is away: .*CERTIFICATE_VERIFY_FAILED"):
            hand_on(store, f"{host}/demo:v1")
        assert not taken
        trust.all_but()
        hand_on(store, f"{host}/demo:v1")
    assert "/v2/demo/manifests/v1" in taken
