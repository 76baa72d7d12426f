"""Majority votes over parsed answers (paper, section 2.1), with seeded ties."""

import random
from collections.abc import Sequence

from maft.answers.extract import Equal, groups
from maft.records import Vote


def vote(parsed: Sequence[str | None], reference: str, *, equal: Equal, seed: int) -> Vote:
    """The answer with the most agents behind it; among equals the seed draws, whatever their order or spelling."""
    found = sorted(groups(parsed, equal), key=len, reverse=True)
    if not found:
        return Vote(None, 0, 0, False, False)
    best = [group for group in found if len(group) == len(found[0])]
    spellings = sorted(min(str(parsed[i]) for i in group) for group in best)
    answer = random.Random(seed).choice(spellings)
    runner_up = len(found[1]) if len(found) > 1 else 0
    return Vote(answer, len(best[0]), runner_up, len(best) > 1, equal(reference, answer))


def trains(result: Vote, minimum: int) -> bool:
    """Whether the majority is a label: at least `minimum` agents, or with 0 strictly more than behind any other answer."""
    if result.answer is None:
        return False
    return result.votes >= minimum if minimum else not result.tied


def unanimous(parsed: Sequence[str | None], equal: Equal) -> bool:
    """All agents gave an answer and it is the same one."""
    found = groups(parsed, equal)
    return len(found) == 1 and len(found[0]) == len(parsed)
