"""Debates as the benchmarks hold them: the session's own code over an engine of the benchmark's choice, timed.

The only module here that knows how `maft.debate` is put together.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from msgspec import structs

from maft import models, program
from maft.answers.equality import Checker
from maft.chat_template import ChatTemplate
from maft.debate.engine import Engine, Load, Request
from maft.debate.journal import Journal
from maft.debate.progress import DebateProgress
from maft.debate.question import Question
from maft.debate.session import debate_all
from maft.debate.setup import Setup
from maft.debate.society import Society, training_rules
from maft.records import BASE, Call, Problem, Transcript
from maft.spec import RunSpec
from maft.store.files import FileStore
from maft_operator.spec.parse import parse

ROOT = Path(__file__).parents[1]
WorldName = Literal["tiny", "real", "large"]
LARGE = ROOT / ".cache" / "models" / "shape-8b"
# The example, its questions, its model: all of them are there, or made by a script of this repository.
_WORLDS = {
    "tiny": ("examples/arithmetic.yaml", "examples/tiny/questions.jsonl", "examples/tiny"),
    "real": ("examples/real.yaml", "examples/real/sums-train.jsonl", ".cache/models/smollm2-135m-instruct"),
    "large": ("examples/arithmetic.yaml", "examples/tiny/questions.jsonl", str(LARGE)),
}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """An example's settings and questions."""

    name: WorldName
    spec: RunSpec
    problems: tuple[Problem, ...]

    def asked(self, count: int) -> list[Problem]:
        """Returns so many problems; where there are fewer, they come again under other ids, so with other seeds."""
        known = self.problems
        return [structs.replace(known[i % len(known)], id=f"{i:06d}") for i in range(count)]


@cache
def world(name: WorldName) -> World:
    """Reads one of the worlds. FileNotFoundError where scripts/real_model.py was not run."""
    file, questions, model = _WORLDS[name]
    resource = yaml.safe_load((ROOT / file).read_text())
    if name == "large":
        make_large(LARGE)
        resource["spec"]["debate"]["maxTokens"] = 256
        resource["spec"]["inference"]["extraArgs"] = ["--load-format=dummy"]
    if not (ROOT / model / "config.json").exists():
        raise FileNotFoundError(f"{model} is missing; run: .venv/bin/python scripts/real_model.py")
    resource["spec"]["model"]["source"] = str(ROOT / model)
    for key in ("source", "heldOutSource"):
        if key in resource["spec"]["task"]:
            resource["spec"]["task"][key] = str(ROOT / questions)
    rows = [json.loads(line) for line in (ROOT / questions).read_text().splitlines()]
    problems = tuple(Problem(f"{i:06d}", row["question"], str(row["answer"])) for i, row in enumerate(rows))
    return World(name, parse(resource).spec, problems)


def make_large(folder: Path) -> None:
    """Describes a model of Llama 3.1's 8B sizes with the tiny model's words; vLLM gives it random weights, so that answers end by
    chance, after 344 tokens in the mean, or at the limit."""
    tiny = ROOT / "examples" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        (folder / file).write_bytes((tiny / file).read_bytes())
    sizes = {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    words = json.loads((tiny / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**words, "model_max_length": sizes["max_position_embeddings"]}))
    (folder / "config.json").write_text(json.dumps({**json.loads((tiny / "config.json").read_text()), **sizes}))


@cache
def template(name: WorldName) -> ChatTemplate:
    """Loads the world's chat template and tokenizer, once."""
    spec = world(name).spec
    return models.chat_template(spec.model, spec.debate.thinking)


@dataclass(slots=True)
class Counted:
    """An engine that counts what goes through it, and keeps it where it is asked to."""

    engine: Engine
    keep: bool = False
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kept: list[tuple[Request, Call]] = field(default_factory=list)

    async def complete(self, server: str, request: Request) -> Call:
        """Passes the request on."""
        call = await self.engine.complete(server, request)
        self.calls += 1
        self.prompt_tokens += call.prompt_tokens
        self.completion_tokens += call.completion_tokens
        if self.keep:
            self.kept.append((request, call))
        return call

    async def ready(self, server: str, names: Iterable[str]) -> int:
        """Asks the engine."""
        return await self.engine.ready(server, names)

    async def load(self) -> Load:
        """Asks the engine."""
        return await self.engine.load()


class Collected(DebateProgress):
    """Keeps the transcripts that pass."""

    def __init__(self) -> None:
        super().__init__(program.Progress(("", 0)))
        self.transcripts: list[Transcript] = []

    def add(self, transcript: Transcript) -> None:
        """Counts it, and keeps it."""
        super().add(transcript)
        self.transcripts.append(transcript)


@dataclass(frozen=True, slots=True)
class Held:
    """What a debate was."""

    seconds: float
    """From the first question to the last answer, by the loop's clock."""
    cpu: float
    """Seconds of this process meanwhile."""
    counted: Counted
    transcripts: tuple[Transcript, ...]

    @property
    def rate(self) -> float:
        """Computes completion tokens a second."""
        return self.counted.completion_tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """How a debate is held: what differs from the world's example."""

    world: World
    questions: int
    agents: int = 3
    rounds: int = 2
    mode: Literal["paper", "fast"] = "paper"
    seed: int = 0
    generators: tuple[str, ...] = ()
    critics: tuple[str, ...] = ()
    context: int = 2048
    answer: Literal["number", "math"] = "number"
    problems: tuple[Problem, ...] = ()
    """In place of the world's."""

    def asked(self) -> list[Problem]:
        """Returns the problems that are debated."""
        return list(self.problems) or self.world.asked(self.questions)

    def society(self) -> Society:
        """Makes the agents; without names all are the base model."""
        base = (BASE,) * self.agents
        return Society(self.generators or base, self.critics or base, ("server",) * self.agents)

    def setup(self, engine: Engine, checker: Checker, judge: Executor) -> Setup:
        """Puts the session's parts together."""
        debate = structs.replace(self.world.spec.debate, rounds=self.rounds, mode=self.mode)
        spec = structs.replace(self.world.spec, debate=debate, seed=self.seed, agents=self.agents)
        rules = replace(training_rules(spec, 1), answer=self.answer)
        words = template(self.world.name)
        return Setup(rules, self.society(), engine, words, checker, {"server": self.context}, judge)  # type: ignore[arg-type]


async def hold(
    plan: Plan, engine: Engine, *, keep: bool = False, judge: Executor | None = None, checker: Checker | None = None
) -> Held:
    """Debates the plan's questions as the program does, journal included."""
    loop, collected, counted = asyncio.get_running_loop(), Collected(), Counted(engine, keep)
    template(plan.world.name)
    grades, judges = checker or Checker(plan.answer), judge or ThreadPoolExecutor(1)
    with tempfile.TemporaryDirectory() as folder, grades, judges:
        setup = plan.setup(counted, grades, judges)
        journal = Journal(FileStore(Path(folder)), "debate/")
        begun, cpu = loop.time(), time.process_time()
        await debate_all(setup, plan.asked(), journal, collected)
        return Held(loop.time() - begun, time.process_time() - cpu, counted, tuple(collected.transcripts))


class Barred(Question):
    """A question that begins a round when all questions have ended the last one."""

    gate: "Gate"

    async def _round(self, round_: int) -> None:
        await self.gate.pass_(round_)
        await super()._round(round_)


class Gate:
    """A barrier before each round."""

    def __init__(self, questions: int) -> None:
        self._questions = questions
        self._arrived: dict[int, int] = {}
        self._open: dict[int, asyncio.Event] = {}

    async def pass_(self, round_: int) -> None:
        """Waits for all others."""
        event = self._open.setdefault(round_, asyncio.Event())
        self._arrived[round_] = self._arrived.get(round_, 0) + 1
        if self._arrived[round_] == self._questions:
            event.set()
        await event.wait()


async def hold_barred(plan: Plan, engine: Engine, *, judge: Executor | None = None) -> Held:
    """The same debate, round by round: all questions' calls of a round are sent at once, and the next round waits for the last."""
    loop, counted = asyncio.get_running_loop(), Counted(engine)
    with Checker(plan.answer) as checker, judge or ThreadPoolExecutor(1) as one:
        setup, gate = plan.setup(counted, checker, one), Gate(plan.questions)
        questions = [Barred(setup, i, problem) for i, problem in enumerate(plan.asked())]
        for question in questions:
            question.gate = gate
        begun, cpu = loop.time(), time.process_time()
        transcripts = await asyncio.gather(*(question.run() for question in questions))
        return Held(loop.time() - begun, time.process_time() - cpu, counted, tuple(transcripts))


def share_right(transcripts: Sequence[Transcript]) -> tuple[float, float]:
    """Computes how often the majority, the label, was right, with its standard error over questions."""
    right = [float(t.vote.right) for t in transcripts]
    mean = sum(right) / len(right)
    return mean, (mean * (1 - mean) / max(1, len(right) - 1)) ** 0.5
