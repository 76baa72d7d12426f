"""Problem sets: where questions and reference answers come from, and how they are split.

A kind of task is a format (formats.py), arithmetic, whose questions are made up here, or reasoning-gym (generated.py). Everything
after that is shared.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import msgspec

from maft.errors import BadInput, shown
from maft.prepare import generated, sources
from maft.prepare.formats import FORMATS, problem
from maft.records import VOTE, Problem
from maft.spec import AnswerKind, ArithmeticSpec, EvaluationTaskSpec, QuestionsSpec, TaskSpec

OPERATORS = "+*+-*"  # a+b*c+d-e*f as in the paper; longer expressions go round again


@dataclass(frozen=True, slots=True)
class Draw:
    """Which questions to draw, and how many of them for what."""

    questions: QuestionsSpec
    arithmetic: ArithmeticSpec
    """The expressions of kind arithmetic."""
    train: int
    held_out: int
    probe: int
    """Questions beside those for training."""
    seed: int
    held_out_source: str
    """Empty where held-out questions come from the source of the others, or from the test split of a hub dataset."""
    section: Literal["task", "evaluation.task"]
    """Where the spec says it."""
    validation: int = 0
    """Questions from the source of those for training, from which the best iteration is chosen."""


def of_task(task: TaskSpec, validation: int = 0) -> Draw:
    """Makes the draw that `task` asks for. validation: as evaluation.validation says."""
    return Draw(
        questions=task,
        arithmetic=task.arithmetic,
        train=task.train,
        held_out=task.held_out,
        probe=task.probe,
        seed=task.seed,
        held_out_source=task.held_out_source,
        section="task",
        validation=validation,
    )


def of_evaluation_task(other: EvaluationTaskSpec, task: TaskSpec) -> Draw:
    """Makes the draw that `evaluation.task` asks for: what it trains on are the worked examples in front of its questions."""
    return Draw(
        questions=other,
        arithmetic=task.arithmetic,
        train=other.shots,
        held_out=other.held_out,
        probe=0,
        seed=task.seed,
        held_out_source="",
        section="evaluation.task",
    )


@dataclass(frozen=True, slots=True)
class Split:
    """Questions for training, held-out questions, probe and validation questions, disjoint by content."""

    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    probe: tuple[Problem, ...] = ()
    validation: tuple[Problem, ...] = ()


Pool = dict[Problem, str]  # problems, each with its answer in full: what an example shows


def load(draw: Draw) -> Split:
    """Draws the questions. BadInput where a source is wrong or holds too few."""
    pool, held_out_pool = _pools(draw, ())
    return split(list(pool), list(held_out_pool), draw)


def from_other_task(draw: Draw, taken: Split) -> tuple[Problem, ...]:
    """Draws held-out questions of another task than the one trained on, none of them `taken`. Its `train` questions are worked
    examples that stand before each question; a problem's id stays that of its question alone."""
    ids = {p.id for p in (*taken.train, *taken.probe, *taken.validation)}
    pool, held_out_pool = _pools(draw, ids)
    drawn = split(list(pool), list(held_out_pool), draw)
    examples = "".join(f"Question: {p.question}\nAnswer: {pool[p]}\n\n" for p in drawn.train)
    if not examples:
        return drawn.held_out
    if not all(pool[p] for p in drawn.train):
        raise BadInput(
            "evaluation.task.shots: worked examples of code are programs; give one as `answer` of each row, or set it to 0"
        )
    if draw.questions.answer_kind == "semantic":
        raise BadInput("evaluation.task.shots: worked examples stand before both answers, whose vectors are then near; set it to 0")
    if any(p.history for p in (*drawn.train, *drawn.held_out)):
        raise BadInput("evaluation.task.shots: questions of several turns go without worked examples; set shots to 0")
    return tuple(msgspec.structs.replace(p, question=f"{examples}Question: {p.question}") for p in drawn.held_out)


def split(pool: Sequence[Problem], held_out_pool: Sequence[Problem], draw: Draw) -> Split:
    """Draws by the seed, without replacement; questions of equal text count once and never fall on two sides."""
    shuffled = list({p.id: p for p in pool}.values())
    random.Random(f"{draw.seed}/questions").shuffle(shuffled)
    rest = iter(shuffled)  # dealt out in this order: a further kind of questions changes none of those before
    if not held_out_pool:
        _enough(shuffled, ("train", "held_out", "probe", "validation"), draw)
        counts = (draw.train, draw.held_out, draw.probe, draw.validation)
        return Split(*(tuple(islice(rest, count)) for count in counts))
    _enough(shuffled, ("train", "probe", "validation"), draw)
    train, probe, validation = (tuple(islice(rest, count)) for count in (draw.train, draw.probe, draw.validation))
    taken = {p.id for p in (*train, *probe, *validation)}
    others = [p for p in {p.id: p for p in held_out_pool}.values() if p.id not in taken]
    random.Random(f"{draw.seed}/held-out").shuffle(others)
    _enough(others, ("held_out",), draw)
    return Split(train, tuple(others[: draw.held_out]), probe, validation)


def _enough(pool: Sequence[Problem], parts: Iterable[str], draw: Draw) -> None:
    counts = {part: getattr(draw, part) for part in parts}
    wanted = sum(counts.values())
    if len(pool) < wanted:
        fields = " + ".join(_field(draw, part) for part, count in counts.items() if count)
        generator = draw.questions.generator
        source = generator.name if generator else draw.questions.source or draw.questions.kind
        raise BadInput(f"{fields}: {wanted} questions asked for, {source} has {len(pool)} different ones; ask for fewer")


def _field(draw: Draw, part: str) -> str:
    names = {"train": "train" if draw.section == "task" else "shots", "held_out": "heldOut"}
    return "evaluation.validation" if part == "validation" else f"{draw.section}.{names.get(part, part)}"


# --- arithmetic (paper, section 3.1) ---


def expression(numbers: Sequence[int]) -> str:
    """Writes a+b*c+d-e*f over the numbers, longer and shorter ones by the same pattern of operators."""
    head, *tail = numbers
    return str(head) + "".join(f"{op}{n}" for op, n in zip(cycle(OPERATORS), tail, strict=False))


def value(numbers: Sequence[int]) -> int:
    """Computes the value of `expression(numbers)`: products first."""
    total, product, sign = 0, numbers[0], 1
    for op, n in zip(cycle(OPERATORS), numbers[1:], strict=False):
        if op == "*":
            product *= n
        else:
            total, product, sign = total + sign * product, n, 1 if op == "+" else -1
    return total + sign * product


def _arithmetic(draw: Draw, most: int, taken: int) -> Pool:
    """Draws `most` questions, or all that there are; so many of them may be taken."""
    space, wanted = max(0, draw.arithmetic.maximum - draw.arithmetic.minimum + 1) ** draw.arithmetic.operands, most - taken
    if space < wanted:
        raise BadInput(f"task.arithmetic: {wanted} questions asked for, the operands allow {space}; widen them or ask for fewer")
    generator = random.Random(f"{draw.seed}/arithmetic")
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < min(most, space):
        drawn[
            tuple(generator.randint(draw.arithmetic.minimum, draw.arithmetic.maximum) for _ in range(draw.arithmetic.operands))
        ] = None
    values = {f"What is the result of {expression(numbers)}?": str(value(numbers)) for numbers in drawn}
    return {problem(question, result, "number", "task.arithmetic"): result for question, result in values.items()}


# --- pools ---


def _pools(draw: Draw, taken: Collection[str]) -> tuple[Pool, Pool]:
    """All questions to draw from, and those for held-out questions where they have a source of their own; without `taken`."""
    wanted = draw.train + draw.held_out + draw.probe + draw.validation + len(taken)
    if draw.questions.kind == "arithmetic":
        return _without(taken, _arithmetic(draw, wanted, len(taken))), Pool()
    if draw.questions.generator:
        made = generated.questions(draw.questions.generator, draw.seed, wanted, f"{draw.section}.generator")
        return _without(taken, made), Pool()
    source, held_out = draw.questions.source or FORMATS[draw.questions.kind].hub, _held_out_source(draw)
    first_needed = draw.train or draw.probe or draw.validation or not held_out
    pool = _pool(draw, source, 0) if first_needed else Pool()
    held_out_pool = _pool(draw, held_out, 1) if held_out else Pool()
    return _without(taken, pool), _without(taken, held_out_pool)


def _held_out_source(draw: Draw) -> str:
    """Where held-out questions have a source of their own: named, or the test split of a hub dataset. Empty: they have none."""
    if not draw.held_out:
        return ""
    source = draw.questions.source or FORMATS[draw.questions.kind].hub
    return draw.held_out_source or ("" if _is_file(source, draw) else source)


def _without(taken: Collection[str], pool: Pool) -> Pool:
    return {problem_: full for problem_, full in pool.items() if problem_.id not in taken}


def _pool(draw: Draw, source: str, part: int) -> Pool:
    form = FORMATS[draw.questions.kind]
    field = f"{draw.section}.{'heldOutSource' if part and draw.held_out_source else 'source'}"
    place = sources.Place(source, form.columns, field)
    rows = list(sources.of_file(place) if _is_file(source, draw) else sources.of_hub(place, form.config, form.parts[part]))
    if not rows:
        raise BadInput(f"{field}: {source} holds no questions")
    known = {str(row.get("subject")) for _, row in rows}
    if unknown := [subject for subject in draw.questions.subjects if subject not in known]:
        raise BadInput(f"{draw.section}.subjects: {source} has no {unknown[0]!r}; it has {', '.join(sorted(known))[:1000]}")
    read = [(where, *made) for where, row in rows if (made := form.read(row, where, draw.questions))]
    if draw.questions.kind != "jsonl":
        return {made: full for _, made, full in read}
    votes = {where for where, row in rows if row.get(VOTE) is True}
    _one_answer_each(((where, made) for where, made, _ in read if where not in votes), draw.questions.answer_kind)
    return _settled(read, votes)


def _settled(read: Sequence[tuple[str, Problem, str]], votes: Collection[str]) -> Pool:
    """Takes of the votes on a question (rows that a society kept) the answer that most of them gave, of as many the last one's;
    none where another row answers it."""
    checked = {made.id for where, made, _ in read if where not in votes}
    voted = [(made, full) for where, made, full in read if where in votes and made.id not in checked]
    counts = Counter((made.id, made.answer) for made, _ in voted)
    chosen: dict[str, tuple[Problem, str]] = {}
    for made, full in voted:
        best, _ = chosen.get(made.id, (made, full))
        if counts[made.id, made.answer] >= counts[best.id, best.answer]:
            chosen[made.id] = (made, full)
    return {made: full for where, made, full in read if where not in votes} | dict(chosen.values())


def _one_answer_each(rows: Iterable[tuple[str, Problem]], kind: AnswerKind) -> None:
    """BadInput where rows give one question different answers: only one of them would count, and nobody would know. Not where
    answers that differ may mean the same: programs, free replies, mathematics."""
    if kind not in ("number", "choice", "text"):
        return
    first: dict[str, tuple[str, str]] = {}
    for where, made in rows:
        there, answer = first.setdefault(made.id, (where, made.answer))
        if answer != made.answer:
            raise BadInput(
                f"{where}: the answer is {shown(made.answer)}, and {there} answers the same question by {shown(answer)}; remove one"
            )


def _is_file(source: str, draw: Draw) -> bool:
    return draw.questions.kind == "jsonl" or source.startswith(("/", "./", "../", "s3://", "file://")) or source.endswith(".jsonl")
