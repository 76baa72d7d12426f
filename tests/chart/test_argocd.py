"""The Argo CD health script of docs/, run by a Lua interpreter over statuses that the operator writes."""

import lupa
import pytest
from installed import ROOT

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


def test_a_change_that_the_operator_has_not_seen_is_progress():
    status = {"conditions": [condition("Complete", "True")], "observedGeneration": 1}
    assert health({"metadata": {"generation": 2}, "status": status})["status"] == "Progressing"


def test_the_page_shows_the_script():
    assert SCRIPT in (ROOT / "docs" / "operations.md").read_text()
