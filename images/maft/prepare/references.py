"""Reference answers: read as replies are, so that a reply which says one in its own words is right. What no reply can say plainly
is told people (`warnings`)."""

import re
from collections.abc import Iterator

from maft.answers.boxes import unboxed
from maft.answers.extract import canonical, extract
from maft.errors import shown
from maft.records import Commit, Problem
from maft.spec import AnswerKind, Spec
from maft.store import layout
from maft.store.base import Store
from maft.store.lines import iterate_lines

_ANNOUNCED = re.compile(r"\\boxed|^####|<answer>|answer\sis", re.IGNORECASE | re.MULTILINE)


def reference(answer: str, kind: AnswerKind) -> str | None:
    """Gives a reference its canonical form; None if it is not of the kind. A box around it is removed, and of a text counts what is
    read of a reply: "Paris (France)" is "paris" on both sides. Of a whole solution counts the mathematics that it announces."""
    bare = unboxed(answer)
    if kind == "math" and _ANNOUNCED.search(bare):
        return extract(bare, kind)
    return (_said(bare) if kind == "text" else None) or canonical(bare, kind)


def warnings(store: Store, questions: Commit, spec: Spec) -> tuple[str, ...]:
    """Names references that offer alternatives ("life or death"): of a reply they are no single answer, unless it quotes them."""
    asked = list(_texts(store, questions, spec))
    several = [problem for problem in asked if _said(problem.answer) is None]
    if not several:
        return ()
    example = f"{shown(several[0].answer)} of the question {shown(several[0].question)}"
    return (
        f"task.answer: {len(several)} of {len(asked)} reference answers offer alternatives, such as {example}; only replies that"
        " put them in quotation marks are right: name one of them, or ask for the marks in task.prompt",
    )


def _texts(store: Store, questions: Commit, spec: Spec) -> Iterator[Problem]:
    """Questions whose answers are texts: held-out ones may be of another task."""
    own, other = (task.answer_kind == "text" for task in (spec.task, spec.held_out_task))
    for entry in questions.files:
        if other if entry.name == layout.HELD_OUT else own:
            yield from iterate_lines(store, questions, entry.name, Problem)


def _said(answer: str) -> str | None:
    return extract(f"Answer: {answer}", "text")
