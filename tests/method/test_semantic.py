"""Answers compared by their vectors: the encoder, the threshold and its error, debates, what `prepare` commits and refuses."""

import asyncio
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file
from small import a_spec
from societies import RUN, ask, post, society, trained
from test_debate import DEBATE, SOCIETY, MemoryEngine

from maft import evaluate, records
from maft.answers import encoder, likeness, packaged
from maft.answers.equality import Checker
from maft.answers.extract import extract
from maft.answers.likeness import DEFAULT, LONG, META, PAIRS, Likeness, Pair, fitted, pairs, threshold
from maft.chat_template import load_chat_template
from maft.debate import vectors
from maft.debate.prompts import Prompts
from maft.debate.question import Question, Setup
from maft.debate.society import Rules
from maft.diversity import embeddings
from maft.errors import BadInput
from maft.prepare.__main__ import main as prepare
from maft.program import Assignment
from maft.records import Alike, Problem, Transcript
from maft.store import layout
from maft.store.commits import committed, fetch_records, publish
from maft.store.files import FileStore
from maft.summaries import Threshold

PACKAGED = packaged.folder("", "") if packaged.is_installed() else Path("none")


@pytest.fixture(scope="module")
def embed():
    return encoder.load("package")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged encoder, to be spoilt."""
    weights = "model.safetensors"
    shutil.copytree(PACKAGED, tmp_path / "encoder", ignore=shutil.ignore_patterns(weights))
    (tmp_path / "encoder" / weights).symlink_to(PACKAGED / weights)
    return tmp_path / "encoder"


# --- the encoder ---


@pytest.mark.parametrize("text", ["Add the two numbers first.", "", "Zoë ate 3½ pears — why?", "word " * 200, "你好"])
def test_vectors_are_those_of_the_library(embed, text: str) -> None:
    assert np.abs(embed(text) - embeddings.load("package")([text])[0].numpy()).max() < 2e-6


def test_all_of_a_long_text_counts(embed) -> None:
    begin = "The engine is cold. " * 80
    assert float(embed(begin) @ embed(begin + "Penguins eat fish. " * 80)) < 0.95
    assert np.linalg.norm(embed(begin)) == pytest.approx(1)


def test_the_first_token_alone_where_the_folder_says_so(embed, folder: Path) -> None:
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    assert float(encoder.load(str(folder))("Bees make honey.") @ embed("Bees make honey.")) < 0.999


def test_a_vector_is_the_same_in_all_threads(embed) -> None:
    texts = [f"Pear number {i} is ripe." for i in range(8)]
    with ThreadPoolExecutor(4) as threads:
        assert all((one == embed(text)).all() for one, text in zip(threads.map(embed, texts), texts, strict=True))


def change(name: str, **values):
    def spoil(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return spoil


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    begin = file.read_bytes()[:1000]
    file.unlink()
    file.write_bytes(begin)


def nowhere(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    file.unlink()
    save_file({**weights, "embeddings.LayerNorm.bias": weights["embeddings.LayerNorm.bias"] * np.nan}, file)


LONGER = (("config.json", {"max_position_embeddings": 4096}), ("sentence_bert_config.json", {"max_seq_length": 4096}))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change("config.json", model_type="mpnet"), "model_type 'mpnet'; take an encoder with 'bert'"),
        (change("config.json", hidden_act="relu"), "hidden_act 'relu'"),
        (change("config.json", position_embedding_type="relative_key"), "position_embedding_type"),
        (change("config.json", num_attention_heads=None), "num_attention_heads None"),
        (change("config.json", num_hidden_layers=12), r"lacks encoder\.layer\.6\.attention"),
        (change("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True), "pooling_mode_max_tokens"),
        (lambda folder: (folder / "1_Pooling/config.json").unlink(), "1_Pooling/config.json is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json cannot be read"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors cannot be read"),
        (cut, "model.safetensors cannot be read"),
        (change("sentence_bert_config.json", max_seq_length="256"), "max_seq_length '256'; expected a whole number above 2"),
        (change("sentence_bert_config.json", max_seq_length=2), "max_seq_length 2; expected"),
        (change("config.json", num_attention_heads=7), "do not fit together"),
        (lambda f: [change(n, **v)(f) for n, v in LONGER], "do not fit together"),
        (nowhere, "gives numbers that are none"),
        (shutil.rmtree, r"config\.json is missing"),
    ],
)
def test_what_is_no_encoder_is_refused_in_one_line(folder: Path, spoil, reason: str) -> None:
    spoil(folder)
    with pytest.raises(BadInput, match=rf"^task\.semantic\.embedder: .*{reason}") as refused:
        encoder.load(str(folder))
    assert "\n" not in str(refused.value)


# --- the threshold ---


def labelled(same: list[float], different: list[float], questions: int = 10) -> list[Pair]:
    values = [(cosine, True) for cosine in same] + [(cosine, False) for cosine in different]
    return [Pair(str(i % questions), cosine, label) for i, (cosine, label) in enumerate(values)]


def test_a_threshold_that_parts_all_pairs_lies_in_the_middle_and_errs_never() -> None:
    chosen = threshold(labelled([0.8] * 30, [0.4] * 30), None)
    assert (chosen.cosine, chosen.source, chosen.pairs) == (0.6, "fitted", 60)
    assert chosen.error and chosen.error.mean == chosen.joined == chosen.parted == 0
    assert chosen.text == "answers the same from a cosine of 0.6 on, fitted; 0.0 ± 0.0 % of 60 labelled pairs wrong"


def test_each_question_is_judged_by_the_threshold_that_the_others_give() -> None:
    """One question has all that is near and different: with it, the threshold would spare it."""
    own = [Pair("odd", 0.5 + i / 1000, False) for i in range(3)]
    others = [Pair(str(i), 0.45 + i / 1000, True) for i in range(30)] + [Pair(str(i), 0.1, False) for i in range(30)]
    chosen = threshold([*own, *others], None)
    assert chosen.error and chosen.error.mean == pytest.approx(1 / 31, abs=1e-3)
    assert chosen.joined == pytest.approx(3 / 33, abs=1e-3) and chosen.parted == 0


@pytest.mark.parametrize(
    ("same", "different"),
    [(PAIRS // 2 - 1, PAIRS // 2), (PAIRS, 0), (0, PAIRS), (0, 0)],
    ids=["too few", "the same alone", "different alone", "none"],
)
def test_too_few_labels_give_the_default(same: int, different: int) -> None:
    chosen = threshold(labelled([0.8] * same, [0.4] * different), None)
    assert (chosen.cosine, chosen.source, chosen.pairs) == (DEFAULT, "default", same + different)
    assert (chosen.error is None) == (not (same and different))


def test_a_given_threshold_counts_and_is_measured() -> None:
    chosen = threshold(labelled([0.8] * 30, [0.4] * 30), 0.9)
    assert (chosen.cosine, chosen.source, chosen.joined, chosen.parted) == (0.9, "given", 0, 1)
    assert threshold([], 0.9) == Threshold(cosine=0.9, source="given")


cosines = st.floats(-0.99, 0.99).map(lambda value: round(value, 4))


@settings(max_examples=200)
@example([(0.5, False), (-0.8757, True), (-0.8758, False)])
@given(st.lists(st.tuples(cosines, st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_errs_less(drawn: list[tuple[float, bool]]) -> None:
    drawn = [*drawn, (0.3, True), (0.2, False)]
    both = [Pair(str(i), cosine, same) for i, (cosine, same) in enumerate(drawn)]

    def wrong(bound: float) -> float:
        faults = {label: [(p.cosine >= bound) != p.same for p in both if p.same == label] for label in (True, False)}
        return sum(sum(each) / len(each) for each in faults.values())

    best = fitted(both)
    assert all(wrong(best) <= wrong(cosine + step) + 1e-9 for cosine, _ in drawn for step in (-1e-5, 0, 1e-5))


def test_pairs_are_what_says_the_same_with_each_other_and_with_what_does_not(embed) -> None:
    problem = Problem(
        "id", "?", "Bees make honey.", alike=Alike(("Honey is made by bees.", "They make honey."), ("Bees make silk.",))
    )
    made = list(pairs([problem, Problem("other", "?", "x")], embed))
    assert [pair.same for pair in made] == [True] * 3 + [False] * 3 and {pair.question for pair in made} == {"id"}


# --- debates ---

PROBLEM = Problem("id", "What do bees make?", "Bees make honey.")
SAID = {
    "g0": "Bees make honey.",
    "g1": "The bees produce honey.",
    "g2": "Whales swim in the ocean.",
    "c0": "They make honey, the bees.",
    "c1": "bees  make honey.",
    "c2": "A whale swims in the sea.",
}


@pytest.fixture(scope="module")
def template():
    return load_chat_template(str(TINY), None)


def debate(template, embed, says=SAID, problem=PROBLEM, **changes) -> tuple[Transcript, MemoryEngine]:
    engine = MemoryEngine(template, lambda model, text: says.get(model, "so"))
    rules = Rules(replace(DEBATE, rounds=2, max_tokens=80, **changes), Prompts("{question}", DEBATE.prompts), "semantic", 0, 1)

    async def debated():
        with Checker("semantic") as checker, ThreadPoolExecutor(2) as threads:
            setup = Setup(rules, SOCIETY, engine, template, checker, {"s": 512}, threads, likeness=Likeness(embed, 0.8))
            return await Question(setup, 0, problem).run()

    return asyncio.run(debated()), engine


def test_answers_that_are_near_vote_together_and_no_model_is_asked(template, embed) -> None:
    transcript, engine = debate(template, embed)
    assert [vote.votes for vote in transcript.votes] == [2, 2] and transcript.vote.right
    assert [turns[-1].agrees for turns in transcript.turns] == [True, True, False]
    assert transcript.turns[1][1].parsed == transcript.turns[0][0].parsed == "Bees make honey."
    assert len(engine.asked) == len(list(transcript.calls()))
    judged = transcript.judgements or ()
    assert judged and all(j.same == (j.cosine >= 0.8) and not j.calls for j in judged)
    assert records.decode(records.encode(transcript), Transcript, "here") == transcript


def test_equal_seeds_give_equal_transcripts(template, embed) -> None:
    one, other = (records.encode(debate(template, embed)[0]) for _ in range(2))
    assert one == other


def test_the_fast_mode_ends_where_all_are_near(template, embed) -> None:
    transcript, _ = debate(template, embed, {"g0": "Honey.", "g1": "honey", "g2": " Honey. "}, mode="fast")
    assert len(transcript.votes) == 1 and transcript.vote.votes == 3


def test_without_a_reference_nothing_is_right(template, embed) -> None:
    transcript, _ = debate(template, embed, problem=Problem("id", "What do bees make?", ""))
    assert transcript.vote.votes == 2 and not transcript.vote.right


def test_the_whole_reply_is_the_answer_and_a_cut_one_is_none() -> None:
    assert extract("<think>7</think>\nBees make honey. The answer is 7.", "semantic") == "Bees make honey. The answer is 7."
    assert extract("Bees make", "semantic", complete=False) is None
    assert extract("  ", "semantic") is None


# --- prepare ---


def rows(count: int, **more: object) -> list[dict[str, object]]:
    return [{"question": f"What is thing {i}?", "answer": f"Thing {i} is a pear.", **more} for i in range(count)]


def assignment(tmp_path: Path, written: list[dict[str, object]], group: str = "", **semantic: object) -> Assignment:
    source = tmp_path / "questions.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in written))
    task = {
        "kind": "jsonl",
        "source": str(source),
        "answer": "semantic",
        "train": 3,
        "heldOut": 3,
        "probe": 30,
        "semantic": semantic,
    }
    return Assignment(FileStore(tmp_path / "store"), "ns/run", given_spec=a_spec(task=task), group=group)


ALIKE = {"same": ["It is a pear."], "different": "A thing is a whale in the sea."}


@pytest.mark.parametrize("group", ["", "ns/group"])
def test_the_threshold_is_fitted_on_the_probe_and_debates_find_it(tmp_path: Path, group: str) -> None:
    assigned = assignment(tmp_path, rows(40, **ALIKE), group)
    summary = prepare(assigned)
    assert summary.semantic and summary.semantic.source == "fitted" and summary.semantic.pairs == 90 and not summary.warnings
    commit = committed(assigned.store, f"ns/run/{layout.PROBLEMS}")
    assert commit and records.described(commit, META, Threshold) == summary.semantic
    alike = vectors.likeness(assigned, "semantic")
    assert alike and alike.threshold == summary.semantic.cosine
    assert prepare(assigned).semantic == summary.semantic


def test_labels_stay_with_the_probe(tmp_path: Path) -> None:
    assigned = assignment(tmp_path, rows(40, **ALIKE))
    prepare(assigned)
    commit = committed(assigned.store, f"ns/run/{layout.PROBLEMS}")
    assert commit
    has = {part: {p.alike is not None for p in fetch_records(assigned.store, commit, f"{part}.jsonl", Problem)} for part in PARTS}
    assert has == {"train": {False}, "held-out": {False}, "probe": {True}}


PARTS = ("train", "held-out", "probe")


def test_without_labels_the_default_counts_and_people_are_told(tmp_path: Path) -> None:
    summary = prepare(assignment(tmp_path, rows(40)))
    assert summary.semantic == Threshold(cosine=DEFAULT, source="default")
    [line] = summary.warnings
    assert line.startswith("task.semantic.threshold: none was fitted") and "0 labelled pairs" in line


@pytest.mark.parametrize(("words", "warned"), [(20, 0), (31, 1)])
def test_long_questions_are_warned_of(tmp_path: Path, words: int, warned: int) -> None:
    """Behind them even a threshold that somebody gave joins all answers."""
    long = [{**row, "question": f"{'so ' * (words - 4)}{row['question']}"} for row in rows(40)]
    lines = prepare(assignment(tmp_path, long, threshold=0.9)).warnings
    assert len(lines) == warned and all(f" behind {words} words " in line for line in lines)


def test_an_encoder_that_cannot_tell_is_warned_of(tmp_path: Path) -> None:
    same = {"same": ["The moon is far away."], "different": ["Thing is a pear."]}
    summary = prepare(assignment(tmp_path, rows(40, **same)))
    [line] = summary.warnings
    assert summary.semantic and summary.semantic.error and summary.semantic.error.mean > 0.25
    assert line.startswith("task.semantic.embedder: its vectors put")


@pytest.mark.parametrize("value", [7, [7], [""], {"a": 1}, ["x"] * 21, [None]])
@pytest.mark.parametrize("column", ["same", "different"])
def test_labels_of_another_shape_are_refused(tmp_path: Path, column: str, value: object) -> None:
    with pytest.raises(BadInput, match=rf"questions\.jsonl line 1: {column} is .*; expected at most 20 texts"):
        prepare(assignment(tmp_path, rows(40, **{column: value})))


@pytest.mark.parametrize(
    "labels", [{"same": ["It is grey."], "different": ["It  is Grey."]}, {"different": ["Thing 0 is a pear."]}]
)
def test_what_says_the_same_and_does_not_is_refused(tmp_path: Path, labels: dict[str, list[str]]) -> None:
    with pytest.raises(BadInput, match=r"questions\.jsonl line 1: '.*' is among different, and is the answer or among same"):
        prepare(assignment(tmp_path, [{"question": "What is thing 0?", "answer": "Thing 0 is a pear.", **labels}, *rows(40)[1:]]))


def test_worked_examples_would_make_all_answers_the_same(embed, tmp_path: Path) -> None:
    """Each answer is read behind its question, and examples are most of that text."""
    question, *answers = "What do bees make?", "Bees make honey.", "They make wax figures of kings."
    shots = "".join(f"Question: What is thing {i}?\nAnswer: Thing {i} is a pear.\n\n" for i in range(4))
    near, far = (likeness.cosine(embed, asked, *answers) for asked in (f"{shots}Question: {question}", question))
    assert far < DEFAULT < near
    given = assignment(tmp_path, rows(40))
    other = {"kind": "jsonl", "source": given.spec.task.source, "answer": "semantic", "heldOut": 2, "shots": 2}
    asked = a_spec(evaluation={"task": other})
    with pytest.raises(BadInput, match=r"^evaluation\.task\.shots: worked examples stand before both answers"):
        prepare(dataclasses.replace(given, given_spec=asked))


def test_other_kinds_have_no_labels_and_no_threshold(tmp_path: Path) -> None:
    source = tmp_path / "questions.jsonl"
    source.write_text("".join(json.dumps({"question": f"{i}?", "answer": "7", "same": 7}) + "\n" for i in range(10)))
    task = {"kind": "jsonl", "source": str(source), "train": 3, "heldOut": 3}
    assigned = Assignment(FileStore(tmp_path / "store"), "ns/run", given_spec=a_spec(task=task))
    assert prepare(assigned).semantic is None
    assert vectors.likeness(assigned, "number") is None


@pytest.mark.parametrize("answer", ["เพราะทะเลสะท้อนขึ้นไป {}", "因为海水反射到天上。{}"])
def test_answers_that_the_encoder_cannot_read_end_prepare(tmp_path: Path, answer: str) -> None:
    """One unknown word is like the other: everybody would agree with everybody."""
    foreign = [{"question": f"{i}?", "answer": answer.format(i)} for i in range(40)]
    with pytest.raises(BadInput, match=r"^task\.semantic\.embedder: has no word or letter for \d+% of the answers in \S+\.jsonl"):
        prepare(assignment(tmp_path, foreign))


def test_only_what_is_compared_has_to_suit_the_encoder(tmp_path: Path) -> None:
    """Held-out questions may be of another task than those that are trained on."""
    source = tmp_path / "foreign.jsonl"
    source.write_text("".join(json.dumps({"question": f"{i}?", "answer": f"เพราะทะเลสะท้อนขึ้นไป {i}"}) + "\n" for i in range(10)))
    long = [{**row, "question": f"{'so ' * 40}{row['question']}"} for row in rows(40)]
    given = assignment(tmp_path, long)
    task = {"kind": "jsonl", "source": str(source), "answer": "text", "train": 3}
    other = {"kind": "jsonl", "source": given.spec.task.source, "answer": "semantic", "heldOut": 3}
    summary = prepare(dataclasses.replace(given, given_spec=a_spec(task=task, evaluation={"task": other})))
    assert summary.semantic and [line.split(":")[0] for line in summary.warnings] == ["task.answer", "task.semantic.threshold"]


def test_an_encoder_that_is_not_there_ends_prepare(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^task\.semantic\.embedder: .*config\.json is missing"):
        prepare(assignment(tmp_path, rows(40), embedder=str(tmp_path / "none")))


def test_vectors_of_another_threshold_are_another_run(tmp_path: Path) -> None:
    prepare(assignment(tmp_path, rows(40), threshold=0.5))
    with pytest.raises(BadInput, match=r"made with spec\.task\.semantic"):
        prepare(assignment(tmp_path, rows(40), threshold=0.6))


@pytest.mark.programs
def test_programs_choose_their_threads_before_numpy_is_there() -> None:
    programs = ("debate.__main__", "evaluate", "prepare.__main__", "endpoint.__main__")
    line = f"import {', '.join(f'maft.{name}' for name in programs)}, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 0


@pytest.mark.programs
def test_a_whole_debate_goes_by_the_threshold_that_prepare_left(tmp_path: Path, mock_url: str) -> None:
    assigned = assignment(tmp_path, rows(40, **ALIKE))
    summary = prepare(assigned)
    debated = evaluate.main(dataclasses.replace(assigned, servers={"society": [mock_url]}))
    commit = committed(assigned.store, layout.evaluation("ns/run", 0))
    assert commit and summary.semantic and debated.questions == 3
    transcripts = fetch_records(assigned.store, commit, layout.TRANSCRIPTS, Transcript)
    judged = [judgement for transcript in transcripts for judgement in transcript.judgements or ()]
    assert judged and all(judgement.same == (judgement.cosine >= summary.semantic.cosine) for judgement in judged)
    assert debated.usage.calls == sum(1 for transcript in transcripts for _ in transcript.calls())


@pytest.mark.programs
def test_a_society_compares_answers_as_its_run_did(tmp_path: Path) -> None:
    """With a threshold that nothing reaches but equal texts, and one that everything does."""
    votes = []
    for bound in (1.0, -1.0):
        folder = tmp_path / str(bound)
        spec = trained(folder / "store", task={"answer": "semantic", "semantic": {"threshold": bound}})
        chosen = {META: records.plain(Threshold(cosine=bound, source="given"))}
        publish(FileStore(folder / "store"), f"{RUN}/{layout.PROBLEMS}", {}, meta=chosen)
        with society(folder, spec) as url:
            bodies = [post(url, ask(question=f"What is {n}+3*4?", maft={"transcript": True}))[1] for n in range(4)]
            long = post(url, ask(question=f"{'please ' * LONG}What is 2+3*4?"))[1]
        debates = [body["choices"][0]["maft"] for body in bodies]
        assert f" behind {LONG + 3} words " in long["choices"][0]["maft"]["warning"]
        assert not [debate for debate in debates if "warning" in debate]
        assert all("cosine" in judged for debate in debates for judged in debate["transcript"]["judgements"])
        votes.append([debate["transcript"]["votes"][-1]["votes"] for debate in debates])
    apart, together = votes
    assert min(apart) < 3 and set(together) == {3}
