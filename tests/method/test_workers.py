"""One worker per GPU: how many, who gets what, and whole programs of several workers on the CPU."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import torch
from msgspec.structs import replace
from small import a_spec, resource
from test_checkpoints import listed
from test_train import datasets, dialogue

from maft import adapters, records
from maft.errors import BadInput
from maft.program import Assignment
from maft.records import Example
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import publish, required
from maft.store.files import FileStore
from maft.summaries import TrainSummary, decode_summary
from maft.train import __main__ as train
from maft.train import processes, workers
from maft.train.workers import PLACE, Started, count, dealt, device, environments
from maft_operator.plan import graph as plan
from maft_operator.spec.parse import parse

OURS = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("asked", "visible", "adapters", "said", "many"),
    [
        (1, 1, 6, "", 1),
        (1, 8, 6, "", 1),  # fewer were asked for than a hand-started program sees
        (4, 4, 6, "", 4),
        (0, 0, 6, "", 1),  # the CPU
        (1, 0, 1, "", 1),
        (None, 8, 6, "", 6),  # what is there, as far as there is work
        (None, 2, 6, "", 2),
        (None, 0, 6, "", 1),
        (1, 0, 6, "3", 3),
        (None, 0, 2, "2", 2),
    ],
)
def test_how_many_workers(asked, visible, adapters, said, many):
    assert count(asked, visible, adapters, {"MAFT_TRAIN_WORKERS": said} if said else {}) == many


@pytest.mark.parametrize(
    ("asked", "adapters", "said", "says"),
    [
        (4, 2, "", r"training\.gpus: 4 GPUs and 2 adapters in this task; set gpus to at most 2, topology to Shared, or"),
        (2, 1, "", r"training\.gpus: 2 GPUs and 1 adapter in this task; set gpus to at most 1"),
        (1, 2, "5", r"training\.gpus: 5 GPUs and 2 adapters"),
        (1, 2, "0", r"MAFT_TRAIN_WORKERS='0': expected a number of workers"),
        (1, 2, "many", r"MAFT_TRAIN_WORKERS='many': expected"),
    ],
)
def test_workers_without_work_are_refused(asked, adapters, said, says):
    with pytest.raises(BadInput, match=says) as refused:
        count(asked, 8, adapters, {"MAFT_TRAIN_WORKERS": said} if said else {})
    assert "\n" not in str(refused.value)


def test_the_longest_are_dealt_first():
    tokens = {"generator-0": 5, "critic-0": 9, "generator-1": 5, "critic-1": 8, "generator-2": 1}
    assert dealt(tokens, 2) == [("critic-0", "generator-1"), ("critic-1", "generator-0", "generator-2")]
    assert dealt(dict(reversed(tokens.items())), 2) == dealt(tokens, 2)
    assert dealt(tokens, 1) == [("critic-0", "critic-1", "generator-0", "generator-1", "generator-2")]
    assert dealt({"generator-0": 5}, 4) == [("generator-0",)]  # nobody is started for nothing


@pytest.mark.parametrize("many", [1, 2, 3, 7])
def test_every_adapter_is_dealt_once(many):
    tokens = {f"generator-{i}": i * i % 11 for i in range(12)}
    shares = dealt(tokens, many)
    assert sorted(name for share in shares for name in share) == sorted(tokens)
    loads = [sum(tokens[name] for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(tokens.values())


@pytest.mark.parametrize(
    ("given", "entries"),
    [
        (None, ["0", "1"]),
        ("", ["", ""]),  # hides them all
        ("2,5", ["2", "5"]),
        ("GPU-8f2c, GPU-91aa", ["GPU-8f2c", "GPU-91aa"]),
        ("MIG-1c/1/0,MIG-1c/2/0,MIG-1c/3/0", ["MIG-1c/1/0", "MIG-1c/2/0"]),
    ],
)
@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"])
def test_each_worker_has_a_gpu_that_the_program_was_given(given, entries, name):
    """In the variable that it was given."""
    environment = {} if given is None else {name: given}
    told = "CUDA_VISIBLE_DEVICES" if given is None else name
    amd = name != "CUDA_VISIBLE_DEVICES"
    assert [device(environment, index, amd=amd) for index in (0, 1)] == [{told: entry} for entry in entries]
    made = environments(environment, 2, gpus=True, cores=16, amd=amd)
    assert [one[told] for one in made] == entries


def test_of_several_variables_the_one_that_counts_names_the_gpu():
    """On ROCm HIP's counts before CUDA's; on NVIDIA's GPUs CUDA's alone does."""
    both = {"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "2,3"}
    assert [device(both, index, amd=True) for index in (0, 1)] == [dict.fromkeys(both, "2"), dict.fromkeys(both, "3")]
    assert device(both, 1, amd=False) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert device({"HIP_VISIBLE_DEVICES": "2,3"}, 1, amd=False) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert device({"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "0,1"}, 1, amd=True) == {"HIP_VISIBLE_DEVICES": "1"}
    assert device({"ROCR_VISIBLE_DEVICES": "4,5"}, 1, amd=True) == {"ROCR_VISIBLE_DEVICES": "5"}


def test_workers_share_the_cores():
    assert [one["OMP_NUM_THREADS"] for one in environments({}, 3, gpus=False, cores=8)] == ["2", "2", "2"]
    assert environments({}, 3, gpus=False, cores=2)[0] == {"OMP_NUM_THREADS": "1"}
    assert environments({"OMP_NUM_THREADS": "4"}, 2, gpus=False, cores=2)[1] == {"OMP_NUM_THREADS": "4"}


# --- whole programs ---

LONG = {"epochs": 40}  # so many that nobody is done before the signal comes


def assigned(folder: Path, **training) -> Assignment:
    datasets(FileStore(folder))
    spec = a_spec(seed=0, training={"minExamples": 3, "lossOn": "last", "batchSize": 4, **training})
    return Assignment(store=FileStore(folder), run="ns/run", given_spec=spec, iteration=1, agents=(0,))


def command(folder: Path, **training) -> list[str]:
    spec = assigned(folder, **training).spec
    return [f"--store={folder}", "--run=ns/run", f"--spec={immutable_spec_json(spec)}", "--iteration=1", "--agent=0"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.programs
@pytest.mark.usefixtures("one_thread")
def test_two_workers_make_the_bytes_of_one(tmp_path: Path) -> None:
    alone = train.main(assigned(tmp_path / "one"))
    line = [sys.executable, "-m", "maft.train", *command(tmp_path / "two"), f"--summary={tmp_path / 'summary.json'}"]
    environment = {**OURS, "MAFT_TRAIN_WORKERS": "2"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert listed(tmp_path / "one") == listed(tmp_path / "two")
    said = decode_summary((tmp_path / "summary.json").read_bytes())
    assert isinstance(said, TrainSummary) and replace(said, version="") == alone


def trained_by(folder: Path, topology: str) -> dict[str, str]:
    """The adapters of two agents, each file with its sha256: of the programs that the topology has, side by side."""
    files = {f"{role}-{n}.jsonl": lines(6 + 3 * n, turns) for n in (0, 1) for turns, role in ((1, "generator"), (2, "critic"))}
    publish(FileStore(folder), layout.datasets("default/test", 1), files)
    lora = {"rank": 4, "dropout": 0.2}
    training = {"topology": topology, "gpus": 0, "minExamples": 3, "lossOn": "last", "batchSize": 4, "lora": lora}
    planned = plan.graph(parse(resource(agents=2, training=training)), str(folder))
    tasks = [task for task in planned.tasks if task.kind == "train"]
    assert [task.agents for task in tasks] == ([(0,), (1,)] if topology == "PerAgent" else [(0, 1)])
    called = [[sys.executable, *plan.command(task, {})] for task in tasks]
    programs = [subprocess.Popen(line, env=OURS, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for line in called]
    ended = [(program.communicate(timeout=120)[1], program.returncode) for program in programs]
    assert not any(code for _, code in ended), ended
    prefixes = [layout.adapter("default/test", 1, role, n) for role in records.ROLES for n in (0, 1)]
    commits = [required(FileStore(folder), prefix, "training") for prefix in prefixes]
    return {f"{commit.prefix}{file.name}": file.sha256 for commit in commits for file in commit.files}


def lines(count: int, turns: int) -> bytes:
    return records.encode_lines(Example(str(i), dialogue(i, turns)) for i in range(count))


@pytest.mark.nightly
def test_agents_dealt_over_pods_have_the_bytes_of_one_program(tmp_path: Path) -> None:
    """`topology: PerAgent`, a program for each agent, against `Shared`, one for both: the same run's adapters."""
    apart, together = trained_by(tmp_path / "apart", "PerAgent"), trained_by(tmp_path / "together", "Shared")
    assert apart == together
    weights = [digest for name, digest in apart.items() if name.endswith(adapters.WEIGHTS)]
    assert len(set(weights)) == len(weights) == 4  # and they are no adapter of another


def started(folder: Path, report: workers.Report, **training) -> Started:
    """As the program is started: this process stands for it, its workers are processes."""
    line = (sys.executable, "-m", "maft.train", *command(folder, **training))
    return Started(line, {**OURS, "MAFT_TRAIN_WORKERS": "2"}, report=report)


@pytest.mark.programs
def test_what_a_worker_refuses_the_program_refuses(tmp_path: Path) -> None:
    wrong = {"lora": {"targetModules": ["no_such"]}}
    with pytest.raises(BadInput, match=r"training\.lora\.targetModules: "):
        train.main(assigned(tmp_path, **wrong), started(tmp_path, lambda loss: None, **wrong))


def a_worker_dies() -> None:
    next(child for child in psutil.Process().children() if "maft.train" in child.cmdline()).kill()


@pytest.mark.programs
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("act", "error", "says"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit, "143"),
        (a_worker_dies, OSError, r"the worker of (critic|generator)-0 was killed by signal 9"),
    ],
    ids=["told to end", "a worker dies"],
)
def test_an_end_of_one_is_the_end_of_all_and_nothing_is_lost(tmp_path: Path, capsys, act, error, says: str) -> None:
    """The program counts the steps of its workers; at the third it is told to end, or one of them dies. One alone goes on."""
    seen: list[float] = []

    def report(loss: float) -> None:
        seen.append(loss)
        if len(seen) == 3:
            act()

    with pytest.raises(error, match=says):
        train.main(assigned(tmp_path / "two", **LONG), started(tmp_path / "two", report, **LONG))
    assert not [child for child in psutil.Process().children() if "maft.train" in child.cmdline()]
    train.main(assigned(tmp_path / "two", **LONG))
    if error is SystemExit:  # the one that dies may have made all three steps
        assert "checkpoint.safetensors: goes on after step" in capsys.readouterr().out
    train.main(assigned(tmp_path / "one", **LONG))
    assert listed(tmp_path / "one") == listed(tmp_path / "two")


SLOW = r"""
import os, pathlib, signal, sys, time
from maft.train.workers import PLACE, started
def checkpoint(number, frame):
    time.sleep(0.5)  # a checkpoint that takes longer than GRACE, here 0
    pathlib.Path(sys.argv[1]).touch()
    sys.exit()
signal.signal(signal.SIGTERM, checkpoint)
started([], os.environ).report(1.0)
signal.pause()
"""


@pytest.mark.programs
def test_who_is_told_to_end_gives_its_workers_all_the_time_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's, which the run sets; another one that failed costs them no more than GRACE."""
    monkeypatch.setattr(processes, "GRACE", 0.0)
    command = [sys.executable, "-c", SLOW, str(tmp_path / "checkpoint")]

    def told(loss: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        processes.run(command, [workers.Place(("critic-0",))], [OURS], told)
    assert (tmp_path / "checkpoint").exists()


def test_a_worker_reads_its_place() -> None:
    reading, writing = os.pipe()
    place = workers.Place(("critic-1",), writing)
    here = workers.started(["x"], {PLACE: msgspec.json.encode(place).decode()})
    assert here.place == place
    here.report(0.125)
    os.close(writing)
    assert os.read(reading, 100) == b"0.125\n"
    os.close(reading)
