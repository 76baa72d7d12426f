"""The agents' servers as the society asks them: found, waited for, and watched, for as long as it runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from maft import models
from maft.answers.equality import Checker
from maft.debate import limits, vectors
from maft.debate.engine import HttpEngine
from maft.debate.setup import Setup
from maft.endpoint.admission import Admission
from maft.endpoint.answering import Society
from maft.endpoint.app import Endpoint
from maft.endpoint.served import Served
from maft.endpoint.upstream import Upstream
from maft.errors import one_line
from maft.program import Assignment

AWAY = 20.0  # seconds that a request waits for a server that is away
LOOK = 2.0  # seconds between two looks at the servers
MISSED = 3  # looks without an answer after which a server counts as away


async def answer(assignment: Assignment, served: Served, endpoint: Endpoint) -> None:
    """Gives the endpoint its society once every adapter has answered, and tells it whenever that changes, until cancelled.

    BadInput if a server refuses an adapter for good."""
    spec, players = assignment.spec, served.players
    template = await asyncio.to_thread(models.chat_template, spec.model, spec.debate.thinking)
    own = await asyncio.to_thread(models.own_templates, spec, players.size)
    alike = await asyncio.to_thread(vectors.likeness, assignment, served.rules.answer)
    clients = 2 * endpoint.spec.max_concurrent_debates  # connections that are open while their requests are answered, and idle ones
    connections = limits.connections(limits.open_files() - clients, players.size)
    async with (
        HttpEngine(assignment.servers, AWAY, key=assignment.key, connections=connections) as engine,
        Upstream(assignment.servers, assignment.key, connections) as upstream,
    ):
        with Checker(served.rules.answer) as checker, ThreadPoolExecutor(checker.workers) as judge:
            while True:
                contexts = await _ready(engine, served, endpoint.admission)
                setup = Setup(served.rules, players, engine, template, checker, contexts, judge, own, alike)
                endpoint.society = Society(spec, served, setup, upstream)
                endpoint.admission.set_ready()
                await _away(upstream)
                endpoint.admission.set_ready("the server of the agents is away")


async def _ready(engine: HttpEngine, served: Served, admission: Admission) -> dict[str, int]:
    """Waits until every adapter has answered; returns the contexts, by server."""
    players = served.players
    while True:
        try:
            return {name: await engine.ready(name, players.on(name)) for name in dict.fromkeys(players.servers)}
        except OSError as error:
            admission.set_ready(f"the agents do not answer yet: {one_line(error, 300)}")
            await asyncio.sleep(LOOK)


async def _away(upstream: Upstream) -> None:
    """Waits until a server has missed several looks in a row."""
    missed = 0
    while missed < MISSED:
        await asyncio.sleep(LOOK)
        missed = 0 if await upstream.healthy() else missed + 1
