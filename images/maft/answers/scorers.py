"""reasoning-gym, at arm's length: its questions are made and its scorers run in a worker process that is killed when it hangs.

The library is imported by the worker alone. A question is known by its generator, configuration, seed and place (`Entry`): the
worker makes it again for its scorer, whose data does not survive JSON.
"""

import functools
import importlib.util
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from pebble import ProcessExpired, ProcessPool

from maft.answers.configuration import typed
from maft.answers.gym import library, start
from maft.errors import BadInput, one_line
from maft.records import Entry, Problem

T = TypeVar("T")

LIMIT = 5.0  # seconds for one answer
MAKING = 60.0  # seconds for making questions
KNOWN = 50_000  # scores that are remembered
CHUNK = 1024  # questions of one seed; more come from the seed that is so much larger, where most generators go on
FULL_MARKS = 1.0  # not less, which is for answers that are partly right, and not more: some scorers exceed it for wrong ones


class Hung(TimeoutError):
    """The worker took too long, or died."""


class Scorers:
    """The worker, started when it is first needed."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._known: dict[tuple[Entry, str], bool] = {}
        self._pool: ProcessPool | None = None
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker."""
        if self._pool:
            self._pool.stop()
            self._pool.join()

    def right(self, problem: Problem, origin: Entry, answer: str) -> bool:
        """Tells whether the scorer gives full marks; an answer on which it fails or hangs is a wrong one."""
        known = self._known.get((origin, answer))
        if known is None:
            self.call(check_same, origin, problem.question, limit=MAKING)  # apart: making a question takes longer than scoring it
            known = self._full_marks(origin, answer)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[origin, answer] = known
        return known

    def _full_marks(self, origin: Entry, answer: str) -> bool:
        try:
            return self.call(score, origin, answer) == FULL_MARKS
        except Exception:  # of a scorer, about an answer that a model made up
            return False

    def call(self, function: Callable[..., T], *arguments: Any, limit: float | None = None) -> T:
        """Calls a function in the worker. Hung if it takes longer than `limit` seconds; what it raises is raised here."""
        pool = self._started()
        try:
            result: T = pool.schedule(function, args=arguments, timeout=limit or self._limit).result()
            return result
        except ImportError as error:
            raise BadInput(f"task.kind: reasoning-gym cannot be imported ({error}); install maft[reasoning-gym]") from None
        except (FutureTimeout, ProcessExpired) as error:
            raise Hung(one_line(error)) from None

    def _started(self) -> ProcessPool:
        with self._starting:
            if self._pool is None:
                if importlib.util.find_spec("reasoning_gym") is None:
                    raise BadInput("task.kind: reasoning-gym needs the package `reasoning-gym`: install maft[reasoning-gym]")
                context = multiprocessing.get_context("fork")
                self._pool = ProcessPool(max_workers=1, context=context, initializer=start)
            return self._pool


# --- in the worker ---


@functools.lru_cache(maxsize=16)
def dataset(generator: str, config: str, seed: int) -> Any:
    """Makes a generator's questions of one seed; it raises whatever its author thought of. config: as JSON, checked."""
    return library().create_dataset(generator, **typed(generator, msgspec.json.decode(config)), seed=seed, size=CHUNK)


@functools.lru_cache(maxsize=1024)
def made(origin: Entry) -> dict[str, Any]:
    """Makes a question, with its answer and what its scorer needs."""
    entry: dict[str, Any] = dataset(origin.generator, origin.config, origin.seed)[origin.index]
    return entry


def score(origin: Entry, answer: str) -> float:
    """Scores an answer as its generator does."""
    return float(dataset(origin.generator, origin.config, origin.seed).score_answer(answer, made(origin)))


def check_same(origin: Entry, question: str) -> None:
    """Raises BadInput if the question is another one than when it was drawn."""
    if not question.endswith(made(origin)["question"]):  # worked examples may stand before it
        raise BadInput(
            f"task.generator: {origin.generator} makes another question now than when the problems were drawn; "
            "use the release of reasoning-gym that drew them"
        )
