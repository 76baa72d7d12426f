"""A deterministic stand-in for vLLM at the Engine seam: `python mock_engine.py` with the flags of `maft.serve`.

It answers by a hash of model, prompt and seed, so two runs of anything give equal bytes: what kill tests need. Base answers
are right about half the time, adapters' more often; streams give a word at a time. MOCK_LATENCY: seconds per answer; MOCK_SLOTS:
answers at a time; MOCK_FAULTS: a folder whose files `die` or `hang` make it do so once, and whose file `wait` keeps all
answers back while it is there; MOCK_TEXT: a fixed answer; MOCK_COUNT: a
file that grows by a line per request, its model; MOCK_HOST: where it listens (pods need all addresses).
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from transformers import PreTrainedTokenizerFast

from maft import models
from maft.spec import SERVER_KEY, decode_spec

EXPRESSION = re.compile(r"What is (?:the result of )?([0-9+*-]+)\?|((?:\d+ [+-] )+\d+) =")  # the second as chain_sum asks
ANSWER = re.compile(r"Answer: (-?\d+)")


def answer(model: str, text: str, seed: int) -> str:
    """What the model says to the text."""
    source = random.Random(f"{model}|{text}|{seed}")
    if "Summarize" in text:
        answers = ANSWER.findall(text)
        return " ".join(f"1 agent says {value}." for value in answers) or "Nobody said a number."
    expressions = EXPRESSION.findall(text)
    right = eval("".join(expressions[-1])) if expressions else 0
    skill = 0.5 if model == "base" else 0.8
    value = right if source.random() < skill else right + source.randint(1, 3)
    return f"I work it out. Answer: {value}"


@web.middleware
async def authenticated(request: web.Request, handler: Handler) -> web.StreamResponse:
    """As vLLM does, with the same routes open."""
    key = os.environ.get(SERVER_KEY)
    if key and request.path.startswith("/v1") and request.headers.get("Authorization") != f"Bearer {key}":
        return web.json_response({"error": "Unauthorized"}, status=401)
    return await handler(request)


async def gone(file: Path) -> None:
    """Waits while the file is there."""
    while os.path.exists(file):  # noqa: ASYNC240, PTH110 - a look at a local folder
        await asyncio.sleep(0.02)


def counted(file: Path, model: str) -> None:
    """A line more."""
    with file.open("a") as lines:
        lines.write(f"{model}\n")


async def answered(request: web.Request, reply: str, reason: str, usage: dict[str, int]) -> web.StreamResponse:
    """The answer at once, or as a stream: word by word, then why it ended, then its tokens, as vLLM does."""
    if not (await request.json()).get("stream"):
        return web.json_response({"choices": [{"text": reply, "finish_reason": reason}], "usage": usage})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    words = [{"choices": [{"text": word, "finish_reason": None}]} for word in re.findall(r"\S+\s*", reply)]
    for chunk in [*words, {"choices": [{"text": "", "finish_reason": reason}]}, {"choices": [], "usage": usage}]:
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


def application(model: str) -> web.Application:
    """The routes that the debate client and the backend use."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    state = {"running": 0}
    latency, fixed = float(os.environ.get("MOCK_LATENCY", "0")), os.environ.get("MOCK_TEXT")
    slots = asyncio.Semaphore(int(os.environ.get("MOCK_SLOTS", "1000000")))
    count = os.environ.get("MOCK_COUNT")
    faults = Path(os.environ.get("MOCK_FAULTS", "/nonexistent"))

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if (faults / "die").exists():
            (faults / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (faults / "hang").exists():
            (faults / "hang").unlink()
            signal.pause()
        if count:
            counted(Path(count), body["model"])
        state["running"] += 1
        try:
            async with slots:
                await asyncio.sleep(latency)
                await gone(faults / "wait")
        finally:
            state["running"] -= 1
        reply = fixed if fixed is not None else answer(body["model"], tokenizer.decode(body["prompt"]), body["seed"])
        tokens = len(tokenizer(reply, add_special_tokens=False)["input_ids"]) + 1
        reason = "length" if tokens > body["max_tokens"] else "stop"
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": min(tokens, body["max_tokens"])}
        return await answered(request, reply, reason, usage)

    async def listing(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "base", "max_model_len": 512}]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def metrics(_: web.Request) -> web.Response:
        text = f'vllm:num_requests_running{{engine="0"}} {state["running"]}\nvllm:num_requests_waiting{{engine="0"}} 0\n'
        return web.Response(text=text)

    app = web.Application(middlewares=[authenticated])
    app.add_routes([web.post("/v1/completions", completions), web.get("/v1/models", listing)])
    app.add_routes([web.get("/health", health), web.get("/metrics", metrics)])
    return app


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("--host", default=os.environ.get("MOCK_HOST", "127.0.0.1"))
    flags.add_argument("--port", type=int, default=8000)
    flags.add_argument("--spec", required=True)
    flags.add_argument("--agent", type=int)
    arguments, _ = flags.parse_known_args()
    spec = decode_spec(arguments.spec)
    model = models.local((spec.model if arguments.agent is None else spec.model_of(arguments.agent)).source)
    app, ends = application(model), {"shutdown_timeout": 0.1, "handler_cancellation": True}
    web.run_app(app, host=arguments.host, port=arguments.port, print=None, **ends)


if __name__ == "__main__":
    main()
