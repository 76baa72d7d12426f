"""An event loop whose clock jumps to the next timer, and an engine of so many slots on it: schedules without a model.

Whatever would run in a thread runs at once, so an hour of debate takes the client's own work alone, and is always the same.
"""

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from maft.debate.engine import Load, Request
from maft.records import Call, Transcript

T = TypeVar("T")
Tail = Literal["even", "long"]


class _Jump(selectors.SelectSelector):
    """Never waits: time passes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns what is ready; if nothing is, moves the clock by as much as would be waited."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits and no timer is set")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop with that clock."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Returns virtual seconds."""
        return self._jump.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Calls it here and now."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # as a thread would hand it over
            done.set_exception(error)
        return done


class Here(Executor):
    """Runs what it is given at once."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Calls it."""
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def run(made: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(made)


@dataclass(slots=True)
class Slots:
    """An engine of `slots` sequences at a time, first come, first served; each takes as long as its tokens need.

    Every answer is a number, so that each prompt has its usual length; how long an answer takes is drawn by the request's seed.
    """

    slots: int
    tail: Tail = "even"
    per_token: float = 0.02  # seconds of a sequence for one more token
    per_prompt_token: float = 0.0002
    mean: float = 100.0  # tokens of an answer
    say: Callable[[Request, random.Random], str] = lambda request, draw: f"It is so. Answer: {draw.randint(10, 13)}"
    took: dict[int, float] = field(default_factory=dict)
    """Seconds of every call, by its seed."""
    running: int = 0
    _line: "deque[asyncio.Future[None]]" = field(default_factory=deque)

    async def complete(self, server: str, request: Request) -> Call:
        """Takes a slot for as long as the answer needs."""
        draw = random.Random(request.seed)
        tokens = drawn(self.tail, self.mean, draw)
        took = tokens * self.per_token + len(request.prompt) * self.per_prompt_token
        await self._enter()
        try:
            await asyncio.sleep(took)
        finally:
            self._leave()
        self.took[request.seed] = took
        return Call(request.model, request.seed, len(request.prompt), tokens, "stop", self.say(request, draw))

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Is always."""
        return 2048

    async def load(self) -> Load:
        """Tells it as vLLM does."""
        return Load(self.running, sum(not waiting.done() for waiting in self._line))

    async def _enter(self) -> None:
        if self.running < self.slots:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        await turn

    def _leave(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                return turn.set_result(None)  # the slot goes to the next
        self.running -= 1
        return None


def drawn(tail: Tail, mean: float, draw: random.Random) -> int:
    """Draws an answer's tokens. even: from half to three halves of the mean; long: lognormal, one in a hundred above six means."""
    if tail == "even":
        return round(draw.uniform(0.5, 1.5) * mean)
    return max(1, min(round(draw.lognormvariate(0, 1.0) * mean / 1.6487), round(20 * mean)))


def critical_path(transcript: Transcript, took: Mapping[int, float]) -> float:
    """Computes how long the debate over one question takes alone: the slowest agent of every round. took: seconds by seed."""
    summaries = {(summary.round, summary.agent): took[summary.call.seed] for summary in transcript.summaries}

    def chain(agent: int, m: int) -> float:
        heard = summaries.get((m + 1, agent), summaries.get((m + 1, None), 0.0))
        return heard + took[transcript.turns[agent][m].call.seed]

    agents = range(len(transcript.turns))
    return sum(max(chain(n, m) for n in agents) for m in range(len(transcript.votes)))
