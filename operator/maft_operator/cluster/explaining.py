"""Asks for Events about objects that do nothing and that nothing else explains."""

import asyncio
import functools
import logging
from collections.abc import Mapping

from maft_operator.cluster import kinds
from maft_operator.cluster.api import Api, Refused
from maft_operator.cluster.kinds import Kind
from maft_operator.spec.schema import Json

log = logging.getLogger("maft")
ASKED = 8  # children that are asked about in one look
_EVENTS = "100"  # of one child; Kubernetes writes a few, and counts those that repeat


async def events(api: Api, namespace: str, unexplained: Mapping[str, str]) -> list[Json]:
    """Lists Events about these objects; none without the right to, which is an optional one, and a line in the log. unexplained: by
    uid, the child."""
    selectors = [f"involvedObject.uid={uid}" for uid in list(unexplained)[:ASKED]]
    try:
        lists = await asyncio.gather(*(api.list(kinds.EVENT, namespace, field_selector=s, limit=_EVENTS) for s in selectors))
    except Refused as error:
        unread(kinds.EVENT, namespace, error)
        return []
    return [event for events in lists for event in events]


def unread(kind: Kind, namespace: str, error: Refused) -> None:
    """Logs, once for a namespace, a missing right to what would explain a wait there."""
    if error.code == 403:
        say_unread(kind, namespace, str(error))


@functools.cache  # each look would say it again
def say_unserved(kind: Kind) -> None:
    """Logs that what would explain a wait is not served in the version that is read here."""
    name = f"{kind.plural}.{kind.group}"
    log.warning("the cluster serves no %s as %s, so it is not told why runs wait in queues; upgrade Kueue", name, kind.version)


@functools.cache  # each look would say it again
def say_unread(kind: Kind, namespace: str, why: str) -> None:
    """Logs that what would explain a wait cannot be read."""
    name = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    hint = "add the verb list to the Role or ClusterRole of the operator's service account"
    log.warning("%s in namespace %s cannot be read, so it is not told why pods there wait: %s; %s", name, namespace, why, hint)
