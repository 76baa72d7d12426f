"""Timings: how long a stage took, beside its commit and not part of it, for equal work may take any time."""

from maft import records
from maft.records import Timing
from maft.store import layout
from maft.store.base import Missing, Store


def write_seconds(store: Store, prefix: str, seconds: float) -> None:
    """Notes how long the work took that is committed below `prefix`."""
    store.write(prefix + layout.TIMING, records.encode(Timing(round(seconds, 1))))


def read_seconds(store: Store, prefix: str) -> float | None:
    """Reads how long the work took; None where it was not noted."""
    key = prefix + layout.TIMING
    try:
        return records.decode(store.read(key), Timing, key).seconds
    except Missing:
        return None
