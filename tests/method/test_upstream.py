"""One agent's answer as its server streams it: whole, or refused."""

import asyncio
import gzip
import json
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from maft.debate.engine import Request
from maft.endpoint.refused import Refused
from maft.endpoint.upstream import Piece, Upstream

USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def chunk(text: str, reason: str | None = None) -> dict:
    return {"choices": [{"text": text, "finish_reason": reason}]}


def data(event: dict) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def heard(*events: dict | bytes, **answer: Any) -> list[Piece]:
    """What is heard of a server that says these, bytes as they are; or gives this answer."""

    async def completions(request: web.Request) -> web.StreamResponse:
        if answer:
            return web.Response(**answer)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(event if isinstance(event, bytes) else data(event))
        return response

    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(body=data(chunk("of a stranger", "stop")) + data(USAGE))

    async def asked() -> list[Piece]:
        app = web.Application()
        app.add_routes([web.post("/v1/completions", completions), web.post("/elsewhere", elsewhere)])
        async with (
            TestServer(app) as server,
            Upstream({"s": [str(server.make_url(""))]}, "", 2) as upstream,
            aclosing(upstream.stream("s", Request("base", [1], 0, 1.0, 1.0, 9), ())) as pieces,
        ):
            return [piece async for piece in pieces]

    return asyncio.run(asked())


def test_an_answer_comes_in_pieces_and_its_end_with_its_tokens() -> None:
    whole = heard(chunk("seven "), chunk("plus"), chunk("", "length"), USAGE)
    assert whole == [Piece("seven "), Piece("plus"), Piece("", "length", (3, 2))]


STREAMS = {
    "comments": (b": keep-alive\n\n", chunk("seven"), b": x\n\n", chunk("", "stop"), USAGE),
    "names and numbers of events": (b"event: message\nid: 4\n", chunk("seven"), chunk("", "stop"), USAGE),
    "no space": tuple(data(event).replace(b"data: ", b"data:") for event in (chunk("seven"), chunk("", "stop"), USAGE)),
    "CR LF": tuple(data(event).replace(b"\n", b"\r\n") for event in (chunk("seven"), chunk("", "stop"), USAGE)),
    "a byte order mark": (b"\xef\xbb\xbf" + data(chunk("seven")), chunk("", "stop"), USAGE),
    "a letter in two": (b'data: {"choices": [{"text": "sev', b'en"}]}\n\n', chunk("", "stop"), USAGE),
    "tokens with the last word": (chunk("seven"), chunk("", "stop") | {"usage": USAGE["usage"]}, b"data: [DONE]\n\n"),
    "no tokens before the end": (chunk("seven") | {"usage": None}, chunk("", "stop"), USAGE),
}


@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)
def test_streams_as_servers_and_proxies_write_them(events: tuple[dict | bytes, ...]) -> None:
    assert heard(*events) == [Piece("seven"), Piece("", "stop", (3, 2))]


@pytest.mark.parametrize(
    ("events", "status", "says"),
    [
        ((b"<html>nginx</html>",), 503, "went away in the middle"),
        ((b'{"error": {"message": "dead"}}',), 503, "went away in the middle"),
        ((chunk("seven"), {"error": {"message": "engine dead"}}), 502, "broke off: .*engine dead"),
        ((chunk("seven"), {"error": "engine dead"}), 502, "broke off: engine dead"),
        ((chunk("seven"), USAGE), 503, "went away in the middle"),
        ((chunk("seven"), chunk("", "stop"), b"data: [DONE]\n\n"), 502, "does not say how many tokens"),
        ((b"data: " + b"x" * 3_000_000 + b"\n\n",), 502, "broke off: an event of more than 1 MiB"),
        ((b"data: " + b"[" * 100_000 + b"\n\n",), 502, "broke off"),
        ((b'data: {"choices": [{"text": "\\ud83d"}]}\n\n',), 502, "broke off"),
        ((b'data: {"choices": [{"text": "\xc3',), 502, "broke off"),
        ((chunk("seven", "stop"), {"usage": {"prompt_tokens": 2**70}}), 502, "broke off"),
        ((chunk("seven", 5),), 502, "broke off"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_stream_of_an_answer(events: tuple[dict | bytes, ...], status: int, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        heard(*events)
    assert refused.value.status == status


def test_nobody_is_asked_in_the_place_of_the_server() -> None:
    with pytest.raises(Refused, match="says 307") as refused:
        heard(status=307, headers={"Location": "/elsewhere"})
    assert refused.value.status == 502


def test_a_refusal_is_not_unpacked_and_has_an_end() -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    with pytest.raises(Refused, match="says 500") as refused:
        heard(status=500, headers={"Content-Encoding": "gzip"}, body=bomb)
    assert "xxx" not in str(refused.value)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_server_that_ends_gives_no_half_of_an_answer_for_a_whole_one(reason: str) -> None:
    with pytest.raises(Refused, match="in the middle of an answer") as refused:
        heard(chunk("seven "), chunk("", reason), USAGE)
    assert refused.value.status == 503 and refused.value.headers["Retry-After"]


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    with pytest.raises(Refused, match="went away in the middle"):
        heard(chunk("seven "))


@pytest.mark.parametrize("stands_still", [False, True])
def test_a_connection_is_used_again_once_all_was_read(stands_still: bool) -> None:
    """A new connection for each answer costs its first word a way there and back; one that never ends costs a second at most."""
    peers: list[object] = []
    over = asyncio.Event()

    async def completions(request: web.Request) -> web.StreamResponse:
        peers.append(request.transport.get_extra_info("peername"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in (chunk("seven", "stop"), USAGE):
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if stands_still:
            await over.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    async def asked() -> list[list[Piece]]:
        app, request = web.Application(), Request("base", [1], 0, 1.0, 1.0, 9)
        app.add_routes([web.post("/v1/completions", completions)])
        async with TestServer(app) as server, Upstream({"s": [str(server.make_url(""))]}, "", 2) as upstream:
            heard = [[piece async for piece in upstream.stream("s", request, ())] for _ in range(2)]
            over.set()
            return heard

    assert asyncio.run(asked()) == [[Piece("seven"), Piece("", "stop", (3, 2))]] * 2
    assert len(set(peers)) == (2 if stands_still else 1)
