"""The commands of docs/serving.md and docs/comparing.md for a cluster, as they stand there, on a real one.

The deterministic engine answers. In examples/comparison.yaml bucket, endpoint and keys are set, as the page says, and the runs made
small.
"""

import re
from pathlib import Path

import pytest
import yaml
from comparisons import KIND, LIMIT
from installed import BUCKET, Installed
from kube import Json
from tried import COMPARING, SERVING, Terminal, of, on_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(1800)]


@pytest.fixture(name="terminal")
def terminal_fixture(maft: Installed, namespace: str, tmp_path: Path) -> Terminal:
    return on_cluster(maft.kube.kubeconfig, maft.cluster.kubectl, namespace, tmp_path)


def filled_in(maft: Installed, file: Path) -> None:
    """Writes what of the example is this cluster's, and what keeps the runs small."""
    secret, comparison = yaml.safe_load_all(file.read_text())
    secret["stringData"] = {
        "AWS_ACCESS_KEY_ID": maft.cluster.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": maft.cluster.s3_secret_key,
    }
    template: Json = comparison["spec"]["template"]
    changes: Json = {
        "model": {"source": maft.url("tiny")},
        "task": {"source": maft.url("tiny/questions.jsonl"), "train": 24, "heldOut": 16},
        "training": {"minExamples": 2},
        "storage": {"bucket": BUCKET, "endpoint": maft.cluster.s3_endpoint},
        **maft.mocked(),
    }
    comparison["spec"]["template"] = {**template, **{k: {**template.get(k, {}), **change} for k, change in changes.items()}}
    file.write_text(yaml.safe_dump_all([secret, comparison]))


def test_a_comparison_is_applied_watched_and_read_as_the_page_says(maft: Installed, namespace: str, terminal: Terminal) -> None:
    filled_in(maft, terminal.folder / "examples" / "comparison.yaml")
    begin, end = (block for block in of(COMPARING, "Try it") if "kubectl" in block.text)
    validate, plan, apply, get, runs, watch = begin.commands
    assert terminal.run(validate).endswith("default/methods, a comparison of 6 runs, is valid\n")
    planned = [line.partition(" ")[0] for line in terminal.run(plan).splitlines() if not line.startswith("#")]
    assert "methods created" in terminal.run(apply)
    with terminal.until_interrupted(get) as going:
        maft.kube.wait(lambda: bool(maft.kube.list("MultiAgentFinetune", namespace)), 120, maft.operator_log)
        head, *rows = terminal.run(runs).splitlines()
        assert head.split()[-2:] == ["METHOD", "SEED"] and {row.split()[0] for row in rows} <= {*planned}
        watched = terminal.run(watch, LIMIT)
        maft.kube.wait(lambda: "Complete" in going.log.read_text(), 60, going.log.read_text)
        phases = re.findall(r"\b(Running|Comparing|Complete)\b", going.log.read_text())
    assert list(dict.fromkeys(phases)) == ["Running", "Comparing", "Complete"]
    assert {run["metadata"]["name"] for run in maft.kube.list("MultiAgentFinetune", namespace)} == {*planned}
    table, report = (terminal.run(command) for command in end.commands)
    assert table and table.strip() in watched
    assert table == (maft.kube.get(KIND, namespace, "methods") or {})["status"]["table"]
    assert report == f"s3://{BUCKET}/runs/{namespace}/methods/compare/index.html"
    assert maft.read(report.removeprefix(f"s3://{BUCKET}/")).startswith(b"<!doctype html>")


def test_a_society_is_applied_asked_and_given_a_certificate_as_the_page_says(
    maft: Installed, namespace: str, terminal: Terminal
) -> None:
    run = maft.resource("arithmetic", namespace, agents=3, iterations=1, evaluation={"baselines": []}, **maft.mocked())
    maft.kube.apply(run)
    maft.kube.wait_complete(namespace, "arithmetic", LIMIT)
    served, keys, encrypted = of(SERVING, "On a cluster")
    *before, ask = served.commands
    printed = [terminal.run(command, LIMIT) for command in before]
    assert printed[0] == "society.maft.dev/arithmetic created\n" and printed[1].endswith("condition met\n")
    assert printed[2].splitlines()[1].split()[:5] == ["arithmetic", "Ready", "arithmetic", "1", "1/1"]
    debate = terminal.run(ask).splitlines()
    assert re.fullmatch(r"answer (-?\d+), margin \d of 3; agents? .+ agrees?", debate[-1])
    assert [terminal.run(command) for command in keys.commands] == ["secret/keys created\n"]
    assert [terminal.run(command) for command in encrypted.commands][1:] == [
        "secret/certificate created\n",
        "society.maft.dev/arithmetic patched\n",
    ]

    def url() -> str:
        return str((maft.kube.get("Society", namespace, "arithmetic") or {})["status"]["url"])

    maft.kube.wait(lambda: url() == f"https://arithmetic.{namespace}.svc/v1", LIMIT, maft.operator_log)
    assert terminal.run(ask).splitlines()[-1] == debate[-1]
