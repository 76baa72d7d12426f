"""HTTP as targets need it: one request, its answer, and every fault as one line that says whether trying again may help."""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from maft.errors import BadInput, one_line

LIMIT = 60.0  # seconds that an answer may let us wait
MOST = 16 << 20  # bytes that are read of an answer
SHOWN = 200  # characters of an answer that refuses
_MAY_PASS = (408, 425, 429)  # beside 5xx


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    status: int
    headers: Message
    body: bytes

    def json(self, where: str) -> Any:
        """Decodes it; OSError where it is no JSON, as of a proxy in between."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise OSError(f"{where}: the answer is no JSON: {one_line(self.body[:SHOWN].decode(errors='replace'))}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: another host would get the credentials."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Client:
    """Asks one server. what: the target, for messages."""

    what: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ask(self, method: str, url: str, body: bytes | Path | None = None, accept: tuple[int, ...] = (), **headers: str) -> Answer:
        """Sends one request. accept: statuses beside 2xx that are answers, too. headers: names with _ for -.

        BadInput where the server refuses it, OSError where it is away or busy."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, method=method, headers={**self.headers, **named})
        try:
            if isinstance(body, Path):
                with body.open("rb") as opened:
                    request.data = opened
                    request.add_header("Content-Length", str(body.stat().st_size))
                    return self._answer(request)
            request.data = body
            return self._answer(request)
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, error.headers, error.read(MOST))
            if error.code in accept:
                return answer
            raise self._refused(method, url, answer) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise OSError(f"--to {self.what}: {public(url)} is away: {one_line(reason)}") from None

    def _answer(self, request: urllib.request.Request) -> Answer:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=LIMIT) as answer:
            return Answer(answer.status, answer.headers, answer.read(MOST))

    def _refused(self, method: str, url: str, answer: Answer) -> BadInput | OSError:
        text = one_line(answer.body[:SHOWN].decode(errors="replace"))
        shown = f": {text}" if text and not text.startswith("<") else ""  # a page for browsers says nothing in one line
        line = f"--to {self.what}: {method} {public(url)}: status {answer.status}{shown}"
        return (OSError if may_pass(answer.status) else BadInput)(line)


def may_pass(status: int) -> bool:
    """Tells whether trying again may help against a refusal of that status."""
    return status >= 500 or status in _MAY_PASS


def public(url: str) -> str:
    """Returns a URL without its user, its password and its query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def server(what: str, url: str) -> str:
    """Checks the address of a server; BadInput for what is none."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        fine = fine and not parts.query and not parts.fragment  # paths of the API come behind it
    except ValueError:
        fine = False
    if not fine or not url.isascii() or not url.isprintable() or " " in url:
        raise BadInput(f"--to {what}={url}: expected http://HOST:PORT or https://HOST")
    if "@" in parts.netloc:
        raise BadInput(f"--to {what}={public(url)}: credentials in the address; give them in variables (docs/exporting.md)")
    return url.rstrip("/")


def sendable(variable: str, value: str) -> str:
    """Returns what can be a header; BadInput, without the value, for what cannot: the library's own words would show it."""
    if not (value.isascii() and value.isprintable()):
        raise BadInput(f"{variable}: holds what no header takes; expected letters, digits and signs on one line")
    return value


def authorization(token: str, user: str, password: str) -> dict[str, str]:
    """Makes the header of a token, else of a user and a password, which are names of variables; none where none is set."""
    if given := os.environ.get(token, "").strip():
        return {"Authorization": f"Bearer {sendable(token, given)}"}
    if name := os.environ.get(user):
        pair = f"{name}:{os.environ.get(password, '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}
