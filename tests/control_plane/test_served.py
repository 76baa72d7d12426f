"""Which kinds are served where the cluster lacks a definition or a right, and how events of another kind than runs travel."""

import asyncio
import logging
from typing import Any

import pytest

from maft_operator.cluster import kinds, rbac
from maft_operator.cluster.api import Refused
from maft_operator.cluster.handlers import Watched, registry
from maft_operator.cluster.keys import Keys, KeyState
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.served import changed, served
from maft_operator.cluster.workers import Workers

BOTH = (kinds.RUN, kinds.SOCIETY)


class Cluster:
    """An API server that knows the second kind after so many questions, and grants all rights but some. An exception is raised."""

    def __init__(self, *answers: bool | Exception, denied: tuple[str, ...] = ()) -> None:
        self._answers = list(answers)
        self._denied = denied

    async def served(self, kind: kinds.Kind, namespace: str | None) -> bool:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def create(self, body: Json, namespace: str | None = None) -> Json:
        asked = body["spec"]["resourceAttributes"]
        return {"status": {"allowed": f"{asked['verb']} {asked['resource']}" not in self._denied}}


def known(cluster: Cluster, *namespaces: str) -> tuple[kinds.Kind, ...]:
    return asyncio.run(served(cluster, BOTH, namespaces))  # type: ignore[arg-type]


def test_what_the_cluster_knows_is_served() -> None:
    assert known(Cluster(True)) == known(Cluster(True), "a", "b") == BOTH


def test_a_definition_that_is_missing_is_told_and_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "maft"):
        assert known(Cluster(False)) == (kinds.RUN,)
    [line] = caplog.messages
    assert "societies.maft.dev" in line and line.endswith("kubectl apply -f crds/societies.yaml")


@pytest.mark.parametrize("denied", ["list societies", "watch societies", "patch societies"])
def test_without_a_right_the_kind_is_not_served(denied: str) -> None:
    assert known(Cluster(True, denied=(denied,))) == (kinds.RUN,)


def test_in_every_namespace_or_not_at_all() -> None:
    assert known(Cluster(True, False), "a", "b") == (kinds.RUN,)


def test_a_definition_that_comes_later_is_noticed() -> None:
    """Also after an API server that did not answer."""

    async def scenario(cluster: Cluster) -> None:
        async with asyncio.timeout(10):
            await changed(cluster, BOTH, (), (kinds.RUN,), again=0.0)  # type: ignore[arg-type]

    asyncio.run(scenario(Cluster(False, OSError("no route"), Refused(403, "not yet"), True)))


def test_where_nothing_is_missing_nobody_asks() -> None:
    async def scenario() -> None:
        cluster = Cluster(AssertionError("asked"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await changed(cluster, BOTH, (), BOTH, again=0.0)  # type: ignore[arg-type]

    asyncio.run(scenario())


def test_only_optional_kinds_may_be_missing() -> None:
    assert [kind for kind in kinds.PARENTS if not kind.optional] == [kinds.RUN]
    assert all(right.optional == kind.optional for kind in kinds.PARENTS for right in rbac.of_parent(kind))


# --- keys and events ---


@pytest.mark.parametrize(
    ("kind", "key"), [(kinds.RUN, "ns/x"), *((kind, f"{kind.plural}/ns/x") for kind in kinds.PARENTS if kind != kinds.RUN)]
)
def test_a_key_says_what_it_names(kind: kinds.Kind, key: str) -> None:
    assert kinds.key(kind, "ns", "x") == key
    assert kinds.addressed(key) == (kind, "ns", "x")


def about(name: str, version: str = "1", **labels: str) -> Json:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": version, "labels": labels}}


def told(*events: Any) -> tuple[list[str], Watched]:
    """The keys that are due after these events, and what is remembered. events: functions of what the watches call."""

    async def scenario() -> tuple[list[str], Watched]:
        queue, metrics = Queue(), Metrics()
        watched = Watched(Keys(queue, metrics), metrics)
        registry(watched, BOTH)
        for event in events:
            event(watched)
        return [await queue.get() for _ in range(len(queue))], watched

    return asyncio.run(scenario())


def test_an_event_of_another_kind_wakes_it_and_no_run_of_its_name() -> None:
    due, watched = told(lambda w: w.parent(kinds.SOCIETY, "ADDED", about("x", "7")))
    assert due == ["societies/ns/x"] and watched.versions == {"societies/ns/x": "7"}


def test_what_belongs_to_another_kind_wakes_that() -> None:
    due, _ = told(lambda w: w.child(about("pod", **{kinds.SOCIETY.label: "x"})["metadata"]))
    assert due == ["societies/ns/x"]


def test_what_is_deleted_is_forgotten() -> None:
    events = [lambda w, e=e: w.parent(kinds.SOCIETY, e, about("x")) for e in ("ADDED", "DELETED")]
    due, watched = told(*events)
    assert due == [] and watched.versions == {}


def test_each_kind_has_its_own_reconciler() -> None:
    """A kind without one is not watched."""

    class Known:
        def __init__(self) -> None:
            self.keys: list[str] = []

        async def look(self, key: str, state: KeyState) -> None:
            self.keys.append(key)

    async def scenario() -> None:
        queue, metrics, runs, others = Queue(), Metrics(), Known(), Known()
        keys = Keys(queue, metrics)
        workers = Workers({kinds.RUN.name: runs, kinds.SOCIETY.name: others}, queue=queue, keys=keys, metrics=metrics)
        for key in ("ns/x", "societies/ns/x"):
            await workers.attempt(key)
        assert (runs.keys, others.keys, workers.kinds) == (["ns/x"], ["societies/ns/x"], BOTH)
        assert Workers({kinds.RUN.name: runs}, queue=queue, keys=keys, metrics=metrics).kinds == (kinds.RUN,)

    asyncio.run(scenario())
