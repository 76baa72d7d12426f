"""The society that answers: `python benchmarks/society.py [--part NAME] [--run STORE/NAMESPACE/NAME]`.

clients: 200 clients ask for two minutes without a pause: errors, answers, memory of the society's process. overhead: questions to
the society ÷ the same debates by the code of a run, equally many at a time. first-token: of one agent through the society ÷ by
vLLM itself. export: the program that hands a run on (exports.py). Without --run the stand-in for vLLM answers, after a time of its
own; first-token needs a run, and with it vLLM. Numbers are kept in benchmarks/society.json; `--write` puts them into
docs/performance.md.
"""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import exports
import page
import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]
from conftest import MOCK, free_port, serving  # noqa: E402
from societies import RUN, trained  # noqa: E402

from maft import models  # noqa: E402
from maft.answers.equality import Checker  # noqa: E402
from maft.asked import question_id  # noqa: E402
from maft.debate import society as players  # noqa: E402
from maft.debate.engine import HttpEngine  # noqa: E402
from maft.debate.question import Question  # noqa: E402
from maft.debate.setup import Setup  # noqa: E402
from maft.records import Problem  # noqa: E402
from maft.society_spec import SocietySpec  # noqa: E402
from maft.spec import SERVER_KEY, Spec, decode_spec  # noqa: E402
from maft.store.urls import open_store  # noqa: E402
from maft_operator.local import place, society  # noqa: E402

Json = dict[str, Any]
OUTPUT = Path(__file__).with_suffix(".json")
CLIENTS, SECONDS = 200, 120
AT_ONCE, QUESTIONS, PAIRS = 16, 64, 5
LATENCY = 0.3  # seconds of the stand-in for an answer
_ONE = "society/generator-1"
Part = Callable[["Side"], Coroutine[Any, Any, Json]]


@dataclass(frozen=True, slots=True)
class Side:
    """A society that runs, and what a run's own code needs to debate with its server."""

    running: society.Running
    where: place.Place
    spec: Spec
    flags: argparse.Namespace

    @property
    def server(self) -> str:
        """Tells vLLM's URL; all agents share one server here."""
        [url] = self.running.servers.values()
        return url

    @property
    def process(self) -> psutil.Process:
        """Finds the society's process."""
        children = psutil.Process().children(recursive=True)
        return next(child for child in children if "maft.endpoint" in child.cmdline())


@asynccontextmanager
async def started(flags: argparse.Namespace) -> AsyncIterator[Side]:
    """Starts a society as `maft serve` does."""
    with tempfile.TemporaryDirectory() as folder:
        if not flags.run:
            trained(Path(folder) / "store")
            os.environ["MOCK_LATENCY"] = str(LATENCY)
        os.environ.setdefault(SERVER_KEY, secrets.token_urlsafe(32))  # vLLM is asked beside the society, with its key
        where = place.parse(flags.run or f"{folder}/store/{RUN}")
        serve = () if flags.run else (sys.executable, str(MOCK))
        wanted = society.Wanted(where, 0, SocietySpec(), Path(folder) / "logs", serve=serve)
        known = society.facts(wanted)
        spec = decode_spec(json.dumps(known.spec))
        async with society.running(wanted, known, lambda line: print(line, file=sys.stderr)) as running:
            yield Side(running, where, spec, flags)


def questions(count: int, salt: int) -> list[str]:
    """Makes questions, different for each salt: nobody may remember an answer."""
    return [f"What is {salt}+{n % 9 + 1}*{n // 9 + 2}?" for n in range(count)]


async def asked(session: aiohttp.ClientSession, url: str, question: str, model: str = "society") -> int:
    """Asks; returns the status, 0 for a connection that fails."""
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            await response.read()
            return response.status
    except (aiohttp.ClientError, ConnectionError):
        return 0


# --- the parts ---


async def clients(side: Side) -> Json:
    """Everybody asks again as soon as there is an answer."""
    statuses: dict[int, int] = {}
    ends, memory = time.monotonic() + side.flags.seconds, list[float]()
    connector = aiohttp.TCPConnector(limit=0)

    async def client(number: int) -> None:
        asks = 0
        while time.monotonic() < ends:
            status = await asked(session, side.running.url, f"What is {number}+{asks % 90}*3?")
            statuses[status] = statuses.get(status, 0) + 1
            asks += 1

    async def watch() -> None:
        while time.monotonic() < ends:
            memory.append(side.process.memory_info().rss / 2**20)
            await asyncio.sleep(side.flags.seconds / 24)

    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(watch(), *(client(n) for n in range(CLIENTS)))
    half = len(memory) // 2
    return {
        "clients": CLIENTS,
        "seconds": side.flags.seconds,
        "answers": statuses.get(200, 0),
        "errors": sum(count for status, count in statuses.items() if status != 200),
        "mebibytes": {"half": round(max(memory[:half])), "end": round(max(memory[half:]))},
    }


async def overhead(side: Side) -> Json:
    """The same questions, as many at a time, by the society and by a run's code; who is first changes."""
    ratios = []
    for pair in range(PAIRS):
        sides = [(0, by_society), (1, by_run)]
        seconds = [0.0, 0.0]
        for number, way in sides if pair % 2 else sides[::-1]:
            seconds[number] = await way(side, questions(QUESTIONS, 100 + 2 * pair + number))
        ratios.append(seconds[0] / seconds[1])
        print(f"overhead: {seconds[0]:.2f} s ÷ {seconds[1]:.2f} s", file=sys.stderr, flush=True)
    return {"atOnce": AT_ONCE, "questions": QUESTIONS, "ratios": [round(r, 4) for r in ratios], "median": statistics.median(ratios)}


async def by_society(side: Side, several: list[str]) -> float:
    """Seconds for all of them over HTTP."""
    async with aiohttp.ClientSession() as session:

        async def ask(question: str) -> None:
            assert await asked(session, side.running.url, question) == 200

        return await _at_once(ask, several)


async def by_run(side: Side, several: list[str]) -> float:
    """Seconds for all of them by the code of a run."""
    spec, iteration = side.spec, side.running.known.iteration
    agents = players.load(open_store(side.where.store), side.where.key, spec, iteration, spec.agents, ["server"])
    rules, template = players.held_out_rules(spec, iteration), models.chat_template(spec.model, spec.debate.thinking)
    async with HttpEngine({"server": [side.server]}, key=os.environ[SERVER_KEY]) as engine:
        contexts = {"server": await engine.ready("server", agents.on("server"))}
        with Checker(rules.answer) as checker, ThreadPoolExecutor(checker.workers) as judge:
            setup = Setup(rules, agents, engine, template, checker, contexts, judge)

            async def ask(question: str) -> None:
                await Question(setup, 0, Problem(question_id(question), question, "")).run()

            return await _at_once(ask, several)


async def _at_once(ask: Callable[[str], Coroutine[Any, Any, None]], several: list[str]) -> float:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(question: str) -> None:
        async with slots:
            await ask(question)

    began = time.perf_counter()
    await asyncio.gather(*map(one, several))
    return time.perf_counter() - began


async def first_token(side: Side) -> Json:
    """One request at a time: the adapter's first word through the society, and by vLLM's own route for chats; who is first changes.

    The lowest tenth tells what it costs where the processors are free, the median what it costs under the load that there was."""
    spec, known = side.spec, side.running.known
    agents = players.load(open_store(side.where.store), side.where.key, spec, known.iteration, spec.agents, ["server"])
    key = {"Authorization": f"Bearer {os.environ[SERVER_KEY]}"}
    async with another(side) as before, aiohttp.ClientSession() as session:
        ways = [Way("vLLM", side.server, agents.generators[0], key), Way("society", side.running.url, _ONE)]
        ways += [Way("before", before, _ONE)] if before else []
        seconds: dict[str, list[float]] = {way.name: [] for way in ways}
        worked = {way.name: -way.worked() for way in ways}
        for n, question in enumerate(questions(20 * PAIRS, 300)):
            chat = {
                "messages": [{"role": "user", "content": question}],
                "stream": True,
                "max_tokens": 16,
                "temperature": 1.0,
                "seed": 1,
            }
            for way in ways[n % len(ways) :] + ways[: n % len(ways)]:
                seconds[way.name].append(await _first(session, way.url, {**chat, "model": way.model}, way.headers))
        worked = {way.name: worked[way.name] + way.worked() for way in ways}
    count = 20 * PAIRS
    cpu = {name: round(1000 * spent / count, 2) for name, spent in worked.items()}
    return {"requests": count, "processor": cpu, **{name: _compared(several, seconds["vLLM"]) for name, several in seconds.items()}}


async def export(side: Side) -> Json:
    """The program that hands a run on, to each kind of target; it asks no society."""
    return await exports.measured()


@dataclass(frozen=True, slots=True)
class Way:
    """Where one agent is asked."""

    name: str
    url: str
    model: str
    headers: Json = field(default_factory=dict)

    def worked(self) -> float:
        """Counts the processor seconds of the society's process so far."""
        port = f"--port={self.url.rpartition(':')[2]}"
        several = [child for child in psutil.Process().children(recursive=True) if port in child.cmdline()]
        return sum(sum(child.cpu_times()[:2]) for child in several if "maft.endpoint" in child.cmdline())


@asynccontextmanager
async def another(side: Side) -> AsyncIterator[str]:
    """Starts the society's program of another checkout over the same server; yields its URL, empty where none is asked for."""
    if not side.flags.before:
        yield ""
        return
    port = free_port()
    wanted = society.Wanted(side.where, 0, SocietySpec(), Path())
    line = society.command(wanted, side.running.known, side.running.servers, port)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(line, port, Path(folder) / "log.txt", 120, health="/ready", PYTHONPATH=f"{side.flags.before}/images") as url,
    ):
        yield url


def _compared(seconds: list[float], own: list[float]) -> Json:
    """Median and lowest tenth, in milliseconds and beside vLLM's own."""
    ours, theirs = ([statistics.median(several), statistics.quantiles(several, n=10)[0]] for several in (seconds, own))
    names = ("median", "tenth")
    return {
        "milliseconds": {name: round(1000 * value, 2) for name, value in zip(names, ours, strict=True)},
        "ratio": {name: round(a / b, 3) for name, a, b in zip(names, ours, theirs, strict=True)},
    }


async def _first(session: aiohttp.ClientSession, url: str, body: Json, headers: Json) -> float:
    """Seconds to the first text; the rest is read to its end."""
    began, first = time.perf_counter(), 0.0
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if not first and b'"content":"' in line and b'"content":""' not in line:
                first = time.perf_counter() - began
    return first


PARTS: dict[str, Part] = {"clients": clients, "export": export, "overhead": overhead, "first-token": first_token}


def markdown(results: Json) -> str:
    """Writes the table."""
    rows = ["| what | engine | measured | goal |", "|---|---|---|---|"]
    for name, m in sorted(results.items()):
        part, engine = name.split("/")
        if part == "clients":
            memory = f"{m['mebibytes']['half']} MiB in the first half, {m['mebibytes']['end']} MiB in the second"
            words = f"{m['answers']} answers, {m['errors']} errors; {memory}", "no error, memory flat"
            rows.append(f"| {m['clients']} clients for {m['seconds']} s | {engine} | {words[0]} | {words[1]} |")
        elif part == "export":
            rows += exports.rows(m)
        elif part == "overhead":
            several = f"{m['median']:.3f} ({min(m['ratios']):.3f} to {max(m['ratios']):.3f})"
            rows.append(f"| seconds of the society ÷ of a run's debates, {m['atOnce']} at a time | {engine} | {several} | ≤ 1.05 |")
        else:
            rows += [
                _row(m, engine, "society", ""),
                *([_row(m, engine, "before", " (the checkout before)")] if "before" in m else []),
            ]
    return "\n".join(rows) + "\n"


def _row(m: Json, engine: str, name: str, beside: str) -> str:
    ratio, goal = m[name]["ratio"], "" if beside else "≤ 1.1"
    several = f"{ratio['tenth']:.2f} in the fastest tenth, {ratio['median']:.2f} in the median"
    several += f"; {m['processor'][name]:.1f} ms of a processor for an answer" if "processor" in m else ""
    return f"| first token of one agent ÷ of vLLM itself{beside} | {engine} | {several} | {goal} |"


async def measured(flags: argparse.Namespace, results: Json) -> None:
    """Measures the parts that are asked for."""
    parts = flags.part or [part for part in PARTS if flags.run or part != "first-token"]
    async with started(flags) as side:
        for part in parts:
            engine = f"vLLM, {Path(side.spec.model.source).name}" if flags.run else "stand-in"
            load = os.getloadavg()[0]
            results[f"{part}/{engine}"] = {**await PARTS[part](side), "load": round(load, 1), "processors": os.cpu_count()}
            OUTPUT.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


def main() -> None:
    """The parts that are asked for, or only the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", action="append", choices=sorted(PARTS), help="may be repeated; without it all that can be measured"
    )
    parser.add_argument("--run", default="", help="a finished run, for vLLM itself")
    parser.add_argument("--before", default="", metavar="CHECKOUT", help="of first-token: ask the society of that checkout as well")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of the part clients")
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/performance.md")
    flags = parser.parse_args()
    results: Json = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    if flags.write:
        page.put("performance.md", "society", markdown(results))
    else:
        asyncio.run(measured(flags, results))
    print(markdown(results))


if __name__ == "__main__":
    main()
