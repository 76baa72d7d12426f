"""Training that is ended at any moment and begun again: the same bytes as in one go, or a line that says why not."""

import ctypes
import dataclasses
import math
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from conftest import TINY
from msgspec.structs import replace
from small import a_spec
from test_train import assigned, datasets, dialogue

from maft import adapters, lora
from maft.chat_template import load_chat_template
from maft.errors import BadInput
from maft.records import Adapter
from maft.store import layout
from maft.store.commits import required
from maft.store.files import FileStore
from maft.train import __main__ as train
from maft.train.checkpoints import Keeper
from maft.train.dpo import Pair, Preferences
from maft.train.examples import Examples
from maft.train.interruption import Interruption
from maft.train.jobs import Job, decided, train_one
from maft.train.kto import Graded, Grades
from maft.train.objectives import NextToken
from maft.train.shown import summary
from maft.train.trainer import Trainer, steps
from maft.train.workers import Started

SPEC = a_spec(training={"batchSize": 2, "batchTokens": 64, "epochs": 2, "lora": {"rank": 4, "dropout": 0.2}})
TRAINING = SPEC.training
DECIDED = {"seed": "1", "torch": "2"}
KEY = "run/checkpoint.safetensors"
NEVER = 1e9  # seconds between two checkpoints


@pytest.fixture(scope="module")
def base():
    return lora.load_base(SPEC.model)


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


@pytest.fixture(scope="module")
def tokens(template):
    return [template.tokens(dialogue(i, 1 + i % 2), every_turn=False) for i in range(5)]


@pytest.fixture(scope="module")
def pairs(template):
    def said(i, answer):
        return template.tokens((*dialogue(i)[:1], dialogue(answer)[1]), every_turn=False)

    return [Pair(said(i, i), said(i, i + 1)) for i in range(5)]


@pytest.fixture(scope="module")
def examples(tokens, pairs):
    """What each way of training takes."""
    graded = [Graded(pair.chosen, pair.rejected, bool(i % 2)) for i, pair in enumerate(pairs)]
    return {"sft": tokens, "dpo": pairs, "kto": graded}


@dataclass
class Clock:
    """Seconds that pass only when a test says so, or with every look."""

    now: float = 0.0
    a_look: float = 0.0

    def __call__(self) -> float:
        self.now += self.a_look
        return self.now


@dataclass
class Watching(FileStore):
    """A folder that counts what is written."""

    folder: Path
    written: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(self.folder)

    def write(self, key, data):
        self.written.append(key)
        super().write(key, data)


class Ended:
    """An objective that is told to end in the middle of a step, where its loss is asked for the n-th time."""

    def __init__(self, objective, calls: int) -> None:
        self._objective, self._left = objective, calls

    def __getattr__(self, name: str):
        return getattr(self._objective, name)

    def loss(self, *arguments):
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGTERM)
        return self._objective.loss(*arguments)


def trained(base, examples, folder: Path, keeper=None, *, objective=None, step_done: Callable[[float], None] = lambda loss: None):
    trainer = Trainer(base, TRAINING, step_done, objective or NextToken())
    curve = trainer.train(examples, folder, seed=3, previous=None, keeper=keeper)
    return curve, (folder / adapters.WEIGHTS).read_bytes()


def keeper(folder: Path, every: float = NEVER, decided=DECIDED, clock: Clock | None = None) -> Keeper:
    return Keeper(FileStore(folder), KEY, decided, every, clock or Clock())


def ended_at(step: int, number: int = signal.SIGTERM) -> Callable[[float], None]:
    seen = []

    def step_done(loss: float) -> None:
        seen.append(loss)
        if len(seen) == step:
            os.kill(os.getpid(), number)

    return step_done


def objective_of(method: str):
    return {"sft": NextToken(), "dpo": Preferences(0.1), "kto": Grades(0.1)}[method]


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_sigterm_after_any_step_loses_nothing(base, examples, tmp_path, method):
    examples = examples[method]
    whole = trained(base, examples, tmp_path / "whole", objective=objective_of(method))
    for step in range(1, steps(len(examples), TRAINING) + 1):
        with pytest.raises(SystemExit) as ended:
            trained(
                base, examples, tmp_path / "x", keeper(tmp_path / "s"), objective=objective_of(method), step_done=ended_at(step)
            )
        assert ended.value.code == 128 + signal.SIGTERM
        shown: list[float] = []
        again = trained(
            base, examples, tmp_path / "y", keeper(tmp_path / "s"), objective=objective_of(method), step_done=shown.append
        )
        assert again == whole
        assert shown == whole[0]  # progress counts the steps of before, too


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_sigterm_within_any_step_loses_that_step_alone(base, examples, tmp_path, method):
    examples = examples[method]
    whole = trained(base, examples, tmp_path / "whole", objective=objective_of(method))
    call, ended = 0, True
    while ended:
        call += 1
        store = tmp_path / f"s{call}"
        try:
            trained(base, examples, tmp_path / "x", keeper(store), objective=Ended(objective_of(method), call))
            ended = False  # more calls than there are
        except SystemExit:
            assert trained(base, examples, tmp_path / "y", keeper(store), objective=objective_of(method)) == whole
    assert call > steps(len(examples), TRAINING)


def test_ended_again_and_again_it_comes_to_the_same_end(base, tokens, tmp_path):
    whole = trained(base, tokens, tmp_path / "whole")
    for step in range(1, len(whole[0]) + 1):
        with pytest.raises(SystemExit):
            trained(base, tokens, tmp_path / "x", keeper(tmp_path / "s"), step_done=ended_at(step))
    assert trained(base, tokens, tmp_path / "y", keeper(tmp_path / "s")) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)  # threads do not live on in a fork
sys.path[:0] = {paths!r}
import test_checkpoints as t
base = t.lora.load_base(t.SPEC.model)
template = t.load_chat_template(str(t.TINY), None)
tokens = [template.tokens(t.dialogue(i, 1 + i % 2), every_turn=False) for i in range(5)]
folder = Path(sys.argv[1])
for step in (1, 3, 4, 0):
    if not os.fork():
        t.trained(base, tokens, folder / "a", t.keeper(folder / "s", every=0.0), step_done=t.ended_at(step, signal.SIGKILL))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)  # the next one would say it again
t.trained(base, tokens, folder / "whole")
"""


@pytest.mark.programs
def test_kill_9_loses_what_came_after_the_last_checkpoint(tmp_path):
    """Every step has one here; killed after the first, the third and the fourth step in all."""
    script = KILLED.format(paths=[entry for entry in sys.path if "tests" in entry])
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[0] == "-9", done.stderr
    assert [line for line in done.stdout.splitlines() if line.lstrip("-").isdigit()] == ["-9", "-9", "-9", "0"]
    assert [line.split(" goes on ")[1] for line in done.stdout.splitlines() if "goes on" in line] == [
        "after step 1",
        "after step 3",
        "after step 4",
    ]
    one, two = ((tmp_path / name / adapters.WEIGHTS).read_bytes() for name in ("a", "whole"))
    assert one == two


def test_a_checkpoint_is_made_when_it_is_time(base, tokens, tmp_path):
    clock, store = Clock(), Watching(tmp_path)
    kept = Keeper(store, KEY, DECIDED, 60.0, clock)

    def step_done(loss: float) -> None:
        clock.now += 25.0

    curve, _ = trained(base, tokens, tmp_path / "a", kept, step_done=step_done)
    assert len(curve) == 6
    assert store.written == [KEY]  # 75 s after the start; the next one would be due after the end
    assert kept.seconds == 150.0


def test_time_adds_up_over_processes(base, tokens, tmp_path):
    clock = Clock()

    def step_done(loss: float) -> None:
        clock.now += 10.0
        if clock.now == 30.0:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        trained(base, tokens, tmp_path / "x", keeper(tmp_path, clock=clock), step_done=step_done)
    later = keeper(tmp_path, clock=Clock(1000.0))
    trained(base, tokens, tmp_path / "x", later)
    assert later.seconds == 30.0


@pytest.mark.parametrize(
    ("decided", "says"),
    [
        ({**DECIDED, "seed": "2"}, "is of another seed;"),
        ({**DECIDED, "seed": "2", "torch": "3"}, "is of another seed, another torch;"),
        ({"torch": "2"}, "is of another seed;"),
        ({**DECIDED, "dataset": "d"}, "is of another dataset;"),
    ],
)
def test_a_checkpoint_of_something_else_is_left_in_one_line(base, tokens, tmp_path, capsys, decided, says):
    whole = trained(base, tokens, tmp_path / "whole")
    with pytest.raises(SystemExit):
        trained(base, tokens, tmp_path / "x", keeper(tmp_path), step_done=ended_at(2))
    capsys.readouterr()
    assert trained(base, tokens, tmp_path / "y", keeper(tmp_path, decided=decided)) == whole
    said = capsys.readouterr().out
    assert says in said and said.count("\n") == 1 and said.endswith("the adapter is trained from the start\n")


def torn(data: bytes) -> bytes:
    return data[:1000]


def flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def another_number(data: bytes) -> bytes:
    assert data.count(b'\\"batchTokens\\":64') == 1
    return data.replace(b'\\"batchTokens\\":64', b'\\"batchTokens\\":24')


def another_name(data: bytes) -> bytes:
    return data.replace(b'\\"batchTokens\\"', b'\\"batchTokenr\\"')


def newer(data: bytes) -> bytes:
    assert data.count(b'\\"format\\":1') == 1
    return data.replace(b'\\"format\\":1', b'\\"format\\":9')


@pytest.mark.parametrize(
    "spoilt", [torn, flipped, another_number, another_name, newer, lambda data: b"", lambda data: b"\x02" + bytes(7) + b"{}"]
)
def test_a_checkpoint_that_cannot_be_read_is_left_in_one_line(base, tokens, tmp_path, capsys, spoilt):
    whole = trained(base, tokens, tmp_path / "whole")
    with pytest.raises(SystemExit):
        trained(base, tokens, tmp_path / "x", keeper(tmp_path), step_done=ended_at(2))
    path = tmp_path / KEY
    path.write_bytes(spoilt(path.read_bytes()))
    capsys.readouterr()
    assert trained(base, tokens, tmp_path / "y", keeper(tmp_path)) == whole
    said = capsys.readouterr().out
    assert "this checkpoint cannot be read" in said and said.count("\n") == 1


@dataclass
class Full(Watching):
    """A folder without room."""

    def write(self, key, data):
        raise BadInput("store: the disk is full")


def test_a_checkpoint_that_cannot_be_written_ends_no_training(base, tokens, tmp_path, capsys):
    whole = trained(base, tokens, tmp_path / "whole")
    assert trained(base, tokens, tmp_path / "x", Keeper(Full(tmp_path), KEY, DECIDED, 0.0)) == whole
    assert capsys.readouterr().out.splitlines()[0] == "no checkpoint after step 1: store: the disk is full"


@dataclass
class Refusing(Watching):
    """A store that refuses once what it has."""

    left: int = 1

    def download(self, key, path):
        self.left -= 1
        if self.left >= 0:
            raise BadInput("store: GetObject: access denied")
        return super().download(key, path)


def test_a_store_that_refuses_costs_no_checkpoint(base, tokens, tmp_path):
    whole = trained(base, tokens, tmp_path / "whole")
    with pytest.raises(SystemExit):
        trained(base, tokens, tmp_path / "x", keeper(tmp_path), step_done=ended_at(2))
    store = Refusing(tmp_path)
    with pytest.raises(BadInput, match="access denied"):
        trained(base, tokens, tmp_path / "y", Keeper(store, KEY, DECIDED, 0.0))
    assert store.written == []
    assert trained(base, tokens, tmp_path / "z", Keeper(store, KEY, DECIDED, NEVER)) == whole


def test_a_checkpoint_that_was_not_written_is_written_at_the_end(base, tokens, tmp_path):
    """Due at the first step, at which the store is away; told to end right after it."""

    class Away(Watching):
        def write(self, key, data):
            super().write(key, data)
            if len(self.written) == 1:
                (self.folder / key).unlink()
                raise OSError("the store is away")

    away = Away(tmp_path)
    with pytest.raises(SystemExit):
        trained(base, tokens, tmp_path / "x", Keeper(away, KEY, DECIDED, 0.0, Clock()), step_done=ended_at(1))
    assert len(away.written) == 2 and (tmp_path / KEY).exists()


def test_a_disk_without_room_for_a_checkpoint_ends_no_training(base, tokens, tmp_path, capsys):
    """Of a real limit, as safetensors says it."""
    whole = trained(base, tokens, tmp_path / "whole")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(whole[1]), before[1]))  # a checkpoint is about three times an adapter
    try:
        again = trained(base, tokens, tmp_path / "x", keeper(tmp_path, every=0.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert again == whole
    assert capsys.readouterr().out.startswith("no checkpoint after step 1: ")


def test_what_must_not_be_torn_is_done_before_the_end():
    done = []
    with Interruption() as interruption, pytest.raises(SystemExit):
        with interruption.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("step")
        done.append("never")
    assert done == ["step"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_rescue_waits_for_what_is_held_and_comes_once():
    """Before the context is left, however soon the signal ends what is in it."""
    done: list[str] = []
    with pytest.raises(SystemExit), Interruption(rescue=lambda: done.append("rescue")) as interruption, interruption.held():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("step")
    assert done == ["step", "rescue"]
    with pytest.raises(SystemExit), Interruption(rescue=lambda: done.append("again")):
        os.kill(os.getpid(), signal.SIGTERM)
    assert done == ["step", "rescue", "again"]


def test_the_rescue_does_not_wait_for_a_call_of_a_library():
    """The call is over when the rescue has come; until then no handler of Python's runs."""
    reading, writing = os.pipe()
    libc, byte, waited = ctypes.CDLL(None), ctypes.create_string_buffer(1), []
    with pytest.raises(SystemExit), Interruption(rescue=lambda: os.write(writing, b"x")):
        signal.siginterrupt(signal.SIGTERM, False)  # the call goes on behind the signal, as a backward pass does
        threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        waited.append(libc.read(reading, byte, 1))
    assert byte.raw == b"x" or not waited  # the signal may have come before the call
    os.close(reading)
    os.close(writing)


class Cramped(NextToken):
    """Has no memory for rows of more tokens than these; notes the rows that it was asked for."""

    def __init__(self, most: float) -> None:
        self._most = most
        self.rows: list[int] = []

    def loss(self, each, row, part, batch):
        self.rows.append(sum(len(example.ids) for example in part))
        if self.rows[-1] > self._most:
            raise MemoryError("none left")
        return super().loss(each, row, part, batch)


@pytest.mark.parametrize("batch_tokens", [16384, 200])
def test_what_a_shortage_lowered_is_what_goes_on_and_is_told(base, template, tmp_path, capsys, batch_tokens):
    """Memory runs out in the first process and is free again in the second: the row is the checkpoint's, as are bytes, commit and
    summary those of one process that was short of memory."""
    tokens = [template.tokens(dialogue(i, 1 + i % 2), every_turn=False) for i in range(8)]
    room = max(len(each.ids) for each in tokens) + 5

    def begun(folder: Path, objective: NextToken, step_done: Callable[[float], None] = lambda loss: None) -> Adapter:
        store = FileStore(folder)
        given = assigned(store, critics=False)
        training = replace(given.spec.training, batch_tokens=batch_tokens, min_examples=1)
        given = dataclasses.replace(given, given_spec=replace(given.spec, training=training))
        if not folder.exists():
            datasets(store)
        data = required(store, layout.datasets("ns/run", 1), "the debate")
        job = Job("generator", 0, Examples(tokens), adapters.current(store, "ns/run", 0, "generator", 0))
        train_one(given, data, job, Trainer(base, training, step_done, objective))
        return adapters.current(store, "ns/run", 1, "generator", 0)

    whole = begun(tmp_path / "whole", Cramped(room))
    lowered = int(re.findall(r"training\.batchTokens is ([\d,]+) from here on", capsys.readouterr().err)[-1].replace(",", ""))
    assert lowered < batch_tokens and whole.batch_tokens == lowered
    with pytest.raises(SystemExit):
        begun(tmp_path / "two", Cramped(room), ended_at(1))
    capsys.readouterr()
    free = Cramped(math.inf)
    resumed = begun(tmp_path / "two", free)
    assert "memory ran out" not in capsys.readouterr().err
    assert free.rows and all(row <= max(lowered, room - 5) for row in free.rows)
    assert resumed == whole  # by its name also the weights
    assert summary([resumed]).batch_tokens == lowered


# --- the program ---


def listed(folder: Path) -> dict[str, bytes]:
    store = FileStore(folder)
    return {key: store.read(key) for key in store.list("") if not key.endswith(layout.TIMING)}


@pytest.mark.parametrize("step", [1, 3])
def test_a_program_that_was_ended_leaves_what_one_run_would(tmp_path, step):
    """At the second step of the generator and, when it is committed, at the first of the critic: two ends in a row."""
    datasets(FileStore(tmp_path / "one"))
    datasets(FileStore(tmp_path / "two"))
    train.main(assigned(FileStore(tmp_path / "one")))
    store = Watching(tmp_path / "two")
    with pytest.raises(SystemExit):
        train.main(assigned(store), Started(report=ended_at(step)))
    key = layout.checkpoint("ns/run", 1, "generator" if step == 1 else "critic", 0)
    assert key in store.list("")
    train.main(assigned(store))
    assert listed(tmp_path / "one") == listed(tmp_path / "two")


def test_what_a_program_left_behind_its_commit_is_removed(tmp_path):
    store = FileStore(tmp_path)
    datasets(store)
    train.main(assigned(store))
    before = listed(tmp_path)
    store.write(layout.checkpoint("ns/run", 1, "critic", 0), b"left")
    train.main(assigned(store))
    assert listed(tmp_path) == before


def test_zero_minutes_are_no_checkpoint(tmp_path):
    store = FileStore(tmp_path)
    datasets(store)
    one = assigned(store)
    none = replace(one.spec, training=replace(one.spec.training, checkpoint_minutes=0))
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as program.run has it
    try:
        with pytest.raises(SystemExit):
            train.main(dataclasses.replace(one, given_spec=none), Started(report=ended_at(2)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not [key for key in store.list("") if "checkpoint" in key]
    with pytest.raises(SystemExit):
        train.main(one, Started(report=ended_at(2)))
    assert [key for key in store.list("") if "checkpoint" in key]


def test_what_decides_the_weights(tmp_path):
    """Where it runs decides nothing; every number of the training does."""
    store = FileStore(tmp_path)
    job = Job("generator", 0, Examples(), adapters.current(store, "ns/run", 0, "generator", 0))

    def of(**training):
        one = assigned(store)
        spec = replace(one.spec, training=replace(one.spec.training, **training))
        return decided(type(one)(store=store, run="ns/run", given_spec=spec, iteration=1), job, "cpu")

    plain = of()
    assert plain["torch"] == torch.__version__.partition("+")[0] or plain["torch"] == torch.__version__
    assert of(checkpoint_minutes=1) == of(topology="Shared") == of(parallelism="Sharded") == of(gpus=2) == plain
    for other in ({"epochs": 3}, {"learning_rate": 1e-5}, {"batch_tokens": 5}, {"base": "nf4"}):
        assert {name for name, value in of(**other).items() if value != plain[name]} == {"training"}
