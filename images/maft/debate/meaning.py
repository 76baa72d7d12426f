"""Which answers of one question mean the same, where no equality of texts can tell: somebody is asked about pairs.

What is said of pairs need not be transitive, so answers are grouped by complete linkage, in the order of rounds and agents: an
answer joins the first group all of whose members it is the same as, or else begins one. From then on it counts as the group's first
answer, so votes, margins and datasets compare texts as they always do. The reference takes no part in it: labels are made without.
"""

from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from maft.answers.texts import text_of
from maft.records import Place, Turn

# Asked about two texts, and where they were said; None: the reference.
Same = Callable[[str, str, Place | None, Place | None], Awaitable[bool]]


class Meaning:
    """The groups of one question's answers."""

    def __init__(self, same: Same, reference: str) -> None:
        """reference: empty where there is none, as of what users ask; then nothing is right."""
        self._same = same
        self._reference = reference
        self._groups: list[list[str]] = []
        self._places: dict[str, Place] = {}
        self._first: dict[str, str] = {}
        self._right: dict[str, bool] = {}
        self._known: dict[frozenset[str], bool] = {}

    async def settle(self, turns: Sequence[list[Turn]]) -> None:
        """Puts into each turn's `parsed` the first answer of its group; asks about those that are new."""
        for round_ in range(max(map(len, turns))):
            for agent, own in enumerate(turns):
                if round_ < len(own) and (answer := own[round_].parsed) is not None:
                    await self._place(answer, (agent, round_ + 1))
                    own[round_] = replace(own[round_], parsed=self._first[answer])

    def right(self, answer: str) -> bool:
        """Tells whether an answer that was settled means what the reference does."""
        return self._right[answer]

    async def _place(self, answer: str, place: Place) -> None:
        if answer in self._first:
            return
        self._places[answer] = place
        for group in self._groups:
            if await self._belongs(answer, group):
                group.append(answer)
                self._first[answer] = group[0]
                return
        self._groups.append([answer])
        self._first[answer] = answer
        self._right[answer] = bool(self._reference) and await self._asked(answer, self._reference)

    async def _belongs(self, answer: str, group: Sequence[str]) -> bool:
        for member in group:  # one after the other: the first that differs spares the rest
            if not await self._asked(member, answer):
                return False
        return True

    async def _asked(self, one: str, other: str) -> bool:
        pair = frozenset((one, other))
        if pair not in self._known:
            places = self._places.get(one), self._places.get(other)
            self._known[pair] = text_of(one) == text_of(other) or await self._same(one, other, *places)
        return self._known[pair]
