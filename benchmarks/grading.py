"""grading: finding, comparing and judging answers ÷ the whole debate, and ÷ pairwise math-verify. Row 11.

Debates of kind math are those of the pretrained model's server with LaTeX in place of its answers: as long as it takes to write
them, with answers that are equal in value and not in letters.
"""

import asyncio
import random
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import virtual
from debates import Plan, hold, template, world
from msgspec import structs
from ratio import RUNS, Goal, Ratio, alternate
from served import MODELS
from servers import Server, running

from maft.answers.equality import Checker
from maft.debate.engine import Engine, HttpEngine, Load, Request
from maft.records import Call, Problem, Transcript

# A value in many spellings: what three agents write for one answer. {a}, {b}: numbers of the question.
SPELLINGS = (
    (r"\frac{{{a}}}{{{b}}}", r"\dfrac{{{a}}}{{{b}}}", "{a}/{b}", r"\frac{{{a2}}}{{{b2}}}", r"x = \frac{{{a}}}{{{b}}}"),
    (r"{a}\sqrt{{{b}}}", r"\sqrt{{{aab}}}", r"{a} \cdot \sqrt{{{b}}}", r"{a}\sqrt {{{b}}}", r"{b}\sqrt{{{a}}}"),
    (r"({a}, {b})", r"\left({a}, {b}\right)", r"({a},{b})", r"({b}, {a})", r"(x, y) = ({a}, {b})"),
    (r"x^2 + {a}x + {b}", r"{b} + {a}x + x^2", r"x(x + {a}) + {b}", r"x^2 + {b}x + {a}", r"x^{{2}} + {a} x + {b}"),
    (r"[{a}, {c}]", r"{a} \le x \le {c}", r"\left[{a}, {c}\right]", r"({a}, {c})", r"[{a},{c}]"),
    (r"{a}\pi", r"\pi {a}", r"{a} \cdot \pi", r"{b}\pi", r"{a2}\pi / 2"),
    ("{a}.5", r"\frac{{{a2p1}}}{{2}}", r"{a}\frac{{1}}{{2}}", "{a}.50", "{b}.5"),
    ("{a}", "{a}.0", r"\boxed{{{a}}}", "{b}", r"{a2}/2"),
)
USUAL = 0.8  # of the answers have the commonest spelling
NUMBER = re.compile(r"What is number (\d+)\?")


def spelled(number: int, draw: random.Random, usual: float = 0.0) -> str:
    """Writes an answer to the question of that number: one of its spellings, some of them another value. usual: the share that
    has the first spelling, as answers of one model mostly have."""
    a, b = 2 + number % 37, 3 + (7 * number) % 11
    forms = SPELLINGS[number % len(SPELLINGS)]
    numbers = {"a": a, "b": b, "c": a + b, "a2": 2 * a, "b2": 2 * b, "aab": a * a * b, "a2p1": 2 * a + 1}
    return forms[0 if draw.random() < usual else draw.randrange(len(forms))].format(**numbers)


def problems(count: int) -> list[Problem]:
    """Questions whose number stands in them, with the first spelling as the reference."""
    return [Problem(f"{i:06d}", f"What is number {i}?", spelled(i, random.Random(0), 1.0)) for i in range(count)]


class Said:
    """An engine whose answers are LaTeX in place of what was written, at the time at which it was written."""

    def __init__(self, engine: Engine, tokenizer: Any, usual: float = USUAL) -> None:
        self._engine, self._tokenizer, self._usual = engine, tokenizer, usual

    async def complete(self, server: str, request: Request) -> Call:
        """Asks, and puts an answer in."""
        call = await self._engine.complete(server, request)
        text = self._tokenizer.decode(request.prompt)
        asked = NUMBER.findall(text) or ["0"]  # a summary does not see the question
        number = int(asked[-1])
        said = f"So the answer is $\\boxed{{{spelled(number, random.Random(request.seed), self._usual)}}}$."
        return structs.replace(call, text=said, finish_reason="stop")

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Asks the engine."""
        return await self._engine.ready(server, models)

    async def load(self) -> Load:
        """Asks the engine."""
        return await self._engine.load()


class Timed(Checker):
    """A checker that knows for how long it was asked, all threads together."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.seconds = 0.0
        self._inside = threading.local()

    def find(self, problem: Problem, text: str, *, complete: bool) -> str | None:
        """Times it."""
        with self._clock():
            return super().find(problem, text, complete=complete)

    def right(self, problem: Problem, answer: str) -> bool:
        """Times it."""
        with self._clock():
            return super().right(problem, answer)

    def equal(self, a: str, b: str) -> bool:
        """Times it."""
        with self._clock():
            return super().equal(a, b)

    def _clock(self) -> "_Clock":
        return _Clock(self)


class _Clock:
    """The time of the outermost call of a thread."""

    def __init__(self, checker: Timed) -> None:
        self._checker = checker

    def __enter__(self) -> None:
        inside = self._checker._inside
        inside.depth = getattr(inside, "depth", 0) + 1
        if inside.depth == 1:
            inside.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        inside = self._checker._inside
        inside.depth -= 1
        if inside.depth == 0:
            self._checker.seconds += time.perf_counter() - inside.begun


def grading(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 11, ÷ math-verify."""
    questions = 20 if quick else 60
    usual = f"{100 * USUAL:.0f} % of the answers in the commonest spelling"
    return [_pairwise(runs, questions, USUAL, usual), _pairwise(runs, questions, 0.0, "each answer in a drawn spelling")]


def grading_real(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 11: seconds of grading ÷ seconds of the debate, on the pretrained model's server."""
    questions, rows = (4 if quick else 12), []
    with running(world("real")) as server:
        for kind in ("number", "math"):
            _graded(server, 2, kind, 0)
            pairs = [_graded(server, questions, kind, seed) for seed in range(runs)]
            name = f"grading ÷ whole debate, kind {kind}, {MODELS['real']}"
            sample = f"{questions} questions, three agents, two rounds, a seed each"
            values = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
            rows.append(Ratio(11, name, "s", *values, Goal("at most", 0.02), sample))
    return rows


def _graded(server: Server, questions: int, kind: Any, seed: int) -> tuple[float, float]:
    async def session() -> tuple[float, float]:
        plan = Plan(world("real"), questions, seed=seed, answer=kind, generators=server.generators, critics=server.critics)
        checker = Timed(kind)
        async with HttpEngine({"server": [server.url]}) as http:
            plan = replace(plan, context=await http.ready("server", plan.society().models()))
            engine: Engine = http
            if kind == "math":
                plan = replace(plan, problems=tuple(problems(questions)))
                engine = Said(http, template("real").tokenizer)
            held = await hold(plan, engine, checker=checker)
        return checker.seconds, held.seconds

    server.forget()
    return asyncio.run(session())


def _pairwise(runs: int, questions: int, usual: float, named: str) -> Ratio:
    """Seconds of grading ÷ seconds of math-verify on all pairs, over the same answers. Both have it imported before."""
    transcripts = _replayed(questions, usual)[1]
    pairs = alternate(lambda: _replayed(questions, usual)[0], lambda: math_verify_pairs(transcripts), runs, warm_up=False)
    sample = f"{questions} questions, three agents, two rounds, {len(SPELLINGS)} kinds of answers in five spellings each"
    name = f"grading ÷ pairwise math-verify, kind math, {named}"
    return Ratio(11, name, "s", pairs.first, pairs.second, Goal("at most", 0.2), sample)


def _replayed(questions: int, usual: float) -> tuple[float, tuple[Transcript, ...]]:
    """Debates in virtual time; seconds of grading, and what was graded."""
    checker = Timed("math")
    plan = Plan(world("tiny"), questions, answer="math", problems=tuple(problems(questions)))
    engine = Said(virtual.Slots(64), template("tiny").tokenizer, usual)
    held = virtual.run(hold(plan, engine, judge=virtual.Here(), checker=checker))
    return checker.seconds, held.transcripts


def math_verify_pairs(transcripts: Sequence[Transcript]) -> float:
    """Compares, as math-verify's README shows, every two agents' answers of a round, and each with the reference; seconds."""
    from math_verify import parse, verify

    begun = time.perf_counter()
    for transcript in transcripts:
        for m in range(len(transcript.votes)):
            said = [turns[m].call.text for turns in transcript.turns]
            for i, one in enumerate(said):
                verify(parse(f"${transcript.problem.answer}$"), parse(one))
                for other in said[i + 1 :]:
                    verify(parse(one), parse(other))
    return time.perf_counter() - begun
