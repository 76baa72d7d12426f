"""What a look ends with: one write of the status where something changed, then the change in log, metrics and Events."""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime

from maft_operator.cluster import conditions, kinds, reasons
from maft_operator.cluster.api import Api
from maft_operator.cluster.events import event, warning
from maft_operator.cluster.fields import part
from maft_operator.cluster.keys import KeyState
from maft_operator.cluster.logged import about
from maft_operator.cluster.looks import expiry
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.reasons import Reason
from maft_operator.cluster.recorder import Recorder
from maft_operator.spec.schema import Json

log = logging.getLogger("maft")
WRITE = 5.0  # seconds between two status writes where only progress moved
_UNSEEN = {"observedGeneration": -1}  # the definition's default, for kstatus


class Writer:
    """Writes statuses of runs, and of objects of other parent kinds."""

    def __init__(self, api: Api, metrics: Metrics, recorder: Recorder) -> None:
        self._api = api
        self._metrics = metrics
        self._recorder = recorder

    async def write(self, resource: Json, new: Json, state: KeyState) -> float | None:
        """Writes the status once, if anything changed; returns seconds to wait where only progress did, and too soon."""
        old = own_status(resource)
        if old == new:
            return None
        clock = asyncio.get_running_loop().time()
        if not conditions.important(old, new) and clock - state.written_at < WRITE:
            return state.written_at + WRITE - clock
        written = await self.apply(resource, new, state)
        state.written_at = clock
        if written:
            self._tell(resource, old, new)
        return None

    async def apply(self, resource: Json, status: Json, state: KeyState) -> Json | None:
        """Applies the status; the resource as it is then, or None if it has gone."""
        metadata = {key: resource["metadata"][key] for key in ("name", "namespace", "uid")}
        body = {"apiVersion": resource["apiVersion"], "kind": resource["kind"], "metadata": metadata, "status": status}
        written = await self._api.apply_status(body)
        same = written is not None and written["metadata"].get("generation") == resource["metadata"].get("generation")
        # Where somebody has changed the spec meanwhile, what was decided is of the one before: it is looked at again.
        state.written = written["metadata"]["resourceVersion"] if written and same else ""
        state.seen = replace(state.seen, resource=slim(written)) if written and same and state.seen else None
        return written

    async def block(self, resource: Json, reason: Reason, message: str, state: KeyState) -> None:
        """Writes, if that at least is allowed, that nothing goes on, and why."""
        old, generation = own_status(resource), resource["metadata"].get("generation", 0)
        await self.write(resource, conditions.blocked(reason, message, old, generation, datetime.now(UTC)), state)

    async def refuse(self, resource: Json, message: str, state: KeyState, *, begun: Reason) -> None:
        """Rejects what cannot be read and has not begun; what has keeps all it has, and waits. begun: for what reason."""
        old, generation = own_status(resource), resource["metadata"].get("generation", 0)
        if has_begun(old):
            await self.block(resource, begun, message, state)
            return
        new = conditions.rejected(reasons.INVALID_SPEC, message, old, generation, datetime.now(UTC))
        await self.write(resource, new, state)

    async def expire(self, resource: Json) -> float | None:
        """Removes an object that has ended once its spec.ttlSecondsAfterFinished is over; returns seconds until then, or None."""
        left = expiry(own_status(resource), resource.get("spec", {}).get("ttlSecondsAfterFinished"), datetime.now(UTC))
        if left is None or left > 0:
            return left
        metadata, key = resource["metadata"], key_of(resource)
        log.info("%s: removed, spec.ttlSecondsAfterFinished is over", key, extra=about(key, "Expired"))
        await self._api.delete(kinds.named(resource["kind"]), metadata["namespace"], metadata["name"], metadata["uid"])
        return None

    def _tell(self, resource: Json, old: Json, new: Json) -> None:
        """Says what changed: in the log, in the metrics, as Events."""
        key = key_of(resource)
        for condition in conditions.transitions(old, new):
            self._metrics.transitions.labels(condition["type"], condition["status"], condition["reason"]).inc()
            values = [condition[key] for key in ("type", "status", "reason", "message")]
            fields = about(key, condition["reason"], condition=condition["type"], status=condition["status"])
            log.info("%s: %s=%s %s: %s", key, *values, extra=fields)
            self._recorder.record(event(resource, condition, datetime.now(UTC)))
        for line in conditions.warned(old, new):
            made = warning(resource, line, datetime.now(UTC))
            log.info("%s: warning: %s", key, line, extra=about(key, made["reason"]))
            self._recorder.record(made)


def key_of(resource: Json) -> str:
    """Names the object as the queue does."""
    return kinds.key(kinds.named(resource["kind"]), resource["metadata"]["namespace"], resource["metadata"]["name"])


def has_begun(old: Json) -> bool:
    """Tells from the status whether the object was accepted once, by whichever release."""
    return "startTime" in old


def own_status(resource: Json) -> Json:
    """Reads the status; empty where no operator has written one yet."""
    status = part(resource, "status")
    return {} if status == _UNSEEN else status


def slim(resource: Json) -> Json:
    """Leaves out who set which field: half of what would be remembered of a run."""
    return {**resource, "metadata": {k: v for k, v in resource["metadata"].items() if k != "managedFields"}}
