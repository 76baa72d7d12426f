"""Liveness that fails when the watches are stale, readiness, and who may read /metrics."""

import asyncio
import contextlib
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from conftest import free_port
from kubernetes.aio.client import ApiClient, Configuration
from prometheus_client import CollectorRegistry

from maft_operator.cluster import health, kinds
from maft_operator.cluster.api import Api
from maft_operator.cluster.app import Options, _Operator
from maft_operator.cluster.handlers import Watched
from maft_operator.cluster.images import Images
from maft_operator.cluster.keys import Keys
from maft_operator.cluster.kinds import Kind
from maft_operator.cluster.metrics import Metrics
from maft_operator.cluster.queue import Queue
from maft_operator.cluster.scrapes import MetricsAuth


class Lists:
    """What the API server lists, one answer after the other; the last one stays. An exception is raised."""

    def __init__(self, *answers) -> None:
        self._answers = list(answers)

    async def versions(self, kind: Kind, namespace: str | None) -> dict[str, str]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def look(lists: Lists, seen: dict[str, str], times: int = 1) -> tuple[str, Watched, int]:
    """After so many looks: why the watches are stale, what they have delivered, and how many runs are due."""

    async def scenario():
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        watched = Watched(keys, metrics)
        check = health.WatchCheck(lists, keys, watched, [], grace=0.0)  # type: ignore[arg-type]
        watched.versions.update(seen)
        for _ in range(times):
            await check.look()
        return check.stale, watched, len(queue)

    return asyncio.run(scenario())


def test_a_watch_that_has_what_is_listed_is_not_stale():
    stale, _, due = look(Lists({"a/x": "5"}), {"a/x": "5"})
    assert not stale
    assert due == 1  # and every unfinished run is looked at by the way


def test_a_watch_that_does_not_deliver_a_version_is_stale():
    stale, _, _ = look(Lists({"a/x": "6", "a/y": "1"}), {"a/x": "5", "a/y": "1"})
    assert stale == "the watch has not delivered a/x and 0 others"


class Faulty(Metrics):
    """Cannot make series of what it is shown."""

    def seen(self, key: str, resource: Mapping[str, Any]) -> None:
        raise KeyError("mean")


def test_a_run_of_which_no_series_can_be_made_is_delivered_all_the_same(caplog: pytest.LogCaptureFixture):
    """Else the whole operator would be started again for it, without end."""

    async def scenario():
        queue, metrics = Queue(), Faulty()
        keys = Keys(queue, metrics)
        watched = Watched(keys, metrics)
        watched.run(None, {"metadata": {"namespace": "a", "name": "x", "resourceVersion": "5"}})
        check = health.WatchCheck(Lists({"a/x": "5"}), keys, watched, [], grace=0.0)  # type: ignore[arg-type]
        await check.look()
        return check.stale, len(queue)

    assert asyncio.run(scenario()) == ("", 1)
    assert caplog.messages == ["a/x: it has no series, for its status could not be read"]


def test_what_changes_between_two_lists_is_not_held_against_the_watch():
    stale, _, _ = look(Lists({"a/x": "6"}, {"a/x": "7"}), {"a/x": "5"})
    assert not stale


def test_a_watch_that_delivers_again_is_not_stale():
    stale, _, _ = look(Lists({"a/x": "6"}, {"a/x": "6"}, {"a/x": "5"}), {"a/x": "5"}, times=2)
    assert not stale


def test_runs_that_went_while_the_watch_was_away_are_forgotten():
    _, watched, _ = look(Lists({}), {"a/gone": "5"})
    assert "a/gone" not in watched.versions


def seen_by(lists: Lists, times: int) -> tuple[str, str, bool]:
    """stale, unanswered and whether changes may be missed, after so many looks at a watch that has delivered nothing."""

    async def scenario():
        queue, metrics = Queue(), Metrics()
        keys = Keys(queue, metrics)
        check = health.WatchCheck(lists, keys, Watched(keys, metrics), [], grace=0.0)  # type: ignore[arg-type]
        for _ in range(times):
            await check.look()
        return check.stale, check.unanswered, check.may_miss_changes

    return asyncio.run(scenario())


def test_after_three_failed_lists_in_a_row_the_operator_is_blind_and_not_to_be_restarted():
    failed = OSError("no route")
    assert seen_by(Lists(failed), 2) == ("", "", False)
    assert seen_by(Lists(failed), 3) == ("", "the API server has not answered 3 times: no route", True)


def test_a_watch_that_was_stale_is_not_judged_while_there_is_nothing_to_compare_with():
    assert seen_by(Lists({"a/x": "6"}), 1)[0]
    assert not seen_by(Lists({"a/x": "6"}, {"a/x": "6"}, OSError("no route")), 2)[0]


def test_an_api_server_that_answers_again_is_no_trouble():
    failed = OSError("no route")
    assert seen_by(Lists(failed, failed, failed, {}), 4) == ("", "", False)


OPTIONS = Options(Images("x/maft", "1"), (), "default", "maft-operator", elect=False, port=0, log_format="text", verbose=False)


def test_a_dead_api_server_does_not_fail_liveness_and_a_stuck_loop_does():
    """The operator's own parts, over a port where nobody listens: its looks fail, are tried again, and say nothing of it."""

    async def scenario():
        settings = Configuration(host=f"http://127.0.0.1:{free_port()}")
        async with ApiClient(settings) as client:
            operator = _Operator(Api(client, metrics := Metrics()), metrics, OPTIONS)
            operator.queue.add("ns/run")
            working = asyncio.create_task(operator.workers.run())
            for _ in range(4):
                await operator.check.look()
            while not metrics.registry.get_sample_value("maft_reconcile_errors_total", {"kind": "unreachable"}):
                await asyncio.sleep(0)
            async with served(operator.alive) as url:
                before = await asyncio.to_thread(asked, url)
                question = asyncio.get_running_loop().run_in_executor(None, asked, url, 0.5)
                threading.Event().wait(2)  # on the loop's own thread: whoever asks gets no answer
                during = await question
            working.cancel()
            return operator.check.unanswered, before, during

    unanswered, before, during = asyncio.run(scenario())
    assert "has not answered 4 times" in unanswered
    assert (before, during) == (200, 0)


def asked(url: str, limit: float = 5.0) -> int:
    """The status of /healthz as a kubelet asks for it; 0 where it has to wait longer than its limit, in seconds."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=limit) as answered:
            return answered.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextlib.asynccontextmanager
async def served(alive: str | Callable[[], str] = "", auth=None) -> AsyncIterator[str]:
    registry = CollectorRegistry()
    port = free_port()
    runner = await health.serve(port, alive if callable(alive) else lambda: alive, lambda encode: encode(registry), auth)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def answer(url: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(("alive", "status", "text"), [("", 200, "ok\n"), ("the watch is stale", 503, "the watch is stale\n")])
def test_liveness_says_why(alive, status, text):
    async def scenario():
        async with served(alive) as url:
            assert await answer(f"{url}/healthz") == (status, text)
            assert await answer(f"{url}/readyz") == (200, "ok\n")
            assert (await answer(f"{url}/metrics"))[0] == 200

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def api_of(kubeconfig) -> AsyncIterator[Api]:
    from kubernetes.aio import config

    settings = Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
    async with ApiClient(settings) as client:
        yield Api(client, Metrics())


@pytest.mark.cluster
def test_what_the_resync_lists(maft, namespace):
    """Of no runs, of one, and of more than fit on a page."""

    async def versions(limit: int) -> dict[str, str]:
        async with api_of(maft.kube.kubeconfig) as api:
            return await api.versions(kinds.RUN, namespace, page=limit)

    assert asyncio.run(versions(500)) == {}
    for n in range(3):
        maft.kube.apply(maft.resource(f"listed-{n}", namespace, suspend=True))
    maft.kube.wait(lambda: all(maft.kube.is_true(namespace, f"listed-{n}", "Suspended") for n in range(3)), 60)
    expected = {
        f"{namespace}/{run['metadata']['name']}": run["metadata"]["resourceVersion"]
        for run in maft.kube.list("MultiAgentFinetune", namespace)
    }
    assert len(expected) == 3
    assert asyncio.run(versions(500)) == asyncio.run(versions(2)) == expected


@pytest.mark.cluster
def test_metrics_only_for_those_who_may_get_them(maft):
    """Against the real API server: no token, a wrong one, one without the right, one with it."""
    kube = maft.kube
    names = {"reader": "maft-test-reader", "nobody": "maft-test-nobody"}
    for name in names.values():
        kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}})
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": names["reader"]}}
    binding = {
        **role,
        "kind": "ClusterRoleBinding",
        "subjects": [{"kind": "ServiceAccount", "name": names["reader"], "namespace": "default"}],
    }
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names["reader"]}
    kube.apply({**role, "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}, {**binding, "roleRef": reference})

    def token(name: str) -> str:
        command = [maft.cluster.kubectl, "--kubeconfig", str(kube.kubeconfig), "-n", "default", "create", "token", names[name]]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    async def scenario(tokens: dict[str, str]) -> dict[str, int]:
        async with api_of(kube.kubeconfig) as api, served(auth=MetricsAuth(api)) as url:
            return {name: (await answer(f"{url}/metrics", token_))[0] for name, token_ in tokens.items()}

    codes = asyncio.run(scenario({"none": "", "wrong": os.urandom(8).hex(), "nobody": token("nobody"), "reader": token("reader")}))
    assert codes == {"none": 401, "wrong": 401, "nobody": 403, "reader": 200}
