"""Rows of questions from jsonl files, objects of a store, or datasets of the Hugging Face hub. Values are looked at by `tasks`."""

import codecs
import errno
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from maft.errors import BadInput, one_line, shown
from maft.store.base import Missing, Store
from maft.store.urls import open_store

_ENDS = re.compile("\r\n|\r|\n")
HALF = re.compile("[\ud800-\udfff]")
HALF_FOUND = "holds half a character (a surrogate without its other half); remove it"
_HIDDEN = re.compile(r"(?:^|/)\.")  # .ipynb_checkpoints/q.jsonl
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# A path that names no file that can be read. Other faults may pass.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
# How files of other formats begin, what they are and what makes rows of them.
_FORMATS = {
    b"PAR1": ("a Parquet file", "save it as jsonl (datasets.load_dataset or pandas.read_parquet, then to_json)"),
    b"ARROW1": ("an Arrow file", "save it as jsonl"),
    b"SQLite format 3": ("an SQLite database", "save its rows as jsonl"),
    b"\x89HDF": ("an HDF5 file", "save it as jsonl"),
    b"%PDF": ("a PDF", "save its questions as jsonl"),
    b"version https://git-lfs": ("a pointer of Git LFS", "run `git lfs pull`"),
    b"Rar!": ("a rar archive", "unpack it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    b"\xd0\xcf\x11\xe0": ("a document of an old office program", "save its rows as jsonl"),
    b"\x00\x05\x16\x07": ("what macOS keeps beside a file", "name the file itself"),
    b"PK\x03\x04": ("a zip archive, or an office document,", "unpack it, or save it as jsonl"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it"),
    b"BZh": ("compressed by bzip2", "unpack it"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it"),
}
RawRow = Mapping[str, Any]  # as a file or the hub has it


class Written(float):
    """A decimal of more digits than a float keeps, with its text."""

    def __new__(cls, text: str) -> "Written":
        """Keeps the text."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        """Returns all digits."""
        return self.text


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows are."""

    source: str
    """A path, a URL, or a dataset of the hub."""
    columns: tuple[str, ...]
    """Of a row."""
    field: str
    """Of the spec that names the source."""

    @property
    def expected(self) -> str:
        """Lists the columns in words."""
        *first, last = self.columns
        return f"{', '.join(first)} and {last}"


def of_file(place: Place) -> Iterator[tuple[str, RawRow]]:
    """Yields every row with where it stands; of a folder those of its files, by their names. BadInput for what cannot be read."""
    scheme, url, _ = place.source.partition("://")
    if url and scheme not in ("file", "s3"):
        raise BadInput(f"{place.field}: {shown(scheme)}:// is not read; download the file and name its path, or an s3:// URL")
    for part in _files(place) if _is_folder(place.source) else (place,):
        for number, line in enumerate(_lines(part), 1):
            if line.strip():
                where = f"{part.source} line {number}"
                yield where, _row(_parsed(line, where), where, place)


def _is_folder(source: str) -> bool:
    """Tells whether it names a folder: a path to one, or a URL that ends as prefixes do."""
    address = source.partition("?")[0]
    try:
        return address.endswith("/") if "://" in source else Path(source).is_dir()
    except (OSError, ValueError):  # no path at all: whoever reads it says so
        return False


def _files(place: Place) -> list[Place]:
    """The jsonl files of a folder or below a prefix, such as questions that a society kept."""
    address, mark, query = place.source.partition("?")
    try:
        keys = list(_store(place.source, place).list(""))
    except OSError as error:
        raise _unread(place, error) from None
    names = [name for name in keys if name.endswith(".jsonl") and not _HIDDEN.search(name)]
    if not names:
        raise BadInput(f"{place.field}: {place.source}: no file in it ends with .jsonl; give a jsonl file or a folder of them")
    top = address if address.endswith("/") else f"{address}/"
    return [replace(place, source=f"{top}{quote(name) if '://' in top else name}{mark}{query}") for name in names]


def of_hub(place: Place, config: str, part: str) -> Iterator[tuple[str, RawRow]]:
    """Yields every row of a split. config: of the dataset; empty for `default`, or else all that it has. BadInput if it cannot
    be had."""
    instead = f"give a jsonl file with {place.expected} instead"
    try:
        import datasets
    except ImportError:
        raise BadInput(f"{place.field}: hub datasets need the package `datasets`: install maft[hub], or {instead}") from None
    try:
        configs = [config] if config else _configs(datasets.get_dataset_config_names(place.source))
        rows = [row for name in configs for row in datasets.load_dataset(place.source, name, split=part)]
    except Exception as error:  # the library raises a different type for every way in which a hub can fail
        reason = one_line(error, 200)
        raise BadInput(f"{place.field}: {place.source} cannot be loaded ({reason}); offline, {instead}") from error
    for number, row in enumerate(rows, 1):
        where = f"{place.source} {part} row {number}"
        yield where, _row(row, where, place)


def _configs(names: list[str]) -> list[str]:
    """MATH comes as one configuration per subject, in some copies beside one of all."""
    return ["default"] if "default" in names else names


def _parsed(line: str, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise BadInput(f"{where}: the key {shown(twice)} is there twice; remove one")
        return members

    try:
        return json.loads(line, object_pairs_hook=once, parse_float=_decimal)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON: {error.msg} at column {error.colno}; each line has to be one object, {{...}}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise BadInput(f"{where}: JSON that cannot be read: {error}") from None


def _decimal(text: str) -> float:
    """A number as a float; with its text where that has digits which no float keeps."""
    number = float(text)
    return number if _digits(text) == _digits(repr(number)) else Written(text)


def _digits(number: str) -> str:
    """Its significant digits."""
    return re.sub(r"[eE].*|[^\d]", "", number).strip("0")


def _row(row: Any, where: str, place: Place) -> RawRow:
    if not isinstance(row, dict):
        raise BadInput(f"{where}: a {type(row).__name__}; expected an object with {place.expected}")
    for name, value in row.items():
        if HALF.search(_written(value, f"{where}: {shown(name)}")):
            raise BadInput(f"{where}: {shown(name)} {HALF_FOUND}")
    return row


def _written(value: Any, where: str) -> str:
    """All texts in a value."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{where} cannot be read: {error}") from None


def _lines(place: Place) -> list[str]:
    """The lines of a file of any system: with a byte order mark (also between files that were joined), with an end-of-file sign of
    DOS, ended by CR, LF or both."""
    text = _read(place).rstrip("\x1a \t\r\n")
    if "\0" in text:
        raise BadInput(f"{place.field}: {place.source} holds zero bytes, as UTF-16 without a byte order mark; save it as UTF-8")
    return [line.lstrip("\ufeff") for line in _ENDS.split(text)]


def _read(place: Place) -> str:
    try:
        data = _bytes(place)
    except (Missing, OSError, ValueError) as error:  # ValueError: a zero byte or half a character in the name
        raise _unread(place, error) from None
    for begins, (what, instead) in _FORMATS.items():
        if data.startswith(begins):
            raise BadInput(f"{place.field}: {place.source} is {what} and no jsonl; {instead}")
    if data[257:262] == b"ustar":
        raise BadInput(f"{place.field}: {place.source} is a tar archive and no jsonl; unpack it")
    if data.startswith(_UTF_32):  # UTF-16's mark is the beginning of one of them
        raise BadInput(f"{place.field}: {place.source} is UTF-32 text; save it as UTF-8")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        fault = f"is not {encoding.upper()} text (byte {error.start})"
        raise BadInput(f"{place.field}: {place.source} {fault}; save it as UTF-8") from None


def _unread(place: Place, error: Exception) -> Exception:
    """BadInput for a path or an object that cannot be read; the error itself where it may pass."""
    if isinstance(error, OSError) and error.errno not in _NO_FILE:
        return error
    reason = getattr(error, "strerror", None) or ("No such object" if isinstance(error, Missing) else one_line(error, 100))
    return BadInput(f"{place.field}: {place.source}: {reason}; give a jsonl file or an s3:// URL that can be read")


def _bytes(place: Place) -> bytes:
    if "://" not in place.source:
        path = Path(place.source)
        if path.exists() and not path.is_file():  # a pipe or a device has no end
            raise FileNotFoundError(errno.ENOENT, "No file but a pipe, a socket or a device")
        return path.read_bytes()
    address, _, query = place.source.partition("?")
    folder, _, name = address.rpartition("/")
    return _store(f"{folder}/?{query}" if query else f"{folder}/", place).read(unquote(name))


def _store(url: str, place: Place) -> Store:
    """The folder or bucket; what is wrong with its URL is said of the field that has it."""
    try:
        return open_store(url)
    except BadInput as error:
        raise BadInput(f"{place.field}: {str(error).removeprefix('store ')}") from None
