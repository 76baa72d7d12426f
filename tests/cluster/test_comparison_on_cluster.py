"""A comparison on the real cluster: three methods with two seeds as one resource, equal to `maft compare` of the same file."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from installed import BUCKET, Installed
from kube import RUNS, Json
from kubernetes.dynamic.exceptions import UnprocessibleEntityError
from small import MOCK

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
LIMIT = 900.0  # seconds for six small runs, three at a time, on two busy cores
KIND, NAME = "MultiAgentComparison", "methods"
METHODS = ["base", "debate", "multiagent"]


def comparison(maft: Installed, namespace: str, *, latency: float = 0.0, template: Json | None = None, **spec: Any) -> Json:
    run = maft.resource(NAME, namespace, iterations=1, agents=2, **maft.mocked(latency), **(template or {}))
    whole = {"template": run["spec"], "methods": METHODS, "seeds": 2, "maxParallel": 3, **spec}
    return {**run, "kind": KIND, "spec": whole}


def status(maft: Installed, namespace: str) -> Json:
    return (maft.kube.get(KIND, namespace, NAME) or {}).get("status") or {}


def condition(maft: Installed, namespace: str, kind: str) -> Json:
    return next((c for c in status(maft, namespace).get("conditions", ()) if c["type"] == kind), {})


def explained(maft: Installed, namespace: str) -> str:
    runs = {run["metadata"]["name"]: run.get("status", {}).get("conditions") for run in maft.kube.list(RUNS, namespace)}
    return yaml.safe_dump([status(maft, namespace), runs]) + maft.operator_log()


def table(maft: Installed, namespace: str) -> list[Json]:
    """The rows without what a clock says."""
    rows = json.loads(maft.read(f"runs/{namespace}/{NAME}/compare/compare.json"))["rows"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def compared_here(maft: Installed, folder: Path, **spec: Any) -> tuple[list[Json], str]:
    """What `maft compare` makes of the same file on this machine, into the same bucket."""
    namespace = f"compared-{maft.tag.rpartition('-')[2]}"
    (folder / "comparison.yaml").write_text(yaml.safe_dump(comparison(maft, namespace, **spec)))
    keys = {"AWS_ACCESS_KEY_ID": maft.cluster.s3_access_key, "AWS_SECRET_ACCESS_KEY": maft.cluster.s3_secret_key}
    command = [sys.executable, "-m", "maft_operator", "compare", "comparison.yaml", "--serve", f"{sys.executable} {MOCK}"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **keys}, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return table(maft, namespace), done.stdout


@pytest.mark.parametrize(("methods", "seeds"), [(METHODS[:2], 1), pytest.param(METHODS, 2, marks=pytest.mark.nightly)])
def test_methods_and_seeds_as_a_resource_equal_maft_compare(
    maft: Installed, namespace: str, tmp_path: Path, methods: list[str], seeds: int
) -> None:
    asked: Json = {"methods": methods, "seeds": seeds}
    maft.kube.apply(comparison(maft, namespace, **asked))
    expected, printed = compared_here(maft, tmp_path, **asked)
    maft.kube.wait(
        lambda: condition(maft, namespace, "Complete").get("status") == "True",
        LIMIT,
        lambda: explained(maft, namespace),
    )
    ended = status(maft, namespace)
    assert table(maft, namespace) == expected
    runs = len(methods) * seeds
    assert [row["phase"] for row in ended["rows"]] == ["Complete"] * runs and ended["runs"]["text"] == f"{runs}/{runs}"
    lines = [line.split()[:2] for line in ended["table"].splitlines()[1 : 1 + len(methods)]]
    assert all(any(other.split()[:2] == line for other in printed.splitlines()) for line in lines)
    page = maft.read(ended["report"].removeprefix(f"s3://{BUCKET}/")).decode()
    assert all(f'<td class="words">{method}</td>' in page for method in methods)
    nothing_was_asked_twice(maft, namespace, runs)


def nothing_was_asked_twice(maft: Installed, namespace: str, runs: int) -> None:
    """Runs of one group save the calls that they made; each is there once, and the questions are all runs' own."""
    saved = [key for key in maft.keys(namespace, NAME) if "/calls/" in key]
    calls = Counter(json.loads(line)["key"] for key in saved for line in maft.read(key).decode().splitlines())
    assert calls and set(calls.values()) == {1}
    names = [run["metadata"]["name"] for run in maft.kube.list(RUNS, namespace, f"maft.dev/comparison={NAME}")]
    drawn = {maft.read(f"runs/{namespace}/{name}/problems/held-out.jsonl") for name in (*names, NAME)}
    assert len(names) == runs and len(drawn) == 1


def test_it_is_stopped_resumed_and_deleted_with_its_runs(maft: Installed, namespace: str) -> None:
    kube = maft.kube
    kube.apply(comparison(maft, namespace, latency=0.3, methods=["multiagent"]))
    kube.wait(
        lambda: [p for p in kube.list("Pod", namespace) if p["status"]["phase"] == "Running"],
        LIMIT / 3,
        lambda: explained(maft, namespace),
    )
    kube.merge(KIND, namespace, NAME, {"spec": {"suspend": True}})
    kube.wait(lambda: condition(maft, namespace, "Suspended").get("status") == "True", 60, lambda: explained(maft, namespace))
    kube.wait(lambda: all(run["status"]["phase"] == "Suspended" for run in kube.list(RUNS, namespace)), 90)
    kube.wait(lambda: not kube.list("Pod", namespace), 90, lambda: explained(maft, namespace))
    kube.merge(KIND, namespace, NAME, {"spec": {"suspend": False}})
    kube.wait(lambda: not any(run["spec"]["suspend"] for run in kube.list(RUNS, namespace)), 60)
    kube.delete(KIND, namespace, NAME)
    kube.wait(lambda: not kube.list(RUNS, namespace) and not kube.list("Job", namespace), 120, lambda: explained(maft, namespace))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"template": {"seed": 7}}, "spec.template is immutable; make a comparison with another name"),
        ({"template": {"debate": {"rounds": 3}}}, "spec.template is immutable"),
        ({"template": {"budget": {"seconds": 60}}}, "spec.template is immutable"),
        ({"template": {"agents": 0}}, "should be greater than or equal to 1"),
        ({"methods": ["bass"]}, "Unsupported value"),
        ({"maxParallel": 0}, "should be greater than or equal to 1"),
    ],
)
def test_the_api_server_refuses_what_may_not_change(maft: Installed, namespace: str, change: Json, words: str) -> None:
    maft.kube.apply(comparison(maft, namespace, suspend=True))
    with pytest.raises(UnprocessibleEntityError) as caught:
        maft.kube.merge(KIND, namespace, NAME, {"spec": change})
    assert words in str(caught.value.body)


def test_what_no_rule_of_the_api_server_sees_is_rejected_with_its_field(maft: Installed, namespace: str) -> None:
    maft.kube.apply(comparison(maft, namespace, grid={"debate.round": [2, 3]}))
    told = maft.kube.wait(lambda: condition(maft, namespace, "Accepted").get("message"), 60, lambda: explained(maft, namespace))
    assert "spec.grid[debate.round]: no field of a run; did you mean debate.rounds?" in told
    assert not maft.kube.list(RUNS, namespace)
