"""When things of a run were committed: as the store says. For trackers, which want to show when; nothing decides by it."""

from maft.store.base import Store
from maft.store.commits import COMMIT


def committed_at(store: Store, prefix: str) -> float | None:
    """Returns when the commit below that prefix was written, in seconds since 1970; None where there is none."""
    return next((entry.modified for entry in store.entries(prefix + COMMIT)), None)
