"""iteration: a whole iteration ÷ the authors' way. Row 12. iterations: how a run grows with them. The last line of row 13.

Ours: `python -m maft.debate` and `python -m maft.train` over a server that is up. The authors' way on the same server: one prompt
at a time, then each of the six adapters by TRL's SFTTrainer in a process of its own, on the datasets that the debate gave. (MoCo's
multiagent finetuning, modelco 1.1.2, debates on a CPU and then ends in its training at `torch.cuda.set_device(0)`.)
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import yaml
from debates import Json, Plan, hold, world
from msgspec import structs
from ratio import RUNS, Goal, Ratio, alternate
from served import OneAtATime
from servers import Server, running

from maft.debate import datasets
from maft.debate.engine import HttpEngine
from maft.records import ROLES, Transcript
from maft.spec import RunSpec, immutable_spec_json
from maft.store import layout
from maft.store.commits import publish
from maft.store.files import FileStore

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT / "tests" / "support")]
HELD_OUT = 16  # questions; they are drawn, and not asked


class Iteration:
    """Both sides over one server; each run has a name of its own."""

    def __init__(self, folder: Path, server: Server, questions: int) -> None:
        self._folder, self._server, self._numbers = folder, server, count()
        spec = world("tiny").spec
        task = structs.replace(spec.task, train=questions, held_out=HELD_OUT)
        self.spec: RunSpec = structs.replace(spec, task=task, iterations=1)
        self._questions = questions

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
            plan = Plan(world("tiny"), self._questions, context=await http.ready("server", ["base"]))
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
            "cpu": not Path("/dev/nvidiactl").exists(),
        }
        file = self._folder / "settings.json"
        file.write_text(json.dumps(settings))
        _quietly([sys.executable, str(HERE / "trl_one.py"), str(file)])


def _quietly(line: list[str]) -> None:
    """Runs a program to its end; RuntimeError with what it said if it fails."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line[:4])} ended with {done.returncode}: {done.stderr[-2000:]}")


def iteration(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 12."""
    questions = 16 if quick else 32
    with running(world("tiny")) as server, tempfile.TemporaryDirectory(prefix="maft-bench-") as folder:
        both = Iteration(Path(folder), server, questions)
        pairs = alternate(both.authors, both.ours, runs, warm_up=False)
    sample = f"{questions} questions, three agents, two rounds, six adapters, the same server; the server's start is in neither"
    name = "the authors' way (one prompt at a time, TRL, a process an adapter) ÷ a whole iteration, tiny model"
    return [Ratio(12, name, "s", pairs.first, pairs.second, Goal("at least", 5), sample)]


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
