"""Errors that end a program with an exit code of their own, of which one is for the user to mend; and how errors are written."""

import difflib
import json
import reprlib
from collections.abc import Iterable


class BadInput(Exception):
    """Wrong input. The message is one line: the field or object, what was found, what to do."""


class PeerLost(OSError):
    """Another pod of the same task is gone. This program did nothing wrong; the work goes on when both are there again."""


class PeersMissing(OSError):
    """Pods of the same task did not all come to the first one in time. Nothing was begun; they want places at one time."""


def passing(error: BaseException | None) -> bool:
    """Tells whether a server that was busy or unwell (429, 5xx) is behind an error: the same request may do later."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int) and (status == 429 or status >= 500):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_line(text: object, limit: int | None = None) -> str:
    """Writes an error or a text on one line, cut off after `limit` characters. An error that says nothing is named."""
    line = " ".join(str(text).split()) or (type(text).__name__ if isinstance(text, BaseException) else "")
    return line[:limit]


def with_kind(error: BaseException, limit: int | None = None) -> str:
    """Writes an error of somebody else's code on one line, its kind first."""
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "), limit)


def shown(value: object, limit: int = 60) -> str:
    """Writes any value as Python does, null and truth as JSON does, in a short form: of deep and long ones the beginning."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = limit
    return one_line(short.repr(value), 4 * limit)


def meant(name: str, known: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """Asks whether the known name that is most like this one was meant; says something else where none is like it. cutoff: how much
    alike, as difflib measures it, from 0 to 1."""
    near = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f"did you mean {near[0]}?" if near else otherwise
