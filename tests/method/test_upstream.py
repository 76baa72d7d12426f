"""One agent's answer as its server streams it: whole, or refused."""

import asyncio
import json
from contextlib import aclosing

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from maft.debate.engine import Request
from maft.endpoint.refused import Refused
from maft.endpoint.upstream import Piece, Upstream

USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def chunk(text: str, reason: str | None = None) -> dict:
    return {"choices": [{"text": text, "finish_reason": reason}]}


def heard(*events: dict) -> list[Piece]:
    """What is heard of a server that says these."""

    async def completions(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        return response

    async def asked() -> list[Piece]:
        app = web.Application()
        app.add_routes([web.post("/v1/completions", completions)])
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
