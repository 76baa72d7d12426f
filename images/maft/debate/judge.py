"""A model decides whether two answers mean the same: the base, asked both ways round, without chance. Where it contradicts itself,
they do not."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from maft.debate.clipping import Fitted, Heard
from maft.debate.prompts import Prompts
from maft.records import Call, Judgement, Place

_VERDICT = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])", re.IGNORECASE)


@dataclass(slots=True)
class Judge:
    """Asks about the answers to one question, and keeps what was said."""

    prompts: Prompts
    question: str
    fit: Callable[[Heard, int], Fitted]
    """Makes a prompt in a fresh context, for the server of an agent."""
    call: Callable[[int, Sequence[int], int], Awaitable[Call]]
    """Asks the base at the server of an agent, with a seed."""
    seed: Callable[..., int]
    host: Callable[[int], int]
    """Chooses by a seed at which agent's server."""
    judgements: list[Judgement] = field(default_factory=list)

    async def same(self, one: str, other: str, place: Place | None, place_of_other: Place | None) -> bool:
        """Tells whether both ways round the answer is yes."""
        ways = ((one, other, place, place_of_other), (other, one, place_of_other, place))
        calls = await asyncio.gather(*(self._ask(*way) for way in ways))
        verdict = all(yes(call) for call, _ in calls)
        clipped = sum(count for _, count in calls)
        self.judgements.append(Judgement(place, place_of_other, verdict, tuple(call for call, _ in calls), clipped))
        return verdict

    async def _ask(self, one: str, other: str, place: Place | None, place_of_other: Place | None) -> tuple[Call, int]:
        seed = self.seed("judge", place, place_of_other)
        host = self.host(seed)  # the pair decides, so that all that have the base have their part
        fitted = self.fit(Heard(lambda texts: self.prompts.judged(self.question, *texts), [one, other]), host)
        return await self.call(host, fitted.ids, seed), fitted.clipped


def yes(call: Call) -> bool:
    """Reads a verdict: the first "yes" or "no" of the reply. Without one, or cut off before it, it is no."""
    verdict = _VERDICT.search(call.text)
    return verdict is not None and verdict[1].lower() == "yes"
