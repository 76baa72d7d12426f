"""Whether the operator still sees and still works: /healthz (liveness) and /readyz (readiness) on one port.

Blind is who does not get from the watches what a plain list shows: the resync compares both.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from aiohttp import web

from maft_operator.controller import Controller
from maft_operator.handlers import Watched
from maft_operator.kubernetes import FAULTS, Api, Refused

log = logging.getLogger("maft")
RESYNC = 300.0  # seconds between two resyncs, a tenth more or less
GRACE = 60.0  # seconds that a watch may be behind a list, and between two tries at a list that failed
STUCK = 300.0  # seconds that a run may be due without being looked at


class Sight:
    """Compares the watches with the cluster now and then, and wakes every unfinished run by the way."""

    def __init__(self, api: Api, controller: Controller, watched: Watched, namespaces: list[str]) -> None:
        self._api = api
        self._controller = controller
        self._watched = watched
        self._namespaces: list[str | None] = [*namespaces] or [None]
        self._unheard = 0  # lists in a row that failed
        self.blind = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(RESYNC * random.uniform(0.9, 1.1))
            await self.look()
            while self.blind:
                await asyncio.sleep(GRACE)
                await self.look()

    async def look(self) -> None:
        """One comparison: what the list has and the watch still lacks after a while was not delivered."""
        try:
            before = await self._listed()
            await asyncio.sleep(GRACE)
            after = await self._listed()
        except (Refused, *FAULTS) as error:
            self._unheard += 1
            self.blind = f"the API server has not answered {self._unheard} times: {error}" if self._unheard > 2 else self.blind
            return
        self._unheard = 0
        seen = self._watched.versions
        missed = [key for key, version in before.items() if after.get(key) == version and seen.get(key) != version]
        self.blind = f"the watch has not delivered {missed[0]} and {len(missed) - 1} others" if missed else ""
        for key in set(seen) - set(before) - set(after):
            self._watched.gone(key)  # deleted while the watch was away
        for key in set(after) - self._watched.settled:
            self._controller.queue.add(key)

    async def _listed(self) -> dict[str, str]:
        found = await asyncio.gather(*(self._api.versions(namespace) for namespace in self._namespaces))
        return {key: version for versions in found for key, version in versions.items()}


async def serve(port: int, alive: Callable[[], str], ready: Callable[[], str]) -> web.AppRunner:
    """Answers 200 where the function says nothing, else 503 with what it says."""

    def answer(why: Callable[[], str]) -> Callable[[web.Request], "asyncio.Future[web.Response]"]:
        async def handler(_: web.Request) -> web.Response:
            reason = why()
            return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

        return handler  # type: ignore[return-value]

    app = web.Application()
    app.router.add_get("/healthz", answer(alive))
    app.router.add_get("/readyz", answer(ready))
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
