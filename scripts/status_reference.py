"""Writes the table of reasons into docs/status.md from maft_operator/cluster/reasons.py."""

from pathlib import Path

from pages import with_part

from maft_operator.cluster import reasons

PAGE = Path(__file__).parents[1] / "docs" / "status.md"
BEGIN, END = "<!-- reasons: scripts/status_reference.py -->\n", "<!-- end of reasons -->\n"


def table() -> str:
    """A row a reason, in the order of the module."""
    rows = [f"| `{r.name}` | {r.hint or 'nothing to do'} |" for r in reasons.ALL]
    return "\n".join(["| reason | what to do |", "|---|---|", *rows]) + "\n"


def page(text: str) -> str:
    """The page with a fresh table."""
    return with_part(text, BEGIN, table(), END)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
