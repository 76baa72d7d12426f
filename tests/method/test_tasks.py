"""Problem sets: arithmetic that evaluates right, files that are read or refused with their line, splits that share nothing."""

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maft.answers.extract import extract
from maft.errors import BadInput
from maft.prepare import sources
from maft.prepare.formats import FORMATS, problem
from maft.prepare.tasks import Draw, Split, expression, from_other_task, load, value
from maft.spec import AnswerKind, ArithmeticSpec, QuestionsSpec, TaskKind

ARITHMETIC = Draw(
    questions=QuestionsSpec(
        kind="arithmetic", source="", levels=(1, 2, 3), subjects=(), prompt="{question}", held_out=10, answer="number"
    ),
    arithmetic=ArithmeticSpec(operands=6, minimum=0, maximum=29),
    train=20,
    held_out=10,
    probe=0,
    seed=0,
    held_out_source="",
    section="task",
)


def replace(draw: Draw, **changes: Any) -> Draw:
    """A draw with other fields, also those of the records that it holds."""
    own = {key: value for key, value in changes.items() if key in Draw.__slots__}
    parts = {name: getattr(draw, name) for name in ("questions", "arithmetic")}
    for name, part in parts.items():
        fields = {key: changes[key] for key in part.__struct_fields__ if key in changes and key not in own}
        own[name] = msgspec.structs.replace(part, **fields)
    assert set(changes) <= {*Draw.__slots__, *(f for part in parts.values() for f in part.__struct_fields__)}
    return dataclasses.replace(draw, **own)


JSONL = replace(ARITHMETIC, kind="jsonl", train=2, held_out=1)


def write(path: Path, rows: Sequence[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(start, start + count)]


def asked(split: Split) -> tuple[set[str], set[str]]:
    return {p.question for p in split.train}, {p.question for p in split.held_out}


# --- arithmetic ---


def test_the_papers_form() -> None:
    assert expression([1, 2, 3, 4, 5, 6]) == "1+2*3+4-5*6"
    assert value([1, 2, 3, 4, 5, 6]) == -19


@given(st.lists(st.integers(-1_000_000, 1_000_000), min_size=2, max_size=64))
def test_value_is_what_python_computes(numbers: list[int]) -> None:
    assert value(numbers) == eval(expression(numbers))


@pytest.mark.parametrize("operands", range(2, 13))
@pytest.mark.parametrize(("minimum", "maximum"), [(0, 29), (-9, 9), (-30, -20), (1_000_000, 1_000_000)])
def test_questions_have_their_value_as_answer(operands: int, minimum: int, maximum: int) -> None:
    task = replace(ARITHMETIC, operands=operands, minimum=minimum, maximum=maximum, train=1, held_out=0)
    if maximum > minimum:
        task = replace(task, train=15, held_out=5)
    split = load(task)
    for one in (*split.train, *split.held_out):
        match = re.fullmatch(r"What is the result of (.*)\?", one.question)
        assert match
        assert one.answer == str(eval(match[1]))
        numbers = [int(n) for n in re.findall(r"(?:(?<=[-+*])|^)-?\d+", match[1])]
        assert len(numbers) == operands
        assert all(minimum <= n <= maximum for n in numbers)


def test_the_seed_decides_the_questions() -> None:
    one, again, other = load(ARITHMETIC), load(ARITHMETIC), load(replace(ARITHMETIC, seed=1))
    assert one == again
    assert not set(one.train) & set(other.train)


def test_sizes_and_sides() -> None:
    split = load(ARITHMETIC)
    assert (len(split.train), len(split.held_out)) == (20, 10)
    assert len({p.id for p in (*split.train, *split.held_out)}) == 30


def test_a_whole_space_is_used_up_and_not_more() -> None:
    small = replace(ARITHMETIC, operands=2, minimum=-1, maximum=1, train=5, held_out=4)
    train, held_out = asked(load(small))
    assert train | held_out == {f"What is the result of {a}+{b}?" for a in (-1, 0, 1) for b in (-1, 0, 1)}
    with pytest.raises(BadInput, match=r"task.arithmetic: 10 questions asked for, the operands allow 9; .*ask for fewer"):
        load(replace(small, train=6))


def test_another_task_of_arithmetic_may_take_all_that_is_left() -> None:
    """Questions that train and are of another kind take none of its operands."""
    one_digit = replace(ARITHMETIC, operands=2, minimum=0, maximum=9, train=0, held_out=50, section="evaluation.task")
    elsewhere = Split(tuple(problem(f"Other {i}?", "1", "number", "here") for i in range(500)), ())
    assert len(from_other_task(one_digit, elsewhere)) == 50
    own = load(replace(one_digit, section="task", train=60, held_out=0))
    with pytest.raises(BadInput, match=r"evaluation\.task\.heldOut: 50 questions asked for, arithmetic has 40 different ones"):
        from_other_task(one_digit, own)


def test_no_operands_to_choose_from() -> None:
    with pytest.raises(BadInput, match="the operands allow 0"):
        load(replace(ARITHMETIC, minimum=9, maximum=1))


# --- files ---


def test_questions_of_a_file(tmp_path: Path) -> None:
    source = write(tmp_path / "q.jsonl", questions(3))
    split = load(replace(JSONL, source=source))
    assert {(p.question, p.answer) for p in (*split.train, *split.held_out)} == {
        (f"What is {i} + 1?", str(i + 1)) for i in range(3)
    }


@pytest.mark.parametrize(
    "form",
    [
        "{folder}/q.jsonl",
        "file://{folder}/q.jsonl",
        "q.jsonl",
        "./q.jsonl",
        "{folder}/a b#c%20?.jsonl",
        "file://{folder}/a%20b%23c%2520%3F.jsonl",
    ],
)
def test_ways_to_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("q.jsonl", "a b#c%20?.jsonl"):
        write(tmp_path / name, questions(3))
    assert len(load(replace(JSONL, source=form.format(folder=tmp_path))).train) == 2


@pytest.mark.parametrize("form", ["{folder}", "{folder}/", "file://{folder}/", "./sub dir#"])
def test_a_folder_is_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Also below it, by name; what ends otherwise is no questions; a wrong row is found by its file and line."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sub dir#"
    (folder / "below").mkdir(parents=True)
    rows = questions(5)
    write(folder / "b%20.jsonl", rows[:2])
    write(folder / "a.jsonl", rows[2:4])
    write(folder / "below" / "c.jsonl", rows[4:])
    (folder / "notes.txt").write_text("no question")
    source = form.format(folder=quote(str(folder)) if "://" in form else folder)
    read = [row["question"] for _, row in sources.of_file(sources.Place(source, ("question", "answer"), "task.source"))]
    assert read == [row["question"] for row in (*rows[2:4], *rows[:2], *rows[4:])]
    (folder / "below" / "c.jsonl").write_text("{}\nno JSON\n")
    (folder / "below" / ".ipynb_checkpoints").mkdir()
    (folder / "below" / ".ipynb_checkpoints" / "c.jsonl").write_text("not for reading")
    with pytest.raises(BadInput, match=r"below/c\.jsonl line 2: not JSON: .*; each line has to be one object, \{\.\.\.\}"):
        list(sources.of_file(sources.Place(source, ("question", "answer"), "task.source")))


def test_blank_lines_carriage_returns_and_further_fields(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(b'\r\n{"question": "a", "answer": 1, "source": "x"}\r\n\n  \n{"question": "b", "answer": 2.5}')
    split = load(replace(JSONL, source=str(file), train=1, held_out=1))
    assert {p.answer for p in (*split.train, *split.held_out)} == {"1", "5/2"}


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("what", "not JSON: Expecting value at column 1"),
        ("[" * 100_000, "JSON that cannot be read"),
        ('{"question": "q", "answer": ' + "1" * 5_000 + "}", "JSON that cannot be read"),
        ("[1]", "a list; expected an object with question and answer"),
        ('"q"', "a str; expected an object"),
        ("null", "a NoneType; expected an object"),
        ('{"question": "q"}', "answer is missing; expected a text that is not empty; there is question"),
        ('{"answer": "1"}', "question is missing; expected a text that is not empty; there is answer"),
        ('{"question": "q", "answer": ""}', "answer is ''; expected a text"),
        ('{"question": "q", "answer": " "}', "answer is ' '; expected a text"),
        ('{"question": "\\t", "answer": "1"}', "question is '\\t'; expected a text"),
        ('{"question": "\u200b", "answer": "1"}', "question is '\\u200b'; expected a text"),
        ('{"question": "q", "answer": ["1"]}', "answer is ['1']; expected a text"),
        ('{"question": "q", "answer": null}', "answer is null; expected a text"),
        ('{"question": "q", "answer": "Paris"}', "answer 'Paris' is no number; correct it or set task.answer"),
        ('{"question": "q", "answer": "1 or 2"}', "answer '1 or 2' is no number"),
        ('{"question": "q", "answer": NaN}', "answer is nan: no value (Python writes a missing one as NaN); give one"),
        ('{"question": "q", "answer": -Infinity}', "answer is -inf: no value"),
        ('{"question": NaN, "answer": "1"}', "question is nan: no value"),
        (
            '{"question": "First ", "answer": "2"}',
            "the answer is '2', and {file} line 1 answers the same question by '1'; remove",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, second_line: str, message: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "first", "answer": "1"}\n' + second_line + "\n")
    with pytest.raises(BadInput) as caught:
        load(replace(JSONL, source=str(file)))
    assert str(caught.value).startswith(f"{file} line 2: {message.replace('{file}', str(file))}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", b'{"question": "\xff"}', "is not UTF-8 text (byte 14)"),
        ("q.jsonl", b"", "holds no questions"),
        ("q.jsonl", b"\n\n", "holds no questions"),
        ("absent.jsonl", b"", ": No such file or directory; give a jsonl file or an s3:// URL that can be read"),
        ("q.jsonl/below.jsonl", b"", ": Not a directory"),
        (
            "q.jsonl",
            b"PAR1\x15\x04",
            "is a Parquet file and no jsonl; save it as jsonl (datasets.load_dataset or ",
        ),
        ("q.jsonl", b"PK\x03\x04\x14\0", "is a zip archive, or an office document, and no jsonl; unpack it, or save it as jsonl"),
        ("q.jsonl", b"\x1f\x8b\x08\0", "is compressed by gzip and no jsonl; unpack it"),
        ("q.jsonl", b"SQLite format 3\0", "is an SQLite database and no jsonl; save its rows as jsonl"),
        ("../no-questions", b"", ": no file in it ends with .jsonl; give a jsonl file or a folder of them"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(content)
    (tmp_path.parent / "no-questions").mkdir(exist_ok=True)
    source = str(tmp_path / name)
    with pytest.raises(BadInput) as caught:
        load(replace(JSONL, source=source))
    assert f"task.source: {source}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("scheme", ["https", "http", "gs", "hf", "S3"])
def test_a_url_that_is_not_read_names_the_field(scheme: str) -> None:
    """And not what else stands in it, which may be a password."""
    with pytest.raises(BadInput) as caught:
        load(replace(JSONL, source=f"{scheme}://user:secret@host/q.jsonl?key=secret"))
    assert str(caught.value) == f"task.source: '{scheme}':// is not read; download the file and name its path, or an s3:// URL"


def test_a_url_that_is_wrong_names_the_field() -> None:
    with pytest.raises(BadInput, match=r"^task\.source: s3://bucket: unknown option 'key'; there are endpoint and region$"):
        load(replace(JSONL, source="s3://bucket/q.jsonl?key=secret"))


@pytest.mark.parametrize("kind", ["number", "math"])
def test_decimals_keep_all_their_digits(tmp_path: Path, kind: AnswerKind) -> None:
    written = "0.12345678901234567890123"
    (tmp_path / "q.jsonl").write_text(f'{{"question": "q", "answer": {written}}}\n{{"question": "r", "answer": 2.50}}\n')
    problems = load(replace(JSONL, source=str(tmp_path / "q.jsonl"), answer=kind, train=2, held_out=0)).train
    answers = {made.question: made.answer for made in problems}
    assert Fraction(answers["q"]) == Fraction(written)
    assert answers["r"] == ("5/2" if kind == "number" else "2.5")


def test_of_the_votes_on_a_question_most_count_and_the_last_of_as_many(tmp_path: Path) -> None:
    """As a society keeps them; an answer that somebody checked goes before them."""
    votes = {"Most?": "3 4 3", "many?": "1 2", "CHECKED?": "5 5", "Once?": "6"}
    rows = [{"question": q, "answer": a, "vote": True} for q, several in votes.items() for a in several.split()]
    rows += [{"question": "checked?", "answer": "7", "vote": False}, {"question": "most?", "answer": "4", "vote": True}]
    split = load(replace(JSONL, source=write(tmp_path / "q.jsonl", rows), train=4, held_out=0))
    answers = {problem.question.lower(): problem.answer for problem in split.train}
    assert answers == {"most?": "4", "many?": "2", "checked?": "7", "once?": "6"}


def test_answers_that_differ_in_writing_are_no_contradiction(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "0.5"}, {"question": "Q", "answer": "1/2"}, {"question": "r", "answer": "3"}]
    assert len(load(replace(JSONL, source=write(tmp_path / "q.jsonl", rows), train=2, held_out=0)).train) == 2
    rows[1]["answer"] = "\\frac12"
    assert len(load(replace(JSONL, source=write(tmp_path / "q.jsonl", rows), answer="math", train=2, held_out=0)).train) == 2


REFERENCES = {
    "Paris (France)": "paris",
    "Paris, which is in France": "paris",
    "Yes, because it rains": "yes",
    "\\boxed{Paris}": "paris",
    "$\\boxed{\\text{New York}}$": "new york",
    "St. Petersburg": "st. petersburg",
    "Not given": "not given",
    "C++": "c++",
}


@pytest.mark.parametrize(("answer", "reading"), REFERENCES.items())
def test_a_reply_that_says_the_reference_is_right(answer: str, reading: str) -> None:
    made = problem("q", answer, "text", "row 1")
    assert made.answer == reading == extract(f"Answer: {answer}", "text")


@pytest.mark.parametrize(
    ("answer", "kind", "reading"),
    [
        ("\\boxed{x+1}", "math", "x+1"),
        ("$\\fbox{5}$.", "number", "5"),
        ("\\boxed{B}", "choice", "B"),
        ("life or death", "text", "life or death"),
    ],
)
def test_a_box_around_a_reference_is_removed(answer: str, kind: AnswerKind, reading: str) -> None:
    assert problem("q", answer, kind, "row 1").answer == reading


def test_a_missing_object_of_a_store(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.jsonl: No such object"):
        load(replace(JSONL, source=f"file://{tmp_path}/absent.jsonl"))


@pytest.mark.parametrize(
    ("kind", "answer", "reference"),
    [("choice", "b", "B"), ("text", " New  York", "new york"), ("math", "$\\dfrac12$", "\\frac12"), ("number", "1,000", "1000")],
)
def test_references_are_canonical(tmp_path: Path, kind: AnswerKind, answer: str, reference: str) -> None:
    source = write(tmp_path / "q.jsonl", [{"question": "q", "answer": answer}])
    [only] = load(replace(JSONL, source=source, answer=kind, train=1, held_out=0)).train
    assert only.answer == reference


# --- splits ---


@pytest.mark.parametrize("spelling", [str.upper, lambda q: f"  {q} ", lambda q: q.replace(" ", "\t "), lambda q: q])
def test_questions_that_differ_in_case_and_space_are_one(spelling: object) -> None:
    one, other = "What is the Straße of 3 + 4?", spelling("What is the Straße of 3 + 4?")  # type: ignore[operator]
    assert problem(one, "7", "number", "here").id == problem(other, "7", "number", "here").id
    assert problem(one, "7", "number", "here").id != problem(one + "!", "7", "number", "here").id


def test_duplicates_count_once(tmp_path: Path) -> None:
    doubled = [*questions(3), *({**row, "question": row["question"].upper() + " "} for row in questions(3))]
    source = write(tmp_path / "q.jsonl", doubled)
    split = load(replace(JSONL, source=source))
    assert len({p.id for p in (*split.train, *split.held_out)}) == 3
    with pytest.raises(
        BadInput, match=r"task.train \+ task.heldOut: 4 questions asked for, .* has 3 different ones; ask for fewer"
    ):
        load(replace(JSONL, source=source, train=3))


def test_sources_that_share_questions_share_none_across_the_split(tmp_path: Path) -> None:
    shared = [{**row, "question": f" {row['question'].upper()}"} for row in questions(6)]
    train = write(tmp_path / "train.jsonl", questions(6))
    held_out = write(tmp_path / "held-out.jsonl", [*shared, *questions(2, start=100)])
    task = replace(JSONL, source=train, held_out_source=held_out, train=4)
    for seed in range(10):
        split = load(replace(task, seed=seed, held_out=4))
        assert not {p.id for p in split.train} & {p.id for p in split.held_out}
        assert (len(split.train), len(split.held_out)) == (4, 4)
    with pytest.raises(BadInput, match=r"task.heldOut: 5 questions asked for, .* has 4 different ones"):
        load(replace(task, held_out=5))


def test_held_out_questions_come_from_their_own_source(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", questions(3))
    held_out = write(tmp_path / "held-out.jsonl", questions(3, start=100))
    split = load(replace(JSONL, source=train, held_out_source=held_out, train=3, held_out=3))
    assert asked(split) == ({q["question"] for q in questions(3)}, {q["question"] for q in questions(3, start=100)})


@pytest.mark.parametrize("text", [None, ""])
def test_what_is_wrong_of_their_own_source_is_told_as_its(tmp_path: Path, text: str | None) -> None:
    other = tmp_path / "test.jsonl"
    if text is not None:
        other.write_text(text)
    with pytest.raises(BadInput, match=rf"^task\.heldOutSource: {other}"):
        load(replace(JSONL, source=write(tmp_path / "train.jsonl", questions(3)), held_out_source=str(other)))


@pytest.mark.parametrize(("train", "held_out"), [(4, 1), (1, 4)])
def test_too_few_questions(tmp_path: Path, train: int, held_out: int) -> None:
    source, other = write(tmp_path / "a.jsonl", questions(3)), write(tmp_path / "b.jsonl", questions(3, start=9))
    with pytest.raises(BadInput, match=r"5 questions asked for, .* has 3 different ones"):
        load(replace(JSONL, source=source, train=train, held_out=held_out))
    with pytest.raises(BadInput, match=r"4 questions asked for, .* has 3 different ones"):
        load(replace(JSONL, source=source, held_out_source=other, train=train, held_out=held_out))


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    task = replace(JSONL, source=write(tmp_path / "q.jsonl", questions(40)), train=20, held_out=20)
    assert load(task) == load(task)
    assert len({load(replace(task, seed=seed)).train for seed in range(5)}) == 5


# --- GSM8K ---

SOLUTION = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = 72.\n#### {}"


def test_gsm8k_from_a_file(tmp_path: Path) -> None:
    rows = [{"question": f"How many clips, {i}?", "answer": SOLUTION.format(f"1,{i}00")} for i in range(1, 4)]
    source = write(tmp_path / "gsm.jsonl", rows)
    split = load(replace(JSONL, kind="gsm8k", source=source))
    assert {p.answer for p in (*split.train, *split.held_out)} == {"1100", "1200", "1300"}


def test_gsm8k_with_a_held_out_file(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", [{"question": f"{name} {i}", "answer": SOLUTION.format(i)} for i in range(3)])
    split = load(replace(JSONL, kind="gsm8k", source=f"{tmp_path}/train.jsonl", held_out_source=f"{tmp_path}/test.jsonl"))
    assert all(p.question.startswith("train") for p in split.train)
    assert all(p.question.startswith("test") for p in split.held_out)


@pytest.mark.parametrize("answer", ["They sold 48 and 24 clips.", "#### none", "####"])
def test_gsm8k_without_a_reference(tmp_path: Path, answer: str) -> None:
    source = write(tmp_path / "gsm.jsonl", [{"question": "q", "answer": answer}])
    with pytest.raises(BadInput, match=r"gsm\.jsonl line 1: answer .* is no number"):
        load(replace(JSONL, kind="gsm8k", source=source))


@pytest.mark.parametrize("source", ["/absent/gsm8k.json", "s3://bucket/gsm8k?option=1", "./gsm8k"])
def test_what_looks_like_a_file_is_not_looked_for_on_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput) as caught:
        load(replace(JSONL, kind="gsm8k", source=source))
    assert "maft[hub]" not in str(caught.value)


@pytest.mark.parametrize("source", ["", "openai/gsm8k"])
def test_the_hub_needs_its_package(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it raises ImportError
    with pytest.raises(BadInput, match=r"install maft\[hub\], or give a jsonl file"):
        load(replace(JSONL, kind="gsm8k", source=source))


class Hub:
    """Stands in for the package `datasets`: what it was asked for, and what it answers."""

    def __init__(self, *rows: object, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self._rows, self._error = rows, error

    def load_dataset(self, source: str, config: str, *, split: str) -> list[object]:
        self.asked.append((source, config, split))
        if self._error:
            raise self._error
        return (
            [{"question": f"{split} {i}", "answer": SOLUTION.format(i)} for i in range(3)] if not self._rows else list(self._rows)
        )


@pytest.mark.parametrize(
    ("source", "held_out_source", "asked_for"),
    [
        ("", "", [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]),
        ("me/gsm", "", [("me/gsm", "main", "train"), ("me/gsm", "main", "test")]),
        ("me/gsm", "you/gsm", [("me/gsm", "main", "train"), ("you/gsm", "main", "test")]),
    ],
)
def test_gsm8k_from_the_hub(
    source: str, held_out_source: str, asked_for: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setitem(sys.modules, "datasets", hub)
    split = load(replace(JSONL, kind="gsm8k", source=source, held_out_source=held_out_source))
    assert hub.asked == asked_for
    assert {p.question[:5] for p in split.train} == {"train"}
    assert {p.question[:5] for p in split.held_out} == {"test "}


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        (
            Hub(error=RuntimeError("no\nnetwork")),
            r"task.source: me/gsm cannot be loaded \(no network\); offline, give a jsonl file",
        ),
        (Hub({"text": "q"}), "me/gsm train row 1: question is missing; expected a text"),
        (Hub({"question": "q", "answer": "none"}), "me/gsm train row 1: answer 'none' is no number"),
    ],
)
def test_a_hub_set_that_cannot_be_used(hub: Hub, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub)
    with pytest.raises(BadInput, match=message):
        load(replace(JSONL, kind="gsm8k", source="me/gsm"))


# --- MATH ---


def math(number: int, level: object = "Level 3", boxed: str = "\\boxed{\\dfrac{%d}{7}}") -> dict[str, object]:
    solution = f"Seven boxes share {number} pears, so each gets ${boxed.replace('%d', str(number))}$ of them."
    return {"problem": f"Share {number} pears among 7 boxes.", "level": level, "type": "Prealgebra", "solution": solution}


MATH = replace(JSONL, kind="math", answer="math", train=2, held_out=2)


def test_references_of_math_come_out_of_the_last_box(tmp_path: Path) -> None:
    rows = [math(i) for i in range(1, 4)] + [math(4, boxed="\\boxed{1} is too many, so \\boxed{\\text{%d sevenths}}")]
    split = load(replace(MATH, source=write(tmp_path / "m.jsonl", rows)))
    found = {p.question: p.answer for p in (*split.train, *split.held_out)}
    assert found == {
        "Share 1 pears among 7 boxes.": "\\frac{1}{7}",
        "Share 2 pears among 7 boxes.": "\\frac{2}{7}",
        "Share 3 pears among 7 boxes.": "\\frac{3}{7}",
        "Share 4 pears among 7 boxes.": "\\text{4 sevenths}",
    }


@pytest.mark.parametrize(
    ("levels", "numbers"),
    [((1,), {1, 6}), ((2, 3), {2, 3}), ((1, 2, 3), {1, 2, 3, 6}), ((5,), {5}), ((1, 2, 3, 4, 5), set(range(1, 7)))],
)
def test_levels_choose(tmp_path: Path, levels: tuple[int, ...], numbers: set[int]) -> None:
    """Also a level as a number, and the published set's rows without one."""
    rows = [*(math(i, f"Level {i}") for i in range(1, 6)), math(6, 1), math(7, "Level ?")]
    source = write(tmp_path / "m.jsonl", rows)
    train, _ = asked(load(replace(MATH, source=source, levels=levels, train=len(numbers), held_out=0)))
    assert train == {f"Share {i} pears among 7 boxes." for i in numbers}
    with pytest.raises(
        BadInput, match=rf"task.train: {len(numbers) + 1} questions asked for, .* has {len(numbers)} different ones"
    ):
        load(replace(MATH, source=source, levels=levels, train=len(numbers) + 1, held_out=0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (math(1, boxed="%d"), "solution holds no \\boxed{...}; the reference answer is taken from it"),
        (math(1, boxed="\\boxed{ }"), "answer ' ' is no math"),
        ({"problem": "q", "level": "Level 1"}, "solution is missing; expected a text that is not empty"),
        ({"problem": "q", "solution": "\\boxed{1}"}, "level is missing; expected a text"),
        ([1], "a list; expected an object with problem, level and solution"),
    ],
)
def test_a_wrong_row_of_math_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(replace(MATH, source=write(tmp_path / "m.jsonl", [math(2), row])))
    assert str(caught.value).startswith(f"{tmp_path}/m.jsonl line 2: {message}")


# --- MMLU ---


def mmlu(
    number: int, answer: object = 2, subject: str = "botany", choices: Sequence[str] = ("fern", "moss", "oak")
) -> dict[str, object]:
    return {"question": f"Which of these is tallest, case {number}?", "subject": subject, "choices": choices, "answer": answer}


MMLU = replace(JSONL, kind="mmlu", answer="choice", train=1, held_out=1)


def test_the_choices_become_part_of_the_question(tmp_path: Path) -> None:
    [only] = load(replace(MMLU, source=write(tmp_path / "m.jsonl", [mmlu(1)]), held_out=0)).train
    assert only.question == "Which of these is tallest, case 1?\n(A) fern\n(B) moss\n(C) oak\nAnswer with one letter, A to C."
    assert only.answer == "C"


@pytest.mark.parametrize(("answer", "letter"), [(0, "A"), ("0", "A"), (2, "C"), ("B", "B")])
def test_answers_are_numbers_of_choices_or_their_letters(tmp_path: Path, answer: object, letter: str) -> None:
    [only] = load(replace(MMLU, source=write(tmp_path / "m.jsonl", [mmlu(1, answer)]), held_out=0)).train
    assert only.answer == letter


def test_equal_questions_with_other_choices_are_two(tmp_path: Path) -> None:
    source = write(tmp_path / "m.jsonl", [mmlu(1), mmlu(1, choices=["fern", "moss", "elm"])])
    assert len(load(replace(MMLU, source=source, train=2, held_out=0)).train) == 2


def test_subjects_choose(tmp_path: Path) -> None:
    rows = [mmlu(i, subject=subject) for i, subject in enumerate(["botany", "law", "law", "music"])]
    task = replace(MMLU, source=write(tmp_path / "m.jsonl", rows), train=3, held_out=0, subjects=("law", "music"))
    assert {p.question[:34] for p in load(task).train} == {f"Which of these is tallest, case {i}?"[:34] for i in (1, 2, 3)}
    with pytest.raises(BadInput, match=r"task.subjects: .*m.jsonl has no 'laws'; it has botany, law, music"):
        load(replace(task, subjects=("law", "laws")))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (mmlu(1, 3), "answer is '3'; expected 0 to 2 or a letter A to C"),
        (mmlu(1, "D"), "answer is 'D'; expected 0 to 2"),
        (mmlu(1, -1), "answer is '-1'; expected 0 to 2"),
        (mmlu(1, None), "answer is null; expected a text that is not empty"),
        (mmlu(1, 0, choices=["one"]), "choices is ['one']; expected a list of 2 to 10 texts"),
        (mmlu(1, 0, choices=["a", None]), "choices[1] is null; expected a text"),
        (mmlu(1, 0, choices=[["a"], "b"]), "choices[0] is ['a']; expected a text"),
        (mmlu(1, 0, choices=["a", float("nan")]), "choices[1] is nan; expected a text"),
        ({"question": "q", "answer": 0, "choices": "A B"}, "choices is 'A B'; expected a list"),
        ({"question": "q", "answer": 0}, "choices is null; expected a list"),
        (7, "a int; expected an object with question, choices, answer and subject"),
    ],
)
def test_a_wrong_row_of_mmlu_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(replace(MMLU, source=write(tmp_path / "m.jsonl", [mmlu(2), row])))
    assert str(caught.value).startswith(f"{tmp_path}/m.jsonl line 2: {message}")


# --- the hub, as its library reads a local folder of the same layout ---


class Local:
    """Datasets in folders that lie as on the hub: a card that names configurations, and files for each split."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, configs: dict[str, dict[str, Sequence[object]]], ending: str = "jsonl") -> None:
        for config, parts in configs.items():
            for part, rows in parts.items():
                (self.folder / name / config).mkdir(parents=True, exist_ok=True)
                write(self.folder / name / config / f"{part}-0.{ending}", rows)
        card = [
            {"config_name": config, "data_files": [{"split": part, "path": f"{config}/{part}-*"} for part in parts]}
            for config, parts in configs.items()
        ]
        (self.folder / name / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': card})}---\n")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Local:
    """No network: what is not in the working directory cannot be reached."""
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    return Local(tmp_path)


def test_math_from_the_hub_has_all_its_subjects(hub: Local) -> None:
    subjects = ("algebra", "geometry")
    configs = {s: {"train": [math(i) for i in (n, n + 1)], "test": [math(10 + n)]} for n, s in enumerate(subjects)}
    hub.add("EleutherAI/hendrycks_math", configs)
    train, held_out = asked(load(replace(MATH, source="", train=3)))
    assert train == {f"Share {i} pears among 7 boxes." for i in range(3)}
    assert held_out == {f"Share {i} pears among 7 boxes." for i in (10, 11)}


def test_a_copy_of_math_with_one_configuration_for_all(hub: Local) -> None:
    rows = {"train": [math(i) for i in range(3)], "test": [math(10), math(11)]}
    hub.add("me/MATH-lighteval", {"default": rows, "algebra": {"train": [math(99)], "test": [math(98)]}})
    with pytest.raises(BadInput, match=r"task.train: 4 questions asked for, me/MATH-lighteval has 3 different ones"):
        load(replace(MATH, source="me/MATH-lighteval", train=4))


def test_mmlu_from_the_hub_trains_on_no_test_question(hub: Local) -> None:
    rows = {"validation": [mmlu(1), mmlu(2)], "test": [mmlu(3), mmlu(4, subject="law")], "dev": [mmlu(5)]}
    hub.add("cais/mmlu", {"all": rows})
    train, held_out = asked(load(replace(MMLU, source="", train=2, held_out=2)))
    assert {q[:34] for q in train} == {"Which of these is tallest, case 1?", "Which of these is tallest, case 2?"}
    assert {q[:34] for q in held_out} == {"Which of these is tallest, case 3?", "Which of these is tallest, case 4?"}


def test_gsm8k_through_the_library(hub: Local) -> None:
    rows = {part: [{"question": f"{part} {i}", "answer": SOLUTION.format(i)} for i in range(3)] for part in ("train", "test")}
    hub.add("openai/gsm8k", {"main": rows, "socratic": {"train": [{"question": "x", "answer": "y"}]}})
    train, held_out = asked(load(replace(JSONL, kind="gsm8k", train=3, held_out=3)))
    assert (train, held_out) == ({"train 0", "train 1", "train 2"}, {"test 0", "test 1", "test 2"})


@pytest.mark.parametrize(
    ("task", "field", "source", "columns"),
    [
        (replace(MATH, source=""), "task", "EleutherAI/hendrycks_math", "problem, level and solution"),
        (replace(MMLU, source="me/mmlu"), "task", "me/mmlu", "question, choices, answer and subject"),
        (replace(JSONL, kind="gsm8k"), "task", "openai/gsm8k", "question and answer"),
        (replace(JSONL, kind="gsm8k", section="evaluation.task"), "evaluation.task", "openai/gsm8k", "question and answer"),
    ],
)
def test_a_hub_that_cannot_be_reached_says_which_file_to_provide(
    hub: Local, task: Draw, field: str, source: str, columns: str
) -> None:
    with pytest.raises(BadInput) as caught:
        load(task)
    said = re.fullmatch(r"(.*?) \((.+)\); (.*)", str(caught.value))
    assert said
    assert said[1] == f"{field}.source: {source} cannot be loaded"
    assert said[3] == f"offline, give a jsonl file with {columns} instead"


def test_a_set_without_the_wanted_split(hub: Local) -> None:
    hub.add("me/mmlu", {"all": {"test": [mmlu(1)]}})
    with pytest.raises(BadInput, match=r"task.source: me/mmlu cannot be loaded \(.*validation.*\)"):
        load(replace(MMLU, source="me/mmlu"))


# --- the probe ---


@pytest.mark.parametrize("own_source", [False, True])
def test_the_probe_is_disjoint_and_changes_no_other_draw(tmp_path: Path, own_source: bool) -> None:
    """Held-out questions of their own source must not be probe questions either."""
    source = write(tmp_path / "q.jsonl", questions(40))
    task = replace(JSONL, source=source, train=10, held_out=10, held_out_source=source if own_source else "")
    for seed in range(5):
        without, split = load(replace(task, seed=seed)), load(replace(task, seed=seed, probe=15))
        ids = [{p.id for p in part} for part in (split.train, split.held_out, split.probe)]
        assert [len(part) for part in ids] == [10, 10, 15]
        assert len(set.union(*ids)) == 35
        assert split.train == without.train
        assert own_source or split.held_out == without.held_out


def test_a_probe_of_expressions() -> None:
    split = load(replace(ARITHMETIC, probe=7))
    assert (len(split.train), len(split.held_out), len(split.probe)) == (20, 10, 7)
    assert len({p.id for p in (*split.train, *split.held_out, *split.probe)}) == 37


def test_too_few_questions_for_the_probe(tmp_path: Path) -> None:
    source, other = write(tmp_path / "a.jsonl", questions(4)), write(tmp_path / "b.jsonl", questions(4, start=9))
    with pytest.raises(BadInput, match=r"task.train \+ task.heldOut \+ task.probe: 5 questions asked for, .* has 4 different ones"):
        load(replace(JSONL, source=source, probe=2))
    with pytest.raises(BadInput, match=r"task.train \+ task.probe: 5 questions asked for, .* has 4 different ones"):
        load(replace(JSONL, source=source, held_out_source=other, probe=3))


# --- questions that choose the best iteration ---


@pytest.mark.parametrize("own_source", [False, True])
def test_validation_questions_are_disjoint_and_change_no_other_draw(tmp_path: Path, own_source: bool) -> None:
    source = write(tmp_path / "q.jsonl", questions(40))
    task = replace(JSONL, source=source, train=10, held_out=9, probe=5, held_out_source=source if own_source else "")
    for seed in range(5):
        without, split = load(replace(task, seed=seed)), load(replace(task, seed=seed, validation=7))
        ids = [{p.id for p in part} for part in (split.train, split.held_out, split.probe, split.validation)]
        assert [len(part) for part in ids] == [10, 9, 5, 7]
        assert len(set.union(*ids)) == 31
        assert (split.train, split.probe) == (without.train, without.probe)
        assert own_source or split.held_out == without.held_out


def test_validation_questions_of_expressions() -> None:
    split = load(replace(ARITHMETIC, validation=7))
    assert (len(split.train), len(split.held_out), len(split.validation)) == (20, 10, 7)
    assert len({p.id for p in (*split.train, *split.held_out, *split.validation)}) == 37


def test_too_few_questions_to_choose_by(tmp_path: Path) -> None:
    source, other = write(tmp_path / "a.jsonl", questions(4)), write(tmp_path / "b.jsonl", questions(4, start=9))
    says = r"task.train \+ task.heldOut \+ evaluation.validation: 5 questions asked for, .* has 4 different ones; ask for fewer"
    with pytest.raises(BadInput, match=says):
        load(replace(JSONL, source=source, validation=2))
    with pytest.raises(BadInput, match=r"task.train \+ evaluation.validation: 5 questions asked for, .* has 4 different ones"):
        load(replace(JSONL, source=source, held_out_source=other, validation=3))


# --- another task's held-out questions ---

OTHER = replace(MMLU, section="evaluation.task", train=0, held_out=3)


def test_another_tasks_questions_as_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "m.jsonl", [mmlu(i) for i in range(3)])
    found = from_other_task(replace(OTHER, source=source), load(ARITHMETIC))
    assert sorted(p.question[:34] for p in found) == [f"Which of these is tallest, case {i}?" for i in range(3)]
    assert {p.answer for p in found} == {"C"}


def test_no_question_that_trains_or_probes_is_held_out(tmp_path: Path) -> None:
    source = write(tmp_path / "q.jsonl", questions(10))
    own = load(replace(JSONL, source=source, train=3, held_out=0, probe=3, validation=1))
    other = replace(JSONL, source=source, section="evaluation.task", train=1, held_out=2)
    ids = {p.id for p in from_other_task(other, own)}
    assert len(ids) == 2
    assert not ids & {p.id for p in (*own.train, *own.probe, *own.validation)}
    with pytest.raises(
        BadInput, match=r"evaluation.task.shots \+ evaluation.task.heldOut: 4 questions asked for, .* has 3 different ones"
    ):
        from_other_task(replace(other, held_out=3), own)


def test_expressions_that_train_are_not_held_out() -> None:
    own = load(replace(ARITHMETIC, operands=2, minimum=0, maximum=9, train=50, held_out=0))
    other = replace(ARITHMETIC, section="evaluation.task", operands=2, minimum=0, maximum=9, train=0, held_out=50)
    assert not {p.id for p in from_other_task(other, own)} & {p.id for p in own.train}


def test_worked_examples_stand_before_each_question_and_are_none_of_them(tmp_path: Path) -> None:
    source = write(tmp_path / "m.jsonl", [math(i) for i in range(1, 6)])
    task = replace(MATH, source=source, section="evaluation.task", train=2, held_out=3)
    found = from_other_task(task, load(ARITHMETIC))
    examples = {p.question.rpartition("Question: ")[0] for p in found}
    assert len(examples) == 1
    shown = [n for n in range(1, 6) if f"Question: Share {n} pears" in min(examples)]
    assert len(shown) == 2
    for n in shown:
        assert f"Question: Share {n} pears among 7 boxes.\nAnswer: Seven boxes share {n} pears, so each gets" in min(examples)
    assert {p.question.rpartition("Question: ")[2] for p in found} == {
        f"Share {n} pears among 7 boxes." for n in range(1, 6) if n not in shown
    }
    bare = {p.id for p in load(replace(MATH, source=source, train=5, held_out=0)).train}
    assert {p.id for p in found} <= bare
    assert from_other_task(task, load(ARITHMETIC)) == found
    assert len({tuple(from_other_task(replace(task, seed=seed), load(ARITHMETIC))) for seed in range(5)}) > 1


def test_examples_from_the_hub_come_from_its_training_part(hub: Local) -> None:
    hub.add(
        "openai/gsm8k",
        {
            "main": {
                part: [{"question": f"{part} {i}", "answer": SOLUTION.format(i)} for i in range(3)] for part in ("train", "test")
            }
        },
    )
    found = from_other_task(replace(JSONL, kind="gsm8k", section="evaluation.task", train=1, held_out=3), load(ARITHMETIC))
    assert all(p.question.startswith("Question: train ") and "#### " in p.question for p in found)
    assert {p.question[-6:] for p in found} == {"test 0", "test 1", "test 2"}


def test_every_kind_of_task_has_a_format():
    assert {"arithmetic", "reasoning-gym", *FORMATS} == set(get_args(TaskKind))


# --- questions in the middle of a chat ---


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


SEVEN = (("user", "Let x be 7."), ("assistant", "Noted."), ("user", "What is x + 5?"))
EIGHT = (("user", "Let x be 8."), *SEVEN[1:])
BRIEF = (("system", "Be brief."), *SEVEN)


def test_the_last_turn_of_a_chat_asks_and_the_others_are_its_history(tmp_path: Path) -> None:
    rows = [{"question": chat(*turns), "answer": "12"} for turns in (SEVEN, EIGHT, BRIEF)]
    source = write(tmp_path / "q.jsonl", rows)
    split = load(replace(JSONL, source=source, train=3, held_out=0))
    found = {tuple((m.role, m.content) for m in p.history): p for p in split.train}
    assert set(found) == {SEVEN[:-1], EIGHT[:-1], BRIEF[:-1]}
    assert {p.question for p in split.train} == {"What is x + 5?"}
    assert len({p.id for p in split.train}) == 3
    assert msgspec.json.decode(msgspec.json.encode(split.train[0]), type=type(split.train[0])) == split.train[0]


def test_a_chat_of_one_turn_is_that_question(tmp_path: Path) -> None:
    rows = [{"question": question, "answer": "1"} for question in ("What is 0 + 1?", chat(("user", "What is 0  + 1?")))]
    with pytest.raises(BadInput, match=r"2 questions asked for, .* has 1 different ones"):
        load(replace(JSONL, source=write(tmp_path / "q.jsonl", rows), train=1, held_out=1))


def test_equal_chats_count_once_and_fall_on_one_side(tmp_path: Path) -> None:
    rows = [{"question": chat(*turns), "answer": "12"} for turns in (SEVEN, EIGHT, SEVEN, EIGHT)]
    split = load(replace(JSONL, source=write(tmp_path / "q.jsonl", rows), train=1, held_out=1))
    assert split.train[0].id != split.held_out[0].id


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ([], "question has turns of nobody; expected user and assistant by turns, the last of the user"),
        (chat(("assistant", "a")), "question has turns of assistant; expected"),
        (chat(("user", "a"), ("user", "b")), "question has turns of user, user; expected"),
        (chat(("user", "a"), ("assistant", "b")), "question has turns of user, assistant; expected"),
        (chat(("system", "a")), "question has turns of system; expected"),
        (chat(("user", "a"), ("assistant", "b"), ("system", "c"), ("user", "d")), "user, assistant, system, user; expected"),
        (chat(("system", "a"), ("system", "b"), ("user", "c")), "question has turns of system, system, user; expected"),
        (chat(("tool", "a")), "question[0]: {'role': 'tool', 'content': 'a'}; expected an object with role"),
        (["a"], "question[0]: 'a'; expected an object with role (system, user or assistant) and content"),
        ([{"role": "user"}], "question[0]: content is None; expected a text that is not empty"),
        ([{"role": "user", "content": [{"type": "image"}]}], "question[0]: content is [{'type': 'image'}]; expected a text"),
        (chat(("user", "\u200b")), "question[0]: content is '\\u200b'; expected a text that is not empty"),
        (chat(("user", " ")), "question[0]: content is ' '; expected a text that is not empty"),
    ],
)
def test_a_chat_that_is_none_is_refused(tmp_path: Path, question: Any, says: str) -> None:
    source = write(tmp_path / "q.jsonl", [{"question": question, "answer": "1"}])
    with pytest.raises(BadInput) as caught:
        load(replace(JSONL, source=source, train=1, held_out=0))
    assert str(caught.value).startswith(f"{source} line 1: ") and says in str(caught.value)


def test_questions_of_several_turns_go_without_worked_examples(tmp_path: Path) -> None:
    rows = [{"question": chat(*turns), "answer": "12"} for turns in (SEVEN, EIGHT)]
    draw = replace(JSONL, source=write(tmp_path / "q.jsonl", rows), train=1, held_out=1, section="evaluation.task")
    with pytest.raises(BadInput, match=r"^evaluation\.task\.shots: questions of several turns"):
        from_other_task(draw, load(ARITHMETIC))
    assert from_other_task(replace(draw, train=0), load(ARITHMETIC))[0].history
