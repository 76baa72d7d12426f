"""By what trackers tell a run from every other: an id that its first export draws and the store keeps beside what was sent.

Neither name nor address would do: two buckets may have a run of one name, a run may be made anew under it, and what is one folder
has another path on each machine.
"""

import hashlib
import secrets
from typing import Annotated

import msgspec

from maft import records
from maft.export.ledger import digest
from maft.records import Commit, Formatted
from maft.store import layout
from maft.store.base import Missing, Store


class Identity(Formatted, frozen=True, kw_only=True):
    """The object."""

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    """Drawn at random."""


def identity(store: Store, run: str, questions: Commit | None) -> str:
    """Returns 32 hexadecimal digits: the same for a run wherever it is exported from. questions: its own, so that what is left of
    an earlier run of its name is not taken for it."""
    key = layout.exported(run, "identity")
    try:
        drawn = _read(store, key)
    except Missing:
        store.create(key, records.encode(Identity(id=secrets.token_hex(16))))
        drawn = _read(store, key)  # another export may have been first
    return hashlib.sha256(f"{drawn.id} {digest(questions)}".encode()).hexdigest()[:32]


def _read(store: Store, key: str) -> Identity:
    return records.decode(store.read(key), Identity, f"{store.url}/{key}")
