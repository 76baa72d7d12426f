"""A run in W&B's offline folders and in trackio, by their own packages and read back: everything is there once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import locked_tool
import pytest
from committed import RUN, evaluation, put_iteration, put_run

from maft.store.files import FileStore

pytestmark = pytest.mark.tools
TRACKIO_READER = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
project, run = sys.argv[1:]
runs = SQLiteStorage.get_runs(project)
logs, config = SQLiteStorage.get_logs(project, run), SQLiteStorage.get_run_config(project, run)
print(json.dumps({"runs": runs, "logs": logs, "config": config}, default=str))
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
    locked_tool.install("trackers")
    return {"PYTHONPATH": f"{locked_tool.folder('trackers')}:{os.environ.get('PYTHONPATH', '')}"}


def python(packages: dict[str, str], *line: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **packages, **variables}
    return subprocess.run([sys.executable, *line], env=environment, capture_output=True, text=True, timeout=180, cwd=cwd)


def export(packages: dict[str, str], folder: Path, to: str, **variables: str) -> str:
    line = ["-m", "maft.export", "--store", str(folder / "runs"), "--run", RUN, f"--to={to}"]
    done = python(packages, *line, cwd=folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


def test_trackio_has_each_iteration_once(tmp_path, packages):
    place = {"TRACKIO_DIR": str(tmp_path / "trackio")}
    store = FileStore(tmp_path / "runs")
    spec = put_run(store)
    assert export(packages, tmp_path, "trackio=demo", **place).endswith("(4 new)")
    assert export(packages, tmp_path, "trackio=demo", **place).endswith("(all there before)")
    put_iteration(store, 2)
    assert export(packages, tmp_path, "trackio=demo", **place).endswith("(2 new)")
    done = python(packages, "-c", TRACKIO_READER, "demo", RUN, cwd=tmp_path, **place)
    assert done.returncode == 0, done.stderr
    back = json.loads(done.stdout)
    assert back["runs"] == [RUN]
    assert {log["step"]: log["accuracy/debate"] for log in back["logs"]} == {i: evaluation(i).votes[-1].mean for i in range(3)}
    assert len(back["logs"]) == 3
    assert back["config"]["debate.rounds"] == str(spec.debate.rounds)


def test_wandb_has_each_iteration_once_and_nothing_of_this_machine(tmp_path, packages):
    store, into = FileStore(tmp_path / "runs"), tmp_path / "out"
    put_run(store)
    assert export(packages, tmp_path, f"wandb={into}").endswith("(4 new)")
    assert export(packages, tmp_path, f"wandb={into}").endswith("(all there before)")
    put_iteration(store, 2)
    assert export(packages, tmp_path, f"wandb={into}").endswith("(2 new)")
    files = sorted(into.rglob("*.wandb"))
    assert len({path.name for path in files}) == 1  # one id
    done = python(packages, "-c", WANDB_READER, *map(str, files), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    back = json.loads(done.stdout)
    rows = [values(record["history"]["item"]) for record in back if "history" in record]
    assert [(row["iteration"], row["accuracy/debate"]) for row in rows] == [(i, evaluation(i).votes[-1].mean) for i in range(3)]
    assert {record["run"]["display_name"] for record in back if "run" in record} == {"demo"}
    assert [path.name for path in into.rglob("requirements.txt")] == []


def values(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A row's numbers by name."""
    return {item.get("key") or "/".join(item["nested_key"]): json.loads(item["value_json"]) for item in items}


def test_a_package_that_is_not_there_is_one_line(tmp_path):
    put_run(FileStore(tmp_path / "runs"))
    line = [sys.executable, "-m", "maft.export", "--store", str(tmp_path / "runs"), "--run", RUN, "--to=trackio=demo"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "error: --to trackio: needs the package trackio; pip install 'maft[trackio]'\n")
