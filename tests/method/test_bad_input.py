"""Whatever is wrong in a user's files, `prepare` ends with one line about it: never with a traceback, never at work without end."""

import codecs
import json
import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small import TINY, a_spec

from maft.chat_template import load_chat_template
from maft.errors import BadInput
from maft.prepare import __main__ as prepare
from maft.prepare import apart
from maft.prepare.formats import problem
from maft.prepare.references import reference
from maft.program import Assignment
from maft.records import Message
from maft.spec import AnswerKind
from maft.store.files import FileStore

CONFIGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
FILES = (*CONFIGS, "chat_template.jinja", "model.safetensors")
ROWS = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(8)]
TEXT = "".join(f"{json.dumps(row)}\n" for row in ROWS)
VALUES: list[Any] = [None, 5, -1, True, 1e400, "x", "\ud83d", [], [5], {}, {"a": {"b": 1}}]
Change = Callable[[Path], object]


def prepared(folder: Path, **spec: Any) -> str:
    """What `prepare` says; empty where it publishes the questions."""
    store = FileStore(folder / "store")
    try:
        prepare.main(Assignment(store=store, run="ns/run", given_spec=a_spec(**spec)))
    except BadInput as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        assert not list(store.list("ns/run/problems/"))
        return str(error)
    assert list(store.list("ns/run/problems/"))
    return ""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    (tmp_path / "model").mkdir()
    for name in FILES:
        shutil.copy(TINY / name, tmp_path / "model" / name)
    return tmp_path / "model"


def with_model(model: Path) -> str:
    said = prepared(model.parent, model={"source": str(model)})
    assert said.startswith("model.source: ") or not said
    return said


def with_questions(folder: Path, data: str | bytes, name: str = "q.jsonl", **task: Any) -> str:
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return prepared(folder, task={"source": str(folder / name), "train": 4, "heldOut": 4, **task})


def changed(name: str, **fields: Any) -> Change:
    def change(model: Path) -> None:
        whole = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**whole, **fields}))

    return change


def test_what_is_whole(model: Path) -> None:
    assert with_model(model) == ""


# --- I1: files of other systems ---

OTHERS = {
    "byte order mark": TEXT.encode("utf-8-sig"),
    "UTF-16, little": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16, big": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "CR LF": TEXT.replace("\n", "\r\n").encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    "mark and CR LF": TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
    "files that were joined": b"".join(line.encode("utf-8-sig") for line in TEXT.splitlines(keepends=True)),
    "the end of a file of DOS": TEXT.replace("\n", "\r\n").encode() + b"\x1a",
    "a line end behind it": TEXT.replace("\n", "\r\n").encode() + b"\x1a\r\n",
    "no last line end": TEXT.rstrip().encode(),
    "a line separator in a text": TEXT.replace("1+1?", "1+1\u2028?").encode(),
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_questions_of_other_systems(tmp_path: Path, data: bytes) -> None:
    assert with_questions(tmp_path, data) == ""
    published = (tmp_path / "store/ns/run/problems/train.jsonl").read_text() + (
        tmp_path / "store/ns/run/problems/held-out.jsonl"
    ).read_text()
    found = {json.loads(line)["question"] for line in published.split("\n") if line}
    assert {question.replace("\u2028", "") for question in found} == {row["question"] for row in ROWS}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (TEXT.encode("utf-16-le"), "task.source: {file} holds zero bytes, as UTF-16 without a byte order mark"),
        (TEXT.encode("utf-32"), "task.source: {file} is UTF-32 text; save it as UTF-8"),
        (codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"), "task.source: {file} is UTF-32 text; save it as UTF-8"),
        (TEXT.replace("1+1", "1\0+1").encode(), "task.source: {file} holds zero bytes"),
        (TEXT.replace("1+1", "größer").encode("latin-1"), "task.source: {file} is not UTF-8 text (byte "),
        (b"\xff\xfe" + TEXT.encode("utf-16-le")[:-1], "task.source: {file} is not UTF-16 text"),
        (TEXT.replace('"}', '",}').encode(), "{file} line 1: not JSON: Illegal trailing comma"),
        (TEXT.replace('"', "'").encode(), "{file} line 1: not JSON: Expecting property name"),
        (TEXT.replace("\n", ",\n").encode(), "{file} line 1: not JSON: Extra data"),
        (json.dumps(ROWS, indent=1).encode(), "{file} line 1: not JSON: Expecting value"),
        (b"# questions\n" + TEXT.encode(), "{file} line 1: not JSON: Expecting value"),
        (TEXT.replace("\n", " ").encode(), "{file} line 1: not JSON: Extra data"),
        (b"question,answer\n1+1,2\n", "{file} line 1: not JSON: Expecting value"),
        (b"\x1f\x8b\x08\x00rest", "task.source: {file} "),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "task.source: {file} is a pointer of Git LFS and no jsonl; run `git lfs pull`",
        ),
        (b"7z\xbc\xaf\x27\x1crest", "task.source: {file} is a 7z archive and no jsonl; unpack it"),
        (b"q.jsonl" + bytes(250) + b"ustar\x0000", "task.source: {file} is a tar archive and no jsonl; unpack it"),
        (b"\x00\x05\x16\x07rest", "task.source: {file} is what macOS keeps beside a file and no jsonl; name the file itself"),
    ],
)
def test_questions_that_nobody_can_read(tmp_path: Path, data: bytes, says: str) -> None:
    file = f"{tmp_path}/q.jsonl"
    said = with_questions(tmp_path, data)
    for word in ("Illegal trailing comma", "Expecting property name"):  # of one Python or another
        if word in says:
            says = says.partition("not JSON: ")[0] + "not JSON: "
    assert said.startswith(says.format(file=file)), said


@pytest.mark.parametrize("name", [*CONFIGS, "chat_template.jinja"])
@pytest.mark.parametrize("bom", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_a_model_file_with_a_mark_is_named(model: Path, name: str, bom: bytes) -> None:
    """transformers and vLLM would fail on it later, and a template would show it to the model."""
    (model / name).write_bytes(bom + (model / name).read_bytes())
    assert with_model(model) == f"model.source: {model}/{name} begins with a byte order mark; save it as UTF-8 without one"


def test_a_model_from_windows(model: Path) -> None:
    for name in (*CONFIGS, "chat_template.jinja"):
        (model / name).write_bytes((model / name).read_bytes().replace(b"\n", b"\r\n"))
    assert with_model(model) == ""


# --- I2: questions ---


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"question": "2+3? \\ud83d", "answer": "5"}', "'question' holds half a character"),
        ('{"question": "2+3?", "answer": "5 \\udc00"}', "'answer' holds half a character"),
        ('{"question": "2+3?", "answer": "5", "more": [["\\ud83d"]]}', "'more' holds half a character"),
        ('{"question": ["\\ud83d"], "answer": "5"}', "'question' holds half a character"),
        ('{"question": {"a": "\\ud83d"}, "answer": "5"}', "'question' holds half a character"),
        ('{"question": "2+3?", "answer": ' + "[" * 400 + "]" * 400 + "}", "answer is [[[[[[[...]]]]]]]; expected"),
        ('{"question": "2+3?", "answer": ' + "[" * 9000 + "]" * 9000 + "}", ""),
        ('{"question": "2+3?", "answer": ' + json.dumps(["x" * 10] * 10_000) + "}", "answer is ['xxxxxxxxxx', "),
        ('{"question": "2+3?", "answer": {"a": 5}}', "answer is {'a': 5}; expected"),
        ('{"question": "2+3?", "answer": 1e400}', "answer is 1e400: no value (Python writes a missing one as NaN); "),
        ('{"question": "2+3?", "answer": ' + "9" * 5000 + "}", "JSON that cannot be read"),
        ('{"question": "2+3?", "answer": "' + "错" * 5000 + '"}', "answer '错错错"),
        ('{"question": 5, "answer": true}', "answer 'True' is no number"),
        ('{"question": "", "answer": "5"}', "question is ''; expected"),
        ('{"question": "2+3?", "answer": "5", "answer": "6"}', "the key 'answer' is there twice; remove one"),
        ('{"question": "2+3?", "question": "2+3?", "answer": "5"}', "the key 'question' is there twice; remove one"),
        ('{"question": "2+3?", "answer": "5", "\\u0061nswer": "6"}', "the key 'answer' is there twice; remove one"),
        ('{"question": [{"role": "user", "role": "system", "content": "2+3?"}], "answer": "5"}', "the key 'role' is there twice"),
        ('{"question": "2+3?", "answer": "5", "more": {"a\\nb": 1, "a\\nb": 2}}', "the key 'a\\nb' is there twice; remove one"),
    ],
)
def test_a_row_that_is_wrong(tmp_path: Path, row: str, says: str) -> None:
    assert with_questions(tmp_path, TEXT + row + "\n").startswith(f"{tmp_path}/q.jsonl line 9: {says}")


@pytest.mark.parametrize(("question", "answer", "field"), [("2+3? \ud83d", "5", "question"), ("2+3?", "5 \udc00", "answer")])
@pytest.mark.parametrize("kind", ["number", "choice", "text", "math"])
def test_half_a_character_of_any_caller(question: str, answer: str, field: str, kind: AnswerKind) -> None:
    """Rows of files are looked at before; who makes problems in another way is told the same."""
    with pytest.raises(BadInput, match=f"^row 1: '{field}' holds half a character"):
        problem(question, answer, kind, "row 1")


COLUMNS = {"question": "q", "problem": "p", "level": "Level 1", "solution": "\\boxed{5}", "subject": "s", "choices": ["a", "b"]}
ANSWERS = {"jsonl": "5", "gsm8k": "#### 5", "math": "", "mmlu": 1}


STRANGE = [*VALUES, [[[]]], [None, None], [{}, {}], ["a", "\udfff"], ["a"] * 99]
# Of the fields that a kind reads, the strange values that it takes; what no kind reads may be anything of whole characters.
TAKEN: dict[str, dict[str, list[Any]]] = {
    "jsonl": {"question": [5, -1, True, "x"], "answer": [5, -1]},
    "gsm8k": {"question": [5, -1, True, "x"], "answer": [5, -1]},
    "math": {"problem": [5, -1, True, "x"], "level": [5, -1, True, "x"], "solution": []},
    "mmlu": {"question": [5, -1, True, "x"], "answer": [], "choices": []},
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_rows_with_strange_values(tmp_path: Path, kind: str) -> None:
    whole = [value for value in STRANGE if "\\ud" not in json.dumps(value)]
    for field in (*COLUMNS, "answer"):
        taken = [value for value in STRANGE if is_taken(tmp_path, kind, field, value)]
        assert list(map(repr, taken)) == list(map(repr, TAKEN[kind].get(field, whole))), field


def is_taken(folder: Path, kind: str, field: str, value: Any) -> bool:
    """Whether a row with that value in that field is; if not, the line that says so names the row."""
    rows = [{**COLUMNS, "answer": ANSWERS[kind], "question": f"{i}?", "problem": f"{i}?"} for i in range(9)]
    rows[3][field] = value
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    try:
        prepare.draw(a_spec(task={"kind": kind, "source": f"{folder}/q.jsonl", "train": 4, "heldOut": 4}))
    except BadInput as error:
        assert str(error).startswith(f"{folder}/q.jsonl line 4: ")
        assert "\n" not in str(error) and len(str(error)) < 600
        return False
    return True


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("We get $x=1$. So \\boxed{2}.", "2"),
        ("1 + 3 = 4\n#### 4", "4"),
        ("<answer>4</answer>", "4"),
        ("The answer is $x^2$.", "x^2"),
        ("x^2+1", "x^2+1"),
        ("\\boxed{\\frac12}", "\\frac12"),
    ],
)
def test_a_whole_solution_as_a_reference_is_the_mathematics_that_it_announces(answer: str, expected: str) -> None:
    """Of columns of that sort no reply was ever right: each was compared with all of the text."""
    assert reference(answer, "math") == expected


def test_references_that_only_a_quotation_meets_are_counted(tmp_path: Path) -> None:
    answers = ["life or death", "Paris (France)", "either/or", *"stuvw"]
    lines = [json.dumps({"question": f"{i}?", "answer": answer}) for i, answer in enumerate(answers)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    task = {"source": f"{tmp_path}/q.jsonl", "train": 4, "heldOut": 4, "answer": "text"}
    asked = Assignment(store=FileStore(tmp_path / "store"), run="ns/run", given_spec=a_spec(task=task))
    [line] = prepare.main(asked).warnings
    assert line.startswith("task.answer: 2 of 8 reference answers offer alternatives, such as ")
    assert "'life or death' of the question '0?'" in line or "'either/or' of the question '2?'" in line


NOWHERE = ["a\0b.jsonl", "q.jsonl/x.jsonl", "x" * 300 + ".jsonl", "loop.jsonl", "nothing.jsonl", "pipe.jsonl", "socket.jsonl"]


@pytest.mark.parametrize("name", NOWHERE)
def test_a_source_that_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "q.jsonl").touch()
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.mknod(tmp_path / "socket.jsonl", stat.S_IFSOCK | 0o600)
    said = prepared(tmp_path, task={"source": f"{tmp_path}/{name}"})
    assert said.startswith(f"task.source: {tmp_path}/{name}: ")
    assert said.endswith("; give a jsonl file or an s3:// URL that can be read")


def test_a_pipe_by_its_url_is_no_object_and_in_a_folder_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    line = prepared(tmp_path, task={"source": f"file://{tmp_path}/pipe.jsonl"})
    assert line.startswith(f"task.source: file://{tmp_path}/pipe.jsonl: No such object; ")
    assert prepared(tmp_path, task={"source": str(tmp_path)}).endswith("give a jsonl file or a folder of them")


def test_a_folder_without_files_of_questions(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    line = prepared(tmp_path, task={"source": f"{tmp_path}/folder.jsonl"})
    where = f"task.source: {tmp_path}/folder.jsonl"
    assert line == f"{where}: no file in it ends with .jsonl; give a jsonl file or a folder of them"


# --- I2: models ---


def truncated(data: bytes) -> Iterator[bytes]:
    yield from (b"", data[:1], data[: len(data) // 2], data[:-40])


def noisy(data: bytes) -> Iterator[bytes]:
    """The same with some bytes changed, whichever."""
    for seed in range(4):
        draw = random.Random(seed)
        found = bytearray(data)
        for _ in range(1 + seed * 3):
            found[draw.randrange(len(found))] = draw.randrange(256)
        yield bytes(found)


WHOLE = (
    b"[]",
    b"null",
    b"5",
    b'"x"',
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b"\0" * 99,
    b"\xff" * 9,
    b"version https://git-lfs.github.com/spec/v1\n",
)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_is_damaged(model: Path, name: str) -> None:
    for data in (*truncated((model / name).read_bytes()), *WHOLE):
        (model / name).write_bytes(data)
        assert f"model.source: {model}/{name} " in with_model(model), data[:40]


@pytest.mark.parametrize("name", [*CONFIGS, "chat_template.jinja"])
def test_a_file_with_other_bytes(model: Path, name: str) -> None:
    """It may still be sound, and then a prompt can be made; if not, that is one line."""
    for data in noisy((model / name).read_bytes()):
        (model / name).write_bytes(data)
        is_refused_or_works(model)


def is_refused_or_works(model: Path) -> bool:
    """Whether `prepare` refuses the model; one that passes makes a prompt of a question, with its words in it."""
    refused = bool(with_model(model))
    shutil.rmtree(model.parent / "store")
    if not refused:
        template = load_chat_template(str(model), None)
        assert "3" in template.tokenizer.decode(template.prompt([Message("user", "3+4?")]))
    return refused


def with_fields(model: Path, name: str, values: Callable[[int], list[Any]]) -> int:
    """Changes each field of a file by itself, and counts the changes that were refused."""
    before, refused = (model / name).read_bytes(), 0
    for number, field in enumerate(json.loads(before)):
        for value in values(number):
            (model / name).write_bytes(before)
            changed(name, **{field: value})(model)
            refused += is_refused_or_works(model)
    return refused


# Fields at least that are refused: of the generation's nothing is read but numbers of tokens, which may be any.
REFUSED = {"config.json": 5, "generation_config.json": 0, "tokenizer.json": 5, "tokenizer_config.json": 3}


@pytest.mark.parametrize("field", ["quantization_config", "rope_scaling", "rope_parameters", "text_config"])
@pytest.mark.parametrize(("value", "shown"), [("awq", "'awq'"), ([1], "[1]"), (True, "true")])
def test_a_section_that_is_none_is_named(model: Path, field: str, value: Any, shown: str) -> None:
    changed("config.json", **{field: value})(model)
    assert with_model(model) == f"model.source: {model}/config.json: {field} is {shown}; expected an object"


@pytest.mark.parametrize("name", CONFIGS)
def test_fields_of_another_type(model: Path, name: str) -> None:
    assert with_fields(model, name, lambda number: [VALUES[number % len(VALUES)]]) >= REFUSED[name]


@pytest.mark.nightly
@pytest.mark.parametrize("name", CONFIGS)
def test_fields_of_any_other_type(model: Path, name: str) -> None:
    with_fields(model, name, lambda number: VALUES)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content() }}", "not callable"),
        ("{{ messages | sum }}", "unsupported operand"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
        ("{% include 'x' %}", "no loader"),
        ("{{ ''.__class__.mro() }}", "unsafe"),
        ("{% for", "unexpected"),
        ("{{ '\\ud800' }}", "drops what users say"),
        ("{{ 'hi' }}", "drops what users say"),
        ("{{ 'probe' }}", "drops what users say"),
        ("{{ messages[0].content }}", "drops what users say"),
        ("{{ messages[-1].content }}", "drops what users say"),
        ("{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}", "drops what users say"),
        ("{{ 'x' * 10 ** 12 }}", "MemoryError"),
    ],
)
def test_a_template_that_fails(model: Path, template: str, says: str) -> None:
    (model / "chat_template.jinja").write_text(template)
    assert says in with_model(model)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            [{"name": "a", "template": "x"}, {"name": "b", "template": "y"}],
            "the chat templates of {model} are named a, b, and none",
        ),
        ({"a": "x", "b": "y"}, "the chat templates of {model} are named a, b, and none is the default; name the one"),
        (5, "the chat template of {model} fails: "),
        (["x"], "{model} has no usable tokenizer: "),
        ([{"name": "a"}], "{model} has no usable tokenizer: 'template'"),
        ([{}], "{model} has no usable tokenizer: 'name'"),
        ({"default": 5}, "the chat template of {model} fails: "),
        ({}, "{model} has no chat template; use an instruction-tuned model or add a template to it"),
    ],
    ids=str,
)
def test_templates_by_name_and_of_other_types(model: Path, template: Any, says: str) -> None:
    (model / "chat_template.jinja").unlink()
    changed("tokenizer_config.json", chat_template=template)(model)
    assert with_model(model).startswith(f"model.source: {says.format(model=model)}")


@pytest.mark.parametrize(("names", "listed"), [(["tool_use"], "tool_use"), (["rag", "tool_use"], "rag, tool_use")])
@pytest.mark.parametrize("table", [True, False])
def test_templates_by_name_without_a_default_are_listed(model: Path, names: list[str], listed: str, table: bool) -> None:
    (model / "chat_template.jinja").unlink()
    listing = [{"name": name, "template": "x"} for name in names]
    changed("tokenizer_config.json", chat_template=dict.fromkeys(names, "x") if table else listing)(model)
    assert with_model(model) == (
        f"model.source: the chat templates of {model} are named {listed}, and none is the default; "
        "name the one to use `default` in tokenizer_config.json"
    )


# --- what is tried apart ---


def test_work_that_succeeds_says_nothing() -> None:
    apart.tried(lambda: None, "it")


def fails(error: BaseException) -> Callable[[], object]:
    def work() -> None:
        raise error

    return work


def endless() -> None:
    while True:
        pass


class Panic(BaseException):
    """As tokenizers raise them."""


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (fails(BadInput("model.source: wrong")), "model.source: wrong"),
        (fails(TypeError("no\nsuch thing")), "it fails: no such thing"),
        (fails(RecursionError()), "it fails: RecursionError"),
        (fails(Panic("index out of range")), "it fails: index out of range"),
        (fails(SystemExit(0)), "it fails: 0"),
        (fails(BadInput("错" * 9000)), "错" * 1333 + "\ufffd"),
        (endless, "it does not end within 1 s of processor time"),
        (lambda: bytes(1 << 30), "it needs more than 256 MiB of memory"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "it ends its process with SIGKILL"),
        (lambda: os._exit(3), "it ends its process with code 3"),
    ],
)
def test_work_that_ends_in_any_way_is_one_line(work: Callable[[], object], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        apart.tried(work, "it", seconds=1, memory=1 << 28)
    assert str(caught.value) == says


def test_who_is_told_to_stop_leaves_nobody_behind(tmp_path: Path) -> None:
    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def work() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGUSR1)
        time.sleep(60)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            apart.tried(work, "it")
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
