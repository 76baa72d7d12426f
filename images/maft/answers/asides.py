r"""Quotations and code of a reply are asides: what others said, and scratch work.

An aside is not searched for announcements while the reply has one elsewhere; a quotation that ends the reply may be its answer.
"""

import re

BLOCK = re.compile(r"\s*+(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<language>\w*+)")
# Languages of blocks that are no code, so they may show the answer.
_SHOWN = ("", "text", "txt", "plaintext", "markdown", "md", "latex", "tex", "math", "json", "yaml", "xml")


def mask(reply: str, *, ending: bool) -> str:
    """Replaces quotations and blocks by signs that say nothing, of the same length. ending: also the one that ends the reply, if
    it is no program."""
    lines = reply.split("\n")
    kinds = _kinds(lines)
    tail = len(lines)
    while not ending and tail and (kinds[tail - 1] == "shown" or not lines[tail - 1].strip()):
        tail -= 1
    return "\n".join(
        "\x1a" * len(line) if kind and n < tail else line for n, (line, kind) in enumerate(zip(lines, kinds, strict=True))
    )


def _kinds(lines: list[str]) -> list[str]:
    """Of each line: `shown` for a quotation or a block, `code` for a program, empty for the reply's own words."""
    kinds, fence, kind = list[str](), "", ""
    for line in lines:
        block = BLOCK.match(line)
        if fence:
            kinds.append(kind)
            if block and block["fence"].startswith(fence):
                fence = ""
        elif block:
            fence, kind = block["fence"], "shown" if block["language"].lower() in _SHOWN else "code"
            kinds.append(kind)
        else:
            kinds.append("shown" if line.lstrip().startswith(">") and len(line.strip()) > 1 else "")
    return kinds
