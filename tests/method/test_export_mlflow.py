"""A run in MLflow: on a real server, read back by MLflow's own client; nothing is there twice, nothing is missing."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trackers
from committed import RUN, adapter_files, evaluation, put_iteration, put_report, put_run, put_validations
from conftest import free_port
from handled import handled

from maft import committed_run
from maft.errors import BadInput
from maft.export import numbers, targets
from maft.export.target import Request, Sent
from maft.store.base import Store
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import Gain, Score, Validation

READER = """
import json, sys, mlflow
client = mlflow.MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
def described(run):
    history = {key: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
    facts = {"name": run.info.run_name, "id": run.info.run_id, "status": run.info.status, "params": run.data.params}
    return {**facts, "metrics": history, "tags": run.data.tags, "files": files(run.info.run_id, None)}
def files(run, folder):
    listed = client.list_artifacts(run, folder)
    return sorted(f for one in listed for f in (files(run, one.path) if one.is_dir else [one.path]))
print(json.dumps([described(run) for run in client.search_runs([experiment.experiment_id])]))
"""


@pytest.fixture(scope="module", name="packages")
def packages_fixture() -> dict[str, str]:
    return trackers.packages("mlflow")


@pytest.fixture(scope="module", name="url")
def url_fixture(tmp_path_factory) -> Iterator[str]:
    with trackers.mlflow(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FileStore(tmp_path / "runs")


def hand_on(store: Store, to: str, run: str = RUN, **more: Any) -> Sent:
    return targets.send("mlflow", Request(store, committed_run.read(store, run), to, **more))


def read_back(url: str, experiment: str, packages: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Runs by name, as MLflow's client finds them."""
    line = [sys.executable, "-c", READER, url, experiment]
    done = subprocess.run(line, env={**os.environ, **packages}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)
    assert len({run["name"] for run in runs}) == len(runs)
    return {run["name"]: run for run in runs}


@pytest.mark.tools
def test_a_run_grows_by_what_is_new_and_is_there_once(store, url, packages):
    spec = put_run(store, iterations=1)
    first = hand_on(store, f"{url}#grown")
    assert first.new == len(["spec", "evaluation/0", "evaluation/1", "training/1", "adapters"])
    assert hand_on(store, f"{url}#grown").new == 0
    put_iteration(store, 2)
    put_report(store)
    assert hand_on(store, f"{url}#grown").new == len(["evaluation/2", "training/2", "adapters", "report"])

    run = read_back(url, "grown", packages)["demo"]
    assert run["metrics"]["accuracy/debate"] == [[i, evaluation(i).votes[-1].mean] for i in range(3)]
    assert [step for step, _ in run["metrics"]["loss_last/critic-2"]] == [1, 2]
    assert run["params"]["debate.rounds"] == str(spec.debate.rounds)
    assert run["params"]["maft.run"] == RUN
    names = {f"{role}-{n}" for role in ("generator", "critic") for n in (1, 2)}
    kept = {f"adapters/{i}/{name}/{file}" for i in (1, 2) for name in names for file in adapter_files(100)}
    assert set(run["files"]) == kept | {"report/index.html", "report/report.json"}
    assert run["status"] == "FINISHED"


@pytest.mark.tools
def test_who_wants_no_report_there_says_so(store, url, packages):
    put_run(store)
    put_report(store)
    assert hand_on(store, f"{url}#unreported", report=False).new == len(
        ["spec", "evaluation/0", "evaluation/1", "training/1", "adapters"]
    )
    files = read_back(url, "unreported", packages)["demo"]["files"]
    assert files and all(name.startswith("adapters/") for name in files)
    assert hand_on(store, f"{url}#unreported").new == len(["report"])  # nobody says it there, as ever
    assert hand_on(store, f"{url}#unreported", report=True).new == 0


@pytest.mark.tools
def test_a_marker_that_was_lost_makes_no_second_run(store, url, packages):
    put_run(store)
    hand_on(store, f"{url}#lost")
    store.delete(list(store.list(f"{RUN}/export/mlflow-")))
    assert hand_on(store, f"{url}#lost").new == 5
    run = read_back(url, "lost", packages)["demo"]
    assert {step for step, _ in run["metrics"]["accuracy/debate"]} == {0, 1}


def test_another_run_of_that_name_is_another_run(tmp_path, faulty):
    """In another store, or made anew with other questions: its numbers do not come between the first one's."""
    filters: list[str] = []

    def answers(count: int, path: str) -> tuple[int, bytes]:
        return 200, json.dumps(RUNS).encode()

    for folder, spec in (("a", {}), ("b", {}), ("c", {"seed": 5})):
        store, (url, asked) = FileStore(tmp_path / folder), faulty(answers)
        put_run(store, **spec)
        hand_on(store, url)
        filters += [json.loads(body)["filter"] for _, path, body in asked if path.endswith("runs/search")]
    assert len(set(filters)) == len(filters) == 3


def test_another_comparison_of_that_name_is_another_parent(tmp_path, faulty):
    origins = set()
    for folder in ("a", "b"):
        store, (url, asked) = FileStore(tmp_path / folder), faulty(lambda count, path: (200, json.dumps(RUNS).encode()))
        put_run(store, trained=False)
        publish(store, "default/cmp/problems/", {"train.jsonl": b""})
        hand_on(store, url, group="default/cmp")
        searched = [json.loads(body)["filter"] for _, path, body in asked if path.endswith("runs/search")]
        [parent] = [one for one in searched if "tags.`maft.run` = 'default/cmp'" in one]
        origins.add(parent)
    assert len(origins) == 2 and all("maft.origin" in one for one in origins)


def test_a_best_iteration_that_is_the_base_model_has_no_adapters(store, faulty):
    put_run(store, iterations=1, trained=False, evaluation={"validation": 8})
    put_iteration(store, 2)
    put_validations(store, *(Validation(accuracy=Score(0.5, 0.1), gain=gain) for gain in (None, Gain(-0.25, 0.1, 1))))
    url, _ = faulty(lambda count, path: (200, json.dumps(RUNS).encode()))
    assert hand_on(store, url).new == len(["spec", "evaluation", "evaluation", "evaluation", "training", "training"]) + 2


@pytest.mark.tools
def test_runs_of_a_comparison_have_one_parent(store, url, packages):
    for name in ("a", "b"):
        put_run(store, run=f"default/{name}", trained=False)
        hand_on(store, f"{url}#group", run=f"default/{name}", group="default/cmp")
    runs = read_back(url, "group", packages)
    assert set(runs) == {"a", "b", "cmp"}
    assert {runs[name]["tags"]["mlflow.parentRunId"] for name in "ab"} == {runs["cmp"]["id"]}


class Server(BaseHTTPRequestHandler):
    """Answers what `answers` says, and keeps what it was asked."""

    answers: Any
    asked: list[tuple[str, str, str]]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        self.asked.append((self.headers.get("Authorization", ""), self.path, body))
        status, body = self.answers(len(self.asked), self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(name="faulty")
def faulty_fixture() -> Iterator[Any]:
    """Starts a server that answers as it is told: its URL, and what it was asked."""
    servers = contextlib.ExitStack()

    def start(answers: Any) -> tuple[str, list[tuple[str, str, str]]]:
        asked: list[tuple[str, str, str]] = []
        handler = type("Handler", (Server,), {"answers": staticmethod(answers), "asked": asked})
        return servers.enter_context(handled(handler)), asked

    with servers:
        yield start


RUNS = {"experiment": {"experiment_id": "1"}, "runs": [{"info": {"run_id": "r"}}], "run": {"info": {"artifact_uri": "s3://x"}}}


def test_runs_of_a_comparison_that_begin_at_a_time_have_one_experiment_and_one_parent(store, faulty):
    """Each finds none and makes one; the tracker has room for one experiment of a name, and for many runs."""
    there: dict[str, Any] = {"experiment": False, "runs": []}

    def answers(count: int, path: str) -> tuple[int, bytes]:
        if "get-by-name" in path:
            return (200, json.dumps(RUNS).encode()) if there["experiment"] else (404, b"none")
        if path.endswith("experiments/create"):  # another run was faster by a moment
            there["experiment"] = True
            return 400, b"RESOURCE_ALREADY_EXISTS"
        if path.endswith("runs/search"):
            return 200, json.dumps({"runs": there["runs"]}).encode()
        if path.endswith("runs/create"):
            there["runs"] = [{"info": {"run_id": name}} for name in ("mine", "another")]
        return 200, json.dumps({"run": {"info": {"run_id": "mine", "artifact_uri": "s3://x"}}}).encode()

    put_run(store)
    url, asked = faulty(answers)
    hand_on(store, url, group="default/cmp")
    tags = [json.loads(body) for _, path, body in asked if path.endswith("set-tag")]
    assert {tag["value"] for tag in tags if tag["key"] == "mlflow.parentRunId"} == {"another"}


def test_an_experiment_that_cannot_be_made_is_said(store, faulty):
    def answers(count: int, path: str) -> tuple[int, bytes]:
        return (404, b"none") if "get-by-name" in path else (400, b"no such place")

    put_run(store)
    with pytest.raises(BadInput, match="experiments/create: status 400: no such place"):
        hand_on(store, faulty(answers)[0])


def test_what_arrived_before_a_fault_is_not_sent_again(store, faulty):
    put_run(store)
    broken = [True]

    def answers(count: int, path: str) -> tuple[int, bytes]:
        return (503, b"busy") if broken[0] and path.endswith("log-batch") and count > 3 else (200, json.dumps(RUNS).encode())

    url, asked = faulty(answers)
    with pytest.raises(OSError, match="status 503: busy"):
        hand_on(store, url)
    broken[0] = False
    sent = hand_on(store, url)
    assert sent.new == 4  # all but the spec
    assert hand_on(store, url).new == 0
    assert sum(path.endswith("log-batch") for _, path, _ in asked) == 1 + 1 + 3


@pytest.mark.parametrize(
    ("answer", "kind", "line"),
    [
        ((403, b"no\nthanks"), BadInput, "status 403: no thanks"),
        ((404, b"<!doctype html> <title>404 Not Found</title>"), BadInput, "status 404$"),
        ((302, b""), BadInput, "status 302"),
        ((429, b""), OSError, "status 429"),
        ((500, b""), OSError, "status 500"),
        ((200, b"<html>login</html>"), OSError, "the answer is no JSON: <html>login</html>"),
    ],
)
def test_a_server_that_refuses_is_one_line(store, faulty, answer, kind, line):
    put_run(store)
    url, asked = faulty(lambda count, path: answer)
    with pytest.raises(kind, match=line) as error:
        hand_on(store, url)
    assert "\n" not in str(error.value)
    assert len(asked) == (2 if answer[0] == 404 else 1)  # an experiment that is not there is made


def test_a_tracker_that_is_away(store):
    put_run(store)
    with pytest.raises(OSError, match=r"is away: .*Connection refused"):
        hand_on(store, f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("to", ["nowhere", "ftp://host", "http://", "http://host:port", "http://ho st", "file:///tmp/x"])
def test_what_is_no_address(store, to):
    put_run(store)
    with pytest.raises(BadInput, match="expected http://HOST:PORT"):
        hand_on(store, to)


def test_secrets_are_in_no_line_and_no_marker(store, faulty, monkeypatch):
    put_run(store)
    with pytest.raises(BadInput, match="credentials in the address") as error:
        hand_on(store, "http://user:hunter2@host:5000")
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hun\nter2\n")  # no header: the library's words for it would have it whole
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_TOKEN: ") as error:
        hand_on(store, "http://127.0.0.1:1")
    assert "ter2" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2\n")  # of a file
    url, asked = faulty(lambda count, path: (200, json.dumps(RUNS).encode()))
    hand_on(store, url)
    assert {secret for secret, *_ in asked} == {"Bearer hunter2"}
    assert not any(b"hunter2" in store.read(key) for key in store.list(""))


def test_parameters_are_plain_and_short(store):
    put_run(store, debate={"prompts": {"revise": "{summary} {question} " + "long " * 700}})
    made = numbers.parameters(committed_run.read(store, RUN))
    assert made["training.lora.rank"] == "4"
    assert max(map(len, made.values())) <= numbers.LONGEST
    assert "" not in made.values()
