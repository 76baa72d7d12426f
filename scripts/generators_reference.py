"""Writes the tables of reasoning-gym's generators into docs/tasks.md, from maft/answers/generators.py."""

from pathlib import Path

from pages import with_part

from maft.answers.generators import GENERATORS, REFUSED

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
BEGIN, END = "<!-- generators: scripts/generators_reference.py -->\n", "<!-- end of generators -->\n"


def grouped(table: dict[str, str]) -> dict[str, list[str]]:
    """The names behind each text, in order of the texts."""
    return {text: [name for name, its in table.items() if its == text] for text in sorted(set(table.values()))}


def rows(table: dict[str, str]) -> str:
    """A row for each text, with the generators that it is about."""
    return "".join(f"| {text} | {', '.join(f'`{name}`' for name in names)} |\n" for text, names in grouped(table).items())


def tables() -> str:
    """Both tables."""
    forms = {name: form.name for name, form in GENERATORS.items()}
    return (
        f"| answers ({len(GENERATORS)} generators) | |\n|---|---|\n{rows(forms)}\n"
        f"| refused ({len(REFUSED)}), because | |\n|---|---|\n{rows(REFUSED)}"
    )


def page() -> str:
    """The page with the tables as they should be."""
    return with_part(PAGE.read_text(), BEGIN, tables(), END)


if __name__ == "__main__":
    PAGE.write_text(page())
