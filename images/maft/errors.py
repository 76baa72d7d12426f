"""The one error that ends a program with exit code 2, something that the user can mend; and how errors are written."""


class BadInput(Exception):
    """Wrong input. The message is one line: the field or object, what was found, what to do."""


def one_line(text: object, limit: int | None = None) -> str:
    """Writes an error or a text on one line, cut off after `limit` characters."""
    return " ".join(str(text).split())[:limit]
