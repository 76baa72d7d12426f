"""`maft run` and `maft compare` with agents of two base models: real programs, a deterministic engine for each server."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import write
from other_model import other_model
from safetensors.torch import load_file
from test_run import MAFT, SERVE, command, resource

from maft.records import Diversity, Transcript, decode

pytestmark = [pytest.mark.run, pytest.mark.timeout(900)]
LIMIT = 800.0  # seconds for a whole small run with three servers, on two cores that others use as well


def lines(path: Path) -> list[str]:
    return [line for file in sorted(path.glob("part-*.jsonl")) for line in file.read_text().splitlines()]


def two_bases() -> dict[str, Any]:
    return resource(
        iterations=1,
        debate={"minAgreement": 1},
        inference={"topology": "PerAgent"},
        evaluation={"diversity": 4, "embedder": "", "baselines": []},
        agentOverrides=[{"agent": 2, "model": {"source": "./other"}, "lora": {"rank": 8}, "temperature": 0.7}],
    )


def of_two_bases(top: Path) -> None:
    """Every agent's prompts, adapters and likelihoods are of its own model."""
    debated = [decode(line.encode(), Transcript, "debate") for line in lines(top / "iterations/1/debate")]
    assert len(debated) == 24
    for transcript in debated:
        lengths = [turns[0].call.prompt_tokens for turns in transcript.turns]
        assert lengths[0] == lengths[1] and lengths[2] == len(f"[user]{transcript.turns[2][0].prompt}[/user]")
    weights = {n: load_file(top / f"iterations/1/adapters/generator-{n}/adapter_model.safetensors") for n in range(3)}
    shapes = [next(t.shape for name, t in sorted(weights[n].items()) if "q_proj.lora_A" in name) for n in range(3)]
    assert shapes[0] == shapes[1] != shapes[2] == (8, 32)
    measured = decode((top / "iterations/1/diversity/diversity.json").read_bytes(), Diversity, "diversity")
    assert measured.per == "byte" and measured.kl is not None and len(measured.nll) == 3


@pytest.mark.nightly  # its programs one by one: test_differing_agents.py
def test_a_comparison_of_two_base_models(tmp_path: Path) -> None:
    """Rows of two base models and of one, in one table."""
    other_model(tmp_path / "other")
    file, runs = str(write(tmp_path / "run.yaml", two_bases())), tmp_path / "runs"
    line = [*MAFT, "compare", file, "--methods", "base,union,multiagent", "--seeds", "1", "--dir", str(runs), *SERVE]
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    of_two_bases(runs / "default/test-multiagent-0")
    rows = {row["method"]: row for row in json.loads((runs / "default/test/compare/compare.json").read_text())["rows"]}
    assert {name: row["adapters"] for name, row in rows.items()} == {"base": 0, "union": 2, "multiagent": 6}
    assert {name: row["perByte"] for name, row in rows.items()} == {"base": False, "union": False, "multiagent": True}


@pytest.mark.nightly
def test_a_run_of_two_base_models(tmp_path: Path) -> None:
    other_model(tmp_path / "other")
    spec = two_bases()
    done = subprocess.run(command(tmp_path, spec), capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"nats per byte under the others' models, KL ", done.stdout)
    top = tmp_path / "runs/default/test"
    of_two_bases(top)
    began = json.loads((top / "run.json").read_text())["spec"]["agentOverrides"][0]
    assert Path(began["model"]["source"]).name == "other"
