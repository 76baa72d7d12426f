"""The real model's example in small: a pretrained model with its own tokenizer and chat template, a real vLLM server, adapters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small import Json

from maft.records import Transcript, Turn, decode_lines
from maft.spec import immutable_spec_json
from maft_operator.spec import files
from maft_operator.spec.parse import parse

pytestmark = [pytest.mark.engine, pytest.mark.pretrained, pytest.mark.nightly]
EXAMPLE = ROOT / "examples" / "real.yaml"
SMALL = ("task.train=8", "task.heldOut=6", "training.batchSize=2", "training.minExamples=2")


@pytest.fixture(scope="module")
def top(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("pretrained")
    command = [sys.executable, "-m", "maft_operator", "run", str(EXAMPLE), "--dir", str(folder)]
    for setting in SMALL:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    top = folder / "default" / "real"
    logs = "\n".join(p.read_text()[-2000:] for p in top.glob("local/*/log*.txt"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return top


def spec() -> Json:
    return json.loads(immutable_spec_json(parse(files.load(EXAMPLE, SMALL)).spec))


def debated(top: Path, part: str) -> list[Transcript]:
    path = top / "iterations" / part / "part-0.jsonl"
    return decode_lines(path.read_bytes(), Transcript, str(path))


def answers(transcripts: list[Transcript]) -> list[Turn]:
    return [turn for transcript in transcripts for agent in transcript.turns for turn in agent]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / ".cache" / "models" / "smollm2-135m-instruct")


@pytest.mark.timeout(1200)  # three minutes on two idle cores
def test_it_knows_some_sums_and_learns_from_debate(top):
    """Before: neither hopeless nor perfect, or debates have nothing to teach. After: losses fell, and what was trained is asked."""
    untrained = answers(debated(top, "0/evaluation"))
    assert 0 < sum(turn.right for turn in untrained) < len(untrained)
    adapters = [json.loads(path.read_text())["meta"]["adapter"] for path in top.glob("iterations/1/adapters/*/_COMMIT.json")]
    assert len(adapters) == 6
    trained = [adapter for adapter in adapters if adapter["trained"]]
    assert "generator" in {adapter["role"] for adapter in trained}
    assert sum(adapter["lossLast"] for adapter in trained) < sum(adapter["lossFirst"] for adapter in trained)
    asked = {turn.call.model for turn in answers(debated(top, "1/evaluation"))}
    assert asked == {adapter["name"] for adapter in adapters}


def test_prompts_are_those_of_the_models_own_template(top, tokenizer):
    """Its own system turn is in them: as many tokens as the tokenizer's own rendering has."""
    for transcript in debated(top, "0/evaluation"):
        for turn in (agent[0] for agent in transcript.turns):
            chat = [{"role": "user", "content": turn.prompt}]
            ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
            assert turn.call.prompt_tokens == len(ids)
            assert "SmolLM" in tokenizer.decode(ids)


def test_what_was_sampled_is_what_is_shown(top, tokenizer):
    """Tokens, text, end: an answer that the model ended has its end token last; a cut one has as many as it was allowed."""
    for turn in answers(debated(top, "0/evaluation") + debated(top, "1/evaluation")):
        assert tokenizer.decode(turn.call.ids, skip_special_tokens=True) == turn.call.text
        assert len(turn.call.ids) == turn.call.completion_tokens
        if turn.call.cut:
            assert len(turn.call.ids) == spec()["debate"]["maxTokens"]
        else:
            assert turn.call.ids[-1] == tokenizer.eos_token_id


def test_votes_and_marks_are_those_of_the_answers(top):
    """Counted anew, with plain integers."""
    for transcript in debated(top, "0/evaluation") + debated(top, "1/evaluation"):
        for m, vote in enumerate(transcript.votes):
            parsed = [agent[m].parsed for agent in transcript.turns]
            assert vote.votes == max((parsed.count(p) for p in parsed if p is not None), default=0)
            assert vote.right == (vote.answer == transcript.problem.answer)
        last = [agent[-1] for agent in transcript.turns]
        assert [turn.agrees for turn in last] == [
            turn.parsed is not None and turn.parsed == transcript.vote.answer for turn in last
        ]
        assert [turn.right for turn in last] == [turn.parsed == transcript.problem.answer for turn in last]
