"""What was sent to one target, kept in the store beside the run: a second start sends the rest, or nothing.

One object for each target, named by its kind and a hash of its place. Written after each part that has arrived, or what arrives
together.
"""

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from maft import records
from maft.committed_run import RunCommits
from maft.records import Commit, Formatted
from maft.store import layout
from maft.store.base import Missing, Store


class Marker(Formatted, frozen=True, kw_only=True):
    """The object."""

    to: str
    """KIND=PLACE, without secrets."""
    remote: str = ""
    """What the target calls the run."""
    sent: dict[str, str] = msgspec.field(default_factory=dict)
    """Hash of what was sent, by part."""


class Ledger:
    """The marker of one target. place: where things go, without secrets."""

    def __init__(self, store: Store, run: str, kind: str, place: str) -> None:
        to = f"{kind}={place}"
        self._store = store
        self._key = layout.exported(run, f"{kind}-{hashlib.sha256(to.encode()).hexdigest()[:12]}")
        self._marker = self._read() or Marker(to=to)

    def _read(self) -> Marker | None:
        try:
            return records.decode(self._store.read(self._key), Marker, self._key)
        except Missing:
            return None

    @property
    def remote(self) -> str:
        """Returns what the target calls the run; empty before it has one."""
        return self._marker.remote

    def known_as(self, remote: str) -> None:
        """Keeps what the target calls the run; what was sent to another one was not sent to this."""
        if remote != self._marker.remote:
            self._write(replace(self._marker, remote=remote, sent={}))

    def missing(self, parts: Mapping[str, str]) -> list[str]:
        """Lists the parts that were not sent, or not as they are now."""
        return [part for part, digest in parts.items() if self._marker.sent.get(part) != digest]

    def note(self, part: str, digest: str) -> None:
        """Keeps that the part has arrived."""
        self._write(replace(self._marker, sent={**self._marker.sent, part: digest}))

    def arrived(self, remote: str, parts: Mapping[str, str]) -> None:
        """Keeps that these parts have arrived together, and what the target calls the run, in one write."""
        before = self._marker.sent if remote == self._marker.remote else {}
        self._write(replace(self._marker, remote=remote, sent={**before, **parts}))

    def _write(self, marker: Marker) -> None:
        self._store.write(self._key, records.encode(marker))
        self._marker = marker


def digest(*commits: Commit | None) -> str:
    """Hashes what is committed: equal commits, equal hash."""
    return hashlib.sha256(records.encode(list(commits))).hexdigest()[:16]


def stages(run: RunCommits) -> dict[str, str]:
    """Lists what trackers show of a run as parts with their hashes: its spec, then the numbers of each iteration."""
    parts = {"spec": digest(run.problems)}
    for i in run.iterations:
        if i.evaluation:
            parts[f"evaluation/{i.number}"] = digest(i.evaluation)
        if i.validation:
            parts[f"validation/{i.number}"] = digest(i.validation)
        if i.training.complete:
            parts[f"training/{i.number}"] = digest(*i.training.commits)
        if i.diversity_commit:
            parts[f"diversity/{i.number}"] = digest(i.diversity_commit)
    return parts
