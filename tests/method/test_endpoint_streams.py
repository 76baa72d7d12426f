"""Streams whose readers do not read: they hold their place no longer than a request may take."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestServer
from societies import ask

from maft.endpoint.admission import Admission
from maft.endpoint.answer import Answer
from maft.endpoint.app import Endpoint
from maft.endpoint.measured import Measured
from maft.society_spec import SocietySpec

MODEL = "society"
VOTE = {"margin": 3, "abstained": False, "agents": [1, 2, 3], "transcript": "word " * 4_000_000}


class Debaters:
    """Agents whose debate is longer than what fits between two programs."""

    setup = SimpleNamespace(checker=SimpleNamespace(runs_programs=True))
    served = SimpleNamespace(players=SimpleNamespace(size=3))
    debated = False

    def is_of_one_agent(self, asked) -> bool:
        return False

    def prompt(self, asked) -> list[int]:
        return [1]

    async def debate(self, asked, listener) -> None:
        self.debated = True

    def answer(self, asked, transcript) -> Answer:
        return Answer("7", "stop", 1, 1, debate=VOTE)


@pytest.mark.parametrize("reads", [False, True])
def test_who_does_not_read_holds_its_place_no_longer_than_a_request_may_take(reads) -> None:
    async def scenario() -> tuple[bytes, str]:
        spec, measured, society = SocietySpec(timeout_seconds=3), Measured(), Debaters()
        admission = Admission(spec, measured)
        admission.set_ready()
        endpoint = Endpoint(spec, (MODEL,), None, None, measured, admission, society=society)
        async with TestServer(endpoint.application()) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            body = json.dumps(ask(MODEL, stream=True)).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(body) + body)
            while not society.debated:
                await asyncio.sleep(0.01)
            whole = await reader.read() if reads else b""
            await asyncio.wait_for(admission.idle(), 20)
            writer.close()
        return whole, measured.text().decode()

    whole, metrics = asyncio.run(scenario())
    assert whole.count(b"[DONE]") == reads
    assert f'maft_society_requests_total{{model="{MODEL}",status="{200 if reads else 408}"}} 1.0' in metrics
