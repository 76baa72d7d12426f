"""lm-evaluation-harness asks a society as it asks any chat model: its own client, its own task, its own numbers."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import TINY
from societies import ask, post, society, trained

pytestmark = [
    pytest.mark.nightly,  # half a minute of imports
    pytest.mark.skipif(shutil.which("lm-eval") is None, reason="no lm-eval here"),
]
QUESTIONS = 12
TASK = {
    "task": "sums",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "sums.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 64},
    "filter_list": [
        {
            "name": "last",
            "filter": [
                {"function": "regex", "regex_pattern": r"(-?\d+)", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def measured(folder: Path, url: str, model: str) -> float:
    asked = f"model={model},base_url={url}/v1/chat/completions,num_concurrent=4,max_retries=1"
    command = ["lm-eval", "run", "--model", "local-chat-completions", "--model_args", asked, "--apply_chat_template"]
    command += ["--tasks", "sums", "--include_path", str(folder), "--output_path", str(folder / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OPENAI_API_KEY": "any"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=folder, env={**os.environ, **offline})
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (folder / "out").rglob("results_*.json")
    return json.loads(results.read_text())["results"]["sums"]["exact_match,last"]


@pytest.mark.parametrize("model", ["society", "society/majority"])  # with the debate, as the page has it, and without
def test_lm_eval_measures_what_the_society_answers(tmp_path, model):
    rows = [json.loads(line) for line in (TINY / "questions.jsonl").read_text().splitlines()[:QUESTIONS]]
    rows = [{**row, "answer": "-1"} if n % 3 == 0 else row for n, row in enumerate(rows)]  # a debate would answer all of them right
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.yaml").write_text(yaml.safe_dump(TASK))
    spec = trained(tmp_path / "store")
    with society(tmp_path, spec) as url:
        accuracy = measured(tmp_path, url, model)
        sent = {"temperature": 0, "seed": 1234, "max_tokens": 64}  # as lm-eval sends them
        bodies = [post(url, ask(model, row["question"], **sent))[1] for row in rows]
    right = [body["choices"][0]["maft"]["answer"] == row["answer"] for body, row in zip(bodies, rows, strict=True)]
    assert accuracy == pytest.approx(sum(right) / QUESTIONS) and 0 < accuracy < 1
