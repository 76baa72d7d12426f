"""Which of the runs that a store holds are gone, and which of their objects are maft's. Pure."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from maft.store import layout
from maft.store.base import Entry
from maft.store.commits import COMMIT

DAY = 86400.0  # seconds


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of the runs that are to stay. Runs are NAMESPACE/NAME.

    there: those whose resource exists, None where no cluster was asked; named: those alone may go, empty: any; namespaces: those
    alone were asked for, empty: all; days: younger ones stay."""

    there: frozenset[str] | None
    named: frozenset[str]
    namespaces: frozenset[str]
    days: float


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies below a run's prefix. ours: in the order in which it is deleted; others: objects that maft has not written."""

    name: str
    ours: tuple[Entry, ...]
    others: int

    @property
    def size(self) -> int:
        """Adds up the bytes that would be freed."""
        return sum(entry.size for entry in self.ours)

    @property
    def newest(self) -> float:
        """Tells when it was last written to."""
        return max(entry.modified for entry in self.ours)


def stored(entries: Iterable[Entry]) -> Iterator[Stored]:
    """Finds the prefixes that hold a run.json, in a sorted listing of the whole store."""
    for run, group in itertools.groupby(entries, lambda entry: "/".join(entry.key.split("/")[:2])):
        below = list(group)
        ours = [entry for entry in below if _is_ours(entry.key.removeprefix(f"{run}/"))]
        if any(entry.key == f"{run}/{layout.RUN}" for entry in ours):
            yield Stored(run, tuple(sorted(ours, key=_order)), len(below) - len(ours))


def why_kept(run: Stored, kept: Kept, now: float) -> str:
    """Says why a run stays; empty where it is gone."""
    if kept.there is not None and run.name in kept.there:
        return "its resource is there, or a society serves it"
    if run.name not in kept.named and (kept.named or kept.there is None):
        return "it is not named; --run NAMESPACE/NAME names it"
    if kept.namespaces and run.name.split("/")[0] not in kept.namespaces:
        return "its namespace was not asked for"
    if (days := (now - run.newest) / DAY) < kept.days:
        return f"it was written to {days:.1f} days ago; --days {kept.days:g}"
    return ""


def unknown(runs: Sequence[str], kept: Kept) -> list[str]:
    """Lists what was named and is no run of the store."""
    return sorted(kept.named - set(runs))


def _is_ours(key: str) -> bool:
    return key == layout.RUN or key.startswith(layout.OF_A_RUN)


def _order(entry: Entry) -> tuple[int, str]:
    """Commits first, so that nobody takes for whole what is half gone; run.json last, so that the rest is found again."""
    name = entry.key.rsplit("/", 1)[-1]
    return (2 if entry.key.count("/") == 2 and name == layout.RUN else 0 if name == COMMIT else 1, entry.key)
