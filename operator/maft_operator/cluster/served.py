"""Which parent kinds this operator serves: runs, and each other one that the cluster knows and whose rights are there.

Definitions may be upgraded before the operator or after it. What is missing is told in the log and looked for again, and what comes
later is served from then on.
"""

import asyncio
import logging
from collections.abc import Sequence

from maft_operator.cluster import rbac
from maft_operator.cluster.api import FAULTS, Api, Refused
from maft_operator.cluster.kinds import Kind

log = logging.getLogger("maft")
AGAIN = 60.0  # seconds between two looks for kinds that were missing
_MISSING = "the cluster does not know %s.%s, or may not be asked for it: going on without; kubectl apply -f crds/%s.yaml"


async def served(api: Api, wanted: Sequence[Kind], namespaces: Sequence[str]) -> tuple[Kind, ...]:
    """Lists which of these kinds can be watched, and says once which cannot."""
    there = await _there(api, wanted, namespaces)
    for kind in wanted:
        if kind not in there:
            log.warning(_MISSING, kind.plural, kind.group, kind.plural)
    return there


async def changed(
    api: Api, wanted: Sequence[Kind], namespaces: Sequence[str], before: Sequence[Kind], *, again: float = AGAIN
) -> None:
    """Returns once the cluster knows a kind that it lacked; never, where none was missing."""
    while True:
        await asyncio.sleep(again)
        lacking = [kind for kind in wanted if kind not in before]
        try:
            if lacking and await _there(api, lacking, namespaces):
                return
        except (Refused, *FAULTS):
            continue  # the API server is away: another look will tell


async def _there(api: Api, wanted: Sequence[Kind], namespaces: Sequence[str]) -> tuple[Kind, ...]:
    usable = [(kind, [await _usable(api, kind, namespace) for namespace in namespaces or (None,)]) for kind in wanted]
    return tuple(kind for kind, everywhere in usable if all(everywhere))


async def _usable(api: Api, kind: Kind, namespace: str | None) -> bool:
    """Runs are: whether they can be watched was asked as the operator started."""
    if not kind.optional:
        return True
    return not await rbac.missing(api, rbac.of_parent(kind), namespace) and await api.served(kind, namespace)
