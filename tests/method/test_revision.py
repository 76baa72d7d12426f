"""The commit of a hub's model: found once, by the real client at a hub of our own, and used to the run's end."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import TINY
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`
from small import a_spec
from test_serve import CPU

from maft import models, program, revision
from maft.errors import BadInput, passing
from maft.program import Assignment
from maft.serve import __main__ as serve
from maft.spec import Spec, immutable_spec_json
from maft.store import layout
from maft.store.commits import committed, publish
from maft.store.files import FileStore
from maft.summaries import PrepareSummary, decode_summary

FIRST, SECOND = 40 * "a", 40 * "b"
RUN = "ns/run"
FILES = {p.name: p.read_bytes() for p in TINY.iterdir() if p.suffix in (".json", ".jinja", ".safetensors")}


class Hub(ThreadingHTTPServer):
    """A hub with one model. main: the commit of its branch; asked: revisions that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.main = FIRST
        self.asked: list[str] = []
        self.files = dict(FILES)
        self.busy = 0
        """A status that it answers everybody; 0: it is well."""


class Requests(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        known = {"main": self.server.main, FIRST: FIRST, SECOND: SECOND}
        if self.server.busy:
            self._answer(self.server.busy, b"")
        elif parts[2:3] == ["resolve"] and (commit := known.get(parts[3])) and parts[4] in self.server.files:
            self.server.asked.append(parts[3])
            self._answer(200, self.server.files[parts[4]], **{"X-Repo-Commit": commit, "ETag": f'"{commit[:8]}-{parts[4]}"'})
        else:
            self._answer(404, b"", **{"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def spec(**model: Any) -> Spec:
    return a_spec(model={"source": "org/tiny", **model})


def ran(hub: Hub, folder: Path, name: str, *flags: str, spec: Spec, offline: bool = False, run: str = RUN) -> PrepareSummary | None:
    """A program at its end, with a cache of its own; its summary."""
    summary = folder / "summary.json"
    command = [sys.executable, "-m", f"maft.{name}", "--store", str(folder / "store"), "--run", run]
    command += [f"--spec={immutable_spec_json(spec)}", "--summary", str(summary), *flags]
    variables = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(folder / name),
        "HF_HUB_OFFLINE": str(int(offline)),
    }
    done = subprocess.run(
        ["env", *(f"{k}={v}" for k, v in variables.items()), *command], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = decode_summary(summary.read_bytes())
    return found if isinstance(found, PrepareSummary) else None


@pytest.mark.programs
def test_what_a_branch_was_as_the_run_began_is_used_to_its_end(hub: Hub, tmp_path: Path, mock_url: str) -> None:
    prepared = ran(hub, tmp_path, "prepare", spec=spec())
    assert prepared is not None and prepared.revision == FIRST
    assert [*dict.fromkeys(hub.asked)] == ["main", FIRST]  # what is checked is what is used
    assert hub.asked == sorted(hub.asked, key=lambda asked: asked != "main")
    commit = committed(FileStore(tmp_path / "store"), f"{RUN}/{layout.PROBLEMS}")
    assert commit is not None and commit.meta["revision"] == FIRST and commit.meta["spec"]["model"]["revision"] == ""
    hub.main = SECOND
    hub.asked.clear()
    ran(hub, tmp_path, "debate", "--iteration=1", *(f"--server=s={url}" for url in [mock_url]), spec=spec())
    assert set(hub.asked) == {FIRST}
    again = ran(hub, tmp_path, "prepare", spec=spec())  # as after a lost status: what is committed stays
    assert again is not None and again.revision == FIRST


@pytest.mark.programs
def test_without_the_hub_the_commit_in_the_cache_counts(hub: Hub, tmp_path: Path) -> None:
    ran(hub, tmp_path, "prepare", spec=spec())
    (tmp_path / "store").rename(tmp_path / "before")
    hub.main = SECOND
    prepared = ran(hub, tmp_path, "prepare", spec=spec(), offline=True)
    assert prepared is not None and prepared.revision == FIRST


@pytest.mark.programs
def test_a_commit_that_the_run_names_is_that(hub: Hub, tmp_path: Path) -> None:
    prepared = ran(hub, tmp_path, "prepare", spec=spec(revision=SECOND))
    assert prepared is not None and prepared.revision == SECOND and set(hub.asked) == {SECOND}


@pytest.mark.programs
def test_runs_of_a_comparison_have_the_agents_own_models_in_common(hub: Hub, tmp_path: Path) -> None:
    """Also where the branch has moved between them, and where one has an agent more of that model."""
    one, two = ({"agent": n, "model": {"source": "org/tiny"}} for n in (1, 2))
    alike = {"inference": {"topology": "PerAgent"}, "training": {"topology": "PerAgent"}}
    ran(hub, tmp_path, "prepare", "--group=ns/group", spec=a_spec(agentOverrides=[one], **alike), run="ns/one")
    hub.main = SECOND
    ran(hub, tmp_path, "prepare", "--group=ns/group", spec=a_spec(agentOverrides=[one, two], **alike), run="ns/two")
    ran(hub, tmp_path, "prepare", spec=a_spec(agentOverrides=[one], **alike), run="ns/alone")
    found = {run: committed(FileStore(tmp_path / "store"), f"ns/{run}/{layout.PROBLEMS}") for run in ("one", "two", "alone")}
    assert {run: commit and commit.meta["revisions"] for run, commit in found.items()} == {
        "one": {"1": FIRST},
        "two": {"1": FIRST, "2": FIRST},
        "alone": {"1": SECOND},
    }


def questions(store: FileStore, run: str, **meta: Any) -> None:
    publish(store, f"{run}/{layout.PROBLEMS}", {}, meta={"spec": {}, **meta})


def test_servers_are_told_and_so_is_a_run_of_a_comparison(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    questions(store, RUN, revision=FIRST)
    questions(store, "ns/group", revision=SECOND)
    own = program.pinned(Assignment(store, RUN, spec()))
    grouped = program.pinned(Assignment(store, RUN, spec(), group="ns/group"))
    assert (own.spec.model.revision, grouped.spec.model.revision) == (FIRST, SECOND)
    line = serve.command(own, serve.Listening("h", 1, 1, "f"), CPU)
    assert line[line.index("--revision") + 1] == FIRST


@pytest.mark.s3
def test_a_model_in_a_bucket_is_the_one_that_the_run_began_with(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of the same sizes is another model; what lies beside a model is none of it; put back, the run goes on."""
    for name, value in {**s3.environment(), "MAFT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    objects, prefix, weights = s3.client(), tmp_path.name, "model.safetensors"
    changed = FILES[weights][:-1] + bytes([FILES[weights][-1] ^ 1])
    for name, body in FILES.items():
        objects.put_object(Bucket=s3.bucket, Key=f"{prefix}/{name}", Body=body)
    store, source = FileStore(tmp_path / "store"), s3.url(prefix)
    began = revision.resolved(spec(source=source).model)
    questions(store, RUN, revision=began)
    objects.put_object(Bucket=s3.bucket, Key=f"{prefix}/README.md", Body=b"# Tiny")
    assignment = Assignment(store, RUN, spec(source=source))
    assert program.pinned(assignment) == assignment
    first = Path(models.local(source))
    objects.put_object(Bucket=s3.bucket, Key=f"{prefix}/{weights}", Body=changed)
    with pytest.raises(BadInput) as caught:
        program.pinned(assignment)
    assert str(caught.value).startswith(f"model.source: the files of {source} are no longer those that the run began with; ")
    own = a_spec(inference={"topology": "PerAgent"}, agentOverrides=[{"agent": 1, "model": {"source": source}}])
    questions(store, "ns/own", revisions={"1": began})
    with pytest.raises(BadInput, match=r"^agentOverrides\[agent=1\]\.model\.source: the files of"):
        program.pinned(Assignment(store, "ns/own", own))
    other = Path(models.local(source))  # of a run that begins now
    assert [(folder / weights).read_bytes() for folder in (first, other)] == [FILES[weights], changed]
    objects.put_object(Bucket=s3.bucket, Key=f"{prefix}/{weights}", Body=FILES[weights])
    assert program.pinned(assignment) == assignment and Path(models.local(source)) == first


@pytest.mark.parametrize("source", ["org/tiny", str(TINY), "s3://bucket/tiny"])
def test_a_run_that_began_before_or_needs_none_goes_on_as_it_began(source: str, tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    begun = Assignment(store, RUN, spec(source=source, revision="v1"))
    assert program.pinned(begun) == begun  # nothing of it is there yet
    questions(store, RUN)
    assert program.pinned(begun) == begun


def test_only_a_hub_has_commits() -> None:
    assert [revision.is_hub(s) for s in ("org/m", "gpt2", "/m", "./m", "../m", "s3://b/m")] == [True, True, *[False] * 4]
    assert revision.resolved(spec(source=str(TINY)).model) == ""


def asked(hub: Hub, folder: Path, code: str) -> "subprocess.CompletedProcess[str]":
    """Some lines of Python about `spec` beside that hub, with a cache of their own."""
    variables = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(folder / "hub"), "HF_HUB_DISABLE_XET": "1"}
    command = ["env", "HF_HUB_OFFLINE=0", *(f"{k}={v}" for k, v in variables.items()), sys.executable, "-c"]
    begun = "import sys\nfrom maft.spec import decode_spec\nspec = decode_spec(sys.argv[1])\n"
    command += [begun + code, immutable_spec_json(spec())]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.programs
def test_a_server_knows_a_models_parts_before_its_weights(hub: Hub, tmp_path: Path) -> None:
    """Of a mixture of experts vLLM would keep room for adapters of all experts; it is told which layers have some."""
    hub.files["config.json"] = json.dumps({**json.loads(FILES["config.json"]), "num_experts": 8}).encode()
    code = """
from maft import models
from maft.serve.parts import Parts
print(Parts.of(models.folder_of_config(spec.model.source, spec.model.revision)))
"""
    done = asked(hub, tmp_path, code)
    assert "experts=True" in done.stdout and "sizes=Sizes(" in done.stdout, done.stderr[-2000:]
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


def test_what_may_pass_is_told_from_what_stays() -> None:
    """By the status of the server that stands behind an error, which libraries wrap in others."""

    def wrapped(status: int) -> Exception:
        answer = httpx.Response(status, request=httpx.Request("GET", "http://hub/model"))
        try:
            try:
                answer.raise_for_status()
            except httpx.HTTPStatusError as error:
                raise OSError("cannot reach it") from error
        except OSError as error:
            return error
        raise AssertionError(status)

    assert [passing(wrapped(status)) for status in (429, 500, 503, 400, 401, 404)] == [True, True, True, False, False, False]
    assert not passing(ValueError("no server at all"))


@pytest.mark.programs
@pytest.mark.parametrize(("status", "raised"), [pytest.param(503, "OSError", marks=pytest.mark.nightly), (401, "BadInput")])
def test_a_hub_that_is_busy_is_asked_again_and_one_that_refuses_is_not(hub: Hub, status: int, raised: str, tmp_path: Path) -> None:
    """OSError is tried again by whoever started the program; BadInput ends the run."""
    hub.busy = status
    code = """
from maft import models
try:
    models.config(spec.model)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = asked(hub, tmp_path, code)
    assert done.stdout.startswith(f"{raised} model.source: org/tiny"), done.stdout + done.stderr[-2000:]
