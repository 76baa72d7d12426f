"""Problem sets: where questions and reference answers come from, and how they are split.

A task kind is a function from its source to problems; everything after that is shared. Training never reads the answers.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from maft import answers
from maft.errors import BadInput
from maft.records import Problem
from maft.store import Missing, open_store

TaskKind = Literal["arithmetic", "jsonl", "gsm8k"]
KINDS: tuple[TaskKind, ...] = ("arithmetic", "jsonl", "gsm8k")
OPERATORS = "+*+-*"  # a+b*c+d-e*f as in the paper; longer expressions go round again


@dataclass(frozen=True, slots=True)
class Task:
    """What to ask. source and held_out_source: jsonl files, hub data sets, or empty where the kind has its own."""

    kind: TaskKind
    source: str
    held_out_source: str
    answer: answers.Kind
    train: int
    held_out: int
    seed: int
    operands: int
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Split:
    """Questions for training and held-out questions, disjoint by content."""

    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]


def load(task: Task) -> Split:
    """Draws the questions. BadInput where a source is wrong or holds too few."""
    if task.kind == "arithmetic":
        wanted = task.train + task.held_out
        return split(_arithmetic(task, wanted), (), task)
    if task.kind == "gsm8k":
        source = task.source or "openai/gsm8k"
        return split(_gsm8k(source, "train"), _gsm8k(task.held_out_source or _same_hub_set(source), "test"), task)
    return split(_jsonl(task.source, task.answer), _jsonl(task.held_out_source, task.answer), task)


def split(pool: Sequence[Problem], held_out_pool: Sequence[Problem], task: Task) -> Split:
    """Seeded draw without replacement; questions of equal text count once and never fall on both sides."""
    shuffled = list({p.id: p for p in pool}.values())
    random.Random(f"{task.seed}/questions").shuffle(shuffled)
    if not held_out_pool:
        _enough(shuffled, task.train + task.held_out, "task.train + task.heldOut", task)
        return Split(tuple(shuffled[: task.train]), tuple(shuffled[task.train : task.train + task.held_out]))
    _enough(shuffled, task.train, "task.train", task)
    train = shuffled[: task.train]
    taken = {p.id for p in train}
    rest = [p for p in {p.id: p for p in held_out_pool}.values() if p.id not in taken]
    random.Random(f"{task.seed}/held-out").shuffle(rest)
    _enough(rest, task.held_out, "task.heldOut", task)
    return Split(tuple(train), tuple(rest[: task.held_out]))


def _enough(pool: Sequence[Problem], wanted: int, field: str, task: Task) -> None:
    if len(pool) < wanted:
        source = task.source or task.kind
        raise BadInput(f"{field}: {wanted} questions asked for, {source} has {len(pool)} different ones; ask for fewer")


def problem(question: str, answer: str, kind: answers.Kind, where: str) -> Problem:
    """A problem with its reference answer in canonical form; BadInput naming `where` if the answer is not of the kind."""
    reference = answers.canonical(answer, kind)
    if reference is None:
        raise BadInput(f"{where}: answer {answer[:60]!r} is no {kind}; correct it or set task.answer")
    normalised = " ".join(question.casefold().split())
    return Problem(sha256(normalised.encode()).hexdigest()[:16], question, reference)


# --- arithmetic (paper, section 3.1) ---


def expression(numbers: Sequence[int]) -> str:
    """a+b*c+d-e*f over the numbers, longer and shorter ones by the same pattern of operators."""
    head, *tail = numbers
    return str(head) + "".join(f"{op}{n}" for op, n in zip(cycle(OPERATORS), tail, strict=False))


def value(numbers: Sequence[int]) -> int:
    """The value of `expression(numbers)`: products first."""
    total, product, sign = 0, numbers[0], 1
    for op, n in zip(cycle(OPERATORS), numbers[1:], strict=False):
        if op == "*":
            product *= n
        else:
            total, product, sign = total + sign * product, n, 1 if op == "+" else -1
    return total + sign * product


def _arithmetic(task: Task, wanted: int) -> list[Problem]:
    space = max(0, task.maximum - task.minimum + 1) ** task.operands
    if space < wanted:
        raise BadInput(f"task.arithmetic: {wanted} questions asked for, the operands allow {space}; widen them or ask for fewer")
    generator = random.Random(f"{task.seed}/arithmetic")
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < wanted:
        drawn[tuple(generator.randint(task.minimum, task.maximum) for _ in range(task.operands))] = None
    return [
        problem(f"What is the result of {expression(numbers)}?", str(value(numbers)), "number", "task.arithmetic")
        for numbers in drawn
    ]


# --- jsonl and GSM8K ---


def _jsonl(source: str, kind: answers.Kind) -> list[Problem]:
    if not source:
        return []
    rows = list(_rows(source))
    if not rows:
        raise BadInput(f"task.source: {source} holds no questions")
    return [problem(row["question"], row["answer"], kind, where) for where, row in rows]


def _gsm8k(source: str, part: str) -> list[Problem]:
    """GSM8K as published: the reference stands after `####` in a worked solution."""
    if not source:
        return []
    rows = _rows(source) if _is_file(source) else _hub_rows(source, part)
    return [problem(row["question"], row["answer"].rpartition("####")[2], "number", where) for where, row in rows]


def _same_hub_set(source: str) -> str:
    return "" if _is_file(source) else source


def _is_file(source: str) -> bool:
    return source.startswith(("/", "./", "../", "s3://", "file://")) or source.endswith(".jsonl")


def _rows(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(_read(source).split("\n"), 1):
        if line.strip():
            where = f"{source} line {number}"
            yield where, _row(_parsed(line, where), where)


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise BadInput(f"{where}: JSON that cannot be read: {error}") from None


def _row(row: Any, where: str) -> dict[str, str]:
    if not isinstance(row, dict):
        raise BadInput(f"{where}: a {type(row).__name__}; expected an object with question and answer")
    for field in ("question", "answer"):
        if not isinstance(row.get(field), str | int | float) or not str(row[field]).strip():
            raise BadInput(f"{where}: {field} is {row.get(field)!r}; expected a text that is not empty")
    return {field: str(row[field]) for field in ("question", "answer")}


def _read(source: str) -> str:
    try:
        return _bytes(source).decode()
    except (Missing, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        reason = getattr(error, "strerror", None) or "No such object"
        raise BadInput(f"task.source: {source}: {reason}; give a jsonl file or an s3:// URL that can be read") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"task.source: {source} is not UTF-8 text (byte {error.start})") from None


def _bytes(source: str) -> bytes:
    if "://" not in source:
        return Path(source).read_bytes()
    place, _, query = source.partition("?")
    folder, _, name = place.rpartition("/")
    return open_store(f"{folder}/?{query}" if query else f"{folder}/").read(unquote(name))


def _hub_rows(source: str, part: str) -> Iterator[tuple[str, dict[str, str]]]:
    load_dataset = _load_dataset()
    try:
        rows = load_dataset(source, "main", split=part)
    except Exception as error:  # the library raises a different type for every way in which a hub can fail
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"task.source: {source} cannot be loaded ({reason}); offline, give a jsonl file instead") from error
    for number, row in enumerate(rows, 1):
        where = f"{source} {part} row {number}"
        yield where, _row(row, where)


def _load_dataset() -> Callable[..., Any]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise BadInput("task.source: hub data sets need the package `datasets`: install maft[hub], or give a jsonl file") from None
    return load_dataset  # type: ignore[no-any-return]
