"""Prints the section of CHANGELOG.md about one version: `python scripts/release_notes.py 0.1.0`.

`--released` refuses a section whose heading still says "(unreleased)": what a release by tag asks for.
"""

import argparse
import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


class NoNotes(Exception):
    """There is nothing to print; the message is for the user."""


def notes(changelog: str, version: str, *, released: bool = False) -> str:
    """Return what stands between the version's heading and the next one."""
    match = re.search(rf"^## {re.escape(version)}(?: (?P<when>.*))?\n(?P<body>(?:(?!## ).*\n?)*)", changelog, re.MULTILINE)
    if match is None:
        raise NoNotes(f"CHANGELOG.md has no section '## {version}'")
    if released and match["when"] == "(unreleased)":
        raise NoNotes(f"CHANGELOG.md still calls {version} unreleased; put the date there")
    if not match["body"].strip():
        raise NoNotes(f"CHANGELOG.md says nothing below '## {version}'")
    return match["body"].strip() + "\n"


def main() -> None:
    """Print the notes, or say in one line why there are none."""
    parser = argparse.ArgumentParser("release_notes.py", description=__doc__)
    parser.add_argument("version", help="as in pyproject.toml, without a leading v")
    parser.add_argument("--released", action="store_true", help="refuse a section that is marked as unreleased")
    arguments = parser.parse_args()
    try:
        print(notes(CHANGELOG.read_text(), arguments.version, released=arguments.released), end="")
    except NoNotes as error:
        print(f"release_notes: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
