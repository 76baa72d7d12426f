"""How long a debate waits for servers that are away: a constant, and what a server may take to start."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from small import a_spec
from test_shards import RUN, with_questions

from maft.debate import __main__ as debate
from maft.debate import session
from maft.program import Assignment
from maft.records import BASE

ALONE = 0.5  # seconds, in place of minutes
AWAY = 1.0  # seconds, from when it is first asked
LISTING = {"data": [{"id": BASE, "max_model_len": 512}]}
COMPLETION = {
    "choices": [{"text": "Answer: 1", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}


class Handler(BaseHTTPRequestHandler):
    """503 while the server is away, then as vLLM."""

    server: "Away"

    def do_GET(self) -> None:
        self._answer(LISTING)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(COMPLETION)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, what: object) -> None:
        there = self.server.is_there()
        body = msgspec.json.encode(what) if there else b""
        self.send_response(200 if there else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Away(ThreadingHTTPServer):
    """Comes back so many seconds after it was first asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds = AWAY
        self.asked: list[float] = []

    def is_there(self) -> bool:
        self.asked.append(time.monotonic())
        return self.asked[-1] > self.asked[0] + self.seconds


@pytest.fixture
def server() -> Iterator[Away]:
    with Away() as away:
        threading.Thread(target=away.serve_forever, args=(0.05,), daemon=True).start()
        yield away
        away.shutdown()


def debated(server: Away, folder: Path, startup_seconds: int) -> int:
    """Debates seven questions and the probe; tells how many."""
    spec = a_spec(agents=2, debate={"rounds": 2, "critics": False})
    spec = replace(spec, inference=replace(spec.inference, startup_seconds=startup_seconds))
    servers = {"server": [f"http://127.0.0.1:{server.server_port}"]}
    return debate.main(Assignment(with_questions(folder), RUN, spec, 1, servers=servers)).questions


def test_a_server_may_be_away_for_longer_than_the_constant_as_far_as_it_may_take_to_start(
    server: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PATIENCE", ALONE)
    assert debated(server, tmp_path, 30) == 7
    assert sum(moment <= server.asked[0] + AWAY for moment in server.asked) > 1  # it was asked while it was away


@pytest.mark.parametrize(("constant", "startup_seconds", "both"), [(ALONE, 0, "0"), (1.0, 1, "2")])
def test_a_server_that_is_away_for_longer_than_both_ends_the_debate(
    constant: float, startup_seconds: int, both: str, server: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.seconds = float("inf")
    monkeypatch.setattr(session, "PATIENCE", constant)
    with pytest.raises(OSError, match=rf"server server: http://\S+ away for more than {both} s"):
        debated(server, tmp_path, startup_seconds)
