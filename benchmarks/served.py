"""Parts on a real vLLM server: rows 1, 4, 5, 6, 7. The tiny model, and the pretrained one of scripts/real_model.py.

Before each measurement the server's prefix cache is emptied. Both sides have the same questions, seeds and adapters.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from debates import Held, Plan, WorldName, hold, hold_barred, share_right, world
from ratio import RUNS, Goal, Ratio, alternate
from servers import Server, running
from vllm_side import vllm_rate

from maft.debate.engine import Engine, HttpEngine, Load, Request
from maft.records import Call

MODELS = {"tiny": "tiny model", "real": "SmolLM2-135M"}


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


def throughput(name: WorldName, runs: int, questions: int) -> list[Ratio]:
    """Debate ÷ vLLM's own serving benchmark, on the prompts, lengths, adapters and sampling that the debate had."""
    with running(world(name)) as server:
        bench = Bench.of(name, server, questions)
        recorded = bench.held(keep=True).counted.kept
        limits = {limit: vllm_rate(server, recorded, limit) for limit in (None, 128)}
        best = max(limits, key=lambda limit: limits[limit])
        pairs = alternate(lambda: bench.held().rate, lambda: vllm_rate(server, recorded, best), runs, warm_up=False)
    goal = Goal("at least", 0.9 if name == "tiny" else 0.95)
    tokens = sum(call.completion_tokens for _, call in recorded)
    how = "all at once" if best is None else f"{best} at once, which was faster than all"
    return [
        Ratio(
            1,
            f"debate's tokens/s ÷ vLLM's serving benchmark, {MODELS[name]}",
            "tokens a second",
            pairs.first,
            pairs.second,
            goal,
            f"{questions} questions, {len(recorded):,} calls, {tokens:,} tokens written",
            f"vLLM's: {how}",
        )
    ]


def tiny_throughput(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 1, tiny."""
    return throughput("tiny", runs, 60 if quick else 300)


def real_throughput(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 1, pretrained."""
    return throughput("real", runs, 10 if quick else 40)


# --- row 4 ---


def serial(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Debate ÷ one prompt at a time, in tokens a second."""
    many, few = (60, 6) if quick else (300, 20)
    with running(world("tiny")) as server:
        bench = Bench.of("tiny", server, many)
        bench.held(questions=few)
        pairs = alternate(lambda: bench.held().rate, lambda: bench.held(questions=few, serial=True).rate, runs, warm_up=False)
    sample = f"{many} questions ÷ {few} of them one call after the other, three agents, two rounds"
    name = "debate's tokens/s ÷ one prompt at a time on the same server, tiny model"
    return [Ratio(4, name, "tokens a second", pairs.first, pairs.second, Goal("at least", 4), sample)]


# --- row 5 ---


def barrier(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Barrier after every round ÷ streaming, in seconds, on the tiny model's server."""
    rows = []
    with running(world("tiny")) as server:
        for load, questions, goal in (("full", 60 if quick else 300, 1.03), ("small", 12, 1.25)):
            bench = Bench.of("tiny", server, questions)
            pairs = alternate(
                lambda bench=bench: bench.held(barred=True, rounds=3).seconds,  # type: ignore[misc]
                lambda bench=bench: bench.held(rounds=3).seconds,  # type: ignore[misc]
                runs,
            )
            name = f"barrier after every round ÷ streaming, {load} load, tiny model"
            sample = f"{questions} questions, three agents, three rounds"
            rows.append(Ratio(5, name, "s", pairs.first, pairs.second, Goal("at least", goal), sample))
    return rows


# --- row 6 ---


def prefix(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Prompt tokens that were computed ÷ all of them: what a server without prefix cache computes. Load changes no count."""
    questions = 4 if quick else 8
    base = {"generators": (), "critics": ()}
    rows = []
    with running(world("real")) as server:
        bench = Bench.of("real", server, questions)
        for models, named in ((base, "all roles the base, as in iteration 1"), ({}, "an adapter a role, as later")):
            for mode, goal in (("paper", 0.7), ("fast", 0.52)):
                pairs = [_prompt_tokens(bench, mode=mode, seed=seed, **models) for seed in range(runs)]
                name = f"prompt tokens computed ÷ all of them, {mode} mode, {named}, {MODELS['real']}"
                values = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
                sample = f"{questions} questions, three agents, two rounds, a seed each"
                rows.append(Ratio(6, name, "tokens", *values, Goal("at most", goal), sample))
    return rows


def _prompt_tokens(bench: Bench, **changes: Any) -> tuple[float, float]:
    """Counts the prompt tokens of a debate that no cache had, and all of them."""
    before = bench.server.counters()
    bench.held(**changes)
    after = bench.server.counters()
    asked, hits = (after[key] - before.get(key, 0.0) for key in ("prompt_tokens", "prefix_cache_hits"))
    return asked - hits, asked


# --- row 7 ---


def fast(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Paper mode ÷ fast mode, in seconds; and whether the labels are as good."""
    questions = 60 if quick else 300
    with running(world("tiny")) as server:
        bench = Bench.of("tiny", server, questions)
        modes = {mode: _Mode(bench, mode) for mode in ("paper", "fast")}
        pairs = alternate(modes["paper"], modes["fast"], runs)
    (one, error), (other, other_error) = (share_right(modes[mode].transcripts) for mode in ("paper", "fast"))
    apart = abs(one - other) / max((error**2 + other_error**2) ** 0.5, 1e-9)
    note = f"Labels right: paper {100 * one:.1f} ± {100 * error:.1f} %, fast {100 * other:.1f} ± {100 * other_error:.1f} %: "
    note += f"{apart:.1f} standard errors of the difference apart"
    sample = f"{questions} questions, three agents, two rounds, the same seeds"
    name = "paper mode ÷ fast mode, tiny model"
    return [Ratio(7, name, "s", pairs.first, pairs.second, Goal("at least", 1.3), sample, note)]


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
