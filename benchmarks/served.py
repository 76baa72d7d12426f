"""Parts on a real vLLM server: rows 1, 4, 5, 6, 7. The tiny model, the pretrained one of scripts/real_model.py, and on a GPU one of
8B shape on random weights.

Before each measurement the server's prefix cache is emptied. Both sides have the same questions, seeds and adapters.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from debates import Held, Plan, WorldName, hold, hold_barred, share_right, world
from msgspec import structs
from ratio import RUNS, Condition, Goal, Ratio, alternate, fewer
from servers import Server, running
from vllm_side import vllm_rate

from maft.debate.engine import Engine, HttpEngine, Load, Request
from maft.records import Call

MODELS = {"tiny": "tiny model", "real": "SmolLM2-135M", "large": "8B shape"}
AT_ONCE = (None, 16, 32, 64, 128)  # requests of vLLM's benchmark; None: all
WRITING = {"tiny": 0.9, "real": 0.95, "large": 0.97}  # goals of row 1


@dataclass(frozen=True, slots=True)
class Bench:
    """A server, and the debate that is held there."""

    server: Server
    plan: Plan

    @classmethod
    def of(cls, name: WorldName, server: Server, questions: int) -> "Bench":
        """Puts the adapters into the plan."""
        return cls(server, Plan(world(name), questions, generators=server.generators, critics=server.critics))

    def held(self, *, keep: bool = False, barred: bool = False, serial: bool = False, **changes: Any) -> Held:
        """Holds the debate with what is changed of the plan."""

        async def session() -> Held:
            async with HttpEngine({"server": [self.server.url]}) as http:
                plan = replace(self.plan, **changes)
                context = await http.ready("server", plan.society().models())
                engine: Engine = OneAtATime(http) if serial else http
                plan = replace(plan, context=context)
                return await (hold_barred(plan, engine) if barred else hold(plan, engine, keep=keep))

        self.server.forget()
        return asyncio.run(session())


class OneAtATime:
    """An engine that has one request under way: a loop over prompts, as the authors' code is."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._turn = engine, asyncio.Lock()

    async def complete(self, server: str, request: Request) -> Call:
        """Waits for its turn."""
        async with self._turn:
            return await self._engine.complete(server, request)

    async def ready(self, server: str, models: Iterable[str]) -> int:
        """Asks the engine."""
        return await self._engine.ready(server, models)

    async def load(self) -> Load:
        """Asks the engine."""
        return await self._engine.load()


# --- row 1 ---


def throughput(bench: Bench, runs: int) -> Ratio:
    """Debate ÷ vLLM's own serving benchmark, on the prompts, lengths, adapters and sampling that the debate had."""
    name = bench.plan.world.name
    recorded = bench.held(keep=True).counted.kept
    limits = {limit: vllm_rate(bench.server, recorded, limit) for limit in AT_ONCE if limit is None or limit < len(recorded)}
    best = max(limits, key=lambda limit: limits[limit])
    shares = [_share_cached(bench.server, side) for side in (bench.held, lambda: vllm_rate(bench.server, recorded, best))]
    pairs = alternate(lambda: bench.held().rate, lambda: vllm_rate(bench.server, recorded, best), runs, warm_up=False)
    tokens = sum(call.completion_tokens for _, call in recorded)
    cached = "prompt tokens that the cache had: {:.0%} of the debate's, {:.0%} of vLLM's".format(*shares)
    return Ratio(
        1,
        f"debate's tokens/s ÷ vLLM's serving benchmark, {MODELS[name]}",
        "tokens a second",
        pairs.first,
        pairs.second,
        Goal("at least", WRITING[name]),
        f"{bench.plan.questions} questions, {len(recorded):,} calls, {tokens:,} tokens written",
        f"vLLM's: {best or 'all'} at once was fastest of {', '.join(str(limit or 'all') for limit in limits)}; {cached}",
    )


def _share_cached(server: Server, side: Callable[[], object]) -> float:
    """Returns the share of prompt tokens that the prefix cache had in one run of a side."""
    computed, asked = _counted_tokens(server, side)
    return 1 - computed / asked


def tiny_throughput(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 1, tiny."""
    with running(world("tiny")) as server:
        return [throughput(Bench.of("tiny", server, 60 if quick else 300), runs)]


def real_throughput(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 1, pretrained: a minute a run."""
    with running(world("real")) as server:
        return [throughput(Bench.of("real", server, 4 if quick else 10), runs)]


# --- row 4 ---


def one_at_a_time(bench: Bench, runs: int, few: int, goal: float) -> Ratio:
    """Debate ÷ one prompt at a time, in tokens a second."""
    bench.held(questions=few)
    pairs = alternate(lambda: bench.held().rate, lambda: bench.held(questions=few, serial=True).rate, runs, warm_up=False)
    sample = f"{bench.plan.questions} questions ÷ {few} of them one call after the other, three agents, two rounds"
    name = f"debate's tokens/s ÷ one prompt at a time on the same server, {MODELS[bench.plan.world.name]}"
    note = fewer(runs, "one prompt at a time takes long")
    return Ratio(4, name, "tokens a second", pairs.first, pairs.second, Goal("at least", goal), sample, note)


def serial(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 4, tiny."""
    many, few = (60, 6) if quick else (300, 20)
    with running(world("tiny")) as server:
        return [one_at_a_time(Bench.of("tiny", server, many), runs, few, 4)]


# --- row 5 ---


def barred(bench: Bench, runs: int, load: str, goal: float) -> Ratio:
    """Barrier after every round ÷ streaming, in seconds."""
    pairs = alternate(lambda: bench.held(barred=True, rounds=3).seconds, lambda: bench.held(rounds=3).seconds, runs)
    name = f"barrier after every round ÷ streaming, {load} load, {MODELS[bench.plan.world.name]}"
    sample = f"{bench.plan.questions} questions, three agents, three rounds"
    return Ratio(5, name, "s", pairs.first, pairs.second, Goal("at least", goal), sample)


def barrier(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 5, tiny."""
    with running(world("tiny")) as server:
        full, small = (Bench.of("tiny", server, questions) for questions in (60 if quick else 300, 12))
        return [barred(full, runs, "full", 1.03), barred(small, runs, "small", 1.25)]


# --- row 6 ---


COUNTS = "counts of tokens by the server's counters, not times, hardly vary"


def shared_prefixes(bench: Bench, runs: int) -> list[Ratio]:
    """Prompt tokens that were computed ÷ all of them: what a server without prefix cache computes. Load changes no count."""
    base = {"generators": (), "critics": ()}
    sample = f"{bench.plan.questions} questions, three agents, two rounds, a seed each"
    rows = []
    for models, named in ((base, "all roles the base, as in iteration 1"), ({}, "an adapter a role, as later")):
        for mode, goal in (("paper", 0.7), ("fast", 0.52)):
            pairs = [_prompt_tokens(bench, mode=mode, seed=seed, **models) for seed in range(runs)]
            name = f"prompt tokens computed ÷ all of them, {mode} mode, {named}, {MODELS[bench.plan.world.name]}"
            values = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
            rows.append(Ratio(6, name, "tokens", *values, Goal("at most", goal), sample, fewer(runs, COUNTS)))
    return rows


def prefix(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 6, pretrained."""
    with running(world("real")) as server:
        return shared_prefixes(Bench.of("real", server, 4 if quick else 8), runs)


def _prompt_tokens(bench: Bench, **changes: Any) -> tuple[float, float]:
    """Counts the prompt tokens of a debate that no cache had, and all of them."""
    return _counted_tokens(bench.server, lambda: bench.held(**changes))


def _counted_tokens(server: Server, side: Callable[[], object]) -> tuple[float, float]:
    """Runs it; counts the prompt tokens that no cache had, and all of them."""
    before = server.counters()
    side()
    after = server.counters()
    asked, hits = (after[key] - before.get(key, 0.0) for key in ("prompt_tokens", "prefix_cache_hits"))
    return asked - hits, asked


# --- row 7 ---


def modes(bench: Bench, runs: int) -> Ratio:
    """Paper mode ÷ fast mode, in seconds; and whether the labels are as good."""
    held = {mode: _Mode(bench, mode) for mode in ("paper", "fast")}
    pairs = alternate(held["paper"], held["fast"], runs)
    (one, error), (other, other_error) = (share_right(held[mode].transcripts) for mode in ("paper", "fast"))
    apart = abs(one - other) / max((error**2 + other_error**2) ** 0.5, 1e-9)
    note = f"Labels right: paper {100 * one:.1f} ± {100 * error:.1f} %, fast {100 * other:.1f} ± {100 * other_error:.1f} %: "
    note += f"{apart:.1f} standard errors of the difference apart"
    sample = f"{bench.plan.questions} questions, three agents, two rounds, the same seeds"
    name = f"paper mode ÷ fast mode, {MODELS[bench.plan.world.name]}"
    labels = Condition("labels within one standard error", apart <= 1)
    return Ratio(7, name, "s", pairs.first, pairs.second, Goal("at least", 1.3), sample, note, labels)


def fast(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 7, tiny."""
    with running(world("tiny")) as server:
        return [modes(Bench.of("tiny", server, 60 if quick else 300), runs)]


class _Mode:
    """One side: a new seed each time, and the transcripts of all of them."""

    def __init__(self, bench: Bench, mode: str) -> None:
        self._bench, self._mode, self._seed = bench, mode, 0
        self.transcripts: list[Any] = []

    def __call__(self) -> float:
        held = self._bench.held(mode=self._mode, seed=self._seed)
        self._seed += 1
        self.transcripts += held.transcripts
        return held.seconds


# --- on a GPU ---


def large(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Rows 1 and 4 to 7 on one server of a model that keeps a GPU busy; its answers mean nothing, only their seconds and tokens."""
    with running(world("large")) as server:
        bench, small = (Bench.of("large", server, questions) for questions in (60, 12))
        return [
            throughput(bench, runs),
            barred(bench, runs, "full", 1.03),
            barred(small, runs, "small", 1.25),
            *shared_prefixes(small, min(runs, 3)),
            structs.replace(modes(bench, runs), note="", besides=None),
            one_at_a_time(bench, min(runs, 3), 1, 20),
        ]
