"""What the metrics of a run's tasks are good for, and that whoever does not answer is left alone for a while."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from maft_operator.cluster import reasons
from maft_operator.cluster.measured import REST, Measured, measure
from maft_operator.cluster.reasons import Trouble
from maft_operator.progress import PATIENCE

HEAD = b"HTTP/1.0 200 OK\r\n\r\n"


@contextlib.asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Somebody with this answer to all; with none it only listens. Yields the URL and the requests."""
    asked: list[bytes] = []

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
            writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics", asked
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answer", "measured"),
    [
        (HEAD + b"maft_progress_done 3\nmaft_progress_expected 24\n", Measured({"r-1-debate": (3, 24)})),
        (HEAD + b"other 3\n", Measured()),
        (
            HEAD + b"maft_progress_done 1\nmaft_progress_expected 1e\n",
            Measured(
                troubles=(
                    Trouble(
                        "r-1-debate",
                        reasons.METRICS_UNREADABLE,
                        "its metrics do not parse: could not convert string to float: '1e'",
                        blocking=False,
                    ),
                )
            ),
        ),
    ],
)
def test_what_metrics_say(answer: bytes, measured: Measured) -> None:
    async def scenario() -> Measured:
        async with answering(answer) as (url, _):
            return await measure({"r-1-debate": url}, {})

    assert asyncio.run(scenario()) == measured


def test_who_does_not_answer_holds_up_one_look_in_many() -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        async with (
            answering(None) as (url, asked),
            answering(HEAD + b"maft_progress_done 1\nmaft_progress_expected 2\n") as (good, _),
        ):
            resting: dict[str, float] = {"http://gone/metrics": clock() + REST}
            urls = {"tarpit": url, "good": good}
            assert await measure(urls, resting) == Measured({"good": (1, 2)})
            assert set(resting) == {url}
            begun = clock()
            assert await measure(urls, resting) == Measured({"good": (1, 2)})
            assert clock() - begun < PATIENCE / 2
            assert len(asked) == 1
            resting[url] = clock()  # a minute later
            await measure(urls, resting)
            assert len(asked) == 2

    asyncio.run(scenario())


def test_who_takes_nearly_all_the_time_is_asked_less_often() -> None:
    """What he says counts."""

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.5)
        writer.write(HEAD + b"maft_progress_done 1\nmaft_progress_expected 2\n")
        writer.close()

    async def scenario() -> None:
        clock, server = asyncio.get_running_loop().time, await asyncio.start_server(slowly, "127.0.0.1", 0)
        url, resting = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics", dict[str, float]()
        async with server:
            assert await measure({"slow": url}, resting) == Measured({"slow": (1, 2)})
            assert 0.4 * REST < resting[url] - clock() <= REST
            assert await measure({"slow": url}, resting) == Measured()

    asyncio.run(scenario())


def test_who_is_not_there_yet_is_asked_at_each_look() -> None:
    async def scenario() -> dict[str, float]:
        async with answering(None) as (url, _):
            pass
        resting: dict[str, float] = {}
        assert await measure({"starts": url}, resting) == Measured()
        return resting

    assert asyncio.run(scenario()) == {}
