"""How a critic's examples are mixed: of corrected answers the share that the spec says, drawn by the seed. Pure."""

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar


class HasProblem(Protocol):
    """What knows its problem's id."""

    @property
    def problem(self) -> str:
        """Returns the id."""


Placed = TypeVar("Placed", bound=HasProblem)


def mix(corrected: Sequence[Placed], kept: Sequence[Placed], share: float, seed: int) -> list[Placed]:
    """Draws the largest seeded sample in which `share` (w) comes from `corrected` and the rest from `kept`, by problem id."""
    size = min(
        len(corrected) / share if share > 0 else float("inf"),
        len(kept) / (1 - share) if share < 1 else float("inf"),
    )
    generator = random.Random(f"{seed}/mix")
    from_corrected = generator.sample(range(len(corrected)), min(len(corrected), round(size * share)))
    from_kept = generator.sample(range(len(kept)), min(len(kept), round(size * (1 - share))))
    chosen = [corrected[i] for i in from_corrected] + [kept[i] for i in from_kept]
    return sorted(chosen, key=lambda one: one.problem)
