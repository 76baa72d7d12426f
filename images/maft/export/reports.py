"""The report of a run, where it has one: the page and its numbers, as `maft.report` wrote them."""

import hashlib
from collections.abc import Mapping

from maft import readable
from maft.store import layout
from maft.store.base import Missing, Store

REPORT = "report"  # a part of ledgers; the folder in which others have the files
FILES = readable.FILES[readable.OF_A_RUN]
PAGE, NUMBERS = FILES


def report_files(store: Store, run: str) -> dict[str, bytes]:
    """Reads its files; empty where there is no report yet."""
    try:
        return {name: store.read(f"{run}/{layout.REPORT}{name}") for name in FILES}
    except Missing:
        return {}


def part(files: Mapping[str, bytes], name: str = REPORT) -> dict[str, str]:
    """Makes a part for a ledger of the files; none where there is no report."""
    return {name: files_digest(files)} if files else {}


def files_digest(files: Mapping[str, bytes]) -> str:
    """Hashes files with their names."""
    whole = hashlib.sha256()
    for name, data in files.items():
        whole.update(name.encode() + hashlib.sha256(data).digest())
    return whole.hexdigest()[:16]
