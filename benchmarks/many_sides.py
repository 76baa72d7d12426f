"""The sides of many_questions.py: `python benchmarks/many_sides.py PART SIDE` prints a line of JSON, in a process of its own."""

import asyncio
import contextlib
import json
import multiprocessing
import random
import resource
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TINY = ROOT / "examples" / "tiny"
sys.path.append(str(ROOT / "tests" / "support"))
Json = dict[str, Any]
REQUESTS, AT_ONCE = 2_000, 200  # of the part client
PROMPT, ANSWER = 300, 120  # tokens
GRADED, ANSWERS = 200, 6  # questions, and answers to each
SHARES = (3, 12, 2, 1, 2)  # of the forms of answers: fractions, whole numbers, roots, pairs, polynomials, about as in MATH
MIB = 2**20


# --- client: CPU time of the client for a request ---


def client(side: str) -> Json:
    """Asks a server that answers at once; milliseconds of this process's CPU time for a request."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(listening,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        return {"value": asyncio.run(_asked(SIDES[side], url))}
    finally:
        server.terminate()


async def _asked(side: Callable[[str], Any], url: str) -> float:
    places = asyncio.Semaphore(AT_ONCE)
    async with side(url) as ask:

        async def one(seed: int) -> None:
            async with places:
                text, tokens = await ask(seed)
            assert (len(text), tokens) == (4 * ANSWER, ANSWER), (len(text), tokens)

        await asyncio.gather(*(one(seed) for seed in range(AT_ONCE)))  # connections, and imports
        before = time.process_time()
        await asyncio.gather(*(one(seed) for seed in range(REQUESTS)))
        return (time.process_time() - before) * 1000 / REQUESTS


Ask = Callable[[int], Awaitable[tuple[str, int]]]
IDS = list(range(1000, 1000 + PROMPT))


def _body(seed: int, **more: Any) -> Json:
    return {
        "model": "base",
        "prompt": IDS,
        "seed": seed,
        "temperature": 1.0,
        "top_p": 0.9,
        "max_tokens": 256,
        "stop_token_ids": [2],
        "skip_special_tokens": True,
        "return_token_ids": True,
        **more,
    }


@contextlib.asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Ask]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(seed: int) -> tuple[str, int]:
            async with session.post(f"{url}/v1/completions", json=_body(seed)) as response:
                said = await response.json()
            return said["choices"][0]["text"], len(said["choices"][0]["token_ids"])

        yield ask


@contextlib.asynccontextmanager
async def _streamed(url: str) -> AsyncIterator[Ask]:
    """As cheap as a stream gets: a line is decoded, nothing else."""
    import aiohttp
    import msgspec

    stream = {"stream": True, "stream_options": {"include_usage": True}}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(seed: int) -> tuple[str, int]:
            texts: list[str] = []
            ids: list[int] = []
            async with session.post(f"{url}/v1/completions", data=msgspec.json.encode(_body(seed, **stream))) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        for choice in msgspec.json.decode(line[6:])["choices"]:
                            texts.append(choice["text"])
                            ids += choice["token_ids"]
            return "".join(texts), len(ids)

        yield ask


@contextlib.asynccontextmanager
async def _maft(url: str) -> AsyncIterator[Ask]:
    from maft.debate.engine import HttpEngine, Request

    async with HttpEngine({"s": [url]}) as engine:

        async def ask(seed: int) -> tuple[str, int]:
            call = await engine.complete("s", Request("base", IDS, seed, 1.0, 0.9, 256, (2,)))
            return call.text, len(call.ids)

        yield ask


@contextlib.asynccontextmanager
async def _openai(url: str) -> AsyncIterator[Ask]:
    import httpx
    import openai

    http = httpx.AsyncClient(limits=httpx.Limits(max_connections=AT_ONCE), timeout=None)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=http) as asker:
        more = {"stop_token_ids": [2], "skip_special_tokens": True, "return_token_ids": True}

        async def ask(seed: int) -> tuple[str, int]:
            said = await asker.completions.create(
                model="base", prompt=IDS, seed=seed, temperature=1.0, top_p=0.9, max_tokens=256, extra_body=more
            )
            return said.choices[0].text, len(said.choices[0].token_ids)  # type: ignore[attr-defined]

        yield ask


SIDES: dict[str, Callable[[str], Any]] = {
    "bare aiohttp loop": _bare,
    "maft": _maft,
    "bare loop, answers as streams": _streamed,
    "openai client": _openai,
}


def _serve(listening: socket.socket) -> None:
    """A server whose answers are always the same, in vLLM's form."""
    from aiohttp import web

    usage = {"prompt_tokens": PROMPT, "completion_tokens": ANSWER, "total_tokens": PROMPT + ANSWER}
    head = {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1764000000, "model": "base"}
    ids = list(range(2000, 2000 + ANSWER))
    choice = {"index": 0, "text": "word" * ANSWER, "logprobs": None, "finish_reason": "stop", "token_ids": ids}
    whole = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
    pieces = [{**choice, "text": "word", "finish_reason": None, "token_ids": [i]} for i in ids]
    pieces[-1]["finish_reason"] = "stop"
    chunks = [{**head, "choices": [piece]} for piece in pieces] + [{**head, "choices": [], "usage": usage}]
    events = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks] + [b"data: [DONE]\n\n"]

    async def completions(request: web.Request) -> web.StreamResponse:
        if b'"stream":true' not in await request.read():
            return web.Response(body=whole, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:  # one at a time, as tokens come
            await response.write(event)
            await asyncio.sleep(0)
        return response

    app = web.Application()
    app.add_routes([web.post("/v1/completions", completions)])
    web.run_app(app, sock=listening, print=None)


# --- grading: kind math ---


def grading(side: str) -> Json:
    """Judges debates; CPU seconds of this process and its workers, and those of the clock."""
    from maft.answers.equality import Checker, groups
    from maft.answers.mathematics import warm

    debates = _answers()
    warm()  # the parser learns from what it reads; workers are forked from a process that has read
    began, before = time.perf_counter(), _spent()
    if side.startswith("every"):
        return {"groups": _by_pairs(debates), "value": _spent() - before, "wall": time.perf_counter() - began}
    with Checker("math") as checker, ThreadPoolExecutor(checker.workers) as judge:
        grouped = sum(map(len, judge.map(lambda answers: groups(answers, checker.equal), debates)))
    return {"groups": grouped, "value": _spent() - before, "wall": time.perf_counter() - began}


def _spent() -> float:
    """CPU seconds of this process and of those of its own that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _answers() -> list[list[str]]:
    """Of each question what agents said: the right answer in several spellings, and wrong ones."""
    source = random.Random(7)
    forms = (
        lambda n: (f"\\frac{{{n}}}{{{n + 3}}}", f"\\dfrac{{{2 * n}}}{{{2 * n + 6}}}", f"\\frac{{{n + 1}}}{{{n + 3}}}"),
        lambda n: (f"{n}", f"{n}.0", f"{n + 1}"),
        lambda n: (f"\\sqrt{{{n * n * 2}}}", f"{n}\\sqrt{{2}}", f"{n}\\sqrt{{3}}"),
        lambda n: (f"({n}, {n + 1})", f"({n},{n + 1})", f"({n + 1}, {n})"),
        lambda n: (f"x^2-{n * n}", f"(x-{n})(x+{n})", f"(x-{n})^2"),
    )
    made = []
    for _ in range(GRADED):
        several = source.choices(forms, SHARES)[0](source.randint(2, 99))
        made.append([source.choices(several, (5, 2, 3))[0] for _ in range(ANSWERS)])
    return made


def _by_pairs(debates: Sequence[Sequence[str]]) -> int:
    """As one would without this project: every pair of answers is parsed and compared."""
    import math_verify

    found = 0
    for answers in debates:
        homes: list[int] = []
        for i, answer in enumerate(answers):
            equal = [
                math_verify.verify(
                    math_verify.parse(f"${other}$", parsing_timeout=None),
                    math_verify.parse(f"${answer}$", parsing_timeout=None),
                    timeout_seconds=None,
                )
                for other in answers[:i]
            ]
            homes.append(equal.index(True) if True in equal else i)
        found += len(set(homes))
    return found


# --- memory: a whole debate, from questions to datasets, with an engine in this process ---


class Mock:
    """Answers at once, of some length: right three times out of four, with the tokens as vLLM tells them."""

    def __init__(self, template: Any) -> None:
        self._template = template

    async def complete(self, server: str, request: Any) -> Any:
        """Answers from the request's seed."""
        from maft.records import Call

        source = random.Random(request.seed)
        await asyncio.sleep(0)
        right = source.random() < 0.75
        text = f"{'I work it out step by step and look at it again. ' * 4}Answer: {7 if right else source.randint(1, 6)}"
        ids = tuple(source.randrange(1000, 30_000) for _ in range(80))
        return Call(request.model, request.seed, len(request.prompt), len(ids), "stop", text, ids=ids)

    async def load(self) -> Any:
        """Says nothing."""
        from maft.debate.replica import Load

        return Load(0, 0)


def memory(questions: str) -> Json:
    """Debates so many questions and makes their datasets, in a folder; MiB at most after each step."""
    from small import resource as run_of

    from maft import models, program, records
    from maft.answers.equality import Checker
    from maft.debate import __main__ as debate
    from maft.debate import limits, society
    from maft.debate.journal import Journal
    from maft.debate.progress import DebateProgress
    from maft.debate.session import debate_all
    from maft.debate.setup import Setup
    from maft.debate.window import Window
    from maft.records import BASE, Problem, Transcript
    from maft.scores import usage
    from maft.store import layout
    from maft.store.commits import publish, required
    from maft.store.lines import Files, encoded, fetch_lines, shards
    from maft.store.urls import open_store
    from maft_operator.spec.parse import parse

    program.without_torch()
    spec = parse(run_of(agents=3, debate={"mode": "fast", "rounds": 2})).spec
    template = models.chat_template(spec.model, spec.debate.thinking)
    counted: Json = {"start": most()}
    with tempfile.TemporaryDirectory(prefix="maft-many-") as folder:
        store, run = open_store(folder), "default/many"
        prefix = layout.debate(run, 1)
        asked = (Problem(f"{i:016x}", f"What is {i % 977}+{i}?", "7") for i in range(int(questions)))
        with Files({"train.jsonl": encoded(Problem, asked)}) as files:
            problems = fetch_lines(store, publish(store, f"{run}/problems/", files), "train.jsonl", Problem)
        began = time.perf_counter()
        players = society.Society((BASE,) * 3, (BASE,) * 3, ("s",) * 3)

        async def debated() -> Any:
            with Checker("number") as checker, ThreadPoolExecutor(checker.workers) as judge:
                engine: Any = Mock(template)
                setup = Setup(society.training_rules(spec, 1), players, engine, template, checker, {"s": 2048}, judge)
                window = Window(engine.load, 256, limits.questions(1024 - limits.RESERVED, 3))
                return await debate_all(setup, problems, Journal(store, prefix), DebateProgress(program.Progress(("", 0))), window)

        transcripts = asyncio.run(debated())
        counted["debate"] = most()
        counted["objects"] = len(list(store.list(f"{prefix}journal-")))
        with Files({layout.TRANSCRIPTS: transcripts}) as files:
            publish(store, prefix, files, meta={"seed": 1, "usage": records.plain(usage(transcripts))})
        counted["publish"] = most()
        said = debate.main(program.Assignment(store, run, spec, 1))
        counted["datasets"] = most()
        counted["seconds"] = time.perf_counter() - began
        counted["files"] = len(shards(required(store, prefix, ""), layout.TRANSCRIPTS))
        sizes = [path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()]
        counted["largest"] = max(sizes) / 1e6
        assert (said.questions, said.answers.asked > 3 * int(questions), Transcript) == (int(questions), True, Transcript)
    return counted


def most() -> float:
    """The most memory that this process has had, MiB (VmHWM)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- examples: what the trainer keeps ---


def examples(questions: str) -> Json:
    """Reads so many examples of 256 tokens as the trainer does; bytes of memory for each, MiB at most."""
    from small import a_spec

    from maft import models
    from maft.records import Example, Message
    from maft.store.commits import publish, required
    from maft.store.lines import Files, encoded, iterate_lines
    from maft.store.urls import open_store
    from maft.train.examples import Examples
    from maft.train.samples import sample

    spec = a_spec()
    template = models.chat_template(spec.model, spec.debate.thinking)
    source = random.Random(7)

    def made(i: int) -> Example:
        ids = tuple(source.randrange(1000, 30_000) for _ in range(230))
        return Example(f"{i:016x}", (Message("user", f"What is {i % 977}+{i}?"), Message("assistant", "x", "", ids)))

    def publish_them(folder: str) -> None:
        with Files({"generator-0.jsonl": encoded(Example, map(made, range(int(questions))))}) as files:
            publish(open_store(folder), "data/", files)

    with tempfile.TemporaryDirectory(prefix="maft-many-") as folder:
        maker = multiprocessing.get_context("fork").Process(target=publish_them, args=(folder,))  # its memory is not the reader's
        maker.start()
        maker.join()
        store = open_store(folder)
        commit = required(store, "data/", "the maker")
        before, began = most(), now()
        kept = Examples(sample(spec.training, template, e) for e in iterate_lines(store, commit, "generator-0.jsonl", Example))
        assert len(kept) == int(questions) and kept.lengths[0] == len(kept[0].ids)
        return {"bytes": round((now() - began) * MIB / len(kept)), "most": most() - before}


def now() -> float:
    """The memory that this process has, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


if __name__ == "__main__":
    print(json.dumps({"client": client, "grading": grading, "memory": memory, "examples": examples}[sys.argv[1]](sys.argv[2])))
