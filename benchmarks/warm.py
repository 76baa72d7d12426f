"""Warm starts: from "train done" to the next debate's first token, with empty caches and with those of the start before.

With lifetime Phase a server starts when training has ended, and a run waits for it: its whole way is measured, from the process to
the first token of an adapter that it fetches, and nothing else that lies between two stages, which is the same on both sides. What
it finds again is what vLLM, Triton, Inductor and FlashInfer keep (`cacheClaim`, or the user's cache folder); the model is there on
both sides.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from debates import WorldName, world
from ratio import RUNS, Ratio, alternate, fewer
from served import MODELS, Bench
from servers import running

from maft.debate.engine import HttpEngine, Request


def warm(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """The pretrained model on a processor."""
    return [started("real", runs)]


def warm_large(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Of 8B shape, on a GPU."""
    return [started("large", min(runs, 3))]


def started(name: WorldName, runs: int) -> Ratio:
    """Empty caches ÷ warm ones, in seconds."""
    with tempfile.TemporaryDirectory(prefix="maft-bench-") as scratch:
        _to_first_token(name, kept := Path(scratch) / "kept")
        pairs = alternate(_emptied(name, Path(scratch)), lambda: _to_first_token(name, kept), runs, warm_up=False)
    what = f"train done → next debate's first token, by the server's start: empty caches ÷ those of before, {MODELS[name]}"
    note = ". ".join(filter(None, [f"{_seconds(pairs.first)} ÷ {_seconds(pairs.second)}", fewer(runs, "a start takes long")]))
    return Ratio(15, what, "s", pairs.first, pairs.second, None, "a server with six adapters", note)


def _seconds(side: Sequence[float]) -> str:
    return f"{median(side):.1f} s ({min(side):.1f} to {max(side):.1f})"


def _emptied(name: WorldName, scratch: Path) -> Callable[[], float]:
    def side() -> float:
        with tempfile.TemporaryDirectory(dir=scratch) as empty:
            return _to_first_token(name, Path(empty))

    return side


def _to_first_token(name: WorldName, caches: Path) -> float:
    begun = time.monotonic()
    with running(world(name), caches=caches) as server:
        asyncio.run(_first_token(Bench.of(name, server, 1)))
        return time.monotonic() - begun


async def _first_token(bench: Bench) -> None:
    model = bench.server.critics[0]
    async with HttpEngine({"server": [bench.server.url]}) as http:
        await http.ready("server", [model])
        await http.complete("server", Request(model, [1] * 16, seed=0, temperature=0.0, top_p=1.0, max_tokens=1))
