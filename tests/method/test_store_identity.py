"""Credentials that no Secret holds: what a cluster's webhook puts into pods (IRSA, EKS Pod Identity) is enough for a store."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`

from maft.store.urls import open_store

pytestmark = pytest.mark.s3
ROLE = "arn:aws:iam::123456789012:role/maft"


class Issuer(ThreadingHTTPServer):
    """An STS and a Pod Identity agent in one, which gives the S3 server's keys to whoever shows the pod's token."""

    def __init__(self, s3: S3Server, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.s3, self.token, self.asked = s3, token, list[str]()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Issuer

    @property
    def until(self) -> str:
        """From now on, however long ago the session began: keys that are about to expire are asked for again."""
        return (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append(asked["Action"][0])
        if asked["WebIdentityToken"] != [self.server.token] or asked["RoleArn"] != [ROLE]:
            return self._answer(403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")
        keys = (
            f"<AccessKeyId>{self.server.s3.access_key}</AccessKeyId><SecretAccessKey>{self.server.s3.secret_key}</SecretAccessKey>"
        )
        inner = f"<Credentials>{keys}<SessionToken></SessionToken><Expiration>{self.until}</Expiration></Credentials>"
        name = "AssumeRoleWithWebIdentity"
        return self._answer(200, f"<{name}Response><{name}Result>{inner}</{name}Result></{name}Response>")

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.headers["Authorization"] != self.server.token:
            return self._answer(403, "{}")
        keys = {"AccessKeyId": self.server.s3.access_key, "SecretAccessKey": self.server.s3.secret_key}
        return self._answer(200, json.dumps({**keys, "Token": "", "Expiration": self.until}))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def issuer(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """One that runs, and an environment without keys in which the pod's token lies in a file."""
    for name, value in s3.environment().items():
        if name.startswith("AWS_") and "KEY" not in name:
            monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text("token of the pod")
    with Issuer(s3, "token of the pod") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_service_account_with_a_role(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IRSA, and whatever else makes a web identity token."""
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    _used(issuer, "identity/irsa")
    assert issuer.asked == ["AssumeRoleWithWebIdentity"]


def test_an_agent_on_the_node(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EKS Pod Identity."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuer.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    _used(issuer, "identity/agent")
    assert issuer.asked == ["/v1/credentials"]


def _used(issuer: Issuer, prefix: str) -> None:
    store = open_store(issuer.s3.url(prefix))
    assert store.create("x", b"1") and not store.create("x", b"2")
    assert store.read("x") == b"1"
