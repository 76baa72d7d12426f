"""What the suite verified of each family: families.json. Tests are held to it, and write it where RECORD_FAMILIES is set."""

import fcntl
import json
import os
from pathlib import Path

from family_list import FAMILIES

FILE = Path(__file__).with_name("families.json")
Facts = dict[str, dict[str, str]]  # by family and column


def recorded() -> Facts:
    """Reads the file."""
    facts: Facts = json.loads(FILE.read_text())
    return facts


def verified(family: str, column: str, fact: str) -> None:
    """Says what a test found; fails if the table says something else."""
    if os.environ.get("RECORD_FAMILIES"):
        _record(family, column, fact)
    assert recorded().get(family, {}).get(column) == fact, "run the suite with RECORD_FAMILIES=1, then scripts/models_reference.py"


def _record(family: str, column: str, fact: str) -> None:
    with FILE.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests run side by side
        facts = json.load(file)
        facts.setdefault(family, {})[column] = fact
        facts = {key: facts[key] for key in FAMILIES if key in facts}
        file.seek(0)
        file.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        file.truncate()
