"""What /metrics costs: real requests to the operator's port, in front of an API server that answers when the test lets it."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import pytest
from aiohttp import web
from conftest import free_port
from kubernetes.aio.client import ApiClient, Configuration
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from maft_operator.cluster import health
from maft_operator.cluster.api import Api
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.scrapes import REFUSALS, RESERVED, REVIEWS, Exposition, MetricsAuth, Reviewed

TEXT, OPEN = "text/plain", "application/openmetrics-text"


class Counting(Collector):
    """How often it was asked, and by how many at once at most."""

    def __init__(self) -> None:
        self.asked = self.now = self.most = 0
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            self.asked, self.now = self.asked + 1, self.now + 1
            self.most = max(self.most, self.now)
        yield GaugeMetricFamily("counted", "Times that somebody asked", value=self.asked)
        with self._lock:
            self.now -= 1


def counted() -> tuple[CollectorRegistry, Counting]:
    registry, counting = CollectorRegistry(), Counting()
    registry.register(counting)  # asks once
    counting.asked = 0
    return registry, counting


@contextlib.asynccontextmanager
async def serving(registry: CollectorRegistry, auth: MetricsAuth | None = None) -> AsyncIterator[str]:
    port = free_port()
    runner = await health.serve(port, lambda: "", lambda encode: encode(registry), auth)
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        await runner.cleanup()


async def asked(url: str, headers: Sequence[dict[str, str]]) -> list[tuple[int, str, str]]:
    """Status, content type and text of so many requests at once."""
    connector, limit = aiohttp.TCPConnector(limit=50), aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:

        async def one(header: dict[str, str]) -> tuple[int, str, str]:
            async with session.get(url, headers=header) as response:
                return response.status, response.headers["Content-Type"], await response.text()

        return await asyncio.gather(*map(one, headers))


@pytest.mark.parametrize(
    "accepts",
    [
        [TEXT] * 50,
        [f"{OPEN};version=1.0.{n};escaping=allow-utf-8,{TEXT};version=1.0.{n}" for n in range(50)],  # nobody has one of his own
    ],
)
def test_many_who_ask_at_once_are_given_one_encoding(accepts: list[str]) -> None:
    registry, counting = counted()

    async def scenario() -> list[tuple[int, str, str]]:
        async with serving(registry) as url:
            return await asked(url, [{"Accept": accept} for accept in accepts])

    answers = asyncio.run(scenario())
    assert {status for status, *_ in answers} == {200}
    assert all("counted " in text for *_, text in answers)
    assert len({kind for _, kind, _ in answers}) == 1 and answers[0][1].startswith(accepts[0].partition(";")[0])
    assert 1 <= counting.asked <= 2 and counting.most == 1


def test_either_format_is_encoded_in_its_turn() -> None:
    registry, counting = counted()

    async def scenario() -> list[tuple[int, str, str]]:
        async with serving(registry) as url:
            return await asked(url, [{"Accept": accept} for accept in [TEXT, OPEN] * 25])

    answers = asyncio.run(scenario())
    assert all(text.endswith("# EOF\n") == kind.startswith(OPEN) for _, kind, text in answers)
    assert 2 <= counting.asked <= 4 and counting.most == 1


def test_what_is_no_longer_fresh_is_encoded_anew() -> None:
    registry, counting = counted()

    async def scenario() -> list[tuple[bytes, str]]:
        exposition = Exposition(lambda encode: encode(registry), fresh=0.0)
        return [await exposition.text(TEXT) for _ in range(3)]

    texts = asyncio.run(scenario())
    assert counting.asked == 3
    assert [f"counted {n}.0".encode() in body for n, (body, _) in enumerate(texts, 1)] == [True] * 3


def test_an_encoding_that_fails_leaves_the_turn_to_the_next() -> None:
    class Broken(Collector):
        fails = False

        def collect(self) -> Iterator[Metric]:
            if self.fails:
                raise ValueError
            yield GaugeMetricFamily("mended", "It works again", value=1)

    registry, broken = CollectorRegistry(), Broken()
    registry.register(broken)

    async def scenario() -> bytes:
        exposition = Exposition(lambda encode: encode(registry))
        broken.fails = True
        with pytest.raises(ValueError):
            await exposition.text(TEXT)
        broken.fails = False
        return (await exposition.text(TEXT))[0]

    assert b"mended 1.0" in asyncio.run(scenario())


class Reviewing:
    """An API server that knows the tokens that begin with `good`, and answers once it is open."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.open = asyncio.Event()
        if is_open:
            self.open.set()
        self.tokens: Counter[str] = Counter()
        self.now = self.most = 0

    async def token(self, request: web.Request) -> web.Response:
        spec = (await request.json())["spec"]
        self.tokens[spec["token"]] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await self.open.wait()
        self.now -= 1
        user = {"authenticated": True, "user": {"username": "somebody"}} if spec["token"].startswith("good") else {}
        return web.json_response({"status": user}, status=201)

    async def access(self, _: web.Request) -> web.Response:
        return web.json_response({"status": {"allowed": True}}, status=201)

    @contextlib.asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        app, port = web.Application(), free_port()
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self.token)
        app.router.add_post("/apis/authorization.k8s.io/v1/subjectaccessreviews", self.access)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
                yield Api(client, Metrics())
        finally:
            await runner.cleanup()


def bearer(*tokens: str) -> list[dict[str, str]]:
    return [{"Authorization": f"Bearer {token}"} for token in tokens]


def test_a_thousand_tokens_are_few_reviews_at_once_and_few_entries() -> None:
    async def scenario() -> None:
        server, reviewed = Reviewing(), Reviewed(most=20)
        async with server.api() as api, serving(counted()[0], MetricsAuth(api, reviewed)) as url:
            answers = await asked(url, bearer(*(f"bad-{n}" for n in range(1000))))
        assert {(status, text) for status, _, text in answers} <= {(code, f"{REFUSALS[code]}\n") for code in (401, 429)}
        assert Counter(status for status, *_ in answers)[401] == server.tokens.total()
        assert 0 < server.most <= REVIEWS
        assert 0 < len(reviewed) <= 20

    asyncio.run(scenario())


async def until_held(server: Reviewing, tokens: int) -> None:
    async with asyncio.timeout(30):
        while server.now < tokens:
            await asyncio.sleep(0)


def test_beyond_the_places_nobody_is_asked_about_and_who_was_let_in_before_has_one_of_his_own() -> None:
    async def scenario() -> None:
        server = Reviewing()
        async with server.api() as api, serving(counted()[0], MetricsAuth(api, Reviewed(holds=0.0), rest=0.0)) as url:
            assert [status for status, *_ in await asked(url, bearer("good"))] == [200]
            server.open.clear()
            held = asyncio.create_task(asked(url, bearer(*(f"bad-{n}" for n in range(REVIEWS)))))
            await until_held(server, REVIEWS)
            assert [status for status, *_ in await asked(url, bearer("other"))] == [429]
            again = asyncio.create_task(asked(url, bearer("good")))
            await until_held(server, REVIEWS + 1)
            server.open.set()
            assert [status for status, *_ in await again] == [200]
            assert {status for status, *_ in await held} == {401}
            assert "other" not in server.tokens and server.most <= REVIEWS + RESERVED

    asyncio.run(scenario())


def test_those_who_show_one_token_at_once_wait_for_one_review_which_holds() -> None:
    async def scenario() -> None:
        server = Reviewing(is_open=False)
        async with server.api() as api, serving(counted()[0], MetricsAuth(api)) as url:
            many = asyncio.create_task(asked(url, bearer(*["good"] * 50)))
            await until_held(server, 1)
            server.open.set()
            assert {status for status, *_ in await many} == {200}
            assert [status for status, *_ in await asked(url, bearer("good"))] == [200]
        assert server.tokens == {"good": 1}

    asyncio.run(scenario())


def test_an_api_server_that_is_away_is_one_line_and_no_answer_about_the_token(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> tuple[list[tuple[int, str, str]], int]:
        reviewed = Reviewed()
        async with ApiClient(Configuration(host=f"http://127.0.0.1:{free_port()}")) as client:
            auth = MetricsAuth(Api(client, Metrics()), reviewed)
            async with serving(counted()[0], auth) as url:
                return await asked(url, bearer("good")), len(reviewed)

    answers, remembered = asyncio.run(scenario())
    assert [(status, text) for status, _, text in answers] == [(503, f"{REFUSALS[503]}\n")]
    assert remembered == 0
    assert "Traceback" not in caplog.text


def test_who_is_refused_pushes_nobody_out_who_was_let_in() -> None:
    reviewed = Reviewed(most=3, holds=10)
    reviewed.add("good", 0, 1.0)
    for n in range(5):
        reviewed.add(f"bad-{n}", 401, 2.0 + n)
    assert [reviewed.status(key, 7.0) for key in ("good", "bad-0", "bad-1", "bad-2", "bad-4")] == [0, None, None, 401, 401]
    assert [reviewed.status(key, 15.0) for key in ("good", "bad-2", "bad-4")] == [None, None, 401]
    assert (reviewed.was_allowed("good"), reviewed.was_allowed("bad-4")) == (True, False)
    reviewed.add("good", 403, 15.0)  # whose right was taken
    assert (reviewed.status("good", 15.0), reviewed.was_allowed("good"), len(reviewed)) == (403, False, 3)


@pytest.mark.parametrize("header", [{}, {"Authorization": "Basic x"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer ü"}])
def test_what_is_no_bearer_token_is_refused_unasked(header: dict[str, str]) -> None:
    async def scenario() -> None:
        server = Reviewing()
        async with server.api() as api, serving(counted()[0], MetricsAuth(api)) as url:
            assert [status for status, *_ in await asked(url, [header])] == [401]
        assert not server.tokens

    asyncio.run(scenario())
