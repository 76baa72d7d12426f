"""Streams that stand still: whose reader does not read, and whose agents say nothing yet."""

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from societies import ask

from maft.answers import thoughts
from maft.endpoint.admission import Admission
from maft.endpoint.answer import Answer
from maft.endpoint.app import Endpoint
from maft.endpoint.hearing import Hearing
from maft.endpoint.measured import Measured
from maft.endpoint.refused import Refused
from maft.endpoint.upstream import Piece
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


def ready(society: Any, spec: SocietySpec | None = None, kept: Any = None, **more: Any) -> Endpoint:
    """The endpoint before these agents, who have answered for the first time."""
    spec, measured = spec or SocietySpec(), Measured()
    admission = Admission(spec, measured)
    admission.set_ready()
    return Endpoint(spec, (MODEL,), None, kept, measured, admission, society=society, **more)


@pytest.mark.parametrize("reads", [False, True])
def test_who_does_not_read_holds_its_place_no_longer_than_a_request_may_take(reads) -> None:
    async def scenario() -> tuple[bytes, str]:
        society = Debaters()
        endpoint = ready(society, SocietySpec(timeout_seconds=3))
        async with TestServer(endpoint.application()) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            body = json.dumps(ask(MODEL, stream=True)).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(body) + body)
            while not society.debated:
                await asyncio.sleep(0.01)
            whole = await reader.read() if reads else b""
            await asyncio.wait_for(endpoint.admission.idle(), 20)
            writer.close()
        return whole, endpoint.measured.text().decode()

    whole, metrics = asyncio.run(scenario())
    assert whole.count(b"[DONE]") == reads
    assert f'maft_society_requests_total{{model="{MODEL}",status="{200 if reads else 408}"}} 1.0' in metrics


class Template:
    """Splits as real ones do, and counts the characters that it read."""

    def __init__(self, *, thinks: bool, opened: bool = False) -> None:
        self.thinks, self._opened, self.read = thinks, opened, 0

    def split(self, text: str) -> thoughts.Said:
        self.read += len(text)
        return thoughts.split(text, opened=self._opened)


class Thinker(Debaters):
    """An agent that says nothing until somebody has heard that it is there."""

    setup = SimpleNamespace(template=Template(thinks=False))

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    def is_of_one_agent(self, asked) -> bool:
        return True

    def hearing(self, asked) -> Hearing:
        return Hearing(self.setup.template)

    async def debate(self, asked, listener) -> None:
        await self.heard.wait()

    async def one(self, asked, prompt):
        await self.heard.wait()
        yield Piece("7", "stop", (1, 1))


class Slow(Thinker):
    """Agents whose debate does."""

    setup = Debaters.setup

    def is_of_one_agent(self, asked) -> bool:
        return False

    def answer(self, asked, transcript) -> Answer:
        return Answer("7", "stop", 1, 1)


@pytest.mark.parametrize("kind", [Thinker, Slow])
def test_a_silent_stream_says_that_somebody_is_at_work(kind) -> None:
    """Proxies close what is silent for a minute, and a thought may take longer."""

    async def scenario() -> bytes:
        society = kind()
        endpoint = ready(society, SocietySpec(timeout_seconds=30), keep_alive=0.02)
        async with TestServer(endpoint.application()) as server, aiohttp.ClientSession() as session:
            url = server.make_url("/v1/chat/completions")
            async with session.post(url, json=ask(MODEL, stream=True)) as response:
                while not (await response.content.readline()).startswith(b": "):
                    pass
                society.heard.set()
                return await response.read()

    rest = asyncio.run(scenario())
    assert b'"content":"7"' in rest and rest.endswith(b"data: [DONE]\n\n")


class Away(Thinker):
    """An agent whose server goes: at once, or after a word."""

    def __init__(self, words: int) -> None:
        self.words = words

    async def one(self, asked, prompt):
        for _ in range(self.words):
            yield Piece("7")
        raise Refused(503, "the server of the agents is away", after=2)


@pytest.mark.parametrize(("words", "status"), [(0, 503), (1, 200)])
def test_a_server_that_goes_before_the_first_word_is_a_status_and_later_an_event(words, status) -> None:
    """Clients try again by themselves where the status says so."""

    async def scenario() -> tuple[int, str | None, str, str]:
        endpoint = ready(Away(words))
        async with (
            TestServer(endpoint.application()) as server,
            aiohttp.ClientSession() as session,
            session.post(server.make_url("/v1/chat/completions"), json=ask(MODEL, stream=True)) as response,
        ):
            return response.status, response.headers.get("Retry-After"), await response.text(), endpoint.measured.text().decode()

    got, again, text, metrics = asyncio.run(scenario())
    assert (got, again) == (status, None if words else "2") and "is away" in text
    assert text.endswith("data: [DONE]\n\n") == bool(words)
    assert f'maft_society_requests_total{{model="{MODEL}",status="503"}} 1.0' in metrics


class Counting(Debaters):
    """Agents whose prompt takes as long as nobody else has been answered."""

    def __init__(self) -> None:
        self.counting, self.others = threading.Event(), threading.Event()

    def prompt(self, asked) -> list[int]:
        self.counting.set()
        assert self.others.wait(20), "nobody else was answered meanwhile"
        return [1]


def test_a_prompt_that_takes_long_holds_nobody_up() -> None:
    """The tokens of a megabyte take seconds."""

    async def scenario() -> tuple[int, int]:
        society = Counting()
        async with TestServer(ready(society).application()) as server, aiohttp.ClientSession() as session:
            long = ask(MODEL, "7" * 50_000)
            asking = asyncio.create_task(status(session.post(server.make_url("/v1/chat/completions"), json=long)))
            await asyncio.to_thread(society.counting.wait, 20)
            healthy = await status(session.get(server.make_url("/health")))
            society.others.set()
            return healthy, await asking

    assert asyncio.run(scenario()) == (200, 200)


async def status(request) -> int:
    async with request as response:
        return response.status


@pytest.mark.parametrize("abstained", [False, True])
def test_a_question_without_a_majority_is_not_kept(abstained) -> None:
    """The next run would take one side of a tie for the truth."""

    class Voters(Slow):
        setup = SimpleNamespace(checker=SimpleNamespace(runs_programs=False))

        async def debate(self, asked, listener) -> str:
            return "the debate"

        def answer(self, asked, transcript) -> Answer:
            return Answer("7", "stop", 1, 1, debate={**VOTE, "abstained": abstained, "transcript": ""})

    async def scenario() -> list[str]:
        rows: list[str] = []
        endpoint = ready(Voters(), kept=SimpleNamespace(add=rows.append))
        async with TestServer(endpoint.application()) as server, aiohttp.ClientSession() as session:
            assert await status(session.post(server.make_url("/v1/chat/completions"), json=ask(MODEL))) == 200
        return rows

    assert asyncio.run(scenario()) == ([] if abstained else ["the debate"])


def streamed(hearing: Hearing, text: str, size: int) -> list[str]:
    """What was told with each piece, and at the end."""
    pieces = [Piece(text[at : at + size]) for at in range(0, len(text), size)]
    return [hearing.hear(piece) for piece in [*pieces, Piece("", "stop", (1, 9))]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("ends", "expected"), [((), "It is 12. Answer: 12\n\nQ"), (("\n\n", "zz"), "It is 12. Answer: 12"), (("I",), "")]
)
def test_a_text_that_ends_the_answer_ends_no_thought(size, ends, expected) -> None:
    """A thought has paragraphs of its own; pieces are as the server sends them."""
    text = "First this.\n\nI see.</think>It is 12. Answer: 12\n\nQ"
    hearing = Hearing(Template(thinks=True, opened=True), ends)
    assert ("".join(streamed(hearing, text, size)), hearing.answer().text) == (expected, expected)


REPLIES = [
    ("It is 19.", "It is 19."),
    ("\n\n It is\n\n 19.  \n", "It is\n\n 19."),
    ("\n\n<answer>19</answer>", "19"),
    ("< answer >19</ answer >\n", "19"),
    ("The sum is 19.\n\n<answer>19</answer>", "The sum is 19.\n\n<answer>19</answer>"),
    ("<response>It is 19.</response>", "It is 19."),
    ("So.\n<think>more</think>Answer: 19", "So.\nAnswer: 19"),
    ("Answer: 19</s>", "Answer: 19"),
    ("Answer: 19<|im_end|><|im_end|>\n", "Answer: 19"),
    ("Use a <b> tag, [x], H, T... 3 < 4 <", "Use a <b> tag, [x], H, T... 3 < 4 <"),
    ("an analysis of it", "an analysis of it"),
    ("It" + "\n" * 3000 + "is 19.", "It" + "\n" * 3000 + "is 19."),
    ("So:\n```\n<think>\n```\nAnswer: 19", "So:\n```\n<think>\n```\nAnswer: 19"),
    ("Wait. ◁think▷9◁/think▷ It is 19.", "Wait.\nIt is 19."),
    ("", ""),
]
THOUGHTS = {
    "opened": "I see.\n</think>",
    "own": "<think>\nI see.\n</think>\n",
    "empty": "<think>\n\n</think>\n\n",
    "spaced": "<think >I see.< /think >",
    "none": "",
}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize(("reply", "expected"), REPLIES)
def test_a_stream_is_in_the_end_what_is_answered_at_once(reply, expected, thought, size) -> None:
    hearing = Hearing(Template(thinks=thought != "none", opened=thought == "opened"))
    told = streamed(hearing, THOUGHTS[thought] + reply, size)
    assert ("".join(told), hearing.answer().text) == (expected, expected)


@pytest.mark.parametrize(
    "text",
    [
        "analysisWe add.assistantfinalIt is 19.",
        "<|channel|>analysis<|message|>We add.<|end|><|start|>assistant<|channel|>final<|message|>It is 19.<|return|>",
    ],
)
@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_stream_of_channels(text, thinks, size) -> None:
    assert "".join(streamed(Hearing(Template(thinks=thinks)), text, size)) == "It is 19."


@pytest.mark.parametrize("thought", THOUGHTS)
def test_plain_words_are_told_as_they_come(thought) -> None:
    hearing = Hearing(Template(thinks=thought != "none", opened=thought == "opened"))
    told = streamed(hearing, THOUGHTS[thought] + "It is nineteen. " * 9, 4)
    assert sum(bool(piece) for piece in told[-37:]) > 30


def test_words_that_turn_out_to_be_a_thought_are_followed_by_the_whole_answer() -> None:
    assert "".join(streamed(Hearing(Template(thinks=False)), "I see.</think>It is 19.", 3)) == "I see.\n\nIt is 19."


@pytest.mark.parametrize("many", ["so ", "</think> ", "<answer>", "` ", "\n"])
def test_work_grows_as_the_text_does(many) -> None:
    template = Template(thinks=True, opened=True)
    text = many * 2000 + "</think>" + many * 2000
    streamed(Hearing(template), text, 4)
    assert template.read < 20 * len(text)
