"""Programs in a text: the last block of Python between fences that defines the function which is asked for."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from maft.answers.thoughts import split

_PYTHON = ("", "python", "python3", "py", "tool_code")
_FENCE = re.compile(r"[ \t]*+(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<info>[^`\n]*+)")


@dataclass(frozen=True, slots=True)
class _Block:
    language: str
    code: str
    closed: bool


def program(text: str, function: str, *, complete: bool) -> str | None:
    """Finds the program in a model's text; None if there is none. function: that it has to define; empty: whichever it does.

    Blocks in other languages, and those that only show how the function is called, are passed over; thoughts are not searched. A
    block that never ends is one where the text was not cut off; where it was, the blocks before are not its last word.
    """
    blocks = list(_blocks(split(text).reply.replace("\r\n", "\n").replace("\r", "\n")))
    if blocks and not blocks[-1].closed and not complete:
        return None
    defines = _definition(function)
    return next((b.code for b in reversed(blocks) if b.language in _PYTHON and b.code and defines.search(b.code)), None)


def _definition(name: str) -> re.Pattern[str]:
    return re.compile(rf"^(?:def[ \t]+{name}[ \t]*\(|{name}[ \t]*(?::[^=\n]*+)?=(?!=))" if name else "", re.MULTILINE)


def _blocks(reply: str) -> Iterator[_Block]:
    """Yields the blocks in their order, each at the margin. A fence ends with one as long and without words behind it."""
    opened, lines = None, list[str]()
    for line in reply.split("\n"):
        fence = _FENCE.fullmatch(line)
        if opened is None and fence:
            opened, lines = fence, []
        elif opened and fence and fence["fence"].startswith(opened["fence"]) and not fence["info"].strip():
            yield _block(opened, lines, closed=True)
            opened = None
        else:
            lines.append(line)
    if opened:
        yield _block(opened, lines, closed=False)


def _block(opened: re.Match[str], lines: list[str], *, closed: bool) -> _Block:
    words = re.split(r"[\s{}.:=]+", opened["info"].strip(" \t{.").lower())  # {.python}  python:main.py
    return _Block(words[0] if words else "", textwrap.dedent("\n".join(lines)).strip("\n").rstrip(), closed)
