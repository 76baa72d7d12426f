"""Events on their way to the API server: sent one after the other beside the looks, which do not wait for them.

As client-go's recorder: where many runs begin at once, their Jobs come before the words about them.
"""

import asyncio
import logging
from collections import deque

from maft_operator.cluster.api import FAULTS, Api, Refused
from maft_operator.spec.schema import Json

log = logging.getLogger("maft")
MOST = 1000  # Events that wait; beyond it the oldest is left out: the status is the truth
LAST = 2.0  # seconds for those that wait when the operator stops


class Recorder:
    """Sends Events, best effort."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: deque[Json] = deque(maxlen=MOST)
        self._some = asyncio.Event()

    def record(self, event: Json) -> None:
        """Takes an Event that is sent soon."""
        self._waiting.append(event)
        self._some.set()

    async def run(self) -> None:
        """Sends until cancelled, and then what waits still."""
        try:
            while True:
                await self._some.wait()
                await self.send()
        finally:
            await self._send_last()

    async def send(self) -> None:
        """Sends all that wait."""
        while self._waiting:
            event = self._waiting.popleft()
            try:
                await self._create(event)
            except asyncio.CancelledError:
                self._waiting.appendleft(event)  # named after the change, so that sending it twice is harmless
                raise
        self._some.clear()

    async def _send_last(self) -> None:
        try:
            async with asyncio.timeout(LAST):
                await self.send()
        except TimeoutError:
            log.debug("%d Events are left out", len(self._waiting))

    async def _create(self, event: Json) -> None:
        metadata = event["metadata"]
        try:
            await self._api.create(event, metadata["namespace"])
        except (Refused, *FAULTS) as error:
            log.debug("%s: no Event: %s", metadata["name"], error)
