"""iteration: a whole iteration ÷ the authors' way. Row 12. iterations: how a run grows with them. The last line of row 13.

Ours: `python -m maft.debate` and `python -m maft.train` over a server that is up. The authors' way on the same server: one prompt
at a time, then each of the six adapters by TRL's SFTTrainer in a process of its own, on the datasets that the debate gave; where
there are GPUs, both sides have the first one, which the server leaves half of. (MoCo's multiagent finetuning, modelco 1.1.2,
debates on a CPU and then ends in its training at `torch.cuda.set_device(0)`.)
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import one_gpu
import yaml
from debates import Json, Plan, World, hold, world
from msgspec import structs
from ratio import RUNS, Goal, Ratio, alternate, fewer
from served import MODELS, OneAtATime
from servers import Server, running

from maft import visible
from maft.debate import datasets
from maft.debate.engine import HttpEngine
from maft.records import ROLES, Problem, Transcript
from maft.spec import RunSpec, immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "scripts")]
HELD_OUT = 16  # questions; they are drawn, and not asked


class Iteration:
    """Both sides over one server; each run has a name of its own."""

    def __init__(self, folder: Path, server: Server, asked: World) -> None:
        self._folder, self._server, self._numbers, self._world = folder, server, count(), asked
        self.spec: RunSpec = structs.replace(asked.spec, iterations=1)

    def ours(self) -> float:
        """Runs the two programs; seconds."""
        run = f"bench/ours-{next(self._numbers)}"
        self._program("prepare", run)
        begun = time.monotonic()
        self._program("debate", run, "--iteration=1", f"--server=server={self._server.url}")
        self._program("train", run, "--iteration=1", *(f"--agent={n}" for n in range(self.spec.agents)))
        return time.monotonic() - begun

    def authors(self) -> float:
        """One prompt at a time, one process an adapter; seconds."""
        run = f"bench/authors-{next(self._numbers)}"
        begun = time.monotonic()
        transcripts = asyncio.run(self._serial())
        self._datasets(run, transcripts)
        for role in ROLES:
            for agent in range(self.spec.agents):
                self._train_one(run, layout.dataset_file(role, agent))
        return time.monotonic() - begun

    async def _serial(self) -> tuple[Transcript, ...]:
        async with HttpEngine({"server": [self._server.url]}) as http:
            plan = Plan(self._world, self.spec.task.train, context=await http.ready("server", ["base"]))
            return (await hold(plan, OneAtATime(http))).transcripts

    def _datasets(self, run: str, transcripts: tuple[Transcript, ...]) -> None:
        store = FileStore(self._folder / "store")
        parent = publish(store, layout.debate(run, 1), {"part": b""})
        datasets.write(store, run, 1, self.spec, transcripts, parent=parent)

    def _program(self, name: str, run: str, *flags: str) -> None:
        line = [sys.executable, "-m", f"maft.{name}", f"--store={self._folder / 'store'}", f"--run={run}"]
        _quietly([*line, f"--spec={immutable_spec_json(self.spec)}", *flags])

    def _train_one(self, run: str, name: str) -> None:
        training, data = self.spec.training, self._folder / "store" / layout.datasets(run, 1) / name
        settings = {
            "model": self.spec.model.source,
            "data": str(data),
            "output": str(self._folder / "trl" / run / name),
            "epochs": training.epochs,
            "learningRate": training.learning_rate,
            "batchSize": training.batch_size,
            "rank": training.lora.rank,
            "alpha": training.lora.alpha,
            "cpu": not visible.shown().count,
        }
        file = self._folder / "settings.json"
        file.write_text(json.dumps(settings))
        _quietly([sys.executable, str(HERE / "trl_one.py"), str(file)])


def _quietly(line: list[str]) -> None:
    """Runs a program to its end; RuntimeError with what it said if it fails."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TRANSFORMERS_VERBOSITY": "error"}
    environment |= one_gpu.environment()
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line[:4])} ended with {done.returncode}: {done.stderr[-2000:]}")


def iteration(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 12, tiny."""
    tiny = world("tiny")
    task = structs.replace(tiny.spec.task, train=16 if quick else 32, held_out=HELD_OUT)
    return [against_the_authors(replace(tiny, spec=structs.replace(tiny.spec, task=task)), runs, 5)]


def iteration_gpu(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 12, pretrained: answers of random weights give nothing to train on, and the tiny model keeps no GPU busy."""
    runs = min(runs, 3)
    with tempfile.TemporaryDirectory(prefix="maft-bench-") as folder:
        asked = sums(Path(folder), 16 if quick else 150)
        row = against_the_authors(asked, runs, 20, extra=("--gpu-memory-utilization=0.5",))
    return [structs.replace(row, note=fewer(runs, "one prompt at a time takes long"))]


def against_the_authors(asked: World, runs: int, goal: float, extra: Sequence[str] = ()) -> Ratio:
    """The authors' way ÷ ours, in seconds. extra: vLLM's flags."""
    with running(asked, extra=extra) as server, tempfile.TemporaryDirectory(prefix="maft-bench-") as folder:
        both = Iteration(Path(folder), server, asked)
        pairs = alternate(both.authors, both.ours, runs, warm_up=False)
    size = f"{asked.spec.task.train} questions, three agents, two rounds, six adapters"
    sample = f"{size}, the same server; the server's start is in neither"
    name = f"the authors' way (one prompt at a time, TRL, a process an adapter) ÷ a whole iteration, {MODELS[asked.name]}"
    return Ratio(12, name, "s", pairs.first, pairs.second, Goal("at least", goal), sample)


def sums(folder: Path, questions: int) -> World:
    """The pretrained model's world with more sums than its example has: of numbers from 1 to 20."""
    from real_questions import Task, row, split

    drawn, files = Task("more", "What is {} + {}?", sum, largest=20, train=questions, held_out=HELD_OUT, equal=4), []
    for name, pairs in zip(("train", "held-out"), split(drawn), strict=True):
        files.append(folder / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row(drawn, pair)) + "\n" for pair in pairs))
    real, rows = world("real"), [json.loads(line) for line in files[0].read_text().splitlines()]
    task = structs.replace(real.spec.task, source=str(files[0]), held_out_source=str(files[1]), train=questions, held_out=HELD_OUT)
    problems = tuple(Problem(f"{i:06d}", each["question"], each["answer"]) for i, each in enumerate(rows))
    return replace(real, spec=structs.replace(real.spec, task=task), problems=problems)


# --- how a run grows with its iterations ---


def iterations(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 13, iterations 1 → 4: seconds of a whole `maft run` on the mock engine for each token, training included."""
    runs = min(runs, 1) if quick else runs
    pairs = alternate(lambda: _seconds_a_token(4), lambda: _seconds_a_token(1), runs, warm_up=False)
    sample = "whole runs of 48 + 24 questions, three agents, mock engine, real training of the tiny model"
    goal = Goal("at most", 1.1)
    return [Ratio(13, "time of a whole run for each token, iterations 1 → 4", "s", pairs.first, pairs.second, goal, sample)]


def _seconds_a_token(number: int) -> float:
    from small import MOCK, resource

    with tempfile.TemporaryDirectory(prefix="maft-bench-") as scratch:
        folder = Path(scratch)
        made = resource("grows", iterations=number, task={"train": 48, "heldOut": 24})
        (folder / "run.yaml").write_text(yaml.safe_dump(made))
        line = [sys.executable, "-m", "maft_operator", "run", str(folder / "run.yaml"), "--dir", str(folder / "runs")]
        begun = time.monotonic()
        _quietly([*line, "--serve", f"{sys.executable} {MOCK}"])
        return (time.monotonic() - begun) / _tokens(folder / "runs" / "default" / "grows")


def _tokens(run: Path) -> int:
    """Counts the tokens that were read and written in a run's debates and evaluations."""
    summaries = [json.loads(file.read_text()) for file in run.glob("local/*/summary.json")]
    usages: list[Json] = [summary["usage"] for summary in summaries if summary.get("usage")]
    return sum(usage["promptTokens"] + usage["completionTokens"] for usage in usages)
