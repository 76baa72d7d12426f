"""One base held by several processes (FSDP2 over gloo): the loss curve of one, whatever does not divide, and what is refused."""

import ast
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from conftest import ROOT, free_port
from safetensors.torch import load_file
from small import a_spec
from test_checkpoints import ended_at, listed
from test_train import datasets
from torch.distributed import TCPStore, distributed_c10d
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaModel

from maft import adapters, lora
from maft.chat_template import Tokens
from maft.errors import BadInput, PeerLost
from maft.program import Assignment
from maft.records import Example, Message, encode_lines
from maft.spec import immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore
from maft.summaries import PEER_LOST
from maft.train import __main__ as train
from maft.train import sharded, workers
from maft.train.dpo import Pair, Preferences
from maft.train.examples import Examples
from maft.train.objectives import NextToken
from maft.train.sharded import Loaded, Team
from maft.train.sharded_trainer import ShardedTrainer, dealt
from maft.train.workers import Started, count_ranks


def tokens(length: int) -> Tokens:
    return Tokens(tuple(range(length)), (False,) * (length - 1) + (True,))


@pytest.mark.parametrize(
    ("lengths", "ranks", "rows"),
    [
        ([5, 5, 5, 5], 2, [[[5, 5]], [[5, 5]]]),
        ([5, 6, 7], 2, [[[5], [7]], [[6], []]]),  # rows of at most 10 tokens
        ([5], 3, [[[5]], [[]], [[]]]),
        ([1, 2, 3, 4, 5], 2, [[[1, 3, 5]], [[2, 4]]]),
        ([20, 1], 2, [[[20]], [[1]]]),
    ],
)
def test_every_rank_has_as_many_rows(lengths, ranks, rows):
    assert [[[lengths[number] for number in row] for row in own] for own in dealt(lengths, ranks, 10)] == rows


class Read(Examples):
    """Notes which examples are read, by number or slice."""

    def __init__(self, several) -> None:
        super().__init__(several)
        self.read: list[int | slice] = []

    def __getitem__(self, number):
        self.read.append(number)
        return super().__getitem__(number)


class OneOfTwo(Team):
    """The second rank, as if the first one had nothing to add."""

    def sum(self, tensor):
        return tensor

    def from_leader(self, data):
        return data


class Elsewhere(Team):
    """The second rank of two, the first of which has gone on from step 3."""

    def from_leader(self, data: bytes) -> bytes:
        return b"[[0.3, 0.2, 0.1], 64]"

    def agreed(self, value: bool) -> bool:
        return value


def test_ranks_that_read_different_checkpoints_do_not_train_together(tmp_path):
    """Their gradients would be added up, and the adapter committed."""
    spec = a_spec(training={"batchTokens": 64, "batchSize": 2})
    base, team = lora.load_base(spec.model), Elsewhere(1, 2, torch.device("cpu"))
    trainer = ShardedTrainer(base, spec.training, lambda loss: None, NextToken(), team)
    with pytest.raises(OSError, match="ranks read different checkpoints, this one has 0 steps; all begin anew"):
        trainer.train([tokens(20), tokens(21)], tmp_path, seed=0, previous=None)
    assert not list(tmp_path.iterdir())


def test_pairs_are_read_one_row_at_a_time(tmp_path):
    """Each rank held all pairs in lists, and another list of its own, where there may be 100,000 of them."""
    spec = a_spec(training={"method": "dpo", "batchTokens": 64, "batchSize": 2})
    pairs = Read(Pair(tokens(20 + i), tokens(21 + i)) for i in range(7))
    trainer = ShardedTrainer(
        lora.load_base(spec.model), spec.training, lambda loss: None, Preferences(0.1), OneOfTwo(1, 2, torch.device("cpu"))
    )
    trainer.train(pairs, tmp_path, seed=0, previous=None)
    # The trial's two, its own part and, for a row that only the first rank has, any; then all, as they are written with margins.
    assert pairs.read == [0, -1, 1, 3, 5, 0, *range(7)]


def test_the_layers_of_a_model_are_found():
    model = LlamaForCausalLM(
        LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=3, num_attention_heads=2, vocab_size=9)
    )
    root, stack = sharded.layers(model)
    assert type(root) is LlamaModel and stack == list(model.model.layers)
    model.config.num_hidden_layers = 4
    with pytest.raises(BadInput, match=r"training\.parallelism: Sharded finds no stack of layers in LlamaForCausalLM"):
        sharded.layers(model)


OBJECTS = re.compile(r"\w+_object(_list)?")


@pytest.mark.parametrize("path", sorted((ROOT / "images").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path):
    """torch's collectives of objects unpickle what another rank sends, and whoever reaches their port may be one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert not (ast.unparse(node.value) in ("dist", "torch.distributed") and OBJECTS.fullmatch(node.attr)), node.lineno
            assert ast.unparse(node) != "torch.load", node.lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            assert not names & {"pickle", "cloudpickle", "dill", "joblib"}, node.lineno


def test_ranks_load_no_code_that_another_one_names():
    told = msgspec.json.encode(Loaded({"weight": "bfloat16"}, "sdpa"))
    assert msgspec.json.decode(told, type=Loaded).attention == "sdpa"
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(told.replace(b"sdpa", b"somebody/kernel"), type=Loaded)


@pytest.mark.parametrize(
    ("asked", "visible", "said", "ranks"), [(2, 2, "", 2), (2, 8, "", 2), (None, 8, "", 8), (None, 0, "3", 3), (8, 0, "2", 2)]
)
def test_how_many_ranks(asked, visible, said, ranks):
    assert count_ranks(asked, visible, {"MAFT_TRAIN_WORKERS": said} if said else {}) == ranks


@pytest.mark.parametrize(("asked", "visible", "said"), [(2, 1, ""), (1, 8, ""), (None, 1, ""), (None, 0, ""), (4, 4, "1")])
def test_one_rank_is_refused(asked, visible, said):
    with pytest.raises(BadInput, match=r"training\.parallelism: Sharded is for 2 GPUs or more, and [01] can be used here"):
        count_ranks(asked, visible, {"MAFT_TRAIN_WORKERS": said} if said else {})


# --- whole programs ---


def assigned(folder: Path, **training) -> Assignment:
    """Seven questions in batches of three: an odd one, and a last batch of one row that only one rank has."""
    plain = {"minExamples": 3, "lossOn": "last", "batchSize": 3, "batchTokens": 64, "epochs": 2, "lora": {"rank": 4, "dropout": 0}}
    spec = a_spec(seed=0, debate={"critics": False}, training={**plain, **training})
    return Assignment(store=FileStore(folder), run="ns/run", given_spec=spec, iteration=1, agents=(0,))


def questions(folder: Path, method: str = "sft") -> None:
    if method == "sft":
        return datasets(FileStore(folder), generator=7)

    def example(i: int) -> Example:
        asked, right, wrong = (Message("user", f"What is {i}+2?"), *(Message("assistant", f"Answer: {i + n}") for n in (2, 3)))
        if method == "kto":
            return Example(str(i), (asked, wrong if i % 3 else right), desirable=not i % 3)
        return Example(str(i), (asked, right), rejected=wrong)

    publish(FileStore(folder), layout.datasets("ns/run", 1), {"generator-0.jsonl": encode_lines(example(i) for i in range(7))})


def started(assignment: Assignment, ranks: int, report: workers.Report) -> Started:
    flags = [f"--store={assignment.store.url}", "--run=ns/run", f"--spec={immutable_spec_json(assignment.spec)}"]
    line = (sys.executable, "-m", "maft.train", *flags, "--iteration=1", "--agent=0")
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    return Started(line, {**path, "MAFT_TRAIN_WORKERS": str(ranks)}, report=report)


@pytest.mark.programs
@pytest.mark.parametrize(("method", "ranks"), [("sft", 2), ("dpo", 3), ("kto", 3)])
def test_several_ranks_have_the_loss_curve_of_one_process(tmp_path: Path, method: str, ranks: int) -> None:
    """Three ranks divide neither the batch nor the model's widths."""
    curves: list[list[float]] = []
    for folder, training in ((tmp_path / "one", {}), (tmp_path / "several", {"parallelism": "Sharded", "gpus": 2})):
        questions(folder, method)
        assignment = assigned(folder, method=method, **training)
        curves.append([])
        train.main(assignment, started(assignment, ranks if training else 1, curves[-1].append))
    one, several = curves
    assert len(one) == 6 and several == pytest.approx(one, abs=1e-4)
    prefix = layout.adapter("ns/run", 1, "generator", 0)
    weights = [load_file(tmp_path / name / prefix / adapters.WEIGHTS) for name in ("one", "several")]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-2, atol=1e-4)


@pytest.mark.programs
def test_ranks_that_are_told_to_end_go_on_to_the_same_bytes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With dropout: each rank draws in every step what it would have drawn."""
    training = {"parallelism": "Sharded", "gpus": 2, "epochs": 20, "lora": {"rank": 4, "dropout": 0.2}}
    for name in ("whole", "ended"):
        questions(tmp_path / name)
    whole, ended = (assigned(tmp_path / name, **training) for name in ("whole", "ended"))
    curve: list[float] = []
    train.main(whole, started(whole, 2, curve.append))
    with pytest.raises(SystemExit) as end:
        train.main(ended, started(ended, 2, ended_at(2)))
    assert end.value.code == 128 + signal.SIGTERM
    again: list[float] = []
    train.main(ended, started(ended, 2, again.append))
    assert "goes on after step" in capfd.readouterr().out
    assert again == curve
    assert listed(tmp_path / "whole") == listed(tmp_path / "ended")


# --- over pods, here as processes of their own ---

LEADS = {"JOB_COMPLETION_INDEX": "0"}
FOLLOWS = {"JOB_COMPLETION_INDEX": "1"}


def over_pods(folder: Path, **training) -> tuple[Assignment, Started]:
    """A training of two pods with a rank each, and how the first one is started."""
    assignment = assigned(folder, parallelism="Sharded", gpus=0, nodes=2, **training)
    meeting = {"MAFT_TRAIN_MEETING": f"localhost:{free_port()}"}  # connections of others never get it, as they may a port 0
    first = started(assignment, 1, lambda loss: None)
    return assignment, replace(first, environment={**first.environment, **meeting, **LEADS})


def follower(first: Started) -> "subprocess.Popen[bytes]":
    """The second pod."""
    return subprocess.Popen(first.command, env={**first.environment, **FOLLOWS}, stdin=subprocess.DEVNULL)


@pytest.mark.programs
def test_two_pods_have_the_loss_curve_of_one_process(tmp_path: Path) -> None:
    one, several = [], []
    for name in ("one", "several"):
        questions(tmp_path / name)
    alone = assigned(tmp_path / "one")
    train.main(alone, started(alone, 1, one.append))
    assignment, first = over_pods(tmp_path / "several")
    second = follower(first)
    summary = train.main(assignment, replace(first, report=several.append))
    assert second.wait(120) == 0
    assert len(one) == 6 and several == pytest.approx(one, abs=1e-4)
    assert [(made.role, made.agent, made.steps) for made in summary.adapters] == [("generator", 0, 6)]
    assert not [key for key in assignment.store.list("") if key.endswith("/meeting")]
    # Another pod of the task that comes too late finds everything committed.
    assert train.main(assignment, replace(first, environment={**first.environment, **FOLLOWS})).trained == 0


@pytest.mark.programs
@pytest.mark.parametrize(
    ("lost", "ends"),
    [
        pytest.param("first", PEER_LOST, marks=pytest.mark.nightly),  # the next, the other way round
        ("second", -signal.SIGKILL),
        pytest.param("second", 128 + signal.SIGTERM, marks=pytest.mark.nightly),  # its node is drained
    ],
)
def test_a_pod_that_is_lost_takes_the_other_along_and_both_go_on_to_the_same_bytes(
    tmp_path: Path, lost: str, ends: int, capfd
) -> None:
    for name in ("whole", "ended"):
        questions(tmp_path / name)
    training = {"epochs": 20, "lora": {"rank": 4, "dropout": 0.2}}
    whole, first = over_pods(tmp_path / "whole", **training)
    second, curve = follower(first), []
    train.main(whole, replace(first, report=curve.append))
    assert second.wait(120) == 0
    assignment, first = over_pods(tmp_path / "ended", **training)
    second = follower(first)

    def lose(loss: float) -> None:
        if lost == "first":
            raise OSError("no disk")
        second.send_signal(signal.SIGKILL if ends < 0 else signal.SIGTERM)

    says = "no disk" if lost == "first" else "node 1 is lost|another rank is lost"
    with pytest.raises(OSError, match=says) as end:
        train.main(assignment, replace(first, report=lose))
    assert isinstance(end.value, PeerLost) == (lost == "second")
    assert second.wait(120) == ends
    second, again = follower(first), []
    train.main(assignment, replace(first, report=again.append))
    assert second.wait(120) == 0
    assert "goes on after step" in capfd.readouterr().out
    assert again == curve
    assert listed(tmp_path / "whole") == listed(tmp_path / "ended")


@pytest.mark.programs
def test_what_all_ranks_refuse_is_one_line(tmp_path: Path) -> None:
    questions(tmp_path)
    refused = assigned(tmp_path, parallelism="Sharded", gpus=2, lora={"targetModules": ["no_such"]})
    with pytest.raises(BadInput, match=r"training\.lora\.targetModules: "):
        train.main(refused, started(refused, 2, lambda loss: None))


def test_ranks_wait_for_each_other_for_as_long_as_a_base_takes_to_load():
    """NCCL meets at the store once the first rank has loaded it; torch's own patience there is five minutes."""
    meeting = TCPStore(workers.HOST, 0, is_master=True, wait_for_workers=False)
    with sharded.joined(workers.Place(("generator-0",), ranks=1, port=meeting.port), cuda=False):
        assert distributed_c10d._get_default_store().timeout == sharded.PATIENCE
