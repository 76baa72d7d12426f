"""`kubectl maft logs`: of the pods of a run's tasks or of a comparison's, which are found as the operator finds them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from maft_operator.cluster import kinds
from maft_operator.cluster.children import is_controlled_by, servers_in, tasks_in
from maft_operator.cluster.fields import count, part, text
from maft_operator.cluster.manifests import COMPONENT, ITERATION
from maft_operator.cluster.pod_template import DEBATE, SERVE, TRAIN
from maft_operator.cluster.pods import containers
from maft_operator.cluster.user_api import Unanswered, place
from maft_operator.ended import is_over
from maft_operator.kubectl.asked import Where
from maft_operator.spec.schema import Json

SERVERS = "serve"  # in place of a task: the run's vLLM servers
LOOK = 2.0  # seconds between two looks for new pods
_OURS = (DEBATE, TRAIN, SERVE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which logs of a run or of a comparison."""

    run: str
    task: str = ""
    """A program, or `serve`; empty: all tasks."""
    iteration: int | None = None
    container: str = ""
    """Empty: the program's own."""
    tail: int | None = None
    """Lines of each log, from its end."""
    previous: bool = False
    """Of the start before."""

    def selector(self, label: str) -> str:
        """Returns what the pods' labels are. label: that which names what they belong to."""
        task = {COMPONENT: self.task} if self.task else {}
        iteration = {} if self.iteration is None else {ITERATION: str(self.iteration)}
        return ",".join(f"{key}={value}" for key, value in {label: self.run, **task, **iteration}.items())

    @property
    def kept(self) -> str:
        """Returns the names of such logs in the bucket, as a pattern (docs/formats.md)."""
        return f"{self.task or '*'}-{'*' if self.iteration is None else f'{self.iteration}-[0-9]*T[0-9]*Z-*'}"


@dataclass(frozen=True, slots=True)
class Log:
    """One log of a container. start: how often it was started before."""

    pod: str
    container: str
    start: int


async def logs_of(where: Where, run: Json, wanted: Wanted) -> list[Log]:
    """Lists the logs there are, those of the oldest pod first. Pods that only carry the labels are left out."""
    kind = kinds.DEPLOYMENT if wanted.task == SERVERS else kinds.JOB
    uid = text(run, "metadata", "uid")
    made = [thing for thing in await where.children(kind, f"{where.kind.label}={wanted.run}") if is_controlled_by(thing, uid)]
    children = {kind.name: made, kinds.POD.name: await where.children(kinds.POD, wanted.selector(where.kind.label))}
    names = [text(thing, "metadata", "name") for thing in made]
    owners = servers_in(children, names) if kind == kinds.DEPLOYMENT else tasks_in(children)
    pods = sorted((pod for owner in owners for pod in owner.pods), key=lambda pod: text(pod, "metadata", "creationTimestamp"))
    return [log for pod in pods for log in _logs(pod, wanted)]


def _logs(pod: Json, wanted: Wanted) -> list[Log]:
    chosen = (wanted.container,) if wanted.container else _OURS
    started = [status for status in containers(pod) if text(status, "name") in chosen and _has_log(status, wanted)]
    return [Log(text(pod, "metadata", "name"), text(status, "name"), count(status, "restartCount")) for status in started]


def _has_log(status: Json, wanted: Wanted) -> bool:
    if wanted.previous:
        return count(status, "restartCount") > 0
    return any(key in part(status, "state") for key in ("running", "terminated"))


async def lines(where: Where, log: Log, wanted: Wanted, *, follow: bool = False) -> AsyncIterator[bytes]:
    """Yields the lines of a log."""
    query = {
        "container": log.container,
        **({"follow": "true"} if follow else {}),
        **({"previous": "true"} if wanted.previous else {}),
    }
    query |= {} if wanted.tail is None else {"tailLines": str(wanted.tail)}
    async for line in where.api.lines(f"{place(kinds.POD, where.namespace, log.pod)}/log", query):
        yield line


async def copy(where: Where, several: Sequence[Log], wanted: Wanted) -> None:
    """Writes one log after the other, with a line above each if there are more."""
    for log in several:
        if len(several) > 1:
            _write(f"==> {_named(log)} <==".encode())
        async for line in lines(where, log, wanted):
            _write(line)


async def follow(where: Where, wanted: Wanted) -> None:
    """Writes all of them as they come, each line after its pod's name, until the run has ended; pods that come later as well."""
    followed: dict[Log, asyncio.Task[None]] = {}
    try:
        while True:
            run = await where.run(wanted.run)
            for log in await logs_of(where, run, wanted):
                if log not in followed:
                    followed[log] = asyncio.create_task(_prefixed(where, log, wanted))
            if is_over(run):
                break
            await asyncio.sleep(LOOK)
        await asyncio.gather(*followed.values())
    finally:
        for task in followed.values():
            task.cancel()


async def _prefixed(where: Where, log: Log, wanted: Wanted) -> None:
    try:
        async for line in lines(where, log, wanted, follow=True):
            _write(f"[{_named(log)}] ".encode() + line)
    except Unanswered as error:
        print(f"[{_named(log)}] {error}", file=sys.stderr, flush=True)


def _named(log: Log) -> str:
    return log.pod if log.container in _OURS else f"{log.pod}/{log.container}"


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
