"""Text of others as people may be shown it: whoever writes a status or trains a model does not move a reader's cursor. Pure."""

UNSEEN = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, *, kept: str = "\n\t", instead: str = UNSEEN) -> str:
    """Replaces what steers terminals, and what turns or hides text. kept: signs that stay though they are not printed."""
    return "".join(sign if sign.isprintable() or sign in kept else instead for sign in text)


def on_one_line(text: str) -> str:
    """Returns the first line; what cannot be printed is a question mark, as wide as any sign of a table."""
    return printable(text.partition("\n")[0], kept="", instead="?")
