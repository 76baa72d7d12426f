"""The Argo CD health script of docs/, run by a Lua interpreter over statuses that the operator writes."""

import re
from collections.abc import Callable

import lupa
import pytest
import statuses
import test_comparison_controller as compared
from installed import ROOT
from test_society import AWAY, LATER, NO_NODE, a_deployment, told, wish

from maft_operator.cluster import kinds
from maft_operator.cluster.manifests import Json

SCRIPT = (ROOT / "docs" / "argocd-health.lua").read_text()


def condition(kind: str, status: str, message: str = "because") -> dict:
    return {"type": kind, "status": status, "message": message}


RUNNING = [condition("Accepted", "True"), condition("Progressing", "True"), condition("Failed", "False")]
CASES = {
    "no status yet": (None, "Progressing"),
    "running": (RUNNING, "Progressing"),
    "waiting": ([condition("Accepted", "True"), condition("Progressing", "False")], "Degraded"),
    "rejected": ([condition("Accepted", "False")], "Degraded"),
    "failed": ([*RUNNING[:1], condition("Progressing", "False"), condition("Failed", "True")], "Degraded"),
    "complete": ([*RUNNING[:1], condition("Progressing", "False"), condition("Complete", "True")], "Healthy"),
    "suspended": ([*RUNNING[:1], condition("Progressing", "False"), condition("Suspended", "True")], "Suspended"),
}


def health(resource: dict) -> dict:
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(resource, recursive=True)
    return dict(lua.execute(SCRIPT))


@pytest.mark.parametrize("name", CASES)
def test_health(name):
    conditions, expected = CASES[name]
    status = {} if conditions is None else {"status": {"conditions": conditions, "phase": "Debating", "observedGeneration": 1}}
    verdict = health({"metadata": {"generation": 1}, **status})
    assert verdict["status"] == expected
    assert verdict["message"]


# --- whole statuses, as the operator makes them ---


def verdict(status: Json) -> tuple[str, str]:
    made = health({"metadata": {"generation": status["observedGeneration"]}, "status": status})
    return made["status"], made["message"]


@pytest.mark.parametrize("name", statuses.CASES)
def test_health_of_a_run(name: str) -> None:
    """As kstatus has it: what goes on, what failed or waits for somebody, what is over."""
    whole = statuses.CASES[name][0]
    conditions = {c["type"]: c["status"] for c in whole["conditions"]}
    over = "Healthy" if conditions["Complete"] == "True" else "Suspended"
    expected = "Degraded" if conditions["Stalled"] == "True" else "Progressing" if conditions["Reconciling"] == "True" else over
    assert verdict(whole)[0] == expected and verdict(whole)[1]


def ended(server: compared.Server, phase: str) -> None:
    compared.looked(server)
    server.end(next(iter(server.runs)), phase)
    compared.looked(server)


def complete(server: compared.Server) -> None:
    ended(server, "Complete")
    server.finish_job(compared.CompareSummary(table="method  accuracy\n", report="there", methods=1))
    compared.looked(server)


def stopped(server: compared.Server) -> None:
    compared.looked(server)
    server.change(suspend=True)
    compared.looked(server)


def refused(server: compared.Server) -> None:
    server.change(methods=["no-such"])
    compared.looked(server)


@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        (compared.looked, "Progressing"),
        (lambda server: ended(server, "Failed"), "Degraded"),
        (complete, "Healthy"),
        (stopped, "Suspended"),
        (refused, "Degraded"),
    ],
)
def test_health_of_a_comparison(happens: Callable[[compared.Server], object], expected: str) -> None:
    server = compared.Server(methods=["base"], seeds=1)
    happens(server)
    assert verdict(server.status)[0] == expected and verdict(server.status)[1]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (told(LATER), "Progressing"),
        (told(AWAY), "Degraded"),
        (told(wish(), a_deployment(0)), "Progressing"),
        (told(wish(), a_deployment(0), NO_NODE), "Degraded"),
        (told(wish(), a_deployment(1)), "Healthy"),
        (told(wish(), a_deployment(1, 2), replicas=2), "Progressing"),
        (told(AWAY, a_deployment(1)), "Degraded"),
        (told(wish(), a_deployment(1, 0, total=1), replicas=0), "Progressing"),
        (told(wish(), a_deployment(0, 0), replicas=0), "Suspended"),
    ],
)
def test_health_of_a_society(status: Json, expected: str) -> None:
    assert verdict(status)[0] == expected and verdict(status)[1]


def test_the_script_names_every_kind() -> None:
    named = re.findall(r"resource\.customizations\.health\.(\S+?)_(\w+)", SCRIPT)
    assert named == [(kind.group, kind.name) for kind in (kinds.RUN, kinds.COMPARISON, kinds.SOCIETY)]


def test_a_change_that_the_operator_has_not_seen_is_progress():
    status = {"conditions": [condition("Complete", "True")], "observedGeneration": 1}
    assert health({"metadata": {"generation": 2}, "status": status})["status"] == "Progressing"


def test_the_page_shows_the_script():
    assert SCRIPT in (ROOT / "docs" / "operations.md").read_text()
