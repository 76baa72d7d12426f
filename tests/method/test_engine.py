"""The Engine seam: one contract for the mock server and for real vLLM, and what the client does when a server is away."""

import asyncio
import gzip
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from conftest import KEY, MOCK, TINY, a_spec, free_port, serving

from maft.chat_template import load_chat_template
from maft.debate import engine as debate_engine
from maft.debate import replica
from maft.debate.engine import HttpEngine, Request
from maft.debate.replica import Load, Replica, addresses, is_lost
from maft.errors import BadInput
from maft.program import parse_servers
from maft.records import BASE, Message
from maft.spec import immutable_spec_json

SERVERS = [pytest.param("keyed_url", id="mock"), pytest.param("vllm_url", id="vllm", marks=pytest.mark.engine)]


@pytest.fixture(scope="module")
def keyed_url(tmp_path_factory) -> Iterator[str]:
    """The mock server where it wants KEY, too."""
    port = free_port()
    command = [sys.executable, str(MOCK), "--port", str(port), f"--spec={immutable_spec_json(a_spec())}"]
    with serving(command, port, tmp_path_factory.mktemp("mock") / "log.txt", 60, VLLM_API_KEY=KEY) as url:
        yield url


@pytest.fixture(params=SERVERS)
def url(request) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def prompt():
    return load_chat_template(str(TINY), None).prompt([Message("user", "What is 7+3*4?")])


def ask(url, *requests, patience=30.0, key=KEY):
    async def all_():
        async with HttpEngine({"s": [url]}, patience, key=key) as engine:
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
        async with HttpEngine({"s": [url]}, key=KEY) as engine:
            return await engine.ready("s", [BASE])

    assert asyncio.run(ready()) == 512


def test_load_counts_requests(url, prompt):
    async def load():
        async with HttpEngine({"s": [url]}) as engine:  # nobody's metrics want a key
            return await engine.load()

    found = asyncio.run(load())
    assert found.running >= 0 and found.waiting >= 0


@pytest.mark.parametrize("key", ["", "another", KEY.upper()])
def test_who_has_not_the_key_is_told_and_may_come_again_with_it(url, prompt, key):
    """No BadInput: the next pod of the program finds the present key in its environment."""
    with pytest.raises(OSError, match=r"server s: .* wants another key than VLLM_API_KEY gives \(401\)"):
        ask(url, request(prompt), key=key)


def status(url: str, path: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_with_a_key_there_are_answers_and_health_and_metrics_want_none(url):
    assert status(url, "/v1/models") == 401
    assert status(url, "/v1/models", Authorization=f"Bearer {KEY}") == 200
    assert [status(url, path) for path in ("/health", "/metrics")] == [200, 200]


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


def test_a_server_that_comes_back_is_used(prompt):
    asked = []

    async def flaky():
        asked.append(1)
        return answer() if len(asked) == 3 else web.Response(status=503)

    async def scenario():
        async with served(flaky) as url, HttpEngine({"s": [url]}) as engine:
            return await engine.complete("s", request(prompt))

    assert asyncio.run(scenario()).text == "Answer: 1"
    assert len(asked) == 3


def test_requests_go_to_the_least_busy_replica(prompt):
    asked = [0, 0]

    def replica_of(number):
        async def complete():
            asked[number] += 1
            await asyncio.sleep(0.01)
            return answer("x")

        return complete

    async def scenario():
        async with served(replica_of(0)) as one, served(replica_of(1)) as other, HttpEngine({"s": [one, other]}) as engine:
            await asyncio.gather(*(engine.complete("s", request(prompt)) for _ in range(20)))

    asyncio.run(scenario())
    assert asked == [10, 10]


@asynccontextmanager
async def running(*routes):
    """A server with these routes. Yields its URL."""
    app, port = web.Application(), free_port()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def served(complete, metrics=lambda: ""):
    """A server that answers requests for completions as `complete` does: a dict, or a response."""

    async def completions(_):
        said = await complete()
        return web.json_response(said) if isinstance(said, dict) else said

    async def numbers(_):
        return web.Response(text=metrics())

    return running(web.post("/v1/completions", completions), web.get("/metrics", numbers))


def answer(text="Answer: 1", reason="stop", **more):
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return {"choices": [{"text": text, "finish_reason": reason}], "usage": usage, **more}


ENDING = {
    "aborted": answer("half an ans", "abort"),
    "an error in the middle": answer("half an ans", "error"),
    "no choice": answer() | {"choices": []},
    "an error object": {"error": {"message": "engine is dead", "code": 500}},
    "no usage": {"choices": [{"text": "Answer: 1", "finish_reason": "stop"}]},
    "a text that is none": answer(None),
    "a page": web.Response(text="<html>welcome to nginx</html>", content_type="text/html"),
    "no UTF-8": web.Response(body=b"\xff\xfe{"),
    "nothing": web.Response(),
    "an error beside it": answer("half an") | {"error": {"message": "engine dead", "code": 500}},
    "another choice": {"choices": [{"text": "x", "index": 1, "finish_reason": "stop"}], "usage": answer()["usage"]},
    "a token that is none": {"choices": [{"text": "x", "token_ids": [-1]}], "usage": answer()["usage"]},
    "fewer tokens than none": answer() | {"usage": {"prompt_tokens": -1, "completion_tokens": 1}},
    "more tokens than there are": answer() | {"usage": {"prompt_tokens": 2**70, "completion_tokens": 1}},
    "deeper than anybody reads": web.Response(body=b'{"more": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "a gateway without a route": web.Response(status=404),
    "a router's words": web.Response(status=404, text="404 page not found"),
    "a gateway's words": web.Response(status=403, text='{"message": "Forbidden"}', content_type="application/json"),
    "a proxy's words": web.Response(status=404, text='{"error": "client closed"}', content_type="application/json"),
    "a page that is not there": web.Response(status=404, text="<html>nginx</html>", content_type="text/html"),
    "a proxy's own status": web.Response(status=520),
    "not implemented": web.Response(status=501, text='{"error": "no"}', content_type="application/json"),
    "accepted": web.Response(status=202),
    "elsewhere": web.Response(status=307, headers={"Location": "http://127.0.0.1:9/v1/completions"}),
    "compressed": web.Response(body=gzip.compress(b" " * 1_000_000), headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("first", ENDING.values(), ids=ENDING)
def test_an_answer_that_is_none_is_asked_for_again(prompt, first):
    asked = []

    async def complete():
        asked.append(1)
        return first if len(asked) < 3 else answer()

    async def scenario():
        async with served(complete) as url, HttpEngine({"s": [url]}) as engine:
            return await engine.complete("s", request(prompt))

    if isinstance(first, web.Response):
        headers = {name: first.headers[name] for name in ("Location", "Content-Encoding") if name in first.headers}
        first = web.Response(body=first.body, status=first.status, content_type=first.content_type, headers=headers)
        asked.append(1)  # a response is sent once
    assert (asyncio.run(scenario()).text, len(asked)) == ("Answer: 1", 3)


@pytest.mark.parametrize("refusal", [{"error": {"message": "no", "code": 400}}, {"object": "error"}, {"detail": "Not Found"}])
def test_what_the_server_itself_refuses_is_final(prompt, refusal):
    async def complete():
        return web.json_response(refusal, status=404)

    async def scenario():
        async with served(complete) as url, HttpEngine({"s": [url]}) as engine:
            await engine.complete("s", request(prompt))

    with pytest.raises(BadInput, match=r"refused a request \(404\)"):
        asyncio.run(scenario())


def test_an_answer_has_no_more_bytes_than_an_answer_can_have(prompt, monkeypatch):
    monkeypatch.setattr(debate_engine, "MOST", 1000)
    asked = []

    async def complete():
        asked.append(1)
        return answer("x" * 5000) if len(asked) == 1 else answer()

    async def scenario():
        async with served(complete) as url, HttpEngine({"s": [url]}) as engine:
            return await engine.complete("s", request(prompt))

    assert (asyncio.run(scenario()).text, len(asked)) == ("Answer: 1", 2)


@pytest.mark.parametrize("hangs", ["/v1/models", "/v1/completions"])
def test_a_server_that_hangs_at_its_first_answer_is_given_up(hangs, monkeypatch):
    """Before any question, when nobody looks at the load yet."""
    monkeypatch.setattr(replica, "SLOWEST", 0.1)
    let_go = asyncio.Event()

    async def handler(asked):
        if asked.path == hangs:
            await let_go.wait()
        return web.json_response({"data": [{"id": BASE, "max_model_len": 512}]})

    async def scenario():
        routes = (web.get("/v1/models", handler), web.post("/v1/completions", handler))
        async with running(*routes) as url, HttpEngine({"s": [url]}, patience=0.2, hang=0.1) as engine:
            with pytest.raises(OSError, match="away for more than"):
                await engine.ready("s", [BASE])
            let_go.set()

    asyncio.run(scenario())


@pytest.mark.parametrize("value", ["+Inf", "-Inf", "NaN", "9e999", "1e-05", "1.2.3", "-4", "e", "1e+"])
def test_metrics_that_are_no_numbers_count_for_nothing(value):
    lines = f'vllm:num_requests_running{{engine="0"}} {value}\nvllm:num_requests_running{{engine="1"}} 2.0\n'
    lines += f'vllm:generation_tokens_total{{engine="0"}} {value}\nvllm:num_requests_waiting{{engine="0"}} 1e+03\n'
    assert Replica("http://a", "http://a").read(lines.encode(), 1.0) == Load(2, 1000)


def test_an_encrypted_server_keeps_its_name_and_a_path_its_place():
    assert addresses("https://localhost/pre/") == ["https://localhost/pre"]
    assert addresses("http://localhost:81/pre") == ["http://127.0.0.1:81/pre"]


def test_patience_begins_with_the_first_failure_and_not_with_the_question(prompt):
    """An answer that takes longer than the patience and then fails is asked for again."""
    asked = []

    async def complete():
        asked.append(1)
        if len(asked) == 1:
            await asyncio.sleep(0.5)
        return answer() if len(asked) > 2 else web.Response(status=503)

    async def scenario():
        async with served(complete) as url, HttpEngine({"s": [url]}, patience=0.45) as engine:
            return await engine.complete("s", request(prompt))

    assert asyncio.run(scenario()).text == "Answer: 1"
    assert len(asked) == 3


def test_an_answer_to_anybody_starts_the_patience_anew(prompt):
    """A request that fails outlives its patience while the server answers others."""
    failed, answered = [], []

    async def complete():
        if failed and len(answered) > len(failed):
            failed.append(1)
            return answer() if len(failed) > 4 else web.Response(status=503)
        if not failed:
            failed.append(1)
            return web.Response(status=503)
        answered.append(1)
        return answer()

    async def others(engine):
        while len(failed) < 5:
            await engine.complete("s", request(prompt))
            await asyncio.sleep(0.05)

    async def scenario():
        async with served(complete) as url, HttpEngine({"s": [url]}, patience=0.6) as engine:
            call, _ = await asyncio.gather(engine.complete("s", request(prompt)), others(engine))
            return call

    assert asyncio.run(scenario()).text == "Answer: 1"


def test_a_row_of_failures_ends_with_an_answer():
    replica = Replica("http://a", "http://a")
    assert [replica.failed(now) for now in (100.0, 130.0, 200.0)] == [0.0, 30.0, 100.0]
    replica.succeeded()
    assert [replica.failed(now) for now in (300.0, 301.0)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("waited", "silent", "tokens", "lost"),
    [
        (899, 1e9, 1024, False),  # a server that rested before
        (901, 1e9, 1024, True),  # it stands still
        (10_000, 1, 1024, False),  # it works: the answer is long, or others are before it
        (10_000, 0, 1024, False),  # it does not say
        (12_000, 1, 1024, True),  # no answer of its length takes so long
        (100_000, 1, 32_768, False),
        (100_000, 901, 32_768, True),
    ],
)
def test_who_is_given_up(waited, silent, tokens, lost):
    assert is_lost(waited, silent, tokens, 900) == lost


def test_a_server_that_stands_still_is_asked_again_and_one_that_works_is_waited_for(prompt):
    state = {"asked": 0, "tokens": 5, "works": True, "looks": 0}
    let_go = asyncio.Event()

    async def complete():
        state["asked"] += 1
        if state["asked"] == 1:
            await let_go.wait()
        return answer()

    def metrics():
        state["tokens"] += state["works"]
        state["looks"] += 1
        return f'vllm:generation_tokens_total{{engine="0"}} {state["tokens"]}.0\n'

    async def scenario():
        async with served(complete, metrics) as url, HttpEngine({"s": [url]}, hang=0.2) as engine:
            call = asyncio.create_task(engine.complete("s", request(prompt, max_tokens=1)))
            begun = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < begun + 0.6:
                await engine.load()
            assert (call.done(), state["asked"]) == (False, 1)
            state["works"] = False
            while not call.done():
                await engine.load()
            let_go.set()
            return await call

    assert asyncio.run(asyncio.wait_for(scenario(), 20)).text == "Answer: 1"
    assert state["asked"] == 2


def test_looks_at_the_load_have_room_when_requests_take_all(prompt):
    """And no more connections are open than may be."""
    inside, most = set(), []
    let_go = asyncio.Event()

    async def complete():
        one = object()
        inside.add(one)
        most.append(len(inside))
        await let_go.wait()
        inside.discard(one)
        return answer()

    async def scenario():
        metrics = 'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_waiting{engine="0"} 1\n'
        async with served(complete, lambda: metrics) as url, HttpEngine({"s": [url]}, connections=4) as engine:
            calls = [asyncio.create_task(engine.complete("s", request(prompt))) for _ in range(10)]
            while len(inside) < 4:
                await asyncio.sleep(0)
            load = await engine.load()
            let_go.set()
            await asyncio.gather(*calls)
            return load

    load = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert (load.running, load.waiting, max(most)) == (3, 1, 4)


def test_server_flags():
    flags = ["a=http://127.0.0.1:1", "a=http://127.0.0.1:2", "b=http://127.0.0.1:3"]
    assert parse_servers(flags) == {"a": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "b": ["http://127.0.0.1:3"]}
    with pytest.raises(BadInput, match="--server nonsense"):
        parse_servers(["nonsense"])
