"""Resource files as kubectl reads them, as plain JSON values. Pure; `files.py` calls it.

kubectl takes a file apart at lines that begin with `---` and reads each part with go-yaml v2 (go_yaml.py); what begins with `{` it
tries as JSON first. What it would change or drop without a word is refused here: a key that is there twice, half a character,
bytes that are no text.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from maft_operator.spec import go_yaml
from maft_operator.spec.go_yaml import Unreadable
from maft_operator.spec.scalars import HALF, HALF_FOUND, as_json

_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MARKER = re.compile(r"(?:\A|[\r\n\x85\u2028\u2029])(---|\.\.\.)(?=\s|\Z)")  # behind any line end of YAML


def decoded(data: bytes) -> str:
    """Decodes a file: UTF-8, or UTF-16 where a byte order mark says so."""
    if data.startswith(_UTF_32) or data[:3] == b"\0\0\0" or data[1:4] == b"\0\0\0":
        raise Unreadable("is UTF-32 text, which kubectl does not read; save it as UTF-8")
    bom, encoding = next(((bom, encoding) for bom, encoding in _BOMS if data.startswith(bom)), (b"", "utf-8"))
    try:
        return data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not {encoding.upper()[:6].rstrip('-')} text (byte {len(bom) + error.start})") from None


def documents(text: str) -> list[Any]:
    """Reads all documents of a file that are not empty, items of a List one by one."""
    objects, rest = _json(text) if text.lstrip().startswith("{") else ([], text)
    read = text.count("\n", 0, len(text) - len(rest))
    parts = (go_yaml.read(part, before) for before, part in _parts(rest, read))
    return [item for one in (*objects, *parts) if one is not None for item in _items(one)]


def value(text: str) -> Any:
    """Reads one value, as it would stand behind a key."""
    if marker := _MARKER.search(text):
        raise Unreadable(f"{marker[1]} is where a document begins or ends, and a value is one")
    parsed = go_yaml.read(text)
    if text.lstrip()[:1] in ("[", "{", '"', "'"):  # a reader of documents stops behind it, and a value goes to its end
        go_yaml.read(f"value: {text}")
    return parsed


def _items(document: Any) -> list[Any]:
    listed = isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items", ""), list | None)
    return [item for one in document["items"] or () for item in _items(one)] if listed else [document]


# --- JSON ---


def _json(text: str) -> tuple[list[Any], str]:
    """The JSON at the start of a text, and what behind it may be YAML: all of it, if its first object is no JSON."""
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number, parse_float=_number, parse_int=_number)
    objects: list[Any] = []
    end = 0
    while (start := _blank(text, end)) < len(text):
        try:
            one, after = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            if len(objects) > 1:
                raise Unreadable(f"not JSON: {error}", _line(text, start)) from None
            return objects, re.sub(r"\A[^\S\n]*\n?", "", text[end:])
        if HALF.search(json.dumps(one, ensure_ascii=False)):
            raise Unreadable(HALF_FOUND, _line(text, start))
        objects.append(one)
        end = after
    return objects, ""


def _blank(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip(" \t\r\n"))


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, one in pairs:
        if key in members:
            raise Unreadable(f"the key {key!r} is there twice")
        members[key] = one
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _number(text: str) -> Any:
    number = float(text)
    if abs(number) == float("inf"):
        raise Unreadable(f"{text[:20]}... is too large a number")
    return as_json(int(text) if re.fullmatch(r"-?\d{1,30}", text) else number)


# --- parts ---


def _parts(text: str, read: int) -> Iterator[tuple[int, str]]:
    """The documents of a text, each with the number of lines before it. read: lines before the text."""
    part: list[str] = []
    begun = read
    for number, ended in enumerate(text.split("\n"), read):
        line = ended.removesuffix("\r")
        if line.startswith("---"):
            if (more := line[3:].strip()) and not more.startswith("#"):
                raise Unreadable(f"{more[:60]!r} behind ---, where kubectl takes nothing but a comment", number + 1)
            if part:
                yield begun, "\n".join(part) + "\n"
                part, begun = [], number + 1
                continue
        part.append(line)
    yield begun, "\n".join(part)
