"""Whether the operator still sees and still works: /healthz (liveness), /readyz (readiness) and /metrics on one port.

A watch is stale that does not deliver what a plain list shows: the resync compares both. Liveness is this process's own: an API
server that does not answer makes the operator blind, which an alert tells; starting it again would mend nothing.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from maft_operator.cluster.api import FAULTS, Api, Refused
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.scrapes import REFUSALS, Encoded, Exposition, MetricsAuth

RESYNC = 300.0  # seconds between two resyncs, a tenth more or less
GRACE = 60.0  # seconds that a watch may be behind a list, and between two tries at a list that failed
STUCK = 300.0  # seconds for which no look at any run ends, though some are due


class WatchCheck:
    """Compares the watches with the cluster now and then, and recalls every run by the way that is neither over nor due.

    stale: why the watches are not to be trusted though the API server answers; unanswered: that it does not; empty: all is well."""

    def __init__(self, api: Api, keys: Keys, watched: Watched, namespaces: Sequence[str], *, grace: float = GRACE) -> None:
        self._api = api
        self._grace = grace
        self._keys = keys
        self._watched = watched
        self._namespaces: list[str | None] = [*namespaces] or [None]
        self._failed = 0  # lists in a row
        self.stale = ""
        self.unanswered = ""

    @property
    def may_miss_changes(self) -> bool:
        """Whether changes may be missed, for either reason."""
        return bool(self.stale or self.unanswered)

    async def run(self) -> None:
        """Compares until cancelled; more often while changes may be missed."""
        while True:
            await asyncio.sleep(RESYNC * random.uniform(0.9, 1.1))
            await self.look()
            while self.may_miss_changes:
                await asyncio.sleep(self._grace)
                await self.look()

    async def look(self) -> None:
        """Compares once: what the list has and the watch still lacks after a while was not delivered."""
        try:
            before = await self._listed()
            await asyncio.sleep(self._grace)
            after = await self._listed()
        except (Refused, *FAULTS) as error:
            self._failed += 1
            self.stale = ""  # nothing to compare with
            if self._failed > 2:
                self.unanswered = f"the API server has not answered {self._failed} times: {error}"
            return
        self._failed, self.unanswered = 0, ""
        seen = self._watched.versions
        missed = [key for key, version in before.items() if after.get(key) == version and seen.get(key) != version]
        self.stale = f"the watch has not delivered {missed[0]} and {len(missed) - 1} others" if missed else ""
        for key in set(seen) - set(before) - set(after):
            self._watched.gone(key)  # deleted while the watch was away
        for key in set(after) - self._watched.settled:
            self._keys.recall(key, within=RESYNC / 2)

    async def _listed(self) -> dict[str, str]:
        asked = [(kind, namespace) for kind in self._watched.kinds for namespace in self._namespaces]
        lists = await asyncio.gather(*(self._api.versions(kind, namespace) for kind, namespace in asked))
        return {key: version for versions in lists for key, version in versions.items()}


async def measure(metrics: Metrics, queue: Queue, watched: Watched, check: WatchCheck) -> None:
    """Sets the gauges about the operator itself, once a second, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(1)
        metrics.lag.set(max(0.0, loop.time() - before - 1))
        metrics.depth.set(len(queue))
        metrics.age.set(queue.late())
        metrics.blind.set(check.may_miss_changes)
        metrics.watch.set(time.monotonic() - watched.heard)


async def serve(
    port: int,
    alive: Callable[[], str],
    encoded: Encoded,
    auth: MetricsAuth | None,
    tls: ssl.SSLContext | None = None,
) -> web.AppRunner:
    """Serves: /healthz answers 503 where `alive` says why; /readyz 200 as long as we answer at all; /metrics for Prometheus."""
    exposition = Exposition(encoded)

    async def healthz(_: web.Request) -> web.Response:
        reason = alive()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(request: web.Request) -> web.Response:
        if auth and (status := await auth.refusal(request.headers.get("Authorization", ""))):
            return web.Response(status=status, text=f"{REFUSALS[status]}\n")
        body, kind = await exposition.text(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": kind})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, None, port, ssl_context=tls).start()
    return runner
