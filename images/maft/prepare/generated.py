"""Questions of kind reasoning-gym: made by a generator, each with the place that its scorer finds it at again.

What would fail late is found here: names and arguments, answers without a canonical form, scorers that fail on their own answers.
"""

from collections.abc import Iterator, Sequence
from itertools import count

import msgspec

from maft.answers.configuration import check
from maft.answers.generators import GENERATORS, REFUSED
from maft.answers.scorers import CHUNK, FULL_MARKS, MAKING, Hung, Scorers, dataset, made, score
from maft.errors import BadInput, meant, with_kind
from maft.prepare.formats import problem
from maft.records import Entry, Problem
from maft.spec import GeneratorSpec

STEP = 16  # questions that are made at a time; divides CHUNK
Pool = dict[Problem, str]


class Drawn(msgspec.Struct, frozen=True):
    """One question as its generator made it."""

    origin: Entry
    question: str
    answer: str
    """As the generator writes it."""
    reference: str
    """In canonical form; empty where no answer would be right."""


def questions(generator: GeneratorSpec, seed: int, wanted: int, where: str) -> Pool:
    """Makes `wanted` different questions, each with its answer; fewer where the generator seems to have no more. BadInput if it
    cannot be used. where: the field of the spec."""
    _usable(generator.name, where)
    problems: dict[str, tuple[Problem, str]] = {}
    tried = fruitless = 0
    with Scorers() as worker:
        for several in _made(worker, generator, seed, where):
            before = len(problems)
            for one in several:
                if one.reference and len(problems) < wanted:
                    asked = _problem(one, where)
                    problems.setdefault(asked.id, (asked, one.answer))
            tried, fruitless = tried + STEP, 0 if len(problems) > before else fruitless + STEP
            if len(problems) >= wanted or fruitless >= _patience(len(problems)):
                break
    if wanted and not problems:
        raise BadInput(f"{where}: to its scorer no answer is right to any of {tried} questions of {generator.name}; choose another")
    return dict(problems.values())


def _made(worker: Scorers, generator: GeneratorSpec, seed: int, where: str) -> Iterator[Sequence[Drawn]]:
    """Yields the questions of a generator in their order, some at a time, without an end."""
    try:
        worker.call(check, generator.name, generator.config, f"{where}.config", limit=MAKING)
        config = msgspec.json.encode(generator.config, order="deterministic").decode()
        for start in count(0, STEP):
            first, index = seed + start // CHUNK * CHUNK, start % CHUNK
            yield worker.call(draw, [Entry(generator.name, config, first, index + i) for i in range(STEP)], where, limit=MAKING)
    except Hung:
        slow = f"{generator.name} takes longer than {MAKING:.0f} s for {STEP} questions and their scores"
        raise BadInput(f"{where}: {slow}; make {where}.config smaller") from None


def _patience(count: int) -> int:
    """How many questions in a row may bring nothing new before a generator counts as exhausted."""
    return min(160 + 4 * count, 4000)


def _usable(name: str, where: str) -> None:
    if name in GENERATORS:
        return
    if reason := REFUSED.get(name):
        raise BadInput(f"{where}.name: the answers of {name} cannot be voted on: {reason}; choose one of docs/tasks.md")
    hint = meant(name.lower().replace("-", "_"), [*GENERATORS, *REFUSED], "docs/tasks.md lists them")
    raise BadInput(f"{where}.name: reasoning-gym has no generator {name!r}; {hint}")


def _problem(one: Drawn, where: str) -> Problem:
    asked = problem(one.question, one.reference, "text", where)
    return msgspec.structs.replace(asked, answer=one.reference, entry=one.origin)


# --- in the worker ---


def draw(origins: Sequence[Entry], where: str) -> list[Drawn]:
    """Makes questions and scores their own answers. BadInput where either fails."""
    return [_draw(origin, where) for origin in origins]


def _draw(origin: Entry, where: str) -> Drawn:
    name = origin.generator
    try:
        dataset(name, origin.config, origin.seed)
    except Exception as error:  # generators check their configuration by assertions, or not at all
        raise BadInput(f"{where}.config: {name} refuses {origin.config:.200} ({with_kind(error, 200)})") from None
    try:
        entry = made(origin)
        question, answer = str(entry["question"]), entry["answer"]
    except Exception as error:
        lacks = f"; pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else ""
        raise BadInput(f"{where}: {name} cannot make a question of {origin.config:.200} ({with_kind(error, 200)}){lacks}") from None
    reference = GENERATORS[name].read(str(answer))
    if reference is not None and _marks(origin, reference, where) == FULL_MARKS:
        return Drawn(origin, question, str(answer), reference)
    # No text holds an empty answer; some scorers misread some of their own answers, such as negative ones.
    if not str(answer or "").strip() or _marks(origin, str(answer), where) != FULL_MARKS:
        return Drawn(origin, question, str(answer), "")
    raise BadInput(
        f"{where}.config: with it {name} has answers that are not {GENERATORS[name].name}, such as {answer!r:.80}; change it"
    )


def _marks(origin: Entry, reference: str, where: str) -> float:
    try:
        return score(origin, reference)
    except Exception as error:
        own = f"its own answer {reference!r:.80}"
        raise BadInput(
            f"{where}: the scorer of {origin.generator} fails on {own} ({with_kind(error, 200)}); choose another"
        ) from None
