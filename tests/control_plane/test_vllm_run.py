"""`maft run` with real vLLM servers, in small: Shared and Run, PerAgent and Phase."""

import json
import re
import subprocess
import sys

import pytest
from conftest import resource, write

# A pretrained model on vLLM: test_pretrained_run.py; on a cluster: test_on_cluster.py.
pytestmark = [pytest.mark.engine, pytest.mark.nightly]


@pytest.mark.parametrize(
    ("topology", "lifetime", "agents"),
    [
        pytest.param("Shared", "Run", 3, id="shared-run"),
        pytest.param("PerAgent", "Phase", 2, id="per-agent-phase"),
    ],
)
def test_a_small_run(tmp_path, topology, lifetime, agents):
    spec = resource(
        agents=agents,
        inference={"topology": topology, "lifetime": lifetime},
        training={"topology": topology, "lora": {"rank": 8, "alpha": 16}, "epochs": 2},
        task={"train": 60, "heldOut": 40},
    )
    command = [
        sys.executable,
        "-m",
        "maft_operator",
        "run",
        str(write(tmp_path / "run.yaml", spec)),
        "--dir",
        str(tmp_path / "runs"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    logs = "\n".join(p.read_text()[-2000:] for p in tmp_path.glob("runs/default/test/local/*/log*.txt"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert re.search(r"multiagent finetuning, iteration 1\s*│", done.stdout)
    top = tmp_path / "runs/default/test/iterations/1"
    asked = {
        call["call"]["model"]
        for line in (top / "evaluation/part-0.jsonl").read_text().splitlines()
        for agent in json.loads(line)["turns"]
        for call in agent
    }
    named = {p.parent.name: json.loads(p.read_text())["meta"]["adapter"]["name"] for p in top.glob("adapters/*/_COMMIT.json")}
    assert len(named) == 2 * agents
    assert asked == set(named.values())
    assert any(name != "base" for name in named.values())
