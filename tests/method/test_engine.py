"""The Engine seam: one contract for the mock server and for real vLLM, and what the client does when a server is away."""

import asyncio

import pytest
from conftest import TINY, free_port

from maft.chat_template import load_chat_template
from maft.debate.engine import HttpEngine, Request
from maft.errors import BadInput
from maft.program import parse_servers
from maft.records import BASE, Message

SERVERS = [pytest.param("mock_url", id="mock"), pytest.param("vllm_url", id="vllm", marks=pytest.mark.engine)]


@pytest.fixture(params=SERVERS)
def url(request) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def prompt():
    return load_chat_template(str(TINY), None).prompt([Message("user", "What is 7+3*4?")])


def ask(url, *requests, patience=30.0):
    async def all_():
        async with HttpEngine({"s": [url]}, patience) as engine:
            return await asyncio.gather(*(engine.complete("s", request) for request in requests))

    return asyncio.run(all_())


def request(prompt, seed=1, model=BASE, temperature=1.0, max_tokens=80):
    return Request(model, prompt, seed, temperature, 0.9, max_tokens)


def test_a_call_records_what_was_asked_and_what_came_back(url, prompt):
    (call,) = ask(url, request(prompt, seed=2**53 - 1))
    assert (call.model, call.seed, call.prompt_tokens) == (BASE, 2**53 - 1, len(prompt))
    assert call.text and call.finish_reason == "stop" and 0 < call.completion_tokens <= 80


def test_the_seed_decides(url, prompt):
    one, same, *others = ask(url, request(prompt), request(prompt), *(request(prompt, seed=s) for s in range(2, 12)))
    assert one.text == same.text
    assert len({call.text for call in others}) > 1


def test_the_length_limit_is_reported(url, prompt):
    (call,) = ask(url, request(prompt, max_tokens=2))
    assert call.finish_reason == "length" and call.completion_tokens == 2


def test_ready_gives_the_context(url):
    async def ready():
        async with HttpEngine({"s": [url]}) as engine:
            return await engine.ready("s", [BASE])

    assert asyncio.run(ready()) == 512


def test_load_counts_requests(url, prompt):
    async def load():
        async with HttpEngine({"s": [url]}) as engine:
            return await engine.load()

    found = asyncio.run(load())
    assert found.running >= 0 and found.waiting >= 0


@pytest.mark.engine
def test_vllm_refuses_a_name_that_is_no_adapter(vllm_url, prompt):
    with pytest.raises(BadInput, match=r"refused a request \(404\).*no-such-adapter"):
        ask(vllm_url, request(prompt, model="no-such-adapter"))


@pytest.mark.engine
def test_many_seeded_requests_at_once_leave_vllm_alive(vllm_url, prompt):
    """Prefills in parts end vLLM's CPU build (serve.CPU says why); 400 prompts at once would be cut into parts."""
    calls = ask(vllm_url, *(request(prompt, seed=s) for s in range(400)))
    assert len(calls) == 400 and all(call.text for call in calls)


def test_a_server_that_stays_away_is_an_error_after_the_patience(prompt):
    with pytest.raises(OSError, match=r"server s: .* away for more than 1 s"):
        ask(f"http://127.0.0.1:{free_port()}", request(prompt), patience=1.0)


def test_a_server_that_comes_back_is_used(prompt, mock_url):
    from aiohttp import web

    port, state = free_port(), {"asked": 0}

    async def flaky(_):
        state["asked"] += 1
        if state["asked"] < 3:
            return web.Response(status=503)
        choices = [{"text": "Answer: 1", "finish_reason": "stop"}]
        return web.json_response({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    async def scenario():
        app = web.Application()
        app.add_routes([web.post("/v1/completions", flaky)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            async with HttpEngine({"s": [f"http://127.0.0.1:{port}"]}) as engine:
                return await engine.complete("s", request(prompt))
        finally:
            await runner.cleanup()

    assert asyncio.run(scenario()).text == "Answer: 1"
    assert state["asked"] == 3


def test_requests_go_to_the_least_busy_replica(prompt):
    from aiohttp import web

    asked = {}

    async def scenario():
        runners, urls = [], []
        for _ in range(2):
            port = free_port()

            async def answer(_, port=port):
                asked[port] = asked.get(port, 0) + 1
                await asyncio.sleep(0.01)
                choices = [{"text": "x", "finish_reason": "stop"}]
                return web.json_response({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

            app = web.Application()
            app.add_routes([web.post("/v1/completions", answer)])
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            runners.append(runner)
            urls.append(f"http://127.0.0.1:{port}")
        async with HttpEngine({"s": urls}) as engine:
            await asyncio.gather(*(engine.complete("s", request(prompt)) for _ in range(20)))
        for runner in runners:
            await runner.cleanup()

    asyncio.run(scenario())
    assert sorted(asked.values()) == [10, 10]


def test_server_flags():
    flags = ["a=http://127.0.0.1:1", "a=http://127.0.0.1:2", "b=http://127.0.0.1:3"]
    assert parse_servers(flags) == {"a": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "b": ["http://127.0.0.1:3"]}
    with pytest.raises(BadInput, match="--server nonsense"):
        parse_servers(["nonsense"])
