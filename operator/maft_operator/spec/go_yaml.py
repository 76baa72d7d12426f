"""One YAML document as go-yaml v2 reads it and Go writes it as JSON: the values, keys and merges of Go. Pure.

`dialect.py` calls it for each part of a file. A key that is there twice is refused, though kubectl takes the last one.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.reader import ReaderError

from maft_operator.spec.go_scanner import Events
from maft_operator.spec.scalars import as_json, as_key, resolved

_MERGE = "tag:yaml.org,2002:merge"
_OPEN = object()  # stands for a collection that has an anchor and has not ended
_ALIASED, _ALL, _SHARE = 100, 1000, 0.99  # go-yaml's limits: values behind aliases, values in all, the former's share of them


class Unreadable(Exception):
    """What cannot be read, and in which line."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def read(text: str, before: int = 0) -> Any:
    """Reads a document; None if it is empty. before: lines of the file before it, for Unreadable."""
    try:
        return _Document(text).value()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(f"not YAML: {error.problem}", before + mark.line + 1 if mark else None) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise Unreadable(f"not YAML: holds the character U+{error.character:04X}", before + line + 1) from None
    except RecursionError:
        raise Unreadable("not YAML: nested too deeply", before + 1) from None
    except (ValueError, OverflowError):
        raise Unreadable("not YAML: an escape for a character that there is not", before + 1) from None


class _Document:
    """What is known while a document is read."""

    def __init__(self, text: str) -> None:
        self._events = Events(text)
        self._anchors: dict[str, tuple[Any, int]] = {}  # a value, and of how many values it is made
        self._all = self._aliased = 0

    def value(self) -> Any:
        """Reads it; None where there is no document."""
        self._next()  # the start of the stream
        if not isinstance(self._next(), DocumentStartEvent):
            return None
        event = self._next()
        document = self._as(as_json, event)
        self._next()  # the end of the document, behind which go-yaml does not look
        return document

    def _next(self) -> Any:
        return self._events.get_event()  # type: ignore[no-untyped-call]

    def _until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := self._next(), end):
            yield event

    def _as(self, written: Callable[[Any], Any], event: NodeEvent) -> Any:
        """The value as JSON has it: as_json, or as_key for a key."""
        value = self._value(event)
        try:
            return written(value)
        except ValueError as error:
            _refuse(str(error), event)

    def _value(self, event: NodeEvent) -> Any:
        if isinstance(event, AliasEvent):
            return self._alias(event)
        before = self._all
        self._all += 1
        if event.anchor:
            self._anchors[event.anchor] = _OPEN, 0
        value = self._made(event)
        if event.anchor:
            self._anchors[event.anchor] = value, self._all - before
        return value

    def _made(self, event: NodeEvent) -> Any:
        if isinstance(event, SequenceStartEvent):
            return [self._as(as_json, item) for item in self._until(SequenceEndEvent)]
        return self._mapping() if isinstance(event, MappingStartEvent) else _scalar(event)

    def _alias(self, event: AliasEvent) -> Any:
        value, size = self._anchors.get(event.anchor or "", (None, 0))
        if not size:
            _refuse(f"the anchor {event.anchor!r} {'contains itself' if value is _OPEN else 'is not there'}", event)
        self._all += size + 1
        self._aliased += size
        if self._aliased > _ALIASED and self._all > _ALL and self._aliased > _SHARE * self._all:
            _refuse("more behind aliases than kubectl reads", event)
        return value

    def _mapping(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        own: set[str] = set()
        for event in self._until(MappingEndEvent):
            if _merges(event):
                members.update(self._merged(self._next()))
                continue
            key = self._as(as_key, event)
            if key in own:
                _refuse(f"the key {key!r} is there twice", event)
            own.add(key)
            members[key] = self._as(as_json, self._next())
        return members

    def _merged(self, event: NodeEvent) -> dict[str, Any]:
        """What `<<` brings in: an object, or a list of objects of which the first ones count."""
        parts = self._until(SequenceEndEvent) if isinstance(event, SequenceStartEvent) else iter((event,))
        objects = [self._value(part) if isinstance(part, AliasEvent | MappingStartEvent) else None for part in parts]
        if not all(isinstance(part, dict) for part in objects):
            _refuse("<< takes an object or a list of objects", event)
        return {key: one for part in reversed(objects) for key, one in part.items()}


def _merges(event: NodeEvent) -> bool:
    return isinstance(event, ScalarEvent) and event.value == "<<" and (event.implicit[0] or event.tag == _MERGE)


def _scalar(event: Any) -> Any:
    try:
        return resolved(event.tag, event.value, plain=event.implicit[0])
    except ValueError as error:
        _refuse(str(error), event)


def _refuse(problem: str, event: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
