"""Runs of a comparison that are not made, wait or failed, as its status has them. Pure."""

from collections.abc import Iterator

from maft_operator.cluster.fields import count, parts, text
from maft_operator.spec.schema import Json


def held(comparison: Json) -> Iterator[str]:
    """Yields a line for each: its name and the reason. Read as it comes, as whoever has the right to may write it."""
    for row in parts(comparison, "status", "rows"):
        if reason := text(row, "reason"):
            yield f"{text(row, 'run') or _unmade(row)}: {reason}"


def _unmade(row: Json) -> str:
    return f"{text(row, 'method')}, seed {count(row, 'seed')}"
