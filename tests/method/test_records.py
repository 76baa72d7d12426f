"""Records as JSON: one case, nothing lost on the way, and no file of another format read as one of this release's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import a_spec
from structs import camel, subclasses, values

from maft import records
from maft.errors import BadInput
from maft.prepare import __main__ as prepare
from maft.program import Assignment
from maft.records import Call, Commit, Formatted, Problem, Record, Transcript, Turn, Vote
from maft.spec import FORMAT
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import COMMIT, committed, fetch_records, publish, required
from maft.store.files import FileStore
from maft.summaries import ProbeScore, Score, Usage

KINDS = [kind for kind in subclasses(Record) if kind is not Formatted]
PARTS = [Score, ProbeScore, Usage]


def test_all_kinds_of_records_are_looked_at() -> None:
    named = {value for value in vars(records).values() if isinstance(value, type) and issubclass(value, Record)}
    assert named - {Record, Formatted} <= set(KINDS)
    assert {Commit, Transcript} <= {kind for kind in KINDS if issubclass(kind, Formatted)}


def says_something(record: Any, name: str) -> bool:
    """Whether the field is written: kinds that leave defaults out do so for fields that have one, all leave out what is unset."""
    if getattr(record, name) is msgspec.UNSET:
        return False
    info = {field.name: field for field in msgspec.structs.fields(type(record))}[name]
    return not (type(record).__struct_config__.omit_defaults and not info.required and getattr(record, name) == info.default)


@pytest.mark.parametrize("kind", [*KINDS, *PARTS])
@given(data=st.data())
@settings(max_examples=25)
def test_what_is_written_is_read_back(kind: type[Any], data: st.DataObject) -> None:
    """The fields in camel case, in their order, those left out that say nothing; equal bytes for equal records."""
    fixed = {"format": st.just(FORMAT)} if issubclass(kind, Formatted) else {}
    record = data.draw(values(kind, **fixed))
    written = records.encode(record)
    assert records.decode(written, kind, "here") == record
    assert records.encode(records.decode(written, kind, "here")) == written
    assert list(json.loads(written)) == [camel(name) for name in kind.__struct_fields__ if says_something(record, name)]
    assert records.plain(record) == json.loads(written)


@pytest.mark.parametrize("kind", [*KINDS, *PARTS])
def test_no_field_is_called_otherwise_in_json(kind: type[Any]) -> None:
    assert all(name.isalnum() and name[0].islower() for name in kind.__struct_encode_fields__)


@given(st.lists(values(Problem), max_size=4))
def test_lines_are_one_record_each(problems: list[Problem]) -> None:
    written = records.encode_lines(problems)
    assert written.count(b"\n") == len(problems)
    assert records.decode_lines(written, Problem, "here") == problems


def test_fields_that_this_release_does_not_know_are_passed_over() -> None:
    assert records.decode(b'{"id":"1","question":"q","answer":"a","more":[1]}', Problem, "here") == Problem("1", "q", "a")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"id":1}', b'{"id":"1","question":"q"}', b'{"ID":"1"}']
)
def test_another_shape_is_one_line_that_names_the_file(data: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        records.decode(data, Problem, "a/b.jsonl line 3")
    assert str(caught.value).startswith("a/b.jsonl line 3: not a Problem record: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Problem, Transcript, Commit])
@pytest.mark.parametrize(
    "data",
    [b'{"id":"\xff","question":"\xff","answer":"","prefix":"\xff","index":"\xff","format":1}', b'{"more":' * 100_000],
    ids=["no UTF-8", "nested"],
)
def test_text_that_no_decoder_likes_is_one_line_too(kind: type[Any], data: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        records.decode(data, kind, "here")
    assert str(caught.value).startswith(f"here: not a {kind.__name__} record: ")
    assert "\n" not in str(caught.value)


# --- formats ---

RUN = "ns/run"
OLD = "made before formats had numbers, by maft 0.1 or older; use another name or prefix for this run"
NEW = f"is of format {FORMAT + 1}, this release reads {FORMAT}; use the release that made it, or a newer one"
TURN = Turn("Q?", Call("base", 1, 5, 7, "stop", "8"), "8", agrees=True, right=True)
DEBATED = Transcript(0, Problem("0", "Q?", "8"), ((TURN,),), (), (Vote("8", 1, 0, tied=False, right=True),))


def reformatted(data: bytes, number: int | None) -> bytes:
    """The JSON of another release: with that number, or none, and fields that this one does not know."""
    found = {key: value for key, value in json.loads(data).items() if key != "format"}
    return json.dumps({"its": "own", **found, **({} if number is None else {"format": number})}).encode()


def read_commit(store: Store, number: int | None) -> None:
    """Looks at a commit of that format."""
    key = layout.debate(RUN, 1) + COMMIT
    publish(store, layout.debate(RUN, 1), {"a": b"1"})
    store.write(key, reformatted(store.read(key), number))
    committed(store, layout.debate(RUN, 1))


def read_transcripts(store: Store, number: int | None) -> None:
    """Reads transcripts of that format, whose commit is of this release's."""
    lines = records.encode(DEBATED) + b"\n" + reformatted(records.encode(DEBATED), number)
    publish(store, layout.debate(RUN, 1), {layout.TRANSCRIPTS: lines})
    fetch_records(store, required(store, layout.debate(RUN, 1), ""), layout.TRANSCRIPTS, Transcript)


def read_run(store: Store, number: int | None) -> None:
    """Begins a run where another release's lies."""
    key = f"{RUN}/run.json"
    store.write(key, reformatted(b'{"spec":{},"version":"9"}', number))
    prepare.main(Assignment(store, RUN, a_spec()))


READERS: dict[str, Callable[[Store, int | None], None]] = {
    f"{layout.debate(RUN, 1)}{COMMIT}": read_commit,
    f"{layout.debate(RUN, 1)}{layout.TRANSCRIPTS} line 2": read_transcripts,
    f"{RUN}/run.json": read_run,
}


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize(("number", "says"), [(None, OLD), (FORMAT + 1, NEW), (0, OLD)])
def test_a_file_of_another_format_is_refused_in_one_line_that_names_it(
    tmp_path: Path, file: str, number: int | None, says: str
) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(BadInput) as caught:
        READERS[file](store, number)
    assert str(caught.value).removeprefix(f"{store.url}/") == f"{file}: {says}"


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("number", ["1", 1.0, True, [1], {"a": 1}])
def test_a_format_that_is_no_number_is_refused_in_one_line_that_names_the_file(tmp_path: Path, file: str, number: Any) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(BadInput) as caught:
        READERS[file](store, number)
    line = str(caught.value).removeprefix(f"{store.url}/")
    assert line.startswith(f"{file}: not a ") and "`$.format`" in line and "\n" not in line


@pytest.mark.parametrize("file", READERS)
def test_a_file_of_this_format_is_read(tmp_path: Path, file: str) -> None:
    """Also with fields that this release does not know."""
    READERS[file](FileStore(tmp_path), FORMAT)


@pytest.mark.parametrize("number", [None, FORMAT + 1])
def test_what_another_release_made_is_left_alone(tmp_path: Path, number: int | None) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(BadInput):
        read_run(store, number)
    assert list(store.list("")) == [f"{RUN}/run.json"]
    assert store.read(f"{RUN}/run.json") == reformatted(b'{"spec":{},"version":"9"}', number)


def test_what_is_written_says_its_format(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    prepare.main(Assignment(store, RUN, a_spec()))
    commit = store.read(f"{RUN}/{layout.PROBLEMS}{COMMIT}")
    for written in (commit, store.read(f"{RUN}/run.json"), records.encode(DEBATED)):
        assert msgspec.json.decode(written)["format"] == FORMAT
