"""Problem sets: arithmetic that evaluates right, files that are read or refused with their line, splits that share nothing."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maft.answers import Kind
from maft.errors import BadInput
from maft.tasks import Split, Task, expression, load, problem, value

ARITHMETIC = Task("arithmetic", "", "", "number", 20, 10, seed=0, operands=6, minimum=0, maximum=29)
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


@settings(deadline=None)
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
        ('{"question": "q"}', "answer is None; expected a text that is not empty"),
        ('{"answer": "1"}', "question is None; expected a text"),
        ('{"question": "q", "answer": ""}', "answer is ''; expected a text"),
        ('{"question": "q", "answer": " "}', "answer is ' '; expected a text"),
        ('{"question": "\\t", "answer": "1"}', "question is '\\t'; expected a text"),
        ('{"question": "q", "answer": ["1"]}', "answer is ['1']; expected a text"),
        ('{"question": "q", "answer": null}', "answer is None; expected a text"),
        ('{"question": "q", "answer": "Paris"}', "answer 'Paris' is no number; correct it or set task.answer"),
        ('{"question": "q", "answer": "1 or 2"}', "answer '1 or 2' is no number"),
        ('{"question": "q", "answer": NaN}', "answer 'nan' is no number"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, second_line: str, message: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "first", "answer": "1"}\n' + second_line + "\n")
    with pytest.raises(BadInput) as caught:
        load(replace(JSONL, source=str(file)))
    assert str(caught.value).startswith(f"{file} line 2: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", b'{"question": "\xff"}', "is not UTF-8 text (byte 14)"),
        ("q.jsonl", b"", "holds no questions"),
        ("q.jsonl", b"\n\n", "holds no questions"),
        ("absent.jsonl", b"", ": No such file or directory; give a jsonl file or an s3:// URL that can be read"),
        ("q.jsonl/below.jsonl", b"", ": Not a directory"),
        ("", b"", ": Is a directory"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(content)
    source = str(tmp_path / name)
    with pytest.raises(BadInput) as caught:
        load(replace(JSONL, source=source))
    assert f"task.source: {source}" in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_object_of_a_store(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.jsonl: No such object"):
        load(replace(JSONL, source=f"file://{tmp_path}/absent.jsonl"))


@pytest.mark.parametrize(
    ("kind", "answer", "reference"),
    [("choice", "b", "B"), ("text", " New  York", "new york"), ("math", "$\\dfrac12$", "\\frac12"), ("number", "1,000", "1000")],
)
def test_references_are_canonical(tmp_path: Path, kind: Kind, answer: str, reference: str) -> None:
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
        (Hub({"text": "q"}), "me/gsm train row 1: question is None; expected a text"),
        (Hub({"question": "q", "answer": "none"}), "me/gsm train row 1: answer 'none' is no number"),
    ],
)
def test_a_hub_set_that_cannot_be_used(hub: Hub, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub)
    with pytest.raises(BadInput, match=message):
        load(replace(JSONL, kind="gsm8k", source="me/gsm"))
