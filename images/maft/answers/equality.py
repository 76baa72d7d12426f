"""Which answers are the same one. Mathematics goes to math-verify, in worker processes that are killed when they hang; the
answer of a program is what it gives (programs.py)."""

import logging
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Any, Self

from pebble import ProcessExpired, ProcessPool

from maft.answers import programs
from maft.answers.blocks import program
from maft.answers.extract import FREE, extract
from maft.answers.generators import GENERATORS, find
from maft.answers.mathematics import verify, warm
from maft.answers.programs import Programs, joined
from maft.answers.scorers import Scorers
from maft.pod import memory, processors
from maft.records import Problem
from maft.spec import AnswerKind

Equal = Callable[[str, str], bool]  # of two canonical answers

KNOWN = 50_000  # comparisons that are remembered: answers of different questions are seldom compared
LIMIT = 5.0  # seconds for one comparison; sympy can run for ever on a hostile expression


def groups(answers: Sequence[str | None], equal: Equal) -> list[list[int]]:
    """Groups the indices of equal answers, by first appearance; None belongs to no group."""
    grouped: list[list[int]] = []
    for i, answer in enumerate(answers):
        if answer is None:
            continue
        home = next((group for group in grouped if equal(answers[group[0]] or "", answer)), None)
        if home is None:
            grouped.append([i])
        else:
            home.append(i)
    return grouped


class Checker:
    """Finds, compares and judges answers of one kind, for as many threads as there are workers. `math` goes to a worker; a hung
    comparison counts as unequal."""

    def __init__(self, kind: AnswerKind, limit: float = LIMIT, workers: int = 0) -> None:
        """workers: processes that compare mathematics, or programs at a time; 0: one for each processor, where memory allows."""
        self.kind = kind
        self.workers = workers or (programs.at_once(processors(), memory()[0]) if kind == "code" else processors())
        self._limit = limit
        self._starting = threading.Lock()
        self._known: dict[tuple[str, str], bool] = {}
        self._pool: ProcessPool | None = None
        self._scorers = Scorers(limit)
        self._programs = Programs()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool:
            self._pool.stop()
            self._pool.join()
        self._scorers.close()

    @property
    def runs_programs(self) -> bool:
        """Tells whether finding an answer may block."""
        return self.kind == "code"

    def find(self, problem: Problem, text: str, *, complete: bool) -> str | None:
        """Finds the answer in a model's text, in canonical form; None if there is none. Of a program it is what it gives on the
        question's inputs, so that equality is one of texts and costs one run; without inputs the program itself."""
        if problem.entry:
            return find(text, GENERATORS[problem.entry.generator], complete=complete)
        if self.kind == "code" and problem.cases:
            code = program(text, problem.cases.function, complete=complete)
            outputs = self._programs.result(problem.cases, code).outputs if code else ()
            return joined(outputs) if outputs else None
        return extract(text, self.kind, complete=complete)

    def wanted(self, problem: Problem) -> str:
        """Says what an answer to the problem is."""
        if problem.cases:
            return f"a block of Python with a function {problem.cases.function} that gives a value for each input"
        if self.kind == "code":
            return "a block of Python"
        if self.kind in FREE:
            return "a reply that is not cut off"
        return GENERATORS[problem.entry.generator].name if problem.entry else f"a {self.kind}"

    def right(self, problem: Problem, answer: str) -> bool:
        """Tells whether an answer is right: to the scorer of the problem's generator, else by being the reference. May block. To a
        question that a user asked nobody knows it."""
        if not problem.answer:
            return False
        if problem.entry:
            return self._scorers.right(problem, problem.entry, answer)
        return self.equal(problem.answer, answer)

    def equal(self, a: str, b: str) -> bool:
        """Tells whether the two are the same answer; blocks for at most the limit, and only for `math`."""
        if a == b or self.kind != "math":
            return a == b
        known = self._known.get((a, b))
        if known is None:
            known = self._compare(a, b)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[a, b] = self._known[b, a] = known
        return known

    def _compare(self, a: str, b: str) -> bool:
        return self._call(verify, a, b)

    def _call(self, function: Any, *args: str) -> bool:
        with self._starting:
            if self._pool is None:
                self._pool = _pool(self.workers)
        try:
            return bool(self._pool.schedule(function, args=args, timeout=self._limit).result())
        except (FutureTimeout, ProcessExpired):
            return False


def _pool(workers: int) -> ProcessPool:
    """Forked after math-verify is there, so that seconds of importing count against no comparison's limit."""
    import math_verify

    logging.getLogger(math_verify.__name__).setLevel(logging.ERROR)  # warns that its own time limits are off
    warm()
    return ProcessPool(max_workers=workers, context=multiprocessing.get_context("fork"))
