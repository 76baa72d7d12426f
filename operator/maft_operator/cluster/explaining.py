"""Asks for Events about objects that do nothing and that nothing else explains."""

import asyncio
from collections.abc import Mapping

from maft_operator.cluster import kinds
from maft_operator.cluster.api import Api, Refused
from maft_operator.spec.schema import Json

ASKED = 8  # children that are asked about in one look
_EVENTS = "100"  # of one child; Kubernetes writes a few, and counts those that repeat


async def events(api: Api, namespace: str, unexplained: Mapping[str, str]) -> list[Json]:
    """Lists Events about these objects; none without the right to, which is an optional one. unexplained: by uid, the child."""
    selectors = [f"involvedObject.uid={uid}" for uid in list(unexplained)[:ASKED]]
    try:
        lists = await asyncio.gather(*(api.list(kinds.EVENT, namespace, field_selector=s, limit=_EVENTS) for s in selectors))
    except Refused:
        return []
    return [event for events in lists for event in events]
