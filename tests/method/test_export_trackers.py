"""A run in W&B's offline folders and in trackio, by their own packages and read back: everything is there once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trackers
from committed import RUN, evaluation, put_iteration, put_report, put_run

from maft import committed_run
from maft.export import trackio_runs
from maft.export.identity import identity
from maft.store.files import FileStore

pytestmark = pytest.mark.tools
TRACKIO_READER = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
def described(run):
    return {"logs": SQLiteStorage.get_logs("demo", run), "config": SQLiteStorage.get_run_config("demo", run)}
print(json.dumps({run: described(run) for run in SQLiteStorage.get_runs("demo")}, default=str))
"""
# The file is LevelDB's log behind seven bytes: pieces of records in blocks of 32 KiB, each after a checksum, a length and a kind.
WANDB_READER = """
import json, sys
from pathlib import Path
from google.protobuf.json_format import MessageToDict
from wandb.proto.wandb_internal_pb2 import Record
def records(data):
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if left < 7 or not kind:
            at += left
            continue
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""
made = [MessageToDict(r, preserving_proto_field_name=True) for path in sys.argv[1:] for r in records(Path(path).read_bytes())]
print(json.dumps(made))
"""


@pytest.fixture(scope="module", name="packages")
def packages_fixture() -> dict[str, str]:
    return trackers.packages("trackers")


def python(packages: dict[str, str], *line: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **packages, **variables}
    return subprocess.run([sys.executable, *line], env=environment, capture_output=True, text=True, timeout=180, cwd=cwd)


def export(packages: dict[str, str], folder: Path, to: str, *more: str, runs: str = "runs", **variables: str) -> str:
    line = ["-m", "maft.export", "--store", str(folder / runs), "--run", RUN, f"--to={to}", *more]
    done = python(packages, *line, cwd=folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


def trackio(packages: dict[str, str], folder: Path, **place: str) -> dict[str, Any]:
    """What trackio has of each run of the project."""
    done = python(packages, "-c", TRACKIO_READER, cwd=folder, **place)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def name_in_trackio(store: FileStore) -> str:
    return f"{RUN}-{identity(store, RUN, committed_run.read(store, RUN).problems)[:8]}"


def test_trackio_has_each_iteration_once(tmp_path, packages):
    place = {"TRACKIO_DIR": str(tmp_path / "trackio")}
    store = FileStore(tmp_path / "runs")
    spec = put_run(store)
    assert export(packages, tmp_path, "trackio=demo", **place).endswith("(4 new)")
    assert export(packages, tmp_path, "trackio=demo", **place).endswith("(all there before)")
    put_iteration(store, 2)
    assert export(packages, tmp_path, "trackio=demo", **place).endswith("(2 new)")
    back = trackio(packages, tmp_path, **place)[name_in_trackio(store)]
    assert {log["step"]: log["accuracy/debate"] for log in back["logs"]} == {i: evaluation(i).votes[-1].mean for i in range(3)}
    assert len(back["logs"]) == 3
    assert back["config"]["debate.rounds"] == str(spec.debate.rounds)


def test_runs_of_one_name_and_one_spec_in_two_stores_are_two(tmp_path, packages):
    place = {"TRACKIO_DIR": str(tmp_path / "trackio")}
    stores = {name: FileStore(tmp_path / name) for name in ("one", "two")}
    for name, store in stores.items():
        put_run(store)
        for to in ("trackio=demo", f"wandb={tmp_path / 'out'}"):
            assert export(packages, tmp_path, to, runs=name, **place).endswith("(4 new)")
    back = trackio(packages, tmp_path, **place)
    assert {run: len(facts["logs"]) for run, facts in back.items()} == {name_in_trackio(store): 2 for store in stores.values()}
    assert len({path.name for path in (tmp_path / "out").rglob("*.wandb")}) == 2


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_a_run_whose_id_is_another_one_now_is_there_whole(tmp_path, packages, kind):
    place, store = {"TRACKIO_DIR": str(tmp_path / "trackio")}, FileStore(tmp_path / "runs")
    to = {"trackio": "trackio=demo", "wandb": f"wandb={tmp_path / 'out'}"}[kind]
    put_run(store)
    assert export(packages, tmp_path, to, **place).endswith("(4 new)")
    store.delete([f"{RUN}/export/identity.json"])
    put_iteration(store, 2)
    assert export(packages, tmp_path, to, **place).endswith("(6 new)")
    assert export(packages, tmp_path, to, **place).endswith("(all there before)")


def test_wandb_has_each_iteration_once_and_nothing_of_this_machine(tmp_path, packages):
    store, into = FileStore(tmp_path / "runs"), tmp_path / "out"
    put_run(store)
    assert export(packages, tmp_path, f"wandb={into}").endswith("(4 new)")
    assert export(packages, tmp_path, f"wandb={into}").endswith("(all there before)")
    put_iteration(store, 2)
    assert export(packages, tmp_path, f"wandb={into}").endswith("(2 new)")
    files = sorted(into.rglob("*.wandb"))
    assert len({path.name for path in files}) == 1  # one id
    back = read_back(packages, tmp_path, into)
    rows = [values(record["history"]["item"]) for record in back if "history" in record]
    assert [(row["iteration"], row["accuracy/debate"]) for row in rows] == [(i, evaluation(i).votes[-1].mean) for i in range(3)]
    assert {record["run"]["display_name"] for record in back if "run" in record} == {"demo"}
    assert [path.name for path in into.rglob("requirements.txt")] == []


def test_wandb_has_the_report_as_an_artifact_whose_files_lie_in_the_folder(tmp_path, packages):
    store, into, home = FileStore(tmp_path / "runs"), tmp_path / "out", tmp_path / "home"
    home.mkdir()
    put_run(store)
    files = put_report(store)
    assert export(packages, tmp_path, f"wandb={into}", HOME=str(home)).endswith("(5 new)")
    assert export(packages, tmp_path, f"wandb={into}", HOME=str(home)).endswith("(all there before)")
    newer = put_report(store, text="newer")
    assert export(packages, tmp_path, f"wandb={into}", HOME=str(home)).endswith("(1 new)")
    made = [record["artifact"] for record in read_back(packages, tmp_path, into) if "artifact" in record]
    assert [(one["type"], one["run_id"], one["finalize"]) for one in made] == [("report", made[0]["run_id"], True)] * 2
    assert len({one["name"] for one in made}) == 1  # the second is a version of the first
    for one, wanted in zip(made, (files, newer), strict=True):
        entries = {entry["path"]: Path(entry["local_path"]) for entry in one["manifest"]["contents"]}
        assert {name: path.read_bytes() for name, path in entries.items()} == wanted
        assert all(into in path.parents for path in entries.values())
    assert [path for path in home.rglob("*") if path.is_file() and b"<!doctype" in path.read_bytes()] == []


def test_who_wants_no_report_in_wandb_says_so(tmp_path, packages):
    store, into = FileStore(tmp_path / "runs"), tmp_path / "out"
    put_run(store)
    put_report(store)
    assert export(packages, tmp_path, f"wandb={into}", "--no-report").endswith("(4 new)")
    assert not any("artifact" in record for record in read_back(packages, tmp_path, into))
    assert [path for path in into.rglob("*") if path.is_file() and b"<!doctype" in path.read_bytes()] == []
    assert export(packages, tmp_path, f"wandb={into}").endswith("(1 new)")
    assert export(packages, tmp_path, f"wandb={into}", "--report").endswith("(all there before)")


def read_back(packages: dict[str, str], folder: Path, into: Path) -> list[dict[str, Any]]:
    """The records of all runs there, in order of their folders."""
    done = python(packages, "-c", WANDB_READER, *map(str, sorted(into.rglob("*.wandb"))), cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def values(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A row's numbers by name."""
    return {item.get("key") or "/".join(item["nested_key"]): json.loads(item["value_json"]) for item in items}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"TRACKIO_SERVER_URL": "https://host:7860/?write_token=hunter2"}, "https://host:7860"),
        ({"TRACKIO_SPACE_ID": "team/board", "TRACKIO_SERVER_URL": "https://host"}, "team/board"),
    ],
)
def test_what_trackio_was_sent_is_kept_by_the_server_and_not_by_this_machine(monkeypatch, variables, place):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert trackio_runs.where() == place


def test_a_package_that_is_not_there_is_one_line(tmp_path):
    put_run(FileStore(tmp_path / "runs"))
    line = [sys.executable, "-m", "maft.export", "--store", str(tmp_path / "runs"), "--run", RUN, "--to=trackio=demo"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "error: --to trackio: needs the package trackio; pip install 'maft[trackio]'\n")
