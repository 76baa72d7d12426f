"""What a row says of other answers than its own, where answers are compared by vectors: which say the same, and which do not."""

import msgspec

from maft.answers.spelling import plain
from maft.answers.texts import text_of
from maft.errors import BadInput, shown
from maft.prepare.sources import RawRow
from maft.records import Alike, Problem
from maft.spec import QuestionsSpec

LABELS = ("same", "different")  # columns of a row
MOST = 20  # texts in one of them: pairs grow with their square


def labelled(problem: Problem, row: RawRow, where: str, questions: QuestionsSpec) -> Problem:
    """Adds what the row says of other answers: which say the same as its own, and which do not. BadInput for labels of another
    shape."""
    if questions.answer_kind != "semantic" or not any(row.get(name) for name in LABELS):
        return problem
    alike = Alike(*(_texts(row, name, where) for name in LABELS))
    same = {text_of(text) for text in (problem.answer, *alike.same)} - {None}
    if both := next((text for text in alike.different if text_of(text) in same), None):
        raise BadInput(f"{where}: {shown(both)} is among different, and is the answer or among same; take it out of one of them")
    return msgspec.structs.replace(problem, alike=alike)


def _texts(row: RawRow, name: str, where: str) -> tuple[str, ...]:
    value = row.get(name) or []
    texts = [value] if isinstance(value, str) else value
    if not (
        isinstance(texts, list) and len(texts) <= MOST and all(isinstance(text, str) and plain(text).strip() for text in texts)
    ):
        raise BadInput(f"{where}: {name} is {shown(value)}; expected at most {MOST} texts, none of them empty")
    return tuple(text.strip() for text in texts)
