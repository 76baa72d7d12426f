"""Serves the page on the loopback address, and what tells a kubelet that it is there on another port.

Who may look is the cluster's to decide: `kubectl port-forward` reaches this address through the API server, which knows the user
and asks its rules (`create` on `pods/portforward`); nothing else does. Names of other hosts are refused: a web page of somebody
else's may point one at the loopback address.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from aiohttp import web

from maft_operator.cluster import kinds
from maft_operator.cluster.fields import parts, text
from maft_operator.cluster.user_api import Unanswered, UserApi, place
from maft_operator.page import others
from maft_operator.page.others import ShownComparison, ShownSociety
from maft_operator.page.reports import Reader, passed_on
from maft_operator.page.shown import Shown, shown
from maft_operator.page.view import COMPARISONS, HEADERS, RUNS, page
from maft_operator.spec.schema import Json

LOOPBACK = "127.0.0.1"
PAGE = 20  # objects of one answer, which may have the 1.5 MiB that etcd takes: UserApi reads no more than 32 MiB
FRESH = 5.0  # seconds for which a list holds, however many look
_NOT_SHOWN = (403, 404)
T = TypeVar("T")
_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class Looked:
    """What lies in some namespaces, or in all, as it was at the last look. fault: why there was none since."""

    def __init__(
        self,
        api: UserApi,
        namespaces: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        reader: Reader | None = None,
    ) -> None:
        """reader: of reports that the page shows itself; None: it shows none."""
        self._api, self._clock, self.reader = api, clock, reader
        self._readable = reader.readable if reader else None
        self._namespaces = namespaces or ("",)
        self._lock = asyncio.Lock()
        self._looked: float | None = None
        self.runs: list[Shown] = []
        self.comparisons: list[ShownComparison] = []
        self.societies: list[ShownSociety] = []
        self.fault = ""

    async def look(self) -> None:
        """Lists them, unless somebody did a moment ago."""
        async with self._lock:
            if self._looked is not None and self._clock() - self._looked < FRESH:
                return
            try:
                self.runs = await self._all(kinds.RUN, partial(shown, readable=self._readable))
                self.comparisons = await self._known(kinds.COMPARISON, partial(others.comparison, readable=self._readable))
                self.societies = await self._known(kinds.SOCIETY, others.society)
                self.fault = ""
            except Unanswered as error:
                self.fault = str(error)
            self._looked = self._clock()

    async def _known(self, kind: kinds.Kind, read: Callable[[Json], T]) -> list[T]:
        """Those that the cluster knows and shows: definitions may be older, and not everybody may list all kinds."""
        try:
            return await self._all(kind, read)
        except Unanswered as error:
            if error.code in _NOT_SHOWN:
                return []
            raise

    async def _all(self, kind: kinds.Kind, read: Callable[[Json], T]) -> list[T]:
        return [thing for namespace in self._namespaces for thing in await self._list(kind, namespace, read)]

    async def _list(self, kind: kinds.Kind, namespace: str, read: Callable[[Json], T]) -> list[T]:
        things: list[T] = []
        query = {"limit": str(PAGE)}
        while True:
            answer = await self._api.json(place(kind, namespace), query)
            things += map(read, parts(answer, "items"))
            if not (token := text(answer, "metadata", "continue")):
                return things
            query = {"limit": str(PAGE), "continue": token}


@web.middleware
async def _from_here(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    if request.host.rpartition(":")[0] not in _HOSTS and request.host not in _HOSTS:
        return web.Response(status=403, text="this page is for localhost, by kubectl port-forward\n", headers=HEADERS)
    return await handler(request)


def app(looked: Looked) -> web.Application:
    """Makes the server of the page: this one document, files of reports that it may read, and nothing else."""

    async def document(_: web.Request) -> web.Response:
        await looked.look()
        status = 502 if looked.fault and not looked.runs else 200
        body = page(looked.runs, looked.fault, datetime.now(UTC), looked.comparisons, looked.societies)
        return web.Response(status=status, text=body, content_type="text/html", headers=HEADERS)

    async def report(things: Callable[[], Sequence[Shown | ShownComparison]], request: web.Request) -> web.StreamResponse:
        await looked.look()
        return await _file(looked.reader, things(), request)

    made = web.Application(middlewares=[_from_here])
    name = "/{namespace}/{name}/{file:[a-z.]+}"
    made.router.add_get("/", document)
    of_runs, of_comparisons = partial(report, lambda: looked.runs), partial(report, lambda: looked.comparisons)
    for begin, of in ((RUNS, of_runs), (COMPARISONS, of_comparisons)):
        made.router.add_get(begin + name, of, allow_head=False)  # what is passed on has a body, which an answer to HEAD may not
    return made


async def _file(reader: Reader | None, things: Sequence[Shown | ShownComparison], request: web.Request) -> web.StreamResponse:
    asked = request.match_info
    folders = (one.folder for one in things if (one.namespace, one.name) == (asked["namespace"], asked["name"]))
    path = next(folders, "") + asked["file"]
    if reader is None or not reader.readable.allows(path):
        return web.Response(status=404, text="no file of a report that this page may read\n", headers=HEADERS)
    return await passed_on(reader, path, request)


def health() -> web.Application:
    """Makes the server for probes: it says that the process is there, and nothing of any run."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    made = web.Application()
    made.add_routes([web.get("/healthz", healthz)])
    return made


@asynccontextmanager
async def listening(made: web.Application, host: str | None, port: int) -> AsyncIterator[int]:
    """Serves it as long as the block lasts, and says on which port."""
    runner = web.AppRunner(made, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
