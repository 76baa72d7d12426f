"""Problem sets: where questions and reference answers come from, and how they are split.

A task kind is a format: how a row of a file or of a hub dataset becomes a problem. Everything after that is shared. Training
never reads the answers.
"""

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import cycle
from typing import Literal

import msgspec

from maft.answers import extract as answers
from maft.errors import BadInput
from maft.prepare import sources
from maft.prepare.sources import RawRow
from maft.records import Problem
from maft.spec import AnswerKind, EvaluationTaskSpec, TaskKind, TaskSpec

OPERATORS = "+*+-*"  # a+b*c+d-e*f as in the paper; longer expressions go round again
LETTERS = "ABCDEFGHIJ"  # of choices, as answers/extract.py knows them


@dataclass(frozen=True, slots=True)
class Draw:
    """Which questions to draw, and how many of them for what.

    source and held_out_source: jsonl files, hub datasets, or empty where the kind has its own. levels: of kind
    math; subjects: of kind mmlu, empty for all; probe: questions beside those for training; section: where the spec says it."""

    kind: TaskKind
    source: str
    held_out_source: str
    answer: AnswerKind
    train: int
    held_out: int
    seed: int
    operands: int
    minimum: int
    maximum: int
    levels: tuple[int, ...] = (1, 2, 3)
    subjects: tuple[str, ...] = ()
    probe: int = 0
    section: Literal["task", "evaluation.task"] = "task"


def of_task(task: TaskSpec) -> Draw:
    """Makes the draw that `task` asks for."""
    return Draw(
        kind=task.kind,
        source=task.source,
        held_out_source=task.held_out_source,
        answer=task.answer_kind,
        train=task.train,
        held_out=task.held_out,
        seed=task.seed,
        operands=task.arithmetic.operands,
        minimum=task.arithmetic.minimum,
        maximum=task.arithmetic.maximum,
        levels=task.levels,
        subjects=task.subjects,
        probe=task.probe,
    )


def of_evaluation_task(other: EvaluationTaskSpec, task: TaskSpec) -> Draw:
    """Makes the draw that `evaluation.task` asks for: what it trains on are the worked examples in front of its questions."""
    return replace(
        of_task(task),
        section="evaluation.task",
        kind=other.kind,
        source=other.source,
        held_out_source="",
        answer=other.answer_kind,
        train=other.shots,
        held_out=other.held_out,
        levels=other.levels,
        subjects=other.subjects,
        probe=0,
    )


@dataclass(frozen=True, slots=True)
class Split:
    """Questions for training, held-out questions and probe questions, disjoint by content."""

    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    probe: tuple[Problem, ...] = ()


Pool = dict[Problem, str]  # problems, each with its answer in full: what an example shows


def load(draw: Draw) -> Split:
    """Draws the questions. BadInput where a source is wrong or holds too few."""
    pool, held_out_pool = _pools(draw, ())
    return split(list(pool), list(held_out_pool), draw)


def from_other_task(draw: Draw, taken: Split) -> tuple[Problem, ...]:
    """Draws held-out questions of another task than the one trained on, none of them `taken`. Its `train` questions are worked
    examples that stand before each question; a problem's id stays that of its question alone."""
    ids = {p.id for p in (*taken.train, *taken.probe)}
    pool, held_out_pool = _pools(draw, ids)
    drawn = split(list(pool), list(held_out_pool), draw)
    examples = "".join(f"Question: {p.question}\nAnswer: {pool[p]}\n\n" for p in drawn.train)
    if not examples:
        return drawn.held_out
    return tuple(msgspec.structs.replace(p, question=f"{examples}Question: {p.question}") for p in drawn.held_out)


def split(pool: Sequence[Problem], held_out_pool: Sequence[Problem], draw: Draw) -> Split:
    """Draws by the seed, without replacement; questions of equal text count once and never fall on two sides."""
    shuffled = list({p.id: p for p in pool}.values())
    random.Random(f"{draw.seed}/questions").shuffle(shuffled)
    train, rest = tuple(shuffled[: draw.train]), shuffled[draw.train :]
    if not held_out_pool:
        _enough(shuffled, ("train", "held_out", "probe"), draw)
        return Split(train, tuple(rest[: draw.held_out]), tuple(rest[draw.held_out : draw.held_out + draw.probe]))
    _enough(shuffled, ("train", "probe"), draw)
    probe = tuple(rest[: draw.probe])
    taken = {p.id for p in (*train, *probe)}
    others = [p for p in {p.id: p for p in held_out_pool}.values() if p.id not in taken]
    random.Random(f"{draw.seed}/held-out").shuffle(others)
    _enough(others, ("held_out",), draw)
    return Split(train, tuple(others[: draw.held_out]), probe)


def _enough(pool: Sequence[Problem], parts: Iterable[str], draw: Draw) -> None:
    counts = {part: getattr(draw, part) for part in parts}
    wanted = sum(counts.values())
    if len(pool) < wanted:
        names = {"train": "train" if draw.section == "task" else "shots", "held_out": "heldOut", "probe": "probe"}
        fields = " + ".join(f"{draw.section}.{names[part]}" for part, count in counts.items() if count)
        source = draw.source or draw.kind
        raise BadInput(f"{fields}: {wanted} questions asked for, {source} has {len(pool)} different ones; ask for fewer")


def problem(question: str, answer: str, kind: AnswerKind, where: str) -> Problem:
    """Makes a problem with its reference answer in canonical form; BadInput naming `where` if the answer is not of the kind."""
    reference = answers.canonical(answer, kind)
    if reference is None:
        raise BadInput(f"{where}: answer {answer[:60]!r} is no {kind}; correct it or set task.answer")
    normalised = " ".join(question.casefold().split())
    return Problem(sha256(normalised.encode()).hexdigest()[:16], question, reference)


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


def _arithmetic(draw: Draw, wanted: int) -> Pool:
    space = max(0, draw.maximum - draw.minimum + 1) ** draw.operands
    if space < wanted:
        raise BadInput(f"task.arithmetic: {wanted} questions asked for, the operands allow {space}; widen them or ask for fewer")
    generator = random.Random(f"{draw.seed}/arithmetic")
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < wanted:
        drawn[tuple(generator.randint(draw.minimum, draw.maximum) for _ in range(draw.operands))] = None
    values = {f"What is the result of {expression(numbers)}?": str(value(numbers)) for numbers in drawn}
    return {problem(question, result, "number", "task.arithmetic"): result for question, result in values.items()}


# --- formats: from a row to a problem and its answer in full ---


def _plain(row: RawRow, where: str, draw: Draw) -> tuple[Problem, str]:
    question, answer = (_text(row, field, where) for field in ("question", "answer"))
    return problem(question, answer, draw.answer, where), answer


def _gsm8k(row: RawRow, where: str, draw: Draw) -> tuple[Problem, str]:
    """The reference stands after `####` in a worked solution."""
    question, solution = (_text(row, field, where) for field in ("question", "answer"))
    return problem(question, solution.rpartition("####")[2], "number", where), solution


def _math(row: RawRow, where: str, draw: Draw) -> tuple[Problem, str] | None:
    """The reference is the last box of a worked solution. Some rows of the published set are of "Level ?"."""
    question, level, solution = (_text(row, field, where) for field in ("problem", "level", "solution"))
    if level.removeprefix("Level").strip() not in map(str, draw.levels):
        return None
    boxed = answers.last_boxed(solution)
    if boxed is None:
        raise BadInput(f"{where}: solution holds no \\boxed{{...}}; the reference answer is taken from it")
    return problem(question, boxed, "math", where), solution


def _mmlu(row: RawRow, where: str, draw: Draw) -> tuple[Problem, str] | None:
    """The choices become part of the question; the answer is the number of one, from 0, or its letter."""
    if draw.subjects and row.get("subject") not in draw.subjects:
        return None
    question, answer, choices = _text(row, "question", where), _text(row, "answer", where).strip(), row.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise BadInput(f"{where}: choices is {choices!r:.60}; expected a list of 2 to {len(LETTERS)} texts")
    letters = LETTERS[: len(choices)]
    letter = _letter(answer, letters)
    if letter is None:
        raise BadInput(f"{where}: answer is {answer!r}; expected 0 to {len(letters) - 1} or a letter {letters[0]} to {letters[-1]}")
    lines = [question, *(f"({name}) {choice}" for name, choice in zip(letters, choices, strict=True))]
    asked = "\n".join([*lines, f"Answer with one letter, {letters[0]} to {letters[-1]}."])
    return problem(asked, letter, "choice", where), letter


def _letter(answer: str, letters: str) -> str | None:
    """The letter of a choice that is named by its number, from 0, or by its letter; None if there is no such choice."""
    if len(answer) == 1 and answer in letters:
        return answer
    numbers = [str(number) for number in range(len(letters))]
    return letters[numbers.index(answer)] if answer in numbers else None


@dataclass(frozen=True, slots=True)
class Format:
    """hub: dataset where no source is named; config: of it, empty for `default` or else all that it has; parts: its splits for
    training and for held-out questions; columns: of a row."""

    read: Callable[[RawRow, str, Draw], tuple[Problem, str] | None]
    columns: tuple[str, ...]
    hub: str = ""
    config: str = ""
    parts: tuple[str, str] = ("train", "test")


FORMATS: dict[TaskKind, Format] = {
    "jsonl": Format(_plain, ("question", "answer")),
    "gsm8k": Format(_gsm8k, ("question", "answer"), "openai/gsm8k", "main"),
    "math": Format(_math, ("problem", "level", "solution"), "EleutherAI/hendrycks_math"),
    # The test questions are kept for tests; `auxiliary_train` comes from other datasets and has no subjects.
    "mmlu": Format(_mmlu, ("question", "choices", "answer", "subject"), "cais/mmlu", "all", ("validation", "test")),
}


# --- pools ---


def _pools(draw: Draw, taken: Collection[str]) -> tuple[Pool, Pool]:
    """All questions to draw from, and those for held-out questions where they have a source of their own; without `taken`."""
    if draw.kind == "arithmetic":
        return _without(taken, _arithmetic(draw, draw.train + draw.held_out + draw.probe + len(taken))), Pool()
    source, held_out = draw.source or FORMATS[draw.kind].hub, _held_out_source(draw)
    first_needed = draw.train or draw.probe or not held_out
    pool = _pool(draw, source, 0) if first_needed else Pool()
    held_out_pool = _pool(draw, held_out, 1) if held_out else Pool()
    return _without(taken, pool), _without(taken, held_out_pool)


def _held_out_source(draw: Draw) -> str:
    """Where held-out questions have a source of their own: named, or the test split of a hub dataset. Empty: they have none."""
    if not draw.held_out:
        return ""
    source = draw.source or FORMATS[draw.kind].hub
    return draw.held_out_source or ("" if _is_file(source, draw) else source)


def _without(taken: Collection[str], pool: Pool) -> Pool:
    return {problem_: full for problem_, full in pool.items() if problem_.id not in taken}


def _pool(draw: Draw, source: str, part: int) -> Pool:
    form = FORMATS[draw.kind]
    place = sources.Place(source, form.columns, draw.section)
    rows = list(sources.of_file(place) if _is_file(source, draw) else sources.of_hub(place, form.config, form.parts[part]))
    if not rows:
        raise BadInput(f"{draw.section}.source: {source} holds no questions")
    known = {str(row.get("subject")) for _, row in rows}
    if unknown := [subject for subject in draw.subjects if subject not in known]:
        raise BadInput(f"{draw.section}.subjects: {source} has no {unknown[0]!r}; it has {', '.join(sorted(known))[:1000]}")
    return dict(found for where, row in rows if (found := form.read(row, where, draw)))


def _is_file(source: str, draw: Draw) -> bool:
    return draw.kind == "jsonl" or source.startswith(("/", "./", "../", "s3://", "file://")) or source.endswith(".jsonl")


def _text(row: RawRow, field: str, where: str) -> str:
    if not isinstance(row.get(field), str | int | float) or not str(row[field]).strip():
        raise BadInput(f"{where}: {field} is {row.get(field)!r}; expected a text that is not empty")
    return str(row[field])
