"""Writes what S3 servers do into docs/stores.md: `stores_reference.py [NAME...]` tries those servers first, `all` means all.

A server is fetched or built once into the tests' cache, started, and asked to keep the store's contract: the tests of
tests/method/test_store.py that hold for every store. Then the probe, and races for one key, which no probe can judge.
What was found lies in tests/support/stores.json, from which the page is made.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / "support")]

import s3kinds  # noqa: E402
from pages import with_part  # noqa: E402
from s3server import SERVER, S3Server, running  # noqa: E402

from maft.errors import BadInput, one_line  # noqa: E402
from maft.store.check import check  # noqa: E402
from maft.store.patience import Patience  # noqa: E402
from maft.store.s3 import S3Store  # noqa: E402

PAGE = ROOT / "docs" / "stores.md"
FACTS = ROOT / "tests" / "support" / "stores.json"
BEGIN, END = "<!-- servers: scripts/stores_reference.py -->\n", "<!-- end of servers -->\n"
SUITE = "tests/method/test_store.py"
ROUNDS, WRITERS = 200, 8
ACCEPTED, FAIR = "accepted", f"{ROUNDS} of {ROUNDS}"
SIZES = (1, 1 << 20)  # bytes
TEST_SECONDS = 150
COLUMNS = {"date": "tried on", "contract": "contract", "probe": "probe", "races": "races", "how": "had by"}


def tried(had: s3kinds.Had) -> dict[str, str | list[str]]:
    """What the server does, in words, and on which day it did."""
    had.have()
    with tempfile.TemporaryDirectory(prefix="maft-stores-") as scratch, running(Path(scratch) / "objects", had.kind) as server:
        os.environ.update(server.environment())
        store = S3Store(server.bucket, "tried", server.endpoint, "us-east-1", patience=Patience(5.0))
        probe, races = _probed(store), _raced(store)
        count, failed = _contract(server, Path(scratch) / "suite.xml") if probe == ACCEPTED else (0, [])
    kept = f"{count - len(failed)} of {count}" if count else "not tried"
    today = datetime.now(UTC).date().isoformat()
    found = {"version": had.version, "date": today, "how": had.how, "probe": probe, "races": races}
    return {**found, "contract": kept, "failed": failed}


def _probed(store: S3Store) -> str:
    try:
        check(store, "run/", Patience(10.0))
    except BadInput as error:
        return one_line(error).replace(f"store {store.url}: ", "")
    return ACCEPTED


def _raced(store: S3Store) -> str:
    """How many races for a key had one winner, whose content is there."""
    fair = 0
    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(ROUNDS):
            key, size = f"race/{number}", SIZES[number % len(SIZES)]
            try:
                won = list(pool.map(lambda i, key=key, size=size: store.create(key, b"%d" % i * size), range(WRITERS)))
                fair += won.count(True) == 1 and store.read(key) == b"%d" % won.index(True) * size
            except (OSError, BadInput) as error:
                return f"none: {one_line(error, 120)}".replace(f"store {store.url}: ", "")
    return f"{fair} of {ROUNDS}"


def _contract(server: S3Server, report: Path) -> tuple[int, list[str]]:
    """How many tests hold for every store, and which of them this one fails."""
    environment = {**os.environ, SERVER: json.dumps(asdict(server)), "MAFT_PREPARED": "1"}
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    collect = [*pytest, "--collect-only", SUITE]
    listed = subprocess.run(collect, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    chosen = [line for line in listed.stdout.splitlines() if "[bucket]" in line or "[bucket-" in line]
    test = [*pytest, f"--timeout={TEST_SECONDS}", f"--junit-xml={report}", *chosen]
    subprocess.run(test, check=False, cwd=ROOT, env=environment, stdout=sys.stderr)
    good = {str(case.get("name")): len(case) == 0 for case in ElementTree.parse(report).iter("testcase")}
    names = {name.partition("[")[0] for name in good}
    return len(names), sorted({name.partition("[")[0] for name, passed in good.items() if not passed})


def facts() -> dict[str, dict[str, Any]]:
    """What was found, by server, in the order of the page."""
    found: dict[str, dict[str, Any]] = json.loads(FACTS.read_text()) if FACTS.exists() else {}
    return {had.kind.name: found[had.kind.name] for had in s3kinds.KINDS if had.kind.name in found}


def table() -> str:
    """A row per server, and what each fails."""
    lines = [f"| server | version | {' | '.join(COLUMNS.values())} |\n", "|---" * (len(COLUMNS) + 2) + "|\n"]
    for name, found in facts().items():
        cells = [name, found["version"], *(found[column] for column in COLUMNS)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    unsafe = [name for name, found in facts().items() if found["probe"] == ACCEPTED and _is_unsafe(found)]
    lines += ["\nNot to be used, though the probe accepts them: ", ", ".join(unsafe) or "none of these", ".\n"]
    failing = [f"- {name}: {_named(found['failed'])}\n" for name, found in facts().items() if found["failed"]]
    return "".join([*lines, "\nTests that a server fails:\n\n" if failing else "", *failing])


def _is_unsafe(found: dict[str, Any]) -> bool:
    """Whether two writers may both win, or it fails what a run does. No run asks for a folder as if it were an object, or for what
    would lie below an object."""
    return found["races"] != FAIR or bool({*found["failed"]} - {"test_there_is_no_other_object"})


def _named(tests: list[str]) -> str:
    return ", ".join(test.removeprefix("test_").replace("_", " ") for test in tests)


def page() -> str:
    """The page with its table made anew."""
    return with_part(PAGE.read_text(), BEGIN, table(), END)


def main(names: list[str], say: Callable[[str], object] = print) -> int:
    """The command line; 1 if a server could not be had or started."""
    code, known = 0, {had.kind.name: had for had in s3kinds.KINDS}
    for name in known if names == ["all"] else names:
        try:
            found = tried(known[name])
        except (subprocess.CalledProcessError, RuntimeError, FileNotFoundError) as error:
            code, _ = 1, say(f"{name}: not tried: {one_line(getattr(error, 'stderr', None) or error, 400)}")
            continue
        FACTS.write_text(json.dumps({**facts(), name: found}, indent=1) + "\n")
        say(f"{name}: {found}")
    PAGE.write_text(page())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
