"""Events on their way: beside the looks, in their order, best effort."""

import asyncio
from typing import Any

from kube_objects import event

from maft_operator.cluster import recorder
from maft_operator.cluster.api import Refused
from maft_operator.cluster.recorder import Recorder

Json = dict[str, Any]


class Server:
    """Takes Events. refuses: names of those that it does not; slow: seconds that one takes."""

    def __init__(self, *, refuses: tuple[str, ...] = (), slow: float = 0.0) -> None:
        self.taken: list[str] = []
        self._refuses = refuses
        self._slow = slow

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        await asyncio.sleep(self._slow)
        name = body["metadata"]["name"]
        if name in self._refuses:
            raise Refused(403, "events is forbidden")
        self.taken.append(name)
        return body


def named(name: str) -> Json:
    return {**event("uid", "Reason", "words"), "metadata": {"name": name, "namespace": "default"}}


async def _recorded(server: Server, *names: str, seconds: float = 0.05) -> None:
    """Records, and stops the recorder after so long."""
    made = Recorder(server)  # type: ignore[arg-type]
    running = asyncio.create_task(made.run())
    for name in names:
        made.record(named(name))
    await asyncio.sleep(seconds)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_events_are_sent_in_their_order_beside_those_that_record_them() -> None:
    server = Server()
    asyncio.run(_recorded(server, "a", "b", "c"))
    assert server.taken == ["a", "b", "c"]


def test_an_event_that_is_refused_keeps_none_of_the_others() -> None:
    server = Server(refuses=("a",))
    asyncio.run(_recorded(server, "a", "b"))
    assert server.taken == ["b"]


def test_what_waits_when_the_operator_stops_is_sent_yet() -> None:
    server = Server(slow=0.05)
    asyncio.run(_recorded(server, "a", "b", "c", seconds=0.0))
    assert server.taken == ["a", "b", "c"]


def test_beyond_the_most_that_wait_the_oldest_is_left_out() -> None:
    server = Server()

    async def scenario() -> None:
        made = Recorder(server)  # type: ignore[arg-type]
        for number in range(recorder.MOST + 2):
            made.record(named(str(number)))
        await made.send()

    asyncio.run(scenario())
    assert server.taken == [str(number) for number in range(2, recorder.MOST + 2)]
