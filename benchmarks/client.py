"""client: CPU of the debate's HTTP client for each request ÷ a bare aiohttp loop ÷ the openai client. Row 3.

All ask one server, a process of its own that answers at once with a recorded completion; counted is the CPU of this process alone.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import aiohttp
import msgspec
from aiohttp import web
from debates import Json, Plan, hold, world
from ratio import RUNS, Goal, Pairs, Ratio, alternate

from maft.debate.engine import HttpEngine, Request
from maft.records import BASE

AT_ONCE = 64  # requests under way
IDS = tuple(range(100, 260))  # of a prompt
REPLY = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": BASE,
    "choices": [
        {
            "index": 0,
            "text": "I work it out: first 7*7 = 49, then 14+49 = 63. Answer: 63",
            "finish_reason": "stop",
            "logprobs": None,
            "token_ids": list(range(100, 160)),
        }
    ],
    "usage": {"prompt_tokens": len(IDS), "completion_tokens": 60, "total_tokens": len(IDS) + 60},
}
ASKED = Request(BASE, IDS, 1, 1.0, 0.9, 80)
Ask = Callable[[int], Awaitable[object]]


# --- the server ---


async def _completions(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    if b'"stream":true' in body.replace(b" ", b""):
        return await _streamed(request)
    return web.json_response(REPLY)


async def _streamed(request: web.Request) -> web.StreamResponse:
    """The same answer as vLLM streams it: a chunk a token, then what was used."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    choice = dict(REPLY["choices"][0])  # type: ignore[index]
    words = choice["text"].split(" ")
    for i, word in enumerate(words):
        last = i == len(words) - 1
        ids = choice["token_ids"][i:] if last else [choice["token_ids"][i]]
        chunk = {**choice, "text": f" {word}" if i else word, "token_ids": ids, "finish_reason": "stop" if last else None}
        await response.write(b"data: " + msgspec.json.encode({**REPLY, "choices": [chunk], "usage": None}) + b"\n\n")
    await response.write(b"data: " + msgspec.json.encode({**REPLY, "choices": []}) + b"\n\ndata: [DONE]\n\n")
    await response.write_eof()
    return response


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(text='vllm:num_requests_running{engine="0"} 64\nvllm:num_requests_waiting{engine="0"} 64\n')


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": BASE, "max_model_len": 2048}]})


def serve(port: int) -> None:
    """Answers until it is ended."""
    app = web.Application()
    app.add_routes([web.post("/v1/completions", _completions), web.get("/metrics", _metrics), web.get("/v1/models", _models)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The server as a process, as long as the block lasts; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", sys.executable, __file__, str(port)])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


# --- the clients: CPU seconds of so many requests ---


async def _at_once(ask: Ask, count: int) -> float:
    """Asks so many times, so many at once."""
    numbers = iter(range(count))

    async def one() -> None:
        for number in numbers:
            await ask(number)

    begun = time.process_time()
    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    return (time.process_time() - begun) / count * 1e6


async def ours(url: str, count: int) -> float:
    """Asks by the debate's client."""
    async with HttpEngine({"server": [url]}) as engine:
        return await _at_once(lambda n: engine.complete("server", replace(ASKED, seed=n)), count)


async def bare(url: str, count: int) -> float:
    """Asks by aiohttp alone, as its documentation shows."""
    body = json.loads(msgspec.json.encode(ASKED))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(number: int) -> Json:
            async with session.post(f"{url}/v1/completions", json={**body, "seed": number}) as response:
                answer: Json = await response.json()
                return answer

        return await _at_once(ask, count)


async def openai(url: str, count: int) -> float:
    """Asks by the openai package, as its documentation shows."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:

        async def ask(number: int) -> object:
            return await client.completions.create(
                model=ASKED.model,
                prompt=list(IDS),
                seed=number,
                temperature=ASKED.temperature,
                top_p=ASKED.top_p,
                max_tokens=ASKED.max_tokens,
                extra_body={"return_token_ids": True, "skip_special_tokens": True},
            )

        return await _at_once(ask, count)


async def debate(url: str, questions: int) -> float:
    """Holds a whole debate: prompts, tokens, answers, votes and journal are made besides."""
    async with HttpEngine({"server": [url]}) as engine:
        held = await hold(Plan(world("tiny"), questions), engine)
    return held.cpu / held.counted.calls * 1e6


def client(runs: int = RUNS, *, quick: bool = False) -> list[Ratio]:
    """Row 3."""
    count = 500 if quick else 3000
    with server() as url:
        side = lambda measure, n: lambda: asyncio.run(measure(url, n))  # noqa: E731
        mine = side(ours, count)
        against_bare = alternate(mine, side(bare, count), runs)
        against_openai = alternate(mine, side(openai, count // 4), runs)
        whole = alternate(side(debate, count // 9), side(bare, count), runs)
    sample = f"{count:,} requests, {AT_ONCE} at once, prompts of {len(IDS)} token ids"
    return [
        _row("client's CPU for each request ÷ a bare aiohttp loop", against_bare, Goal("at most", 2), sample),
        _row("client's CPU for each request ÷ the openai client", against_openai, Goal("at most", 0.1), sample),
        _row("the same of a whole debate (prompts, answers, votes, journal) ÷ a bare aiohttp loop", whole, None, sample),
    ]


def _row(name: str, pairs: Pairs, goal: Goal | None, sample: str) -> Ratio:
    return Ratio(3, name, "µs of CPU", pairs.first, pairs.second, goal, sample)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
