"""From the objects of a run to one frozen Snapshot: states of tasks and servers, summaries, troubles. Pure.

In: a run's children by kind and, for those that nothing else explains, Events. Nothing is remembered. pods.py reads single pods.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain

from maft.summaries import AnySummary
from maft_operator.cluster import exporting, indexes, jobs, placement, pods, reasons, spent, why
from maft_operator.cluster.children import Child, servers_in, tasks_in
from maft_operator.cluster.event_troubles import troubles_in
from maft_operator.cluster.exporting import Export
from maft_operator.cluster.fields import condition, count, is_true, part, seconds, text, time, true_condition
from maft_operator.cluster.images import Pins
from maft_operator.cluster.placement import Places
from maft_operator.cluster.pods import is_terminating
from maft_operator.cluster.reasons import Trouble
from maft_operator.plan.graph import Graph
from maft_operator.plan.step import Observed, ServerState, TaskState
from maft_operator.spec.schema import Json


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as the cluster shows it at one moment."""

    observed: Observed = field(default_factory=Observed)
    summaries: Mapping[str, AnySummary] = field(default_factory=dict)
    """By task that ended well, as long as its pod is there."""
    troubles: tuple[Trouble, ...] = ()
    """What keeps tasks and servers from going on."""
    ended: Mapping[str, Trouble] = field(default_factory=dict)
    """By child that failed: why."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By task: how long it took, or has been running."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """By running task: URL of its metrics."""
    unexplained: Mapping[str, str] = field(default_factory=dict)
    """By uid of an object that does nothing and does not say why: the child it belongs to. Its Events may say more."""
    pins: Pins = field(default_factory=Pins)
    """The images that the run uses."""
    model_bytes: int = 0
    """Of the base model's weights; 0: not known."""
    server_key: str = ""
    """Name of the Secret with the key of its servers, if they want one."""
    places: Places = field(default_factory=Places)
    """How servers stand with nodes."""
    gpus: int = 0
    """Held by its pods."""
    exports: Mapping[str, Export] = field(default_factory=dict)
    """By task: what became of exports, which stand beside all else."""
    passing: bool = False
    """Something should end soon. No event tells that it does not."""

    def with_troubles(self, more: Iterable[Trouble]) -> "Snapshot":
        """Adds troubles that count less than those that are there."""
        return replace(self, troubles=(*self.troubles, *more))


def read(
    graph: Graph,
    children: Mapping[str, Sequence[Json]],
    now: datetime,
    missing: datetime | None = None,
    crowded: datetime | None = None,
    gpu_resource: str = "",
) -> Snapshot:
    """Reads a run from its objects by kind, Pods included. missing: since when servers that were given back lack nodes; crowded:
    since when debates lack room beside them. gpu_resource: what GPUs are called where the run does not say."""
    tasks, beside = exporting.apart(tasks_in(children), graph)
    servers = servers_in(children, (server.name for server in graph.servers))
    ended = {t.name: jobs.end(t, now) for t in tasks if jobs.has_failed(t, now)}
    states = {t.name: jobs.state(t, ended.get(t.name), now) for t in tasks}
    limit = _limit(graph)
    ready = all(s.made and is_ready(s.made) for s in servers)
    alone = ready and _alone(graph, tasks, states, now=now, since=crowded)
    late = {s.name: _lonely(s, limit) if alone else _overdue(s, tasks, limit, now, missing) for s in servers}
    over = {s.name: end for s in servers if (end := late[s.name] or _evicted(s, graph.backoff_limit))}
    server_states = {s.name: _server_state(s, over.get(s.name), graph.backoff_limit) for s in servers}
    running = [t for t in tasks if states[t.name].status == "running"]
    waiting = [*chain.from_iterable((*(jobs.troubles(t, now) for t in running), *(troubles_of_server(s, now) for s in servers)))]
    return Snapshot(
        observed=Observed(states, server_states),
        summaries={t.name: s for t in tasks if (s := indexes.summary(t.pods)) is not None},
        troubles=(*waiting, *(why.runs_on(t.name, pod) for t in tasks if (pod := jobs.running_on(t, now)))),
        ended={**ended, **{s.name: _end_of_server(s) for s in servers if _worst(s)}, **over},
        seconds={t.name: jobs.taken(t.object, now) for t in tasks if time(t.object, "status", "startTime")},
        metrics={name: url for t in running for name, url in indexes.metrics_urls(t.name, t.pods).items()},
        unexplained=unexplained(running, servers, waiting, now),
        places=placement.places(
            (pod for s in servers for pod in s.pods), now, (s.made for s in servers if s.made and not is_ready(s.made))
        ),
        gpus=spent.held(graph, (*tasks, *servers), gpu_resource),
        exports=exporting.read(beside, now),
        passing=any(is_terminating(pod) or pods.runs_on(pod) for child in (*tasks, *servers) for pod in child.pods),
    )


def explained(snapshot: Snapshot, events: Iterable[Json]) -> Snapshot:
    """Adds what Events say about objects that say nothing themselves."""
    return replace(snapshot, troubles=(*troubles_in(events, snapshot.unexplained), *snapshot.troubles))


# --- servers ---


def _server_state(server: Child, over: Trouble | None, limit: int) -> ServerState:
    """Without a Deployment the server counts as there, and as to be created anew.

    over: why it is not waited for any longer. limit: of failures."""
    if server.made is None:
        return ServerState(ready=False, failed=True)
    if over:
        return ServerState(False, True, limit + 1, 0, over.message)
    worst = _worst(server)
    if worst is None:
        return ServerState(is_ready(server.made), queued=not is_ready(server.made) and _is_queued(server))
    message = pods.last_words(worst) or "its container ended"
    return ServerState(is_ready(server.made), True, pods.failures(worst), pods.exit_code(worst), message)


def _is_queued(server: Child) -> bool:
    return any(pods.is_gated(pod) for pod in server.pods if not is_terminating(pod))


def is_ready(deployment: Json) -> bool:
    """Tells whether all replicas are there and of the newest template."""
    replicas = count(deployment, "spec", "replicas") if "replicas" in part(deployment, "spec") else 1
    current = count(deployment, "status", "observedGeneration") >= count(deployment, "metadata", "generation")
    return current and all(count(deployment, "status", key) >= replicas for key in ("updatedReplicas", "availableReplicas"))


def _limit(graph: Graph) -> int:
    """Seconds that a stage may take; 0: for ever."""
    return graph.tasks[0].run.spec.active_deadline_seconds or 0


def _overdue(server: Child, tasks: Iterable[Child], limit: int, now: datetime, missing: datetime | None) -> Trouble | None:
    """Whether a stage waits for its servers longer than it may take: without a Job there is none whose time runs."""
    if not limit or server.made is None or any(map(pods.is_gated, server.pods)):  # what a queue holds back, a Job may wait for, too
        return None
    available = condition(server.made, "Available")
    since = time(available, "lastTransitionTime") or time(server.made, "metadata", "creationTimestamp") or now
    ends = [time(t.object, "status", "completionTime") or now for t in tasks]  # of one that runs: it begins to wait then
    began = [at for pod in server.pods if (at := time(pod, "status", "startTime"))]  # before that, a queue may have held them
    waited = (now - max([*([missing] if missing else [since, *sorted(began)[:1]]), *ends])).total_seconds()
    if text(available, "status") == "True" or is_ready(server.made) or waited <= limit:
        return None
    why_ = [t.message for t in troubles_of_server(server, now)][:1]
    return Trouble(
        server.name, reasons.DEADLINE_EXCEEDED, ": ".join([f"not ready within spec.activeDeadlineSeconds ({limit} s)", *why_])
    )


def _alone(graph: Graph, tasks: Iterable[Child], states: Mapping[str, TaskState], *, now: datetime, since: datetime | None) -> bool:
    """Whether a debate waits for room beside the servers now, as others have since then for longer than a stage may take, and no
    queue holds it back: its Job is made anew each time that they are. Where the last one ended, one had room."""
    limit, askers = _limit(graph), graph.askers
    debates = [task for task in tasks if task.name in askers]
    waiting = [task for task in debates if states[task.name].status == "running" and states[task.name].waits]
    if not limit or since is None or not waiting or any(is_true(task.object, "spec", "suspend") for task in waiting):
        return False
    ends = [at for task in debates if (at := time(task.object, "status", "completionTime"))]
    return (now - max([since, *ends])).total_seconds() > limit


def _lonely(server: Child, limit: int) -> Trouble:
    words = f"no debate found room beside it within spec.activeDeadlineSeconds ({limit} s)"
    return Trouble(server.name, reasons.DEADLINE_EXCEEDED, words)


def _evicted(server: Child, limit: int) -> Trouble | None:
    """Whether more of its pods took more than their own limits than attempts are left: in their place others come, for ever. Those
    before it was available last do not count, as ends after a long life do not. limit: of failures."""
    since = time(condition(server.made, "Available"), "lastTransitionTime")
    too_much = [pod for pod in server.pods if pods.took_too_much(pod) and not is_terminating(pod) and not _ended_before(pod, since)]
    over = server.made is not None and not is_ready(server.made) and len(too_much) > limit
    return why.rejected(server.name, too_much) if over else None


def _ended_before(pod: Json, since: datetime | None) -> bool:
    end = time(pods.ending(pods.ours(pod)), "finishedAt")
    return bool(since and end and end < since)


def _worst(server: Child) -> Json | None:
    return max(filter(pods.is_broken, server.pods), key=pods.restarts, default=None)


def _end_of_server(server: Child) -> Trouble:
    worst = _worst(server)
    assert worst is not None  # it has failures
    return why.failure(server.name, worst, reasons.CRASH_LOOP)


# --- why something does not go on ---


def troubles_of_server(server: Child, now: datetime) -> list[Trouble]:
    """Says what its pods wait for or died of, and who does not let them end; failed pods count only until another one is ready."""
    lost = [why.lost(server.name, pod) for pod in server.pods if pods.is_lost(pod, now)][-1:]
    if server.made is None or is_ready(server.made):
        return [] if server.made else lost  # what is left of it goes
    if refused := true_condition(server.made, "ReplicaFailure"):
        message = text(refused, "message")
        return [Trouble(server.name, reasons.text_reason(message), message)]
    there = [pod for pod in server.pods if not is_terminating(pod)]
    troubles = [*lost, *(t for pod in there if (t := why.waiting(server.name, pod, now)))]
    troubles += [why.failure(server.name, pod, reasons.CRASH_LOOP) for pod in there if pods.is_broken(pod)]
    troubles += [t for pod in there if not troubles and (t := why.unready(server.name, pod, now))]
    if is_true(server.made, "spec", "paused") and not there:
        troubles.append(Trouble(server.name, reasons.POD_STUCK, f"Deployment {server.name} is paused: kubectl rollout resume"))
    failed = [pod for pod in there if pods.has_failed(pod)]
    ready = count(server.made, "status", "availableReplicas")
    return troubles if troubles or ready or not failed else [why.rejected(server.name, failed)]


def unexplained(running: Sequence[Child], servers: Sequence[Child], troubles: Iterable[Trouble], now: datetime) -> dict[str, str]:
    """Lists Jobs and Deployments that lack a pod, and pods that should have started; only where nothing else says why."""
    clear = (t for t in troubles if t.reason is not reasons.PEERS_MISSING)  # an Event may say what keeps them away
    troubled = {t.child for t in clear if t.blocking or t.reason in (reasons.UNSCHEDULABLE, reasons.QUEUED)}
    made = [(t.object, t) for t in running if not is_true(t.object, "spec", "suspend") and jobs.lacks_pods(t)]
    made += [(s.made, s) for s in servers if s.made and not s.pods and _is_old(s.made, now)]
    made += [(pod, c) for c in (*running, *servers) for pod in c.pods if pods.is_unexplained(pod, now) and not is_terminating(pod)]
    return {uid: child.name for thing, child in made if child.name not in troubled and (uid := text(thing, "metadata", "uid"))}


def _is_old(thing: Json, now: datetime) -> bool:
    return seconds(thing, "metadata", "creationTimestamp", until=now) > pods.PATIENCE
