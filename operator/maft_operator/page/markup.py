"""HTML by construction: a text is escaped wherever it is put, so nothing that a user wrote becomes markup. Pure."""

from html import escape

from maft_operator.printable import printable


class Markup(str):
    """HTML that this module has made."""

    __slots__ = ()


_VOID = ("meta",)  # of HTML: what SVG has is closed, or all that follows would lie within
Part = str | None


def tag(name: str, /, *inside: Part, **attributes: str | int | float | None) -> Markup:
    """Makes an element. Attributes that are None are left out; `_` in their names stands for `-`, one at the end for nothing."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items() if value is not None
    )
    opened = f"<{name}{written}>"
    return Markup(opened if name in _VOID else f"{opened}{joined(*inside)}</{name}>")


def joined(*parts: Part) -> Markup:
    """Puts parts after each other; what is no markup is text."""
    return Markup("".join(part if isinstance(part, Markup) else _text(part) for part in parts if part is not None))


def _text(text: str) -> str:
    return escape(printable(text))
