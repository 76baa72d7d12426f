"""`maft run --export`: results reach their targets while the run goes on, and a target that is away is no fault of the run."""

import asyncio
import contextlib
import io
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from committed import AGENTS, put_run
from conftest import MOCK, resource, write
from handled import handled
from rich.console import Console

from maft.store.files import FileStore
from maft_operator.__main__ import main
from maft_operator.local.exports import Exports, flags, wanted
from maft_operator.plan import graph as plan
from maft_operator.spec.parse import parse
from maft_operator.spec.schema import BadSpec

pytestmark = pytest.mark.run
MLFLOW, OTEL = {"to": "mlflow", "address": "http://h"}, {"to": "otel", "address": "http://h"}  # a collector gets no report anyway
HUB, OCI = {"to": "hub", "address": "a/b"}, {"to": "oci", "address": "h/a:v"}
YES, NO = {"report": True}, {"report": False}
LIMIT = 300.0  # seconds for a whole small run on two busy cores


def run(folder: Path, *more: str, **spec_: Any) -> subprocess.CompletedProcess[str]:
    spec = write(folder / "run.yaml", resource(agents=2, iterations=2, **spec_))
    line = [sys.executable, "-m", "maft_operator", "run", str(spec), "--serve", f"{sys.executable} {MOCK}", *more]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=LIMIT)


class Collector(BaseHTTPRequestHandler):
    """Refuses the first request and keeps names of spans of the others."""

    requests: list[list[str]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        spans = [span["name"] for r in body["resourceSpans"] for scope in r["scopeSpans"] for span in scope["spans"]]
        self.requests.append(spans)
        self.send_response(503 if len(self.requests) == 1 else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.mark.nightly
def test_a_target_that_was_away_has_all_in_the_end(tmp_path):
    handler = type("Handler", (Collector,), {"requests": []})
    with handled(handler) as url:
        done = run(tmp_path, "--export=peft=adapters", export=[{"to": "otel", "address": url}])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Exported: peft=adapters, otel={url}" in done.stdout
    first, *later = handler.requests
    names = [name for request in later for name in request]
    assert len(names) == len(set(names))
    assert {"evaluation, iteration 0", "evaluation, iteration 2", "maft run default/test", *first} <= set(names)
    assert (tmp_path / "adapters" / "generator-1" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("targets", "flag"),
    [
        ([], []),
        ([MLFLOW, HUB, OCI, OTEL], []),
        ([{**MLFLOW, **YES}, {**HUB, **NO}, OCI], []),  # as their kinds have it
        ([MLFLOW, {**HUB, **YES}, OTEL], ["--report"]),
        ([{**MLFLOW, **NO}, HUB, {**OTEL, **YES}], ["--no-report"]),
    ],
)
def test_each_target_gets_the_report_or_not_as_it_would_alone(targets, flag):
    run = parse(resource(export=targets))
    line = flags(wanted(["peft"], run), "runs", run)
    assert [word for word in line if "report" in word] == flag


def test_a_target_of_the_command_line_gets_no_report_because_one_of_the_spec_does():
    run = parse(resource(export=[{**HUB, **YES}]))
    assert wanted(["hub=a/b"], run) == ["hub=a/b"]
    with pytest.raises(BadSpec, match=r"^spec\.export\[\]\.report: the report would go to hub=a/b and not to oci=h/a:v; "):
        wanted(["oci=h/a:v"], run)


def finished(folder: Path, target: str, *, interrupted: bool = False) -> str:
    """What is said at the end of a run whose results go to that target."""
    put_run(FileStore(folder / "runs"))
    graph = plan.graph(parse(resource("demo", agents=AGENTS, iterations=1)), str(folder / "runs"))

    async def end() -> str:
        output, stop = io.StringIO(), asyncio.Event()
        async with contextlib.aclosing(Exports([target], graph, folder / "local", Console(file=output))) as exports:
            if interrupted:
                stop.set()
            await asyncio.wait_for(exports.finish(stop), 120)
            assert asyncio.all_tasks() == {asyncio.current_task()}  # of hundreds of looks nothing is left
        return output.getvalue()

    return asyncio.run(end())


def test_a_comparison_on_one_machine_sends_nothing_and_says_so(tmp_path, capsys):
    spec = write(tmp_path / "run.yaml", resource(export=[{"to": "otel", "address": "http://127.0.0.1:9"}]))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:  # before anything is begun: there is no place for it
        main(["compare", str(spec), "--methods=base", "--seeds=1", f"--dir={tmp_path / 'file'}"])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err[:12]) == (2, "error: --dir")
    assert printed.out.startswith("warning: spec.export: `maft compare` sends nothing; ")


def test_what_could_not_be_sent_is_said_with_what_to_do(tmp_path):
    text = finished(tmp_path, "otel=http://127.0.0.1:9")
    assert text.startswith("warning: not exported: --to otel: http://127.0.0.1:9/v1/traces is away")
    assert "The run is complete; `maft export` sends what is missing later" in text


def test_who_stops_the_last_export_is_told_so(tmp_path):
    assert finished(tmp_path, f"peft={tmp_path}/out", interrupted=True).startswith("warning: not exported: interrupted")


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("nope", "error: --to nope: no such target; t"),
        ("hub=agents", "error: --to hub=agents: expected OWNER/NAME\n"),
        ("trackio=a/b", "error: --to trackio=a/b: expected a project's name"),
        pytest.param(
            "trackio=ours",
            "error: --to trackio: needs the package trackio; pip install 'maft[trackio]'\n",
            marks=pytest.mark.skipif(find_spec("trackio") is not None, reason="trackio is installed"),
        ),
    ],
)
def test_a_target_that_there_is_not_is_refused_before_the_run(tmp_path, target, line):
    done = run(tmp_path, f"--export={target}")
    assert done.returncode == 2 and done.stderr.startswith(line)
    assert not (tmp_path / "runs" / "default" / "test" / "local").exists()


@pytest.mark.parametrize(
    ("targets", "error"),
    [
        ([{"to": "hub", "address": "agents"}], "error: export: the address of hub must be OWNER/NAME"),
        (
            [{"to": "hub", "address": "a/b", "license": "MIT"}, {"to": "hub", "address": "a/c", "license": "Apache-2.0"}],
            "error: spec.export[].license: Apache-2.0 and MIT; on one machine all targets get the same: name one",
        ),
        (
            [{**MLFLOW, **NO}, {**HUB, **YES}],
            "error: spec.export[].report: the report would go to hub=a/b and not to mlflow=http://h; on one machine one command"
            " sends to both: write the same for both, or leave one to `maft export`",
        ),
    ],
)
def test_a_field_that_cannot_be_followed_is_refused_before_the_run(tmp_path, targets, error):
    done = run(tmp_path, export=targets)
    assert (done.returncode, done.stderr.strip()) == (2, error)
    assert not (tmp_path / "runs").exists()
