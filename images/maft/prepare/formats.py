"""Formats of questions: how a row of a file or of a hub dataset becomes a problem with its reference answer, by kind of task.

A new kind is a reader of rows and its line in FORMATS. Training never reads the answers.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import msgspec

from maft.answers.blocks import program
from maft.answers.boxes import last_boxed
from maft.answers.programs import expected
from maft.answers.spelling import plain
from maft.asked import chat_text, question_id
from maft.errors import BadInput, one_line, shown
from maft.prepare.labels import labelled
from maft.prepare.references import reference
from maft.prepare.sources import HALF, HALF_FOUND, RawRow
from maft.records import Cases, Message, Problem, fenced
from maft.spec import AnswerKind, QuestionsSpec, TaskKind

LETTERS = "ABCDEFGHIJ"  # of choices, as answers/choices.py knows them
INPUTS, WIDEST = 100, 100_000  # of a question of kind code: calls, and characters of all their arguments


def problem(question: str, answer: str, kind: AnswerKind, where: str) -> Problem:
    """Makes a problem with its reference answer in canonical form; BadInput naming `where` if the answer is not of the kind."""
    for field, text in (("question", question), ("answer", answer)):
        if HALF.search(text):
            raise BadInput(f"{where}: {shown(field)} {HALF_FOUND}")
    canonical = reference(answer, kind)
    if canonical is None:
        raise BadInput(f"{where}: answer {answer[:60]!r} is no {kind}; correct it or set task.answer")
    return Problem(question_id(question), question, canonical)


def _text(row: RawRow, field: str, where: str) -> str:
    value = row.get(field)
    if _is_missing(value):
        raise BadInput(f"{where}: {field} is {value}: no value (Python writes a missing one as NaN); give one, or remove the row")
    if field not in row:
        raise BadInput(f"{where}: {field} is missing; expected a text that is not empty; there is {_names(row)}")
    if not isinstance(value, str | int | float) or not plain(str(value)).strip():
        raise BadInput(f"{where}: {field} is {shown(value)}; expected a text that is not empty")
    return str(value)


def _names(row: RawRow) -> str:
    return one_line(", ".join(map(str, row)), 100) or "nothing"


def _is_missing(value: object) -> bool:
    """Whether it is NaN or infinite."""
    return isinstance(value, float) and not math.isfinite(value)


# --- one reader each ---


def _plain(row: RawRow, where: str, questions: QuestionsSpec) -> tuple[Problem, str]:
    """The question is a text, or a chat that ends with it."""
    if questions.answer_kind == "code":
        return _code(row, where)
    if isinstance(row.get("question"), list):
        return _chat(row, where, questions)
    question, answer = (_text(row, field, where) for field in ("question", "answer"))
    return labelled(problem(question, answer, questions.answer_kind, where), row, where, questions), answer


def _chat(row: RawRow, where: str, questions: QuestionsSpec) -> tuple[Problem, str]:
    """The last turn asks, those before it are history."""
    *history, last = turns = _turns(row["question"], where)
    answer = _text(row, "answer", where)
    asked = labelled(problem(chat_text(turns), answer, questions.answer_kind, where), row, where, questions)
    return msgspec.structs.replace(asked, question=last.content, history=tuple(history)), answer


def _turns(chat: list[Any], where: str) -> list[Message]:
    turns = [_turn(turn, f"{where}: question[{i}]") for i, turn in enumerate(chat)]
    roles = [turn.role for turn in turns]
    speakers = roles[1:] if roles[:1] == ["system"] else roles
    if len(speakers) % 2 == 0 or speakers != ["user", "assistant"] * (len(speakers) // 2) + ["user"]:
        raise BadInput(
            f"{where}: question has turns of {', '.join(roles) or 'nobody'}; "
            "expected user and assistant by turns, the last of the user, at most one of the system before them"
        )
    return turns


def _turn(turn: Any, where: str) -> Message:
    role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
    if role not in ("system", "user", "assistant"):
        raise BadInput(f"{where}: {turn!r:.60}; expected an object with role (system, user or assistant) and content")
    if not isinstance(content, str) or not plain(content).strip():
        raise BadInput(f"{where}: content is {content!r:.60}; expected a text that is not empty")
    return Message(role, content)


def _code(row: RawRow, where: str) -> tuple[Problem, str]:
    """The answer is a program that is right, whose outputs `prepare` finds (code.py), or the outputs themselves."""
    question, function = (_text(row, field, where) for field in ("question", "function"))
    if not (function.isidentifier() and not iskeyword(function)):
        raise BadInput(f"{where}: function is {shown(function)}; expected the name of a function in Python")
    inputs, answer = row.get("inputs"), row.get("answer")
    if not (isinstance(inputs, list) and 1 <= len(inputs) <= INPUTS and all(isinstance(each, list) for each in inputs)):
        raise BadInput(f"{where}: inputs is {shown(inputs)}; expected 1 to {INPUTS} lists, each with the arguments of a call")
    cases = Cases(function, json.dumps(inputs))
    if len(cases.inputs) > WIDEST:
        raise BadInput(f"{where}: inputs has {len(cases.inputs)} characters; expected at most {WIDEST}, make them fewer or smaller")
    if isinstance(answer, list):
        if len(answer) != len(inputs):
            raise BadInput(f"{where}: answer has {len(answer)} outputs for {len(inputs)} inputs; expected as many")
        return _with_cases(problem(question, expected(answer), "code", where), cases), ""
    solution = _text(row, "answer", where)
    cases = Cases(function, cases.inputs, program(solution, function, complete=True) or solution)
    return _with_cases(problem(question, solution, "code", where), cases), fenced(cases.solution)


def _with_cases(asked: Problem, cases: Cases) -> Problem:
    return msgspec.structs.replace(asked, cases=cases)


def _gsm8k(row: RawRow, where: str, questions: QuestionsSpec) -> tuple[Problem, str]:
    """The reference stands after `####` in a worked solution."""
    question, solution = (_text(row, field, where) for field in ("question", "answer"))
    return problem(question, solution.rpartition("####")[2], "number", where), solution


def _math(row: RawRow, where: str, questions: QuestionsSpec) -> tuple[Problem, str] | None:
    """The reference is the last box of a worked solution. Some rows of the published set are of "Level ?"."""
    question, level, solution = (_text(row, field, where) for field in ("problem", "level", "solution"))
    if level.removeprefix("Level").strip() not in map(str, questions.levels):
        return None
    boxed = last_boxed(solution)
    if boxed is None:
        raise BadInput(f"{where}: solution holds no \\boxed{{...}}; the reference answer is taken from it")
    return problem(question, boxed, "math", where), solution


def _mmlu(row: RawRow, where: str, questions: QuestionsSpec) -> tuple[Problem, str] | None:
    """The choices become part of the question; the answer is the number of one, from 0, or its letter."""
    if questions.subjects and row.get("subject") not in questions.subjects:
        return None
    question, answer, choices = _text(row, "question", where), _text(row, "answer", where).strip(), row.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise BadInput(f"{where}: choices is {shown(choices)}; expected a list of 2 to {len(LETTERS)} texts")
    for position, choice in enumerate(choices):
        if not isinstance(choice, str | int | float) or _is_missing(choice):
            raise BadInput(f"{where}: choices[{position}] is {shown(choice)}; expected a text")
    letters = LETTERS[: len(choices)]
    letter = _letter(answer, letters)
    if letter is None:
        raise BadInput(
            f"{where}: answer is {shown(answer)}; expected 0 to {len(letters) - 1} or a letter {letters[0]} to {letters[-1]}"
        )
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
    """One kind of task."""

    read: Callable[[RawRow, str, QuestionsSpec], tuple[Problem, str] | None]
    """A row, and where it stands, as a problem and its answer in full; None for a row that is not asked for."""
    columns: tuple[str, ...]
    """Of a row."""
    hub: str = ""
    """The dataset where no source is named."""
    config: str = ""
    """Of the dataset; empty for `default` or else all that it has."""
    parts: tuple[str, str] = ("train", "test")
    """Its splits for training and for held-out questions."""


FORMATS: dict[TaskKind, Format] = {
    "jsonl": Format(_plain, ("question", "answer")),
    "gsm8k": Format(_gsm8k, ("question", "answer"), "openai/gsm8k", "main"),
    "math": Format(_math, ("problem", "level", "solution"), "EleutherAI/hendrycks_math"),
    # The test questions are kept for tests; `auxiliary_train` comes from other datasets and has no subjects.
    "mmlu": Format(_mmlu, ("question", "choices", "answer", "subject"), "cais/mmlu", "all", ("validation", "test")),
}
