"""Vectors decide whether two answers mean the same: from a cosine on, which `prepare` has fitted (answers/likeness.py)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from maft import records
from maft.answers.likeness import META, Likeness
from maft.program import Assignment
from maft.records import Judgement, Place
from maft.spec import AnswerKind
from maft.store import layout
from maft.store.commits import required
from maft.summaries import Threshold


@dataclass(slots=True)
class Vectors:
    """Compares the answers to one question, and keeps what was seen."""

    likeness: Likeness
    question: str
    threads: Executor
    """Computing blocks, the event loop may not."""
    judgements: list[Judgement] = field(default_factory=list)

    async def same(self, one: str, other: str, place: Place | None, place_of_other: Place | None) -> bool:
        """Tells whether the two are near enough."""
        measure: Callable[[], float] = partial(self.likeness.cosine, self.question, one, other)
        cosine = await asyncio.get_running_loop().run_in_executor(self.threads, measure)
        verdict = cosine >= self.likeness.threshold
        self.judgements.append(Judgement(place, place_of_other, verdict, (), cosine=cosine))
        return verdict


def likeness(assignment: Assignment, answer: AnswerKind) -> Likeness | None:
    """Loads what the run's answers are compared by; None where they are of another kind. BadInput without what
    `prepare` leaves."""
    if answer != "semantic":
        return None
    from maft.answers.encoder import load

    problems = required(assignment.store, f"{assignment.questions}/{layout.PROBLEMS}", "the task `prepare`")
    threshold = records.described(problems, META, Threshold)
    return Likeness(load(assignment.spec.task.semantic.embedder), threshold.cosine)
