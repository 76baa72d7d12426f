"""Takes the next step of a run's exports: what the plan decides, begun and tidied up; then the rows of `status.exports`.

Called by the controller beside each step of the run, and after its end until all of it is sent or given up.
"""

from datetime import datetime

from maft_operator.cluster import exporting
from maft_operator.cluster.backend import ClusterBackend
from maft_operator.cluster.observed import Snapshot
from maft_operator.plan import exports as plan
from maft_operator.plan.graph import Graph
from maft_operator.spec.schema import Json


async def advance(
    backend: ClusterBackend, graph: Graph, snapshot: Snapshot, status: Json, now: datetime, *, over: bool
) -> list[Json]:
    """Does what is to be done now. status: the run's before; over: it has ended, and has made something."""
    states = {name: export.state for name, export in snapshot.exports.items()}
    decided = plan.decide(graph, snapshot.observed, states, exporting.past(status), over=over)
    for name in decided.delete:
        await backend.delete(name)
    refusals = [refusal for task in decided.create for refusal in await backend.create(task)]
    left = {name: export for name, export in snapshot.exports.items() if name not in decided.delete}
    return exporting.rows(graph, snapshot.observed, left | exporting.begun(decided.create, refusals), status, now)
