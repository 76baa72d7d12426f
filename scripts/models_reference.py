"""Writes the table of families into docs/models.md: what the suite verified of each (tests/support/families.json)."""

import json
from pathlib import Path

from pages import with_part

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
FACTS = ROOT / "tests" / "support" / "families.json"
BEGIN, END = "<!-- families: scripts/models_reference.py -->\n", "<!-- end of families -->\n"
COLUMNS = {
    "template": "template",
    "tokens": "tokens",
    "end": "end of turn",
    "system": "system turn",
    "thinking": "thinking",
    "arguments": "arguments",
    "training": "training",
    "served": "served with adapters",
}


def facts() -> dict[str, dict[str, str]]:
    """By family and column, the families in the suite's order."""
    found: dict[str, dict[str, str]] = json.loads(FACTS.read_text())
    return found


def table() -> str:
    """A row per family."""
    lines = [f"| family | {' | '.join(COLUMNS.values())} |\n", "|---" * (len(COLUMNS) + 1) + "|\n"]
    for found in facts().values():
        cells = [found["name"], *(found.get(column, "not tried") for column in COLUMNS)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(lines)


def page() -> str:
    """The page with its table made anew."""
    return with_part(PAGE.read_text(), BEGIN, table(), END)


if __name__ == "__main__":
    PAGE.write_text(page())
