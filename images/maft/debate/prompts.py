"""What is said to the models: the templates of the spec, filled in.

The default texts follow the paper's (appendix, prompts for arithmetic, GSM and MATH); they stand in the resource's schema.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest

from maft.records import Call, Problem
from maft.spec import PromptsSpec

NOTHING = "(no answer)"  # of an agent whose thought never ended, or that had no room
MAX_OTHERS = 5  # answers that one summary sees, as in the authors' code

_COUNTED = 32  # questions whose tokens are counted to find the longest, by either guess


@dataclass(frozen=True, slots=True)
class Prompts:
    """The turns of a debate."""

    first: str
    """The template of the question."""
    later: PromptsSpec
    """Those of the turns after it."""

    def ask(self, question: str) -> str:
        """Fills the first user turn."""
        return fill(self.first, question=question)

    def hinted(self, question: str, answer: str) -> str:
        """Asks again with the answer (STaR, arXiv 2203.14465, "rationalization")."""
        return fill(self.later.hint, question=question, answer=answer)

    def summary(self, others: Sequence[str]) -> str:
        """Asks for a summary, in a fresh context; the question is not part of it (paper, section 2.2)."""
        return fill(self.later.summarize, answers=numbered(others))

    def judged(self, question: str, one: str, other: str) -> str:
        """Asks whether two answers mean the same."""
        return fill(self.later.judge, question=question, one=one, other=other)

    def again(self, question: str, *, summary: str | None, others: Sequence[str], cooperative: bool) -> str:
        """Asks the question again, with what the others said: a summary where there is one, else their answers. Who hears nobody is
        asked to go through its own answer."""
        if summary is None and not others:
            return fill(self.later.reflect, question=question)
        context = summary if summary is not None else numbered(others)
        if cooperative:
            return fill(self.later.cooperate, question=question, summary=context)
        if summary is None:
            return fill(self.later.concatenate, question=question, answers=context)
        return fill(self.later.revise, question=question, summary=context)


def shown(call: Call, *, thoughts: bool) -> str:
    """Writes an answer as the others see it: the reply, after its thought where those are shown."""
    answer = f"{call.thought}\n\n{call.text}" if thoughts and call.thought else call.text
    return answer.strip() or NOTHING


def numbered(answers: Sequence[str]) -> str:
    """Lists the answers one below the other, each under its speaker."""
    return "\n".join(f"Agent {i}: {answer}" for i, answer in enumerate(answers, 1))


def longest(problems: Sequence[Problem], tokens: Callable[[Problem], int]) -> Problem | None:
    """Picks the question with the most tokens, what stands before it included.

    Counted are the largest alone, in bytes and in bytes that are no ASCII letters: digits, signs and other scripts take about a
    token each, words one for four or five letters."""
    largest = [*nlargest(_COUNTED, problems, key=_bytes), *nlargest(_COUNTED, problems, key=_dense)]
    return max(largest, key=tokens, default=None)


def _bytes(problem: Problem) -> int:
    return len(problem.text.encode(errors="replace"))


def _dense(problem: Problem) -> int:
    return len(re.sub(rb"[A-Za-z ]+", b"", problem.text.encode(errors="replace")))


def fill(template: str, **values: str) -> str:
    """Replaces {name} in one pass; every other brace (LaTeX, JSON, a value's own) stays as it is."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
