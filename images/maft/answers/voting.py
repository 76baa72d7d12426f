"""Majority votes over parsed answers (paper, section 2.1), with seeded ties."""

import random
from collections.abc import Callable, Sequence

from maft.answers.equality import Equal, groups
from maft.records import Vote


def vote(parsed: Sequence[str | None], right: Callable[[str], bool], *, equal: Equal, seed: int) -> Vote:
    """Elects the answer with the most agents behind it; among equals the seed draws, whatever their order or spelling. right: tells
    whether an answer is."""
    ranked = sorted(groups(parsed, equal), key=len, reverse=True)
    if not ranked:
        return Vote(None, 0, 0, False, False)
    best = [group for group in ranked if len(group) == len(ranked[0])]
    spellings = sorted(min(str(parsed[i]) for i in group) for group in best)
    answer = random.Random(seed).choice(spellings)
    runner_up = len(ranked[1]) if len(ranked) > 1 else 0
    return Vote(answer, len(best[0]), runner_up, len(best) > 1, right(answer))


def trains(result: Vote, minimum: int) -> bool:
    """Tells whether the majority is a label: at least `minimum` agents, or with 0 strictly more than behind any other answer."""
    if result.answer is None:
        return False
    return result.votes >= minimum if minimum else not result.tied


def unanimous(parsed: Sequence[str | None], equal: Equal) -> bool:
    """Tells whether all agents gave an answer and it is the same one."""
    grouped = groups(parsed, equal)
    return len(grouped) == 1 and len(grouped[0]) == len(parsed)
