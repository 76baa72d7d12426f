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
from maft.store.base import Missing
from maft.store.urls import open_store

_ENDS = re.compile("\r\n|\r|\n")
HALF = re.compile("[\ud800-\udfff]")
HALF_FOUND = "holds half a character (a surrogate without its other half); remove it"
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# A path that names no file that can be read. Other faults may pass.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
RawRow = Mapping[str, Any]  # as a file or the hub has it


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows are."""

    source: str
    """A path, a URL, or a dataset of the hub."""
    columns: tuple[str, ...]
    """Of a row."""
    section: str
    """Of the spec that names the source."""

    @property
    def field(self) -> str:
        """Names the field that errors are about."""
        return f"{self.section}.source"

    @property
    def expected(self) -> str:
        """Lists the columns in words."""
        *first, last = self.columns
        return f"{', '.join(first)} and {last}"


def of_file(place: Place) -> Iterator[tuple[str, RawRow]]:
    """Yields every row with where it stands; of a folder those of its files, by their names. BadInput for what cannot be read."""
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
    names = [name for name in open_store(place.source).list("") if name.endswith(".jsonl")]
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
        return json.loads(line, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise BadInput(f"{where}: JSON that cannot be read: {error}") from None


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
    text = _read(place).rstrip("\x1a")
    if "\0" in text:
        raise BadInput(f"{place.field}: {place.source} holds zero bytes, as UTF-16 without a byte order mark; save it as UTF-8")
    return [line.lstrip("\ufeff") for line in _ENDS.split(text)]


def _read(place: Place) -> str:
    try:
        data = _bytes(place.source)
    except (Missing, OSError, ValueError) as error:  # ValueError: a zero byte or half a character in the name
        if isinstance(error, OSError) and error.errno not in _NO_FILE:
            raise
        reason = getattr(error, "strerror", None) or ("No such object" if isinstance(error, Missing) else one_line(error, 100))
        raise BadInput(f"{place.field}: {place.source}: {reason}; give a jsonl file or an s3:// URL that can be read") from None
    if data.startswith(_UTF_32):  # UTF-16's mark is the beginning of one of them
        raise BadInput(f"{place.field}: {place.source} is UTF-32 text; save it as UTF-8")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        fault = f"is not {encoding.upper()} text (byte {error.start})"
        raise BadInput(f"{place.field}: {place.source} {fault}; save it as UTF-8") from None


def _bytes(source: str) -> bytes:
    if "://" not in source:
        return Path(source).read_bytes()
    address, _, query = source.partition("?")
    folder, _, name = address.rpartition("/")
    return open_store(f"{folder}/?{query}" if query else f"{folder}/").read(unquote(name))
