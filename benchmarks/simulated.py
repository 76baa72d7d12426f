"""Parts without a model: the debate's real client over an engine of so many slots in virtual time (virtual.py).

schedule: makespan ÷ max(work / slots, critical path). barrier: a barrier after every round ÷ the debate as it is. growth: what a
token costs when everything is more.
"""

from collections.abc import Callable

from debates import Held, Plan, hold, hold_barred, world
from ratio import RUNS, Goal, Ratio
from virtual import Here, Slots, Tail, critical_path, run

SLOTS = 64
FEW = 8  # slots that a hundred questions fill
Cost = Callable[[Held, Slots], float]


def debated(plan: Plan, tail: Tail, slots: int = SLOTS, *, barred: bool = False) -> tuple[Held, Slots]:
    """Holds one debate in virtual time."""
    engine = Slots(slots, tail)
    holder = hold_barred if barred else hold
    return run(holder(plan, engine, judge=Here())), engine


def least(held: Held, engine: Slots) -> float:
    """Computes the least time that any schedule takes: all work spread over all slots, or the longest question."""
    path = max(critical_path(transcript, engine.took) for transcript in held.transcripts)
    return max(sum(engine.took.values()) / engine.slots, path)


def schedule(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 2."""
    rows = []
    for tail, questions in (("even", 300 if quick else 1000), ("long", 600 if quick else 3000)):
        made = [debated(Plan(world("tiny"), questions, seed=seed), tail) for seed in range(runs)]
        rows.append(
            Ratio(
                2,
                f"schedule ÷ max(work ÷ capacity, critical path), {NAMED[tail]}",
                "virtual s",
                tuple(held.seconds for held, _ in made),
                tuple(least(held, engine) for held, engine in made),
                Goal("at most", 1.05),
                f"{questions:,} questions × 9 calls, {SLOTS} slots, a seed each",
            )
        )
    return rows


NAMED: dict[Tail, str] = {"even": "lengths from half to three halves of the mean", "long": "long-tailed lengths (lognormal, σ = 1)"}


def barrier(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 5, in virtual time."""
    rows = []
    for name, questions, slots, goal in (("full", 300 if quick else 1000, SLOTS, 1.03), ("small", 40, 256, 1.25)):
        pairs = []
        for seed in range(runs):
            plan = Plan(world("tiny"), questions, rounds=3, seed=seed)
            pairs.append((debated(plan, "long", slots, barred=True)[0].seconds, debated(plan, "long", slots)[0].seconds))
        rows.append(
            Ratio(
                5,
                f"barrier after every round ÷ streaming, {name} load, simulated, long-tailed lengths",
                "virtual s",
                tuple(one for one, _ in pairs),
                tuple(other for _, other in pairs),
                Goal("at least", goal),
                f"{questions:,} questions × 15 calls (3 rounds), {slots} slots, a seed each",
            )
        )
    return rows


def growth(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 13: time and client's CPU for each token, more ÷ less."""
    few, many = (30, 300) if quick else (100, 1000)
    fixed = world("tiny")
    grown = (
        ("questions × 10", Plan(fixed, few), Plan(fixed, many)),
        ("agents 2 → 8", Plan(fixed, few, agents=2), Plan(fixed, few, agents=8)),
        ("rounds 2 → 4", Plan(fixed, few), Plan(fixed, few, rounds=4)),
    )
    rows = []
    for name, less, more in grown:
        sample = f"{less.questions} questions, {less.agents} agents, {less.rounds} rounds → "
        sample += f"{more.questions}, {more.agents}, {more.rounds}"
        rows += [
            _grown(f"time for the same work of the engine, {name}", "virtual s", less, more, runs, _time, sample),
            _grown(f"client's CPU a token, {name}", "µs", less, more, runs, _cpu, sample),
        ]
    return rows


def _grown(name: str, unit: str, less: Plan, more: Plan, runs: int, cost: Cost, sample: str) -> Ratio:
    """How much more the same costs when there is more of it."""
    debated(less, "even", FEW)
    pairs = [(cost(*debated(more, "even", FEW)), cost(*debated(less, "even", FEW))) for _ in range(runs)]
    return Ratio(13, name, unit, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), Goal("at most", 1.1), sample)


def _time(held: Held, engine: Slots) -> float:
    """For each second that the engine's calls take one after the other."""
    return held.seconds / sum(engine.took.values())


def _cpu(held: Held, engine: Slots) -> float:
    """For each token, read or written."""
    return held.cpu / (held.counted.prompt_tokens + held.counted.completion_tokens) * 1e6
