"""The Python client on this machine: a real run, submitted, waited for and read; what is refused, and how."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from committed import RUN, put_adapter, put_run, put_validations
from conftest import MOCK, TINY, resource, write
from s3server import S3Server, s3_fixture  # noqa: F401 - the fixture `s3`

import maft
import maft_client
from maft import records
from maft.records import DatasetCounts
from maft.spec import FORMAT, Compared
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import Gain, PrepareSummary, Score, Validation, encode_summary
from maft_client import Client, MaftError, NoSuchRun, Refused, RunFailed, Status, Unreachable
from maft_client.results import flat
from maft_operator.local.run import exclusive
from maft_operator.spec import comparison
from maft_operator.spec.parse import parse

LIMIT = 240.0
MAFT = (sys.executable, "-m", "maft_operator")
SERVE = {"MAFT_SERVE": f"{sys.executable} {MOCK}"}


@pytest.fixture(name="home")
def home_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, and the deterministic engine in place of vLLM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAFT_SERVE", SERVE["MAFT_SERVE"])
    return tmp_path


def small(name: str = "test", **spec: object) -> dict:
    return resource(name, **{"iterations": 1, "agents": 2, **spec})


@pytest.mark.run
def test_a_run_from_the_first_line_to_the_last(home: Path) -> None:
    (home / "own.jsonl").write_bytes((TINY / "questions.jsonl").read_bytes())
    client = Client.local("runs")
    run = client.submit(small(task={"source": "own.jsonl"}))  # named from here, not from where the client keeps the resource
    assert run == "default/test" and client.status("test").phase == "Running"
    with pytest.raises(Refused, match=r"default/test: is running already; wait for it"):
        client.submit(small())
    with pytest.raises(TimeoutError, match="default/test: Running after 0 seconds"):
        client.wait(run, timeout=0)

    assert subprocess.run([*MAFT, "report", "runs/default/test"], capture_output=True, timeout=60).returncode in (0, 2)
    assert client.status(run).phase == "Running"  # whatever somebody has reported of it by the way

    status = client.wait(run, timeout=LIMIT)
    assert (status.phase, status.over, status.failed, status.iteration) == ("Complete", True, False, "1")
    assert Path(status.report).is_file()
    assert {p.name for p in Path(client.adapters(run)).iterdir()} >= {"generator-0", "generator-1"}

    report = json.loads((Path(status.report).parent / "report.json").read_text())
    results = client.results(run)
    rows = {row["iteration"]: row for row in results}
    for evaluation in report["evaluations"]:
        row = rows[evaluation["iteration"]]
        assert row["accuracy"] == pytest.approx(evaluation["votes"][-1]["mean"], abs=1e-6)
        assert row["answerStderr"] == pytest.approx(evaluation["answers"][0]["stderr"], abs=1e-6)
    assert status.accuracy is not None and status.accuracy.mean == rows[1]["accuracy"]
    assert status.base is not None and status.base.mean == rows[0]["answer"]
    frame = results.frame()
    assert list(frame.index) == [0, 1] and frame.loc[1, "accuracy"] == rows[1]["accuracy"]
    assert any("Report: " in event.message for event in client.events(run))

    # Another process, the next day: nothing is done twice, and it is the same resource.
    again = Client.local("runs")
    assert again.status("default/test") == status
    again.submit(small(task={"source": "own.jsonl"}))
    assert again.wait("test", timeout=LIMIT).accuracy == status.accuracy
    assert any("[from before]" in event.message for event in again.events("test"))

    with pytest.raises(Refused, match=r"spec\.iterations: was 1 when this run began, is 3; a run keeps its spec"):
        again.submit(small(task={"source": "own.jsonl"}, iterations=3))
    assert again.status("test").phase == "Complete"


@pytest.mark.run
def test_a_comparison_from_the_first_line_to_the_last(home: Path) -> None:
    run = small("methods")
    run["spec"]["task"]["source"] = str(TINY / "questions.jsonl")
    whole = {**run, "kind": "MultiAgentComparison", "spec": {"template": run["spec"], "methods": ["base", "majority"], "seeds": 1}}
    client = Client.local("runs").comparisons
    with pytest.raises(NoSuchRun, match=r"default/methods: .* has no comparison of that name"):
        client.status("methods")
    with pytest.raises(Refused, match="expected"):
        client.submit(run)
    name = client.submit(whole)
    assert name == "default/methods" and client.status(name).phase == "Running"
    status = client.wait(name, timeout=LIMIT)
    assert status.phase == "Complete" and Path(status.report).is_file()
    table = json.loads((Path(status.report).parent / "compare.json").read_text())
    assert status.accuracy is not None and status.accuracy.mean == table["rows"][0]["accuracy"]["mean"]
    frame = Client.local("runs").comparisons.results("methods").frame()
    assert list(frame["method"]) == ["base", "majority"] and set(frame["phase"]) == {"Complete"}
    assert list(frame["accuracy"]) == [row["accuracy"] for row in map(_evaluated, frame["run"])]


COMPARED = (
    Compared(method="base", seed=0, run="methods-base-0", iteration=0),
    Compared(method="majority", seed=0, run="methods-majority-0", iteration=1),
    Compared(method="majority", seed=1, run="methods-majority-1", iteration=1),
)


def begun(home: Path, *runs: Compared) -> FileStore:
    """What `maft compare` leaves as it begins, and the base run, which is over."""
    local = home / "runs/default/methods/local"
    local.mkdir(parents=True, exist_ok=True)
    (local / comparison.NOTE).write_bytes(comparison.noted(runs))
    store = FileStore(home / "runs")
    put_run(store, run="default/methods-base-0", iterations=0, trained=False)
    return store


def tabled(store: FileStore, *runs: Compared) -> None:
    """The table of some of them."""
    rows = [{"method": "majority", "accuracy": {"mean": 0.75, "stderr": 0.05}}, {"accuracy": {"mean": 0.5, "stderr": 0.1}}]
    made = {"format": FORMAT, "rows": rows[: len(runs)], "runs": records.plain(list(runs)), "origin": {}}
    store.write(f"default/methods/{layout.COMPARE}compare.json", json.dumps(made).encode())


def test_a_comparison_that_was_stopped_says_what_is_there(home: Path) -> None:
    store = begun(home, *COMPARED)
    put_run(store, run="default/methods-majority-0", iterations=0)  # its first debate alone
    client = Client.local("runs").comparisons
    status, rows = client.status("methods"), client.results("methods").records
    assert (status.phase, status.over, status.accuracy, status.report) == ("Stopped", True, None, "")
    assert [(row["run"], row["phase"]) for row in rows] == [
        ("methods-base-0", "Complete"), ("methods-majority-0", "Stopped"), ("methods-majority-1", "Waiting"),
    ]  # fmt: skip
    assert rows[0]["accuracy"] == _evaluated("methods-base-0")["accuracy"] and "accuracy" not in rows[1]


def test_a_table_of_fewer_runs_than_were_asked_for_last_is_not_the_end(home: Path) -> None:
    client = Client.local("runs").comparisons
    store = begun(home, COMPARED[0])
    tabled(store, COMPARED[0])
    assert client.status("methods").phase == "Complete"
    begun(home, *COMPARED)  # more seeds and methods, and then Ctrl-C
    status = client.status("methods")
    assert (status.phase, str(status.accuracy)) == ("Stopped", "75.0 ± 5.0")  # the table of before is there
    assert [row["phase"] for row in client.results("methods")] == ["Complete", "Waiting", "Waiting"]


def test_a_table_that_was_made_elsewhere_is_whole(home: Path) -> None:
    """In a bucket: whoever reads it has no folder of logs."""
    store = begun(home, *COMPARED)
    tabled(store, COMPARED[0])
    client = Client.local(home / "runs", folder=home / "nothing").comparisons
    assert client.status("methods").phase == "Complete" and [row["run"] for row in client.results("methods")] == ["methods-base-0"]


@pytest.mark.parametrize(
    ("note", "words"),
    [(b"{", "is damaged"), (b'{"format": 99, "runs": []}', "is of format 99"), (b'{"format": 1, "runs": [1]}', "is damaged")],
)
def test_a_note_that_cannot_be_read_is_one_line(note: bytes, words: str, home: Path) -> None:
    begun(home, *COMPARED)
    (home / "runs/default/methods/local" / comparison.NOTE).write_bytes(note)
    tabled(FileStore(home / "runs"), COMPARED[0])
    with pytest.raises(MaftError, match=words) as error:
        Client.local("runs").comparisons.status("methods")
    assert "\n" not in str(error.value) and "start the comparison again" in str(error.value)


def _evaluated(run: str) -> dict:
    (row,) = Client.local("runs").results(run)
    return dict(row)


@pytest.mark.run
def test_a_run_that_fails_says_why(home: Path) -> None:
    client = Client.local("runs")
    run = client.submit(small("failing", model={"source": str(home / "nothing")}))
    with pytest.raises(RunFailed, match=r"default/failing: .*nothing") as error:
        client.wait(run, timeout=LIMIT)
    assert error.value.status.failed and client.wait(run, check=False) == error.value.status
    assert client.results(run).records == () and len(client.results(run).frame()) == 0


@pytest.mark.run
def test_stopped_and_gone_on_with(home: Path) -> None:
    client = Client.local("runs")
    run = client.submit(write(home / "run.yaml", small("halted")))
    client.stop(run)
    assert client.status(run).phase == "Stopped"
    with pytest.raises(RunFailed):
        client.wait(run)
    with pytest.raises(MaftError, match="default/halted: was not started here"):
        Client.local("runs").stop(run)


@pytest.mark.nightly
@pytest.mark.s3
@pytest.mark.run
def test_in_a_bucket(home: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    url = s3.url(f"client/{home.name}")
    client = Client.local(url, folder=home / "logs")
    run = client.submit(small("kept", method="majority"))
    assert client.wait(run, timeout=LIMIT).report.startswith(f"s3://{s3.bucket}/client/")
    elsewhere = Client.local(url)  # without the folder of its logs
    assert elsewhere.status(run).phase == "Complete" and len(elsewhere.results(run)) == 1
    assert elsewhere.adapters(run) == "" and elsewhere.events(run) == []


def test_adapters_are_those_of_the_best_iteration(home: Path) -> None:
    store, client = FileStore(home / "runs"), Client.local("runs")
    put_run(store, iterations=2, evaluation={"validation": 8})
    assert client.adapters("demo").endswith("/iterations/2/adapters/")
    put_validations(store, *(Validation(accuracy=Score(0.5, 0.1), gain=gain) for gain in (None, Gain(-0.25, 0.1, 1))))
    assert client.adapters("demo").endswith("/iterations/1/adapters/")


def test_adapters_are_those_of_an_iteration_that_has_them_all(home: Path) -> None:
    store = FileStore(home / "runs")
    put_run(store)
    counts = [DatasetCounts("generator", n, 11, {}) for n in range(2)]
    publish(store, layout.datasets(RUN, 2), {}, meta={"counts": records.plain(counts)})
    put_adapter(store, "generator", 0, 2)
    assert Client.local("runs").adapters("demo").endswith("/iterations/1/adapters/")
    put_adapter(store, "generator", 1, 2)
    assert Client.local("runs").adapters("demo").endswith("/iterations/2/adapters/")


# --- what is wrong ---


def finished(home: Path, whole: dict) -> Path:
    """A run of that resource which `maft run` has brought to its end; its folder of logs."""
    run = parse(whole)
    local = home / "runs" / run.key / "local"
    with exclusive(local, run, "runs"):
        summary = local / "prepare" / "summary.json"
        summary.parent.mkdir()
        summary.write_bytes(encode_summary(PrepareSummary(train=1, held_out=1)))
    made = FileStore(home / "runs")
    put_run(made, run=run.key, iterations=1)
    made.write(f"{run.key}/{layout.REPORT}report.json", b"{}")
    return local


CHANGES = [
    (small(iterations=3), r"spec\.iterations: was 1 when this run began, is 3; a run keeps its spec: set metadata\.name=another"),
    (small(model={"source": "org/other"}), r"spec\.model\.source: was '.*' when this run began, is 'org/other'"),
]


@pytest.mark.parametrize(("changed", "words"), CHANGES)
def test_a_changed_spec_of_a_run_that_began_is_refused_and_the_run_is_what_it_was(changed: dict, words: str, home: Path) -> None:
    finished(home, small())
    client = Client.local("runs")
    before = client.status("test")
    for given in (changed, write(home / "changed.yaml", changed)):
        with pytest.raises(Refused, match=words) as error:
            client.submit(given)
        assert "\n" not in str(error.value)
    assert before.phase == "Complete" and client.status("test") == before and client.events("test") == []


def test_another_store_or_a_changed_comparison_of_a_run_that_began_is_refused(home: Path) -> None:
    finished(home, small())
    with pytest.raises(Refused, match=r"store: was '.*/runs' when this run began, is '.*/elsewhere'"):
        Client.local((home / "elsewhere").as_uri(), folder=home / "runs").submit(small())
    spec = {"template": small(iterations=2)["spec"], "methods": ["base"], "seeds": 1}
    with pytest.raises(Refused, match=r"spec\.iterations: was 1 when this run began, is 2"):
        Client.local("runs").comparisons.submit({**small(), "kind": "MultiAgentComparison", "spec": spec})


def test_what_began_and_cannot_be_read_refuses_a_submission(home: Path) -> None:
    (finished(home, small()) / "run.json").write_text("{")
    with pytest.raises(Refused, match=r"run\.json: is damaged: .*; set metadata\.name=another, or remove it"):
        Client.local("runs").submit(small())


def test_a_run_whose_last_start_failed_is_failed_whatever_was_reported_before(home: Path) -> None:
    local, client = finished(home, small()), Client.local("runs")
    assert client.status("test").phase == "Complete"
    (local / "client.log").write_text("Using the CPU.\nerror: --serve: no such program\n")
    status = client.status("test")
    assert (status.phase, status.message, status.report) == ("Failed", "--serve: no such program", "")
    with pytest.raises(RunFailed, match="default/test: --serve: no such program"):
        client.wait("test")
    with exclusive(local, parse(small()), "runs"):  # `maft run`, by hand
        assert client.status("test").phase == "Running"
    assert client.status("test").phase == "Complete"


def test_what_lies_there_and_cannot_be_read_is_one_line(home: Path) -> None:
    store = FileStore(home / "runs")
    put_run(store, iterations=0)
    store.write(f"{layout.evaluation(RUN, 0)}_COMMIT.json", b"half of")
    for ask in (Client.local("runs").status, Client.local("runs").results, Client.local("runs").wait):
        with pytest.raises(MaftError, match="_COMMIT") as error:
            ask("demo")
        assert "\n" not in str(error.value)


def without(field: str) -> dict:
    made = small()
    del made["spec"][field]
    return made


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (without("model"), r"spec\.model"),
        (small(agents=0), r"spec\.agents"),
        ({"kind": "Pod"}, "kind: 'Pod'; expected MultiAgentFinetune|apiVersion"),
        ({}, "."),
        ({"a": {1, 2}}, "."),
        ("missing.yaml", "missing.yaml: No such file"),
        (Path("broken.yaml"), "broken.yaml"),
        (small("../../up"), "metadata.name"),
    ],
)
def test_a_wrong_resource_is_one_line(given: object, words: str, home: Path) -> None:
    (home / "broken.yaml").write_text("a: [")
    with pytest.raises(Refused, match=words) as error:
        Client.local("runs").submit(given)  # type: ignore[arg-type]
    assert "\n" not in str(error.value) and not (home / "runs").exists()


@pytest.mark.parametrize("run", ["none", "default/none", "elsewhere/none"])
def test_a_run_that_is_not_there(run: str, home: Path) -> None:
    own = Client.local("runs")
    for ask in (own.status, own.results, own.adapters, own.events):
        with pytest.raises(NoSuchRun, match="none"):
            ask(run)


@pytest.mark.parametrize("run", ["", "a/b/c", "/a", "a/", "..", "../x"])
def test_what_is_no_name(run: str, home: Path) -> None:
    with pytest.raises(MaftError, match="expected NAME or NAMESPACE/NAME"):
        Client.local("runs").status(run)


@pytest.mark.parametrize("store", ["ftp://x/y", "", "s3://bucket/x?endpoint=a&endpoint=b"])
def test_a_store_that_is_none(store: str) -> None:
    with pytest.raises(MaftError, match="store"):
        Client.local(store)


def test_a_folder_that_cannot_be_written(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(MaftError, match="choose a folder that can be written"):
        Client.local("file/runs").submit(small())


class Told(Client):
    """Runs whose statuses are known beforehand; an error is raised."""

    def __init__(self, *statuses: Status | MaftError) -> None:
        self.statuses = list(statuses)

    def status(self, run: str) -> Status:
        answer = self.statuses.pop(0)
        if isinstance(answer, MaftError):
            raise answer
        return answer

    submit = events = results = stop = comparisons = None  # type: ignore[assignment]


def test_wait_passes_over_a_server_that_is_away_for_a_while() -> None:
    away, over = Unreachable("the API server answered 503: x"), Status("ns/r", "Complete", over=True)
    assert Told(Status("ns/r", "Training", over=False), away, away, over).wait("r") == over
    with pytest.raises(Unreachable):  # at first it may be the wrong one
        Told(away, over).wait("r")
    with pytest.raises(MaftError, match="none of that name"):
        Told(Status("ns/r", "Training", over=False), NoSuchRun("ns/r: there is none of that name"), over).wait("r")
    with pytest.raises(TimeoutError, match=r"ns/r: Training after 0\.1 seconds"):
        Told(*[Status("ns/r", "Training", over=False)] * 3).wait("r", timeout=0.1)


def test_rows_are_flat() -> None:
    row = {"iteration": 1, "accuracy": {"mean": 0.5, "stderr": 0.1}, "kept": {"generator": {"fewest": 3, "counts": [3]}}}
    assert flat(row) == {
        "iteration": 1,
        "accuracy": 0.5,
        "accuracyStderr": 0.1,
        "kept.generator.fewest": 3,
        "kept.generator.counts": [3],
    }


def test_it_is_also_maft_client() -> None:
    assert maft.Client is Client and set(maft_client.__all__) == {n for n in dir(maft_client) if n[0].isupper()}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        importlib.import_module("maft").Nothing  # noqa: B018


@pytest.mark.programs
def test_programs_do_not_pay_for_it() -> None:
    code = "import maft, maft.spec, sys; print(any(name.startswith(('maft_client', 'maft_operator')) for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
