"""How far the running tasks of a run are: their metrics, asked for at each look.

Who answers late holds up a worker that other runs need, so that one is left alone for a while.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from maft_operator.cluster import reasons
from maft_operator.cluster.reasons import Trouble
from maft_operator.progress import PATIENCE, Units, Unreadable, read

REST = 60.0  # seconds until somebody who answered nothing in all the time there was is asked again; sooner who took less of it
SLOW = 1.0  # seconds that an answer may take without a rest
_AT_ONCE = 64  # connections for one run


@dataclass(frozen=True, slots=True)
class Measured:
    """What the metrics of a run's tasks say."""

    done: Mapping[str, Units] = field(default_factory=dict)
    """By task, or part of one: units of work that are done, and in all."""
    troubles: tuple[Trouble, ...] = ()
    """What is no metrics. It stops nothing."""


async def measure(metrics: Mapping[str, str], resting: dict[str, float]) -> Measured:
    """Asks all that do not rest. metrics: URLs by task, or by TASK/INDEX; resting: by URL, until when, on the loop's clock; it is
    brought up to date."""
    now = asyncio.get_running_loop().time()
    kept = {url: until for url, until in resting.items() if until > now and url in metrics.values()}
    resting.clear()
    resting.update(kept)
    slots = asyncio.Semaphore(_AT_ONCE)
    asked = {task: url for task, url in metrics.items() if url not in resting}
    answers = await asyncio.gather(*(_ask(url, slots, resting) for url in asked.values()))
    return _told(dict(zip(asked, answers, strict=True)))


async def _ask(url: str, slots: asyncio.Semaphore, resting: dict[str, float]) -> Units | Unreadable | None:
    clock = asyncio.get_running_loop().time
    async with slots:
        begun = clock()
        answer = await read(url)
        took = clock() - begun
        if took >= SLOW:
            resting[url] = clock() + REST * min(1.0, (took - SLOW) / (PATIENCE - SLOW))
        return answer


def _told(answers: Mapping[str, Units | Unreadable | None]) -> Measured:
    wrong = {task: answer.why for task, answer in answers.items() if isinstance(answer, Unreadable)}
    return Measured(
        {task: answer for task, answer in answers.items() if isinstance(answer, tuple)},
        tuple(_trouble(name.partition("/")[0], why) for name, why in wrong.items()),
    )


def _trouble(task: str, why: str) -> Trouble:
    return Trouble(task, reasons.METRICS_UNREADABLE, f"its metrics {why}", blocking=False)
