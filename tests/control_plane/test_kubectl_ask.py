"""`kubectl maft ask`: the debate of a real society's program, reached by what kubectl says of its port-forward."""

import base64
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import free_port, serving
from societies import QUESTION, endpoint, mock_server, trained
from test_bundle import NS
from test_kubectl_logs import SECRETS, World, called

from maft_operator.spec.schema import Json

pytestmark = pytest.mark.programs
KEY = "key-of-the-tests"


def society(ready: str = "True", **spec: object) -> Json:
    condition = {"type": "Ready", "status": ready, "reason": "RunUnfinished", "message": "the run goes on"}
    return {"metadata": {"name": "s", "namespace": NS}, "spec": spec, "status": {"conditions": [condition]}}


class Societies(World):
    """An API server with one Society."""

    def __init__(self, made: Json | None, secret: Json | None = None) -> None:
        super().__init__(run={}, secret=secret)
        self.made = made

    async def answer(self, request):
        from aiohttp import web

        if request.path == f"/apis/maft.dev/v1alpha1/namespaces/{NS}/societies/s":
            return web.json_response(self.made or {"message": "not found"}, status=200 if self.made else 404)
        return await super().answer(request)


def kubectl(folder: Path, *lines: str) -> dict[str, str]:
    """A stand-in that says what kubectl says, notes how it was called, and stays until it is ended."""
    program = folder / "kubectl"
    program.write_text("\n".join(["#!/bin/sh", f'echo "$@" > {folder}/called', *lines, ""]))
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(name="port")
def port_fixture(tmp_path: Path) -> Iterator[int]:
    """The society's program as a Society's pod runs it; it wants a key."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "team").write_text(KEY)
    spec, port = trained(tmp_path / "store"), free_port()
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(mock_server(spec, tmp_path))
        line = endpoint(tmp_path / "store", port, engine, None, f"--keys={tmp_path / 'keys'}")
        stack.enter_context(serving(line, port, tmp_path / "endpoint.txt", 60))
        yield port


@pytest.mark.parametrize(
    ("spec", "url", "port"),
    [
        ({"tls": {"secretName": "c"}}, "https://s.team.svc/v1", ":443"),
        ({"tls": {"secretName": "c"}}, "http://s.team.svc/v1", ":80"),  # pods of before the certificate answer as yet
        ({}, "https://s.team.svc/v1", ":443"),
        ({"tls": {"secretName": "c"}, "ingress": {"host": "h"}}, "http://h/v1", ":443"),
        ({"ingress": {"host": "h"}}, "https://h/v1", ":80"),
    ],
)  # fmt: skip
def test_it_takes_the_port_of_those_that_answer(spec: dict[str, object], url: str, port: str, tmp_path: Path) -> None:
    made = society(**spec)
    made["status"]["url"] = url
    called(Societies(made), tmp_path, "ask", "s", QUESTION, **kubectl(tmp_path, *stands(1)))
    assert (tmp_path / "called").read_text().split()[-1] == port


def stands(port: int) -> tuple[str, ...]:
    return (f'echo "Forwarding from 127.0.0.1:{port} -> 8080"', "exec sleep 600")


def test_a_debate_and_its_answer(port: int, tmp_path: Path) -> None:
    forwarding = kubectl(tmp_path, *stands(port))
    done = called(Societies(society()), tmp_path, "ask", "s", QUESTION, "--context", "c", MAFT_API_KEY=KEY, **forwarding)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("round 1, agent ") and "margin" in lines[-1]
    asked = (tmp_path / "called").read_text().split()
    assert asked == ["--context=c", "--namespace", NS, "port-forward", "--address=127.0.0.1", "service/s", ":80"]
    left = subprocess.run(["pgrep", "-f", f"{tmp_path}/kubectl"], capture_output=True, text=True)
    assert not left.stdout  # nothing goes on forwarding

    secret = {"data": {"team": base64.b64encode(KEY.encode()).decode()}}
    own = Societies(society(apiKeysSecret={"name": "keys"}), secret)
    assert called(own, tmp_path, "ask", "s", QUESTION, "--model", "society/majority", "--secret", **forwarding).returncode == 0
    without = called(Societies(society()), tmp_path, "ask", "s", QUESTION, MAFT_API_KEY="", **forwarding)
    assert without.returncode == 2 and b"set MAFT_API_KEY" in without.stderr and without.stderr.count(b"\n") == 1
    unknown = called(Societies(society()), tmp_path, "ask", "s", QUESTION, "--model", "x", MAFT_API_KEY=KEY, **forwarding)
    assert unknown.returncode == 2 and unknown.stderr.startswith(b"error: ") and b"society/majority" in unknown.stderr


@pytest.mark.parametrize(
    ("made", "flags", "lines", "code", "words"),
    [
        (None, (), (), 2, "error: society team/s: there is none of that name; "),
        (society("False"), (), (), 2, "error: society team/s: does not answer yet: RunUnfinished: the run goes on\n"),
        (society(), ("--secret",), (), 2, "error: --secret: the society names no spec.apiKeysSecret; "),
        (society(apiKeysSecret={"name": "keys"}), ("--secret",), (), 1, f"error: 403: may not get {SECRETS}/keys\n"),
        (society(), (), ("echo 'error: no pod runs' >&2", "exit 1"), 1, "error: kubectl port-forward: error: no pod runs\n"),
        (society(), (), stands(1), 1, "error: http://127.0.0.1:1 does not answer: "),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(
    made: Json | None, flags: tuple[str, ...], lines: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    done = called(Societies(made), tmp_path, "ask", "s", QUESTION, *flags, **kubectl(tmp_path, *lines))
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert done.stderr.decode().startswith(words) and done.stderr.count(b"\n") == 1


def test_without_kubectl(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = called(Societies(society()), tmp_path, "ask", "s", QUESTION, PATH=str(tmp_path / "empty"))
    assert done.returncode == 2 and done.stderr.startswith(b"error: kubectl: not on the PATH; ") and sys.executable
